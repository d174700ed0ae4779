"""Quantized networks of others in ONNX and QONNX (Brevitas, qonnx, FINN, ONNX Runtime's integer operators).

Every tensor of the file that depends on the input is described as f(integers of one node of our graph), f being a
function of one element that may differ between channels. Elementwise operators only extend f, in float32 and in the
file's order, so that ties round as in the file's own executors. Where integers are needed again, at a quantizer or
before a convolution, f becomes thresholds: f must be monotone, and every level's first integer is looked up. Sums need
f affine: its scale is then carried along as a real number, and scales that differ by less than 2**-20 of themselves
are taken as equal. Sums of values whose scales are not powers of two are computed exactly here and with rounding
errors by float32 executors; results can then differ where a sum lies that close to a threshold.

What the integers at the input mean, where nothing says so (`input_range`, `input_scale`):
- an input tensor of integers, or one annotated as such by FINN, is those integers;
- an input that only quantizers read takes those quantizers' integers, with the quantizer's scale;
- else it takes bytes that mean byte / 255, or the byte itself if the model starts with a division by 255.
Images are (channels, height, width) in our graph, also where the file has channels last.

Left out: an equal offset of all outputs, and a final softmax. The scale of the outputs becomes the graph's `scales`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ExportError, InvalidGraph
from ..integer.graph import (
    Input,
    IntegerGraph,
    Shape,
    reaching,
)
from ..onnx_graph import dataflow, elementwise, pools, quantizers, shapes, sums
from ..onnx_graph.constants import array_of, attributes_of, folded, quant_range
from ..onnx_graph.network import Network
from ..onnx_graph.values import (
    CHANNELS_LAST,
    COMPLAINTS,
    GENERAL,
    INTEGER_TYPES,
    LARGEST_FILE,
    MOST_NODES,
    NEAR,
    Array,
    Axes,
    Constant,
    Refused,
    Tensor,
    Value,
    divided,
    number,
    one_line,
    scaled,
    scaled_from,
)

METADATA = "bitwright"
DATAFLOW = "finn.custom_op.fpgadataflow"


class Imported(NamedTuple):
    graph: IntegerGraph
    lines: list[str]


def load(path: Path, *, input_range: tuple[int, int] | None = None, input_scale: float | None = None) -> IntegerGraph:
    """The network in the file at `path`. Arguments as for `read`."""
    return read(path, input_range=input_range, input_scale=input_scale).graph


def read(path: Path, *, input_range: tuple[int, int] | None = None, input_scale: float | None = None) -> Imported:
    """The network in the file at `path`, and what was assumed.

    input_range: smallest and largest integer that is fed, and input_scale: what 1 of them means as a real number;
    without them the rule above holds. InvalidGraph, naming the operator, for what has no integer form.
    """
    model = _parse(path)
    try:
        with np.errstate(all="ignore"):
            return _Reader(model, input_range, input_scale).result()
    except (InvalidGraph, Refused) as mistake:
        raise InvalidGraph(f"{path}: {one_line(mistake)}") from None
    except MemoryError:
        raise InvalidGraph(f"{path}: too large") from None
    except COMPLAINTS as why:
        raise InvalidGraph(f"{path}: damaged: {one_line(why)}") from None


def _parse(path: Path) -> Any:
    """The file as a protocol buffer, without opening anything else."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        raise ExportError("reading ONNX needs onnx: pip install bitwright[onnx]") from None
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as mistake:
        raise InvalidGraph(f"{path}: {mistake.strerror or mistake}") from None
    if len(data) > LARGEST_FILE:
        raise InvalidGraph(f"{path}: files of at most {LARGEST_FILE >> 20} MiB are read")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError):
        raise InvalidGraph(f"{path}: not an ONNX file, or a truncated one") from None
    if not model.HasField("graph") or (not model.graph.node and not model.graph.output):
        raise InvalidGraph(f"{path}: not an ONNX file, or an empty one")
    return model


class _Reader:
    def __init__(self, model: Any, input_range: tuple[int, int] | None, input_scale: float | None) -> None:
        self.net = Network()
        self.proto = model.graph
        self.values: dict[str, Value] = {}
        if len(self.proto.node) > MOST_NODES:
            raise InvalidGraph(f"at most {MOST_NODES} nodes are read, it has {len(self.proto.node)}")
        if model.functions:
            raise InvalidGraph("functions of its own are not read")
        self.net.about = _metadata(model)
        self.annotations = {
            note.tensor_name: {e.key: e.value for e in note.quant_parameter_tensor_names}
            for note in self.proto.quantization_annotation
        }
        self._read_constants()
        self._read_input(input_range, input_scale)

    def result(self) -> Imported:
        for node in self._ordered():
            self.net.label = one_line(f"{node.op_type}{f' {node.name}' if node.name else ''}")
            try:
                self._read_node(node)
            except Refused as why:
                raise InvalidGraph(f"{self.net.label}: {why}") from None
            except InvalidGraph:
                raise
            except COMPLAINTS as why:
                raise InvalidGraph(f"{self.net.label}: {one_line(why)}") from None
        if len(self.proto.output) != 1:
            raise InvalidGraph(f"networks with one output are read, it has {len(self.proto.output)}")
        name = self.proto.output[0].name
        value = self.values.get(name)
        if value is None:
            raise InvalidGraph(f"no node computes its output {name}")
        self.net.label = f"output {name}"
        try:
            position, scales = self._output(self.net.tensor(value))
        except Refused as why:
            raise InvalidGraph(f"{self.net.label}: {why}") from None
        known = all(math.isfinite(s) and s > 0 for s in scales)
        return Imported(reaching(self.net.nodes, position, scales if known else ()), self.net.lines)

    def _read_constants(self) -> None:
        for tensor in self.proto.initializer:
            self.values[tensor.name] = Constant(array_of(tensor))
        if self.proto.sparse_initializer:
            raise InvalidGraph("sparse constants are not read")

    def _ordered(self) -> list[Any]:
        """Nodes in an order in which each comes after what it reads."""
        nodes = list(self.proto.node)
        producer: dict[str, int] = {}
        for i, node in enumerate(nodes):
            for name in node.output:
                if name and (name in producer or name in self.values):
                    raise InvalidGraph(f"two nodes compute {name}")
                if name:
                    producer[name] = i
        waits = [0] * len(nodes)
        readers: list[list[int]] = [[] for _ in nodes]
        for i, node in enumerate(nodes):
            for name in filter(None, node.input):
                if name in producer:
                    waits[i] += 1
                    readers[producer[name]].append(i)
                elif name not in self.values:
                    raise InvalidGraph(f"{node.op_type} {node.name} reads {name}, which nothing computes")
        ready = [i for i, count in enumerate(waits) if count == 0][::-1]
        ordered = []
        while ready:
            i = ready.pop()
            ordered.append(nodes[i])
            for j in readers[i]:
                waits[j] -= 1
                if waits[j] == 0:
                    ready.append(j)
        if len(ordered) < len(nodes):
            stuck = next(n for n, count in zip(nodes, waits, strict=True) if count)
            raise InvalidGraph(f"{stuck.op_type} {stuck.name} depends on itself")
        return ordered

    def _read_input(self, input_range: tuple[int, int] | None, input_scale: float | None) -> None:
        given = [info for info in self.proto.input if info.name not in self.values]
        if len(given) != 1:
            raise InvalidGraph(f"networks with one input are read, it has {len(given)}")
        (info,) = given
        kind = info.type.tensor_type
        sizes = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
        if len(sizes) not in (1, 2, 4) or any(s < 0 or s > 2**24 for s in sizes) or any(s == 0 for s in sizes[1:]):
            raise InvalidGraph(f"input {info.name} has shape {sizes}; images and vectors of known size are read")
        last = len(sizes) == 4 and self._is_channels_last(info.name)
        axes: Axes = {1: ("C",), 2: (None, "C")}.get(
            len(sizes), (None, "H", "W", "C") if last else (None, "C", "H", "W")
        )
        if sizes[0] > 1 and len(sizes) > 1:
            self.net.lines.append(f"the file is for batches of {sizes[0]}; the graph takes one at a time, as all do")
        if last:
            self.net.lines.append("the file has channels last; the graph takes (channels, height, width)")
        at = {axis: size for axis, size in zip(axes, sizes, strict=True) if axis}
        shape: Shape = (at["C"], at["H"], at["W"]) if "H" in at else (at["C"],)
        integers = INTEGER_TYPES.get(kind.elem_type)
        if integers is None and kind.elem_type not in (1, 10, 11):
            raise InvalidGraph(f"input {info.name} is neither of floats nor of integers")
        low, high, zero, scale, divides, why = self._meaning(info.name, integers)
        if input_range is not None:
            low, high, why = *input_range, "as asked for"
            zero = 0
        if input_scale is not None:
            if not (math.isfinite(input_scale) and input_scale > 0):
                raise InvalidGraph(f"an input scale is a positive number, got {input_scale}")
            scale, divides = input_scale, False
        if integers is None:
            meaning = "/ 255" if divides else f"* {scale:g}"
            self.net.lines.append(
                f"the input takes integers from {low} to {high}, which mean integer {meaning} ({why})"
            )
        position = self.net.add(Input(shape, low, high, zero), ())
        channels = shape[0]
        if integers is not None:
            tensor = self.net.plain(position, axes, integers, zero)
        else:
            factor = 1 / 255 if divides else scale
            function = partial(divided, by=np.float32(255)) if divides else partial(scaled, by=np.float32(scale))
            if zero:
                function = partial(scaled_from, by=np.float32(scale), zero=zero)
            ones = np.ones(channels)
            tensor = Tensor(
                position, axes, function, ones * factor, ones * zero * factor, ones.astype(np.int64), np.float32
            )
        self.values[info.name] = tensor

    def _meaning(self, name: str, integers: Any) -> tuple[int, int, int, float, bool, str]:
        """(lowest, highest, zero point, scale, whether they are divided by 255 instead, why) of the input."""
        noted = self.net.about.get("input")
        if noted is not None:
            return (*noted, 1.0, False, "written by bitwright")
        readers = self._readers_behind(name)
        if integers is not None:
            limits = np.iinfo(integers)
            if limits.max > 2**31 - 1:
                raise InvalidGraph(f"input {name}: integers of 64 bits")
            zeros = {self._zero_read(node) for node in readers}
            zero = zeros.pop() if len(zeros) == 1 else 0
            low, high = max(int(limits.min), 1 - 2**31), int(limits.max)
            return low, high, zero or 0, 1.0, False, "its type"
        annotated = _datatype_range(self.annotations.get(name, {}).get("finn_datatype", ""))
        if annotated is not None:
            return (*annotated, 0, 1.0, False, "its annotation")
        found = {self._quantizer(node) for node in readers}
        if len(found) == 1 and None not in found:
            (quantizer,) = found
            assert quantizer is not None
            return (*quantizer[:2], 0, quantizer[2], False, "those of the quantizer that reads it")
        divided = bool(readers) and all(self._divides(node) for node in readers)
        return 0, 255, 0, 1.0, not divided, "bytes"

    def _readers_behind(self, name: str) -> list[Any]:
        """What reads the input, looking through operators that only move elements."""
        found, names = [], [name]
        for node in self.proto.node:
            if node.input and node.input[0] in names:
                if node.op_type in ("Reshape", "Flatten", "Transpose", "Identity", "Squeeze", "Unsqueeze"):
                    names.extend(node.output)
                elif node.op_type != "Shape":
                    found.append(node)
        return found

    def _value_of(self, node: Any, i: int) -> Array | None:
        value = self.values.get(node.input[i]) if i < len(node.input) else None
        if isinstance(value, Constant):
            return value.values
        for other in self.proto.node:
            if i < len(node.input) and node.input[i] in other.output and other.op_type == "Constant":
                for attribute in other.attribute:
                    if attribute.name == "value":
                        return array_of(attribute.t)
        return None

    def _zero_read(self, node: Any) -> int | None:
        place = {"QLinearConv": 2, "QLinearMatMul": 2, "ConvInteger": 2, "MatMulInteger": 2, "DequantizeLinear": 2}
        values = self._value_of(node, place.get(node.op_type, 99))
        return int(number(values)) if values is not None and values.size == 1 else None

    def _quantizer(self, node: Any) -> tuple[int, int, float] | None:
        """(lowest, highest integer, scale) of a quantizer."""
        if node.domain in GENERAL and node.op_type == "BipolarQuant":
            scale = self._value_of(node, 1)
            return (-1, 1, number(scale)) if scale is not None and scale.size == 1 else None
        if node.domain in GENERAL and node.op_type in ("Quant", "IntQuant"):
            scale, zero, bits = (self._value_of(node, i) for i in (1, 2, 3))
            if scale is None or zero is None or bits is None or scale.size * zero.size * bits.size != 1:
                return None
            low, high = quant_range(attributes_of(node), number(bits))
            shift = round(number(zero))
            return low - shift, high - shift, number(scale)
        if node.domain in ("", "ai.onnx") and node.op_type == "QuantizeLinear":
            scale, zero = self._value_of(node, 1), self._value_of(node, 2)
            kind = np.dtype(np.uint8) if zero is None else zero.dtype
            if scale is None or scale.size != 1 or kind.kind not in "iu" or (zero is not None and zero.size != 1):
                return None
            shift = 0 if zero is None else int(number(zero))
            return int(np.iinfo(kind).min) - shift, int(np.iinfo(kind).max) - shift, number(scale)
        return None

    def _divides(self, node: Any) -> bool:
        """Whether it turns bytes into numbers from 0 to 1."""
        if node.op_type not in ("Div", "Mul") or len(node.input) != 2:
            return False
        values = self._value_of(node, 1)
        if values is None or values.size != 1:
            return False
        factor = float(values.reshape(-1)[0])
        return factor == 255 if node.op_type == "Div" else abs(factor * 255 - 1) < 1e-4

    def _is_channels_last(self, name: str) -> bool:
        layout = self.annotations.get(name, {}).get("tensor_layout", "")
        if layout:
            return bool(re.sub(r"[^NHWCx]", "", layout) == "NHWC")
        names = [name]
        for node in self.proto.node:
            if node.input and node.input[0] in names:
                if node.domain == CHANNELS_LAST or node.domain.startswith(DATAFLOW):
                    return True
                if node.op_type == "Transpose":
                    return list(attributes_of(node).get("perm", [])) == [0, 3, 1, 2]
                if node.op_type in ("Conv", "QLinearConv", "ConvInteger", "MaxPool", "Reshape", "Flatten"):
                    return False
                names.extend(node.output)
        return False

    def _read_node(self, node: Any) -> None:
        attributes = attributes_of(node)
        inputs: list[Value | None] = [self.values[name] if name else None for name in node.input]
        group = "" if node.domain in ("", "ai.onnx") else node.domain
        if group in GENERAL:
            group = "general"
        elif group.startswith(DATAFLOW):
            group = "dataflow"
        elif group not in ("", CHANNELS_LAST):
            raise Refused(f"operators of {node.domain} are not read")
        if node.output and all(i is None or isinstance(i, Constant) for i in inputs):
            constants = [i for i in inputs if isinstance(i, Constant)]
            self.values[node.output[0]] = folded(node, group, attributes, constants)
            return
        read = _OPERATORS.get((group, node.op_type))
        if read is None:
            raise Refused("this operator is not read")
        results = read(self.net, attributes, *inputs)
        if not isinstance(results, tuple):
            results = (results,)
        for name, value in zip(node.output, results, strict=False):
            if name and value is not None:
                self.values[name] = value

    def _output(self, t: Tensor) -> tuple[int, tuple[float, ...]]:
        """(node, scales) of the output."""
        ended = t.ended
        t = self.net.settled(replace(t, ended=False))
        assert t.scale is not None and t.offset is not None
        noted = self.net.about.get("scales")
        if t.kind != np.float32 or (noted is not None and (t.scale == 1).all()):
            position, _, _ = self.net.integers(t, uniform=True)
            scales = tuple(noted) if noted is not None else ()
            return position, scales if len(scales) in (0, 1, self.net.edges[position].size) else ()
        ratio = t.offset / np.where(t.scale == 0, 1, t.scale)
        whole = np.abs(ratio - np.rint(ratio)) <= NEAR * np.maximum(1, np.abs(ratio))
        same = (t.offset == t.offset[0]).all() and (t.scale == t.scale[0]).all()
        if same and not whole.all() and t.scale[0] != 0:
            if not ended:
                self.net.lines.append(f"{t.offset[0]:g}, which is added to every output, is left out")
            t = replace(t, offset=np.zeros_like(t.offset))
        image = len(self.net.edges[t.position].shape) == 3
        position, scale, _ = self.net.integers(t, uniform=same or image)
        if (scale == scale[0]).all():
            return position, (float(scale[0]),)
        return position, tuple(float(v) for v in scale)


def _metadata(model: Any) -> dict[str, Any]:
    """What our own exporters noted, checked."""
    found: dict[str, Any] = {}
    for prop in model.metadata_props:
        if prop.key != METADATA:
            continue
        try:
            noted = json.loads(prop.value)
            low, high, zero = noted["input"]
            scales = [float(v) for v in noted["scales"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidGraph(f"its note {METADATA} is damaged") from None
        if not all(type(v) is int and abs(v) < 2**31 for v in (low, high, zero)):
            raise InvalidGraph(f"its note {METADATA} is damaged")
        found = {"input": (low, high, zero), "scales": scales}
    return found


def _datatype_range(name: str) -> tuple[int, int] | None:
    """The integers of a FINN data type."""
    fixed = {"BIPOLAR": (-1, 1), "TERNARY": (-1, 1), "BINARY": (0, 1)}
    if name in fixed:
        return fixed[name]
    match = re.fullmatch(r"(U?)INT([1-9]\d?)", name)
    if match is None or not 1 <= int(match[2]) <= 31:
        return None
    bits = int(match[2])
    return (0, 2**bits - 1) if match[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


# by domain and operator
_OPERATORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("", "Shape"): shapes.read_shape,
    ("", "Identity"): shapes.read_identity,
    ("", "Dropout"): shapes.read_identity,
    ("", "Transpose"): shapes.read_transpose,
    ("", "Reshape"): shapes.read_reshape,
    ("", "Flatten"): shapes.read_flatten,
    ("", "Squeeze"): shapes.read_squeeze,
    ("", "Unsqueeze"): shapes.read_unsqueeze,
    ("", "Add"): elementwise.read_add,
    ("", "Sub"): elementwise.binary("Sub"),
    ("", "Mul"): elementwise.binary("Mul"),
    ("", "Div"): elementwise.binary("Div"),
    ("", "Greater"): elementwise.binary("Greater"),
    ("", "GreaterOrEqual"): elementwise.binary("GreaterOrEqual"),
    ("", "Less"): elementwise.binary("Less"),
    ("", "LessOrEqual"): elementwise.binary("LessOrEqual"),
    ("", "Min"): elementwise.binary("Min"),
    ("", "Max"): elementwise.read_max,
    ("", "Neg"): elementwise.read_neg,
    ("", "Relu"): elementwise.read_relu,
    ("", "LeakyRelu"): elementwise.read_leaky_relu,
    ("", "PRelu"): elementwise.read_prelu,
    ("", "Floor"): elementwise.unary(np.floor),
    ("", "Ceil"): elementwise.unary(np.ceil),
    ("", "Round"): elementwise.unary(np.rint),
    ("", "Sign"): elementwise.unary(np.sign),
    ("", "Clip"): elementwise.read_clip,
    ("", "Cast"): elementwise.read_cast,
    ("", "Gather"): elementwise.read_gather,
    ("", "BatchNormalization"): elementwise.read_batch_normalization,
    (CHANNELS_LAST, "BatchNormalization"): elementwise.read_channels_last_batch_normalization,
    ("", "Softmax"): elementwise.read_softmax,
    ("", "LogSoftmax"): elementwise.read_softmax,
    ("general", "Quant"): quantizers.read_quant,
    ("general", "IntQuant"): quantizers.read_quant,
    ("general", "BipolarQuant"): quantizers.read_bipolar_quant,
    ("general", "MultiThreshold"): quantizers.read_multi_threshold,
    ("general", "Trunc"): quantizers.read_trunc,
    ("", "QuantizeLinear"): quantizers.read_quantize_linear,
    ("", "DequantizeLinear"): quantizers.read_dequantize_linear,
    ("", "Conv"): sums.read_conv,
    (CHANNELS_LAST, "Conv"): sums.read_channels_last_conv,
    (CHANNELS_LAST, "MaxPool"): pools.read_channels_last_max_pool,
    ("", "MaxPool"): pools.read_max_pool,
    ("", "MatMul"): sums.read_mat_mul,
    ("", "Gemm"): sums.read_gemm,
    ("", "ConvInteger"): sums.read_conv_integer,
    ("", "MatMulInteger"): sums.read_mat_mul_integer,
    ("", "QLinearConv"): sums.read_qlinear_conv,
    ("", "QLinearMatMul"): sums.read_qlinear_mat_mul,
    ("", "GlobalMaxPool"): pools.read_global_max_pool,
    ("", "AveragePool"): pools.read_average_pool,
    ("", "GlobalAveragePool"): pools.read_global_average_pool,
    ("", "ReduceSum"): pools.read_reduce_sum,
    ("", "ReduceMean"): pools.read_reduce_mean,
    ("", "Pad"): shapes.read_pad,
    ("", "Slice"): shapes.read_slice,
    ("", "Concat"): shapes.read_concat,
    ("", "ArgMax"): pools.read_arg_max,
    ("", "TopK"): pools.read_top_k,
    ("dataflow", "DuplicateStreams_Batch"): dataflow.read_duplicate_streams_batch,
    ("dataflow", "FMPadding_Batch"): dataflow.read_fmpadding_batch,
    ("dataflow", "ConvolutionInputGenerator"): dataflow.read_convolution_input_generator,
    ("dataflow", "VectorVectorActivation"): dataflow.read_vector_vector_activation,
    ("dataflow", "MatrixVectorActivation"): dataflow.read_matrix_vector_activation,
    ("dataflow", "AddStreams_Batch"): dataflow.read_add_streams_batch,
}
