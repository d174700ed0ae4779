"""`bitwright latency` on the published table, and the one line that it prints for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitwright.cli import main
from bitwright.latency.cost import Latency
from bitwright.latency.table import read
from bitwright.relaxation.expected_cost import ExpectedCost
from bitwright.spaces.mobile import Mobile
from published_latencies import published

JSON = """{"name": "ProxylessNASNets", "bn": {"momentum": 0.1, "eps": 0.001}, "first_conv": %s,
"feature_mix_layer": %s, "classifier": {"out_features": 1000}, "blocks": [%s]}"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mobile_trim.yaml"
    published().write(path)
    return path


def conv(filters: int, kernel: int, stride: int) -> str:
    return json.dumps(
        {
            "out_channels": filters, "kernel_size": kernel, "stride": stride, "groups": 1, "dilation": 1,
            "use_bn": True, "act_func": "relu6",
        }
    )  # fmt: skip


def layer(channels: int, filters: int, stride: int, expansion: int) -> str:
    made = {
        "name": "MBInvertedConvLayer", "in_channels": channels, "out_channels": filters, "kernel_size": 3,
        "stride": stride, "expand_ratio": expansion,
    }  # fmt: skip
    return json.dumps({"mobile_inverted_conv": made, "shortcut": None})


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """One cell for each stage: the published table has all of them."""
    widths = ((32, 16, 1, 1), (16, 24, 2, 3), (24, 40, 2, 3), (40, 80, 2, 3), (80, 96, 1, 3), (96, 192, 2, 3))
    blocks = ", ".join(layer(*each) for each in (*widths, (192, 320, 1, 3)))
    path = tmp_path / "network.json"
    path.write_text(JSON % (conv(32, 3, 2), conv(1280, 1, 1), blocks))
    return path


def test_the_latency_of_a_network_is_predicted(table: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "predict", str(table), str(network), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[str(network)]
    cells = 6.2406 + 3.9412 + 1.8103 + 1.9608 + 1.6477 + 2.6441
    assert found["milliseconds"] == pytest.approx(4.0838 + 3.8821 + cells + 3.0886 + 0.3096)
    assert [block["block"] for block in found["blocks"]][::9] == ["init_block", "output"]
    assert main(["latency", "predict", str(table), str(network), "--blocks"]) == 0
    assert "29.609 ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["guess"], ["'guess'", "build", "predict", "check"]),
        (["predict", "TABLE", "mobile"], ["lacks 3 entries", "input:112x112x16-output:56x56x32", "kernel:7-stride:2"]),
        (["predict", "TABLE", "mobil"], ["'mobil'", "proxyless-mobile", "mobile14-4b5b"]),
        (["predict", "nowhere.yaml", "mobile"], ["cannot read nowhere.yaml"]),
        (["predict", "TABLE", "cifar"], ["init_block", "does not fit"]),
        (["predict", "TABLE", "mobile", "--bits", "four"], ["4/5", "'four'"]),
        (["predict", "TABLE", "mobile", "--resolution", "0"], ["resolution is at least 1"]),
        (["check", "TABLE", "mobile"], ["does not say its backend", "onnxruntime", "c"]),
        (["build", "--backend", "tpu", "--network", "mobile", "--out", "T"], ["'tpu'", "onnxruntime, c"]),
        (["build", "--backend", "c", "--out", "T"], ["--network", "--space"]),
        (["build", "--backend", "c", "--out", "T", "--space", "no"], ["'no'", "proxylessnas-cells", "mobile-cifar10"]),
        (
            ["build", "--backend", "c", "--out", "T", "--space", "mobile-cifar10", "--bits", "4"],
            ["bits of mobile-cifar10"],
        ),
        (
            ["build", "--backend", "c", "--out", "T", "--space", "mobile-cifar10", "--resolution", "32"],
            ["both --resolution and --classes"],
        ),
        (["build", "--backend", "c", "--out", "T", "--network", "mobile"], ["integers only", "--bits"]),
        (["build", "--backend", "c", "--out", "T", "--network", "mobile", "--rounds", "0"], ["rounds are at least 1"]),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], words: list[str], table: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["latency", *(str(table) if word == "TABLE" else word for word in arguments)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("bitwright latency: ")
    assert output.err.count("\n") == 1
    assert [word for word in words if word not in output.err] == []
    assert not (tmp_path / "T").exists()


SPACE = """
space:
  name: mobile
  widths: [8]
  cells: [2]
  strides: [2]
  kernels: [3]
  expansions: [2]
  stem: 8
  first: 8
  head: 8
  weight_bits: [4, 8]
  activation_bits: [4]
"""


def test_every_block_of_a_searched_space_is_measured(tmp_path: Path) -> None:
    """Two cells at two bit widths of weights, the second of which may be left out, and four blocks that are fixed."""
    pytest.importorskip("onnxruntime")
    config, path = tmp_path / "space.yaml", tmp_path / "table.yaml"
    config.write_text(SPACE)
    command = ["latency", "build", "--space", str(config), "--resolution", "16", "--classes", "3"]
    assert main([*command, "--backend", "onnxruntime", "--rounds", "2", "--out", str(path)]) == 0
    known = read(path)
    assert len(known.entries) == 4 + 2 * 2
    space = Mobile(
        image=(3, 16, 16), classes=3, widths=(8,), cells=(2,), strides=(2,), kernels=(3,), expansions=(2,), stem=8,
        first=8, head=8, weight_bits=(4, 8), activation_bits=(4,),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    cost = ExpectedCost(space, Latency(known))
    for architecture in (space.sample(rng) for _ in range(10)):
        assert cost.of(architecture) == pytest.approx(known.of(space.network(architecture)))


def test_help_lists_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("build", "predict", "check"):
        with pytest.raises(SystemExit):
            main(["latency", action, "--help"])
        assert f"usage: bitwright latency {action}" in capsys.readouterr().out
