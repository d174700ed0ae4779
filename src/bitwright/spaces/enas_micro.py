"""The cell space of ENAS (Pham et al. 2018, arXiv:1802.03268, section 2.4), over operations of chosen precision.

A cell has two inputs, nodes 0 and 1 (the outputs of the cell before the previous and of the previous cell), and B
computed nodes. Four integers make a node: index_1 op_1 index_2 op_2; the node is op_1(node index_1) +
op_2(node index_2), and each index may name any earlier node. The cell's output is the concatenation of the nodes that
no other node reads. An architecture is a normal cell and a reduction cell, 8 B integers.

Two sets of operations:
    enas    separable 3x3, separable 5x5, average pool 3x3, max pool 3x3, identity; precision follows the position
            (stem, first cell, other cells), as in the quantized ENAS of Kant (2018)
    mixed   separable 3x3 and 5x5 at each of several precisions, then the pools and identity: the precision is searched

Two wirings:
    classic  activation, convolution, batch normalisation, as published; the supernet's network and the stand-alone
             network differ as they do there
    integer  convolution, batch normalisation, quantization. Every edge of a cell ends on the cell's own grid of
             integers, so sums (which saturate), concatenations and pools need no float and no rescaling. Both inputs
             of a cell pass a 1x1 convolution onto its grid, or one of stride 2 where the image must shrink. The
             supernet runs the same network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal, NamedTuple

from ..architecture import Architecture, Decision
from ..errors import InvalidArchitecture
from ..network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    DropPath,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Shape,
    SumPool2d,
)
from ..precision import rectified_activation, symmetric_activation, weight_quantizer
from ..quantizers import Quantizer
from ..quantizers.real import Real
from ..quantizers.relu import Relu
from ..quantizers.uniform import Uniform
from . import SearchSpace
from ._building import Builder, check_choices, check_numbers, check_pixels, check_precisions, check_reductions

CELLS = ("normal", "reduction")


class Edge(NamedTuple):
    """One side of a node: an operation on an earlier node."""

    source: int
    op: int


class Operation(NamedTuple):
    """kind: "separable", "average", "max" or "identity". precision: of the weights; None takes the cell's.

    weights: what its shared convolution weights are kept under.
    """

    name: str
    kind: Literal["separable", "average", "max", "identity"]
    kernel: int = 3
    precision: str | None = None
    weights: str = ""


@dataclass(frozen=True)
class EnasMicro(SearchSpace):
    """The space of one data set.

    image: (C, H, W) of the data set.
    classes: how many classes it has.
    pixel_mean, pixel_std: statistics of its training images per channel, in units of 0 to 255.
    nodes: computed nodes of a cell (B).
    cells: number of cells, reduction cells included. The published `num_layers` is this less two.
    filters: channels of the first cell; every reduction doubles them.
    reductions: positions of the reduction cells, counted from 0; None puts two at thirds as the ENAS authors do.
    ops: the set of operations, five of ENAS or mixed in precision.
    precisions: of the separable convolutions of the mixed set.
    stem_precision, first_cell_precision, cell_precision: by position; in the mixed set cell_precision is that of the
        1x1 convolutions at a cell's inputs.
    activation_precision: of all activations; None takes the weights' precision at the same position.
    wiring: how cells are wired, as published or integer throughout.
    share_precisions: in a supernet, whether the precisions of one separable convolution round the same latent weights.
        Their normalisations are always their own. With it a mixed supernet on digits reaches in 2,000 steps 72 % where
        it reaches 50 % without.
    stacks: how often a separable convolution is applied in a row (twice in NASNet and ENAS).
    dropout: rate before the classifier in training.
    auxiliary: whether training also classifies from the middle of the network.
    """

    image: Shape = (1, 8, 8)
    classes: int = 10
    pixel_mean: tuple[float, ...] = (0.0,)
    pixel_std: tuple[float, ...] = (255.0,)
    nodes: int = 5
    cells: int = 8
    filters: int = 20
    reductions: tuple[int, ...] | None = None
    ops: Literal["enas", "mixed"] = "mixed"
    precisions: tuple[str, ...] = ("binary", "ternary", "2", "4", "8")
    stem_precision: str = "4"
    first_cell_precision: str = "4"
    cell_precision: str = "ternary"
    activation_precision: str | None = None
    wiring: Literal["classic", "integer"] = "integer"
    share_precisions: bool = True
    stacks: int = 2
    dropout: float = 0.0
    auxiliary: bool = False
    name = "enas_micro"

    def __post_init__(self) -> None:
        check_numbers(self, {"nodes": 1, "cells": 1, "filters": 1, "stacks": 1, "classes": 2}, self.dropout)
        check_choices(self.name, self.ops, self.wiring)
        given = (self.stem_precision, self.first_cell_precision, self.cell_precision, self.activation_precision)
        check_precisions(self.name, given, self.precisions)
        check_reductions(self.name, self.reduction_cells, self.cells, "cells", self.image)
        check_pixels(self.name, self.image, self.pixel_mean, self.pixel_std)

    @cached_property
    def reduction_cells(self) -> tuple[int, ...]:
        if self.reductions is not None:
            return tuple(sorted(self.reductions))
        third = (self.cells - 2) // 3
        return (third, 2 * third + 1) if self.cells > 2 else ()

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        searched = self.precisions if self.ops == "mixed" else (None,)
        separable = tuple(
            Operation(name, "separable", k, precision, f"sep{k}x{k}" if self.share_precisions else name)
            for k in (3, 5)
            for precision in searched
            for name in [f"sep{k}x{k}/{precision}" if precision else f"sep{k}x{k}"]
        )
        pools = Operation("avg3x3", "average"), Operation("max3x3", "max"), Operation("identity", "identity")
        return (*separable, *pools)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        names = tuple(operation.name for operation in self.operations)
        return tuple(
            decision
            for cell in CELLS
            for node in range(2, self.nodes + 2)
            for side in (1, 2)
            for decision in (
                Decision(f"{cell}/{node}/index{side}", tuple(map(str, range(node)))),
                Decision(f"{cell}/{node}/op{side}", names),
            )
        )

    def architecture(self, choices: Sequence[int]) -> Architecture:
        if len(choices) != 8 * self.nodes:
            half = 4 * self.nodes
            raise InvalidArchitecture(
                f"enas_micro with {self.nodes} nodes takes {2 * half} integers, {half} of the normal and {half} of the"
                f" reduction cell; got {len(choices)}"
            )
        return super().architecture(choices)

    def cell(self, architecture: Architecture, kind: str) -> tuple[tuple[Edge, Edge], ...]:
        """The two edges of every computed node of the "normal" or the "reduction" cell."""
        start = 4 * self.nodes * CELLS.index(kind)
        quads = (architecture.choices[i : i + 4] for i in range(start, start + 4 * self.nodes, 4))
        return tuple((Edge(a, b), Edge(c, d)) for a, b, c, d in quads)

    def unused(self, architecture: Architecture, kind: str) -> tuple[int, ...]:
        """The nodes of a cell, inputs included, that no other node reads: they make its output."""
        return _unused(self.cell(architecture, kind))

    def canonical(self, architecture: Architecture) -> Architecture:
        """Sides of a node and the numbering of nodes do not matter: the smallest of all equal encodings."""
        return Architecture(
            self.name, (*_smallest(self.cell(architecture, "normal")), *_smallest(self.cell(architecture, "reduction")))
        )

    def warnings(self, architecture: Architecture) -> list[str]:
        found = []
        for kind in CELLS:
            kinds = {self.operations[edge.op].kind for node in self.cell(architecture, kind) for edge in node}
            if "separable" not in kinds:
                found.append(f"collapse: the {kind} cell has no convolution, only {' and '.join(sorted(kinds))}")
        return found

    def covering(self) -> Iterator[Architecture]:
        for op in range(len(self.operations)):
            for source in range(self.nodes + 1):
                cell = [n for node in range(self.nodes) for n in (min(source, node + 1), op) * 2]
                yield Architecture(self.name, (*cell, *cell))

    def network(self, architecture: Architecture) -> Network:
        return self._build(architecture, shared=False)

    def shared_network(self, architecture: Architecture) -> Network:
        return self._build(architecture, shared=True)

    def _build(self, architecture: Architecture, shared: bool) -> Network:
        self.architecture(architecture.choices)
        if self.wiring == "classic":
            return _Classic(self, architecture, shared).build()
        return _Integer(self, architecture, shared).build()


class _Source(NamedTuple):
    """The output of an earlier cell or of the stem: named nodes, and how many reductions lie behind them."""

    nodes: tuple[int, ...]
    blocks: tuple[str, ...]
    reductions: int


class _Builder(Builder):
    """What the two wirings have in common: the choices of the space."""

    def __init__(self, space: EnasMicro, architecture: Architecture, shared: bool) -> None:
        super().__init__()
        self.space = space
        self.shared = shared
        self.arcs = {kind: space.cell(architecture, kind) for kind in CELLS}

    def precision(self, cell: int | None) -> str:
        """Precision by position; None is the stem."""
        if cell is None:
            return self.space.stem_precision
        return self.space.first_cell_precision if cell == 0 else self.space.cell_precision

    def activation_name(self, cell: int | None) -> str:
        return self.space.activation_precision or self.precision(cell)

    def weight(self, cell: int | None, operation: Operation | None = None) -> Quantizer:
        return weight_quantizer(operation.precision if operation and operation.precision else self.precision(cell))

    def drop_path(self, x: int, cell: int) -> int:
        """Deeper cells drop more often (Larsson et al. 2017; linear in depth as in NASNet)."""
        return x if self.shared else self.add(DropPath((cell + 1) / self.space.cells), x)

    def classify(self, source: _Source, classifier: Quantizer, auxiliary: int | None) -> Network:
        self.classifier(source.nodes, self.space.classes, classifier, self.space.dropout, source.blocks)
        return Network(tuple(self.nodes), auxiliary)

    def auxiliary_cell(self) -> int | None:
        """The cell whose output the auxiliary head reads: the one after the second reduction."""
        if not self.space.auxiliary or not self.space.reduction_cells:
            return None
        after = self.space.reduction_cells[:2][-1] + 1
        return after if after < self.space.cells else None

    def auxiliary_head(self, source: _Source, weight: Quantizer, activation: Quantizer) -> int:
        """5x5 average pool of stride 3, 1x1 convolution to 128, convolution over the whole image to 768, classifier."""
        size = [-(-s // 2**source.reductions) for s in self.space.image[1:]]
        valid = min(size) >= 5 and all((s - 3) % 5 == 0 for s in size)
        kernel = (size[0] - 5) // 3 + 1 if valid else -(-size[0] // 3)
        nodes = [
            self.add(Activation(activation), x, key=f"aux/act/{block}")
            for x, block in zip(source.nodes, source.blocks, strict=True)
        ]
        nodes = [self.add(AveragePool2d(5, 3, "valid" if valid else "same"), x) for x in nodes]
        x = self.add(Conv2d(128, 1, weight, blocks=source.blocks), *nodes, key="aux/project")
        x = self.add(BatchNorm(activation), x, key="aux/project/norm")
        x = self.add(Conv2d(768, kernel, weight), x, key="aux/image")
        x = self.add(BatchNorm(activation), x, key="aux/image/norm")
        return self.add(Linear(self.space.classes, Real()), self.add(GlobalSumPool(), x), key="aux/classifier")


class _Integer(_Builder):
    """Convolution, batch normalisation, quantization; one grid of integers per cell."""

    def build(self) -> Network:
        space = self.space
        zero = round(sum(space.pixel_mean) / len(space.pixel_mean))
        image = self.add(Input(space.image, offset=(float(zero),)))
        stem = self.add(Conv2d(space.filters, 3, self.weight(None)), image, key="stem")
        stem = self.add(BatchNorm(rectified_activation(self.activation_name(None))), stem, key="stem/norm")
        sources = [_Source((stem,), ("stem",), 0)] * 2
        reductions, auxiliary = 0, None
        for cell in range(space.cells):
            reductions += cell in space.reduction_cells
            sources = [sources[1], self._cell(cell, sources, reductions)]
            if cell == self.auxiliary_cell():
                auxiliary = self.auxiliary_head(sources[1], Real(), Relu())
        levels = rectified_activation(self.activation_name(space.cells - 1)).levels
        return self.classify(sources[1], Real() if levels is None else Uniform(8), auxiliary)

    def _cell(self, cell: int, sources: list[_Source], reductions: int) -> _Source:
        arc = self.arcs["reduction" if cell in self.space.reduction_cells else "normal"]
        channels = self.space.filters * 2**reductions
        grid = rectified_activation(self.activation_name(cell))
        nodes = []
        for side, source in enumerate(sources):
            shrink = 2 ** (reductions - source.reductions)
            x = self.add(
                Conv2d(channels, shrink, self.weight(cell), shrink, source.blocks),
                *source.nodes,
                key=f"cell{cell}/in{side}",
            )
            nodes.append(self.add(BatchNorm(grid), x, key=f"cell{cell}/in{side}/norm"))
        for node, edges in enumerate(arc, start=2):
            sides = (
                self._edge(cell, f"cell{cell}/node{node}/{side}", edge, nodes[edge.source], channels, grid)
                for side, edge in zip("xy", edges, strict=True)
            )
            nodes.append(self.add(Add(grid.levels), *sides))
        output = _unused(arc)
        return _Source(tuple(nodes[i] for i in output), tuple(f"from{i}" for i in output), reductions)

    def _edge(self, cell: int, key: str, edge: Edge, x: int, channels: int, grid: Quantizer) -> int:
        operation = self.space.operations[edge.op]
        match operation.kind:
            case "identity":
                return x
            case "max":
                x = self.add(MaxPool2d(3), x)
            case "average":
                x = self.add(Activation(grid), self.add(SumPool2d(3), x), key=f"{key}/avg3x3")
            case "separable":
                weight = self.weight(cell, operation)
                for stack in range(self.space.stacks):
                    latent, own = (
                        f"{key}/{name}/from{edge.source}/{stack}" for name in (operation.weights, operation.name)
                    )
                    x = self.add(DepthwiseConv2d(operation.kernel, weight), x, key=f"{latent}/depthwise")
                    x = self.add(BatchNorm(grid), x, key=f"{own}/depthwise/norm")
                    x = self.add(Conv2d(channels, 1, weight), x, key=f"{latent}/pointwise")
                    x = self.add(BatchNorm(grid), x, key=f"{own}/pointwise/norm")
        return self.drop_path(x, cell)


class _Classic(_Builder):
    """Activation, convolution, batch normalisation, as in the published programs."""

    def build(self) -> Network:
        space = self.space
        x = self.add(Input(space.image, space.pixel_mean, tuple(1 / s for s in space.pixel_std)))
        x = self.add(Conv2d(3 * space.filters, 3, self.weight(None)), x, key="stem")
        x = self.add(BatchNorm(), x, key="stem/norm")
        self._facts = {x: (3 * space.filters, 0)}  # channels and reductions of what cells pass on
        self._activated: dict[tuple[int, Quantizer], int] = {}
        layers, channels, auxiliary = [x, x], space.filters, None
        for cell in range(space.cells):
            if cell in space.reduction_cells:
                channels *= 2
                if self.shared:
                    layers = [layers[1], self._halved(layers[1], channels, cell, f"cell{cell}/reduce")]
            layer = self._shared_cell if self.shared else self._fixed_cell
            layers = [layers[1], layer(cell, layers, channels)]
            if cell == self.auxiliary_cell():
                source = _Source((layers[1],), ("",), self._facts[layers[1]][1])
                auxiliary = self.auxiliary_head(
                    source, self.weight(cell), symmetric_activation(self.activation_name(cell))
                )
        last = self._active(layers[1], space.cells - 1)
        return self.classify(_Source((last,), ("",), self._facts[layers[1]][1]), Real(), auxiliary)

    def _active(self, x: int, cell: int) -> int:
        quantizer = symmetric_activation(self.activation_name(cell))
        if (x, quantizer) not in self._activated:
            self._activated[x, quantizer] = self.add(Activation(quantizer), x, key=f"cell{cell}/act{x}")
        return self._activated[x, quantizer]

    def _projected(self, x: int, channels: int, cell: int, key: str) -> int:
        """Activation, 1x1 convolution, batch normalisation."""
        y = self.add(Conv2d(channels, 1, self.weight(cell)), self._active(x, cell), key=key)
        y = self.add(BatchNorm(), y, key=f"{key}/norm")
        self._facts[y] = (channels, self._facts[x][1])
        return y

    def _halved(self, x: int, channels: int, cell: int, key: str) -> int:
        y = self.factorized_reduction(x, channels, self.weight(cell), key)
        self._facts[y] = (channels, self._facts.get(x, (0, 0))[1] + 1)
        return y

    def _calibrated(self, cell: int, layers: list[int], channels: int) -> tuple[int, int]:
        """Both inputs of a cell with `channels` channels and the size of the second."""
        left, right = layers
        reductions = self._facts[right][1]
        if self._facts[left][1] != reductions:
            active = self._active(left, cell)
            self._facts[active] = self._facts[left]
            left = self._halved(active, channels, cell, f"cell{cell}/in0")
        elif self._facts[left][0] != channels:
            left = self._projected(left, channels, cell, f"cell{cell}/in0")
        if self._facts[right][0] != channels:
            right = self._projected(right, channels, cell, f"cell{cell}/in1")
        return left, right

    def _shared_cell(self, cell: int, layers: list[int], channels: int) -> int:
        arc = self.arcs["reduction" if cell in self.space.reduction_cells else "normal"]
        nodes = list(self._calibrated(cell, layers, channels))
        reductions = self._facts[nodes[1]][1]
        for node, edges in enumerate(arc, start=2):
            sides = [
                self._edge(
                    cell, f"cell{cell}/node{node}/{side}", edge, nodes[edge.source], channels, 1, f"/from{edge.source}"
                )
                for side, edge in zip("xy", edges, strict=True)
            ]
            nodes.append(self.add(Add(), *sides))
        output = _unused(arc)
        op = Conv2d(channels, 1, self.weight(cell), blocks=tuple(f"from{i}" for i in output))
        y = self.add(op, *(self._active(nodes[i], cell) for i in output), key=f"cell{cell}/out")
        y = self.add(BatchNorm(), y, key=f"cell{cell}/out/norm")
        self._facts[y] = (channels, reductions)
        return y

    def _fixed_cell(self, cell: int, layers: list[int], channels: int) -> int:
        reduces = cell in self.space.reduction_cells
        arc = self.arcs["reduction" if reduces else "normal"]
        left, right = self._calibrated(cell, layers, channels)
        nodes = [left, self._projected(right, channels, cell, f"cell{cell}/base")]
        reductions = self._facts[right][1] + reduces
        for node, edges in enumerate(arc, start=2):
            sides = [
                self._edge(
                    cell,
                    f"cell{cell}/node{node}/{side}",
                    edge,
                    nodes[edge.source],
                    channels,
                    2 if reduces and edge.source < 2 else 1,
                )
                for side, edge in zip("xy", edges, strict=True)
            ]
            nodes.append(self.add(Add(), *sides))
        output = []
        for i in _unused(arc):
            output.append(
                self._halved(nodes[i], channels, cell, f"cell{cell}/out{i}") if reduces and i < 2 else nodes[i]
            )
        y = output[0] if len(output) == 1 else self.add(Concat(), *output)
        self._facts[y] = (channels * len(output), reductions)
        return y

    def _edge(self, cell: int, key: str, edge: Edge, x: int, channels: int, stride: int, shared_by: str = "") -> int:
        operation = self.space.operations[edge.op]
        match operation.kind:
            case "identity":
                return x if stride == 1 else self._halved(x, channels, cell, f"{key}/identity")
            case "max":
                x = self.add(MaxPool2d(3, stride), x)
            case "average":
                x = self.add(AveragePool2d(3, stride), x)
            case "separable":
                weight = self.weight(cell, operation)
                for stack in range(self.space.stacks):
                    latent, own = (f"{key}/{name}{shared_by}/{stack}" for name in (operation.weights, operation.name))
                    x = self._active(x, cell)
                    x = self.add(
                        DepthwiseConv2d(operation.kernel, weight, stride if stack == 0 else 1),
                        x,
                        key=f"{latent}/depthwise",
                    )
                    x = self.add(Conv2d(channels, 1, weight), x, key=f"{latent}/pointwise")
                    x = self.add(BatchNorm(), x, key=f"{own}/norm")
        return self.drop_path(x, cell)


def _unused(arc: tuple[tuple[Edge, Edge], ...]) -> tuple[int, ...]:
    read = {edge.source for node in arc for edge in node}
    return tuple(i for i in range(len(arc) + 2) if i not in read)


def _smallest(arc: tuple[tuple[Edge, Edge], ...]) -> tuple[int, ...]:
    """The lexicographically smallest encoding of a cell over all valid numberings of its nodes."""
    best: tuple[int, ...] | None = None
    for order in permutations(range(2, len(arc) + 2)):
        renumbered = {0: 0, 1: 1} | {old: new for new, old in enumerate(order, start=2)}
        encoding: list[int] = []
        for new, old in enumerate(order, start=2):
            edges = sorted((renumbered[edge.source], edge.op) for edge in arc[old - 2])
            if edges[1][0] >= new:  # reads a node that comes later in this order
                break
            encoding += [*edges[0], *edges[1]]
            if best is not None and tuple(encoding) > best[: len(encoding)]:
                break
        else:
            if best is None or tuple(encoding) < best:
                best = tuple(encoding)
    assert best is not None
    return best
