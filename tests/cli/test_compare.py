"""`bitwright compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bitwright.cli import main

FEW = ("--seeds", "3", "--budget", "30", "--strategies", "random_search,local_search")


@pytest.fixture(scope="module")
def tables(shared: Path) -> Path:
    folder = shared / "data" / "nas-benchmarks"
    if not folder.is_dir():
        pytest.skip("the tables are not here")
    return folder


def test_curves_are_written_and_told(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(tables / "nas-bench-macro_cifar10.json")
    assert main(["compare", "--space", "nasbench_macro", "--table", table, "--out", str(tmp_path), *FEW]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("# Strategies compared on NAS-Bench-Macro, 6,561 architectures")
    assert "| trainings | random search | local search |" in said.out
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"comparison.md", "comparison.json", "regrets.svg", "regrets.png"}
    assert (tmp_path / "comparison.md").read_text() in said.out
    found = json.loads((tmp_path / "comparison.json").read_text())["regrets"]
    assert (found["unit"], found["searches"], found["clock"][-1]) == ("trainings", 3, pytest.approx(30))
    assert [len(curve["test_mean"]) for curve in found["curves"].values()] == [100, 100]


def test_json_is_one_object_and_the_same_seed_says_the_same(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tables / "nasbench201_accs.csv")
    arguments = ["compare", "--space", "nasbench201", "--dataset", "ImageNet16", "--table", table, "--json", *FEW]
    found = []
    for name in ("a", "b"):
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] == json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert found[0]["table"] == "NAS-Bench-201 (imagenet16-120)"
    assert (found[0]["metric"], found[0]["epochs"], found[0]["distinct"]) == ("validation_accuracy", 12, True)


def test_where_a_table_knows_times_they_are_the_clock(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tables / "ecnas_5v9e_4epochs.csv")
    assert main(["compare", "--space", "nasbench101", "--table", table, "--out", str(tmp_path), *FEW]) == 0
    assert "| time, s | random search | local search |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (("--space", "enas_micro"), "nasbench201"),
        (("--space", "nasbench_macro", "--dataset", "cifar100"), "only one"),
        (("--space", "nasbench201", "--strategies", "hope"), "predictor_guided"),
        (("--space", "nasbench201", "--dataset", "mnist"), "cifar100"),
        (("--space", "nasbench201", "--metric", "beauty"), "test_accuracy"),
        (("--space", "nasbench201", "--seeds", "0"), "at least 1"),
        (("--space", "nasbench201", "--budget", "1"), "at least the time of 2"),
        (("--space", "nasbench201", "--seed", "-1"), "at least 0"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_what_is_allowed(
    arguments: tuple[str, ...], known: str, tables: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    table = str(tables / "nasbench201_accs.csv")
    assert known in refused(["compare", "--table", table, "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()
