"""Looking architectures up in a tabular benchmark, where each has been trained already: an evaluation takes no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..architecture import Architecture
from ..costs import CostModel
from ..errors import ConfigError
from ..nasbench.tables import Table
from ..spaces import DecisionSpace, SearchSpace
from ..trial import Measurement
from . import Evaluator


class Tabular(Evaluator):
    def __init__(
        self,
        space: DecisionSpace,
        table: Table,
        *,
        metric: str = "validation_accuracy",
        epochs: int | None = None,
        repeat: int | Literal["mean", "random"] = "mean",
        measured: Sequence[str] = (),
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
    ) -> None:
        """metric, epochs: what an accuracy is, and after how many epochs; None for the most that the table has.
        repeat: which of several runs: one of them, their mean, or one that is drawn anew for every evaluation.
        measured: metrics of the table that are costs, such as trainable_parameters.
        costs: computed of every evaluated architecture's network, in a space of networks.
        """
        if not isinstance(repeat, int) and repeat not in ("mean", "random"):
            raise ConfigError(f"tabular: repeat is a number, mean or random, got {repeat!r}")
        if costs and not isinstance(space, SearchSpace):
            raise ConfigError(f"tabular: {space.name} has no networks to count costs of; `measured` takes those known")
        self.space, self.table, self.repeat, self.seed = space, table, repeat, seed
        self.deterministic = repeat != "random"
        self.costs = dict(costs or {})
        self.evaluations = 0  # so far
        half = "halfway_" if metric.startswith("halfway_") else ""
        self._accuracy = self._runs(metric, epochs)
        time = f"{half}training_time"
        self._seconds = self._runs(time, epochs) if time in table.metrics else None
        self._measured = {name: table.values(name) for name in measured}

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """seconds: what the training took when the table was made."""
        return [self._measure(architecture) for architecture in architectures]

    def _runs(self, metric: str, epochs: int | None) -> np.ndarray:
        """(rows, runs), one run unless they are drawn."""
        if self.repeat == "random":
            return self.table.runs(metric, epochs)
        return self.table.values(metric, epochs, self.repeat)[:, None]

    def _measure(self, architecture: Architecture) -> Measurement:
        name = self.space.benchmark_name(architecture)
        row = self.table.row_of(name)
        there = np.flatnonzero(~np.isnan(self._accuracy[row]))
        if len(there) == 0:
            raise ConfigError(f"{self.table.name} has no measurement of {name} at these epochs")
        run = 0 if self.repeat != "random" else int(np.random.default_rng([self.seed, self.evaluations]).choice(there))
        self.evaluations += 1
        costs = {name: float(values[row]) for name, values in self._measured.items()}
        if isinstance(self.space, SearchSpace) and self.costs:
            network = self.space.network(architecture).trunk
            costs |= {name: cost(network).total for name, cost in self.costs.items()}
        seconds = 0.0 if self._seconds is None else float(self._seconds[row, run])
        return Measurement(float(self._accuracy[row, run]), seconds, costs)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.evaluations = state["evaluations"]
