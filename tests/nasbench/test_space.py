"""The enumerated space, against the published figures, real modules, and the authors' procedure done naively."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.errors import ConfigError
from bitwright.nasbench import ModelSpec, OutOfDomainError, compiled
from bitwright.nasbench import space as spaces
from bitwright.nasbench.hashing import gen_is_edge_fn, hash_module, is_full_dag
from bitwright.nasbench.parameters import trainable_parameters
from bitwright.nasbench.space import Space, bits_of, counts, labels_of, matrices_of, space

COUNTS = {
    2: {1: 1},
    3: {2: 3, 3: 3},
    4: {3: 9, 4: 33, 5: 33, 6: 9},
    5: {4: 27, 5: 225, 6: 622, 7: 811, 8: 558, 9: 198},
    6: {5: 81, 6: 1260, 7: 6909, 8: 19701, 9: 34059},
    7: {6: 243, 7: 6264, 8: 58563, 9: 294012},
}
OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
INCEPTION = [[0, 1, 1, 1, 0, 1, 0], *[[0] * 6 + [1]] * 2, [0, 0, 0, 0, 1, 0, 0], *[[0] * 6 + [1]] * 2, [0] * 7]
INCEPTION_OPS = ["input", OPS[1], OPS[0], OPS[0], OPS[0], OPS[2], "output"]
INCEPTION_HASH = "28cfc7874f6d200472e1a9dcd8650aa0"
BEST = [
    [0, 1, 1, 0, 0, 1, 1],
    [0, 0, 0, 0, 0, 1, 0],
    [0, 0, 0, 1, 0, 0, 0],
    [0, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0],
]
BEST_OPS = ["input", OPS[1], OPS[0], OPS[2], OPS[0], OPS[0], "output"]


def test_the_counts_by_vertices_and_edges_are_the_published_ones() -> None:
    assert counts() == COUNTS
    assert sum(n for by_edges in counts().values() for n in by_edges.values()) == 423_624


def test_matrices_and_classes_are_as_many_as_published() -> None:
    tables = space().tables
    assert np.bincount(tables.vertices)[2:].tolist() == [1, 2, 10, 121, 1545, 4793]
    assert np.bincount(tables.class_vertices)[2:].tolist() == [1, 2, 10, 97, 810, 1574]


def test_what_remains_of_all_matrices_of_seven_vertices() -> None:
    number = space().tables.number
    assert [(number >= 0).sum(), (number == -1).sum(), (number == -2).sum()] == [1_538_083, 149_607, 409_462]


def test_rows_are_sorted_by_different_hashes() -> None:
    rows = space().rows
    words = rows.hashes.view(">u8").astype(np.uint64)
    high, low = words[:, 0], words[:, 1]
    assert ((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))).all()
    assert space().hash_of(0) == "00005c142e6f48ac74fdcf73e3439874"
    assert space().hash_of(423_623) == "ffff76fafa7b0cdf545fd7feee9c8bf9"
    assert space().row_of_hash("47d79fd551ff9601ab90fab247246c3e") == 118_959


def test_the_parameters_of_the_whole_space_are_as_published() -> None:
    parameters = space().rows.parameters
    assert (parameters.min(), parameters.max()) == (227_274, 49_979_274)
    assert np.median(parameters) == 5_356_682
    assert round(parameters.mean()) == 8_459_762
    assert len(np.unique(parameters)) == 3_336


@pytest.mark.parametrize(
    ("matrix", "ops", "module_hash", "parameters"),
    [
        (INCEPTION, INCEPTION_OPS, INCEPTION_HASH, 2_694_282),
        (BEST, BEST_OPS, "02e5a0247bbdcf2860b7e96f74961594", 32_426_634),
    ],
    ids=["inception", "best"],
)
def test_published_cells(matrix: list[list[int]], ops: list[str], module_hash: str, parameters: int) -> None:
    row = space().row_of(matrix, ops)
    assert space().hash_of(row) == module_hash == ModelSpec(matrix, ops).hash_spec(list(OPS))
    assert space().parameters(row) == parameters == trainable_parameters(np.array(matrix), ops)


def test_the_first_module_of_the_original_program_has_its_published_parameters() -> None:
    assert space().parameters(space().row_of_hash("47d79fd551ff9601ab90fab247246c3e")) == 22_421_642


def test_real_modules_are_found_with_all_that_is_fixed(real_modules: dict[str, Any]) -> None:
    assert len(real_modules) == 33
    for module_hash, module in real_modules.items():
        row = space().row_of(module["module_adjacency"], module["module_operations"])
        assert space().hash_of(row) == module_hash
        assert row == space().row_of_hash(module_hash)
        assert space().matrix(row).tolist() == module["module_adjacency"]
        assert space().operations(row) == module["module_operations"]
        assert space().parameters(row) == module["trainable_parameters"]


def test_consecutive_real_modules_have_consecutive_rows(real_modules: dict[str, Any]) -> None:
    rows = sorted(space().row_of_hash(module_hash) for module_hash in real_modules)
    assert rows[-30:] == list(range(422_933, 422_963))


def test_all_modules_of_up_to_five_vertices(small_modules: list[tuple[str, np.ndarray, list[str], int]]) -> None:
    found = set()
    for module_hash, matrix, ops, parameters in small_modules:
        row = space().row_of_hash(module_hash)
        assert space().matrix(row).tolist() == matrix.tolist()
        assert (space().operations(row), space().parameters(row)) == (ops, parameters)
        found.add(row)
    assert sorted(found) == np.flatnonzero(space().rows.vertices <= 5).tolist()


def met_first(vertices: int) -> Iterator[tuple[str, np.ndarray, tuple[int, ...]]]:
    """The authors' enumeration: hash, matrix and labels of every new hash."""
    seen = set()
    for bits in range(2 ** (vertices * (vertices - 1) // 2)):
        matrix = np.fromfunction(gen_is_edge_fn(bits), (vertices, vertices)).astype(np.int8)
        if not is_full_dag(matrix) or matrix.sum() > 9:
            continue
        for labels in itertools.product(range(3), repeat=vertices - 2):
            module_hash = hash_module(matrix, (-1, *labels, -2))
            if module_hash not in seen:
                seen.add(module_hash)
                yield module_hash, matrix, labels


@pytest.mark.parametrize("vertices", [2, 3, 4, 5])
def test_the_stored_form_is_the_one_that_the_authors_procedure_meets_first(vertices: int) -> None:
    stored = list(met_first(vertices))
    assert len(stored) == sum(COUNTS[vertices].values())
    for module_hash, matrix, labels in stored:
        row = space().row_of_hash(module_hash)
        assert space().matrix(row).tolist() == matrix.tolist()
        assert space().operations(row) == ["input", *(OPS[label] for label in labels), "output"]


@pytest.mark.slow
def test_the_stored_forms_of_six_vertices() -> None:
    for module_hash, matrix, labels in met_first(6):
        row = space().row_of_hash(module_hash)
        assert space().matrix(row).tolist() == matrix.tolist()
        assert space().rows.labels[row, 1:5].tolist() == list(labels)


def test_compiled_hashes_are_those_of_hashlib() -> None:
    rows = space().rows
    for row in [*np.random.default_rng(1).integers(len(rows), size=300).tolist(), 0, 423_623]:
        size = int(rows.vertices[row])
        assert hash_module(space().matrix(row), rows.labels[row, :size].tolist()) == space().hash_of(row)


def test_any_order_of_the_vertices_leads_to_the_same_row() -> None:
    generator = np.random.default_rng(2)
    for row in generator.integers(len(space()), size=60).tolist():
        matrix, ops = space().matrix(row), space().operations(row)
        last = len(matrix) - 1
        for order in itertools.permutations(range(1, last)):
            moved = matrix[np.ix_((0, *order, last), (0, *order, last))]
            if not np.tril(moved).any():
                assert space().row_of(moved, [ops[v] for v in (0, *order, last)]) == row


def random_raw(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = np.full((count, 7), -3, np.int8)
    bits = np.empty(count, np.int64)
    for i in range(count):
        size = int(generator.integers(2, 8))
        labels[i, 0], labels[i, size - 1] = -1, -2
        labels[i, 1 : size - 1] = generator.integers(0, 3, size - 2)
        bits[i] = generator.integers(0, 1 << size * (size - 1) // 2)
    return bits, labels


def test_a_batch_is_looked_up_as_one_spec_after_another_by_hash() -> None:
    bits, labels = random_raw(1500)
    rows = space().lookup(bits, labels)
    assert 0.3 < (rows >= 0).mean() < 0.95
    for i, row in enumerate(rows.tolist()):
        size = int(np.flatnonzero(labels[i] == -2)[0]) + 1
        matrix = matrices_of(bits[i : i + 1], np.array([size], np.int8))[0, :size, :size]
        spec = ModelSpec(matrix, ["input", *(OPS[label] for label in labels[i, 1 : size - 1]), "output"])
        if not spec.valid_spec or spec.matrix.sum() > 9:
            assert row == -1
        else:
            assert space().hash_of(row) == spec.hash_spec(list(OPS))


def test_every_row_is_found_again() -> None:
    rows = space().rows
    assert (space().lookup(rows.matrices.astype(np.int64), rows.labels) == np.arange(423_624)).all()


def test_a_batch_says_minus_one_outside_the_space() -> None:
    chain = bits_of([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    labels = np.array(
        [
            [-1, 0, -2, 9, 9, 9, 9],  # inside; what is behind the output does not matter
            [-1, 3, -2, -3, -3, -3, -3],
            [-1, -1, -2, -3, -3, -3, -3],
            [0, 0, -2, -3, -3, -3, -3],
            [-1, 0, 0, -3, -3, -3, -3],
        ],
        np.int8,
    )
    found = space().lookup(np.full(5, int(chain)), labels)
    assert found[0] == space().row_of([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", OPS[0], "output"])
    assert found[1:].tolist() == [-1] * 4
    assert space().lookup(np.array([-1, 1 << 21, 1 << 40, 8]), labels[[0, 0, 0, 0]]).tolist() == [-1] * 4


def test_an_operation_that_is_pruned_may_be_any() -> None:
    matrix = [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    direct = space().row_of([[0, 1], [0, 0]], ["input", "output"])
    assert space().row_of(matrix, ["input", "anything", "output"]) == direct
    labels = np.array([labels_of(["input", "anything", "output"])], np.int8)
    assert space().lookup(bits_of([matrix]), labels)[0] == direct


def test_a_matrix_and_its_integer_are_each_other() -> None:
    matrices = space().tables.matrices
    sizes = space().tables.vertices
    assert (bits_of(matrices_of(matrices, sizes)) == matrices).all()


@pytest.mark.parametrize("module_hash", ["", "0" * 32, "zz", INCEPTION_HASH.upper(), INCEPTION_HASH[:-1], 5])
def test_an_unknown_hash_is_a_key_error(module_hash: Any) -> None:
    with pytest.raises(KeyError):
        space().row_of_hash(module_hash)


def test_a_module_outside_is_out_of_domain() -> None:
    with pytest.raises(OutOfDomainError, match="unsupported op conv5x5"):
        space().row_of([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv5x5", "output"])
    with pytest.raises(OutOfDomainError, match="disconnected"):
        space().row_of([[0, 0], [0, 0]], ["input", "output"])


def test_samples_are_uniform_over_the_modules() -> None:
    drawn = space().sample(200_000, 5)
    assert drawn.min() >= 0 and drawn.max() < 423_624
    expected = 200_000 / 100
    observed = np.bincount(drawn * 100 // 423_624, minlength=100)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert 50 < statistic < 160  # chi-square with 99 degrees of freedom: 1e-5 is below and above
    sizes = np.bincount(space().rows.vertices[drawn], minlength=8) / 200_000
    published = np.array([0, 0] + [sum(COUNTS[v].values()) for v in range(2, 8)]) / 423_624
    assert np.abs(sizes - published).max() < 0.005
    assert (space().sample(10, 5) == drawn[:10]).all()


def test_the_cache_is_used_checked_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache" / "space"
    tables = space().tables
    spaces._write(path, tables)
    found = spaces._read(path)
    assert found is not None
    assert all(np.array_equal(getattr(found, name), getattr(tables, name)) for name in vars(tables))
    whole = path.read_bytes()
    for broken in (b"", whole[:1000], whole[:-1], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        path.write_bytes(broken)
        assert spaces._read(path) is None
    monkeypatch.setattr(spaces, "cache_path", lambda: path)
    monkeypatch.setattr(spaces, "enumerate_modules", lambda: tables)
    assert len(spaces.space.__wrapped__()) == 423_624
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    tables = space().tables
    monkeypatch.setattr(spaces, "cache_path", lambda: tmp_path / "file" / "space")
    monkeypatch.setattr(spaces, "enumerate_modules", lambda: tables)
    assert isinstance(spaces.space.__wrapped__(), Space)


def test_the_cache_follows_xdg(tmp_path: Path) -> None:
    places = "/somewhere", "", "relative"
    program = (
        "import os; from bitwright.nasbench.space import cache_path\n"
        f"for place in {places}: os.environ['XDG_CACHE_HOME'] = place; print(cache_path().parent)"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    at_home = str(tmp_path / ".cache" / "bitwright")
    assert said.stdout.split() == ["/somewhere/bitwright", at_home, at_home]


def test_without_numba_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ConfigError, match=r"bitwright\[nasbench\]"):
        compiled.compiled(abs)


def test_where_nothing_can_be_kept_functions_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled.compiled(_next)(2) == 3


def _next(number: int) -> int:
    return number + 1
