"""What the commands do with recurrent cells and text: search, derive, train, evaluate, show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..errors import ConfigError
from ..experiment import LanguageExperiment, kind_of, opened, read_yaml, resolve
from ..experiment.trained import latest_training
from ..recurrent.cell import RecurrentCell, published_name, read_dag
from ..recurrent.drawing import draw_cell_in
from ..recurrent.run import CellSearchRun, CellTraining, derive_again, perplexities
from .options import Parser, open_console, prepared


def search(experiment: LanguageExperiment, out: Path, *, resume: bool, init: Path | None) -> None:
    console = open_console()
    run = CellSearchRun(experiment, out, console, init)
    if resume and not (out / "config.yaml").exists():
        console.print(f"there is nothing to resume in {out}; the search starts")
    run.start(resume=resume)
    if run.is_complete:
        console.print(f"the search in {out} is complete")
        return
    options = experiment.search
    console.print(
        f"searching {experiment.space.name} ({experiment.space.variant}) on {experiment.corpus.name} in {out}:"
        f" {experiment.supernet.epochs} rounds of {options.rewards} rewards"
    )
    found = run.execute()
    console.print(f"\nbest derived cell: {found.trial.architecture}")
    _print_cell(console, found.cell)
    console.print(f"validation perplexity with shared weights: {found.perplexity:.2f}")
    for warning in experiment.space.warnings(found.trial.architecture):
        console.print(f"warning: {warning}")


def derive(arguments: Sequence[str]) -> None:
    parser = Parser("derive", "Sample cells from a search, and keep the best on the validation text.", experiment=False)
    parser.add_argument("run", type=Path, help="a search of recurrent cells, complete or not, or a training of one")
    parser.add_argument("--samples", type=int, metavar="N", help="cells to sample (default: as the search's config)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where dag.json and best.json go (default: RUN)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the text is now")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all cores")
    options, _ = parser.read(arguments, "derive")
    experiment = _of_run(options.run, options.data, options.device, options.threads)
    count = experiment.search.derive_samples if options.samples is None else options.samples
    if count < 1:
        raise ConfigError(f"--samples is at least 1, got {count}")
    console, out = open_console(), options.out or options.run
    if (out / "network.json").exists():
        raise ConfigError(f"{out} is a training of one cell; say with --out where the derived one goes")
    found = derive_again(experiment, options.run, count, out, console)
    console.print(f"best of {count} cells: {found.trial.architecture}")
    _print_cell(console, found.cell)
    console.print(f"validation perplexity with shared weights: {found.perplexity:.2f}\nwrote {out / 'dag.json'}")


def given_cell(
    experiment: LanguageExperiment, source: Path | None, text: str | None, file: Path | None
) -> RecurrentCell:
    """The cell to train: of a dag.json, of the text of an architecture, or what the search in `source` found."""
    if file is not None:
        return read_dag(file)
    if text is not None:
        return experiment.space.cell(experiment.space.parse(text))
    if source is None:
        raise ConfigError("name a run directory, a cell with --cell dag.json, or an architecture with --arch")
    return read_dag(source / "dag.json" if source.is_dir() else source)


def train(
    experiment: LanguageExperiment,
    cell: RecurrentCell,
    out: Path,
    *,
    resume: bool,
    init: Path | None,
    stop_after: int | None,
) -> bool:
    """Whether the training came to its end."""
    console, training = open_console(), CellTraining(experiment, cell, out, init)
    training.start(resume=resume)
    if training.is_complete:
        console.print(f"the training in {out} is complete")
        return True
    console.print(f"training {experiment.space.architecture_of(cell)} in {out}")
    fitted = training.execute(console, stop_after=stop_after)
    minutes = f"{fitted.seconds / 60:.1f} min"
    if not fitted.finished:
        console.print(f"stopped before its end, {minutes}; --resume goes on")
    else:
        console.print(f"best validation perplexity {fitted.perplexity:.2f} in epoch {fitted.best_epoch}, {minutes}")
    return fitted.finished


def evaluate(path: Path, data: Path | None, *, device: str, threads: int, as_json: bool) -> None:
    """path: a training, or a search and the newest training in it."""
    if not (path / "checkpoints" / "search.pt").exists() or any(path.glob("train*/result.json")):
        path = latest_training(path)
    experiment = _of_run(path, data, device, threads)
    cell, model, found = perplexities(experiment, path)
    parameters, bits = sum(model.parts(cell).values()), model.weight_bits(cell)
    architecture = str(experiment.space.architecture_of(cell))
    if as_json:
        figures = {f"{name}_perplexity": value for name, value in found.items()}
        facts = {"run": str(path), "architecture": architecture, "corpus": experiment.corpus.name}
        print(json.dumps(facts | figures | {"parameters": parameters, "weight_bits": bits}))
        return
    console = open_console()
    _print_cell(console, cell)
    console.print(
        f"\n{architecture}\n"
        f"test perplexity  {found['test']:.2f} on {len(experiment.corpus.test):,} words"
        f" (validation {found['validation']:.2f})\n"
        f"parameters       {parameters:,}\n"
        f"weight bits      {bits:,} ({bits / 8192:,.1f} KiB)"
    )


def show(experiment: LanguageExperiment, cell: RecurrentCell, folder: Path) -> None:
    console, architecture = open_console(), experiment.space.architecture_of(cell)
    console.print(str(architecture))
    _print_cell(console, cell)
    for warning in experiment.space.warnings(architecture):
        console.print(f"warning: {warning}")
    for path in draw_cell_in(folder, cell, experiment.space.averaged(cell)):
        console.print(f"wrote {path}")


def is_language(path: Path) -> bool:
    """Whether a run directory, or a training in it, is of a recurrent cell."""
    folders = [path, *sorted(path.glob("train*"))] if path.is_dir() else []
    config = next((folder / "config.yaml" for folder in folders if (folder / "config.yaml").exists()), None)
    if config is None:
        return False
    space = read_yaml(config).get("space")
    return isinstance(space, dict) and "name" in space and kind_of(space["name"]) is LanguageExperiment


def with_nodes(arguments: Sequence[str], preset: str | None, cell: Path) -> list[str]:
    """The options of an experiment whose cells have as many nodes as the one in a file."""
    values = resolve(arguments, preset)
    experiment = opened(values)
    if not isinstance(experiment, LanguageExperiment):
        raise ConfigError(f"--cell is of the space enas_rnn, this is {values['space']['name']}")
    nodes = len(read_dag(cell).nodes) - (experiment.space.variant == "authors")
    return [*arguments, f"--space.nodes={nodes}"]


def _of_run(path: Path, data: Path | None, device: str, threads: int) -> LanguageExperiment:
    if not (path / "config.yaml").exists():
        raise ConfigError(f"{path} holds no run" if path.exists() else f"there is no {path}")
    if not is_language(path):
        raise ConfigError(f"{path} is no run of recurrent cells")
    given = ["--config", str(path / "config.yaml"), f"--device={device}", f"--threads={threads}"]
    given += [] if data is None else [f"--dataset.root={data}"]
    return prepared(LanguageExperiment(resolve(given)))


def _print_cell(console: Console, cell: RecurrentCell) -> None:
    for number, node in enumerate(cell.nodes):
        source = "x[t], h[t-1]" if node.source < 0 else f"node {node.source}"
        console.print(f"  node {number} = {published_name(node.activation)}({source})")
