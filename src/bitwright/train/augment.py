"""Random crop, flip and cutout of whole batches of uint8 images, on the device that holds them.

One gather of pixels from a padded copy of the data set does crop and flip at once. What a gather cannot do, and images
that stay in files, are for `loader`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets import Images, Part
from ..errors import ConfigError
from .random_stream import Key, random_stream


@dataclass(frozen=True)
class Augmentation:
    """crop: padded takes a crop of the original size out of the zero-padded image; resized takes a part of any size and
        shape and brings it to that size (Szegedy et al. 2015, arXiv:1409.4842, section 6).
    pad: pixels of padding of a padded crop.
    crop_area: the least part of the image's area that a resized crop takes.
    flip: mirror half of the images.
    cutout: side of a square of training-mean pixels put at a random place (DeVries and Taylor 2017,
        arXiv:1708.04552); its centre is uniform over the image, so it may reach over the edge. 0 is none.
    auto_augment: two operations drawn from the policy that AutoAugment found for ImageNet (Cubuk et al. 2019,
        arXiv:1805.09501).
    """

    pad: int = 0
    flip: bool = False
    cutout: int = 0
    crop: Literal["padded", "resized"] = "padded"
    crop_area: float = 0.08
    auto_augment: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0 or self.cutout < 0:
            raise ConfigError(f"augmentation: pad and cutout are at least 0, got {self.pad} and {self.cutout}")
        if not 0 < self.crop_area <= 1:
            raise ConfigError(f"augmentation: crop_area is above 0 and at most 1, got {self.crop_area}")
        if self.pad and self.crop == "resized":
            raise ConfigError(f"augmentation: a resized crop takes no padding, got pad {self.pad}")

    @property
    def per_picture(self) -> bool:
        """Whether it takes more than moving pixels."""
        return self.crop == "resized" or self.auto_augment


class Augmented(ABC):
    """Draws augmented batches of one part of a data set."""

    images: Part

    @abstractmethod
    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, C, H, W) in channels-last memory, and their labels, for the data set's rows (B,)."""

    def batches(self, plan: Sequence[tuple[Tensor, Key]]) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """Images and labels as of `batch`, for the rows (B,) and key of each step of `plan`, in its order, and the
        generator of that key, for what else the step draws."""
        for rows, key in plan:
            generator = random_stream(self.images.device, *key)
            images, labels = self.batch(rows, generator)
            yield images, labels, generator


class Augmenter(Augmented):
    """Augments images in memory, a batch at once."""

    def __init__(self, images: Images, augmentation: Augmentation, fill: tuple[float, ...]) -> None:
        """fill: pixel values of the cutout square, one per channel."""
        self.images = images
        self.augmentation = augmentation
        device = images.pixels.device
        pad = augmentation.pad
        _, height, width, channels = images.pixels.shape
        self._padded_size = height + 2 * pad, width + 2 * pad
        padded = F.pad(images.pixels, (0, 0, pad, pad, pad, pad)).reshape(-1, channels)
        square = torch.tensor([[round(v) for v in fill]], dtype=torch.uint8, device=device)
        self._pixels = torch.cat([padded, square])  # the pixel of the cutout comes last
        self._rows = torch.arange(height, device=device)
        self._columns = torch.arange(width, device=device)

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        augmentation = self.augmentation
        if augmentation == Augmentation():
            return self.images.batch(rows)
        count, height, width = len(rows), len(self._rows), len(self._columns)
        padded_height, padded_width = self._padded_size
        columns: Tensor = self._columns
        if augmentation.flip:
            mirrored = self._draw(2, count, generator)
            columns = columns * (1 - 2 * mirrored) + mirrored * (width - 1)
        lines = rows[:, None] * padded_height + self._rows
        if augmentation.pad:
            lines = lines + self._draw(2 * augmentation.pad + 1, count, generator)
            columns = columns + self._draw(2 * augmentation.pad + 1, count, generator)
        index = (lines * padded_width)[:, :, None] + columns.expand(count, width)[:, None, :]
        if augmentation.cutout:
            last = len(self._pixels) - 1
            across = self._inside(self._rows, height, count, generator)
            along = self._inside(self._columns, width, count, generator)
            index = index.addcmul_(across[:, :, None], along[:, None, :], value=last).clamp_(max=last)
        pixels = self._pixels.index_select(0, index.view(-1)).view(count, height, width, -1)
        return pixels.permute(0, 3, 1, 2), self.images.labels[rows]

    def _draw(self, limit: int, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, limit, (count, 1), generator=generator, device=generator.device)

    def _inside(self, axis: Tensor, size: int, count: int, generator: torch.Generator) -> Tensor:
        """1 where a line of pixels crosses the cutout square, else 0; shape (count, size)."""
        offset = axis - self._draw(size, count, generator) + self.augmentation.cutout // 2
        return ((offset >= 0) & (offset < self.augmentation.cutout)).long()
