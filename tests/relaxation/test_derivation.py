"""Architectures from probabilities, against all of small spaces."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from tiny_space import TinySpace
from torch import Tensor

from bitwright.architecture import Architecture
from bitwright.relaxation import derive
from bitwright.relaxation.derive import most_probable, of_equal_cost

OPTIONS = ("1", "3", "5")


class Case:
    """Random probabilities and costs per option; a more probable option is the dearer one, mostly."""

    def __init__(self, seed: int, decisions: int = 6) -> None:
        rng = np.random.default_rng(seed)
        self.space = TinySpace(options=OPTIONS, cells=decisions)
        self.prices = np.sort(rng.random((decisions, 3)), axis=1)
        logits = 4 * self.prices + rng.standard_normal((decisions, 3))
        self.probabilities: list[Tensor] = [torch.from_numpy(row).softmax(0) for row in logits]

    def costs(self, architecture: Architecture) -> Mapping[str, float]:
        return {"price": sum(float(row[c]) for row, c in zip(self.prices, architecture.choices, strict=True))}

    def log_probability(self, choices: tuple[int, ...]) -> float:
        return sum(float(p[c].log()) for p, c in zip(self.probabilities, choices, strict=True))

    def best_within(self, budget: float) -> tuple[int, ...]:
        every = itertools.product(range(3), repeat=len(self.probabilities))
        within = [c for c in every if self.costs(self.space.architecture(c))["price"] <= budget]
        return max(within, key=self.log_probability)

    def budget(self, part: float) -> float:
        return float(self.prices.min(1).sum() * (1 - part) + self.prices.max(1).sum() * part)


def test_without_budgets_each_decision_takes_its_most_probable_option() -> None:
    case = Case(0)
    found = most_probable(case.space, case.probabilities, {}, case.costs)
    assert found.choices == tuple(int(p.argmax()) for p in case.probabilities)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_small_space_the_most_probable_within_the_budget_is_found(seed: int) -> None:
    case = Case(seed)
    budget = case.budget(0.3)
    found = most_probable(case.space, case.probabilities, {"price": budget}, case.costs)
    assert found.choices == case.best_within(budget)


def test_beyond_the_choices_looked_through_the_way_to_the_budget_loses_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "EXACT", 1)
    lost = []
    for seed in range(20):
        case = Case(seed)
        budget = case.budget(0.25)
        found = most_probable(case.space, case.probabilities, {"price": budget}, case.costs)
        assert case.costs(found)["price"] <= budget
        lost.append(case.log_probability(case.best_within(budget)) - case.log_probability(found.choices))
    assert min(lost) > -1e-9
    assert np.mean(np.array(lost) < 1e-9) >= 0.8
    assert max(lost) < 0.5


def test_several_budgets_are_met_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "EXACT", 1)
    case = Case(3)
    second = np.random.default_rng(9).random(case.prices.shape)

    def costs(architecture: Architecture) -> dict[str, float]:
        other = sum(float(row[c]) for row, c in zip(second, architecture.choices, strict=True))
        return {**case.costs(architecture), "other": other}

    budgets = {"price": case.budget(0.5), "other": float(second.mean(1).sum())}
    found = costs(most_probable(case.space, case.probabilities, budgets, costs))
    assert all(found[name] <= budget for name, budget in budgets.items())


def test_excluded_architectures_are_passed_over() -> None:
    space = TinySpace(options=OPTIONS, cells=2, excluded=((0, 0), (0, 1)))
    probabilities = [torch.tensor([0.8, 0.15, 0.05]), torch.tensor([0.6, 0.3, 0.1])]
    found = most_probable(space, [p.double() for p in probabilities], {}, lambda a: {})
    assert found.choices == (1, 0)  # 0.09, before (0, 2) with 0.08


def test_choices_come_in_the_order_of_their_probabilities() -> None:
    case = Case(1, decisions=4)
    logarithms = [p.log().numpy() for p in case.probabilities]
    found = list(derive._in_order(logarithms))
    wanted = sorted(itertools.product(range(3), repeat=4), key=lambda c: -case.log_probability(c))
    assert found == wanted


def test_random_architectures_of_equal_cost_cost_about_as_much_and_differ() -> None:
    case = Case(2, decisions=12)
    wanted = {"price": case.budget(0.2)}
    drawn = [of_equal_cost(case.space, wanted, case.costs, np.random.default_rng(seed)) for seed in range(10)]
    assert all(abs(case.costs(a)["price"] / wanted["price"] - 1) <= 0.05 for a in drawn)
    assert len(set(drawn)) == 10
