"""An interpreter of integer graphs written from their docstrings: loops over positions, int64, nothing of torch."""

from __future__ import annotations

import numpy as np

from bitwright.integer.graph import (
    Add,
    Argmax,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Op,
    Pad,
    Requantize,
    Slice,
    SumPool,
)


def chain(*ops: Op, scales: tuple[float, ...] = ()) -> IntegerGraph:
    """Each operation reads the one before."""
    return IntegerGraph(tuple(Node(op, (i - 1,) if i else ()) for i, op in enumerate(ops)), scales)


def whole(*values: object) -> Int:
    """An int64 vector, or a matrix of rows."""
    return np.array(values, dtype=np.int64)


def naive(graph: IntegerGraph, x: Int) -> list[Int]:
    """The value of every node for x: (N, *input shape)."""
    values: list[Int] = []
    for node in graph.nodes:
        values.append(naive_step(node.op, x.astype(np.int64), [values[i] for i in node.inputs]))
    return values


def naive_step(op: Op, x: Int, inputs: list[Int]) -> Int:
    match op:
        case Input():
            return x - op.zero_point
        case Conv():
            return _conv(op, inputs[0])
        case MatMul():
            (a,) = inputs
            out = np.zeros((len(a), len(op.weight)), dtype=np.int64)
            for o, row in enumerate(op.weight):
                for i, w in enumerate(row):
                    out[:, o] += w * a[:, i]
                if op.bias is not None:
                    out[:, o] += op.bias[o]
            return out
        case MultiThreshold():
            (a,) = inputs
            out = np.zeros_like(a)
            for c in range(a.shape[1]):
                row = op.thresholds[c if len(op.thresholds) > 1 else 0]
                sign = 1 if op.signs is None else int(op.signs[c])
                reached = np.zeros_like(a[:, c])
                for threshold in row:
                    reached += sign * a[:, c] >= threshold
                out[:, c] = np.array(op.levels)[reached]
            return out
        case Requantize():
            (a,) = inputs
            out = np.zeros_like(a)
            for c in range(a.shape[1]):
                m, b, s = (int(v[c if len(v) > 1 else 0]) for v in (op.multiplier, op.addend, op.shift))
                flat = [min(max((int(v) * m + b) // 2**s, op.lowest), op.highest) for v in a[:, c].reshape(-1)]
                out[:, c] = np.array(flat, dtype=np.int64).reshape(a[:, c].shape)
            return out
        case Add():
            out = inputs[0] + inputs[1]
            if op.lowest is not None and op.highest is not None:
                out = np.minimum(np.maximum(out, op.lowest), op.highest)
            return out
        case Concat():
            return np.concatenate(inputs, axis=1)
        case Slice():
            return np.stack([inputs[0][:, c] for c in range(op.channels)], axis=1)
        case MaxPool():
            return _windows(inputs[0], op.kernel, op.stride, op.pads, lambda window: window.max((2, 3)))
        case SumPool():
            total = _windows(inputs[0], op.kernel, op.stride, op.pads, lambda window: window.sum((2, 3)))
            return total // 2**op.shift
        case GlobalSumPool():
            return inputs[0].sum((2, 3)) // 2**op.shift
        case Pad():
            top, left, bottom, right = op.pads
            n, c, h, w = inputs[0].shape
            out = np.zeros((n, c, h + top + bottom, w + left + right), dtype=np.int64)
            out[:, :, top : top + h, left : left + w] = inputs[0]
            return out
        case Flatten():
            return inputs[0].reshape(len(inputs[0]), int(np.prod(inputs[0].shape[1:])))
        case Argmax():
            return np.array([[row.tolist().index(max(row.tolist()))] for row in inputs[0]]).reshape(-1, 1)


def _positions(size: int, kernel: int, stride: int, before: int, after: int) -> list[int]:
    """Where windows start, in the coordinates of the unpadded image."""
    return list(range(-before, size + after - kernel + 1, stride))


def _conv(op: Conv, x: Int) -> Int:
    n, _, height, width = x.shape
    filters, per_group, kh, kw = op.weight.shape
    rows = _positions(height, kh, op.stride[0], op.pads[0], op.pads[2])
    columns = _positions(width, kw, op.stride[1], op.pads[1], op.pads[3])
    out = np.zeros((n, filters, len(rows), len(columns)), dtype=np.int64)
    for o in range(filters):
        first = o // (filters // op.groups) * per_group
        for r, top in enumerate(rows):
            for c, left in enumerate(columns):
                for i in range(per_group):
                    for dy in range(kh):
                        for dx in range(kw):
                            if 0 <= top + dy < height and 0 <= left + dx < width:
                                out[:, o, r, c] += op.weight[o, i, dy, dx] * x[:, first + i, top + dy, left + dx]
        if op.bias is not None:
            out[:, o] += op.bias[o]
    return out


def _windows(x: Int, kernel, stride, pads, reduce) -> Int:
    """`reduce` of the part of every window that lies inside the image; zero where none does."""
    n, channels, height, width = x.shape
    rows = _positions(height, kernel[0], stride[0], pads[0], pads[2])
    columns = _positions(width, kernel[1], stride[1], pads[1], pads[3])
    out = np.zeros((n, channels, len(rows), len(columns)), dtype=np.int64)
    for r, top in enumerate(rows):
        for c, left in enumerate(columns):
            window = x[:, :, max(top, 0) : max(top + kernel[0], 0), max(left, 0) : max(left + kernel[1], 0)]
            if window.size:
                out[:, :, r, c] = reduce(window)
    return out
