"""SVHN (Netzer et al. 2011): 32x32 colour house-number digits, 400 of each training digit to validate.

What is held out is what Sermanet et al. (2012, arXiv:1204.3968) describe, drawn as pylearn2 draws it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from . import Dataset, Images, RemoteFile, download, join, locate
from ._contrast import encoding, global_and_local_contrast

CLASSES = tuple("0123456789")
_URL = "http://ufldl.stanford.edu/housenumbers/"
FILES = (
    RemoteFile(_URL + "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    RemoteFile(_URL + "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    RemoteFile(_URL + "extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7"),
)
SEED = 322  # pylearn2's


def load(
    root: Path, validation: int = 400, extra: bool = False, preprocess: Literal["none", "gcn_lcn"] = "none"
) -> Dataset:
    """root: where train_32x32.mat and test_32x32.mat are, or a folder svhn/ or SVHN/ with them.
    validation: how many training images of each digit are held out to validate. With extra, half as many of each digit
        of the extra images join them: 400 and 200, 6,000 in all, is the published split.
    extra: train on the 531,131 easier images of extra_32x32.mat too, which takes 6 GB of memory while they are read.
    preprocess: gcn_lcn normalises the contrast of every image, then of every neighbourhood of 7x7 pixels, as published
        results of binary networks do.
    """
    train, test, *more = (_read(_find(root, file)) for file in (FILES if extra else FILES[:2]))
    generator = np.random.RandomState(SEED)
    train, held_out = _hold_out_of_each(train, validation, generator, FILES[0].name)
    if more:
        further, held_out_further = _hold_out_of_each(more.pop(), validation // 2, generator, FILES[2].name)
        train, held_out = join([train, further]), join([held_out, held_out_further])
    if preprocess == "gcn_lcn":
        encode = encoding(train, global_and_local_contrast)
        train, held_out, test = (encode(images) for images in (train, held_out, test))
    return Dataset("svhn", CLASSES, train, held_out, test)


def _find(root: Path, file: RemoteFile) -> Path:
    """The path of a file; it is downloaded if it is not there."""
    path = locate(root, [f"{place}{file.name}" for place in ("", "svhn/", "SVHN/")])
    if path is None:
        download([file], root / "svhn", name="svhn")
        path = root / "svhn" / file.name
    return path


def _read(path: Path) -> Images:
    from scipy.io import loadmat

    try:
        content = loadmat(path, appendmat=False, variable_names=("X", "y"))
    except Exception as error:  # a damaged file can raise almost anything, such as an OSError that the system did not
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        raise DataError(f"{path} is truncated, corrupt or no MATLAB file ({_line(error)})") from None
    pixels, labels = content.get("X"), content.get("y")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, np.ndarray):
        raise DataError(f"{path} holds no arrays X and y, as SVHN's cropped digits do")
    return _images(path, pixels, labels.reshape(-1))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _images(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> Images:
    """pixels: (32, 32, 3, N). labels: (N,), 1 to 10, where 10 is the digit 0."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape != (32, 32, 3, len(labels)) or len(labels) == 0:
        raise DataError(
            f"{path} is truncated or corrupt: X is (32, 32, 3, N) uint8 and y has N labels,"
            f" these are {pixels.shape} {pixels.dtype} and {len(labels)}"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 1 or labels.max() > 10:
        raise DataError(f"{path} is truncated or corrupt: labels are 1 to 10")
    ordered = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))
    return Images(torch.from_numpy(ordered), torch.from_numpy(labels.astype(np.int64) % 10))


def _hold_out_of_each(images: Images, count: int, generator: np.random.RandomState, name: str) -> tuple[Images, Images]:
    """The images without `count` of each digit, and those, both in the order of the file."""
    fewest = int(torch.bincount(images.labels, minlength=len(CLASSES)).min())
    if fewest < 2:
        raise DataError(f"svhn: {name} holds {fewest} images of one of the digits, too few to hold some out")
    if not 0 < count < fewest:
        raise ConfigError(
            f"svhn: validation can hold out 1 to {fewest - 1} images of each digit in {name}, not {count}"
        )
    labels = images.labels.numpy()
    held_out = np.zeros(len(labels), bool)
    for label in (*range(1, 10), 0):  # in the order of the file's labels, of which the digit 0 is the last
        rows = np.flatnonzero(labels == label)
        generator.shuffle(rows)
        held_out[rows[:count]] = True
    chosen = torch.from_numpy(held_out)
    return images[~chosen], images[chosen]
