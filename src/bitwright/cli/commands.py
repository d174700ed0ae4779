"""What each command does: read options, call the library, tell people."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .. import catalogue
from ..architecture import Architecture
from ..errors import ConfigError, DataError, ExportError
from ..experiment import Experiment, LanguageExperiment, resolve
from ..experiment.trained import found_architecture, latest_training
from ..files import write_text
from ..journal import Journal
from ..nasbench.drawing import as_dot
from ..relaxation.run import start_relaxation
from ..report.evaluation import Evaluation
from ..report.evaluation import evaluate as evaluate_network
from ..report.figures import draw_cells
from ..report.layer_figure import draw_layers
from ..report.weight_figures import draw_weights
from ..run_directory import TrainingRun, open_trained, start_search, training_path
from ..spaces.enas_macro import EnasMacro
from ..spaces.enas_micro import CELLS, EnasMicro
from ..spaces.nasbench101 import Nasbench101
from ..text.corpora import ALIASES, CORPORA, known_as, load_corpus
from ..train.distributed import launched
from ..train.distributed import ranks as current_ranks
from ..train.step import measure
from ..trial import Trial
from . import language
from .options import Parser, layer_table, open_any, open_console, open_experiment, use_threads

DEMO = "digits-demo"
PRINTED_CLASSES = 20  # more make a confusion matrix nobody reads; then top-5 is told instead
DEMO_EXPORTS = {"onnx": "network.onnx", "qonnx": "network.qonnx.onnx", "c": "c"}


def search(arguments: Sequence[str]) -> None:
    parser = Parser("search", "Search for an architecture and write the best one to OUT/best.json.")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="the run directory (default: runs/ and the preset's name)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    parser.add_argument(
        "--from",
        dest="origin",
        type=Path,
        metavar="RUN",
        help="a search whose trials and shared weights to go on from, with other objectives or budgets",
    )
    parser.add_argument(
        "--init", type=Path, metavar="RUN", help="of recurrent cells: a search or training whose weights to start from"
    )
    options, rest = parser.read(arguments, "search")
    if options.origin is not None and options.preset is None:
        rest = ["--config", str(options.origin / "config.yaml"), *rest]
    experiment = open_any(resolve(rest, options.preset))
    out = options.out or Path("runs") / (options.preset or experiment.values["dataset"]["name"])
    console = open_console()
    if isinstance(experiment, LanguageExperiment):
        if options.origin is not None:
            raise ConfigError("--from is of searches for networks of images; --init starts from weights")
        language.search(experiment, out, resume=options.resume, init=options.init)
    elif options.init is not None:
        raise ConfigError("--init is of searches for recurrent cells")
    else:
        _search(experiment, out, options.resume, console, options.origin)
    console.print(f"\nnext: bitwright train {out}")


def train(arguments: Sequence[str]) -> None:
    parser = Parser("train", "Train an architecture from scratch and keep what does best on the validation images.")
    parser.add_argument("source", nargs="?", type=Path, metavar="RUN", help="a run directory or its best.json")
    parser.add_argument(
        "--arch",
        "--fixed-arc",
        metavar="TEXT",
        help='the architecture, such as "0 2 1 ...", in place of the run\'s best; a space of one needs none',
    )
    parser.add_argument("--cell", type=Path, metavar="FILE", help="the dag.json of a recurrent cell to train")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the training goes (default: RUN/train, train-2, ...)"
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="weights to start from: a run of ours, at whatever bit widths, or a published checkpoint",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the training that is there")
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="no training: validate what is in --init, or was trained in --out or RUN",
    )
    parser.add_argument("--stop-after", type=int, metavar="N", help="stop after N steps; --resume goes on")
    parser.add_argument("--no-checkpoints", action="store_true", help="write none; what is interrupted is lost")
    with launched() as join:
        options, rest = parser.read(arguments, "train")
        _check_train_options(options)
        run, best = _source(options.source)
        if run is not None and (run / "config.yaml").exists() and options.preset is None:
            rest = ["--config", str(run / "config.yaml"), *rest]
        elif run is not None and best is not None and options.preset is None and not rest:
            raise ConfigError(f"there is no config.yaml beside {best}; name a --preset or --config")
        if options.cell is not None:
            rest = language.with_nodes(rest, options.preset, options.cell)
        experiment = open_any(resolve(rest, options.preset))
        if isinstance(experiment, LanguageExperiment):
            _train_language(experiment, options, run)
            return
        ranks = join(experiment.device)
        experiment.training.steps_per_update(ranks.count)  # a mistake shows before anything is written
        console = open_console()
        console.quiet = not ranks.is_first
        architecture = _architecture(experiment, options.arch, best)
        out = options.out or training_path(
            run or Path("runs") / (options.preset or experiment.values["dataset"]["name"]),
            resume=options.resume or options.evaluate,
        )
        init = latest_training(options.init) if options.init is not None and options.init.is_dir() else options.init
        training = TrainingRun(experiment, architecture, out, init)
        if options.evaluate:
            _validate(training, console)
            return
        finished = _train(
            training, options.resume, console,
            stop_after=options.stop_after, keep_checkpoints=not options.no_checkpoints,
        )  # fmt: skip
        if finished:
            console.print(f"\nnext: bitwright evaluate {out if options.out else out.parent}")


def _train_language(experiment: LanguageExperiment, options: argparse.Namespace, run: Path | None) -> None:
    if options.evaluate or options.no_checkpoints:
        raise ConfigError("--evaluate and --no-checkpoints are of images; `bitwright evaluate RUN` tells perplexities")
    cell = language.given_cell(experiment, options.source, options.arch, options.cell)
    default = run or Path("runs") / (options.preset or experiment.values["dataset"]["name"])
    out = options.out or training_path(default, resume=options.resume)
    finished = language.train(
        experiment, cell, out, resume=options.resume, init=options.init, stop_after=options.stop_after
    )
    if finished:
        open_console().print(f"\nnext: bitwright evaluate {out}")


def evaluate(arguments: Sequence[str]) -> None:
    parser = Parser("evaluate", "Test accuracy, confusion matrix and costs of a trained network.", experiment=False)
    parser.add_argument("run", type=Path, help="a run directory or a training in it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data set is now")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all cores")
    options, _ = parser.read(arguments, "evaluate")
    use_threads(options.threads)
    if language.is_language(options.run):
        given = {"device": options.device, "threads": options.threads}
        language.evaluate(options.run, options.data, as_json=options.json, **given)
        return
    training = open_trained(options.run, options.data, device=options.device, threads=options.threads)
    evaluation = evaluate_network(training.network, training.weights(), training.experiment.dataset)
    warnings = training.experiment.final_space.warnings(training.architecture)
    if options.json:
        extra = {
            "run": str(training.path),
            "architecture": str(training.architecture),
            "dataset": training.experiment.values["dataset"]["name"],
            "warnings": warnings,
        }
        print(json.dumps(extra | evaluation.as_json()))
    else:
        console = open_console()
        _print_evaluation(console, evaluation, training.architecture)
        for warning in warnings:
            console.print(f"warning: {warning}")


def show(arguments: Sequence[str]) -> None:
    parser = Parser("show", "Describe an architecture and draw it as SVG, PNG and DOT, or draw trained weights.")
    parser.add_argument("source", nargs="?", type=Path, metavar="RUN", help="a run directory or its best.json")
    parser.add_argument("--arch", "--fixed-arc", metavar="TEXT", help='the architecture, such as "0 2 1 ..."')
    parser.add_argument("--cell", type=Path, metavar="FILE", help="the dag.json of a recurrent cell")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go (default: RUN/report, or here)")
    parser.add_argument(
        "--draw-weights",
        action="store_true",
        help="draw what was trained in RUN instead: histograms of the weights, and the filters of the first layer",
    )
    options, rest = parser.read(arguments, "show")
    run, best = _source(options.source)
    if options.draw_weights:
        _show_weights(options, rest)
        return
    if run is not None and (run / "config.yaml").exists() and options.preset is None:
        rest = ["--config", str(run / "config.yaml"), *rest]
    elif run is not None and best is not None and best.exists() and options.preset is None and not rest:
        raise ConfigError(f"there is no config.yaml beside {best}; name a --preset or --config")
    if options.cell is not None:
        rest = language.with_nodes(rest, options.preset, options.cell)
    experiment = open_any(resolve(rest, options.preset))
    if isinstance(experiment, LanguageExperiment):
        cell = language.given_cell(experiment, options.source, options.arch, options.cell)
        language.show(experiment, cell, options.out or (run / "report" if run is not None else Path()))
        return
    space = experiment.space
    if options.arch is None and best is None:
        raise ConfigError("name a run directory, a best.json, or an architecture with --arch")
    architecture = space.parse(options.arch) if options.arch is not None else found_architecture(best or Path(), space)
    console = open_console()
    folder = options.out or (run / "report" if run is not None else Path())
    console.print(str(architecture))
    pictures: list[Path] = []
    if isinstance(space, EnasMicro):
        _print_cells(console, space, architecture)
        pictures = draw_cells(space, architecture, folder)
    elif isinstance(space, EnasMacro):
        _print_layers(console, space, architecture)
        pictures = draw_layers(space, architecture, folder)
    elif isinstance(space, Nasbench101):
        _print_module(console, space, architecture)
        matrix, ops = space.module(architecture)
        pictures = [folder / "module.dot"]
        write_text(pictures[0], as_dot(matrix, ops))
    for warning in space.warnings(architecture):
        console.print(f"warning: {warning}")
    for path in pictures:
        console.print(f"wrote {path}")


def _show_weights(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Pictures of the newest completed training of a run, by its own configuration and the options in `rest`."""
    run = options.source
    if run is None or not run.is_dir() or options.arch is not None:
        raise ConfigError("--draw-weights draws what was trained: name a run directory, and no architecture")
    path = latest_training(run)
    training = TrainingRun.open(path, resolve(["--config", str(path / "config.yaml"), *rest], options.preset))
    trained = training.experiment.final_space.training_network(training.architecture)
    console = open_console()
    for picture in draw_weights(trained, training.network, training.weights(), options.out or run / "report"):
        console.print(f"wrote {picture}")


def _print_cells(console: Console, space: EnasMicro, architecture: Architecture) -> None:
    for kind in CELLS:
        console.print(f"\n{kind} cell")
        for node, edges in enumerate(space.cell(architecture, kind), start=2):
            parts = " + ".join(f"{space.operations[edge.op].name}({_node_name(edge.source)})" for edge in edges)
            console.print(f"  node {node} = {parts}")
        unused = ", ".join(_node_name(i) for i in space.unused(architecture, kind))
        console.print(f"  output = concat({unused})")


def _print_layers(console: Console, space: EnasMacro, architecture: Architecture) -> None:
    for number, layer in enumerate(space.decoded(architecture)):
        skips = "".join(f" + {_output_name(skip)}" for skip in layer.skips)
        console.print(f"  layer {number} = {space.operations[layer.op].name}({_output_name(number)}){skips}")


def _print_module(console: Console, space: Nasbench101, architecture: Architecture) -> None:
    """The module in the form in which the benchmark stores it."""
    matrix, ops = space.module(architecture)
    console.print(f"module {space.benchmark_name(architecture)}, row {space.row(architecture)}")
    for vertex in range(1, len(ops)):
        sources = ", ".join(ops[i] if i == 0 else str(i) for i in range(vertex) if matrix[i, vertex])
        console.print(f"  {vertex} = {ops[vertex]}({sources})")


def data(arguments: Sequence[str]) -> None:
    parser = Parser("data", "List the data sets, check one, or download it.", experiment=False)
    parser.add_argument("action", choices=("list", "check", "download"))
    parser.add_argument("name", nargs="?", help="a data set; folder:PATH takes images in folders by class")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="its folder (default: data)")
    options, _ = parser.read(arguments, "data")
    console = open_console()
    if options.action == "list":
        if options.name is not None:
            raise ConfigError(f"`data list` takes no name, got {options.name}")
        for name in catalogue.names("datasets"):
            module = sys.modules[catalogue.find("datasets", name).__module__]
            console.print(f"{name:<15}{(module.__doc__ or '').splitlines()[0]}")
        for name, source in CORPORA.items():
            console.print(f"{name:<15}{source.text}")
        return
    if options.name is None:
        names = ", ".join([*catalogue.names("datasets"), *CORPORA])
        raise ConfigError(f"`data {options.action}` wants the name of a data set: {names}")
    if ALIASES.get(options.name, options.name) in CORPORA:
        _data_of_text(known_as(options.name), options.data, download=options.action == "download")
        return
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


def _data_of_text(name: str, root: Path, *, download: bool) -> None:
    if download and not CORPORA[name].files:
        raise ConfigError(f"{name} is not downloaded; docs/text.md says which files to put where")
    corpus = load_corpus(name, root)  # downloads what is missing
    open_console().print(
        f"{name}: {len(corpus.train):,} training, {len(corpus.validation):,} validation and {len(corpus.test):,} test"
        f" words, {len(corpus.words):,} different ones"
    )


def demo(arguments: Sequence[str]) -> None:
    parser = Parser("demo", f"Search, train and evaluate with the preset {DEMO}.")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help=f"the run directory (default: runs/{DEMO}, or the next free name)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    options, rest = parser.read(arguments, "demo")
    experiment = open_experiment(resolve(rest, options.preset or DEMO))
    out = options.out or _free(Path("runs") / (options.preset or DEMO), options.resume)
    console = open_console()
    _search(experiment, out, options.resume, console)
    architecture = found_architecture(out / "best.json", experiment.final_space)
    training = TrainingRun(experiment, architecture, out / "train")
    console.print()
    _train(training, options.resume, console)
    console.print()
    evaluation = evaluate_network(training.network, training.weights(), experiment.dataset)
    _print_evaluation(console, evaluation, training.architecture)
    if evaluation.no_integer_form is None:
        _deploy(training, out, console)
    console.print(f"\nthe cells are drawn in {out}/report/cells.svg and cells.png; the search: {out}/report/report.md")


def _deploy(training: TrainingRun, out: Path, console: Console) -> None:
    """Lower, export and verify what the demo trained."""
    from . import deploy

    console.print("\nfrom the trained network to integers:")
    deploy.lower([str(out), "--quiet"])
    for kind, name in DEMO_EXPORTS.items():
        try:
            deploy.export([str(out), "--to", kind, "--out", str(out / "deploy" / name)])
        except ExportError as error:  # a package that is not installed is no reason to end the demo
            console.print(f"{kind} not written: {error}")
    deploy.verify([str(out), "--samples", str(len(training.experiment.dataset.test)), "--threads", "1"])


def _search(experiment: Experiment, out: Path, resume: bool, console: Console, origin: Path | None = None) -> None:
    if resume and not (out / "config.yaml").exists():
        console.print(f"there is nothing to resume in {out}; the search starts")
    if experiment.search.method == "relaxation":
        if origin is not None:
            raise ConfigError("--from tells a strategy what is known; a relaxation has none")
        _relax(experiment, out, resume, console)
        return
    run = start_search(experiment, out, resume=resume, console=console, origin=origin)
    if (out / "best.json").exists():
        console.print(f"the search in {out} is complete")
        return
    space = experiment.space
    console.print(
        f"searching {space.name} on {experiment.values['dataset']['name']} in {out}:"
        f" {experiment.rounds} round{'s' * (experiment.rounds > 1)} of"
        f" {experiment.search.updates * experiment.search.batch} trials"
    )
    report = run.execute()
    _print_best(console, report.best, " with shared weights" if experiment.trains_supernet else "")
    if report.random:
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


def _relax(experiment: Experiment, out: Path, resume: bool, console: Console) -> None:
    run = start_relaxation(experiment, out, resume=resume, console=console)
    if (out / "best.json").exists():
        console.print(f"the search in {out} is complete")
        return
    console.print(
        f"relaxing {experiment.space.name} on {experiment.values['dataset']['name']} in {out}:"
        f" {experiment.supernet.epochs} epochs, {experiment.relaxation.warmup_epochs} of them warm-up"
    )
    report = run.execute()
    _print_best(console, report.best, " with shared weights")
    for warning in report.warnings:
        console.print(f"warning: {warning}")


def _print_best(console: Console, best: Trial, measured: str) -> None:
    console.print(f"\nbest architecture: {best.architecture}")
    console.print(f"validation accuracy{measured}: {best.measurement.accuracy:.4f}")
    for name, value in best.measurement.costs.items():
        console.print(f"{name}: {value:,g}")


def _check_train_options(options: argparse.Namespace) -> None:
    """ConfigError names options of `train` that do not go together, or that stand for nothing there is."""
    if options.init is not None and not options.init.exists():
        raise ConfigError(f"there is no {options.init} to start from")
    if options.stop_after is not None and options.stop_after < 1:
        raise ConfigError(f"--stop-after is at least 1, got {options.stop_after}")
    if options.no_checkpoints and options.resume:
        raise ConfigError("--resume goes on from a checkpoint; --no-checkpoints does without them")
    if options.evaluate and options.resume:
        raise ConfigError("--evaluate trains nothing; leave out --resume")


def _architecture(experiment: Experiment, given: str | None, best: Path | None) -> Architecture:
    """The architecture to train: the one that was given or found, or the only one of the space."""
    space = experiment.final_space
    if given is not None:
        return space.parse(given)
    if not space.decisions:
        return space.architecture(())
    if best is None:
        raise ConfigError("name a run directory, a best.json, or an architecture with --arch")
    return found_architecture(best, space)


def _train(
    training: TrainingRun,
    resume: bool,
    console: Console,
    *,
    stop_after: int | None = None,
    keep_checkpoints: bool = True,
) -> bool:
    """Whether the training came to its end."""
    if current_ranks().is_first:
        training.start(resume=resume)
    if training.is_complete:
        console.print(f"the training in {training.path} is complete")
        return True
    console.print(f"training {training.architecture} in {training.path}{_on_devices()}")
    fitted = training.execute(console, stop_after=stop_after, keep_checkpoints=keep_checkpoints)
    minutes = f"{fitted.seconds / 60:.1f} min"
    if not fitted.finished:
        console.print(f"stopped before its end, {minutes}" + ("; --resume goes on" if keep_checkpoints else ""))
    elif fitted.validation_accuracy is None:
        console.print(f"trained for {fitted.best_epoch} epochs without validation, {minutes}")
    else:
        console.print(
            f"best validation accuracy {fitted.validation_accuracy:.4f} in epoch {fitted.best_epoch}, {minutes}"
        )
    for warning in training.experiment.final_space.warnings(training.architecture):
        console.print(f"warning: {warning}")
    return fitted.finished


def _on_devices() -> str:
    count = current_ranks().count
    return f" on {count} devices" if count > 1 else ""


def _validate(training: TrainingRun, console: Console) -> None:
    """One pass over the validation images."""
    experiment, origin = training.experiment, "weights.safetensors"
    if training.given_init is not None and training.initialised is not None:
        weights, loaded = training.initialised
        weights = weights.to(experiment.device)
        console.print(f"from {training.init}: {loaded}")
    else:
        if not (training.path / origin).exists():
            origin = "best.safetensors"
        weights = training.weights(origin)
        console.print(f"from {training.path / origin}")
    images = experiment.dataset.validation
    ranks = current_ranks()
    with Journal(console=console).progress("validating", len(images)) as progress:
        measured = measure(
            training.network, weights, images, experiment.training.loss, ranks=ranks,
            tick=lambda done: progress.advance(min(done * ranks.count, len(images)) - progress.done),
        )  # fmt: skip
    console.print(
        f"{len(images):,} validation images: top-1 {measured.top1:.4f}, top-5 {measured.top5:.4f},"
        f" loss {measured.loss:.4f}"
    )


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


def _output_name(number: int) -> str:
    return f"layer {number - 1}" if number else "stem"


def _node_name(node: int) -> str:
    return {0: "h[i-2]", 1: "h[i-1]"}.get(node, f"node {node}")


def _print_evaluation(console: Console, evaluation: Evaluation, architecture: Architecture) -> None:
    table = layer_table(
        "w x a bits", "parameters", "weight bits", "MACs", "bit operations",
        title="layers, each with the normalisation behind it",
    )  # fmt: skip
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
    if evaluation.confusion_matrix is not None and len(evaluation.classes) <= PRINTED_CLASSES:
        _print_confusion(console, evaluation.classes, evaluation.confusion_matrix)
    console.print(
        f"\n{architecture}\n"
        f"test accuracy    {evaluation.test_accuracy:.4f}{_top5_text(evaluation)} on {evaluation.test_images:,} images"
        f" (validation {evaluation.validation_accuracy:.4f}){_integer_text(evaluation)}\n"
        f"parameters       {evaluation.parameters:,}\n"
        f"weight bits      {evaluation.weight_bits:,} ({evaluation.weight_bits / 8192:,.1f} KiB)\n"
        f"MACs             {evaluation.macs:,}\n"
        f"bit operations   {evaluation.bit_operations:,}"
    )


def _top5_text(evaluation: Evaluation) -> str:
    return f", top-5 {evaluation.test_top5:.4f}" if len(evaluation.classes) > PRINTED_CLASSES else ""


def _print_confusion(console: Console, classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    confusion = Table(title="\nconfusion: rows are the true classes", title_justify="left", box=None, pad_edge=False)
    confusion.add_column("")
    for name in classes:
        confusion.add_column(name, justify="right")
    for name, row in zip(classes, matrix, strict=True):
        confusion.add_row(name, *(str(n) if n else "." for n in row))
    console.print(confusion)


def _integer_text(evaluation: Evaluation) -> str:
    if evaluation.no_integer_form is not None:
        return f" in floating point; no integer form: {evaluation.no_integer_form}"
    differing = evaluation.differing_predictions
    layer = evaluation.first_differing_layer
    return (
        " in integers\n"
        f"fake-quantized   {evaluation.fake_quantized_accuracy:.4f}, {differing or 'no'} prediction"
        f"{'' if differing == 1 else 's'} differ{'s' if differing == 1 else ''}; "
        + ("all values of all layers are equal" if layer is None else f"values differ first in {layer}")
    )
