"""A search or a training that dies at any moment goes on with --resume and ends as if nothing had happened.

Commands run in processes of their own and die at a chosen moment: before call number n of a function. Every moment is
chosen so that something has been written that the next checkpoint would have covered.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bitwright.cli import main
from bitwright.trial import Archive

TINY = str(Path(__file__).with_name("tiny.yaml"))
ARCH = "0 0 1 1 0 0 2 1 0 0 1 1 0 0 2 1"
SEARCH = ("search", "--config", TINY, "--search.checkpoint_seconds", "0", "--out")
TRAIN = (
    "train",
    "--config",
    TINY,
    "--search.checkpoint_seconds",
    "0",
    "--training.epochs",
    "3",
    "--arch",
    ARCH,
    "--out",
)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["bitwright.cli.commands", "torch.utils.tensorboard", "sklearn.datasets", "scipy.stats", "matplotlib.figure"]
)


class Ended(NamedTuple):
    """status: the exit status, negative for a signal. errors: what standard error received."""

    status: int
    errors: str


def run_until(moment: tuple[str, int], happens: Callable[[], None], arguments: Iterable[object]) -> Ended:
    """Runs a command in a new process, in which something happens before the given call of a function."""
    reading, writing = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_run, args=([str(a) for a in arguments], moment, happens, writing))
    process.start()
    writing.close()
    with open(reading.fileno(), closefd=False) as stream:
        errors = stream.read()
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, errors)


def _run(arguments: list[str], moment: tuple[str, int], happens: Callable[[], None], errors: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.dup2(errors.fileno(), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    owner_name, _, name = moment[0].rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    function = getattr(owner, name)
    calls = 0

    def counted(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment[1]:
            happens()
        return function(*given, **options)

    setattr(owner, name, counted)
    sys.exit(main(arguments))


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def disk_full() -> None:
    """From now on no file of this process grows beyond 50,000 bytes, which is less than a checkpoint takes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def nothing_can_be_written() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


# what two runs must have in common


def findings(run: Path) -> list[tuple[Any, ...]]:
    archive = Archive(run / "archive.sqlite")
    archive.close()
    return [(t.index, t.purpose, t.architecture, t.measurement.accuracy, t.measurement.costs) for t in archive]


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two checkpoints differ in a bit; seconds may."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = [f"{at}.{key}" for key in one.keys() ^ other.keys()]
        return found + [
            d for k in one.keys() & other.keys() - {"seconds"} for d in differences(one[k], other[k], f"{at}.{k}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{at}.{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    else:
        same = type(one) is type(other) and one == other
    return [] if same else [at]


def checkpoint_differences(one: Path, other: Path, name: str) -> list[str]:
    return differences(*(torch.load(run / name, weights_only=True) for run in (one, other)))


def without_seconds(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content | {"seconds": None}


def log_lines(path: Path) -> list[str]:
    return [re.sub(r"mins\s*=.*", "", line) for line in path.read_text().splitlines()]


def is_in_order(lines: list[str], among: list[str]) -> bool:
    rest = iter(among)
    return all(line in rest for line in lines)


def assert_same_search(run: Path, expected: Path) -> None:
    assert findings(run) == findings(expected)
    assert checkpoint_differences(run, expected, "checkpoints/search.pt") == []
    assert (run / "best.json").read_bytes() == (expected / "best.json").read_bytes()
    assert without_seconds(run / "report" / "report.json") == without_seconds(expected / "report" / "report.json")
    assert is_in_order(log_lines(expected / "search.log"), log_lines(run / "search.log"))
    assert list(run.rglob("*.part")) == []


def assert_same_training(run: Path, expected: Path) -> None:
    assert (run / "weights.safetensors").read_bytes() == (expected / "weights.safetensors").read_bytes()
    assert without_seconds(run / "result.json") == without_seconds(expected / "result.json")
    assert checkpoint_differences(run, expected, "checkpoint.pt") == []
    assert is_in_order(log_lines(expected / "train.log"), log_lines(run / "train.log"))
    assert list(run.rglob("*.part")) == []


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    events = EventAccumulator(str(run / "events")).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing happened to."""
    run = tmp_path_factory.mktemp("searched") / "run"
    assert main([*SEARCH, str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing happened to."""
    run = tmp_path_factory.mktemp("trained") / "train"
    assert main([*TRAIN, str(run)]) == 0
    return run


# kill -9

STEP = "bitwright.evaluators.shared_weights.train_step"  # 9 in the warm-up and in each of the two rounds
RECORD, SAVE = "bitwright.trial.Archive.record", "bitwright.train.checkpoint.save"
RANK = "bitwright.evaluators.shared_weights.SharedWeights.evaluate_fully"
FIT_STEP = "bitwright.train.fit.train_step"  # 9 in an epoch
SEARCH_MOMENTS = {
    "in the warm-up": (STEP, 5),
    "before the strategy is told what is recorded": ("bitwright.strategies.controller.Controller.tell", 2),
    "while a checkpoint is put in its place": ("os.replace", 16),
    "in the second stand-alone training": (FIT_STEP, 14),
}
MORE_SEARCH_MOMENTS = {
    "before anything is computed": ("bitwright.run_directory.SharedWeights.__init__", 1),
    "before the first step of a round": (STEP, 10),
    "before a batch is recorded": (RECORD, 2),
    "before what was told is in a checkpoint": ("bitwright.run_directory.SearchRun._after_batch", 1),
    "before the samples of a round": ("bitwright.run_directory.SearchRun._after_round", 1),
    "while candidates are ranked": (RANK, 3),
    "in the first stand-alone training": (FIT_STEP, 4),
    "while a round trains shared weights": (STEP, 24),
    "before the samples of a round are in the log": ("bitwright.run_directory.architecture_lines", 2),
    "while random architectures are ranked": (RANK, 6),
    "before the report": ("bitwright.run_directory.write_report", 1),
    "before best.json": ("bitwright.files.write_json", 1),
}
TRAINING_MOMENTS = {
    "in the second epoch": (FIT_STEP, 14),
    "before an epoch is in the log": ("bitwright.journal.Journal.line", 2),
    "before the result is written": ("bitwright.files.write_json", 2),
}
MORE_TRAINING_MOMENTS = {
    "before anything is computed": ("bitwright.run_directory.fit", 1),
    "in the first epoch": (FIT_STEP, 4),
    "before an epoch is validated": ("bitwright.train.fit.calibrate", 2),
    "while a checkpoint is put in its place": ("os.replace", 12),
    "before the weights are written": ("safetensors.torch.save", 1),
}


def moments(now: dict[str, tuple[str, int]], later: dict[str, tuple[str, int]]) -> list[Any]:
    """Moments by name, the second half marked slow."""
    marked = [pytest.param(moment, id=name, marks=pytest.mark.slow) for name, moment in later.items()]
    return [pytest.param(moment, id=name) for name, moment in now.items()] + marked


@pytest.mark.parametrize("moment", moments(SEARCH_MOMENTS, MORE_SEARCH_MOMENTS))
def test_a_search_killed_at_any_moment_ends_as_if_it_had_not_been(
    moment: tuple[str, int], searched: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert run_until(moment, killed, [*SEARCH, run]).status == -signal.SIGKILL
    assert not (run / "best.json").exists()
    assert main([*SEARCH, str(run), "--resume"]) == 0
    assert_same_search(run, searched)


@pytest.mark.parametrize("moment", moments(TRAINING_MOMENTS, MORE_TRAINING_MOMENTS))
def test_a_training_killed_at_any_moment_ends_as_if_it_had_not_been(
    moment: tuple[str, int], trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "train"
    assert run_until(moment, killed, [*TRAIN, run]).status == -signal.SIGKILL
    assert not (run / "result.json").exists()
    assert main([*TRAIN, str(run), "--resume"]) == 0
    assert_same_training(run, trained)


@pytest.mark.slow
def test_a_search_may_die_again_and_again(searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moments = [(STEP, 3), (STEP, 12), (RECORD, 3), (FIT_STEP, 4)]
    for moment, resume in zip(moments, ([], ["--resume"], ["--resume"], ["--resume"]), strict=True):
        assert run_until(moment, killed, [*SEARCH, run, *resume]).status == -signal.SIGKILL
    assert main([*SEARCH, str(run), "--resume"]) == 0
    assert_same_search(run, searched)


@pytest.mark.parametrize("moment", [pytest.param((STEP, 24), marks=pytest.mark.slow), (RECORD, 5)])
def test_with_seldom_checkpoints_a_search_returns_to_the_last_and_ends_the_same(
    moment: tuple[str, int], searched: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    seldom = [*SEARCH[:-1], "--search.checkpoint_seconds", "1e9", "--out", str(run)]
    assert run_until(moment, killed, seldom).status == -signal.SIGKILL
    assert torch.load(run / "checkpoints" / "search.pt", weights_only=True)["trials"] == 8  # round 1 and its samples
    assert main([*seldom, "--resume"]) == 0
    assert findings(run) == findings(searched)
    assert checkpoint_differences(run, searched, "checkpoints/search.pt") == []


def test_the_curve_of_a_resumed_training_has_every_epoch_once(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "train"
    moment = ("bitwright.train.fit.calibrate", 3)
    assert run_until(moment, killed, [*TRAIN, run]).status == -signal.SIGKILL
    time.sleep(1.1)  # event files go by the second they were begun in
    assert main([*TRAIN, str(run), "--resume"]) == 0
    assert [epoch for epoch, _ in curve(run, "train/loss")] == [1, 2, 3]
    for tag in ("train/loss", "train/validation_accuracy"):
        assert curve(run, tag) == curve(trained, tag)


# everything that draws random numbers or keeps a state of its own
ALL_AT_ONCE = {
    "search": [
        *("--space.wiring", "classic", "--space.auxiliary", "true", "--space.dropout", "0.3", "--supernet.cutout", "3"),
        *("--supernet.optimizer", "sgd", "--supernet.pad", "1", "--supernet.flip", "true", "--strategy.entropy_weight"),
        *("0.1", "--space.share_precisions", "false", "--supernet.schedule", "exponential"),
    ],
    "train": [
        *("--training.ema", "0.9", "--training.drop_path", "0.4", "--training.cutout", "3", "--training.flip", "true"),
        *("--training.pad", "1", "--training.optimizer", "sgd", "--final.dropout", "0.3", "--space.nodes", "2"),
        *("--final.cells", "4", "--final.reductions", "[1]", "--training.scale_updates", "true"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [(STEP, 5), (STEP, 24), ("bitwright.strategies.controller.Controller.tell", 3)])
def test_a_search_with_every_source_of_randomness_is_resumed_to_the_bit(
    moment: tuple[str, int], tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = [*SEARCH[:-1], *ALL_AT_ONCE["search"], "--out"]
    assert main([*options, str(whole)]) == 0
    assert run_until(moment, killed, [*options, run]).status == -signal.SIGKILL
    assert main([*options, str(run), "--resume"]) == 0
    assert_same_search(run, whole)


@pytest.mark.parametrize("step", [pytest.param(5, marks=pytest.mark.slow), 13])
def test_a_training_with_every_source_of_randomness_is_resumed_to_the_bit(step: int, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = [*TRAIN[:-1], *ALL_AT_ONCE["train"], "--out"]
    assert main([*options, str(whole)]) == 0
    moment = (FIT_STEP, step)
    assert run_until(moment, killed, [*options, run]).status == -signal.SIGKILL
    assert main([*options, str(run), "--resume"]) == 0
    assert_same_training(run, whole)


@pytest.mark.slow
def test_a_demo_killed_in_its_training_goes_on_there(tmp_path: Path) -> None:
    demo = ["demo", "--config", TINY, "--search.round_epochs", "1", "--search.checkpoint_seconds", "0", "--out"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    moment = (FIT_STEP, 2 * 9 + 5)  # behind two stand-alone trainings
    assert run_until(moment, killed, [*demo, run]).status == -signal.SIGKILL
    assert (run / "best.json").exists()
    for path, resume in ((run, ["--resume"]), (whole, [])):
        assert main([*demo, str(path), *resume]) == 0
    assert_same_training(run / "train", whole / "train")


# interruption from outside


def test_an_interrupted_search_says_how_to_go_on(searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = run_until((STEP, 14), interrupted, [*SEARCH, run])
    assert ended == Ended(130, "bitwright search: interrupted; the same command with --resume goes on\n")
    assert main([*SEARCH, str(run), "--resume"]) == 0
    assert_same_search(run, searched)


def test_an_interrupted_training_says_how_to_go_on(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "train"
    ended = run_until((FIT_STEP, 14), interrupted, [*TRAIN, run])
    assert ended == Ended(130, "bitwright train: interrupted; the same command with --resume goes on\n")
    assert main([*TRAIN, str(run), "--resume"]) == 0
    assert_same_training(run, trained)


LONGER = ("search", "--config", TINY, "--supernet.epochs", "9", "--search.checkpoint_seconds")


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of eight rounds that nothing happened to."""
    run = tmp_path_factory.mktemp("longer") / "run"
    assert main([*LONGER, "1e9", "--out", str(run)]) == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seen", ["checkpoint", "third round"])
def test_the_program_itself_may_be_stopped_from_outside(
    sent: signal.Signals, seen: str, longer: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = [*LONGER, "0", "--out", str(run)]
    program = Path(sys.executable).with_name("bitwright")
    process = subprocess.Popen(
        [program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore it, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    path, text = {
        "checkpoint": (run / "checkpoints" / "search.pt", b""),
        "third round": (run / "search.log", b"Epoch 3: Eval"),
    }[seen]
    while process.poll() is None and not (path.exists() and text in path.read_bytes()):
        time.sleep(0.005)
    process.send_signal(sent)
    _, errors = process.communicate()
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    assert errors.count("\n") == (1 if sent == signal.SIGINT else 0)
    assert main([*arguments, "--resume"]) == 0
    assert findings(run) == findings(longer)
    assert checkpoint_differences(run, longer, "checkpoints/search.pt") == []


# a full disk


@pytest.mark.parametrize("save", [pytest.param(2, marks=pytest.mark.slow), 12])
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(save: int, searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = run_until((SAVE, save), disk_full, [*SEARCH, run])
    assert ended.status == 2
    assert ended.errors.count("\n") == 1
    assert f"cannot write {run / 'checkpoints' / 'search.pt'}" in ended.errors
    state = torch.load(run / "checkpoints" / "search.pt", weights_only=True)
    assert state["evaluator"]["steps"] <= save - 1
    assert list(run.rglob("*.part")) == []
    assert main([*SEARCH, str(run), "--resume"]) == 0
    assert_same_search(run, searched)


@pytest.mark.parametrize("save", [pytest.param(3, marks=pytest.mark.slow), 14])
def test_a_disk_that_fills_up_in_a_training_loses_no_checkpoint(save: int, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "train"
    ended = run_until((SAVE, save), disk_full, [*TRAIN, run])
    assert ended.status == 2
    assert ended.errors.count("\n") == 1
    assert f"cannot write {run / 'checkpoint.pt'}" in ended.errors
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == save - 1
    assert main([*TRAIN, str(run), "--resume"]) == 0
    assert_same_training(run, trained)


@pytest.mark.parametrize(
    "moment",
    [
        (RECORD, 3),
        pytest.param(("bitwright.cli.commands.start_search", 1), marks=pytest.mark.slow),
        pytest.param(("bitwright.run_directory.Journal.line", 2), marks=pytest.mark.slow),
        pytest.param(("bitwright.run_directory.write_report", 1), marks=pytest.mark.slow),
        pytest.param(("bitwright.files.write_json", 1), marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_takes_nothing_more_costs_one_line_and_no_work(
    moment: tuple[str, int], searched: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = run_until(moment, nothing_can_be_written, [*SEARCH, run])
    assert ended.status == 2
    assert ended.errors.count("\n") == 1
    assert main([*SEARCH, str(run), "--resume"]) == 0
    assert_same_search(run, searched)


def test_a_resumed_search_does_not_need_the_files_it_writes_anew(searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    for name in ("report", "events", "checkpoints/standalone"):
        shutil.rmtree(run / name)
    for name in ("best.json", "search.log"):
        (run / name).unlink()
    assert main([*SEARCH, str(run), "--resume"]) == 0
    assert findings(run) == findings(searched)
    assert without_seconds(run / "report" / "report.json") == without_seconds(searched / "report" / "report.json")
