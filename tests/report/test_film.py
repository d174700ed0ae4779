"""Films of pictures: sizes, order, durations and captions of what is in the file."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bitwright.errors import BitwrightError, ConfigError, DataError, ExportError
from bitwright.report.film import Frame, film


def picture(width: int = 120, height: int = 80, colour: tuple[int, ...] = (200, 30, 40), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def shades(count: int) -> list[Frame]:
    return [Frame(picture(40, 30, (i % 256, i // 256 * 50, 90))) for i in range(count)]


def content(path: Path) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """The pictures, (H, W, 3), and for how many milliseconds each is shown."""
    with Image.open(path) as opened:
        pictures, durations = [], []
        for number in range(opened.n_frames):
            opened.seek(number)
            pictures.append(np.asarray(opened.convert("RGB")))
            durations.append(opened.info["duration"])
        return pictures, durations


def test_smaller_pictures_lie_in_the_middle_on_white(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(picture(20, 40, (0, 0, 255)))
    film([Frame(picture(120, 80)), Frame(tmp_path / "small.png")], tmp_path / "film.gif")
    (large, small), durations = content(tmp_path / "film.gif")
    assert large.shape == small.shape == (80, 120, 3) and durations == [500, 500]
    assert np.all(large == (200, 30, 40))
    inside = np.zeros((80, 120), bool)
    inside[20:60, 50:70] = True
    assert np.all(small[inside] == (0, 0, 255)) and np.all(small[~inside] == 255)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    film([Frame(picture(colour=(10, 20, 30, 0), mode="RGBA"))], tmp_path / "film.gif")
    assert np.all(content(tmp_path / "film.gif")[0][0] == 255)


def test_captions_stand_above_the_pictures(tmp_path: Path) -> None:
    first = Frame(picture(300, 80), "step: 12,000  perplexity 98.31")
    film([first, Frame(picture(300, 80), "step: 13,000"), Frame(picture(300, 80))], tmp_path / "film.gif")
    shown, _ = content(tmp_path / "film.gif")
    strips = [frame[: len(frame) - 80] for frame in shown]
    assert all(np.all(frame[len(frame) - 80 :] == (200, 30, 40)) for frame in shown)
    dark = [int((strip.max(axis=2) < 128).sum()) for strip in strips]
    assert dark[0] > 1.5 * dark[1] > 0 and dark[2] == 0


def test_a_long_caption_is_written_smaller_so_that_it_fits(tmp_path: Path) -> None:
    film([Frame(picture(200, 80), "step: 12,000  perplexity 98.31")], tmp_path / "film.gif")
    (shown,), _ = content(tmp_path / "film.gif")
    strip = shown[: len(shown) - 80].max(axis=2) < 128
    assert strip.any() and not strip[:, -2:].any() and not strip[:, :2].any()


@pytest.mark.parametrize(("count", "most", "expected"), [(1, 50, 1), (49, 50, 49), (50, 50, 50), (1000, 50, 50)])
def test_any_number_of_pictures_makes_a_film(count: int, most: int, expected: int, tmp_path: Path) -> None:
    frames = shades(count)
    film(frames, tmp_path / "film.gif", max_frames=most)
    shown, durations = content(tmp_path / "film.gif")
    assert len(shown) == expected and set(durations) == {500}
    colours = [tuple(int(c) for c in frame[0, 0]) for frame in shown]
    assert colours == sorted(colours, key=lambda c: (c[1], c[0]))  # in their order
    assert colours[0] == (0, 0, 90)
    assert colours[-1] == ((count - 1) % 256, (count - 1) // 256 * 50, 90)


def test_a_film_of_one_frame_shows_the_last(tmp_path: Path) -> None:
    film(shades(9), tmp_path / "film.gif", max_frames=1)
    assert tuple(content(tmp_path / "film.gif")[0][0][0, 0]) == (8, 0, 90)


def test_equal_pictures_are_shown_as_long_as_all_of_them(tmp_path: Path) -> None:
    film([Frame(picture())] * 4, tmp_path / "film.gif", seconds_per_frame=0.25)
    assert sum(content(tmp_path / "film.gif")[1]) == 1000


def test_a_gif_repeats_without_end(tmp_path: Path) -> None:
    film(shades(3), tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as opened:
        assert opened.info["loop"] == 0


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("film.avi", {}, ".gif or an .mp4"),
        ("film", {}, ".gif or an .mp4"),
        ("film.gif", {"seconds_per_frame": 0.0}, "0.02"),
        ("film.gif", {"seconds_per_frame": float("nan")}, "0.02"),
        ("film.gif", {"max_frames": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    name: str, options: dict[str, float], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        film(shades(2), tmp_path / name, **options)  # type: ignore[arg-type]
    assert part in str(raised.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        ([], "at least one"),
        ([Frame(picture()), Frame(b"no picture")], "picture 2"),
        ([Frame(Path("missing.png"))], "missing.png"),
    ],
)
def test_a_missing_or_damaged_picture_is_named(frames: list[Frame], part: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        film(frames, tmp_path / "film.gif")
    assert part in str(raised.value) and "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_an_mp4_without_ffmpeg_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="ffmpeg"):
        film(shades(2), tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())


def test_what_ffmpeg_cannot_do_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'no such encoder' >&2\necho 'giving up' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BitwrightError, match="no such encoder giving up"):
        film(shades(2), tmp_path / "film.mp4")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
@pytest.mark.parametrize("count", [1, 4])
def test_an_mp4_shows_the_frames_one_after_the_other(count: int, tmp_path: Path) -> None:
    levels = [30, 90, 150, 220][:count]
    film([Frame(picture(41, 31, (v, v, v))) for v in levels], tmp_path / "film.mp4", seconds_per_frame=0.4)
    command = ["ffmpeg", "-loglevel", "error", "-i", str(tmp_path / "film.mp4"), "-f", "rawvideo", "-pix_fmt", "gray"]
    raw = subprocess.run([*command, "-"], capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(-1, 32, 42)
    assert len(shown) == 10 * count  # 0.4 seconds at 25 pictures a second
    middle = shown[5::10, 16, 21].astype(int)
    assert np.all(np.abs(middle - levels) < 8)
