"""Which activations of an integer graph are one QLinearConv, and with which numbers.

Values with at most 256 different ones are kept as uint8 with a zero point. A sum with the activation behind it is one
QLinearConv where a float32 line runs between the steps of its thresholds (integer/linear.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integer.graph import (
    Concat,
    Conv,
    Edge,
    Flatten,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Pad,
    Pads,
    Pair,
    Requantize,
    Slice,
    SumPool,
    thresholds_of,
)
from ..integer.linear import FloatForm, counts, evaluate_float_form, float_form, probes, shift_form

MOST_STEPS_SEARCHED = 15  # for a float32 line that is none in exact arithmetic, because its ties round to even
PAIR_SUM = 2**15 - 1  # what two neighbouring products may add up to on x86 without VNNI
SURE = 256.0  # a multiplier with which every sum but 0 leaves the range of uint8


class Sum(NamedTuple):
    """What stands before an activation, as a convolution: (O, I / groups, kh, kw) weights."""

    source: int
    weight: Int
    bias: Int | None
    stride: Pair
    pads: Pads
    groups: int


class Line(NamedTuple):
    """An activation after a sum as QLinearConv's arithmetic.

    Codes are rint((factor * signs * sum + offset) * multiplier) + zero, clipped to [lowest, highest]; they are the
    stored levels themselves, or, where `table` is given, positions in it.
    """

    sums: Sum
    factor: int
    signs: Int
    offset: Int
    multiplier: NDArray[np.float32]
    zero: int
    lowest: int
    highest: int
    table: NDArray[np.uint8] | None


class Quantization:
    """How each value of a graph is kept, and which activations are lines. zeros: of every node, None for int32."""

    def __init__(self, graph: IntegerGraph) -> None:
        self.graph = graph
        self.zeros = _zeros(graph)

    def zero(self, position: int) -> int:
        zero = self.zeros[position]
        assert zero is not None
        return zero

    def line(self, position: int) -> Line | None:
        """A node and the sums before it as one QLinearConv, or None."""
        graph = self.graph
        node, edge = graph.nodes[position], graph.edges[position]
        zero = self.zeros[position]
        if zero is None:
            return None
        op = node.op
        if isinstance(op, MultiThreshold | Requantize):
            before = node.inputs[0]
            ranges = graph.edges[before]
            shift = 0
            sums = self.sum(before)
            inner = graph.nodes[before].op
            if sums is not None and isinstance(inner, SumPool | GlobalSumPool):
                shift = inner.shift
            if sums is None or self.zeros[sums.source] is None:
                sums, shift = self._same(before), 0
        elif isinstance(op, SumPool | GlobalSumPool):
            before, ranges, sums, shift = position, edge, self.sum(position), op.shift
        else:
            return None
        if sums is None or self.zeros[sums.source] is None:
            return None
        lows, highs = ranges.lows, ranges.highs
        if isinstance(op, MultiThreshold):
            table, levels, signs = reachable(op, edge)
        elif isinstance(op, Requantize):
            clipped = Requantize(op.multiplier, op.addend, op.shift, edge.lowest, edge.highest)
            table = thresholds_of(clipped, edge.shape[0])
            levels = tuple(range(edge.lowest, edge.highest + 1))
            signs = np.broadcast_to(np.where(op.multiplier < 0, -1, 1), (edge.shape[0],))
        else:
            levels = tuple(range(edge.lowest, edge.highest + 1))
            table = np.broadcast_to(np.array(levels[1:], dtype=np.int64), (edge.shape[0], len(levels) - 1))
            signs = np.ones(edge.shape[0], dtype=np.int64)
        # (sum >> shift) >= t  <=>  sum >= t << shift, and -(sum >> shift) >= t  <=>  -sum >= (t << shift) - rest;
        # the sum lies in [low << shift, (high << shift) + rest]
        flipped = signs < 0
        rest = (1 << shift) - 1
        table = (np.clip(table, -(2**31), 2**31) << shift) - np.where(flipped, rest, 0)[:, None]
        lows, highs = lows << shift, (highs << shift) + rest
        lows, highs = np.where(flipped, -highs, lows), np.where(flipped, -lows, highs)
        table = np.clip(table, lows[:, None], highs[:, None] + 1)
        line = self._fit(sums, table, levels, zero, signs, lows, highs, op)
        if line is None:
            return None
        if _bound(line, self.stored_range(line.sums.source)) > 2**31 - 1:
            return None
        return line

    def sum(self, position: int) -> Sum | None:
        """A node as a convolution with 8-bit weights, if it is one."""
        graph = self.graph
        node = graph.nodes[position]
        shapes = [graph.edges[i].shape for i in node.inputs]
        match node.op:
            case Conv(weight=weight, bias=bias, stride=stride, pads=pads, groups=groups):
                found = Sum(node.inputs[0], weight, bias, stride, pads, groups)
            case MatMul(weight=weight, bias=bias):
                found = Sum(node.inputs[0], weight[:, :, None, None], bias, (1, 1), (0, 0, 0, 0), 1)
            case SumPool(kernel=kernel, stride=stride, pads=pads):
                ones = np.ones((shapes[0][0], 1, *kernel), dtype=np.int64)
                found = Sum(node.inputs[0], ones, None, stride, pads, shapes[0][0])
            case GlobalSumPool():
                ones = np.ones((shapes[0][0], 1, *shapes[0][1:]), dtype=np.int64)
                found = Sum(node.inputs[0], ones, None, (1, 1), (0, 0, 0, 0), shapes[0][0])
            case _:
                return None
        return found if found.weight.min() >= -128 and found.weight.max() <= 127 else None

    def _same(self, position: int) -> Sum:
        channels = self.graph.edges[position].shape[0]
        ones = np.ones((channels, 1, 1, 1), dtype=np.int64)
        return Sum(position, ones, None, (1, 1), (0, 0, 0, 0), channels)

    def _fit(
        self,
        sums: Sum,
        table: Int,
        levels: tuple[int, ...],
        zero: int,
        signs: Int,
        lows: Int,
        highs: Int,
        op: object,
    ) -> Line | None:
        """A line through thresholds that count from levels[0] upwards."""
        stored = [level + zero for level in levels]
        count = len(levels) - 1
        none = np.zeros(len(table), dtype=np.int64)
        if count == 0:
            return Line(sums, 1, signs, none, np.zeros(len(table), np.float32), stored[0], stored[0], stored[0], None)
        if count == 1:
            # 0 and above is the upper level, -1 and below the lower one: any two levels, whatever their distance
            sure = np.full(len(table), SURE, dtype=np.float32)
            return Line(sums, 1, signs, -table[:, 0], sure, stored[1], stored[0], stored[1], None)
        gaps = np.diff(levels)
        wide = np.repeat(table, gaps, axis=1)
        factors = self._factors(sums)
        if isinstance(op, Requantize):
            natural = _natural(op, factors, wide, lows, highs, levels[0])
            if natural is not None:
                factor, line = natural
                top = stored[-1]
                return Line(
                    sums, factor, signs, line.offset, line.multiplier, line.zero + stored[0], stored[0], top, None
                )
        for steps, codes in ((wide, None), (table, np.array(stored, dtype=np.uint8))):
            if codes is not None and (gaps == 1).all():
                break
            wide_steps = steps.shape[1] > MOST_STEPS_SEARCHED
            if wide_steps and shift_form(steps, lows, highs, bits=64) is None:  # no line at all, found much faster
                continue
            for factor in factors:
                form = float_form(steps, lows, highs, factor=factor)
                if form is not None:
                    first = stored[0] if codes is None else 0
                    top = first + steps.shape[1]
                    return Line(sums, factor, signs, form.offset, form.multiplier, form.zero + first, first, top, codes)
        return None

    def _factors(self, sums: Sum) -> list[int]:
        """What weights may be multiplied by, best first: finer offsets, then safe on processors without VNNI.

        A line for a factor is one for its double too, so smaller ones need not be tried.
        """
        largest = max(int(np.abs(sums.weight).max()), 1)
        biggest = max(127 // largest, 1)
        safe = max(PAIR_SUM // (2 * max(self.stored_range(sums.source)[1], 1) * largest), 1)
        powers = [2 ** (min(biggest, limit).bit_length() - 1) for limit in (safe, biggest)]
        return list(dict.fromkeys(powers))

    def stored_range(self, position: int) -> tuple[int, int]:
        """Zero point and largest stored value of an edge kept in uint8."""
        zero = self.zero(position)
        return zero, max(self.graph.edges[position].highest, 0) + zero

    def may_saturate(self, weight: Int, source: int) -> bool:
        return 2 * self.stored_range(source)[1] * int(np.abs(weight).max()) > PAIR_SUM


def input_kind(op: Input) -> type[np.uint8 | np.int8 | np.int32]:
    if op.lowest >= 0 and op.highest <= 255:
        return np.uint8
    return np.int8 if op.lowest >= -128 and op.highest <= 127 else np.int32


def _zeros(graph: IntegerGraph) -> list[int | None]:
    """For every node the zero point with which it is kept in uint8, None if it is not.

    Operators that only pass values on need the same zero point on both sides, so those are tied together.
    """
    ranges: list[tuple[int, int]] = []
    for node, edge in zip(graph.nodes, graph.edges, strict=True):
        low, high = min(edge.lowest, 0), max(edge.highest, 0)
        op = node.op
        if isinstance(op, Input) and input_kind(op) is np.uint8 and 0 <= op.zero_point <= 255:
            low, high = -op.zero_point, 255 - op.zero_point  # it comes as uint8
        ranges.append((low, high))
    leader = list(range(len(ranges)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for kinds in ((MaxPool, Slice, Pad, Flatten), (Concat,)):
        for position, node in enumerate(graph.nodes):
            if not isinstance(node.op, kinds):
                continue
            for i in node.inputs:
                a, b = find(i), find(position)
                low, high = min(ranges[a][0], ranges[b][0]), max(ranges[a][1], ranges[b][1])
                if a != b and high - low <= 255:
                    leader[max(a, b)] = min(a, b)
                    ranges[min(a, b)] = (low, high)
    found = (ranges[find(i)] for i in range(len(ranges)))
    return [-low if high - low <= 255 else None for low, high in found]


def reachable(op: MultiThreshold, edge: Edge) -> tuple[Int, tuple[int, ...], Int]:
    """Thresholds (C, L) and levels without those that no value reaches, and signs (C,)."""
    first, last = op.levels.index(edge.lowest), op.levels.index(edge.highest)
    table, signs = op.by_channel(edge.shape[0])
    return table[:, first:last], op.levels[first : last + 1], signs


def _natural(
    op: Requantize, factors: Sequence[int], steps: Int, lows: Int, highs: Int, first: int
) -> tuple[int, FloatForm] | None:
    """The float form that a Requantize was made from, if it was: addend = offset * multiplier + half."""
    shape = (len(steps),)
    multiplier, addend, shift = (np.broadcast_to(v, shape) for v in (op.multiplier, op.addend, op.shift))
    x = probes(steps, lows, highs)
    wanted = counts(steps, x)
    for factor in factors:
        offsets, slopes = [], []
        for m, a, s in zip(multiplier.tolist(), addend.tolist(), shift.tolist(), strict=True):
            if m == 0:
                return None
            half = 1 << (s - 1) if s else 0
            offsets.append(min(max(round(factor * (a - half) / abs(m)), -(2**31)), 2**31))
            slopes.append(abs(m) / (factor * 2.0**s))
        form = FloatForm(np.array(offsets), np.array(slopes, dtype=np.float32), -first)
        if np.array_equal(evaluate_float_form(form, x, factor, steps.shape[1]), wanted):
            return factor, form
    return None


def _bound(line: Line, stored: tuple[int, int]) -> int:
    """A bound on the magnitude of what QLinearConv adds up in 32 bits, zero points included."""
    sums = line.sums
    taps = np.abs(sums.weight).sum(axis=(1, 2, 3)) * line.factor * max(stored)
    bias = 0 if sums.bias is None else np.abs(sums.bias) * line.factor
    return int((taps + bias + np.abs(line.offset)).max())
