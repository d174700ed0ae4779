"""Simulated searches among the measured modules of EC-NAS's complete real table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from bitwright.errors import ConfigError
from bitwright.evaluators.tabular import Tabular
from bitwright.nasbench import analyses, regret, space, tables
from bitwright.search import search
from bitwright.spaces.nasbench101 import Nasbench101
from bitwright.strategies.random_search import RandomSearch


@pytest.fixture(scope="module")
def table(shared: Path) -> tables.Table:
    path = shared / "data" / "nas-benchmarks" / "ecnas_5v9e_4epochs.csv"
    if not path.is_file():
        pytest.skip("the table of EC-NAS is not here")
    return tables.load("ecnas", path)


@pytest.fixture(scope="module")
def data(table: tables.Table) -> analyses.Measured:
    return analyses.measured(table)


def test_regularized_evolution_beats_random_search_at_equal_time(table: tables.Table, data: analyses.Measured) -> None:
    """At the time of 100 mean trainings, two populations. Random search catches up at five times as
    many, a fifth of the 2,532 modules."""
    found = regret.regrets(table, data, searches=100, trainings=100)
    assert found is not None
    random, evolution = found.curves
    assert (random.strategy, evolution.strategy) == ("random_search", "regularized_evolution")
    assert mannwhitneyu(evolution.test[:, -1], random.test[:, -1], alternative="less").pvalue < 0.01
    assert mannwhitneyu(evolution.validation[:, -1], random.validation[:, -1], alternative="less").pvalue < 0.01
    mark = found.marks[-1]
    assert mark.seconds == pytest.approx(100 * data.seconds.mean())
    assert mark.p_value == mannwhitneyu(evolution.test[:, -1], random.test[:, -1], alternative="less").pvalue
    assert mark.means["random_search"] == random.test[:, -1].mean()
    assert mark.deviations["random_search"] == random.test[:, -1].std()


def test_random_search_has_the_regret_of_as_many_random_modules(table: tables.Table, data: analyses.Measured) -> None:
    """The best of n independent draws, n what the time is enough for."""
    found = regret.regrets(table, data, searches=60, trainings=60, seed=5, strategies=["random_search"])
    assert found is not None
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(2000):
        drawn = rng.integers(len(data), size=200)
        done = drawn[np.cumsum(data.seconds[drawn]) <= found.seconds[-1]]
        expected.append(data.validation.max() - data.validation[done].max())
    (curve,) = found.curves
    error = np.std(expected) / np.sqrt(60)
    assert abs(curve.validation[:, -1].mean() - np.mean(expected)) < 4 * error


def test_a_curve_is_what_its_search_had_found_at_each_time(table: tables.Table, data: analyses.Measured) -> None:
    found = regret.regrets(table, data, searches=2, trainings=20, seed=7, strategies=["random_search"])
    assert found is not None
    (curve,) = found.curves
    five = Nasbench101((3, 32, 32), 10, (0.0,), (1.0,), vertices=5)
    seed = int(np.random.default_rng([7, 1]).integers(2**31))
    archive = search(RandomSearch(five), Tabular(five, table), trials=60, seed=seed)
    best_validation, best_test = data.validation.max(), data.test.max()
    for point, now in enumerate(found.seconds):
        passed, best = 0.0, (-1.0, -1.0)
        for trial in archive:
            passed += trial.measurement.seconds
            row = table.row_of(five.benchmark_name(trial.architecture))
            if passed <= now and trial.measurement.accuracy > best[0]:
                best = trial.measurement.accuracy, float(table.values("test_accuracy")[row])
        assert curve.validation[1, point] == pytest.approx(best_validation - best[0])
        assert curve.test[1, point] == pytest.approx(best_test - best[1])
    assert (np.diff(curve.validation, axis=1) <= 0).all()


def test_the_same_seed_makes_the_same_curves(table: tables.Table, data: analyses.Measured) -> None:
    first, second, other = (regret.regrets(table, data, searches=2, trainings=60, seed=s) for s in (1, 1, 2))
    assert first is not None and second is not None and other is not None
    for a, b, c in zip(first.curves, second.curves, other.curves, strict=True):
        assert np.array_equal(a.test, b.test)
        assert not np.array_equal(a.test, c.test)


def test_where_a_module_has_several_runs_a_search_sees_one_and_is_judged_by_their_mean() -> None:
    """One run of each module says the opposite of the mean: a search that saw means would have no validation regret."""
    rows = np.flatnonzero(space.rows().vertices <= 3)
    accuracy = np.column_stack([np.linspace(0.9, 0.1, len(rows)), np.linspace(0.1, 1.2, len(rows))])
    names = tuple(space.space().hash_of(int(row)) for row in rows)
    columns: dict[tuple[str, int | None], np.ndarray] = {
        ("validation_accuracy", 4): accuracy,
        ("test_accuracy", 4): accuracy,
        ("training_time", 4): np.ones((len(rows), 2)),
    }
    table = tables.StoredTable("made up", names, columns)
    data = analyses.measured(table)
    assert data.complete == 3
    found = regret.regrets(table, data, searches=30, trainings=3, strategies=["random_search"])
    assert found is not None
    possible = data.validation.max() - data.validation
    assert np.isclose(found.curves[0].validation[..., None], possible).any(-1).all()
    # whoever sees means of 3 of 7 modules is as good as the best of them
    seen_means = np.mean([possible[np.random.default_rng(i).integers(7, size=3)].min() for i in range(2000)])
    assert found.curves[0].validation[:, -1].mean() > seen_means


def test_too_little_is_refused_or_left_out(table: tables.Table, data: analyses.Measured) -> None:
    with pytest.raises(ConfigError, match="at least the time of 4 mean trainings, got 2"):
        regret.regrets(table, data, trainings=2)
    with pytest.raises(ConfigError, match="searches are at least 1, got 0"):
        regret.regrets(table, data, searches=0)
    assert regret.regrets(table, replace(data, rows=data.rows[:10])) is None
