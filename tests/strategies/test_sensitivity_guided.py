"""Search by sensitivity on problems whose best trade-offs are known from all architectures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bitwright import Architecture, Measurement, Objective, Trial
from bitwright.architecture import Decision
from bitwright.errors import ConfigError
from bitwright.spaces import DecisionSpace
from bitwright.spaces.proxylessnas import Proxylessnas
from bitwright.strategies import Strategy
from bitwright.strategies.nsga2 import Nsga2
from bitwright.strategies.random_search import RandomSearch
from bitwright.strategies.sensitivity_guided import SensitivityGuided

BITS = np.array([2, 3, 4, 8])
Measure = Callable[[Sequence[int]], tuple[Any, Any]]


class Bits(DecisionSpace):
    name = "bits"

    def __init__(self, count: int, options: int = 4) -> None:
        self.count, self.options = count, options

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"layer{i}", tuple(map(str, BITS[: self.options]))) for i in range(self.count))


class Layers:
    """Layers of different sizes and sensitivities; accuracy is lost by each on its own, as rounding noise is."""

    def __init__(self, count: int, seed: int, *, products: bool) -> None:
        """products: the cost is that of pairs of decisions, weights times activations; else that of each."""
        rng = np.random.default_rng(seed)
        self.sizes, self.sensitivities, self.products = rng.uniform(1, 20, count), rng.uniform(0.1, 3, count), products

    def __call__(self, choices: Any) -> tuple[Any, Any]:
        """Accuracies and costs of choices (..., count)."""
        bits = BITS[np.asarray(choices)]
        lost = (self.sensitivities * 4.0**-bits).sum(-1)
        sizes = self.sizes[::2] * bits[..., ::2] * bits[..., 1::2] if self.products else self.sizes * bits
        return 0.9 - lost, sizes.sum(-1)


def told(measure: Measure, asked: Sequence[Architecture], first: int = 0) -> list[Trial]:
    trials = []
    for i, each in enumerate(asked):
        accuracy, cost = measure(each.choices)
        trials.append(Trial(first + i, each, Measurement(float(accuracy), 1.0, {"bits": float(cost)})))
    return trials


def run(strategy: Strategy, measure: Measure, batches: int, count: int = 8, seed: int = 0) -> list[Trial]:
    trials: list[Trial] = []
    for batch in range(batches):
        asked = strategy.ask(count, np.random.default_rng([seed, batch]))
        trials += told(measure, asked, len(trials))
        strategy.tell(trials[-len(asked) :])
    return trials


def area(accuracies: Any, costs: Any, most: float, least: float) -> float:
    """Under the best accuracy above `least` that a cost allows, over costs up to `most`."""
    order = np.argsort(costs)
    best = np.maximum.accumulate(np.maximum(accuracies[order] - least, 0))
    return float((best * np.diff(np.append(costs[order], most))).sum())


@pytest.mark.parametrize("products", [False, True])
def test_the_known_front_is_reached_in_fewer_trials_than_by_evolution_and_at_random(products: bool) -> None:
    for seed in range(3):
        layers, space = Layers(6, seed, products=products), Bits(6)
        accuracies, costs = layers(np.array(list(itertools.product(range(4), repeat=6))))
        edges = float(costs.max()) * 1.01, float(accuracies.min())
        whole = area(accuracies, costs, *edges)

        def reached(strategy: Strategy, batches: int, measure: Layers = layers) -> float:
            trials = [trial.measurement for trial in run(strategy, measure, batches)]
            found = np.array([m.accuracy for m in trials]), np.array([m.costs["bits"] for m in trials])
            return area(*found, *edges) / whole  # noqa: B023

        assert reached(SensitivityGuided(space, cost="bits"), 5) > 0.98  # 40 of 4,096
        for other in (Nsga2(space, population=16, objectives=("accuracy", "bits")), RandomSearch(space)):
            assert reached(other, 10) < 0.975


def test_first_come_the_dearest_and_everything_one_step_from_it() -> None:
    space = Bits(3)
    strategy = SensitivityGuided(space, cost="bits")
    asked = strategy.ask(10, np.random.default_rng(0))
    singles = [tuple(o if i == p else 3 for i in range(3)) for p in range(3) for o in range(3)]
    assert sorted(each.choices for each in asked) == sorted([(3, 3, 3), *singles])


def test_the_path_takes_what_loses_least_for_what_it_saves() -> None:
    lost = [{0: 0.20, 1: 0.02}, {0: 0.05, 1: 0.04}, {0: 0.50, 1: 0.012}]
    saves = [{0: 4, 1: 2}, {0: 8, 1: 4}, {0: 2, 1: 1}]

    def measure(choices: Sequence[int]) -> tuple[float, float]:
        changed = [(i, o) for i, o in enumerate(choices) if o < 2]
        return 0.9 - sum(lost[i][o] for i, o in changed), 20 - sum(saves[i][o] for i, o in changed)

    strategy = SensitivityGuided(Bits(3, 3), cost="bits", points=20)
    strategy.tell(told(measure, strategy.ask(7, np.random.default_rng(0))))
    # lost for what is saved: layer 1 at once to its end .05 / 8, layer 0 by one .01, layer 2 by one .012; then layer 0
    # once more .18 / 2 and layer 2 .488
    path = [(2, 0, 2), (1, 0, 2), (1, 0, 1), (0, 0, 1), (0, 0, 0)]
    wanted = [each.choices for each in strategy.ask(4, np.random.default_rng(1))]
    assert sorted(wanted) == sorted(path[1:])  # the first of them is known


def test_a_change_that_seems_to_gain_accuracy_is_taken_to_lose_none() -> None:
    def measure(choices: Sequence[int]) -> tuple[float, float]:
        noise = {0: 0.01, 1: 0.001}
        return 0.8 + sum(noise[i] for i, o in enumerate(choices) if o == 0), 10.0 - (choices[1] == 0) * 5

    strategy = SensitivityGuided(Bits(2, 2), cost="bits", points=1)
    strategy.tell(told(measure, strategy.ask(3, np.random.default_rng(0))))
    assert strategy.began  # what saves nothing is on no path, and the only saving was measured


def test_evolution_goes_on_from_all_that_was_told() -> None:
    layers = Layers(6, 0, products=False)
    strategy = SensitivityGuided(Bits(6), cost="bits", points=4, population=12)
    trials = run(strategy, layers, 6)
    assert strategy.began
    assert len(strategy.evolution.parents) == 12
    assert len(strategy.evolution.known) == len({t.architecture for t in trials}) == 48
    values = {(-t.measurement.accuracy, t.measurement.costs["bits"]) for t in trials}
    front = {a for a in values if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in values)}
    assert {member.values for member in strategy.evolution.front} <= values
    assert len({member.values for member in strategy.evolution.front} & front) >= 8


def test_budgets_are_those_of_the_evolution() -> None:
    layers = Layers(6, 0, products=False)
    budget = float(layers([1] * 6)[1])
    strategy = SensitivityGuided(Bits(6), Objective({"bits": budget}), cost="bits", population=16)
    run(strategy, layers, 16)
    assert all(member.values[1] <= budget for member in strategy.evolution.parents)


def test_options_without_sense_are_refused() -> None:
    for options, message in (({"points": 0}, "at least 1"), ({"population": 1}, "at least 2")):
        with pytest.raises(ConfigError, match=message):
            SensitivityGuided(Bits(2), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has none"):
        SensitivityGuided(Proxylessnas((3, 32, 32), 10, (125.3,), (63.0,)))
    strategy = SensitivityGuided(Bits(2))
    with pytest.raises(ConfigError, match="bit_operations was not measured"):
        strategy.tell([Trial(0, strategy.dearest, Measurement(0.5))])
