"""Every strategy of the catalogue keeps the contract: ask is pure, tell learns, state goes through a file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright import Architecture, Archive, Measurement, Objective, Trial, catalogue
from bitwright.evaluators import Evaluator
from bitwright.search import search
from bitwright.spaces import SearchSpace
from bitwright.spaces.enas_macro import EnasMacro
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.strategies import Strategy
from bitwright.train import checkpoint

SPACES = {
    "enas": EnasMicro(nodes=2, ops="enas"),
    "mixed": EnasMicro(nodes=1, ops="mixed", precisions=("binary", "4")),
    "macro": EnasMacro(layers=4, ops="enas"),
}
NAMES = catalogue.names("strategies")
each_strategy = pytest.mark.parametrize("name", NAMES)
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def made(name: str, space: SearchSpace, seed: int = 0, objective: Objective | None = None) -> Strategy:
    factory = catalogue.find("strategies", name)
    known = {"seed": seed, "cost": "seconds"}
    options = {name: value for name, value in known.items() if name in inspect.signature(factory).parameters}
    strategy: Strategy = factory(space, objective or Objective(), **options)
    return strategy


def worth(architecture: Architecture) -> Measurement:
    """A made-up figure in [0, 1]."""
    choices = architecture.choices
    return Measurement(sum(c * (i % 3) for i, c in enumerate(choices)) / (20 * len(choices)), 1.0)


def trials(strategy: Strategy, batches: int, first: int = 0, count: int = 4) -> list[list[Architecture]]:
    """What is asked in rounds of ask and tell."""
    asked = []
    for batch in range(first, first + batches):
        asked.append(strategy.ask(count, np.random.default_rng([7, batch])))
        strategy.tell([Trial(batch * count + i, a, worth(a)) for i, a in enumerate(asked[-1])])
    return asked


def frozen(state: Any) -> Any:
    """A state as values that compare."""
    if isinstance(state, torch.Tensor):
        return state.dtype, state.tolist()
    if isinstance(state, dict):
        return {key: frozen(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [frozen(value) for value in state]
    return state


@each_strategy
@each_space
@pytest.mark.parametrize("count", [1, 2, 17])
def test_ask_gives_as_many_valid_architectures_as_wanted(name: str, space: SearchSpace, count: int) -> None:
    strategy = made(name, space)
    for _ in range(2):
        asked = strategy.ask(count, np.random.default_rng(0))
        assert len(asked) == count
        assert all(space.architecture(a.choices) == a for a in asked)
        assert all(type(c) is int for a in asked for c in a.choices)
        strategy.tell([Trial(i, a, worth(a)) for i, a in enumerate(asked)])


@each_strategy
@each_space
def test_ask_does_not_change_the_strategy(name: str, space: SearchSpace) -> None:
    quiet, asked = made(name, space), made(name, space)
    trials(quiet, 2)
    trials(asked, 2)
    before = frozen(asked.state_dict())
    torch.manual_seed(3)
    first = asked.ask(3, np.random.default_rng(1))
    asked.ask(5, np.random.default_rng(2))
    torch.manual_seed(4)
    np.random.seed(5)
    assert asked.ask(3, np.random.default_rng(1)) == first
    assert frozen(asked.state_dict()) == before
    assert trials(asked, 3, first=2) == trials(quiet, 3, first=2)


@each_strategy
def test_ask_draws_from_the_generator_that_it_is_handed(name: str) -> None:
    strategy = made(name, SPACES["enas"])
    rng = np.random.default_rng(1)
    assert strategy.ask(5, rng) != strategy.ask(5, rng)


@each_strategy
@each_space
def test_the_same_seed_makes_the_same_search(name: str, space: SearchSpace) -> None:
    first, second = made(name, space, seed=5), made(name, space, seed=5)
    assert trials(first, 4) == trials(second, 4)
    assert frozen(first.state_dict()) == frozen(second.state_dict())
    assert first.figures() == second.figures()


@each_strategy
@each_space
def test_a_state_that_goes_through_a_file_has_the_same_future(name: str, space: SearchSpace, tmp_path: Path) -> None:
    strategy = made(name, space)
    trials(strategy, 3)
    checkpoint.save(tmp_path / "state.pt", strategy.state_dict())
    other = made(name, space, seed=99)
    trials(other, 1)  # a state replaces what was learned before
    other.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    assert other.figures() == strategy.figures()
    assert trials(other, 3, first=3) == trials(strategy, 3, first=3)
    assert frozen(other.state_dict()) == frozen(strategy.state_dict())


@each_strategy
def test_figures_are_numbers_by_name(name: str) -> None:
    strategy = made(name, SPACES["enas"])
    trials(strategy, 2)
    assert all(isinstance(key, str) and np.isfinite(value) for key, value in strategy.figures().items())


@each_strategy
def test_a_strategy_can_be_told_what_it_did_not_ask_for(name: str) -> None:
    space = SPACES["enas"]
    strategy = made(name, space)
    rng = np.random.default_rng(0)
    for batch in range(3):
        sampled = [space.sample(rng) for _ in range(3)]
        strategy.tell([Trial(3 * batch + i, a, worth(a)) for i, a in enumerate(sampled)])
    assert len(strategy.ask(2, rng)) == 2


class Table(Evaluator):
    def evaluate(self, architectures: Any) -> list[Measurement]:
        return [worth(a) for a in architectures]


@each_strategy
@each_space
def test_telling_the_archive_to_a_fresh_strategy_goes_on_with_the_search(name: str, space: SearchSpace) -> None:
    whole = search(made(name, space), Table(), trials=24, batch=4, seed=3)
    part = Archive()
    search(made(name, space), Table(), trials=12, batch=4, seed=3, archive=part)
    search(made(name, space), Table(), trials=24, batch=4, seed=3, archive=part)
    assert list(part) == list(whole)


def test_random_search_never_learns() -> None:
    strategy = made("random_search", SPACES["enas"])
    before = strategy.ask(5, np.random.default_rng(1))
    trials(strategy, 3)
    assert strategy.ask(5, np.random.default_rng(1)) == before
    assert strategy.state_dict() == {}
