"""Trials, the archive that keeps them, the Pareto front and the objective."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from bitwright import Architecture, Archive, Measurement, Objective, Trial
from bitwright.errors import BitwrightError, ConfigError, StorageError
from bitwright.trial import Objectives


def architectures(*firsts: int) -> list[Architecture]:
    return [Architecture("s", (first, 7)) for first in firsts]


def measurements(*accuracies: float) -> list[Measurement]:
    return [Measurement(accuracy, 2.5, {"bits": 10.0 * accuracy}) for accuracy in accuracies]


def is_one_line(error: BaseException) -> bool:
    return isinstance(error, BitwrightError) and str(error) != "" and "\n" not in str(error)


# the archive


def test_record_numbers_the_trials_in_order() -> None:
    archive = Archive()
    first = archive.record(architectures(1, 2), measurements(0.5, 0.75))
    second = archive.record(architectures(3), measurements(0.25), "random")
    assert [t.index for t in archive] == [0, 1, 2]
    assert list(archive) == first + second
    assert second == [Trial(2, Architecture("s", (3, 7)), Measurement(0.25, 2.5, {"bits": 2.5}), "random")]
    assert len(archive) == 3


def test_a_reopened_archive_holds_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path)
    archive.record(architectures(1, 2), [Measurement(1 / 3, 1e-9, {"bits": 2.0**70, "macs": 0.1}), Measurement(0.0)])
    archive.record(architectures(1), measurements(1.0), "candidate")
    archive.close()
    assert list(Archive(path)) == list(archive)


def test_a_reopened_archive_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path)
    archive.record(architectures(1, 2), measurements(0.5, 0.75))
    archive.close()
    again = Archive(path)
    again.record(architectures(3), measurements(0.25))
    again.close()
    assert [(t.index, t.architecture.choices[0]) for t in Archive(path)] == [(0, 1), (1, 2), (2, 3)]


def test_purposes_are_kept_apart() -> None:
    archive = Archive()
    archive.record(architectures(1), measurements(0.5))
    archive.record(architectures(2), measurements(0.9), "random")
    archive.record(architectures(3), measurements(0.6))
    assert [t.index for t in archive.of("search")] == [0, 2]
    assert [t.index for t in archive.of("random")] == [1]
    assert archive.of("candidate") == []


@pytest.mark.parametrize("stored", [False, True])
def test_truncate_forgets_the_trials_from_an_index_on(tmp_path: Path, stored: bool) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path if stored else None)
    archive.record(architectures(1, 2, 3), measurements(0.1, 0.2, 0.3))
    archive.truncate(1)
    archive.record(architectures(4), measurements(0.4))
    assert [t.architecture.choices[0] for t in archive] == [1, 4]
    archive.truncate(2)
    assert len(archive) == 2
    archive.close()
    if stored:
        assert list(Archive(path)) == list(archive)


def test_truncate_cannot_lengthen() -> None:
    archive = Archive()
    archive.record(architectures(1), measurements(0.1))
    with pytest.raises(StorageError, match="holds 1 trials, the checkpoint knows 2"):
        archive.truncate(2)


def test_the_best_is_the_first_of_the_most_accurate() -> None:
    archive = Archive()
    archive.record(architectures(1, 2, 3, 4), measurements(0.5, 0.75, 0.75, 0.25))
    assert archive.best.index == 1
    assert archive.seconds == 10.0


def test_each_architecture_has_one_measurement() -> None:
    archive = Archive()
    with pytest.raises(ValueError):  # noqa: PT011 (of zip)
        archive.record(architectures(1, 2), measurements(0.5))
    assert len(archive) == 0


def test_a_batch_that_cannot_be_stored_is_not_stored_in_part(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path)
    archive.record(architectures(1), measurements(0.5))
    archive._connection.execute(  # type: ignore[union-attr]
        "CREATE TRIGGER full BEFORE INSERT ON trials WHEN NEW.idx = 2 BEGIN SELECT RAISE(ABORT, 'no space'); END"
    )
    with pytest.raises(StorageError) as raised:
        archive.record(architectures(2, 3), measurements(0.6, 0.7))
    assert is_one_line(raised.value) and "no space" in str(raised.value)
    assert len(archive) == 1
    archive.close()
    assert len(Archive(path)) == 1


def test_the_file_is_a_table_that_others_can_query(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path)
    archive.record(architectures(1, 2), measurements(0.5, 0.75))
    archive.close()
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT idx, architecture FROM trials WHERE accuracy > 0.6").fetchall()
    connection.close()
    assert rows == [(1, "s(2 7)")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"this is no database, whatever its name says" * 50),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path.parent / "absent" / "archive.sqlite"),
    ],
    ids=["other content", "a folder", "no folder"],
)
def test_an_unusable_file_is_a_storage_error_that_names_it(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "archive.sqlite"
    spoil(path)  # type: ignore[operator]
    with pytest.raises(StorageError) as raised:
        Archive(path)
    assert is_one_line(raised.value) and str(path) in str(raised.value)


def test_a_truncated_database_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path)
    for first in range(40):
        archive.record(architectures(*[first] * 50), measurements(*[0.5] * 50))
    archive.close()
    path.write_bytes(path.read_bytes()[: 3 * path.stat().st_size // 4])
    with pytest.raises(StorageError) as raised:
        Archive(path)
    assert is_one_line(raised.value)


def test_a_database_of_another_program_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trials (name TEXT)")
    connection.close()
    with pytest.raises(StorageError):
        Archive(path)


def test_a_table_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive.sqlite")
    archive.record(architectures(1, 2), measurements(0.5, 0.6))
    archive._connection.execute("DROP TABLE trials")  # type: ignore[union-attr]
    with pytest.raises(StorageError):
        archive.record(architectures(3), measurements(0.5))
    with pytest.raises(StorageError):
        archive.truncate(1)
    assert len(archive) == 2


# the objective


def test_without_budgets_the_objective_is_the_accuracy() -> None:
    assert Objective()(Measurement(0.7, 3.0, {"bits": 1e9})) == 0.7


def test_within_its_budget_a_cost_does_not_matter() -> None:
    objective = Objective({"bits": 100.0}, strength=1.0)
    assert [objective(Measurement(0.7, 0.0, {"bits": bits})) for bits in (0.0, 50.0, 100.0)] == [0.7] * 3


@pytest.mark.parametrize(
    ("strength", "factor"), [(0.0, 1.0), (0.5, math.sqrt(0.5)), (1.0, 0.5), (2.0, 0.25), (0.07, 0.5**0.07)]
)
def test_double_the_budget_costs_half_to_the_strength(strength: float, factor: float) -> None:
    objective = Objective({"bits": 100.0}, strength)
    assert objective(Measurement(0.8, 0.0, {"bits": 200.0})) == 0.8 * factor


def test_a_strength_of_seven_hundredths_trades_a_doubling_for_five_percent() -> None:
    assert round(1 - Objective({"bits": 1.0}, 0.07)(Measurement(1.0, 0.0, {"bits": 2.0})), 2) == 0.05


def test_several_budgets_multiply() -> None:
    objective = Objective({"bits": 100.0, "macs": 10.0, "parameters": 5.0}, strength=2.0)
    measurement = Measurement(0.5, 0.0, {"bits": 400.0, "macs": 20.0, "parameters": 1.0, "seconds": 1e9})
    assert objective(measurement) == 0.5 * 0.25**2 * 0.5**2


def test_budgets_are_met_where_no_cost_exceeds_its_own() -> None:
    objective = Objective({"bits": 100.0, "macs": 10.0})
    assert objective.is_met({"bits": 100.0, "macs": 10.0, "parameters": 1e9})
    assert not objective.is_met({"bits": 100.0, "macs": 10.001})
    assert Objective().is_met({})


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan])
def test_a_budget_is_positive(budget: float) -> None:
    with pytest.raises(ConfigError, match="bits"):
        Objective({"bits": budget})


def test_a_strength_is_not_negative() -> None:
    with pytest.raises(ConfigError, match="strength"):
        Objective({}, strength=-0.1)


def test_a_missing_cost_is_not_taken_for_zero() -> None:
    with pytest.raises(KeyError):
        Objective({"bits": 1.0})(Measurement(0.5))


@pytest.mark.parametrize("column", ["costs", "architecture"])
def test_an_archive_with_rows_that_are_no_trials_is_a_storage_error(tmp_path, column):
    archive = Archive(tmp_path / "a.sqlite")
    archive.record([Architecture("s", (1, 2))], [Measurement(0.5)])
    archive.close()
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute(f"UPDATE trials SET {column} = '{{'")
    with pytest.raises(StorageError, match="archive"):
        Archive(tmp_path / "a.sqlite")


# several objectives


def test_objectives_are_figures_of_which_less_is_better() -> None:
    measurement = Measurement(0.75, 8.0, {"bits": 5.0, "throughput": 3.0})
    assert Objectives.of(["accuracy", "bits", "seconds"])(measurement) == (-0.75, 5.0, 8.0)
    assert Objectives({"throughput": "max", "accuracy": "min"})(measurement) == (-3.0, 0.75)


def test_objectives_without_sense_are_refused_in_one_line() -> None:
    for make in (
        lambda: Objectives.of([]),
        lambda: Objectives({"bits": "least"}),  # type: ignore[dict-item]
        lambda: Objectives.of(["macs"])(Measurement(0.5, costs={"bits": 1.0})),
    ):
        with pytest.raises(ConfigError) as raised:
            make()
        assert is_one_line(raised.value)
    assert "accuracy, bits, seconds" in str(raised.value)


def test_the_excess_sums_the_parts_over_the_budgets() -> None:
    objective = Objective({"bits": 10.0, "macs": 4.0})
    assert objective.excess({"bits": 15.0, "macs": 5.0}) == 0.5 + 0.25
    assert objective.excess({"bits": 10.0, "macs": 1.0}) == 0.0
