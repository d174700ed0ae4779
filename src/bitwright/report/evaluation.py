"""How good a trained network is and what it costs, per layer and in total."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch

from ..costs import Cost, CostModel
from ..costs.bit_operations import BitOperations
from ..costs.macs import Macs
from ..costs.parameters import Parameters
from ..costs.weight_bits import WeightBits
from ..datasets import Dataset
from ..modules import Weights
from ..network import Conv2d, DepthwiseConv2d, Linear, Network
from ..train.step import accuracy, predictions

COSTS: dict[str, CostModel] = {
    "parameters": Parameters(),
    "weight_bits": WeightBits(),
    "macs": Macs(),
    "bit_operations": BitOperations(),
}


@dataclass(frozen=True)
class Layer:
    """A node that costs something. precision: of weights and of what they multiply, such as "2 x 4"."""

    name: str
    operation: str
    output: tuple[int, ...]
    precision: str
    parameters: float
    weight_bits: float
    macs: float
    bit_operations: float


@dataclass(frozen=True)
class Evaluation:
    """confusion_matrix[i][j]: test images of class i that were put in class j."""

    test_accuracy: float
    validation_accuracy: float
    test_images: int
    parameters: int
    weight_bits: int
    macs: int
    bit_operations: int
    classes: tuple[str, ...]
    confusion_matrix: list[list[int]]
    layers: list[Layer]

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @property
    def blocks(self) -> list[Layer]:
        """The layers, each with the costs of the normalisation behind it."""
        blocks: list[Layer] = []
        for layer in self.layers:
            if blocks and layer.operation == "BatchNorm":
                last = blocks[-1]
                blocks[-1] = replace(
                    last,
                    parameters=last.parameters + layer.parameters,
                    weight_bits=last.weight_bits + layer.weight_bits,
                )
            else:
                blocks.append(layer)
        return blocks


def evaluate(network: Network, weights: Weights, dataset: Dataset) -> Evaluation:
    """Run the test images through the network as it is deployed, and count its costs."""
    predicted = predictions(network, weights, dataset.test)
    count = len(dataset.classes)
    confusion = torch.bincount(dataset.test.labels * count + predicted, minlength=count * count).reshape(count, count)
    costs = network_costs(network)
    totals = {name: int(cost.total) for name, cost in costs.items()}
    return Evaluation(
        test_accuracy=float(confusion.diagonal().sum()) / len(dataset.test),
        validation_accuracy=accuracy(network, weights, dataset.validation),
        test_images=len(dataset.test),
        classes=dataset.classes,
        confusion_matrix=confusion.tolist(),
        layers=layers(network.trunk, costs),
        **totals,
    )


def network_costs(network: Network) -> dict[str, Cost]:
    """The costs of a network as it is deployed, by name."""
    return {name: cost(network.trunk) for name, cost in COSTS.items()}


def layers(network: Network, costs: dict[str, Cost]) -> list[Layer]:
    """The nodes of `network` with any cost, in execution order."""
    listed = []
    for position, node in enumerate(network.nodes):
        figures = {name: cost.per_node.get(position, 0.0) for name, cost in costs.items()}
        if not any(figures.values()):
            continue
        precision = ""
        if isinstance(node.op, (Conv2d, DepthwiseConv2d, Linear)):
            inputs = [network.ranges[i] for i in node.inputs]
            precision = f"{node.op.weight.bits} x {max(32 if r is None else r.bits for r in inputs)}"
        listed.append(Layer(node.key, type(node.op).__name__, network.shapes[position], precision, **figures))
    return listed
