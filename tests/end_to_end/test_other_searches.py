"""Searches without a supernet, and searches that go on from another's trials with other objectives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.experiment import read_yaml
from bitwright.trial import Archive, Trial

TINY = str(Path(__file__).with_name("tiny.yaml"))
ALONE = (
    *("--config", TINY, "--evaluator", "from_scratch", "--strategy", "random_search", "--training.epochs", "1"),
    *("--search.updates", "2", "--search.batch", "2", "--search.costs", '["weight_bits", "bit_operations"]'),
)


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def trials(path: Path, purpose: str = "search") -> list[Trial]:
    archive = Archive(path / "archive.sqlite")
    found = archive.of(purpose)
    archive.close()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("searches") / "alone"
    assert run("search", *ALONE, "--out", path) == 0
    return path


def test_a_search_by_training_measures_every_trial_with_its_costs(alone: Path) -> None:
    found = trials(alone)
    assert len(found) == 4
    assert all(set(t.measurement.costs) == {"weight_bits", "bit_operations"} for t in found)


def test_its_best_is_the_trial_with_the_highest_accuracy(alone: Path) -> None:
    best = json.loads((alone / "best.json").read_text())
    assert best["validation_accuracy"] == max(t.measurement.accuracy for t in trials(alone))
    report = json.loads((alone / "report" / "report.json").read_text())
    assert report["random"] == []
    assert report["advantage"] is None


def test_its_report_names_the_best_trials_and_no_shared_weights(alone: Path) -> None:
    text = (alone / "report" / "report.md").read_text()
    assert "## The best trials" in text
    assert "shared weights" not in text


def test_a_search_goes_on_from_another_with_a_budget(alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "further"
    options = ("--search.budgets", '{"parameters": 1500}', "--strategy", "regularized_evolution")
    assert run("search", "--from", alone, *options, "--out", path) == 0
    told = trials(path, "told")
    assert [t.architecture for t in told] == [t.architecture for t in trials(alone)]
    assert [t.measurement.accuracy for t in told] == [t.measurement.accuracy for t in trials(alone)]
    assert all("parameters" in t.measurement.costs for t in [*told, *trials(path)])
    assert json.loads((path / "origin.json").read_text())["run"] == str(alone)


def test_what_another_search_knew_is_not_trained_again(alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "again"
    assert run("search", "--from", alone, "--out", path) == 0  # random search with the same seed asks for the same
    assert [t.architecture for t in trials(path)] == [t.architecture for t in trials(alone)]
    assert all(t.measurement.seconds == 0 for t in trials(path))


def test_the_supernet_of_another_search_is_gone_on_with(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("search", "--config", TINY, "--out", first) == 0
    assert run("search", "--from", first, "--search.budgets", '{"weight_bits": 5000}', "--out", second) == 0
    assert len(trials(second, "told")) == len(trials(first))
    log = (second / "search.log").read_text()
    assert "loss=" not in log.split("controller_step")[0]  # no step of the supernet: its epochs are done


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search for the bits of a trained network, which is beside it."""
    folder = tmp_path_factory.mktemp("precision")
    network = folder / "network"
    options = ("--training.epochs", "1", "--arch", "0 3 1 3 0 3 2 3 0 3 1 3 0 3 2 3", "--out", network)
    assert run("train", "--config", TINY, *options) == 0
    trials = ("--search.updates", "3", "--search.batch", "4", "--evaluator.validation", "50", "--threads", "1")
    assert run("search", "--preset", "precision", "--network", network, *trials, "--out", folder / "bits") == 0
    return folder / "bits"


def test_a_search_for_bits_takes_images_and_recipe_from_the_network(bits: Path) -> None:
    values, base = (read_yaml(path / "config.yaml") for path in (bits, bits.parent / "network"))
    assert values["dataset"] == base["dataset"]
    assert values["training"]["batch"] == base["training"]["batch"] == 128
    assert values["training"]["epochs"] == 5  # the preset's
    assert values["space"]["network"] == str(bits.parent / "network")


def test_its_first_trials_change_one_decision_each(bits: Path) -> None:
    found = trials(bits)
    assert len({t.architecture for t in found}) == len(found) == 12
    assert all(sum(choice != 3 for choice in t.architecture.choices) <= 1 for t in found)


def test_what_it_finds_is_fine_tuned_lowered_and_verified(bits: Path) -> None:
    assert run("train", bits, "--training.epochs", "1") == 0
    origin = json.loads((bits / "train" / "network.json").read_text())["initialised_from"]
    assert origin == str(bits.parent / "network" / "weights.safetensors")
    assert run("lower", bits, "--quiet") == 0
    assert run("verify", bits, "--samples", "20") == 0


def test_its_front_is_shown(bits: Path) -> None:
    assert run("pareto", bits, "--objectives", "accuracy,bit_operations,energy") == 0
    assert (bits / "report" / "pareto.svg").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--evaluator", "guesswork"), "no 'guesswork' among evaluators"),
        (("--evaluator", "post_training"), "--space precision"),
        (("--search.workers", "2"), "a supernet trains in one process"),
        (("--search.ray_address", "auto"), "give their number as workers"),
        (("--search.budgets", '{"latency": 3}'), "latency_table"),
        (("--search.method", "relaxation"), "relaxation is of spaces with gates"),
        (("--space", "precision", "--network", "nowhere"), "no network 'nowhere'"),
        (("--from", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = () if options[0] in ("--from", "--space") else ("--config", TINY)
    assert run("search", *config, *options, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
