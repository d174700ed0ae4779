"""The controller's policy of the macro space: its probabilities, its penalty, and what it can learn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from bitwright import Architecture, Measurement, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.enas_macro import EnasMacro
from bitwright.strategies._macro_policy import MacroPolicy
from bitwright.strategies.controller import Controller

THREE = EnasMacro(layers=3, ops="enas")  # 6**3 * 2**3 = 1,728 architectures
SIX = EnasMacro(layers=6, ops="enas")
PUBLISHED: dict[str, Any] = {
    "learning_rate": 0.001,
    "adam_beta1": 0.0,
    "adam_epsilon": 1e-3,
    "tanh_constant": 1.5,
    "attention": "additive",
    "position_embedding": False,
    "normalise_advantages": False,
    "entropy_weight": 1e-4,
    "entropy_bonus": 0.0,
    "baseline_decay": 0.99,
    "baseline_start": 0.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "published": PUBLISHED,
    "default": {},
    "tempered": {"attention": "additive", "temperature": 2.0, "op_tanh_reduce": 3.0},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def controller(space: EnasMacro, options: Mapping[str, Any], spread: float = 1.0, **more: Any) -> Controller:
    """In float64, with initial weights `spread` times as large as usual, for probabilities far from uniform."""
    made = Controller(space, **{**options, **more})
    made.policy.double()
    with torch.no_grad():
        for parameter in made.policy.parameters():
            parameter.mul_(spread)
    return made


def policy_of(made: Controller) -> MacroPolicy:
    assert isinstance(made.policy, MacroPolicy)
    return made.policy


def all_choices(space: EnasMacro) -> Tensor:
    return torch.tensor(list(product(*(range(len(d.options)) for d in space.decisions))))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def walk(made: Controller, choices: list[int], options: Mapping[str, Any]) -> tuple[float, float, float]:
    """Log-probability, entropy and penalty of one architecture, decision by decision, as the published program."""
    p = {name: tensor.detach().numpy() for name, tensor in made.policy.named_parameters()}
    hidden = p["start"].shape[1]
    bound, temperature = options.get("tanh_constant", 5.0), options.get("temperature", 1.0)
    target, weight = options.get("skip_target", 0.4), options.get("skip_weight", 0.8)
    h, c, steps = np.zeros(hidden), np.zeros(hidden), 0
    log_probability = entropy = 0.0
    penalties = []

    def step(x: np.ndarray) -> np.ndarray:
        nonlocal h, c, steps
        if "position_embedding" in p:
            x = x + p["position_embedding"][steps]
        steps += 1
        i, f, g, o = np.split(p["input_weight"] @ x + p["state_weight"] @ h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h

    def decide(logits: np.ndarray, choice: int) -> None:
        nonlocal log_probability, entropy
        probabilities = np.exp(logits) / np.exp(logits).sum()
        log_probability += math.log(probabilities[choice])
        entropy -= float((probabilities * np.log(probabilities)).sum())

    anchors: list[np.ndarray] = []
    x = p["start"][0]
    remaining = iter(choices)
    for layer in range(made.space.layers):
        op = next(remaining)
        scores = p["op_weight"] @ step(x)
        decide(bound / options.get("op_tanh_reduce", 1.0) * np.tanh(scores / temperature), op)
        anchor = step(p["op_embedding"][op])
        taken, divergence = [], 0.0
        for earlier in anchors:
            key, query = p["attend_layer"] @ earlier, p["attend_state"] @ anchor
            score = p["attend"][0] @ np.tanh(key + query) if "attend" in p else key @ query
            q = bound * np.tanh(np.array([-score, score]) / temperature)
            bit = next(remaining)
            decide(q, bit)
            if bit:
                taken.append(earlier)
            divergence += float((sigmoid(q) * np.log(sigmoid(q) / np.array([1 - target, target]))).sum())
        x = sum(taken, np.zeros(hidden)) / (1 + len(taken)) if layer else p["start"][0]
        penalties += [divergence] * (layer > 0)
        anchors.append(anchor)
    return log_probability, entropy, weight * float(np.mean(penalties))


@each_variant
@torch.no_grad()
def test_a_batch_has_the_numbers_of_a_walk_decision_by_decision(options: dict[str, Any]) -> None:
    made = controller(SIX, options, spread=8.0)
    rng = np.random.default_rng(0)
    sampled = [SIX.sample(rng).choices for _ in range(12)]
    batched = made.policy(12, torch.tensor(sampled))
    expected = torch.tensor([walk(made, list(choices), options) for choices in sampled], dtype=torch.float64)
    assert torch.equal(batched.choices, torch.tensor(sampled))
    # rounding of float64 in some hundred operations
    torch.testing.assert_close(torch.stack(batched[1:4], dim=1), expected, rtol=1e-10, atol=0)


@each_variant
@torch.no_grad()
def test_drawn_samples_come_with_the_probability_of_their_choices(options: dict[str, Any]) -> None:
    policy = controller(SIX, options, spread=8.0).policy
    drawn = policy(50, generator=torch.Generator().manual_seed(1))
    again = policy(50, drawn.choices)
    assert all(torch.equal(a, b) for a, b in zip(drawn[:4], again[:4], strict=True))


@each_variant
@torch.no_grad()
def test_the_probabilities_of_all_architectures_sum_to_1(options: dict[str, Any]) -> None:
    choices = all_choices(THREE)
    sample = controller(THREE, options, spread=8.0, hidden=16).policy(len(choices), choices)
    assert len(choices) == 1728
    p = sample.log_probability.exp()
    assert float(p.max() / p.min()) > 2  # no uniform policy
    assert float(p.sum()) == pytest.approx(1.0, rel=1e-12)
    # the chain rule: the entropy of the whole is the mean of the sums of the decisions' entropies
    whole = -(p * sample.log_probability).sum()
    assert float((p * sample.entropy).sum()) == pytest.approx(float(whole), rel=1e-12)


@torch.no_grad()
def test_samples_are_drawn_with_these_probabilities() -> None:
    policy = controller(THREE, {}, spread=8.0, hidden=16).policy
    choices = all_choices(THREE)
    count = 40_000
    expected = count * policy(len(choices), choices).log_probability.exp()
    place = {tuple(row): i for i, row in enumerate(choices.tolist())}
    found = torch.zeros(len(choices), dtype=torch.float64)
    for row in policy(count, generator=torch.Generator().manual_seed(2)).choices.tolist():
        found[place[tuple(row)]] += 1
    often = expected >= 5  # the rare ones count as one
    pairs = [torch.cat([counts[often], counts[~often].sum()[None]]) for counts in (found, expected)]
    assert len(pairs[0]) > 100
    statistic = float(((pairs[0] - pairs[1]) ** 2 / pairs[1]).sum())
    assert statistic < chi2.ppf(1 - 1e-4, df=len(pairs[0]) - 1)


# the penalty


def test_the_penalty_and_its_gradient_are_those_of_the_formula_by_hand() -> None:
    """Two layers have one bit, with q = c tanh(v . tanh(W1 a + W2 h)); v is the only thing that is moved here."""
    space = EnasMacro(layers=2, ops="enas")
    made = controller(space, PUBLISHED, spread=8.0, hidden=4)
    policy = policy_of(made)
    seen: list[Tensor] = []
    scores = policy._scores
    policy._scores = lambda anchor, earlier: seen.append(scores(anchor, earlier)) or seen[-1]  # type: ignore[func-returns-value, method-assign]
    penalty = policy(1, torch.tensor([[2, 0, 1]])).penalty
    assert penalty is not None
    q = float(seen[0].detach())
    on = 1 / (1 + math.exp(-q))
    assert float(penalty.detach()) == pytest.approx(
        0.8 * (on * math.log(on / 0.4) + (1 - on) * math.log((1 - on) / 0.6))
    )
    (slope,) = torch.autograd.grad(penalty.sum(), seen[0])
    # d/dq [p log(p / t) + (1 - p) log((1 - p) / (1 - t))] = p (1 - p) (q - log(t / (1 - t)))
    assert float(slope) == pytest.approx(0.8 * on * (1 - on) * (q - math.log(0.4 / 0.6)))


def told(made: Controller, choices: list[tuple[int, ...]], rewards: list[float]) -> dict[str, Tensor]:
    """The gradients of one update."""
    pairs = zip(choices, rewards, strict=True)
    made.tell([Trial(i, Architecture("enas_macro", c), Measurement(r)) for i, (c, r) in enumerate(pairs)])
    return {name: p.grad for name, p in made.policy.named_parameters() if p.grad is not None}


def test_an_update_is_the_mean_of_single_reinforce_gradients_and_of_their_penalties() -> None:
    rng = np.random.default_rng(4)
    choices, rewards = [SIX.sample(rng).choices for _ in range(5)], [0.1, 0.9, 0.5, 0.2, 0.6]
    policy = controller(SIX, PUBLISHED, spread=3.0).policy
    expected = {name: torch.zeros_like(p) for name, p in policy.named_parameters()}
    baseline = 0.0
    for each, accuracy in zip(choices, rewards, strict=True):
        sample = policy(1, torch.tensor([each]))
        assert sample.penalty is not None
        reward = accuracy + 1e-4 * float(sample.entropy.detach())
        baseline -= (1 - 0.99) * (baseline - reward)
        loss = -sample.log_probability[0] * (reward - baseline) + sample.penalty[0]
        gradients = torch.autograd.grad(loss, list(policy.parameters()))
        for (name, _), gradient in zip(policy.named_parameters(), gradients, strict=True):
            expected[name] += gradient / 5
    found = told(controller(SIX, PUBLISHED, spread=3.0), choices, rewards)
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in expected.items():
        # advantages are float32 numbers
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6 * largest)


def test_without_a_reward_the_penalty_brings_the_scores_to_the_target() -> None:
    made = Controller(SIX, entropy_bonus=0.0, normalise_advantages=False, skip_target=0.2)
    rng = np.random.default_rng(0)
    for _ in range(100):
        told(made, [a.choices for a in made.ask(10, rng)], [0.5] * 10)
    bits = [i for i, d in enumerate(SIX.decisions) if "skip" in d.name]
    drawn = made.policy(2000, generator=torch.Generator().manual_seed(0)).choices[:, bits].double()
    # sigmoid(q) = 0.2 is q = log(1/4), and a bit is set with probability sigmoid(2 q) = 1/17
    assert float(drawn.mean()) == pytest.approx(1 / 17, abs=0.01)


@pytest.mark.parametrize("option", [{"skip_target": 0.0}, {"skip_target": 1.0}, {"skip_weight": -0.1}])
def test_the_target_is_a_probability_and_its_weight_not_negative(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="skip_target is between 0 and 1 and skip_weight at least 0"):
        Controller(SIX, **option)


def test_a_single_layer_has_no_bits_and_no_penalty() -> None:
    made = Controller(EnasMacro(layers=1, ops="enas"))
    assert made.policy(3, torch.tensor([[0], [3], [5]])).penalty is None
    told(made, [(0,), (5,)], [0.1, 0.9])


def test_a_layer_is_told_what_it_skips_to() -> None:
    """Later layers depend on the bits of earlier ones, and bits on earlier operations."""
    policy = controller(THREE, {}, spread=8.0, hidden=16).policy
    rows = torch.tensor([[1, 2, 0, 3, 0, 0], [1, 2, 1, 3, 0, 0], [4, 2, 0, 3, 0, 0]])
    log_p = policy(3, rows).log_probability.tolist()
    assert len({round(x, 6) for x in log_p}) == 3


# learning


TARGET = np.random.default_rng(7).integers([len(d.options) for d in SIX.decisions])


def play(made: Controller, updates: int, seed: int = 0) -> list[float]:
    """The best reward of each update's 10 samples, the part of 21 decisions that match a hidden target."""
    best = []
    for update in range(updates):
        asked = made.ask(10, np.random.default_rng([seed, update]))
        rewards = [float(np.mean(np.array(a.choices) == TARGET)) for a in asked]
        made.tell([Trial(i, a, Measurement(r)) for i, (a, r) in enumerate(zip(asked, rewards, strict=True))])
        best.append(max(rewards))
        if best[-1] == 1.0:
            break
    return best


@pytest.mark.parametrize("seed", range(3))
def test_the_controller_finds_a_hidden_target_that_random_search_does_not(seed: int) -> None:
    history = play(Controller(SIX, seed=seed), 400, seed)
    rng = np.random.default_rng(seed)
    drawn = [SIX.sample(rng).choices for _ in range(10 * len(history))]
    random = max(float(np.mean(np.array(choices) == TARGET)) for choices in drawn)
    assert history[-1] == 1.0 > random
