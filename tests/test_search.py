"""The search loop, with a strategy that writes down what happens to it and an evaluator that is a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright import Architecture, Archive, Measurement, Trial
from bitwright.errors import ConfigError
from bitwright.evaluators import Ask, Evaluator
from bitwright.search import search
from bitwright.strategies import Strategy

OPTIONS = 1000


class Drawn(Strategy):
    """Draws one number per architecture from what it has learned and the generator alone."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.told: list[list[Trial]] = []
        self.sum = 0  # of the choices told so far: what it has learned

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        self.asked.append(count)
        return [Architecture("table", ((self.sum + int(n)) % OPTIONS,)) for n in rng.integers(OPTIONS, size=count)]

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told.append(list(trials))
        self.sum += sum(trial.architecture.choices[0] for trial in trials)


class Table(Evaluator):
    """The accuracy of architecture n is n / 1000."""

    def __init__(self, fails_at: int | None = None) -> None:
        """fails_at: how many evaluations succeed."""
        self.fails_at = fails_at
        self.evaluated: list[Architecture] = []
        self.prepared: list[int] = []
        self.given: list[list[Architecture]] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        if self.fails_at is not None and len(self.evaluated) + len(architectures) > self.fails_at:
            raise OSError("the machine went away")
        self.evaluated += architectures
        return [Measurement(a.choices[0] / OPTIONS) for a in architectures]

    def prepare(self, round: int, ask: Ask, tick: Callable[[], None]) -> None:
        self.prepared.append(round)
        self.given.append(ask(3))
        assert ask(3) == self.given[-1]
        tick()


def run(strategy: Strategy, evaluator: Evaluator, archive: Archive | None = None, **options: Any) -> list[Trial]:
    return list(
        search(strategy, evaluator, archive=archive, **({"trials": 12, "batch": 2, "round_trials": 6} | options))
    )


# order


def test_a_search_fills_the_archive_with_as_many_trials_as_asked_for() -> None:
    trials = run(Drawn(), Table())
    assert [t.index for t in trials] == list(range(12))
    assert {t.purpose for t in trials} == {"search"}


def test_each_batch_is_asked_for_evaluated_and_told_in_order() -> None:
    strategy, evaluator = Drawn(), Table()
    trials = run(strategy, evaluator)
    assert [count for count in strategy.asked if count != 3] == [2] * 6  # threes are for preparing
    assert strategy.told == [trials[i : i + 2] for i in range(0, 12, 2)]
    assert evaluator.evaluated == [t.architecture for t in trials]
    assert [t.measurement.accuracy for t in trials] == [t.architecture.choices[0] / OPTIONS for t in trials]


def test_trials_are_in_the_archive_before_the_strategy_is_told() -> None:
    archive = Archive()
    known: list[int] = []

    class Watching(Drawn):
        def tell(self, trials: Sequence[Trial]) -> None:
            super().tell(trials)
            known.append(len(archive))

    run(Watching(), Table(), archive)
    assert known == [2, 4, 6, 8, 10, 12]


def test_the_evaluator_is_prepared_once_before_each_round() -> None:
    evaluator = Table()
    run(Drawn(), evaluator)
    assert evaluator.prepared == [0, 1]


def test_without_rounds_the_evaluator_is_prepared_once() -> None:
    evaluator = Table()
    run(Drawn(), evaluator, round_trials=None)
    assert evaluator.prepared == [0]


def test_each_round_is_prepared_with_architectures_of_its_own() -> None:
    evaluator = Table()
    run(Drawn(), evaluator)
    assert len(evaluator.given[0]) == 3
    assert evaluator.given[0] != evaluator.given[1]


def test_preparing_does_not_change_what_is_asked_for() -> None:
    class Unprepared(Table):
        def prepare(self, round: int, ask: Ask, tick: Callable[[], None]) -> None:
            pass

    assert run(Drawn(), Unprepared()) == run(Drawn(), Table())


def test_callbacks_come_behind_what_they_are_about() -> None:
    events: list[str] = []

    class Loud(Table):
        def prepare(self, round: int, ask: Ask, tick: Callable[[], None]) -> None:
            events.append(f"prepare {round}")
            tick()

    class Telling(Drawn):
        def tell(self, trials: Sequence[Trial]) -> None:
            events.append("tell")

    run(
        Telling(),
        Loud(),
        trials=8,
        round_trials=4,
        tick=lambda: events.append("tick"),
        after_batch=lambda trials: events.append(f"batch {trials[0].index}"),
        after_round=lambda number: events.append(f"round {number}"),
    )
    first = ["prepare 0", "tick", "tell", "batch 0", "tick", "tell", "batch 2", "round 0"]
    assert events == [*first, "prepare 1", "tick", "tell", "batch 4", "tick", "tell", "batch 6", "round 1"]


# randomness


def test_the_same_seed_finds_the_same() -> None:
    assert run(Drawn(), Table(), seed=3) == run(Drawn(), Table(), seed=3)


def test_another_seed_finds_something_else() -> None:
    assert run(Drawn(), Table(), seed=3) != run(Drawn(), Table(), seed=4)


def test_every_batch_draws_from_its_own_stream() -> None:
    class Forgetful(Drawn):
        def tell(self, trials: Sequence[Trial]) -> None:
            pass

    choices = [t.architecture.choices[0] for t in run(Forgetful(), Table())]
    assert len({tuple(choices[i : i + 2]) for i in range(0, 12, 2)}) == 6


def test_the_stream_of_a_batch_depends_on_seed_and_trial_alone() -> None:
    class Forgetful(Drawn):
        def tell(self, trials: Sequence[Trial]) -> None:
            pass

    short, long = (run(Forgetful(), Table(), trials=n, round_trials=None) for n in (6, 12))
    assert long[:6] == short


# resuming


@pytest.mark.parametrize("done", range(0, 13, 2))
def test_a_partly_filled_archive_is_gone_on_with(done: int) -> None:
    whole = run(Drawn(), Table())
    archive = Archive()
    archive.record([t.architecture for t in whole[:done]], [t.measurement for t in whole[:done]])
    strategy, evaluator = Drawn(), Table()
    assert run(strategy, evaluator, archive) == whole
    assert evaluator.evaluated == [t.architecture for t in whole[done:]]
    assert strategy.told == [whole[i : i + 2] for i in range(0, 12, 2)]


@pytest.mark.parametrize("fails_at", range(12))
def test_a_search_that_died_goes_on_from_its_file(fails_at: int, tmp_path: Path) -> None:
    whole = run(Drawn(), Table())
    archive = Archive(tmp_path / "archive.sqlite")
    with pytest.raises(OSError, match="went away"):
        run(Drawn(), Table(fails_at), archive)
    archive.close()
    archive = Archive(tmp_path / "archive.sqlite")
    assert len(archive) == fails_at // 2 * 2
    assert run(Drawn(), Table(), archive) == whole
    archive.close()


def test_a_strategy_is_not_told_again_what_it_knows() -> None:
    whole = run(Drawn(), Table())
    archive = Archive()
    archive.record([t.architecture for t in whole[:6]], [t.measurement for t in whole[:6]])
    strategy = Drawn()
    for start in (0, 2):
        strategy.tell(whole[start : start + 2])
    strategy.told.clear()
    assert run(strategy, Table(), archive, told=4) == whole
    assert strategy.told == [whole[i : i + 2] for i in range(4, 12, 2)]


def test_a_round_that_had_begun_is_not_prepared_again() -> None:
    whole = run(Drawn(), Table())
    for done, prepared in ((0, [0, 1]), (2, [1]), (4, [1]), (6, [1]), (8, []), (12, [])):
        archive = Archive()
        archive.record([t.architecture for t in whole[:done]], [t.measurement for t in whole[:done]])
        evaluator = Table()
        run(Drawn(), evaluator, archive)
        assert evaluator.prepared == prepared, done


def test_trials_of_other_purposes_do_not_count() -> None:
    whole = run(Drawn(), Table())
    archive = Archive()

    def sample(number: int) -> None:
        archive.record([Architecture("table", (7,))], [Measurement(1.0)], "sample")

    run(Drawn(), Table(), archive, after_round=sample)
    assert [(t.architecture, t.measurement) for t in archive.of("search")] == [
        (t.architecture, t.measurement) for t in whole
    ]
    assert [t.index for t in archive.of("sample")] == [6, 13]


def test_a_full_archive_is_left_as_it_is() -> None:
    archive = Archive()
    whole = run(Drawn(), Table(), archive)
    evaluator = Table()
    assert run(Drawn(), evaluator, archive) == whole
    assert (evaluator.evaluated, evaluator.prepared) == ([], [])


# mistakes


@pytest.mark.parametrize(
    "options",
    [
        {"trials": 12, "batch": 5, "round_trials": 6},
        {"trials": 12, "batch": 2, "round_trials": 5},
        {"trials": 13, "batch": 2, "round_trials": None},
        {"trials": 12, "batch": 2, "round_trials": 24},
    ],
)
def test_batches_and_rounds_that_do_not_come_out_even_are_refused(options: dict[str, Any]) -> None:
    evaluator = Table()
    with pytest.raises(ConfigError, match="do not come out even") as caught:
        run(Drawn(), evaluator, **options)
    assert "\n" not in str(caught.value)
    assert evaluator.prepared == []


def test_an_evaluator_that_forgets_one_is_not_recorded() -> None:
    class Short(Table):
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
            return super().evaluate(architectures)[1:]

    archive = Archive()
    with pytest.raises(ValueError, match="argument"):
        run(Drawn(), Short(), archive)
    assert len(archive) == 0
