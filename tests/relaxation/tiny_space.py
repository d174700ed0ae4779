"""Relaxed spaces of a few decisions on images (1, 8, 8), for which every gradient can be had by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.architecture import Architecture, Decision
from bitwright.network import Add, BatchNorm, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Node, Op
from bitwright.quantizers import Quantizer
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.uniform import Uniform
from bitwright.spaces import CostPart, PathChoice, QuantizerChoice, RelaxedSpace

SIDE, CHANNELS = 8, 4


@dataclass(frozen=True)
class TinySpace(RelaxedSpace):
    """Stem, cells, classifier. A cell is a convolution of one of these kernels, `blind` to where anything is, or "skip"
    past a shortcut; the bits of the stem's weights are the last decision if there are several of them.

    excluded: choices that are no architectures.
    """

    options: tuple[str, ...] = ("3", "1", "skip")
    cells: int = 2
    bits: tuple[int, ...] = ()
    classes: int = 4
    excluded: tuple[tuple[int, ...], ...] = ()
    name = "tiny"

    @property
    def decisions(self) -> tuple[Decision, ...]:
        cells = [Decision(f"cell{i}", self.options) for i in range(self.cells)]
        return (*cells, *([Decision("stem", tuple(map(str, self.bits)))] if self.bits else []))

    def is_valid(self, choices: tuple[int, ...]) -> bool:  # type: ignore[override]
        return tuple(choices) not in self.excluded

    def network(self, architecture: Architecture) -> Network:
        weight = self._stem(architecture.choices[-1]) if self.bits else Real()
        nodes = [Node(Input((1, SIDE, SIDE))), Node(Conv2d(CHANNELS, 3, weight), (0,), "stem/conv")]
        nodes.append(Node(BatchNorm(Relu(), real=True), (1,), "stem/bn"))
        for i in range(self.cells):
            start = len(nodes) - 1
            nodes += self._path(i, self.options[architecture.choices[i]], start)
            if len(nodes) - 1 > start and "skip" in self.options:
                nodes.append(Node(Add(), (start, len(nodes) - 1)))
        nodes.append(Node(Flatten(), (len(nodes) - 1,)))
        nodes.append(Node(Linear(self.classes, Real()), (len(nodes) - 1,), "output"))
        return Network(tuple(nodes))

    def covering(self) -> Iterator[Architecture]:
        for choices in itertools.product(*(range(len(d.options)) for d in self.decisions)):
            if self.is_valid(choices):
                yield Architecture(self.name, choices)

    def gated(self, architecture: Architecture) -> list[PathChoice | QuantizerChoice]:
        found: list[PathChoice | QuantizerChoice] = []
        for i in range(self.cells):
            segments = tuple(self._segment(i, option) for option in self.options)
            chosen = segments[architecture.choices[i]]
            found.append(PathChoice(i, "" if chosen is None else chosen.nodes[-1].key, segments))
        if self.bits:
            quantizers = tuple(self._stem(k) for k in range(len(self.bits)))
            found.append(QuantizerChoice(self.cells, {"stem/conv": quantizers}))
        return found

    def cost_parts(self) -> list[CostPart]:
        parts = [CostPart(f"cell{i}/", (i,)) for i in range(self.cells)]
        return [*parts, CostPart("stem/", (self.cells,))] if self.bits else parts

    def _stem(self, choice: int) -> Quantizer:
        return Uniform(self.bits[choice])

    def _segment(self, cell: int, option: str) -> Network | None:
        path = self._path(cell, option, 0)
        return Network((Node(Input((CHANNELS, SIDE, SIDE))), *path)) if path else None

    def _path(self, cell: int, option: str, start: int) -> list[Node]:
        key = f"cell{cell}/{option}"
        if option == "skip":
            return []
        ops: list[tuple[Op, str]] = []
        kernel = 1 if option == "blind" else int(option)
        if option == "blind":
            ops += [(MaxPool2d(7), ""), (MaxPool2d(7), ""), (MaxPool2d(3), "")]
        ops += [(Conv2d(CHANNELS, kernel, Real()), f"{key}/conv"), (BatchNorm(Relu(), real=True), f"{key}/bn")]
        return [Node(op, (start + i,), name) for i, (op, name) in enumerate(ops)]
