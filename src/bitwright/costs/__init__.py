"""The cost-model contract: a figure per node of a network, in a named unit, without weights and without running it.

Each file of this folder is one cost; the class has the file's name in capitals (`weight_bits` holds `WeightBits`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..network import Network


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
    @abstractmethod
    def __call__(self, network: Network) -> Cost:
        """The cost of every node of `network`; pass `network.trunk` to leave out the auxiliary head."""
