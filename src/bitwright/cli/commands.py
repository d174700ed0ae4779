"""What each command does: read options, call the library, tell people."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.table import Table

from .. import catalogue
from ..architecture import Architecture
from ..errors import ConfigError, DataError
from ..experiment import DEFAULTS, Experiment, experiment_parser, presets, read_yaml, resolve
from ..kernels import keep_freed_memory
from ..report.evaluation import Evaluation
from ..report.evaluation import evaluate as evaluate_network
from ..report.figures import draw_cells
from ..run_directory import (
    TrainingRun,
    found_architecture,
    latest_training,
    start_search,
    training_path,
)
from ..spaces.enas_micro import CELLS, EnasMicro
from .flags import translate

DEMO = "digits-demo"


class _Parser(argparse.ArgumentParser):
    """argparse with our errors, and help that goes on with the options of an experiment."""

    def __init__(self, command: str, text: str, *, experiment: bool = True) -> None:
        super().__init__(f"bitwright {command}", description=text, allow_abbrev=False, add_help=False)
        self.add_argument("-h", "--help", action="store_true", help="show this text")
        self.experiment = experiment
        if experiment:
            self.add_argument("--preset", help=f"where options start from, one or NAME,NAME: {', '.join(presets())}")
            self.add_argument(
                "--dataset",
                metavar="NAME",
                help="short for --dataset.name; folder:PATH takes images in folders by class",
            )
            self.add_argument("--data", metavar="DIR", help="short for --dataset.root")
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
                print("Options of an experiment (see docs/experiments.md):\n")
                print(experiment_parser(DEFAULTS).format_help().partition("\n\n")[2])
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


def search(arguments: Sequence[str]) -> None:
    parser = _Parser("search", "Search for an architecture and write the best one to OUT/best.json.")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="the run directory (default: runs/ and the preset's name)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    options, rest = parser.read(arguments, "search")
    experiment = _experiment(resolve(rest, options.preset))
    out = options.out or Path("runs") / (options.preset or experiment.values["dataset"]["name"])
    console = _console()
    _search(experiment, out, options.resume, console)
    console.print(f"\nnext: bitwright train {out}")


def train(arguments: Sequence[str]) -> None:
    parser = _Parser("train", "Train an architecture from scratch and keep what does best on the validation images.")
    parser.add_argument("source", nargs="?", type=Path, metavar="RUN", help="a run directory or its best.json")
    parser.add_argument(
        "--arch",
        "--fixed-arc",
        metavar="TEXT",
        help='the architecture, such as "0 2 1 ...", in place of the run\'s best',
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the training goes (default: RUN/train, train-2, ...)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the training that is there")
    options, rest = parser.read(arguments, "train")
    run, best = _source(options.source)
    if run is not None and (run / "config.yaml").exists() and options.preset is None:
        rest = ["--config", str(run / "config.yaml"), *rest]
    elif run is not None and best is not None and options.preset is None and not rest:
        raise ConfigError(f"there is no config.yaml beside {best}; name a --preset or --config")
    experiment = _experiment(resolve(rest, options.preset))
    if options.arch is not None:
        architecture = experiment.final_space.parse(options.arch)
    elif best is not None:
        architecture = found_architecture(best, experiment.final_space)
    else:
        raise ConfigError("name a run directory, a best.json, or an architecture with --arch")
    out = options.out or training_path(
        run or Path("runs") / (options.preset or experiment.values["dataset"]["name"]), resume=options.resume
    )
    console = _console()
    _train(TrainingRun(experiment, architecture, out), options.resume, console)
    console.print(f"\nnext: bitwright evaluate {out if options.out else out.parent}")


def evaluate(arguments: Sequence[str]) -> None:
    parser = _Parser("evaluate", "Test accuracy, confusion matrix and costs of a trained network.", experiment=False)
    parser.add_argument("run", type=Path, help="a run directory or a training in it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data set is now")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all cores")
    options, _ = parser.read(arguments, "evaluate")
    if not options.run.exists():
        raise ConfigError(f"there is no {options.run}")
    path = latest_training(options.run)
    values = read_yaml(path / "config.yaml") | {"device": options.device, "threads": options.threads}
    if options.data is not None:
        values["dataset"] = values["dataset"] | {"root": str(options.data)}
    _use_threads(options.threads)
    training = TrainingRun.open(path, values)
    evaluation = evaluate_network(training.network, training.weights(), training.experiment.dataset)
    if options.json:
        extra = {"run": str(path), "architecture": str(training.architecture), "dataset": values["dataset"]["name"]}
        print(json.dumps(extra | evaluation.as_json()))
    else:
        _print_evaluation(_console(), evaluation, training.architecture)


def show(arguments: Sequence[str]) -> None:
    parser = _Parser("show", "Describe an architecture and draw its cells as SVG, PNG and DOT.")
    parser.add_argument("source", nargs="?", type=Path, metavar="RUN", help="a run directory or its best.json")
    parser.add_argument("--arch", "--fixed-arc", metavar="TEXT", help='the architecture, such as "0 2 1 ..."')
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go (default: RUN/report, or here)")
    options, rest = parser.read(arguments, "show")
    run, best = _source(options.source)
    if run is not None and (run / "config.yaml").exists() and options.preset is None:
        rest = ["--config", str(run / "config.yaml"), *rest]
    elif run is not None and best is not None and best.exists() and options.preset is None and not rest:
        raise ConfigError(f"there is no config.yaml beside {best}; name a --preset or --config")
    space = _experiment(resolve(rest, options.preset)).space
    assert isinstance(space, EnasMicro)
    if options.arch is None and best is None:
        raise ConfigError("name a run directory, a best.json, or an architecture with --arch")
    architecture = space.parse(options.arch) if options.arch is not None else found_architecture(best or Path(), space)
    console = _console()
    console.print(str(architecture))
    for kind in CELLS:
        console.print(f"\n{kind} cell")
        for node, edges in enumerate(space.cell(architecture, kind), start=2):
            parts = " + ".join(f"{space.operations[edge.op].name}({_node_name(edge.source)})" for edge in edges)
            console.print(f"  node {node} = {parts}")
        unused = ", ".join(_node_name(i) for i in space.unused(architecture, kind))
        console.print(f"  output = concat({unused})")
    for warning in space.warnings(architecture):
        console.print(f"warning: {warning}")
    folder = options.out or (run / "report" if run is not None else Path())
    for path in draw_cells(space, architecture, folder):
        console.print(f"wrote {path}")


def data(arguments: Sequence[str]) -> None:
    parser = _Parser("data", "List the data sets, check one, or download it.", experiment=False)
    parser.add_argument("action", choices=("list", "check", "download"))
    parser.add_argument("name", nargs="?", help="a data set; folder:PATH takes images in folders by class")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="its folder (default: data)")
    options, _ = parser.read(arguments, "data")
    console = _console()
    if options.action == "list":
        if options.name is not None:
            raise ConfigError(f"`data list` takes no name, got {options.name}")
        for name in catalogue.names("datasets"):
            module = sys.modules[catalogue.find("datasets", name).__module__]
            console.print(f"{name:<15}{(module.__doc__ or '').splitlines()[0]}")
        return
    if options.name is None:
        raise ConfigError(
            f"`data {options.action}` wants the name of a data set: {', '.join(catalogue.names('datasets'))}"
        )
    kind, colon, path = options.name.partition(":")
    name, root = ("image_folder", Path(path)) if colon and kind == "folder" else (options.name, options.data)
    load = catalogue.find("datasets", name)
    files = getattr(sys.modules[load.__module__], "FILES", ())
    if options.action == "download" and not files:
        raise ConfigError(
            f"{name} is not downloaded; it is {'part of scikit-learn' if name == 'digits' else 'your own'}"
        )
    loaded = load(root)  # downloads what is missing
    for file in files:
        found = next((p for p in root.rglob(file.name) if p.is_file()), None)
        if found is not None and hashlib.md5(found.read_bytes()).hexdigest() != file.md5:
            raise DataError(f"{found} is not the published file: its MD5 is not {file.md5}")
    mean, deviation = loaded.pixel_statistics
    console.print(
        f"{name}: {len(loaded.train)} training, {len(loaded.validation)} validation and {len(loaded.test)} test images"
        f" of {'x'.join(map(str, loaded.shape))}, {len(loaded.classes)} classes\n"
        f"training pixels: mean {', '.join(f'{m:.2f}' for m in mean)},"
        f" deviation {', '.join(f'{d:.2f}' for d in deviation)}"
    )


def demo(arguments: Sequence[str]) -> None:
    parser = _Parser("demo", f"Search, train and evaluate with the preset {DEMO}.")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help=f"the run directory (default: runs/{DEMO}, or the next free name)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    options, rest = parser.read(arguments, "demo")
    experiment = _experiment(resolve(rest, options.preset or DEMO))
    out = options.out or _free(Path("runs") / (options.preset or DEMO), options.resume)
    console = _console()
    _search(experiment, out, options.resume, console)
    architecture = found_architecture(out / "best.json", experiment.final_space)
    training = TrainingRun(experiment, architecture, out / "train")
    console.print()
    _train(training, options.resume, console)
    console.print()
    evaluation = evaluate_network(training.network, training.weights(), experiment.dataset)
    _print_evaluation(console, evaluation, training.architecture)
    console.print(f"\nthe cells are drawn in {out}/report/cells.svg and cells.png; the search: {out}/report/report.md")


def _search(experiment: Experiment, out: Path, resume: bool, console: Console) -> None:
    if resume and not (out / "config.yaml").exists():
        console.print(f"there is nothing to resume in {out}; the search starts")
    run = start_search(experiment, out, resume=resume, console=console)
    if (out / "best.json").exists():
        console.print(f"the search in {out} is complete")
        return
    space = experiment.space
    console.print(
        f"searching {space.name} on {experiment.values['dataset']['name']} in {out}:"
        f" {experiment.rounds} rounds of {experiment.search.updates * experiment.search.batch} trials"
    )
    report = run.execute()
    accuracy = report.best.measurement.accuracy
    console.print(f"\nbest architecture: {report.best.architecture}")
    console.print(f"validation accuracy with shared weights: {accuracy:.4f}")
    console.print(
        f"candidates against random architectures: {report.advantage:+.4f} on average (p = {report.p_value:.2g})"
    )
    if report.correlation is not None:
        console.print(
            "rank correlation of shared-weight with stand-alone accuracy: Kendall's tau"
            f" {report.correlation['kendall_tau']:.2f} over {len(report.compared)} architectures"
        )
    for warning in report.warnings:
        console.print(f"warning: {warning}")


def _train(training: TrainingRun, resume: bool, console: Console) -> None:
    training.start(resume=resume)
    if training.is_complete:
        console.print(f"the training in {training.path} is complete")
        return
    console.print(f"training {training.architecture} in {training.path}")
    fitted = training.execute(console)
    console.print(
        f"best validation accuracy {fitted.validation_accuracy:.4f} in epoch {fitted.best_epoch},"
        f" {fitted.seconds / 60:.1f} min"
    )


def _experiment(values: dict[str, Any]) -> Experiment:
    """The experiment, with the process set up for long work."""
    experiment = Experiment(values)
    _use_threads(experiment.threads)
    keep_freed_memory()
    return experiment


def _use_threads(count: int) -> None:
    if count < 0:
        raise ConfigError(f"threads are at least 0, got {count}")
    if count:  # more than there are cores help nobody
        torch.set_num_threads(min(count, os.cpu_count() or 1))


def _source(source: Path | None) -> tuple[Path | None, Path | None]:
    """The run directory and the best.json that a positional argument names."""
    if source is None:
        return None, None
    if not source.exists():
        raise ConfigError(f"there is no {source}")
    if source.is_dir():
        return source, source / "best.json"
    return source.parent, source


def _free(path: Path, resume: bool) -> Path:
    """`path`, or with a number behind it if it is taken; with `resume` the last that is taken."""
    candidates = [path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 10_000))]
    free = next(i for i, p in enumerate(candidates) if not p.exists())
    return candidates[free - 1] if resume and free else candidates[free]


def _node_name(node: int) -> str:
    return {0: "h[i-2]", 1: "h[i-1]"}.get(node, f"node {node}")


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def _print_evaluation(console: Console, evaluation: Evaluation, architecture: Architecture) -> None:
    table = Table(title="layers, each with the normalisation behind it", title_justify="left", box=None, pad_edge=False)
    for heading in (
        "layer",
        "operation",
        "output",
        "w x a bits",
        "parameters",
        "weight bits",
        "MACs",
        "bit operations",
    ):
        table.add_column(heading, justify="left" if heading in ("layer", "operation") else "right", no_wrap=True)
    for layer in evaluation.blocks:
        figures = (layer.parameters, layer.weight_bits, layer.macs, layer.bit_operations)
        table.add_row(
            layer.name,
            layer.operation,
            "x".join(map(str, layer.output)),
            layer.precision,
            *(f"{int(f):,}" if f else "" for f in figures),
        )
    console.print(table)
    confusion = Table(title="\nconfusion: rows are the true classes", title_justify="left", box=None, pad_edge=False)
    confusion.add_column("")
    for name in evaluation.classes:
        confusion.add_column(name, justify="right")
    for name, row in zip(evaluation.classes, evaluation.confusion_matrix, strict=True):
        confusion.add_row(name, *(str(n) if n else "." for n in row))
    console.print(confusion)
    console.print(
        f"\n{architecture}\n"
        f"test accuracy    {evaluation.test_accuracy:.4f} on {evaluation.test_images:,} images"
        f" (validation {evaluation.validation_accuracy:.4f})\n"
        f"parameters       {evaluation.parameters:,}\n"
        f"weight bits      {evaluation.weight_bits:,} ({evaluation.weight_bits / 8192:,.1f} KiB)\n"
        f"MACs             {evaluation.macs:,}\n"
        f"bit operations   {evaluation.bit_operations:,}"
    )
