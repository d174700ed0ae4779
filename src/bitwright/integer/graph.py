"""Integer-only networks as data: a static graph of integer operations with exact value ranges on every edge.

Every value is an integer; nothing here knows of scales, steps or batch normalisation. run.py executes a graph and so
defines what each operation means; exports must agree with it bit for bit. The set of operations is closed.

Values have a shape (C, H, W) or (F,), without the batch axis; their first axis is the channel. Every value fits
32 bits, and so does every partial sum; a graph for which that cannot be shown is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidGraph

Int = NDArray[np.int64]
Shape = tuple[int, ...]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # top, left, bottom, right

NO_PADS: Pads = (0, 0, 0, 0)
LARGEST = 2**31 - 1  # magnitude of any value or partial sum
MOST_ELEMENTS = 2**26  # of one value
MOST_CHANNELS = 2**22
LONGEST_SIDE = 2**16  # of an image, window, stride or padding
DEEPEST = 100_000  # nodes


@dataclass(frozen=True, eq=False)
class Input:
    """Integers from `lowest` to `highest` come in, and `zero_point` is subtracted from them.

    An image of bytes whose pixel 128 means zero is Input(shape, 0, 255, 128).
    """

    shape: Shape
    lowest: int = 0
    highest: int = 255
    zero_point: int = 0


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation, padded with zeros, plus `bias`.

    weight: (O, I / groups, kh, kw). bias: (O,) or None. A depthwise convolution has as many groups as channels.
    """

    weight: Int
    bias: Int | None = None
    stride: Pair = (1, 1)
    pads: Pads = NO_PADS
    groups: int = 1


@dataclass(frozen=True, eq=False)
class MatMul:
    """weight @ x + bias. weight: (O, I). bias: (O,) or None."""

    weight: Int
    bias: Int | None = None


@dataclass(frozen=True, eq=False)
class MultiThreshold:
    """levels[number of thresholds[c] that signs[c] * x reaches] (the activation of FINN, arXiv:1612.07119).

    thresholds: (C, L) or (1, L) for all channels alike, ascending in each row; equal ones skip a level.
    levels: L + 1 integers, strictly ascending.
    signs: (C,) of +1 and -1, or None for all +1. With -1 larger x gives smaller levels.
    """

    thresholds: Int
    levels: tuple[int, ...]
    signs: Int | None = None

    def by_channel(self, channels: int) -> tuple[Int, Int]:
        """Thresholds (channels, L) and signs (channels,), whatever is left out or shared."""
        signs = np.ones(channels, dtype=np.int64) if self.signs is None else self.signs
        return np.broadcast_to(self.thresholds, (channels, self.thresholds.shape[1])), signs


@dataclass(frozen=True, eq=False)
class Requantize:
    """clip((x * multiplier[c] + addend[c]) >> shift[c], lowest, highest), in 64 bits, >> rounding down.

    multiplier, addend, shift: (C,) or (1,) for all channels alike; shift is 0 to 62.
    """

    multiplier: Int
    addend: Int
    shift: Int
    lowest: int
    highest: int


@dataclass(frozen=True, eq=False)
class Add:
    """Sum of two values of one shape, clipped to [lowest, highest] where those are given."""

    lowest: int | None = None
    highest: int | None = None


@dataclass(frozen=True, eq=False)
class Concat:
    """All inputs, by channel."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The first `channels` channels."""

    channels: int


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Largest value in the window; padding does not count."""

    kernel: Pair
    stride: Pair = (1, 1)
    pads: Pads = NO_PADS


@dataclass(frozen=True, eq=False)
class SumPool:
    """Sum over the window, padding counted as zero, then >> shift (rounding down)."""

    kernel: Pair
    stride: Pair = (1, 1)
    pads: Pads = NO_PADS
    shift: int = 0


@dataclass(frozen=True, eq=False)
class GlobalSumPool:
    """Sum over the image, then >> shift (rounding down). (C, H, W) becomes (C,)."""

    shift: int = 0


@dataclass(frozen=True, eq=False)
class Pad:
    """Zeros around the image."""

    pads: Pads


@dataclass(frozen=True, eq=False)
class Flatten:
    """(C, H, W) becomes (C * H * W,), channel by channel."""


@dataclass(frozen=True, eq=False)
class Argmax:
    """Position of the largest element of a vector, the first of equal ones. (F,) becomes (1,)."""


Op = (
    Input
    | Conv
    | MatMul
    | MultiThreshold
    | Requantize
    | Add
    | Concat
    | Slice
    | MaxPool
    | SumPool
    | GlobalSumPool
    | Pad
    | Flatten
    | Argmax
)


@dataclass(frozen=True, eq=False)
class Node:
    """`inputs` are positions of earlier nodes. `name` is for people: the layer it came from."""

    op: Op
    inputs: tuple[int, ...] = ()
    name: str = ""


class Edge(NamedTuple):
    """What a node puts out: its shape, and for every channel the smallest and largest value it can have."""

    shape: Shape
    lows: Int  # (C,)
    highs: Int  # (C,)

    @property
    def lowest(self) -> int:
        return int(self.lows.min())

    @property
    def highest(self) -> int:
        return int(self.highs.max())

    @property
    def magnitude(self) -> int:
        return max(-self.lowest, self.highest)

    @property
    def signed(self) -> bool:
        return self.lowest < 0

    @property
    def bits(self) -> int:
        """Width of the narrowest integer that holds every value: two's complement if any is negative."""
        if self.signed:
            return max((-self.lowest - 1).bit_length(), max(self.highest, 0).bit_length()) + 1
        return max(self.highest.bit_length(), 1)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def times(self, signs: Int) -> tuple[Int, Int]:
        """The smallest and the largest signs * value of every channel; signs: (C,) of +1 and -1."""
        return np.where(signs > 0, self.lows, -self.highs), np.where(signs > 0, self.highs, -self.lows)


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """Nodes in execution order; node 0 is the only Input, the last node is the output.

    scales: what an output integer means as a real number, one for all or one per output; empty if unknown.
    Raises InvalidGraph, naming the node, where the nodes do not fit together or a value could exceed 32 bits.
    """

    nodes: tuple[Node, ...]
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0].op, Input):
            raise InvalidGraph("an integer graph starts with its input")
        if len(self.nodes) > DEEPEST:
            raise InvalidGraph(f"an integer graph has at most {DEEPEST} nodes, got {len(self.nodes)}")
        if len(self.scales) not in (0, 1, self.edges[-1].size):
            raise InvalidGraph(f"{len(self.scales)} scales for {self.edges[-1].size} outputs")
        if not all(math.isfinite(s) and s > 0 for s in self.scales):
            raise InvalidGraph("scales are positive numbers")

    @cached_property
    def edges(self) -> list[Edge]:
        """The output of every node."""
        edges: list[Edge] = []
        for position, node in enumerate(self.nodes):
            if any(not 0 <= i < position for i in node.inputs):
                raise InvalidGraph(f"{self.label(position)} reads {node.inputs}, which are not all earlier nodes")
            if (position > 0) == isinstance(node.op, Input):
                raise InvalidGraph(f"{self.label(position)}: an integer graph has one input, its first node")
            try:
                edges.append(edge(node.op, [edges[i] for i in node.inputs]))
            except ValueError as mistake:
                raise InvalidGraph(f"{self.label(position)}: {mistake}") from None
        return edges

    @cached_property
    def last_use(self) -> list[int]:
        """For every node the position of the last node that reads it (itself if none does)."""
        last = list(range(len(self.nodes)))
        for position, node in enumerate(self.nodes):
            for i in node.inputs:
                last[i] = position
        return last

    @cached_property
    def consumers(self) -> list[list[int]]:
        """For every node the positions of the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for i in dict.fromkeys(node.inputs):
                found[i].append(position)
        return found

    @property
    def input(self) -> Input:
        op = self.nodes[0].op
        assert isinstance(op, Input)
        return op

    @property
    def output(self) -> Edge:
        return self.edges[-1]

    def label(self, position: int) -> str:
        """A node for people, such as "node 3 (Conv stem)"."""
        node = self.nodes[position]
        return f"node {position} ({' '.join(filter(None, (type(node.op).__name__, node.name)))})"

    def partial_sums(self, position: int) -> int:
        """A bound on the magnitude of every partial sum of a node, in whatever order it adds."""
        node = self.nodes[position]
        inputs = [self.edges[i] for i in node.inputs]
        match node.op:
            case Conv() | MatMul() as op:
                return int(_magnitudes(op, inputs[0]).max())
            case SumPool(kernel=kernel):
                return inputs[0].magnitude * kernel[0] * kernel[1]
            case GlobalSumPool():
                return inputs[0].magnitude * math.prod(inputs[0].shape[1:])
            case Add():
                return inputs[0].magnitude + inputs[1].magnitude
            case _:
                return self.edges[position].magnitude


def reaching(nodes: Sequence[Node], output: int, scales: tuple[float, ...] = ()) -> IntegerGraph:
    """The graph whose output is the node at `output`, without the nodes that it does not need."""
    needed = {0, output}
    for position in range(output, -1, -1):
        if position in needed:
            needed.update(nodes[position].inputs)
    places = {old: new for new, old in enumerate(sorted(needed))}
    kept = (Node(nodes[old].op, tuple(places[i] for i in nodes[old].inputs), nodes[old].name) for old in places)
    return IntegerGraph(tuple(kept), scales)


def output_size(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Positions of a window along one axis."""
    return (size + before + after - kernel) // stride + 1


def thresholds_of(op: Requantize, channels: int) -> Int:
    """(channels, highest - lowest) smallest x (largest, where the multiplier is negative, negated) for each level.

    That is, Requantize is MultiThreshold(thresholds_of(op), lowest .. highest, signs of the multipliers). A level
    that no 32-bit x reaches has the threshold LARGEST + 1, one that all reach has -LARGEST.
    """
    levels = np.arange(op.lowest + 1, op.highest + 1, dtype=object)
    rows = []
    for m, a, s in np.broadcast(*np.broadcast_arrays(op.multiplier, op.addend, op.shift)):
        # (x m + a) >> s >= level  <=>  x |m| sign >= level 2^s - a
        needed = levels * 2 ** int(s) - int(a)
        if m == 0:
            rows.append([-LARGEST if n <= 0 else LARGEST + 1 for n in needed])
        else:
            rows.append([min(max(-((-n) // abs(int(m))), -LARGEST), LARGEST + 1) for n in needed])
    table = np.array(rows, dtype=np.int64).reshape(len(rows), len(levels))
    return np.ascontiguousarray(np.broadcast_to(table, (channels, len(levels))))


def edge(op: Op, inputs: Sequence[Edge]) -> Edge:
    """Shape and ranges of what `op` puts out; ValueError where it does not fit its inputs."""
    _check_arity(op, inputs)
    _check_numbers(op)
    match op:
        case Input(shape=shape, lowest=lowest, highest=highest, zero_point=zero):
            if len(shape) not in (1, 3) or any(s < 1 for s in shape):
                raise ValueError(f"an input is (channels, height, width) or (features,), got {shape}")
            _check_shape(shape)
            if lowest > highest:
                raise ValueError(f"the lowest input, {lowest}, is above the highest, {highest}")
            return _checked(shape, np.full(shape[0], lowest - zero), np.full(shape[0], highest - zero))
        case Conv(stride=stride, pads=pads) as conv:
            return _conv_edge(conv, inputs[0], stride, pads)
        case MatMul(weight=weight, bias=bias):
            (x,) = inputs
            if len(x.shape) != 1 or weight.ndim != 2 or weight.shape[1] != x.shape[0]:
                raise ValueError(f"weights of {weight.shape} do not multiply {x.shape}")
            _check_bias(bias, len(weight))
            if int(_magnitudes(op, x).max()) > LARGEST:
                raise ValueError("its sums can exceed 32 bits")
            ends: tuple[Int, Int] = (weight * x.lows, weight * x.highs)
            extra: Int = np.zeros(len(weight), dtype=np.int64) if bias is None else bias
            return _checked((len(weight),), np.minimum(*ends).sum(1) + extra, np.maximum(*ends).sum(1) + extra)
        case MultiThreshold() as op:
            return _threshold_edge(op, inputs[0])
        case Requantize() as op:
            return _requantize_edge(op, inputs[0])
        case Add(lowest=lowest, highest=highest):
            left, right = inputs
            if left.shape != right.shape:
                raise ValueError(f"adds {left.shape} to {right.shape}")
            if (lowest is None) != (highest is None) or (
                lowest is not None and highest is not None and lowest > highest
            ):
                raise ValueError(f"clips to [{lowest}, {highest}]")
            if left.magnitude + right.magnitude > LARGEST:
                raise ValueError("its sums can exceed 32 bits")
            lows, highs = left.lows + right.lows, left.highs + right.highs
            if lowest is not None:
                lows, highs = np.clip(lows, lowest, highest), np.clip(highs, lowest, highest)
            return _checked(left.shape, lows, highs)
        case Concat():
            if len({x.shape[1:] for x in inputs}) > 1:
                raise ValueError(f"concatenates {[x.shape for x in inputs]}")
            shape = (sum(x.shape[0] for x in inputs), *inputs[0].shape[1:])
            return _checked(shape, np.concatenate([x.lows for x in inputs]), np.concatenate([x.highs for x in inputs]))
        case Slice(channels=channels):
            (x,) = inputs
            if not 0 < channels <= x.shape[0]:
                raise ValueError(f"takes {channels} of {x.shape[0]} channels")
            return _checked((channels, *x.shape[1:]), x.lows[:channels], x.highs[:channels])
        case MaxPool(kernel=kernel, stride=stride, pads=pads):
            (x,) = inputs
            if any(p >= k for p, k in zip(pads, (*kernel, *kernel), strict=True)):
                raise ValueError(f"pads {pads} of a {kernel} window leave windows without a pixel")
            return _checked(_pooled(x.shape, kernel, stride, pads), x.lows, x.highs)
        case SumPool(kernel=kernel, stride=stride, pads=pads, shift=shift):
            (x,) = inputs
            shape = _pooled(x.shape, kernel, stride, pads)
            _check_shift(shift)
            if x.magnitude * kernel[0] * kernel[1] > LARGEST:
                raise ValueError("its sums can exceed 32 bits")
            rows = _inside(x.shape[1], kernel[0], stride[0], pads[0], shape[1])
            columns = _inside(x.shape[2], kernel[1], stride[1], pads[1], shape[2])
            counts = [(b - a) * (d - c) for a, b in rows for c, d in columns]
            fewest, most = min(counts), max(counts)
            lows = np.where(x.lows < 0, x.lows * most, x.lows * fewest) >> shift
            highs = np.where(x.highs > 0, x.highs * most, x.highs * fewest) >> shift
            return _checked(shape, lows, highs)
        case GlobalSumPool(shift=shift):
            (x,) = inputs
            if len(x.shape) != 3:
                raise ValueError(f"pools an image, got {x.shape}")
            _check_shift(shift)
            area = x.shape[1] * x.shape[2]
            if x.magnitude * area > LARGEST:
                raise ValueError("its sums can exceed 32 bits")
            return _checked(x.shape[:1], (x.lows * area) >> shift, (x.highs * area) >> shift)
        case Pad(pads=pads):
            (x,) = inputs
            if len(x.shape) != 3 or min(pads) < 0:
                raise ValueError(f"pads {x.shape} by {pads}")
            shape = (x.shape[0], x.shape[1] + pads[0] + pads[2], x.shape[2] + pads[1] + pads[3])
            _check_shape(shape)
            if not any(pads):
                return x
            return _checked(shape, np.minimum(x.lows, 0), np.maximum(x.highs, 0))
        case Flatten():
            (x,) = inputs
            area = math.prod(x.shape[1:])
            _check_shape((x.shape[0] * area,))
            return _checked((x.shape[0] * area,), np.repeat(x.lows, area), np.repeat(x.highs, area))
        case Argmax():
            (x,) = inputs
            if len(x.shape) != 1:
                raise ValueError(f"takes a vector, got {x.shape}")
            return _checked((1,), np.array([0]), np.array([x.shape[0] - 1]))
        case _:
            assert_never(op)


def _check_arity(op: Op, inputs: Sequence[Edge]) -> None:
    match op:
        case Input():
            wanted = 0
        case Add():
            wanted = 2
        case Concat():
            wanted = max(len(inputs), 1)
        case _:
            wanted = 1
    if len(inputs) != wanted:
        raise ValueError(f"takes {wanted} inputs, got {len(inputs)}")


def _check_numbers(op: Op) -> None:
    """No constant is so large that arithmetic on it could overflow 64 bits unnoticed."""
    for name, value in vars(op).items():
        if isinstance(value, np.ndarray):
            if value.dtype != np.int64:
                raise ValueError(f"its {name} is of {value.dtype}, not int64")
            largest = max(-int(value.min(initial=0)), int(value.max(initial=0)))
            allowed = 2**62 if isinstance(op, Requantize) else LARGEST + 1
        else:
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            largest, allowed = max((abs(n) for n in numbers), default=0), LARGEST + 1
            if name == "zero_point" or isinstance(op, Input):
                allowed = 2**40
        if largest > allowed:
            raise ValueError(f"its {name} exceeds 32 bits" if allowed < 2**62 else f"its {name} exceeds 64 bits")


def _check_shape(shape: Shape) -> None:
    if math.prod(shape) > MOST_ELEMENTS or shape[0] > MOST_CHANNELS or max(shape[1:], default=0) > LONGEST_SIDE:
        raise ValueError(f"its output of {shape} is too large")


def _check_shift(shift: int) -> None:
    if not 0 <= shift <= 31:
        raise ValueError(f"shifts are 0 to 31, got {shift}")


def _check_bias(bias: Int | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"{channels} channels do not take a bias of shape {bias.shape}")


def _checked(shape: Shape, lows: Int, highs: Int) -> Edge:
    _check_shape(shape)
    if int(np.abs(lows).max()) > LARGEST or int(np.abs(highs).max()) > LARGEST:
        raise ValueError(f"its values, {int(lows.min())} to {int(highs.max())}, exceed 32 bits")
    return Edge(shape, lows.astype(np.int64), highs.astype(np.int64))


def _window(shape: Shape, kernel: Pair, stride: Pair, pads: Pads) -> Pair:
    """Height and width of what a sliding window puts out."""
    if len(shape) != 3:
        raise ValueError(f"slides over an image, got {shape}")
    if min(kernel) < 1 or min(stride) < 1 or min(pads) < 0:
        raise ValueError(f"window {kernel}, stride {stride}, pads {pads}")
    height = output_size(shape[1], kernel[0], stride[0], pads[0], pads[2])
    width = output_size(shape[2], kernel[1], stride[1], pads[1], pads[3])
    if height < 1 or width < 1:
        raise ValueError(f"a window of {kernel} does not fit an image of {shape[1:]} padded by {pads}")
    if max(height, width, *kernel, *stride, *pads) > LONGEST_SIDE:
        raise ValueError(f"a window of {kernel}, stride {stride} and pads {pads} is too large")
    return height, width


def _pooled(shape: Shape, kernel: Pair, stride: Pair, pads: Pads) -> Shape:
    return (shape[0], *_window(shape, kernel, stride, pads))


def _inside(size: int, kernel: int, stride: int, before: int, positions: int) -> set[Pair]:
    """The different ranges of taps that lie inside the image, along one axis; empty ones are (0, 0)."""
    found = set()
    for position in range(positions):
        start = position * stride - before
        first, last = max(-start, 0), min(size - start, kernel)
        found.add((first, last) if first < last else (0, 0))
    return found


def _conv_edge(op: Conv, x: Edge, stride: Pair, pads: Pads) -> Edge:
    weight, groups = op.weight, op.groups
    if weight.ndim != 4 or 0 in weight.shape:
        raise ValueError(f"weights are (filters, channels, height, width), got {weight.shape}")
    filters, channels, *kernel = weight.shape
    if len(x.shape) != 3 or groups < 1 or x.shape[0] != channels * groups or filters % groups:
        raise ValueError(f"weights of {weight.shape} in {groups} groups do not fit {x.shape}")
    _check_bias(op.bias, filters)
    height, width = _window(x.shape, (kernel[0], kernel[1]), stride, pads)
    if int(_magnitudes(op, x).max()) > LARGEST:
        raise ValueError("its sums can exceed 32 bits")
    low, high = (v.reshape(groups, 1, channels, 1, 1) for v in (x.lows, x.highs))
    w = weight.reshape(groups, filters // groups, channels, *kernel)
    # for each tap the extremes of its sum over channels, then summed over the taps that lie inside the image
    least = np.minimum(w * low, w * high).sum(2).reshape(filters, *kernel)
    most = np.maximum(w * low, w * high).sum(2).reshape(filters, *kernel)
    lows = highs = None
    for top, bottom in _inside(x.shape[1], kernel[0], stride[0], pads[0], height):
        for left, right in _inside(x.shape[2], kernel[1], stride[1], pads[1], width):
            here_low = least[:, top:bottom, left:right].sum((1, 2))
            here_high = most[:, top:bottom, left:right].sum((1, 2))
            lows = here_low if lows is None else np.minimum(lows, here_low)
            highs = here_high if highs is None else np.maximum(highs, here_high)
    assert lows is not None and highs is not None
    extra = 0 if op.bias is None else op.bias
    return _checked((filters, height, width), lows + extra, highs + extra)


def _magnitudes(op: Conv | MatMul, x: Edge) -> Int:
    """For every output channel a bound on the magnitude of all partial sums."""
    largest = np.maximum(np.abs(x.lows), np.abs(x.highs))
    if isinstance(op, MatMul):
        total = np.abs(op.weight).astype(np.float64) @ largest
    else:
        filters, channels = op.weight.shape[:2]
        taps = np.abs(op.weight).sum((2, 3)).astype(np.float64).reshape(op.groups, filters // op.groups, channels)
        total = np.einsum("goc,gc->go", taps, largest.reshape(op.groups, channels).astype(np.float64)).reshape(-1)
    bias = 0 if op.bias is None else np.abs(op.bias)
    return np.asarray(np.minimum(total + bias, 2.0**62), dtype=np.int64)


def _channels(x: Edge, rows: int) -> None:
    if rows not in (1, x.shape[0]):
        raise ValueError(f"{rows} rows for {x.shape[0]} channels")


def _threshold_edge(op: MultiThreshold, x: Edge) -> Edge:
    table, levels = op.thresholds, np.array(op.levels, dtype=np.int64)
    if table.ndim != 2 or len(levels) != table.shape[1] + 1 or (np.diff(levels) <= 0).any():
        raise ValueError(f"thresholds of {table.shape} take one more level than columns, ascending")
    _channels(x, len(table))
    if (np.diff(table, axis=1) < 0).any():
        raise ValueError("its thresholds are not ascending")
    if int(np.abs(table).max(initial=0)) > LARGEST + 1:
        raise ValueError("its thresholds exceed 32 bits")
    _, signs = op.by_channel(x.shape[0])
    if signs.shape != x.shape[:1] or not np.isin(signs, (-1, 1)).all():
        raise ValueError(f"signs are +1 or -1, one for each of {x.shape[0]} channels")
    lows, highs = (levels[(end[:, None] >= table).sum(1)] for end in x.times(signs))
    return _checked(x.shape, lows, highs)


def _requantize_edge(op: Requantize, x: Edge) -> Edge:
    for values in (op.multiplier, op.addend, op.shift):
        if values.ndim != 1:
            raise ValueError("multiplier, addend and shift are vectors")
        _channels(x, len(values))
    if op.lowest > op.highest:
        raise ValueError(f"clips to [{op.lowest}, {op.highest}]")
    if ((op.shift < 0) | (op.shift > 62)).any():
        raise ValueError("shifts are 0 to 62")
    largest = np.maximum(np.abs(x.lows), np.abs(x.highs)).astype(np.float64)
    if (largest * np.abs(op.multiplier.astype(np.float64)) + np.abs(op.addend.astype(np.float64)) >= 2.0**62).any():
        raise ValueError("its products exceed 64 bits")
    ends = [np.clip((end * op.multiplier + op.addend) >> op.shift, op.lowest, op.highest) for end in (x.lows, x.highs)]
    return _checked(x.shape, np.minimum(*ends), np.maximum(*ends))
