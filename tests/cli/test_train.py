"""`bitwright train` of a network without decisions: from other weights, validated only, stopped, resumed, reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image

from bitwright.cli import main
from bitwright.experiment import Experiment, resolve
from bitwright.train.recipe import Recipe

Run = Callable[..., str]


def block(cin: int, cout: int, stride: int, shortcut: bool) -> dict[str, Any]:
    layer = {
        "name": "MBInvertedConvLayer", "in_channels": cin, "out_channels": cout, "kernel_size": 3, "stride": stride,
        "expand_ratio": 1 if cin == 4 else 2, "act_func": "relu6", "use_se": False,
    }  # fmt: skip
    return {"mobile_inverted_conv": layer, "shortcut": {"name": "IdentityLayer"} if shortcut else None}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.json, a network of four blocks; images/, 48 and 24 pictures of four classes; float/ and 4b/, trainings."""
    folder = tmp_path_factory.mktemp("micronet")
    blocks = [block(4, 6, 1, False), block(6, 8, 2, False), block(8, 8, 1, True), block(8, 8, 2, False)]
    content = {
        "name": "ProxylessNASNets",
        "bn": {"momentum": 0.1, "eps": 1e-3},
        "first_conv": {"kernel_size": 3, "stride": 2, "out_channels": 4},
        "blocks": blocks,
        "feature_mix_layer": {"kernel_size": 1, "stride": 1, "out_channels": 16},
        "classifier": {"out_features": 4},
    }
    (folder / "net.json").write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6)):
        for label in range(4):
            (folder / "images" / part / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (40, 36, 3))
                pixels[10 * label : 10 * label + 10] += 120
                picture = Image.fromarray(pixels.astype(np.uint8))
                picture.save(folder / "images" / part / f"class{label}" / f"{number}.png")
    return folder


def options(place: Path, preset: str = "micronet-4b") -> list[str]:
    """A training as of the preset, but small."""
    return [
        *("train", "--preset", preset, "--dataset.root", str(place / "images"), "--dataset.classes", "folders"),
        *("--dataset.crop", "32", "--dataset.resize", "36", "--dataset.workers", "0", "--threads", "1"),
        *("--space.network", str(place / "net.json"), "--training.batch", "16", "--training.optimizer_batch", "0"),
        *("--training.epochs", "2", "--search.checkpoint_seconds", "1e9", "--device", "cpu"),
    ]


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The float network, and from it the quantized one of step 1."""
    plain = ["--space.quantized", "false", "--training.gather_checkpoints", "true"]
    assert main([*options(place), *plain, "--out", str(place / "float")]) == 0
    assert main([*options(place), "--init", str(place / "float"), "--out", str(place / "4b")]) == 0
    return place


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """What a successful command prints."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        status = main(list(arguments))
        output = capsys.readouterr()
        assert (status, output.err) == (0, "")
        return output.out

    return run


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# the presets


def test_the_presets_are_the_published_trainings() -> None:
    first, second = (resolve([], name) for name in ("micronet-4b", "micronet-4b5b"))
    assert Experiment(first).training == Recipe(
        epochs=60, batch=96, optimizer_batch=288, drop_last=True, optimizer="sgd", momentum=0.9, nesterov=False,
        lr=0.005, schedule="step", milestones=(15, 30, 45), step_factor=0.1, weight_decay=3e-5, norm_decay=True,
        scale_decay=True, clip_norm=0.0, label_smoothing=0.1, crop="resized", auto_augment=True, flip=False,
        calibrate=False, sync_norm=False, dtype="float32",
    )  # fmt: skip
    changed = {"epochs": 20, "lr": 1e-4, "milestones": [5, 10, 15], "norm_decay": False}
    assert second["training"] == first["training"] | changed
    assert second["space"] == first["space"] | {"depthwise_bits": 5, "dropout": 0.2, "dropout_samples": 32}
    assert second["dataset"] == first["dataset"]
    assert (first["dataset"]["name"], first["dataset"]["workers"]) == ("imagenet", 10)
    bits = {"network": "mobile14", "weight_bits": 4, "depthwise_bits": 4, "first_layer_bits": 8, "hard_tanh": 10.0}
    assert bits.items() <= first["space"].items()


# starting from weights


def test_a_training_says_and_records_where_its_weights_come_from(trained: Path, run: Run, tmp_path: Path) -> None:
    said = run(*options(trained, "micronet-4b5b"), "--init", str(trained / "4b"), "--out", str(tmp_path / "4b5b"))
    source = str(trained / "4b")
    content = safetensors.torch.load_file(trained / "4b" / "weights.safetensors")
    assert f"from {source}: {len(content)} tensors loaded" in said
    assert read(tmp_path / "4b5b" / "result.json")["initialised_from"] == source
    assert read(tmp_path / "4b5b" / "report.json")["run"]["initialised_from"] == source
    assert set(read(tmp_path / "4b5b" / "network.json")["loaded"]) == set(content)


def test_missing_tensors_are_named(trained: Path, run: Run, tmp_path: Path) -> None:
    said = run(*options(trained), "--init", str(trained / "float"), "--out", str(tmp_path / "run"), "--stop-after", "1")
    missing = read(tmp_path / "run" / "network.json")["missing"]
    assert missing
    assert all(name.endswith("/log2_range") for name in missing)
    assert f"{len(missing)} missing: {missing[0]}, " in said


def test_a_training_from_a_published_checkpoint_starts_with_its_weights(
    trained: Path, run: Run, tmp_path: Path
) -> None:
    kernel = torch.full((4, 3, 3, 3), 0.25)
    torch.save({"state_dict": {"module.features.init_block.conv.weight": kernel}}, tmp_path / "float.pth.tar")
    still = ["--training.lr", "1e-30", "--training.lr_min", "1e-30", "--training.weight_decay", "0"]
    said = run(
        *options(trained), *still, "--init", str(tmp_path / "float.pth.tar"), "--out", str(tmp_path / "run")
    )  # fmt: skip
    assert "1 tensors loaded" in said
    weights = safetensors.torch.load_file(tmp_path / "run" / "weights.safetensors")
    assert torch.equal(weights["init_block/conv"], kernel)


def test_a_resumed_training_keeps_its_start(
    trained: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*options(trained), "--out", str(tmp_path / "run")]
    run(*given, "--init", str(trained / "float"), "--stop-after", "1")
    (tmp_path / "run" / "checkpoint.pt").unlink()  # as if it had died before the first
    assert main([*given, "--init", str(trained / "4b"), "--resume"]) == 2
    error = capsys.readouterr().err
    assert f"started from {trained / 'float'}" in error
    assert error.count("\n") == 1
    assert "tensors loaded" in run(*given, "--resume")
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    assert weights == (trained / "4b" / "weights.safetensors").read_bytes()


# stopping and going on


def test_a_training_that_is_stopped_goes_on_to_the_same_end(trained: Path, run: Run, tmp_path: Path) -> None:
    given = [*options(trained), "--out", str(tmp_path / "run")]
    said = run(*given, "--init", str(trained / "float"), "--stop-after", "4")
    assert "stopped behind step 4, in epoch 2: images/s=" in said
    assert not (tmp_path / "run" / "result.json").exists()
    run(*given, "--resume")
    found, expected = (read(path / "result.json") for path in (tmp_path / "run", trained / "4b"))
    assert found["history"] == expected["history"]
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    assert weights == (trained / "4b" / "weights.safetensors").read_bytes()
    rows = read(tmp_path / "run" / "report.json")["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2]


def test_without_checkpoints_there_are_the_weights_alone(trained: Path, run: Run, tmp_path: Path) -> None:
    run(*options(trained), "--no-checkpoints", "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert (tmp_path / "run" / "weights.safetensors").exists()


# what it leaves


def test_the_report_has_every_epoch_and_the_best_weights_lie_beside_it(trained: Path) -> None:
    report, result = (read(trained / "4b" / name) for name in ("report.json", "result.json"))
    rows = report["epochs"]
    assert [
        {name: row[name] for name in row if name not in ("images_per_second", "seconds")} for row in rows
    ] == result["history"]
    assert {"validation_accuracy", "validation_top5", "validation_loss"} <= rows[0].keys()
    assert all(row["images_per_second"] > 0 for row in rows)
    assert report["run"]["images"] == {"train": 48, "validation": 24}
    assert report["run"]["devices"] == 1
    best, kept = (safetensors.torch.load_file(trained / "4b" / f"{n}.safetensors") for n in ("best", "weights"))
    assert all(torch.equal(best[name], kept[name]) for name in kept)


def test_gathered_checkpoints_are_whole(trained: Path, run: Run, tmp_path: Path) -> None:
    # going on from the first one, in place of the last, ends the same
    assert sorted(p.name for p in (trained / "float" / "checkpoints").iterdir()) == ["epoch-1.pt", "epoch-2.pt"]
    assert not (trained / "4b" / "checkpoints").exists()
    shutil.copytree(trained / "float", tmp_path / "run")
    expected = (tmp_path / "run" / "weights.safetensors").read_bytes()
    for name in ("weights.safetensors", "result.json"):
        (tmp_path / "run" / name).unlink()
    shutil.copy(tmp_path / "run" / "checkpoints" / "epoch-1.pt", tmp_path / "run" / "checkpoint.pt")
    plain = ["--space.quantized", "false", "--training.gather_checkpoints", "true"]
    run(*options(trained), *plain, "--out", str(tmp_path / "run"), "--resume")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == expected


def test_without_validation_there_is_no_accuracy(trained: Path, run: Run, tmp_path: Path) -> None:
    said = run(*options(trained), "--training-only", "--out", str(tmp_path / "run"))
    assert "trained for 2 epochs without validation" in said
    assert read(tmp_path / "run" / "result.json")["validation_accuracy"] is None


# one pass over the validation images


def test_evaluating_prints_what_the_training_found(trained: Path, run: Run) -> None:
    row = read(trained / "4b" / "result.json")
    best = row["history"][row["best_epoch"] - 1]
    expected = (
        f"24 validation images: top-1 {best['validation_accuracy']:.4f}, top-5 {best['validation_top5']:.4f},"
        f" loss {best['validation_loss']:.4f}"
    )
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert expected in run(*options(trained), "--evaluate", "--out", str(trained / "4b"))
    assert expected in run(*options(trained), "--evaluate", "--init", str(trained / "4b"))
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--init", "nowhere.pth"], "there is no nowhere.pth to start from"),
        (["--init", "{place}/net.json"], "net.json holds more than tensors"),
        (["--evaluate", "--resume"], "--evaluate trains nothing"),
        (["--no-checkpoints", "--resume"], "--resume goes on from a checkpoint"),
        (["--stop-after", "0"], "--stop-after is at least 1"),
        (["--evaluate"], "cannot read {out}/best.safetensors"),
        (["--training.optimizer_batch", "24"], "optimizer_batch 24 is no multiple of the 16 images of a step"),
        (["--training.warmup_epochs", "-1"], "warmup_epochs is at least 0"),
        (["--training.milestones", "[-3]"], "milestones are epochs from 0 on"),
        (["--training.mix_rate", "-1"], "rate is at least 0"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_written(
    arguments: list[str], expected: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    filled = [argument.format(place=place) for argument in arguments]
    assert main([*options(place), "--out", str(out), *filled]) == 2
    error = capsys.readouterr().err
    assert expected.format(out=out) in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_the_resolved_configuration_repeats_a_training(trained: Path, run: Run, tmp_path: Path) -> None:
    config = yaml.safe_load((trained / "4b" / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "run"
    run("train", "--config", str(tmp_path / "config.yaml"), "--init", str(trained / "float"), "--out", str(out))
    assert (out / "weights.safetensors").read_bytes() == (trained / "4b" / "weights.safetensors").read_bytes()


# quantization without training


def quantize(place: Path, out: Path, *more: str) -> list[str]:
    data = ("--dataset.name", "imagenet", "--dataset.root", str(place / "images"), "--dataset.classes", "folders")
    return [
        *("quantize", "--init", str(place / "float"), "--out", str(out), *data, "--dataset.crop", "32"),
        *("--dataset.resize", "36", "--space.name", "proxylessnas", "--space.network", str(place / "net.json")),
        *("--space.weight_bits", "8", "--space.depthwise_bits", "8", "--space.pool", "mean", "--threads", "1", *more),
    ]


def test_a_float_training_is_quantized_without_training(trained: Path, run: Run, tmp_path: Path) -> None:
    said = run(*quantize(trained, tmp_path / "q", "--images", "20"))
    result = read(tmp_path / "q" / "result.json")
    assert result["calibration_images"] == 20
    assert result["initialised_from"] == str(trained / "float")
    assert result["float_accuracy"] == read(trained / "float" / "result.json")["validation_accuracy"]
    assert f"quantized with 20 training images: top-1 {result['validation_accuracy']:.4f}" in said
    started = safetensors.torch.load_file(trained / "float" / "weights.safetensors")
    made = safetensors.torch.load_file(tmp_path / "q" / "weights.safetensors")
    assert torch.equal(made["output"], started["output"])
    assert not torch.equal(made["final_block/bn/mean"], started["final_block/bn/mean"])  # refitted
    assert float(made["final_block/bn/log2_range"]) != pytest.approx(2.585, abs=1e-3)  # no longer log2(6)
    evaluated = json.loads(run("evaluate", str(tmp_path / "q"), "--json", "--threads", "1"))
    assert evaluated["test_accuracy"] == result["validation_accuracy"]  # the same images, in integers
    assert evaluated["first_differing_layer"] is None
    assert evaluated["test_accuracy"] <= evaluated["test_top5"] == 1.0  # there are four classes


def test_statistics_may_stay_those_of_the_float_network(trained: Path, run: Run, tmp_path: Path) -> None:
    run(*quantize(trained, tmp_path / "q", "--no-refit"))
    started = safetensors.torch.load_file(trained / "float" / "weights.safetensors")
    made = safetensors.torch.load_file(tmp_path / "q" / "weights.safetensors")
    assert torch.equal(made["final_block/bn/mean"], started["final_block/bn/mean"])


def test_wide_activations_are_lowered_to_thresholds_where_that_is_wanted(
    trained: Path, run: Run, tmp_path: Path
) -> None:
    run(*quantize(trained, tmp_path / "q"))
    assert "Requantize" in run("lower", str(tmp_path / "q"))
    said = run("lower", str(tmp_path / "q"), "--threshold-bits", "8", "--out", str(tmp_path / "graph.safetensors"))
    assert "Requantize" not in said and "MultiThreshold, 255 each" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "1"], "images are at least 2, got 1"),
        (["--init", "absent.pth"], "there is no absent.pth to start from"),
        (["--space.network", "mobile15"], "no network 'mobile15': mobile, mobile14"),
        (["--space.weight_bits", "1"], "signed scaled integers take 2 to 16 bits, got 1"),
    ],
)
def test_mistakes_of_quantize_are_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*quantize(trained, tmp_path / "q"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "q").exists()


def test_lower_names_the_threshold_bits_there_are(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lower", str(trained / "4b"), "--threshold-bits", "0"]) == 2
    assert "threshold-bits are 1 to 10, got 0" in capsys.readouterr().err
