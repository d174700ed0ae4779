"""The report of a Pareto front: which trials it takes, its figures by hand, and its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitwright import Architecture, Measurement, Trial
from bitwright.errors import ConfigError
from bitwright.report.pareto_report import (
    ParetoReport,
    comparable,
    distinct,
    mixed,
    pareto_figure,
    write_pareto,
)
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.trial import Objectives

# (accuracy, bits): the first, second and third are the front
POINTS = ((0.5, 1.0), (0.8, 4.0), (0.9, 6.0), (0.8, 5.0), (0.4, 9.0))


def trial(index: int, accuracy: float, bits: float = 0.0, purpose: str = "search", choice: int | None = None) -> Trial:
    architecture = Architecture("space", (index if choice is None else choice, 7))
    return Trial(index, architecture, Measurement(accuracy, 2.0 * index, {"bits": bits}), purpose)


def report(points: tuple[tuple[float, float], ...] = POINTS, **more: object) -> ParetoReport:
    trials = [trial(i, accuracy, bits) for i, (accuracy, bits) in enumerate(points)]
    return ParetoReport(Path("my run"), "space", Objectives.of(["accuracy", "bits"]), trials, **more)  # type: ignore[arg-type]


def test_the_front_is_listed_from_the_best_of_the_first_objective() -> None:
    assert report().front.tolist() == [2, 1, 0]
    front = report().as_json()["front"]
    assert [(row["trial"], row["objectives"]) for row in front] == [
        (2, {"accuracy": 0.9, "bits": 6.0}),
        (1, {"accuracy": 0.8, "bits": 4.0}),
        (0, {"accuracy": 0.5, "bits": 1.0}),
    ]


def test_the_compromise_is_nearest_to_the_best_of_both() -> None:
    # from (0.9, 1) in parts of 0.4 and 5: (1, 0), (0.25, 0.6), (0, 1)
    assert report().compromise.index == 1


def test_the_reference_is_the_worst_seen_unless_it_is_given() -> None:
    assert report().as_json()["reference"] == {"accuracy": 0.4, "bits": 9.0}
    assert report(given={"bits": 12.0}).as_json()["reference"] == {"accuracy": 0.4, "bits": 12.0}
    with pytest.raises(ConfigError, match="the reference has macs, which is no objective: accuracy, bits"):
        report(given={"macs": 1.0})


def test_hypervolumes_by_hand() -> None:
    # from (0.4, 9): 0.1 x 8, then 0.3 x 5 more, then 0.1 x 3 more; the box is 0.5 x 8
    found = report().as_json()
    assert found["hypervolume"] == pytest.approx(2.6)
    assert found["hypervolume_part"] == pytest.approx(2.6 / 4)
    assert found["hypervolume_parts"] == [[0, pytest.approx(0.2)], [1, pytest.approx(0.575)], [2, pytest.approx(0.65)]]


def test_a_box_without_a_volume_has_no_part() -> None:
    assert report(((0.5, 1.0), (0.5, 1.0))).as_json()["hypervolume_part"] == 0.0


def test_every_measurement_has_seconds_to_weigh() -> None:
    trials = [trial(1, 0.5), trial(2, 0.6), trial(3, 0.6)]
    found = ParetoReport(Path("run"), "space", Objectives.of(["accuracy", "seconds"]), trials)
    assert found.front.tolist() == [1, 0]


def test_all_files_say_the_same(tmp_path: Path) -> None:
    made = report(units={"bits": "bits"}, notes=["nothing is measured"])
    written = write_pareto(made, tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    text = (tmp_path / "pareto.md").read_text()
    assert text == made.as_markdown()
    assert "| 2 | 0.9000 | 6 | `2 7` |" in text
    assert "| **1** | 0.8000 | 4 | `1 7` |" in text
    assert "\n    bitwright train 'my run' --arch \"1 7\"\n" in text
    assert "**Note:** nothing is measured." in text
    assert json.loads((tmp_path / "pareto.json").read_text()) == made.as_json()
    rows = list(csv.DictReader((tmp_path / "pareto.csv").open()))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["front"] for row in rows] == ["1", "1", "1", "0", "0"]
    assert [(float(row["accuracy"]), float(row["bits"])) for row in rows] == list(POINTS)
    assert [row["architecture"] for row in rows] == [f"{i} 7" for i in range(5)]
    assert Image.open(tmp_path / "pareto.png").width > 500
    assert "<svg" in (tmp_path / "pareto.svg").read_text()


def test_a_picture_has_the_steps_of_two_objectives() -> None:
    axes = pareto_figure(report()).axes
    assert len(axes) == 2
    (steps,) = axes[0].lines
    corners = [[1, 0.5], [4, 0.5], [4, 0.8], [6, 0.8], [6, 0.9]]  # at fewer bits the accuracy of the next cheaper
    assert np.array(steps.get_data()).T.tolist() == corners
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("bits", "accuracy")


@pytest.mark.parametrize(("names", "panels"), [(["bits"], 1), (["accuracy", "bits", "seconds"], 4)])
def test_a_picture_has_all_pairs_and_the_hypervolume(names: list[str], panels: int) -> None:
    trials = [trial(i, accuracy, bits) for i, (accuracy, bits) in enumerate(POINTS)]
    assert len(pareto_figure(ParetoReport(Path("run"), "space", Objectives.of(names), trials)).axes) == panels


# which trials


def of(*purposes: str) -> list[Trial]:
    return [trial(i, 0.5, purpose=purpose) for i, purpose in enumerate(purposes)]


def test_trials_on_all_images_are_taken_if_there_are_any_else_those_of_the_strategy() -> None:
    assert comparable(of("search", "sample", "candidate", "random", "standalone")) == ("candidate", "random")
    assert comparable(of("told", "search", "sample")) == ("search", "sample")
    assert comparable(of("search")) == ("search",)
    assert comparable(of("derived")) == ("derived",)


def test_what_is_not_measured_in_the_same_way_is_mixed() -> None:
    assert not mixed(["candidate", "random"])
    assert not mixed(["search", "sample"])
    assert mixed(["search", "candidate"])
    assert mixed(["random", "standalone"])


SPACE = EnasMicro(ops="enas", nodes=1)
CELLS = ((0, 0, 1, 1, 0, 0, 1, 1), (1, 1, 0, 0, 0, 0, 1, 1), (0, 0, 1, 2, 0, 0, 1, 1))  # two are one network


def measured(*given: tuple[int, str, float]) -> list[tuple[int, float]]:
    """Index and accuracy of the trials that are left of these: number of a cell, purpose, accuracy."""
    trials = [
        Trial(i, SPACE.architecture(CELLS[cell]), Measurement(accuracy), purpose)
        for i, (cell, purpose, accuracy) in enumerate(given)
    ]
    return [(left.index, left.measurement.accuracy) for left in distinct(trials, SPACE)]


def test_one_network_counts_once() -> None:
    assert SPACE.canonical(SPACE.architecture(CELLS[0])) == SPACE.canonical(SPACE.architecture(CELLS[1]))
    assert measured((0, "search", 0.5), (1, "search", 0.6), (2, "search", 0.7)) == [(1, 0.6), (2, 0.7)]


def test_of_equal_measurements_the_first_counts() -> None:
    assert measured((0, "search", 0.5), (1, "search", 0.5), (0, "sample", 0.5)) == [(0, 0.5)]


def test_the_fullest_measurement_counts() -> None:
    assert measured((0, "standalone", 0.9), (0, "search", 1.0)) == [(0, 0.9)]
    assert measured((0, "search", 1.0), (0, "candidate", 0.8), (0, "told", 0.3)) == [(1, 0.8)]
