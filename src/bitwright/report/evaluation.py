"""How good a trained network is and what it costs, per layer and in total."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ..costs import Cost, CostModel
from ..costs.bit_operations import BitOperations
from ..costs.macs import Macs
from ..costs.parameters import Parameters
from ..costs.weight_bits import WeightBits
from ..datasets import Dataset, Images
from ..errors import LoweringError
from ..integer.compare import differences
from ..integer.lower import Lowered, lowered
from ..integer.run import Executor
from ..modules import Weights
from ..network import Conv2d, DepthwiseConv2d, Linear, Network
from ..train.step import EVALUATION_BATCH, accuracy, predictions

COMPARED_AT_ONCE = 50  # images; all values of both networks are held for them
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
    """test_accuracy is that of the integer network, or where there is none that of the trained one.

    no_integer_form: why the network cannot be lowered, or None.
    fake_quantized_accuracy: of the training code's forward pass, on the test images.
    differing_predictions: how many test images the two put in different classes.
    first_differing_layer: where any value of any test image differs first, or None where none does.
    confusion_matrix[i][j]: test images of class i that were put in class j.
    """

    test_accuracy: float
    validation_accuracy: float
    no_integer_form: str | None
    fake_quantized_accuracy: float
    differing_predictions: int | None
    first_differing_layer: str | None
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
    """Run the test images through the network as it is deployed, in integers, and count its costs."""
    reason, differing, layer = None, None, None
    try:
        lowering = lowered(network, weights)
    except LoweringError as error:
        reason = str(error)
        predicted = trained = predictions(network, weights, dataset.test)
        validation = accuracy(network, weights, dataset.validation)
    else:
        executor = Executor(lowering.graph, weights.device)
        predicted, trained, layer = _both(network, weights, lowering, executor, dataset.test)
        differing = int((predicted != trained).sum())
        validation = _integer_accuracy(executor, dataset.validation)
    count, labels = len(dataset.classes), dataset.test.labels
    confusion = torch.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    costs = network_costs(network)
    totals = {name: int(cost.total) for name, cost in costs.items()}
    return Evaluation(
        test_accuracy=float(confusion.diagonal().sum()) / len(labels),
        validation_accuracy=validation,
        no_integer_form=reason,
        fake_quantized_accuracy=float((trained == labels).double().mean()),
        differing_predictions=differing,
        first_differing_layer=layer,
        test_images=len(labels),
        classes=dataset.classes,
        confusion_matrix=confusion.tolist(),
        layers=layers(network.trunk, costs),
        **totals,
    )


def _both(
    network: Network, weights: Weights, lowering: Lowered, executor: Executor, images: Images
) -> tuple[Tensor, Tensor, str | None]:
    """Classes by the integer graph and by the training code, and the first layer in which any value differs."""
    classes: list[tuple[Tensor, Tensor]] = []
    first: int | None = None
    for start in range(0, len(images), COMPARED_AT_ONCE):
        x, _ = images.batch(slice(start, start + COMPARED_AT_ONCE))
        for position, exact, codes in differences(network, weights, lowering, x, executor):
            if (first is None or position < first) and bool((exact != codes).any()):
                first = position
        classes.append((exact.argmax(1), codes.argmax(1)))
    predicted, trained = (torch.cat(each) for each in zip(*classes, strict=True))
    return predicted, trained, None if first is None else lowering.graph.label(first)


def _integer_accuracy(executor: Executor, images: Images) -> float:
    correct = 0
    for start in range(0, len(images), EVALUATION_BATCH):
        x, labels = images.batch(slice(start, start + EVALUATION_BATCH))
        correct += int((executor(x).argmax(1) == labels).sum())
    return correct / len(images)


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
