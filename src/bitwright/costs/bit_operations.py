"""Bit operations of one image: MACs times weight bits times activation bits (Baskin et al. 2018, arXiv:1804.10969).

Real numbers count as 32 bits. Sums, pools and thresholds are not counted.
"""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel


@dataclass(frozen=True)
class BitOperations(CostModel):
    unit = "bit operations"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return work.macs * widths.weight_bits * widths.input_bits
