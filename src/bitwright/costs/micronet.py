"""The score of the MicroNet challenge (NeurIPS 2019) by its official rules.

memory   weights at their bits; where weights are left out as zeros, one bit per weight of the layer for the mask; a
         bias per output channel of every product that has one or is normalised
math     multiplications at the larger of the bits of weight and input, those of rectifiers at the bits of their output,
         those of pools at the bits of their input; additions at the accumulator's bits

How many of each there are says _operations.py; with a part s of the weights zero, a sum of n has n (1 - s) terms.
Scales of quantized numbers are taken to be folded into what follows, and conversions are free, as the rules say of
those that float32 can hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..workload.accumulators import Accumulator, channel_bits, check_accumulator
from ..workload.table import REAL_BITS, Bools, Floats, Kind, Widths, Workload
from . import Bits, ScoreModel, Task, check_reference
from ._operations import (
    additions_of_biases,
    additions_of_pools,
    additions_of_products,
    additions_of_values,
    comparisons_of_pools,
    multiplications_of_pools,
    multiplications_of_products,
    multiplications_of_values,
)
from ._sparsity import Sparsity, check_sparsity, stored

FREE_BITS = 16


@dataclass(frozen=True)
class Micronet(ScoreModel):
    """reference: imagenet, cifar100 or wikitext103.

    accumulator: bits of additions, 32 as most entries took, or a formula of workload/accumulators.py, with which sums
        of two values are counted at the bits of these.
    bias: bits of a bias, those of the accumulator or of the weights before it.
    sparsity: the part of the weights that is zero, by layer or of all; "actual" for the zeros of an integer graph.
    freebie: count parameters and multiplications at 16 bits, which the rules grant if nothing but the image has fewer.
    """

    reference: Task = "imagenet"
    accumulator: Accumulator = 32
    bias: Literal["accumulator", "weight"] = "accumulator"
    sparsity: Sparsity = 0.0
    freebie: bool = False

    def __post_init__(self) -> None:
        check_reference(self.reference)
        check_accumulator(self.accumulator)
        check_sparsity(self.sparsity)
        if self.bias not in ("accumulator", "weight"):
            raise ConfigError(f"the bits of a bias are those of the accumulator or of the weight, got {self.bias!r}")

    def bits(self, work: Workload, widths: Widths) -> Bits:
        kept = stored(work, widths, self.sparsity)
        sums, values = self._addition_bits(work, widths)
        limit = np.where(self._deserves_freebie(work, widths), float(FREE_BITS), np.inf)[..., None]
        weight_bits, input_bits = np.minimum(widths.weight_bits, limit), np.minimum(widths.input_bits, limit)
        bias_bits = sums if self.bias == "accumulator" else widths.weight_bits[..., work.source]
        own_bias_bits = sums if self.bias == "accumulator" else widths.weight_bits
        biases = work.biases * np.minimum(own_bias_bits, limit)
        biases = biases + self._remaining(work) * np.minimum(bias_bits, limit)
        return Bits(
            memory={
                "weights": work.weights * kept.density * weight_bits,
                "masks": kept.mask,
                "biases": biases,
            },
            math={
                "multiplications": multiplications_of_products(work, kept.density) * np.maximum(weight_bits, input_bits)
                + multiplications_of_values(work) * np.minimum(widths.value_bits, limit)
                + multiplications_of_pools(work) * input_bits,
                "additions": (additions_of_products(work, kept.density) + additions_of_pools(work)) * sums
                + additions_of_values(work) * values,
                "comparisons": comparisons_of_pools(work) * widths.input_bits,
                "biases": additions_of_biases(work) * sums,
            },
        )

    def _addition_bits(self, work: Workload, widths: Widths) -> tuple[Floats, Floats]:
        """Bits at which sums of products, and those of two values, are added."""
        if not isinstance(self.accumulator, str):
            bits = np.full_like(widths.value_bits, self.accumulator)
            return bits, bits
        bits = channel_bits(work, widths, self.accumulator) / work.channels
        return np.where(work.kind == Kind.ACTIVATION, bits[..., work.source], bits), widths.input_bits

    def _remaining(self, work: Workload) -> Floats:
        """Numbers that are left of a normalisation: a bias where it is folded, else a gain and an offset."""
        return np.where(work.offsets, work.channels * np.where(work.folded, 1.0, 2.0), 0.0)

    def _deserves_freebie(self, work: Workload, widths: Widths) -> Bools | np.bool_:
        if not self.freebie:
            return np.bool_(False)
        values = work.chooses & (work.kind != Kind.INPUT)
        narrowest = np.minimum(
            np.where(work.products, widths.weight_bits, REAL_BITS), np.where(values, widths.value_bits, REAL_BITS)
        )
        deserved: Bools = narrowest.min(-1) >= FREE_BITS
        return deserved
