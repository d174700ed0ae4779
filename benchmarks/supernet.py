"""The supernet step that several benchmarks time: ENAS cells, 6 of them, 16 channels, 5 nodes, batch 64, 3x32x32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bitwright.architecture import Architecture
from bitwright.modules import Weights
from bitwright.network import Network
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.train.optimizers import Optimizer
from bitwright.train.recipe import Recipe
from bitwright.train.step import train_step

CONFIGURATION: dict[str, Any] = {
    "image": (3, 32, 32), "classes": 10, "pixel_mean": (125.3, 123.0, 113.9), "pixel_std": (63.0, 62.1, 66.7),
    "cells": 6, "reductions": (2, 4), "filters": 16, "nodes": 5, "stacks": 2,
}  # fmt: skip
BATCH = 64


def space(**options: Any) -> EnasMicro:
    return EnasMicro(**(CONFIGURATION | options))


def architectures(count: int, seed: int = 0) -> list[Architecture]:
    """Architectures of the five published operations, the same for every candidate."""
    rng = np.random.default_rng(seed)
    published = space(ops="enas")
    return [published.sample(rng) for _ in range(count)]


def images(channels_last: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of random pixels and labels, stored as the data sets store theirs, or with the channels first."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    labels = torch.randint(0, 10, (BATCH,), generator=generator)
    return pixels if channels_last else pixels.contiguous(), labels


def training_step(
    of: EnasMicro,
    networks: Sequence[Network],
    *,
    dtype: str = "float32",
    channels_last: bool = True,
    also: Sequence[Network] = (),
) -> Callable[[int], object]:
    """The i-th step: forward, backward, clipping of the gradient, update by SGD with momentum, clipping of latents."""
    weights = Weights([*(of.shared_network(a) for a in of.covering()), *also], shared=True)
    recipe = Recipe(optimizer="sgd", lr=0.01, dtype="bfloat16" if dtype == "bfloat16" else "float32")
    optimizer = Optimizer(weights, recipe)
    pixels, labels = images(channels_last)

    def step(i: int) -> object:
        return train_step(
            networks[i % len(networks)], weights, optimizer, pixels, labels, recipe,
            rate=0.01, drop_path=0.0, generator=torch.Generator().manual_seed(i),
        )  # fmt: skip

    return step
