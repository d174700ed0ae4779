"""Searching on the real table of all modules of at most five vertices."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import ConfigError
from bitwright.evaluators.tabular import Tabular
from bitwright.nasbench import tables
from bitwright.search import search
from bitwright.spaces.nasbench101 import Nasbench101
from bitwright.strategies.controller import Controller
from bitwright.strategies.random_search import RandomSearch
from bitwright.trial import Objective

SPACE = Nasbench101((3, 32, 32), 10, (125.3,), (63.0,), vertices=5)


@pytest.fixture(scope="module")
def file(shared: Path) -> Path:
    return shared / "data/nas-benchmarks/ecnas_5v9e_4epochs.csv"


@pytest.fixture(scope="module")
def rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open() as lines:
        return {row["module_hash"]: row for row in csv.DictReader(lines)}


@pytest.fixture(scope="module")
def table(file: Path) -> tables.Table:
    return tables.load("ecnas", file)


def test_a_measurement_is_the_row_of_the_file(rows, table):
    evaluator = Tabular(SPACE, table, metric="test_accuracy", measured=("trainable_parameters",))
    half = Tabular(SPACE, table, metric="halfway_validation_accuracy")
    rng = np.random.default_rng(0)
    architectures = [SPACE.sample(rng) for _ in range(40)]
    found = zip(architectures, evaluator.evaluate(architectures), half.evaluate(architectures), strict=True)
    for architecture, measured, before in found:
        row = rows[SPACE.benchmark_name(architecture)]
        assert measured.accuracy == float(row["final_test_accuracy"])
        assert measured.seconds == float(row["final_training_time"])
        assert measured.costs == {"trainable_parameters": float(row["trainable_parameters"])}
        assert before.accuracy == float(row["mid_validation_accuracy"])
        assert before.seconds == float(row["mid_training_time"])


def test_isomorphic_architectures_measure_the_same(table):
    evaluator = Tabular(SPACE, table)
    edges = [(source, target) for target in range(1, 5) for source in range(target)]
    same = [({(0, 1), (1, 2), (2, 4), (0, 4)}, (0, 2, 1)), ({(0, 2), (2, 3), (3, 4), (0, 4)}, (2, 0, 2))]
    first, second = (SPACE.architecture([*(int(e in kept) for e in edges), *ops]) for kept, ops in same)
    assert first != second
    assert evaluator.evaluate([first]) == evaluator.evaluate([second])


def test_random_search_finds_what_the_best_of_so_many_samples_should_be(rows, table):
    """The best of n samples without regard to order beats a share of the table that is known."""
    archive = search(RandomSearch(SPACE), Tabular(SPACE, table), trials=400, batch=20, seed=1)
    everything = np.array([float(row["final_validation_accuracy"]) for row in rows.values()])
    assert len(archive) == 400
    assert (everything > archive.best.measurement.accuracy).mean() < 0.02  # 1 in 3,000 searches would fail this
    assert archive.seconds == pytest.approx(
        sum(float(rows[SPACE.benchmark_name(t.architecture)]["final_training_time"]) for t in archive)
    )


def test_the_controller_comes_to_prefer_better_modules(table):
    strategy = Controller(SPACE, Objective(), learning_rate=0.1, entropy_bonus=0.0)
    archive = search(strategy, Tabular(SPACE, table), trials=1200, batch=20, seed=0)
    accuracies = [trial.measurement.accuracy for trial in archive]
    assert all(SPACE.is_valid(trial.architecture.choices) for trial in archive)
    assert np.mean(accuracies[-200:]) > np.mean(accuracies[:200]) + 0.05


def test_an_interrupted_search_with_drawn_runs_goes_on_as_if_nothing_had_been(table):
    whole = Tabular(SPACE, table, repeat="random", seed=3)
    expected = search(RandomSearch(SPACE), whole, trials=20, batch=5)
    first = Tabular(SPACE, table, repeat="random", seed=3)
    archive = search(RandomSearch(SPACE), first, trials=10, batch=5)
    second = Tabular(SPACE, table, repeat="random", seed=3)
    second.load_state_dict(first.state_dict())
    assert list(search(RandomSearch(SPACE), second, trials=20, batch=5, archive=archive)) == list(expected)


def test_runs_are_drawn_from_all_that_there_are():
    names = ("00",)
    columns = {
        ("validation_accuracy", 4): np.array([[0.25, 0.5, np.nan]]),
        ("training_time", 4): np.array([[1, 2, 3.0]]),
    }
    table = tables.StoredTable("made up", names, columns)

    class Named(Nasbench101):
        def benchmark_name(self, architecture):
            return "00"

    space = Named((3, 32, 32), 10, (125.3,), (63.0,))
    architecture = space.sample(np.random.default_rng(0))
    drawn = Tabular(space, table, repeat="random").evaluate([architecture] * 60)
    assert {(m.accuracy, m.seconds) for m in drawn} == {(0.25, 1.0), (0.5, 2.0)}
    assert Tabular(space, table).evaluate([architecture])[0].accuracy == 0.375
    assert Tabular(space, table, repeat=1).evaluate([architecture])[0].accuracy == 0.5
    with pytest.raises(ConfigError, match="made up has no measurement of 00"):
        Tabular(space, table, repeat=2).evaluate([architecture])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "luck"}, "no metric 'luck'"),
        ({"epochs": 5}, "budgets 4; got 5"),
        ({"repeat": 1}, "repeats 0 to 0"),
        ({"repeat": "best"}, "repeat is a number, mean or random"),
    ],
)
def test_a_table_that_lacks_what_is_wanted_is_an_error(options, message, table):
    with pytest.raises(ConfigError, match=message):
        Tabular(SPACE, table, **options)
