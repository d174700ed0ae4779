"""The score of the MicroNet challenge for the integer network that is really computed: widths that hold every sum.

Counting by accumulators and thresholds (_thresholds.py). Sums of convolutions have the width that their range takes, in
an integer graph channel by channel, and sums of two values saturate, as the integer networks of this package do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..workload.accumulators import Accumulator
from . import Task
from ._sparsity import Sparsity
from ._thresholds import ThresholdModel


@dataclass(frozen=True)
class Exact(ThresholdModel):
    """Options as in ThresholdModel. reference: imagenet, cifar100 or wikitext103."""

    reference: Task = "imagenet"
    accumulator: Accumulator = "exact"
    compare: Literal["linear", "binary"] = "linear"
    adds: Literal["sequential", "tree"] = "sequential"
    thresholds: Literal["counted", "free"] = "counted"
    residual: Literal["thresholds", "saturation"] = "saturation"
    sparsity: Sparsity = 0.0
