"""Losses against their formulas."""

import math

import pytest
import torch

from bitwright.train.losses import LOSSES, cross_entropy, squared_hinge
from bitwright.train.mixing import Mixed
from bitwright.train.recipe import Recipe
from bitwright.train.step import mixed_loss

EPSILON = 2.0**-24  # half the spacing of float32 numbers just above 1


def random_logits(count=32, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, classes), generator=generator), torch.randint(0, classes, (count,), generator=generator)


def test_the_losses_are_found_by_their_names():
    assert {"cross_entropy": cross_entropy, "squared_hinge": squared_hinge} == LOSSES


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_minus_the_smoothed_log_likelihood(smoothing):
    logits, labels = random_logits()
    log_likelihood = logits.double() - logits.double().exp().sum(1, keepdim=True).log()
    targets = torch.full((32, 10), smoothing / 10, dtype=torch.float64)
    targets[torch.arange(32), labels] += 1 - smoothing
    expected = -(targets * log_likelihood).sum(1).mean()
    # a mean of 320 float32 terms of at most the largest log-likelihood
    assert abs(cross_entropy(logits, labels, smoothing) - expected) <= 330 * EPSILON * log_likelihood.abs().max()


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    value = cross_entropy(torch.zeros(4, 10), torch.arange(4), 0.3).item()
    assert value == pytest.approx(math.log(10), rel=4 * EPSILON)


def test_squared_hinge_by_hand():
    # label 0: (1 - 2 < 0, 1 - 0.5, 1 + 3) -> 0, 0.25, 16; label 2: (1 + 1, 1 + 0, 1 - 0.5) -> 4, 1, 0.25
    logits = torch.tensor([[2.0, -0.5, 3.0], [1.0, 0.0, 0.5]])
    assert squared_hinge(logits, torch.tensor([0, 2])).item() == torch.tensor(21.5).div(6).item()


def test_squared_hinge_is_the_mean_over_examples_and_classes():
    logits, labels = random_logits()
    targets = torch.nn.functional.one_hot(labels, 10) * 2.0 - 1.0
    expected = (1 - targets.double() * logits.double()).clamp_min(0).square().mean()
    assert abs(squared_hinge(logits, labels) - expected) <= 325 * EPSILON * expected


def test_squared_hinge_is_zero_beyond_the_margin():
    logits = torch.tensor([[1.0, -1.0, -7.0], [-1.0, 5.0, -1.5]])
    assert squared_hinge(logits, torch.tensor([0, 1])).item() == 0.0


@pytest.mark.parametrize("margin", [-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
def test_squared_hinge_has_equal_slopes_for_the_label_and_for_other_classes_at_one_margin(margin):
    logits = torch.tensor([[margin, -margin]], requires_grad=True)
    squared_hinge(logits, torch.tensor([0])).backward()
    # d/dz of mean over 2 classes: -(1 - margin) for the label, +(1 - margin) for the other, 0 beyond the margin
    assert logits.grad.tolist() == [[-max(0.0, 1 - margin), max(0.0, 1 - margin)]]


def test_smoothing_moves_the_targets_of_the_hinge_towards_zero():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    # t = 0.75 and -0.75: (1 - 0.75)^2 + (1 - 1.5 < 0) + (1 + 0.375)^2
    assert squared_hinge(logits, torch.tensor([0]), 0.25).item() == torch.tensor(0.0625 + 1.890625).div(3).item()


@pytest.mark.parametrize("loss", LOSSES.values())
def test_losses_leave_their_arguments_alone_and_return_a_scalar(loss):
    logits, labels = random_logits()
    before = logits.clone(), labels.clone()
    assert loss(logits, labels, 0.1).shape == ()
    assert torch.equal(logits, before[0]) and torch.equal(labels, before[1])


# mixed labels and copies of images


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_images_is_cross_entropy_against_the_mixed_smoothed_target(smoothing):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((6, 5), generator=generator)
    labels, others = torch.randint(0, 5, (2, 6), generator=generator)
    mixed = Mixed(logits, labels, others, torch.tensor(0.3))
    found = mixed_loss(logits, mixed, Recipe(label_smoothing=smoothing, mix_rate=1.0))
    target = 0.3 * torch.nn.functional.one_hot(labels, 5) + 0.7 * torch.nn.functional.one_hot(others, 5)
    target = target.double() * (1 - smoothing) + smoothing / 5
    expected = -(target * logits.double().log_softmax(1)).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_copies_of_images_count_as_the_mean_over_all_of_them():
    generator = torch.Generator().manual_seed(4)
    copies = torch.randn((3, 4, 5), generator=generator)
    labels = torch.tensor([0, 4, 2, 2])
    mixed = Mixed(labels, labels, labels, torch.ones(()))
    found = mixed_loss(copies.reshape(12, 5), mixed, Recipe())
    expected = torch.stack([cross_entropy(logits, labels) for logits in copies]).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
