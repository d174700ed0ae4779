"""FINN's layers for FPGAs, channels last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..integer.graph import Int, Pad
from . import elementwise, quantizers, sums
from .network import Network
from .values import WIDEST_WINDOW, Array, Constant, Refused, Tensor, Value, Windows


def read_duplicate_streams_batch(net: Network, attributes: dict[str, Any], x: Value) -> Any:
    return (x,) * max(1, min(attributes.get("NumOutputStreams", 2), 64))


def read_fmpadding_batch(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    pads = attributes.get("Padding", [])
    if len(pads) != 4 or min(pads) < 0 or max(pads) > WIDEST_WINDOW:
        raise Refused(f"padding {pads}")
    t = net.tensor(x)
    position, scale, offset = net.integers(t, uniform=True)
    return net.after(t, net.add(Pad((pads[0], pads[1], pads[2], pads[3])), (position,)), t.axes, scale, offset)


def read_convolution_input_generator(net: Network, attributes: dict[str, Any], x: Value) -> Value:
    kernel, stride = attributes.get("ConvKernelDim", []), attributes.get("Stride", [])
    if len(kernel) != 2 or len(stride) != 2 or attributes.get("Dilation", [1, 1]) != [1, 1]:
        raise Refused("a window that is not a rectangle")
    base = net.tensor(x)
    if base.axes != (None, "H", "W", "C"):
        raise Refused(f"on axes {base.axes}")
    return Windows(
        base,
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (0, 0, 0, 0),
        bool(attributes.get("depthwise", 0)),
    )


def read_vector_vector_activation(
    net: Network, attributes: dict[str, Any], x: Value, w: Value, thresholds: Value | None = None
) -> Value:
    if not isinstance(x, Windows) or not x.depthwise or not isinstance(w, Constant) or w.values.ndim != 4:
        raise Refused("without the windows of a depthwise convolution")
    codes, scale = sums.weights_of(net, w, 0)
    return activated(net, attributes, windowed(net, x, codes, scale, len(codes)), thresholds)


def read_matrix_vector_activation(
    net: Network, attributes: dict[str, Any], x: Value, w: Value, thresholds: Value | None = None
) -> Value:
    if attributes.get("binaryXnorMode", 0) or not isinstance(w, Constant) or w.values.ndim != 2:
        raise Refused("with XNOR arithmetic, or weights that are not a matrix")
    codes, scale = sums.weights_of(net, w, 1)
    if isinstance(x, Windows):
        if x.depthwise:
            raise Refused("on the windows of a depthwise convolution")
        channels = net.edges[x.base.position].shape[0]
        turned = codes.reshape(*x.kernel, channels, -1).transpose(3, 2, 0, 1)
        return activated(net, attributes, windowed(net, x, turned, scale, 1), thresholds)
    return activated(net, attributes, sums.product_with(net, net.tensor(x), codes, scale, None), thresholds)


def windowed(net: Network, x: Windows, codes: Int, scale: Array, groups: int) -> Tensor:
    turned = replace(x.base, axes=(None, "C", "H", "W"))
    attributes = {"strides": list(x.stride), "pads": list(x.pads), "group": groups}
    return replace(sums.convolved(net, attributes, turned, codes, scale, None), axes=(None, "H", "W", "C"))


def activated(net: Network, attributes: dict[str, Any], t: Tensor, thresholds: Value | None) -> Value:
    if attributes.get("noActivation", 0) or thresholds is None:
        return t
    layout = "NHWC" if len(t.axes) == 4 else "NC"
    start = float(attributes.get("ActVal", 0))
    return quantizers.read_multi_threshold(net, {"data_layout": layout, "out_bias": start}, t, thresholds)


def read_add_streams_batch(net: Network, attributes: dict[str, Any], a: Value, b: Value) -> Value:
    return elementwise.arithmetic(net, "Add", a, b)
