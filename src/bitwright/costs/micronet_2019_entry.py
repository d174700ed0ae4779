"""The score of the MicroNet challenge as Pappalardo's entry of 2019 counted it: the quantized mobile14 scores 0.5558.

Counting by accumulators and thresholds (_thresholds.py), with thresholds behind every sum of two values too. The widths
of the sums are those of Brevitas in October 2019, which took output channels for input channels; with
accumulator="brevitas-2019-in" the same rules without this mistake score 0.5417.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..workload.accumulators import Accumulator
from ..workload.rows import workload
from ..workload.table import Floats, Widths
from . import Target, Task
from ._sparsity import Sparsity
from ._thresholds import ThresholdModel


@dataclass(frozen=True)
class Micronet2019Entry(ThresholdModel):
    """Options as in ThresholdModel. reference: imagenet, cifar100 or wikitext103."""

    reference: Task = "imagenet"
    accumulator: Accumulator = "brevitas-2019"
    compare: Literal["linear", "binary"] = "linear"
    adds: Literal["sequential", "tree"] = "sequential"
    thresholds: Literal["counted", "free"] = "counted"
    residual: Literal["thresholds", "saturation"] = "thresholds"
    sparsity: Sparsity = 0.0

    def printed(self, target: Target, widths: Widths | None = None) -> float:
        """The score as the entry's program prints it: all terms added in float32, in the order of execution."""
        work = workload(target)
        bits, divisors = self.bits(work, widths or work.designed), self.divisors
        parts = [
            _added(np.stack(np.broadcast_arrays(*terms.values()), axis=-1).ravel()) / np.float32(divisor)
            for terms, divisor in zip(bits, divisors, strict=True)
        ]
        return float(parts[0] + parts[1])


def _added(terms: Floats) -> np.float32:
    """One after the other, which rounds after every term."""
    return np.float32(np.cumsum(terms, dtype=np.float32)[-1])
