"""Tabular benchmarks behind one interface: what architectures are worth is looked up, not trained.

Here are NAS-Bench-101 (Ying et al. 2019), EC-NAS's complete table of its modules of at most five vertices
(Bakhtiarifard et al. 2024), NAS-Bench-201 (Dong and Yang 2020) and NAS-Bench-Macro (Su et al. 2021). All accuracies are
fractions, all times seconds.
"""

from __future__ import annotations

import csv
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError, DataError
from . import space
from .columns import COLUMNS, METRICS, Dataset, is_columnar

Reals = np.ndarray
ACCURACIES = METRICS[1:]
PARAMETERS = "trainable_parameters"


class Table(ABC):
    """The architectures of a benchmark, by row, and what was measured of them.

    A metric is named as in NAS-Bench-101: "validation_accuracy", "training_time", ..., "halfway_..." for the state of a
    training at half of its epochs. What is known without training, such as "trainable_parameters", has no budget.
    """

    name: str
    synthetic: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def architecture(self, row: int) -> str:
        """The benchmark's own text for an architecture: a module's hash, or a string of digits."""

    @abstractmethod
    def row_of(self, architecture: str) -> int:
        """The row of an architecture; ConfigError if it has none."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, tuple[int, ...]]:
        """The names of the metrics and their budgets (epochs, ascending); () for what needs no training."""

    @abstractmethod
    def runs(self, metric: str, epochs: int | None = None) -> Reals:
        """The values of a metric: float64 (rows, repeats), NaN where there is none. None: the most epochs there are."""

    def values(self, metric: str, epochs: int | None = None, repeat: int | Literal["mean"] = "mean") -> Reals:
        """The values of a metric in one repeat, or the mean over all: float64 (rows,), NaN where there is none."""
        runs = self.runs(metric, epochs)
        if repeat != "mean":
            if not 0 <= repeat < runs.shape[1]:
                raise ConfigError(f"{self.name}: {metric} has repeats 0 to {runs.shape[1] - 1}, no {repeat}")
            return np.asarray(runs[:, repeat])
        there = ~np.isnan(runs)
        if there.all():
            return np.asarray(runs.mean(1))
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(there, runs, 0).sum(1) / there.sum(1))

    @property
    def budgets(self) -> tuple[int, ...]:
        """All budgets for which something was measured, ascending."""
        return tuple(sorted({epochs for budgets in self.metrics.values() for epochs in budgets}))

    def training_time(self, epochs: int | None = None) -> Reals | None:
        """Simulated seconds of a training, mean over the repeats: (rows,); None if the benchmark does not know it."""
        return self.values("training_time", epochs) if "training_time" in self.metrics else None

    def budget_of(self, metric: str, epochs: int | None) -> int | None:
        """The budget that `epochs` means; ConfigError if the metric, or the budget, is not in the table."""
        if metric not in self.metrics:
            raise ConfigError(f"{self.name} has no metric {metric!r}, only {', '.join(self.metrics)}")
        budgets = self.metrics[metric]
        if epochs is None:
            return budgets[-1] if budgets else None
        if epochs not in budgets:
            known = ", ".join(map(str, budgets)) or "none: it needs no training"
            raise ConfigError(f"{self.name}: {metric} has the budgets {known}; got {epochs}")
        return epochs


@dataclass(frozen=True)
class StoredTable(Table):
    """A table in memory. columns: float64 (rows, repeats) by metric and budget; the budget None needs no training."""

    name: str
    architectures: tuple[str, ...]
    columns: Mapping[tuple[str, int | None], Reals] = field(repr=False)

    def __len__(self) -> int:
        return len(self.architectures)

    def architecture(self, row: int) -> str:
        return self.architectures[row]

    def row_of(self, architecture: str) -> int:
        row = self._rows.get(architecture)
        if row is None:
            raise ConfigError(f"{self.name} has no architecture {architecture!r}; one is {self.architectures[0]!r}")
        return row

    @cached_property
    def metrics(self) -> Mapping[str, tuple[int, ...]]:
        return {
            name: tuple(sorted(e for n, e in self.columns if n == name and e is not None))
            for name in dict.fromkeys(name for name, _ in self.columns)
        }

    def runs(self, metric: str, epochs: int | None = None) -> Reals:
        return self.columns[metric, self.budget_of(metric, epochs)]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {architecture: row for row, architecture in enumerate(self.architectures)}


class NasBench101(Table):
    """All 423,624 modules; measurements where the data set has them."""

    name = "NAS-Bench-101"

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.synthetic = dataset.synthetic

    def __len__(self) -> int:
        return len(space.space())

    def architecture(self, row: int) -> str:
        return space.space().hash_of(row)

    def row_of(self, architecture: str) -> int:
        try:
            return space.space().row_of_hash(architecture)
        except KeyError:
            raise ConfigError(f"{self.name} has no module of the hash {architecture!r}") from None

    @cached_property
    def metrics(self) -> Mapping[str, tuple[int, ...]]:
        return {name.removeprefix("final_"): self.dataset.budgets for name in COLUMNS} | {PARAMETERS: ()}

    def runs(self, metric: str, epochs: int | None = None) -> Reals:
        budget = self.budget_of(metric, epochs)
        if budget is None:
            return space.rows().parameters[:, None].astype(np.float64)
        return self.dataset.values(metric.removeprefix("halfway_"), budget, metric.startswith("halfway_"))


def nasbench101(path: Path) -> NasBench101:
    """The columnar file, or what `convert.load` reads, which takes longer."""
    from .convert import load

    return NasBench101(Dataset.open(path) if is_columnar(path) else load(path))


def ecnas(path: Path) -> StoredTable:
    """EC-NAS's CSV file: all 2,532 modules of NAS-Bench-101 of at most five vertices, trained for 4 epochs on a GPU.

    Architectures are hashes. Beside the metrics of NAS-Bench-101 there is "energy" in kWh.
    """
    rows = _csv(path, ("module_hash", "mid_epoch", "repeat", PARAMETERS))
    names = {f"halfway_{m}": f"mid_{m}" for m in METRICS} | {m: f"final_{m}" for m in METRICS}
    names |= {"halfway_energy": "mid_energy_kWh", "energy": "final_energy_kWh"}
    columns: dict[tuple[str, int | None], Reals] = {
        (name, 4): _numbers(path, rows, column) for name, column in names.items()
    }
    columns[PARAMETERS, None] = _numbers(path, rows, PARAMETERS)
    hashes = tuple(row["module_hash"] for row in rows)
    small = space.rows().vertices <= 5
    expected = {h.tobytes().hex() for h in space.rows().hashes[small]}
    if len(hashes) != len(expected) or set(hashes) != expected:
        raise DataError(f"{path} does not have each of the {len(expected):,} modules of at most five vertices once")
    _check_range(path, columns)
    return StoredTable("EC-NAS", hashes, columns)


def nasbench201(path: Path, images: str = "cifar10") -> StoredTable:
    """NAS-Bench-201's CSV file: 15,625 cells, test accuracy after 200 epochs, both accuracies after 12 (mean of seeds).

    An architecture is the six digits of its edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2: 0 none, 1 skip_connect,
    2 nor_conv_1x1, 3 nor_conv_3x3, 4 avg_pool_3x3. Rows are the benchmark's own numbers.
    """
    if images not in IMAGES_201:
        raise ConfigError(f"NAS-Bench-201 has the images {', '.join(IMAGES_201)}, not {images!r}")
    short, best = IMAGES_201[images]
    rows = _csv(path, ("index", "arch"))
    index = _numbers(path, rows, "index")[:, 0]
    if not np.array_equal(np.sort(index), np.arange(len(rows))):
        raise DataError(f"{path}: the column index is not 0 to {len(rows) - 1}, each once")
    rows = [rows[i] for i in np.argsort(index)]
    architectures = _complete(path, [row["arch"] for row in rows], "01234", 6)
    names = {
        ("test_accuracy", 200): "test_200",
        ("test_accuracy", 12): "test_12",
        ("validation_accuracy", 12): "val_12",
    }
    columns: dict[tuple[str, int | None], Reals] = {
        key: _numbers(path, rows, f"{short}_{name}") / 100 for key, name in names.items()
    }
    _check_range(path, columns)
    _check_best(path, columns["test_accuracy", 200], best)
    return StoredTable(f"NAS-Bench-201 ({images})", architectures, columns)


def nasbench_macro(path: Path) -> StoredTable:
    """NAS-Bench-Macro's JSON file: 6,561 networks, on CIFAR-10 the best test accuracy in each of three trainings.

    An architecture is the digits of its eight layers: 0 identity, 1 MB3_K3, 2 MB6_K5. Names that differ only in where a
    stage has its identities are one network, with one measurement.
    """
    try:
        described: Mapping[str, Any] = json.loads(path.read_bytes())
        architectures = _complete(path, sorted(described), "012", 8)
        modules = [described[architecture] for architecture in architectures]
        accuracy = np.array([[float(value) for value in module["test_acc"]] for module in modules]) / 100
        fixed = {name: np.array([[float(m[key])] for m in modules]) for name, key in _MACRO_FIXED.items()}
        if accuracy.shape != (len(modules), 3):
            raise ValueError("test_acc has not three values")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no JSON of NAS-Bench-Macro ({type(error).__name__}: {error})") from None
    columns: dict[tuple[str, int | None], Reals] = {("test_accuracy", EPOCHS_MACRO): accuracy}
    columns |= {(name, None): values for name, values in fixed.items()}
    _check_range(path, columns)
    _check_best(path, accuracy, 0.93127)
    return StoredTable("NAS-Bench-Macro", architectures, columns)


EPOCHS_MACRO = 50
# by images: the name of their columns, and the best test accuracy
IMAGES_201 = {"cifar10": ("c10", 0.943733), "cifar100": ("c100", 0.735133), "imagenet16-120": ("in16", 0.473111)}
_MACRO_FIXED = {PARAMETERS: "params", "flops": "flops"}
LOADERS: Mapping[str, Callable[[Path], Table]] = {
    "nasbench101": nasbench101,
    "ecnas": ecnas,
    "nasbench201": nasbench201,
    "nasbench_macro": nasbench_macro,
}


def load(name: str, path: Path) -> Table:
    """A benchmark by its name; DataError if the file is not it."""
    if name not in LOADERS:
        raise ConfigError(f"no tabular benchmark {name!r}, only {', '.join(LOADERS)}")
    return LOADERS[name](path)


def _csv(path: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            names, rows = reader.fieldnames or (), list(reader)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV file ({error})") from None
    if missing := [name for name in wanted if name not in names]:
        raise DataError(f"{path} has no column {missing[0]}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{path}: line {number} does not have {len(names)} fields")
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def _numbers(path: Path, rows: Sequence[Mapping[str, str]], column: str) -> Reals:
    """A column as (rows, 1) float64."""
    if column not in rows[0]:
        raise DataError(f"{path} has no column {column}")
    values = np.empty((len(rows), 1))
    for i, row in enumerate(rows):
        try:
            values[i] = float(row[column])
        except ValueError:
            raise DataError(f"{path}: row {i}: {column} is {row[column]!r}, not a number") from None
    return values


def _complete(path: Path, architectures: Sequence[str], choices: str, length: int) -> tuple[str, ...]:
    """DataError unless every string of `length` of the choices is there once."""
    expected = {"".join(each) for each in itertools.product(choices, repeat=length)}
    if len(architectures) != len(expected) or set(architectures) != expected:
        raise DataError(f"{path} does not have each of the {len(expected):,} architectures once")
    return tuple(architectures)


def _check_range(path: Path, columns: Mapping[tuple[str, int | None], Reals]) -> None:
    for (name, _), values in columns.items():
        most = 1.0 if name.removeprefix("halfway_") in ACCURACIES else np.inf
        wrong = np.flatnonzero(~((values >= 0) & (values <= most) & np.isfinite(values)).all(1))
        if len(wrong):
            raise DataError(f"{path}: {name} of row {wrong[0]} is {values[wrong[0]].tolist()}")


def _check_best(path: Path, accuracy: Reals, published: float) -> None:
    best = accuracy.mean(1).max()
    if abs(best - published) > 5e-6:
        raise DataError(f"{path} is not the published table: its best accuracy is {best:.6f}, not {published}")
