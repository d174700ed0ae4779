"""Multiply-accumulate operations of one image."""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel


@dataclass(frozen=True)
class Macs(CostModel):
    """Convolutions and products; padding counts as if it were pixels, as is usual."""

    unit = "MACs"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return work.macs
