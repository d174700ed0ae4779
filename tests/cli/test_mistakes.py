"""Mistakes that once gave tracebacks, spoiled a directory or did the wrong thing in silence."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright.cli import main
from bitwright.cli.flags import translate
from bitwright.errors import ConfigError
from bitwright.experiment import resolve

SEARCH = "search --config tiny.yaml --out new"


@pytest.mark.parametrize(
    "options",
    [
        "--space.nodes 0",
        "--space.precisions [nope]",
        "--space.reductions [99]",
        "--child_keep_prob 0",
        "--dataset folder:missing",
        "--strategy.temperature 0",
        "--strategy.learning_rate -1",
        "--strategy.hidden 0",
        "--strategy.adam_beta1 7",
        "--strategy.baseline_decay 7",
        "--supernet.cutout -1",
        "--supernet.adam_epsilon -1",
        "--supernet.lr_min 1",
        "--training.cutout -1",
        "--search.warmup_epochs -1",
        "--search.round_epochs 0",
        "--search.checkpoint_seconds -1",
        "--final.cells 0",
        "--final.reductions [9]",
        "--dataset.validation 7",
        "--dataset.test 0.9",
        "--seed 99999999999999999999999999",
        "--strategy.nam random_search",
        "--supernet.epo 7",
        "--child_fixed_arc '0 1'",
        "--child_use_aux_heads=maybe",
    ],
)
def test_a_refused_search_leaves_nothing_behind(options: str, refused: Callable[..., str]) -> None:
    refused(shlex.split(f"{SEARCH} {options}"))


def test_a_search_without_its_data_can_be_repeated(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*given: Any, **options: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    assert main(["search", "--preset", "mnist-quick", "--out", "new"]) == 2
    assert not Path("new").exists()
    assert not Path("data").exists()


def test_a_config_file_may_follow_an_equals_sign(refused: Callable[..., str]) -> None:
    assert "missing.yaml" in refused(["search", "--config=missing.yaml", "--out", "new"])


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("nonsense: 3", "supernet"),
        ("training: {epoch: 3}", "epochs"),
        ("space: {classes: 3}", "nodes"),
        ("strategy: {name: random_search, hidden: 3}", "name"),
        ("space: [1]", "option: value"),
        ("search: 3", "option: value"),
        ("supernet: fast", "option: value"),
        ("a: &a [*a]", "alias"),
        ("space: {reductions: [x]}", "tuple"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_what_is_allowed(text: str, known: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=known):
        resolve(["--config", str(path)])


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{section}:"
            for section in ("space", "supernet", "search", "dataset", "final", "training", "seed", "device")
        ),
        "supernet: {epochs: null}",
        "search: {budgets: null}",
        "dataset: {root: null}",
        "space: {name: null}",
    ],
)
def test_what_is_left_empty_keeps_its_default(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert resolve(["--config", str(path)]) == resolve([])


def test_bits_may_be_numbers_and_a_section_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("dataset: mnist\nspace: {precisions: [binary, 4], stem_precision: 4}")
    values = resolve(["--config", str(path)])
    assert values["dataset"]["name"] == "mnist"
    assert values["space"]["precisions"] == ["binary", "4"]
    assert values["space"]["stem_precision"] == "4"


@pytest.mark.parametrize("word", ["--nochild_use_aux_heads=true", "--nochild_use_aux_heads=3"])
def test_a_negated_flag_takes_no_value(word: str) -> None:
    with pytest.raises(ConfigError, match="no value"):
        translate([word], "search")


@pytest.mark.parametrize("arguments", [[], ["data", "list", "extra"]])
def test_what_is_missing_or_too_much_is_refused(arguments: list[str], refused: Callable[..., str]) -> None:
    refused(arguments)


def damaged(place: Path, command: str) -> tuple[list[str], Path]:
    """A command that resumes, and the checkpoint it will read."""
    if command == "search":
        (place / "run/best.json").unlink()
        return shlex.split("search --config tiny.yaml --out run --resume"), place / "run/checkpoints/search.pt"
    (place / "run/train/result.json").unlink()
    return ["train", "run", "--resume"], place / "run/train/checkpoint.pt"


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def foreign(path: Path) -> None:
    torch.save({"a": 1}, path)


def pickled(path: Path) -> None:
    path.write_bytes(b"\x80\x02]q\x00.")


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize("damage", [emptied, halved, foreign, pickled])
def test_a_damaged_checkpoint_is_named_and_left_alone(
    command: str, damage: Callable[[Path], None], place: Path, refused: Callable[..., str]
) -> None:
    arguments, path = damaged(place, command)
    damage(path)
    text = refused(arguments)
    assert path.name in text
    assert "weights_only" not in text


def test_a_second_process_in_the_same_run_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys, time; from pathlib import Path; from bitwright.run_directory import alone_in\n" + (
        "with alone_in(Path('run')):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        arguments, _ = damaged(place, "search")
        assert main(arguments) == 2
        other.send_signal(signal.SIGKILL)
    assert "another process" in capsys.readouterr().err
    assert main(arguments) == 0


def test_resuming_a_finished_training_says_so_and_starts_no_other(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "run", "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert not Path("run/train-2").exists()


@pytest.mark.parametrize("command", ["evaluate", "show"])
def test_only_what_resumes_is_told_to_resume(
    command: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitwright.cli.commands.Experiment.__init__", stop)
    assert main([command, "run"]) == 130
    assert "--resume" not in capsys.readouterr().err
