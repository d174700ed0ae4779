"""From a trained network to an integer graph that computes the same.

Each batch normalisation with its quantizer becomes per-channel thresholds on the accumulator, as in the MicroNet
submission of Pappalardo (2019). They are found by asking the quantizer itself on the canonical expression
(normalisation.py): for every level, bisect for the smallest accumulator that reaches it. Nothing about rounding or
ties is restated here. Activations of more than four bits become a multiplication and a shift.
"""

from __future__ import annotations

import math
from typing import NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor

from .. import network as net
from ..errors import InvalidGraph, LoweringError
from ..modules import (
    EXACT_IN_FLOAT32,
    Weights,
    added_scale,
    bias_units,
    deployed_scale,
    normalisation_line,
    pooled_scale,
    sliced_scale,
    units_per_code,
    weight_codes,
)
from ..network import Network, Padding, pads
from ..normalisation import Line, fixed_point
from ..quantizers import Quantizer, Scale
from . import graph as ig
from .graph import Edge, Int, IntegerGraph, Node
from .linear import counts, probes

REPEATED = (ig.MaxPool, ig.SumPool, ig.GlobalSumPool, ig.Slice)  # what has no arrays and one input
THRESHOLD_BITS = 4  # wider activations are a multiplication and a shift, which needs fewer constants


class Lowered(NamedTuple):
    """positions: for every node of the network's trunk the node of the graph that holds its integers."""

    graph: IntegerGraph
    positions: tuple[int, ...]


def lower(network: Network, weights: Weights, *, threshold_bits: int = THRESHOLD_BITS) -> IntegerGraph:
    """The integer graph equal to `network` in evaluation. LoweringError names the layer that has no integer form.

    threshold_bits: activations of up to so many bits become thresholds, wider ones a multiplication and a shift.
    """
    return lowered(network, weights, threshold_bits=threshold_bits).graph


@torch.no_grad()
def lowered(network: Network, weights: Weights, *, threshold_bits: int = THRESHOLD_BITS) -> Lowered:
    """As `lower`, and which node became which."""
    network = network.trunk
    lowering = _Lowering(network, weights, threshold_bits)
    for position in range(len(network.nodes)):
        lowering.add(position)
    try:
        return Lowered(lowering.finished(), tuple(lowering.at))
    except InvalidGraph as mistake:
        raise LoweringError(f"the network has no integer form of 32 bits: {mistake}") from None


class _Lowering:
    """The graph so far. `at` is the node that holds each network node's codes; `scales` what they mean."""

    def __init__(self, network: Network, weights: Weights, threshold_bits: int) -> None:
        self.network, self.weights, self.threshold_bits = network, weights, threshold_bits
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.at: list[int] = []
        self.scales: list[Scale] = []

    def add(self, position: int) -> None:
        node = self.network.nodes[position]
        inputs = [self.at[i] for i in node.inputs]
        scales = [self.scales[i] for i in node.inputs]
        name = node.key or _described(self.network, position)
        match node.op:
            case net.Input(shape=shape, offset=offset, scale=unit) as op:
                if not op.is_integer or len(set(offset)) > 1:
                    raise LoweringError(
                        f"{name}: pixels are normalised to real numbers; an integer network subtracts one integer from"
                        " all of them (wiring: integer)"
                    )
                self._put(ig.Input(shape, 0, 255, int(offset[0])), [], name, unit[0])
            case net.Conv2d(weight=quantizer, stride=stride, padding=padding, groups=groups, dilation=dilation) as op:
                codes, scale_of = self._weights(position, quantizer, name)
                joined = self._joined(inputs, scales, name)
                zeros = self._pads(joined, op.extent, stride, padding)
                self._put(
                    ig.Conv(_spread(codes, dilation), None, (stride, stride), zeros, groups),
                    [joined],
                    name,
                    self._product(scales[0], scale_of, name),
                )
            case net.DepthwiseConv2d(weight=quantizer, stride=stride, padding=padding, dilation=dilation) as op:
                codes, scale_of = self._weights(position, quantizer, name)
                zeros = self._pads(inputs[0], op.extent, stride, padding)
                conv = ig.Conv(_spread(codes, dilation), None, (stride, stride), zeros, len(codes))
                self._put(conv, inputs, name, scales[0] * scale_of)
            case net.Linear(weight=quantizer, bias=bias):
                codes, scale_of = self._weights(position, quantizer, name)
                joined = self._joined(inputs, scales, name)
                product = self._product(scales[0], scale_of, name)
                added = _integers(bias_units(self.network, position, self.weights, product)) if bias else None
                self._put(ig.MatMul(codes, added), [joined], name, product)
            case net.BatchNorm(activation=quantizer):
                _levels(quantizer, name, "activation")
                canonical = normalisation_line(self.network, position, self.weights, scales[0])
                if canonical is None:
                    raise LoweringError(f"{name}: shared weights keep no running statistics; train the network first")
                self._quantized(quantizer, canonical, inputs[0], name, deployed_scale(node, self.weights))
            case net.Activation(quantizer=quantizer):
                _levels(quantizer, name, "activation")
                step = deployed_scale(node, self.weights)
                ratio = units_per_code(scales[0], step).flatten()
                if len(ratio) != 1:
                    raise LoweringError(f"{name}: its input has a scale per channel; it needs one scale")
                one = torch.ones(1)
                self._quantized(quantizer, Line(one, 0 * one, ratio.cpu()), inputs[0], name, step)
            case net.MaxPool2d(kernel=kernel, stride=stride):
                zeros = self._pads(inputs[0], kernel, stride)
                self._put(ig.MaxPool((kernel, kernel), (stride, stride), zeros), inputs, name, scales[0])
            case net.SumPool2d(kernel=kernel, stride=stride):
                zeros = self._pads(inputs[0], kernel, stride)
                scale = self._product(scales[0], 1 / kernel**2, name)
                self._put(ig.SumPool((kernel, kernel), (stride, stride), zeros), inputs, name, scale)
            case net.GlobalSumPool(shift=shift):
                scale = self._product(scales[0], pooled_scale(node.op, self.edges[inputs[0]].shape[1:]), name)
                self._put(ig.GlobalSumPool(shift), inputs, name, scale)
            case net.Flatten():
                self._put(ig.Flatten(), inputs, name, self._product(scales[0], 1.0, name))
            case net.Add(saturate=levels):
                self._one_scale(scales, name)
                clip = (None, None) if levels is None else (levels.lowest, levels.highest)
                self._put(ig.Add(*clip), inputs, name, added_scale(node.op, scales[0]))
            case net.Concat():
                joined = self._joined(inputs, scales, name)
                self.at.append(joined)
                self.scales.append(scales[0])
            case net.Slice(channels=channels, start=start):
                if start:
                    raise LoweringError(f"{name}: a slice that does not start at the first channel has no integer form")
                self._put(ig.Slice(channels), inputs, name, sliced_scale(scales[0], 0, channels))
            case net.DropPath() | net.Dropout():
                self.at.append(inputs[0])
                self.scales.append(scales[0])
            case net.AveragePool2d():
                raise LoweringError(
                    f"{name}: an average pool divides; a sum pool followed by an activation does not (wiring: integer)"
                )
            case net.PadChannels():
                raise LoweringError(f"{name}: channels of zeros have no integer operation")
            case net.Shuffle():
                raise LoweringError(f"{name}: a shuffle of channels has no integer operation")
            case net.Shift2d():
                raise LoweringError(f"{name}: the shifted half of a factorized reduction has no integer operation")
            case _:
                assert_never(node.op)

    def finished(self) -> IntegerGraph:
        scale = torch.as_tensor(self.scales[-1], dtype=torch.float64).flatten().tolist()
        if not all(math.isfinite(s) and s > 0 for s in scale):
            raise LoweringError(f"{self.nodes[-1].name}: its scale is {scale[0]}; the training has diverged")
        if len(set(scale)) > 1:
            raise LoweringError(
                f"{self.nodes[-1].name}: each class has a scale of its own, so their integers cannot be compared;"
                " take one scale for the tensor"
            )
        nodes, at = self.nodes, self.at[-1]
        if at != len(nodes) - 1:  # the last network node passed an earlier value on
            raise LoweringError(f"{nodes[at].name}: the output is a value that other nodes read")
        return IntegerGraph(tuple(nodes), tuple(scale[:1]))

    def _put(self, op: ig.Op, inputs: list[int], name: str, scale: Scale) -> None:
        again = None
        if isinstance(op, REPEATED):  # two edges of a cell may pool one value
            again = next((i for i, n in enumerate(self.nodes) if n.inputs == tuple(inputs) and _equal(n.op, op)), None)
        if again is None:
            self._node(op, inputs, name)
        self.at.append(len(self.nodes) - 1 if again is None else again)
        self.scales.append(scale)

    def _node(self, op: ig.Op, inputs: list[int], name: str) -> None:
        self.nodes.append(Node(op, tuple(inputs), name))
        try:
            self.edges.append(ig.edge(op, [self.edges[i] for i in inputs]))
        except ValueError as mistake:
            raise LoweringError(f"{name}: {mistake}") from None

    def _weights(self, position: int, quantizer: Quantizer, name: str) -> tuple[Int, Scale]:
        _levels(quantizer, name, "weight")
        codes, scale = weight_codes(self.network, position, self.weights)
        return _integers(codes), scale

    def _joined(self, inputs: list[int], scales: list[Scale], name: str) -> int:
        self._one_scale(scales, name)
        if len(inputs) == 1:
            return inputs[0]
        for position, node in enumerate(self.nodes):
            if isinstance(node.op, ig.Concat) and node.inputs == tuple(inputs):
                return position
        self._node(ig.Concat(), inputs, f"{name}/concat")
        return len(self.nodes) - 1

    def _one_scale(self, scales: list[Scale], name: str) -> None:
        """Integers can only be added or put side by side where they mean the same real numbers."""
        first = torch.as_tensor(scales[0], dtype=torch.float64).flatten()
        for scale in scales:
            other = torch.as_tensor(scale, dtype=torch.float64).flatten()
            if not torch.equal(first, other) and not (first.eq(first[0]).all() and other.eq(first[0]).all()):
                raise LoweringError(
                    f"{name}: its inputs have different scales ({float(first[0]):g} and {float(other[0]):g}), so their"
                    " integers do not add; give their activations one key or one fixed step"
                )

    def _product(self, left: Scale, right: Scale, name: str) -> Scale:
        if isinstance(left, Tensor) and left.numel() > 1:
            raise LoweringError(f"{name}: its input has a scale per channel, put a normalisation between")
        return right * left if isinstance(right, Tensor) else left * right

    def _pads(self, position: int, kernel: int, stride: int, padding: Padding = "same") -> ig.Pads:
        _, height, width = self.edges[position].shape
        top, bottom = pads(height, kernel, stride, padding)
        left, right = pads(width, kernel, stride, padding)
        return top, left, bottom, right

    def _quantized(self, quantizer: Quantizer, line: Line, source: int, name: str, scale: Scale) -> None:
        """Thresholds, or a multiplication and a shift, on the integers of a node."""
        edge = self.edges[source]
        levels = _levels(quantizer, name, "activation")
        line = Line(*(each.detach().cpu() for each in line))
        if not all(bool(each.isfinite().all()) for each in line):
            raise LoweringError(
                f"{name}: its gain, offset, statistics or scale are not finite numbers that float32 holds;"
                " the training has diverged"
            )
        signs = np.where(line.multiplier.numpy() < 0, -1, 1).astype(np.int64)
        signs = np.broadcast_to(signs, edge.shape[:1]).copy()
        if len(levels) > 2**self.threshold_bits:
            wide = requantization(quantizer, line, edge)
            if wide is not None:
                self._put(wide, [source], name, scale)
                return
        thresholds = thresholds_on(quantizer, line, signs, edge)
        op = ig.MultiThreshold(thresholds, levels, signs if (signs < 0).any() else None)
        self._put(op, [source], name, scale)


def thresholds_on(quantizer: Quantizer, line: Line, signs: Int, edge: Edge) -> Int:
    """(C, levels - 1) smallest signs * x that reach each level above the lowest, by bisection.

    edge: the integers x. A level that no x reaches has a threshold of one more than the largest signs * x, one that
    every x reaches the smallest.
    """
    assert quantizer.levels is not None
    levels = quantizer.levels.values
    lows, highs = edge.times(signs)
    wanted = torch.tensor(levels[1:], dtype=torch.float32)[None, None, :]
    sign = torch.from_numpy(signs)
    low = torch.from_numpy(lows)[:, None].repeat(1, len(levels) - 1)
    high = torch.from_numpy(highs)[:, None].repeat(1, len(levels) - 1) + 1
    while bool((low < high).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        x = (middle * sign[:, None])[None].to(_exact(edge))
        reached = quantizer.codes(line(x))[0] >= wanted[0]
        high = torch.where(reached, middle, high)
        low = torch.where(reached | (low >= high), low, middle + 1)
    return low.numpy()


def requantization(quantizer: Quantizer, line: Line, edge: Edge) -> ig.Requantize | None:
    """The multiplication and shift equal to `line` and the quantizer for all integers of the edge, or None.

    It rounds halves upward and has no float32 between; that the multiplier of a normalisation gives the same is seen
    to in normalisation.py. Where it does not, as with steps whose ratio is a power of two, thresholds remain.
    """
    assert quantizer.levels is not None
    levels = quantizer.levels
    if levels.values != tuple(range(levels.lowest, levels.highest + 1)):
        return None
    factor, offset, multiplier = (each.numpy() for each in line)
    whole, shift = fixed_point(multiplier)
    addend = offset.astype(np.int64) * whole + (np.int64(1) << (shift - 1))
    whole = factor.astype(np.int64) * whole
    largest = float(max(edge.magnitude, 1))
    if (np.abs(whole.astype(np.float64)) * largest + np.abs(offset.astype(np.float64) * whole) >= 2.0**61).any():
        return None
    form = ig.Requantize(whole, addend, shift, levels.lowest, levels.highest)
    return form if _agree(quantizer, line, form, edge) else None


def _agree(quantizer: Quantizer, line: Line, form: ig.Requantize, edge: Edge) -> bool:
    """Whether `form` computes what the quantizer makes of `line`, for every x of the edge."""
    channels = edge.shape[0]
    thresholds = ig.thresholds_of(form, channels)
    signs = np.broadcast_to(np.where(form.multiplier < 0, -1, 1), (channels,))
    lows, highs = edge.times(signs)
    points = probes(thresholds, lows, highs)
    x = torch.from_numpy(signs[:, None] * points)[None].to(_exact(edge))
    wanted = quantizer.codes(line(x))[0].to(torch.int64).numpy()
    return np.array_equal(counts(thresholds, points) + form.lowest, wanted)


def _exact(edge: Edge) -> torch.dtype:
    """In which the training code holds the integers of an edge."""
    return torch.float64 if edge.magnitude >= EXACT_IN_FLOAT32 else torch.float32


def _levels(quantizer: Quantizer, name: str, what: str) -> tuple[int, ...]:
    if quantizer.levels is None:
        raise LoweringError(
            f"{name}: its {what} is real-valued ({type(quantizer).__name__}), only quantized numbers have an integer"
            " form; give it a precision of 8 bits or less, in the integer wiring"
        )
    return quantizer.levels.values


def _equal(a: ig.Op, b: ig.Op) -> bool:
    """Whether two operations without arrays are the same."""
    return type(a) is type(b) and vars(a) == vars(b)


def _integers(codes: Tensor) -> Int:
    return np.asarray(codes.detach().cpu().round().to(torch.int64).numpy())


def _spread(weight: Int, dilation: int) -> Int:
    """The kernel whose neighbouring taps do what those of `weight` do so many pixels apart: zeros lie between."""
    filters, channels, *kernel = weight.shape
    spread = np.zeros((filters, channels, *(net.extent(k, dilation) for k in kernel)), dtype=weight.dtype)
    spread[:, :, ::dilation, ::dilation] = weight
    return spread


def _described(network: Network, position: int) -> str:
    """A name for a node without a key."""
    return f"{type(network.nodes[position].op).__name__.lower()}{position}"
