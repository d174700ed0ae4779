"""Files in the format of NAS-Bench-101 with invented measurements, for tests and benchmarks where the real one is not.

The first record says that the file is synthetic; so does all that is made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from . import tfrecord
from .columns import IMAGES, LEVELS, ROWS
from .config import VALID_EPOCHS
from .convert import MOST_REPEATS, Modules, modules
from .tfrecord import Block


def write(
    path: Path,
    *,
    rows: np.ndarray | None = None,
    epochs: Sequence[int] = VALID_EPOCHS,
    repeats: int = MOST_REPEATS,
    seed: int = 0,
) -> None:
    """A .tfrecord file with `repeats` invented runs of the modules `rows` (default: all) for each number of epochs.

    Accuracy grows with the logarithm of the parameters, saturating with the epochs, plus noise; time grows with the
    parameters. Values have the precision of the real ones.
    """
    chosen = np.arange(ROWS) if rows is None else np.asarray(rows)
    tfrecord.write(path, _blocks(modules(), chosen, np.array(epochs), repeats, seed))


def _blocks(space: Modules, rows: np.ndarray, epochs: np.ndarray, repeats: int, seed: int) -> Iterator[Block]:
    runs = len(epochs) * repeats
    most = max(1, tfrecord.BLOCK // runs)
    for start in range(0, len(rows), most):
        part = np.repeat(rows[start : start + most], runs)
        block = Block.empty(len(part))
        space.fill(block, np.arange(len(part)), part)
        block.epochs[:] = np.tile(np.repeat(epochs, repeats), len(part) // runs)
        _invent(block, np.random.default_rng((seed, start)))
        block.synthetic[0] = start == 0
        yield block


def _invent(block: Block, generator: np.random.Generator) -> None:
    """Fill the measurements in."""
    size = np.log(block.parameters / 227_274) / np.log(49_979_274 / 227_274)  # 0 to 1 over the space
    for e, fraction in enumerate((0.0, 0.5, 1.0)):
        trained = block.epochs * fraction
        block.values[:, e, 0] = trained
        seconds = trained * (4 + 30 * size**2) + fraction * generator.uniform(0, 2, len(size))
        block.values[:, e, 1] = seconds.astype(np.float32)
        for m, best in enumerate((1.0, 0.95, 0.945), start=2):
            accuracy = 0.1 + (best - 0.15 + 0.05 * size - 0.1) * (1 - np.exp(-trained * (1 + size) / 20))
            right = np.rint(IMAGES * (accuracy + generator.normal(0, 0.004, len(size))))
            block.values[:, e, m] = LEVELS[right.clip(0, IMAGES).astype(np.int64)]
    block.total_time[:] = block.values[:, 2, 1] + generator.uniform(100, 300, len(size))
