"""NSGA-II as Deb et al. 2002 describe it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import chisquare

from bitwright import Architecture, Measurement, Objective, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.nasbench_macro import NasbenchMacro
from bitwright.spaces.proxylessnas import Proxylessnas
from bitwright.strategies.nsga2 import Member, Nsga2, ranked

SPACE = NasbenchMacro()
ANY = SPACE.parse("0 0 0 0 0 0 0 0")


def measured(architecture: Architecture) -> Measurement:
    """Late layers count for the accuracy, early ones for the size."""
    choices = architecture.choices
    accuracy = sum(c * (i + 1) for i, c in enumerate(choices)) / 72
    return Measurement(accuracy, 1.0, {"size": 1.0 + sum(c * (8 - i) for i, c in enumerate(choices))})


def run(strategy: Nsga2, generations: int, seed: int = 0) -> list[Architecture]:
    asked: list[Architecture] = []
    for generation in range(generations):
        batch = strategy.ask(strategy.population, np.random.default_rng([seed, generation]))
        strategy.tell([Trial(len(asked) + i, each, measured(each)) for i, each in enumerate(batch)])
        asked += batch
    return asked


def test_survivors_are_the_best_fronts_and_of_the_last_the_least_crowded() -> None:
    values = [(0.0, 4.0), (1.0, 3.0), (1.1, 2.9), (4.0, 0.0), (5.0, 5.0), (2.0, 4.0)]
    order = [member.values for member in ranked([Member(ANY, each) for each in values])]
    assert set(order[:2]) == {(0.0, 4.0), (4.0, 0.0)}  # the ends
    # (4 - 1) / 4 + (3 - 0) / 4 against (1.1 - 0) / 4 + (4 - 2.9) / 4
    assert order[2:4] == [(1.1, 2.9), (1.0, 3.0)]
    assert order[4:] == [(2.0, 4.0), (5.0, 5.0)]


def test_what_meets_the_budgets_comes_first_and_then_the_smaller_excess() -> None:
    members = [Member(ANY, (0.0,), 0.5), Member(ANY, (9.0,), 0.0), Member(ANY, (1.0,), 0.2), Member(ANY, (8.0,), 0.0)]
    assert [member.values[0] for member in ranked(members)] == [8.0, 9.0, 1.0, 0.0]


def test_the_parents_are_the_best_of_parents_and_children() -> None:
    strategy = Nsga2(SPACE, population=6, objectives=("accuracy", "size"))
    asked = run(strategy, 1)
    before = list(strategy.parents)
    assert {member.architecture for member in before} == set(asked)
    children = strategy.ask(6, np.random.default_rng(5))
    strategy.tell([Trial(i, each, measured(each)) for i, each in enumerate(children[:5])])
    assert strategy.parents == before  # the generation is one short
    strategy.tell([Trial(5, children[5], measured(children[5]))])
    figures = [(-measured(a).accuracy, measured(a).costs["size"]) for a in (*asked, *children)]
    front = [a for a in figures if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in figures)]
    kept = [member.values for member in strategy.parents]
    assert len(kept) == 6
    assert set(kept) <= set(front) if len(front) > 6 else set(front) <= set(kept)


def test_a_child_takes_its_choices_from_two_parents() -> None:
    strategy = Nsga2(SPACE, population=2, mutation=1e-12, crossover=1.0)
    zeros, twos = ANY, SPACE.parse("2 2 2 2 2 2 2 2")
    strategy.tell([Trial(0, zeros, Measurement(0.5)), Trial(1, twos, Measurement(0.5))])
    children = strategy.ask(40, np.random.default_rng(0))
    assert {choice for child in children for choice in child.choices} == {0, 2}
    assert len({SPACE.canonical(child) for child in (*children, zeros, twos)}) == 42


def test_a_parent_is_the_better_one_of_two() -> None:
    """Of n parents the k-th best wins 2 (n - k) + 1 of n ** 2 tournaments."""
    strategy = Nsga2(SPACE, population=4, mutation=1e-12, crossover=0.0)
    parents = [SPACE.parse(" ".join(str(i % 3) for i in [k, k, k, k // 3, 0, 0, 0, 0])) for k in range(4)]
    strategy.tell([Trial(k, each, Measurement(0.9 - k / 10)) for k, each in enumerate(parents)])
    drawn = Counter(strategy._children(np.random.default_rng(0), 8000))
    expected = [(2 * (4 - k) - 1) / 16 * 8000 for k in range(4)]
    assert chisquare([drawn[each] for each in parents], expected).pvalue > 0.001


def test_every_choice_is_mutated_alike() -> None:
    strategy = Nsga2(SPACE, population=2, mutation=0.3, crossover=0.0)
    strategy.tell([Trial(i, SPACE.parse("1 1 1 1 1 1 1 1"), Measurement(0.5)) for i in range(2)])
    drawn = np.array([each.choices for each in strategy._children(np.random.default_rng(1), 6000)])
    for position in drawn.T:  # a choice is drawn anew from all three
        counts = np.bincount(position, minlength=3)
        assert chisquare(counts, np.array([0.1, 0.8, 0.1]) * 6000).pvalue > 1e-4


def test_children_are_valid_where_half_of_what_is_mixed_is_not() -> None:
    class Even(NasbenchMacro):
        """Sums of choices are even."""

        def is_valid(self, choices: Sequence[int]) -> bool:
            return sum(choices) % 2 == 0

    space = Even()
    strategy = Nsga2(space, population=2)
    strategy.tell([Trial(i, space.parse(text), Measurement(0.5)) for i, text in enumerate(("0 " * 8, "2 " * 8))])
    children = strategy.ask(100, np.random.default_rng(0))
    assert all(sum(child.choices) % 2 == 0 for child in children)


def test_the_front_of_two_objectives_is_found_where_random_search_finds_little_of_it() -> None:
    strategy = Nsga2(SPACE, population=20, objectives=("accuracy", "size"))
    asked = run(strategy, 20)
    assert len({SPACE.canonical(each) for each in asked}) == 400  # nothing twice

    def behind(architectures: list[Architecture]) -> float:
        """The area under the best accuracy by size."""
        found = [measured(each) for each in architectures]
        sizes = np.linspace(1, 73, 200)
        return float(np.mean([max([m.accuracy for m in found if m.costs["size"] <= s], default=0.0) for s in sizes]))

    rng = np.random.default_rng(0)
    assert behind(asked) > behind([SPACE.sample(rng) for _ in range(400)]) + 0.02
    assert max(-member.values[0] for member in strategy.front) > 0.95


def test_budgets_are_kept() -> None:
    strategy = Nsga2(SPACE, Objective({"size": 30.0}), population=20)
    run(strategy, 8)
    assert all(measured(member.architecture).costs["size"] <= 30.0 for member in strategy.parents)


def test_options_without_sense_are_refused() -> None:
    for options, message in (
        ({"population": 1}, "at least 2"),
        ({"crossover": 1.5}, "from 0 to 1"),
        ({"mutation": 0.0}, "above 0"),
        ({"objectives": ()}, "one or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            Nsga2(SPACE, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has none"):
        Nsga2(Proxylessnas((3, 32, 32), 10, (125.3,), (63.0,)))
    with pytest.raises(ConfigError, match="macs was not measured"):
        Nsga2(SPACE, objectives=("macs",)).tell([Trial(0, ANY, Measurement(0.5))])
