"""The IDX format of MNIST and of the data sets that took its place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from . import Dataset, Images, RemoteFile, download, hold_out, locate, read_bytes

PARTS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 array from an IDX file, gzipped or not."""
    raw = read_bytes(path)
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or raw[3] != dimensions or len(raw) < 4 + 4 * dimensions:
        raise DataError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    expected = 4 + 4 * dimensions + math.prod(shape)
    if len(raw) != expected:
        raise DataError(
            f"{path} is truncated or corrupt: {'x'.join(map(str, shape))} values need {expected} bytes,"
            f" it has {len(raw)}"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def load_idx(
    name: str,
    classes: tuple[str, ...],
    root: Path,
    folders: tuple[str, ...],
    files: tuple[RemoteFile, ...],
    validation: int,
) -> Dataset:
    """Four IDX files from `root` or one of the folders below it; they are downloaded if none is there."""
    places = ("", *(f"{folder}/" for folder in folders))
    parts: dict[str, Images] = {}
    for part, stems in PARTS.items():
        arrays = []
        for stem, dimensions in zip(stems, (3, 1), strict=True):
            candidates = [f"{place}{stem}{suffix}" for place in places for suffix in ("", ".gz")]
            path = locate(root, candidates)
            if path is None:
                download(files, root / folders[0], name=name)
                path = locate(root, candidates)
            if path is None:
                raise DataError(f"{name}: put {stem}.gz into {root / folders[0]}")
            arrays.append(read_idx(path, dimensions))
            if dimensions == 1 and (len(arrays[0]) != len(arrays[1]) or arrays[1].max(initial=0) >= len(classes)):
                raise DataError(
                    f"{path} does not label the {len(arrays[0])} images beside it with {len(classes)} classes"
                )
        parts[part] = Images(
            torch.from_numpy(arrays[0].copy())[..., None], torch.from_numpy(arrays[1].astype(np.int64))
        )
    shapes = {tuple(images.pixels.shape[1:3]) for images in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"{name}: training and test images have different sizes, {sorted(shapes)}")
    train, held_out = hold_out(parts["train"], validation, name=name)
    return Dataset(name, classes, train, held_out, parts["test"])
