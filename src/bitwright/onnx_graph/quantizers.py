"""Operators from real numbers to integers and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .constants import quant_range, quantize, rounding_of
from .network import Network
from .values import MOST_THRESHOLDS, Array, Constant, Refused, Tensor, Value


def quantized(net: Network, t: Tensor, codes: Callable[[Array], Array], scale: Array, offset: float = 0.0) -> Tensor:
    """Integers codes(values of t), which mean integer * scale + offset."""
    if t.ended:
        raise Refused("comes after a softmax")
    before = t.function
    position = net.thresholds(t, lambda x: np.asarray(codes(before(x))).astype(np.int64))
    return net.real(position, t.axes, scale.reshape(-1), offset)


def parameters_of(net: Network, t: Tensor, values: Sequence[Value | None]) -> list[Array]:
    channels = net.edges[t.position].shape[0]
    found = []
    for value in values:
        if not isinstance(value, Constant):
            raise Refused("scale, zero point or bits that depend on the input")
        array, axes = net.by_channel(value.values.astype(np.float32), t.axes, channels)
        if not np.isfinite(array).all() or len(axes) != len(t.axes):
            raise Refused("a scale, zero point or number of bits that is not a number")
        found.append(array)
    return found


def read_quant(net: Network, attributes: dict[str, Any], x: Value, *parameters: Value) -> Value:
    t = net.tensor(x)
    if len(parameters) != 3:
        raise Refused("without scale, zero point and bits")
    scale, zero, bits = parameters_of(net, t, parameters)
    if (scale <= 0).any() or bits.size != 1 or not 1 <= float(bits[0, 0]) <= 32:
        raise Refused("a scale or a number of bits out of range")
    width = float(bits[0, 0])
    if (zero == np.rint(zero)).all():
        return quantized(net, t, lambda v: quantize(v, scale, zero, attributes, width) - zero, scale)
    if zero.size > 1 or scale.size > 1:
        raise Refused("zero points by channel that are not whole numbers")
    offset = -float(zero[0, 0]) * float(scale[0, 0])
    return quantized(net, t, lambda v: quantize(v, scale, zero, attributes, width), scale, offset)


def read_bipolar_quant(net: Network, attributes: dict[str, Any], x: Value, scale: Value) -> Value:
    t = net.tensor(x)
    (factor,) = parameters_of(net, t, [scale])
    if (factor <= 0).any():
        raise Refused("a scale that is not positive")
    return quantized(net, t, lambda v: np.where(v >= 0, 1, -1), factor)


def read_multi_threshold(net: Network, attributes: dict[str, Any], x: Value, thresholds: Value) -> Value:
    t = net.tensor(x)
    if not isinstance(thresholds, Constant) or thresholds.values.ndim != 2:
        raise Refused("thresholds that are not a table")
    table = np.sort(thresholds.values.astype(np.float32), axis=1)
    channels = net.edges[t.position].shape[0]
    if len(table) not in (1, channels) or table.size > MOST_THRESHOLDS or np.isnan(table).any():
        raise Refused(f"thresholds of shape {list(table.shape)} for {channels} channels")
    layout = attributes.get("data_layout") or {2: "NC", 3: "NWC", 4: "NCHW"}.get(len(t.axes), "")
    if len(table) > 1 and (layout.find("C") >= len(t.axes) or t.axes[layout.find("C")] != "C"):
        raise Refused(f"layout {layout}")
    factor, start = attributes.get("out_scale", 1.0), attributes.get("out_bias", 0.0)
    if not factor > 0 or not math.isfinite(factor) or not math.isfinite(start):
        raise Refused(f"an out_scale of {factor} and an out_bias of {start}")

    def counted(v: Array) -> Array:
        if len(table) == 1:
            return np.searchsorted(table[0], v.reshape(-1), side="right").reshape(v.shape)
        return np.stack([np.searchsorted(r, u, side="right") for r, u in zip(table, v, strict=True)])

    if factor == round(factor) and start == round(start):
        return quantized(net, t, lambda v: counted(v) * int(factor) + int(start), np.ones(1))
    return quantized(net, t, counted, np.array([factor]), start)


def read_trunc(net: Network, attributes: dict[str, Any], x: Value, *parameters: Value) -> Value:
    """Rounds to integers of `scale`, drops low bits (qonnx's Trunc, versions 1 and 2)."""
    t = net.tensor(x)
    values = parameters_of(net, t, parameters)
    if any(v.size != 1 for v in values) or len(values) not in (4, 5) or float(values[1][0, 0]) != 0:
        raise Refused("with parameters by channel or a zero point")
    scale = values[0]
    rounding = rounding_of(attributes.get("rounding_mode", "FLOOR"))
    if len(values) == 4:
        drop = np.float32(2.0) ** (values[2] - values[3])
        return quantized(net, t, lambda v: rounding(np.rint(v / scale) / drop), scale)
    out_scale, out_bits = values[3], float(values[4][0, 0])
    drop = np.float32(2.0) ** np.rint(np.log2(out_scale / scale))
    low, high = quant_range({"signed": attributes.get("signed", 1), "narrow": attributes.get("narrow", 0)}, out_bits)
    return quantized(net, t, lambda v: rounding(np.clip(np.rint(v / scale) / drop, low, high)), out_scale)


def read_quantize_linear(
    net: Network, attributes: dict[str, Any], x: Value, scale: Value, zero: Value | None = None
) -> Value:
    t = net.tensor(x)
    factor, start, kind = linear_parameters(net, t, scale, zero, attributes)
    if (factor <= 0).any():
        raise Refused("a scale that is not positive")
    limits = np.iinfo(kind)
    return net.elementwise(
        t,
        lambda v: np.clip(np.rint(v / factor) + start, limits.min, limits.max).astype(kind),
        kind=kind,
    )


def read_dequantize_linear(
    net: Network, attributes: dict[str, Any], x: Value, scale: Value, zero: Value | None = None
) -> Value:
    t = net.settled(net.tensor(x))
    factor, start, _ = linear_parameters(net, t, scale, zero, attributes)
    assert t.scale is not None and t.offset is not None
    flat, less = factor.reshape(-1).astype(np.float64), start.reshape(-1).astype(np.float64)
    return net.elementwise(
        t,
        lambda v: (v.astype(np.int64) - start.astype(np.int64)).astype(np.float32) * factor,
        kind=np.float32,
        scale=t.scale * flat,
        offset=(t.offset - less) * flat,
    )


def linear_parameters(
    net: Network, t: Tensor, scale: Value, zero: Value | None, attributes: dict[str, Any]
) -> tuple[Array, Array, Any]:
    """Scale and zero point by channel, and the type of the integers."""
    if not isinstance(scale, Constant) or (zero is not None and not isinstance(zero, Constant)):
        raise Refused("a scale or zero point that depends on the input")
    kind = np.dtype(np.uint8) if zero is None else zero.values.dtype
    if kind.kind not in "iu" or attributes.get("block_size"):
        raise Refused(f"to {kind}")
    found = []
    for values in (scale.values.astype(np.float32), np.zeros(1, np.float32) if zero is None else zero.values):
        if values.size > 1:
            axis = attributes.get("axis", 1)
            if not -len(t.axes) <= axis < len(t.axes) or t.axes[axis] != "C":
                raise Refused("scales along an axis that is not the channels")
            if values.size != net.edges[t.position].shape[0]:
                raise Refused(f"{values.size} scales")
        if not np.isfinite(values).all():
            raise Refused("a scale that is not a number")
        found.append(values.astype(np.float32).reshape(-1, 1))
    return found[0], found[1], kind
