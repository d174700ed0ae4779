"""What the steps of one generated file share: its plan, tables, kernels and scratch arrays."""

from __future__ import annotations

from ..integer.graph import Edge, MultiThreshold, Requantize
from .activation import Activation, activation
from .epilogue import ctype
from .plan import WIDTH, Key, Plan, Step
from .tables import Tables

LARGEST_ON_STACK = 4096  # sums


class Unit:
    """A C file in the making."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = plan.graph
        self.tables = Tables()
        self.vector_tables = Tables("defined(NW_VECTOR)")
        self.scalar_tables = Tables("!defined(NW_VECTOR)")
        self.tiles: dict[str, str] = {}  # text by name, of vector kernels
        self.fragments = {"common.h"}
        self.init: list[str] = []
        self.lane_arrays: list[str] = []
        self.lane_ram = 0
        self.static_ram = 0
        self.scratch: dict[str, int] = {}  # elements of arrays shared by the portable kernels
        self.kernels: list[tuple[int, str]] = []

    def edge(self, key: Key) -> Edge:
        return self.graph.edges[key[0]]

    def at(self, key: Key, *, origin: bool = True) -> str:
        """The address of a buffer's first pixel, or of its border."""
        storage = self.plan.storage[key]
        return f"area_{storage.area} + {self.plan.offsets[key] + (storage.origin if origin else 0)}"

    def border(self, key: Key) -> str:
        """Fills the border of a buffer that has one."""
        s = self.plan.storage[key]
        if not any(s.border):
            return ""
        self.fragments.add("border.h")
        unit = s.pixel * WIDTH[s.area]
        top, left, bottom, right = s.border
        at = self.at(key, origin=False)
        return (
            f"    nw_border({at}, {s.zero}, {s.shape[1]}, {s.shape[2] * unit}, {top}, {left * unit}, {bottom},"
            f" {right * unit});\n"
        )

    def pointers(self, step: Step, names: tuple[str, ...] = ("in",)) -> str:
        lines = []
        for name, key in zip(names, step.reads, strict=True):
            lines.append(f"    const {ctype(self.plan.storage[key])} *{name} = {self.at(key)};\n")
        out = self.plan.storage[step.writes]
        lines.append(f"    {ctype(out)} *out = {self.at(step.writes)};\n")
        return "".join(lines)

    def place(self, elements: int) -> str:
        """Arrays of 32-bit integers too large for small stacks are static."""
        if elements <= LARGEST_ON_STACK:
            return ""
        self.static_ram += 4 * elements
        return "static "

    def share(self, key: str, elements: int) -> None:
        self.scratch[key] = max(self.scratch.get(key, 0), elements)

    def activation(self, step: Step, sums: Edge | None = None) -> Activation:
        """What a step does to its sums: those of step.sums, or of its own operation."""
        op = self.graph.nodes[step.node].op
        y = self.graph.edges[step.node]
        if not isinstance(op, MultiThreshold | Requantize):
            return activation(None, y, y)
        return activation(op, self.graph.edges[self.graph.nodes[step.node].inputs[0]] if sums is None else sums, y)
