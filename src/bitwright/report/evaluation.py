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
from ..datasets import Dataset, Part
from ..errors import LoweringError
from ..integer.compare import differences, images_at_once
from ..integer.lower import Lowered, lowered
from ..integer.run import Executor
from ..modules import Weights, forward
from ..network import Network
from ..train.step import accuracy, evaluation_batch, place_of_class
from ..workload.rows import workload
from ..workload.table import Workload

COMPARED_AT_ONCE = 50  # images at most
MOST_CONFUSED = 100  # classes
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

    test_top5: the fraction of test images whose class is among the first five; equal logits go by class, lower first.
    no_integer_form: why the network cannot be lowered, or None.
    fake_quantized_accuracy: of the training code's forward pass, on the test images.
    differing_predictions: how many test images the two put in different classes.
    first_differing_layer: where any value of any test image differs first, or None where none does.
    confusion_matrix[i][j]: test images of class i that were put in class j; None for more than a hundred classes.
    """

    test_accuracy: float
    test_top5: float
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
    confusion_matrix: list[list[int]] | None
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
    same = dataset.validation is dataset.test  # as is usual with ImageNet
    try:
        lowering = lowered(network, weights)
    except LoweringError as error:
        reason = str(error)
        predicted, top5 = _answers(network, weights, dataset.test)
        trained = predicted
        validation = None if same else accuracy(network, weights, dataset.validation)
    else:
        executor = Executor(lowering.graph, weights.device)
        predicted, trained, top5, layer = _both(network, weights, lowering, executor, dataset.test)
        differing = int((predicted != trained).sum())
        validation = None if same else _integer_accuracy(executor, dataset.validation, evaluation_batch(network))
    count, labels = len(dataset.classes), dataset.test.labels
    confusion = torch.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    work = workload(network.trunk)  # as it is deployed
    costs = network_costs(work)
    totals = {name: int(cost.total) for name, cost in costs.items()}
    test_accuracy = float(confusion.diagonal().sum()) / len(labels)
    return Evaluation(
        test_accuracy=test_accuracy,
        test_top5=top5,
        validation_accuracy=test_accuracy if validation is None else validation,
        no_integer_form=reason,
        fake_quantized_accuracy=float((trained == labels).double().mean()),
        differing_predictions=differing,
        first_differing_layer=layer,
        test_images=len(labels),
        classes=dataset.classes,
        confusion_matrix=confusion.tolist() if count <= MOST_CONFUSED else None,
        layers=layers(work, costs),
        **totals,
    )


@torch.no_grad()
def _answers(network: Network, weights: Weights, images: Part) -> tuple[Tensor, float]:
    """The class of each image by the training code, (N,), and top-5."""
    classes, among_five = [], 0
    for x, labels in images.in_batches(evaluation_batch(network)):
        logits = forward(network, weights, x)[0]
        classes.append(logits.argmax(1))
        among_five += int((place_of_class(logits, labels) < 5).sum())
    return torch.cat(classes), among_five / len(images)


def _both(
    network: Network, weights: Weights, lowering: Lowered, executor: Executor, images: Part
) -> tuple[Tensor, Tensor, float, str | None]:
    """Classes by the integer graph and by the training code, top-5 of the former, and the first layer that differs."""
    classes: list[tuple[Tensor, Tensor]] = []
    first: int | None = None
    among_five = 0
    for x, labels in images.in_batches(images_at_once(lowering.graph, COMPARED_AT_ONCE)):
        for position, exact, codes in differences(network, weights, lowering, x, executor):
            if (first is None or position < first) and bool((exact != codes).any()):
                first = position
        classes.append((exact.argmax(1), codes.argmax(1)))
        among_five += int((place_of_class(exact, labels) < 5).sum())
    predicted, trained = (torch.cat(each) for each in zip(*classes, strict=True))
    return predicted, trained, among_five / len(images), None if first is None else lowering.graph.label(first)


def _integer_accuracy(executor: Executor, images: Part, batch: int) -> float:
    correct = 0
    for x, labels in images.in_batches(batch):
        correct += int((executor(x).argmax(1) == labels).sum())
    return correct / len(images)


def network_costs(work: Workload) -> dict[str, Cost]:
    """The costs of a network, by name."""
    return {name: cost(work) for name, cost in COSTS.items()}


def layers(work: Workload, costs: dict[str, Cost]) -> list[Layer]:
    """The nodes with any cost, in execution order."""
    widths = work.designed
    listed = []
    for position, row in enumerate(work.rows):
        figures = {name: cost.per_node.get(position, 0.0) for name, cost in costs.items()}
        if any(figures.values()):
            precision = f"{widths.weight_bits[position]:g} x {widths.input_bits[position]:g}" if row.weights else ""
            listed.append(Layer(row.name, row.operation, row.shape, precision, **figures))
    return listed
