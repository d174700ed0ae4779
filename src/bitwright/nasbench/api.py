"""The interface of the original nasbench library: a script for it runs after one import is changed.

    from bitwright import nasbench as api  # was: from nasbench import api

What differs: nothing of TensorFlow is needed; a spec may be of any numbers and any sequence; seven vertices too many
are an OutOfDomainError; the draws are the object's own and not those of the module `random`; metrics are read from a
columnar file (`bitwright nasbench convert`), and statistics are made when they are asked for.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, KeysView, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from ..errors import ConfigError
from . import config as _config
from .columns import COLUMNS, Dataset, is_columnar
from .space import Space, space
from .spec import ModelSpec, OutOfDomainError, check_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value = TypeVar("Value")
_PUBLISHED_OPS = list(_config.AVAILABLE_OPS)


class NASBench:
    """The measurements of all modules.

    dataset_file: a columnar file, which opens at once, or a released .tfrecord file, which is converted in memory.
    seed: of the draws of `query`; two objects with one seed draw alike.

    config: a dict of the original's flags. fixed_statistics, computed_statistics: mappings from hashes.
    valid_epochs: set of the budgets that the file has. training_time_spent, total_epochs_spent: what queries would have
    cost, in seconds and epochs.
    """

    def __init__(self, dataset_file: str | Path, seed: Any = None) -> None:
        self.config = _config.build_config()
        self._random = random.Random(seed)
        print("Loading dataset from file... This may take a few minutes...")
        start = time.time()
        self.dataset = _open(Path(dataset_file))
        self.valid_epochs = set(self.dataset.budgets)
        self.fixed_statistics: Mapping[str, dict[str, Any]] = _Statistics(self, self._fixed)
        self.computed_statistics: Mapping[str, dict[int, list[dict[str, float]]]] = _Statistics(self, self._computed)
        self.history: dict[Any, Any] = {}
        self.training_time_spent = 0.0
        self.total_epochs_spent = 0
        print(f"Loaded dataset in {int(time.time() - start)} seconds")

    @cached_property
    def _space(self) -> Space:
        return space()

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The modules that have runs, ascending."""
        rows = [np.asarray(self.dataset.rows(epochs)) for epochs in self.dataset.budgets]
        complete = next((r for r in rows if len(r) == len(self._space)), None)
        return np.unique(np.concatenate(rows)) if complete is None else complete

    def query(
        self,
        model_spec: ModelSpec,
        epochs: int = 108,
        stop_halfway: bool = False,
        *,
        repeat: int | Literal["mean"] | None = None,
    ) -> dict[str, Any]:
        """One run of a module, chosen at random, and its cost added to the counters.

        epochs: for which it was trained; OutOfDomainError for others than valid_epochs, or a spec out of the space.
        stop_halfway: what was measured, and what it cost, after half of the epochs.
        repeat: the number of a run, from 0 on, or "mean" of all runs; then nothing is drawn.

        Returns a new dict: module_adjacency, module_operations and trainable_parameters of the stored form, which may
        be another order of the vertices; training_time, train_accuracy, validation_accuracy, test_accuracy.
        KeyError if the file has no such run of the module.
        """
        if epochs not in self.valid_epochs:
            raise OutOfDomainError(f"invalid number of epochs, must be one of {self.valid_epochs}")
        row = self._row(model_spec)
        count = self.dataset.repeats(row, epochs)
        if not count:
            raise KeyError(epochs if self._has(row) else self._space.hash_of(row))
        if repeat is None:
            drawn = self._random.randint(0, min(self.config["num_repeats"], count) - 1)
            measured = self.dataset.run(row, epochs, drawn, stop_halfway)
        elif repeat == "mean":
            runs = [self.dataset.run(row, epochs, i, stop_halfway) for i in range(count)]
            measured = tuple(np.mean(runs, axis=0).tolist())
        elif isinstance(repeat, int | np.integer) and 0 <= repeat < count:
            measured = self.dataset.run(row, epochs, int(repeat), stop_halfway)
        else:
            raise ConfigError(f'repeat is "mean", None or 0 to {count - 1}, got {repeat!r}')
        data = self._fixed(row)
        data["training_time"], data["train_accuracy"], data["validation_accuracy"], data["test_accuracy"] = measured
        self.training_time_spent += data["training_time"]
        self.total_epochs_spent += epochs // 2 if stop_halfway else epochs
        return data

    def _row(self, spec: ModelSpec) -> int:
        """OutOfDomainError outside the space."""
        as_published = (
            self.config["available_ops"] == _PUBLISHED_OPS
            and self.config["max_edges"] == _config.MAX_EDGES
            and self.config["module_vertices"] == _config.MODULE_VERTICES
        )
        row = self._space.find(spec.matrix, spec.ops) if spec.valid_spec and as_published else -1
        if row < 0:
            check_spec(spec, self.config)
            row = self._space.row_of_spec(spec)
        return row

    def is_valid(self, model_spec: ModelSpec) -> bool:
        """Whether a spec is in the space; costs nothing."""
        try:
            check_spec(model_spec, self.config)
        except OutOfDomainError:
            return False
        return True

    def get_budget_counters(self) -> tuple[float, int]:
        """Seconds and epochs that all queries so far would have cost."""
        return self.training_time_spent, self.total_epochs_spent

    def reset_budget_counters(self) -> None:
        self.training_time_spent = 0.0
        self.total_epochs_spent = 0

    def evaluate(self, model_spec: ModelSpec, model_dir: str | Path) -> dict[str, Any]:
        """Train a module from scratch as the published runs were, without the table; any vertices, edges and epochs.

        `config` says how (`train_epochs`, `batch_size`, ...; `data_dir` is where CIFAR-10 lies). model_dir takes
        metadata.json and the checkpoint from which an interrupted training goes on. Returns what `query` does, with
        the spec's own matrix and operations.
        """
        from .training import evaluate

        if not model_spec.valid_spec:
            check_spec(model_spec, self.config)
        return evaluate(model_spec.matrix, model_spec.ops, model_dir, self.config)

    def hash_iterator(self) -> KeysView[str]:
        """The hashes of all modules of the file."""
        return self.fixed_statistics.keys()

    def get_metrics_from_hash(self, module_hash: str) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """fixed and computed statistics of a module, as new objects; costs nothing. KeyError for an unknown hash."""
        return self.fixed_statistics[module_hash], self.computed_statistics[module_hash]

    def get_metrics_from_spec(self, model_spec: ModelSpec) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """Likewise; OutOfDomainError outside the space."""
        return self.get_metrics_from_hash(self._space.hash_of(self._row(model_spec)))

    def _has(self, row: int) -> bool:
        """Whether the file has runs of a row."""
        return any(self.dataset.repeats(row, epochs) for epochs in self.dataset.budgets)

    def _fixed(self, row: int) -> dict[str, Any]:
        known = self._space
        return {
            "module_adjacency": known.matrix(row),
            "module_operations": known.operations(row),
            "trainable_parameters": known.parameters(row),
        }

    def _computed(self, row: int) -> dict[int, list[dict[str, float]]]:
        runs = {epochs: self.dataset.runs(row, epochs).tolist() for epochs in self.dataset.budgets}
        return {epochs: [dict(zip(COLUMNS, run, strict=True)) for run in each] for epochs, each in runs.items() if each}


class _Statistics(Mapping[str, Value], Generic[Value]):
    """What is known by hash; every value is made anew, so changing one changes nothing."""

    def __init__(self, benchmark: NASBench, of_row: Callable[[int], Value]) -> None:
        self._benchmark, self._of_row = benchmark, of_row

    def __getitem__(self, module_hash: str) -> Value:
        row = self._benchmark._space.row_of_hash(module_hash)
        if not self._benchmark._has(row):
            raise KeyError(module_hash)
        return self._of_row(row)

    def __iter__(self) -> Iterator[str]:
        hash_of = self._benchmark._space.hash_of
        return (hash_of(row) for row in self._benchmark._rows.tolist())

    def __len__(self) -> int:
        return len(self._benchmark._rows)

    def __repr__(self) -> str:
        return f"<statistics of {len(self):,} modules by hash>"


def _open(path: Path) -> Dataset:
    """DataError for what is neither a columnar nor a released file."""
    if is_columnar(path):
        dataset = Dataset.open(path)
    else:
        from .convert import load

        print(f"`bitwright nasbench convert {path} FILE` once, and FILE opens at once", file=sys.stderr)
        dataset = load(path)
    if dataset.synthetic:
        print(f"{path} is synthetic: nothing in it was measured", file=sys.stderr)
    return dataset
