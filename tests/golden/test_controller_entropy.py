"""The published controller starts with the entropy that its logs print."""

from __future__ import annotations

import math

import pytest
import torch

from bitwright.spaces.enas_micro import EnasMicro
from bitwright.strategies.controller import CLASSIC, Controller, Policy


def classic_policy(nodes: int, seed: int = 0) -> Policy:
    return Controller(EnasMicro(ops="enas", nodes=nodes), **CLASSIC, seed=seed).policy


def entropy(logits: list[float]) -> float:
    """Of one categorical choice, in nats."""
    total = sum(map(math.exp, logits))
    return -sum(math.exp(z) / total * math.log(math.exp(z) / total) for z in logits)


def entropy_of_untrained_scores(nodes: int) -> float:
    """All attention scores 0, operation scores at their initial biases, which are 10 for the two convolutions."""
    indices = sum(2 * entropy([0.0] * earlier) for earlier in range(2, nodes + 2))
    saturated = 1.10 / 2.5 * math.tanh(10)
    normal = entropy([saturated + 0.25] * 2 + [-0.25] * 3)
    reduction = entropy([saturated] * 2 + [0.0] * 3)
    return 2 * indices + 2 * nodes * (normal + reduction)


@torch.no_grad()
def sampled_entropy(policy: Policy) -> torch.Tensor:
    return policy(500, generator=torch.Generator().manual_seed(0)).entropy


@pytest.mark.parametrize(("nodes", "expected"), [(5, 57.19), (3, 31.23)])
def test_initial_entropy_is_the_logged_one(nodes: int, expected: float) -> None:
    assert round(float(sampled_entropy(classic_policy(nodes)).mean()), 2) == expected
    assert round(entropy_of_untrained_scores(nodes), 2) == expected


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_initial_entropy_is_as_in_the_logs_for_every_seed(nodes: int, seed: int) -> None:
    # the logs print 57.18 to 57.19; the reference allows 0.05
    mean = float(sampled_entropy(classic_policy(nodes, seed)).mean())
    assert mean == pytest.approx(entropy_of_untrained_scores(nodes), abs=0.05)


@pytest.mark.parametrize("nodes", [3, 5])
def test_entropy_is_the_closed_form_where_all_scores_are_zero(nodes: int) -> None:
    policy = classic_policy(nodes).double()
    with torch.no_grad():
        policy.op_weight.zero_()
        policy.attend_node.zero_()
        policy.attend_state.zero_()
    torch.testing.assert_close(
        sampled_entropy(policy),
        torch.full((500,), entropy_of_untrained_scores(nodes), dtype=torch.float64),
        rtol=1e-12,  # rounding of float64; all biases are exact in float32
        atol=0,
    )


def test_the_policy_has_41_733_parameters_with_5_nodes() -> None:
    lstm, start, embedding, softmax, attention = 128 * 256, 64, 5 * 64, 64 * 5 + 5, 2 * 64 * 64 + 64
    parameters = sum(p.numel() for p in classic_policy(5).parameters())
    assert parameters == lstm + start + embedding + softmax + attention == 41_733


def test_the_uniform_policy_over_5_nodes_has_58_506_nats() -> None:
    policy = Controller(EnasMicro(ops="enas", nodes=5)).policy.double()
    with torch.no_grad():
        policy.op_weight.zero_()
        policy.attend_node.zero_()
    uniform = 4 * math.log(2 * 3 * 4 * 5 * 6) + 20 * math.log(5)
    assert round(uniform, 3) == 58.506
    assert float(sampled_entropy(policy).mean()) == pytest.approx(uniform, rel=1e-12)
