"""Augmentation of images that stay uint8: CIFAR-10's 32x32 in batches of 128, pad 4 and crop, flip, cutout 16."""

from __future__ import annotations

from functools import partial

import torch

from bitwright.datasets import Images
from bitwright.train.augment import Augmentation, Augmenter

from .timing import Table, interleaved

ROUNDS, BATCH, IMAGES = 200, 128, 10_000


def _batch(augmenter: Augmenter, rows: list[torch.Tensor], generator: torch.Generator, i: int) -> object:
    return augmenter.batch(rows[i], generator)


def run() -> Table:
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 32, 32, 3), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.zeros(IMAGES, dtype=torch.long))
    rows = [torch.randint(IMAGES, (BATCH,), generator=generator) for _ in range(ROUNDS)]
    augmenters = {
        "crop": Augmenter(images, Augmentation(4, False, 0), (120.0,) * 3),
        "crop, flip": Augmenter(images, Augmentation(4, True, 0), (120.0,) * 3),
        "crop, flip, cutout": Augmenter(images, Augmentation(4, True, 16), (120.0,) * 3),
    }
    torch.set_num_threads(1)
    try:
        seconds = interleaved({name: partial(_batch, a, rows, generator) for name, a in augmenters.items()}, ROUNDS)
    finally:
        torch.set_num_threads(threads)
    table = Table(["", "images per second on one core"])
    table.rows = [[name, f"{BATCH / float(sorted(taken)[ROUNDS // 2]):,.0f}"] for name, taken in seconds.items()]
    return table
