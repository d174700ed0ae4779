"""What is computed in which order, how each value is stored and where: an integer graph as steps over buffers.

Rewrites that cost nothing happen here. Vectors are images of one pixel. A MatMul is a convolution, of the whole image
if a Flatten comes before it. A Pad before a window becomes the window's own padding. An activation that alone reads
sums is computed with them, so that sums are never stored. A value whose integers are -1 and +1 only is stored as bits
where its readers can use them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..integer.graph import (
    NO_PADS,
    Add,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Pad,
    Pads,
    Requantize,
    Slice,
    SumPool,
)

Form = Literal["plain", "bits"]
Key = tuple[int, Form]  # a node's value in one form
Kernel = Literal["bits", "depthwise", "dot", "wide"]
Area = Literal["u8", "i16", "i32"]

AREAS: tuple[Area, ...] = ("u8", "i16", "i32")
WIDTH = {"u8": 1, "i16": 2, "i32": 4}  # bytes of an element
ALIGNMENT = 64  # bytes
SLACK = 128  # bytes that kernels may read, but never use, past the end of an area
FEWEST_BIT_CHANNELS = 8  # below, a pixel's bits would leave most of a word empty


@dataclass(frozen=True)
class Storage:
    """One buffer: rows of pixels of channels with a border of zeros; with bits, eight channels to a byte.

    `zero` is what stands for the integer 0: an element holds value + zero. A bit is 1 for +1 and 0 for -1, and 0 in
    the border.
    """

    area: Area
    bits: bool
    shape: tuple[int, int, int]
    border: Pads
    zero: int

    @property
    def pixel(self) -> int:
        """Elements from one pixel to the next."""
        return -(-self.shape[0] // 8) if self.bits else self.shape[0]

    @property
    def row(self) -> int:
        return (self.shape[2] + self.border[1] + self.border[3]) * self.pixel

    @property
    def elements(self) -> int:
        return (self.shape[1] + self.border[0] + self.border[2]) * self.row

    @property
    def origin(self) -> int:
        """Elements before the image's first pixel."""
        return self.border[0] * self.row + self.border[1] * self.pixel


@dataclass(frozen=True)
class Step:
    """Computes the value of `node` in the form `writes[1]`; with an activation, that of the sums of node `sums`.

    A step with `packs` turns the plain value into bits. `pads` and `weight` replace the operation's own.
    """

    node: int
    writes: Key
    reads: tuple[Key, ...]
    sums: int | None = None  # the node whose sums are activated on the way
    packs: bool = False
    pads: Pads = NO_PADS
    weight: Int | None = None  # (O, I / groups, kh, kw)
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    kernel: Kernel | None = None


@dataclass
class Plan:
    graph: IntegerGraph
    steps: list[Step]
    storage: dict[Key, Storage]
    output: Key
    offsets: dict[Key, int] = field(default_factory=dict)  # elements into the area
    sizes: dict[Area, int] = field(default_factory=dict)  # elements of each area, slack included

    def bytes(self) -> int:
        return sum(size * WIDTH[area] for area, size in self.sizes.items())


def image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def plan(graph: IntegerGraph) -> Plan:
    return _Planner(graph).plan()


class _Planner:
    def __init__(self, graph: IntegerGraph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.last = len(graph.nodes) - 1
        self.source = self._sources()
        self.binary = self._binary()
        self.readers = self._readers()

    def plan(self) -> Plan:
        steps = self._steps()
        output: Key = (self.source[self.last], "plain")
        storage = self._storage(steps, output)
        plan = Plan(self.graph, steps, storage, output)
        _place(plan)
        return plan

    def _sources(self) -> list[int]:
        """For every node the node in whose buffer its value is: itself, or one that it only renames."""
        source: list[int] = []
        for i, node in enumerate(self.nodes):
            match node.op:
                case Flatten():
                    shape = self.graph.edges[node.inputs[0]].shape
                    renames = len(shape) == 1 or shape[1:] == (1, 1)
                case Pad(pads=pads):
                    renames = not any(pads)
                case Concat():
                    renames = len(node.inputs) == 1
                case Slice(channels=channels):
                    renames = channels == self.graph.edges[node.inputs[0]].shape[0]
                case _:
                    renames = False
            source.append(source[node.inputs[0]] if renames else i)
        return source

    def _binary(self) -> list[bool]:
        """Whether all values of a node are -1 or +1."""
        binary: list[bool] = []
        for node in self.nodes:
            match node.op:
                case MultiThreshold(levels=levels):
                    binary.append(levels == (-1, 1))
                case MaxPool() | Concat() | Slice() | Flatten():
                    binary.append(all(binary[i] for i in node.inputs))
                case _:
                    binary.append(False)
        return binary

    def _through_pads(self, position: int, pads: Pads) -> tuple[int, Pads]:
        """The value that a window slides over, and its padding, with Pad nodes before it taken in."""
        node = self.nodes[position]
        while isinstance(node.op, Pad):
            top, left, bottom, right = node.op.pads
            pads = (pads[0] + top, pads[1] + left, pads[2] + bottom, pads[3] + right)
            position = node.inputs[0]
            node = self.nodes[position]
        return self.source[position], pads

    def _inputs(self, position: int) -> list[int]:
        """The nodes whose buffers a node reads."""
        node = self.nodes[position]
        match node.op:
            case Conv(pads=pads) | SumPool(pads=pads):
                return [self._through_pads(node.inputs[0], pads)[0]]
            case MatMul():
                before = node.inputs[0]
                while isinstance(self.nodes[before].op, Flatten):
                    before = self.nodes[before].inputs[0]
                return [self.source[before]]
            case _:
                return [self.source[i] for i in node.inputs]

    def _readers(self) -> list[list[int]]:
        """For every node whose value is stored the nodes that read it, of those that the output needs."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        needed = {self.source[self.last]}
        for i in range(self.last, -1, -1):
            if i in needed and self.source[i] == i:
                for j in dict.fromkeys(self._inputs(i)):
                    readers[j].append(i)
                    needed.add(j)
        self.needed = needed
        return readers

    def _activates(self, position: int) -> int | None:
        """The node whose sums nobody but this activation reads."""
        node = self.nodes[position]
        if not isinstance(node.op, MultiThreshold | Requantize):
            return None
        sums = self.source[node.inputs[0]]
        fusable = isinstance(self.nodes[sums].op, Conv | MatMul | Add | SumPool | GlobalSumPool)
        alone = len(self.readers[sums]) == 1 and sums != self.source[self.last]
        return sums if fusable and alone else None

    def _steps(self) -> list[Step]:
        forms: dict[int, set[Form]] = {self.source[self.last]: {"plain"}}
        steps: list[Step] = []  # built from the last to the first
        for i in range(self.last, -1, -1):
            wanted = forms.get(i)
            if wanted is None:
                continue
            form: Form = "bits" if wanted == {"bits"} and self._makes_bits(i) else "plain"
            if "bits" in wanted and form == "plain":
                steps.append(Step(i, (i, "bits"), ((i, "plain"),), packs=True))
            step = self._step(i, form)
            steps.append(step)
            for j, needed in step.reads:
                forms.setdefault(j, set()).add(needed)
        return steps[::-1]

    def _makes_bits(self, position: int) -> bool:
        match self.nodes[position].op:
            case MultiThreshold() | MaxPool():
                return True
            case Concat():
                return all(self.graph.edges[i].shape[0] % 8 == 0 for i in self.nodes[position].inputs)
            case _:
                return False

    def _step(self, position: int, form: Form) -> Step:
        sums = self._activates(position)
        worker = position if sums is None else sums
        writes: Key = (position, form)
        op = self.nodes[worker].op
        match op:
            case Conv(weight=weight, stride=stride, groups=groups):
                source, pads = self._through_pads(self.nodes[worker].inputs[0], op.pads)
            case MatMul(weight=flat):
                source, pads, stride, groups = self._inputs(worker)[0], NO_PADS, (1, 1), 1
                weight = flat.reshape(len(flat), *image(self.graph.edges[source].shape))
            case SumPool():
                source, pads = self._through_pads(self.nodes[worker].inputs[0], op.pads)
                return Step(position, writes, ((source, "plain"),), sums, pads=pads)
            case MaxPool():
                # where nothing is below zero, or a bit of the border, padding with zeros changes no maximum
                (source,) = self._inputs(worker)
                neutral = form == "bits" or self.graph.edges[source].lowest >= 0
                return Step(position, writes, ((source, form),), sums, pads=op.pads if neutral else NO_PADS)
            case Concat():
                return Step(position, writes, tuple((i, form) for i in self._inputs(worker)), sums)
            case _:
                return Step(position, writes, tuple((i, "plain") for i in self._inputs(worker)), sums)
        kernel = self._kernel(source, weight, groups)
        reads: Key = (source, "bits" if kernel == "bits" else "plain")
        return Step(position, writes, (reads,), sums, False, pads, weight, groups, stride, kernel)

    def _kernel(self, source: int, weight: Int, groups: int) -> Kernel:
        x = self.graph.edges[source]
        channels = x.shape[0]
        small = min(x.lowest, 0) + 255 >= max(x.highest, 0) and min(x.lowest, 0) >= -255
        if self.binary[source] and groups == 1 and channels >= FEWEST_BIT_CHANNELS and int(np.abs(weight).max()) <= 1:
            return "bits"
        fits = small and int(weight.min()) >= -128 and int(weight.max()) <= 127
        if not fits or int(np.abs(weight).sum((1, 2, 3)).max()) * 255 >= 2**31:
            return "wide"
        if groups == channels and weight.shape[1] == 1 and channels > 1:
            return "depthwise" if len(weight) == channels else "wide"
        return "dot" if groups == 1 else "wide"

    def _storage(self, steps: list[Step], output: Key) -> dict[Key, Storage]:
        borders: dict[Key, Pads] = {}
        for step in steps:
            for key in step.reads:
                before = borders.get(key, NO_PADS)
                top, left, bottom, right = (max(a, b) for a, b in zip(before, step.pads, strict=True))
                borders[key] = (top, left, bottom, right)
        found = {}
        for key in [*(step.writes for step in steps)]:
            edge = self.graph.edges[key[0]]
            low, high = min(edge.lowest, 0), max(edge.highest, 0)
            border = borders.get(key, NO_PADS)
            if key[1] == "bits":
                found[key] = Storage("u8", True, image(edge.shape), border, 0)
            elif high - low <= 255:
                found[key] = Storage("u8", False, image(edge.shape), border, -low)
            else:
                area: Area = "i16" if low >= -(2**15) and high < 2**15 else "i32"
                found[key] = Storage(area, False, image(edge.shape), border, 0)
        return found


def _place(plan: Plan) -> None:
    """Gives every buffer its place in its area, largest first, where no buffer that lives at the same time is."""
    born: dict[Key, int] = {}
    dies: dict[Key, int] = {plan.output: len(plan.steps)}
    for time, step in enumerate(plan.steps):
        born[step.writes] = time
        for key in step.reads:
            dies[key] = max(dies.get(key, 0), time)
    for area in AREAS:
        unit = ALIGNMENT // WIDTH[area]
        keys = [key for key, storage in plan.storage.items() if storage.area == area]
        placed: list[tuple[int, int, Key]] = []  # first element, one past the last
        for key in sorted(keys, key=lambda k: (-plan.storage[k].elements, born[k])):
            size = -(-plan.storage[key].elements // unit) * unit
            start = 0
            for first, end, other in sorted(placed):
                apart = dies.get(key, born[key]) < born[other] or dies.get(other, born[other]) < born[key]
                if not apart and first < start + size and start < end:
                    start = end
            plan.offsets[key] = start
            placed.append((start, start + size, key))
        if placed:
            plan.sizes[area] = max(end for _, end, _ in placed) + SLACK // WIDTH[area]
