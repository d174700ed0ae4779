"""The cost-model contract: a figure per node of a network, in a named unit, without weights and without running it.

Each file of this folder is one cost; the class has the file's name in capitals (`weight_bits` holds `WeightBits`).
What is counted is a table (workload.py), made from a network or an integer graph; a cost is a function of that table
and of bit widths, of which there may be many at a time.

A rule of the MicroNet challenge (2019) is a cost with two parts: memory / reference + operations / reference. A
parameter of b bits is b / 32 parameter, and an operation on numbers of at most b bits is b / 32 operation, so both are
counted in bits and divided by 32 times the reference. The references are those of the challenge: MobileNetV2-1.4 for
ImageNet, Wide-ResNet-28-10 for CIFAR-100, an LSTM for WikiText-103 (operations per token).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError
from ..integer.graph import IntegerGraph
from ..network import Network
from ..workload.rows import workload
from ..workload.table import REAL_BITS, Floats, Widths, Workload

Target = Network | IntegerGraph | Workload
Task = Literal["imagenet", "cifar100", "wikitext103"]


@dataclass(frozen=True)
class Cost:
    """per_node: figures by node position; nodes that cost nothing are left out. combine: how they make the total."""

    unit: str
    per_node: Mapping[int, float]
    combine: Literal["sum", "max"] = "sum"

    @property
    def total(self) -> float:
        values = self.per_node.values()
        return sum(values) if self.combine == "sum" else max(values, default=0)


class CostModel(ABC):
    unit: ClassVar[str]
    combine: ClassVar[Literal["sum", "max"]] = "sum"

    @abstractmethod
    def figures(self, work: Workload, widths: Widths) -> Floats:
        """What every row costs: (..., rows), with the leading axes of `widths`."""

    def __call__(self, target: Target) -> Cost:
        """The cost of every node of `target`; pass `network.trunk` to leave out the auxiliary head."""
        work = workload(target)
        figures = self.figures(work, work.designed).tolist()
        per_node = {i: int(f) if f.is_integer() else f for i, f in enumerate(figures) if f}
        return Cost(self.unit, per_node, self.combine)

    def totals(
        self, target: Target, weight_bits: ArrayLike | None = None, activation_bits: ArrayLike | None = None
    ) -> Floats:
        """The total at other bit widths, one for each candidate: (...). Bits as for `Workload.widths`."""
        work = workload(target)
        return self.total(work, work.widths(weight_bits, activation_bits))

    def total(self, work: Workload, widths: Widths) -> Floats:
        """The figures of all rows combined: (...)."""
        figures = np.broadcast_to(self.figures(work, widths), widths.value_bits.shape)
        combined: Floats = figures.sum(-1) if self.combine == "sum" else figures.max(-1, initial=0)
        return combined


class Reference(NamedTuple):
    """Numbers of 32 bits, and operations on such numbers."""

    parameters: float
    operations: float


REFERENCES: dict[Task, Reference] = {
    "imagenet": Reference(6.9e6, 1170e6),
    "cifar100": Reference(36.5e6, 10.49e9),
    "wikitext103": Reference(159e6, 318e6),
}


class Bits(NamedTuple):
    """What is stored and what is computed, in bits: by name and in the order of execution, (..., rows) each."""

    memory: Mapping[str, Floats]
    math: Mapping[str, Floats]


class Score(NamedTuple):
    """The parts of the score and their sum."""

    memory: float
    math: float
    total: float


class ScoreModel(CostModel):
    """A rule that counts bits. Each subclass has a field `reference`, the task whose reference divides them."""

    unit = "score"

    reference: Task

    @abstractmethod
    def bits(self, work: Workload, widths: Widths) -> Bits:
        """Everything that the rule counts."""

    @property
    def divisors(self) -> Reference:
        """Bits that score 1: of memory and of operations."""
        reference = REFERENCES[self.reference]
        return Reference(reference.parameters * REAL_BITS, reference.operations * REAL_BITS)

    def figures(self, work: Workload, widths: Widths) -> Floats:
        bits, divisors = self.bits(work, widths), self.divisors
        return summed(bits.memory) / divisors.parameters + summed(bits.math) / divisors.operations

    def total(self, work: Workload, widths: Widths) -> Floats:
        """The bits are added before they are divided, so that they are added without rounding."""
        memory, math = self._parts(work, widths)
        return memory + math

    def score(self, target: Target, widths: Widths | None = None) -> Score:
        """Of a network as it is, or at other widths of its table."""
        work = workload(target)
        memory, math = self._parts(work, widths or work.designed)
        return Score(float(memory), float(math), float(memory + math))

    def _parts(self, work: Workload, widths: Widths) -> tuple[Floats, Floats]:
        bits, divisors = self.bits(work, widths), self.divisors
        return (
            summed(bits.memory).sum(-1) / divisors.parameters,
            summed(bits.math).sum(-1) / divisors.operations,
        )


def summed(terms: Mapping[str, Floats]) -> Floats:
    """All terms of every row."""
    total: Floats = np.sum(np.broadcast_arrays(*terms.values()), axis=0)
    return total


def check_reference(reference: str) -> None:
    if reference not in REFERENCES:
        raise ConfigError(f"no reference {reference!r}: {', '.join(REFERENCES)}")
