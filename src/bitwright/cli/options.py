"""What all commands share: the reader of options, the console, and how many threads a process takes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from .flags import translate

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from ..experiment import Experiment, LanguageExperiment

Action = Callable[[Sequence[str]], None]
AnyExperiment = TypeVar("AnyExperiment", bound="Experiment | LanguageExperiment")


class Parser(argparse.ArgumentParser):
    """argparse with our errors, and help that goes on with the options of an experiment."""

    def __init__(self, command: str, text: str, *, experiment: bool = True) -> None:
        super().__init__(f"bitwright {command}", description=text, allow_abbrev=False, add_help=False)
        self.add_argument("-h", "--help", action="store_true", help="show this text")
        self.experiment = experiment
        if experiment:
            from ..experiment import presets

            self.add_argument("--preset", help=f"where options start from, one or NAME,NAME: {', '.join(presets())}")
            self.add_argument(
                "--dataset",
                metavar="NAME",
                help="short for --dataset.name; folder:PATH takes images in folders by class",
            )
            self.add_argument("--data", metavar="DIR", help="short for --dataset.root")
            self.add_argument(
                "--import-flags",
                metavar="TEXT",
                help="a command line of the PyTorch program for recurrent ENAS, as it is; later options win",
            )
            self.add_argument(
                "--config", metavar="FILE", help="a YAML file of options; later ones and the command line win"
            )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    def read(self, arguments: Sequence[str], command: str) -> tuple[argparse.Namespace, list[str]]:
        """This command's own options, and the experiment's."""
        if "-h" in arguments or "--help" in arguments:
            print(self.format_help())
            if self.experiment:
                from ..experiment import experiment_parser

                print("Options of an experiment (see docs/experiments.md):\n")
                print(experiment_parser(self._components(arguments, command)).format_help().partition("\n\n")[2])
            raise SystemExit(0)
        translated = translate(arguments, command) if self.experiment else list(arguments)
        passed: list[str] = []
        kept: list[str] = []
        while translated:
            word = translated.pop(0)
            own = word.partition("=")[0] in self._option_string_actions
            if not word.startswith("--") or (own and not (self.experiment and word.startswith("--config"))):
                kept.append(word)
            elif "=" in word or not translated or translated[0].startswith("--"):
                passed.append(word)
            else:  # an option of the experiment with its value, which is not this command's RUN
                passed.append(f"{word}={translated.pop(0)}")
        known, rest = self.parse_known_args(kept)
        passed += rest
        if passed and not self.experiment:
            raise ConfigError(f"no option {passed[0]}; `{self.prog} --help` lists them")
        return known, passed

    def _components(self, arguments: Sequence[str], command: str) -> dict[str, str]:
        """What the arguments beside --help name, whose options are listed; the defaults if they hold a mistake."""
        from ..experiment import Experiment, component_names

        try:
            options, rest = self.read([word for word in arguments if word not in ("-h", "--help")], command)
            return component_names(rest, options.preset)
        except ConfigError:
            return Experiment.DEFAULTS


def open_console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error where that is a terminal, with these columns behind it."""
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    shown = (TextColumn("{task.description}"), BarColumn(), *columns)
    return Progress(*shown, console=console, transient=True, disable=not console.is_terminal)


def check_report(seed: int, out: Path) -> None:
    """ConfigError where a report cannot be made with that seed, or not there."""
    if seed < 0:
        raise ConfigError(f"a seed is at least 0, got {seed}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out is a folder, got the file {out}")


def run_action(command: str, actions: Mapping[str, str], functions: Sequence[Action], arguments: Sequence[str]) -> None:
    """Run one of a command's actions, which are told with a line each; the functions are in their order."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: bitwright {command} ACTION [options]\n")
        print("\n".join(f"  {name:<10}{text}" for name, text in actions.items()))
        print(f"\n`bitwright {command} ACTION --help` lists an action's options; see docs/{command}.md.")
        raise SystemExit(0)
    if arguments[0] not in actions:
        raise ConfigError(f"no action {arguments[0]!r}: {', '.join(actions)}")
    dict(zip(actions, functions, strict=True))[arguments[0]](arguments[1:])


def layer_table(*figures: str, title: str | None = None) -> Table:
    """A table of layers: name, operation and output, then `figures`."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("layer", "operation", "output", *figures):
        table.add_column(heading, justify="left" if heading in ("layer", "operation") else "right", no_wrap=True)
    return table


def open_experiment(values: dict[str, Any]) -> Experiment:
    """An experiment on images, with the process set up for long work."""
    from ..experiment import Experiment

    return prepared(Experiment(values))


def open_any(values: dict[str, Any]) -> Experiment | LanguageExperiment:
    """An experiment on images or text, with the process set up for long work."""
    from ..experiment import opened

    return prepared(opened(values))


def prepared(experiment: AnyExperiment) -> AnyExperiment:
    """The experiment, once the process is set up for long work."""
    from ..kernels import keep_freed_memory

    use_threads(experiment.threads)
    keep_freed_memory()
    return experiment


def use_threads(count: int) -> None:
    import torch

    if count < 0:
        raise ConfigError(f"threads are at least 0, got {count}")
    if count:  # more than there are cores help nobody
        torch.set_num_threads(min(count, os.cpu_count() or 1))
