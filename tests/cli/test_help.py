"""What the program says of itself."""

from __future__ import annotations

import inspect

import pytest

from bitwright.cli import COMMANDS, main
from bitwright.experiment import Experiment, SearchOptions, experiment_parser, presets
from bitwright.train.recipe import Recipe
from bitwright.version import VERSION


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a successful command prints; argparse leaves by SystemExit."""
    try:
        status: object = main(list(arguments))
    except SystemExit as leaving:
        status = leaving.code
    output = capsys.readouterr()
    assert (status, output.err) == (0, "")
    return output.out


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_help_lists_the_commands(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, word)
    assert [command for command in COMMANDS if f"  {command} " not in text] == []


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_printed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, word) == f"bitwright {VERSION}\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_every_command_has_help(command: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"usage: bitwright {command}" in said(capsys, command, word)


@pytest.mark.parametrize("command", ["search", "train", "demo", "show"])
def test_help_lists_every_option_of_an_experiment(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, command, "--help")
    expected = [f"--training.{name} " for name in inspect.signature(Recipe).parameters]
    expected += [f"--search.{name} " for name in inspect.signature(SearchOptions).parameters]
    expected += [f"--{name} " for name in ("seed", "threads", "device", "preset", "config", "dataset", "data")]
    assert [option for option in expected if option not in text.replace("\n", " ")] == []
    assert [preset for preset in presets() if preset not in "".join(text.split())] == []


def test_help_lists_the_options_of_the_space_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "search", "--space", "enas_rnn", "--help")
    options = ("model.hidden", "supernet.word_dropout", "shared.reward_windows", "search.derive_samples")
    assert [option for option in options if f"--{option} " not in text] == []


def test_help_wins_over_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: bitwright search" in said(capsys, "search", "--nonsense", "--help")


def test_data_list_lists_the_data_sets_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "data", "list").splitlines()
    names = ["cifar10", "digits", "fashion_mnist", "image_folder", "imagenet", "mnist", "svhn"]
    names += ["penn_treebank", "wikitext2", "text_folder"]
    assert [line.split()[0] for line in lines] == names


def test_data_check_tells_the_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "data", "check", "digits")
    assert "digits: 1079 training, 359 validation and 359 test images of 1x8x8, 10 classes" in text


def test_every_option_of_an_experiment_has_a_help_text() -> None:
    parser = experiment_parser(Experiment.DEFAULTS)
    silent = [a.dest for a in parser._actions if "." in a.dest and not a.help]
    assert silent == []
    assert "<" not in "".join(str(group.title) for group in parser._action_groups)
