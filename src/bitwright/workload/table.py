"""What a network computes and stores, as one table: the neutral ground on which all costs are counted.

A table has a row per node of a Network or an IntegerGraph and needs neither weights nor images. Its columns are numpy
arrays of float64, in which integers below 2**53 are exact. What depends on bit widths is kept apart (`Widths`) and may
have a leading axis of candidates, so that many choices of bit widths are counted in one pass over the columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError
from ..network import Shape

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Positions = NDArray[np.int64]
Columns = tuple[Floats, Floats, Floats]  # bits, lowest, highest

REAL_BITS = 32


class Kind(IntEnum):
    INPUT = 0
    CONVOLUTION = 1
    LINEAR = 2
    ACTIVATION = 3  # a quantizer or another function of one number, with a normalisation or without
    ADD = 4
    POOL = 5  # sums over a window
    MAX_POOL = 6
    PASS = 7  # puts values elsewhere or leaves them as they are


class Codes(NamedTuple):
    """The bits that store a number, and the smallest and largest it can be; real numbers have no bounds."""

    bits: float
    lowest: float
    highest: float


REALS = Codes(REAL_BITS, -math.inf, math.inf)
POSITIVE_REALS = Codes(REAL_BITS, 0.0, math.inf)


@dataclass(frozen=True)
class Row:
    """One node. Numbers are counts for one image unless said otherwise.

    inputs: positions of the rows that are read.
    value: what it puts out. chooses: whether these bits are a choice rather than a consequence of the inputs'.
    weights, weight: how many weights of what codes. zeros: how many of them are 0, None where that is not known.
    terms: numbers that one output number sums (or takes the largest of).
    output_terms: the same with the output channels of a group in place of its input channels.
    biases: trained numbers that are added. gains: trained numbers of a normalisation, two per channel.
    normalises: whether a bias remains of it, once scales are folded into the weights before it.
    rectifies: whether negative numbers become 0.
    divides: whether every sum is divided. averages: whether the quotient is a real number, whatever is summed.
    shift: right shift of a sum.
    tables: how many rows of thresholds there are, one per channel or one for all.
    thresholds: how many are in a row, None for as many as the levels need.
    constants, multiplier_bits: of a requantization by multiplication, bits of all its constants and of one multiplier.
    sum_bits: bits of the narrowest sums that hold all that can come, added over channels; None where only bounds are
        known that all channels share.
    """

    kind: Kind
    name: str
    operation: str
    shape: Shape
    inputs: tuple[int, ...]
    value: Codes
    chooses: bool = False
    weights: int = 0
    weight: Codes = Codes(0, 0, 0)
    zeros: int | None = None
    terms: int = 0
    output_terms: int = 0
    biases: int = 0
    gains: int = 0
    normalises: bool = False
    rectifies: bool = False
    divides: bool = False
    averages: bool = False
    shift: int = 0
    tables: int = 0
    thresholds: int | None = None
    constants: int = 0
    multiplier_bits: int = 0
    sum_bits: int | None = None

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def pixels(self) -> int:
        return math.prod(self.shape[1:])


@dataclass(frozen=True, eq=False)
class Widths:
    """Bits and bounds of every row, (rows,) or (candidates, rows): of its weights, its output, and what it reads.

    exact: whether they are those that the table was made with, for which a row's `sum_bits` and `thresholds` hold.
    """

    weight_bits: Floats
    weight_low: Floats
    weight_high: Floats
    value_bits: Floats
    value_low: Floats
    value_high: Floats
    input_bits: Floats
    input_low: Floats
    input_high: Floats
    exact: bool = True


class Lives(NamedTuple):
    """When values are held: `stored` rows take memory from their own position to `last`."""

    stored: Bools
    last: Positions


def _numbers(name: str) -> cached_property[Floats]:
    """The attribute of that name of all rows; what is not known becomes nan."""
    return cached_property(lambda work: np.array([getattr(row, name) for row in work.rows], dtype=float))


def _truths(name: str) -> cached_property[Bools]:
    return cached_property(lambda work: np.array([getattr(row, name) for row in work.rows], dtype=bool))


@dataclass(frozen=True, eq=False)
class Workload:
    """All rows, and each attribute of them as an array: (rows,)."""

    rows: tuple[Row, ...]

    kind = _numbers("kind")
    channels = _numbers("channels")
    pixels = _numbers("pixels")
    weights = _numbers("weights")
    zeros = _numbers("zeros")
    terms = _numbers("terms")
    output_terms = _numbers("output_terms")
    biases = _numbers("biases")
    gains = _numbers("gains")
    normalises = _truths("normalises")
    rectifies = _truths("rectifies")
    divides = _truths("divides")
    chooses = _truths("chooses")
    tables = _numbers("tables")
    threshold_counts = _numbers("thresholds")
    constants = _numbers("constants")
    multiplier_bits = _numbers("multiplier_bits")
    sum_bits = _numbers("sum_bits")

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def elements(self) -> Floats:
        """Numbers that a row puts out."""
        return self.channels * self.pixels

    @cached_property
    def products(self) -> Bools:
        """Rows that multiply with weights."""
        return np.isin(self.kind, (Kind.CONVOLUTION, Kind.LINEAR))

    @cached_property
    def macs(self) -> Floats:
        """Multiply-accumulate operations; padding counts as if it were pixels, as is usual."""
        return np.where(self.products, self.pixels * self.weights, 0.0)

    @cached_property
    def source(self) -> Positions:
        """The row whose output a row reads first, past those that only pass it on; the input reads itself."""
        sources: list[int] = []
        for position, row in enumerate(self.rows):
            source = row.inputs[0] if row.inputs else position
            passed = self.rows[source].kind == Kind.PASS and len(self.rows[source].inputs) == 1
            sources.append(sources[source] if passed else source)
        return np.array(sources)

    @cached_property
    def folded(self) -> Bools:
        """Normalisations whose scale goes into the weights before them, so that only a bias is left."""
        folded: Bools = self.normalises & self.products[self.source]
        return folded

    @cached_property
    def offsets(self) -> Bools:
        """Normalisations of which a bias is left: those that find none to be added to."""
        offsets: Bools = self.normalises & ~(self.folded & (self.biases[self.source] > 0))
        return offsets

    @cached_property
    def designed(self) -> Widths:
        """The widths that the table was made with."""
        weight = _transposed([row.weight for row in self.rows])
        return self._with_inputs(weight, _transposed([row.value for row in self.rows]), exact=True)

    def widths(self, weight_bits: ArrayLike | None = None, activation_bits: ArrayLike | None = None) -> Widths:
        """The widths with other bits: a number for all rows, or (rows,), or (candidates, rows).

        Only rows with weights take `weight_bits`, only inputs and quantizers `activation_bits`. Where bits change, a
        number stays signed or not and symmetric or not; 32 bits are a real number. The ranges of all else follow.
        """
        if weight_bits is None and activation_bits is None:
            return self.designed
        now = self.designed
        weight, value = (
            (now.weight_bits, now.weight_low, now.weight_high),
            (now.value_bits, now.value_low, now.value_high),
        )
        if weight_bits is not None:
            weight = _requantized(*weight, self._checked(weight_bits), self.products)
        if activation_bits is not None:
            value = _requantized(*value, self._checked(activation_bits), self.chooses)
        value = self._derived(value, weight)
        a, b, c, d, e, f = np.broadcast_arrays(*weight, *value)
        return self._with_inputs((a, b, c), (d, e, f), exact=False)

    def row_of(self, name: str) -> int:
        """The position of the row with weights of that name; ConfigError if there is none."""
        for position, row in enumerate(self.rows):
            if row.name == name and row.weights:
                return position
        known = [row.name for row in self.rows if row.weights]
        raise ConfigError(f"no layer {name!r} with weights; there are {', '.join(known[:4])} ...")

    def over_inputs(self, values: Floats, combine: np.ufunc) -> Floats:
        """`combine` over what each row reads, of values (..., rows); the input reads itself."""
        combined: Floats = combine.reduceat(values[..., self._reads], self._starts, axis=-1)
        return combined

    def thresholds(self, widths: Widths) -> Floats:
        """Thresholds that requantize one number: one less than there are levels, none for real numbers."""
        span = widths.value_high - widths.value_low
        counts = np.where(widths.value_bits == 1, 1.0, span)
        if widths.exact:
            counts = np.where(np.isnan(self.threshold_counts), counts, self.threshold_counts)
        requantizes = (self.tables > 0) & self.chooses & np.isfinite(span)
        return np.where(requantizes, counts, 0.0)

    def live_bits(self, widths: Widths) -> Floats:
        """Bits of all values held while each row is computed, its output included: (..., rows).

        A sum that one activation alone reads is never held, nor are copies: concatenated values stay where they are.
        """
        stored, last = self.lives
        sizes = np.where(stored, self.elements * widths.value_bits, 0.0)
        order = np.argsort(last, kind="stable")
        begun = np.cumsum(sizes, axis=-1)
        ended = np.concatenate([np.zeros_like(sizes[..., :1]), np.cumsum(sizes[..., order], axis=-1)], axis=-1)
        before: Floats = ended[..., np.searchsorted(last[order], np.arange(len(self)), side="left")]
        return begun - before

    @cached_property
    def lives(self) -> Lives:
        readers: list[list[int]] = [[] for _ in self.rows]
        for position, row in enumerate(self.rows):
            for i in row.inputs:
                readers[i].append(position)
        stored = np.zeros(len(self), dtype=bool)
        last = np.arange(len(self))
        held: list[set[int]] = []  # for every row the stored values that what it puts out is made of
        for position, row in enumerate(self.rows):
            read = set().union(*(held[i] for i in row.inputs))
            for i in read:
                last[i] = position
            fused = len(readers[position]) == 1 and self.rows[readers[position][0]].kind == Kind.ACTIVATION
            stored[position] = not row.inputs or not (row.kind == Kind.PASS or fused)
            held.append({position} if stored[position] else read)
        for i in held[-1]:
            last[i] = len(self) - 1
        return Lives(stored, last)

    @cached_property
    def _reads(self) -> Positions:
        return np.array([i for position, row in enumerate(self.rows) for i in row.inputs or (position,)])

    @cached_property
    def _starts(self) -> Positions:
        counts = [len(row.inputs) or 1 for row in self.rows]
        return np.cumsum([0, *counts[:-1]])

    @cached_property
    def _dependent(self) -> list[int]:
        """Rows whose range follows from the inputs', without sums that only activations read."""
        wanted = {len(self) - 1}
        for row in self.rows:
            sums = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ADD, Kind.POOL) if row.kind == Kind.ACTIVATION else ()
            wanted.update(i for i in row.inputs if self.rows[i].kind not in sums)
        return [i for i in sorted(wanted) if not self.rows[i].chooses]

    def _checked(self, bits: ArrayLike) -> Floats:
        array = np.asarray(bits, dtype=float)
        if array.ndim and array.shape[-1] != len(self):
            raise ConfigError(f"bits are one number or one for each of {len(self)} rows, got {array.shape}")
        if ((array < 1) | (array > REAL_BITS) | (array != np.rint(array))).any():
            raise ConfigError(f"bits are integers from 1 to {REAL_BITS}")
        return np.broadcast_to(array, (*array.shape[:-1], len(self)))

    def _with_inputs(self, weight: Columns, value: Columns, *, exact: bool) -> Widths:
        """The widths with bits, lowest and highest of weights and of outputs."""
        (weight_bits, weight_low, weight_high), (bits, low, high) = weight, value
        return Widths(
            weight_bits=weight_bits,
            weight_low=weight_low,
            weight_high=weight_high,
            value_bits=bits,
            value_low=low,
            value_high=high,
            input_bits=self.over_inputs(bits, np.maximum),
            input_low=self.over_inputs(low, np.minimum),
            input_high=self.over_inputs(high, np.maximum),
            exact=exact,
        )

    def _derived(self, value: Columns, weight: Columns) -> Columns:
        """Bits, lowest and highest of all outputs, from those that are choices."""
        shape = np.broadcast_shapes(value[0].shape, weight[0].shape)
        bits, low, high = (np.broadcast_to(each, shape).copy() for each in value)
        _, weight_low, weight_high = weight
        for i in self._dependent:
            row = self.rows[i]
            reads = list(row.inputs)
            lowest, highest = low[..., reads].min(-1), high[..., reads].max(-1)
            widest = bits[..., reads].max(-1)
            if self.products[i]:
                lowest, highest = product_bounds(lowest, highest, weight_low[..., i], weight_high[..., i], row.terms)
                if row.biases:  # of as many bits as the sum, see Linear
                    half = np.exp2(_span_bits(lowest, highest) - 1)
                    lowest, highest = lowest - half, highest + half - 1
            elif row.kind == Kind.ADD:
                lowest, highest = low[..., reads].sum(-1), high[..., reads].sum(-1)
            elif row.averages:
                lowest, highest = np.full_like(lowest, -np.inf), np.full_like(highest, np.inf)
            elif row.kind == Kind.POOL:
                lowest = np.floor(np.minimum(lowest * row.terms, 0) / 2**row.shift)
                highest = np.floor(highest * row.terms / 2**row.shift)
            if row.kind not in (Kind.PASS, Kind.MAX_POOL):
                widest = _span_bits(lowest, highest)
            bits[..., i], low[..., i], high[..., i] = widest, lowest, highest
        return bits, low, high


def bit_length(values: Floats) -> Floats:
    """Binary digits of non-negative integers, 0 for 0."""
    return np.frexp(values)[1].astype(float)


def integer_bits(low: Floats, high: Floats) -> Floats:
    """Bits of the narrowest integer that holds low to high, in two's complement if low is negative; 32 for reals."""
    finite = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(finite, low, 0.0), np.where(finite, high, 0.0)
    signed = np.maximum(bit_length(np.maximum(-low - 1, 0)), bit_length(np.maximum(high, 0))) + 1
    return np.where(finite, np.where(low < 0, signed, np.maximum(bit_length(np.maximum(high, 0)), 1)), REAL_BITS)


def product_bounds(
    low: Floats, high: Floats, weight_low: Floats, weight_high: Floats, terms: Floats | int
) -> tuple[Floats, Floats]:
    """The smallest and largest sum of so many products of a value and a weight, of which any may be 0."""
    real = ~(np.isfinite(low) & np.isfinite(high) & np.isfinite(weight_low) & np.isfinite(weight_high))
    a, b, v, w = (np.where(real, 0.0, each) for each in (low, high, weight_low, weight_high))
    corners = a * v, a * w, b * v, b * w
    smallest = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    largest = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    return (
        np.where(real, -np.inf, np.minimum(smallest, 0) * terms),
        np.where(real, np.inf, np.maximum(largest, 0) * terms),
    )


def _span_bits(low: Floats, high: Floats) -> Floats:
    """Bits that tell all integers from low to high apart; 32 if they are real."""
    span = high - low
    return np.where(np.isfinite(span), bit_length(np.where(np.isfinite(span), span, 0)), REAL_BITS)


def _requantized(bits: Floats, low: Floats, high: Floats, wanted: Floats, where: Bools) -> Columns:
    """Codes with other bits, signed and symmetric as they were."""
    power = np.exp2(wanted - 1)
    highest = np.where(low >= 0, 2 * power - 1, np.maximum(power - 1, 1))
    lowest = np.where(low >= 0, 0, np.where(low == -high, -highest, -power))
    real = wanted >= REAL_BITS
    lowest, highest = np.where(real, np.where(low >= 0, 0, -np.inf), lowest), np.where(real, np.inf, highest)
    where = where & (wanted != bits)
    return np.where(where, wanted, bits), np.where(where, lowest, low), np.where(where, highest, high)


def _transposed(codes: Sequence[Codes]) -> Columns:
    bits, low, high = np.array(codes, dtype=float).T
    return bits, low, high
