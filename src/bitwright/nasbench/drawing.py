"""A module as a drawing of graphviz: a node per vertex, an arrow per edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ExportError
from .config import INPUT, OUTPUT

if TYPE_CHECKING:
    import graphviz


def as_dot(matrix: ArrayLike, ops: Sequence[str]) -> str:
    """The drawing in the DOT language; it needs no other package."""
    lines = [f'\t{v} [label="{name}"]' for v, name in enumerate(_names(ops))]
    lines += [f"\t{source} -> {target}" for source, target in _edges(matrix)]
    return "\n".join(["digraph {", *lines, "}", ""])


def digraph(matrix: ArrayLike, ops: Sequence[str]) -> graphviz.Digraph:
    """The drawing that notebooks show and `.render` writes to a file; ExportError without the Python package."""
    try:
        import graphviz
    except ImportError:
        raise ExportError("a drawing wants the Python package graphviz: pip install 'bitwright[nasbench]'") from None
    drawing = graphviz.Digraph()
    for v, name in enumerate(_names(ops)):
        drawing.node(str(v), name)
    for source, target in _edges(matrix):
        drawing.edge(str(source), str(target))
    return drawing


def _names(ops: Sequence[str]) -> list[str]:
    return [INPUT, *ops[1:-1], OUTPUT]


def _edges(matrix: ArrayLike) -> list[tuple[int, int]]:
    return [(int(source), int(target)) for source, target in np.argwhere(np.asarray(matrix))]
