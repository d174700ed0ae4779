"""A module as its users write it: a matrix of edges and a list of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import AVAILABLE_OPS, INPUT, MAX_EDGES, MODULE_VERTICES, OUTPUT
from .hashing import hash_module

if TYPE_CHECKING:
    import graphviz

_DOMAIN = {"module_vertices": MODULE_VERTICES, "max_edges": MAX_EDGES, "available_ops": list(AVAILABLE_OPS)}


class OutOfDomainError(Exception):
    """A module, or a number of epochs, that is not in the benchmark."""


class ModelSpec:
    """A module with what does not lie between its input and its output removed.

    matrix: (V, V), above the diagonal 1 where an edge leads from the vertex of the row to that of the column, 0
    elsewhere; numbers of any type. ops: the operation of each vertex, any sequence; the first is the input, the last
    the output. ValueError for other matrices, or another number of operations.

    original_matrix, original_ops: copies of what was given. matrix, ops: what remains, vertices in the same order, or
    None if the output does not depend on the input (then valid_spec is False).
    """

    def __init__(self, matrix: ArrayLike, ops: Sequence[str], data_format: str = "channels_last") -> None:
        given = np.array(matrix)
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError("matrix must be square")
        names = ops.tolist() if isinstance(ops, np.ndarray) else list(ops)
        if len(given) != len(names):
            raise ValueError("length of ops must match matrix dimensions")
        whole = given if given.dtype.kind in "iu" else _whole_numbers(given)
        edges = [[source for source, entry in enumerate(column) if entry] for column in whole.T.tolist()]
        if any(sources and sources[-1] >= v for v, sources in enumerate(edges)):
            raise ValueError("matrix must be upper triangular")
        if not {0, 1}.issuperset(whole.ravel().tolist()):
            raise ValueError("entries of matrix must be 0 or 1")

        self.original_matrix = given
        self.original_ops: list[str] = list(names)
        self.data_format = data_format
        self.matrix: Any = None  # an array where valid_spec holds
        self.ops: Any = None
        kept = _kept(edges)
        self.valid_spec = len(kept) > 1
        if self.valid_spec:
            self.matrix = whole.copy() if len(kept) == len(whole) else whole[np.ix_(kept, kept)]
            self.ops = [names[v] for v in kept]

    def hash_spec(self, canonical_ops: Sequence[str]) -> str:
        """The hash under which the dataset has this module; ValueError for an operation that canonical_ops lacks."""
        order = list(canonical_ops)
        return hash_module(self.matrix, [-1, *(order.index(op) for op in self.ops[1:-1]), -2])

    def visualize(self) -> graphviz.Digraph:
        """A drawing, which notebooks show; ExportError without the Python package graphviz."""
        from .drawing import digraph

        return digraph(self.matrix, self.ops)

    def __repr__(self) -> str:
        return f"ModelSpec({None if self.matrix is None else self.matrix.tolist()}, {self.ops})"


def _whole_numbers(matrix: NDArray[Any]) -> NDArray[np.int64]:
    """Booleans and whole floats as integers."""
    try:
        with np.errstate(invalid="ignore"):  # NaN, which then differs
            whole = matrix.astype(np.int64)
        same = bool((whole == matrix).all())
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError("entries of matrix must be 0 or 1")
    return whole


def _kept(sources: list[list[int]]) -> list[int]:
    """Vertices that the input reaches and that reach the output; sources: by vertex, lower vertices."""
    last = len(sources) - 1
    reached = {0}
    for v in range(1, last + 1):
        if not reached.isdisjoint(sources[v]):
            reached.add(v)
    needed = {last}
    for v in range(last, 0, -1):
        if v in needed:
            needed.update(sources[v])
    return sorted(reached & needed)


def check_spec(spec: ModelSpec, config: Mapping[str, Any] = _DOMAIN) -> None:
    """OutOfDomainError, with the original's texts in the original's order, if a spec is outside the space."""
    if not spec.valid_spec:
        raise OutOfDomainError("invalid spec, provided graph is disconnected.")
    vertices, edges = len(spec.ops), int(np.sum(spec.matrix))
    if vertices > config["module_vertices"]:
        raise OutOfDomainError(f"too many vertices, got {vertices} (max vertices = {config['module_vertices']})")
    if edges > config["max_edges"]:
        raise OutOfDomainError(f"too many edges, got {edges} (max edges = {config['max_edges']})")
    if spec.ops[0] != INPUT:
        raise OutOfDomainError("first operation should be 'input'")
    if spec.ops[-1] != OUTPUT:
        raise OutOfDomainError("last operation should be 'output'")
    for op in spec.ops[1:-1]:
        if op not in config["available_ops"]:
            raise OutOfDomainError(f"unsupported op {op} (available ops = {config['available_ops']})")
