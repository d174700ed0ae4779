"""The cell space of NAS-Bench-201 (Dong and Yang 2020, arXiv:2001.00326): 15,625 cells, 6,466 of them different.

A cell has four nodes, the first is its input and the last its output. Each of the six edges from an earlier node to a
later one, 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, has one of five operations; a node is the sum of what its edges bring.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from ..architecture import Architecture, Decision
from . import DecisionSpace

NODES = 4
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((target, source) for target in range(1, NODES) for source in range(target))
NONE, SKIP = 0, 1


class Nasbench201(DecisionSpace):
    """What only the table knows of: there are no networks here."""

    name = "nasbench201"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"edge/{target}<-{source}", OPERATIONS) for target, source in EDGES)

    def canonical(self, architecture: Architecture) -> Architecture:
        """The first cell, in the order of choices, whose published string is the same."""
        return Architecture(self.name, _representatives()[architecture.choices])

    def encodings(self, architectures: Sequence[Architecture]) -> NDArray[np.float32]:
        """Of the canonical cell: the operations of its edges, one-hot, and of each way from input to output."""
        plain = super().encodings(architectures)
        edges = plain.reshape(-1, len(EDGES), len(OPERATIONS))[:, :, NONE + 1 :]
        ways = [_joint([edges[:, edge] for edge in way]) for way in _ways()]
        return np.concatenate([plain, *ways], axis=1)


def unary(choices: Sequence[int]) -> str:
    """The published string of a cell: isomorphic cells have the same.

    A node is the sorted sum of its edges: "#" where nothing arrives, the source itself behind a skip, else
    "(source)@operation".
    """
    nodes = ["0"]
    for target in range(1, NODES):
        terms = []
        for (to, source), choice in zip(EDGES, choices, strict=True):
            if to != target:
                continue
            if choice == NONE or nodes[source] == "#":
                terms.append("#")
            else:
                terms.append(nodes[source] if choice == SKIP else f"({nodes[source]})@{OPERATIONS[choice]}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


@cache
def _representatives() -> dict[tuple[int, ...], tuple[int, ...]]:
    first: dict[str, tuple[int, ...]] = {}
    every = itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
    return {choices: first.setdefault(unary(choices), choices) for choices in every}


@cache
def _ways() -> tuple[tuple[int, ...], ...]:
    """The edges, by number, of every way of two or more from the first node to the last."""
    inner = range(1, NODES - 1)
    through = (nodes for count in inner for nodes in itertools.combinations(inner, count))
    passed = ((0, *nodes, NODES - 1) for nodes in through)
    return tuple(tuple(EDGES.index((b, a)) for a, b in itertools.pairwise(nodes)) for nodes in passed)


def _joint(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One-hot vectors (N, K) as one of all combinations, (N, K ** len(parts))."""
    whole = parts[0]
    for part in parts[1:]:
        whole = (whole[:, :, None] * part[:, None, :]).reshape(len(whole), -1)
    return whole
