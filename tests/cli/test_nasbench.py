"""The command for NAS-Bench-101."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitwright.cli import main
from bitwright.nasbench import synthetic
from bitwright.nasbench.columns import Dataset
from bitwright.nasbench.space import space

CELL = "0111010 0000001 0000001 0000100 0000001 0000001 0000000"
OPS = "conv1x1-bn-relu,conv3x3-bn-relu,conv3x3-bn-relu,conv3x3-bn-relu,maxpool3x3"
HASH = "28cfc7874f6d200472e1a9dcd8650aa0"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["nasbench", *arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["nasbench", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1
    return output.err


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented runs of the Inception-like cell and some other modules, in the released format."""
    path = tmp_path_factory.mktemp("nasbench") / "some.tfrecord"
    synthetic.write(path, rows=np.array([0, 7, space().row_of_hash(HASH)]))
    return path


@pytest.fixture(scope="module")
def columns(released: Path) -> Path:
    path = released.with_suffix(".columns")
    assert main(["nasbench", "convert", str(released), str(path)]) == 0
    return path


def test_count_prints_the_published_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in said(capsys, "count").splitlines()]
    assert lines[-1][-1] == "423,624"
    assert [line[-1] for line in lines[1:-1]] == ["1", "6", "84", "2,441", "62,010", "359,082"]


def test_count_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "count", "--json"))
    assert found["modules"] == 423_624
    assert found["by_vertices"] == {"2": 1, "3": 6, "4": 84, "5": 2_441, "6": 62_010, "7": 359_082}
    assert found["by_vertices_and_edges"]["7"] == {"6": 243, "7": 6_264, "8": 58_563, "9": 294_012}
    assert sum(found["by_edges"].values()) == 423_624


def test_convert_tells_what_it_wrote_and_that_it_is_invented(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "convert", str(released), str(tmp_path / "out"))
    assert "SYNTHETIC" in text and "9 runs of 3 modules" in text
    assert Dataset.open(tmp_path / "out").budgets == (4, 12, 36, 108)


@pytest.mark.parametrize("named", [["--hash", HASH], ["--matrix", CELL, "--ops", OPS]], ids=["hash", "matrix"])
def test_query_as_json(named: list[str], columns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "query", str(columns), *named, "--json"))
    assert (found["module_hash"], found["trainable_parameters"]) == (HASH, 2_694_282)
    assert found["module_operations"][0] == "input" and len(found["module_adjacency"]) == 7
    assert {epochs: len(runs) for epochs, runs in found["computed"].items()} == {"4": 3, "12": 3, "36": 3, "108": 3}
    runs = Dataset.open(columns).runs(found["row"], 12)
    assert [tuple(run.values()) for run in found["computed"]["12"]] == runs.tolist()
    assert found["synthetic"] is True


def test_query_as_text(columns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "query", str(columns), "--hash", HASH, "--epochs", "36")
    assert "2,694,282 trainable parameters" in text and HASH in text and "SYNTHETIC" in text
    assert sum(line.split()[:1] == ["36"] for line in text.splitlines()) == 6
    assert "no run of this module" not in text


def test_query_without_a_file_tells_what_is_fixed(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "query", "--hash", HASH, "--json"))
    assert found["computed"] == {} and found["trainable_parameters"] == 2_694_282
    ends = f"input,{OPS},output"
    assert json.loads(said(capsys, "query", "--matrix", CELL, "--ops", ends, "--json"))["module_hash"] == HASH


def test_query_draws(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "query", "--matrix", "011 001 000", "--ops", "maxpool3x3", "--dot")
    assert text.startswith("digraph {") and '1 [label="maxpool3x3"]' in text and "0 -> 2" in text


def test_export_writes_parquet(columns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert "36 runs" in said(capsys, "export", str(columns), str(tmp_path / "runs.parquet"))
    assert parquet.read_table(tmp_path / "runs.parquet").num_rows == 36


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "no action 'nonsense': count, query, convert"),
        (["count", "--nonsense"], "no option --nonsense"),
        (["query"], "--hash, or by --matrix and --ops"),
        (["query", "--hash", HASH, "--matrix", "01"], "--hash, or by --matrix and --ops"),
        (["query", "--hash", "0" * 32], f"no module has the hash {'0' * 32}"),
        (["query", "--ops", "a"], "--ops wants --matrix"),
        (["query", "--matrix", "011", "--ops", "a"], "V x V characters"),
        (["query", "--matrix", "0120", "--ops", "input,output"], "V x V characters"),
        (["query", "--matrix", "011001000"], "length of ops must match matrix dimensions"),
        (["query", "--matrix", "011001000", "--ops", "conv5x5"], "unsupported op conv5x5"),
        (["query", "--matrix", "0000", "--ops", "input,output"], "disconnected"),
        (["query", "--matrix", "0110", "--ops", "input,output"], "upper triangular"),
        (["query", "--hash", HASH, "--epochs", "4"], "--epochs wants a file"),
        (["query", "missing", "--hash", HASH], "missing"),
        (["convert", "missing", "out"], "missing"),
        (["export", "missing", "out.csv"], ".parquet"),
        (["download", "half"], "full, only108"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in complaint(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_the_file_lacks_is_named(columns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "only of 4, 12, 36, 108" in complaint(capsys, "query", str(columns), "--hash", HASH, "--epochs", "5")


def test_a_released_file_is_to_be_converted_first(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "bitwright nasbench convert" in complaint(capsys, "query", str(released), "--hash", HASH)


@pytest.mark.parametrize("action", ["count", "query", "convert", "export", "download"])
def test_every_action_has_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["nasbench", action, "--help"])
    assert leaving.value.code == 0
    assert f"usage: bitwright nasbench {action}" in capsys.readouterr().out
