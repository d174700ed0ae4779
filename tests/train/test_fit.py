"""A whole training: what it gathers, keeps, leaves out, starts from and goes on with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bitwright.datasets import Dataset
from bitwright.errors import ConfigError
from bitwright.modules import Training, Weights, forward
from bitwright.network import Activation, BatchNorm, Conv2d, Dropout, GlobalSumPool, Input, Linear, Network, Node
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.train.fit import EarlyStopping, EpochEnd, epoch_rows, fit
from bitwright.train.optimizers import Optimizer
from bitwright.train.random_stream import random_stream
from bitwright.train.recipe import Recipe
from bitwright.train.step import train_step

MakeDataset = Callable[..., Dataset]
CPU = torch.device("cpu")
SGD = Recipe(epochs=2, batch=32, optimizer="sgd", lr=0.05, schedule="constant", dtype="float32")


def network(*, norm: bool = False, dropout: float = 0.0, samples: int = 1) -> Network:
    """3x3 convolution, rectifier, 1x1 convolution, pool, classifier of 4 classes; all real."""
    nodes = [Node(Input((1, 8, 8), offset=(128.0,), scale=(1 / 64,)))]
    for key, kernel in (("first", 3), ("second", 1)):
        nodes.append(Node(Conv2d(6, kernel, Real()), (len(nodes) - 1,), key))
        following = BatchNorm(Relu()) if norm else Activation(Relu())
        nodes.append(Node(following, (len(nodes) - 1,), f"{key}/after"))
    nodes.append(Node(GlobalSumPool(), (len(nodes) - 1,)))
    nodes.append(Node(Dropout(dropout, samples), (len(nodes) - 1,)))
    nodes.append(Node(Linear(4, Real()), (len(nodes) - 1,), "classes"))
    return Network(tuple(nodes))


def close(one: Weights, other: Weights, tolerance: float = 1e-5) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return all(torch.allclose(first[name], second[name], rtol=tolerance, atol=tolerance) for name in first)


def equal(one: Weights, other: Weights) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# gathering gradients


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("images", [96, 90])
def test_gathered_gradients_make_the_updates_of_one_large_batch(
    optimizer: str, images: int, make_dataset: MakeDataset
) -> None:
    # of 90 images the last update of an epoch has 26, of which the last step has 2
    dataset = make_dataset(train=images)
    whole = replace(SGD, optimizer=optimizer, weight_decay=0.01, clip_norm=0.5)
    parts = replace(whole, batch=8, optimizer_batch=32)
    one, other = (fit(network(), dataset, recipe) for recipe in (whole, parts))
    assert close(one.weights, other.weights)
    assert not close(one.weights, Weights([network()]))
    for row, same in zip(one.history, other.history, strict=True):
        assert row["loss"] == pytest.approx(same["loss"], rel=1e-5)


def test_updates_are_as_large_as_the_recipe_says() -> None:
    assert Recipe(batch=96, optimizer_batch=288).steps_per_update() == 3
    assert Recipe(batch=96, optimizer_batch=288).steps_per_update(3) == 1
    assert Recipe(batch=96).steps_per_update(3) == 1
    with pytest.raises(ConfigError, match="optimizer_batch 100 is no multiple of the 96 images of a step"):
        Recipe(batch=96, optimizer_batch=100)
    with pytest.raises(ConfigError, match="no multiple of the 192 images of a step on 2 devices"):
        Recipe(batch=96, optimizer_batch=288).steps_per_update(2)


# the images of an epoch


@pytest.mark.parametrize(("count", "batch", "least"), [(10, 4, 2), (9, 4, 2), (64, 16, 8), (67, 16, 8), (5, 8, 2)])
def test_an_epoch_has_every_image_once_and_no_batch_below_the_least(count: int, batch: int, least: int) -> None:
    parts = epoch_rows(count, batch, 0, 3, CPU, least=least)
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    assert min(map(len, parts)) >= min(least, count)
    assert {len(part) for part in parts[:-1]} <= {batch}


def test_the_rest_of_an_epoch_is_what_is_left_of_it_in_any_batches() -> None:
    order = torch.cat(epoch_rows(50, 8, 1, 2, CPU))
    for batch in (4, 8, 12):
        assert torch.equal(torch.cat(epoch_rows(50, batch, 1, 2, CPU, start=16)), order[16:])
    assert epoch_rows(50, 8, 1, 2, CPU, start=50) == []
    assert epoch_rows(50, 8, 1, 2, CPU, start=49) == []  # a single image has no statistics


def test_drop_last_leaves_out_what_is_no_whole_batch(make_dataset: MakeDataset) -> None:
    assert [len(p) for p in epoch_rows(50, 16, 0, 0, CPU, drop_last=True)] == [16, 16, 16]
    assert [len(p) for p in epoch_rows(48, 16, 0, 0, CPU, drop_last=True)] == [16, 16, 16]
    with pytest.raises(ConfigError, match="drop_last leaves no batch of 32 of the 20 training images"):
        fit(network(), make_dataset(train=20), replace(SGD, drop_last=True))
    steps: list[int] = []
    fit(
        network(),
        make_dataset(train=50),
        replace(SGD, batch=16, drop_last=True),
        after_epoch=lambda end: steps.append(end.state["step"]),
    )
    assert steps == [3, 6]


# stopping, going on, starting elsewhere


@pytest.mark.parametrize("stop", [1, 5, 6, 9])
def test_a_training_that_is_stopped_goes_on_to_the_same_end(
    stop: int, tmp_path: Path, make_dataset: MakeDataset
) -> None:
    dataset = make_dataset(train=90)  # 12 steps of 8 images in an epoch, 3 updates
    recipe = replace(SGD, batch=8, optimizer_batch=32, ema=0.9, mix_rate=0.3, flip=True, pad=1)
    net = network(norm=True, dropout=0.3, samples=2)
    whole = fit(net, dataset, recipe)
    file = tmp_path / "checkpoint.pt"
    first = fit(net, dataset, recipe, save_to=file, stop_after=stop)
    assert not first.finished
    done = torch.load(file, weights_only=True)["step"]
    assert stop <= done < stop + 4  # an update is not divided
    second = fit(net, dataset, recipe, save_to=file)
    assert second.finished
    assert second.history == whole.history
    assert equal(second.weights, whole.weights)


def test_a_training_that_is_stopped_at_the_end_of_an_epoch_has_validated_it(
    tmp_path: Path, make_dataset: MakeDataset
) -> None:
    stopped = fit(network(), make_dataset(), SGD, stop_after=2, save_to=tmp_path / "c.pt")
    assert (len(stopped.history), stopped.best_epoch, stopped.finished) == (1, 1, False)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_training_starts_from_the_weights_it_is_given(ema: float, make_dataset: MakeDataset) -> None:
    net = network(norm=True)
    given = Weights([net], seed=7)
    still = replace(SGD, lr=1e-30, lr_min=1e-30, epochs=1, ema=ema)
    fitted = fit(net, make_dataset(), still, initial=given.state_dict())
    for name, parameter in fitted.weights.named_parameters():
        assert torch.allclose(parameter, given[name], rtol=0, atol=1e-20)


# ending early


def plain_last_epoch(accuracies: list[float], patience: int, give_up_below: float) -> int:
    """The epoch, counted from 1, behind which a training with these accuracies ends."""
    best, waited = -1.0, 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        if epoch == 1 and accuracy < give_up_below:
            return epoch
        best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
        if patience and waited == patience:
            return epoch
    return len(accuracies)


@pytest.mark.parametrize("patience", [0, 1, 2, 3])
@pytest.mark.parametrize("give_up_below", [0.0, 0.3])
def test_a_training_ends_when_patience_does(patience: int, give_up_below: float) -> None:
    stopping = EarlyStopping(patience, give_up_below)
    for accuracies in itertools.product([0.2, 0.3, 0.5], repeat=5):
        lived = [*accuracies]
        due = [epoch for epoch in range(len(lived) + 1) if stopping.is_due(lived[:epoch])]
        assert min(due, default=5) == plain_last_epoch(lived, patience, give_up_below)


@pytest.mark.parametrize("give_up_below", [0.0, 0.99])
def test_a_training_that_ends_early_is_the_beginning_of_the_whole_one(
    give_up_below: float, make_dataset: MakeDataset
) -> None:
    dataset, recipe = make_dataset(), replace(SGD, epochs=12, lr=0.2, schedule="one_cycle")
    whole = fit(network(norm=True), dataset, recipe)
    stopping = EarlyStopping(patience=2, give_up_below=give_up_below)
    early = fit(network(norm=True), dataset, recipe, early_stopping=stopping)
    assert early.finished
    accuracies = [row["validation_accuracy"] for row in whole.history]
    assert len(early.history) == plain_last_epoch(accuracies, 2, give_up_below) < 12
    assert early.history == whole.history[: len(early.history)]
    assert early.validation_accuracy == max(accuracies[: len(early.history)])


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 6])
def test_a_training_that_is_interrupted_ends_as_early(stop: int, tmp_path: Path, make_dataset: MakeDataset) -> None:
    dataset, recipe, stopping = make_dataset(), replace(SGD, epochs=12, lr=0.2), EarlyStopping(patience=1)
    whole = fit(network(norm=True), dataset, recipe, early_stopping=stopping)
    assert 1 < len(whole.history) < 12
    file = tmp_path / "checkpoint.pt"
    fit(network(norm=True), dataset, recipe, save_to=file, stop_after=stop, early_stopping=stopping)
    second = fit(network(norm=True), dataset, recipe, save_to=file, early_stopping=stopping)
    assert (second.history, second.finished) == (whole.history, True)
    assert equal(second.weights, whole.weights)
    ended = file.read_bytes()
    third = fit(network(norm=True), dataset, recipe, save_to=file, early_stopping=stopping)
    assert (third.history, third.seconds, third.finished) == (second.history, second.seconds, True)
    assert file.read_bytes() == ended


def test_what_does_not_say_when_to_end_is_refused(make_dataset: MakeDataset) -> None:
    with pytest.raises(ConfigError, match="patience is a number of epochs, or 0, got -1"):
        EarlyStopping(patience=-1)
    with pytest.raises(ConfigError, match=r"give_up_below is an accuracy in \[0, 1\], got 50"):
        EarlyStopping(give_up_below=50)
    with pytest.raises(ConfigError, match="validates nothing"):
        fit(network(), make_dataset(), replace(SGD, training_only=True), early_stopping=EarlyStopping(patience=1))
    fit(network(), make_dataset(), replace(SGD, training_only=True), early_stopping=EarlyStopping())


# what is validated and kept


def test_every_epoch_is_validated_and_the_best_is_kept(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    ends: list[EpochEnd] = []
    fitted = fit(network(norm=True), dataset, replace(SGD, epochs=4), after_epoch=ends.append)
    assert [end.row for end in ends] == fitted.history
    best = max(row["validation_accuracy"] for row in fitted.history)
    assert fitted.validation_accuracy == best
    assert fitted.best_epoch == max(row["epoch"] for row in fitted.history if row["validation_accuracy"] == best)
    assert [end.row["epoch"] for end in ends if end.is_best][-1] == fitted.best_epoch
    logits = forward(network(norm=True), fitted.weights, dataset.validation.batch(slice(None))[0])[0]
    assert float((logits.argmax(1) == dataset.validation.labels).double().mean()) == best
    row = fitted.history[fitted.best_epoch - 1]
    assert row["validation_loss"] == pytest.approx(F.cross_entropy(logits, dataset.validation.labels).item(), rel=1e-5)
    assert row["validation_top5"] == 1.0  # of 4 classes
    assert all(end.images_per_second > 0 for end in ends)


def test_without_validation_the_last_epoch_is_kept(make_dataset: MakeDataset) -> None:
    ends: list[Tensor] = []
    fitted = fit(
        network(norm=True),
        make_dataset(),
        replace(SGD, training_only=True, epochs=3),
        after_epoch=lambda end: ends.append(end.weights["first"].detach().clone()),
    )
    assert fitted.validation_accuracy is None
    assert fitted.best_epoch == 3
    assert torch.equal(fitted.weights["first"], ends[-1])
    assert not any("validation" in name for row in fitted.history for name in row)


def test_without_calibration_running_statistics_are_those_of_torch(make_dataset: MakeDataset) -> None:
    dataset, net = make_dataset(train=90), network(norm=True)
    still = replace(SGD, lr=1e-30, lr_min=1e-30, calibrate=False)
    fitted = fit(net, dataset, still)
    theirs = torch.nn.BatchNorm2d(6)
    for epoch in range(2):
        for rows in epoch_rows(90, 32, 0, epoch, CPU):
            pixels = dataset.train.batch(rows)[0].float() - 128  # in integers, as accumulators count
            theirs(F.conv2d(pixels, fitted.weights["first"], padding=1))
    mean, variance = theirs.running_mean, theirs.running_var
    found = fitted.weights.statistics("first/after")
    assert mean is not None and variance is not None and found is not None
    assert torch.allclose(found[0], mean, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found[1], variance, rtol=1e-5)


# copies of images


def test_a_step_with_copies_counts_the_mean_loss_and_the_answers_of_mean_logits(make_dataset: MakeDataset) -> None:
    net = network(dropout=0.5, samples=5)
    weights = Weights([net])
    images, labels = make_dataset().train.batch(slice(0, 16))
    logits, _ = forward(net, weights, images, training=Training(random_stream(CPU, "copies")))
    assert logits.shape == (80, 4)
    copies = logits.detach().reshape(5, 16, 4)
    expected = torch.stack([F.cross_entropy(copy, labels) for copy in copies]).mean()
    result = train_step(
        net, weights, Optimizer(weights, SGD), images, labels, SGD,
        rate=0.1, drop_path=0.0, generator=random_stream(CPU, "copies"),
    )  # fmt: skip
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(result.correct) == int((copies.mean(0).argmax(1) == labels).sum())
