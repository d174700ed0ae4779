"""The mobile space of ProxylessNAS (Cai et al. 2019, arXiv:1812.00332), at bit widths that may be searched with it.

Between a stem with a fixed first block and a head stand cells, each an inverted residual block of some kernel and
expansion, or left out where it keeps the size of its input. Every choice has weights of its own. With more than one
number of bits, each cell also has those of its weights and of its values to decide: of what passes inside it and, if it
starts a residual group, of the group's sums. All choices of a cell, at all bits, share the learned range of the group.

The quantized form is that of networks/inverted_residual.py, and lowers to integers at any bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from ..architecture import Architecture, Decision
from ..errors import ConfigError
from ..modules import scale_key
from ..network import BatchNorm, Conv2d, DepthwiseConv2d, Network, Shape
from ..networks.cells import CellSpace, scaled
from ..networks.inverted_residual import Block, Group, Options, build, segment
from ..quantizers import Quantizer
from . import CostPart, PathChoice, QuantizerChoice, RelaxedSpace

FIRST = "stage1/unit1"
SKIP = "skip"


class Cell(NamedTuple):
    """A cell and where its decisions stand among all; None for bits that are not decided.

    key: of the unit. input: the shape of what it reads. blocks: what it may be. path, weights, values: its decisions.
    read: that on the bits of what it reads. sums: that on those of the residual group that it is in. group: the key of
    that group's scale.
    """

    key: str
    input: Shape
    blocks: tuple[Block | None, ...]
    path: int
    weights: int | None
    values: int | None
    read: int | None
    sums: int | None
    group: str

    @property
    def decisions(self) -> tuple[int, ...]:
        """Those that its cost depends on."""
        every = {self.path, self.weights, self.values, self.read, self.sums}
        return tuple(sorted(decision for decision in every if decision is not None))


@dataclass(frozen=True)
class Mobile(RelaxedSpace):
    """image: (C, H, W) of the data set, as high as wide.
    classes: how many it has.
    pixel_mean, pixel_std: statistics of its images, of which `pixels` makes no use.
    widths, cells, strides: of every stage: filters, how many cells, and the stride of the first of them.
    kernels, expansions: of the blocks that a cell may be.
    width: what all filters are multiplied by, in multiples of 8; those of the head only if they become more.
    stem, stem_stride: filters and stride of the first convolution.
    first: filters of the fixed first block.
    head: filters of the last convolution.
    quantized: whether there are bit widths at all, or the network is float.
    weight_bits: of the weights of a cell, one decision of each cell if there are several.
    activation_bits: of its values, likewise. The first block, the head and the classifier have the most of both.
    first_layer_bits: of the weights of the first convolution.
    hard_tanh: where the signed activation of a residual group starts to clip.
    pool: what pooled numbers mean, shift (the sum divided by the power of two it is shifted by) or mean.
    pixels: centred is (p - 128) / 128, symmetric (p - 127.5) / 127.5, imagenet by ImageNet's mean and deviation.
    dropout: rate before the classifier.
    scale_gradient: of the learned scales, plain or lsq.
    """

    image: Shape = (3, 224, 224)
    classes: int = 1000
    pixel_mean: tuple[float, ...] = (128.0,)
    pixel_std: tuple[float, ...] = (128.0,)
    widths: tuple[int, ...] = CellSpace.widths
    cells: tuple[int, ...] = CellSpace.cells
    strides: tuple[int, ...] = CellSpace.strides
    kernels: tuple[int, ...] = CellSpace.kernels
    expansions: tuple[int, ...] = CellSpace.expansions
    width: float = 1.0
    stem: int = CellSpace.stem
    stem_stride: int = CellSpace.stem_stride
    first: int = CellSpace.first
    head: int = CellSpace.head
    quantized: bool = True
    weight_bits: tuple[int, ...] = (4,)
    activation_bits: tuple[int, ...] = (4,)
    first_layer_bits: int = 8
    hard_tanh: float = 10.0
    pool: Literal["shift", "mean"] = "mean"
    pixels: Literal["centred", "symmetric", "imagenet"] = "centred"
    dropout: float = 0.0
    scale_gradient: Literal["lsq", "plain"] = "plain"
    name = "mobile"

    def __post_init__(self) -> None:
        if len(self.image) != 3 or self.image[1] != self.image[2]:
            raise ConfigError(f"mobile takes square images, got {self.image}")
        for option in ("weight_bits", "activation_bits"):
            bits = getattr(self, option)
            if not bits or len(set(bits)) < len(bits):
                raise ConfigError(f"mobile: {option} are one or more different numbers, got {list(bits)}")
            if len(bits) > 1 and not self.quantized:
                raise ConfigError(f"mobile: the float network has no bits to search, got {option} {list(bits)}")
        len(self.network(next(self.covering())).shapes)

    @cached_property
    def cell_space(self) -> CellSpace:
        return CellSpace(
            self.widths, self.cells, self.strides, self.kernels, self.expansions, self.stem, self.first, self.head,
            self.image[1], self.classes, self.width, self.stem_stride, self.image[0],
        )  # fmt: skip

    @cached_property
    def options(self) -> Options:
        """How what is not searched is built."""
        most = max(self.weight_bits)
        return Options(
            self.quantized, most, max(self.activation_bits), most, self.first_layer_bits, self.hard_tanh,
            pool=self.pool, pixels=self.pixels, dropout=self.dropout, scale_gradient=self.scale_gradient,
        )  # fmt: skip

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        found: list[Decision] = []
        for cell in self.searched:
            found.append(Decision(cell.key, tuple(SKIP if block is None else block.name for block in cell.blocks)))
            for what, bits, decision in (
                ("weights", self.weight_bits, cell.weights),
                ("values", self.activation_bits, cell.values),
            ):
                if decision is not None:
                    found.append(Decision(f"{cell.key}/{what}", tuple(map(str, bits))))
        return tuple(found)

    @cached_property
    def searched(self) -> tuple[Cell, ...]:
        found: list[Cell] = []
        keys = [f"stage{i}/unit{j}" for i, count in enumerate(self.cells, 2) for j in range(1, count + 1)]
        size = -(-self.image[1] // self.stem_stride)
        shape: Shape = (scaled(self.first, self.width), size, size)
        group, read, count = f"{FIRST}/group", None, 0
        for key, candidates in zip(keys, self.cell_space.candidates, strict=True):
            blocks = tuple(None if b is None else replace(b, name=f"e{b.expansion}k{b.kernel}") for b in candidates)
            path, count = count, count + 1
            weights, count = (count, count + 1) if len(self.weight_bits) > 1 else (None, count)
            values, count = (count, count + 1) if len(self.activation_bits) > 1 else (None, count)
            block = blocks[0]
            assert block is not None  # only the last one leaves the cell out
            sums, group = (read, group) if block.shortcut else (values, f"{key}/group")
            found.append(Cell(key, shape, blocks, path, weights, values, read, sums, group))
            size, read = -(-size // block.stride), sums
            shape = (block.filters, size, size)
        return tuple(found)

    def network(self, architecture: Architecture) -> Network:
        choices = architecture.choices
        return build(self.cell_space.assembled([self._block(cell, choices) for cell in self.searched]), self.options)

    def covering(self) -> Iterator[Architecture]:
        """One for each pair of expansion and kernel."""
        for path in range(len(self.kernels) * len(self.expansions)):
            paths = {cell.path for cell in self.searched}
            yield Architecture(self.name, tuple(path if d in paths else 0 for d in range(len(self.decisions))))

    def canonical(self, architecture: Architecture) -> Architecture:
        """The bits of a cell that is left out are the first ones."""
        choices = list(architecture.choices)
        for cell in self.searched:
            if cell.blocks[choices[cell.path]] is None:
                for decision in (cell.weights, cell.values):
                    if decision is not None:
                        choices[decision] = 0
        return Architecture(self.name, tuple(choices))

    def gated(self, architecture: Architecture) -> list[PathChoice | QuantizerChoice]:
        """A choice of paths for every cell; of quantizers for every decision on bits of a cell that is not left out."""
        found: list[PathChoice | QuantizerChoice] = []
        for cell in self.searched:
            choices = architecture.choices
            segments = tuple(self._segment(cell, path, choices) for path in range(len(cell.blocks)))
            chosen = segments[choices[cell.path]]
            found.append(PathChoice(cell.path, "" if chosen is None else chosen.nodes[-1].key, segments))
            if chosen is None:
                continue
            for decision in (cell.weights, cell.values):
                if decision is not None:
                    found.append(QuantizerChoice(decision, self._quantizers(cell, decision, choices)))
        return found

    def cost_parts(self) -> list[CostPart]:
        """The cells, and the head, which reads the last residual group."""
        parts = [CostPart(f"{cell.key}/", cell.decisions) for cell in self.searched]
        last = self.searched[-1].sums
        return parts if last is None else [*parts, CostPart("final_block/", (last,))]

    def _bits(self, choices: Sequence[int], weights: int | None, values: int | None) -> tuple[int, int]:
        """Of weights and of values as these decisions are made; the most where there is none."""
        return (
            max(self.weight_bits) if weights is None else self.weight_bits[choices[weights]],
            max(self.activation_bits) if values is None else self.activation_bits[choices[values]],
        )

    def _block(self, cell: Cell, choices: Sequence[int]) -> Block | None:
        block = cell.blocks[choices[cell.path]]
        if block is None or not self.quantized:
            return block
        weights, values = self._bits(choices, cell.weights, cell.values)
        group = None if block.shortcut else values
        return replace(block, weight_bits=weights, value_bits=values, group_bits=group)

    @cached_property
    def _segments(self) -> dict[tuple[str, Block, int], Network]:
        return {}

    def _segment(self, cell: Cell, path: int, choices: Sequence[int]) -> Network | None:
        """What a cell is with another path."""
        block = self._block(cell, (*choices[: cell.path], path, *choices[cell.path + 1 :]))
        if block is None:
            return None
        _, bits = self._bits(choices, None, cell.sums)
        found = self._segments.get((cell.key, block, bits))
        if found is None:
            found = segment(block, cell.input, cell.key, Group(cell.group, bits), self.options)
            self._segments[cell.key, block, bits] = found
        return found

    def _quantizers(self, cell: Cell, decision: int, choices: Sequence[int]) -> dict[str, tuple[Quantizer, ...]]:
        """Those of the chosen path that a decision on bits changes, one for each of its options."""
        found = []
        for option in range(len(self.decisions[decision].options)):
            changed = (*choices[:decision], option, *choices[decision + 1 :])
            network = self._segment(cell, choices[cell.path], changed)
            assert network is not None
            found.append(_quantizers_of(network))
        together = {key: tuple(each[key] for each in found) for key in found[0]}
        return {key: quantizers for key, quantizers in together.items() if len(set(quantizers)) > 1}


def _quantizers_of(network: Network) -> dict[str, Quantizer]:
    """Of weights by the node's key, of activations by the key of the scale."""
    found: dict[str, Quantizer] = {}
    for node in network.nodes:
        match node.op:
            case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer):
                found[node.key] = quantizer
            case BatchNorm(activation=quantizer):
                found[scale_key(node)] = quantizer
            case _:
                pass
    return found
