"""Data sets: the contract of all of them, the files they read, and files that are missing, damaged or hostile."""

from __future__ import annotations

import builtins
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from bitwright import catalogue
from bitwright.datasets import Dataset, Images, Part, RemoteFile, cifar10, digits, download, image_folder, mnist, split
from bitwright.errors import BitwrightError, ConfigError, DataError

IDX = {"train": "train-{}", "test": "t10k-{}"}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise urllib.error.URLError(OSError("network is unreachable"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def in_shared(shared: Path, name: str) -> Path:
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"there is no {name} in the shared data")
    return folder


def data_error(load: Callable[[], object]) -> str:
    """The one line of the DataError that `load` raises."""
    with pytest.raises(DataError) as raised:
        load()
    text = str(raised.value)
    assert text and "\n" not in text
    return text


# small data sets in each format


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, train: int = 40, test: int = 10, suffix: str = "", seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if suffix == ".gz" else bytes
    for number, (part, count) in enumerate((("train", train), ("test", test))):
        for stem, array in (
            (IMAGES, noise(count, 6, 5, seed=seed + number)),
            (LABELS, noise(count, seed=seed + number) % 10),
        ):
            (folder / (IDX[part].format(stem) + suffix)).write_bytes(pack(idx(array)))


def planes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return noise(count, 3072, seed=seed), noise(count, seed=seed + 100) % 10


def write_binary_cifar(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows, labels = planes(8, number)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], rows], axis=1).tobytes())


def python2_pickle(rows: np.ndarray, labels: Sequence[int]) -> bytes:
    """A batch as Python 2 with its numpy wrote it: protocol 2, byte strings for text, numpy.core.multiarray."""

    def text(word: bytes) -> bytes:
        return b"U" + bytes([len(word)]) + word

    shape = b"J" + struct.pack("<i", rows.shape[0]) + b"J" + struct.pack("<i", rows.shape[1]) + b"\x86"
    kind = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    raw = rows.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    array += b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def write_python_cifar(folder: Path, dump: Callable[[np.ndarray, Sequence[int]], bytes] = python2_pickle) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows, labels = planes(8, number)
        (folder / name).write_bytes(dump(rows, labels.tolist()))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet_cifar(folder: Path, image: str = "img") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    batches = [planes(8, number) for number in range(6)]
    parts = {
        "train-00000-of-00002": batches[:3],
        "train-00001-of-00002": batches[3:5],
        "test-00000-of-00001": batches[5:],
    }
    for name, members in parts.items():
        pictures = [row.reshape(3, 32, 32).transpose(1, 2, 0) for rows, _ in members for row in rows]
        cells = [{"bytes": png(p), "path": None} for p in pictures]
        labels = [int(label) for _, each in members for label in each]
        pyarrow.parquet.write_table(pyarrow.table({image: cells, "label": labels}), folder / f"{name}.parquet")


def write_svhn(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("train", "test")):
        labels = np.arange(40, dtype=np.uint8)[:, None] % 10 + 1
        savemat(folder / f"{name}_32x32.mat", {"X": noise(32, 32, 3, 40, seed=seed), "y": labels})


def write_folder(root: Path, counts: dict[str, int], shape: tuple[int, ...] = (7, 6), seed: int = 0) -> None:
    for number, (place, count) in enumerate(counts.items()):
        (root / place).mkdir(parents=True)
        for i in range(count):
            (root / place / f"{i:03}.png").write_bytes(png(noise(*shape, seed=1000 * seed + 100 * number + i)))


# the contract


def load_small(name: str, root: Path) -> Dataset:
    """A small data set for every file of the catalogue."""
    options: dict[str, Any] = {}
    match name:
        case "digits":
            pass
        case "mnist" | "fashion_mnist":
            write_idx(root)
            options = {"validation": 10}
        case "cifar10":
            write_binary_cifar(root)
            options = {"validation": 10}
        case "svhn":
            write_svhn(root)
            options = {"validation": 1}
        case "image_folder":
            write_folder(root, {"cat": 30, "dog": 30})
        case "imagenet":
            write_folder(root, {"train/cat": 15, "train/dog": 15}, (14, 17, 3))
            write_folder(root, {"val/cat": 6, "val/dog": 6}, (14, 17, 3), seed=1)
            options = {"crop": 8, "resize": 10, "validation": 8, "classes": "folders"}
        case _:
            pytest.fail(f"tests/datasets/test_datasets.py: write a small {name!r} here, so that its contract is tested")
    loaded: Dataset = catalogue.find("datasets", name)(root, **options)
    return loaded


@pytest.fixture(params=catalogue.names("datasets"))
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    return load_small(request.param, tmp_path)


def parts(dataset: Dataset) -> tuple[Part, Part, Part]:
    return dataset.train, dataset.validation, dataset.test


def pixels_of(part: Part) -> torch.Tensor:
    """All pixels, (N, H, W, C)."""
    return part.batch(slice(None))[0].permute(0, 2, 3, 1)


def bytes_of(part: Part) -> list[bytes]:
    return [picture.numpy().tobytes() for picture in pixels_of(part)]


def same(first: Part, second: Part) -> bool:
    return torch.equal(pixels_of(first), pixels_of(second)) and torch.equal(first.labels, second.labels)


def test_pixels_are_bytes_and_labels_name_classes(small: Dataset) -> None:
    channels, height, width = small.shape
    for part in parts(small):
        assert part.shape == small.shape
        assert pixels_of(part).dtype == torch.uint8
        assert pixels_of(part).shape == (len(part), height, width, channels)
        assert part.labels.dtype == torch.int64
        assert part.labels.shape == (len(part),)
        assert len(part) > 0
        assert int(part.labels.min()) >= 0 and int(part.labels.max()) < len(small.classes)
    assert len(set(small.classes)) == len(small.classes) >= 2


def test_no_image_is_in_two_parts(small: Dataset) -> None:
    train, validation, test = (set(bytes_of(part)) for part in parts(small))
    assert train.isdisjoint(validation)
    assert train.isdisjoint(test)
    assert validation.isdisjoint(test)


def test_statistics_are_those_of_the_training_images_alone(small: Dataset) -> None:
    mean, deviation = small.pixel_statistics
    if small.name == "imagenet":  # published constants
        np.testing.assert_allclose(mean, np.multiply(255, (0.485, 0.456, 0.406)))
        np.testing.assert_allclose(deviation, np.multiply(255, (0.229, 0.224, 0.225)))
        return
    pixels = pixels_of(small.train).double().flatten(0, 2)
    # float64 sums; the variance is a difference of squares
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, pixels.std(0, correction=0), rtol=1e-9)
    changed = Dataset(small.name, small.classes, small.train, small.test, small.validation)
    assert changed.pixel_statistics == small.pixel_statistics


@pytest.mark.parametrize("name", catalogue.names("datasets"))
def test_loading_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    first, second = load_small(name, tmp_path / "a"), load_small(name, tmp_path / "b")
    assert all(same(a, b) for a, b in zip(parts(first), parts(second), strict=True))


def test_batches_are_channels_first_views_of_the_same_pixels(small: Dataset) -> None:
    rows = torch.tensor([2, 0, 2])
    images, labels = small.train.batch(rows)
    assert images.shape == (3, *small.shape)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[1].permute(1, 2, 0), pixels_of(small.train)[0])
    assert torch.equal(labels, small.train.labels[rows])


def test_parts_of_a_part_and_batches_in_order_hold_the_same_images(small: Dataset) -> None:
    pixels, labels = pixels_of(small.test), small.test.labels
    for rows in (slice(2, None, 3), slice(-3, None), torch.tensor([4, 1, 4]), labels == 1):
        chosen = small.test[rows]
        assert len(chosen) == len(chosen.labels) == len(labels[rows])
        assert torch.equal(pixels_of(chosen), pixels[rows])
        assert torch.equal(chosen.labels, labels[rows])
    for size in (1, 5, len(labels), 1000):
        images, found = zip(*small.test.in_batches(size), strict=True)
        assert {len(batch) for batch in images[:-1]} <= {size}
        assert torch.equal(torch.cat(images).permute(0, 2, 3, 1), pixels)
        assert torch.equal(torch.cat(found), labels)
    assert list(small.test[slice(0, 0)].in_batches(5)) == []


def test_pictures_of_a_part_are_what_evaluation_sees(small: Dataset) -> None:
    for row in (0, 3):
        picture = np.asarray(small.test.picture(row, whole=False))
        assert np.array_equal(picture.reshape(pixels_of(small.test)[row].shape), pixels_of(small.test)[row])


def test_a_black_data_set_is_not_divided_by_zero() -> None:
    black = Images(torch.zeros(4, 2, 2, 3, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    assert Dataset("black", ("a", "b"), black, black, black).pixel_statistics == ((0.0,) * 3, (1.0,) * 3)


# splitting


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 5))
def test_split_deals_out_every_image_once_and_every_class_by_its_share(labels: list[int], seed: int) -> None:
    count = len(labels)
    images = Images(torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1), torch.tensor(labels))
    dealt = split(images, (0.5, 0.3, 0.2), seed)
    assert sorted(i for part in dealt for i in part.pixels.flatten().tolist()) == list(range(count))
    for part, fraction in zip(dealt[1:], (0.3, 0.2), strict=True):
        for label in set(labels):
            assert int((part.labels == label).sum()) == round(fraction * labels.count(label))


def test_digits_are_1797_in_a_stratified_split() -> None:
    loaded = digits.load(Path("nowhere"))
    assert sum(len(part) for part in parts(loaded)) == 1797
    assert [len(part) for part in parts(loaded)] == [1079, 359, 359]
    assert loaded.shape == (1, 8, 8)
    assert int(loaded.train.pixels.max()) == 255
    for part in parts(loaded):
        shares = torch.bincount(part.labels, minlength=10) / len(part)
        assert bool(((shares > 0.09) & (shares < 0.11)).all())


# MNIST and its relatives


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_idx_files_are_found_packed_or_not_in_the_usual_places(tmp_path: Path, folder: str, suffix: str) -> None:
    write_idx(tmp_path / folder, suffix=suffix)
    loaded = mnist.load(tmp_path, validation=10)
    pixels, labels = noise(40, 6, 5, seed=0)[..., None], noise(40, seed=0) % 10
    assert np.array_equal(loaded.train.pixels, pixels[:30])
    assert np.array_equal(loaded.validation.pixels, pixels[30:])
    assert loaded.validation.labels.tolist() == labels[30:].tolist()
    assert np.array_equal(loaded.test.pixels, noise(10, 6, 5, seed=1)[..., None])
    assert loaded.shape == (1, 6, 5)


@pytest.mark.parametrize("count", [0, -1, 40, 41])
def test_validation_leaves_images_to_train_on(tmp_path: Path, count: int) -> None:
    write_idx(tmp_path)
    with pytest.raises(ConfigError, match=f"validation takes 1 to 39 of the 40 training images, got {count}"):
        mnist.load(tmp_path, validation=count)


@pytest.mark.parametrize(
    ("stem", "content"),
    [
        (IMAGES, b""),
        (IMAGES, b"\x00\x00"),
        (IMAGES, b"<html>not found</html>"),
        (IMAGES, idx(noise(40, 6, 5))[:-1]),
        (IMAGES, idx(noise(40, 6, 5)) + b"\x00"),
        (IMAGES, idx(noise(40, 6, 5))[:9]),
        (IMAGES, idx(noise(40))),
        (IMAGES, b"\x00\x00\x0d\x03" + idx(noise(40, 6, 5))[4:]),
        (IMAGES, gzip.compress(idx(noise(40, 6, 5)), mtime=0)[:-30]),
        (IMAGES, gzip.compress(idx(noise(40, 6, 5)), mtime=0)[:12]),
        (IMAGES, b"\x1f\x8b" + b"\x00" * 50),
        (IMAGES, gzip.compress(idx(noise(40, 6, 5)), mtime=0)[:-8] + b"\x00" * 8),
        (LABELS, idx(noise(39) % 10)),
        (LABELS, idx(np.full(40, 10, np.uint8))),
        (LABELS, idx(noise(40) % 10)[:-1]),
        (LABELS, gzip.compress(idx(noise(40) % 10), mtime=0)[:-5]),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, stem: str, content: bytes) -> None:
    write_idx(tmp_path)
    path = tmp_path / IDX["train"].format(stem)
    path.write_bytes(content)
    assert str(path) in data_error(lambda: mnist.load(tmp_path, validation=10))


def test_a_flipped_bit_in_a_packed_file_is_noticed(tmp_path: Path) -> None:
    write_idx(tmp_path, suffix=".gz")
    path = tmp_path / (IDX["test"].format(IMAGES) + ".gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert str(path) in data_error(lambda: mnist.load(tmp_path, validation=10))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_without_files_and_network_the_error_says_what_to_put_where(name: str, tmp_path: Path) -> None:
    text = data_error(lambda: catalogue.find("datasets", name)(tmp_path))
    assert str(tmp_path / name) in text
    assert "network is unreachable" in text
    for pattern in IDX.values():
        for stem in (IMAGES, LABELS):
            assert f"{pattern.format(stem)}.gz" in text


def test_the_published_mnist_is_read(shared: Path) -> None:
    loaded = mnist.load(in_shared(shared, "mnist"))
    train, validation, test = parts(loaded)
    assert (len(train), len(validation), len(test)) == (55_000, 5_000, 10_000)
    assert loaded.shape == (1, 28, 28)
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    whole = torch.bincount(train.labels) + torch.bincount(validation.labels)
    assert whole.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = torch.cat([train.pixels, validation.pixels]).double() / 255
    assert round(float(pixels.mean()), 4) == 0.1307
    assert round(float(pixels.std()), 4) == 0.3081


# CIFAR-10


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "binary": write_binary_cifar,
    "python 2": write_python_cifar,
    "python 3": lambda folder: write_python_cifar(
        folder, lambda rows, labels: pickle.dumps({b"data": rows, b"labels": labels}, protocol=4)
    ),
    "parquet": write_parquet_cifar,
    "parquet, image": lambda folder: write_parquet_cifar(folder, "image"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_all_layouts_of_cifar_hold_the_same(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    loaded = cifar10.load(tmp_path, validation=10)
    expected = [planes(8, number) for number in range(6)]
    pixels = np.concatenate([rows for rows, _ in expected]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([each for _, each in expected])
    for part, rows in zip(parts(loaded), (slice(0, 30), slice(30, 40), slice(40, 48)), strict=True):
        assert np.array_equal(part.pixels, pixels[rows])
        assert part.labels.tolist() == labels[rows].tolist()
    assert loaded.classes[3] == "cat"


@pytest.mark.parametrize("folder", ["cifar10", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
def test_cifar_is_found_in_the_usual_places(tmp_path: Path, folder: str) -> None:
    write_python_cifar(tmp_path / folder)
    assert len(cifar10.load(tmp_path, validation=10).train) == 30


def test_cifar_is_unpacked_from_its_published_archive(tmp_path: Path) -> None:
    write_python_cifar(tmp_path / "made" / "cifar-10-batches-py")
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    with tarfile.open(tmp_path / "data" / "cifar10" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    assert len(cifar10.load(tmp_path / "data", validation=10).train) == 30


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../../outside")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(DataError):
        cifar10.load(tmp_path / "data")
    assert not (tmp_path / "outside").exists()


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    write_python_cifar(tmp_path / "made")
    folder.mkdir()
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made", "cifar-10-batches-py")
    path = folder / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:20_000])
    assert str(path) in data_error(lambda: cifar10.load(tmp_path))


ROWS, TEN_LABELS = planes(8, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        python2_pickle(ROWS, TEN_LABELS.tolist())[:-200],
        python2_pickle(ROWS, TEN_LABELS.tolist())[:30],
        python2_pickle(ROWS, [10] * 8),
        python2_pickle(ROWS, [1] * 7),
        python2_pickle(ROWS[:, :-1], [1] * 8),
        pickle.dumps([1, 2, 3], protocol=4),
        pickle.dumps({b"data": ROWS}, protocol=4),
        pickle.dumps({b"data": ROWS.astype(np.int64), b"labels": [1] * 8}, protocol=4),
        pickle.dumps({b"data": ROWS, b"labels": None}, protocol=4),
        pickle.dumps({b"data": ROWS[:0], b"labels": []}, protocol=4),
    ],
)
def test_a_damaged_python_batch_is_named(tmp_path: Path, content: bytes) -> None:
    write_python_cifar(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(content)
    assert str(tmp_path / "data_batch_3") in data_error(lambda: cifar10.load(tmp_path, validation=10))


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes([10]) + bytes(3072), bytes(2 * 3073 + 1)])
def test_a_damaged_binary_batch_is_named(tmp_path: Path, content: bytes) -> None:
    write_binary_cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(content)
    assert str(tmp_path / "test_batch.bin") in data_error(lambda: cifar10.load(tmp_path, validation=10))


@pytest.mark.parametrize("layout", ["binary", "python 2"])
def test_a_missing_batch_is_named(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path)
    (missing,) = tmp_path.glob("data_batch_4*")
    missing.unlink()
    assert str(missing) in data_error(lambda: cifar10.load(tmp_path, validation=10))


def table(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


PICTURE = png(noise(32, 32, 3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1 but no table",
        table(img=[PICTURE], label=[1])[:-20],
        table(picture=[PICTURE], label=[1]),
        table(img=[PICTURE]),
        table(img=[{"path": "1.png"}], label=[1]),
        table(img=[b"no picture"], label=[1]),
        table(img=[PICTURE[:-900]], label=[1]),
        table(img=[png(noise(28, 28, 3))], label=[1]),
        table(img=[PICTURE], label=[10]),
        table(img=[PICTURE], label=[-1]),
    ],
)
def test_a_damaged_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_parquet_cifar(tmp_path)
    path = tmp_path / "test-00000-of-00001.parquet"
    path.write_bytes(content)
    assert str(path) in data_error(lambda: cifar10.load(tmp_path, validation=10))


def test_without_cifar_and_network_the_error_says_what_to_put_where(tmp_path: Path) -> None:
    text = data_error(lambda: cifar10.load(tmp_path))
    assert "cifar-10-python.tar.gz" in text
    assert str(tmp_path / "cifar10") in text
    assert "network is unreachable" in text


class Hostile:
    """Unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside a batch"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "attack",
    [
        lambda path: Hostile(os.system, f"echo > '{path}'"),
        lambda path: Hostile(builtins.eval, f"open({str(path)!r}, 'w')"),
        lambda path: Hostile(builtins.getattr, Path(path), "touch"),
        lambda path: Hostile(np.save, str(path), 1),
    ],
    ids=["system", "eval", "getattr", "numpy"],
)
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, attack: Callable[[Path], object], protocol: int, inside: bool
) -> None:
    folder, mark = tmp_path / "data", tmp_path / "mark.npy"
    write_python_cifar(folder)
    payload = attack(mark)
    content = {"first": payload, b"data": ROWS, b"labels": TEN_LABELS.tolist()} if inside else payload
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=protocol))
    text = data_error(lambda: cifar10.load(folder, validation=10))
    assert str(folder / "data_batch_2") in text
    assert "does not belong in a CIFAR-10 batch" in text
    assert not mark.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x02cbuiltins\nobject\n)\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    ],
    ids=["global", "inst", "obj", "newobj", "stack global", "dotted", "dotted, protocol 4"],
)
def test_every_way_to_name_a_function_in_a_pickle_is_refused(tmp_path: Path, stream: bytes) -> None:
    write_python_cifar(tmp_path)
    (tmp_path / "test_batch").write_bytes(stream)
    assert "does not belong in a CIFAR-10 batch" in data_error(lambda: cifar10.load(tmp_path, validation=10))


@pytest.mark.slow
def test_the_published_cifar10_is_read_from_both_layouts(shared: Path, tmp_path: Path) -> None:
    script = in_shared(shared, "cifar10") / "unpack_cifar10.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    python = cifar10.load(tmp_path / "cifar-10-batches-py")
    binary = cifar10.load(tmp_path / "cifar-10-batches-bin")
    assert all(same(a, b) for a, b in zip(parts(python), parts(binary), strict=True))
    train, validation, test = parts(python)
    assert (len(train), len(validation), len(test)) == (45_000, 5_000, 10_000)
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert (torch.bincount(train.labels) + torch.bincount(validation.labels)).tolist() == [5000] * 10
    assert [python.classes[i] for i in test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    pixels = torch.cat([train.pixels, validation.pixels]).flatten(0, 2).double() / 255
    assert [round(m, 4) for m in pixels.mean(0).tolist()] == [0.4914, 0.4822, 0.4465]
    assert [round(d, 4) for d in pixels.std(0).tolist()] == [0.2470, 0.2435, 0.2616]


# folders of images


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("training", "valid", "test"), ("train", "validation", "test")]
)
def test_a_folder_with_its_own_parts_keeps_them(tmp_path: Path, names: tuple[str, str, str]) -> None:
    counts = dict(zip(names, (5, 3, 2), strict=True))
    write_folder(tmp_path, {f"{part}/{c}": n for part, n in counts.items() for c in ("dog", "cat")})
    loaded = image_folder.load(tmp_path)
    assert loaded.classes == ("cat", "dog")
    assert [len(part) for part in parts(loaded)] == [10, 6, 4]
    assert loaded.shape == (1, 7, 6)
    for name, part in zip(names, parts(loaded), strict=True):
        for number, label in enumerate(part.labels):
            folder = tmp_path / name / loaded.classes[label]
            file = sorted(folder.iterdir())[number % counts[name]]
            assert np.array_equal(part.pixels[number, :, :, 0], np.asarray(Image.open(file)))


def test_a_folder_without_parts_is_split_with_a_share_of_every_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 40, "dog": 20})
    loaded = image_folder.load(tmp_path, validation=0.1, test=0.15)
    counts = [torch.bincount(part.labels).tolist() for part in parts(loaded)]
    # 15 % of 40 and 20 to test, then 10 % of the other 34 and 17 to validate
    assert counts == [[31, 15], [3, 2], [6, 3]]


def test_a_missing_part_is_split_from_the_training_images(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/cat": 20, "train/dog": 20, "test/cat": 3, "test/dog": 4})
    loaded = image_folder.load(tmp_path)
    assert [len(part) for part in parts(loaded)] == [36, 4, 7]


def test_colour_stays_and_a_size_is_brought_about(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 12}, (7, 6, 3))
    write_folder(tmp_path, {"b": 12}, (9, 9, 3), seed=1)
    assert "option size" in data_error(lambda: image_folder.load(tmp_path))
    assert image_folder.load(tmp_path, size=5).shape == (3, 5, 5)


def test_parts_of_different_sizes_want_the_option_size(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 12, "train/b": 12})
    write_folder(tmp_path, {"test/a": 2, "test/b": 2}, (8, 8), seed=1)
    assert "option size" in data_error(lambda: image_folder.load(tmp_path))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no picture at all", png(noise(7, 6))[:-30]])
@pytest.mark.parametrize("place", ["cat/000.png", "dog/004.png"])
def test_an_image_that_does_not_decode_is_named(tmp_path: Path, place: str, content: bytes) -> None:
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / place).write_bytes(content)
    assert str(tmp_path / place) in data_error(lambda: image_folder.load(tmp_path))


def test_a_class_that_is_not_trained_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 4, "train/b": 4, "test/a": 2, "test/bird": 2})
    assert "bird" in data_error(lambda: image_folder.load(tmp_path))


def test_folders_that_hold_no_data_set_are_errors_that_say_what_they_should_hold(tmp_path: Path) -> None:
    assert "train/CLASS" in data_error(lambda: image_folder.load(tmp_path / "absent"))
    assert "one folder per class" in data_error(lambda: image_folder.load(tmp_path))
    write_folder(tmp_path, {"only": 3})
    assert "at least two" in data_error(lambda: image_folder.load(tmp_path))
    write_folder(tmp_path / "empty", {"a": 0, "b": 0})
    assert "holds no images" in data_error(lambda: image_folder.load(tmp_path / "empty"))
    write_folder(tmp_path / "few", {"a": 1, "b": 1})
    assert "too few images" in data_error(lambda: image_folder.load(tmp_path / "few"))


# downloads


class Response(io.BytesIO):
    pass


def serve(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> list[str]:
    """Answer requests for these addresses; the list grows with what is asked for."""
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> Response:
        asked.append(url)
        return Response(contents[url])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def remote(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(f"https://example.org/{name}", hashlib.md5(content).hexdigest())


def test_only_what_is_missing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [remote("one.gz", b"1"), remote("two.gz", b"2")]
    asked = serve(monkeypatch, {files[0].url: b"1", files[1].url: b"2"})
    (tmp_path / "one.gz").write_bytes(b"mine")
    download(files, tmp_path, name="numbers")
    assert asked == [files[1].url]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"one.gz": b"mine", "two.gz": b"2"}


def test_a_file_with_another_checksum_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = remote("one.gz", b"1")
    serve(monkeypatch, {file.url: b"<html>"})
    assert file.url in data_error(lambda: download([file], tmp_path / "new", name="numbers"))
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError(OSError("no route to host")),
        urllib.error.HTTPError("https://example.org", 404, "Not Found", None, None),  # type: ignore[arg-type]
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
    ],
    ids=["no route", "not found", "timeout", "reset"],
)
def test_a_failed_download_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def urlopen(url: str, timeout: float) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    files = [remote("one.gz", b"1"), remote("two.gz", b"2")]
    text = data_error(lambda: download(files, tmp_path, name="numbers"))
    assert "put one.gz, two.gz into" in text
    assert str(tmp_path) in text
    assert issubclass(DataError, BitwrightError)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert str(tmp_path / "file") in data_error(lambda: download([remote("a", b"")], tmp_path / "file", name="numbers"))


def test_downloaded_idx_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "there", suffix=".gz")
    contents = {f"https://example.org/{p.name}": p.read_bytes() for p in (tmp_path / "there").iterdir()}
    asked = serve(monkeypatch, contents)
    files = tuple(RemoteFile(url, hashlib.md5(content).hexdigest()) for url, content in contents.items())
    monkeypatch.setattr(mnist, "FILES", files)
    assert len(mnist.load(tmp_path / "here", validation=10).train) == 30
    assert sorted(asked) == sorted(contents)
    assert len(mnist.load(tmp_path / "here", validation=10).train) == 30
    assert len(asked) == 4


@pytest.mark.parametrize(("validation", "test"), [(0.6, 0.6), (0.0, 0.2), (0.2, -0.1), (0.5, 0.5)])
def test_fractions_that_leave_nothing_are_refused(validation, test):
    with pytest.raises(ConfigError, match="fractions"):
        digits.load(Path(), validation=validation, test=test)


def test_sixteen_bit_images_are_refused_instead_of_clipped(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), 50_000, np.uint16)).save(tmp_path / name / "x.png")
    with pytest.raises(DataError, match="8 bits"):
        image_folder.load(tmp_path)


def test_hidden_folders_are_no_classes(tmp_path):
    for name in ("a", "b", ".cache"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / name / f"{i}.png")
    assert image_folder.load(tmp_path).classes == ("a", "b")
