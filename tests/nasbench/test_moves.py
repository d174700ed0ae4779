"""Sampling, mutation, neighbours and edit distance, against brute force and the original notebook's procedure."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from bitwright.nasbench import ModelSpec, OutOfDomainError
from bitwright.nasbench.config import AVAILABLE_OPS
from bitwright.nasbench.moves import edit_distance, edit_distances, in_space, mutate_spec, neighbours, random_spec
from bitwright.nasbench.space import space

OPS = list(AVAILABLE_OPS)


def test_the_notebooks_sampler_has_its_bias() -> None:
    draw = np.random.RandomState(0)
    sizes = np.bincount([len(random_spec(draw).ops) for _ in range(3000)], minlength=8) / 3000
    assert np.abs(sizes[2:] - [0.097, 0.202, 0.275, 0.303, 0.119, 0.0031]).max() < 0.03


def test_the_notebooks_sampler_draws_as_numpys_global_generator_does() -> None:
    draw = np.random.RandomState(7)
    specs = [random_spec(draw) for _ in range(5)]
    np.random.seed(7)
    for spec in specs:
        while True:
            matrix = np.triu(np.random.choice([0, 1], size=(7, 7)), 1)
            ops = np.random.choice(OPS, size=7).tolist()
            expected = ModelSpec(matrix, ["input", *ops[1:-1], "output"])
            if in_space(expected):
                break
        assert (spec.original_matrix == expected.original_matrix).all() and spec.ops == expected.ops


def test_mutation_draws_as_the_notebook_does_with_the_module_random() -> None:
    parents = [space().spec(0), random_spec(np.random.RandomState(1))]
    draw = random.Random(3)
    children = [mutate_spec(parent, draw) for parent in parents * 20]
    random.seed(3)
    for parent, child in zip(parents * 20, children, strict=True):
        while True:
            matrix, ops = parent.original_matrix.copy(), list(parent.original_ops)
            for source in range(6):
                for target in range(source + 1, 7):
                    if random.random() < 1 / 7:
                        matrix[source, target] = 1 - matrix[source, target]
            for v in range(1, 6):
                if random.random() < 1 / 5:
                    ops[v] = random.choice([op for op in OPS if op != ops[v]])
            expected = ModelSpec(matrix, ops)
            if in_space(expected):
                break
        assert (child.original_matrix == expected.original_matrix).all()
        assert child.original_ops == expected.original_ops and in_space(child)


def test_a_rate_of_zero_changes_nothing() -> None:
    parent = space().spec(0)
    child = mutate_spec(parent, random.Random(0), 0.0)
    assert (child.original_matrix == parent.original_matrix).all() and child.ops == parent.ops


def forms(row: int) -> list[tuple[np.ndarray, list[str]]]:
    """A module in every order of its vertices that points forward."""
    matrix, ops = space().matrix(row), space().operations(row)
    last = len(ops) - 1
    orders = [(0, *inner, last) for inner in itertools.permutations(range(1, last))]
    moved = [(matrix[np.ix_(order, order)], [ops[v] for v in order]) for order in orders]
    return [form for form in moved if not np.tril(form[0]).any()]


def by_hand(row: int) -> set[int]:
    """Every edit of every form, one spec after another."""
    edited = []
    for matrix, ops in forms(row):
        for x, y in itertools.combinations(range(len(ops)), 2):
            changed = matrix.copy()
            changed[x, y] ^= 1
            edited.append((changed, ops))
        for v in range(1, len(ops) - 1):
            edited += [(matrix, [*ops[:v], op, *ops[v + 1 :]]) for op in OPS]
    found = set()
    for changed, names in edited:
        try:
            found.add(space().row_of(changed, names))
        except OutOfDomainError:
            continue
    return found - {row}


def test_neighbours_are_all_single_edits() -> None:
    small = np.flatnonzero(space().rows.vertices <= 4).tolist()
    for row in small + np.random.default_rng(0).integers(len(space()), size=15).tolist():
        found = neighbours(row)
        assert set(found.tolist()) == by_hand(row)
        assert (np.diff(found) > 0).all()


def test_a_module_that_may_grow_reaches_what_loses_a_vertex_of_degree_two() -> None:
    rows = space().rows
    small = np.flatnonzero(rows.vertices <= 4)
    larger = np.flatnonzero(rows.vertices <= 5)
    shrinks: dict[int, set[int]] = {}
    for row in larger.tolist():  # take away each inner vertex with one edge in and one out
        matrix, ops = space().matrix(row), space().operations(row)
        for v in range(1, len(ops) - 1):
            if matrix[:, v].sum() == matrix[v].sum() == 1:
                kept = [u for u in range(len(ops)) if u != v]
                spec = ModelSpec(matrix[np.ix_(kept, kept)], [ops[u] for u in kept])
                if spec.valid_spec and len(spec.ops) == len(ops) - 1:
                    shrinks.setdefault(space().row_of_spec(spec), set()).add(row)
    for row in small.tolist():
        assert set(neighbours(row, grow=True).tolist()) == by_hand(row) | shrinks.get(row, set())


def aligned(first: int, second: int) -> int:
    """The distance by trying all matchings on whole matrices."""
    matrices, labels = [], []
    for row in (first, second):
        small, ops = space().matrix(row), space().operations(row)
        last = len(ops) - 1
        matrix = np.zeros((7, 7), int)
        matrix[:last, :last] = small[:last, :last]
        matrix[:last, 6] = small[:last, last]
        matrices.append(matrix)
        labels.append(ops[1:-1] + [None] * (7 - len(ops)))
    best = 99
    for order in itertools.permutations(range(5)):
        places = [0, *(v + 1 for v in order), 6]
        edges = int((matrices[0] != matrices[1][np.ix_(places, places)]).sum())
        pairs = zip(labels[0], (labels[1][v] for v in order), strict=True)
        best = min(best, edges + sum(None not in pair and pair[0] != pair[1] for pair in pairs))
    return best


def test_edit_distances_are_those_of_the_best_matching() -> None:
    generator = np.random.default_rng(4)
    small = np.flatnonzero(space().rows.vertices <= 5)
    chosen = generator.choice(small, 12).tolist() + generator.integers(len(space()), size=12).tolist()
    for row in chosen[::4]:
        assert edit_distances(row, chosen).tolist() == [aligned(row, other) for other in chosen]


def test_edit_distance_is_a_metric() -> None:
    chosen = np.random.default_rng(5).integers(len(space()), size=40)
    table = np.array([edit_distances(row, chosen) for row in chosen.tolist()])
    assert (table == table.T).all()
    assert ((table == 0) == (chosen[:, None] == chosen)).all()
    assert (table[:, None, :] <= table[:, :, None] + table[None]).all()


def test_a_changed_operation_is_one_edit_and_a_new_vertex_costs_its_edges() -> None:
    direct = space().row_of([[0, 1], [0, 0]], ["input", "output"])
    chain = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    one, other = (space().row_of(chain, ["input", op, "output"]) for op in OPS[:2])
    assert edit_distance(one, other) == 1
    assert edit_distance(direct, one) == 3  # two new edges, one gone


@pytest.mark.parametrize("row", [0, 423_623, 200_000])
def test_neighbours_that_only_change_an_operation_are_at_distance_one(row: int) -> None:
    rows = space().rows
    found = neighbours(row)
    same = found[rows.edges[found] == rows.edges[row]]
    assert len(same) and (edit_distances(row, same)[rows.vertices[same] == rows.vertices[row]] <= 2).all()
