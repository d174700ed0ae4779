"""Moving about in the space: the notebook's sampler and mutation, neighbours, edit distance."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import AVAILABLE_OPS, INPUT, MAX_EDGES, MODULE_VERTICES, OUTPUT
from .space import LABELS, NO_LABEL, OUTPUT_LABEL, bits_of, space
from .spec import ModelSpec, OutOfDomainError, check_spec

_SLOTS = MODULE_VERTICES * (MODULE_VERTICES - 1) // 2


def random_spec(draw: np.random.RandomState | np.random.Generator) -> ModelSpec:
    """A module as the original notebook draws it: edges and operations at random until they are in the space.

    Biased: 0.3 % of the draws have seven vertices, 84.8 % of the modules do. `Space.sample` is uniform. With
    RandomState(seed) the draws are those of the notebook after np.random.seed(seed).
    """
    while True:
        matrix = np.triu(draw.choice([0, 1], size=(MODULE_VERTICES, MODULE_VERTICES)), 1)
        ops = draw.choice(AVAILABLE_OPS, size=MODULE_VERTICES).tolist()
        spec = ModelSpec(matrix, [INPUT, *ops[1:-1], OUTPUT])
        if in_space(spec):
            return spec


def mutate_spec(spec: ModelSpec, draw: random.Random, mutation_rate: float = 1.0) -> ModelSpec:
    """A module in the space, changed as the original notebook does for regularized evolution.

    Every possible edge of the matrix as it was given flips with probability rate / V, every operation changes with
    rate / (V - 2), until the result is in the space; it may be the same module. With Random(seed) the draws are those
    of the notebook after random.seed(seed).
    """
    vertices = len(spec.original_ops)
    while True:
        matrix, ops = spec.original_matrix.copy(), list(spec.original_ops)
        for source in range(vertices - 1):
            for target in range(source + 1, vertices):
                if draw.random() < mutation_rate / vertices:
                    matrix[source, target] = 1 - matrix[source, target]
        for v in range(1, vertices - 1):
            if draw.random() < mutation_rate / (vertices - 2):
                ops[v] = draw.choice([op for op in AVAILABLE_OPS if op != ops[v]])
        changed = ModelSpec(matrix, ops)
        if in_space(changed):
            return changed


def in_space(spec: ModelSpec) -> bool:
    try:
        check_spec(spec)
    except OutOfDomainError:
        return False
    return True


def neighbours(row: int, *, grow: bool = False) -> NDArray[np.int32]:
    """The rows of other modules that one edit leads to, ascending, each once.

    An edit changes one operation, or adds or removes one edge, in any order of the vertices; what then no longer lies
    between input and output goes too. grow: also add one vertex, with any operation, one edge into it and one out of
    it, if there is room.
    """
    matrix, labels = space().matrix(row), space().rows.labels[row, : space().rows.vertices[row]]
    edited = [*_with_other_labels(matrix, labels), *_with_other_edges(matrix, labels)]
    if grow and len(matrix) < MODULE_VERTICES and matrix.sum() + 2 <= MAX_EDGES:
        edited += _with_a_vertex(matrix, labels)
    bits = np.array([int(bits_of(changed)) for changed, _ in edited], np.int64)
    every = np.full((len(edited), MODULE_VERTICES), NO_LABEL, np.int8)
    for i, (_, labeling) in enumerate(edited):
        every[i, : len(labeling)] = labeling
    found = np.unique(space().lookup(bits, every))
    others: NDArray[np.int32] = found[(found >= 0) & (found != row)]
    return others


_Labelled = tuple[NDArray[np.int8], NDArray[np.int8]]


def _with_other_labels(matrix: NDArray[np.int8], labels: NDArray[np.int8]) -> Iterator[_Labelled]:
    for v in range(1, len(labels) - 1):
        for label in range(LABELS):
            changed = labels.copy()
            changed[v] = label
            yield matrix, changed


def _with_other_edges(matrix: NDArray[np.int8], labels: NDArray[np.int8]) -> Iterator[_Labelled]:
    after = _reachable(matrix)
    for source, target in itertools.permutations(range(len(labels)), 2):
        if not after[target, source]:  # else there would be a circle
            changed = matrix.copy()
            changed[source, target] ^= 1
            yield _in_order(changed, labels)


def _with_a_vertex(matrix: NDArray[np.int8], labels: NDArray[np.int8]) -> Iterator[_Labelled]:
    after = _reachable(matrix)
    larger = np.insert(np.insert(matrix, 1, 0, axis=0), 1, 0, axis=1)  # the new vertex is the second
    for source, target in itertools.permutations(range(len(labels)), 2):
        if not after[target, source]:
            changed = larger.copy()
            changed[source + (source > 0), 1] = changed[1, target + (target > 0)] = 1
            for label in range(LABELS):
                yield _in_order(changed, np.insert(labels, 1, label))


def _reachable(matrix: NDArray[np.int8]) -> NDArray[np.bool_]:
    """[x, y]: a way leads from x to y, or would have to: nothing may lead into the input or out of the output."""
    reached = np.eye(len(matrix), dtype=np.bool_)
    for _ in range(len(matrix)):
        reached |= reached @ (matrix != 0)
    reached[0] = reached[:, -1] = True
    return reached


def _in_order(matrix: NDArray[np.int8], labels: NDArray[np.int8]) -> _Labelled:
    """The same graph with all edges above the diagonal, the input still first and the output last."""
    depth = np.zeros(len(matrix), np.int64)  # the longest way to a vertex
    for _ in range(len(matrix)):
        depth = np.maximum(depth, ((depth + 1)[:, None] * (matrix != 0)).max(0))
    order = [0, *(1 + np.argsort(depth[1:-1], kind="stable")).tolist(), len(matrix) - 1]
    return matrix[np.ix_(order, order)], labels[order]


def edit_distance(first: int, second: int) -> int:
    """The least number of edges added or removed and operations changed that makes one module of the other."""
    return int(edit_distances(first, [second])[0])


def edit_distances(row: int, others: ArrayLike) -> NDArray[np.int32]:
    """Those from one row to many.

    Both modules lie in seven vertices, input on input and output on output, and the inner vertices are matched as is
    best; a vertex that only one of them has costs its edges.
    """
    from . import kernels

    rows = space().rows
    chosen = np.concatenate([[row], np.asarray(others, np.int64).reshape(-1)])
    vertices = rows.vertices[chosen].astype(np.int64)
    below = (vertices - 1) * (vertices - 2) // 2
    bits = rows.matrices[chosen].astype(np.int64)
    bits = bits & (1 << below) - 1 | bits >> below << _SLOTS - MODULE_VERTICES + 1  # the output's column is the last
    labels = np.where(rows.labels[chosen] == OUTPUT_LABEL, NO_LABEL, rows.labels[chosen])
    return kernels.edit_distances(bits, labels.astype(np.int8), _orders())


@lru_cache(maxsize=1)
def _orders() -> NDArray[np.int8]:
    last = MODULE_VERTICES - 1
    return np.array([(0, *order, last) for order in itertools.permutations(range(1, last))], np.int8)
