"""The search space of ProxylessNAS as block lists (Cai et al. 2019, arXiv:1812.00332): cells, and what each may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import ConfigError
from .inverted_residual import Block, BlockList

DIVISOR = 8  # of the filters of a network that is made wider or narrower


@dataclass(frozen=True)
class CellSpace:
    """A network whose stem, first block and head are fixed, with searchable cells between them.

    widths, cells, strides: of every stage: filters, how many cells, and the stride of the first of them.
    kernels, expansions: of the inverted residual blocks that a cell may be. A cell that keeps the size of its input has
    a shortcut, and may also be left out.
    first: filters of the first block, which expands nothing. stem, stem_stride, head, channels, resolution, classes: as
    of BlockList.
    width: what all filters are multiplied by, in multiples of 8; those of the head only if they become more.
    """

    widths: tuple[int, ...] = (24, 40, 80, 96, 192, 320)
    cells: tuple[int, ...] = (4, 4, 4, 4, 4, 1)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2, 1)
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 6)
    stem: int = 32
    first: int = 16
    head: int = 1280
    resolution: int = 224
    classes: int = 1000
    width: float = 1.0
    stem_stride: int = 2
    channels: int = 3

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.cells) == len(self.strides):
            raise ConfigError("widths, cells and strides have one number for each stage")
        for name in ("widths", "cells", "strides", "kernels", "expansions"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ConfigError(f"{name} are numbers of at least 1, got {list(values)}")
        for name in ("stem", "first", "head", "resolution", "classes", "stem_stride", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is at least 1, got {getattr(self, name)}")
        for name in ("kernels", "expansions"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(f"{name} are different ones, got {list(getattr(self, name))}")
        if not all(kernel % 2 for kernel in self.kernels):
            raise ConfigError(f"kernels are odd, got {list(self.kernels)}")
        if not 0 < self.width < float("inf"):
            raise ConfigError(f"width is positive, got {self.width}")

    @cached_property
    def candidates(self) -> tuple[tuple[Block | None, ...], ...]:
        """What every cell may be, by expansion and kernel; None, where it is allowed, leaves the cell out."""
        found: list[tuple[Block | None, ...]] = []
        channels = scaled(self.first, self.width)
        for width, count, stride in zip(self.widths, self.cells, self.strides, strict=True):
            filters = scaled(width, self.width)
            for cell in range(count):
                step = stride if cell == 0 else 1
                keeps = step == 1 and channels == filters
                blocks = [Block(k, e, filters, step, shortcut=keeps) for e in self.expansions for k in self.kernels]
                found.append((*blocks, None) if keeps else tuple(blocks))
                channels = filters
        return tuple(found)

    def block_list(self, choices: Sequence[int]) -> BlockList:
        """The network with the candidate of that number in every cell."""
        if len(choices) != len(self.candidates):
            raise ConfigError(f"there are {len(self.candidates)} cells, got {len(choices)} choices")
        for cell, (choice, options) in enumerate(zip(choices, self.candidates, strict=True)):
            if not 0 <= choice < len(options):
                raise ConfigError(f"cell {cell} has candidates 0 to {len(options) - 1}, got {choice}")
        return self.assembled([options[choice] for choice, options in zip(choices, self.candidates, strict=True)])

    def assembled(self, cells: Sequence[Block | None]) -> BlockList:
        """The network with these blocks in its cells."""
        blocks = iter(cells)
        stages = tuple(tuple(next(blocks) for _ in range(count)) for count in self.cells)
        first = (Block(3, 1, scaled(self.first, self.width)),)
        head = max(scaled(self.head, self.width), self.head)
        stem = scaled(self.stem, self.width)
        return BlockList(
            stem, (first, *stages), head, self.resolution, classes=self.classes, stem_stride=self.stem_stride,
            channels=self.channels,
        )  # fmt: skip

    def covering(self) -> Iterator[BlockList]:
        """Networks that together hold every block: one for each pair of expansion and kernel."""
        for choice in range(len(self.kernels) * len(self.expansions)):
            yield self.block_list([choice] * len(self.candidates))


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8 that is no more than a tenth below (Sandler et al. 2018)."""
    if width == 1:
        return channels
    wanted = channels * width
    rounded = max(int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR, DIVISOR)
    return rounded if rounded >= 0.9 * wanted else rounded + DIVISOR
