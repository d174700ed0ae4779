"""Images that stay in files: decoding and augmentation on one core.

JPEG files of 500x375, the most frequent size of ImageNet's, with the detail of photographs (noise with a spectrum of
1/f), read in the process itself and, last, by one other process ahead of their use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bitwright.datasets import Dataset, imagenet
from bitwright.train.augment import Augmentation
from bitwright.train.loader import augmented

from .timing import Table, interleaved

ROUNDS, WARMUP, BATCH, SIZE = 8, 2, 64, (500, 375)
PUBLISHED = Augmentation(crop="resized", auto_augment=True)


def photograph(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    width, height = SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        spectrum = generator.normal(size=frequency.shape) + 1j * generator.normal(size=frequency.shape)
        plane = np.fft.irfft2(spectrum / frequency, s=(height, width))
        planes.append(128 + 50 * plane / plane.std())
    return Image.fromarray(np.stack(planes, axis=2).clip(0, 255).astype(np.uint8))


def _write(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(BATCH):
        photograph(number).save(folder / f"{number}.jpg", quality=90)


def _training(dataset: Dataset, augmentation: Augmentation) -> Callable[[int], object]:
    source = augmented(dataset.train, augmentation, dataset.pixel_statistics[0])
    rows = torch.arange(BATCH)
    return lambda i: list(source.batches([(rows, ("benchmark", i))]))


def _ahead(batches: Iterator[object], i: int) -> object:
    return next(batches)


def run() -> Table:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        for name in ("a", "b"):
            _write(Path(root) / "val" / name)
        here, apart = (imagenet.load(Path(root), train="val", classes="folders", workers=w) for w in (0, 1))
        stream = augmented(apart.train, PUBLISHED, (0.0, 0.0, 0.0)).batches(
            [(torch.arange(BATCH), ("benchmark", i)) for i in range(ROUNDS + WARMUP)]
        )
        candidates = {
            "evaluation: resize, centre crop": lambda i: here.test.batch(slice(0, BATCH)),
            "training: resized crop": _training(here, Augmentation(crop="resized")),
            "training: resized crop, AutoAugment": _training(here, PUBLISHED),
        }
        seconds = interleaved(candidates, ROUNDS, WARMUP)
        seconds |= interleaved({"the same, one process ahead": partial(_ahead, stream)}, ROUNDS, WARMUP)
    torch.set_num_threads(threads)
    table = Table(["", "images per second"])
    table.rows = [[name, f"{BATCH / float(np.median(taken)):,.0f}"] for name, taken in seconds.items()]
    return table
