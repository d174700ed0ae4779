"""Executing an integer graph in PyTorch: the definition of every operation.

Sums run in floating point, where they are exact: in float32 while every partial sum stays below 2**24, else in
float64. On CUDA they always run in float64 and are rounded, because a convolution may be computed there by a
transform that is not exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidGraph
from ..modules import EXACT_IN_FLOAT32
from .graph import (
    Add,
    Argmax,
    Concat,
    Conv,
    Edge,
    Flatten,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Pad,
    Requantize,
    Slice,
    SumPool,
)

LARGEST_TABLE = 2**22  # entries of a table of all values of an activation


class Executor:
    """A graph with its constants on one device.

    >>> logits = Executor(graph)(images)   # images: (N, C, H, W) integers of any dtype; logits: (N, classes) int64
    """

    def __init__(self, graph: IntegerGraph, device: torch.device | str = "cpu") -> None:
        self.graph = graph
        self.device = torch.device(device)
        self._dtypes = [self._dtype(position) for position in range(len(graph.nodes))]
        self._constants = [self._constant(position) for position in range(len(graph.nodes))]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The output for x: (N, *input shape), integers inside the input's range, as int64."""
        for _, value in self.steps(x):
            output = value
        return output.to(torch.int64)

    @torch.no_grad()
    def values(self, x: Tensor) -> list[Tensor]:
        """The value of every node, int64."""
        return [value.to(torch.int64) for _, value in self.steps(x)]

    @torch.no_grad()
    def steps(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Position and value of each node in order; values are integers in a floating-point tensor."""
        graph = self.graph
        if tuple(x.shape[1:]) != graph.input.shape:
            raise InvalidGraph(f"the graph takes inputs of {graph.input.shape}, got {tuple(x.shape[1:])}")
        x = x.to(self.device)
        if x.is_floating_point() and not bool(((x == x.round()) & x.isfinite()).all()):
            raise InvalidGraph("inputs are integers, got fractions or no numbers at all")
        if x.numel() and (int(x.min()) < graph.input.lowest or int(x.max()) > graph.input.highest):
            raise InvalidGraph(
                f"inputs are integers from {graph.input.lowest} to {graph.input.highest},"
                f" got {int(x.min())} to {int(x.max())}"
            )
        values: dict[int, Tensor] = {}
        for position, node in enumerate(graph.nodes):
            value = self._step(position, x, [values[i] for i in node.inputs])
            yield position, value
            values[position] = value
            for i in {*node.inputs, position}:
                if graph.last_use[i] <= position:
                    values.pop(i, None)

    def _step(self, position: int, x: Tensor, inputs: list[Tensor]) -> Tensor:
        op = self.graph.nodes[position].op
        dtype, constants = self._dtypes[position], self._constants[position]
        match op:
            case Input(zero_point=zero):
                channels_last = torch.channels_last if x.dim() == 4 else torch.contiguous_format
                return (x.to(torch.int64) - zero if zero else x).to(dtype, memory_format=channels_last)
            case Conv(stride=stride, pads=pads, groups=groups):
                padded = _padded(inputs[0].to(dtype), pads)
                if stride[0] != stride[1]:  # oneDNN leaves rows unwritten where such an image is channels-last
                    padded = padded.clone(memory_format=torch.contiguous_format)
                return self._whole(F.conv2d(padded, constants[0], constants[1], stride, 0, 1, groups))
            case MatMul():
                return self._whole(F.linear(inputs[0].to(dtype), constants[0], constants[1]))
            case MultiThreshold():
                return self._threshold(inputs[0], constants).to(dtype)
            case Requantize(lowest=lowest, highest=highest):
                multiplier, addend, shift = constants
                wide = inputs[0].to(torch.int64).mul_(multiplier).add_(addend)
                return torch.bitwise_right_shift(wide, shift).clamp_(lowest, highest).to(dtype)
            case Add(lowest=lowest, highest=highest):
                total = inputs[0].to(dtype) + inputs[1].to(dtype)
                return total if lowest is None else total.clamp_(lowest, highest)
            case Concat():
                return torch.cat([each.to(dtype) for each in inputs], dim=1)
            case Slice(channels=channels):
                return inputs[0][:, :channels].to(dtype)
            case MaxPool(kernel=kernel, stride=stride, pads=pads):
                padded = _padded(inputs[0], pads, -torch.inf)
                return F.max_pool2d(padded, kernel, stride).to(dtype)
            case SumPool(kernel=kernel, stride=stride, pads=pads, shift=shift):
                padded = _padded(inputs[0].to(dtype), pads)
                total = self._whole(F.avg_pool2d(padded, kernel, stride, divisor_override=1))
                return _shifted(total, shift)
            case GlobalSumPool(shift=shift):
                return _shifted(inputs[0].to(dtype).sum((2, 3)), shift)
            case Pad(pads=pads):
                return _padded(inputs[0].to(dtype), pads)
            case Flatten():
                return inputs[0].to(dtype).contiguous().flatten(1)
            case Argmax():
                # torch does not say which of equal elements it finds
                return (inputs[0] == inputs[0].amax(1, keepdim=True)).to(torch.int8).argmax(1, keepdim=True).to(dtype)
            case _:
                assert_never(op)

    def _dtype(self, position: int) -> torch.dtype:
        """That holds every partial sum of a node exactly."""
        if self.device.type == "cuda" or self.graph.partial_sums(position) >= EXACT_IN_FLOAT32:
            return torch.float64
        return torch.float32

    def _whole(self, sums: Tensor) -> Tensor:
        return sums.round_() if self.device.type == "cuda" else sums

    def _threshold(self, x: Tensor, constants: tuple[Tensor, ...]) -> Tensor:
        channelwise = (1, -1, *[1] * (x.dim() - 2))
        if len(constants) == 2:
            table, start = constants
            # in the order of channels-last memory, which everything behind the input has
            index = (x + start.reshape(channelwise)).to(torch.int32).movedim(1, -1)
            return table.index_select(0, index.reshape(-1)).reshape(index.shape).movedim(-1, 1)
        signs, thresholds, levels = constants
        signed = x.double() * signs.reshape(channelwise)
        flat = signed.transpose(0, 1).reshape(x.shape[1], -1)
        reached = torch.searchsorted(thresholds, flat.contiguous(), right=True)
        return levels[reached].reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)

    def _constant(self, position: int) -> tuple[Tensor, ...]:
        """What a node needs beside its inputs, as tensors of the right type and shape."""
        graph = self.graph
        node = graph.nodes[position]
        dtype = self._dtypes[position]
        match node.op:
            case Conv(weight=weight, bias=bias) | MatMul(weight=weight, bias=bias):
                biases = np.zeros(len(weight), dtype=np.int64) if bias is None else bias
                return self._tensor(weight).to(dtype), self._tensor(biases).to(dtype)
            case Requantize(multiplier=multiplier, addend=addend, shift=shift):
                shape = (1, -1, *[1] * (len(graph.edges[position].shape) - 1))
                return tuple(self._tensor(v).reshape(shape) for v in (multiplier, addend, shift))
            case MultiThreshold() as op:
                return self._threshold_constants(op, position)
            case _:
                return ()

    def _threshold_constants(self, op: MultiThreshold, position: int) -> tuple[Tensor, ...]:
        """(table of levels for every value of every channel, where each channel's part starts), or if that were too
        large (signs, thresholds, levels)."""
        x = self.graph.edges[self.graph.nodes[position].inputs[0]]
        widths = x.highs - x.lows + 1
        if int(widths.sum()) > min(LARGEST_TABLE, EXACT_IN_FLOAT32 // 2):
            thresholds, signs = op.by_channel(x.shape[0])
            return tuple(self._tensor(v).double() for v in (signs, thresholds, np.array(op.levels, dtype=np.int64)))
        starts = np.concatenate([[0], np.cumsum(widths)[:-1]]) - x.lows
        far = int(np.abs(starts).max()) + len(starts) * int(widths.max()) >= EXACT_IN_FLOAT32
        table = self._tensor(np.concatenate(tabulated(op, x))).to(self._dtypes[position])
        return table, self._tensor(starts).to(torch.float64 if far else torch.float32)

    def _tensor(self, values: Int) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.int64, order="C")).to(self.device)


def tabulated(op: MultiThreshold | Requantize, x: Edge) -> list[Int]:
    """For every channel what `op` makes of all the values of x, lowest first."""
    channels = x.shape[0]
    values = [np.arange(low, high + 1) for low, high in zip(x.lows, x.highs, strict=True)]
    if isinstance(op, Requantize):
        rows = np.broadcast_arrays(op.multiplier, op.addend, op.shift, np.empty(channels))[:3]
        return [np.clip((v * m + a) >> s, op.lowest, op.highest) for v, m, a, s in zip(values, *rows, strict=True)]
    levels = np.array(op.levels, dtype=np.int64)
    thresholds, signs = op.by_channel(channels)
    return [
        levels[np.searchsorted(row, sign * v, side="right")]
        for v, row, sign in zip(values, thresholds, signs, strict=True)
    ]


def _padded(x: Tensor, pads: tuple[int, int, int, int], value: float = 0.0) -> Tensor:
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def _shifted(x: Tensor, shift: int) -> Tensor:
    return x if shift == 0 else torch.floor(x / 2**shift)
