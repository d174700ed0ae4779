"""Learning rates over training. A schedule maps progress, in epochs and fractions of them, to a rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]


def cosine_restarts(highest: float, lowest: float, period: int, factor: int) -> Schedule:
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983, equation 5).

    The first cycle lasts `period` epochs, each later one `factor` times the one before. As in ENAS the rate is
    constant within an epoch.
    """

    def rate(epoch: float) -> float:
        since, length = math.floor(epoch), period
        while since >= length:
            since, length = since - length, length * factor
        return lowest + (highest - lowest) / 2 * (1 + math.cos(math.pi * since / length))

    return rate


def one_cycle(highest: float, lowest: float, epochs: int, warmup: float) -> Schedule:
    """Linear warm-up over the fraction `warmup` of training, then one cosine down to `lowest` at its end."""

    def rate(epoch: float) -> float:
        done = min(epoch / epochs, 1.0)
        if done < warmup:
            return lowest + (highest - lowest) * done / warmup
        return lowest + (highest - lowest) / 2 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))

    return rate


def exponential(highest: float, lowest: float, epochs: int) -> Schedule:
    """From `highest` in the first epoch by a constant factor per epoch, which would reach `lowest` after the last."""

    def rate(epoch: float) -> float:
        return highest * math.pow(lowest / highest, math.floor(epoch) / epochs)

    return rate


def decaying(highest: float, lowest: float, factor: float, after: int) -> Schedule:
    """`highest` in the first `after` epochs, then lower by a constant factor in every epoch, down to `lowest`."""

    def rate(epoch: float) -> float:
        return max(highest * factor ** max(math.floor(epoch) + 1 - after, 0), lowest)

    return rate


def step(highest: float, milestones: Sequence[int], factor: float) -> Schedule:
    """`highest` times `factor` for every milestone that has been reached; milestones are epochs, counted from 0."""

    def rate(epoch: float) -> float:
        return highest * factor ** sum(epoch >= milestone for milestone in milestones)

    return rate


def linear(highest: float, epochs: int) -> Schedule:
    """From `highest` in the first epoch by equal amounts per epoch, which would reach zero after the last."""

    def rate(epoch: float) -> float:
        return highest * (1 - min(math.floor(epoch) / epochs, 1.0))

    return rate


def cosine(highest: float, epochs: int) -> Schedule:
    """Half a cosine from `highest` in the first epoch, which would reach zero after the last."""

    def rate(epoch: float) -> float:
        return highest / 2 * (1 + math.cos(math.pi * min(math.floor(epoch) / epochs, 1.0)))

    return rate


def warmed_up(highest: float, warmup: int, then: Schedule, *, counts_on: bool = False) -> Schedule:
    """highest * (epoch + 1) / warmup in the first `warmup` epochs, and then what `then` gives.

    counts_on: `then` is handed epochs of the whole training rather than those after the warm-up.
    """

    def rate(epoch: float) -> float:
        if epoch < warmup:
            return highest * (math.floor(epoch) + 1) / warmup
        return then(epoch if counts_on else epoch - warmup)

    return rate


def constant(highest: float) -> Schedule:
    return lambda epoch: highest
