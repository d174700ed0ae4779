"""The widest weights among convolutions of cells or layers, in bits: what the multipliers of a device must take."""

from dataclasses import dataclass

import numpy as np

from ..workload.table import Floats, Kind, Widths, Workload
from . import CostModel


@dataclass(frozen=True)
class WeightPrecision(CostModel):
    """prefix: only nodes whose key starts with it or one of them count, which leaves out stem and classifier."""

    unit = "bits"
    combine = "max"

    prefix: str | tuple[str, ...] = ("cell", "layer", "reduction")

    def figures(self, work: Workload, widths: Widths) -> Floats:
        counted = np.array([row.kind == Kind.CONVOLUTION and row.name.startswith(self.prefix) for row in work.rows])
        return np.where(counted, widths.weight_bits, 0.0)
