"""The most bits of values that are held at one time while one image is computed, node after node.

A value is held from the node that computes it to the last that reads it, the image included, and a node's inputs and
output are held together. Sums are never held where one activation alone reads them, and nothing is copied.
"""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel


@dataclass(frozen=True)
class ActivationMemory(CostModel):
    unit = "bits"
    combine = "max"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return work.live_bits(widths)
