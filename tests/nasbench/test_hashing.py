"""Hashes and isomorphism, against all permutations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bitwright.nasbench.hashing import gen_is_edge_fn, hash_module, is_full_dag, is_isomorphic, num_edges, permute_graph

CELL = [[0, 1, 1, 1, 1, 0, 0], *[[0] * 6 + [1]] * 3, [0, 0, 0, 0, 0, 1, 0], [0] * 6 + [1], [0] * 7]
LABELS = [-1, 0, 1, 2, 0, 0, -2]


def test_the_hash_of_the_published_cell() -> None:
    assert hash_module(CELL, LABELS) == "28cfc7874f6d200472e1a9dcd8650aa0"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float32, np.float64, bool, object])
def test_the_hash_does_not_depend_on_the_type_of_the_matrix(dtype: type) -> None:
    assert hash_module(np.array(CELL).astype(dtype), np.array(LABELS)) == "28cfc7874f6d200472e1a9dcd8650aa0"


def test_the_hash_does_not_depend_on_the_order_of_the_vertices() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        graph, labels = permute_graph(CELL, LABELS, generator.permutation(7).tolist())
        assert hash_module(graph, labels) == hash_module(CELL, LABELS)


def test_a_permutation_moves_vertices_to_their_new_places() -> None:
    graph, labels = permute_graph([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["a", "b", "c"], [2, 0, 1])
    assert labels == ["b", "c", "a"]
    assert np.argwhere(graph).tolist() == [[0, 1], [2, 0]]
    with pytest.raises(ValueError, match="names each once"):
        permute_graph(CELL, LABELS, [0] * 7)


def brute_force(graph1: np.ndarray, labels1: list[int], graph2: np.ndarray, labels2: list[int]) -> bool:
    return any(
        [labels2[v] for v in order] == labels1 and (graph2[np.ix_(order, order)] == graph1).all()
        for order in itertools.permutations(range(len(labels1)))
    )


def test_isomorphism_is_what_trying_all_permutations_finds() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(400):
        size = int(generator.integers(1, 6))
        graph1 = generator.integers(0, 2, (size, size)) * (generator.random((size, size)) < 0.6)
        labels1 = generator.integers(0, 2, size).tolist()
        if generator.random() < 0.5:
            graph2, labels2 = permute_graph(graph1, labels1, generator.permutation(size).tolist())
            if generator.random() < 0.5:
                graph2[generator.integers(size), generator.integers(size)] ^= 1
        else:
            graph2, labels2 = generator.integers(0, 2, (size, size)), generator.integers(0, 2, size).tolist()
        expected = brute_force(graph1, labels1, graph2, labels2)
        assert is_isomorphic((graph1, labels1), (graph2, labels2)) == expected
        found.append(expected)
    assert 50 < sum(found) < 350


def test_isomorphism_needs_equal_sizes_and_no_fixed_ends() -> None:
    assert not is_isomorphic(([[0]], [1]), (np.zeros((2, 2)), [1, 1]))
    assert is_isomorphic((np.array([[0, 1], [0, 0]]), ["a", "b"]), (np.array([[0, 0], [1, 0]]), ["b", "a"]))


def test_bits_are_edges_column_by_column() -> None:
    edges = np.fromfunction(gen_is_edge_fn(0b101_10_1), (4, 4), dtype=np.int8)
    assert edges.tolist() == [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert gen_is_edge_fn(0b10)(0, 2) and not gen_is_edge_fn(0b10)(2, 0) and not gen_is_edge_fn(1)(1, 1)


def test_a_full_dag_has_no_loose_vertex() -> None:
    assert is_full_dag(CELL)
    assert not is_full_dag([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert not is_full_dag([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    assert num_edges(CELL) == 9
