"""What the measurements of NAS-Bench-101's modules say: operations, depth and width, size, locality, ranks.

After Ying et al. 2019 (arXiv:1902.09635), sections 3 and 5. Accuracies are fractions, times seconds, both means over
the repeats of a module.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import space as modules
from .config import AVAILABLE_OPS, MODULE_VERTICES
from .moves import edit_distances, neighbours
from .tables import PARAMETERS, NasBench101, Table

Reals = NDArray[np.float64]
FEWEST = 3  # modules of which a correlation says anything


@dataclass(frozen=True)
class Measured:
    """The modules of a table that were trained for `epochs`.

    rows: (N,) int64, of the space. validation, test, seconds: float64 (N,). parameters: int32 (N,).
    """

    name: str
    synthetic: bool
    epochs: int
    rows: NDArray[np.int64]
    validation: Reals
    test: Reals
    seconds: Reals
    parameters: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """By row of the space: where it stands here, -1 if it was not measured."""
        found = np.full(len(modules.space()), -1)
        found[self.rows] = np.arange(len(self.rows))
        return found

    @cached_property
    def complete(self) -> int:
        """All modules of at most so many vertices were measured; 0 if that is true of no number."""
        there = np.bincount(modules.rows().vertices[self.rows], minlength=MODULE_VERTICES + 1)
        missing = np.flatnonzero(there != np.bincount(modules.rows().vertices, minlength=MODULE_VERTICES + 1))
        largest = int(missing[0]) - 1 if len(missing) else MODULE_VERTICES
        return largest if largest >= modules.SIZES[0] else 0


def measured(table: Table, epochs: int | None = None) -> Measured:
    """What a table of NAS-Bench-101's modules knows; ConfigError if its architectures are others.

    epochs: of the trainings; None for the most that there are.
    """
    if lacking := {"validation_accuracy", "test_accuracy", "training_time"} - set(table.metrics):
        raise ConfigError(f"{table.name} has no {min(lacking)}: these analyses are of NAS-Bench-101's modules")
    budget = table.budget_of("validation_accuracy", epochs)
    values = [table.values(name, budget) for name in ("validation_accuracy", "test_accuracy", "training_time")]
    there = np.flatnonzero(np.isfinite(values).all(0))
    if budget is None or not len(there):
        raise ConfigError(f"{table.name} has no measured module")
    rows = there if isinstance(table, NasBench101) else _rows(table, there.tolist())
    validation, test, seconds = (each[there] for each in values)
    if seconds.min() <= 0:
        raise ConfigError(f"{table.name} has trainings that took no time")
    parameters = modules.rows().parameters[rows]
    return Measured(table.name, table.synthetic, budget, rows, validation, test, seconds, parameters)


def _rows(table: Table, there: Sequence[int]) -> NDArray[np.int64]:
    try:
        return np.array([modules.space().row_of_hash(table.architecture(row)) for row in there], np.int64)
    except KeyError as error:
        raise ConfigError(f"{table.name} has {error}, which is no module of NAS-Bench-101") from None


@dataclass(frozen=True)
class Replacement:
    """An operation of a module replaced by another, over all modules and their vertices where both were measured.

    accuracy, deviation: mean and standard deviation of the change of the validation accuracy.
    seconds: mean of the change of the training time, relative to the time before.
    """

    before: str
    after: str
    pairs: int
    accuracy: float
    deviation: float
    seconds: float


def replacements(data: Measured) -> list[Replacement]:
    """Every pair of operations, in both directions; none without a module of which both forms were measured."""
    rows = modules.rows()
    found = []
    for before, after in itertools.permutations(range(len(AVAILABLE_OPS)), 2):
        pairs = [np.empty((2, 0), np.int64)]
        for vertex in range(1, MODULE_VERTICES - 1):
            here = np.flatnonzero(rows.labels[data.rows, vertex] == before)
            labels = rows.labels[data.rows[here]].copy()
            labels[:, vertex] = after
            there = data.position[modules.lookup(rows.matrices[data.rows[here]].astype(np.int64), labels)]
            pairs.append(np.stack([here, there])[:, there >= 0])
        first, second = np.concatenate(pairs, axis=1)
        if len(first):
            change = data.validation[second] - data.validation[first]
            seconds = data.seconds[second] / data.seconds[first] - 1
            found.append(
                Replacement(
                    AVAILABLE_OPS[before],
                    AVAILABLE_OPS[after],
                    len(first),
                    float(change.mean()),
                    float(change.std()),
                    float(seconds.mean()),
                )
            )
    return found


def depths(matrices: NDArray[np.int8]) -> NDArray[np.int64]:
    """The edges on the longest way from input to output of full DAGs (N, 7, 7); smaller ones lie in the upper left."""
    longest = np.zeros(matrices.shape[:2], np.int64)
    for target in range(1, matrices.shape[2]):
        ways = np.where(matrices[:, :, target] != 0, longest + 1, 0)
        longest[:, target] = ways.max(1)
    deepest: NDArray[np.int64] = longest.max(1)
    return deepest


def widths(matrices: NDArray[np.int8]) -> NDArray[np.int64]:
    """The most edges that a directed cut of full DAGs (N, 7, 7) has.

    A directed cut parts the vertices so that no edge leads back into the part with the input; a chain has width 1.
    """
    best = np.zeros(len(matrices), np.int64)
    size = matrices.shape[1]
    edges = matrices != 0
    for inner in itertools.product((False, True), repeat=size - 2):
        inside = np.array([True, *inner, False])
        forth = edges[:, inside][:, :, ~inside].sum((1, 2))
        back = edges[:, ~inside][:, :, inside].any((1, 2))
        best = np.maximum(best, np.where(back, 0, forth))
    return best


@dataclass(frozen=True)
class Group:
    """Modules of one depth, width, or both (None: of any); deviations are standard deviations over the modules."""

    depth: int | None
    width: int | None
    modules: int
    validation: float
    validation_deviation: float
    seconds: float
    seconds_deviation: float
    parameters: float


def shapes(data: Measured) -> tuple[list[Group], list[Group], list[Group]]:
    """By depth, by width, and by both."""
    tables = modules.space().tables
    matrices = modules.matrices_of(tables.class_matrix, tables.class_vertices)
    classes = tables.classes[data.rows]
    depth, width = depths(matrices)[classes], widths(matrices)[classes]
    by_depth = [_group(data, depth == d, d, None) for d in np.unique(depth).tolist()]
    by_width = [_group(data, width == w, None, w) for w in np.unique(width).tolist()]
    both = np.unique(np.stack([depth, width], axis=1), axis=0).tolist()
    return by_depth, by_width, [_group(data, (depth == d) & (width == w), d, w) for d, w in both]


def _group(data: Measured, inside: NDArray[np.bool_], depth: int | None, width: int | None) -> Group:
    validation, seconds = data.validation[inside], data.seconds[inside]
    return Group(
        depth=depth,
        width=width,
        modules=int(inside.sum()),
        validation=float(validation.mean()),
        validation_deviation=float(validation.std()),
        seconds=float(seconds.mean()),
        seconds_deviation=float(seconds.std()),
        parameters=float(data.parameters[inside].mean()),
    )


@dataclass(frozen=True)
class Correlation:
    """Of two quantities over the modules that have both; None where one of them is constant."""

    first: str
    second: str
    modules: int
    pearson: float | None
    spearman: float | None
    kendall: float | None


def correlations(columns: Sequence[tuple[str, Reals]]) -> list[Correlation]:
    """Every two of some columns (N,), NaN where there is no value; without those that fewer than 3 modules have."""
    from scipy.stats import kendalltau, rankdata

    found = []
    for (first, x), (second, y) in itertools.combinations(columns, 2):
        there = np.isfinite(x) & np.isfinite(y)
        a, b = x[there], y[there]
        if len(a) < FEWEST:
            continue
        constant = a.min() == a.max() or b.min() == b.max()
        pearson, spearman, kendall = (
            (None, None, None)
            if constant
            else (_pearson(a, b), _pearson(rankdata(a), rankdata(b)), float(kendalltau(a, b).statistic))
        )
        found.append(Correlation(first, second, len(a), pearson, spearman, kendall))
    return found


def _pearson(x: Reals, y: Reals) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def quantities(data: Measured) -> list[Correlation]:
    """Between parameters, training time and accuracies."""
    return correlations(
        [
            (PARAMETERS, data.parameters.astype(np.float64)),
            ("training_time", data.seconds),
            ("validation_accuracy", data.validation),
            ("test_accuracy", data.test),
        ]
    )


def budgets(table: Table) -> list[Correlation]:
    """Between the accuracies of all budgets, those at half of a training among them; of any table."""
    wanted = ("halfway_validation_accuracy", "validation_accuracy", "test_accuracy")
    columns = [
        (f"{name} at {epochs}", table.values(name, epochs)) for name in wanted for epochs in table.metrics.get(name, ())
    ]
    return correlations(columns)


@dataclass(frozen=True)
class Decay:
    """The correlation of the validation accuracies of two modules, by a distance; bounds of 95 % confidence."""

    distance: int
    pairs: int
    correlation: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the accuracies are alike beyond what chance explains."""
        return self.low > 0


@dataclass(frozen=True)
class Locality:
    """How alike the modules are that a random walk visits.

    A step goes to any of the modules that one edit leads to (`neighbours` with growth), each equally likely. by_steps:
    the autocorrelation, by the number of steps between two modules. by_edits: of the same pairs, by their edit
    distance. vertices: the most that a module has.
    """

    vertices: int
    walks: int
    length: int
    by_steps: list[Decay]
    by_edits: list[Decay]

    @property
    def reach(self) -> int:
        """The edit distance below which all accuracies are significantly correlated, that included; 0 if none."""
        alike = itertools.takewhile(lambda decay: decay.significant, self.by_edits)
        return max((decay.distance for decay in alike), default=0)


def locality(
    data: Measured, *, walks: int = 20, length: int = 500, most_steps: int = 12, seed: int = 0
) -> Locality | None:
    """Independent walks from random modules; None if the modules are too few to walk among.

    The bounds rest on the differences between walks.
    """
    if walks < 2 or length <= most_steps or most_steps < 1:
        raise ConfigError(f"a locality is of 2 walks or more, longer than {most_steps} steps; got {walks} of {length}")
    if data.complete < 4:
        return None
    rows = _walk(data, walks, length, np.random.default_rng(seed))
    accuracy = data.validation[data.position[rows]]
    if accuracy.min() == accuracy.max():
        return None
    alike = (accuracy - accuracy.mean()) / accuracy.std()
    steps = range(1, most_steps + 1)
    by_steps = []
    for step in steps:
        products = alike[:, :-step] * alike[:, step:]
        by_steps.append(_decay(step, products.sum(1), np.full(walks, products.shape[1])))
    edits = _edits(rows, most_steps)  # (walks, length, most_steps), 0 where there is no pair
    by_edits = []
    for distance in range(1, most_steps + 1):
        sums, counts = np.zeros(walks), np.zeros(walks, np.int64)
        for step in steps:
            chosen = edits[:, :-step, step - 1] == distance
            sums += np.where(chosen, alike[:, :-step] * alike[:, step:], 0).sum(1)
            counts += chosen.sum(1)
        if (counts > 0).sum() > walks // 2:
            by_edits.append(_decay(distance, sums, counts))
    return Locality(data.complete, walks, length, by_steps, by_edits)


def _walk(data: Measured, walks: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(walks, length) rows among the modules of at most `data.complete` vertices."""
    vertices = modules.rows().vertices
    known: dict[int, NDArray[np.int32]] = {}
    visited = np.empty((walks, length), np.int64)
    starts = data.rows[vertices[data.rows] <= data.complete]
    for walk in range(walks):
        row = int(rng.choice(starts))
        for step in range(length):
            visited[walk, step] = row
            if row not in known:
                near = neighbours(row, grow=True)
                known[row] = near[vertices[near] <= data.complete]
            row = int(rng.choice(known[row]))
    return visited


def _edits(rows: NDArray[np.int64], most_steps: int) -> NDArray[np.int32]:
    distances = np.zeros((*rows.shape, most_steps), np.int32)
    for walk, visited in enumerate(rows):
        for i in range(len(visited) - 1):
            later = visited[i + 1 : i + 1 + most_steps]
            distances[walk, i, : len(later)] = edit_distances(int(visited[i]), later)
    return distances


def _decay(distance: int, sums: Reals, counts: NDArray[np.int64]) -> Decay:
    """The ratio of all sums to all counts; its error is that of a ratio estimated from independent walks."""
    from scipy.stats import t

    mean = sums.sum() / counts.sum()
    walks = len(sums)
    error = np.sqrt(walks / (walks - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    half = float(t.ppf(0.975, walks - 1) * error)
    return Decay(distance, int(counts.sum()), float(mean), float(mean - half), float(mean + half))
