"""Multiplications of one image, as the MicroNet challenge counts them."""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel
from ._operations import multiplications_of_pools, multiplications_of_products, multiplications_of_values


@dataclass(frozen=True)
class Multiplications(CostModel):
    unit = "multiplications"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return multiplications_of_products(work) + multiplications_of_values(work) + multiplications_of_pools(work)
