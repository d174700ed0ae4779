"""A differentiable search in its directory, from its options to its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bitwright.costs.macs import Macs
from bitwright.datasets import Dataset
from bitwright.errors import ConfigError, StorageError
from bitwright.experiment import Experiment, resolve
from bitwright.relaxation.run import RelaxationRun, opened, start_relaxation
from bitwright.trial import Archive

OPTIONS = """
dataset: {name: cifar10}
space:
  name: mobile
  stem: 8
  stem_stride: 1
  first: 8
  widths: [8, 16]
  cells: [2, 1]
  strides: [1, 2]
  kernels: [3]
  expansions: [1, 3]
  head: 16
  weight_bits: [4, 8]
supernet: {epochs: 3, batch: 32, dtype: float32}
search: {method: relaxation, budgets: {macs: 60000}, costs: [weight_bits], candidates: 3, checkpoint_seconds: 0}
relaxation: {warmup_epochs: 1, start_epoch: 0, interval: 2, alpha_lr: 0.05}
training: {epochs: 1}
threads: 1
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Dataset]) -> Experiment:
    config = tmp_path_factory.mktemp("relaxation") / "tiny.yaml"
    config.write_text(OPTIONS)
    made = Experiment(resolve(["--config", str(config)]))
    made.dataset = make_dataset(train=128, validation=64, channels=3)  # in place of the one on disk
    return made


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def run(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    start_relaxation(experiment, path, resume=False).execute()
    return path


def read(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text())
    return content


def test_what_was_derived_is_within_the_budget(run: Path, experiment: Experiment) -> None:
    best = read(run / "best.json")
    architecture = experiment.space.parse(str(best["architecture"]))
    macs = Macs()(experiment.space.network(architecture)).total
    assert macs <= 60000
    assert best["costs"]["macs"] == macs  # type: ignore[index]
    assert list(architecture.choices) == best["choices"]


def test_the_archive_holds_what_was_derived_sampled_and_random(run: Path) -> None:
    archive = Archive(run / "archive.sqlite")
    purposes = [trial.purpose for trial in archive]
    archive.close()
    assert purposes == ["derived", *["sample"] * 3, *["random"] * 3]


def test_the_report_tells_probabilities_and_expected_costs(run: Path, experiment: Experiment) -> None:
    report = read(run / "report" / "report.json")
    probabilities = report["probabilities"]
    assert isinstance(probabilities, dict)
    assert list(probabilities) == [d.name for d in experiment.space.decisions]
    assert all(sum(options.values()) == pytest.approx(1) for options in probabilities.values())
    history = report["history"]
    assert isinstance(history, list)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(row["expected_macs"] > 0 for row in history)
    assert report["updates"] == 4  # of 2 epochs of 4 steps behind the warm-up
    text = (run / "report" / "report.md").read_text()
    for part in ("derived", "drawn by the probabilities", "random, of about equal cost", "stage2/unit1"):
        assert part in text
    for picture in ("search.svg", "probabilities.svg"):
        assert (run / "report" / picture).read_text().startswith("<?xml")


def test_an_interrupted_run_goes_on_to_the_same_end(run: Path, experiment: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "interrupted"
    first = start_relaxation(experiment, path, resume=False)
    save, count = first._tick, iter(range(100))

    def tick() -> None:
        save()
        if next(count) == 6:
            raise Interrupted

    first._tick = tick  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        first.execute()
    assert not (path / "best.json").exists()
    start_relaxation(experiment, path, resume=True).execute()
    assert (path / "best.json").read_text() == (run / "best.json").read_text()
    again, whole = (read(p / "report" / "report.json") for p in (path, run))
    for part in ("probabilities", "history", "sampled", "random"):
        assert again[part] == whole[part]


def test_a_directory_is_taken_once_unless_it_is_gone_on_with(run: Path, experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="holds a run already"):
        start_relaxation(experiment, run, resume=False)
    assert isinstance(start_relaxation(experiment, run, resume=True), RelaxationRun)


def test_a_corrupt_checkpoint_is_told_in_one_line(experiment: Experiment, tmp_path: Path) -> None:
    run = start_relaxation(experiment, tmp_path / "run", resume=False)
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_bytes(b"PK nothing")
    with pytest.raises(StorageError, match="corrupt"):
        run.execute()


def test_a_space_without_gates_is_refused() -> None:
    values = resolve(["--space.name", "enas_micro", "--search.method", "relaxation"])
    with pytest.raises(ConfigError, match="spaces with gates, which enas_micro has none of"):
        opened(Experiment(values))
