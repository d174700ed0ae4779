"""The trainings behind a published table, one after the other, and our errors beside the published ones."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, StorageError
from ..experiment import read_yaml, resolve
from ..experiment.trained import read_json
from ..files import write_json, write_text
from ..network import Conv2d, DepthwiseConv2d, Linear, Network
from ..report import markdown
from ..report.evaluation import evaluate as evaluate_network
from ..run_directory import TrainingRun, differing_options, require_same
from .options import Parser, open_console, open_experiment

TEST = "test.json"  # in the directory of a training, once its test error is known
CHOSEN = ("space.weights", "seed")  # options that differ from training to training
SECTIONS = ("dataset", "space", "final", "training")  # what a training depends on
EXPLANATION = "mean and sample deviation over seeds; seconds are those of one training"
HEADINGS = ("weights", "published, %", "here, %", "trainings", "bits per weight at test", "seconds")


@dataclass(frozen=True)
class Published:
    """Test error in percent; deviation: over seeds, where it is told."""

    error: float
    deviation: float | None = None


@dataclass(frozen=True)
class Reproduction:
    """A table of test errors by `space.weights`.

    epochs: of the published trainings. remark: where the preset is not what the paper describes, or empty.
    """

    paper: str
    epochs: int
    errors: Mapping[str, Published]
    remark: str = ""


BINARYCONNECT = "Courbariaux et al. 2015, BinaryConnect, arXiv:1511.00363, table 2"
REPRODUCTIONS = {  # by the name of the preset
    "binaryconnect-mnist": Reproduction(
        BINARYCONNECT,
        1000,
        {"none": Published(1.30, 0.04), "det": Published(1.29, 0.08), "stoch": Published(1.18, 0.04)},
        "The preset is what the authors' program trains: 2,048 units in a layer, by Adam, for 250 epochs;"
        " the paper says 1,024 units, by SGD, for 1,000 epochs.",
    ),
    "binaryconnect-cifar10": Reproduction(
        BINARYCONNECT, 500, {"none": Published(10.64), "det": Published(9.90), "stoch": Published(8.27)}
    ),
    "binaryconnect-svhn": Reproduction(
        BINARYCONNECT, 200, {"none": Published(2.44), "det": Published(2.30), "stoch": Published(2.15)}
    ),
}


@dataclass(frozen=True)
class Tested:
    """A completed training. Errors in percent; bits_per_weight: of what is evaluated; seconds: of training."""

    seed: int
    test_error: float
    validation_error: float
    best_epoch: int
    bits_per_weight: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """The completed trainings of a variant beside what is published."""

    variant: str
    published: Published
    trainings: list[Tested]

    @property
    def mean(self) -> float | None:
        """Of the test errors, in percent."""
        return statistics.fmean(t.test_error for t in self.trainings) if self.trainings else None

    @property
    def deviation(self) -> float | None:
        """The sample deviation of the test errors; None for fewer than two."""
        return statistics.stdev(t.test_error for t in self.trainings) if len(self.trainings) > 1 else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"mean": self.mean, "deviation": self.deviation}

    @property
    def cells(self) -> tuple[str, ...]:
        """As HEADINGS."""
        bits = " ".join(f"{b:g}" for b in dict.fromkeys(t.bits_per_weight for t in self.trainings))
        seconds = f"{statistics.fmean(t.seconds for t in self.trainings):,.0f}" if self.trainings else ""
        return (
            self.variant,
            _with_deviation(self.published.error, self.published.deviation),
            _with_deviation(self.mean, self.deviation),
            str(len(self.trainings)),
            bits,
            seconds,
        )


@dataclass(frozen=True)
class Comparison:
    """What there is of a reproduction.

    changed: options of a training that are not as in the preset, (the preset's, ours). epochs: those of our trainings.
    """

    name: str
    epochs: int
    preset_epochs: int
    changed: Mapping[str, tuple[Any, Any]]
    rows: list[Row]

    @property
    def notes(self) -> list[str]:
        """What keeps the errors from being comparable, one sentence each."""
        reproduction = REPRODUCTIONS[self.name]
        found = [reproduction.remark] if reproduction.remark else []
        if self.epochs != self.preset_epochs:
            word = "shortened" if self.epochs < self.preset_epochs else "lengthened"
            ours = "1 epoch" if self.epochs == 1 else f"{self.epochs:,} epochs"
            found.append(
                f"The schedule was {word}: {ours} in place of the preset's {self.preset_epochs:,};"
                f" the published errors are those of {reproduction.epochs:,} epochs."
            )
        others = [key for key in self.changed if key != "training.epochs"]
        if others:
            changes = ", ".join(f"{key}: {self.changed[key][1]}, not {self.changed[key][0]}" for key in others)
            found.append(f"Options that are not the preset's: {changes}.")
        return found

    def as_json(self) -> dict[str, Any]:
        reproduction = REPRODUCTIONS[self.name]
        return {
            "name": self.name,
            "paper": reproduction.paper,
            "epochs": {"here": self.epochs, "preset": self.preset_epochs, "paper": reproduction.epochs},
            "shortened": self.epochs < self.preset_epochs,
            "changed": {key: {"preset": was, "here": now} for key, (was, now) in self.changed.items()},
            "variants": [row.as_json() for row in self.rows],
        }

    def as_markdown(self) -> str:
        lines = [
            f"# {self.name}",
            "",
            *(f"**{note}**\n" for note in self.notes),
            f"Test error in the epoch with the best validation accuracy: {EXPLANATION}. Published:"
            f" {REPRODUCTIONS[self.name].paper}.",
            "",
            *markdown.table(HEADINGS, (row.cells for row in self.rows)),
            "",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """The trainings of one table in the directory `out`.

    options: of all of them, resolved; the weights and the seed are those of none. preset: what the preset alone says.
    """

    name: str
    out: Path
    options: dict[str, Any]
    preset: dict[str, Any]

    def values(self, variant: str, seed: int) -> dict[str, Any]:
        """The configuration of one training."""
        return self.options | {"seed": seed, "space": self.options["space"] | {"weights": variant}}

    def place(self, variant: str, seed: int) -> Path:
        return self.out / variant / f"seed-{seed}"

    def started(self, variant: str) -> list[tuple[int, Path]]:
        """Seeds and directories of the trainings of a row that are there, by seed."""
        paths = (path.parent for path in (self.out / variant).glob("seed-*/config.yaml"))
        numbered = [(path.name.removeprefix("seed-"), path) for path in paths]
        return sorted((int(number), path) for number, path in numbered if number.isdecimal())

    def check_started(self) -> None:
        """ConfigError if a training that is there has other options."""
        for variant in REPRODUCTIONS[self.name].errors:
            for seed, path in self.started(variant):
                require_same(read_yaml(path / "config.yaml"), self.values(variant, seed), path / "config.yaml")

    def comparison(self) -> Comparison:
        """Of all trainings that are complete."""
        rows = []
        for variant, published in REPRODUCTIONS[self.name].errors.items():
            tested = [_tested(seed, path) for seed, path in self.started(variant) if (path / TEST).exists()]
            rows.append(Row(variant, published, tested))
        changed = differing_options(self.preset, self.options)
        return Comparison(
            self.name,
            self.options["training"]["epochs"],
            self.preset["training"]["epochs"],
            {key: pair for key, pair in changed.items() if key not in CHOSEN and key.partition(".")[0] in SECTIONS},
            rows,
        )


def reproduce(arguments: Sequence[str]) -> None:
    parser = Parser("reproduce", "Train the networks of a published table and set their test errors beside it.")
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(REPRODUCTIONS)}")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="seeds 0 to N-1 of each (default: 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the trainings go (default: runs/NAME)")
    parser.add_argument("--epochs", type=int, metavar="E", help="short for --training.epochs")
    parser.add_argument("--only", metavar="LIST", help="of the table's rows only these, such as none,det")
    options, rest = parser.read(arguments, "reproduce")
    if options.name not in REPRODUCTIONS:
        raise ConfigError(f"no reproduction {options.name!r}: {', '.join(REPRODUCTIONS)}")
    variants = _variants(options)
    plan = _plan(options, rest)
    plan.check_started()
    console = open_console()
    trainings = [(variant, seed) for seed in range(options.runs) for variant in variants]
    for number, (variant, seed) in enumerate(trainings, start=1):
        path = plan.place(variant, seed)
        if not (path / TEST).exists():
            console.print(f"{options.name}, {variant}, seed {seed}: {number} of {len(trainings)}")
            _complete(plan.values(variant, seed), path, console)
            _write(plan.comparison(), plan.out)
    comparison = plan.comparison()
    _write(comparison, plan.out)
    _print(comparison, plan.out, console)


def _variants(options: argparse.Namespace) -> list[str]:
    """The rows to train, in the table's order."""
    known = REPRODUCTIONS[options.name].errors
    if options.runs < 1:
        raise ConfigError(f"--runs is at least 1, got {options.runs}")
    wanted = list(known) if options.only is None else options.only.split(",")
    for variant in wanted:
        if variant not in known:
            raise ConfigError(f"{options.name} has no row {variant!r}: {', '.join(known)}")
    return [variant for variant in known if variant in wanted]


def _plan(options: argparse.Namespace, rest: Sequence[str]) -> Plan:
    for word in rest:
        if word.partition("=")[0].removeprefix("--") in CHOSEN:
            raise ConfigError(f"{word} is for `reproduce` to choose; --only names rows, and --runs says how many seeds")
    preset = options.name if options.preset is None else f"{options.name},{options.preset}"
    shortened = [] if options.epochs is None else [f"--training.epochs={options.epochs}"]
    values = resolve([*rest, *shortened, "--space.weights=none"], preset)  # refused where the space has no such option
    if values["training"]["training_only"]:
        raise ConfigError("training_only validates nothing; the test error is that of the best validation epoch")
    return Plan(options.name, options.out or Path("runs") / options.name, values, resolve([], options.name))


def _complete(values: dict[str, Any], path: Path, console: Console) -> None:
    """Train, or go on with it, and test what did best on the validation images."""
    experiment = open_experiment(values)
    training = TrainingRun(experiment, experiment.final_space.architecture(()), path)
    training.start(resume=True)
    if not training.is_complete:
        training.execute(console)
    network = training.network
    evaluation = evaluate_network(network, training.weights(), experiment.dataset)
    write_json(path / TEST, evaluation.as_json() | {"bits_per_weight": bits_per_weight(network)})
    console.print(f"test error {100 * (1 - evaluation.test_accuracy):.2f} %\n")


def bits_per_weight(network: Network) -> float:
    """Bits that the weights of convolutions and products take, by weight; normalisations are left out.

    The members of an ensemble share the weights, and each rounds them otherwise: their bits add up.
    """
    sizes: dict[str, int] = {}
    bits: dict[tuple[str, object], int] = {}
    for position, node in enumerate(network.nodes):
        if isinstance(node.op, Conv2d | DepthwiseConv2d | Linear):
            for weight in network.weights(position):
                sizes[weight.name] = weight.size
                bits[weight.name, node.op.weight] = weight.size * node.op.weight.bits
    return sum(bits.values()) / sum(sizes.values())


def _tested(seed: int, path: Path) -> Tested:
    test, result = read_json(path / TEST), read_json(path / "result.json")
    try:
        return Tested(
            seed,
            100 * (1 - test["test_accuracy"]),
            100 * (1 - result["validation_accuracy"]),
            result["best_epoch"],
            test["bits_per_weight"],
            result["seconds"],
        )
    except (KeyError, TypeError):
        raise StorageError(f"{path / TEST} or result.json beside it is corrupt") from None


def _with_deviation(value: float | None, deviation: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"


def _write(comparison: Comparison, out: Path) -> None:
    write_json(out / "reproduction.json", comparison.as_json())
    write_text(out / "reproduction.md", comparison.as_markdown())


def _print(comparison: Comparison, out: Path, console: Console) -> None:
    table = Table(title=f"test error, {EXPLANATION}", title_justify="left", box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for row in comparison.rows:
        table.add_row(*row.cells)
    console.print(table)
    for note in comparison.notes:
        console.print(note)
    console.print(f"wrote {out / 'reproduction.json'} and {out / 'reproduction.md'}")
