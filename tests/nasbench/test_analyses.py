"""What the measurements say, against the complete real table of EC-NAS, brute force, and Markov chains."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import ConfigError
from bitwright.nasbench import analyses, moves, space, tables
from bitwright.nasbench.analyses import Measured

OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    path = shared / "data" / "nas-benchmarks"
    if not path.is_dir():
        pytest.skip("the tables are not here")
    return path


@pytest.fixture(scope="module")
def ecnas(folder: Path) -> tables.Table:
    return tables.load("ecnas", folder / "ecnas_5v9e_4epochs.csv")


@pytest.fixture(scope="module")
def data(ecnas: tables.Table) -> Measured:
    return analyses.measured(ecnas)


def made_up(rows: np.ndarray, seed: int = 0) -> Measured:
    """Invented measurements of some modules."""
    draws = np.random.default_rng(seed).random((3, len(rows)))
    return Measured("made up", True, 4, rows, draws[0], draws[1], 1 + draws[2], space.rows().parameters[rows])


def at_most(vertices: int) -> np.ndarray:
    return np.flatnonzero(space.rows().vertices <= vertices)


def test_replaced_operations_have_the_known_effects(data: Measured) -> None:
    """Reference values of the real table, to the digits that are known."""
    found = {(each.before, each.after): each for each in analyses.replacements(data)}
    known = {(0, 1): (-2.77, -12.4), (0, 2): (-7.01, -21.1), (1, 2): (-4.12, -10.1)}
    for (before, after), (accuracy, seconds) in known.items():
        each = found[OPS[before], OPS[after]]
        assert each.pairs == 2499
        assert 100 * each.accuracy == pytest.approx(accuracy, abs=0.005)
        assert 100 * each.seconds == pytest.approx(seconds, abs=0.05)


def test_replacements_are_those_of_one_operation_after_another() -> None:
    """Against the definition, module by module; a fifth of them was not measured."""
    everything = at_most(4)
    data = made_up(everything[np.arange(len(everything)) % 5 != 2])
    known = dict(zip(data.rows.tolist(), zip(data.validation, data.seconds, strict=True), strict=True))
    changes: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row, (accuracy, seconds) in known.items():
        matrix, ops = space.space().matrix(row), space.space().operations(row)
        for vertex in range(1, len(ops) - 1):
            for op in set(OPS) - {ops[vertex]}:
                other = space.row_of(matrix, [*ops[:vertex], op, *ops[vertex + 1 :]])
                if other in known:
                    change = known[other][0] - accuracy, known[other][1] / seconds - 1
                    changes.setdefault((ops[vertex], op), []).append(change)
    found = analyses.replacements(data)
    assert len(found) == len(changes) == 6
    for each in found:
        accuracy, seconds = np.transpose(changes[each.before, each.after])
        assert each.pairs == len(accuracy)
        assert (each.accuracy, each.deviation) == pytest.approx((accuracy.mean(), accuracy.std()))
        assert each.seconds == pytest.approx(seconds.mean())


def paths(matrix: np.ndarray, vertex: int) -> list[list[int]]:
    """All ways from a vertex to the output."""
    if vertex == len(matrix) - 1:
        return [[vertex]]
    return [[vertex, *rest] for after in np.flatnonzero(matrix[vertex]).tolist() for rest in paths(matrix, after)]


def most_edges_none_behind_another(matrix: np.ndarray) -> int:
    """The largest antichain of edges, which no way passes twice; as large as the largest directed cut."""
    ways = [set(itertools.pairwise(path)) for path in paths(matrix, 0)]
    edges = [tuple(edge) for edge in np.argwhere(matrix).tolist()]
    for size in range(len(edges), 0, -1):
        for chosen in itertools.combinations(edges, size):
            if all(len(way & set(chosen)) <= 1 for way in ways):
                return size
    return 0


def test_depth_and_width_are_those_of_all_paths_and_all_sets_of_edges() -> None:
    tables = space.space().tables
    small = np.flatnonzero(tables.class_vertices <= 5)
    large = np.random.default_rng(0).choice(np.flatnonzero(tables.class_vertices > 5), 60, replace=False)
    chosen = np.concatenate([small, large])
    matrices = space.matrices_of(tables.class_matrix[chosen], tables.class_vertices[chosen])
    depths, widths = analyses.depths(matrices), analyses.widths(matrices)
    for matrix, vertices, depth, width in zip(matrices, tables.class_vertices[chosen], depths, widths, strict=True):
        inner = matrix[:vertices, :vertices]
        assert depth == max(map(len, paths(inner, 0))) - 1
        assert width == most_edges_none_behind_another(inner)


def test_groups_by_shape_hold_every_module_once(data: Measured) -> None:
    by_depth, by_width, both = analyses.shapes(data)
    for groups in (by_depth, by_width, both):
        assert sum(g.modules for g in groups) == len(data)
        total = sum(g.modules * g.validation for g in groups) / len(data)
        assert total == pytest.approx(data.validation.mean())
    # a chain of three inner vertices: depth 4, width 1, 27 labelings
    chain = space.bits_of(np.eye(5, k=1))
    chains = space.rows().matrices[data.rows] == chain
    (group,) = (g for g in both if (g.depth, g.width) == (4, 1))
    assert group.modules == chains.sum() == 27
    assert group.seconds == pytest.approx(data.seconds[chains].mean())
    assert group.seconds_deviation == pytest.approx(data.seconds[chains].std())
    deepest = [g for g in both if g.depth == 4]
    assert max(deepest, key=lambda g: g.seconds) == group  # channels that are never split are dearest


def test_known_correlations_of_the_real_table(ecnas: tables.Table, data: Measured) -> None:
    found = {(c.first, c.second): c for c in analyses.quantities(data)}
    assert found["trainable_parameters", "training_time"].pearson == pytest.approx(0.892, abs=5e-4)
    assert found["validation_accuracy", "test_accuracy"].spearman == pytest.approx(0.9996, abs=5e-5)
    budgets = {(c.first, c.second): c for c in analyses.budgets(ecnas)}
    assert budgets["validation_accuracy at 4", "test_accuracy at 4"].spearman == pytest.approx(0.9996, abs=5e-5)
    assert len(budgets) == 3


def test_correlations_with_ties_and_gaps_are_those_of_the_definitions() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 40).astype(float)
    y[:5], x[7] = np.nan, np.nan
    constant, rare = np.ones(40), np.full(40, np.nan)
    rare[20:22] = 1.0, 2.0
    first, second, third = analyses.correlations([("x", x), ("y", y), ("constant", constant), ("rare", rare)])
    there = np.isfinite(x) & np.isfinite(y)
    a, b = x[there], y[there]
    signs = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    tau = (signs[0] * signs[1]).sum() / np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    ranks = [np.array([(v < u).sum() + ((v == u).sum() + 1) / 2 for u in v]) for v in (a, b)]
    assert (first.first, first.second, first.modules) == ("x", "y", there.sum())
    assert first.kendall == pytest.approx(tau)
    assert first.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert first.pearson == pytest.approx(np.corrcoef(a, b)[0, 1])
    for each in (second, third):  # a constant; what too few modules have is left out
        assert each.second == "constant" and (each.pearson, each.spearman, each.kendall) == (None, None, None)


def chain_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The walk as a Markov chain: (N, N) probabilities of a step, and the share of each module in a long walk."""
    steps = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        near = np.isin(rows, moves.neighbours(int(row), grow=True))
        steps[i, near] = 1 / near.sum()
    values, vectors = np.linalg.eig(steps.T)
    share = np.real(vectors[:, np.argmin(abs(values - 1))])
    return steps, share / share.sum()


def test_locality_is_that_of_the_walk_as_a_markov_chain() -> None:
    rows = at_most(4)
    data = made_up(rows)
    labels = space.rows().labels[rows]
    data = replace(data, validation=(labels == 0).sum(1) + 0.3 * data.validation)
    found = analyses.locality(data, walks=25, length=600, most_steps=5, seed=1)
    assert found is not None and found.vertices == 4
    steps, share = chain_of(rows)
    centred = data.validation - share @ data.validation
    products = np.outer(centred, centred) / (share @ centred**2)
    distances = np.array([moves.edit_distances(int(row), rows) for row in rows])
    powers = [share[:, None] * np.linalg.matrix_power(steps, k) for k in range(1, 6)]
    for decay, power in zip(found.by_steps, powers, strict=True):
        assert decay.pairs == 25 * (600 - decay.distance)
        expected = (power * products).sum()
        assert abs(decay.correlation - expected) < 2 * (decay.high - decay.low) and decay.high - decay.low < 0.1
        assert (decay.low <= expected <= decay.high) or abs(decay.correlation - expected) < 0.03
    for decay in found.by_edits:
        inside = distances == decay.distance
        expected = sum((p * products)[inside].sum() for p in powers) / sum(p[inside].sum() for p in powers)
        assert decay.correlation == pytest.approx(expected, abs=max(0.05, decay.high - decay.low))
    assert [decay.distance for decay in found.by_edits] == [1, 2, 3, 4, 5]


def test_accuracies_without_order_have_no_locality() -> None:
    found = analyses.locality(made_up(at_most(4)), walks=10, length=60, most_steps=4)
    assert found is not None
    assert found.by_edits[0].low < 0.1  # chance, though a walk comes back to where it was
    assert analyses.locality(made_up(at_most(3))) is None
    constant = made_up(at_most(4))
    assert analyses.locality(replace(constant, validation=np.ones(len(constant)))) is None
    with pytest.raises(ConfigError, match="2 walks or more, longer than 12 steps; got 1 of 500"):
        analyses.locality(constant, walks=1)


def test_the_real_table_is_local_and_its_walks_repeat(data: Measured) -> None:
    found = analyses.locality(data, walks=6, length=60, most_steps=6, seed=3)
    assert found is not None and found.vertices == 5
    assert found.reach >= 1
    assert found.by_edits[0].correlation > found.by_edits[3].correlation
    assert found == analyses.locality(data, walks=6, length=60, most_steps=6, seed=3)


def test_how_much_of_the_space_is_complete(data: Measured) -> None:
    assert data.complete == 5
    assert made_up(at_most(4)[1:]).complete in (2, 3)
    assert made_up(at_most(7)).complete == 7
    assert made_up(np.array([5])).complete == 0


def test_a_table_with_gaps_gives_what_it_can(folder: Path) -> None:
    table = tables.load("nasbench101", folder / "nb101_real_rows.json")
    data = analyses.measured(table)
    assert (len(data), data.epochs, data.complete) == (33, 108, 0)
    assert np.isfinite([data.validation, data.test, data.seconds]).all()
    assert len(analyses.measured(table, 4)) == 2
    assert analyses.locality(data) is None
    assert sum(g.modules for g in analyses.shapes(data)[0]) == 33
    assert {c.modules for c in analyses.budgets(table)} == {33}  # other budgets have too few modules


@pytest.mark.parametrize("name", ["nasbench201_accs.csv", "nas-bench-macro_cifar10.json"])
def test_tables_of_other_spaces_are_refused(folder: Path, name: str) -> None:
    table = tables.load("nasbench201" if name.endswith("csv") else "nasbench_macro", folder / name)
    with pytest.raises(ConfigError, match="these analyses are of NAS-Bench-101's modules"):
        analyses.measured(table)


def test_architectures_that_are_no_modules_are_refused() -> None:
    names = ("validation_accuracy", "test_accuracy", "training_time")
    table = tables.StoredTable("other", ("0" * 32,), {(name, 4): np.ones((1, 1)) for name in names})
    with pytest.raises(ConfigError, match="no module of NAS-Bench-101"):
        analyses.measured(table)
    free = {(name, 4): np.zeros((1, 1)) for name in names}
    with pytest.raises(ConfigError, match="took no time"):
        analyses.measured(tables.StoredTable("free", (space.space().hash_of(0),), free))
    empty = tables.StoredTable("empty", ("0" * 32,), {(name, 4): np.full((1, 1), np.nan) for name in names})
    with pytest.raises(ConfigError, match="empty has no measured module"):
        analyses.measured(empty)
