"""The command that counts what a network costs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import catalogue
from ..costs import REFERENCES, ScoreModel, Target
from ..errors import ConfigError
from ..integer import storage
from ..integer.lower import lowered
from ..networks import named, names
from ..report.cost_report import CostReport, cost_figure, cost_report
from ..report.figures import save_figure
from ..run_directory import open_trained
from ..workload.accumulators import FORMULAS
from .options import Parser, layer_table, open_console

OPTIONS = ("reference", "accumulator", "bias", "freebie", "compare", "adds", "thresholds", "residual", "sparsity")


def cost(arguments: Sequence[str]) -> None:
    rules = [name for name in catalogue.names("costs") if issubclass(catalogue.find("costs", name), ScoreModel)]
    parser = Parser("cost", "Count what a network stores and computes, and score it by a rule.", experiment=False)
    parser.add_argument(
        "target", help="a run directory, an integer graph, an .onnx file, or a network by name (see docs/costs.md)"
    )
    parser.add_argument("--rule", default="micronet", metavar="NAME", help=" or ".join(rules))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also a bar chart by block, .svg or .png")
    parser.add_argument("--weight-bits", type=int, metavar="N", help="of all weights, in place of those it has")
    parser.add_argument("--activation-bits", type=int, metavar="N", help="of the image and all activations, likewise")
    _add_options(parser)
    given, _ = parser.read(arguments, "cost")
    if given.picture is not None and given.picture.suffix not in (".svg", ".png"):
        raise ConfigError(f"a picture is a .svg or .png file, got {given.picture}")
    if given.rule not in rules:
        raise ConfigError(f"no rule {given.rule!r}: {', '.join(rules)}")
    model = _model(given)
    target, lines = _target(given.target, integers=given.sparsity == "actual")
    report = cost_report(
        target, given.rule, model, weight_bits=given.weight_bits, activation_bits=given.activation_bits
    )
    if given.picture is not None:
        save_figure(cost_figure(report), given.picture)
    if given.json:
        print(json.dumps({"target": given.target} | report.as_json()))
        return
    console = open_console()
    for line in lines:
        console.print(line)
    _print(console, report)
    if given.picture is not None:
        console.print(f"wrote {given.picture}")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of all rules; a rule refuses those that it has no use for."""
    parser.add_argument("--reference", metavar="TASK", help=f"{', '.join(REFERENCES)} (default: imagenet)")
    parser.add_argument("--accumulator", metavar="WIDTH", help=f"a number of bits, or {', '.join(FORMULAS)}")
    parser.add_argument("--bias", metavar="LIKE", help="micronet: bits of biases, of the accumulator or the weight")
    parser.add_argument(
        "--freebie", action="store_true", default=None, help="micronet: the 16-bit freebie for float networks"
    )
    parser.add_argument("--compare", metavar="HOW", help="with thresholds: linear or binary")
    parser.add_argument("--adds", metavar="HOW", help="sums of products: sequential or tree")
    parser.add_argument("--thresholds", metavar="HOW", help="counted or free")
    parser.add_argument("--residual", metavar="HOW", help="requantization of sums of two: thresholds or saturation")
    parser.add_argument(
        "--sparsity", metavar="S", help="part of the weights that is 0: 0.5, LAYER=0.5,LAYER=0.7, or actual (integers)"
    )


def _model(given: argparse.Namespace) -> ScoreModel:
    kind = catalogue.find("costs", given.rule)
    known = [field.name for field in fields(kind)]
    options = {name: getattr(given, name) for name in OPTIONS if getattr(given, name) is not None}
    if foreign := [name for name in options if name not in known]:
        raise ConfigError(f"the rule {given.rule} has no --{foreign[0]}; it takes --{', --'.join(known)}")
    if "accumulator" in options:
        options["accumulator"] = _number(options["accumulator"], int)
    if "sparsity" in options:
        options["sparsity"] = _sparsity(options["sparsity"])
    model: ScoreModel = kind(**options)
    return model


def _number(text: str, kind: type[int] | type[float]) -> Any:
    """The number that a text is, or the text."""
    try:
        return kind(text)
    except ValueError:
        return text


def _sparsity(text: str) -> Any:
    if "=" not in text:
        return _number(text, float)
    parts = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        parts[name] = _number(number, float)
        if not name or isinstance(parts[name], str):
            raise ConfigError(f"--sparsity takes a number, LAYER=NUMBER,... or actual, got {text!r}")
    return parts


def _target(text: str, *, integers: bool) -> tuple[Target, list[str]]:
    """What is counted, and what people should know of it. integers: a run becomes the integer graph it lowers to."""
    path = Path(text)
    if path.is_dir():
        training = open_trained(path)
        network = training.network.trunk
        return (lowered(network, training.weights()).graph if integers else network), []
    if path.is_file():
        if path.suffix != ".onnx":
            return storage.load(path), []
        from ..imports.onnx import read

        imported = read(path)
        return imported.graph, imported.lines
    if text not in names():
        raise ConfigError(f"no run, file or network {text!r}; networks: {', '.join(names())}")
    return named(text).trunk, []


def _print(console: Console, report: CostReport) -> None:
    table = layer_table("w x a bits", "parameters", "MACs", "memory bits", "math bits", "%")
    for layer in report.layers:
        table.add_row(
            layer.name,
            layer.operation,
            "x".join(map(str, layer.output)),
            f"{layer.weight_bits:g} x {layer.input_bits:g}" if layer.macs else "",
            *(f"{n:,.0f}" if n else "" for n in (layer.parameters, layer.macs)),
            *(f"{n:,.0f}" if n else "" for n in (sum(layer.memory.values()), sum(layer.math.values()))),
            f"{100 * layer.score / report.score.total:.2f}",
        )
    console.print(table)
    kib = report.costs["activation_memory"] / 8192
    reference, divisors = REFERENCES[report.model.reference], report.model.divisors
    costs = report.costs
    console.print(
        f"\nparameters         {costs['parameters']:,}\n"
        f"weights            {costs['weight_bits']:,} bits, all constants {costs['memory_bits']:,} bits\n"
        f"activations        {costs['activation_memory']:,} bits at most ({kib:,.1f} KiB)\n"
        f"MACs               {costs['macs']:,}; bit operations {costs['bit_operations']:,}\n"
        f"multiplications    {costs['multiplications']:,}; additions {costs['additions']:,}\n"
        f"\n{report.rule}, relative to {report.model.reference}"
        f" ({reference.parameters:,.0f} parameters, {reference.operations:,.0f} operations of 32 bits)"
    )
    for kind, terms, divisor in (
        ("memory", report.memory, divisors.parameters),
        ("math", report.math, divisors.operations),
    ):
        for name, value in terms.items():
            console.print(f"  {kind:<7}{name:<16}{value:>20,.0f} bits{value / divisor:>12.6f}")
    score = report.score
    console.print(f"score {score.total!r} = memory {score.memory!r} + math {score.math!r}")
    if report.float32_total is not None:
        console.print(f"added in float32, as the entry did: {report.float32_total!r}")
