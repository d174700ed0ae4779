"""In what order the nodes of a cell are computed: level by level, equal activations beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from .cell import ACTIVATIONS, INPUTS, RecurrentCell


@dataclass(frozen=True)
class Level:
    """The places [start, stop) of the nodes of one depth.

    sources: the place of what each node reads, -1 for node 0. activations: (name, start, stop) of neighbours with the
    same one, counted from the start of the level.
    """

    start: int
    stop: int
    sources: tuple[int, ...]
    activations: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Plan:
    """A node's place is its position in `order`, which lists the nodes of a cell by depth and then by activation."""

    order: tuple[int, ...]
    levels: tuple[Level, ...]

    @cached_property
    def place(self) -> tuple[int, ...]:
        """The place of every node."""
        return tuple(self.order.index(node) for node in range(len(self.order)))


@lru_cache(maxsize=256)
def plan_of(cell: RecurrentCell) -> Plan:
    by_level = [
        sorted(nodes, key=lambda node: (ACTIVATIONS.index(cell.nodes[node].activation), node)) for nodes in cell.levels
    ]
    order = tuple(node for nodes in by_level for node in nodes)
    levels, start = [], 0
    for nodes in by_level:
        sources = tuple(order.index(cell.nodes[node].source) if node else INPUTS for node in nodes)
        levels.append(Level(start, start + len(nodes), sources, _runs([cell.nodes[n].activation for n in nodes])))
        start += len(nodes)
    return Plan(order, tuple(levels))


def _runs(names: list[str]) -> tuple[tuple[str, int, int], ...]:
    runs: list[tuple[str, int, int]] = []
    for position, name in enumerate(names):
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], position + 1)
        else:
            runs.append((name, position, position + 1))
    return tuple(runs)
