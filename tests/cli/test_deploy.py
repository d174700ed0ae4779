"""lower, export, import and verify on the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright import verify as verification
from bitwright.cli import main
from bitwright.experiment import read_yaml
from bitwright.integer import storage
from bitwright.integer.run import Executor
from bitwright.run_directory import INTEGER_GRAPH, TrainingRun

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")


def done(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


# lower


def test_lower_writes_a_graph_and_says_what_is_in_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = done(["lower", "run"], capsys)
    graph = storage.load(Path("run/train") / INTEGER_GRAPH)
    table = [line for line in said.splitlines() if line[:4].strip().isdigit()]
    assert len(table) == len(graph.nodes)
    assert said.rstrip().endswith(f"wrote run/train/{INTEGER_GRAPH}")


def test_the_lowered_graph_computes_the_logits_of_the_training_code(place: Path) -> None:
    assert main(["lower", "run", "--out", "graph", "--quiet"]) == 0
    graph = storage.load(Path("graph"))
    training = TrainingRun.open(Path("run/train"))
    x, _ = training.experiment.dataset.test.batch(slice(0, 50))
    from bitwright.modules import forward

    with torch.no_grad():
        logits, _ = forward(training.network, training.weights(), x)
    assert torch.equal(Executor(graph)(x).float() * torch.tensor(graph.scales), logits)


@pytest.mark.parametrize(("name", "start"), [("graph.svg", b"<?xml"), ("graph.png", b"\x89PNG")])
def test_lower_draws_a_picture(place: Path, name: str, start: bytes) -> None:
    assert main(["lower", "run", "--picture", name, "--quiet"]) == 0
    assert Path(name).read_bytes().startswith(start)


def test_lower_draws_in_dot(place: Path) -> None:
    assert main(["lower", "run", "--dot", "graph.dot", "--quiet"]) == 0
    text = Path("graph.dot").read_text()
    assert text.startswith("digraph")
    assert text.count("[label=") >= len(storage.load(Path("run/train") / INTEGER_GRAPH).nodes)


def test_lower_refuses_a_network_of_reals_by_the_name_of_the_layer(
    place: Path, refused: Callable[[list[str]], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = read_yaml(Path("tiny.yaml"))
    values["space"] |= {"precisions": ["float"], "stem_precision": "float", "cell_precision": "float"}
    values["space"] |= {"first_cell_precision": "float"}
    other = tmp_path_factory.mktemp("float")
    config = other / "float.yaml"
    config.write_text(json.dumps(values))
    choices = "0 0 1 1 0 0 2 1 0 0 1 1 0 0 2 1"
    assert main(["train", "--config", str(config), "--arch", choices, "--out", str(other / "run")]) == 0
    line = refused(["lower", str(other / "run")])
    assert "stem" in line
    assert "real-valued" in line
    assert main(["evaluate", str(other / "run"), "--json"]) == 0


# export


@pytest.mark.parametrize("kind", ["onnx", "qonnx"])
def test_export_writes_a_model_that_computes_the_same(
    place: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    from bitwright import catalogue

    done(["lower", "run", "--quiet"], capsys)
    assert done(["export", "run", "--to", kind, "--out", "model.onnx"], capsys)
    graph = storage.load(Path("run/train") / INTEGER_GRAPH)
    x = verification.random_inputs(graph, 5)
    module = __import__(f"bitwright.exports.{kind}", fromlist=["execute"])
    assert catalogue.find("exports", kind) is module.export
    assert np.array_equal(module.execute(Path("model.onnx"), x), verification.reference_outputs(graph, x))


def test_export_takes_a_graph_as_well_as_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done(["lower", "run", "--out", "graph", "--quiet"], capsys)
    done(["export", "graph", "--to", "onnx", "--out", "of-graph.onnx"], capsys)
    done(["export", "run", "--to", "onnx", "--out", "of-run.onnx"], capsys)
    assert Path("of-graph.onnx").read_bytes() == Path("of-run.onnx").read_bytes()


def test_c_is_written_without_a_compiler_and_verify_says_that_there_is_none(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place / "empty"))
    assert "flash" in done(["export", "run", "--to", "c", "--out", "c"], capsys)
    assert (Path("c") / "network.c").is_file()
    assert main(["verify", "run", "--targets", "c", "--samples", "3"]) == 2
    assert "no C compiler" in capsys.readouterr().err
    said = done(["verify", "run", "--samples", "3"], capsys)
    assert "not run: no C compiler" in said


# verify


@needs_compiler
def test_verify_finds_everything_equal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(done(["verify", "run", "--samples", "40", "--json"], capsys))
    assert found["equal"] is True
    assert found["samples"] == 40
    assert set(found["targets"]) == {"training", "onnx", "qonnx", "c", "c_portable"}
    for target in found["targets"].values():
        assert target["equal"] is True
        assert target["samples"] == 40
        assert target["max_difference"] == 0
        assert target["first_difference"] is None


def test_verify_compares_every_layer_on_request(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done(["lower", "run", "--out", "graph", "--quiet"], capsys)
    said = done(["verify", "graph", "--samples", "3", "--targets", "onnx", "--every-layer"], capsys)
    assert "equal on 3" in said


def test_a_difference_is_told_with_its_layer_and_costs_the_exit_status(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = verification.TARGETS["onnx"]

    def wrong_in_the_classifier(graph, folder, x):
        y = honest(graph, folder, x)
        if graph.nodes[-1].name == "classifier":
            y[1, 2] += 7
        return y

    monkeypatch.setitem(verification.TARGETS, "onnx", wrong_in_the_classifier)
    assert main(["verify", "run", "--samples", "4", "--targets", "onnx", "--every-layer", "--json"]) == 2
    output = capsys.readouterr()
    assert "the results differ" in output.err
    found = json.loads(output.out)
    assert found["equal"] is False
    target = found["targets"]["onnx"]
    assert target["max_difference"] == 7
    assert target["differing_samples"] == 1
    assert "classifier" in target["first_difference"]["layer"]
    assert target["first_difference"]["channel"] == 2
    assert target["first_difference"]["got"] - target["first_difference"]["expected"] == 7


# import


def test_import_brings_an_exported_network_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done(["lower", "run", "--quiet"], capsys)
    done(["export", "run", "--to", "qonnx", "--out", "model.onnx"], capsys)
    done(["import", "model.onnx", "--out", "back"], capsys)
    graph, back = storage.load(Path("run/train") / INTEGER_GRAPH), storage.load(Path("back"))
    x = verification.random_inputs(graph, 5)
    assert np.array_equal(verification.reference_outputs(graph, x), verification.reference_outputs(back, x))


# mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lower"], "RUN"),
        (["lower", "nowhere"], "there is no nowhere"),
        (["lower", "searched"], "bitwright train"),
        (["lower", "run", "--out", "file/graph"], "file"),
        (["lower", "run", "--picture", "graph.gif"], ".svg or .png"),
        (["export", "run", "--to", "tflite", "--out", "x"], "c, onnx, qonnx"),
        (["export", "run", "--to", "onnx"], "--out"),
        (["export", "file", "--to", "onnx", "--out", "x"], "truncated or no integer graph"),
        (["import", "nowhere.onnx", "--out", "x"], "there is no nowhere.onnx"),
        (["import", "file", "--out", "x"], "file"),
        (["import", "empty", "--out", "x"], "empty"),
        (["import", "file", "--out", "x", "--input-range", "9"], "two integers"),
        (["import", "file", "--out", "x", "--input-scale", "many"], "many"),
        (["verify", "run", "--samples", "0"], "at least 1"),
        (["verify", "run", "--samples", "many"], "many"),
        (["verify", "run", "--targets", "tflite"], "training, onnx, qonnx, c, c_portable"),
        (["verify", "file"], "truncated or no integer graph"),
        (["verify", "run", "--wrong"], "--wrong"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_costs_one_line(refused: Callable[[list[str]], str], arguments: list[str], said: str) -> None:
    assert said in refused(arguments)


def test_a_spoiled_graph_is_refused(place: Path, refused: Callable[[list[str]], str]) -> None:
    assert main(["lower", "run", "--out", "graph", "--quiet"]) == 0
    content = bytearray(Path("graph").read_bytes())
    content[-3] ^= 1
    Path("spoiled").write_bytes(content)
    assert "checksum" in refused(["verify", "spoiled"])
    Path("short").write_bytes(content[: len(content) // 2])
    assert "truncated" in refused(["export", "short", "--to", "c", "--out", "c"])
    assert os.path.exists("graph")
