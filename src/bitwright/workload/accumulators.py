"""How wide the sums are. With i input bits, w weight bits and n terms, a convolution or product sums in

number            that many bits
exact             two's complement for the smallest and largest sum that inputs and weights allow; in an integer graph
                  for those that its constants allow, channel by channel
type              the same as if every input and weight could be anything of its type: sums of +-n (2**i - 1) W for
                  unsigned inputs, +-n 2**(i - 1) W for signed ones, W being the largest weight
brevitas          ceil(log2((2**i - 1) (2**w - 1) n)): Brevitas 0.13
brevitas-2019-in  ceil(log2((2**i - 1) (2**w - 2) n))
brevitas-2019     the same, but n with the output channels in place of the input channels: Brevitas of October 2019,
                  whose widths are too small wherever channels become fewer

A sum of two values of a and b bits takes ceil(log2((2**a - 1) + (2**b - 1))) bits and a pool of n
ceil(log2((2**i - 1) n)), but with `exact` and `type` two's complement for what can come. Real numbers take 32 bits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import ConfigError
from .table import REAL_BITS, Bools, Floats, Kind, Widths, Workload, bit_length, integer_bits, product_bounds

Formula = Literal["exact", "type", "brevitas", "brevitas-2019-in", "brevitas-2019"]
Accumulator = int | Formula

FORMULAS: tuple[Formula, ...] = ("exact", "type", "brevitas", "brevitas-2019-in", "brevitas-2019")


def check_accumulator(accumulator: Accumulator) -> None:
    """ConfigError unless it is one of the above."""
    known = accumulator in FORMULAS if isinstance(accumulator, str) else 1 <= accumulator <= 64
    if not known:
        raise ConfigError(f"an accumulator is 1 to 64 bits or {', '.join(FORMULAS)}, got {accumulator}")


def channel_bits(work: Workload, widths: Widths, accumulator: Accumulator) -> Floats:
    """Bits of what a row computes before it is requantized, added over its channels: (..., rows).

    For rows that do not sum these are the bits of their output.
    """
    bits = np.where(work.products, _product_bits(work, widths, accumulator), widths.value_bits)
    bits = np.where(work.kind == Kind.ADD, _addition_bits(work, widths, accumulator), bits)
    bits = np.where(work.kind == Kind.POOL, _pool_bits(work, widths, accumulator), bits)
    total = bits * work.channels
    if accumulator == "exact" and widths.exact:
        total = np.where(np.isnan(work.sum_bits), total, work.sum_bits)
    return total


def _product_bits(work: Workload, widths: Widths, accumulator: Accumulator) -> Floats:
    levels, weights = np.exp2(widths.input_bits) - 1, np.exp2(widths.weight_bits)
    match accumulator:
        case "exact":
            low, high = widths.input_low, widths.input_high
            return integer_bits(*product_bounds(low, high, widths.weight_low, widths.weight_high, work.terms))
        case "type":
            largest = np.where(widths.input_low < 0, np.exp2(widths.input_bits - 1), levels)
            largest = np.where(np.isfinite(widths.input_high), largest, np.inf)
            return integer_bits(*product_bounds(-largest, largest, widths.weight_low, widths.weight_high, work.terms))
        case "brevitas":
            largest = levels * (weights - 1) * work.terms
        case "brevitas-2019-in":
            largest = levels * np.maximum(weights - 2, 1) * work.terms
        case "brevitas-2019":
            largest = levels * np.maximum(weights - 2, 1) * work.output_terms
        case _:
            return np.full_like(widths.value_bits, accumulator)
    return _logarithm(largest, ~np.isfinite(widths.input_high + widths.weight_high))


def _addition_bits(work: Workload, widths: Widths, accumulator: Accumulator) -> Floats:
    low, high = (work.over_inputs(each, np.add) for each in (widths.value_low, widths.value_high))
    if accumulator in ("exact", "type"):
        return integer_bits(low, high)
    return _logarithm(work.over_inputs(np.exp2(widths.value_bits) - 1, np.add), ~np.isfinite(high - low))


def _pool_bits(work: Workload, widths: Widths, accumulator: Accumulator) -> Floats:
    real = ~np.isfinite(widths.input_high - widths.input_low)
    if accumulator in ("exact", "type"):
        terms = np.where(real, 1.0, work.terms)
        return integer_bits(np.minimum(widths.input_low, 0) * terms, widths.input_high * terms)
    return _logarithm((np.exp2(widths.input_bits) - 1) * work.terms, real)


def _logarithm(largest: Floats, real: Bools) -> Floats:
    """ceil(log2(largest)) of positive integers, and the width of real numbers where there are such."""
    return np.where(real, REAL_BITS, bit_length(np.maximum(largest - 1, 0)))
