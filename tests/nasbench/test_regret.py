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
from bitwright.spaces.nasbench201 import unary
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


@pytest.fixture(scope="module")
def task(table: tables.Table, data: analyses.Measured) -> regret.Task:
    found = regret.module_task(table, data)
    assert found is not None
    return found


def test_regularized_evolution_beats_random_search_at_equal_time(task: regret.Task, data: analyses.Measured) -> None:
    """At the time of 100 mean trainings, two populations. Random search catches up at five times as
    many, a fifth of the 2,532 modules."""
    found = regret.regrets(task, searches=100, trainings=100)
    random, evolution = found.curves
    assert (random.strategy, evolution.strategy) == ("random_search", "regularized_evolution")
    assert mannwhitneyu(evolution.judged[:, -1], random.judged[:, -1], alternative="less").pvalue < 0.01
    assert mannwhitneyu(evolution.seen[:, -1], random.seen[:, -1], alternative="less").pvalue < 0.01
    mark = found.marks[-1]
    assert mark.time == pytest.approx(100 * data.seconds.mean())
    assert (
        mark.p_values["regularized_evolution"]
        == mannwhitneyu(evolution.judged[:, -1], random.judged[:, -1], alternative="less").pvalue
    )
    assert mark.means["random_search"] == random.judged[:, -1].mean()
    assert mark.deviations["random_search"] == random.judged[:, -1].std()


def test_random_search_has_the_regret_of_as_many_random_modules(task: regret.Task, data: analyses.Measured) -> None:
    """The best of n independent draws, n what the time is enough for."""
    found = regret.regrets(task, searches=60, trainings=60, seed=5, strategies=["random_search"])
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(2000):
        drawn = rng.integers(len(data), size=200)
        done = drawn[np.cumsum(data.seconds[drawn]) <= found.clock[-1]]
        expected.append(data.validation.max() - data.validation[done].max())
    (curve,) = found.curves
    error = np.std(expected) / np.sqrt(60)
    assert abs(curve.seen[:, -1].mean() - np.mean(expected)) < 4 * error


def test_a_curve_is_what_its_search_had_found_at_each_time(
    table: tables.Table, task: regret.Task, data: analyses.Measured
) -> None:
    found = regret.regrets(task, searches=2, trainings=20, seed=7, strategies=["random_search"])
    (curve,) = found.curves
    five = Nasbench101((3, 32, 32), 10, (0.0,), (1.0,), vertices=5)
    seed = int(np.random.default_rng([7, 1]).integers(2**31))
    archive = search(RandomSearch(five), Tabular(five, table), trials=60, seed=seed)
    best_validation, best_test = data.validation.max(), data.test.max()
    for point, now in enumerate(found.clock):
        passed, best = 0.0, (-1.0, -1.0)
        for trial in archive:
            passed += trial.measurement.seconds
            row = table.row_of(five.benchmark_name(trial.architecture))
            if passed <= now and trial.measurement.accuracy > best[0]:
                best = trial.measurement.accuracy, float(table.values("test_accuracy")[row])
        assert curve.seen[1, point] == pytest.approx(best_validation - best[0])
        assert curve.judged[1, point] == pytest.approx(best_test - best[1])
    assert (np.diff(curve.seen, axis=1) <= 0).all()


def test_the_same_seed_makes_the_same_curves(task: regret.Task) -> None:
    first, second, other = (regret.regrets(task, searches=2, trainings=60, seed=s) for s in (1, 1, 2))
    for a, b, c in zip(first.curves, second.curves, other.curves, strict=True):
        assert np.array_equal(a.judged, b.judged)
        assert not np.array_equal(a.judged, c.judged)


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
    task = regret.module_task(table, data)
    assert task is not None
    found = regret.regrets(task, searches=30, trainings=3, strategies=["random_search"])
    possible = data.validation.max() - data.validation
    assert np.isclose(found.curves[0].seen[..., None], possible).any(-1).all()
    # whoever sees means of 3 of 7 modules is as good as the best of them
    seen_means = np.mean([possible[np.random.default_rng(i).integers(7, size=3)].min() for i in range(2000)])
    assert found.curves[0].seen[:, -1].mean() > seen_means


def test_too_little_is_refused_or_left_out(table: tables.Table, data: analyses.Measured, task: regret.Task) -> None:
    with pytest.raises(ConfigError, match="at least the time of 4 mean trainings, got 2"):
        regret.regrets(task, trainings=2)
    with pytest.raises(ConfigError, match="searches are at least 1, got 0"):
        regret.regrets(task, searches=0)
    assert regret.module_task(table, replace(data, rows=data.rows[:10])) is None


@pytest.fixture(scope="module")
def cells(shared: Path) -> tables.StoredTable:
    path = shared / "data" / "nas-benchmarks" / "nasbench201_accs.csv"
    if not path.is_file():
        pytest.skip("the table of NAS-Bench-201 is not here")
    return tables.nasbench201(path, "cifar100")


def test_a_search_sees_12_epochs_of_nasbench201_and_is_judged_by_200(cells: tables.StoredTable) -> None:
    task = regret.task("nasbench201", cells)
    assert (task.metric, task.epochs, task.seconds) == ("validation_accuracy", 12, None)
    assert task.judged.max() == pytest.approx(0.735133, abs=1e-6)
    assert (task.seen >= task.top).sum() == 16  # a thousandth of 15,625
    whole = regret.task("nasbench201", cells, "test_accuracy", 200)
    assert np.array_equal(whole.seen, whole.judged)


def test_without_times_the_clock_counts_trainings_and_duplicates_take_none(cells: tables.StoredTable) -> None:
    task = regret.task("nasbench201", cells, "test_accuracy", 200)
    found = regret.regrets(task, searches=2, trainings=40, seed=3, strategies=["random_search"], distinct=True)
    assert (found.unit, found.clock[0], found.clock[-1]) == ("trainings", 1.0, pytest.approx(40))
    (curve,) = found.curves
    for i in range(2):
        seed = int(np.random.default_rng([3, i]).integers(2**31))
        archive = search(
            RandomSearch(task.space), Tabular(task.space, cells, metric="test_accuracy"), trials=80, seed=seed
        )
        met: dict[str, float] = {}
        best = []
        for trial in archive:
            name = unary(trial.architecture.choices)
            if name not in met:
                met[name] = trial.measurement.accuracy
                best.append(max(met.values()))
        for point, now in enumerate(found.clock):
            assert curve.judged[i, point] == pytest.approx(task.judged.max() - best[int(now + 1e-9) - 1])


def test_the_top_is_reached_when_one_of_the_best_thousandth_is_trained(cells: tables.StoredTable) -> None:
    task = regret.task("nasbench201", cells, "test_accuracy", 200)
    found = regret.regrets(task, searches=2, trainings=80, strategies=["random_search", "local_search"], distinct=True)
    for curve in found.curves:
        for top, regrets in zip(curve.top, curve.judged, strict=True):
            reached = np.flatnonzero(regrets <= task.judged.max() - task.top)
            if np.isnan(top):
                assert not len(reached)
            else:
                assert found.clock[reached[0]] >= top > (found.clock[reached[0] - 1] if reached[0] else 0) - 1e-9


def test_climbing_and_evolution_beat_random_search_on_a_whole_table(cells: tables.StoredTable) -> None:
    task = regret.task("nasbench201", cells, "test_accuracy", 200)
    names = ["random_search", "regularized_evolution", "local_search"]
    last = regret.regrets(task, searches=8, trainings=90, strategies=names, distinct=True).marks[-1]
    assert all(last.p_values[name] < 0.05 for name in names[1:])


@pytest.mark.slow
def test_guided_search_beats_random_search_on_a_whole_table(cells: tables.StoredTable) -> None:
    task = regret.task("nasbench201", cells, "test_accuracy", 200)
    names = ["random_search", "predictor_guided"]
    found = regret.regrets(task, searches=10, trainings=150, strategies=names, distinct=True)
    assert found.marks[-1].p_values["predictor_guided"] < 0.01
    assert found.top_p_values()["predictor_guided"] < 0.01


def test_p_values_are_corrected_as_holm_did() -> None:
    """R 4.3: p.adjust(c(0.02, 0.01, 0.03, 0.04, 0.05), "holm")."""
    given = dict(zip("bacde", (0.02, 0.01, 0.03, 0.04, 0.05), strict=True))
    assert regret.holm(given) == pytest.approx({"b": 0.08, "a": 0.05, "c": 0.09, "d": 0.09, "e": 0.09})
    assert list(regret.holm(given)) == list(given)
    assert regret.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_what_is_no_task_is_refused(cells: tables.StoredTable) -> None:
    task = regret.task("nasbench201", cells)
    with pytest.raises(ConfigError, match="no strategy 'hope' to compare: random_search"):
        regret.regrets(task, strategies=["hope"])
    with pytest.raises(ConfigError, match="one or more different ones, got none"):
        regret.regrets(task, strategies=[])
    with pytest.raises(ConfigError, match="nasbench_macro"):
        regret.task("enas_micro", cells)
    with pytest.raises(ConfigError, match="the budgets 12; got 200"):
        regret.task("nasbench201", cells, "validation_accuracy", 200)
