"""`bitwright cost` on every kind of target, and the one line that it prints for a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitwright.cli import main
from bitwright.costs.macs import Macs
from bitwright.integer import storage
from bitwright.integer.describe import width
from bitwright.integer.graph import Conv, MatMul
from bitwright.networks import names
from bitwright.run_directory import TrainingRun


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["cost", *arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def counted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(capsys, *arguments, "--json"))
    return found


def test_the_published_score_of_the_quantized_mobile14(capsys: pytest.CaptureFixture[str]) -> None:
    found = counted(capsys, "mobile14-4b5b", "--rule", "micronet_2019_entry")
    assert found["total"] == 0.5558137872445188
    assert found["float32_total"] == 0.5558137893676758
    assert found["memory"] + found["math"] == found["total"]
    assert found["bits"]["memory"] == {"weights": 27616280, "thresholds": 8777928, "biases": 19000}
    assert found["reference"] == {"name": "imagenet", "parameters": 6.9e6, "operations": 1170e6}
    assert (found["parameters"], found["macs"]) == (6_857_568, 580_883_408)
    assert sum(layer["macs"] for layer in found["layers"]) == 580_883_408
    assert sum(layer["score"] for layer in found["layers"]) == pytest.approx(found["total"])


def test_options_of_a_rule_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    entry = ("mobile14-4b5b", "--rule", "micronet_2019_entry")
    assert counted(capsys, *entry, "--accumulator", "brevitas-2019-in")["total"] == 0.541738932989595
    assert counted(capsys, *entry, "--accumulator", "32")["total"] == pytest.approx(0.903412, abs=1e-6)
    exact = counted(capsys, "mobile14-4b5b", "--rule", "exact", "--compare", "binary")
    assert exact["total"] == pytest.approx(0.478972, abs=5e-7)
    assert exact["options"]["compare"] == "binary"
    freebie = counted(capsys, "mobile14-float", "--freebie")
    assert freebie["total"] == pytest.approx(1.243186, abs=5e-7)
    narrow = counted(capsys, "mobile14-4b", "--bias", "weight", "--weight-bits", "4", "--activation-bits", "4")
    assert narrow["total"] == pytest.approx(0.683495, abs=5e-7)


def test_sparsity_is_of_all_layers_or_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    whole = counted(capsys, "mobile14-4b", "--sparsity", "0.5")
    part = counted(capsys, "mobile14-4b", "--sparsity", "output=0.5,init_block/conv=0.25")
    masks = [layer["name"] for layer in part["layers"] if "masks" in layer["memory"]]
    assert masks == ["init_block/conv", "output"]
    assert whole["total"] < part["total"] < counted(capsys, "mobile14-4b")["total"]


def test_the_table_ends_in_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "mobile14-4b5b", "--rule", "micronet_2019_entry")
    assert "score 0.5558137872445188 = memory" in text
    assert "0.5558137893676758" in text
    assert "stage5/unit5/pw_conv" in text


@pytest.mark.parametrize(("name", "start"), [("bars.svg", b"<?xml"), ("bars.png", b"\x89PNG")])
def test_a_picture_shows_where_the_cost_goes(
    name: str, start: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "mobile14-4b5b", "--picture", str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_run_and_its_integer_graph_are_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = TrainingRun.open(Path("run/train")).network.trunk
    run = counted(capsys, "run", "--rule", "exact")
    assert run["macs"] == Macs()(network).total
    assert main(["lower", "run", "--out", "graph", "--quiet"]) == 0
    graph = counted(capsys, "graph", "--rule", "exact")
    sparse = counted(capsys, "graph", "--rule", "exact", "--sparsity", "actual")
    weights = [n.op.weight for n in storage.load(Path("graph")).nodes if isinstance(n.op, (Conv, MatMul))]
    masks = sum(w.size for w in weights if int((w == 0).sum()) * width(w) > w.size)
    assert sparse["bits"]["memory"].get("masks", 0) == masks
    assert sparse["total"] <= graph["total"]
    assert counted(capsys, "run", "--rule", "exact", "--sparsity", "actual")["total"] == sparse["total"]


@pytest.mark.parametrize("name", ["TFC_1W2A", "residual_testcase"])
def test_a_quantized_model_of_others_is_counted(name: str, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    assert counted(capsys, str(shared / "data" / "models" / f"{name}.onnx"), "--rule", "exact")["total"] > 0


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ("mobile15", "mobile14-4b5b"),
        ("file", "integer graph"),
        ("empty", "no trained network"),
        ("mobile14-4b --rule cheap", "micronet_2019_entry"),
        ("mobile14-4b --rule exact --freebie", "--compare"),
        ("mobile14-4b --compare linear", "--freebie"),
        ("mobile14-4b --accumulator wide", "brevitas-2019"),
        ("mobile14-4b --reference mnist", "cifar100"),
        ("mobile14-4b --sparsity half", "actual"),
        ("mobile14-4b --sparsity stage9=0.5", "init_block/conv"),
        ("mobile14-4b --sparsity actual", "integer graph"),
        ("mobile14-4b --weight-bits 0", "1 to 32"),
        ("mobile14-4b --picture bars.pdf", ".svg"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_there_is(
    arguments: str, known: str, refused: Callable[[list[str]], str]
) -> None:
    assert known in refused(["cost", *arguments.split()])


def test_an_unknown_target_lists_every_network(refused: Callable[[list[str]], str]) -> None:
    line = refused(["cost", "nothing"])
    assert [name for name in names() if name not in line] == []
