"""Evaluation: the accuracy is that of the integers, and where they differ from the training code is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from bitwright.architecture import Architecture
from bitwright.datasets import Dataset
from bitwright.datasets.digits import load
from bitwright.integer.compare import differences
from bitwright.integer.lower import lower, lowered
from bitwright.integer.run import Executor
from bitwright.modules import Training, Weights, forward
from bitwright.network import (
    BatchNorm,
    Conv2d,
    GlobalSumPool,
    Input,
    Linear,
    Network,
    Node,
)
from bitwright.quantizers import Quantizer
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.uniform import Uniform
from bitwright.report.evaluation import _both, evaluate
from bitwright.spaces.enas_micro import EnasMicro

WEIGHT, ACTIVATION = FixedPoint(4), Uniform(4, signed=False, step=0.5)


def digits_network(weight: Quantizer = WEIGHT, activation: Quantizer = ACTIVATION) -> Network:
    return Network(
        (
            Node(Input((1, 8, 8), offset=(78.0,))),
            Node(Conv2d(8, 3, weight), (0,), "stem"),
            Node(BatchNorm(activation), (1,), "stem/norm"),
            Node(Conv2d(16, 3, weight, 2), (2,), "second"),
            Node(BatchNorm(activation), (3,), "second/norm"),
            Node(GlobalSumPool(), (4,)),
            Node(Linear(10, weight), (5,), "classes"),
        )
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = load(Path())
    return Dataset(whole.name, whole.classes, whole.train, whole.validation[:130], whole.test[:170])


def trained(network: Network, dataset: Dataset, steps: int = 60) -> Weights:
    """Some steps of Adam, so that the classes are better than chance."""
    weights = Weights([network], seed=1)
    optimizer = torch.optim.Adam(weights.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, len(dataset.train), (64,), generator=generator)
        x, labels = dataset.train.batch(rows)
        logits, _ = forward(network, weights, x, training=Training(generator, momentum=0.2))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights


@pytest.fixture(scope="module")
def integer(digits) -> tuple[Network, Weights]:
    network = digits_network()
    return network, trained(network, digits)


def classes(network: Network, weights: Weights, images) -> torch.Tensor:
    """By the integer graph itself, all images at once."""
    x, _ = images.batch(slice(None))
    return Executor(lower(network, weights))(x).argmax(1)


def test_the_accuracies_are_those_of_the_integer_network(integer, digits):
    network, weights = integer
    found = evaluate(network, weights, digits)
    predicted = classes(network, weights, digits.test)
    assert found.test_accuracy == (predicted == digits.test.labels).sum().item() / 170
    assert found.validation_accuracy == (
        (classes(network, weights, digits.validation) == digits.validation.labels).sum().item() / 130
    )
    assert found.test_accuracy > 0.3  # it learned something
    assert found.no_integer_form is None
    assert found.test_images == 170


def test_a_quantized_network_differs_nowhere_from_its_integers(integer, digits):
    found = evaluate(*integer, digits)
    assert found.first_differing_layer is None
    assert found.differing_predictions == 0
    assert found.fake_quantized_accuracy == found.test_accuracy


def test_the_confusion_matrix_counts_every_test_image_by_its_class(integer, digits):
    network, weights = integer
    matrix = evaluate(network, weights, digits).confusion_matrix
    predicted = classes(network, weights, digits.test)
    for truth in range(10):
        for guess in range(10):
            count = ((digits.test.labels == truth) & (predicted == guess)).sum().item()
            assert matrix[truth][guess] == count


def test_a_float_network_is_evaluated_as_it_is_trained_and_the_reason_is_given(digits):
    network = digits_network(Real(), Relu())
    weights = trained(network, digits, 20)
    found = evaluate(network, weights, digits)
    x, labels = digits.test.batch(slice(None))
    with torch.no_grad():
        logits, _ = forward(network, weights, x)
    assert found.test_accuracy == found.fake_quantized_accuracy
    assert found.test_accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-9)
    assert found.no_integer_form is not None
    assert found.no_integer_form.startswith("stem:")
    assert "real-valued" in found.no_integer_form
    assert found.differing_predictions is None
    assert found.first_differing_layer is None


@pytest.mark.parametrize(
    ("name", "index", "change", "layer"),
    [
        ("stem", (3, 0, 1, 1), 0.25, "node 1 (Conv stem)"),
        ("stem/norm/offset", (2,), 0.9, "node 2 (MultiThreshold stem/norm)"),
        ("second", (7, 5, 0, 2), 0.25, "node 3 (Conv second)"),
        ("second/norm/gain", (4,), -3.0, "node 4 (MultiThreshold second/norm)"),
        ("classes", (9, 11), 0.25, "node 6 (MatMul classes)"),
    ],
)
def test_the_first_layer_whose_weights_are_not_those_of_the_graph_is_named(integer, digits, name, index, change, layer):
    network, weights = integer
    lowering = lowered(network, weights)
    changed = copy.deepcopy(weights)
    with torch.no_grad():
        value = float(changed[name][index])
        if "norm" in name:
            changed[name][index] = value + change
        else:
            changed[name][index] = 0.5 if round(value * 8) != 4 else -0.5
    executor = Executor(lowering.graph)
    _, _, _, named = _both(network, changed, lowering, executor, digits.test)
    assert named == layer
    x, _ = digits.test.batch(slice(0, 170))
    apart = [
        lowering.graph.label(position)
        for position, exact, codes in differences(network, changed, lowering, x, executor)
        if not torch.equal(exact.double(), codes.double())
    ]
    assert apart[0] == layer


def test_an_architecture_with_an_auxiliary_head_is_evaluated_without_it(digits):
    space = EnasMicro(nodes=1, cells=3, filters=3, auxiliary=True)
    network = space.network(Architecture(space.name, (0,) * len(space.decisions)))
    found = evaluate(network, Weights([network]), digits)
    assert found.first_differing_layer is None
    assert not any("aux" in layer.name for layer in found.layers)


def test_the_report_is_json(integer, digits):
    report = json.loads(json.dumps(evaluate(*integer, digits).as_json()))
    assert report["test_images"] == 170
    assert report["first_differing_layer"] is None
    assert len(report["layers"]) == 5


def test_costs_are_the_sums_over_layers_counted_by_hand(integer, digits):
    found = evaluate(*integer, digits)
    assert found.macs == 64 * 8 * 9 + 16 * 16 * 8 * 9 + 160
    weights = 8 * 9 + 16 * 8 * 9 + 160
    assert found.parameters == weights + 2 * (8 + 16)
    assert [layer.name for layer in found.layers] == ["stem", "stem/norm", "second", "second/norm", "classes"]
    assert [block.name for block in found.blocks] == ["stem", "second", "classes"]
    assert sum(block.parameters for block in found.blocks) == found.parameters
