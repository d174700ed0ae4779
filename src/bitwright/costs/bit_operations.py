"""Bit operations of one image: MACs times weight bits times activation bits (Baskin et al. 2018, arXiv:1804.10969).

Real numbers count as 32 bits. Sums, pools and thresholds are not counted.
"""

from dataclasses import dataclass

from ..network import Conv2d, DepthwiseConv2d, Linear, Network
from . import Cost, CostModel
from .macs import Macs


@dataclass(frozen=True)
class BitOperations(CostModel):
    def __call__(self, network: Network) -> Cost:
        per_node: dict[int, float] = {}
        for position, macs in Macs()(network).per_node.items():
            op = network.nodes[position].op
            assert isinstance(op, (Conv2d, DepthwiseConv2d, Linear))
            inputs = [network.ranges[i] for i in network.nodes[position].inputs]
            activation_bits = max(32 if r is None else r.bits for r in inputs)
            per_node[position] = macs * op.weight.bits * activation_bits
        return Cost("bit operations", per_node)
