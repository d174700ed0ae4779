"""Augmentation of one picture at a time: images that stay in files, and what moving pixels cannot do.

What an image becomes depends on the key of its step and its row alone: not on the number of processes, on the rest of
the batch, or on where in an epoch a run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets import Images, Part
from ..errors import DataError
from ..pictures import as_array, read_ahead, read_all
from .augment import Augmentation, Augmented, Augmenter
from .auto_augment import auto_augment
from .random_stream import Key, random_stream, seed_of

if TYPE_CHECKING:
    from PIL.Image import Image

TRIES = 10
FLATTEST, TALLEST = math.log(3 / 4), math.log(4 / 3)  # height to width of a resized crop

Request = tuple[int, int]  # row, seed
Box = tuple[int, int, int, int]  # left, top, right, bottom


def augmented(images: Part, augmentation: Augmentation, fill: tuple[float, ...]) -> Augmented:
    """Batches of `images` to train on. fill: pixel values of a cutout square, one per channel."""
    if len(images) == 0:
        raise DataError(
            "this data set has no training images (imagenet takes them from the folder train,"
            " or the one that the option train of the data set names)"
        )
    if isinstance(images, Images) and not augmentation.per_picture:
        return Augmenter(images, augmentation, fill)
    return Loader(images, augmentation, fill)


class Loader(Augmented):
    """Augments images one by one, in the processes that the part of the data set asks for."""

    def __init__(self, images: Part, augmentation: Augmentation, fill: tuple[float, ...]) -> None:
        self.images = images
        self.augmentation = augmentation
        self.fill = tuple(round(v) for v in fill)

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One number is drawn from `generator`."""
        key = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        pixels = read_all(self._read, self._requests(rows, [key]), workers=self.images.workers, pin=self._pin)
        return self._batch(pixels), self.images.labels[rows]

    def batches(self, plan: Sequence[tuple[Tensor, Key]]) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """The same for a plan of many steps; the next images are made ready meanwhile."""
        requests = (self._requests(rows, key) for rows, key in plan)
        read = read_ahead(self._read, requests, workers=self.images.workers, pin=self._pin)
        for (rows, key), pixels in zip(plan, read, strict=True):
            yield self._batch(pixels), self.images.labels[rows], random_stream(self.images.device, *key)

    @property
    def _pin(self) -> bool:
        return self.images.device.type == "cuda"

    def _requests(self, rows: Tensor, key: Key) -> list[Request]:
        return [(row, seed_of(*key, row)) for row in rows.tolist()]

    def _read(self, request: Request) -> NDArray[np.uint8]:
        row, seed = request
        picture = self.images.picture(row, whole=self.augmentation.crop == "resized")
        _, height, width = self.images.shape
        return as_array(augment(picture, self.augmentation, (width, height), self.fill, Random(seed)))

    def _batch(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.images.device, non_blocking=True).permute(0, 3, 1, 2)


def augment(
    picture: Image, augmentation: Augmentation, size: tuple[int, int], fill: tuple[int, ...], draw: Random
) -> Image:
    """size: (width, height) of the result; `picture` has it already unless crops are resized.
    fill: pixel of a cutout square.
    """
    from PIL.Image import Resampling, Transpose

    if augmentation.crop == "resized":
        box = resized_crop(picture.size, augmentation.crop_area, draw)
        picture = picture.crop(box).resize(size, Resampling.BILINEAR)
    elif augmentation.pad:
        left, top = (_whole(draw, 2 * augmentation.pad + 1) - augmentation.pad for _ in size)
        picture = picture.crop((left, top, left + size[0], top + size[1]))  # outside of the picture is 0
    if augmentation.flip and draw.random() < 0.5:
        picture = picture.transpose(Transpose.FLIP_LEFT_RIGHT)
    if augmentation.auto_augment:
        picture = auto_augment(picture, draw)
    if augmentation.cutout:
        left, top = (_whole(draw, length) - augmentation.cutout // 2 for length in size)
        square = left, top, left + augmentation.cutout, top + augmentation.cutout
        picture.paste(fill if len(fill) > 1 else fill[0], square)
    return picture


def resized_crop(size: tuple[int, int], least: float, draw: Random) -> Box:
    """A box of `least` to all of the area of a picture of `size` (width, height), of 3:4 to 4:3; the widest or tallest
    such box in the middle if ten drawn ones do not fit.

    The area is uniform and so is the logarithm of the ratio, as for Inception (arXiv:1409.4842).
    """
    width, height = size
    for _ in range(TRIES):
        area = width * height * (least + (1 - least) * draw.random())
        ratio = math.exp(FLATTEST + (TALLEST - FLATTEST) * draw.random())
        across, along = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < along <= height:
            top, left = _whole(draw, height - along + 1), _whole(draw, width - across + 1)
            return left, top, left + across, top + along
    across, along = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - across) // 2, (height - along) // 2
    return left, top, left + across, top + along


def _whole(draw: Random, limit: int) -> int:
    """One of 0 to limit - 1. Python promises the sequence of Random.random for all its versions, of nothing else."""
    return int(draw.random() * limit)
