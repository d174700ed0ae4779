"""The report of NAS-Bench-101's analyses: what it holds, and that invented tables are called so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitwright.nasbench import convert, space, synthetic, tables
from bitwright.report.nasbench_report import NasbenchReport, nasbench_report, write_report

PICTURES = {"replacements", "shapes", "scatter", "budgets", "locality", "regrets"}


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> NasbenchReport:
    """Of a synthetic file with all modules of at most four vertices, two budgets, three runs of each."""
    path = tmp_path_factory.mktemp("nasbench") / "invented.tfrecord"
    synthetic.write(path, rows=np.flatnonzero(space.rows().vertices <= 4), epochs=(4, 12))
    return nasbench_report(tables.nasbench101(path), searches=3, trainings=12)


def test_a_report_is_written_whole(invented: NasbenchReport, tmp_path: Path) -> None:
    written = write_report(invented, tmp_path)
    assert {path.name for path in written} == {"report.md", "report.json", *(f"{name}.png" for name in PICTURES)}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    for name in PICTURES:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width > 400 and len(np.unique(np.asarray(image))) > 10
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["modules"], found["epochs"]) == (91, 12)
    assert len(found["replacements"]) == 6
    assert sum(group["modules"] for group in found["by_depth_and_width"]) == 91
    assert len(found["budgets"]) == 15  # three accuracies at two budgets
    assert set(found["regrets"]["curves"]) == {"random_search", "regularized_evolution"}
    assert [len(c["test_mean"]) for c in found["regrets"]["curves"].values()] == [len(found["regrets"]["clock"])] * 2
    assert len(found["regrets"]["marks"]) == 5


def test_an_invented_table_is_called_synthetic_everywhere(invented: NasbenchReport) -> None:
    assert invented.as_json()["synthetic"] is True
    text = invented.as_markdown()
    assert text.startswith("# Analyses of SYNTHETIC, not measured: NAS-Bench-101, 91 modules, 12 epochs")
    assert "**The table is synthetic" in text
    from bitwright.report import nasbench_report as pictures

    assert invented.locality is not None and invented.regrets is not None
    for figure in (
        pictures.replacements_figure(invented),
        pictures.shapes_figure(invented),
        pictures.scatter_figure(invented),
        pictures.budgets_figure(invented),
        pictures.locality_figure(invented, invented.locality),
        pictures.regrets_figure(invented.regrets, invented.title, synthetic=True),
    ):
        assert figure.get_suptitle().startswith("SYNTHETIC")


def test_the_numbers_of_the_report_are_those_of_the_analyses(invented: NasbenchReport) -> None:
    text = invented.as_markdown()
    each = invented.replacements[0]
    assert (
        f"| {each.before} | {each.after} | {each.pairs} | {100 * each.accuracy:+.2f} |"
        f" {100 * each.deviation:.2f} | {100 * each.seconds:+.1f} |" in text
    )
    assert invented.regrets is not None
    mark = invented.regrets.marks[-1]
    assert f"| {mark.time:,.0f} | {100 * mark.means['random_search']:.3f} ± " in text


def test_what_a_table_with_gaps_cannot_say_is_left_out(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "nas-benchmarks" / "nb101_real_rows.json"
    if not path.is_file():
        pytest.skip("the real rows of NAS-Bench-101 are not here")
    report = nasbench_report(tables.NasBench101(convert.load(path)))
    assert report.locality is None and report.regrets is None
    text = report.as_markdown()
    assert text.count("Left out: the table lacks modules that it needs.") >= 2
    assert "SYNTHETIC" not in text and report.as_json()["synthetic"] is False
    names = {path.stem for path in write_report(report, tmp_path)}
    assert names - {"replacements"} == {"report", "shapes", "scatter", "budgets"}
    assert "NaN" not in (tmp_path / "report.json").read_text()
