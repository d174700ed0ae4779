"""CIFAR-10 (Krizhevsky 2009): 32x32 colour images, the last 5,000 of its 50,000 training images to validate."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import DataError
from . import Dataset, Images, RemoteFile, download, hold_out, join, read_bytes
from ._contrast import encoding, global_contrast, whitened_encoding

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = (RemoteFile("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),)
PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"


def load(root: Path, validation: int = 5000, preprocess: Literal["none", "gcn", "gcn_zca"] = "none") -> Dataset:
    """root: a folder with, or itself, the official python or binary batches, or the parquet files of the hubs.
    validation: how many of the last training images are held out to validate.
    preprocess: gcn normalises the contrast of every image; gcn_zca whitens the result with what it learns from the
        images that are trained on, which takes a minute on one core; it is kept in a file in root for the next time.
    """
    train, test = _read(root)
    train, held_out = hold_out(train, validation, name="cifar10")
    if preprocess != "none":
        encode = encoding(train, global_contrast) if preprocess == "gcn" else whitened_encoding(train, root)
        train, held_out, test = (encode(images) for images in (train, held_out, test))
    return Dataset("cifar10", CLASSES, train, held_out, test)


def _read(root: Path) -> tuple[Images, Images]:
    for place in (
        root,
        root / "cifar10",
        root / BINARY,
        root / PYTHON,
        root / "cifar10" / BINARY,
        root / "cifar10" / PYTHON,
    ):
        if (place / "data_batch_1.bin").exists():
            batches = [_binary_batch(place / f"data_batch_{i}.bin") for i in range(1, 6)]
            return join(batches), _binary_batch(place / "test_batch.bin")
        if (place / "data_batch_1").exists():
            batches = [_python_batch(place / f"data_batch_{i}") for i in range(1, 6)]
            return join(batches), _python_batch(place / "test_batch")
        train, test = sorted(place.glob("**/train*.parquet")), sorted(place.glob("**/test*.parquet"))
        if train and test:
            return join([_parquet(path) for path in train]), join([_parquet(path) for path in test])
    folder = root / "cifar10"
    download(FILES, folder, name="cifar10")
    try:
        with tarfile.open(folder / FILES[0].name) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder / FILES[0].name} is truncated or corrupt ({reason})") from None
    if not (folder / BINARY).is_dir() and not (folder / PYTHON).is_dir():
        raise DataError(f"{folder / FILES[0].name} is an archive, but not of CIFAR-10: it holds no {PYTHON}/")
    return _read(folder)


def _images(path: Path, rows: np.ndarray, labels: np.ndarray) -> Images:
    """rows: (N, 3072) bytes, red, green and blue planes one after the other."""
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072 or labels.shape != rows.shape[:1]:
        raise DataError(f"{path} is truncated or corrupt: {rows.shape} {rows.dtype} and labels of {labels.shape}")
    if len(labels) == 0 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{path} is truncated or corrupt: labels are 0 to 9")
    pixels = torch.from_numpy(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy())
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)))


def _binary_batch(path: Path) -> Images:
    raw = np.frombuffer(read_bytes(path), np.uint8)
    if len(raw) == 0 or len(raw) % 3073:
        raise DataError(f"{path} is truncated or corrupt: {len(raw)} bytes are not a multiple of 3,073")
    records = raw.reshape(-1, 3073)
    return _images(path, records[:, 1:], records[:, 0])


def _python_batch(path: Path) -> Images:
    raw = read_bytes(path)
    try:
        content = _ArrayUnpickler(io.BytesIO(raw)).load()
        rows, labels = content[b"data"], content[b"labels"]
        return _images(path, np.asarray(rows), np.asarray(labels))
    except DataError:
        raise
    except Exception as error:  # a damaged pickle stream can raise almost anything
        raise DataError(f"{path} is truncated or corrupt ({type(error).__name__}: {error})") from None


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numbers, strings, containers and numpy arrays, and refuses everything else."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty((0,), np.uint8).__reduce__()[0],  # type: ignore[dict-item]
            ("numpy._core.multiarray", "_reconstruct"): np.empty((0,), np.uint8).__reduce__()[0],  # type: ignore[dict-item]
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a CIFAR-10 batch")
        return allowed[module, name]


def _parquet(path: Path) -> Images:
    import pyarrow
    import pyarrow.parquet

    from ..pictures import as_array, decode

    try:
        table = pyarrow.parquet.read_table(path)
        names = set(table.column_names)
        image, label = (
            next(n for n in ("img", "image") if n in names),
            next(n for n in ("label", "labels") if n in names),
        )
        encoded = [cell["bytes"] if isinstance(cell, dict) else cell for cell in table.column(image).to_pylist()]
        labels = np.asarray(table.column(label).to_pylist())
        if not encoded or any(not isinstance(content, bytes) for content in encoded):
            raise ValueError("images are encoded bytes, one or more")
    except (pyarrow.ArrowException, OSError, StopIteration, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no readable parquet table of images and labels ({type(error).__name__}: {error})"
        ) from None
    decoded = [as_array(decode(io.BytesIO(content), f"{path} row {row}", "RGB")) for row, content in enumerate(encoded)]
    if any(image.shape != (32, 32, 3) for image in decoded):
        raise DataError(f"{path} holds images that are not (32, 32, 3), as CIFAR-10's are")
    pixels = np.stack(decoded)
    return _images(path, pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1), labels)
