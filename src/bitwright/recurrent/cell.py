"""A recurrent cell as data, and its published file format, dag.json.

A cell is a tree of nodes. Node 0 reads the word x[t] and the state h[t-1]; every later node reads one earlier node and
applies its activation. What makes the cell's output, the mean of the leaves or of all nodes, is the model's concern.

dag.json holds an object: the key of a node is its number as a string, its value a list of [child, activation]. The
keys "-1" (x[t]) and "-2" (h[t-1]) lead to node 0, every leaf to [N, "avg"], and "N" to [N + 1, "h[t]"].
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import DataError, InvalidArchitecture
from ..files import given_json, write_json

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")
INPUTS = -1  # the source of node 0
WORD, STATE = "-1", "-2"  # the keys of x[t] and h[t-1] in dag.json
KEY = re.compile(r"0|[1-9][0-9]{0,8}")  # of a node
AVERAGE, OUTPUT = "avg", "h[t]"

Children = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class CellNode:
    """source: an earlier node; -1 for node 0, which reads x[t] and h[t-1]. activation: one of ACTIVATIONS."""

    source: int
    activation: str


@dataclass(frozen=True)
class RecurrentCell:
    """Nodes in an order in which each comes after its source; InvalidArchitecture names the first that does not."""

    nodes: tuple[CellNode, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidArchitecture("a recurrent cell has at least one node")
        if self.nodes[0].source != INPUTS:
            raise InvalidArchitecture(f"node 0 of a recurrent cell has the source -1, got {self.nodes[0].source}")
        for number, node in enumerate(self.nodes):
            if number and not 0 <= node.source < number:
                raise InvalidArchitecture(
                    f"node {number} of a recurrent cell reads one of the nodes 0 to {number - 1}, got {node.source}"
                )
            if node.activation not in ACTIVATIONS:
                raise InvalidArchitecture(
                    f"node {number} of a recurrent cell: no activation {node.activation!r}: {', '.join(ACTIVATIONS)}"
                )

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that read each node, ascending."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes[1:], start=1):
            found[node.source].append(number)
        return tuple(map(tuple, found))

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """The nodes that no other node reads."""
        return tuple(number for number, children in enumerate(self.children) if not children)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """How many nodes lie between each node and the inputs: 0 for node 0."""
        depths: list[int] = []
        for node in self.nodes:
            depths.append(0 if node.source == INPUTS else depths[node.source] + 1)
        return tuple(depths)

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The nodes of each depth, ascending: those of one level do not wait for each other."""
        return tuple(
            tuple(number for number, own in enumerate(self.depths) if own == depth)
            for depth in range(max(self.depths) + 1)
        )


def published_name(activation: str) -> str:
    """What dag.json and the published drawings call an activation: all as here, but ReLU."""
    return "ReLU" if activation == "relu" else activation


def to_dag(cell: RecurrentCell) -> dict[str, list[list[int | str]]]:
    """The cell in the published format."""
    average = len(cell.nodes)
    first = published_name(cell.nodes[0].activation)
    dag: dict[str, list[list[int | str]]] = {WORD: [[0, first]], STATE: [[0, first]]}
    for number, children in enumerate(cell.children):
        if children:
            dag[str(number)] = [[child, published_name(cell.nodes[child].activation)] for child in children]
    dag |= {str(leaf): [[average, AVERAGE]] for leaf in cell.leaves}
    dag[str(average)] = [[average + 1, OUTPUT]]
    return dag


def from_dag(dag: Mapping[str, Any]) -> RecurrentCell:
    """The cell that a dag describes; InvalidArchitecture says where it describes none."""
    children = _children(dag)
    sources, activations = {0: INPUTS}, {0: _first_activation(children)}
    average = max((number for number in children if number >= 0), default=0)
    for number in sorted(number for number in children if 0 <= number < average):
        for child, name in children[number]:
            if name == AVERAGE and child != average:
                raise InvalidArchitecture(f'the last key of a dag is that of its mean: "{average}", but avg is {child}')
            if name == AVERAGE:
                continue
            if child in sources:
                raise InvalidArchitecture(f"node {child} of the dag has more than one source")
            sources[child], activations[child] = number, name
    if len(sources) != average or min(sources) < 0 or max(sources) >= average:
        raise InvalidArchitecture(
            f"a dag whose mean is node {average} leads to each of the nodes before it, got {_listed(sources)}"
        )
    cell = RecurrentCell(tuple(CellNode(sources[number], activations[number]) for number in range(average)))
    _check_output(cell, children)
    return cell


def read_dag(path: Path) -> RecurrentCell:
    """The cell in a dag.json. DataError: it cannot be read or is no JSON; InvalidArchitecture: it describes no cell."""
    content = given_json(path, DataError)
    try:
        return from_dag(content)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{path}: {error}") from None


def write_dag(cell: RecurrentCell, path: Path) -> None:
    """Write a dag.json; StorageError leaves what was there."""
    write_json(path, to_dag(cell))


def _children(dag: Any) -> dict[int, Children]:
    """The lists of a dag by number, with our names of activations."""
    if not isinstance(dag, Mapping):
        raise InvalidArchitecture(f"a dag is an object of lists, got {type(dag).__name__}")
    found: dict[int, Children] = {}
    for key, entries in dag.items():
        try:
            if key not in (WORD, STATE) and not KEY.fullmatch(key):
                raise ValueError
            found[int(key)] = [(_number(child), _name(name)) for child, name in entries]
        except (TypeError, ValueError):
            given = json.dumps({str(key): entries}, default=str)[1:-1]
            raise InvalidArchitecture(f'a dag has entries such as "0": [[1, "tanh"]], got {given[:80]}') from None
    return found


def _number(child: Any) -> int:
    if type(child) is not int:
        raise TypeError
    return child


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError
    return name.lower() if name.lower() in ACTIVATIONS else name


def _listed(numbers: Collection[int]) -> str:
    """The first of them."""
    shown = ", ".join(map(str, sorted(numbers)[:20]))
    return f"{shown} and {len(numbers) - 20} more" if len(numbers) > 20 else shown


def _first_activation(children: Mapping[int, Children]) -> str:
    """That of node 0, on which both inputs must agree."""
    word, state = (children.get(int(key), []) for key in (WORD, STATE))
    if len(word) != 1 or word != state or word[0][0] != 0:
        raise InvalidArchitecture('a dag has "-1" and "-2" lead to node 0 with one activation, such as [[0, "tanh"]]')
    return word[0][1]


def _check_output(cell: RecurrentCell, children: Mapping[int, Children]) -> None:
    """The leaves and no other nodes lead to the average, and that to h[t]."""
    average = len(cell.nodes)
    averaged = {number for number, entries in children.items() if (average, AVERAGE) in entries}
    if averaged != set(cell.leaves):
        raise InvalidArchitecture(
            f'a dag has its leaves {", ".join(map(str, cell.leaves))} lead to [{average}, "avg"], and no other node'
        )
    if children[average] != [(average + 1, OUTPUT)]:
        raise InvalidArchitecture(f'a dag ends with "{average}": [[{average + 1}, "h[t]"]]')
