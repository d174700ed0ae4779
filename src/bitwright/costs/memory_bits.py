"""Bits of all constants of the integer network: weights, thresholds or multipliers, biases.

A batch normalisation and its quantizer are a set of thresholds per channel, each as wide as the sums that are compared
with it can be; before a real-valued activation they are a bias of 32 bits per channel. It is the memory of the cost
`exact`.
"""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel, summed
from .exact import Exact


@dataclass(frozen=True)
class MemoryBits(CostModel):
    unit = "bits"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return summed(Exact().bits(work, widths).memory)
