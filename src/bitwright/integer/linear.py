"""Thresholds as a line: when counting thresholds equals one multiplication, and which one.

A threshold table is a staircase. Where a straight line runs between its steps, rounding that line gives the same
levels with one multiplication instead of L comparisons. Both are monotone, so they are equal everywhere if they are
equal at each threshold and one below it; that is what is checked here, exactly.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .graph import Int

SEARCH_STEPS = 80  # of the golden-section search for a slope
MOST_PIVOTS = 512  # integer offsets that are tried for each zero


class ShiftForm(NamedTuple):
    """count(x) = clip((x * multiplier + addend) >> shift, 0, L). Each (C,)."""

    multiplier: Int
    addend: Int
    shift: Int


class FloatForm(NamedTuple):
    """count(x) = clip(rint(float32(factor * x + offset) * multiplier) + zero, 0, L), in float32. Arrays are (C,)."""

    offset: Int
    multiplier: NDArray[np.float32]
    zero: int


def counts(thresholds: Int, x: Int) -> Int:
    """How many thresholds x reaches. thresholds: (C, L) ascending; x: (C, n). (C, n)."""
    return np.stack([np.searchsorted(row, values, side="right") for row, values in zip(thresholds, x, strict=True)])


def probes(thresholds: Int, lows: Int, highs: Int) -> Int:
    """(C, 2 L + 2) values of x at which monotone functions that agree there agree on all of [low, high]."""
    low, high = lows[:, None], highs[:, None]
    return np.concatenate([low, high, np.clip(thresholds, low, high), np.clip(thresholds - 1, low, high)], axis=1)


def shift_form(thresholds: Int, lows: Int, highs: Int, *, bits: Literal[32, 64]) -> ShiftForm | None:
    """The line of `thresholds` for x in [low, high] whose products and sums fit signed `bits`; None if there is none.

    thresholds: (C, L) ascending. lows, highs: (C,) the values x can have. The result is exact for all of them.
    """
    channels, count = thresholds.shape
    if count == 0:
        zeros = np.zeros(channels, dtype=np.int64)
        return ShiftForm(zeros, zeros, zeros)
    slope = _slopes(thresholds, lows, highs)
    largest = np.maximum(np.maximum(np.abs(lows), np.abs(highs)), 1)
    room = 2.0 ** (bits - 2)
    multiplier, addend, shift = (np.zeros(channels, dtype=np.int64) for _ in range(3))
    missing = np.ones(channels, dtype=bool)
    # finer multipliers are tried first; a coarser one may still fit where a finer one overflows
    reach = np.minimum(room / (largest * np.maximum(slope, 2.0**-60)), room / (count + 2))
    finest = np.clip(np.floor(np.log2(reach)), 0, 62 if bits == 64 else 30).astype(np.int64)
    for less in range(3):
        s = np.maximum(finest - less, 0)
        m = np.rint(slope * 2.0**s).astype(np.int64)
        low, high = _addends(thresholds, lows, highs, m, s)
        found = missing & (low <= high)
        a = low + (high - low) // 2
        found &= (np.abs(a.astype(np.float64)) + largest * np.abs(m.astype(np.float64))) < 2.0 ** (bits - 1)
        multiplier[found], addend[found], shift[found] = m[found], a[found], s[found]
        missing &= ~found
    if missing.any():
        return None
    form = ShiftForm(multiplier, addend, shift)
    x = probes(thresholds, lows, highs)
    got = np.clip((x * multiplier[:, None] + addend[:, None]) >> shift[:, None], 0, count)
    return form if np.array_equal(got, counts(thresholds, x)) else None


def float_form(thresholds: Int, lows: Int, highs: Int, *, factor: int = 1) -> FloatForm | None:
    """The line of `thresholds` as float32 arithmetic on integers with an integer offset; None if there is none.

    It is what ONNX's QLinearConv computes when its scales are 1 but for the weights', weights are multiplied by
    `factor` and the bias is `offset`. Arguments as for `shift_form`.
    """
    channels, count = thresholds.shape
    if count == 0:
        return FloatForm(np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.float32), 0)
    for zero in _zeros(count):
        form = _float_form(thresholds, lows, highs, factor, zero)
        if form is not None:
            return form
    return None


def evaluate_float_form(form: FloatForm, x: Int, factor: int, count: int) -> Int:
    """What `form` computes for x: (C, n)."""
    inner = (factor * x + form.offset[:, None]).astype(np.float32)
    rounded = np.rint(inner * form.multiplier[:, None])  # a float32 product, rounded half to even
    return np.asarray(np.clip(np.clip(rounded, -(2.0**40), 2.0**40).astype(np.int64) + form.zero, 0, count))


def _zeros(count: int) -> list[int]:
    """Levels that may be the line's zero: the lowest, the middle ones of signed grids, then some others."""
    tried = [0, (count + 1) // 2, count // 2, count, count // 4, 3 * count // 4]
    return list(dict.fromkeys(tried))


def _slopes(thresholds: Int, lows: Int, highs: Int) -> NDArray[np.float64]:
    """(C,) slope of the line with the widest margin between the steps, levels per unit of x."""
    channels, count = thresholds.shape
    low, high = lows[:, None], highs[:, None]
    k = np.arange(1, count + 1, dtype=np.float64)
    below = np.where(thresholds <= high, np.maximum(thresholds, low), np.inf).astype(np.float64)
    above = np.where(thresholds - 1 >= low, np.minimum(thresholds - 1, high), -np.inf).astype(np.float64)

    def margin(slope: NDArray[np.float64]) -> NDArray[np.float64]:
        """Width of the band of intercepts; concave in the slope."""
        m = slope[:, None]
        with np.errstate(invalid="ignore"):
            lower = np.where(np.isfinite(below), k - m * np.where(np.isfinite(below), below, 0), -np.inf).max(1)
            upper = np.where(np.isfinite(above), k - m * np.where(np.isfinite(above), above, 0), np.inf).min(1)
        # a table whose steps are all out of reach on one side has a band without end
        return np.asarray(np.clip(upper, -1e18, 1e18) - np.clip(lower, -1e18, 1e18))

    start, end = np.zeros(channels), np.full(channels, float(count + 1))
    golden = (5**0.5 - 1) / 2
    for _ in range(SEARCH_STEPS):
        left, right = end - golden * (end - start), start + golden * (end - start)
        better = margin(left) >= margin(right)
        end = np.where(better, right, end)
        start = np.where(better, start, left)
    return np.asarray((start + end) / 2)


def _addends(thresholds: Int, lows: Int, highs: Int, m: Int, s: Int) -> tuple[Int, Int]:
    """The closed intervals of addends with which (x m + a) >> s counts the thresholds."""
    count = thresholds.shape[1]
    low, high = lows[:, None], highs[:, None]
    k = np.arange(1, count + 1, dtype=np.int64)
    unit = k * (np.int64(1) << s[:, None])
    reached = np.where(thresholds <= high, unit - m[:, None] * np.maximum(thresholds, low), np.iinfo(np.int64).min)
    missed = np.where(
        thresholds - 1 >= low, unit - 1 - m[:, None] * np.minimum(thresholds - 1, high), np.iinfo(np.int64).max
    )
    least, most = reached.max(1), missed.min(1)
    # with every level always or never reached one side is open
    least = np.where(least == np.iinfo(np.int64).min, np.minimum(most, 0) - (np.int64(1) << s), least)
    most = np.where(most == np.iinfo(np.int64).max, np.maximum(least, 0) + (np.int64(1) << s), most)
    return least, most


def _float_form(thresholds: Int, lows: Int, highs: Int, factor: int, zero: int) -> FloatForm | None:
    channels, count = thresholds.shape
    low, high = lows[:, None], highs[:, None]
    half = np.arange(1, count + 1) - zero - 0.5  # rint(u) + zero >= k  <=>  u >= k - zero - 1/2, ties aside
    x = probes(thresholds, lows, highs)
    wanted = counts(thresholds, x)
    reached = thresholds <= high
    missed = thresholds - 1 >= low
    at = factor * np.maximum(thresholds, low).astype(np.float64)
    under = factor * np.minimum(thresholds - 1, high).astype(np.float64)
    offset, multiplier = np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.float32)
    missing = np.ones(channels, dtype=bool)
    centre = _centres(thresholds, lows, highs, zero) * factor
    for step in range(MOST_PIVOTS):
        guess = np.floor(centre) + (step + 1) // 2 * (1 if step % 2 else -1)
        guess = np.clip(guess, -(2.0**30), 2.0**30)
        # u(x) = m (factor x - guess): every condition bounds m from below or above
        lower, upper = np.full(channels, 0.0), np.full(channels, np.inf)
        possible = np.ones(channels, dtype=bool)
        for points, needed, active in ((at, True, reached), (under, False, missed)):
            distance = points - guess[:, None]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = half / distance
            positive, negative = active & (distance > 0), active & (distance < 0)
            floor, ceiling = (positive, negative) if needed else (negative, positive)
            lower = np.maximum(lower, np.where(floor, ratio, 0.0).max(1))
            upper = np.minimum(upper, np.where(ceiling, ratio, np.inf).min(1))
            possible &= ~(active & (distance == 0) & ((half > 0) if needed else (half < 0))).any(1)
        open_end = np.isinf(upper)
        middle = np.where(
            open_end, np.maximum(2 * lower, 2.0 * (count + 1)), (lower + np.where(open_end, 0, upper)) / 2
        )
        possible &= missing & (lower <= upper) & (middle < 2.0**60)
        if possible.any():
            trial = FloatForm(-guess.astype(np.int64), np.where(possible, middle, 0).astype(np.float32), zero)
            exact = possible & (evaluate_float_form(trial, x, factor, count) == wanted).all(1)
            offset[exact], multiplier[exact] = trial.offset[exact], trial.multiplier[exact]
            missing &= ~exact
        if not missing.any():
            return FloatForm(offset, multiplier, zero)
    return None


def _centres(thresholds: Int, lows: Int, highs: Int, zero: int) -> NDArray[np.float64]:
    """(C,) about where the line with the widest margin is at the level `zero`, in units of x."""
    count = thresholds.shape[1]
    slope = np.maximum(_slopes(thresholds, lows, highs), 2.0**-60)
    inside = (thresholds > lows[:, None]) & (thresholds <= highs[:, None])
    k = np.arange(1, count + 1) - zero - 0.5
    estimates = np.where(inside, thresholds - 0.5 - k / slope[:, None], np.nan)
    none = ~inside.any(1)
    estimates[none, 0] = np.where(thresholds[none, 0] > highs[none], highs[none] + 1.0, lows[none] - 1.0)
    return np.asarray(np.nanmedian(estimates, axis=1))
