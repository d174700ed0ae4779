"""The commands that take a trained network to integers: lower, export, import, verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from .. import catalogue
from ..errors import ConfigError, ExportError, LoweringError
from ..exports import _onnx_weights
from ..files import write_text
from ..integer import storage
from ..integer.describe import as_dot, as_text, rows
from ..integer.graph import IntegerGraph
from ..integer.lower import THRESHOLD_BITS, Lowered, lowered
from ..modules import Weights
from ..report.figures import save_figure
from ..report.graph_figure import graph_figure
from ..run_directory import INTEGER_GRAPH, TrainingRun, open_trained
from ..verify import FEWEST_EQUAL, TARGETS, TOLERANCE, Comparison, FloatVerification, random_inputs, verify_float
from ..verify import verify as verify_graph
from .options import Parser, open_console, use_threads

SAMPLES = 1000  # that verify takes unless told
MOST_THRESHOLD_BITS = 10


@dataclass(frozen=True)
class _Opened:
    """A completed training."""

    run: TrainingRun
    weights: Weights

    def images(self, count: int) -> NDArray[np.int64]:
        """The first test images, (N, C, H, W)."""
        x, _ = self.run.experiment.dataset.test.batch(slice(0, count))
        return x.contiguous().to(torch.int64).numpy()


@dataclass(frozen=True)
class _Trained(_Opened):
    """A training and what it lowers to."""

    lowering: Lowered


@dataclass(frozen=True)
class _Real(_Opened):
    """A training whose network computes with real numbers, and why it has no integer form."""

    reason: LoweringError


def lower(arguments: Sequence[str]) -> None:
    options = Parser(
        "lower", "Turn a trained network into an integer-only graph with the same results.", experiment=False
    )
    options.add_argument("run", type=Path, metavar="RUN", help="a run directory or a training in it")
    options.add_argument("--out", type=Path, metavar="FILE", help=f"the graph (default: RUN/train/{INTEGER_GRAPH})")
    options.add_argument("--picture", type=Path, metavar="FILE", help="also a drawing, .svg or .png")
    options.add_argument("--dot", type=Path, metavar="FILE", help="also a drawing in the DOT language")
    options.add_argument("--quiet", action="store_true", help="no table of nodes")
    options.add_argument(
        "--threshold-bits",
        type=int,
        default=THRESHOLD_BITS,
        help="activations of up to so many bits become thresholds, wider ones a multiplication and a shift"
        f" (default: {THRESHOLD_BITS})",
    )
    given, _ = options.read(arguments, "lower")
    if not 1 <= given.threshold_bits <= MOST_THRESHOLD_BITS:
        raise ConfigError(f"threshold-bits are 1 to {MOST_THRESHOLD_BITS}, got {given.threshold_bits}")
    if given.picture is not None and given.picture.suffix not in (".svg", ".png"):
        raise ConfigError(f"a picture is a .svg or .png file, got {given.picture}")
    trained = _trained(_opened(given.run), given.threshold_bits)
    graph = trained.lowering.graph
    out = given.out or trained.run.path / INTEGER_GRAPH
    storage.save(graph, out)
    if given.picture is not None:
        save_figure(graph_figure(graph), given.picture)
    if given.dot is not None:
        write_text(given.dot, as_dot(graph))
    console = open_console()
    _describe(console, graph, table=not given.quiet)
    console.print(f"wrote {out}")


def export(arguments: Sequence[str]) -> None:
    formats = catalogue.names("exports")
    options = Parser(
        "export",
        "Write a network as ONNX, QONNX or C with the same integer results; one that computes with real numbers as ONNX"
        " with packed weights and float32 activations.",
        experiment=False,
    )
    options.add_argument("source", type=Path, metavar="RUN", help="a run directory, a training in it, or a graph")
    options.add_argument("--to", required=True, metavar="FORMAT", help=" or ".join(formats))
    options.add_argument("--out", type=Path, required=True, metavar="PATH", help="a file, or for c a directory")
    given, _ = options.read(arguments, "export")
    write = catalogue.find("exports", given.to)
    source = _source(given.source)
    console = open_console()
    if not isinstance(source, _Real):
        lines = write(_graph(source), given.out)
    elif given.to == "onnx":
        console.print(f"no integer form: {source.reason}")
        lines = _onnx_weights.export(source.run.network, source.weights, given.out)
    else:
        raise ExportError(f"{source.reason}; as it is, it goes --to onnx, with packed weights and float32 activations")
    for line in lines:
        console.print(line)
    console.print(f"wrote {given.out}")


def import_model(arguments: Sequence[str]) -> None:
    options = Parser("import", "Turn a quantized ONNX or QONNX model into an integer graph.", experiment=False)
    options.add_argument("file", type=Path, metavar="FILE.onnx", help="the model")
    options.add_argument("--out", type=Path, required=True, metavar="GRAPH", help="the integer graph")
    options.add_argument(
        "--input-range",
        metavar="LOW,HIGH",
        help="the integers that are fed (default: what the model quantizes its input to, else 0,255)",
    )
    options.add_argument(
        "--input-scale",
        type=float,
        metavar="S",
        help="the real number that 1 means (default: what the model says, else 1/255)",
    )
    given, _ = options.read(arguments, "import")
    from ..imports.onnx import read

    if not given.file.exists():
        raise ConfigError(f"there is no {given.file}")
    imported = read(given.file, input_range=_range(given.input_range), input_scale=given.input_scale)
    graph = imported.graph
    storage.save(graph, given.out)
    console = open_console()
    _describe(console, graph)
    for line in imported.lines:
        console.print(line)
    console.print(f"wrote {given.out}")


def verify(arguments: Sequence[str]) -> None:
    options = Parser(
        "verify",
        "Compare a network's integer results bit for bit wherever it runs, and logits where it has no integer form.",
        experiment=False,
    )
    options.add_argument("source", type=Path, metavar="RUN_OR_GRAPH", help="a run directory or an integer graph")
    options.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        help=f"test images of a run, or random inputs of a graph (default: {SAMPLES}; the qonnx executor takes 200)",
    )
    options.add_argument("--targets", metavar="A,B", help=f"some of training, {', '.join(TARGETS)} (default: all)")
    options.add_argument("--every-layer", action="store_true", help="compare all values, not only the outputs")
    options.add_argument("--json", action="store_true", help="print one JSON object")
    options.add_argument("--data", type=Path, metavar="DIR", help="where the data set of the run is now")
    options.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all cores")
    given, _ = options.read(arguments, "verify")
    if given.samples < 1:
        raise ConfigError(f"samples are at least 1, got {given.samples}")
    use_threads(given.threads)
    source = _source(given.source, given.data)
    if isinstance(source, _Real):
        if given.every_layer or given.targets not in (None, "onnx"):
            raise ConfigError(f"only the logits of onnx can be compared, there is no integer form: {source.reason}")
        _verify_float(source, given.samples, given.json)
    else:
        targets = None if given.targets is None else given.targets.split(",")
        _verify_integers(source, given.samples, targets, given.every_layer, given.json)


def _verify_integers(
    source: IntegerGraph | _Trained, samples: int, targets: list[str] | None, every_layer: bool, as_json: bool
) -> None:
    graph, trained = _graph(source), source if isinstance(source, _Trained) else None
    x = random_inputs(graph, samples) if trained is None else trained.images(samples)
    console = open_console()
    if not as_json:
        kind = "random inputs" if trained is None else "test images"
        console.print(f"integer graph of {len(graph.nodes)} nodes on {len(x):,} {kind}")
    result = verify_graph(
        graph,
        x,
        targets=targets,
        every_layer=every_layer,
        trained=None if trained is None else (trained.run.network, trained.weights, trained.lowering),
        progress=None if as_json else lambda comparison: console.print(_line(comparison)),
    )
    if as_json:
        print(json.dumps(result.as_json()))
    if not result.equal:
        ran = [t for t in result.targets if t.skipped is None]
        raise ExportError("the results differ" if ran else "no target could run")


def _verify_float(source: _Real, samples: int, as_json: bool) -> None:
    x = source.images(samples)
    result = verify_float(source.run.network, source.weights, x)
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        console = open_console()
        console.print(f"no integer form: {source.reason}")
        console.print(f"logits in float32, onnx beside training, on {result.samples:,} test images")
        for line in _float_lines(result):
            console.print(line)
    if not result.agrees:
        raise ExportError("the results differ")


def _float_lines(result: FloatVerification) -> list[str]:
    within = result.samples - result.beyond_tolerance
    lines = [
        f"  onnx       {within:,} of {result.samples:,} within {TOLERANCE:g} of the largest logit,"
        f" {result.largest_logit:.4g}; the largest difference is {result.max_difference:.2g} ({result.seconds:.1f} s)",
        f"  onnx       {result.equal_predictions:,} of {result.samples:,} predictions equal",
    ]
    if result.rounds:
        lines.append(
            "  activations are rounded from real numbers: one on the boundary of two codes can become either, so"
            f" {FEWEST_EQUAL:.0%} equal predictions are enough"
        )
    return lines


def _line(comparison: Comparison) -> str:
    name = f"  {comparison.target:<11}"
    if comparison.skipped is not None:
        return f"{name}not run: {comparison.skipped}"
    if comparison.equal:
        return f"{name}equal on {comparison.samples:,} ({comparison.seconds:.1f} s)"
    first = comparison.first_difference
    where = ""
    if first is not None:
        at = "".join(f", {p}" for p in first.position)
        where = (
            f"; first in {first.layer}, sample {first.sample}, channel {first.channel}{at}:"
            f" {first.got} instead of {first.expected}"
        )
    return (
        f"{name}DIFFERENT in {comparison.differing_samples:,} of {comparison.samples:,},"
        f" by up to {comparison.max_difference}{where}"
    )


def _range(text: str | None) -> tuple[int, int] | None:
    """Two integers from the command line."""
    if text is None:
        return None
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--input-range takes two integers such as 0,255, got {text!r}") from None
    return low, high


def _source(path: Path, data: Path | None = None) -> IntegerGraph | _Trained | _Real:
    """The graph in a file, or a training."""
    if path.is_file():
        return storage.load(path)
    opened = _opened(path, data)
    try:
        return _trained(opened)
    except LoweringError as reason:
        if all(held is not None for held in opened.run.network.trunk.ranges):
            raise
        return _Real(opened.run, opened.weights, reason)


def _graph(source: IntegerGraph | _Trained) -> IntegerGraph:
    return source if isinstance(source, IntegerGraph) else source.lowering.graph


def _opened(run: Path, data: Path | None = None) -> _Opened:
    training = open_trained(run, data, device="cpu")
    return _Opened(training, training.weights())


def _trained(opened: _Opened, threshold_bits: int = THRESHOLD_BITS) -> _Trained:
    network, weights = opened.run.network, opened.weights
    return _Trained(opened.run, weights, lowered(network, weights, threshold_bits=threshold_bits))


def _describe(console: Console, graph: IntegerGraph, table: bool = True) -> None:
    if table:
        console.print(as_text(graph) + "\n")
    described = rows(graph)
    constants = sum(row.constants for row in described)
    widest = max(described, key=lambda row: row.bits)
    console.print(
        f"{len(described)} nodes, constants of {constants:,} bits ({constants / 8192:,.1f} KiB);"
        f" the widest values, {widest.bits} bits, come out of node {widest.position} ({widest.operation})"
    )
