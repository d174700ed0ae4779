"""Picture files: what is found, what evaluation sees, kinds of pixels, damaged files, and reading ahead."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright.errors import DataError
from bitwright.pictures import as_array, centre_crop, class_folders, decode, list_pictures, read_ahead, read_all


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(picture: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file


# finding


def test_pictures_are_listed_by_class_in_order_and_other_files_are_not(tmp_path: Path) -> None:
    for name in (
        "b/2.JPEG",
        "b/10.png",
        "a/x.Jpg",
        "b/deep/er/1.png",
        "b/notes.txt",
        "b/._2.JPEG",
        ".git/y.png",
        "z.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert class_folders(tmp_path) == ("a", "b")
    files, labels = list_pictures(tmp_path, ("c", "b", "a"))
    assert files == ["a/x.Jpg", "b/10.png", "b/2.JPEG", "b/deep/er/1.png"]
    assert labels == [2, 1, 1, 1]
    with pytest.raises(DataError, match="none of the 2 classes: b"):
        list_pictures(tmp_path, ("a", "c"))


# decoding


def test_grey_palette_transparent_and_cmyk_pictures_become_what_pillow_calls_rgb() -> None:
    grey, colour = noise(6, 5), noise(6, 5, 3)
    assert np.array_equal(
        as_array(decode(saved(Image.fromarray(grey), "PNG"), "x", "RGB")), np.repeat(grey[..., None], 3, axis=2)
    )
    transparent = np.concatenate([colour, noise(6, 5, 1, seed=1)], axis=2)
    assert np.array_equal(as_array(decode(saved(Image.fromarray(transparent), "PNG"), "x", "RGB")), colour)
    palette = Image.fromarray(colour // 128 * 128).quantize(8)
    assert np.array_equal(as_array(decode(saved(palette, "PNG"), "x", "RGB")), colour // 128 * 128)
    ink = Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK")  # magenta and yellow make red
    red = as_array(decode(saved(ink, "JPEG", quality=100), "x", "RGB")).astype(int)
    assert np.abs(red - (255, 0, 0)).max() <= 3  # JPEG
    bilevel = Image.fromarray(grey > 127)
    assert np.array_equal(as_array(decode(saved(bilevel, "PNG"), "x", "L"))[..., 0], (grey > 127) * np.uint8(255))


def test_pictures_are_not_turned_as_their_exif_data_asks() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    file = saved(Image.fromarray(noise(6, 9, 3)), "JPEG", exif=exif)
    assert Image.open(file).getexif()[0x0112] == 6
    assert decode(file, "x", "RGB").size == (9, 6)


@pytest.mark.parametrize(
    "content", [b"", b"no picture", saved(Image.fromarray(noise(40, 40)), "JPEG").getvalue()[:-200]]
)
def test_what_does_not_decode_is_named_in_one_line(content: bytes) -> None:
    with pytest.raises(DataError) as raised:
        decode(io.BytesIO(content), "this/file.jpg", "RGB")
    assert str(raised.value).startswith("this/file.jpg is truncated, corrupt or no image")
    assert "\n" not in str(raised.value)


def test_a_picture_that_claims_to_be_enormous_is_refused() -> None:
    with pytest.raises(DataError, match=r"this/file.pgm is truncated, corrupt or no image \(Image size"):
        decode(io.BytesIO(b"P5 60000 60000 255\n"), "this/file.pgm", "L")


# what evaluation sees


@pytest.mark.parametrize(
    ("size", "corner"),
    # the shorter side is 256 already: only the crop, in the middle; halves go to the even neighbour
    [
        ((256, 256), (16, 16)),
        ((341, 256), (58, 16)),
        ((256, 341), (16, 58)),
        ((257, 256), (16, 16)),
        ((259, 256), (18, 16)),
    ],
)
def test_the_crop_is_the_middle(size: tuple[int, int], corner: tuple[int, int]) -> None:
    pixels = noise(size[1], size[0], 3)
    left, top = corner
    expected = pixels[top : top + 224, left : left + 224]
    assert np.array_equal(as_array(centre_crop(Image.fromarray(pixels), 256, 224)), expected)


@pytest.mark.parametrize(
    ("size", "resized"),
    # width, height: the longer side is 256 * long / short without its fraction
    [
        ((500, 375), (341, 256)),
        ((375, 500), (256, 341)),
        ((100, 80), (320, 256)),
        ((512, 512), (256, 256)),
        ((3, 4), (256, 341)),
    ],
)
def test_the_shorter_side_is_brought_to_the_size_first(size: tuple[int, int], resized: tuple[int, int]) -> None:
    picture = Image.fromarray(noise(size[1], size[0], 3))
    left, top = ((side - 224) / 2 for side in resized)
    expected = picture.resize(resized, Image.Resampling.BILINEAR).crop(
        (round(left), round(top), round(left) + 224, round(top) + 224)
    )
    assert np.array_equal(as_array(centre_crop(picture, 256, 224)), as_array(expected))


def test_resizing_averages_over_all_pixels() -> None:
    # fourfold reduction of stripes narrower than its step: the triangle of bilinear weights covers eight pixels
    stripes = np.tile(np.array([[0, 255]], np.uint8).repeat(1, axis=0), (64, 32))
    assert set(np.unique(as_array(centre_crop(Image.fromarray(stripes), 16, 8)))) <= {127, 128}


# reading ahead


class Echo:
    """Arrays that say what was asked, and by whom."""

    def __call__(self, request: tuple[int, int]) -> np.ndarray:
        row, value = request
        if value == 200:
            raise DataError(f"row {row} is bad")
        if value == 201:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([[[row, value, torch.get_num_threads()]]], dtype=np.uint8)


PLAN = [[(1, 10), (2, 11)], [(3, 12)], [(4, 13), (5, 14), (6, 15)], [(1, 16)]]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_the_order_of_the_plan_from_any_number_of_processes(workers: int) -> None:
    state = torch.random.get_rng_state()
    batches = list(read_ahead(Echo(), iter(PLAN), workers=workers))
    assert [batch[:, 0, 0, :2].tolist() for batch in batches] == [[list(r) for r in batch] for batch in PLAN]
    assert {int(t) for batch in batches for t in batch[..., 2].flatten()} == {1}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(read_ahead(Echo(), [], workers=workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_process_arrives_as_its_one_line(workers: int) -> None:
    batches = read_ahead(Echo(), [[(0, 1)], [(1, 2), (7, 200)], [(2, 3)]], workers=workers)
    assert next(batches).shape == (1, 1, 1, 3)
    with pytest.raises(DataError) as raised:
        next(batches)
    assert str(raised.value) == "row 7 is bad"


def test_a_process_that_is_killed_is_an_error_of_one_line() -> None:
    with pytest.raises(DataError, match="died") as raised:
        list(read_ahead(Echo(), [[(0, 1)], [(1, 201)], [(2, 3)]], workers=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [1, 31, 64, 100])
def test_one_large_batch_is_shared_out_and_put_together_in_order(workers: int, count: int) -> None:
    read = read_all(Echo(), [(row, 0) for row in range(count)], workers=workers)
    assert read[:, 0, 0, 0].tolist() == list(range(count))
