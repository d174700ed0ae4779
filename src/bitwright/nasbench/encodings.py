"""Modules as vectors, as other projects write them.

A module of fewer than seven vertices lies in seven: its output becomes the last vertex, and the vertices between have
no edges and the operation conv3x3-bn-relu, as in NASLib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError
from .config import AVAILABLE_OPS, CONV1X1, CONV3X3, INPUT, MAX_EDGES, MAXPOOL3X3, MODULE_VERTICES, OUTPUT
from .space import bits_of, labels_of

INNER = MODULE_VERTICES - 2
TUPLE_OPS = (INPUT, OUTPUT, MAXPOOL3X3, CONV1X1, CONV3X3)  # of NASLib, by number
_ROW_MAJOR = np.triu_indices(MODULE_VERTICES, 1)
_SLOTS = len(_ROW_MAJOR[0])  # 21 possible edges
_ONE_HOT = {MAXPOOL3X3: (1, 0, 0), CONV3X3: (0, 1, 0), CONV1X1: (0, 0, 1)}

Module = tuple[NDArray[np.int8], list[str]]


def padded(matrix: ArrayLike, ops: Sequence[str]) -> Module:
    """The module in seven vertices: (7, 7) int8 and seven operations."""
    small = np.asarray(matrix)
    last = len(small) - 1
    if not 1 <= last < MODULE_VERTICES or len(ops) != last + 1:
        raise ConfigError(f"a module has 2 to {MODULE_VERTICES} vertices and as many operations, got {len(small)}")
    whole = np.zeros((MODULE_VERTICES, MODULE_VERTICES), np.int8)
    whole[:last, :last] = small[:last, :last]
    whole[:last, -1] = small[:last, last]
    return whole, [*ops[:last], *[CONV3X3] * (MODULE_VERTICES - 1 - last), ops[last]]


def adjacency_one_hot(matrix: ArrayLike, ops: Sequence[str]) -> NDArray[np.int8]:
    """(36,) int8: the 21 possible edges row by row, then for each inner vertex one of maxpool, conv3x3, conv1x1.

    NASLib's `adjacency_one_hot`. It depends on the order of the vertices.
    """
    whole, names = padded(matrix, ops)
    return np.array([*whole[_ROW_MAJOR], *(bit for op in names[1:-1] for bit in _one_hot(op))], np.int8)


def _one_hot(op: str) -> tuple[int, int, int]:
    if op not in _ONE_HOT:
        raise ConfigError(f"no operation {op!r}: {', '.join(AVAILABLE_OPS)}")
    return _ONE_HOT[op]


def path_encoding(matrix: ArrayLike, ops: Sequence[str]) -> NDArray[np.uint8]:
    """(364,) uint8: 1 for every sequence of operations on a way from the input to the output.

    NASLib's and BANANAS' `path`: the way with operations d0, d1, ... has index (d0 + 1) + 3 (d1 + 1) + ..., where
    conv3x3 is 0, conv1x1 is 1, maxpool is 2; a direct edge has index 0. Isomorphic modules have the same.
    """
    whole, names = padded(matrix, ops)
    labels = np.array([labels_of(names)], np.int8)
    encoded: NDArray[np.uint8] = path_encodings(bits_of(whole)[None], labels)[0]
    return encoded


def path_encodings(bits: NDArray[np.int64], labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Those of many modules, (N, 364): matrices (N,) and labels (N, 7) as `space.rows()` has them."""
    from . import kernels

    return kernels.path_encodings(np.asarray(bits, np.int64), np.ascontiguousarray(labels, np.int8))


def as_tuple(matrix: ArrayLike, ops: Sequence[str]) -> tuple[int, ...]:
    """NASLib's 56 numbers: the matrix row by row, then the operations as numbers of TUPLE_OPS."""
    whole, names = padded(matrix, ops)
    return (*whole.reshape(-1).tolist(), *(TUPLE_OPS.index(op) for op in names))


def from_tuple(numbers: Sequence[int]) -> Module:
    """The way back; the result is not pruned."""
    if len(numbers) != MODULE_VERTICES * (MODULE_VERTICES + 1):
        raise ConfigError(f"a module is 56 numbers, got {len(numbers)}")
    square = MODULE_VERTICES * MODULE_VERTICES
    matrix = np.array(numbers[:square], np.int8).reshape(MODULE_VERTICES, MODULE_VERTICES)
    return matrix, [TUPLE_OPS[number] for number in numbers[square:]]


def nas_benchmarks_a(matrix: ArrayLike, ops: Sequence[str]) -> dict[str, Any]:
    """The configuration of nas_benchmarks' NASCifar10A: `edge_0` .. `edge_20` are 0 or 1, row by row.

    In all three, `op_node_0` .. `op_node_4` are the operations of the inner vertices.
    """
    whole, names = padded(matrix, ops)
    return {f"edge_{i}": int(edge) for i, edge in enumerate(whole[_ROW_MAJOR])} | _op_nodes(names)


def from_nas_benchmarks_a(config: Mapping[str, Any]) -> Module:
    return _row_major([int(config[f"edge_{i}"]) for i in range(_SLOTS)]), _operations(config)


def nas_benchmarks_b(matrix: ArrayLike, ops: Sequence[str]) -> dict[str, Any]:
    """NASCifar10B: `edge_0` .. `edge_8` name the edges by number, the last one again where there are fewer than nine.

    An edge's number is 20 less the bit that it has in the benchmark's own enumeration.
    """
    whole, names = padded(matrix, ops)
    bits = int(bits_of(whole))
    edges = [i for i in range(_SLOTS) if bits >> (_SLOTS - 1 - i) & 1]
    if not 1 <= len(edges) <= MAX_EDGES:
        raise ConfigError(f"this encoding holds 1 to {MAX_EDGES} edges, got {len(edges)}")
    edges += edges[-1:] * (MAX_EDGES - len(edges))
    return {f"edge_{i}": edge for i, edge in enumerate(edges)} | _op_nodes(names)


def from_nas_benchmarks_b(config: Mapping[str, Any]) -> Module:
    matrix = np.zeros((MODULE_VERTICES, MODULE_VERTICES), np.int8)
    columns = [(x, y) for y in range(1, MODULE_VERTICES) for x in range(y)]
    for i in range(MAX_EDGES):
        matrix[columns[_SLOTS - 1 - int(config[f"edge_{i}"])]] = 1
    return matrix, _operations(config)


def nas_benchmarks_c(matrix: ArrayLike, ops: Sequence[str]) -> dict[str, Any]:
    """NASCifar10C: `num_edges`, and for each possible edge, row by row, a number; the largest are the edges."""
    config = nas_benchmarks_a(matrix, ops)
    edges = {f"edge_{i}": float(config[f"edge_{i}"]) for i in range(_SLOTS)}
    return config | edges | {"num_edges": int(sum(edges.values()))}


def from_nas_benchmarks_c(config: Mapping[str, Any]) -> Module:
    numbers = [config[f"edge_{i}"] for i in range(_SLOTS)]
    edges = np.zeros(_SLOTS, np.int8)
    edges[np.argsort(numbers)[::-1][: config["num_edges"]]] = 1
    return _row_major(edges), _operations(config)


def _row_major(edges: ArrayLike) -> NDArray[np.int8]:
    matrix = np.zeros((MODULE_VERTICES, MODULE_VERTICES), np.int8)
    matrix[_ROW_MAJOR] = edges
    return matrix


def _op_nodes(names: Sequence[str]) -> dict[str, str]:
    return {f"op_node_{i}": op for i, op in enumerate(names[1:-1])}


def _operations(config: Mapping[str, Any]) -> list[str]:
    return [INPUT, *(config[f"op_node_{i}"] for i in range(INNER)), OUTPUT]
