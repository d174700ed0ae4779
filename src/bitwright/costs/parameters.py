"""Trained numbers: weights, and a gain and an offset per channel of every batch normalisation."""

from dataclasses import dataclass

from ..network import BatchNorm, Network
from . import Cost, CostModel


@dataclass(frozen=True)
class Parameters(CostModel):
    def __call__(self, network: Network) -> Cost:
        per_node: dict[int, float] = {}
        for position, node in enumerate(network.nodes):
            if isinstance(node.op, BatchNorm):
                per_node[position] = 2 * network.shapes[position][0]
            elif weights := network.weights(position):
                per_node[position] = sum(w.size for w in weights)
        return Cost("parameters", per_node)
