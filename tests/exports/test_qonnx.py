from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.errors import ExportError
from bitwright.exports import qonnx as exporter
from bitwright.integer.graph import (
    Argmax,
    Conv,
    Flatten,
    Input,
    IntegerGraph,
    MatMul,
    MultiThreshold,
    Node,
    Op,
    Requantize,
)
from bitwright.integer.run import Executor
from random_graphs import random_graph, random_inputs

onnx = pytest.importorskip("onnx")
pytest.importorskip("qonnx")


def check(graph: IntegerGraph, path: Path, count: int = 5) -> list[str]:
    lines = exporter.export(graph, path)
    x = random_inputs(graph, count)
    assert np.array_equal(exporter.execute(path, x), Executor(graph)(torch.from_numpy(x)).numpy())
    return lines


def chain(*ops: Op) -> IntegerGraph:
    return IntegerGraph(tuple(Node(op, (i - 1,) if i else (), f"layer{i}") for i, op in enumerate(ops)))


@pytest.mark.parametrize("block", range(6))
def test_a_random_graph_computes_the_same_in_qonnx(block: int, tmp_path: Path) -> None:
    for seed in range(block * 20, block * 20 + 20):
        check(random_graph(seed, widest=2**24), tmp_path / f"{seed}.onnx")


def binary_network(first: Input) -> IntegerGraph:
    rng = np.random.default_rng(0)
    activation = MultiThreshold(rng.integers(-9, 9, (4, 1)), (-1, 1), rng.choice([-1, 1], 4))
    weight = rng.choice([-1, 1], (4, 4, 3, 3))
    return chain(
        first, Conv(rng.integers(-1, 2, (4, 1, 3, 3))), activation, Conv(weight), activation, Flatten(),
        MatMul(rng.integers(-8, 8, (10, 4 * (first.shape[1] - 4) ** 2))), Argmax(),
    )  # fmt: skip


def test_weights_and_values_have_the_types_of_a_binary_network(tmp_path: Path) -> None:
    graph = binary_network(Input((1, 8, 8), 0, 255))
    check(graph, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx").graph
    kinds = {node.op_type for node in model.node}
    assert kinds == {"Quant", "BipolarQuant", "Conv", "MultiThreshold", "Flatten", "MatMul", "TopK"}
    types = {n.tensor_name: n.quant_parameter_tensor_names[0].value for n in model.quantization_annotation}
    assert types["global_in"] == "UINT8"
    made = {node.op_type: [types.get(o) for o in node.output] for node in model.node}
    assert made["BipolarQuant"] == ["BIPOLAR"] and made["Quant"] == ["INT4"]
    first = next(n for n in model.node if n.op_type == "Quant")
    assert types[first.output[0]] == "TERNARY"
    threshold = next(n for n in model.node if n.op_type == "MultiThreshold")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in threshold.attribute}
    assert (attributes["out_scale"], attributes["out_bias"], attributes["out_dtype"]) == (2.0, -1.0, b"BIPOLAR")


def test_the_tools_of_qonnx_take_the_file_as_it_is(tmp_path: Path) -> None:
    """Shapes and data types are inferred again from scratch and agree."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.util.cleanup import cleanup_model

    graph = binary_network(Input((1, 8, 8), 0, 255))
    exporter.export(graph, tmp_path / "net.onnx")
    model = ModelWrapper(str(tmp_path / "net.onnx"))
    assert model.check_all_tensor_shapes_specified()
    before = model.get_tensor_shape(model.graph.output[0].name)
    model = cleanup_model(model).transform(InferShapes()).transform(InferDataTypes())
    assert model.get_tensor_shape(model.graph.output[0].name) == before


def test_sums_that_float32_does_not_hold_are_refused_by_name(tmp_path: Path) -> None:
    graph = chain(Input((8, 4, 4)), Conv(np.full((1, 8, 3, 3), 1000, dtype=np.int64)))
    with pytest.raises(ExportError, match=r"node 1 \(Conv layer1\): sums of up to 18360000"):
        exporter.export(graph, tmp_path / "net.onnx")


def test_a_shift_of_nothing_is_arithmetic_and_not_a_table(tmp_path: Path) -> None:
    one = np.ones(1, dtype=np.int64)
    graph = chain(Input((2, 3, 3)), Requantize(3 * one, 5 * one, 0 * one, -1000, 700))
    check(graph, tmp_path / "net.onnx")
    assert [n.op_type for n in onnx.load(tmp_path / "net.onnx").graph.node] == ["Mul", "Add", "Clip"]
