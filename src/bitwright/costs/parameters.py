"""Trained numbers: weights, biases, and a gain and an offset per channel of every batch normalisation.

Thresholds and multipliers of an integer graph are not trained and do not count; `memory_bits` has them.
"""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel


@dataclass(frozen=True)
class Parameters(CostModel):
    unit = "parameters"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return work.weights + work.biases + work.gains
