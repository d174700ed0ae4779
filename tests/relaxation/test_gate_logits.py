"""Logits: how they are drawn from, and how they learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_space import TinySpace

from bitwright.relaxation.gates import Logits, among, reinforced, through_softmax


def logits_of(*values: list[float], excluded: tuple[tuple[int, ...], ...] = ()) -> Logits:
    options = tuple(map(str, range(1, 2 * len(values[0]), 2)))
    logits = Logits(TinySpace(options=options, cells=len(values), excluded=excluded), lr=0.1)
    for held, given in zip(logits.values, values, strict=True):
        held.copy_(torch.tensor(given))
    return logits


def test_logits_start_near_zero_with_a_deviation_of_a_thousandth() -> None:
    started = torch.cat([torch.cat(Logits(TinySpace(cells=50), seed=seed).values) for seed in range(4)])
    assert float(started.std()) == pytest.approx(1e-3, rel=0.1)
    assert abs(float(started.mean())) < 2e-4


def test_the_gradient_of_logits_is_that_of_autograd_through_the_softmax() -> None:
    torch.manual_seed(0)
    logits, by_gate = torch.randn(7, dtype=torch.float64, requires_grad=True), torch.randn(7, dtype=torch.float64)
    p = logits.softmax(0)
    (wanted,) = torch.autograd.grad((by_gate * p).sum(), logits)
    torch.testing.assert_close(through_softmax(by_gate, p.detach()), wanted)


def test_the_gradient_among_two_options_is_that_of_their_own_softmax() -> None:
    torch.manual_seed(1)
    logits, by_gate = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    pair = [1, 4]
    (wanted,) = torch.autograd.grad((by_gate[pair] * logits[pair].softmax(0)).sum(), logits)
    torch.testing.assert_close(through_softmax(by_gate, among(logits.detach(), pair)), wanted)


def test_a_step_among_two_options_keeps_the_probabilities_of_all_others() -> None:
    logits = logits_of([0.3, -1.0, 0.8, 0.1], [2.0, 0.0, 0.0, -1.0])
    before = logits.probabilities
    gradients = [torch.tensor([0.0, 0.7, 0.0, -0.7], dtype=torch.float64), torch.zeros(4, dtype=torch.float64)]
    logits.step(gradients, [(1, 3), (0, 1)])
    after = logits.probabilities
    torch.testing.assert_close(after[0][[0, 2]], before[0][[0, 2]], rtol=1e-12, atol=0)
    torch.testing.assert_close(after[1], before[1], rtol=1e-12, atol=0)
    assert after[0][1] < before[0][1]
    assert after[0][3] > before[0][3]


def test_steps_are_those_of_adam_without_a_first_moment() -> None:
    logits = logits_of([0.0, 0.0])
    square = 0.0
    wanted = [0.0, 0.0]
    for count, g in enumerate((0.5, -0.2, 0.05), start=1):
        logits.step([torch.tensor([g, -g], dtype=torch.float64)], [(0, 1)])
        square = 0.999 * square + 0.001 * g * g
        move = 0.1 * g / (math.sqrt(square / (1 - 0.999**count)) + 1e-8)
        wanted = [wanted[0] - move, wanted[1] + move]
    assert logits.values[0].tolist() == pytest.approx(wanted, rel=1e-6)


def test_architectures_are_drawn_by_their_probabilities() -> None:
    logits = logits_of([0.0, 1.0, -1.0])
    rng = np.random.default_rng(0)
    drawn = [logits.sample(rng).architecture.choices[0] for _ in range(4000)]
    found = np.bincount(drawn, minlength=3) / 4000
    assert found == pytest.approx(logits.probabilities[0].numpy(), abs=0.03)


def test_pairs_are_drawn_without_putting_back_and_the_active_one_among_the_two() -> None:
    logits = logits_of([0.0, 1.0, -1.0])
    p = logits.probabilities[0].tolist()
    rng = np.random.default_rng(0)
    count = 6000
    found = dict.fromkeys(itertools.permutations(range(3), 2), 0)
    for _ in range(count):
        architecture, (pair,) = logits.sample_two(rng)
        active = architecture.choices[0]
        (other,) = set(pair) - {active}
        found[active, other] += 1
    for (active, other), times in found.items():
        together = p[active] * p[other] * (1 / (1 - p[active]) + 1 / (1 - p[other]))
        assert times / count == pytest.approx(together * p[active] / (p[active] + p[other]), abs=0.025)


def test_excluded_architectures_are_not_drawn() -> None:
    logits = logits_of([5.0, 0.0], [5.0, 0.0], excluded=((0, 0),))
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert logits.sample(rng).architecture.choices != (0, 0)
        assert logits.sample_two(rng).architecture.choices != (0, 0)


def test_probabilities_that_exclude_all_valid_architectures_give_a_valid_one() -> None:
    logits = logits_of([90.0, 0.0], excluded=((0,),))
    rng = np.random.default_rng(0)
    assert logits.sample(rng).architecture.choices == (1,)
    two = logits.sample_two(rng)
    assert two.architecture.choices == (1,)
    assert two.considered == ((0, 1),)


def test_reinforce_follows_the_mean_of_advantage_times_gradient_of_minus_log_p() -> None:
    logits = logits_of([0.2, -0.4, 1.0], [0.0, 0.5, 0.1])
    space = logits.space
    architectures = [space.architecture(choices) for choices in ((0, 1), (2, 2), (2, 0))]
    rewards, baseline = [0.5, 0.9, 0.1], 0.45
    leaves = [held.clone().requires_grad_() for held in logits.values]
    loss = torch.zeros((), dtype=torch.float64)
    for architecture, reward in zip(architectures, rewards, strict=True):
        for leaf, choice in zip(leaves, architecture.choices, strict=True):
            loss = loss - (reward - baseline) * leaf.log_softmax(0)[choice] / 3
    wanted = torch.autograd.grad(loss, leaves)
    for found, right in zip(reinforced(logits.probabilities, architectures, rewards, baseline), wanted, strict=True):
        torch.testing.assert_close(found, right)


def test_the_entropy_of_equal_options_is_the_logarithm_of_their_number() -> None:
    assert logits_of([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]).entropy == pytest.approx(2 * math.log(3))


def test_what_was_saved_goes_on_in_the_same_way() -> None:
    def learn(logits: Logits, seed: int) -> None:
        gradient = torch.from_numpy(np.random.default_rng(seed).standard_normal(3))
        logits.step([gradient], [(0, 1, 2)])

    first = logits_of([0.0, 0.0, 0.0])
    learn(first, 1)
    second = logits_of([9.0, 9.0, 0.0])
    second.load_state_dict(first.state_dict())
    learn(first, 2)
    learn(second, 2)
    assert torch.equal(first.values[0], second.values[0])
