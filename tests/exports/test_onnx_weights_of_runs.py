"""export and verify of a run whose network computes with real numbers, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.cli import main
from bitwright.exports import _onnx_weights as exporter
from bitwright.modules import forward
from bitwright.run_directory import TrainingRun

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CONFIG = {
    "dataset": {"name": "digits"},
    "space": {
        "name": "enas_micro",
        "precisions": ["ternary"],
        "stem_precision": "binary",
        "first_cell_precision": "binary",
        "cell_precision": "ternary",
        "activation_precision": "float",
        "nodes": 2,
        "cells": 2,
        "reductions": [1],
        "filters": 4,
        "stacks": 1,
    },
    "training": {"epochs": 1, "batch": 128, "dtype": "float32"},
    "threads": 1,
}
CHOICES = "0 0 1 1 0 0 1 1 0 0 1 1 0 0 1 1"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    assert (
        main(["train", "--config", str(folder / "config.yaml"), "--arch", CHOICES, "--out", str(folder / "run")]) == 0
    )
    return folder / "run"


def test_export_writes_a_model_that_computes_the_same_and_says_what_it_takes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    assert main(["export", str(run), "--to", "onnx", "--out", str(path)]) == 0
    said = capsys.readouterr().out
    assert "no integer form: stem/norm: its activation is real-valued" in said
    assert "weights of 1 bit make " in said
    assert "weights of 2 bits make " in said
    assert "activations stay float32" in said
    training = TrainingRun.open(run)
    x, _ = training.experiment.dataset.test.batch(slice(0, 50))
    with torch.no_grad():
        logits = forward(training.network, training.weights(), x)[0].numpy()
    assert np.abs(exporter.execute(path, x.numpy()) - logits).max() < 1e-5 * np.abs(logits).max()


@pytest.mark.parametrize("kind", ["c", "qonnx"])
def test_other_formats_refuse_it_by_the_name_of_the_layer(
    run: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--to", kind, "--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert "stem/norm: its activation is real-valued" in error
    assert "it goes --to onnx, with packed weights" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_verify_compares_logits_and_predictions(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run), "--samples", "70"]) == 0
    said = capsys.readouterr().out
    assert "logits in float32" in said
    assert "70 of 70 within 0.0001 of the largest logit" in said
    assert "70 of 70 predictions equal" in said
    assert main(["verify", str(run), "--samples", "30", "--targets", "onnx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["agrees"], report["samples"], report["beyond_tolerance"]) == (True, 30, 0)
    assert report["equal_predictions"] == 30
    assert 0 <= report["max_difference"] <= report["tolerance"] * report["largest_logit"]


def test_verify_fails_where_logits_differ(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute = exporter.execute
    monkeypatch.setattr(exporter, "execute", lambda path, x: 1.01 * execute(path, x))
    assert main(["verify", str(run), "--samples", "20"]) == 2
    captured = capsys.readouterr()
    assert "20 of 20 predictions equal" in captured.out
    assert captured.err == "bitwright verify: the results differ\n"


@pytest.mark.parametrize("options", [["--every-layer"], ["--targets", "c"], ["--targets", "onnx,qonnx"]], ids=str)
def test_verify_refuses_what_needs_integers(run: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert "only the logits of onnx can be compared" in error
    assert error.count("\n") == 1
