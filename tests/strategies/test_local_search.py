"""Local search climbs, starts anew at the top, and asks for nothing twice."""

from __future__ import annotations

from itertools import product

import numpy as np

from bitwright import Architecture, Measurement, Trial
from bitwright.spaces.nasbench_macro import NasbenchMacro
from bitwright.strategies.local_search import LocalSearch

SPACE = NasbenchMacro()
START = SPACE.parse("0 0 0 0 0 0 0 0")


def tell(strategy: LocalSearch, *told: tuple[Architecture, float]) -> None:
    strategy.tell([Trial(i, architecture, Measurement(x)) for i, (architecture, x) in enumerate(told)])


def different(architectures: list[Architecture]) -> set[Architecture]:
    return {SPACE.canonical(each) for each in architectures}


def test_all_unknown_neighbours_of_the_top_are_asked_for_first() -> None:
    strategy = LocalSearch(SPACE)
    tell(strategy, (START, 0.5))
    around = different(list(SPACE.neighbours(START)))
    assert len(around) == 12  # of 16 neighbours: in two stages the last two blocks stand for each other
    asked = strategy.ask(12, np.random.default_rng(0))
    assert different(asked) == around
    tell(strategy, (asked[0], 0.4), (asked[1], 0.5))
    assert different(strategy.ask(10, np.random.default_rng(1))) == different(asked[2:])


def test_the_first_better_neighbour_is_climbed_to() -> None:
    strategy = LocalSearch(SPACE)
    tell(strategy, (START, 0.5))
    better = strategy.ask(1, np.random.default_rng(0))[0]
    tell(strategy, (better, 0.6))
    around = different(list(SPACE.neighbours(better))) - {SPACE.canonical(START)}
    assert different(strategy.ask(5, np.random.default_rng(0))) <= around


def test_at_the_top_the_next_climb_starts_wherever_it_is_drawn() -> None:
    strategy = LocalSearch(SPACE)
    tell(strategy, (START, 0.5), *((each, 0.1) for each in SPACE.neighbours(START)))
    drawn = strategy.ask(1, np.random.default_rng(3))[0]
    assert SPACE.canonical(drawn) not in different([START, *SPACE.neighbours(START)])
    tell(strategy, (drawn, 0.2))  # worse than the last top, and yet where the climb goes on
    assert different(strategy.ask(3, np.random.default_rng(0))) <= different(list(SPACE.neighbours(drawn)))


def test_every_network_is_asked_for_once() -> None:
    strategy = LocalSearch(SPACE)
    rng = np.random.default_rng(0)
    met: set[Architecture] = set()
    for _ in range(300):
        (asked,) = strategy.ask(1, rng)
        assert SPACE.canonical(asked) not in met
        met.add(SPACE.canonical(asked))
        tell(strategy, (asked, float(np.random.default_rng(list(SPACE.canonical(asked).choices)).random())))


def test_a_hill_is_climbed_without_a_restart() -> None:
    """Of 3**8 architectures the sum of choices has one top; a climb needs at most two moves in each layer."""
    strategy = LocalSearch(SPACE)
    tell(strategy, (START, 0.0))
    for step in range(200):
        (asked,) = strategy.ask(1, np.random.default_rng(step))
        tell(strategy, (asked, sum(asked.choices) / 16))
        if sum(asked.choices) == 16:
            break
    assert strategy.top is not None and strategy.top[0].choices == (2,) * 8
    assert len(list(product(range(3), repeat=8))) > 30 * len(strategy.known)
