"""Two workers on Ray and one.

Eight architectures of the macro space are trained by themselves on digits, for an epoch, one thread to a worker. The
workers stand ready; two of them can be no more than twice as fast as one. In this process stands for no Ray at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
import torch

from bitwright.datasets import digits
from bitwright.evaluators import Evaluator
from bitwright.evaluators._ray_pool import RayPool
from bitwright.evaluators.from_scratch import FromScratch
from bitwright.spaces.enas_macro import EnasMacro
from bitwright.train.recipe import Recipe

from .timing import Table, comparison, interleaved

ROUNDS, ARCHITECTURES, EPOCHS = 5, 8, 1
SPACE = EnasMacro(image=(1, 8, 8), classes=10, layers=4, filters=16, layer_precision="binary")


def run() -> Table:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ray.init("local", num_cpus=3, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        with (
            RayPool(evaluator, workers=1, deterministic=True) as one,
            RayPool(evaluator, workers=2, deterministic=True) as two,
        ):
            candidates = {"one worker": one, "two workers": two, "in this process": evaluator()}
            seconds = interleaved({name: _evaluation(of) for name, of in candidates.items()}, ROUNDS, warmup=1)
    finally:
        ray.shutdown()
        torch.set_num_threads(threads)
    table = comparison(seconds, "one worker", "s")
    table.notes.append(f"Two workers: {np.median(seconds['one worker'] / seconds['two workers']):.2f} times as fast.")
    return table


def evaluator() -> Evaluator:
    return FromScratch(SPACE, digits.load(Path()), Recipe(batch=64), epochs=EPOCHS)


def _evaluation(of: Evaluator) -> Callable[[int], object]:
    def evaluate(i: int) -> object:
        rng = np.random.default_rng(i)
        return of.evaluate([SPACE.sample(rng) for _ in range(ARCHITECTURES)])

    return evaluate
