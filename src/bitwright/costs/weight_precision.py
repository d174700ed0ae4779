"""The widest weights among the cells' convolutions, in bits: what the multipliers of a device must be able to take."""

from dataclasses import dataclass

from ..network import Conv2d, DepthwiseConv2d, Network
from . import Cost, CostModel


@dataclass(frozen=True)
class WeightPrecision(CostModel):
    """prefix: only nodes whose key starts with it count, which leaves out the stem and the classifier."""

    prefix: str = "cell"

    def __call__(self, network: Network) -> Cost:
        bits: dict[int, float] = {
            position: node.op.weight.bits
            for position, node in enumerate(network.nodes)
            if isinstance(node.op, (Conv2d, DepthwiseConv2d)) and node.key.startswith(self.prefix)
        }
        return Cost("bits", bits, combine="max")
