"""Regularized evolution as Real et al. 2019 describe it (Algorithm 1)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from bitwright import Architecture, Measurement, Objective, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.spaces.proxylessnas import Proxylessnas
from bitwright.strategies.regularized_evolution import RegularizedEvolution

SPACE = EnasMicro(nodes=4, ops="enas")


def told(strategy: RegularizedEvolution, accuracies: list[float], seed: int = 0) -> list[Architecture]:
    """Different architectures, far from one another, of these accuracies."""
    rng = np.random.default_rng(seed)
    architectures = [SPACE.sample(rng) for _ in accuracies]
    strategy.tell([Trial(i, a, Measurement(x)) for i, (a, x) in enumerate(zip(architectures, accuracies, strict=True))])
    return architectures


def parent(child: Architecture, members: list[Architecture]) -> int:
    """Which member differs in one choice."""
    differences = [sum(a != b for a, b in zip(child.choices, m.choices, strict=True)) for m in members]
    assert sorted(differences)[0] == 1 < sorted(differences)[1]
    return differences.index(1)


def test_the_first_ones_are_sampled_and_then_all_are_children() -> None:
    strategy = RegularizedEvolution(SPACE, population=8, tournament=2)
    rng = np.random.default_rng(0)
    for count in (3, 20):
        assert len(strategy.ask(count, rng)) == count  # nothing is known: there are no children
    members = told(strategy, [0.1] * 6)
    asked = strategy.ask(5, np.random.default_rng(4))
    fresh = np.random.default_rng(4)
    assert asked[:2] == [SPACE.sample(fresh), SPACE.sample(fresh)]  # the population is two short
    for child in asked[2:]:
        parent(child, members)


def test_a_parent_is_the_best_of_a_tournament_drawn_with_replacement() -> None:
    size, tournament, draws = 6, 3, 3000
    strategy = RegularizedEvolution(SPACE, population=size, tournament=tournament)
    accuracies = [0.3, 0.6, 0.1, 0.5, 0.2, 0.4]
    members = told(strategy, accuracies)
    children = strategy.ask(draws, np.random.default_rng(1))
    counted = Counter(parent(child, members) for child in children)
    ranks = np.argsort(accuracies)  # the worst first
    expected = [((r + 1) ** tournament - r**tournament) / size**tournament * draws for r in range(size)]
    assert chisquare([counted[int(i)] for i in ranks], expected).pvalue > 0.001


def test_the_oldest_dies_however_good_it_is() -> None:
    strategy = RegularizedEvolution(SPACE, population=5, tournament=5)
    old = told(strategy, [0.9, 0.1, 0.1, 0.1, 0.1])
    assert any(parent(child, old) == 0 for child in strategy.ask(20, np.random.default_rng(2)))
    new = told(strategy, [0.2], seed=8)
    living = [*old[1:], *new]
    for child in strategy.ask(50, np.random.default_rng(3)):
        parent(child, living)
    assert len(strategy.state_dict()["members"]) == 5


def test_budgets_count_in_a_tournament() -> None:
    strategy = RegularizedEvolution(SPACE, Objective({"macs": 10.0}, strength=1.0), population=2, tournament=2)
    rng = np.random.default_rng(0)
    members = [SPACE.sample(rng), SPACE.sample(rng)]
    measured = [Measurement(0.8, costs={"macs": 40.0}), Measurement(0.5, costs={"macs": 10.0})]
    strategy.tell([Trial(i, a, m) for i, (a, m) in enumerate(zip(members, measured, strict=True))])
    counted = Counter(parent(child, members) for child in strategy.ask(400, np.random.default_rng(1)))
    assert counted[1] == pytest.approx(300, abs=40)  # it loses only where it was not drawn


def test_mutation_leads_uphill_on_a_smooth_reward() -> None:
    """The share of choices that equal a hidden target, as for the controller."""
    target = SPACE.sample(np.random.default_rng(99)).choices
    strategy = RegularizedEvolution(SPACE, population=20, tournament=5)
    best = 0.0
    for step in range(1200):
        (child,) = strategy.ask(1, np.random.default_rng([0, step]))
        share = float(np.mean([a == b for a, b in zip(child.choices, target, strict=True)]))
        best = max(best, share)
        strategy.tell([Trial(step, child, Measurement(share))])
    assert best > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 0}, "population is at least 1, got 0"),
        ({"population": 5, "tournament": 6}, "a tournament is 1 to 5 of them, got 6"),
        ({"tournament": 0}, "a tournament is 1 to 100 of them, got 0"),
    ],
)
def test_options_that_mean_nothing_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegularizedEvolution(SPACE, **options)


def test_a_space_without_decisions_is_refused() -> None:
    space = Proxylessnas((3, 224, 224), 1000, (0.0,), (1.0,))
    with pytest.raises(ConfigError, match="changes decisions; proxylessnas has none"):
        RegularizedEvolution(space)
