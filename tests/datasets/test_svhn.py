"""SVHN's cropped digits from MATLAB files, its published split, and files that are missing or damaged."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import savemat

from bitwright.datasets import Images, RemoteFile, svhn
from bitwright.datasets._contrast import encoding, global_and_local_contrast
from bitwright.errors import ConfigError, DataError

TRAIN, TEST, EXTRA = (file.name for file in svhn.FILES)
Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise urllib.error.URLError(OSError("network is unreachable"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def cropped(count: int, seed: int) -> tuple[Pixels, Pixels]:
    """(32, 32, 3, N) and (N, 1), as many images of each of the labels 1 to 10."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
    return generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8), labels


def write(folder: Path, extra: int = 0, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate(((TRAIN, 80), (TEST, 30), (EXTRA, extra))):
        if count:
            pixels, labels = cropped(count, seed)
            savemat(folder / name, {"X": pixels, "y": labels}, **options)


def data_error(load: Callable[[], object]) -> str:
    """The one line of the DataError that `load` raises."""
    with pytest.raises(DataError) as raised:
        load()
    text = str(raised.value)
    assert text and "\n" not in text
    return text


def rows_of(part: Any, pixels: Pixels) -> list[int]:
    """Which images of the file a part holds, in the part's order."""
    numbers = {pixels[..., n].tobytes(): n for n in range(pixels.shape[-1])}
    return [numbers[image.numpy().tobytes()] for image in part.pixels if image.numpy().tobytes() in numbers]


def published_rows(labels: NDArray[np.integer], count: int, generator: np.random.RandomState) -> list[int]:
    """The rows that pylearn2 holds out: of each label in turn the first ones of a shuffled list."""
    chosen: list[int] = []
    for label in range(1, 11):
        rows = np.array([row for row, each in enumerate(labels.ravel()) if each == label])
        generator.shuffle(rows)
        chosen += rows[:count].tolist()
    return sorted(chosen)


@pytest.mark.parametrize("folder", ["", "svhn", "SVHN"])
@pytest.mark.parametrize("compressed", [False, True])
def test_files_are_found_in_the_usual_places(tmp_path: Path, folder: str, compressed: bool) -> None:
    write(tmp_path / folder, do_compression=compressed)
    loaded = svhn.load(tmp_path, validation=2)
    assert loaded.shape == (3, 32, 32)
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [60, 20, 30]
    pixels, labels = cropped(30, 1)
    assert isinstance(loaded.test, Images)
    for number in range(30):
        assert np.array_equal(loaded.test.pixels[number], pixels[:, :, :, number])
    # the class of a digit is its value, and the file's label 10 is the digit 0
    assert loaded.test.labels.tolist() == [0 if label == 10 else label for label in labels[:, 0].tolist()]
    assert [loaded.classes[label] for label in loaded.test.labels] == [str(label)[-1] for label in labels[:, 0]]


def test_the_held_out_images_are_those_of_the_published_split(tmp_path: Path) -> None:
    write(tmp_path, extra=60)
    loaded = svhn.load(tmp_path, validation=4, extra=True)
    (train, labels), (extra, extra_labels) = cropped(80, 0), cropped(60, 2)
    generator = np.random.RandomState(322)
    held_out = published_rows(labels, 4, generator)
    held_out_extra = published_rows(extra_labels, 2, generator)
    assert rows_of(loaded.validation, train) == held_out
    assert rows_of(loaded.validation, extra) == held_out_extra
    assert rows_of(loaded.train, train) == sorted(set(range(80)) - set(held_out))
    assert rows_of(loaded.train, extra) == sorted(set(range(60)) - set(held_out_extra))
    assert torch.bincount(loaded.validation.labels).tolist() == [6] * 10
    digits = np.concatenate([labels[held_out], extra_labels[held_out_extra]]).ravel() % 10
    assert loaded.validation.labels.tolist() == digits.tolist()
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [80, 60, 30]


def test_without_the_extra_images_only_training_images_are_held_out(tmp_path: Path) -> None:
    write(tmp_path, extra=60)
    loaded = svhn.load(tmp_path, validation=3)
    train, labels = cropped(80, 0)
    held_out = published_rows(labels, 3, np.random.RandomState(322))
    assert rows_of(loaded.validation, train) == held_out
    assert rows_of(loaded.train, train) == sorted(set(range(80)) - set(held_out))
    assert len(loaded.train) == 50 and len(loaded.validation) == 30


@pytest.mark.parametrize(
    ("validation", "extra", "wanted"), [(0, False, 0), (8, False, 8), (1, True, 0), (-3, True, -3)]
)
def test_a_count_that_leaves_nothing_is_refused(tmp_path: Path, validation: int, extra: bool, wanted: int) -> None:
    write(tmp_path, extra=60)
    with pytest.raises(ConfigError, match=f"hold out 1 to . images of each digit in .*_32x32.mat, not {wanted}"):
        svhn.load(tmp_path, validation=validation, extra=extra)


def test_a_file_without_one_of_the_digits_is_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    pixels, labels = cropped(80, 0)
    savemat(tmp_path / TRAIN, {"X": pixels, "y": np.where(labels == 3, 4, labels)})
    assert "too few to hold some out" in data_error(lambda: svhn.load(tmp_path, validation=2))


def test_contrast_is_normalised_in_all_parts(tmp_path: Path) -> None:
    write(tmp_path)
    plain, loaded = svhn.load(tmp_path, validation=2), svhn.load(tmp_path, validation=2, preprocess="gcn_lcn")
    assert isinstance(plain.train, Images)
    encode = encoding(plain.train, global_and_local_contrast)
    for name in ("train", "validation", "test"):
        before, after = getattr(plain, name), getattr(loaded, name)
        assert torch.equal(before.labels, after.labels)
        assert torch.equal(encode(before).pixels, after.pixels)
        assert not torch.equal(before.pixels, after.pixels)


# missing and damaged files


def matlab(**arrays: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


PIXELS, LABELS = cropped(80, 0)
WHOLE = matlab(X=PIXELS, y=LABELS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        b"MATLAB 5.0 MAT-file" + bytes(109),
        WHOLE[:100],
        WHOLE[:5000],
        WHOLE[:-1],
        WHOLE[:128] + b"\xff" * 64 + WHOLE[192:],
        matlab(X=PIXELS),
        matlab(y=LABELS),
        matlab(X="digits", y=LABELS),
        matlab(X=PIXELS.astype(np.float64), y=LABELS),
        matlab(X=PIXELS[:28], y=LABELS),
        matlab(X=PIXELS[..., 0], y=LABELS),
        matlab(X=PIXELS, y=LABELS[:-1]),
        matlab(X=PIXELS, y=LABELS - 1),
        matlab(X=PIXELS, y=LABELS + 1),
        matlab(X=PIXELS, y=LABELS / 10),
        matlab(X=PIXELS[..., :0], y=LABELS[:0]),
    ],
)
@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in data_error(lambda: svhn.load(tmp_path, validation=2))


def test_without_files_and_network_the_error_says_what_to_put_where(tmp_path: Path) -> None:
    text = data_error(lambda: svhn.load(tmp_path))
    assert "network is unreachable" in text
    assert f"put {TRAIN}" in text
    assert str(tmp_path / "svhn") in text
    write(tmp_path)
    assert f"put {EXTRA}" in data_error(lambda: svhn.load(tmp_path, validation=2, extra=True))


def test_what_is_missing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "there", extra=60)
    contents = {file.url: (tmp_path / "there" / file.name).read_bytes() for file in svhn.FILES}
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(contents[url])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    files = tuple(RemoteFile(url, hashlib.md5(content).hexdigest()) for url, content in contents.items())
    monkeypatch.setattr(svhn, "FILES", files)
    assert len(svhn.load(tmp_path / "here", validation=2).train) == 60
    assert asked == [file.url for file in files[:2]]
    assert len(svhn.load(tmp_path / "here", validation=2, extra=True).train) == 110
    assert asked == [file.url for file in files]
