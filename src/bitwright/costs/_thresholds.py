"""Counting by accumulators and thresholds: what an integer network without multipliers for its scales takes.

memory  weights           weights x w
        thresholds        thresholds x s: a set per channel, as many as there are levels less one
        biases            biases x s
        requantizers      constants of a requantization by a multiplication, of integer graphs
math    multiplications   MACs x max(w, i)
        additions         MACs x s, every term being added to an accumulator; pools: terms x s; sums of two values:
                          numbers x their bits
        comparisons       numbers x thresholds x s, each being a subtraction; maxima: (n - 1) x i
        biases            biases x s
        requantizations   a multiplication at the larger of s and the multiplier's bits, and an addition at their sum

with w and i the bits of weights and inputs and s the bits of the sum (workload/accumulators.py). An activation of b
bits takes about 2**b thresholds. Shifts are free, and so are scales, batch normalisations and rectifiers, all of which
are in the thresholds. Real-valued activations have none and cost what they do in the official rules.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..workload.accumulators import Accumulator, channel_bits, check_accumulator
from ..workload.table import Floats, Kind, Widths, Workload, bit_length
from . import Bits, ScoreModel, check_reference
from ._operations import additions_of_biases, comparisons_of_pools, multiplications_of_values
from ._sparsity import Sparsity, check_sparsity, stored


class ThresholdModel(ScoreModel):
    """The fields that a subclass has.

    accumulator: bits of the sums of convolutions and products, or a formula of workload/accumulators.py.
    compare: "linear" compares with every threshold, "binary" searches: ceil(log2(levels)) comparisons.
    adds: "sequential" adds all terms at the width of the accumulator; "tree" adds pairs, then pairs of sums: n - 1
        additions, the first at w + i bits (one less if the input is signed), each level one bit wider; one that is left
        over goes to the next level.
    thresholds: "counted", or "free" for a requantization that costs nothing.
    residual: how a sum of two values on one grid is requantized: by "thresholds", or by a "saturation" that is free.
    sparsity: as in the official rules.
    """

    accumulator: Accumulator
    compare: Literal["linear", "binary"]
    adds: Literal["sequential", "tree"]
    thresholds: Literal["counted", "free"]
    residual: Literal["thresholds", "saturation"]
    sparsity: Sparsity

    def __post_init__(self) -> None:
        check_reference(self.reference)
        check_accumulator(self.accumulator)
        check_sparsity(self.sparsity)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {' or '.join(allowed)}, got {getattr(self, name)!r}")

    def bits(self, work: Workload, widths: Widths) -> Bits:
        kept = stored(work, widths, self.sparsity)
        sums = channel_bits(work, widths, self.accumulator)
        before = np.where(work.kind == Kind.ACTIVATION, sums[..., work.source], sums)  # what is requantized
        thresholds = self._thresholds(work, widths)
        comparisons = bit_length(thresholds) if self.compare == "binary" else thresholds
        multiplied = work.multiplier_bits * work.channels
        requantized, real = multiplied > 0, ~np.isfinite(widths.value_high - widths.value_low)
        folded = np.where(real & work.offsets, before, 0.0)
        return Bits(
            memory={
                "weights": work.weights * kept.density * widths.weight_bits,
                "masks": kept.mask,
                "thresholds": thresholds * before * work.tables / work.channels,
                "biases": work.biases / work.channels * sums + folded,
                "requantizers": work.constants,
            },
            math={
                "multiplications": work.macs * kept.density * np.maximum(widths.weight_bits, widths.input_bits)
                + np.where(real, multiplications_of_values(work) * widths.value_bits, 0.0),
                "additions": self._additions(work, widths, kept.density, sums),
                "comparisons": comparisons * before * work.pixels + comparisons_of_pools(work) * widths.input_bits,
                "biases": np.where(real | work.products, additions_of_biases(work) * before / work.channels, 0.0),
                "requantizations": np.where(
                    requantized, (np.maximum(before, multiplied) + before + multiplied) * work.pixels, 0.0
                ),
            },
        )

    def _thresholds(self, work: Workload, widths: Widths) -> Floats:
        """How many each number is compared with."""
        free = (work.kind == Kind.ADD) & (self.residual == "saturation") | (work.multiplier_bits > 0)
        return np.where(free | (self.thresholds == "free"), 0.0, work.thresholds(widths))

    def _additions(self, work: Workload, widths: Widths, density: Floats, sums: Floats) -> Floats:
        if self.adds == "tree":
            products = _tree(work, widths, density)
        else:
            products = work.macs * density * sums / work.channels
        return np.select(
            [work.products, work.kind == Kind.ADD, work.kind == Kind.POOL],
            [products, work.elements * widths.input_bits, work.terms * sums * work.pixels],
            0.0,
        )


CHOICES = {
    "compare": ("linear", "binary"),
    "adds": ("sequential", "tree"),
    "thresholds": ("counted", "free"),
    "residual": ("thresholds", "saturation"),
}


def _tree(work: Workload, widths: Widths, density: Floats) -> Floats:
    """Bits of the additions of all trees."""
    left = np.broadcast_to(np.ceil(work.terms * density), widths.input_bits.shape)
    width = widths.weight_bits + widths.input_bits - (widths.input_low < 0)
    total = np.zeros_like(width)
    while (left > 1).any():
        pairs = np.floor(left / 2)
        total += pairs * width
        left, width = left - pairs, width + 1
    return total * work.elements
