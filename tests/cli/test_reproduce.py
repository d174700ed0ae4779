"""`bitwright reproduce`: what it trains, what it tells of it, and that it goes on wherever it was stopped."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import yaml
from numpy.typing import NDArray

from bitwright import run_directory
from bitwright.cli import main
from bitwright.cli.reproduce import REPRODUCTIONS, Plan, bits_per_weight
from bitwright.datasets import Images
from bitwright.datasets.digits import load
from bitwright.experiment import presets, resolve
from bitwright.network import Input, Linear, Network, Node
from bitwright.quantizers.real import Real
from bitwright.quantizers.ternary import Ternary
from bitwright.run_directory import TrainingRun
from bitwright.spaces.binaryconnect import Binaryconnect

SMALL = [
    *("reproduce", "binaryconnect-mnist", "--dataset", "digits", "--space.layers", "2", "--space.units", "16"),
    *("--training.lr", "0.01", "--threads", "1", "--device", "cpu", "--search.checkpoint_seconds", "1e9"),
]
TWO = [*SMALL, "--epochs", "2"]
Run = Callable[..., str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All rows of the table with two seeds, not to be written to."""
    out = tmp_path_factory.mktemp("reproduce") / "out"
    assert main([*TWO, "--runs", "2", "--out", str(out)]) == 0
    return out


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


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """The one line that a mistake costs."""

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return refused


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in read(out / "reproduction.json")["variants"]}


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# the published tables


def test_the_published_errors_are_those_of_the_paper() -> None:
    found = {
        name: {variant: (p.error, p.deviation) for variant, p in reproduction.errors.items()}
        for name, reproduction in REPRODUCTIONS.items()
    }
    assert found == {
        "binaryconnect-mnist": {"none": (1.30, 0.04), "det": (1.29, 0.08), "stoch": (1.18, 0.04)},
        "binaryconnect-cifar10": {"none": (10.64, None), "det": (9.90, None), "stoch": (8.27, None)},
        "binaryconnect-svhn": {"none": (2.44, None), "det": (2.30, None), "stoch": (2.15, None)},
    }


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_reproduction_is_a_preset_of_binaryconnect(name: str) -> None:
    assert name in presets()
    values = resolve([], name)
    assert values["space"]["name"] == "binaryconnect"
    assert values["dataset"]["name"] == name.partition("-")[2]


def test_the_preset_of_mnist_is_what_the_remark_says() -> None:
    values = resolve([], "binaryconnect-mnist")
    training = values["training"]
    assert values["space"]["units"] == 2048
    assert (training["optimizer"], training["epochs"]) == ("adam", 250)
    remark = REPRODUCTIONS["binaryconnect-mnist"].remark
    assert all(words in remark for words in ("2,048 units", "Adam", "250 epochs"))


# what is trained and told


def error_of(path: Path, weight: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """The test error in percent of two rectified layers and an output layer, all normalised; digits are 8x8."""
    tensors = {name: w.astype(np.float64) for name, w in safetensors.numpy.load_file(path).items()}
    dataset = load(Path())
    assert isinstance(dataset.test, Images)
    mean, deviation = dataset.pixel_statistics
    pixels = dataset.test.pixels.double().numpy().reshape(len(dataset.test), -1)
    x = (pixels - round(mean[0])) / deviation[0]
    for layer in ("dense1", "dense2", "output"):
        norm = {part: tensors[f"{layer}/norm/{part}"] for part in ("gain", "offset", "mean", "variance")}
        x = (x @ weight(tensors[layer]).T - norm["mean"]) / np.sqrt(norm["variance"] + 1e-4)
        x = x * norm["gain"] + norm["offset"]
        x = x if layer == "output" else np.maximum(x, 0)
    return float(100 * (x.argmax(1) != dataset.test.labels.numpy()).mean())


@pytest.mark.parametrize("variant", ["none", "det", "stoch"])
def test_the_test_error_is_that_of_the_weights_that_are_evaluated(variant: str, done: Path) -> None:
    # the signs of rounded weights, and the real numbers behind drawn ones
    weight = (lambda w: np.where(w >= 0, 1.0, -1.0)) if variant == "det" else (lambda w: w)
    row = rows(done)[variant]
    assert [training["seed"] for training in row["trainings"]] == [0, 1]
    for training in row["trainings"]:
        path = done / variant / f"seed-{training['seed']}" / "weights.safetensors"
        assert training["test_error"] == pytest.approx(error_of(path, weight))


def test_the_best_validation_epoch_is_tested(done: Path) -> None:
    for variant, row in rows(done).items():
        for training in row["trainings"]:
            result = read(done / variant / f"seed-{training['seed']}" / "result.json")
            accuracies = [epoch["validation_accuracy"] for epoch in result["history"]]
            assert training["validation_error"] == pytest.approx(100 * (1 - max(accuracies)))
            assert accuracies[training["best_epoch"] - 1] == max(accuracies)
            assert training["seconds"] == result["seconds"]


def test_means_and_sample_deviations_are_over_seeds(done: Path) -> None:
    for row in rows(done).values():
        errors = [training["test_error"] for training in row["trainings"]]
        assert errors[0] != errors[1]
        assert row["mean"] == pytest.approx(np.mean(errors))
        assert row["deviation"] == pytest.approx(np.std(errors, ddof=1))


def test_every_training_has_its_row_and_seed_and_nothing_else_differs(done: Path) -> None:
    configs = {}
    for path in done.glob("*/seed-*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        configs[path.parts[-3], path.parts[-2]] = (config["space"].pop("weights"), f"seed-{config.pop('seed')}", config)
    assert {key: value[:2] for key, value in configs.items()} == {key: key for key in configs}
    assert len(configs) == 6
    (first, *others) = (value[2] for value in configs.values())
    assert all(other == first for other in others)


def test_weights_at_test_are_real_or_one_bit(done: Path) -> None:
    bits = {name: {t["bits_per_weight"] for t in row["trainings"]} for name, row in rows(done).items()}
    assert bits == {"none": {32}, "det": {1}, "stoch": {32}}


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"weights": "none"}, 32),
        ({"weights": "ternary"}, 2),
        ({"weights": "5"}, 5),
        ({"weights": "stoch", "evaluated": "binary"}, 1),
        ({"weights": "stoch", "evaluated": "ensemble", "members": 4}, 4),
    ],
)
def test_bits_per_weight_of_what_is_evaluated(options: dict[str, Any], bits: float) -> None:
    space = Binaryconnect((1, 8, 8), 10, (30.0,), (70.0,), layers=1, units=8, **options)
    assert bits_per_weight(space.network(space.architecture(()))) == bits


def test_bits_per_weight_are_a_mean_by_weight() -> None:
    nodes = (Node(Input((4,))), Node(Linear(6, Real()), (0,), "a"), Node(Linear(2, Ternary()), (1,), "b"))
    assert bits_per_weight(Network(nodes)) == (24 * 32 + 12 * 2) / 36


def test_the_table_is_printed_and_written(done: Path, run: Run) -> None:
    said = run(*TWO, "--runs", "2", "--out", str(done))
    text = (done / "reproduction.md").read_text()
    for variant, row in rows(done).items():
        assert f"| {variant} | " in text
        here = f"{row['mean']:.2f} ± {row['deviation']:.2f}"
        published = {"none": "1.30 ± 0.04", "det": "1.29 ± 0.08", "stoch": "1.18 ± 0.04"}[variant]
        bits = "1" if variant == "det" else "32"
        assert f"| {variant} | {published} | {here} | 2 | {bits} | " in text
        assert re.search(rf"^{variant} +{published} +{here} +2 +{bits} ", said, re.MULTILINE)


def test_a_shortened_schedule_and_other_options_are_told(done: Path, run: Run) -> None:
    shortened = (
        "The schedule was shortened: 2 epochs in place of the preset's 250;"
        " the published errors are those of 1,000 epochs."
    )
    others = "dataset.name: digits, not mnist"
    said = run(*TWO, "--runs", "2", "--out", str(done))
    report = (done / "reproduction.md").read_text()
    assert all(note in text for note in (shortened, others, "space.units: 16, not 2048") for text in (said, report))
    content = read(done / "reproduction.json")
    assert content["epochs"] == {"here": 2, "preset": 250, "paper": 1000}
    assert content["shortened"] is True
    assert content["changed"]["training.lr"] == {"preset": 0.001, "here": 0.01}
    assert not {"space.weights", "seed", "search.checkpoint_seconds"} & set(content["changed"])


@pytest.mark.parametrize(
    ("name", "preset", "said"),
    [("mnist", 250, ["the paper says"]), ("cifar10", 500, []), ("svhn", 200, [])],
)
def test_the_full_schedule_is_not_called_shortened(name: str, preset: int, said: list[str]) -> None:
    name = f"binaryconnect-{name}"
    values = resolve([], name)
    assert values["training"]["epochs"] == preset
    notes = Plan(name, Path("nowhere"), values, values).comparison().notes
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))
    values["training"]["epochs"] += 1
    *_, last = Plan(name, Path("nowhere"), values, resolve([], name)).comparison().notes
    assert last.startswith(f"The schedule was lengthened: {preset + 1} epochs in place of the preset's {preset};")


# going on


def test_what_is_complete_is_not_trained_again(done: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(TrainingRun, "execute", never)
    before = {path: time for path, time in files(done).items() if not path.name.startswith("reproduction.")}
    table = read(done / "reproduction.json")
    run(*TWO, "--runs", "2", "--out", str(done))
    assert {path: time for path, time in files(done).items() if path in before} == before
    assert read(done / "reproduction.json") == table


@pytest.mark.parametrize("epochs", [1, 2])
def test_an_interrupted_reproduction_goes_on_to_the_same_end(
    epochs: int,
    done: Path,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Interrupted at the end of an epoch, before its checkpoint is written, after that many whole ones."""
    left, whole = [epochs], run_directory._EpochFiles.__call__

    def interrupt(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        whole(*arguments)

    given = [*TWO, "--only", "none,det", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(run_directory._EpochFiles, "__call__", interrupt)
        assert main(given) == 130
        assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*/*/test.json"))) == epochs // 2
    run(*given)
    for variant in ("none", "det"):
        weights = (tmp_path / "out" / variant / "seed-0" / "weights.safetensors").read_bytes()
        assert weights == (done / variant / "seed-0" / "weights.safetensors").read_bytes()
        found, expected = rows(tmp_path / "out")[variant], rows(done)[variant]
        assert found["trainings"][0]["test_error"] == expected["trainings"][0]["test_error"]


def test_a_training_whose_test_was_interrupted_is_only_tested(
    done: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    (out / "det" / "seed-0" / "test.json").unlink()
    monkeypatch.setattr(TrainingRun, "execute", None)
    run(*TWO, "--out", str(out))
    assert read(out / "reproduction.json") == read(done / "reproduction.json")


def test_rows_and_seeds_may_be_added_later(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(*TWO, "--only", "det", "--out", str(out))
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["det"]
    first = rows(out)
    assert (first["none"]["trainings"], first["none"]["mean"]) == ([], None)
    assert first["det"]["deviation"] is None  # of one seed
    said = run(*TWO, "--only", "none", "--runs", "2", "--out", str(out))
    both = rows(out)
    assert both["det"] == first["det"]
    assert len(both["none"]["trainings"]) == 2
    assert re.search(r"^stoch +1.18 ± 0.04 +0", said, re.MULTILINE)


# mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce"], "NAME"),
        (["reproduce", "imagenet"], "no reproduction 'imagenet': binaryconnect-mnist, binaryconnect-cifar10"),
        ([*TWO, "--only", "dropout"], "no row 'dropout': none, det, stoch"),
        ([*TWO, "--only", ""], "no row ''"),
        ([*TWO, "--runs", "0"], "--runs is at least 1, got 0"),
        ([*TWO, "--runs", "many"], "many"),
        ([*SMALL, "--epochs", "0"], "epochs is at least 1, got 0"),
        ([*TWO, "--seed", "3"], "--seed=3 is for `reproduce` to choose"),
        ([*TWO, "--space.weights", "det"], "--space.weights=det is for `reproduce` to choose"),
        ([*TWO, "--training.training_only", "true"], "training_only validates nothing"),
        ([*TWO, "--space.evaluated", "binary"], "evaluated: binary"),
        (["reproduce", "binaryconnect-mnist", "--space", "enas_micro"], "no option --space.weights"),
        ([*TWO, "--nonsense", "3"], "--nonsense"),
        ([*TWO, "--controller_lr", "3"], "--controller_lr means nothing in `reproduce`"),
        ([*TWO, "--preset", "nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    arguments: list[str], message: str, refused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_other_options_than_those_of_the_trainings_there_are_refused(done: Path, refused: Run) -> None:
    before = files(done)
    line = refused(*TWO, "--runs", "3", "--training.batch", "50", "--out", str(done))
    assert "training.batch: 100, not 50" in line
    line = refused(*SMALL, "--epochs", "3", "--only", "stoch", "--out", str(done))
    assert "training.epochs: 2, not 3" in line
    assert files(done) == before


def test_a_damaged_result_is_named(done: Path, refused: Run, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    for content in ("{}", "words"):
        (out / "det" / "seed-0" / "test.json").write_text(content)
        assert str(out / "det" / "seed-0" / "test.json") in refused(*TWO, "--only", "det", "--out", str(out))
