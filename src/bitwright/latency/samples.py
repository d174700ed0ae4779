"""Robust statistics of timings, and timing itself.

A run is disturbed in one direction only, and sometimes most runs of a while are. So the centre is that of the shortest
interval that holds half of the samples (Rousseeuw and Leroy 1987, the shortest half), which anything in the other half
cannot move; what lies too far from it is left out, and the median and the variance are of what remains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .table import Entry

Samples = NDArray[np.float64]

HALF_OF_NORMAL = 0.6745  # the standard deviations that half of a normal distribution lies within
FARTHEST = 3.0  # standard deviations from the centre
WARM_UP = 3  # rounds


def kept(samples: ArrayLike) -> Samples:
    """The samples, in order of size, that are no outliers."""
    ordered = np.sort(np.asarray(samples, dtype=float))
    half = len(ordered) // 2 + 1
    widths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
    first = int(widths.argmin())
    centre, width = np.median(ordered[first : first + half]), widths[first]
    deviation = width / 2 / HALF_OF_NORMAL
    remaining: Samples = ordered[np.abs(ordered - centre) <= max(FARTHEST * deviation, width)]
    return remaining


def entry(samples: ArrayLike) -> Entry:
    """Count, median and variance of the samples that are no outliers; below 0 is 0, for that is what a difference of
    two equal times comes to."""
    remaining = kept(samples)
    return Entry(len(remaining), max(float(np.median(remaining)), 0.0), float(remaining.var()))


def interleaved(programs: Sequence[Callable[[], Any]], rounds: int, swept: int = 0) -> Samples:
    """Seconds of one run of every program: (programs, rounds), measured in turn, in an order that moves on every round.

    swept: bytes of other memory that are read before every run, so that the caches hold them instead of the program's.
    Seconds are those that the processor works for the calling thread, which has to do the whole work: what other
    programs take then is not counted.
    """
    sweep = np.ones(max(swept // 8, 1))
    seconds = np.empty((len(programs), rounds))
    for i in range(-WARM_UP, rounds):
        for k in range(len(programs)):
            at = (i + k) % len(programs)
            sweep.sum()
            start = time.thread_time_ns()
            programs[at]()
            if i >= 0:
                seconds[at, i] = (time.thread_time_ns() - start) * 1e-9
    return seconds
