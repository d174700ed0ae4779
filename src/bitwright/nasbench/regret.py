"""Searches among measured modules, on the clock of the trainings that they would have needed.

After Ying et al. 2019 (arXiv:1902.09635), section 4: a search sees the validation accuracy of one training at a time;
its regret is how far the mean test accuracy of the best module, by validation, that it has found so far is below the
best mean test accuracy that there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..evaluators.tabular import Tabular
from ..search import search
from ..spaces import SearchSpace
from ..spaces.nasbench101 import Nasbench101
from ..strategies import Strategy
from ..strategies.random_search import RandomSearch
from ..strategies.regularized_evolution import RegularizedEvolution
from ..trial import Archive
from .analyses import Measured
from .space import rows as module_rows
from .tables import Table

Reals = NDArray[np.float64]
STEP = 50  # trials between two looks at the clock
POINTS = 100  # of the clock, on a logarithmic scale
MARKS = 5
POPULATION, TOURNAMENT = 50, 10  # as in the published example of NAS-Bench-101
STRATEGIES: dict[str, Callable[[SearchSpace], Strategy]] = {
    "random_search": RandomSearch,
    "regularized_evolution": partial(RegularizedEvolution, population=POPULATION, tournament=TOURNAMENT),
}


@dataclass(frozen=True)
class Regret:
    """Searches of one strategy with different seeds. test, validation: float64 (searches, points), as fractions."""

    strategy: str
    test: Reals = field(repr=False)
    validation: Reals = field(repr=False)


@dataclass(frozen=True)
class Mark:
    """The test regrets of all searches at one moment, by strategy.

    p_value: one-sided Mann-Whitney test that the last strategy is no better than the first.
    """

    seconds: float
    means: dict[str, float]
    deviations: dict[str, float]
    p_value: float


@dataclass(frozen=True)
class Regrets:
    """seconds: (points,), the simulated time. vertices: the most that a module has."""

    vertices: int
    searches: int
    trainings: float
    seconds: Reals = field(repr=False)
    curves: tuple[Regret, ...]

    @property
    def marks(self) -> list[Mark]:
        """After each fifth of the time."""
        return [self.mark(float(self.seconds[-1]) * (part / MARKS)) for part in range(1, MARKS + 1)]

    def mark(self, seconds: float) -> Mark:
        """What had been found by then, at the last point of the clock before it."""
        from scipy.stats import mannwhitneyu

        point = max(int(np.searchsorted(self.seconds, seconds, side="right")) - 1, 0)
        first, last = self.curves[0].test[:, point], self.curves[-1].test[:, point]
        return Mark(
            seconds,
            {curve.strategy: float(curve.test[:, point].mean()) for curve in self.curves},
            {curve.strategy: float(curve.test[:, point].std()) for curve in self.curves},
            float(mannwhitneyu(last, first, alternative="less").pvalue),
        )


def regrets(
    table: Table,
    data: Measured,
    *,
    searches: int = 100,
    trainings: float = 500,
    seed: int = 0,
    strategies: Sequence[str] = tuple(STRATEGIES),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Regrets | None:
    """Searches with each strategy, until they have used the time of so many mean trainings.

    None if the table lacks modules: it must have all of at most so many vertices, three or more. Where a module was
    trained more than once, a search sees one of its runs, drawn anew each time. All randomness comes from `seed`.
    """
    if searches < 1:
        raise ConfigError(f"searches are at least 1, got {searches}")
    if data.complete < 3:
        return None
    inside = module_rows().vertices[data.rows] <= data.complete
    runs = table.runs("training_time", data.epochs)
    drawn = runs.shape[1] > 1
    first, most = float(np.nanmax(runs)), trainings * float(data.seconds[inside].mean())
    if not most > first:
        least = math.ceil(first / float(data.seconds[inside].mean())) + 1
        raise ConfigError(f"a search takes at least the time of {least} mean trainings, got {trainings:g}")
    space = Nasbench101((3, 32, 32), 10, (0.0,), (1.0,), vertices=data.complete)
    seconds = np.geomspace(first, most, POINTS)  # every search has finished a training when the clock starts
    best = data.validation[inside].max(), data.test[inside].max()
    curves = []
    for number, name in enumerate(strategies):
        test, validation = np.empty((searches, POINTS)), np.empty((searches, POINTS))
        for i in range(searches):
            own = int(np.random.default_rng([seed, i]).integers(2**31))  # strategies have the same draws at the start
            evaluator = Tabular(space, table, epochs=data.epochs, repeat="random" if drawn else "mean", seed=own)
            archive = _search(STRATEGIES[name](space), evaluator, most, own)
            found, ends = _found(archive, space, data)
            at = found[np.searchsorted(ends, seconds, side="right") - 1]
            validation[i], test[i] = best[0] - data.validation[at], best[1] - data.test[at]
            progress(number * searches + i + 1, len(strategies) * searches)
        curves.append(Regret(name, test, validation))
    return Regrets(data.complete, searches, trainings, seconds, tuple(curves))


def _search(strategy: Strategy, evaluator: Tabular, seconds: float, seed: int) -> Archive:
    """Trials one by one, until the trainings took so long."""
    archive = Archive()
    while archive.seconds <= seconds:
        told = len(archive)
        search(strategy, evaluator, trials=told + STEP, seed=seed, archive=archive, told=told)
    return archive


def _found(archive: Archive, space: Nasbench101, data: Measured) -> tuple[NDArray[np.int64], Reals]:
    """After each trial: the position in `data` of the best module by what was seen of it, and the time that passed."""
    accuracies = np.array([trial.measurement.accuracy for trial in archive])
    positions = data.position[[space.row(trial.architecture) for trial in archive]]
    best = np.maximum.accumulate(accuracies)
    newly = np.append(True, accuracies[1:] > best[:-1])
    at = np.maximum.accumulate(np.where(newly, np.arange(len(best)), 0))
    return positions[at], np.cumsum([trial.measurement.seconds for trial in archive])
