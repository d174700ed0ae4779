"""Tensors of an ONNX file as functions of integers, and how they become nodes of an integer graph."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..integer.graph import Add, Conv, Edge, Int, MatMul, MultiThreshold, Node, Op, Pad, Requantize, SumPool
from ..integer.graph import edge as edge_of
from .constants import BINARY
from .values import (
    LARGEST_ENUMERATION,
    LARGEST_FACTOR,
    MOST_CHAINED,
    MOST_THRESHOLDS,
    MOST_VALUES,
    MOST_WORK,
    NEAR,
    Array,
    Axes,
    Constant,
    Function,
    Refused,
    Slice,
    SliceSum,
    Tensor,
    Value,
    as_windows,
    both,
    common_grid,
    ladder,
    line,
    shifted,
)


class Network:
    """The integer graph so far.

    label: what is being read, for names and mistakes. about: what our own exporters noted in the file.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.lines: list[str] = []
        self.about: dict[str, Any] = {}
        self.label = ""
        self._settled: dict[int, tuple[Tensor, Tensor]] = {}
        self._spent = 0

    def add(self, op: Op, inputs: tuple[int, ...]) -> int:
        name = ""
        if isinstance(op, Conv | MatMul):
            name = re.sub(r"[^A-Za-z0-9_.]+", "_", self.label.partition(" ")[2])[:40]
        if isinstance(op, Conv | MatMul):
            self.work(op.weight.size)
        try:
            edge = edge_of(op, [self.edges[i] for i in inputs])
        except ValueError as why:
            raise Refused(str(why)) from None
        if edge.size > MOST_VALUES:
            raise Refused(f"an output of shape {edge.shape}")
        self.nodes.append(Node(op, inputs, name))
        self.edges.append(edge)
        return len(self.nodes) - 1

    def work(self, amount: int) -> None:
        self._spent += amount
        if self._spent > MOST_WORK:
            raise Refused("the network is too large to read")

    def shape(self, tensor: Tensor) -> list[int]:
        """In the file."""
        shape = self.edges[tensor.position].shape
        at = dict(zip(("C", "H", "W"), shape, strict=False))
        at["P"] = math.prod(shape[1:])
        return [1 if axis is None else at[axis] for axis in tensor.axes]

    def plain(self, position: int, axes: Axes, kind: Any, zero: Array | int = 0) -> Tensor:
        """Integers as they are, plus `zero`, one for all or by channel."""
        ones = np.ones(self.edges[position].shape[0])
        zeros = (ones * zero).astype(np.int64)
        return Tensor(
            position,
            axes,
            partial(shifted, by=zeros[:, None], kind=kind),
            ones,
            zeros.astype(np.float64),
            ones.astype(np.int64),
            np.dtype(kind),
            ones,
        )

    def real(self, position: int, axes: Axes, scale: Array, offset: Array | float = 0.0) -> Tensor:
        """float32(integer) * scale + offset, by channel."""
        channels = self.edges[position].shape[0]
        scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), (channels,))
        offset = np.broadcast_to(np.asarray(offset, dtype=np.float64), (channels,))
        if not np.isfinite(scale).all() or not np.isfinite(offset).all():
            raise Refused("its scale is not a number")
        narrow = [v.astype(np.float32)[:, None] for v in (scale, offset)]
        function = partial(line, scale=narrow[0], offset=narrow[1] if offset.any() else None)
        grid = None if offset.any() else scale
        return Tensor(position, axes, function, scale, offset, np.sign(scale).astype(np.int64), np.float32, grid)

    def tensor(self, value: Value) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Slice):
            return self.sliced(value)
        if isinstance(value, SliceSum):
            return self.summed(value)
        raise Refused("does not depend on the input" if isinstance(value, Constant) else "windows without weights")

    def sliced(self, value: Slice) -> Tensor:
        """A slice as a convolution that picks one pixel."""
        base = value.base
        height, width = self.edges[base.position].shape[1:]
        if value.start == (0, 0) and value.step == (1, 1) and value.count == (height, width) and not any(value.pads):
            return base
        if value.below is not None and any(value.pads):
            return self.sliced(self.refilled([value])[0])
        position, scale, offset = self.integers(base, uniform=False)
        size = [height + value.pads[0] + value.pads[2], width + value.pads[1] + value.pads[3]]
        kernel = [n - (c - 1) * s for n, c, s in zip(size, value.count, value.step, strict=True)]
        weight = np.zeros((len(scale), 1, *kernel), dtype=np.int64)
        weight[:, :, value.start[0], value.start[1]] = 1
        picked = self.add(Conv(weight, None, value.step, value.pads, len(scale)), (position,))
        return self.after(base, picked, base.axes, scale, offset)

    def refilled(self, slices: Sequence[Slice]) -> list[Slice]:
        """Slices of a tensor that was padded with something else than zeros, as slices of that padded tensor."""
        first = slices[0]
        if first.below is None or any(
            (s.base, s.pads, s.below) != (first.base, first.pads, first.below) for s in slices
        ):
            return list(slices)
        base = self.filled(first.base, first.pads, first.below)
        return [replace(s, base=base, pads=(0, 0, 0, 0), below=None) for s in slices]

    def summed(self, value: SliceSum) -> Tensor:
        """A sum of slices: a pool, if they are the taps of one window."""
        value = SliceSum(tuple(self.refilled(value.terms)))
        windows = as_windows(list(value.terms), self.edges, below=False)
        if windows is not None:
            base = windows.base
            position, scale, offset = self.integers(base, uniform=False)
            position, pads = self.padded(position, windows.pads)
            pooled = self.add(SumPool(windows.kernel, windows.stride, pads), (position,))
            return self.after(base, pooled, base.axes, scale, offset)
        total = self.sliced(value.terms[0])
        for term in value.terms[1:]:
            total = self.joined("Add", total, self.sliced(term))
        return total

    def filled(self, t: Tensor, around: tuple[int, int, int, int], value: float) -> Tensor:
        """Padded with `value`."""
        assert t.scale is not None and t.offset is not None
        # integers of which 0 means `value`
        extra = (t.offset - value) / np.where(t.scale == 0, 1, t.scale)
        whole = np.abs(extra - np.rint(extra)) <= NEAR * np.maximum(1, np.abs(extra))
        if not whole.all() or (np.abs(extra) > LARGEST_FACTOR).any():
            raise Refused(f"with {value}, which is not on the grid of the values")
        ones = np.ones(len(extra), dtype=np.int64)
        position = self.affine(t.position, ones, np.rint(extra).astype(np.int64))
        return self.after(t, self.add(Pad(around), (position,)), t.axes, t.scale, np.full(len(extra), value))

    def after(self, tensor: Tensor, position: int, axes: Axes, scale: Array, offset: Array | float = 0.0) -> Tensor:
        """Integers of `position` with the meaning that `_integers(tensor)` gave."""
        if tensor.kind == np.float32:
            return self.real(position, axes, scale, offset)
        return self.plain(position, axes, tensor.kind, np.asarray(offset))

    def integers(self, tensor: Tensor, *, uniform: bool) -> tuple[int, Array, Array]:
        """(node, scale, zeros): integers times scale are the tensor; one scale for all channels if `uniform`."""
        tensor = self.settled(tensor)
        scale, offset = tensor.scale, tensor.offset
        assert scale is not None and offset is not None
        grid = common_grid(scale, offset, uniform)
        if grid is None:
            raise Refused("its input has offsets or scales that are not multiples of one scale")
        factor, extra = np.rint(scale / grid), np.rint(offset / grid)
        if max(np.abs(factor).max(), np.abs(extra).max()) > LARGEST_FACTOR:
            raise Refused("its input has scales too far apart")
        position = self.affine(tensor.position, factor.astype(np.int64), extra.astype(np.int64))
        return position, np.broadcast_to(grid, scale.shape), np.zeros(scale.shape)

    def affine(self, position: int, factor: Int, extra: Int) -> int:
        """factor * x + extra by channel, inside the sum that makes x where there is one."""
        if (factor == 1).all() and not extra.any():
            return position
        node = self.nodes[position]
        match node.op:
            case Conv(weight=weight, bias=bias) as conv:
                bias = extra + (0 if bias is None else bias * factor)
                op: Op = replace(conv, weight=weight * factor[:, None, None, None], bias=bias)
            case MatMul(weight=weight, bias=bias):
                op = MatMul(weight * factor[:, None], extra + (0 if bias is None else bias * factor))
            case MultiThreshold(levels=levels) as steps if (factor == 1).all() and (extra == extra[0]).all():
                op = replace(steps, levels=tuple(level + int(extra[0]) for level in levels))
            case _:
                edge = self.edges[position]
                ends = [edge.lows * factor + extra, edge.highs * factor + extra]
                low, high = int(np.minimum(*ends).min()), int(np.maximum(*ends).max())
                zeros = np.zeros(1, dtype=np.int64)
                return self.add(Requantize(factor, extra, zeros, low, high), (position,))
        return self.add(op, node.inputs)

    def settled(self, tensor: Tensor) -> Tensor:
        """The same values as an affine function of integers."""
        if tensor.scale is not None:
            return tensor
        if id(tensor) not in self._settled:
            self._settled[id(tensor)] = (tensor, self._settle(tensor))
        return self._settled[id(tensor)][1]

    def _settle(self, tensor: Tensor) -> Tensor:
        if tensor.ended:
            raise Refused("comes after a softmax")
        if tensor.kind != np.float32:
            position = self.thresholds(tensor, lambda x: tensor.function(x).astype(np.int64))
            return self.plain(position, tensor.axes, tensor.kind)
        if tensor.grid is None:
            raise Refused("its input is not quantized")
        grid = tensor.grid
        column = grid[:, None]
        edge = self.edges[tensor.position]
        sample = tensor.function(ladder(edge.lows, edge.highs, 4096)) / column
        if (np.abs(sample - np.rint(sample)) > 1e-3).any():
            raise Refused("its input is not quantized")
        position = self.thresholds(tensor, lambda x: np.rint(tensor.function(x) / column).astype(np.int64))
        return self.real(position, tensor.axes, grid)

    def thresholds(self, tensor: Tensor, codes: Callable[[Array], Int]) -> int:
        """The node of codes(x), a monotone function of the integers behind `tensor`."""
        edge = self.edges[tensor.position]
        lows, highs = edge.lows, edge.highs
        channels = len(lows)
        ends = codes(np.stack([lows, highs], axis=1))
        if np.abs(ends).max() > 2**31 - 1:
            raise Refused("its values exceed 32 bits")
        signs = np.where(ends[:, 1] < ends[:, 0], -1, 1)
        width = int((highs - lows).max()) + 1
        self.work(min(width * channels, LARGEST_ENUMERATION) * (tensor.depth + 1))
        if width * channels <= LARGEST_ENUMERATION:
            x = np.minimum(lows[:, None] + np.arange(width), highs[:, None])
            table = codes(x)
            difference = np.diff(table, axis=1) * signs[:, None]
            if (difference < 0).any():
                raise Refused("what is computed before it neither rises nor falls throughout")
            if (table == x).all():
                return tensor.position
            if (table - x == (table - x)[:, :1]).all():
                return self.affine(tensor.position, np.ones(channels, dtype=np.int64), (table - x)[:, 0])
            levels = np.unique(table)
            if (len(levels) - 1) * channels > MOST_THRESHOLDS:
                raise Refused(f"{len(levels)} levels of {channels} channels")
            steps = np.empty((channels, len(levels) - 1), dtype=np.int64)
            for c, (low, high, sign) in enumerate(zip(lows, highs, signs, strict=True)):
                row = table[c, : high - low + 1][::sign]
                steps[c] = (low if sign > 0 else -high) + np.searchsorted(row, levels[1:], side="left")
        else:
            if tensor.direction is None:
                raise Refused(f"{width} values that go in, and it is not known to be monotone")
            if int(ends.max() - ends.min()) * channels > MOST_THRESHOLDS:
                raise Refused(f"{ends.max() - ends.min() + 1} levels of {channels} channels")
            levels = np.arange(ends.min(), ends.max() + 1)
            first = np.where(signs > 0, lows, -highs)[:, None] + np.zeros(len(levels) - 1, dtype=np.int64)
            beyond = np.where(signs > 0, highs, -lows)[:, None] + 1 + np.zeros(len(levels) - 1, dtype=np.int64)
            never = beyond - 1
            while (first < beyond).any():
                middle = (first + beyond) // 2
                reached = codes(np.minimum(middle, never) * signs[:, None]) >= levels[1:]
                beyond = np.where(reached & (first < beyond), middle, beyond)
                first = np.where(~reached & (first < beyond), middle + 1, first)
            steps = first
        flips = signs if (signs < 0).any() else None
        if channels > 1 and flips is None and (steps == steps[0]).all():
            steps = steps[:1]
        op = MultiThreshold(steps, tuple(int(v) for v in levels), flips)
        return self.add(op, (tensor.position,))

    def by_channel(self, values: Array, axes: Axes, channels: int) -> tuple[Array, Axes]:
        """A constant that is added to a tensor, as (C, 1) or (1, 1), and the axes of the result."""
        axes = (None,) * (values.ndim - len(axes)) + axes
        values = values.reshape((1,) * (len(axes) - values.ndim) + values.shape)
        if values.size == 0:
            raise Refused("an empty constant")
        for i, axis in enumerate(axes):
            if values.shape[i] == 1 or (axis == "C" and values.shape[i] == channels):
                continue
            first = np.take(values, [0], axis=i)
            if axis is None or not (values == first).all():
                raise Refused(f"a constant of shape {list(values.shape)} that is not one number by channel")
            values = first
        return values.reshape(-1, 1), axes

    def elementwise(
        self,
        tensor: Tensor,
        function: Function,
        *,
        kind: Any = None,
        rises: Array | int | None = 1,
        scale: Array | None = None,
        offset: Array | None = None,
        keeps_grid: bool = False,
        axes: Axes | None = None,
    ) -> Tensor:
        """function(tensor). rises: +1, -1 or 0 by channel; None if it is not monotone."""
        if tensor.ended:
            raise Refused("comes after a softmax")
        if tensor.depth >= MOST_CHAINED:
            raise Refused(f"more than {MOST_CHAINED} elementwise operators in a row")
        before = tensor.function
        direction = (
            None if rises is None or tensor.direction is None else tensor.direction * np.asarray(rises).reshape(-1)
        )
        grid = tensor.grid if keeps_grid else None
        if scale is not None and offset is not None:
            whole = np.abs(offset / scale - np.rint(offset / scale)) < NEAR if (scale != 0).all() else np.array([False])
            grid = np.abs(scale) if whole.all() else None
        return Tensor(
            tensor.position,
            tensor.axes if axes is None else axes,
            lambda x: function(before(x)),
            scale,
            offset,
            direction,
            np.dtype(tensor.kind if kind is None else kind),
            grid,
            tensor.depth + 1,
        )

    def joined(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """Two tensors: functions of the same integers, or a sum."""
        if self.shape(left) != self.shape(right):
            raise Refused(f"shapes {self.shape(left)} and {self.shape(right)}")
        affine = left.scale is not None and right.scale is not None
        if left.position == right.position and left.axes == right.axes and not affine:
            direction = both(left.direction, right.direction) if name == "Add" else None
            # a sum that may neither rise nor fall is left to integers
            if direction is not None or name not in ("Add", "Sub"):
                operation = BINARY[name]
                f, g = left.function, right.function
                depth = max(left.depth, right.depth) + 1
                if depth > MOST_CHAINED:
                    raise Refused(f"more than {MOST_CHAINED} elementwise operators in a row")
                return replace(
                    left,
                    function=lambda x: operation(f(x), g(x)),
                    scale=None,
                    offset=None,
                    direction=direction,
                    grid=None,
                    depth=depth,
                )
        if name not in ("Add", "Sub"):
            raise Refused("of two tensors that depend on the input")
        if left.axes != right.axes and len(self.edges[left.position].shape) > 1:
            raise Refused("of two tensors of different layout")
        left, right = self.settled(left), self.settled(right)
        assert left.scale is not None and right.scale is not None
        assert left.offset is not None and right.offset is not None
        if name == "Sub":
            right = replace(right, scale=-right.scale, offset=-right.offset)
        assert right.scale is not None and right.offset is not None
        grids = []
        for channel in range(len(left.scale)):
            pair = [np.array([t.scale[channel] for t in (left, right) if t.scale is not None])]
            grids.append(common_grid(pair[0], np.zeros(2), True))
        if any(g is None for g in grids):
            raise Refused(f"adds values of scales {left.scale[0]:g} and {right.scale[0]:g}")
        grid = np.array([np.asarray(g).reshape(-1)[0] for g in grids], dtype=np.float64)
        positions = []
        offset = np.zeros(len(grid))
        for each in (left, right):
            assert each.scale is not None and each.offset is not None
            factor = np.rint(each.scale / grid)
            extra = np.rint(each.offset / grid)
            close = np.abs(each.offset / grid - extra) <= NEAR * np.maximum(1, np.abs(extra))
            extra = np.where(close, extra, 0)
            offset = offset + np.where(close, 0, each.offset)
            if max(np.abs(factor).max(), np.abs(extra).max()) > LARGEST_FACTOR:
                raise Refused("scales too far apart")
            positions.append(self.affine(each.position, factor.astype(np.int64), extra.astype(np.int64)))
        position = self.add(Add(), (positions[0], positions[1]))
        if left.kind == np.float32:
            return self.real(position, left.axes, grid, offset)
        return self.plain(position, left.axes, left.kind)

    def padded(self, position: int, pads: tuple[int, int, int, int]) -> tuple[int, tuple[int, int, int, int]]:
        """What a sum reads and its padding, a padding in front of it included."""
        node = self.nodes[position]
        if not isinstance(node.op, Pad):
            return position, pads
        a, b = node.op.pads, pads
        return node.inputs[0], (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])

    def image(self, t: Tensor) -> None:
        if t.axes != (None, "C", "H", "W"):
            raise Refused(f"on axes {t.axes}")

    def positive(self, t: Tensor) -> tuple[int, Array, Array]:
        """Integers that rise with the tensor's values, each with its channel's scale."""
        t = self.settled(t)
        assert t.scale is not None and t.offset is not None
        if (t.scale > 0).all():
            return t.position, t.scale, t.offset
        signs = np.where(t.scale < 0, -1, 1)
        position = self.affine(t.position, signs, np.zeros_like(signs))
        return position, np.abs(t.scale), t.offset
