"""Energy of one image in a chip of 45 nm at 0.9 V, from the published energies of single operations (Horowitz 2014,
"Computing's energy problem (and what we can do about it)", ISSCC).

pJ              8 bits  32 bits  float32
addition          0.03      0.1      0.9
multiplication    0.2       3.1      3.7

reading 64 bits from memory: 8 KB 10 pJ, 32 KB 20 pJ, 1 MB 100 pJ, DRAM 1300 pJ (the lower end of 1.3 to 2.6 nJ)

Between and below these, an adder's energy is linear in its bits, and a multiplier's in the product of the bits of what
it multiplies, through the two published figures; what is published of the addition of 16 bits, 0.05 pJ, is 0.0533 so.

multiplications  MACs, of weight and input; with weights of -1, 0 and 1 real numbers only change their sign, for nothing
additions        of products, biases, pools, sums of two values, and maxima (each a subtraction), as in _operations.py,
                 at the bits of the sum; sums of two values and maxima at those of what they read
divisions        of pools: a multiplication where the quotient is real; integers keep their sum, at another scale
activations      a number is compared with as many thresholds as a binary search takes, each a subtraction at the bits
                 of the sum before it, or requantized by a multiplication and an addition; before a real activation an
                 offset is an addition and a gain that cannot be folded a multiplication; rectifiers are free
memory           every constant is read once (those of `memory_bits`); every value that is held is written once, and
                 read once by each node that reads it: what a chip moves at least that holds nothing between two nodes

A number is real if its range has no end; a product or a sum with one is of float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from ..errors import ConfigError
from ..workload.accumulators import Accumulator, channel_bits, check_accumulator
from ..workload.table import Bools, Floats, Kind, Widths, Workload, bit_length
from . import CostModel
from ._operations import (
    additions_of_biases,
    additions_of_pools,
    additions_of_products,
    additions_of_values,
    comparisons_of_pools,
    multiplications_of_pools,
)
from .memory_bits import MemoryBits

Memory = Literal["none", "8KB", "32KB", "1MB", "DRAM"]
Bits = TypeVar("Bits", float, Floats)

FLOAT_ADDITION, FLOAT_MULTIPLICATION = 0.9, 3.7  # pJ
ADDITIONS = {8: 0.03, 32: 0.1}  # pJ by bits
MULTIPLICATIONS = {8 * 8: 0.2, 32 * 32: 3.1}  # pJ by the product of the bits
ACCESSES: dict[Memory, float] = {"none": 0.0, "8KB": 10.0, "32KB": 20.0, "1MB": 100.0, "DRAM": 1300.0}  # pJ
ACCESS_BITS = 64
PER_NANOJOULE = 1000  # pJ


@dataclass(frozen=True)
class Energy(CostModel):
    """weights, activations: where constants and where values are kept: 8KB, 32KB or 1MB of SRAM, DRAM, or none, which
        leaves out what it takes to move them.
    accumulator: bits of the sums of products, or a formula of workload/accumulators.py.
    """

    unit = "nJ"

    weights: Memory = "1MB"
    activations: Memory = "1MB"
    accumulator: Accumulator = 32

    def __post_init__(self) -> None:
        check_accumulator(self.accumulator)
        for name in ("weights", "activations"):
            if getattr(self, name) not in ACCESSES:
                raise ConfigError(f"{name} are kept in {', '.join(ACCESSES)}, got {getattr(self, name)!r}")

    def figures(self, work: Workload, widths: Widths) -> Floats:
        sums = channel_bits(work, widths, self.accumulator) / work.channels
        moved = MemoryBits().figures(work, widths) * _access(self.weights)
        moved = moved + _moved_bits(work, widths) * _access(self.activations)
        return (_products(work, widths, sums) + _activations(work, widths, sums) + moved) / PER_NANOJOULE


def addition(bits: Bits) -> Bits:
    """pJ of adding two integers."""
    return _line(ADDITIONS, bits)


def multiplication(product: Bits) -> Bits:
    """pJ of multiplying two integers, the product of whose bits is given."""
    return _line(MULTIPLICATIONS, product)


def _line(published: dict[int, float], at: Bits) -> Bits:
    (low, less), (high, more) = published.items()
    return less + (at - low) * ((more - less) / (high - low))


def _access(memory: Memory) -> float:
    """pJ of a bit."""
    return ACCESSES[memory] / ACCESS_BITS


def _products(work: Workload, widths: Widths, sums: Floats) -> Floats:
    """pJ of convolutions, products, pools, maxima and sums of two values."""
    real = _is_real(widths.input_low, widths.input_high) | _is_real(widths.weight_low, widths.weight_high)
    signs = (widths.weight_low >= -1) & (widths.weight_high <= 1)
    integers = multiplication(widths.weight_bits * widths.input_bits)
    multiplied = np.where(real, np.where(signs, 0.0, FLOAT_MULTIPLICATION), integers)
    added = np.where(real, FLOAT_ADDITION, addition(sums))
    added_values = np.where(real, FLOAT_ADDITION, addition(widths.input_bits))
    divided = np.where(_is_real(widths.value_low, widths.value_high), FLOAT_MULTIPLICATION, 0.0)
    biases = np.where(work.products, additions_of_biases(work), 0.0)
    return (
        work.macs * multiplied
        + (additions_of_products(work) + additions_of_pools(work) + biases) * added
        + (additions_of_values(work) + comparisons_of_pools(work)) * added_values
        + multiplications_of_pools(work) * divided
    )


def _activations(work: Workload, widths: Widths, sums: Floats) -> Floats:
    """pJ of normalisations and quantizers."""
    before = sums[..., work.source]
    gained, offset = work.normalises & ~work.folded, work.offsets
    floats = gained * FLOAT_MULTIPLICATION + offset * FLOAT_ADDITION
    compared = np.where(_is_real(widths.input_low, widths.input_high), FLOAT_ADDITION, addition(before))
    integers = bit_length(work.thresholds(widths)) * compared
    bits = work.multiplier_bits * np.ones_like(before)
    requantized = multiplication(before * bits) + addition(before + bits)
    integers = np.where(bits > 0, requantized, integers)
    real = _is_real(widths.value_low, widths.value_high)
    return np.where(work.kind == Kind.ACTIVATION, work.elements * np.where(real, floats, integers), 0.0)


def _moved_bits(work: Workload, widths: Widths) -> Floats:
    """Bits of the values that every row reads and writes; what is only passed on stays where it is."""
    stored, passes = work.lives.stored, work.kind == Kind.PASS
    sizes = work.elements * widths.value_bits
    read = work.over_inputs(np.where(stored | passes, sizes, 0.0), np.add)
    written = np.where(stored, sizes, 0.0)
    return np.where(passes | (work.kind == Kind.INPUT), 0.0, read + written)


def _is_real(low: Floats, high: Floats) -> Bools:
    real: Bools = ~np.isfinite(high - low)
    return real
