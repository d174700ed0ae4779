"""A part of a data set that stays in its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..pictures import as_array, centre_crop, decode, list_pictures, read_ahead, read_all
from . import Part, Statistics

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class View:
    """What evaluation sees of a picture: the `crop` pixels square in the middle, its shorter side being `resize`."""

    resize: int
    crop: int


@dataclass(frozen=True)
class ImageFiles(Part):
    """Colour images of any size, decoded whenever a batch of them is asked for.

    folder: where the files are.
    files: bytes (N,), their paths below `folder`; an array, because it is not copied by the processes that share it.
    labels: int64 (N,), on the device that batches go to.
    statistics: of the pixels; they are not computed.
    """

    folder: Path
    files: NDArray[np.bytes_]
    labels: Tensor
    view: View
    statistics: Statistics
    processes: int = 0

    @property
    def workers(self) -> int:
        return self.processes

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.view.crop, self.view.crop

    @property
    def pixel_statistics(self) -> Statistics:
        return self.statistics

    def __getitem__(self, rows: slice | Tensor) -> ImageFiles:
        chosen = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return replace(self, files=self.files[chosen], labels=self.labels[rows])

    def to(self, device: torch.device) -> ImageFiles:
        return replace(self, labels=self.labels.to(device))

    def batch(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(len(self))[rows if isinstance(rows, slice) else rows.cpu()]
        pixels = read_all(self._pixels, numbers.tolist(), workers=self.workers, pin=self._pin)
        return self._batch(pixels), self.labels[rows]

    def in_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in their order, `size` at a time; `workers` processes decode the next ones meanwhile."""
        starts = range(0, len(self), size)
        plan: list[Sequence[int]] = [range(start, min(start + size, len(self))) for start in starts]
        for start, pixels in zip(
            starts, read_ahead(self._pixels, plan, workers=self.workers, pin=self._pin), strict=True
        ):
            yield self._batch(pixels), self.labels[start : start + size]

    def picture(self, row: int, whole: bool) -> Image:
        path = self.folder / os.fsdecode(self.files[row])
        picture = decode(path, str(path), "RGB")
        return picture if whole else centre_crop(picture, self.view.resize, self.view.crop)

    @property
    def _pin(self) -> bool:
        return self.device.type == "cuda"

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        return as_array(self.picture(row, whole=False))

    def _batch(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)


def image_files(folder: Path, classes: Sequence[str], view: View, statistics: Statistics, processes: int) -> ImageFiles:
    """The pictures in the class folders of `folder`, none if it does not exist."""
    files, labels = list_pictures(folder, classes) if folder.is_dir() else ([], [])
    paths = np.array([os.fsencode(file) for file in files], dtype=np.bytes_)
    return ImageFiles(folder, paths, torch.tensor(labels, dtype=torch.int64), view, statistics, processes)
