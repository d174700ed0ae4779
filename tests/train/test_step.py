"""What is measured of a network, and what counts as the right answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bitwright.datasets import Images
from bitwright.modules import Weights, forward
from bitwright.network import GlobalSumPool, Input, Linear, Network, Node
from bitwright.quantizers.real import Real
from bitwright.train.distributed import Ranks
from bitwright.train.step import evaluation_batch, measure, place_of_class, predictions

CLASSES = 7


def classifier() -> tuple[Network, Weights]:
    """A product of sums of pixels, whose weights are multiples of 1/4, so that logits tie."""
    net = Network((Node(Input((3, 2, 2))), Node(GlobalSumPool(), (0,)), Node(Linear(CLASSES, Real()), (1,), "classes")))
    weights = Weights([net])
    with torch.no_grad():
        weights["classes"].copy_((weights["classes"] * 4).round() / 4)
    return net, weights


def pictures(count: int) -> Images:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 4, (count, 2, 2, 3), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, CLASSES, (count,), generator=generator))


def test_the_place_of_a_class_is_its_position_in_a_stable_descending_order() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-3, 4, (500, CLASSES), generator=generator).float()  # many ties
    labels = torch.randint(0, CLASSES, (500,), generator=generator)
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    expected = [int(np.flatnonzero(row == label)[0]) for row, label in zip(order, labels.tolist(), strict=True)]
    assert place_of_class(logits, labels).tolist() == expected


def test_a_logit_that_is_no_number_is_no_right_answer() -> None:
    logits = torch.tensor([[math.nan, 1.0, 2.0], [0.0, math.nan, -1.0]])
    assert place_of_class(logits, torch.tensor([0, 0])).tolist() == [3, 1]


def test_the_first_place_is_what_argmax_says() -> None:
    net, weights = classifier()
    images = pictures(300)
    logits = forward(net, weights, images.batch(slice(None))[0])[0]
    assert torch.equal(place_of_class(logits, images.labels) == 0, predictions(net, weights, images) == images.labels)


def test_measured_accuracies_and_loss_are_those_of_all_logits_together() -> None:
    net, weights = classifier()
    images = pictures(1203)
    found = measure(net, weights, images)
    logits = forward(net, weights, images.batch(slice(None))[0])[0].detach()
    best = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :5]
    labels = images.labels.numpy()[:, None]
    assert found.top1 == (best[:, :1] == labels).sum() / 1203
    assert found.top5 == (best == labels).sum() / 1203
    log_likelihood = logits.double().log_softmax(1).gather(1, images.labels[:, None])
    assert found.loss == pytest.approx(-log_likelihood.mean().item(), rel=1e-5)


@pytest.mark.parametrize(("count", "ranks"), [(1, 1), (10, 3), (11, 4), (2, 5), (1203, 7)])
def test_the_spans_of_all_ranks_are_everything_once(count: int, ranks: int) -> None:
    parts = [list(range(count))[Ranks(rank, ranks).span(count)] for rank in range(ranks)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_measurement_tells_how_far_it_is() -> None:
    net, weights = classifier()
    told: list[int] = []
    measure(net, weights, pictures(1203), tick=told.append)
    assert told == [500, 1000, 1203]


def test_large_images_are_evaluated_in_smaller_batches() -> None:
    def batch(size: int) -> int:
        return evaluation_batch(Network((Node(Input((3, size, size))),)))

    assert [batch(size) for size in (8, 32, 129)] == [500, 500, 500]
    assert batch(224) * 224**2 <= 2**23 < (batch(224) + 1) * 224**2
    assert batch(10_000) == 1
