"""Several ranks with parts of a batch do what one does with the whole; a rank that dies ends the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from torch import Tensor, distributed

from bitwright.cli import main
from bitwright.datasets import Dataset
from bitwright.network import Activation, BatchNorm, Conv2d, GlobalSumPool, Input, Linear, Network, Node
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.train.distributed import VARIABLES, Ranks, launched, ranks
from bitwright.train.fit import fit
from bitwright.train.recipe import Recipe

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bitwright.train.fit", "torch.distributed"])
RECIPE = Recipe(
    epochs=2, batch=32, optimizer="sgd", lr=0.02, schedule="constant", weight_decay=0.01, clip_norm=0.5, dtype="float32"
)


def network(*, norm: bool) -> Network:
    nodes = [Node(Input((1, 8, 8), offset=(128.0,), scale=(1 / 64,)))]
    for key, kernel in (("first", 3), ("second", 1)):
        nodes.append(Node(Conv2d(6, kernel, Real()), (len(nodes) - 1,), key))
        following = BatchNorm(Relu()) if norm else Activation(Relu())
        nodes.append(Node(following, (len(nodes) - 1,), f"{key}/after"))
    nodes.append(Node(GlobalSumPool(), (len(nodes) - 1,)))
    nodes.append(Node(Linear(4, Real()), (len(nodes) - 1,), "classes"))
    return Network(tuple(nodes))


class Case(NamedTuple):
    """A training on two ranks. batch: on each. of_one: what one rank does with the same images."""

    net: Network
    dataset: Dataset
    of_one: Recipe
    batch: int


class Found(NamedTuple):
    """The weights of both ranks, the history, and how many steps were made."""

    weights: list[dict[str, Tensor]]
    history: list[dict[str, float]]
    steps: int


@pytest.fixture(scope="module")
def cases(make_dataset: Callable[..., Dataset]) -> dict[str, Case]:
    # of 91 training images the last batch has 27, in parts of 13 and 14; of 33 validation images the ranks take 16, 17
    uneven, even = make_dataset(train=91, validation=33), make_dataset(train=128)
    drawn = replace(RECIPE, pad=1, flip=True, ema=0.5)
    own = replace(RECIPE, sync_norm=False, calibrate=False, epochs=1)
    return {
        "plain": Case(network(norm=False), uneven, drawn, 16),
        "normalised": Case(network(norm=True), uneven, drawn, 16),
        "gathered": Case(network(norm=False), even, replace(RECIPE, optimizer_batch=32), 8),
        "own statistics": Case(network(norm=True), even, own, 16),
        "gone on with": Case(network(norm=True), even, RECIPE, 16),
    }


@pytest.fixture(scope="module")
def found(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What two processes make of all cases; of the last, one rank has made the first 2 of 8 steps."""
    folder = tmp_path_factory.mktemp("ranks")
    begun = cases["gone on with"]
    fit(begun.net, begun.dataset, begun.of_one, save_to=folder / "gone on with.pt", stop_after=2)
    processes = [PROCESSES.Process(target=_rank, args=(rank, folder, cases)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    results = {}
    for name in cases:
        ranks_results = [torch.load(folder / f"{name} {rank}", weights_only=True) for rank in range(2)]
        steps = torch.load(folder / f"{name}.pt", weights_only=True)["step"]
        results[name] = Found([r["weights"] for r in ranks_results], ranks_results[0]["history"], steps)
    return results


def _rank(rank: int, folder: Path, cases: dict[str, Case]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name, case in cases.items():
        recipe = replace(case.of_one, batch=case.batch)
        fitted = fit(case.net, case.dataset, recipe, save_to=folder / f"{name}.pt")
        torch.save({"weights": dict(fitted.weights.state_dict()), "history": fitted.history}, folder / f"{name} {rank}")
    distributed.destroy_process_group()


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / (1 + other[name].abs().max())) for name in one)


@pytest.mark.parametrize("name", ["plain", "normalised", "gathered", "gone on with"])
def test_two_ranks_with_parts_of_the_batch_train_as_one_with_the_whole(
    name: str, cases: dict[str, Case], found: dict[str, Found]
) -> None:
    case = cases[name]
    one = fit(case.net, case.dataset, replace(case.of_one, optimizer_batch=0))
    assert largest_difference(found[name].weights[0], dict(one.weights.state_dict())) < 1e-5
    for row, expected in zip(found[name].history, one.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
        assert row["validation_accuracy"] == expected["validation_accuracy"]
        assert row["train_accuracy"] == expected["train_accuracy"]


@pytest.mark.parametrize("name", ["plain", "normalised", "gathered", "own statistics", "gone on with"])
def test_all_ranks_end_with_the_same_weights(name: str, found: dict[str, Found]) -> None:
    assert largest_difference(*found[name].weights) == 0.0


def test_a_step_is_one_batch_on_every_rank(found: dict[str, Found]) -> None:
    assert {name: result.steps for name, result in found.items()} == {
        "plain": 6,
        "normalised": 6,
        "gathered": 16,
        "own statistics": 4,
        "gone on with": 8,
    }


def test_nothing_is_initialised_without_the_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # alone it says nothing
    with launched() as join:
        assert join(torch.device("cpu")) == Ranks(0, 1)
        assert not distributed.is_initialized()
    assert ranks() == Ranks()


# the command


TINY = str(Path(__file__).parents[1] / "end_to_end" / "tiny.yaml")
ARCH = "0 0 1 1 0 0 2 1 0 0 1 1 0 0 2 1"
TRAIN = ["train", "--config", TINY, "--training.batch", "64", "--arch", ARCH, "--out"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
QUIET = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def torchrun(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "bitwright", *arguments],
        env=os.environ | QUIET,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def own_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("bitwright train:")]


def test_a_mistake_is_told_once_by_all_ranks(tmp_path: Path) -> None:
    process = torchrun([*TRAIN, str(tmp_path / "run"), "--training.lr", "-1"])
    _, errors = process.communicate()
    assert process.returncode != 0
    (line,) = own_lines(errors)
    assert "lr is positive" in line
    assert not (tmp_path / "run").exists()


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return sorted(int(pid) for pid in children.split())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_training_which_then_goes_on_to_the_same_end(
    victim: int, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ["--training.epochs", "4", "--search.checkpoint_seconds", "0"]
    process = torchrun([*TRAIN, str(whole), *options])
    _, errors = process.communicate()
    assert process.returncode == 0
    assert "destroy_process_group" not in errors

    process = torchrun([*TRAIN, str(run), *options])
    while process.poll() is None and not (run / "checkpoint.pt").exists():
        time.sleep(0.01)
    os.kill(ranks_of(process)[victim], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode != 0
    (line,) = own_lines(errors)
    assert "another process of this training has ended" in line
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] >= 1
    assert not (run / "result.json").exists()

    process = torchrun([*TRAIN, str(run), *options, "--resume"])
    process.communicate()
    assert process.returncode == 0
    first, second = (safetensors.torch.load_file(path / "weights.safetensors") for path in (run, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert main(["evaluate", str(run)]) == 0
