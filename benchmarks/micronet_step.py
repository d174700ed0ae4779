"""A training step of mobile14 at 224 pixels: float, 4 bits, and 4 and 5 bits with multi-sample dropout.

On CUDA with 96 images, in bfloat16 too; on a processor with 16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from bitwright.modules import Weights
from bitwright.networks.inverted_residual import LINEAR_FLOAT, Options, build
from bitwright.networks.published import BLOCK_LISTS
from bitwright.train.optimizers import Optimizer
from bitwright.train.random_stream import random_stream
from bitwright.train.recipe import Recipe
from bitwright.train.step import train_step

from .timing import Table, comparison, interleaved

ROUNDS = 8
CASES = {
    "float": LINEAR_FLOAT,
    "4 bits": Options(),
    "4 and 5 bits, dropout 32 times": Options(depthwise_bits=5, dropout=0.2, dropout_samples=32),
}


def run() -> Table:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = 96 if device.type == "cuda" else 16
    candidates = {name: _step(options, device, batch, "float32") for name, options in CASES.items()}
    if device.type == "cuda":
        candidates |= {f"{name}, bfloat16": _step(o, device, batch, "bfloat16") for name, o in CASES.items()}
    seconds = interleaved(candidates, ROUNDS)
    table = comparison(seconds, "float")
    table.columns = [*table.columns, "images/s"]
    table.rows = [[*row, f"{batch / float(np.median(seconds[row[0]])):.1f}"] for row in table.rows]
    return table


def _step(options: Options, device: torch.device, batch: int, dtype: str) -> Callable[[int], object]:
    network = build(BLOCK_LISTS["mobile14"], options)
    weights = Weights([network]).to(device)
    recipe = Recipe(optimizer="sgd", lr=0.005, weight_decay=3e-5, label_smoothing=0.1, clip_norm=0.0, dtype=dtype)  # type: ignore[arg-type]
    optimizer = Optimizer(weights, recipe)
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device=device)

    def step(i: int) -> None:
        result = train_step(
            network, weights, optimizer, images, labels, recipe,
            rate=0.005, drop_path=0.0, generator=random_stream(device, 0, i),
        )  # fmt: skip
        float(result.loss)  # waits for the device

    return step
