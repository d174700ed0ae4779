"""Bits that store the trained numbers: weights at their precision, gains and offsets of normalisations at 32 bits."""

from dataclasses import dataclass

from ..network import BatchNorm, Conv2d, DepthwiseConv2d, Linear, Network
from . import Cost, CostModel


@dataclass(frozen=True)
class WeightBits(CostModel):
    def __call__(self, network: Network) -> Cost:
        per_node: dict[int, float] = {}
        for position, node in enumerate(network.nodes):
            match node.op:
                case BatchNorm():
                    per_node[position] = 2 * 32 * network.shapes[position][0]
                case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer) | Linear(weight=quantizer):
                    per_node[position] = quantizer.bits * sum(w.size for w in network.weights(position))
                case _:
                    pass
        return Cost("bits", per_node)
