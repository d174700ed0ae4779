"""What a search records: measurements, trials, the archive that keeps them, and the objective that ranks them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .architecture import Architecture
from .errors import ConfigError, StorageError


@dataclass(frozen=True, slots=True)
class Measurement:
    """accuracy: in [0, 1], on validation images. seconds: what the evaluation cost (or would have). costs: by name."""

    accuracy: float
    seconds: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """purpose: "search" for what a strategy asked for and learns from, else what the evaluation was for."""

    index: int
    architecture: Architecture
    measurement: Measurement
    purpose: str = "search"


@dataclass(frozen=True)
class Objective:
    """Accuracy under soft budgets: accuracy * product of min(1, budget / cost) ** strength (after Tan et al. 2019,
    MnasNet, arXiv:1807.11626, equation 3, with no reward for staying below the budget).

    budgets: the most that each named cost should be, in its own unit.
    strength: 0 ignores the budgets; 0.07 trades a doubling for 5 % of accuracy; 1 for half of it.
    """

    budgets: Mapping[str, float] = field(default_factory=dict)
    strength: float = 0.5

    def __post_init__(self) -> None:
        for name, budget in self.budgets.items():
            if not budget > 0:
                raise ConfigError(f"the budget of {name} is positive, got {budget}")
        if self.strength < 0:
            raise ConfigError(f"the strength of the budgets is at least 0, got {self.strength}")

    def __call__(self, measurement: Measurement) -> float:
        reward = measurement.accuracy
        for name, budget in self.budgets.items():
            cost = measurement.costs[name]
            if cost > budget:
                reward *= (budget / cost) ** self.strength
        return reward

    def is_met(self, costs: Mapping[str, float]) -> bool:
        """Whether every cost is within its budget."""
        return all(costs[name] <= budget for name, budget in self.budgets.items())

    def excess(self, costs: Mapping[str, float]) -> float:
        """The parts by which costs exceed their budgets, summed; 0 if every one is met."""
        return sum(max(costs[name] / budget - 1, 0.0) for name, budget in self.budgets.items())


@dataclass(frozen=True)
class Objectives:
    """Several figures of a measurement at once, each to be as large ("max") or as small ("min") as may be.

    directions: by name, which is accuracy, seconds, or one of the measurement's costs.
    """

    directions: Mapping[str, Literal["max", "min"]]

    def __post_init__(self) -> None:
        if not self.directions:
            raise ConfigError("objectives are one or more, got none")
        for name, direction in self.directions.items():
            if direction not in ("max", "min"):
                raise ConfigError(f"the objective {name} is max or min, got {direction!r}")

    @classmethod
    def of(cls, names: Iterable[str]) -> Objectives:
        """Accuracy as large, everything else as small as may be."""
        return cls({name: "max" if name == "accuracy" else "min" for name in names})

    def __call__(self, measurement: Measurement) -> tuple[float, ...]:
        """The figures in their order, with the sign with which less is better; ConfigError if one was not measured."""
        known = {**measurement.costs, "accuracy": measurement.accuracy, "seconds": measurement.seconds}
        if missing := [name for name in self.directions if name not in known]:
            raise ConfigError(f"the objective {missing[0]} was not measured, only {', '.join(sorted(known))}")
        return tuple(-known[name] if way == "max" else known[name] for name, way in self.directions.items())


class Archive:
    """All trials of a search in order, in memory and, given a path, in an SQLite file (table `trials`).

    A batch of trials is one transaction, so a killed process leaves whole batches.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._trials: list[Trial] = []
        self._connection: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            self._connection = sqlite3.connect(path)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS trials (idx INTEGER PRIMARY KEY, purpose TEXT NOT NULL,"
                " architecture TEXT NOT NULL, accuracy REAL NOT NULL, costs TEXT NOT NULL, seconds REAL NOT NULL)"
            )
            rows = self._connection.execute(
                "SELECT idx, architecture, accuracy, seconds, costs, purpose FROM trials ORDER BY idx"
            )
            for index, text, accuracy, seconds, costs, purpose in rows:
                if index != len(self._trials):
                    raise ValueError(f"trial {len(self._trials)} is missing")
                measurement = Measurement(float(accuracy), float(seconds), dict(json.loads(costs)))
                self._trials.append(Trial(index, Architecture.parse(text), measurement, purpose))
        except (sqlite3.Error, ValueError, TypeError) as error:  # rows of another program are of the latter kinds
            if self._connection is not None:
                self._connection.close()
            raise StorageError(f"cannot use the archive {path}: {error}") from None

    def record(
        self, architectures: Sequence[Architecture], measurements: Sequence[Measurement], purpose: str = "search"
    ) -> list[Trial]:
        """Append one batch."""
        start = len(self._trials)
        trials = [
            Trial(start + i, architecture, measurement, purpose)
            for i, (architecture, measurement) in enumerate(zip(architectures, measurements, strict=True))
        ]
        if self._connection is not None:
            rows = [
                (
                    t.index,
                    purpose,
                    str(t.architecture),
                    t.measurement.accuracy,
                    json.dumps(dict(t.measurement.costs)),
                    t.measurement.seconds,
                )
                for t in trials
            ]
            try:
                with self._connection:
                    self._connection.executemany(
                        "INSERT INTO trials (idx, purpose, architecture, accuracy, costs, seconds)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        rows,
                    )
            except sqlite3.Error as error:
                raise StorageError(f"cannot write to the archive: {error}") from None
        self._trials += trials
        return trials

    def truncate(self, length: int) -> None:
        """Forget all trials from index `length` on: those recorded after a checkpoint that a run returns to."""
        if length > len(self._trials):
            raise StorageError(f"the archive holds {len(self._trials)} trials, the checkpoint knows {length}")
        if self._connection is not None:
            try:
                with self._connection:
                    self._connection.execute("DELETE FROM trials WHERE idx >= ?", (length,))
            except sqlite3.Error as error:
                raise StorageError(f"cannot write to the archive: {error}") from None
        del self._trials[length:]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    def of(self, purpose: str) -> list[Trial]:
        return [t for t in self._trials if t.purpose == purpose]

    @property
    def best(self) -> Trial:
        """The first of the trials with the highest accuracy."""
        return max(self._trials, key=lambda t: t.measurement.accuracy)

    @property
    def seconds(self) -> float:
        return sum(t.measurement.seconds for t in self._trials)
