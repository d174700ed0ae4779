"""ONNX with standard operators and integer tensors only, for ONNX Runtime and whatever else runs QLinearConv.

A convolution, matrix product or pool and the thresholds after it become one QLinearConv: its scales are 1 except the
weights', which hold one float32 multiplier per channel, and its bias is an integer offset. ONNX Runtime computes
saturate(rint(float32(sum + bias) * multiplier) + zero point) in exactly that order, and integer/linear.py finds the
multipliers and offsets with which this equals counting thresholds. No activation is ever a floating-point tensor.

What has no such line runs in slower integer operators: a table of all inputs (Gather), multiply and divide in 64 bits,
or comparisons. Values with at most 256 different ones are uint8 with a zero point, others int32.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError
from ..files import write_atomically
from ..integer.graph import (
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
    Pads,
    Pair,
    Requantize,
    Slice,
    SumPool,
)
from ..integer.linear import shift_form
from ..integer.run import tabulated
from ._qlinear import Line, Quantization, input_kind, reachable

OPSET = 17
IR_VERSION = 9
LARGEST_TABLE = 2**20  # entries of a table that replaces thresholds
MOST_COMPARISONS = 1024  # thresholds of one activation that are written as comparisons
LARGEST_MATRIX = 2**26  # elements of the weights of a convolution that is written as a matrix product
SMALL_PRODUCT = 2**16  # weights of a matrix product that may as well run in int32

RUN_AT_ONCE = 2**23  # input numbers
METADATA = "bitwright"


def export(graph: IntegerGraph, path: Path) -> list[str]:
    """Writes `graph` as ONNX at `path`; lines about it. ExportError if a node has no integer form in ONNX."""
    onnx = library()
    writer = _Writer(graph)
    model = writer.model()
    data = model.SerializeToString()
    if len(data) >= 2**31:
        raise ExportError(f"the model takes {len(data)} bytes, and ONNX files hold less than 2 GiB")
    onnx.checker.check_model(model)
    write_atomically(path, lambda file: file.write(data))
    operators = Counter(node.op_type for node in model.graph.node)
    listed = ", ".join(f"{count} {name}" for name, count in operators.most_common())
    return [f"{len(data):,} bytes, ONNX opset {OPSET}: {listed or 'nothing'}", *writer.lines]


def execute(path: Path, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The output of the model at `path` for x: (N, *input shape), in ONNX Runtime on one thread."""
    running = session(path)
    (given,) = running.get_inputs()
    kinds: dict[str, Any] = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int32)": np.int32}
    kind = kinds.get(given.type)
    if kind is None:
        raise ExportError(f"{path}: its input is a {given.type}, not a tensor of integers")
    if list(x.shape[1:]) != given.shape[1:]:
        raise ExportError(f"{path} takes inputs of {tuple(given.shape[1:])}, got {x.shape[1:]}")
    limits = np.iinfo(kind)
    if x.size and (x.min() < limits.min or x.max() > limits.max):
        raise ExportError(f"{path}: takes {given.type}, got {x.min()} to {x.max()}")
    count = max(1, RUN_AT_ONCE // math.prod(x.shape[1:]))
    parts = [running.run(None, {given.name: x[i : i + count].astype(kind)})[0] for i in range(0, len(x), count)]
    return np.concatenate(parts).astype(np.int64)


def session(path: Path) -> Any:
    """An InferenceSession of ONNX Runtime for the model at `path`, on one thread of the processor."""
    try:
        import onnxruntime
    except ImportError:
        raise ExportError("running ONNX needs onnxruntime: pip install bitwright[onnx]") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def library() -> Any:
    """The package onnx."""
    try:
        import onnx
    except ImportError:
        raise ExportError("exporting to ONNX needs onnx: pip install bitwright[onnx]") from None
    return onnx


class _Writer:
    def __init__(self, graph: IntegerGraph) -> None:
        self.onnx = library()
        self.graph = graph
        self.quantization = Quantization(graph)
        self.zeros = self.quantization.zeros
        self.lines: list[str] = []
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], tuple[str, Any]] = {}
        self.bytes_of: dict[int, str] = {}  # tensors of uint8, zero point included
        self.words_of: dict[int, str] = {}  # tensors of int32
        self.at = 0

    def model(self) -> Any:
        graph = self.graph
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        lines = self._lines_of_activations()
        for position in self._needed(lines):
            self.at = position
            line = lines.get(position)
            if line is not None:
                self._write_line(position, line)
            else:
                self._write(position)
        last = len(graph.nodes) - 1
        result = self.words(last)
        self.nodes.append(helper.make_node("Identity", [result], ["output"], name="output"))
        kind = {np.uint8: kinds.UINT8, np.int8: kinds.INT8, np.int32: kinds.INT32}[input_kind(graph.input)]
        written = helper.make_graph(
            self.nodes,
            "bitwright",
            [helper.make_tensor_value_info("input", kind, ["N", *graph.input.shape])],
            [helper.make_tensor_value_info("output", kinds.INT32, ["N", *graph.output.shape])],
            [tensor for _, tensor in self.constants.values()],
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(written, opset_imports=[opset], ir_version=IR_VERSION, producer_name="bitwright")
        op = graph.input
        about = {"input": [op.lowest, op.highest, op.zero_point], "scales": list(graph.scales)}
        helper.set_model_props(model, {METADATA: json.dumps(about)})
        return model

    # tensors

    def constant(self, values: Any, kind: Any) -> str:
        array = np.array(values, dtype=kind, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"c{len(self.constants)}"
            self.constants[key] = (name, self.onnx.numpy_helper.from_array(array, name))
        return self.constants[key][0]

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"t{self.at}_{len(self.nodes)}"
        layer = self.graph.nodes[self.at].name
        name = f"{self.at}{'_' + layer if layer else ''}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def cast(self, tensor: str, kind: Any) -> str:
        return self.node("Cast", [tensor], to=int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))))

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [tensor, self.constant(shape, np.int64)])

    def bytes(self, position: int) -> str:
        """A value as uint8, `zero(position)` added."""
        if position not in self.bytes_of:
            self.bytes_of[position] = self._to_bytes(self.words_of[position], self.quantization.zero(position))
        return self.bytes_of[position]

    def words(self, position: int) -> str:
        """A value as int32."""
        if position not in self.words_of:
            tensor = self.cast(self.bytes_of[position], np.int32)
            zero = self.quantization.zero(position)
            self.words_of[position] = self.node("Sub", [tensor, self.constant(zero, np.int32)]) if zero else tensor
        return self.words_of[position]

    def _to_bytes(self, words: str, zero: int) -> str:
        return self.cast(self.node("Add", [words, self.constant(zero, np.int32)]) if zero else words, np.uint8)

    def by_channel(self, values: Int, edge: Edge, kind: Any) -> str:
        return self.constant(np.reshape(values, (-1, *[1] * (len(edge.shape) - 1))), kind)

    # activations as lines

    def _lines_of_activations(self) -> dict[int, Line]:
        lines = {}
        for position in range(len(self.graph.nodes)):
            line = self.quantization.line(position)
            if line is not None:
                lines[position] = line
        return lines

    def _needed(self, lines: dict[int, Line]) -> list[int]:
        """Nodes that something reads, in order; a sum only read by lines is not."""
        graph = self.graph
        needed = {0, len(graph.nodes) - 1}
        for position in reversed(range(len(graph.nodes))):
            if position in needed:
                line = lines.get(position)
                needed.update(graph.nodes[position].inputs if line is None else (line.sums.source,))
        return sorted(needed)

    def _write_line(self, position: int, line: Line) -> None:
        graph = self.graph
        sums = line.sums
        edge = graph.edges[position]
        channelwise = line.signs[:, None, None, None] * line.factor
        weight, offset, multiplier = sums.weight * channelwise, line.offset, line.multiplier
        bias = np.zeros(len(weight), dtype=np.int64) if sums.bias is None else sums.bias * line.signs * line.factor
        bias = bias + offset
        # -128 has no opposite in 8 bits: there the multiplier takes the sign instead
        full = (weight > 127).any(axis=(1, 2, 3))
        weight[full], bias[full] = -weight[full], -bias[full]
        multiplier = np.where(full, -multiplier, multiplier)
        self._note_saturation(position, weight, sums.source)
        x = self.bytes(sums.source)
        flat = len(graph.edges[sums.source].shape) == 1
        product = flat and isinstance(graph.nodes[graph.nodes[position].inputs[0]].op, MatMul)
        if product and sums.groups == 1:
            # images are the pixels of one picture, which makes the whole batch one matrix product
            x = self.reshape(self.node("Transpose", [x], perm=[1, 0]), (1, weight.shape[1], -1, 1))
        elif flat:
            x = self.reshape(x, (0, graph.edges[sums.source].shape[0], 1, 1))
        one = self.constant(1.0, np.float32)
        y = self.node(
            "QLinearConv",
            [
                x,
                one,
                self.constant(self.quantization.zero(sums.source), np.uint8),
                self.constant(weight, np.int8),
                self.constant(multiplier, np.float32),
                self.constant(0, np.int8),
                one,
                self.constant(line.zero, np.uint8),
                self.constant(bias, np.int32),
            ],
            kernel_shape=list(weight.shape[2:]),
            strides=list(sums.stride),
            pads=list(sums.pads),
            group=sums.groups,
        )
        if (line.lowest, line.highest) != (0, 255):
            y = self.node("Clip", [y, self.constant(line.lowest, np.uint8), self.constant(line.highest, np.uint8)])
        if product and sums.groups == 1:
            y = self.node("Transpose", [self.reshape(y, (edge.shape[0], -1))], perm=[1, 0])
        elif len(edge.shape) == 1:
            y = self.reshape(y, (0, edge.shape[0]))
        if line.table is not None:
            y = self.node("Gather", [self.constant(line.table, np.uint8), self.cast(y, np.int32)])
        self.bytes_of[position] = y

    def _note_saturation(self, position: int, weight: Int, source: int) -> None:
        if self.quantization.may_saturate(weight, source):
            self.lines.append(
                f"{self.graph.label(position)}: 8-bit weights on 8-bit values;"
                " ONNX Runtime adds such pairs in 16 bits on x86 processors without VNNI, where they may saturate"
            )

    # everything else

    def _write(self, position: int) -> None:
        graph = self.graph
        node, edge = graph.nodes[position], graph.edges[position]
        small = self.zeros[position] is not None
        match node.op:
            case Input() as op:
                self._write_input(op)
            case Conv() as op:
                self._write_conv(position, op)
            case MatMul() as op:
                self._write_matmul(position, op)
            case MultiThreshold() | Requantize() as op:
                self._write_activation(position, op)
            case Add(lowest=lowest, highest=highest):
                self._write_add(position, lowest, highest)
            case Concat():
                same = small and all(self.zeros[i] == self.zeros[position] for i in node.inputs)
                if same:
                    self.bytes_of[position] = self.node("Concat", [self.bytes(i) for i in node.inputs], axis=1)
                else:
                    self.words_of[position] = self.node("Concat", [self.words(i) for i in node.inputs], axis=1)
            case Slice(channels=channels):
                (source,) = node.inputs
                limits = [self.constant(v, np.int64) for v in ([0], [channels], [1])]
                if small and self.zeros[source] == self.zeros[position]:
                    self.bytes_of[position] = self.node("Slice", [self.bytes(source), *limits])
                else:
                    self.words_of[position] = self.node("Slice", [self.words(source), *limits])
            case MaxPool(kernel=kernel, stride=stride, pads=pads):
                (source,) = node.inputs
                if small and self.zeros[source] == self.zeros[position]:
                    self.bytes_of[position] = self.node(
                        "MaxPool",
                        [self.bytes(source)],
                        kernel_shape=list(kernel),
                        strides=list(stride),
                        pads=list(pads),
                    )
                else:
                    self._slow(position, "largest of shifted copies, because MaxPool takes no int32")
                    windows = self._windows(source, kernel, stride, pads, -(2**31), edge.shape)
                    self.words_of[position] = self.node("Max", windows) if len(windows) > 1 else windows[0]
            case SumPool(kernel=kernel, stride=stride, pads=pads, shift=shift):
                self._write_sum(position, kernel, stride, pads, shift)
            case GlobalSumPool(shift=shift):
                (source,) = node.inputs
                axes = self.constant([2, 3], np.int64)
                total = self.node("ReduceSum", [self.words(source), axes], keepdims=0)
                area = graph.edges[source].shape[1] * graph.edges[source].shape[2]
                self.words_of[position] = self._shifted(total, graph.edges[source].lowest * area, shift)
            case Pad(pads=pads):
                (source,) = node.inputs
                amounts = self.constant([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64)
                if small and self.zeros[source] == self.zeros[position]:
                    fill = self.constant(self.quantization.zero(position), np.uint8)
                    self.bytes_of[position] = self.node("Pad", [self.bytes(source), amounts, fill])
                else:
                    self.words_of[position] = self.node(
                        "Pad", [self.words(source), amounts, self.constant(0, np.int32)]
                    )
            case Flatten():
                (source,) = node.inputs
                if small and self.zeros[source] == self.zeros[position]:
                    self.bytes_of[position] = self.reshape(self.bytes(source), (0, edge.size))
                else:
                    self.words_of[position] = self.reshape(self.words(source), (0, edge.size))
            case Argmax():
                (source,) = node.inputs
                x = self.words(source) if self.zeros[source] is None else self.bytes(source)
                self.words_of[position] = self.cast(self.node("ArgMax", [x], axis=1, keepdims=1), np.int32)
            case op:
                assert_never(op)

    def _slow(self, position: int, why: str) -> None:
        self.lines.append(f"{self.graph.label(position)}: {why}")

    def _write_input(self, op: Input) -> None:
        if self.zeros[0] is not None and self.zeros[0] == op.zero_point and input_kind(op) is np.uint8:
            self.bytes_of[0] = "input"
            return
        tensor = "input" if input_kind(op) is np.int32 else self.cast("input", np.int32)
        if op.zero_point:
            tensor = self.node("Sub", [tensor, self.constant(op.zero_point, np.int32)])
        self.words_of[0] = tensor

    def _write_conv(self, position: int, op: Conv) -> None:
        graph = self.graph
        (source,) = graph.nodes[position].inputs
        edge = graph.edges[position]
        if self.zeros[source] is not None and self.quantization.sum(position) is not None:
            self._slow(position, "ConvInteger, about 20 times slower than QLinearConv: its sums are used as they are")
            self._note_saturation(position, op.weight, source)
            y = self.node(
                "ConvInteger",
                [
                    self.bytes(source),
                    self.constant(op.weight, np.int8),
                    self.constant(self.quantization.zero(source), np.uint8),
                ],
                kernel_shape=list(op.weight.shape[2:]),
                strides=list(op.stride),
                pads=list(op.pads),
                group=op.groups,
            )
        else:
            self._slow(position, "a matrix product in int32, because values or weights are wider than 8 bits")
            y = self._wide_conv(position, op, source)
        if op.bias is not None:
            y = self.node("Add", [y, self.by_channel(op.bias, edge, np.int32)])
        self.words_of[position] = y

    def _wide_conv(self, position: int, op: Conv, source: int) -> str:
        edge = self.graph.edges[position]
        filters, each, kh, kw = op.weight.shape
        channels = each * op.groups
        if filters * channels * kh * kw > LARGEST_MATRIX:
            raise ExportError(f"{self.graph.label(position)}: values wider than 8 bits and too many weights for ONNX")
        matrix = np.zeros((filters, kh, kw, channels), dtype=np.int64)
        for group in range(op.groups):
            rows = slice(group * filters // op.groups, (group + 1) * filters // op.groups)
            columns = slice(group * each, (group + 1) * each)
            matrix[rows, :, :, columns] = op.weight[rows].transpose(0, 2, 3, 1)
        windows = self._windows(source, (kh, kw), op.stride, op.pads, 0, (channels, *edge.shape[1:]))
        stacked = self.node("Concat", windows, axis=1) if len(windows) > 1 else windows[0]
        columns_of = self.reshape(stacked, (0, kh * kw * channels, -1))
        y = self.node("MatMul", [self.constant(matrix.reshape(filters, -1), np.int32), columns_of])
        return self.reshape(y, (0, *edge.shape))

    def _windows(
        self, source: int, kernel: Pair, stride: Pair, pads: Pads, fill: int, shape: tuple[int, ...]
    ) -> list[str]:
        """For every tap the int32 values that it meets, each of `shape`."""
        x = self.words(source)
        if any(pads):
            amounts = self.constant([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64)
            x = self.node("Pad", [x, amounts, self.constant(fill, np.int32)])
        found = []
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                ends = (i + (shape[1] - 1) * stride[0] + 1, j + (shape[2] - 1) * stride[1] + 1)
                limits = [self.constant(v, np.int64) for v in ((i, j), ends, (2, 3), stride)]
                found.append(self.node("Slice", [x, *limits]))
        return found

    def _write_matmul(self, position: int, op: MatMul) -> None:
        (source,) = self.graph.nodes[position].inputs
        small = op.weight.size <= SMALL_PRODUCT  # then exact on every processor costs nothing
        if (
            self.zeros[source] is not None
            and self.quantization.sum(position) is not None
            and not (small and self.quantization.may_saturate(op.weight, source))
        ):
            self._note_saturation(position, op.weight, source)
            weight = self.constant(op.weight.T, np.int8)
            zero = self.constant(self.quantization.zero(source), np.uint8)
            y = self.node("MatMulInteger", [self.bytes(source), weight, zero])
        else:
            if not small:
                self._slow(position, "MatMul in int32, because values or weights are wider than 8 bits")
            y = self.node("MatMul", [self.words(source), self.constant(op.weight.T, np.int32)])
        if op.bias is not None:
            y = self.node("Add", [y, self.constant(op.bias, np.int32)])
        self.words_of[position] = y

    def _write_add(self, position: int, lowest: int | None, highest: int | None) -> None:
        left, right = self.graph.nodes[position].inputs
        a, b = self.graph.edges[left], self.graph.edges[right]
        clips = lowest is not None and highest is not None
        clips = clips and (a.lowest + b.lowest < (lowest or 0) or a.highest + b.highest > (highest or 0))
        zero = self.zeros[position]
        inputs = [self.zeros[left], self.zeros[right]]
        if zero is not None and None not in inputs:
            # zero points are added once at the end
            total = self.node("Add", [self.cast(self.bytes(i), np.int32) for i in (left, right)])
            extra = zero - self.quantization.zero(left) - self.quantization.zero(right)
            if extra:
                total = self.node("Add", [total, self.constant(extra, np.int32)])
            if clips:
                assert lowest is not None and highest is not None
                total = self._clip(total, lowest + zero, highest + zero)
            self.bytes_of[position] = self.cast(total, np.uint8)
            return
        kind = np.int32 if self.graph.partial_sums(position) < 2**31 else np.int64
        terms = [self.words(left), self.words(right)]
        total = self.node("Add", terms if kind is np.int32 else [self.cast(t, np.int64) for t in terms])
        if clips:
            assert lowest is not None and highest is not None
            limits = np.clip([lowest, highest], np.iinfo(kind).min, np.iinfo(kind).max)
            total = self._clip(total, int(limits[0]), int(limits[1]), kind)
        self.words_of[position] = total if kind is np.int32 else self.cast(total, np.int32)

    def _clip(self, tensor: str, lowest: int, highest: int, kind: Any = np.int32) -> str:
        return self.node("Clip", [tensor, self.constant(lowest, kind), self.constant(highest, kind)])

    def _write_sum(self, position: int, kernel: Pair, stride: Pair, pads: Pads, shift: int) -> None:
        graph = self.graph
        (source,) = graph.nodes[position].inputs
        channels = graph.edges[source].shape[0]
        x = graph.edges[source]
        if self.zeros[source] is not None:
            total = self.node(
                "ConvInteger",
                [
                    self.bytes(source),
                    self.constant(np.ones((channels, 1, *kernel)), np.int8),
                    self.constant(self.quantization.zero(source), np.uint8),
                ],
                kernel_shape=list(kernel),
                strides=list(stride),
                pads=list(pads),
                group=channels,
            )
            self._slow(position, "ConvInteger, slower than QLinearConv: its sums have more than 8 bits")
        else:
            self._slow(position, "sum of shifted copies, because its values have more than 8 bits")
            total, *others = self._windows(source, kernel, stride, pads, 0, graph.edges[position].shape)
            for other in others:
                total = self.node("Add", [total, other])
        self.words_of[position] = self._shifted(total, min(x.lowest, 0) * kernel[0] * kernel[1], shift)

    def _shifted(self, words: str, lowest: int, shift: int) -> str:
        """words >> shift, rounding down, for words of at least `lowest`. Div rounds towards zero."""
        if shift == 0:
            return words
        wide = self.cast(words, np.int64)
        below = -(lowest >> shift) if lowest < 0 else 0
        if below:
            wide = self.node("Add", [wide, self.constant(below << shift, np.int64)])
        wide = self.node("Div", [wide, self.constant(1 << shift, np.int64)])
        if below:
            wide = self.node("Sub", [wide, self.constant(below, np.int64)])
        return self.cast(wide, np.int32)

    # activations without a line

    def _write_activation(self, position: int, op: MultiThreshold | Requantize) -> None:
        graph = self.graph
        (source,) = graph.nodes[position].inputs
        x, edge = graph.edges[source], graph.edges[position]
        if int((x.highs - x.lows + 1).sum()) <= LARGEST_TABLE:
            self._slow(position, f"a table of {int((x.highs - x.lows + 1).sum())} values, because no line fits it")
            self._write_table(position, op, source)
            return
        if isinstance(op, Requantize):
            self._slow(position, "64-bit multiplications, because no float32 line fits it")
            self.words_of[position] = self._requantized(op, source, edge)
            return
        table, levels, signs = reachable(op, edge)
        lows, highs = x.times(signs)
        form = shift_form(np.clip(table, lows[:, None], highs[:, None] + 1), lows, highs, bits=64)
        if form is not None:
            self._slow(position, "64-bit multiplications, because no float32 line fits it")
            line = Requantize(form.multiplier * signs, form.addend, form.shift, 0, len(levels) - 1)
            codes = self._requantized(line, source, edge)
        elif table.shape[1] <= MOST_COMPARISONS:
            self._slow(position, f"{table.shape[1]} comparisons, because its thresholds are on no line")
            codes = self._compared(table, signs, source)
        else:
            raise ExportError(
                f"{graph.label(position)}: {table.shape[1]} thresholds on no line, and values of {x.bits} bits"
            )
        if levels == tuple(range(levels[0], levels[0] + len(levels))):
            codes = self.node("Add", [codes, self.constant(levels[0], np.int32)]) if levels[0] else codes
        else:
            codes = self.node("Gather", [self.constant(levels, np.int32), codes])
        self.words_of[position] = codes

    def _write_table(self, position: int, op: MultiThreshold | Requantize, source: int) -> None:
        x, edge = self.graph.edges[source], self.graph.edges[position]
        zero = self.zeros[position]
        parts = tabulated(op, x)
        if all(np.array_equal(part, parts[0]) for part in parts) and len(set(x.lows.tolist())) == 1:
            parts, starts = parts[:1], np.zeros(1, dtype=np.int64)
        else:
            starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        values = np.concatenate(parts)
        places = starts - x.lows[: len(parts)]
        index = self.words(source)
        if places.any():
            offset = self.constant(places[0], np.int32) if len(parts) == 1 else self.by_channel(places, x, np.int32)
            index = self.node("Add", [index, offset])
        if zero is None:
            self.words_of[position] = self.node("Gather", [self.constant(values, np.int32), index])
        else:
            self.bytes_of[position] = self.node("Gather", [self.constant(values + zero, np.uint8), index])
        assert edge.shape == x.shape

    def _requantized(self, op: Requantize, source: int, edge: Edge) -> str:
        """Requantize in int64. `base` makes what is divided positive, because Div rounds towards zero."""
        x = self.graph.edges[source]
        shape = (edge.shape[0],)
        m, a, s = (np.broadcast_to(v, shape) for v in (op.multiplier, op.addend, op.shift))
        least = np.minimum(x.lows * m, x.highs * m) + a
        base = least >> s
        wide = self.cast(self.words(source), np.int64)
        wide = self.node("Mul", [wide, self.by_channel(m, edge, np.int64)])
        wide = self.node("Add", [wide, self.by_channel(a - (base << s), edge, np.int64)])
        if s.any():
            wide = self.node("Div", [wide, self.by_channel(np.int64(1) << s, edge, np.int64)])
        wide = self.node("Add", [wide, self.by_channel(base, edge, np.int64)])
        return self.cast(self._clip(wide, op.lowest, op.highest, np.int64), np.int32)

    def _compared(self, table: Int, signs: Int, source: int) -> str:
        x = self.graph.edges[source]
        words = self.words(source)
        if (signs < 0).any():
            words = self.node("Mul", [words, self.by_channel(signs, x, np.int32)])
        lows, highs = x.times(signs)
        total = ""
        for column in np.clip(table, lows[:, None], highs[:, None] + 1).T:
            # x >= T as x > T - 1: what is never reached then fits 32 bits
            reached = self.cast(self.node("Greater", [words, self.by_channel(column - 1, x, np.int32)]), np.int32)
            total = self.node("Add", [total, reached]) if total else reached
        return total
