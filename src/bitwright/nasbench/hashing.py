"""The benchmark's hash of a labelled graph, and its other functions on matrices, under the original names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def hash_module(matrix: ArrayLike, labeling: Sequence[int]) -> str:
    """32 hexadecimal digits that isomorphic labelled graphs share, and no two different ones of the space.

    matrix: (V, V), any numbers, of which all but 0 are edges. labeling: a whole number per vertex. Each vertex has a
    colour that begins as the MD5 of its degrees and label and is hashed V times with its neighbours' colours (Ying et
    al. 2019, appendix; after Dinh and Schmidt's graph hashing).
    """
    edges = np.asarray(matrix) != 0
    vertices = len(edges)
    sources = [np.flatnonzero(edges[:, v]).tolist() for v in range(vertices)]
    targets = [np.flatnonzero(edges[v]).tolist() for v in range(vertices)]
    colours = [
        _md5(f"({len(out)}, {len(into)}, {int(label)})")
        for into, out, label in zip(sources, targets, labeling, strict=True)
    ]
    for _ in range(vertices):
        colours = [
            _md5(
                f"{''.join(sorted([colours[u] for u in sources[v]]))}"
                f"|{''.join(sorted([colours[u] for u in targets[v]]))}|{colours[v]}"
            )
            for v in range(vertices)
        ]
    return _md5(str(sorted(colours)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def permute_graph(graph: ArrayLike, label: Sequence[Any], permutation: Sequence[int]) -> tuple[NDArray[Any], list[Any]]:
    """The graph whose vertex permutation[v] is vertex v of `graph`, and its labels."""
    matrix = np.asarray(graph)
    if sorted(permutation) != list(range(len(matrix))):
        raise ValueError(f"a permutation of {len(matrix)} vertices names each once, got {list(permutation)}")
    before = np.argsort(permutation)
    return matrix[np.ix_(before, before)], [label[v] for v in before]


def is_isomorphic(graph1: tuple[ArrayLike, Sequence[Any]], graph2: tuple[ArrayLike, Sequence[Any]]) -> bool:
    """Whether some order of its vertices makes one (matrix, labels) the other; no vertex is held in its place."""
    matrix1, labels1 = np.asarray(graph1[0]) != 0, list(graph1[1])
    matrix2, labels2 = np.asarray(graph2[0]) != 0, list(graph2[1])
    if matrix1.shape != matrix2.shape or len(labels1) != len(labels2):
        return False
    kinds1, kinds2 = _kinds(matrix1, labels1), _kinds(matrix2, labels2)
    if any(kinds1.count(kind) != kinds2.count(kind) for kind in kinds1):
        return False
    return _extends([], matrix1, matrix2, kinds1, kinds2)


def _kinds(matrix: NDArray[np.bool_], labels: list[Any]) -> list[tuple[Any, ...]]:
    into, out, own = matrix.sum(0).tolist(), matrix.sum(1).tolist(), matrix.diagonal().tolist()
    return list(zip(labels, into, out, own, strict=True))


def _extends(
    images: list[int],
    matrix1: NDArray[np.bool_],
    matrix2: NDArray[np.bool_],
    kinds1: list[tuple[Any, ...]],
    kinds2: list[tuple[Any, ...]],
) -> bool:
    """Whether vertices 0 .. k-1 of the first graph, which are `images` in the second, are part of an isomorphism."""
    k = len(images)
    if k == len(kinds1):
        return True
    for v, kind in enumerate(kinds2):
        if (
            v not in images
            and kind == kinds1[k]
            and (matrix2[v, images] == matrix1[k, :k]).all()
            and (matrix2[images, v] == matrix1[:k, k]).all()
            and _extends([*images, v], matrix1, matrix2, kinds1, kinds2)
        ):
            return True
    return False


def gen_is_edge_fn(bits: int) -> Callable[[Any, Any], NDArray[np.bool_]]:
    """A function of two vertices x, y (numbers or arrays): whether bit x + y (y - 1) / 2 is set and x < y."""

    def is_edge(x: Any, y: Any) -> NDArray[np.bool_]:
        source, target = np.asarray(x, np.int64), np.asarray(y, np.int64)
        index = np.where(source < target, source + target * (target - 1) // 2, 0)
        return np.asarray((source < target) & ((bits >> index) & 1 == 1))

    return is_edge


def is_full_dag(matrix: ArrayLike) -> bool:
    """Whether every vertex but the last has an edge out of it, and every vertex but the first one into it."""
    edges = np.asarray(matrix) != 0
    return bool(edges[:-1].any(1).all() and edges[:, 1:].any(0).all())


def num_edges(matrix: ArrayLike) -> int:
    return int(np.sum(matrix))
