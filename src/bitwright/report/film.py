"""A film of pictures, such as the cells that a search found one after the other, as .gif or, with ffmpeg, .mp4."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError, ExportError
from ..files import write_atomically
from ..pictures import decode

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

MOST_TEXT, LEAST_TEXT = 26, 9  # pixels: height of the captions' letters, smaller where a caption would be too wide
SHORTEST = 0.02  # seconds; viewers show what a .gif claims is shorter for longer
MP4_RATE = 25  # pictures per second in the file: some players do not show fewer


@dataclass(frozen=True)
class Frame:
    """picture: a file that Pillow reads, or its bytes. caption: one line, such as "step: 12,000  perplexity 98.31"."""

    picture: bytes | Path
    caption: str = ""


def film(frames: Sequence[Frame], out: Path, seconds_per_frame: float = 0.5, max_frames: int = 50) -> Path:
    """Show the frames in their order, in the middle of a white picture as large as the largest, captions above.

    max_frames: of more frames so many are taken, at equal distances, the first and the last among them.
    A .gif is repeated without end. ConfigError: options; DataError: no frames, or one that does not decode;
    ExportError: an .mp4 without ffmpeg.
    """
    if out.suffix not in (".gif", ".mp4"):
        raise ConfigError(f"a film is a .gif or an .mp4, got {out}")
    if not SHORTEST <= seconds_per_frame < float("inf"):
        raise ConfigError(f"a frame is shown for {SHORTEST} seconds or longer, got {seconds_per_frame}")
    if max_frames < 1:
        raise ConfigError(f"a film has at least 1 frame, got max_frames {max_frames}")
    if not frames:
        raise DataError("a film is made of at least one picture, got none")
    chosen = [frames[position] for position in spread(len(frames), max_frames)]
    if out.suffix == ".gif":
        _write_gif(_drawn(chosen), out, seconds_per_frame)
    else:
        _write_mp4(_drawn(chosen), out, seconds_per_frame)
    return out


def spread(count: int, most: int) -> list[int]:
    """At most so many positions among `count`, ascending and different; the last alone if there may be only one."""
    if count <= most:
        return list(range(count))
    return [count - 1] if most == 1 else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _drawn(frames: Sequence[Frame]) -> Iterator[Image]:
    """The frames as pictures of one size, even in both directions as .mp4 wants it; one is in memory at a time."""
    from PIL import Image, ImageDraw

    sizes = [_decoded(frame, position).size for position, frame in enumerate(frames)]
    width, height = (_even(max(size)) for size in zip(*sizes, strict=True))
    font, strip = _font([frame.caption for frame in frames], width)
    for position, frame in enumerate(frames):
        picture = _decoded(frame, position)
        canvas = Image.new("RGB", (width, height + strip), "white")
        corner = (width - picture.width) // 2, strip + (height - picture.height) // 2
        canvas.paste(picture, corner, picture)  # what is transparent stays white
        ImageDraw.Draw(canvas).text((strip // 4, strip // 2), frame.caption, "black", font, anchor="lm")
        yield canvas


def _decoded(frame: Frame, position: int) -> Image:
    if isinstance(frame.picture, bytes):
        return decode(io.BytesIO(frame.picture), f"picture {position + 1}", "RGBA")
    return decode(frame.picture, str(frame.picture), "RGBA")


def _even(size: int) -> int:
    return size + size % 2


def _font(captions: Sequence[str], width: int) -> tuple[FreeTypeFont, int]:
    """The largest letters in which every caption fits into the width, and the height of the strip for them."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for size in range(MOST_TEXT, LEAST_TEXT - 1, -1):
        font = ImageFont.truetype(str(path), size)
        strip = 2 * size if any(captions) else 0
        if max(font.getlength(caption) for caption in captions) + strip / 2 <= width:
            break
    return font, strip


def _write_gif(pictures: Iterator[Image], out: Path, seconds: float) -> None:

    painted = (picture.quantize(256) for picture in pictures)
    first = next(painted)
    options = {"save_all": True, "append_images": painted, "duration": round(1000 * seconds), "loop": 0}
    write_atomically(out, lambda file: first.save(file, "GIF", **options))


def _write_mp4(pictures: Iterator[Image], out: Path, seconds: float) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ExportError("an .mp4 wants the program ffmpeg, which is not installed; a .gif needs nothing")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{number:06d}.png")
        command = [
            ffmpeg, "-loglevel", "error", "-framerate", str(1 / seconds), "-i", str(folder / "%06d.png"),
            "-r", str(MP4_RATE), "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(folder / "film.mp4"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExportError(f"ffmpeg cannot write {out}: {' '.join(done.stderr.split()) or 'no reason given'}")
        content = (folder / "film.mp4").read_bytes()
    write_atomically(out, lambda file: file.write(content))
