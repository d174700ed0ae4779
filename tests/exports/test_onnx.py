from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.exports import onnx as exporter
from bitwright.integer.graph import (
    Add,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Input,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Op,
    Requantize,
    SumPool,
)
from bitwright.integer.run import Executor
from random_graphs import random_graph, random_inputs

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def check(graph: IntegerGraph, path: Path, count: int = 5) -> list[str]:
    """Exports, compares with the executor, and returns the lines."""
    lines = exporter.export(graph, path)
    x = random_inputs(graph, count)
    assert np.array_equal(exporter.execute(path, x), Executor(graph)(torch.from_numpy(x)).numpy())
    return lines


def chain(*ops: Op) -> IntegerGraph:
    return IntegerGraph(tuple(Node(op, (i - 1,) if i else ()) for i, op in enumerate(ops)))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def thresholds(graph_input: Op, conv: Op, levels: int, seed: int = 0) -> MultiThreshold:
    """rint((sum + offset) * multiplier), over about the range of `conv`, another line in every channel."""
    rng = np.random.default_rng(seed)
    edge = chain(graph_input, conv).output
    rows = []
    for low, high in zip(edge.lows, edge.highs, strict=True):
        multiplier, offset = levels / (high - low) * rng.uniform(1.1, 2.5), -round(low * rng.uniform(0.4, 0.9))
        rows.append(np.ceil((np.arange(1, levels) - 0.5) / multiplier - offset))
    return MultiThreshold(np.array(rows, dtype=np.int64), tuple(range(levels)))


@pytest.mark.parametrize("block", range(8))
def test_a_random_graph_computes_the_same_in_onnxruntime(block: int, tmp_path: Path) -> None:
    for seed in range(block * 25, block * 25 + 25):
        check(random_graph(seed), tmp_path / f"{seed}.onnx")


def test_no_activation_is_floating_point_and_no_operator_is_special(tmp_path: Path) -> None:
    """Floats are constants only, and those only scales and multipliers of QLinearConv."""
    path = tmp_path / "net.onnx"
    for seed in range(60):
        exporter.export(random_graph(seed), path)
        model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
        graph = model.graph
        assert {node.domain for node in graph.node} == {""}
        kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
        for node in graph.node:
            for name in node.output:
                assert kinds[name] in (2, 3, 6, 7, 9), (seed, node.op_type)  # uint8, int8, int32, int64, bool
        floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name in floats:
                    assert node.op_type == "QLinearConv" and place in (1, 4, 6)


@pytest.mark.parametrize("levels", [2, 3, 4, 16, 128, 256])
def test_a_convolution_and_its_thresholds_are_one_operator(levels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(levels)
    first = Input((8, 9, 9), 0, 15)
    conv = Conv(rng.integers(-7, 8, (6, 8, 3, 3)), rng.integers(-50, 50, 6), (2, 1), (1, 0, 2, 1))
    lines = check(chain(first, conv, thresholds(first, conv, levels)), tmp_path / "net.onnx")
    wanted = ["QLinearConv", "Clip", "Cast", "Identity"]
    assert operators(tmp_path / "net.onnx") == [w for w in wanted if w != "Clip" or levels < 256]
    assert len(lines) == 1


def test_minus_128_and_falling_thresholds_keep_their_sign_in_the_multiplier(tmp_path: Path) -> None:
    first = Input((1, 4, 4), 0, 3)
    weight = np.array([-128, 127, -128], dtype=np.int64).reshape(3, 1, 1, 1)
    table = np.array([[-300, -180, -60], [-300, -180, -60], [60, 180, 300]])
    activation = MultiThreshold(table, (-1, 0, 1, 2), np.array([1, -1, -1]))
    check(chain(first, Conv(weight), activation), tmp_path / "net.onnx", 50)
    scales = [t for t in onnx.load(tmp_path / "net.onnx").graph.initializer if list(t.dims) == [3] and t.data_type == 1]
    assert (onnx.numpy_helper.to_array(scales[0]) < 0).tolist() == [False, False, True]


def test_binary_values_are_two_codes_of_eight_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = Input((16, 8, 8), -1, 1)
    weight = rng.choice([-1, 1], (16, 16, 3, 3))
    activation = MultiThreshold(rng.integers(-20, 20, (16, 1)), (-1, 1), rng.choice([-1, 1], 16))
    graph = chain(
        first,
        Conv(weight),
        activation,
        Conv(weight),
        activation,
        Flatten(),
        MatMul(weight[:2].reshape(2, -1)[:, :144].repeat(2, 1)[:, :256]),
    )
    check(graph, tmp_path / "net.onnx")
    assert operators(tmp_path / "net.onnx").count("QLinearConv") == 2


def test_a_requantization_with_an_offset_in_steps_of_the_sum_is_one_operator(tmp_path: Path) -> None:
    """The form that our own lowering makes, with eight bits on both sides."""
    rng = np.random.default_rng(3)
    first = Input((4, 8, 8), 0, 255)
    weight = rng.integers(-63, 64, (5, 4, 3, 3))
    multiplier = rng.integers(2**23, 2**24, 5)
    shift = np.full(5, 31)
    addend = multiplier * rng.integers(-9000, 9000, 5) + 2**30
    graph = chain(first, Conv(weight), Requantize(multiplier, addend, shift, 0, 255))
    assert len(check(graph, tmp_path / "net.onnx")) == 1
    assert "QLinearConv" in operators(tmp_path / "net.onnx")


def test_a_mean_over_the_image_is_one_operator(tmp_path: Path) -> None:
    for op in (GlobalSumPool(6), SumPool((4, 4), (4, 4), shift=4), SumPool((3, 3), (2, 2), (1, 1, 1, 1), 3)):
        graph = chain(Input((5, 8, 8), -8, 7), op)
        assert len(check(graph, tmp_path / "net.onnx")) == 1
        assert "QLinearConv" in operators(tmp_path / "net.onnx")


def test_weights_that_may_saturate_without_vnni_are_reported(tmp_path: Path) -> None:
    first = Input((8, 5, 5), 0, 255)
    conv = Conv(np.full((2, 8, 3, 3), 120, dtype=np.int64))
    lines = check(chain(first, conv, thresholds(first, conv, 4)), tmp_path / "net.onnx")
    assert any("node 2 (MultiThreshold): 8-bit weights on 8-bit values" in line for line in lines)


def test_thresholds_on_no_line_become_a_table_and_are_reported(tmp_path: Path) -> None:
    first, conv = Input((2, 4, 4), 0, 15), Conv(np.ones((2, 2, 3, 3), dtype=np.int64))
    crooked = MultiThreshold(np.array([[1, 2, 3, 150, 200], [5, 100, 101, 102, 260]]), (0, 1, 2, 3, 4, 5))
    lines = check(chain(first, conv, crooked), tmp_path / "net.onnx", 40)
    assert any("no line fits it" in line for line in lines)
    assert "Gather" in operators(tmp_path / "net.onnx")


def test_thresholds_on_no_line_over_a_wide_range_become_comparisons(tmp_path: Path) -> None:
    first = Input((3, 4, 4), 0, 255)
    conv = Conv(np.full((3, 3, 3, 3), 30_000, dtype=np.int64) + np.arange(3)[:, None, None, None])
    crooked = MultiThreshold(np.array([[10**6, 10**7, 10**7 + 1, 10**8]]), (-5, 0, 1, 7, 8))
    lines = check(chain(first, conv, crooked), tmp_path / "net.onnx", 40)
    assert any("4 comparisons" in line for line in lines)


def test_branches_of_different_zero_points_are_joined(tmp_path: Path) -> None:
    nodes: list[Any] = [Node(Input((3, 6, 6), -8, 7))]
    nodes.append(Node(MultiThreshold(np.array([[-3, 0, 4]]), (0, 1, 2, 3)), (0,)))
    nodes.append(Node(Concat(), (0, 1)))
    nodes.append(Node(MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), (2,)))
    nodes.append(Node(Add(-4, 5), (3, 3)))
    nodes.append(Node(Conv(np.full((2, 6, 3, 3), 3, dtype=np.int64), None, (1, 1), (1, 1, 1, 1)), (4,)))
    nodes.append(Node(MultiThreshold(np.array([[-100, 0, 70]]), (0, 1, 2, 3)), (5,)))
    check(IntegerGraph(tuple(nodes)), tmp_path / "net.onnx", 20)


def test_batches_of_any_size_are_taken(tmp_path: Path) -> None:
    graph = random_graph(8)
    exporter.export(graph, tmp_path / "net.onnx")
    for count in (2, 7, 33):
        x = random_inputs(graph, count)
        assert np.array_equal(exporter.execute(tmp_path / "net.onnx", x), Executor(graph)(torch.from_numpy(x)).numpy())
