"""Operators on single elements, normalisation included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..integer.graph import Add, MaxPool, Requantize
from .constants import BINARY
from .network import Network
from .values import (
    INTEGER_TYPES,
    LARGEST_ENUMERATION,
    Array,
    Constant,
    Function,
    Refused,
    Slice,
    SliceSum,
    Tensor,
    Value,
    as_windows,
)

Reader = Callable[..., Value]  # of a network, the operator's attributes and its inputs


def arithmetic(net: Network, name: str, left: Value, right: Value) -> Value:
    if not isinstance(left, Constant) and not isinstance(right, Constant):
        return net.joined(name, net.tensor(left), net.tensor(right))
    swapped = isinstance(left, Constant)
    tensor = net.tensor(right if swapped else left)
    constant = left if swapped else right
    assert isinstance(constant, Constant)
    channels = net.edges[tensor.position].shape[0]
    c, axes = net.by_channel(constant.values, tensor.axes, channels)
    if c.dtype != tensor.kind and {c.dtype.kind, np.dtype(tensor.kind).kind} & {"f"}:
        c = c.astype(tensor.kind)
    flat = np.broadcast_to(c.reshape(-1).astype(np.float64), (channels,))
    if name == "Div" and not swapped and np.dtype(tensor.kind).kind in "iu":
        shifted = shifted_right(net, tensor, flat)
        if shifted is not None:
            return shifted
    s, o = tensor.scale, tensor.offset
    affine = s is not None and o is not None
    operation = BINARY[name]
    function: Function = (lambda v: operation(c, v)) if swapped else (lambda v: operation(v, c))
    rises: Array | int | None
    integral = np.dtype(tensor.kind).kind in "iu"
    match name:
        case "Add":
            rises, s, o = 1, s, None if o is None else o + flat
        case "Sub":
            rises = -1 if swapped else 1
            if affine:
                assert s is not None and o is not None
                s, o = (-s, flat - o) if swapped else (s, o - flat)
        case "Mul":
            rises = np.sign(flat).astype(np.int64)
            if affine:
                assert s is not None and o is not None
                s, o = s * flat, o * flat
        case "Div" if not swapped:
            if (flat == 0).any():
                raise Refused("division by zero")
            rises = np.sign(flat).astype(np.int64)
            if affine and not integral:
                assert s is not None and o is not None
                s, o = s / flat, o / flat
            else:
                s = o = None
        case "Max" | "Min":
            rises, s, o = 1, None, None
        case "Greater" | "GreaterOrEqual":
            rises, s, o = -1 if swapped else 1, None, None
            return net.elementwise(tensor, function, kind=np.bool_, rises=rises, axes=axes)
        case "Less" | "LessOrEqual":
            rises = 1 if swapped else -1
            return net.elementwise(tensor, function, kind=np.bool_, rises=rises, axes=axes)
        case _:
            rises = s = o = None
    return net.elementwise(tensor, function, rises=rises, scale=s, offset=o, axes=axes)


def shifted_right(net: Network, t: Tensor, by: Array) -> Tensor | None:
    """Integers from 0 on divided by powers of two; None for anything else."""
    if t.scale is None or t.offset is None or (by < 1).any() or (np.frexp(by)[0] != 0.5).any():
        return None
    edge = net.edges[t.position]
    if (np.minimum(edge.lows * t.scale, edge.highs * t.scale) + t.offset < 0).any():
        return None
    if np.abs(np.stack([t.scale, t.offset])).max() > 2.0**53:
        return None  # beyond what was computed exactly
    shift = np.frexp(by)[1].astype(np.int64) - 1
    factor, extra = t.scale.astype(np.int64), t.offset.astype(np.int64)
    if (shift > 62).any() or (np.maximum(np.abs(edge.lows), edge.highs) * np.abs(t.scale) + t.offset >= 2.0**61).any():
        return None
    ends = [(v * factor + extra) >> shift for v in (edge.lows, edge.highs)]
    low, high = int(np.minimum(*ends).min()), int(np.maximum(*ends).max())
    if high > 2**31 - 1:
        return None
    return net.plain(net.add(Requantize(factor, extra, shift, low, high), (t.position,)), t.axes, t.kind)


def read_add(net: Network, attributes: dict[str, Any], a: Value, b: Value) -> Value:
    terms = a.terms if isinstance(a, SliceSum) else (a,)
    if isinstance(b, Slice) and all(isinstance(t, Slice) for t in terms):
        return SliceSum((*(t for t in terms if isinstance(t, Slice)), b))
    return arithmetic(net, "Add", a, b)


def binary(name: str) -> Reader:
    """The reader of an operator of two inputs that needs nothing but its name."""

    def read(net: Network, attributes: dict[str, Any], a: Value, b: Value) -> Value:
        return arithmetic(net, name, a, b)

    return read


def unary(function: Function) -> Reader:
    """The reader of an operator that is one function of its input."""

    def read(net: Network, attributes: dict[str, Any], x: Value) -> Value:
        return net.elementwise(net.tensor(x), function)

    return read


def read_max(net: Network, attributes: dict[str, Any], *inputs: Value) -> Value:
    windows = as_windows(list(inputs), net.edges, below=True)
    if windows is not None:
        position, scale, offset = net.positive(windows.base)
        pooled = net.add(MaxPool(windows.kernel, windows.stride, windows.pads), (position,))
        return net.after(windows.base, pooled, windows.base.axes, scale, offset)
    if len(inputs) != 2:
        raise Refused(f"of {len(inputs)} tensors")
    return arithmetic(net, "Max", inputs[0], inputs[1])


def read_neg(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    t = net.tensor(x)
    scale, offset = (None if v is None else -v for v in (t.scale, t.offset))
    return net.elementwise(t, np.negative, rises=-1, scale=scale, offset=offset)


def read_relu(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    return net.elementwise(net.tensor(x), lambda v: np.maximum(v, v.dtype.type(0)), keeps_grid=True)


def read_leaky_relu(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    slope = np.float32(attributes.get("alpha", 0.01))
    if slope < 0:
        raise Refused("with a negative slope")
    return net.elementwise(net.tensor(x), lambda v: np.where(v >= 0, v, v * slope))


def read_prelu(net: Network, attributes: dict[str, Any], x: Value, slope: Value) -> Value:
    t = net.tensor(x)
    if not isinstance(slope, Constant) or (slope.values < 0).any():
        raise Refused("slopes that are not constants from 0 on")
    c, axes = net.by_channel(slope.values, t.axes, net.edges[t.position].shape[0])
    return net.elementwise(t, lambda v: np.where(v < 0, v * c, v), axes=axes)


def read_clip(
    net: Network, attributes: dict[str, Any], x: Value, low: Value | None = None, high: Value | None = None
) -> Value:
    t = net.tensor(x)
    bounds = []
    for name, value in (("min", low), ("max", high)):
        if value is not None and not isinstance(value, Constant):
            raise Refused("bounds that depend on the input")
        bound = attributes.get(name) if value is None else value.values.reshape(-1)[0]
        bounds.append(None if bound is None else np.asarray(bound).astype(t.kind))
    least, most = bounds
    whole = all(v is not None and (v == np.rint(v)).all() for v in (t.scale, t.offset))
    whole = whole and all(v is not None and v == np.rint(v) for v in bounds)
    if whole and least is not None and most is not None and least <= most:
        return clipped(net, t, int(least), int(most))

    def function(v: Array) -> Array:
        v = v if least is None else np.maximum(v, least)
        return v if most is None else np.minimum(v, most)

    return net.elementwise(t, function, keeps_grid=True)


def clipped(net: Network, t: Tensor, low: int, high: int) -> Tensor:
    """Integers clipped to integers."""
    low, high = max(low, 1 - 2**31), min(high, 2**31 - 1)
    node = net.nodes[t.position]
    assert t.scale is not None and t.offset is not None
    if max(np.abs(t.scale).max(), np.abs(t.offset).max()) > 2.0**53:
        raise Refused("scales too far apart")
    factor, extra = t.scale.astype(np.int64), t.offset.astype(np.int64)
    same = (factor == 1).all()
    if isinstance(node.op, Add) and node.op.lowest is None and same and not extra.any():
        position = net.add(Add(low, high), node.inputs)
    elif isinstance(node.op, Requantize) and same and clips_nothing(net, t.position):
        op = node.op
        op = replace(op, addend=op.addend + (extra << op.shift), lowest=low, highest=high)
        position = net.add(op, node.inputs)
    else:
        position = net.add(Requantize(factor, extra, np.zeros(1, dtype=np.int64), low, high), (t.position,))
    return net.after(t, position, t.axes, np.ones(1))


def clips_nothing(net: Network, position: int) -> bool:
    """Whether the bounds of a Requantize are those of its values anyway."""
    node = net.nodes[position]
    assert isinstance(node.op, Requantize)
    op, x = node.op, net.edges[node.inputs[0]]
    ends = np.stack([(v * op.multiplier + op.addend) >> op.shift for v in (x.lows, x.highs)])
    return bool(ends.min() >= op.lowest and ends.max() <= op.highest)


def read_cast(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    to = {1: np.float32, 9: np.bool_, 10: np.float32, 11: np.float32, **INTEGER_TYPES}.get(attributes.get("to", 0))
    if to is None:
        raise Refused(f"to type {attributes.get('to')}")
    t = net.tensor(x)
    s, o = t.scale, t.offset
    whole = all(v is not None and (v == np.rint(v)).all() for v in (s, o))
    if to is np.bool_ or (np.dtype(to).kind in "iu" and not whole):
        s = o = None
    return net.elementwise(t, lambda v: v.astype(to), kind=to, scale=s, offset=o, keeps_grid=True)


def read_gather(net: Network, attributes: dict[str, Any], table: Value, index: Value) -> Value:
    if not isinstance(table, Constant) or table.values.ndim != 1 or attributes.get("axis", 0) != 0:
        raise Refused("of anything but a table")
    values = table.values
    t = net.tensor(index)
    edge = net.edges[t.position]
    ends = t.function(np.stack([edge.lows, edge.highs], axis=1))
    if ends.min() < 0 and not net.about:
        raise Refused(f"positions from {ends.min()} on")
    # positions beyond the table cannot occur: executors refuse them
    limit = len(values) - 1
    rising = (np.diff(values.astype(np.float64)) >= 0).all()
    if not rising and int((edge.highs - edge.lows).max() + 1) * len(edge.lows) > LARGEST_ENUMERATION:
        t = net.settled(t)  # that it is monotone is known now, and no longer after the table
    return net.elementwise(
        t, lambda v: values[np.clip(v.astype(np.int64), 0, limit)], kind=values.dtype, rises=1 if rising else None
    )


def read_batch_normalization(
    net: Network, attributes: dict[str, Any], x: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> Value:
    t = net.tensor(x)
    return normalised(net, t, attributes, [gamma, beta, mean, variance], t.axes.index("C") if "C" in t.axes else -1)


def read_channels_last_batch_normalization(net: Network, attributes: dict[str, Any], x: Value, *inputs: Value) -> Value:
    t = net.tensor(x)
    return normalised(net, t, attributes, list(inputs), len(t.axes) - 1)


def normalised(net: Network, t: Tensor, attributes: dict[str, Any], inputs: list[Value], axis: int) -> Value:
    if attributes.get("training_mode", 0):
        raise Refused("in training mode")
    channels = net.edges[t.position].shape[0]
    arrays = []
    for value in inputs:
        if not isinstance(value, Constant) or value.values.size not in (1, channels):
            raise Refused("statistics that are not one constant by channel")
        arrays.append(np.broadcast_to(value.values.astype(np.float32).reshape(-1), (channels,)))
    if axis not in (1, len(t.axes) - 1):
        raise Refused("over an axis that is not the channels")
    gamma, beta, mean, variance = arrays
    # ONNX Runtime's order of operations
    slope = np.float32(1) / np.sqrt(variance + np.float32(attributes.get("epsilon", 1e-5))) * gamma
    start = beta - mean * slope
    if not np.isfinite(slope).all() or not np.isfinite(start).all():
        raise Refused("statistics that are not finite")
    s, o = t.scale, t.offset
    a, b = slope.astype(np.float64), start.astype(np.float64)
    return net.elementwise(
        t,
        lambda v: v * slope[:, None] + start[:, None],
        rises=np.sign(slope).astype(np.int64),
        scale=None if s is None else s * a,
        offset=None if o is None else o * a + b,
    )


def read_softmax(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    t = net.tensor(x)
    if len(net.edges[t.position].shape) != 1:
        raise Refused("over an image")
    net.lines.append(f"{net.label} at the end is left out: it does not change which output is the largest")
    return replace(t, ended=True)
