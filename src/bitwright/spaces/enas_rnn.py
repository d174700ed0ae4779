"""The recurrent cells of ENAS (Pham et al. 2018, arXiv:1802.03268, section 2.1), for language models.

Every node reads one earlier node and applies an activation. Two variants:
    original  N nodes. act_0, then prev_j act_j for every later node, 2 N - 1 integers. The output is the mean of the
              leaves, and the next state the output or the last node, as the model has it.
    authors   N nodes after node 0, which is a fixed tanh of both inputs. prev_j act_j for each of them, 2 N integers.
              The output, which is the next state, is the mean of all N.

An architecture says what a cell computes with weights of its own. In a supernet the number of a node also says which
weights it takes, so there the architectures of one canonical form are different cells.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from ..architecture import Architecture, Decision
from ..errors import ConfigError, InvalidArchitecture
from ..recurrent.cell import ACTIVATIONS, INPUTS, CellNode, RecurrentCell
from . import DecisionSpace

PUBLISHED = {  # the activations in the order of their numbers in published architectures
    "original": ACTIVATIONS,
    "authors": ("tanh", "relu", "sigmoid", "identity"),
}


class EnasRnn(DecisionSpace):
    """nodes: that are decided upon (N); the authors' variant has one more.
    activations: of tanh, relu, identity and sigmoid, in the order of their numbers; None takes all in the order of the
        variant's published architectures.
    variant: original or authors.
    """

    name = "enas_rnn"

    def __init__(
        self,
        nodes: int = 12,
        activations: tuple[str, ...] | None = None,
        variant: Literal["original", "authors"] = "original",
    ) -> None:
        if variant not in PUBLISHED:
            raise ConfigError(f"enas_rnn: variant is original or authors, got {variant!r}")
        if nodes < 1:
            raise ConfigError(f"enas_rnn: nodes is at least 1, got {nodes}")
        self.nodes, self.variant = nodes, variant
        self.activations = PUBLISHED[variant] if activations is None else tuple(activations)
        for activation in self.activations:
            if activation not in ACTIVATIONS:
                raise ConfigError(f"enas_rnn: no activation {activation!r}: {', '.join(ACTIVATIONS)}")
        if not self.activations or len(set(self.activations)) < len(self.activations):
            raise ConfigError(f"enas_rnn: activations are one or more different ones, got {list(self.activations)}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        first = () if self._fixed else (Decision("act_0", self.activations),)
        later = (
            decision
            for node in range(1, self.nodes + self._fixed)
            for decision in (
                Decision(f"prev_{node}", tuple(map(str, range(node)))),
                Decision(f"act_{node}", self.activations),
            )
        )
        return (*first, *later)

    def cell(self, architecture: Architecture) -> RecurrentCell:
        """The cell that the choices describe."""
        choices = architecture.choices
        first = "tanh" if self._fixed else self.activations[choices[0]]
        later = choices if self._fixed else choices[1:]
        pairs = zip(later[::2], later[1::2], strict=True)
        return RecurrentCell(
            (CellNode(INPUTS, first), *(CellNode(source, self.activations[number]) for source, number in pairs))
        )

    def architecture_of(self, cell: RecurrentCell) -> Architecture:
        """The choices that describe the cell; InvalidArchitecture where it is none of this space."""
        expected = self.nodes + self._fixed
        if len(cell.nodes) != expected:
            raise InvalidArchitecture(f"{self.name}: a cell has {expected} nodes here, got {len(cell.nodes)}")
        if self._fixed and cell.nodes[0].activation != "tanh":
            raise InvalidArchitecture(f"{self.name}: node 0 is a fixed tanh, got {cell.nodes[0].activation}")
        choices: list[int] = []
        for number, node in enumerate(cell.nodes[self._fixed :], start=self._fixed):
            if node.activation not in self.activations:
                allowed = ", ".join(self.activations)
                raise InvalidArchitecture(f"{self.name}: node {number} has one of {allowed}, got {node.activation}")
            choices += [node.source] if node.source != INPUTS else []
            choices.append(self.activations.index(node.activation))
        return Architecture(self.name, tuple(choices))

    def averaged(self, cell: RecurrentCell) -> tuple[int, ...]:
        """The nodes whose mean is the output: the leaves, or all but node 0 in the authors' variant."""
        return tuple(range(1, len(cell.nodes))) if self._fixed else cell.leaves

    def canonical(self, architecture: Architecture) -> Architecture:
        """One numbering of all that give the same tree of activations.

        The last node of the original variant stays the last, since it can be the next state.
        """
        cell = self.cell(architecture)
        last = INPUTS if self._fixed else len(cell.nodes) - 1
        codes = _codes(cell, last)
        order = [0]
        for node in order:  # grows while it is read: parents before children, equal trees in one order
            order += sorted((child for child in cell.children[node] if child != last), key=codes.__getitem__)
        order += [last] if last > 0 else []
        numbers = {INPUTS: INPUTS} | {old: new for new, old in enumerate(order)}
        nodes = (cell.nodes[old] for old in order)
        return self.architecture_of(
            RecurrentCell(tuple(CellNode(numbers[node.source], node.activation) for node in nodes))
        )

    def warnings(self, architecture: Architecture) -> list[str]:
        cell = self.cell(architecture)
        found = []
        if len(cell.nodes) > 1 and len(cell.leaves) == 1:
            found.append("collapse: the cell is a chain, every node but the last is read by one other")
        if len(cell.nodes) > 1 and len({node.activation for node in cell.nodes}) == 1:
            found.append(f"collapse: every node applies {cell.nodes[0].activation}")
        return found

    @property
    def _fixed(self) -> int:
        """How many nodes are not decided upon: node 0 of the authors' variant."""
        return int(self.variant == "authors")


def _codes(cell: RecurrentCell, last: int) -> list[tuple[int, ...]]:
    """Equal for two nodes if and only if the trees below them are (Aho, Hopcroft and Ullman 1974, section 3.2).

    Activations in preorder, each with the number of its children, which are sorted; `last` differs from every other.
    """
    codes: list[tuple[int, ...]] = [()] * len(cell.nodes)
    for number in reversed(range(len(cell.nodes))):
        children = sorted(codes[child] for child in cell.children[number])
        own = ACTIVATIONS.index(cell.nodes[number].activation), int(number == last), len(children)
        codes[number] = own + tuple(code for child in children for code in child)
    return codes
