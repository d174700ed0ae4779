"""Multiply-accumulate operations of one image."""

from dataclasses import dataclass

from ..network import Conv2d, DepthwiseConv2d, Linear, Network
from . import Cost, CostModel


@dataclass(frozen=True)
class Macs(CostModel):
    """Convolutions and products; padding counts as if it were pixels, as is usual."""

    def __call__(self, network: Network) -> Cost:
        per_node: dict[int, float] = {}
        for position, node in enumerate(network.nodes):
            if isinstance(node.op, (Conv2d, DepthwiseConv2d, Linear)):
                area = network.shapes[position][1:]
                pixels = area[0] * area[1] if area else 1
                per_node[position] = pixels * sum(w.size for w in network.weights(position))
        return Cost("MACs", per_node)
