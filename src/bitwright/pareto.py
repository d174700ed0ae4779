"""Several figures at once, each to be small: fronts and crowding (Deb et al. 2002, NSGA-II), and hypervolumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

BLOCK = 512  # points that are compared with each other at a time


def ranks(values: Reals) -> NDArray[np.int64]:
    """The number of the front that each point is in, (N,): 0 for those that no other dominates, 1 for those that only
    these do, and so on. values: (N, figures).

    A point dominates another if it is nowhere larger and somewhere smaller.
    """
    count, figures = values.shape
    if figures == 1:
        found: NDArray[np.int64] = np.unique(values[:, 0], return_inverse=True)[1]
        return found
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


def crowding(values: Reals, rank: NDArray[np.int64] | None = None) -> Reals:
    """The crowding distance of each point in its front, (N,): how far its two neighbours are apart in each figure, as a
    part of the front's range, summed over the figures; infinite for the first and the last in any figure.

    rank: (N,), the number of each point's front; None if all are one front.
    """
    rank = np.zeros(len(values), np.int64) if rank is None else rank
    distances = np.zeros(len(values))
    for column in values.T if len(values) else ():
        order = np.lexsort((column, rank))  # front by front
        ordered = column[order]
        starts = np.flatnonzero(np.diff(rank[order], prepend=rank[order[0]] - 1))
        lengths = np.diff(starts, append=len(order))
        ends = starts + lengths - 1
        ranges = np.repeat(ordered[ends] - ordered[starts], lengths)
        inner = ranges > 0
        inner[starts] = inner[ends] = False
        at = np.flatnonzero(inner)
        distances[order[at]] += (ordered[at + 1] - ordered[at - 1]) / ranges[at]
        distances[order[starts]] = distances[order[ends]] = np.inf
    return distances


def front(values: Reals) -> NDArray[np.int64]:
    """The positions of the points that no other dominates, in rising order; of equal points all are there."""
    order = np.lexsort(values.T[::-1])  # nothing is dominated by what comes behind it
    kept = order[:0]
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        block = block[~_dominated(values[block], values[kept])]
        kept = np.concatenate([kept, block[~_dominated(values[block], values[block])]])
    return np.sort(kept)


def compromise(values: Reals) -> int:
    """The position of the point of a front, (N, figures), that is nearest to the best of every figure (Zeleny 1973),
    by Euclidean distance in parts of the front's range; the first of equals.
    """
    low = values.min(0)
    ranges = values.max(0) - low
    parts = (values - low) / np.where(ranges > 0, ranges, 1.0)
    return int(np.square(parts).sum(1).argmin())


def hypervolume(values: Reals, reference: Reals) -> float:
    """The volume of all that some point dominates and that dominates the reference (Zitzler and Thiele 1998), exactly.

    values: (N, figures). reference: (figures,); points that are not below it in every figure add nothing.
    """
    return _volume(values[(values < reference).all(1)], reference)


def hypervolumes(values: Reals, reference: Reals) -> Reals:
    """The hypervolume of the first points, for every number of them from 1: (N,)."""
    found = np.zeros(len(values))
    known = values[:0]
    total = 0.0
    for position, point in enumerate(values):
        if (point < reference).all() and not (known <= point).all(1).any():
            total += _added(point, known, reference)
            known = np.vstack([known[~(point <= known).all(1)], point])
        found[position] = total
    return found


def _volume(points: Reals, reference: Reals) -> float:
    """The hypervolume of points below the reference: a sweep over the last figure, in whose order a point adds to those
    before it a slice of one figure less (While, Bradstreet and Barone 2012, WFG).
    """
    if not len(points):
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - points.min())
    if len(reference) == 2:
        first, second = points[np.argsort(points[:, 0])].T
        widths = np.diff(first, append=reference[0])
        return float(widths @ (reference[1] - np.minimum.accumulate(second)))
    points = points[front(points)]
    points = points[np.argsort(points[:, -1])]
    depths = reference[-1] - points[:, -1]
    slices, rest = points[:, :-1], reference[:-1]
    return float(sum(depth * _added(slices[i], slices[:i], rest) for i, depth in enumerate(depths)))


def _added(point: Reals, others: Reals, reference: Reals) -> float:
    """The volume that a point dominates and none of the others does."""
    return float(np.prod(reference - point)) - _volume(np.maximum(others, point), reference)


def _dominated(values: Reals, by: Reals) -> NDArray[np.bool_]:
    """Which of the points, (N,), one of the others dominates."""
    less_or_equal, less = np.ones((len(by), len(values)), bool), np.zeros((len(by), len(values)), bool)
    for these, others in zip(values.T, by.T, strict=True):
        less_or_equal &= others[:, None] <= these
        less |= others[:, None] < these
    found: NDArray[np.bool_] = np.any(less_or_equal & less, axis=0)
    return found
