"""ModelSpec: what it takes, what it refuses, what it prunes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.errors import ExportError
from bitwright.nasbench import ModelSpec, OutOfDomainError
from bitwright.nasbench.config import AVAILABLE_OPS
from bitwright.nasbench.spec import check_spec

A, B, C = AVAILABLE_OPS
LOOSE = [[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
LOOSE_OPS = ["input", A, B, C, "output"]


def test_vertices_off_every_way_are_pruned() -> None:
    spec = ModelSpec(LOOSE, LOOSE_OPS)  # 1 leads nowhere, 3 comes from nowhere
    assert spec.valid_spec
    assert spec.matrix.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert spec.ops == ["input", B, "output"]
    assert (spec.original_matrix.tolist(), spec.original_ops, spec.data_format) == (LOOSE, LOOSE_OPS, "channels_last")


def test_nothing_is_shared_with_what_was_given() -> None:
    matrix, ops = np.array(LOOSE), list(LOOSE_OPS)
    spec = ModelSpec(matrix, ops)
    matrix[:] = 0
    ops[2] = C
    assert spec.original_matrix.tolist() == LOOSE and spec.original_ops == LOOSE_OPS
    assert spec.matrix.sum() == 3 and spec.ops[1] == B


@pytest.mark.parametrize("matrix", [[[0, 0], [0, 0]], [[0]], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]])
def test_a_graph_without_a_way_is_not_valid(matrix: list[list[int]]) -> None:
    spec = ModelSpec(matrix, ["input", "x", "output"][: len(matrix)])
    assert (spec.valid_spec, spec.matrix, spec.ops) == (False, None, None)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.float32, np.float64, bool, object])
@pytest.mark.parametrize("sequence", [list, tuple, np.array])
def test_numbers_and_sequences_of_any_type_give_one_hash(dtype: type, sequence: Any) -> None:
    spec = ModelSpec(np.array(LOOSE, dtype), sequence(LOOSE_OPS))
    assert spec.hash_spec(AVAILABLE_OPS) == ModelSpec(LOOSE, LOOSE_OPS).hash_spec(list(AVAILABLE_OPS))
    assert spec.ops == ["input", B, "output"]
    assert spec.matrix.dtype.kind in "iu"


@pytest.mark.parametrize(
    ("matrix", "ops", "said"),
    [
        ([[0, 1, 0], [0, 0, 1]], ["input", A], "matrix must be square"),
        ([0, 1], ["input", "output"], "matrix must be square"),
        ([[0, 1], [1, 0]], ["input", A, "output"], "length of ops must match matrix dimensions"),
        ([[0, 1], [1, 0]], ["input", "output"], "matrix must be upper triangular"),
        ([[1, 2], [0, 0]], ["input", "output"], "matrix must be upper triangular"),
        ([[0, 2], [0, 0]], ["input", "output"], "entries of matrix must be 0 or 1"),
        ([[0, -1], [0, 0]], ["input", "output"], "entries of matrix must be 0 or 1"),
        ([[0, 0.5], [0, 0]], ["input", "output"], "entries of matrix must be 0 or 1"),
        ([[0, float("nan")], [0, 0]], ["input", "output"], "entries of matrix must be 0 or 1"),
        ([["0", "1"], ["0", "x"]], ["input", "output"], "entries of matrix must be 0 or 1"),
    ],
)
def test_what_is_no_module_is_a_value_error(matrix: Any, ops: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelSpec(matrix, ops)


def chain(vertices: int) -> list[list[int]]:
    return [[int(y == x + 1) for y in range(vertices)] for x in range(vertices)]


@pytest.mark.parametrize(
    ("matrix", "ops", "said"),
    [
        ([[0, 0], [0, 0]], ["x", "y"], "invalid spec, provided graph is disconnected."),
        (chain(8), ["x"] * 8, r"too many vertices, got 8 \(max vertices = 7\)"),
        (np.triu(np.ones((5, 5), int), 1), ["x"] * 5, r"too many edges, got 10 \(max edges = 9\)"),
        (chain(3), ["x", "x", "x"], "first operation should be 'input'"),
        (chain(3), ["input", "x", "x"], "last operation should be 'output'"),
        (chain(3), ["input", "x", "output"], r"unsupported op x \(available ops = \['conv3x3-bn-relu', 'conv1x1"),
        (chain(3), ["input", "input", "output"], "unsupported op input"),
    ],
)
def test_checks_come_in_the_originals_order_with_its_texts(matrix: Any, ops: list[str], said: str) -> None:
    with pytest.raises(OutOfDomainError, match=f"^{said}"):
        check_spec(ModelSpec(matrix, ops))


def test_the_hash_takes_the_order_of_operations_it_is_given() -> None:
    spec = ModelSpec(chain(3), ["ignored", B, "ignored too"])
    assert spec.hash_spec([B]) == ModelSpec(chain(3), ["input", A, "output"]).hash_spec([A, B, C])
    with pytest.raises(ValueError, match="not in list"):
        spec.hash_spec([A, C])


def test_a_spec_is_drawn_with_a_node_per_vertex() -> None:
    graphviz = pytest.importorskip("graphviz")
    drawing = ModelSpec(LOOSE, LOOSE_OPS).visualize()
    expected = graphviz.Digraph()
    for name, label in zip("012", ("input", B, "output"), strict=True):
        expected.node(name, label)
    for ends in ("01", "02", "12"):
        expected.edge(*ends)
    assert drawing.source == expected.source


def test_without_graphviz_an_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "graphviz", None)
    with pytest.raises(ExportError, match="graphviz"):
        ModelSpec(chain(2), ["input", "output"]).visualize()
