"""Encodings, against examples by hand and the conventions of the projects that use them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bitwright.errors import ConfigError
from bitwright.nasbench import encodings
from bitwright.nasbench.encodings import (
    adjacency_one_hot,
    as_tuple,
    from_nas_benchmarks_a,
    from_nas_benchmarks_b,
    from_nas_benchmarks_c,
    from_tuple,
    nas_benchmarks_a,
    nas_benchmarks_b,
    nas_benchmarks_c,
    path_encoding,
    path_encodings,
)
from bitwright.nasbench.hashing import gen_is_edge_fn
from bitwright.nasbench.space import space

C3, C1, MP = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
SMALL = [[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
SMALL_OPS = ["input", MP, C1, "output"]


def some_rows(count: int = 40) -> list[int]:
    small = np.flatnonzero(space().rows.vertices <= 4)[:20].tolist()
    return small + np.random.default_rng(0).integers(len(space()), size=count).tolist()


def test_a_small_module_lies_in_seven_vertices_with_its_output_last() -> None:
    matrix, ops = encodings.padded(SMALL, SMALL_OPS)
    assert np.argwhere(matrix).tolist() == [[0, 1], [0, 2], [1, 2], [1, 6], [2, 6]]
    assert ops == ["input", MP, C1, C3, C3, C3, "output"]
    with pytest.raises(ConfigError, match="2 to 7 vertices"):
        encodings.padded(np.zeros((8, 8)), ["x"] * 8)


def test_edges_row_by_row_then_operations_one_hot() -> None:
    first = [1, 1, 0, 0, 0, 0]  # from the input to vertices 1 .. 6
    second = [1, 0, 0, 0, 1]
    third = [0, 0, 0, 1]
    operations = [1, 0, 0] + [0, 0, 1] + [0, 1, 0] * 3  # maxpool, conv3x3, conv1x1
    assert adjacency_one_hot(SMALL, SMALL_OPS).tolist() == first + second + third + [0] * 6 + operations


def test_paths_have_bijective_base_three_indices() -> None:
    # input-maxpool-output 3; input-conv1x1-output 2; input-maxpool-conv1x1-output 3 + 3 * 2
    assert np.flatnonzero(path_encoding(SMALL, SMALL_OPS)).tolist() == [2, 3, 9]
    assert np.flatnonzero(path_encoding([[0, 1], [0, 0]], ["input", "output"])).tolist() == [0]
    chain = np.eye(7, k=1, dtype=int)
    assert np.flatnonzero(path_encoding(chain, ["input", *[MP] * 5, "output"])).tolist() == [363]
    assert len(path_encoding(SMALL, SMALL_OPS)) == 364


def test_paths_are_those_that_trying_all_subsets_of_vertices_finds() -> None:
    rows = space().rows
    chosen = some_rows()
    for row, encoded in zip(chosen, path_encodings(rows.matrices[chosen], rows.labels[chosen]), strict=True):
        matrix, labels = space().matrix(row), rows.labels[row]
        last = len(matrix) - 1
        expected = set()
        for length in range(last):
            for inner in itertools.combinations(range(1, last), length):
                way = (0, *inner, last)
                if all(matrix[x, y] for x, y in itertools.pairwise(way)):
                    expected.add(sum(3**i * (int(labels[v]) + 1) for i, v in enumerate(inner)))
        assert set(np.flatnonzero(encoded).tolist()) == expected
        assert (path_encoding(matrix, space().operations(row)) == encoded).all()


def test_paths_do_not_depend_on_the_order_of_vertices() -> None:
    matrix = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    one, other = (path_encoding(matrix, ["input", *ops, "output"]) for ops in ((C3, MP), (MP, C3)))
    assert (one == other).all()


def test_fifty_six_numbers_are_the_module() -> None:
    numbers = as_tuple(SMALL, SMALL_OPS)
    assert numbers[:7] == (0, 1, 1, 0, 0, 0, 0)
    assert numbers[49:] == (0, 2, 3, 4, 4, 4, 1)  # input, maxpool, conv1x1, three conv3x3, output
    matrix, ops = from_tuple(numbers)
    assert (matrix == encodings.padded(SMALL, SMALL_OPS)[0]).all() and ops == encodings.padded(SMALL, SMALL_OPS)[1]
    with pytest.raises(ConfigError, match="56 numbers"):
        from_tuple((1, 2))


def test_nas_benchmarks_a_counts_edges_row_by_row() -> None:
    config = nas_benchmarks_a(SMALL, SMALL_OPS)
    assert [i for i in range(21) if config[f"edge_{i}"]] == [0, 1, 6, 10, 14]
    assert [config[f"op_node_{i}"] for i in range(5)] == [MP, C1, C3, C3, C3]


def test_nas_benchmarks_b_is_read_as_its_authors_do() -> None:
    for row in some_rows():
        config = nas_benchmarks_b(space().matrix(row), space().operations(row))
        digits = ["0"] * 21
        for i in range(9):
            digits[config[f"edge_{i}"]] = "1"
        theirs = np.fromfunction(gen_is_edge_fn(int("".join(digits), 2)), (7, 7), dtype=np.int8)
        assert (from_nas_benchmarks_b(config)[0] == theirs).all()


def test_nas_benchmarks_c_takes_the_largest_numbers() -> None:
    config = {f"edge_{i}": i / 100 for i in range(21)} | {f"op_node_{i}": C1 for i in range(5)} | {"num_edges": 2}
    matrix, ops = from_nas_benchmarks_c(config)
    assert np.argwhere(matrix).tolist() == [[4, 6], [5, 6]]  # the last two of the upper triangle
    assert ops == ["input", *[C1] * 5, "output"]


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (as_tuple, from_tuple),
        (nas_benchmarks_a, from_nas_benchmarks_a),
        (nas_benchmarks_b, from_nas_benchmarks_b),
        (nas_benchmarks_c, from_nas_benchmarks_c),
    ],
)
def test_the_way_back_leads_to_the_same_module(there, back) -> None:
    for row in some_rows():
        assert space().row_of(*back(there(space().matrix(row), space().operations(row)))) == row


def test_an_unknown_operation_is_an_error() -> None:
    with pytest.raises(ConfigError, match="conv5x5"):
        adjacency_one_hot(SMALL, ["input", "conv5x5", C1, "output"])
