"""The macro space on the command line: search, train, show, lower, export and verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.spaces.enas_macro import EnasMacro

SMALL = {
    "space.layers": 4,
    "space.filters": 4,
    "supernet.epochs": 2,
    "search.warmup_epochs": 1,
    "search.round_epochs": 1,
    "search.updates": 2,
    "search.batch": 3,
    "search.samples": 2,
    "search.candidates": 2,
    "search.standalone": 2,
    "search.standalone_epochs": 1,
    "training.epochs": 1,
}


def test_a_macro_network_is_searched_trained_drawn_and_deployed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    assert main(["search", "--preset", "macro-digits", "--out", str(run), *options]) == 0
    assert {p.name for p in (run / "report").iterdir()} >= {"layers.svg", "layers.png", "layers.dot", "report.md"}
    assert main(["train", str(run)]) == 0
    text = json.loads((run / "best.json").read_text())["architecture"]
    space = EnasMacro(layers=4, precisions=("binary", "ternary"))
    skips = sum(len(layer.skips) for layer in space.decoded(space.parse(text)))
    capsys.readouterr()
    assert main(["show", str(run), "--out", str(tmp_path / "drawn")]) == 0
    shown = capsys.readouterr().out
    assert text in shown
    assert shown.count(" + ") == skips
    assert (tmp_path / "drawn" / "layers.dot").read_text().count("style=dashed") == skips
    assert main(["lower", str(run), "--quiet"]) == 0
    assert main(["export", str(run), "--to", "c", "--out", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    assert main(["verify", str(run), "--samples", "20", "--targets", "training,onnx", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {name for name, target in result["targets"].items() if target["equal"]} == {"training", "onnx"}
