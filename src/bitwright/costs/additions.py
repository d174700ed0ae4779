"""Additions of one image, as the MicroNet challenge counts them."""

from dataclasses import dataclass

from ..workload.table import Floats, Widths, Workload
from . import CostModel
from ._operations import (
    additions_of_biases,
    additions_of_pools,
    additions_of_products,
    additions_of_values,
    comparisons_of_pools,
)


@dataclass(frozen=True)
class Additions(CostModel):
    unit = "additions"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        return (
            additions_of_products(work)
            + additions_of_biases(work)
            + additions_of_values(work)
            + additions_of_pools(work)
            + comparisons_of_pools(work)
        )
