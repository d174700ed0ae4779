"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..integer.graph import Conv, Int, MatMul
from .network import Network
from .values import MOST_ELEMENTS, NEAR, WIDEST_WINDOW, Array, Axes, Constant, Refused, Tensor, Value, Windows


def read_conv(net: Network, attributes: dict[str, Any], x: Value, w: Value, b: Value | None = None) -> Value:
    if not isinstance(w, Constant) or (b is not None and not isinstance(b, Constant)):
        raise Refused("weights that depend on the input")
    codes, scale = weights_of(net, w, 0)
    bias = None if b is None else b.values.astype(np.float64).reshape(-1)
    return convolved(net, attributes, net.tensor(x), codes, scale, bias)


def read_channels_last_conv(
    net: Network, attributes: dict[str, Any], x: Value, w: Value, b: Value | None = None
) -> Value:
    t = net.tensor(x)
    if len(t.axes) != 4 or not isinstance(w, Constant) or w.values.ndim != 4:
        raise Refused("of anything but an image")
    turned = replace(t, axes=tuple(t.axes[i] for i in (0, 3, 1, 2)))
    y = read_conv(net, attributes, turned, w.map(lambda v: v.transpose(0, 3, 1, 2)), b)
    assert isinstance(y, Tensor)
    return replace(y, axes=tuple(y.axes[i] for i in (0, 2, 3, 1)))


def weights_of(net: Network, w: Constant, axis: int) -> tuple[Int, Array]:
    """Integers and their scale for every output channel, which is along `axis`."""
    values = w.values
    if values.dtype.kind in "iub":
        return values.astype(np.int64), np.ones(values.shape[axis])
    if not np.isfinite(values).all():
        raise Refused("weights that are not finite")
    others = tuple(i for i in range(values.ndim) if i != axis)
    if w.codes is not None and w.scale is not None:
        scale = np.broadcast_to(w.scale, values.shape)
        first = scale.min(axis=others)
        if np.array_equal(first, scale.max(axis=others)):
            return w.codes, first.astype(np.float64)
    if (values == np.rint(values)).all():
        if np.abs(values).max(initial=0) > 2**31:
            raise Refused("weights of more than 32 bits")
        return values.astype(np.int64), np.ones(values.shape[axis])
    # weights on a grid of a power of two were quantized by whoever wrote the file
    _, exponents = np.frexp(values[values != 0])
    for bits in (8, 16):
        unit = 2.0 ** (int(exponents.max()) - bits)
        codes = values / unit
        if (codes == np.rint(codes)).all():
            return codes.astype(np.int64), np.full(values.shape[axis], unit)
    raise Refused("its weights are not quantized")


def convolved(
    net: Network, attributes: dict[str, Any], t: Tensor, codes: Int, scale: Array, bias: Array | None
) -> Tensor:
    """A convolution of a tensor whose axes are (batch, channels, height, width)."""
    if codes.ndim != 4 or len(t.axes) != 4:
        raise Refused(f"weights of rank {codes.ndim} on values of rank {len(t.axes)}")
    groups = attributes.get("group", 1)
    edge = net.edges[t.position]
    depthwise = groups == codes.shape[0] == edge.shape[0] and codes.shape[1] == 1
    codes = _dilated(codes, attributes.get("dilations", [1, 1]))
    stride = tuple(attributes.get("strides", [1, 1]))
    pads = padding_of(net, attributes, t, codes.shape[2:], stride)
    if bias is not None and bias.size != codes.shape[0]:
        raise Refused(f"{bias.size} biases for {codes.shape[0]} channels")
    if len(stride) != 2 or groups < 1:
        raise Refused(f"strides {stride}, {groups} groups")
    pixel = codes.shape[2:] == (1, 1) and not any(pads)
    if depthwise and pixel and stride == (1, 1) and t.axes[1] == "C" and bias is None and t.kind == np.float32:
        factor = codes.reshape(-1, 1)
        if t.scale is None or t.offset is None:
            t = net.settled(t)
        assert t.scale is not None and t.offset is not None
        position = t.position
        flat = factor.reshape(-1) * scale
        return net.real(position, t.axes, t.scale * flat, t.offset * flat)
    position, unit, _ = net.integers(t, uniform=not depthwise)
    filters = codes.shape[0]
    unit = unit if depthwise else np.full(filters, unit[0])
    total = unit * scale
    whole = None
    if bias is not None and bias.any() and (total != 0).all():
        ratio = bias / total
        if (np.abs(ratio - np.rint(ratio)) <= NEAR * np.maximum(1, np.abs(ratio))).all() and (
            np.abs(ratio).max() < 2**31
        ):
            whole, bias = np.rint(ratio).astype(np.int64), None
    if len(edge.shape) == 1:
        if t.axes[1] != "C" or not pixel or codes.shape[1] * groups != edge.shape[0]:
            raise Refused("a window on a vector")
        if filters * edge.shape[0] > MOST_ELEMENTS:
            raise Refused(f"{filters} filters in {groups} groups")
        dense = np.zeros((filters, edge.shape[0]), dtype=np.int64)
        each, per = codes.shape[1], filters // groups
        for g in range(groups):
            dense[g * per : (g + 1) * per, g * each : (g + 1) * each] = codes[g * per : (g + 1) * per, :, 0, 0]
        result = net.add(MatMul(dense, whole), (position,))
        return net.real(result, t.axes, total, 0.0 if bias is None else bias)
    if t.axes != (None, "C", "H", "W"):
        raise Refused(f"on axes {t.axes}")
    position, pads = net.padded(position, pads)
    op = Conv(codes, whole, (stride[0], stride[1]), pads, groups)
    return net.real(net.add(op, (position,)), t.axes, total, 0.0 if bias is None else bias)


def padding_of(
    net: Network, attributes: dict[str, Any], t: Tensor, kernel: Sequence[int], stride: Sequence[int]
) -> tuple[int, int, int, int]:
    automatic = attributes.get("auto_pad", "NOTSET")
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sizes = net.shape(t)[2:4]
        less = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, kernel, stride, strict=True)]
        first = [(p + (automatic == "SAME_LOWER")) // 2 for p in less]
        pads = [*first, *(p - f for p, f in zip(less, first, strict=True))]
    elif automatic not in ("NOTSET", "VALID"):
        raise Refused(f"auto_pad {automatic}")
    if len(pads) != 4 or min(pads) < 0 or max(pads) > WIDEST_WINDOW or not 1 <= max(stride) <= WIDEST_WINDOW:
        raise Refused(f"pads {pads}, strides {list(stride)}")
    return pads[0], pads[1], pads[2], pads[3]


def read_mat_mul(net: Network, attributes: dict[str, Any], a: Value, b: Value) -> Value:
    if isinstance(a, Constant):
        return left_product(net, a, b)
    if not isinstance(b, Constant):
        raise Refused("of two tensors that depend on the input")
    codes, scale = weights_of(net, b, b.values.ndim - 1)
    return product_with(net, net.tensor(a), codes, scale, None)


def product_with(net: Network, t: Tensor, codes: Int, scale: Array, bias: Array | None) -> Tensor:
    """t @ codes, the channels of t being its last axis."""
    if codes.ndim != 2 or (t.axes and t.axes[-1] not in ("C", None)):
        raise Refused(f"of axes {t.axes} and weights of rank {codes.ndim}")
    if len(net.edges[t.position].shape) == 3 and t.axes[-1] == "C":
        if t.axes != (None, "H", "W", "C"):
            raise Refused(f"of axes {t.axes}")
        turned = replace(t, axes=(None, "C", "H", "W"))
        y = convolved(net, {}, turned, codes.T[:, :, None, None], scale, bias)
        return replace(y, axes=(None, "H", "W", "C"))
    position, unit, _ = net.integers(t, uniform=True)
    total = unit[0] * scale
    whole = None
    if bias is not None:
        ratio = bias / total
        if (np.abs(ratio - np.rint(ratio)) <= NEAR * np.maximum(1, np.abs(ratio))).all():
            whole, bias = np.rint(ratio).astype(np.int64), None
    axes: Axes = (*[None] * (len(t.axes) - 1), "C")
    result = net.add(MatMul(np.ascontiguousarray(codes.T), whole), (position,))
    return net.real(result, axes, total, 0.0 if bias is None else bias)


def left_product(net: Network, a: Constant, b: Value) -> Value:
    """A matrix of weights times windows or pixels, channels first (as our own exporter writes wide sums)."""
    codes, scale = weights_of(net, a, 0)
    if codes.ndim != 2:
        raise Refused(f"of weights of rank {codes.ndim}")
    if isinstance(b, Windows):
        kh, kw = b.kernel
        base, stride, pads = b.base, b.stride, b.pads
    else:
        base = net.tensor(b)
        if base.axes != (None, "C", "P"):
            raise Refused(f"of weights and axes {base.axes}")
        kh, kw, stride, pads = 1, 1, (1, 1), (0, 0, 0, 0)
    channels = net.edges[base.position].shape[0]
    weight = codes.reshape(len(codes), kh, kw, channels).transpose(0, 3, 1, 2)
    position, unit, _ = net.integers(base, uniform=True)
    position, pads = net.padded(position, pads)
    result = net.add(Conv(np.ascontiguousarray(weight), None, stride, pads, 1), (position,))
    if base.kind == np.float32:
        return net.real(result, (None, "C", "P"), unit[0] * scale)
    return net.plain(result, (None, "C", "P"), base.kind)


def read_gemm(net: Network, attributes: dict[str, Any], a: Value, b: Value, c: Value | None = None) -> Value:
    if attributes.get("transA", 0) or not isinstance(b, Constant) or b.values.ndim != 2:
        raise Refused("weights that depend on the input, or transA")
    if c is not None and not isinstance(c, Constant):
        raise Refused("a bias that depends on the input")
    w = b.map(np.transpose) if attributes.get("transB", 0) else b
    codes, scale = weights_of(net, w, 1)
    bias = None if c is None else c.values.astype(np.float64).reshape(-1) * attributes.get("beta", 1.0)
    if bias is not None:
        bias = np.broadcast_to(bias, (codes.shape[1],))
    return product_with(net, net.tensor(a), codes, scale * attributes.get("alpha", 1.0), bias)


def read_conv_integer(
    net: Network, attributes: dict[str, Any], x: Value, w: Value, xz: Value | None = None, wz: Value | None = None
) -> Value:
    y = integer_conv(net, attributes, x, w, xz, wz, None)
    return net.plain(y.position, y.axes, np.int32)


def integer_conv(
    net: Network, attributes: dict[str, Any], x: Value, w: Value, xz: Value | None, wz: Value | None, bias: Int | None
) -> Tensor:
    if not isinstance(w, Constant) or w.values.dtype.kind not in "iu" or w.values.ndim != 4:
        raise Refused("weights that are not constant integers")
    codes = w.values.astype(np.int64) - _column(wz, w.values.ndim)
    t = without_zero(net, net.tensor(x), xz)
    wide = None if bias is None else bias.astype(np.float64)
    y = convolved(net, attributes, t, codes, np.ones(len(codes)), wide)
    return y


def without_zero(net: Network, t: Tensor, zero: Value | None) -> Tensor:
    """Integers less their zero point."""
    if np.dtype(t.kind).kind not in "iu":
        raise Refused(f"on values of {np.dtype(t.kind)}")
    if zero is not None and (not isinstance(zero, Constant) or zero.values.size != 1):
        raise Refused("a zero point that is not one constant")
    less = int(zero.values.reshape(-1)[0]) if isinstance(zero, Constant) else 0
    t = net.settled(t)
    assert t.offset is not None
    return replace(t, offset=t.offset - less)


def read_mat_mul_integer(
    net: Network, attributes: dict[str, Any], a: Value, b: Value, az: Value | None = None, bz: Value | None = None
) -> Value:
    y = integer_product(net, a, b, az, bz)
    return net.plain(y.position, y.axes, np.int32)


def integer_product(net: Network, a: Value, b: Value, az: Value | None, bz: Value | None) -> Tensor:
    if not isinstance(b, Constant) or b.values.dtype.kind not in "iu" or b.values.ndim != 2:
        raise Refused("weights that are not constant integers")
    codes = b.values.astype(np.int64)
    if isinstance(bz, Constant):
        codes = codes - bz.values.astype(np.int64).reshape(1, -1)
    t = without_zero(net, net.tensor(a), az)
    return product_with(net, t, codes, np.ones(codes.shape[1]), None)


def read_qlinear_conv(
    net: Network,
    attributes: dict[str, Any],
    x: Value,
    x_scale: Value,
    x_zero: Value,
    w: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
) -> Value:
    offset = None
    if bias is not None:
        if not isinstance(bias, Constant) or bias.values.dtype.kind not in "iu":
            raise Refused("a bias that is not constant integers")
        offset = bias.values.astype(np.int64).reshape(-1)
    multiplier = _multiplier(x_scale, w_scale, y_scale)
    single = isinstance(w, Constant) and w.values.ndim == 4 and w.values.shape[1:] == (1, 1, 1)
    t = net.tensor(x)
    channels = net.edges[t.position].shape[0]
    plain = attributes.get("strides", [1, 1]) == [1, 1] and not any(attributes.get("pads", [0]))
    plain = plain and attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    if single and plain and attributes.get("group", 1) == channels == w.values.shape[0] and len(t.axes) == 4:  # type: ignore[union-attr]
        # one weight for every channel: an elementwise operation
        assert isinstance(w, Constant)
        factor = w.values.astype(np.int64).reshape(-1) - _column(w_zero, 1)
        t = without_zero(net, t, x_zero)
        assert t.scale is not None and t.offset is not None
        extra = t.offset.astype(np.int64) * factor + (0 if offset is None else offset)
        slope = t.scale.astype(np.int64) * factor
        inner = replace(
            t,
            function=lambda v: v * slope[:, None] + extra[:, None],
            direction=np.sign(slope),
            scale=slope.astype(np.float64),
            offset=extra.astype(np.float64),
        )
        return saturated(net, inner, multiplier, y_zero)
    y = integer_conv(net, attributes, x, w, x_zero, w_zero, offset)
    return saturated(net, net.plain(y.position, y.axes, np.int32), multiplier, y_zero)


def read_qlinear_mat_mul(
    net: Network,
    attributes: dict[str, Any],
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Value:
    y = integer_product(net, a, b, a_zero, b_zero)
    return saturated(net, net.plain(y.position, y.axes, np.int32), _multiplier(a_scale, b_scale, y_scale), y_zero)


def saturated(net: Network, sums: Tensor, multiplier: Array, zero: Value) -> Tensor:
    """What ONNX Runtime makes of 32-bit sums: float32 multiplication, rounding to even, zero point, saturation."""
    if not isinstance(zero, Constant) or zero.values.size != 1 or zero.values.dtype.kind not in "iu":
        raise Refused("a zero point that is not one constant integer")
    limits = np.iinfo(zero.values.dtype)
    start = int(zero.values.reshape(-1)[0])
    channels = net.edges[sums.position].shape[0]
    if multiplier.size not in (1, channels) or not np.isfinite(multiplier).all():
        raise Refused(f"{multiplier.size} scales for {channels} channels")
    by = multiplier.reshape(-1, 1)

    def function(v: Array) -> Array:
        product = np.rint(v.astype(np.float32) * by).astype(np.float64)
        return np.clip(product + start, limits.min, limits.max).astype(limits.dtype)

    return net.elementwise(sums, function, kind=limits.dtype, rises=np.sign(multiplier).astype(np.int64).reshape(-1))


def _column(zero: Value | None, rank: int) -> Int:
    """Zero points of weights, by output channel."""
    if zero is None:
        return np.zeros((1,) * rank, dtype=np.int64)
    if not isinstance(zero, Constant):
        raise Refused("a zero point that depends on the input")
    return zero.values.astype(np.int64).reshape(-1, *[1] * (rank - 1))


def _multiplier(x: Value, w: Value, y: Value) -> Array:
    if not all(isinstance(v, Constant) for v in (x, w, y)):
        raise Refused("scales that depend on the input")
    a, b, c = (v.values.astype(np.float32).reshape(-1) for v in (x, w, y) if isinstance(v, Constant))
    return np.asarray(a * b / c, dtype=np.float32)


def _dilated(codes: Int, by: Sequence[int]) -> Int:
    if len(by) != 2 or min(by) < 1 or max(by) > 1024:
        raise Refused(f"dilations {list(by)}")
    if tuple(by) == (1, 1):
        return codes
    filters, channels, height, width = codes.shape
    if filters * channels * ((height - 1) * by[0] + 1) * ((width - 1) * by[1] + 1) > MOST_ELEMENTS:
        raise Refused(f"dilations {list(by)}")
    wide = np.zeros((filters, channels, (height - 1) * by[0] + 1, (width - 1) * by[1] + 1), dtype=np.int64)
    wide[:, :, :: by[0], :: by[1]] = codes
    return wide
