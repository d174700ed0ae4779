"""The controller of recurrent cells: its sizes, its probabilities, and its update by hand."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitwright import Architecture, Measurement, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.spaces.enas_rnn import EnasRnn
from bitwright.strategies._cell_policy import CellPolicy
from bitwright.strategies.controller import RECURRENT, Controller

TWELVE = EnasRnn(12)
THREE = EnasRnn(3, activations=("tanh", "relu"))
VARIANTS: dict[str, dict[str, Any]] = {"published": RECURRENT, "default": {}}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def controller(space: EnasRnn, options: dict[str, Any], spread: float = 8.0, **more: Any) -> Controller:
    """In float64, with initial weights `spread` times as large as usual."""
    made = Controller(space, **{**options, **more})
    made.policy.double()
    with torch.no_grad():
        for parameter in made.policy.parameters():
            parameter.mul_(spread)
    return made


def test_the_published_policy_has_the_parameters_that_the_original_uses() -> None:
    policy = Controller(TWELVE, **RECURRENT).policy
    count = sum(p.numel() for p in policy.parameters())
    # of the original's 106,930, 115 rows of its embedding and the two decoders of a 13th node are never used
    assert count == 106_930 - 115 * 100 - (12 + 4) * 101 == 93_814
    assert len(TWELVE.decisions) == 23


def test_every_decision_has_decoder_rows_of_its_own_and_no_kind_shares_the_embeddings_of_another() -> None:
    policy = controller(TWELVE, RECURRENT).policy
    sample = policy(1, torch.tensor([TWELVE.sample(np.random.default_rng(3)).choices]))
    assert isinstance(policy, CellPolicy) and sample.decisions is not None
    for position, (decision, log_p) in enumerate(zip(TWELVE.decisions, sample.decisions[0][0], strict=True)):
        if len(decision.options) > 1:
            gradients = torch.autograd.grad(log_p, list(policy.weights), retain_graph=True, allow_unused=True)
            assert [i for i, gradient in enumerate(gradients) if gradient is not None and gradient.any()] == [position]
    assert {kind: len(rows) for kind, rows in policy.embedding.items()} == {"act": 4, "prev": 11}


def walk(made: Controller, choices: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Log-probability and entropy of every decision, in numpy."""
    p = {name: tensor.detach().numpy() for name, tensor in made.policy.named_parameters()}
    hidden, bound, temperature = made.policy.hidden, made.policy.bound, made.policy.temperature
    x, h, c = np.zeros(hidden), np.zeros(hidden), np.zeros(hidden)
    log_probabilities, entropies = [], []
    for position, (decision, choice) in enumerate(zip(made.space.decisions, choices, strict=True)):
        x = x + p["position_embedding"][position] if "position_embedding" in p else x
        gates = p["input_weight"] @ x + p["input_bias"] + p["state_weight"] @ h + p["state_bias"]
        i, f, g, o = np.split(gates, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        logits = bound * np.tanh((p[f"weights.{position}"] @ h + p[f"biases.{position}"]) / temperature)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        log_probabilities.append(math.log(probabilities[choice]))
        entropies.append(-float((probabilities * np.log(probabilities)).sum()))
        x = p[f"embedding.{decision.name.split('_')[0]}"][choice]
    return log_probabilities, entropies


@each_variant
@pytest.mark.parametrize("space", [TWELVE, EnasRnn(4, variant="authors")], ids=["original", "authors"])
@torch.no_grad()
def test_probabilities_and_entropies_are_those_of_a_walk(options: dict[str, Any], space: EnasRnn) -> None:
    made = controller(space, options)
    rng = np.random.default_rng(0)
    sampled = [space.sample(rng).choices for _ in range(8)]
    sample = made.policy(8, torch.tensor(sampled))
    assert sample.decisions is not None
    walked = [walk(made, choices) for choices in sampled]
    for found, each in zip(sample.decisions, zip(*walked, strict=True), strict=True):
        torch.testing.assert_close(found, torch.tensor(each, dtype=torch.float64), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(sample.log_probability, sample.decisions[0].sum(1))
    torch.testing.assert_close(sample.entropy, sample.decisions[1].sum(1))


@each_variant
@torch.no_grad()
def test_the_probabilities_of_all_cells_sum_to_1(options: dict[str, Any]) -> None:
    choices = torch.tensor(list(product(*(range(len(d.options)) for d in THREE.decisions))))
    assert len(choices) == 2 * 2 * 2 * 2
    sample = controller(THREE, options).policy(len(choices), choices)
    assert float(sample.log_probability.exp().sum()) == pytest.approx(1.0, rel=1e-12)


@torch.no_grad()
def test_drawn_samples_come_with_the_probability_of_their_choices() -> None:
    policy = controller(TWELVE, RECURRENT).policy
    drawn = policy(20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn.log_probability, policy(20, drawn.choices).log_probability)


@pytest.mark.parametrize("discount", [1.0, 0.5])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_published_update_rewards_every_decision_by_itself(discount: float, power: float) -> None:
    made = controller(THREE, RECURRENT, spread=3.0, discount=discount, reward_power=power, entropy_weight=0.3)
    policy = controller(THREE, RECURRENT, spread=3.0).policy
    baseline: np.ndarray | None = None
    for perplexity in (100.0, 50.0, 80.0):
        choices = THREE.sample(np.random.default_rng(int(perplexity))).choices
        policy.load_state_dict(made.policy.state_dict())
        sample = policy(1, torch.tensor([choices]))
        assert sample.decisions is not None
        log_p, entropies = (tensor[0] for tensor in sample.decisions)
        rewards = 80 / perplexity**power + 0.3 * entropies.detach().numpy()
        later = np.arange(5)[None] - np.arange(5)[:, None]
        returns = np.where(later >= 0, discount ** np.maximum(later, 0), 0) @ rewards if discount < 1 else rewards
        baseline = returns if baseline is None else 0.95 * baseline + 0.05 * returns
        loss = -(log_p * torch.from_numpy(returns - baseline)).sum()
        expected = torch.autograd.grad(loss, list(policy.parameters()))
        made.tell([Trial(0, Architecture("enas_rnn", choices), Measurement(1 / perplexity))])
        for gradient, parameter in zip(expected, made.policy.parameters(), strict=True):
            # advantages are float32 numbers
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)
        assert made.baseline == pytest.approx(baseline.mean(), rel=1e-12)


def gradient_norm(made: Controller) -> float:
    return float(torch.stack([(p.grad**2).sum() for p in made.policy.parameters() if p.grad is not None]).sum().sqrt())


def told(**options: Any) -> tuple[Controller, list[Tensor]]:
    """A controller after two trials, and how far its weights have moved."""
    made = Controller(THREE, **{**RECURRENT, "baseline_start": 0.0, **options})
    before = [p.detach().clone() for p in made.policy.parameters()]
    made.tell([Trial(i, THREE.sample(np.random.default_rng(i)), Measurement(0.01 * (i + 1))) for i in range(2)])
    return made, [p.detach() - b for p, b in zip(made.policy.parameters(), before, strict=True)]


def test_clipping_changes_the_gradient_when_it_is_asked_for() -> None:
    free, clipped = told()[0], told(clip_norm=1e-3)[0]
    assert gradient_norm(free) > 1e-2
    assert gradient_norm(clipped) == pytest.approx(1e-3, rel=1e-4)
    assert free.figures()["gradient_norm"] == clipped.figures()["gradient_norm"]


def test_sgd_moves_against_the_gradient() -> None:
    made, moved = told(optimizer="sgd", learning_rate=0.5)
    for step, parameter in zip(moved, made.policy.parameters(), strict=True):
        torch.testing.assert_close(step, -0.5 * parameter.grad, rtol=1e-4, atol=1e-6)


@each_variant
def test_it_finds_a_planted_cell_that_random_search_does_not(options: dict[str, Any]) -> None:
    space = EnasRnn(3)
    target = space.sample(np.random.default_rng(5)).choices

    def worth(architecture: Architecture) -> float:
        return float(np.mean([a == b for a, b in zip(architecture.choices, target, strict=True)]))

    made = Controller(space, **{**options, "learning_rate": 0.02, "reward_scale": 1.0}, seed=1)
    for update in range(80):
        drawn = made.ask(10, np.random.default_rng(update))
        made.tell([Trial(i, a, Measurement(worth(a))) for i, a in enumerate(drawn)])
    late = [worth(a) for a in made.ask(200, np.random.default_rng(999))]
    rng = np.random.default_rng(1)
    assert np.mean(late) > np.mean([worth(space.sample(rng)) for _ in range(200)]) + 0.3


def test_a_state_goes_on_where_it_was() -> None:
    made, again = told()[0], Controller(THREE, **RECURRENT)
    again.load_state_dict(made.state_dict())
    trial = Trial(0, THREE.sample(np.random.default_rng(7)), Measurement(0.02))
    for each in (made, again):
        each.tell([trial])
    assert made.figures() == again.figures()
    drawn = [each.ask(5, np.random.default_rng(0)) for each in (made, again)]
    assert drawn[0] == drawn[1]


def test_options_without_sense_are_refused() -> None:
    micro = EnasMicro(nodes=1, ops="enas")
    for space, options, message in (
        (micro, {"per_decision": True}, "enas_rnn"),
        (THREE, {"discount": 0.9}, "per_decision"),
        (THREE, {"discount": 0.0}, "at most 1"),
        (THREE, {"optimizer": "momentum"}, "adam or sgd"),
        (THREE, {"clip_norm": -1.0}, "at least 0"),
        (THREE, {"reward_scale": 0.0}, "positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            Controller(space, **options)  # type: ignore[arg-type]
