"""`bitwright nasbench analyze`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bitwright.cli import main
from bitwright.nasbench import space, synthetic

FEW = ("--searches", "2", "--trainings", "12")


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nasbench") / "nasbench_full.tfrecord"
    synthetic.write(path, rows=np.flatnonzero(space.rows().vertices <= 4), epochs=(4,))
    assert main(["nasbench", "convert", str(path), str(path.with_suffix(".columns"))]) == 0
    return path.with_suffix(".columns")


def test_tables_are_printed_and_pictures_written(
    invented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["nasbench", "analyze", str(invented), "--out", str(tmp_path / "out"), *FEW]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("# Analyses of SYNTHETIC, not measured: NAS-Bench-101")
    for path in (tmp_path / "out").iterdir():
        assert f"wrote {path}" in said.out
    assert (tmp_path / "out" / "regrets.png").is_file()


def test_json_is_one_object(
    invented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(invented, tmp_path / "data")  # where a file is looked for if none is named
    capsys.readouterr()
    assert main(["nasbench", "analyze", "--out", "out", "--seed", "1", "--json", *FEW]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert found["file"] == "data/nasbench_full.columns"
    assert found["synthetic"] is True
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == {key: value for key, value in found.items() if key != "file"}


@pytest.mark.slow
def test_the_real_table_of_ecnas(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shared / "data" / "nas-benchmarks" / "ecnas_5v9e_4epochs.csv"
    if not file.is_file():
        pytest.skip("the table of EC-NAS is not here")
    arguments = ["nasbench", "analyze", str(file), "--out", str(tmp_path), "--searches", "5", "--trainings", "60"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "| conv3x3-bn-relu | conv1x1-bn-relu | 2,499 | -2.77 |" in said
    assert "| trainable_parameters | training_time | 2,532 | 0.892" in said
    assert "SYNTHETIC" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "out"], "data has none of nasbench_full.columns"),
        (["nothing.csv", "--out", "out"], "cannot read nothing.csv"),
        (["FILE"], "required: --out"),
        (["FILE", "--out", "FILE"], "--out is a folder"),
        (["FILE", "--out", "out", "--table", "imagenet"], "no tabular benchmark 'imagenet'"),
        (["FILE", "--out", "out", "--table", "ecnas"], "is no CSV file"),
        (["FILE", "--out", "out", "--epochs", "108"], "has the budgets 4; got 108"),
        (["FILE", "--out", "out", "--seed", "-1"], "seed"),
        (["FILE", "--out", "out", "--searches", "0"], "searches are at least 1"),
        (["FILE", "--out", "out", "--trainings", "1"], "mean trainings, got 1"),
        (["FILE", "--out", "out", "--fast"], "no option --fast"),
    ],
)
def test_mistakes_are_named_in_one_line_and_leave_nothing(
    arguments: list[str],
    message: str,
    invented: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["nasbench", "analyze", *(str(invented) if word == "FILE" else word for word in arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert message in said.err
    assert list(tmp_path.iterdir()) == []
