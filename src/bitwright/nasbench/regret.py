"""Searches among the architectures of a table, on the clock of the trainings that they would have needed.

After Ying et al. 2019 (arXiv:1902.09635), section 4: a search sees the validation accuracy of one training at a time;
its regret is how far the mean test accuracy of the best architecture, by what was seen, that it has found so far is
below the best mean test accuracy that there is. Where a table knows no times the clock counts trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..evaluators.tabular import Tabular
from ..search import search
from ..spaces import DecisionSpace
from ..spaces.nasbench101 import Nasbench101
from ..spaces.nasbench201 import Nasbench201
from ..spaces.nasbench_macro import NasbenchMacro
from ..strategies import Strategy
from ..strategies._known import Known
from ..strategies.local_search import LocalSearch
from ..strategies.nsga2 import Nsga2
from ..strategies.predictor_guided import PredictorGuided
from ..strategies.random_search import RandomSearch
from ..strategies.regularized_evolution import RegularizedEvolution
from ..trial import Archive, Trial
from .analyses import Measured, measured
from .space import rows as module_rows
from .space import space as modules
from .tables import NasBench101, Table

Reals = NDArray[np.float64]
POINTS = 100  # of the clock, on a logarithmic scale
MARKS = 5
POPULATION, TOURNAMENT = 50, 10  # as in the published example of NAS-Bench-101
TOP = 0.001  # the part of all architectures that evaluations are counted to
PROPOSALS = 20  # for each training that the budget is enough for; who asks for what is known any longer is stuck


@dataclass(frozen=True)
class Contestant:
    """batch: trials that it is told together."""

    make: Callable[[DecisionSpace], Strategy]
    batch: int = 1


def _controller(space: DecisionSpace) -> Strategy:
    """A distribution over the options of each decision, with a learning rate for hundreds of trials, and an entropy
    bonus that does not fade: a policy that has settled asks for what is known."""
    from ..strategies.controller import Controller  # needs PyTorch

    return Controller(space, learning_rate=0.1, entropy_bonus=0.5, entropy_decay=1.0)


STRATEGIES: Mapping[str, Contestant] = {
    "random_search": Contestant(RandomSearch),
    "regularized_evolution": Contestant(partial(RegularizedEvolution, population=POPULATION, tournament=TOURNAMENT)),
    "local_search": Contestant(LocalSearch),
    "nsga2": Contestant(partial(Nsga2, population=20)),
    "controller": Contestant(_controller, batch=5),
    "predictor_guided": Contestant(PredictorGuided),
}
SPACES: Mapping[str, Callable[[], DecisionSpace]] = {"nasbench201": Nasbench201, "nasbench_macro": NasbenchMacro}
PUBLISHED = ("random_search", "regularized_evolution")  # what NAS-Bench-101 was searched with


@dataclass(frozen=True)
class Task:
    """A table to search in.

    metric, epochs: what a search sees.
    rows: (N,) int64, of the table, that the space has. seen, judged: float64 (N,), the mean of what a search sees, and
        what the architecture it found is judged by, test accuracy after the longest training.
    seconds: float64 (N,), of a training; None if the table does not know it.
    """

    space: DecisionSpace
    table: Table
    metric: str
    epochs: int | None
    rows: NDArray[np.int64] = field(repr=False)
    seen: Reals = field(repr=False)
    judged: Reals = field(repr=False)
    seconds: Reals | None = field(repr=False)

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """By row of the table: where it stands here, -1 if it does not."""
        found = np.full(len(self.table), -1)
        found[self.rows] = np.arange(len(self.rows))
        return found

    @cached_property
    def top(self) -> float:
        """What an architecture of the best thousandth has at least, by what a search sees."""
        return float(np.sort(self.seen)[-math.ceil(TOP * len(self.seen))])

    @cached_property
    def runs(self) -> int:
        """Trainings of an architecture. Of several a search sees one, drawn anew each time, where times are known."""
        return 1 if self.seconds is None else self.table.runs(self.metric, self.epochs).shape[1]


def task(name: str, table: Table, metric: str | None = None, epochs: int | None = None) -> Task:
    """The table as a task of its space: nasbench101, nasbench201 or nasbench_macro.

    metric: what a search sees; None for the validation accuracy where there is one, else the test accuracy.
    epochs: of it; None for the most that there are.
    """
    if name == "nasbench101":
        data = measured(table, epochs)
        found = module_task(table, data, metric or "validation_accuracy")
        if found is None:
            raise ConfigError(f"{table.name} lacks modules: a search needs all of at most so many vertices")
        return found
    if name not in SPACES:
        raise ConfigError(f"no table of {name!r} is known: nasbench101, {', '.join(SPACES)}")
    space = SPACES[name]()
    seen = metric or next((m for m in ("validation_accuracy", "test_accuracy") if m in table.metrics), "")
    return _task(space, table, np.arange(len(table)), seen, table.budget_of(seen, epochs))


def module_task(table: Table, data: Measured, metric: str = "validation_accuracy") -> Task | None:
    """Of modules of NAS-Bench-101; None unless all of at most so many vertices, three or more, were measured."""
    if data.complete < 3:
        return None
    inside = data.rows[module_rows().vertices[data.rows] <= data.complete]
    rows = inside if isinstance(table, NasBench101) else [table.row_of(modules().hash_of(int(row))) for row in inside]
    space = Nasbench101((3, 32, 32), 10, (0.0,), (1.0,), vertices=data.complete)
    return _task(space, table, np.array(rows, np.int64), metric, table.budget_of(metric, data.epochs))


def _task(space: DecisionSpace, table: Table, rows: NDArray[np.int64], metric: str, epochs: int | None) -> Task:
    seconds = table.training_time(epochs)
    seen, judged = table.values(metric, epochs)[rows], table.values("test_accuracy")[rows]
    return Task(space, table, metric, epochs, rows, seen, judged, None if seconds is None else seconds[rows])


@dataclass(frozen=True)
class Regret:
    """Searches of one strategy with different seeds. judged, seen: float64 (searches, points), as fractions.

    top: float64 (searches,), trainings until an architecture of the best thousandth, NaN where none was found.
    """

    strategy: str
    judged: Reals = field(repr=False)
    seen: Reals = field(repr=False)
    top: Reals = field(repr=False)


@dataclass(frozen=True)
class Mark:
    """The regrets of all searches at one moment of the clock, by strategy.

    p_values: of every strategy but the first: one-sided Mann-Whitney test that it is no better than the first, with
        Holm's correction over these strategies.
    """

    time: float
    means: dict[str, float]
    deviations: dict[str, float]
    p_values: dict[str, float]


@dataclass(frozen=True)
class Regrets:
    """clock: (points,), in simulated seconds or in trainings. trainings: of the whole clock, at their mean time."""

    searches: int
    trainings: float
    unit: Literal["seconds", "trainings"]
    clock: Reals = field(repr=False)
    curves: tuple[Regret, ...]

    @property
    def marks(self) -> list[Mark]:
        """After each fifth of the time."""
        return [self.mark(float(self.clock[-1]) * (part / MARKS)) for part in range(1, MARKS + 1)]

    def mark(self, time: float) -> Mark:
        """What had been found by then, at the last point of the clock before it."""
        point = max(int(np.searchsorted(self.clock, time, side="right")) - 1, 0)
        at = {curve.strategy: curve.judged[:, point] for curve in self.curves}
        return Mark(
            time,
            {name: float(found.mean()) for name, found in at.items()},
            {name: float(found.std()) for name, found in at.items()},
            _p_values(at),
        )

    def top_p_values(self) -> dict[str, float]:
        """By strategy: one-sided Mann-Whitney test that it needs no fewer trainings to the top than the first one, with
        Holm's correction over the strategies.

        Who did not find it needs more than any other.
        """
        return _p_values({curve.strategy: np.nan_to_num(curve.top, nan=np.inf) for curve in self.curves})


def _p_values(values: Mapping[str, Reals]) -> dict[str, float]:
    """Of all but the first: one-sided Mann-Whitney test that its values are no smaller than those of the first."""
    from scipy.stats import mannwhitneyu

    (_, reference), *others = values.items()
    found = {name: float(mannwhitneyu(each, reference, alternative="less").pvalue) for name, each in others}
    return holm(found)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Corrected for being as many (Holm 1979): the k-th smallest of n times n + 1 - k, at least the smaller ones."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for k, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min((len(p_values) - k) * p_values[name], 1.0))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def regrets(
    task: Task,
    *,
    searches: int = 100,
    trainings: float = 500,
    seed: int = 0,
    strategies: Sequence[str] = PUBLISHED,
    distinct: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Regrets:
    """Searches with each strategy, until they have used the time of so many mean trainings.

    distinct: an architecture that was trained, or an isomorphic one, is not trained again and takes no time.

    Where a table knows several trainings of an architecture and their times, a search sees one of them, drawn anew each
    time; then nothing is the same again, and `distinct` changes nothing. All randomness comes from `seed`.
    """
    if searches < 1:
        raise ConfigError(f"searches are at least 1, got {searches}")
    for name in strategies:
        if name not in STRATEGIES:
            raise ConfigError(f"no strategy {name!r} to compare: {', '.join(STRATEGIES)}")
    if not strategies or len(set(strategies)) < len(strategies):
        raise ConfigError(f"strategies are one or more different ones, got {', '.join(strategies) or 'none'}")
    clock = _clock(task, trainings)
    curves = []
    for number, name in enumerate(strategies):
        judged, seen, top = np.empty((searches, POINTS)), np.empty((searches, POINTS)), np.full(searches, np.nan)
        for i in range(searches):
            own = int(np.random.default_rng([seed, i]).integers(2**31))  # strategies have the same draws at the start
            archive = _search(task, STRATEGIES[name], trainings, float(clock[-1]), own, distinct)
            found, ends, needed = _found(archive, task, distinct)
            at = found[np.searchsorted(ends, clock, side="right") - 1]
            seen[i], judged[i] = task.seen.max() - task.seen[at], task.judged.max() - task.judged[at]
            if needed is not None:
                top[i] = needed
            progress(number * searches + i + 1, len(strategies) * searches)
        curves.append(Regret(name, judged, seen, top))
    unit: Literal["seconds", "trainings"] = "trainings" if task.seconds is None else "seconds"
    return Regrets(searches, trainings, unit, clock, tuple(curves))


def _clock(task: Task, trainings: float) -> Reals:
    """Every search has finished a training when it starts."""
    if task.seconds is None:
        first, most, least = 1.0, float(trainings), 2
    else:
        first = float(np.nanmax(task.table.runs("training_time", task.epochs)))
        most = trainings * float(task.seconds.mean())
        least = math.ceil(first / float(task.seconds.mean())) + 1
    if not most > first:
        raise ConfigError(f"a search takes at least the time of {least} mean trainings, got {trainings:g}")
    return np.geomspace(first, most, POINTS)


def _search(task: Task, contestant: Contestant, trainings: float, time: float, seed: int, distinct: bool) -> Archive:
    """Trials batch by batch, until the trainings took so long."""
    evaluator = Tabular(
        task.space, task.table, metric=task.metric, epochs=task.epochs,
        repeat="random" if task.runs > 1 else "mean", seed=seed,
    )  # fmt: skip
    seconds = 0.0

    def spend(trials: Sequence[Trial]) -> None:
        nonlocal seconds
        seconds += sum(trial.measurement.seconds for trial in trials)

    return search(
        contestant.make(task.space),
        evaluator,
        trials=math.ceil(PROPOSALS * trainings / contestant.batch) * contestant.batch,
        batch=contestant.batch,
        seed=seed,
        space=task.space if distinct else None,
        until=lambda: (evaluator.evaluations >= time) if task.seconds is None else seconds > time,
        after_batch=spend,
    )


def _found(archive: Archive, task: Task, distinct: bool) -> tuple[NDArray[np.int64], Reals, int | None]:
    """After each trial: the position in `task` of the best architecture by what was seen of it, and the time that
    passed; and how many trainings it took to one of the best thousandth.
    """
    accuracies = np.array([trial.measurement.accuracy for trial in archive])
    names = [task.space.benchmark_name(trial.architecture) for trial in archive]
    positions = task.position[[task.table.row_of(name) for name in names]]
    best = np.maximum.accumulate(accuracies)
    newly = np.append(True, accuracies[1:] > best[:-1])
    at = np.maximum.accumulate(np.where(newly, np.arange(len(best)), 0))
    trainings = np.ones(len(best), np.int64)
    if distinct and task.runs == 1:
        known = Known(task.space)
        trainings[:] = [known.add(trial.architecture) for trial in archive]
    counted = np.cumsum(trainings)
    ends = counted if task.seconds is None else np.cumsum([trial.measurement.seconds for trial in archive])
    top = np.flatnonzero((task.seen[positions] >= task.top) & (trainings > 0))
    return positions[at], ends.astype(np.float64), int(counted[top[0]]) if len(top) else None
