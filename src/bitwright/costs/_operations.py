"""How many multiplications and additions a network takes, by the definitions of the MicroNet challenge (2019).

These are the numbers of the organisers' counting.py, whatever the bit widths: a convolution or product of n terms is n
multiplications and n - 1 additions for each output, and an addition for a bias. A batch normalisation behind one is
folded into its weights and is a bias; any other is a multiplication and an addition for each number. A rectifier is a
multiplication for each number. A global or average pool of n numbers is n - 1 additions and a multiplication for each
output, a sum of two values an addition for each number. A maximum of n numbers, of which the organisers say nothing, is
n - 1 comparisons and counts as so many additions. Other activations, concatenation and dropout are free.
"""

from __future__ import annotations

import numpy as np

from ..workload.table import Floats, Kind, Workload


def multiplications_of_products(work: Workload, density: Floats | float = 1.0) -> Floats:
    """density: the part of each row's weights that is not zero."""
    return work.macs * density


def multiplications_of_values(work: Workload) -> Floats:
    """Rectifiers, and normalisations that cannot be folded."""
    unfolded = work.normalises & ~work.folded
    return work.elements * np.add(work.rectifies, unfolded, dtype=float)


def multiplications_of_pools(work: Workload) -> Floats:
    return np.where(work.divides, work.elements, 0.0)


def additions_of_products(work: Workload, density: Floats | float = 1.0) -> Floats:
    """Without biases."""
    return np.where(work.products, np.maximum(work.macs * density - work.elements, 0.0), 0.0)


def additions_of_biases(work: Workload) -> Floats:
    """Biases of products, and what is left of normalisations."""
    return work.biases * work.pixels + np.where(work.offsets, work.elements, 0.0)


def additions_of_values(work: Workload) -> Floats:
    """Sums of two values."""
    return np.where(work.kind == Kind.ADD, work.elements, 0.0)


def additions_of_pools(work: Workload) -> Floats:
    return np.where(work.kind == Kind.POOL, work.elements * (work.terms - 1), 0.0)


def comparisons_of_pools(work: Workload) -> Floats:
    return np.where(work.kind == Kind.MAX_POOL, work.elements * (work.terms - 1), 0.0)
