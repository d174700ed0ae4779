"""A run on disk: where trainings go, what may change in a run that is resumed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bitwright import Architecture
from bitwright.errors import BitwrightError, ConfigError, InvalidArchitecture, StorageError
from bitwright.experiment import Experiment, read_yaml, resolve
from bitwright.experiment.trained import found_architecture, latest_training
from bitwright.run_directory import (
    TrainingRun,
    require_same,
    start_search,
    training_path,
    write_config,
)

SMALL = [
    *("--space.nodes", "1", "--space.cells", "1", "--space.reductions", "[]", "--space.filters", "2"),
    *("--space.stacks", "1", "--space.precisions", '["2"]', "--training.epochs", "1", "--training.batch", "512"),
    *("--training.dtype", "float32"),
]
CHOICES = (0, 0, 1, 0, 0, 2, 1, 3)
OTHER = (1, 1, 1, 1, 1, 1, 1, 1)


def experiment(*options: str) -> Experiment:
    return Experiment(resolve([*SMALL, *options]))


def one_line(error: pytest.ExceptionInfo[BitwrightError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def begin(path: Path, *, finished: bool) -> Path:
    """What a training leaves, without the training."""
    path.mkdir(parents=True)
    (path / "network.json").write_text("{}")
    if finished:
        (path / "result.json").write_text("{}")
        (path / "weights.safetensors").write_text("")
    return path


# where trainings go


def test_the_first_training_goes_to_train() -> None:
    assert training_path(Path("nowhere")) == Path("nowhere/train")


def test_a_further_training_goes_to_the_next_number(tmp_path: Path) -> None:
    for name in ("train", "train-2", "train-3"):
        assert training_path(tmp_path) == tmp_path / name
        begin(tmp_path / name, finished=True)


def test_an_unfinished_training_is_where_resuming_goes(tmp_path: Path) -> None:
    begin(tmp_path / "train", finished=True)
    begin(tmp_path / "train-2", finished=False)
    assert training_path(tmp_path, resume=True) == tmp_path / "train-2"
    assert training_path(tmp_path) == tmp_path / "train-2"  # which refuses to begin again


def test_resuming_returns_to_a_finished_training(tmp_path: Path) -> None:
    begin(tmp_path / "train", finished=True)
    begin(tmp_path / "train-2", finished=True)
    assert training_path(tmp_path, resume=True) == tmp_path / "train-2"
    assert training_path(tmp_path) == tmp_path / "train-3"


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert training_path(tmp_path) == tmp_path / "train"


def test_the_latest_training_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    for name in ("train", *(f"train-{n}" for n in range(2, 12))):
        begin(tmp_path / name, finished=True)
        assert latest_training(tmp_path) == tmp_path / name


def test_an_unfinished_training_is_not_the_latest(tmp_path: Path) -> None:
    begin(tmp_path / "train", finished=True)
    begin(tmp_path / "train-2", finished=False)
    assert latest_training(tmp_path) == tmp_path / "train"


def test_a_training_is_its_own_latest(tmp_path: Path) -> None:
    begin(tmp_path / "train", finished=True)
    begin(tmp_path / "train-2", finished=True)
    assert latest_training(tmp_path / "train") == tmp_path / "train"


def test_a_run_without_a_finished_training_is_refused_with_the_command(tmp_path: Path) -> None:
    begin(tmp_path / "train", finished=False)
    with pytest.raises(ConfigError) as caught:
        latest_training(tmp_path)
    assert f"bitwright train {tmp_path}" in one_line(caught)


# the configuration of a run


def test_equal_configurations_are_the_same() -> None:
    require_same(resolve(SMALL), resolve(SMALL), Path("config.yaml"))


@pytest.mark.parametrize("option", ["--device=cpu", "--threads=3", "--dataset.root=elsewhere"])
def test_machine_and_place_may_change(option: str) -> None:
    require_same(resolve(SMALL), resolve([*SMALL, option]), Path("config.yaml"))


@pytest.mark.parametrize(
    ("option", "old", "new"),
    [
        ("seed=3", "0", "3"),
        ("space.filters=5", "2", "5"),
        ("space.precisions=[binary]", "['2']", "['binary']"),
        ("supernet.epochs=9", "30", "9"),
        ("search.budgets={macs: 5}", "{}", "{'macs': 5.0}"),
        ("final.cells=3", "None", "3"),
        ("strategy.hidden=3", "64", "3"),
        ("dataset.validation=0.5", "0.2", "0.5"),
    ],
)
def test_another_option_may_not_change_and_is_named(option: str, old: str, new: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_same(resolve(SMALL), resolve([*SMALL, f"--{option}"]), Path("RUN/config.yaml"))
    name = option.partition("=")[0]
    assert f"RUN/config.yaml has {name}: {old}, not {new}" in one_line(caught)


def test_another_component_may_not_take_over() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.name: controller, not random_search"):
        require_same(resolve(SMALL), resolve([*SMALL, "--strategy.name", "random_search"]), Path("config.yaml"))


def test_a_budget_may_not_be_added_or_dropped() -> None:
    with_one, without = resolve([*SMALL, "--search.budgets", "{macs: 5}"]), resolve(SMALL)
    for old, new in ((with_one, without), (without, with_one)):
        with pytest.raises(ConfigError, match=r"search\.budgets"):
            require_same(old, new, Path("config.yaml"))


def test_a_written_configuration_is_read_back(tmp_path: Path) -> None:
    values = resolve([*SMALL, "--search.budgets", "{macs: 5}", "--dataset.root", str(tmp_path)])
    write_config(tmp_path / "config.yaml", values)
    assert read_yaml(tmp_path / "config.yaml") == values


def test_a_written_root_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "config.yaml", resolve([*SMALL, "--dataset.root", "images"]))
    assert read_yaml(tmp_path / "config.yaml")["dataset"]["root"] == str(tmp_path / "images")


# claiming a directory for a search


def test_a_search_takes_a_new_or_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty", "new/below"):
        start_search(experiment(), tmp_path / name, resume=False)
        assert [p.name for p in (tmp_path / name).iterdir() if p.is_file()] == ["config.yaml"]


def test_a_taken_directory_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    start_search(experiment(), tmp_path / "run", resume=False)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError) as caught:
        start_search(experiment("--seed", "4"), tmp_path / "run", resume=False)
    assert "--resume" in one_line(caught)
    assert "--out" in str(caught.value)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_with_something_else_in_it_is_refused(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        start_search(experiment(), tmp_path, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_resumed_search_keeps_the_configuration_that_is_there(tmp_path: Path) -> None:
    start_search(experiment(), tmp_path / "run", resume=False)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    start_search(experiment("--threads", "2"), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


# the architecture that was found


def test_the_found_architecture_is_read(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps({"architecture": f"enas_micro({' '.join(map(str, CHOICES))})", "more": 1}))
    assert found_architecture(path, experiment().space) == Architecture("enas_micro", CHOICES)


def test_a_missing_architecture_asks_for_the_search(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        found_architecture(tmp_path / "best.json", experiment().space)
    assert "has the search been completed?" in one_line(caught)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"3", b'"words"', b"{}", b'{"architecture": 3}', b"\xff"]
)
def test_a_corrupt_architecture_is_named_with_what_it_should_be(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "best.json").write_bytes(content)
    with pytest.raises(StorageError) as caught:
        found_architecture(tmp_path / "best.json", experiment().space)
    assert f"{tmp_path / 'best.json'} is corrupt" in one_line(caught)
    assert '{"architecture": "space(0 2 1 ...)"}' in str(caught.value)


def test_an_architecture_of_another_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"architecture": "enas_macro(0 1)"}')
    with pytest.raises(InvalidArchitecture, match="enas_macro"):
        found_architecture(tmp_path / "best.json", experiment().space)


# a training


@pytest.fixture
def training(tmp_path: Path) -> TrainingRun:
    return TrainingRun(experiment(), Architecture("enas_micro", CHOICES), tmp_path / "train")


def started(training: TrainingRun) -> TrainingRun:
    training.start(resume=False)
    return training


def test_a_started_training_has_configuration_and_network(training: TrainingRun) -> None:
    started(training)
    assert {p.name for p in training.path.iterdir()} == {"config.yaml", "network.json"}
    assert not training.is_complete
    opened = TrainingRun.open(training.path)
    assert opened.architecture == training.architecture
    assert opened.network == training.network


def test_a_training_in_a_taken_directory_is_refused(training: TrainingRun) -> None:
    started(training)
    with pytest.raises(ConfigError) as caught:
        training.start(resume=False)
    assert "--resume" in one_line(caught)


def test_a_training_of_another_architecture_is_not_resumed(training: TrainingRun) -> None:
    started(training)
    other = TrainingRun(training.experiment, Architecture("enas_micro", OTHER), training.path)
    with pytest.raises(ConfigError) as caught:
        other.start(resume=True)
    assert str(training.architecture) in one_line(caught)
    assert str(other.architecture) in str(caught.value)


def test_a_training_with_other_options_is_not_resumed(training: TrainingRun) -> None:
    started(training)
    other = TrainingRun(experiment("--training.lr", "0.5"), training.architecture, training.path)
    with pytest.raises(ConfigError, match=r"training\.lr: 0\.01, not 0\.5"):
        other.start(resume=True)


@pytest.mark.parametrize("choices", [(0, 0), (*CHOICES, 0), (0, 9, *CHOICES[2:]), (5, *CHOICES[1:])])
def test_an_architecture_that_does_not_fit_is_refused_before_anything_is_written(
    choices: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArchitecture):
        TrainingRun(experiment(), Architecture("enas_micro", choices), tmp_path / "train").start(resume=False)
    assert not (tmp_path / "train").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    path = tmp_path_factory.mktemp("trained") / "train"
    run = started(TrainingRun(experiment(), Architecture("enas_micro", CHOICES), path))
    run.execute()
    return run


def test_an_executed_training_is_complete(trained: TrainingRun) -> None:
    assert trained.is_complete
    assert latest_training(trained.path.parent) == trained.path


def test_weights_are_read_back_to_the_bit(trained: TrainingRun) -> None:
    read = trained.weights().state_dict()
    written = safetensors.torch.load_file(trained.path / "weights.safetensors")
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], written[name]) for name in read)
    best = torch.load(trained.path / "checkpoint.pt", weights_only=True)["best"]["weights"]
    assert all(torch.equal(read[name], best[name]) for name in read)


def changed(trained: TrainingRun, path: Path, change: Any) -> TrainingRun:
    """The training with other weights beside it."""
    tensors = safetensors.torch.load_file(trained.path / "weights.safetensors")
    name = min(tensors)
    change(tensors, name)
    safetensors.torch.save_file(tensors, path / "weights.safetensors")
    return TrainingRun(trained.experiment, trained.architecture, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, name: tensors.pop(name),
        lambda tensors, name: tensors.update({"nonsense": torch.zeros(1)}),
        lambda tensors, name: tensors.update({name: torch.zeros(1, 2, 3)}),
        lambda tensors, name: tensors.clear(),
    ],
    ids=["missing", "unexpected", "another shape", "none"],
)
def test_weights_that_do_not_fit_are_refused(change: Any, trained: TrainingRun, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        changed(trained, tmp_path, change).weights()
    assert f"{tmp_path / 'weights.safetensors'} does not fit the network" in one_line(caught)


@pytest.mark.parametrize("content", [b"", b"words", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{"])
def test_weights_that_are_no_tensors_are_refused(content: bytes, trained: TrainingRun, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(StorageError) as caught:
        TrainingRun(trained.experiment, trained.architecture, tmp_path).weights()
    assert "truncated or corrupt" in one_line(caught)


def test_missing_weights_are_named(trained: TrainingRun, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*weights\.safetensors"):
        TrainingRun(trained.experiment, trained.architecture, tmp_path).weights()
