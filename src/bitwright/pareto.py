"""Ranking by several figures at once, each of which should be small (Deb et al. 2002, NSGA-II)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


def ranks(values: Reals) -> NDArray[np.int64]:
    """The number of the front that each point is in, (N,): 0 for those that no other dominates, 1 for those that only
    these do, and so on. values: (N, figures).

    A point dominates another if it is nowhere larger and somewhere smaller.
    """
    count = len(values)
    less_or_equal, less = np.ones((count, count), bool), np.zeros((count, count), bool)
    for column in values.T:
        less_or_equal &= column[:, None] <= column
        less |= column[:, None] < column
    dominates = less_or_equal & less
    dominators = dominates.sum(0)
    found = np.full(count, -1)
    rank = 0
    while (front := np.flatnonzero((dominators == 0) & (found < 0))).size:
        found[front] = rank
        dominators -= dominates[front].sum(0)
        rank += 1
    return found


def crowding(values: Reals) -> Reals:
    """The crowding distance of each point of a front, (N,): how far its two neighbours are apart in each figure, as a
    part of the front's range, summed over the figures; infinite for the first and the last in any figure.
    """
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        distances[order[[0, -1]]] = np.inf
        if ordered[-1] > ordered[0]:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0])
    return distances
