"""Mistakes of a user: each costs one line on standard error and exit status 2, and loses nothing."""

from __future__ import annotations

import gzip
import os
import pickle
import shlex
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright import catalogue
from bitwright.cli import COMMANDS, main
from bitwright.experiment import presets

Refused = Callable[[list[str]], str]
TINY = "search --config tiny.yaml --out new"
ARCH = "0 0 1 1 0 0 2 1 0 0 1 1 0 0 2 1"  # fits the space of tiny.yaml

# a command line, and what its line on standard error must say
MISTAKES = [
    # commands
    ("nonsense", "no command 'nonsense'", *COMMANDS),
    ("Search", "no command 'Search'"),
    ("--nonsense", "no command '--nonsense'"),
    # words that no command knows
    (f"{TINY} --nonsense 3", "--nonsense", "supernet", "training"),
    (f"{TINY} --nonsense", "--nonsense"),
    (f"{TINY} --space.nonsense 3", "--space.nonsense", "nodes", "precisions"),
    (f"{TINY} --supernet.nonsense=3", "--supernet.nonsense", "epochs"),
    (f"{TINY} stray", "stray"),
    (f"{TINY} -x", "-x"),
    ("train searched stray", "stray"),
    ("train searched --nonsense 3", "--nonsense"),
    ("evaluate run --nonsense", "--nonsense"),
    ("evaluate run --nonsense 3", "--nonsense"),
    ("evaluate run run", "run"),
    ("evaluate run --supernet.epochs 3", "--supernet.epochs"),
    ("show run --nonsense 3", "--nonsense"),
    ("data list --nonsense", "--nonsense"),
    ("data nonsense", "nonsense", "list", "check", "download"),
    ("demo --nonsense 3", "--nonsense"),
    ("demo stray", "stray"),
    # values that are missing
    ("search --out", "--out"),
    ("search --config", "--config"),
    ("search --config tiny.yaml --preset", "--preset"),
    ("search --config tiny.yaml --space.nodes", "--space.nodes"),
    ("search --config tiny.yaml --dataset", "--dataset"),
    ("train", "run", "--arch"),
    ("train --preset digits-demo", "--arch"),
    ("train searched --arch", "--arch"),
    ("evaluate", "run"),
    ("evaluate --json", "run"),
    ("show", "run", "--arch"),
    ("data", "action"),
    ("data check", "mnist", "digits"),
    ("data download", "mnist", "cifar10"),
    # names
    (f"{TINY} --preset nonsense", "'nonsense'", *presets()),
    (f"{TINY} --dataset nonsense", "'nonsense'", *catalogue.names("datasets")),
    (f"{TINY} --space nonsense", "'nonsense'", *catalogue.names("spaces")),
    (f"{TINY} --strategy nonsense", "'nonsense'", *catalogue.names("strategies")),
    ("train searched --dataset nonsense", "'nonsense'", *catalogue.names("datasets")),
    ("train searched --preset nonsense", "'nonsense'", *presets()),
    ("show searched --preset nonsense", "'nonsense'", *presets()),
    ("demo --preset nonsense", "'nonsense'", *presets()),
    ("data check nonsense", "'nonsense'", *catalogue.names("datasets")),
    ("data download nonsense", "'nonsense'", *catalogue.names("datasets")),
    (f"{TINY} --search.budgets '{{flops: 3}}'", "'flops'", *catalogue.names("costs")),
    (f"{TINY} --search.budgets.flops 3", "'flops'", *catalogue.names("costs")),
    # values
    (f"{TINY} --supernet.epochs many", "supernet.epochs", "many"),
    (f"{TINY} --supernet.epochs 0", "epochs", "0"),
    (f"{TINY} --supernet.epochs -3", "epochs", "-3"),
    (f"{TINY} --supernet.epochs 2.5", "supernet.epochs", "2.5"),
    (f"{TINY} --supernet.lr nan", "supernet.lr", "nan"),
    (f"{TINY} --supernet.loss nonsense", "supernet.loss", "squared_hinge"),
    (f"{TINY} --search.warmup_epochs 3", "warm-up"),
    (f"{TINY} --search.updates 0", "updates", "0"),
    (f"{TINY} --search.budgets '{{weight_bits: 0}}'", "weight_bits", "0"),
    (f"{TINY} --search.budgets '{{weight_bits: few}}'", "search.budgets", "few"),
    (f"{TINY} --search.budgets 5", "search.budgets", "5"),
    (f"{TINY} --space.nodes two", "space.nodes", "two"),
    (f"{TINY} --space.precisions binary", "space.precisions", "binary"),
    (f"{TINY} --seed -1", "seed", "-1"),
    (f"{TINY} --seed lucky", "seed", "lucky"),
    (f"{TINY} --threads -1", "threads", "-1"),
    (f"{TINY} --threads all", "threads", "all"),
    (f"{TINY} --device cuda:99", "cuda:99"),
    (f"{TINY} --device nonsense", "nonsense", "auto", "cpu", "cuda"),
    ("train searched --threads -1", "threads", "-1"),
    ("train searched --device cuda:99", "cuda:99"),
    ("train searched --training.epochs 0", "epochs", "0"),
    ("train searched --final.cells 0", "cells", "0"),
    ("train searched --final.reductions [7]", "reductions", "7"),
    ("train searched --final.filters 0", "filters", "0"),
    ("evaluate run --threads -1", "threads", "-1"),
    ("evaluate run --threads all", "threads", "all"),
    ("evaluate run --device cuda:99", "cuda:99"),
    ("evaluate run --device nonsense", "nonsense"),
    # flags of the original programs
    ("search --num_epochs", "--num_epochs"),
    (f"{TINY} --child_num_layers many", "--child_num_layers", "many"),
    (f"{TINY} --child_keep_prob much", "--child_keep_prob", "much"),
    (f"{TINY} --child_l2_reg -1", "weight_decay"),
    (f"{TINY} --child_drop_path_keep_prob 0.6", "--child_drop_path_keep_prob", "search"),
    (f"{TINY} --data_format NCHW", "--data_format"),
    ("train searched --controller_lr 0.1", "--controller_lr", "train"),
    ("train searched --child_num_cells 5", "--child_num_cells", "train"),
    # architectures
    ("train searched --arch '0 1 2'", "16 integers", "got 3"),
    ("train searched --arch ''", "16 integers", "got 0"),
    (f"train searched --arch '{ARCH} 0'", "16 integers", "got 17"),
    (f"train searched --fixed-arc '{ARCH.replace('2 1', '2 7')}'", "normal/3/op2", "0 to 6", "got 7"),
    (f"train searched --arch '{ARCH.replace('2 1', '3 1')}'", "normal/3/index2", "0 to 2", "got 3"),
    (f"train searched --child_fixed_arc '-1{ARCH[1:]}'", "normal/2/index1", "got -1"),
    (f"train searched --arch '{ARCH[:-1]}x'", "integers"),
    (f"train searched --arch 'other({ARCH})'", "other", "enas_micro"),
    (f"train searched --space.nodes 3 --arch '{ARCH}'", "24 integers", "got 16"),
    ("train --preset digits-demo --arch '0 1'", "24 integers", "got 2"),
    ("train searched --preset digits-demo", "24 integers", "got 16"),
    ("show searched --arch '0 1 2'", "16 integers", "got 3"),
    ("show --arch '0 1 2'", "integers", "got 3"),
    # runs that are not there, or not finished
    ("train missing", "missing"),
    ("train file", "file", "config"),
    ("train empty", "empty", "config"),
    ("train missing/best.json", "missing/best.json"),
    ("train searched/config.yaml", "searched/config.yaml"),
    ("evaluate missing", "missing"),
    ("evaluate empty", "empty", "bitwright train empty"),
    ("evaluate searched", "searched", "bitwright train searched"),
    ("evaluate file", "file"),
    ("show missing", "missing"),
    ("show empty", "empty/best.json"),
    ("show file", "file"),
    # places that are taken, or cannot be written
    ("search --config tiny.yaml --out run", "run", "--resume", "--out"),
    ("search --out run", "run", "--resume", "--out"),
    ("search --config tiny.yaml --out .", "not empty", "--out"),
    ("search --config tiny.yaml --out run/report --resume", "run/report", "--out"),
    ("search --config tiny.yaml --out file", "file"),
    ("search --config tiny.yaml --out file/new", "file/new"),
    ("search --config tiny.yaml --out /proc/new", "/proc/new"),
    ("train run --out run/train", "run/train", "--resume", "--out"),
    ("train searched --out file", "file"),
    ("train searched --out file/new", "file/new"),
    ("train searched --out /proc/new", "/proc/new"),
    ("show run --out file", "file"),
    ("show run --out file/new", "file/new"),
    ("show run --out /proc/new", "/proc/new"),
    ("demo --out run", "run", "--resume"),
    ("demo --out file/new", "file/new"),
    # options that a resumed run may not change
    ("search --config tiny.yaml --out run --resume --supernet.epochs 5", "supernet.epochs", "3", "5"),
    ("search --config tiny.yaml --out run --resume --seed 7", "seed", "0", "7"),
    ("search --config tiny.yaml --out run --resume --space.nodes 3", "space.nodes", "2", "3"),
    ("search --config tiny.yaml --out run --resume --strategy random_search", "strategy", "random_search"),
    ("search --config tiny.yaml --out run --resume --search.budgets '{macs: 9}'", "search.budgets", "macs"),
    ("train run --out run/train --resume --training.epochs 3", "training.epochs", "2", "3"),
    (f"train run --out run/train --resume --arch '{ARCH}'", ARCH),
    # data
    ("search --config tiny.yaml --config missing.yaml --out new", "missing.yaml"),
    ("search --config empty --out new", "empty"),
    ("search --config file --out new", "file"),
    ("data check folder:missing", "missing"),
    ("data check folder:file", "file"),
    ("data check folder:empty", "empty", "class"),
    ("data check digits extra", "extra"),
    ("data download digits", "digits", "scikit-learn"),
    ("data download folder:empty", "image_folder"),
]


@pytest.mark.parametrize(("command", "said"), [pytest.param(c, said, id=c) for c, *said in MISTAKES])
def test_a_mistake_is_told_in_one_line_and_changes_nothing(command: str, said: list[str], refused: Refused) -> None:
    line = refused(shlex.split(command))
    assert line.startswith("bitwright")
    assert [part for part in said if part not in line] == []


def test_the_line_begins_with_the_command(refused: Refused) -> None:
    for command in ("search", "train", "show", "evaluate", "demo"):
        assert refused([command, "--device", "nonsense", *(["run"] * (command == "evaluate"))]).startswith(
            f"bitwright {command}: "
        )


def test_without_a_command_the_commands_are_listed_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert all(command in output.out + output.err for command in COMMANDS)


def test_the_program_itself_exits_with_2_and_one_line() -> None:
    program = Path(sys.executable).with_name("bitwright")
    done = subprocess.run([program, "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


# runs with damaged files


def remove(path: str) -> Callable[[Path], None]:
    return lambda run: (run / path).unlink()


def write(path: str, content: str | bytes) -> Callable[[Path], None]:
    def replace(run: Path) -> None:
        (run / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return replace


def truncate(path: str) -> Callable[[Path], None]:
    return lambda run: os.truncate(run / path, (run / path).stat().st_size // 2)


def empty(path: str) -> Callable[[Path], None]:
    return lambda run: os.truncate(run / path, 0)


def folder(path: str) -> Callable[[Path], None]:
    def replace(run: Path) -> None:
        (run / path).unlink()
        (run / path).mkdir()

    return replace


def tensors(path: str, content: Any) -> Callable[[Path], None]:
    return lambda run: torch.save(content, run / path)


class Code:
    """Unpickling it would run a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-pickle",)


CORRUPT_BEST = [
    ("", "best.json is corrupt"),
    ("{", "best.json is corrupt"),
    ("[]", "best.json is corrupt"),
    ("3", "best.json is corrupt"),
    ("{}", "best.json is corrupt"),
    ('{"architecture": [1, 2]}', "best.json is corrupt"),
    ('{"architecture": "enas_micro(0 1 2)"}', "16 integers"),
    ('{"architecture": "other(0 1 2)"}', "other"),
    ('{"architecture": "words"}', "integers"),
    (b"\xff\xfe", "best.json is corrupt"),
]


@pytest.mark.parametrize("command", ["train", "show"])
@pytest.mark.parametrize(("content", "said"), CORRUPT_BEST)
def test_a_best_json_that_holds_no_architecture_is_named(
    command: str, content: str | bytes, said: str, place: Path, refused: Refused
) -> None:
    write("best.json", content)(place / "searched")
    assert said in refused([command, "searched"])


@pytest.mark.parametrize("command", ["train", "show"])
def test_a_run_without_best_json_asks_whether_the_search_is_complete(
    command: str, place: Path, refused: Refused
) -> None:
    remove("best.json")(place / "searched")
    line = refused([command, "searched"])
    assert "searched/best.json" in line
    assert "search been completed" in line


CORRUPT_CONFIG = ["", "{", "- a", "a: b: c", b"\xff\xfe"]


@pytest.mark.parametrize("command", ["train searched", "show searched", "search --config tiny.yaml --out searched"])
@pytest.mark.parametrize("content", CORRUPT_CONFIG)
def test_a_configuration_that_is_no_mapping_is_named(
    command: str, content: str | bytes, place: Path, refused: Refused
) -> None:
    write("config.yaml", content)(place / "searched")
    resume = ["--resume"] if command.startswith("search") else []
    assert "searched/config.yaml" in refused([*command.split(), *resume])


def test_a_configuration_of_another_program_is_refused_by_the_option(place: Path, refused: Refused) -> None:
    write("config.yaml", "nonsense: 3")(place / "searched")
    assert "nonsense" in refused(["train", "searched"])


def test_a_best_json_without_its_configuration_asks_for_a_preset(place: Path, refused: Refused) -> None:
    remove("config.yaml")(place / "searched")
    assert "--preset" in refused(["train", "searched/best.json"])


def test_a_run_that_lost_its_configuration_is_not_searched_anew(place: Path, refused: Refused) -> None:
    remove("config.yaml")(place / "searched")
    for more in ([], ["--resume"]):
        assert "searched" in refused(["search", "--config", "tiny.yaml", "--out", "searched", *more])


DAMAGED_TRAININGS = [
    (remove("train/weights.safetensors"), "weights.safetensors"),
    (truncate("train/weights.safetensors"), "weights.safetensors is truncated or corrupt"),
    (empty("train/weights.safetensors"), "weights.safetensors is truncated or corrupt"),
    (write("train/weights.safetensors", "words"), "weights.safetensors is truncated or corrupt"),
    (folder("train/weights.safetensors"), "weights.safetensors"),
    (remove("train/network.json"), "network.json"),
    (write("train/network.json", "{"), "network.json is corrupt"),
    (remove("train/config.yaml"), "train/config.yaml"),
    (write("train/config.yaml", "{"), "train/config.yaml"),
    (remove("train/result.json"), "bitwright train run"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGED_TRAININGS)
def test_a_damaged_training_is_not_evaluated(
    damage: Callable[[Path], None], said: str, place: Path, refused: Refused
) -> None:
    damage(place / "run")
    assert said in refused(["evaluate", "run"])


def test_weights_of_another_network_are_not_evaluated(place: Path, refused: Refused) -> None:
    write("train/network.json", f'{{"architecture": "enas_micro({ARCH})"}}')(place / "run")
    assert "does not fit the network" in refused(["evaluate", "run"])


def interrupted(place: Path, command: str) -> tuple[list[str], str]:
    """Makes the run look as if the command had been interrupted; the command, and its checkpoint."""
    if command == "search":
        remove("best.json")(place / "run")
        return ["search", "--config", "tiny.yaml", "--out", "run", "--resume"], "checkpoints/search.pt"
    remove("train/result.json")(place / "run")
    return ["train", "run", "--resume"], "train/checkpoint.pt"


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize(
    "damage",
    [
        *(truncate, folder, lambda path: write(path, "words"), lambda path: write(path, b"\x80\x02]q\x00.")),
        *(lambda path: tensors(path, [torch.zeros(2)]), lambda path: tensors(path, torch.zeros(2))),
    ],
    ids=["truncated", "folder", "words", "pickle", "list", "tensor"],
)
def test_a_damaged_checkpoint_is_named(
    command: str, damage: Callable[[str], Callable[[Path], None]], place: Path, refused: Refused
) -> None:
    arguments, checkpoint = interrupted(place, command)
    damage(checkpoint)(place / "run")
    assert f"run/{checkpoint}" in refused(arguments)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("command", ["search", "train"])
def test_a_checkpoint_that_holds_code_does_not_run_it(command: str, place: Path, refused: Refused) -> None:
    arguments, checkpoint = interrupted(place, command)
    write(checkpoint, pickle.dumps(Code()))(place / "run")
    assert f"run/{checkpoint}" in refused(arguments)
    assert not (place / "made-by-a-pickle").exists()


def sql(statement: str) -> Callable[[Path], None]:
    def execute(run: Path) -> None:
        connection = sqlite3.connect(run / "archive.sqlite")
        with connection:
            connection.execute(statement)
        connection.close()

    return execute


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (write("archive.sqlite", "words" * 1000), "archive.sqlite"),
        (folder("archive.sqlite"), "archive.sqlite"),
        (sql("ALTER TABLE trials RENAME COLUMN costs TO prices"), "archive.sqlite"),
        (sql("UPDATE trials SET architecture = 'words' WHERE idx = 2"), "'words'"),
    ],
)
def test_a_damaged_archive_is_not_gone_on_with(
    damage: Callable[[Path], None], said: str, place: Path, refused: Refused
) -> None:
    arguments, _ = interrupted(place, "search")
    damage(place / "run")
    assert said in refused(arguments)


def test_an_archive_with_fewer_trials_than_the_checkpoint_is_not_gone_on_with(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, _ = interrupted(place, "search")
    remove("archive.sqlite")(place / "run")
    assert main(arguments) == 2
    assert "the archive holds 0 trials, the checkpoint knows 16" in capsys.readouterr().err
    assert not (place / "run" / "best.json").exists()


# data sets


def idx(values: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(place: Path) -> Path:
    """A folder with four IDX files of the right form."""
    root = place / "mnist"
    root.mkdir()
    for part, count in (("train", 30), ("t10k", 10)):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 28, 28))))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return root


BROKEN_IDX: list[tuple[str, bytes]] = [
    ("train-images-idx3-ubyte", b""),
    ("train-images-idx3-ubyte", b"words"),
    ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28)))[:-1]),
    ("train-images-idx3-ubyte", idx(np.zeros((30, 28, 28))) + b"\x00"),
    ("train-images-idx3-ubyte", idx(np.zeros(30))),
    ("train-images-idx3-ubyte", gzip.compress(idx(np.zeros((30, 28, 28))), mtime=0)[:-20]),
    ("train-images-idx3-ubyte", b"\x1f\x8bwords"),
    ("train-labels-idx1-ubyte", idx(np.zeros(29))),
    ("train-labels-idx1-ubyte", idx(np.full(30, 10))),
    ("t10k-images-idx3-ubyte", b"words"),
    ("t10k-labels-idx1-ubyte", b"words"),
]


@pytest.mark.parametrize(("name", "content"), BROKEN_IDX)
def test_a_broken_file_of_a_data_set_is_named(name: str, content: bytes, mnist: Path, refused: Refused) -> None:
    (mnist / name).write_bytes(content)
    assert f"mnist/{name}" in refused(["data", "check", "mnist", "--data", "mnist"])
    assert f"mnist/{name}" in refused(["data", "check", "mnist", "--data", "."])


def test_a_data_set_that_validates_on_everything_is_refused(mnist: Path, refused: Refused) -> None:
    line = refused(["data", "check", "mnist", "--data", "mnist"])  # it has 30 images, and validates on 5,000
    assert "30" in line
    assert "5000" in line


def test_without_a_network_the_missing_files_and_their_place_are_named(
    place: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: Any, **options: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    (place / "data" / "mnist").mkdir(parents=True)
    line = refused(["data", "download", "mnist"])
    assert "no network" in line
    assert "put train-images-idx3-ubyte.gz" in line
    assert "data/mnist" in line
    assert "--data" in line


def test_a_download_that_arrives_damaged_is_not_kept(
    place: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "data" / "mnist").mkdir(parents=True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *arguments, **options: (place / "file").open("rb"))
    assert "checksum" in refused(["data", "download", "mnist"])


@pytest.fixture
def images(place: Path) -> Path:
    """A folder of twenty images in each of two classes."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = place / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return place / "images"


def test_a_folder_of_images_is_a_data_set(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "folder:images"]) == 0
    assert "2 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "cat" / "0.png").write_text("words"), "cat/0.png"),
        (lambda root: os.truncate(root / "dog" / "9.png", 60), "dog/9.png"),
        (lambda root: Image.new("L", (8, 9)).save(root / "cat" / "0.png"), "different sizes"),
        (lambda root: shutil.rmtree(root / "dog"), "one folder per class"),
        (lambda root: (shutil.rmtree(root / "dog"), shutil.rmtree(root / "cat")), "one folder per class"),
        (lambda root: [path.unlink() for path in root.rglob("*.png")], "no images"),
        (lambda root: [path.unlink() for path in root.rglob("?*.png") if len(path.stem) > 1], "too few images"),
    ],
    ids=["no image", "truncated", "another size", "one class", "no class", "no images", "few images"],
)
def test_a_broken_folder_of_images_is_named(
    change: Callable[[Path], object], said: str, images: Path, refused: Refused
) -> None:
    change(images)
    line = refused(["data", "check", "folder:images"])
    assert "images" in line
    assert said in line


# interruption


@pytest.mark.parametrize("command", ["search", "train"])
def test_an_interrupted_command_exits_with_130_and_names_resume(
    command: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    arguments, _ = interrupted(place, command)
    monkeypatch.setattr("bitwright.run_directory.Journal.__init__", interrupt)
    assert main(arguments) == 130
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"bitwright {command}" in errors
    assert "--resume" in errors
