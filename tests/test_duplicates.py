"""A search knows again what it has measured, up to isomorphism."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bitwright import Architecture, Archive, Measurement, catalogue
from bitwright.evaluators import Evaluator
from bitwright.search import search
from bitwright.spaces.nasbench_macro import NasbenchMacro
from bitwright.strategies.random_search import RandomSearch

SPACE = NasbenchMacro()


class Same(RandomSearch):
    """Draws among few, so that much comes again."""

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        return [
            Architecture("nasbench_macro", (0, 0, 0, *rng.integers(2, size=2).tolist(), 0, 0, 0)) for _ in range(count)
        ]


class Counting(Evaluator):
    """Every evaluation takes 2 seconds."""

    def __init__(self, deterministic: bool = True) -> None:
        self.deterministic = deterministic
        self.evaluated: list[Architecture] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        self.evaluated += architectures
        return [Measurement(sum(a.choices) / 16, 2.0, {"size": 3.0}) for a in architectures]


@pytest.mark.parametrize("batch", [1, 6])
def test_nothing_is_evaluated_twice_and_what_comes_again_takes_no_time(batch: int) -> None:
    evaluator = Counting()
    archive = search(Same(SPACE), evaluator, trials=30, batch=batch, space=SPACE)
    assert len({SPACE.canonical(each) for each in evaluator.evaluated}) == len(evaluator.evaluated) == 3  # 00, 10, 11
    assert len(archive) == 30
    assert archive.seconds == 6.0
    met: set[Architecture] = set()
    for trial in archive:
        form = SPACE.canonical(trial.architecture)
        assert trial.measurement == Measurement(sum(form.choices) / 16, 0.0 if form in met else 2.0, {"size": 3.0})
        met.add(form)


def test_a_search_that_goes_on_knows_what_its_archive_holds() -> None:
    whole = search(Same(SPACE), Counting(), trials=20, space=SPACE)
    part = Archive()
    search(Same(SPACE), Counting(), trials=12, space=SPACE, archive=part)
    again = Counting()
    search(Same(SPACE), again, trials=20, space=SPACE, archive=part)
    assert again.evaluated == []
    assert list(part) == list(whole)


def test_an_evaluator_that_may_say_something_else_is_asked_again() -> None:
    for evaluator, space in ((Counting(deterministic=False), SPACE), (Counting(), None)):
        archive = search(Same(SPACE), evaluator, trials=10, space=space)
        assert len(evaluator.evaluated) == 10 and archive.seconds == 20.0


def test_a_search_ends_when_it_is_told_to() -> None:
    evaluator = Counting()
    archive = search(RandomSearch(SPACE), evaluator, trials=100, batch=4, until=lambda: len(evaluator.evaluated) >= 10)
    assert len(archive) == 12


@pytest.mark.parametrize("name", ["local_search", "nsga2", "predictor_guided"])
def test_these_strategies_ask_for_nothing_that_they_were_told(name: str) -> None:
    evaluator = Counting()
    archive = search(catalogue.find("strategies", name)(SPACE), evaluator, trials=120, batch=4, space=SPACE)
    assert len(evaluator.evaluated) == len(archive) == 120
