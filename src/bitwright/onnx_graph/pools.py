"""Pools, and which element is largest."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..integer.graph import Argmax, GlobalSumPool, MaxPool, SumPool
from . import sums
from .network import Network
from .values import Constant, Refused, Tensor, Value


def read_max_pool(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    t = net.tensor(x)
    net.image(t)
    kernel, stride, pads = window_of(net, attributes, t)
    if t.scale is None and t.grid is None and t.kind == np.float32:
        # before a quantizer: a rising function may as well come after the pool
        if t.direction is None or (t.direction < 0).any():
            raise Refused("of values that are not quantized")
        return replace(t, position=net.add(MaxPool(kernel, stride, pads), (t.position,)))
    position, scale, offset = net.positive(t)
    result = net.add(MaxPool(kernel, stride, pads), (position,))
    return net.after(t, result, t.axes, scale, offset)


def read_channels_last_max_pool(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    t = net.tensor(x)
    y = read_max_pool(net, attributes, replace(t, axes=tuple(t.axes[i] for i in (0, 3, 1, 2))))
    assert isinstance(y, Tensor)
    return replace(y, axes=tuple(y.axes[i] for i in (0, 2, 3, 1)))


def read_global_max_pool(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    t = net.tensor(x)
    net.image(t)
    return read_max_pool(net, {"kernel_shape": list(net.edges[t.position].shape[1:])}, t)


def window_of(
    net: Network, attributes: dict[str, Any], t: Tensor
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    kernel, stride = attributes.get("kernel_shape", []), attributes.get("strides", [1, 1])
    if len(kernel) != 2 or len(stride) != 2 or attributes.get("dilations", [1, 1]) != [1, 1]:
        raise Refused("a window that is not a rectangle")
    pads = sums.padding_of(net, attributes, t, kernel, stride)
    if attributes.get("ceil_mode", 0):
        sizes = net.shape(t)[2:4]
        if any((n + a + b - k) % s for n, a, b, k, s in zip(sizes, pads[:2], pads[2:], kernel, stride, strict=True)):
            raise Refused("ceil_mode")
    return (kernel[0], kernel[1]), (stride[0], stride[1]), pads


def read_average_pool(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    t = net.tensor(x)
    net.image(t)
    kernel, stride, pads = window_of(net, attributes, t)
    if any(pads) and not attributes.get("count_include_pad", 0):
        raise Refused("padding that does not count")
    position, scale, _ = net.integers(t, uniform=False)
    result = net.add(SumPool(kernel, stride, pads), (position,))
    return net.real(result, t.axes, scale / (kernel[0] * kernel[1]))


def read_global_average_pool(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    return global_sum(net, net.tensor(x), True, True)


def read_reduce_sum(net: Network, attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    return reduced_image(net, attributes, x, axes, False)


def read_reduce_mean(net: Network, attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    return reduced_image(net, attributes, x, axes, True)


def reduced_image(net: Network, attributes: dict[str, Any], x: Value, axes: Value | None, mean: bool) -> Value:
    t = net.tensor(x)
    over = axes.values.reshape(-1).tolist() if isinstance(axes, Constant) else attributes.get("axes", [])
    if {t.axes[a] for a in over if -len(t.axes) <= a < len(t.axes)} != {"H", "W"}:
        raise Refused("over axes other than height and width")
    return global_sum(net, t, mean, bool(attributes.get("keepdims", 1)))


def global_sum(net: Network, t: Tensor, mean: bool, keep: bool) -> Tensor:
    if {"C", "H", "W"} - set(t.axes):
        raise Refused(f"on axes {t.axes}")
    area = math.prod(net.edges[t.position].shape[1:])
    position, scale, offset = net.integers(t, uniform=False)
    result = net.add(GlobalSumPool(), (position,))
    axes = tuple(None if a in ("H", "W") else a for a in t.axes if keep or a not in ("H", "W"))
    return net.after(t, result, axes, scale / area if mean else scale, offset)


def read_arg_max(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    if attributes.get("select_last_index", 0):
        raise Refused("the last of equal ones")
    return largest_of(net, net.tensor(x), attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))


def read_top_k(net: Network, attributes: dict[str, Any], x: Value, k: Value | None = None) -> Any:
    count = int(k.values.reshape(-1)[0]) if isinstance(k, Constant) else attributes.get("k", 0)
    if count != 1 or not attributes.get("largest", 1):
        raise Refused("of anything but the largest")
    return None, largest_of(net, net.tensor(x), attributes.get("axis", -1), True)


def largest_of(net: Network, t: Tensor, axis: int, keep: bool) -> Tensor:
    shape = net.edges[t.position].shape
    if not -len(t.axes) <= axis < len(t.axes) or len(shape) != 1 or (t.axes[axis] != "C" and shape[0] > 1):
        raise Refused("along an axis that is not that of a vector")
    t = net.settled(replace(t, ended=False))
    assert t.offset is not None
    if (t.offset == t.offset[0]).all():
        t = replace(t, offset=np.zeros_like(t.offset))
    position, _, _ = net.integers(t, uniform=True)
    axes = t.axes if keep else tuple(a for a in t.axes if a != "C")
    result = net.add(Argmax(), (position,))
    return net.plain(result, axes if keep else (*axes[:-1], "C") if axes else ("C",), np.int64)
