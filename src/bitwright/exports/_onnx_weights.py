"""ONNX of a network that computes with real numbers: float32 activations, quantized weights packed.

A weight of k bits takes k bits in the file: plane p of a tensor holds bit p of every weight's code, eight weights to a
byte. Standard operators behind the planes make float32 codes of them; they read constants only, so ONNX Runtime runs
them once, when it loads the model. What takes 8 or 16 bits is stored as it is, real weights are float32.

The operators follow modules.py: codes are multiplied, scales come last, and where the codes are integers that float32
holds, so are the model's. Everything else is equal but for the rounding of float32.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ExportError
from ..files import write_atomically
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
from ..network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    DropPath,
    Flatten,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    PadChannels,
    Padding,
    Shift2d,
    Shuffle,
    Slice,
    SumPool2d,
    pads,
)
from ..quantizers import Levels, Quantizer, Scale
from ..quantizers.binary import Binary
from ..quantizers.clipped import Clipped
from ..quantizers.fixed_point import FixedPoint
from ..quantizers.quantized_relu import QuantizedRelu
from ..quantizers.real import Real
from ..quantizers.relu import Relu
from ..quantizers.ternary import Ternary
from ..quantizers.uniform import Uniform
from .onnx import IR_VERSION, OPSET, RUN_AT_ONCE, library, session

WHOLE: dict[int, Any] = {8: np.uint8, 16: np.uint16}  # bits of a code for which there is a type


@torch.no_grad()
def export(network: Network, weights: Weights, path: Path) -> list[str]:
    """Writes `network` as it is evaluated as ONNX at `path`; lines about it.

    The model takes uint8 images, (N, *input shape), and gives float32 logits, (N, classes), for any N. ExportError
    names the layer that has no form in ONNX's operators.
    """
    writer = _Writer(network.trunk, weights)
    model = writer.model()
    data = model.SerializeToString()
    if len(data) >= 2**31:
        raise ExportError(f"the model takes {len(data)} bytes, and ONNX files hold less than 2 GiB")
    library().checker.check_model(model)
    write_atomically(path, lambda file: file.write(data))
    operators = Counter(node.op_type for node in model.graph.node)
    listed = ", ".join(f"{count} {name}" for name, count in operators.most_common())
    return [f"{len(data):,} bytes, ONNX opset {OPSET}: {listed}", *writer.stored_lines(), *writer.lines]


def execute(path: Path, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits of the model at `path` for x: (N, *input shape), in ONNX Runtime on one thread."""
    running = session(path)
    (given,) = running.get_inputs()
    if list(x.shape[1:]) != given.shape[1:]:
        raise ExportError(f"{path} takes inputs of {tuple(given.shape[1:])}, got {x.shape[1:]}")
    count = max(1, RUN_AT_ONCE // math.prod(x.shape[1:]))
    return np.concatenate([running.run(None, {given.name: x[i : i + count]})[0] for i in range(0, len(x), count)])


class _Value(NamedTuple):
    """A float32 tensor of codes, by name, and the scale that makes them real numbers."""

    codes: str
    scale: Scale


class _Stored(NamedTuple):
    """Weights in the file: the bits of each, how many there are, and the bytes that they take."""

    bits: int
    number: int
    size: int


class _Writer:
    def __init__(self, network: Network, weights: Weights) -> None:
        self.onnx = library()
        self.network, self.weights = network, weights
        self.lines: list[str] = []
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}  # constants by name
        self.names: dict[tuple[str, tuple[int, ...], bytes], str] = {}  # of constants by their content
        self.unpacked: dict[tuple[str, tuple[int, ...], Levels], str] = {}
        self.joined: dict[tuple[int, ...], _Value] = {}
        self.stored: dict[str, _Stored] = {}  # by the name of the constant
        self.values: list[_Value] = []
        self.at = 0

    def model(self) -> Any:
        network, helper, kinds = self.network, self.onnx.helper, self.onnx.TensorProto
        for position in range(len(network.nodes)):
            self.at = position
            self.values.append(self._value(position))
        self.nodes.append(helper.make_node("Identity", [self.real(self.values[-1])], ["output"], name="output"))
        written = helper.make_graph(
            self.nodes,
            "bitwright",
            [helper.make_tensor_value_info("input", kinds.UINT8, ["N", *network.shapes[0]])],
            [helper.make_tensor_value_info("output", kinds.FLOAT, ["N", *network.shapes[-1]])],
            list(self.tensors.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(written, opset_imports=[opset], ir_version=IR_VERSION, producer_name="bitwright")

    def stored_lines(self) -> list[str]:
        """What the weights take, and what is not quantized."""
        lines = []
        for bits in sorted({each.bits for each in self.stored.values()}):
            same = [each for each in self.stored.values() if each.bits == bits]
            number, size = sum(each.number for each in same), sum(each.size for each in same)
            unit = "bit" if bits == 1 else "bits"
            lines.append(f"{number:,} weights of {bits} {unit} make {number * bits:,} bits, stored in {size:,} bytes")
        return [*lines, "activations stay float32"]

    # tensors

    @property
    def label(self) -> str:
        """The present node, for people."""
        node = self.network.nodes[self.at]
        return node.key or f"node {self.at} ({type(node.op).__name__})"

    def constant(self, values: Any, kind: Any = np.float32, name: str = "") -> str:
        """The name of a constant; equal ones are stored once, under the first name."""
        array = np.array(_array(values), dtype=kind, order="C")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ExportError(f"{self.label}: its tensors hold numbers that are not finite; the training has diverged")
        content = (array.dtype.str, array.shape, hashlib.blake2b(array.tobytes()).digest())
        if content not in self.names:
            free = name or f"c{len(self.tensors)}"
            while free in self.tensors:
                free += "'"
            self.names[content] = free
            self.tensors[free] = self.onnx.numpy_helper.from_array(array, free)
        return self.names[content]

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"t{self.at}_{len(self.nodes)}"
        key = self.network.nodes[self.at].key
        name = f"{self.at}{'_' + key if key else ''}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def cast(self, tensor: str) -> str:
        return self.node("Cast", [tensor], to=int(self.onnx.TensorProto.FLOAT))

    def times(self, tensor: str, factor: Scale) -> str:
        if isinstance(factor, float) and factor == 1.0:
            return tensor
        return self.node("Mul", [tensor, self.constant(factor)])

    def real(self, value: _Value) -> str:
        return self.times(value.codes, value.scale)

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [tensor, self.constant(shape, np.int64)])

    def slice(self, tensor: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        return self.node("Slice", [tensor, *(self.constant(each, np.int64) for each in (starts, ends, axes))])

    def clip(self, tensor: str, low: float, high: float) -> str:
        return self.node("Clip", [tensor, self.constant(low), self.constant(high)])

    def by_channel(self, values: Any) -> str:
        """One number per channel of the present node, or one for all."""
        return self.constant(np.reshape(_array(values), (1, -1, *[1] * (len(self.network.shapes[self.at]) - 1))))

    # values

    def _value(self, position: int) -> _Value:
        network = self.network
        node = network.nodes[position]
        inputs = [self.values[i] for i in node.inputs]
        match node.op:
            case Input() as op:
                return self._input(op)
            case Conv2d(stride=stride, padding=padding, groups=groups) as op:
                a = self._of_one_scale(self._join(node.inputs))
                return self._convolution(a, op.extent, stride, padding, op.dilation, groups)
            case DepthwiseConv2d(stride=stride, padding=padding) as op:
                return self._convolution(
                    inputs[0], op.extent, stride, padding, op.dilation, network.shapes[position][0]
                )
            case Linear(bias=bias):
                a = self._of_one_scale(self._join(node.inputs))
                weight, scale = self._weight()
                product = a.scale * scale
                added = [self.constant(bias_units(network, position, self.weights, product))] if bias else []
                return _Value(self.node("Gemm", [a.codes, weight, *added], transB=1), product)
            case BatchNorm() as op:
                return self._batch_norm(op, inputs[0])
            case Activation(quantizer=quantizer):
                return self._activation(quantizer, inputs[0])
            case MaxPool2d(kernel=kernel, stride=stride):
                return self._pool("MaxPool", inputs[0], kernel, stride, "same")
            case AveragePool2d(kernel=kernel, stride=stride, padding=border):
                return self._pool("AveragePool", inputs[0], kernel, stride, border)
            case SumPool2d(kernel=kernel, stride=stride):
                return self._sum_pool(inputs[0], kernel, stride)
            case GlobalSumPool() as op:
                return self._global_sum_pool(op, inputs[0])
            case Flatten():
                a = self._of_one_scale(inputs[0])
                scale = a.scale if isinstance(a.scale, float) else a.scale.flatten()
                return _Value(self.node("Flatten", [a.codes], axis=1), scale)
            case Add() as op:
                return self._add(op, *inputs)
            case Concat():
                return self._join(node.inputs)
            case Slice(channels=channels, start=start):
                codes = self.slice(inputs[0].codes, [start], [start + channels], [1])
                return _Value(codes, sliced_scale(inputs[0].scale, start, channels))
            case PadChannels(channels=channels):
                a = self._of_one_scale(inputs[0])
                shape = network.shapes[node.inputs[0]]
                behind = [0, channels - shape[0], *[0] * (len(shape) - 1)]
                return _Value(self._padded(a.codes, behind), a.scale)
            case Shuffle(groups=groups):
                return self._shuffle(inputs[0], groups)
            case Shift2d():
                _, height, width = network.shapes[position]
                moved = self.slice(inputs[0].codes, [1, 1], [height, width], [2, 3])
                return _Value(self._padded(moved, [0, 0, 1, 1]), inputs[0].scale)
            case DropPath() | Dropout():
                return inputs[0]
            case _:
                assert_never(node.op)

    def _input(self, op: Input) -> _Value:
        pixels = self.cast("input")
        if any(op.offset):
            pixels = self.node("Sub", [pixels, self.by_channel(op.offset)])
        if op.is_integer:
            return _Value(pixels, op.scale[0])
        return _Value(self.node("Mul", [pixels, self.by_channel(op.scale)]), 1.0)

    def _join(self, positions: tuple[int, ...]) -> _Value:
        """Values side by side along the channels."""
        values = [self.values[i] for i in positions]
        if len(values) == 1:
            return values[0]
        if positions not in self.joined:
            same = all(_same(values[0].scale, each.scale) for each in values[1:])
            parts = [each.codes if same else self.real(each) for each in values]
            self.joined[positions] = _Value(self.node("Concat", parts, axis=1), values[0].scale if same else 1.0)
        return self.joined[positions]

    def _of_one_scale(self, value: _Value) -> _Value:
        """Reals where every channel has its own scale."""
        return value if _scalar(value.scale) else _Value(self.real(value), 1.0)

    def _border(self, kernel: int, stride: int, padding: Padding) -> list[int]:
        """top, left, bottom, right"""
        _, height, width = self.network.shapes[self.network.nodes[self.at].inputs[0]]
        rows, columns = pads(height, kernel, stride, padding), pads(width, kernel, stride, padding)
        return [rows[0], columns[0], rows[1], columns[1]]

    def _padded(self, tensor: str, behind: Sequence[int]) -> str:
        """So many zeros behind the last element of each axis."""
        return self.node("Pad", [tensor, self.constant([*[0] * len(behind), *behind], np.int64)])

    def _convolution(self, a: _Value, extent: int, stride: int, padding: Padding, dilation: int, groups: int) -> _Value:
        weight, scale = self._weight()
        codes = self.node(
            "Conv",
            [a.codes, weight],
            strides=[stride] * 2,
            pads=self._border(extent, stride, padding),
            dilations=[dilation] * 2,
            group=groups,
        )
        return _Value(codes, a.scale * scale)

    def _batch_norm(self, op: BatchNorm, a: _Value) -> _Value:
        node, quantizer, weights = self.network.nodes[self.at], op.activation, self.weights
        statistics = weights.statistics(node.key)
        if statistics is None:
            raise ExportError(f"{self.label}: shared weights keep no running statistics; train the network first")
        line = normalisation_line(self.network, self.at, weights, a.scale)
        if line is not None:
            self._note_rounding()
            scaled = bool((line.factor != 1).any())
            codes = self.node("Mul", [a.codes, self.by_channel(line.factor)]) if scaled else a.codes
            # not Add: runtimes fold Conv, Mul, Add and Mul into weights that are no integers, and sums would round
            codes = self.node("Sub", [codes, self.by_channel(-line.offset)])
            codes = self.node("Mul", [codes, self.by_channel(line.multiplier)])
            return _Value(self._quantized(quantizer, codes), deployed_scale(node, weights))
        step = 1.0 if quantizer.levels is None else deployed_scale(node, weights)
        gain, offset = weights[f"{node.key}/gain"], weights[f"{node.key}/offset"]
        if isinstance(step, float):
            gain, offset = gain / step, offset / step
        tensors = [self.constant(each) for each in (gain, offset, *statistics)]
        x = self.real(a) if op.real else a.codes
        normal = self.node("BatchNormalization", [x, *tensors], epsilon=op.epsilon)
        if isinstance(step, Tensor):
            normal = self.node("Div", [normal, self.constant(step)])
        return _Value(self._quantized(quantizer, normal), step)

    def _activation(self, quantizer: Quantizer, a: _Value) -> _Value:
        node = self.network.nodes[self.at]
        if quantizer.levels is None:
            return _Value(self._quantized(quantizer, self.real(a)), 1.0)
        step = deployed_scale(node, self.weights)
        if self.network.ranges[node.inputs[0]] is not None and _scalar(a.scale):
            self._note_rounding()
            # integers already; the rounding keeps runtimes from folding the factor into the weights of a convolution
            units = self.node("Mul", [self.node("Round", [a.codes]), self.constant(units_per_code(a.scale, step))])
        elif isinstance(step, float) and isinstance(a.scale, float):
            units = self.times(a.codes, a.scale / step)
        else:
            units = self.node("Div", [self.real(a), self.constant(step)])
        return _Value(self._quantized(quantizer, units), step)

    def _note_rounding(self) -> None:
        """Says so where an activation is rounded from sums that float32 does not hold."""
        read = self.network.ranges[self.network.nodes[self.at].inputs[0]]
        if read is not None and read.magnitude >= EXACT_IN_FLOAT32:
            self.lines.append(
                f"{self.label}: the sums it reads can pass 2**24, where float32 rounds them;"
                " one that lies on the boundary of two codes may become the other"
            )

    def _quantized(self, quantizer: Quantizer, x: str) -> str:
        """The codes of real numbers that are divided by their scale."""
        match quantizer:
            case Real():
                return x
            case Relu():
                return self.node("Relu", [x])
            case Clipped(low=low, high=high):
                return self.clip(x, low, high)
            case Binary(sample=None):
                positive = self.node("GreaterOrEqual", [x, self.constant(0.0)])
                return self.node("Where", [positive, self.constant(1.0), self.constant(-1.0)])
            case Ternary():
                above = self.cast(self.node("Greater", [x, self.constant(0.5)]))
                return self.node("Sub", [above, self.cast(self.node("LessOrEqual", [x, self.constant(-0.5)]))])
            case FixedPoint() | QuantizedRelu() | Uniform():
                return self.clip(self.node("Round", [x]), quantizer.levels.lowest, quantizer.levels.highest)
            case _:
                raise ExportError(f"{self.label}: activations of {quantizer} have no form in ONNX's operators")

    def _pool(self, operator: str, a: _Value, kernel: int, stride: int, padding: str) -> _Value:
        border = [0] * 4 if padding == "valid" else self._border(kernel, stride, "same")
        codes = self.node(operator, [a.codes], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=border)
        return _Value(codes, a.scale)

    def _sum_pool(self, a: _Value, kernel: int, stride: int) -> _Value:
        """A convolution with ones, whose sums of integers are integers; a mean's would not be."""
        channels = self.network.shapes[self.at][0]
        one = self.onnx.numpy_helper.from_array(np.ones(1, np.float32))
        shape = self.constant([channels, 1, kernel, kernel], np.int64)
        codes = self.node(
            "Conv",
            [a.codes, self.node("ConstantOfShape", [shape], value=one)],
            strides=[stride] * 2,
            pads=self._border(kernel, stride, "same"),
            group=channels,
        )
        return _Value(codes, a.scale * (1 / kernel**2))

    def _global_sum_pool(self, op: GlobalSumPool, a: _Value) -> _Value:
        image = self.network.shapes[self.network.nodes[self.at].inputs[0]][1:]
        total = self.node("ReduceSum", [a.codes, self.constant([2, 3], np.int64)], keepdims=0)
        if op.shift:
            total = self.node("Floor", [self.times(total, 2.0**-op.shift)])
        per_map = a.scale if _scalar(a.scale) else torch.as_tensor(a.scale).flatten(1)
        return _Value(total, per_map * pooled_scale(op, image))

    def _add(self, op: Add, left: _Value, right: _Value) -> _Value:
        if not _same(left.scale, right.scale):
            left, right = (_Value(self.real(each), 1.0) for each in (left, right))
        codes = self.node("Add", [left.codes, right.codes])
        if op.saturate is not None:
            codes = self.clip(codes, op.saturate.lowest, op.saturate.highest)
        return _Value(codes, added_scale(op, left.scale))

    def _shuffle(self, a: _Value, groups: int) -> _Value:
        channels, *image = self.network.shapes[self.at]
        parted = self.reshape(a.codes, [0, groups, channels // groups, *image])
        axes = [0, 2, 1, *range(3, 3 + len(image))]
        codes = self.reshape(self.node("Transpose", [parted], perm=axes), [0, channels, *image])
        scale = a.scale
        if not _scalar(scale):
            scale = torch.as_tensor(scale)
            scale = scale.reshape(groups, channels // groups).T.reshape(scale.shape)
        return _Value(codes, scale)

    # weights

    def _weight(self) -> tuple[str, Scale]:
        """The codes of the present node's weights in float32, and their scale."""
        op = self.network.nodes[self.at].op
        assert isinstance(op, Conv2d | DepthwiseConv2d | Linear)
        codes, scale = weight_codes(self.network, self.at, self.weights)
        levels = op.weight.levels
        if levels is None or not bool(codes.isfinite().all()):
            return self._stored(codes, np.float32, 32, codes.numel()), scale
        places = np.searchsorted(levels.values, _array(codes).ravel())
        return self._unpacked(places, tuple(codes.shape), levels), scale

    def _stored(self, values: Any, kind: Any, bits: int, count: int) -> str:
        name = self.constant(values, kind, f"{self.network.nodes[self.at].key}/weight")
        self.stored[name] = _Stored(bits, count, len(self.tensors[name].raw_data))
        return name

    def _unpacked(self, places: NDArray[np.intp], shape: tuple[int, ...], levels: Levels) -> str:
        """Float32 codes of that shape, of which levels.values[places] are stored in as many bits as levels have.

        At least one level is left, so that a code is a level's place: the lowest one's and as many steps.
        """
        bits, count = levels.bits, len(places)
        whole = WHOLE.get(bits)
        if whole is not None:
            stored = self._stored(places, whole, bits, count)
        else:
            planes = [np.packbits(places >> plane & 1, bitorder="little") for plane in range(bits)]
            stored = self._stored(np.stack(planes)[:, :, None], np.uint8, bits, count)
        if (stored, shape, levels) not in self.unpacked:
            found = self.cast(stored) if whole is not None else self._from_planes(stored, bits, count)
            self.unpacked[stored, shape, levels] = self._levels(self.reshape(found, shape), levels)
        return self.unpacked[stored, shape, levels]

    def _from_planes(self, planes: str, bits: int, count: int) -> str:
        """Places of levels in float32, (count,), from uint8 planes: (bits, bytes, 1)."""
        shifted = self.node("BitShift", [planes, self.constant(range(8), np.uint8)], direction="RIGHT")
        single = self.cast(self.node("Mod", [shifted, self.constant(2, np.uint8)]))
        worth = self.constant(2.0 ** np.arange(bits).reshape(-1, 1, 1))
        summed = self.node("ReduceSum", [self.node("Mul", [single, worth]), self.constant([0], np.int64)], keepdims=0)
        return self.slice(self.reshape(summed, [-1]), [0], [count], [0])

    def _levels(self, places: str, levels: Levels) -> str:
        """The codes at these places of the levels."""
        steps = set(np.diff(levels.values).tolist())
        if len(steps) > 1:
            kind = int(self.onnx.TensorProto.INT32)
            return self.node("Gather", [self.constant(levels.values), self.node("Cast", [places], to=kind)])
        scaled = self.times(places, float(steps.pop())) if steps else places
        return self.node("Add", [scaled, self.constant(levels.lowest)]) if levels.lowest else scaled


def _array(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _scalar(scale: Scale) -> bool:
    return isinstance(scale, float) or scale.numel() == 1


def _same(a: Scale, b: Scale) -> bool:
    """Whether values of these scales can be added or put side by side as they are."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return isinstance(a, float) and isinstance(b, float) and a == b
