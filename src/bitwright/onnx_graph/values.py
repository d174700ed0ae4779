"""What a name in an ONNX file stands for, and how much of a file is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..integer.graph import Edge, Int, output_size

LARGEST_FILE = 2**29  # bytes
MOST_NODES = 20_000
MOST_ELEMENTS = 2**26  # of a constant
MOST_THRESHOLDS = 2**22  # of one activation, all channels together
LARGEST_ENUMERATION = 2**22  # values of x of one activation that are tried one by one
MOST_VALUES = 2**25  # of one image behind one node
MOST_WORK = 2**31  # values of constants and enumerations that are looked at in all
WIDEST_WINDOW = 4096  # pixels of padding, or of a step
MOST_CHAINED = 200  # elementwise operators in a row
NEAR = 2.0**-20  # relative distance of scales that are taken as equal
FINEST = 64  # a common grid has at most this many steps in the smallest scale
LARGEST_FACTOR = 2**30


GENERAL = {"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"}
CHANNELS_LAST = "qonnx.custom_op.channels_last"

Array = NDArray[Any]
Function = Callable[[Array], Array]
Axes = tuple[str | None, ...]
INTEGER_TYPES = {2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 4: np.uint16}

# what numpy, protobuf and onnx raise about shapes, types and names that do not fit together
COMPLAINTS = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, RecursionError)


class Refused(Exception):
    """Why a node cannot be read; the reader adds which one."""


@dataclass(frozen=True, eq=False)
class Constant:
    """`values`; where they came from a quantizer, values = codes * scale."""

    values: Array
    codes: Int | None = None
    scale: Array | None = None  # broadcasts to values, of the same rank or scalar

    def map(self, function: Function) -> Constant:
        """The same with a function that only moves elements."""
        if self.codes is None or self.scale is None:
            return Constant(function(self.values))
        scale = np.broadcast_to(self.scale, self.values.shape)
        return Constant(function(self.values), function(self.codes), function(scale))


@dataclass(frozen=True, eq=False)
class Tensor:
    """function(x) of the value x of node `position`.

    axes: which of C, H, W each axis of the file's tensor is; None where its length is 1, P for H and W as one axis.
    function: of (C, n) integers, row c for channel c; gives values of type `kind`.
    scale, offset: (C,) with function(x) = scale * x + offset, None if it is not so.
    direction: (C,) of +1, -1 and 0: function rises, falls or is constant; None if unknown.
    grid: (C,) numbers whose multiples the values are, None if unknown.
    """

    position: int
    axes: Axes
    function: Function
    scale: Array | None
    offset: Array | None
    direction: Int | None
    kind: Any
    grid: Array | None = None
    depth: int = 0
    ended: bool = False  # a softmax was left out: only its order is right


@dataclass(frozen=True, eq=False)
class Slice:
    """Every `step`-th row and column of a padded tensor from `start` on, `count` of them."""

    base: Tensor
    pads: tuple[int, int, int, int]
    start: tuple[int, int]
    step: tuple[int, int]
    count: tuple[int, int]
    below: float | None  # what it is padded with, if that is less than all values


@dataclass(frozen=True, eq=False)
class SliceSum:
    """Slices that are added."""

    terms: tuple[Slice, ...]


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of a kernel, tap by tap along the channels (im2col)."""

    base: Tensor
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    depthwise: bool = False


Value = Constant | Tensor | Slice | SliceSum | Windows


def one_line(text: object) -> str:
    """What a file says of itself, made fit to be printed."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[:300])
    return " ".join(line.split()) or type(text).__name__


def number(values: Array) -> float:
    return float(values.reshape(-1)[0])


def both(a: Int | None, b: Int | None) -> Int | None:
    """The direction of a sum; None if one rises where the other falls."""
    if a is None or b is None or (a * b < 0).any():
        return None
    return np.asarray(np.sign(a + b))


def scaled(x: Array, by: np.float32) -> Array:
    return x.astype(np.float32) * by


def divided(x: Array, by: np.float32) -> Array:
    return x.astype(np.float32) / by


def scaled_from(x: Array, by: np.float32, zero: int) -> Array:
    return (x + zero).astype(np.float32) * by


def shifted(x: Array, by: Int, kind: Any) -> Array:
    return (x + by).astype(kind)


def line(x: Array, scale: Array, offset: Array | None) -> Array:
    y = x.astype(np.float32) * scale
    return y if offset is None else y + offset


def ladder(lows: Int, highs: Int, count: int) -> Int:
    """(C, about count) values from low to high."""
    steps = np.linspace(0, 1, count)
    return lows[:, None] + np.floor((highs - lows)[:, None] * steps).astype(np.int64)


def common_grid(scale: Array, offset: Array, uniform: bool) -> Array | None:
    """The largest step of which scales and offsets are multiples, (1,) or by channel."""
    sizes = np.abs(scale)
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        return None
    if uniform:
        nonzero = sizes[sizes > 0]
        start = np.array([nonzero.min() if len(nonzero) else 1.0])
    else:
        start = np.where(sizes > 0, sizes, 1.0)
    for parts in range(1, FINEST + 1):
        grid = start / parts
        ratios = np.stack([scale / grid, offset / grid])
        if (np.abs(ratios - np.rint(ratios)) <= NEAR * np.maximum(1, np.abs(ratios))).all():
            return np.asarray(grid)
    return None


def as_windows(inputs: list[Value], edges: list[Edge], *, below: bool) -> Windows | None:
    """Slices that are all taps of one window, in order; None if they are not."""
    slices = [x for x in inputs if isinstance(x, Slice)]
    if len(slices) != len(inputs) or len(slices) < 2:
        return None
    first, last = slices[0], slices[-1]
    kernel = (last.start[0] + 1, last.start[1] + 1)
    taps = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    if [s.start for s in slices] != taps or (first.below is not None and not below):
        return None
    if any(
        s.base is not first.base or (s.pads, s.step, s.count) != (first.pads, first.step, first.count) for s in slices
    ):
        return None
    shape = edges[first.base.position].shape
    sizes = [output_size(shape[1 + i], kernel[i], first.step[i], first.pads[i], first.pads[i + 2]) for i in range(2)]
    if tuple(sizes) != first.count:
        return None
    return Windows(first.base, kernel, first.step, first.pads)
