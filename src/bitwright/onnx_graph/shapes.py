"""Operators that move, drop or add elements."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..integer.graph import Concat, Flatten, Pad
from ..integer.graph import Slice as FirstChannels
from .constants import new_shape
from .network import Network
from .values import WIDEST_WINDOW, Array, Axes, Constant, Refused, Slice, Tensor, Value, Windows, as_windows


def read_shape(net: Network, attributes: dict[str, Any], x: Value) -> Constant:
    shape = net.shape(net.tensor(x))
    return Constant(np.array(shape[attributes.get("start", 0) : attributes.get("end")], dtype=np.int64))


def read_identity(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    return x


def read_transpose(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    tensor = net.tensor(x)
    perm = attributes.get("perm", list(range(len(tensor.axes)))[::-1])
    if sorted(perm) != list(range(len(tensor.axes))):
        raise Refused(f"permutation {perm}")
    return replace(tensor, axes=tuple(tensor.axes[i] for i in perm))


def read_reshape(net: Network, attributes: dict[str, Any], x: Value, shape: Value | None = None) -> Value:
    return reshaped(net, "Reshape", attributes, x, shape)


def read_flatten(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    return reshaped(net, "Flatten", attributes, x, None)


def read_squeeze(net: Network, attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    return reshaped(net, "Squeeze", attributes, x, axes)


def read_unsqueeze(net: Network, attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    return reshaped(net, "Unsqueeze", attributes, x, axes)


def reshaped(net: Network, name: str, attributes: dict[str, Any], x: Value, argument: Value | None) -> Value:
    values = argument.values if isinstance(argument, Constant) else None
    if argument is not None and values is None:
        raise Refused("to a shape that depends on the input")
    if isinstance(x, Windows):
        return x  # matrices of windows are only ever multiplied
    tensor = net.tensor(x)
    sizes = net.shape(tensor)
    shape = new_shape(name, sizes, attributes, values)
    labels = [axis for axis in tensor.axes if axis is not None]
    edge = net.edges[tensor.position]
    if len(edge.shape) == 1:
        places = [i for i, s in enumerate(shape) if s == edge.shape[0]]
        if edge.shape[0] == 1:
            places = [min(1, len(shape) - 1)]
        return replace(tensor, axes=tuple("C" if i == places[0] else None for i in range(len(shape))))
    if labels == ["C", "P"]:
        labels, sizes = ["C", "H", "W"], list(edge.shape)
    else:
        sizes = [sizes[tensor.axes.index(a)] for a in labels]
    if labels == ["C", "H", "W"] and len(shape) == 3 and shape[:2] == [1, edge.shape[0]]:
        return replace(tensor, axes=(None, "C", "P"))
    axes = _same_axes(labels, sizes, shape)
    if axes is not None:
        return replace(tensor, axes=axes)
    wide = [i for i, s in enumerate(shape) if s > 1]
    if labels == ["C", "H", "W"] and len(wide) <= 1 and len(shape) <= 2:
        return flattened(net, tensor, shape)
    if math.prod(edge.shape) == max(edge.shape) == edge.shape[0] and len(shape) <= 2:
        return flattened(net, tensor, shape)
    raise Refused(f"of {sizes} (axes {', '.join(labels)}) to {shape}")


def flattened(net: Network, tensor: Tensor, shape: list[int]) -> Tensor:
    channels, *rest = net.edges[tensor.position].shape
    area = math.prod(rest)
    position = net.add(Flatten(), (tensor.position,))
    before = tensor.function

    def function(x: Array) -> Array:
        count = x.shape[1]
        return before(x.reshape(channels, area * count)).reshape(channels * area, count)

    def spread(values: Array | None) -> Array | None:
        return None if values is None else np.repeat(values, area)

    place = max(range(len(shape)), key=lambda i: (shape[i], i))
    return replace(
        tensor,
        position=position,
        axes=tuple("C" if i == place else None for i in range(len(shape))),
        function=function,
        scale=spread(tensor.scale),
        offset=spread(tensor.offset),
        direction=spread(tensor.direction),
        grid=spread(tensor.grid),
    )


def read_pad(
    net: Network,
    attributes: dict[str, Any],
    x: Value,
    pads: Value | None = None,
    fill: Value | None = None,
    axes: Value | None = None,
) -> Value:
    t = net.tensor(x)
    amounts = pads.values.reshape(-1).tolist() if isinstance(pads, Constant) else attributes.get("pads", [])
    value = float(fill.values.reshape(-1)[0]) if isinstance(fill, Constant) else attributes.get("value", 0.0)
    rank = len(t.axes)
    if attributes.get("mode", "constant") != "constant" or len(amounts) != 2 * rank or axes is not None:
        raise Refused("of a kind that is not read")
    found = {axis: (amounts[i], amounts[i + rank]) for i, axis in enumerate(t.axes) if any(amounts[i::rank])}
    if set(found) - {"H", "W"} or any(min(v) < 0 or max(v) > WIDEST_WINDOW for v in found.values()):
        raise Refused(f"by {amounts}")
    top, bottom = found.get("H", (0, 0))
    left, right = found.get("W", (0, 0))
    around = (int(top), int(left), int(bottom), int(right))
    if not any(around):
        return t
    t = net.settled(t)
    assert t.scale is not None and t.offset is not None
    edge = net.edges[t.position]
    if (t.offset == value).all():
        return replace(t, position=net.add(Pad(around), (t.position,)))
    if (value < np.minimum(t.scale * edge.lows, t.scale * edge.highs) + t.offset).all():
        height, width = edge.shape[1] + top + bottom, edge.shape[2] + left + right
        return Slice(t, around, (0, 0), (1, 1), (int(height), int(width)), value)
    return net.filled(t, around, value)


def read_slice(
    net: Network,
    attributes: dict[str, Any],
    x: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    """Rows and columns, or the first channels."""
    given: list[list[int] | None] = []
    for name, value in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)):
        if isinstance(value, Constant):
            given.append([int(v) for v in value.values.reshape(-1)])
        else:
            given.append(attributes.get(name))
    first, last, over, by = given
    if first is None or last is None:
        raise Refused("without bounds")
    over = list(range(len(first))) if over is None else over
    by = [1] * len(first) if by is None else by
    if len(over) == 1 and isinstance(x, Tensor) and x.axes[over[0]] == "C":
        return _first_channels(net, net.settled(x), slice(first[0], last[0], by[0]))
    base, pads, below, size = sliceable(net, x)
    start, step, count = [0, 0], [1, 1], list(size)
    for a, s, e, d in zip(over, first, last, by, strict=True):
        axis = base.axes[a]
        if axis not in ("H", "W") or d < 1:
            raise Refused("of an axis other than height and width, or of two axes one of which is the channels")
        i = "HW".index(axis)
        picked = range(size[i])[s:e:d]
        if not picked:
            raise Refused("of nothing")
        start[i], step[i], count[i] = picked[0], d, len(picked)
    return Slice(base, pads, (start[0], start[1]), (step[0], step[1]), (count[0], count[1]), below)


def sliceable(net: Network, x: Value) -> tuple[Tensor, tuple[int, int, int, int], float | None, tuple[int, int]]:
    if isinstance(x, Slice) and x.start == (0, 0) and x.step == (1, 1):
        return x.base, x.pads, x.below, x.count
    t = net.settled(net.tensor(x))
    net.image(t)
    shape = net.edges[t.position].shape
    return t, (0, 0, 0, 0), None, (shape[1], shape[2])


def read_concat(net: Network, attributes: dict[str, Any], *inputs: Value) -> Value:
    slices = [x for x in inputs if isinstance(x, Slice)]
    if len(slices) == len(inputs) and attributes.get("axis") == 1:
        windows = as_windows(list(net.refilled(slices)), net.edges, below=False)
        if windows is not None:
            return windows
    tensors = [net.settled(net.tensor(x)) for x in inputs]
    axis = attributes.get("axis", 1)
    if all(net.edges[t.position].shape == (1,) for t in tensors):
        # of axes that are all of length 1 any may be the channels
        rank = len(tensors[0].axes)
        tensors = [replace(t, axes=tuple("C" if i == axis % rank else None for i in range(rank))) for t in tensors]
    axes = tensors[0].axes
    if not -len(axes) <= axis < len(axes) or any(t.axes != axes for t in tensors) or axes[axis] != "C":
        raise Refused("along an axis that is not the channels")
    position = net.add(Concat(), tuple(t.position for t in tensors))
    scale = np.concatenate([t.scale for t in tensors if t.scale is not None])
    offset = np.concatenate([t.offset for t in tensors if t.offset is not None])
    return _affine(net, position, tensors[0], scale, offset)


def _first_channels(net: Network, t: Tensor, part: slice) -> Tensor:
    assert t.scale is not None and t.offset is not None
    picked = range(net.edges[t.position].shape[0])[part]
    if not picked or (picked.start, picked.step) != (0, 1):
        raise Refused("of channels other than the first")
    position = net.add(FirstChannels(len(picked)), (t.position,))
    return _affine(net, position, t, t.scale[: len(picked)], t.offset[: len(picked)])


def _affine(net: Network, position: int, like: Tensor, scale: Array, offset: Array) -> Tensor:
    """scale * x + offset of the integers x at `position`, with the axes and the type of `like`."""
    if like.kind == np.float32:
        return net.real(position, like.axes, scale, offset)
    if (scale != 1).any():
        position = net.affine(position, scale.astype(np.int64), np.zeros(len(scale), dtype=np.int64))
    return net.plain(position, like.axes, like.kind, offset)


def _same_axes(labels: list[str], sizes: list[int], shape: list[int]) -> Axes | None:
    """Labels of `shape` if it only has axes of length 1 more or less; None if it does not."""
    axes: list[str | None] = [None] * len(shape)
    at = 0
    left = len(labels)
    for label, size in zip(labels, sizes, strict=True):
        # an axis of length 1 may stand anywhere; batch comes first, so it is not taken for that
        while at < len(shape) and (shape[at] != size or (at == 0 and size == 1 and len(shape) > left)):
            if shape[at] != 1:
                return None
            at += 1
        if at == len(shape):
            return None
        axes[at] = label
        at += 1
        left -= 1
    return tuple(axes) if all(s == 1 for s in shape[at:]) else None
