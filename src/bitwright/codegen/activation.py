"""What is done to a sum before it is stored, in the form that costs least: comparisons or one multiplication.

Every form is exact for all values that the sum can have. Tables are cleaned first: thresholds that no channel's sums
reach, or that all reach, are dropped, so that what is left fits 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..integer.graph import LARGEST, Edge, Int, MultiThreshold, Requantize, thresholds_of
from ..integer.linear import shift_form

MOST_COMPARISONS = 3  # that are cheaper than a multiplication
MOST_COMPARISONS_INSTEAD_OF_WIDE = 5  # that are cheaper than a 64-bit multiplication
MOST_LEVELS = 255  # of a Requantize that is turned into a table to look for a form


@dataclass(frozen=True)
class Activation:
    """The value of a sum x of channel c.

    identity: x.
    compare: base + the sum of steps[j] over all j with signs[c] * x > cuts[c, j].
    shift: base + scale * clip((clip(x, lows[c], highs[c]) * multiplier[c] + addend[c]) >> shift[c], lowest, highest),
    in 32 or 64 bits; no clip of x where lows is None, none of the result where lowest is.
    """

    kind: Literal["identity", "compare", "shift32", "shift64"]
    channels: int
    base: int = 0
    steps: tuple[int, ...] = ()
    cuts: Int | None = None
    signs: Int | None = None
    scale: int = 1
    lows: Int | None = None
    highs: Int | None = None
    multiplier: Int | None = None
    addend: Int | None = None
    shift: Int | None = None
    lowest: int | None = None
    highest: int | None = None

    def on_raw_sums(self, delta: Int) -> Activation | None:
        """The same values from x - delta[c], or None if that does not fit this form's integers."""
        if not delta.any():
            return self
        if self.kind == "compare":
            assert self.cuts is not None
            signed = delta if self.signs is None else delta * self.signs
            moved = self.cuts - signed[:, None]
            return replace(self, cuts=np.clip(moved, -LARGEST - 1, LARGEST))
        if self.kind != "shift32" or self.lows is None:
            return None
        assert self.highs is not None and self.multiplier is not None and self.addend is not None
        lows, highs, addend = self.lows - delta, self.highs - delta, self.addend + delta * self.multiplier
        products = np.maximum(np.abs(lows), np.abs(highs)) * np.abs(self.multiplier)
        if max(int((products + np.abs(addend)).max()), int(np.abs(np.stack([lows, highs])).max())) > LARGEST:
            return None
        return replace(self, lows=lows, highs=highs, addend=addend)

    def without_signs(self) -> Activation:
        """For sums that have been negated where `signs` is -1."""
        return replace(self, signs=None)


def activation(op: MultiThreshold | Requantize | None, x: Edge, y: Edge) -> Activation:
    """`op` on sums in the range of `x`, which puts out the range of `y`. None: the identity."""
    channels = x.shape[0]
    if op is None:
        return Activation("identity", channels)
    if isinstance(op, MultiThreshold):
        table, signs = op.by_channel(channels)
        return _from_table(table, np.array(op.levels, dtype=object), signs, x)
    multiplier, addend, shift = (np.broadcast_to(v, (channels,)) for v in (op.multiplier, op.addend, op.shift))
    if op.highest - op.lowest <= MOST_LEVELS:
        levels = np.arange(op.lowest, op.highest + 1, dtype=object)
        signs = np.where(multiplier < 0, -1, 1)
        found = _from_table(thresholds_of(op, channels), levels, signs, x)
        if found.kind != "compare" or len(found.steps) <= MOST_COMPARISONS:
            return found
    largest = np.maximum(np.maximum(np.abs(x.lows), np.abs(x.highs)), 1)
    narrow = (largest.astype(np.float64) * np.abs(multiplier) + np.abs(addend) < 2.0**31).all() and (shift < 32).all()
    return Activation(
        "shift32" if narrow else "shift64",
        channels,
        multiplier=multiplier,
        addend=addend,
        shift=shift,
        lowest=max(op.lowest, y.lowest),
        highest=min(op.highest, y.highest),
    )


def _from_table(table: Int, levels: NDArray[np.object_], signs: Int, x: Edge) -> Activation:
    """The form of a threshold table."""
    channels = len(table)
    lows, highs = x.times(signs)
    least, most = int((lows[:, None] >= table).sum(1).min()), int((highs[:, None] >= table).sum(1).max())
    table, levels = table[:, least:most], levels[least : most + 1]
    steps = tuple(int(d) for d in np.diff(levels))
    base, count = int(levels[0]), len(steps)
    if count > MOST_COMPARISONS and len(set(steps)) == 1:
        found = _line(table, steps[0], base, signs, lows, highs)
        if found is not None:
            return found
    # x >= t as x > t - 1, and no cut outside the range matters
    cuts = np.clip(table - 1, lows[:, None] - 1, highs[:, None])
    kept = None if (signs > 0).all() else signs
    return Activation("compare", channels, base, steps, cuts, kept)


def _line(table: Int, scale: int, base: int, signs: Int, lows: Int, highs: Int) -> Activation | None:
    # with x held between the first and the last threshold the line need not be clipped, and its products are smaller
    low, high = np.clip(table[:, 0] - 1, lows, highs), np.clip(table[:, -1], lows, highs)
    for bits in (32, 64):
        if bits == 64 and table.shape[1] <= MOST_COMPARISONS_INSTEAD_OF_WIDE:
            return None
        form = shift_form(np.ascontiguousarray(table), low, high, bits=32 if bits == 32 else 64)
        if form is None or int(np.abs(form.multiplier).max()) > LARGEST:
            continue
        # held between the thresholds a line steeper than one level per unit can still leave the levels
        ends = [(x * form.multiplier + form.addend) >> form.shift for x in (low, high)]
        leaves = min(int(end.min()) for end in ends) < 0 or max(int(end.max()) for end in ends) > table.shape[1]
        return Activation(
            "shift32" if bits == 32 else "shift64",
            len(table),
            base,
            scale=scale,
            lowest=0 if leaves else None,
            highest=table.shape[1] if leaves else None,
            lows=np.where(signs > 0, low, -high),
            highs=np.where(signs > 0, high, -low),
            multiplier=form.multiplier * signs,
            addend=form.addend,
            shift=form.shift,
        )
    return None
