"""QONNX (arXiv:2206.07527) as FINN and hls4ml read it: float32 tensors of integers.

Weights are Quant or BipolarQuant nodes of scale 1, activations MultiThreshold nodes, and every tensor is annotated with
the integers that it can hold. Batches have one image. float32 holds sums exactly below 2**24 only; a graph with larger
ones is refused.
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
    thresholds_of,
)
from ..modules import EXACT_IN_FLOAT32

DOMAIN = "qonnx.custom_op.general"
OPSET = 11  # what FINN's transformations are written for
IR_VERSION = 8
MOST_THRESHOLDS = 2**22  # of one activation, all channels together
MOST_COMPARISONS = 2**27  # that qonnx's executor does at a time: it compares every element with every threshold

METADATA = "bitwright"


def export(graph: IntegerGraph, path: Path) -> list[str]:
    """Writes `graph` as QONNX at `path`; lines about it. ExportError for sums of 2**24 and more."""
    onnx = _onnx()
    model = _Writer(onnx, graph).model()
    data = model.SerializeToString()
    write_atomically(path, lambda file: file.write(data))
    operators = Counter(node.op_type for node in model.graph.node)
    listed = ", ".join(f"{count} {name}" for name, count in operators.most_common())
    widest = max(edge.bits for edge in graph.edges)
    return [f"{len(data):,} bytes, QONNX, opset {OPSET}: {listed}", f"the widest value has {widest} bits"]


def execute(path: Path, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The output of the model at `path` for x: (N, *input shape), in qonnx's executor.

    The file is written for one image. What runs is a copy in memory for as many images at a time as keeps the
    executor's comparisons below `MOST_COMPARISONS`.
    """
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
    except ImportError:
        raise ExportError("running QONNX needs qonnx: pip install bitwright[qonnx]") from None
    onnx = _onnx()
    model = onnx.load(str(path), load_external_data=False)
    given, result = model.graph.input[0].name, model.graph.output[0].name
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    if x.shape[1:] != shape:
        raise ExportError(f"{path} takes inputs of {shape}, got {x.shape[1:]}")
    size = max(1, min(len(x), MOST_COMPARISONS // max(_comparisons(model), 1)))
    parts = []
    wrapped: tuple[int, Any] = (0, None)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        if wrapped[0] != len(part):
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            _set_batch(copy, len(part))
            wrapped = (len(part), ModelWrapper(copy))
        parts.append(execute_onnx(wrapped[1], {given: part.astype(np.float32)})[result])
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros((0, 1), dtype=np.int64)


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise ExportError("QONNX needs onnx: pip install bitwright[qonnx]") from None
    return onnx


def _shape(info: Any) -> list[int]:
    return [d.dim_value for d in info.type.tensor_type.shape.dim]


def _comparisons(model: Any) -> int:
    """Of one image, at most."""
    graph = model.graph
    shapes = {info.name: _shape(info) for info in (*graph.input, *graph.value_info, *graph.output)}
    pairs = [(node.input[0], node.input[1]) for node in graph.node if node.op_type == "MultiThreshold"]
    return max((math.prod(shapes[x]) * shapes[table][-1] for x, table in pairs), default=1)


def _set_batch(model: Any, count: int) -> None:
    """Makes the first axis of everything that depends on the input `count` long."""
    depends = {model.graph.input[0].name}
    for node in model.graph.node:
        if depends.intersection(node.input):
            depends.update(node.output)
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        if info.name in depends:
            info.type.tensor_type.shape.dim[0].dim_value = count


class _Writer:
    def __init__(self, onnx: Any, graph: IntegerGraph) -> None:
        self.onnx = onnx
        self.graph = graph
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []  # initializers
        self.infos: list[Any] = []  # shapes of everything but input and output
        self.datatypes: dict[str, str] = {}
        self.names: list[str] = []  # of the value of every node
        self.used: set[str] = set()

    def model(self) -> Any:
        graph, helper = self.graph, self.onnx.helper
        flipped = self._flips()
        for position, node in enumerate(graph.nodes):
            if graph.partial_sums(position) >= EXACT_IN_FLOAT32:
                raise ExportError(
                    f"{graph.label(position)}: sums of up to {graph.partial_sums(position)},"
                    f" and QONNX computes in float32, which is exact below {EXACT_IN_FLOAT32}"
                )
            name = self._write(position, [self.names[i] for i in node.inputs], flipped)
            self.names.append(name)
        last = len(graph.nodes) - 1
        output = self.names[last]
        if output == "global_in":
            output = self.node("Identity", [output], graph.output)
        kinds = self.onnx.TensorProto
        kind = kinds.INT64 if isinstance(graph.nodes[last].op, Argmax) else kinds.FLOAT
        infos = [info for info in self.infos if info.name != output]
        written = helper.make_graph(
            self.nodes,
            "bitwright",
            [helper.make_tensor_value_info("global_in", kinds.FLOAT, [1, *graph.input.shape])],
            [helper.make_tensor_value_info(output, kind, [1, *graph.output.shape])],
            self.tensors,
            value_info=infos,
        )
        for tensor, datatype in self.datatypes.items():
            entry = self.onnx.StringStringEntryProto(key="finn_datatype", value=datatype)
            note = self.onnx.TensorAnnotation(tensor_name=tensor, quant_parameter_tensor_names=[entry])
            written.quantization_annotation.append(note)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(written, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bitwright")
        op = graph.input
        about = {"input": [op.lowest, op.highest, op.zero_point], "scales": list(graph.scales)}
        helper.set_model_props(model, {METADATA: json.dumps(about)})
        return model

    def _flips(self) -> dict[int, Int]:
        """For sums that only an activation with signs reads: those signs, which their weights take on."""
        graph = self.graph
        found = {}
        for position, node in enumerate(graph.nodes):
            signs = _signs(node.op, graph.edges[position])
            if signs is None or (signs > 0).all():
                continue
            (source,) = node.inputs
            if graph.consumers[source] == [position] and isinstance(graph.nodes[source].op, Conv | MatMul):
                found[source] = signs
        return found

    # tensors

    def constant(self, values: Any, name: str, datatype: str | None = None, kind: Any = np.float32) -> str:
        array = np.array(values, dtype=kind, order="C")
        helper = self.onnx.helper
        name = self._name(name)
        self.tensors.append(self.onnx.numpy_helper.from_array(array, name))
        self.infos.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        )
        if datatype is not None:
            self.datatypes[name] = datatype
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        edge: Edge | tuple[tuple[int, ...], int, int],
        *,
        domain: str = "",
        kind: Any = np.float32,
        **attributes: Any,
    ) -> str:
        """Adds a node; its output holds what `edge`, or (shape, lowest, highest), says."""
        helper = self.onnx.helper
        shape, low, high = (edge.shape, edge.lowest, edge.highest) if isinstance(edge, Edge) else edge
        name = self._name(f"{operator}_{sum(n.op_type == operator for n in self.nodes)}")
        output = f"{name}_out0"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name, domain=domain, **attributes))
        self.infos.append(
            helper.make_tensor_value_info(output, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), [1, *shape])
        )
        self.datatypes[output] = _datatype(low, high)
        return output

    def _name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self.used:
            count += 1
            name = f"{wanted}_{count}"
        self.used.add(name)
        return name

    def weights(self, values: Int, position: int) -> str:
        """A constant and the node that says how many bits it has."""
        name = f"{self.graph.nodes[position].name or f'node{position}'}_weight"
        helper = self.onnx.helper
        latent = self.constant(values, name)
        one = self.constant(1.0, f"{name}_scale")
        if np.abs(values).min() == np.abs(values).max() == 1:
            operator, inputs, datatype = "BipolarQuant", [latent, one], "BIPOLAR"
            attributes: dict[str, Any] = {}
        else:
            low, high = int(values.min()), int(values.max())
            bits = max(Edge((1,), np.array([min(low, -1)]), np.array([high])).bits, 2)
            narrow = low > -(2 ** (bits - 1))
            inputs = [latent, one, self.constant(0.0, f"{name}_zero"), self.constant(float(bits), f"{name}_bits")]
            operator, datatype = "Quant", "TERNARY" if bits == 2 and narrow else f"INT{bits}"
            attributes = {"signed": 1, "narrow": int(narrow), "rounding_mode": "ROUND"}
        output = self._name(f"{name}_quant")
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=DOMAIN, **attributes))
        self.infos.append(helper.make_tensor_value_info(output, self.onnx.TensorProto.FLOAT, values.shape))
        self.datatypes[output] = datatype
        return output

    # operations

    def _write(self, position: int, inputs: list[str], flipped: dict[int, Int]) -> str:
        graph = self.graph
        node, edge = graph.nodes[position], graph.edges[position]
        sources = [graph.edges[i] for i in node.inputs]
        match node.op:
            case Input(lowest=lowest, highest=highest, zero_point=zero):
                self.datatypes["global_in"] = _datatype(lowest, highest)
                self.used.add("global_in")
                return self.node("Sub", ["global_in", self.constant(zero, "zero_point")], edge) if zero else "global_in"
            case Conv(weight=weight, bias=bias, stride=stride, pads=pads, groups=groups):
                signs = flipped.get(position)
                if signs is not None:
                    weight = weight * signs[:, None, None, None]
                    bias = None if bias is None else bias * signs
                return self._conv(position, inputs[0], weight, bias, stride, pads, groups, signs)
            case MatMul(weight=weight, bias=bias):
                signs = flipped.get(position)
                if signs is not None:
                    weight, bias = weight * signs[:, None], None if bias is None else bias * signs
                y = self.node(
                    "MatMul", [inputs[0], self.weights(weight.T, position)], _span(graph, position, edge.shape)
                )
                return self._biased(y, bias, edge, signs, position)
            case MultiThreshold() as op:
                return self._thresholds(position, inputs[0], op, node.inputs[0] in flipped)
            case Requantize() as op:
                return self._requantized(position, inputs[0], op, node.inputs[0] in flipped)
            case Add(lowest=lowest, highest=highest):
                low, high = (sum(each) for each in zip(*((x.lowest, x.highest) for x in sources), strict=True))
                y = self.node("Add", inputs, (edge.shape, low, high))
                if lowest is None or highest is None or (low >= lowest and high <= highest):
                    return y
                return self._clipped(position, y, lowest, highest)
            case Concat():
                return self.node("Concat", inputs, edge, axis=1)
            case Slice(channels=channels):
                ends = {"starts": [0], "ends": [channels], "axes": [1]}
                limits = [self.constant(values, name, kind=np.int64) for name, values in ends.items()]
                return self.node("Slice", [inputs[0], *limits], edge)
            case MaxPool(kernel=kernel, stride=stride, pads=pads):
                return self.node("MaxPool", inputs, edge, kernel_shape=kernel, strides=stride, pads=pads)
            case SumPool(kernel=kernel, stride=stride, pads=pads, shift=shift):
                ones = np.ones((edge.shape[0], 1, *kernel), dtype=np.int64)
                y = self._conv(position, inputs[0], ones, None, stride, pads, edge.shape[0], None)
                return self._shifted(y, edge, shift)
            case GlobalSumPool(shift=shift):
                whole = _span(graph, position, edge.shape)
                return self._shifted(self.node("ReduceSum", inputs, whole, axes=[2, 3], keepdims=0), edge, shift)
            case Pad(pads=pads):
                amounts = self.constant([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], "pads", kind=np.int64)
                return self.node("Pad", [inputs[0], amounts], edge)
            case Flatten():
                return self.node("Flatten", inputs, edge, axis=1)
            case Argmax():
                return self._argmax(inputs[0], sources[0], edge, position == len(graph.nodes) - 1)
            case op:
                assert_never(op)

    def _conv(
        self,
        position: int,
        x: str,
        weight: Int,
        bias: Int | None,
        stride: Pair,
        pads: Pads,
        groups: int,
        signs: Int | None,
    ) -> str:
        edge = self.graph.edges[position]
        y = self.node(
            "Conv",
            [x, self.weights(weight, position)],
            _span(self.graph, position, edge.shape),
            kernel_shape=weight.shape[2:],
            strides=stride,
            pads=pads,
            group=groups,
            dilations=(1, 1),
        )
        return self._biased(y, bias, edge, signs, position)

    def _biased(self, y: str, bias: Int | None, edge: Edge, signs: Int | None, position: int) -> str:
        if bias is None:
            return y
        shape = (1, -1, *[1] * (len(edge.shape) - 1))
        low, high = int(bias.min()), int(bias.max())
        added = self.constant(bias.reshape(shape), "bias", _datatype(low, high))
        return self.node("Add", [y, added], _span(self.graph, position, edge.shape))

    def _thresholds(self, position: int, x: str, op: MultiThreshold, flipped: bool) -> str:
        graph = self.graph
        edge = graph.edges[position]
        source = graph.edges[graph.nodes[position].inputs[0]]
        lows, highs = source.lows, source.highs
        signs = _signs(op, edge)
        if signs is not None and (signs < 0).any():
            lows, highs = np.where(signs > 0, lows, -highs), np.where(signs > 0, highs, -lows)
            if not flipped:
                shape = (1, -1, *[1] * (len(edge.shape) - 1))
                factors = self.constant(signs.reshape(shape), "signs", "BIPOLAR")
                x = self.node("Mul", [x, factors], (edge.shape, int(lows.min()), int(highs.max())))
        channels = edge.shape[0]
        table = np.broadcast_to(op.thresholds, (channels, op.thresholds.shape[1]))
        # beyond these a threshold is always or never reached, and float32 may not hold it
        table = np.clip(table, lows[:, None], highs[:, None] + 1)
        levels = np.array(op.levels, dtype=np.int64)
        steps = np.diff(levels)
        scale = 1
        if len(steps) and (steps == steps[0]).all():
            scale = int(steps[0])
        else:
            table = np.repeat(table, steps, axis=1)  # equal thresholds skip levels
        if table.shape[1] == 0:
            table = highs[:, None] + 1
        if table.size > MOST_THRESHOLDS:
            raise ExportError(
                f"{graph.label(position)}: {table.size} thresholds, at most {MOST_THRESHOLDS} are written"
            )
        if (table == table[0]).all():
            table = table[:1]
        low, high = int(levels[0]), int(levels[0]) + scale * table.shape[1]
        datatype = "BIPOLAR" if op.levels == (-1, 1) else _datatype(low, high)
        name = f"{graph.nodes[position].name or f'node{position}'}_thresholds"
        output = self.node(
            "MultiThreshold",
            [x, self.constant(table, name, _datatype(int(table.min()), int(table.max())))],
            (edge.shape, low, high),
            domain=DOMAIN,
            out_scale=float(scale),
            out_bias=float(low),
            out_dtype=datatype,
            data_layout="NCHW" if len(edge.shape) == 3 else "NC",
        )
        self.datatypes[output] = datatype
        return output

    def _requantized(self, position: int, x: str, op: Requantize, flipped: bool) -> str:
        graph = self.graph
        edge = graph.edges[position]
        source = graph.edges[graph.nodes[position].inputs[0]]
        products = np.maximum(np.abs(source.lows), np.abs(source.highs)) * np.abs(op.multiplier) + np.abs(op.addend)
        if not op.shift.any() and int(products.max()) < EXACT_IN_FLOAT32 and not flipped:
            # whole numbers in, whole numbers out: a product and a sum that float32 holds
            shape = (-1, *[1] * (len(edge.shape) - 1))
            ends = [source.lows * op.multiplier + op.addend, source.highs * op.multiplier + op.addend]
            bounds = (edge.shape, int(np.minimum(*ends).min()), int(np.maximum(*ends).max()))
            if (op.multiplier != 1).any():
                factor = self.constant(op.multiplier.reshape(1, *shape), "multiplier")
                x = self.node("Mul", [x, factor], (edge.shape, 1 - EXACT_IN_FLOAT32, EXACT_IN_FLOAT32 - 1))
            if op.addend.any():
                x = self.node("Add", [x, self.constant(op.addend.reshape(1, *shape), "addend")], bounds)
            if bounds[1] < op.lowest or bounds[2] > op.highest:
                limits = [self.constant(v, n) for v, n in ((op.lowest, "lowest"), (op.highest, "highest"))]
                x = self.node("Clip", [x, *limits], edge)
            return x
        if (edge.highest - edge.lowest) * edge.shape[0] > MOST_THRESHOLDS:
            raise ExportError(
                f"{graph.label(position)}: {edge.highest - edge.lowest} levels of {edge.shape[0]} channels;"
                f" at most {MOST_THRESHOLDS} thresholds are written"
            )
        reachable = Requantize(op.multiplier, op.addend, op.shift, edge.lowest, edge.highest)
        table = thresholds_of(reachable, edge.shape[0])
        levels = tuple(range(edge.lowest, edge.highest + 1))
        return self._thresholds(position, x, MultiThreshold(table, levels, _signs(op, edge)), flipped)

    def _clipped(self, position: int, y: str, lowest: int, highest: int) -> str:
        edge = self.graph.edges[position]
        bits = Edge((1,), np.array([lowest]), np.array([highest])).bits
        ends = {(0, 2**bits - 1): (0, 0), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1): (1, 0)}
        ends[(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)] = (1, 1)
        if (lowest, highest) in ends and bits > 1:
            signed, narrow = ends[lowest, highest]
            inputs = [self.constant(v, n) for v, n in ((1.0, "scale"), (0.0, "zero"), (float(bits), "bits"))]
            return self.node(
                "Quant", [y, *inputs], edge, domain=DOMAIN, signed=signed, narrow=narrow, rounding_mode="ROUND"
            )
        limits = [self.constant(v, n) for v, n in ((lowest, "lowest"), (highest, "highest"))]
        return self.node("Clip", [y, *limits], edge)

    def _shifted(self, y: str, edge: Edge, shift: int) -> str:
        """floor(y / 2**shift). float32 divides by powers of two exactly."""
        if shift == 0:
            return y
        wide = edge.bits + shift
        inputs = [
            self.constant(v, n)
            for v, n in ((1.0, "scale"), (0.0, "zero"), (float(wide), "bits_in"), (float(wide - shift), "bits_out"))
        ]
        return self.node("Trunc", [y, *inputs], edge, domain=DOMAIN, rounding_mode="FLOOR")

    def _argmax(self, x: str, source: Edge, edge: Edge, last: bool) -> str:
        """TopK, the form that FINN knows; of equal elements ONNX puts the first one first."""
        helper = self.onnx.helper
        name = self._name("TopK_0")
        values, indices = f"{name}_out0", f"{name}_out1"
        one = self.constant([1], "k", kind=np.int64)
        self.nodes.append(helper.make_node("TopK", [x, one], [values, indices], name=name, axis=-1))
        self.infos.append(helper.make_tensor_value_info(values, self.onnx.TensorProto.FLOAT, [1, 1]))
        self.infos.append(helper.make_tensor_value_info(indices, self.onnx.TensorProto.INT64, [1, 1]))
        self.datatypes[values] = _datatype(source.lowest, source.highest)
        self.datatypes[indices] = _datatype(edge.lowest, edge.highest)
        if last:
            return indices
        return self.node("Cast", [indices], edge, to=int(self.onnx.TensorProto.FLOAT))


def _signs(op: object, edge: Edge) -> Int | None:
    """Signs of an activation, (C,)."""
    if isinstance(op, MultiThreshold):
        return op.signs
    if isinstance(op, Requantize) and (op.multiplier < 0).any():
        return np.ascontiguousarray(np.broadcast_to(np.where(op.multiplier < 0, -1, 1), edge.shape[:1]))
    return None


def _span(graph: IntegerGraph, position: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """A range for a sum that stands before its bias, its shift or a change of sign."""
    most = graph.partial_sums(position)
    return shape, -most, most


def _datatype(low: int, high: int) -> str:
    """qonnx's name for the narrowest integers from `low` to `high`."""
    if low < 0:
        return f"INT{max((-low - 1).bit_length(), high.bit_length()) + 1}"
    return "BINARY" if high <= 1 else f"UINT{high.bit_length()}"
