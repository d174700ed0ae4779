"""Batch normalisation in evaluation, on integer accumulators: the canonical expression.

Normalisation, gain, offset and the division by the step of the next quantizer are one line of the accumulator,
u = A x + B. Computed as

    u = float32(factor * x + offset) * float32(multiplier),    factor, offset integers,

it is monotone in x, has one rounding before and one in the product, and is what ONNX's QLinearConv computes. The
training code evaluates this expression, lowering takes its thresholds from it, and exports reproduce those, so that
there is one truth.

The offset is rounded to a multiple of 1 / factor accumulator units. The factor is the power of two by which the
weights could be multiplied and still fit eight bits, so that exports can keep the offset that fine; wide weights have
no such room, but large accumulators, of which one unit is small.

Activations of more than four bits are lowered to a multiplication and a shift. That rounds halves upward and has no
float32 between, so where float32's rounding of a product comes within a hair of a tie the two would differ. Of the
multiplier's neighbours, one for which they agree at every step of the staircase is taken. A multiplier of few bits,
such as a power of two, has real ties; it is left alone, and lowered to thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .quantizers import Levels

LARGEST_WEIGHT = 127  # of eight bits, either sign
LARGEST_PAIR = 2**15 - 1  # of the sum of two products, which x86 processors without VNNI keep in 16 bits
LARGEST_FINE = 2**20  # of factor * x where factor > 1
LARGEST_OFFSET = 2.0**30
MOST_COMPARED = 16  # levels of an activation that is lowered to thresholds
NEIGHBOURS = 128  # of a multiplier that are tried for wider ones
REAL_TIES = 2**10  # what divides the 24-bit mantissa of a multiplier with real ties
AROUND = 4  # accumulators on either side of a step where float32 and exact arithmetic may differ


class Line(NamedTuple):
    """u = float32(factor * x + offset) * multiplier, each (C,) float32; factor and offset hold integers."""

    factor: Tensor
    offset: Tensor
    multiplier: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """u in float32 for integers x: (N, C, ...) in float32 (below 2**24) or float64."""
        shape = (1, -1, *[1] * (x.dim() - 2))
        factor, offset, multiplier = (each.reshape(shape) for each in self)
        if x.dtype == torch.float64:
            return (x * factor + offset).float() * multiplier
        # both operands are exact, so the sum is the exact integer rounded once to float32
        return (x * factor).add_(offset).mul_(multiplier)


def finest_factor(weight: int, activation: int, accumulator: int) -> int:
    """The factor for weights, activations (less their lowest) and accumulators of at most these magnitudes."""
    factor = 1
    while (
        2 * factor * weight <= LARGEST_WEIGHT
        and 2 * 2 * factor * weight * activation <= LARGEST_PAIR
        and 2 * factor * accumulator <= LARGEST_FINE
    ):
        factor *= 2
    return factor


def line(
    gain: Tensor,
    offset: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    step: Tensor | float,
    levels: Levels,
    factor: int,
    bound: int,
    unit: Tensor | float = 1.0,
) -> Line:
    """The canonical expression of a batch normalisation and a quantizer with that step and those levels.

    gain, offset, mean, variance: (C,). bound: on the magnitude of x. unit: what 1 in x is to mean and variance, one
    number or (C,). step: one number, or one per channel in any shape.
    """
    slope = gain.double() / (variance.double() + epsilon).sqrt()
    start = offset.double() - mean.double() * slope
    slope = slope * (unit.double() if isinstance(unit, Tensor) else unit)
    step = step.double().flatten() if isinstance(step, Tensor) else step
    slope, start = slope / step, start / step
    fine = (start * factor / slope).round()
    # a channel whose gain is (nearly) nothing beside its offset is constant
    constant = ~(fine.abs() <= LARGEST_OFFSET)
    multiplier = torch.where(constant, start, slope / factor).float()
    factors = torch.where(constant, 0.0, float(factor)).float()
    offsets = torch.where(constant, 1.0, fine).float()
    if len(levels.values) > MOST_COMPARED:
        f, o, m = (each.cpu().numpy() for each in (factors, offsets, multiplier))
        chosen = _agreeing(f, o, m, levels, bound)
        multiplier = torch.from_numpy(chosen).to(multiplier.device)
    return Line(factors, offsets, multiplier)


def fixed_point(multiplier: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(whole, shift) with whole * 2**-shift equal to the multiplier, shift from 1 to 62, whole of 24 bits or more.

    What is left of a multiplier below 2**-38 is cut off.
    """
    mantissa, exponent = np.frexp(multiplier.astype(np.float64))
    whole = np.rint(mantissa * 2.0**24).astype(np.int64)  # exact: a float32 has 24 bits
    shift = 24 - exponent.astype(np.int64)
    whole = whole >> np.clip(shift - 62, 0, 63)
    whole = whole << np.clip(1 - shift, 0, 38)
    return whole, np.clip(shift, 1, 62)


def _agreeing(
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    start: NDArray[np.float32],
    levels: Levels,
    bound: int,
) -> NDArray[np.float32]:
    """The multipliers, or neighbours of them with which float32 rounds as exact arithmetic does at every step.

    Where there is none within NEIGHBOURS the multiplier stays as it is.
    """
    chosen = start.copy()
    usual = (factor > 0) & (np.abs(start) > 2.0**-30) & (np.abs(start) < 2.0**20)
    missing = np.flatnonzero(usual & (start.view(np.int32) % REAL_TIES != 0))
    steps = np.arange(levels.lowest, levels.highest) + 0.5
    for neighbour in range(NEIGHBOURS):
        away = (neighbour + 1) // 2 * (1 if neighbour % 2 else -1)
        # as integers, floats of one sign are in order
        trial = (start[missing].view(np.int32) + np.int32(away)).view(np.float32)
        f, o = factor[missing, None].astype(np.int64), offset[missing, None].astype(np.int64)
        centre = np.floor((steps / trial[:, None].astype(np.float64) - o) / f)
        near = np.arange(-AROUND, AROUND + 1)
        x = np.clip(np.clip(centre, -bound, bound)[:, :, None] + near, -bound, bound).astype(np.int64)
        inner = f[:, :, None] * x + o[:, :, None]
        rounded = np.rint(inner.astype(np.float32) * trial[:, None, None])
        whole, shift = (each[:, None, None] for each in fixed_point(trial))
        exact = (inner * whole + (np.int64(1) << (shift - 1))) >> shift
        low, high = levels.lowest, levels.highest
        agree = (np.clip(rounded, low, high) == np.clip(exact, low, high)).all((1, 2))
        chosen[missing[agree]] = trial[agree]
        missing = missing[~agree]
        if not len(missing):
            break
    return chosen
