"""A trained network at other precisions: what is measured is what the integer network of that precision does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from bitwright.costs.bit_operations import BitOperations
from bitwright.datasets import Dataset, digits
from bitwright.errors import ConfigError
from bitwright.evaluators.post_training import PostTraining
from bitwright.integer.lower import lower
from bitwright.integer.run import Executor
from bitwright.modules import Weights
from bitwright.network import Network
from bitwright.spaces.precision import Precision
from bitwright.spaces.resnet import Resnet
from bitwright.train.fit import fit
from bitwright.train.recipe import Recipe
from bitwright.train.step import accuracy


class Trained(NamedTuple):
    dataset: Dataset
    network: Network
    weights: Weights
    space: Precision


@pytest.fixture(scope="module")
def trained() -> Trained:
    dataset = digits.load(Path())
    mean, deviation = dataset.pixel_statistics
    space = Resnet(dataset.shape, 10, mean, deviation, blocks=1, widths=(8, 16))
    network = space.network(space.architecture(()))
    fitted = fit(network, dataset, Recipe(epochs=2, batch=32, lr=0.02), seed=0)
    return Trained(dataset, network, fitted.weights, Precision(dataset.shape, 10, mean, deviation, network))


def test_at_the_bits_of_the_training_nothing_changes(trained: Trained) -> None:
    evaluator = PostTraining(trained.space, trained.dataset, trained.weights, images=128)
    found = evaluator.quantized(trained.space.uniform(8)).state_dict()
    for name, tensor in trained.weights.state_dict().items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


def test_an_accuracy_is_that_of_the_integer_network(trained: Trained) -> None:
    evaluator = PostTraining(trained.space, trained.dataset, trained.weights, images=128)
    images, labels = trained.dataset.validation.batch(slice(None))
    rng = np.random.default_rng(0)
    for architecture in (trained.space.sample(rng), trained.space.sample(rng)):
        graph = lower(trained.space.network(architecture), evaluator.quantized(architecture))
        classes = Executor(graph)(images).argmax(1)
        (measured,) = evaluator.evaluate([architecture])
        assert measured.accuracy == pytest.approx(float((classes == labels).double().mean()))


def test_fewer_bits_lose_accuracy_and_cost_less(trained: Trained) -> None:
    evaluator = PostTraining(
        trained.space, trained.dataset, trained.weights, images=128, costs={"bit_operations": BitOperations()}
    )
    measured = evaluator.evaluate([trained.space.uniform(bits) for bits in (8, 4, 2)])
    before = accuracy(trained.network, trained.weights, trained.dataset.validation)
    assert before > 0.85
    assert measured[0].accuracy == pytest.approx(before, abs=0.01)
    assert measured[1].accuracy > before - 0.1
    assert measured[2].accuracy < measured[1].accuracy
    costs = [m.costs["bit_operations"] for m in measured]
    assert costs == sorted(costs, reverse=True)


def test_a_measurement_does_not_depend_on_what_came_before(trained: Trained) -> None:
    space, rng = trained.space, np.random.default_rng(1)
    before = {name: tensor.clone() for name, tensor in trained.weights.state_dict().items()}
    asked = [space.uniform(2), *(space.sample(rng) for _ in range(3))]
    options = {"images": 64, "validation": 200}
    forwards = PostTraining(space, trained.dataset, trained.weights, **options).evaluate(asked)  # type: ignore[arg-type]
    backwards = PostTraining(space, trained.dataset, trained.weights, **options).evaluate(asked[::-1])  # type: ignore[arg-type]
    assert [m.accuracy for m in forwards] == [m.accuracy for m in backwards[::-1]]
    assert all(m.accuracy * 200 == pytest.approx(round(m.accuracy * 200)) for m in forwards)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.weights.state_dict().items())


def test_options_without_sense_are_refused(trained: Trained) -> None:
    for options in ({"images": 1}, {"validation": -1}):
        with pytest.raises(ConfigError, match="at least"):
            PostTraining(trained.space, trained.dataset, trained.weights, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the space precision"):
        PostTraining(Resnet((1, 8, 8), 10, (128.0,), (64.0,)), trained.dataset, trained.weights)
