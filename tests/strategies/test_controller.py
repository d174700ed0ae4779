"""The LSTM controller: its probabilities, its gradient, and what it can learn."""

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

from bitwright import Architecture, Measurement, Objective, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.strategies.controller import CLASSIC, Controller, Policy

ONE = EnasMicro(nodes=1, ops="enas")  # 100 cells, 10,000 architectures
THREE = EnasMicro(nodes=3, ops="enas")
MIXED = EnasMicro(nodes=2, ops="mixed", precisions=("binary", "4"))
VARIANTS: dict[str, dict[str, Any]] = {
    "classic": CLASSIC,
    "default": {},
    "additive": {"attention": "additive", "temperature": 2.0, "op_tanh_reduce": 3.0},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def controller(space: EnasMicro, options: Mapping[str, Any], spread: float = 1.0, **more: Any) -> Controller:
    """In float64, with initial weights `spread` times as large as usual, for probabilities far from uniform."""
    made = Controller(space, **{**options, **more})
    made.policy.double()
    with torch.no_grad():
        for name, parameter in made.policy.named_parameters():
            if name != "op_bias":
                parameter.mul_(spread)
    return made


def all_choices(space: EnasMicro) -> Tensor:
    return torch.tensor(list(product(*(range(len(d.options)) for d in space.decisions))))


# probabilities


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def walk(made: Controller, choices: list[int], options: Mapping[str, Any]) -> tuple[float, float]:
    """Log-probability and entropy of one architecture, decision by decision."""
    p = {name: tensor.detach().numpy() for name, tensor in made.policy.named_parameters()}
    nodes, hidden = made.space.nodes, p["start"].shape[1]
    bound = options.get("tanh_constant", 5.0)
    op_bound = bound / options.get("op_tanh_reduce", 1.0)
    temperature = options.get("temperature", 1.0)
    fixed = options.get("fixed_conv_bias", 0.0)
    is_convolution = np.array([operation.kind == "separable" for operation in made.space.operations])
    h, c, steps = np.zeros(hidden), np.zeros(hidden), 0
    log_probability = entropy = 0.0

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

    start = p["start"][0]
    remaining = iter(choices)
    for cell in range(2):
        anchors = [np.zeros(hidden), np.zeros(hidden)]
        keys = [p["attend_node"] @ step(start) for _ in range(2)]
        for _ in range(nodes):
            source1, op1, source2, op2 = (next(remaining) for _ in range(4))
            x = start
            for source in (source1, source2):
                query = p["attend_state"] @ step(x)
                if "attend" in p:
                    scores = np.array([p["attend"][0] @ np.tanh(key + query) for key in keys])
                else:
                    scores = np.array([key @ query for key in keys])
                decide(bound * np.tanh(scores / temperature), source)
                x = anchors[source]
            for op in (op1, op2):
                logits = op_bound * np.tanh((p["op_weight"] @ step(x) + p["op_bias"]) / temperature)
                decide(logits + (np.where(is_convolution, fixed, -fixed) if cell == 0 else 0.0), op)
                x = p["op_embedding"][op]
            anchors.append(step(x))
            keys.append(p["attend_node"] @ anchors[-1])
    return log_probability, entropy


@each_variant
@pytest.mark.parametrize("space", [THREE, MIXED], ids=["enas", "mixed"])
@torch.no_grad()
def test_log_probability_and_entropy_are_those_of_a_walk_decision_by_decision(
    options: dict[str, Any], space: EnasMicro
) -> None:
    made = controller(space, options, spread=8.0)
    rng = np.random.default_rng(0)
    sampled = [space.sample(rng).choices for _ in range(12)]
    batched = made.policy(12, torch.tensor(sampled))
    expected = torch.tensor([walk(made, list(choices), options) for choices in sampled], dtype=torch.float64)
    assert torch.equal(batched.choices, torch.tensor(sampled))
    # rounding of float64 in some hundred operations
    torch.testing.assert_close(torch.stack(batched[1:3], dim=1), expected, rtol=1e-10, atol=0)


@each_variant
@torch.no_grad()
def test_drawn_samples_come_with_the_probability_of_their_choices(options: dict[str, Any]) -> None:
    policy = controller(THREE, options, spread=8.0).policy
    drawn = policy(50, generator=torch.Generator().manual_seed(1))
    again = policy(50, drawn.choices)
    assert torch.equal(drawn.log_probability, again.log_probability)
    assert torch.equal(drawn.entropy, again.entropy)


@each_variant
@torch.no_grad()
def test_the_probabilities_of_all_architectures_sum_to_1(options: dict[str, Any]) -> None:
    choices = all_choices(ONE)
    sample = controller(ONE, options, spread=8.0, hidden=16).policy(len(choices), choices)
    assert len(choices) == 10_000
    assert float(sample.log_probability.exp().sum()) == pytest.approx(1.0, rel=1e-12)
    # the chain rule: the entropy of the whole is the mean of the sums of the decisions' entropies
    p = sample.log_probability.exp()
    whole = -(p * sample.log_probability).sum()
    assert float((p * sample.entropy).sum()) == pytest.approx(float(whole), rel=1e-12)


@each_variant
@torch.no_grad()
def test_samples_are_drawn_with_these_probabilities(options: dict[str, Any]) -> None:
    policy = controller(ONE, options, spread=8.0, hidden=16).policy
    choices = all_choices(ONE)
    probabilities = policy(len(choices), choices).log_probability.exp()
    drawn = policy(20_000, generator=torch.Generator().manual_seed(2)).choices
    sizes = torch.tensor([len(d.options) for d in ONE.decisions])
    for half in (slice(0, 4), slice(4, 8)):

        def cells(rows: Tensor, half: slice = half) -> Tensor:
            code = torch.zeros(len(rows), dtype=torch.int64)
            for column, size in zip(rows[:, half].T, sizes[half], strict=True):
                code = code * size + column
            return code

        expected = 20_000 * torch.zeros(100, dtype=torch.float64).index_add_(0, cells(choices), probabilities)
        found = torch.bincount(cells(drawn), minlength=100)
        assert float(expected.max() / expected.min()) > 1.2  # no uniform policy
        statistic = float(((found - expected) ** 2 / expected).sum())
        assert statistic < chi2.ppf(1 - 1e-4, df=99)


@torch.no_grad()
def test_the_default_policy_starts_close_to_uniform() -> None:
    policy = Controller(THREE).policy
    uniform = sum(math.log(len(d.options)) for d in THREE.decisions)
    entropy = policy(200, generator=torch.Generator().manual_seed(0)).entropy
    assert uniform - 0.5 < float(entropy.mean()) <= uniform


@torch.no_grad()
def test_the_classic_conv_bias_acts_in_the_normal_cell_only() -> None:
    policy = controller(ONE, CLASSIC, hidden=16).policy
    policy.op_weight.zero_()
    choices = all_choices(ONE)
    probabilities = policy(len(choices), choices).log_probability.exp()
    # the published start: each convolution and each other operation, in the normal and in the reduction cell
    for columns, published in (((1, 3), [0.315] * 2 + [0.123] * 3), ((5, 7), [0.254] * 2 + [0.164] * 3)):
        for column in columns:
            found = torch.zeros(5, dtype=torch.float64).index_add_(0, choices[:, column], probabilities)
            assert [round(p, 3) for p in found.tolist()] == published


# the gradient


def told(made: Controller, choices: list[tuple[int, ...]], rewards: list[float]) -> dict[str, Tensor]:
    """The gradients of one update."""
    trials = [
        Trial(i, Architecture("enas_micro", c), Measurement(r))
        for i, (c, r) in enumerate(zip(choices, rewards, strict=True))
    ]
    made.tell(trials)
    return {name: p.grad for name, p in made.policy.named_parameters() if p.grad is not None}


def samples(space: EnasMicro, count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(4)
    return [space.sample(rng).choices for _ in range(count)]


def gradients_one_by_one(policy: Policy, choices: tuple[int, ...], of: str) -> dict[str, Tensor]:
    value = getattr(policy(1, torch.tensor([choices])), of)[0]
    names, parameters = zip(*policy.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for name, p, g in zip(names, parameters, found, strict=True)}


def assert_gradients_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in expected.items():
        # advantages are float32 numbers
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6 * largest)


def test_the_classic_update_is_the_mean_of_single_reinforce_gradients() -> None:
    made = controller(THREE, CLASSIC, spread=3.0)
    choices, rewards = samples(THREE, 5), [0.1, 0.9, 0.5, 0.2, 0.6]
    policy = controller(THREE, CLASSIC, spread=3.0).policy
    expected = {name: torch.zeros_like(p) for name, p in policy.named_parameters()}
    baseline = 0.0
    for each, accuracy in zip(choices, rewards, strict=True):
        with torch.no_grad():
            reward = accuracy + 1e-4 * float(policy(1, torch.tensor([each])).entropy)
        baseline -= (1 - 0.99) * (baseline - reward)
        for name, gradient in gradients_one_by_one(policy, each, "log_probability").items():
            expected[name] -= gradient * (reward - baseline) / 5
    found = told(made, choices, rewards)
    assert_gradients_equal(found, expected)
    assert made.baseline == pytest.approx(baseline, rel=1e-12)
    norm = math.sqrt(sum(float((g**2).sum()) for g in expected.values()))
    assert made.figures()["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert made.figures()["learning_rate"] == 0.0035


def test_the_default_update_normalises_advantages_and_adds_a_fading_entropy_bonus() -> None:
    made = controller(THREE, {}, spread=3.0)
    choices, rewards = samples(THREE, 4), [0.125, 0.5, 0.25, 0.375]
    for update in range(2):
        policy = controller(THREE, {}, spread=3.0).policy
        policy.load_state_dict(made.policy.state_dict())
        differences = []
        baseline = sum(rewards) / 4 if made.baseline is None else made.baseline
        for reward in rewards:
            baseline = 0.95 * baseline + 0.05 * reward
            differences.append(reward - baseline)
        advantages = (np.array(differences) - np.mean(differences)) / np.std(differences, ddof=1)
        expected = {name: torch.zeros_like(p) for name, p in policy.named_parameters()}
        for each, advantage in zip(choices, advantages, strict=True):
            for of, factor in (("log_probability", advantage), ("entropy", 0.2 * 0.995**update)):
                for name, gradient in gradients_one_by_one(policy, each, of).items():
                    expected[name] -= gradient * factor / 4
        assert_gradients_equal(told(made, choices, rewards), expected)
        assert made.updates == update + 1
        assert made.baseline == pytest.approx(baseline, rel=1e-12)


@each_variant
def test_reinforce_is_the_gradient_of_the_expected_reward(options: dict[str, Any]) -> None:
    policy = controller(ONE, options, spread=8.0, hidden=16).policy
    choices = all_choices(ONE)
    rewards = torch.rand(len(choices), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_probability = policy(len(choices), choices).log_probability
    weighted = (log_probability.detach().exp() * (rewards - 0.3) * log_probability).sum()
    weighted.backward()
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in policy.parameters()]
    pairs = list(zip(policy.parameters(), directions, strict=True))
    slope = sum(float((p.grad * d).sum()) for p, d in pairs if p.grad is not None)
    step = 1e-5

    @torch.no_grad()
    def expected_reward(distance: float) -> float:
        for p, d in pairs:
            p.add_(d, alpha=distance)
        value = float((policy(len(choices), choices).log_probability.exp() * rewards).sum())
        for p, d in pairs:
            p.sub_(d, alpha=distance)
        return value

    # the third derivative times step**2, and rounding of 1e-16 over the step
    measured = (expected_reward(step) - expected_reward(-step)) / (2 * step)
    assert measured == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_an_update_makes_the_better_half_of_the_trials_more_probable() -> None:
    made = Controller(THREE, entropy_bonus=0.0)
    choices = torch.tensor(samples(THREE, 6))
    before = made.policy(6, choices).log_probability.detach()
    told(made, [tuple(c) for c in choices.tolist()], [0.9, 0.9, 0.9, 0.1, 0.1, 0.1])
    change = made.policy(6, choices).log_probability.detach() - before
    assert float(change[:3].mean()) > 0 > float(change[3:].mean())


def test_the_reward_is_the_objective_and_not_the_accuracy() -> None:
    measurement = Measurement(0.8, 0.0, {"bits": 200.0})
    plain = Controller(THREE, baseline_start=0.0, baseline_decay=0.0)
    bounded = Controller(THREE, Objective({"bits": 100.0}, strength=1.0), baseline_start=0.0, baseline_decay=0.0)
    for made in (plain, bounded):
        made.tell([Trial(0, Architecture("enas_micro", samples(THREE, 1)[0]), measurement)])
    assert plain.baseline == 0.8
    assert bounded.baseline == 0.4


@pytest.mark.parametrize("option", ["tanh_constant", "op_tanh_reduce", "temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_bounds_and_temperature_are_positive(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option} is positive"):
        Controller(THREE, **{option: value})


# learning


TARGET = np.random.default_rng(7).integers([len(d.options) for d in THREE.decisions])


def play(made: Controller, updates: int, seed: int = 0) -> list[list[float]]:
    """The rewards of each update's 10 samples, the part of 24 decisions that match a hidden target."""
    history: list[list[float]] = []
    for update in range(updates):
        asked = made.ask(10, np.random.default_rng([seed, update]))
        history.append([float(np.mean(np.array(a.choices) == TARGET)) for a in asked])
        made.tell([Trial(i, a, Measurement(r)) for i, (a, r) in enumerate(zip(asked, history[-1], strict=True))])
        if max(history[-1]) == 1.0:
            break
    return history


@pytest.mark.parametrize("seed", range(3))
def test_the_default_controller_finds_a_hidden_target_of_24_decisions(seed: int) -> None:
    history = play(Controller(THREE, seed=seed), 400, seed)
    assert max(history[-1]) == 1.0


def test_the_classic_controller_stays_near_chance_on_the_same_target() -> None:
    chance = np.mean([1 / len(d.options) for d in THREE.decisions])
    made = Controller(THREE, **CLASSIC)
    start = made.policy.op_bias.detach().clone()
    history = play(made, 300)
    assert len(history) == 300
    assert chance < np.mean(history[-100:]) < 0.5
    # tanh(10) is 1 in float32 and its gradient 0: the logits of the two convolutions never move
    assert torch.equal(made.policy.op_bias[:2], start[:2])
    assert not torch.equal(made.policy.op_bias[2:], start[2:])
