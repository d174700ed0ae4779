"""Bits that store the trained numbers: weights at their precision; biases, gains and offsets at 32 bits."""

from dataclasses import dataclass

from ..workload.table import REAL_BITS, Floats, Widths, Workload
from . import CostModel


@dataclass(frozen=True)
class WeightBits(CostModel):
    unit = "bits"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return work.weights * widths.weight_bits + (work.biases + work.gains) * REAL_BITS
