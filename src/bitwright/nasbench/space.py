"""The 423,624 modules of NAS-Bench-101, enumerated, and the way from any labelled matrix to its row.

A module is a row number: 0 .. 423,623 in the order of sorted hashes, as in the released file. Its matrix and operations
are the stored ones of the dataset, that is the first that the authors' enumeration met: the smallest matrix, and for it
the lexicographically first labels (Ying et al., NAS-Bench-101, ICML 2019; their script generate_graphs).

A matrix is held as an integer: bit x + y (y - 1) / 2 is the edge from vertex x to vertex y.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import StorageError
from ..files import write_atomically
from .config import AVAILABLE_OPS, INPUT, MODULE_VERTICES, OUTPUT
from .spec import ModelSpec, check_spec

INPUT_LABEL, OUTPUT_LABEL, NO_LABEL = -1, -2, -3
SIZES = range(2, MODULE_VERTICES + 1)
LABELS = len(AVAILABLE_OPS)
LABELINGS = LABELS ** (MODULE_VERTICES - 2)
HASHED_PARTS = 16
CACHE_FILE = "nasbench101-space-1"  # the number changes with what is in it
_EDGES = [(x, y) for y in range(1, MODULE_VERTICES) for x in range(y)]  # by bit
_LABEL = {op: label for label, op in enumerate(AVAILABLE_OPS)}
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Classes:
    """Matrices without labels: the 6,472 that have no useless vertex, and the 2,494 that differ up to isomorphism.

    matrices: (6472,) int32, with `vertices` int8. matrix_class: (6472,) int16. weights: (6472, 5) int16, what the label
    of each inner vertex counts in the number of a labeling of the class.
    class_matrix: (2494,) int32, the smallest matrix of a class. module: (2494, 243) int32, the number of the module of
    a labeling, modules numbered in the order of the enumeration. first_module: (2495,) int32, a class's first one.
    """

    matrices: NDArray[np.int32]
    vertices: NDArray[np.int8]
    matrix_class: NDArray[np.int16]
    weights: NDArray[np.int16]
    class_matrix: NDArray[np.int32]
    class_vertices: NDArray[np.int8]
    module: NDArray[np.int32]
    first_module: NDArray[np.int32]

    def labelings(self) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Class and number of the labeling of every module, in the order of the enumeration."""
        of_module = np.repeat(np.arange(len(self.class_matrix), dtype=np.int16), np.diff(self.first_module))
        code = np.empty(self.first_module[-1], np.uint8)
        for vertices in SIZES:
            inside = self.class_vertices == vertices
            used = self.module[inside, : LABELS ** (vertices - 2)]
            codes = np.broadcast_to(np.arange(used.shape[1], dtype=np.uint8), used.shape)
            # the first labeling of a module is written last
            code[used[:, ::-1].reshape(-1)] = codes[:, ::-1].reshape(-1)
        return of_module, code


def enumerate_classes() -> Classes:
    """All matrices and labelings, from nothing."""
    from . import kernels

    matrices: list[NDArray[np.int32]] = []
    classes: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.int16]] = []
    class_matrix: list[NDArray[np.int32]] = []
    modules: list[NDArray[np.int32]] = []
    first_module = [0]
    for vertices in SIZES:
        inner = vertices - 2
        places = np.array([(0, *p, vertices - 1) for p in itertools.permutations(range(1, vertices - 1))], np.int8)
        found = kernels.full_dags(vertices)
        smallest, how = kernels.canonical(found, vertices, places)
        unique, number = np.unique(smallest, return_inverse=True)
        powers = LABELS ** np.arange(inner - 1, -1, -1)
        weight = np.zeros((len(found), MODULE_VERTICES - 2), np.int16)
        weight[:, :inner] = powers[places[how][:, 1:-1] - 1]
        for bits in unique:
            table = np.full(LABELINGS, -1, np.int32)
            count = kernels.labelings(bits, vertices, places, table)
            table[: LABELS**inner] += first_module[-1]
            modules.append(table)
            first_module.append(first_module[-1] + count)
        classes.append(number + sum(len(unique) for unique in class_matrix))
        matrices.append(found)
        weights.append(weight)
        class_matrix.append(unique)
    return Classes(
        matrices=np.concatenate(matrices),
        vertices=np.repeat(np.array(SIZES, np.int8), [len(m) for m in matrices]),
        matrix_class=np.concatenate(classes).astype(np.int16),
        weights=np.concatenate(weights),
        class_matrix=np.concatenate(class_matrix),
        class_vertices=np.repeat(np.array(SIZES, np.int8), [len(m) for m in class_matrix]),
        module=np.array(modules),
        first_module=np.array(first_module, np.int32),
    )


@dataclass(frozen=True)
class Tables:
    """Everything about the space, as arrays; what a process computes once and later ones read.

    classes, codes: (423624,), class and labeling of a row. hashes: (423624, 16) uint8, ascending. parameters: int32.
    number, kept: (2^21,), by a matrix of seven vertices: what remains of it after pruning, negative outside the space.
    row: (2494, 243) int32, the row of a labeling of a class.
    """

    matrices: NDArray[np.int32]
    vertices: NDArray[np.int8]
    matrix_class: NDArray[np.int16]
    weights: NDArray[np.int16]
    class_matrix: NDArray[np.int32]
    class_vertices: NDArray[np.int8]
    row: NDArray[np.int32]
    classes: NDArray[np.int16]
    codes: NDArray[np.uint8]
    hashes: NDArray[np.uint8]
    parameters: NDArray[np.int32]
    number: NDArray[np.int16]
    kept: NDArray[np.uint8]


def enumerate_modules() -> Tables:
    """All modules with labels, hashes and parameters, from nothing: no file is read."""
    from . import kernels

    space = enumerate_classes()
    of_module, code = space.labelings()
    class_matrices = matrices_of(space.class_matrix, space.class_vertices)
    labels = _labels(space.class_vertices[of_module], code)
    digests = _hashes(space, labels)
    order = np.lexsort(digests.view(">u8").T[::-1])
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    number, kept = kernels.reduced_matrices(*_numbers(space))
    return Tables(
        matrices=space.matrices,
        vertices=space.vertices,
        matrix_class=space.matrix_class,
        weights=space.weights,
        class_matrix=space.class_matrix,
        class_vertices=space.class_vertices,
        row=np.where(space.module < 0, -1, rank[space.module]),
        classes=of_module[order],
        codes=code[order],
        hashes=digests[order],
        parameters=_parameters(kernels.class_costs(class_matrices, space.class_vertices), of_module, labels)[order],
        number=number,
        kept=kept,
    )


def _hashes(space: Classes, labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """MD5 of every module, (N, 16), in parts that take the cores there are."""
    from . import kernels

    first = kernels.first_colours()
    bounds = np.linspace(0, space.first_module[-1], HASHED_PARTS + 1)
    cuts = np.searchsorted(space.first_module, bounds).tolist()

    def words(part: tuple[int, int]) -> NDArray[np.uint32]:
        start, stop = part
        begin = space.first_module[start]
        ends = (space.first_module[start + 1 : stop + 1] - begin).astype(np.int64)
        matrices, vertices = space.class_matrix[start:stop], space.class_vertices[start:stop]
        return kernels.module_hashes(matrices, vertices, ends, labels[begin : space.first_module[stop]], first)

    with ThreadPoolExecutor(min(HASHED_PARTS, os.cpu_count() or 1)) as pool:
        found = np.concatenate(list(pool.map(words, itertools.pairwise(cuts))))
    return found.astype("<u4").view(np.uint8).reshape(-1, 16)


def _numbers(space: Classes) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """The number of a full DAG by its bits, for V = 2..7 one after another, and where each V starts."""
    from . import kernels

    starts = np.zeros(MODULE_VERTICES + 1, np.int64)
    for vertices in SIZES[:-1]:
        starts[vertices + 1] = starts[vertices] + (1 << vertices * (vertices - 1) // 2)
    numbers = np.full(starts[-1] + (1 << len(_EDGES)), kernels.TOO_MANY_EDGES, np.int16)
    numbers[starts[space.vertices] + space.matrices] = np.arange(len(space.matrices), dtype=np.int16)
    return numbers, starts


def _labels(vertices: NDArray[np.int8], codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    """(N, 7) int8: -1, the labels of the inner vertices, -2, and -3 in what is left."""
    labels = np.full((len(codes), MODULE_VERTICES), NO_LABEL, np.int8)
    labels[:, 0] = INPUT_LABEL
    for size in SIZES:
        every = np.array(list(itertools.product(range(LABELS), repeat=size - 2)), np.int8)
        inside = vertices == size
        labels[inside, 1 : size - 1] = every[codes[inside]]
        labels[inside, size - 1] = OUTPUT_LABEL
    return labels


def _parameters(costs: NDArray[np.int32], classes: NDArray[np.int16], labels: NDArray[np.int8]) -> NDArray[np.int32]:
    total: NDArray[np.int32] = costs[classes, 0, 0]
    for v in range(1, MODULE_VERTICES - 1):
        total += np.where(labels[:, v] >= 0, costs[classes, v, np.maximum(labels[:, v], 0)], 0)
    return total


@dataclass(frozen=True)
class Rows:
    """What is fixed of every module, by row.

    matrices: (423624,) int32, the edges as bits. vertices, edges: int8. labels: (423624, 7) int8, -1 the input, 0, 1, 2
    the operations, -2 the output, then -3. parameters: int32. hashes: (423624, 16) uint8, ascending.
    """

    matrices: NDArray[np.int32]
    vertices: NDArray[np.int8]
    edges: NDArray[np.int8]
    labels: NDArray[np.int8]
    parameters: NDArray[np.int32]
    hashes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.matrices)


class Space:
    """Looks modules up in the tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def __len__(self) -> int:
        return len(self.tables.codes)

    @cached_property
    def rows(self) -> Rows:
        tables = self.tables
        vertices = tables.class_vertices[tables.classes]
        matrices = tables.class_matrix[tables.classes]
        return Rows(
            matrices=matrices,
            vertices=vertices,
            edges=_edge_counts(matrices),
            labels=_labels(vertices, tables.codes),
            parameters=tables.parameters,
            hashes=tables.hashes,
        )

    @cached_property
    def _by_matrix(self) -> dict[bytes, tuple[int, tuple[int, ...]]]:
        """The class of a full DAG and the weights of its inner vertices, by the bytes of its int8 matrix."""
        tables = self.tables
        weights = tables.weights.tolist()
        classes = tables.matrix_class.tolist()
        found = {}
        for size in SIZES:
            numbers = np.flatnonzero(tables.vertices == size)
            squares = matrices_of(tables.matrices[numbers], tables.vertices[numbers])[:, :size, :size]
            text, step = squares.tobytes(), size * size
            for k, number in enumerate(numbers.tolist()):
                found[text[k * step : (k + 1) * step]] = classes[number], tuple(weights[number][: size - 2])
        return found

    @cached_property
    def _stored_matrices(self) -> list[NDArray[np.int8]]:
        """By class."""
        tables = self.tables
        squares = matrices_of(tables.class_matrix, tables.class_vertices)
        return [square[:v, :v].copy() for square, v in zip(squares, tables.class_vertices.tolist(), strict=True)]

    @cached_property
    def _operations(self) -> dict[int, list[tuple[str, ...]]]:
        """By vertices and number of the labeling."""
        return {
            size: [(INPUT, *ops, OUTPUT) for ops in itertools.product(AVAILABLE_OPS, repeat=size - 2)] for size in SIZES
        }

    @cached_property
    def _high_words(self) -> NDArray[np.uint64]:
        return self.tables.hashes.view(">u8")[:, 0].astype(np.uint64)

    def find(self, matrix: NDArray[Any], ops: Sequence[str]) -> int:
        """The row of a pruned module, -1 if it is not in the space or not pruned."""
        entry = self._by_matrix.get((matrix if matrix.dtype == np.int8 else matrix.astype(np.int8)).tobytes())
        if entry is None or ops[0] != INPUT or ops[-1] != OUTPUT:
            return -1
        number, weights = entry
        if len(ops) != len(weights) + 2:
            return -1
        code = 0
        for op, weight in zip(ops[1:-1], weights, strict=True):
            label = _LABEL.get(op)
            if label is None:
                return -1
            code += label * weight
        return int(self.tables.row.item(number, code))

    def row_of(self, matrix: ArrayLike, ops: Sequence[str]) -> int:
        """The row of a module given in any vertex order, with or without useless vertices.

        OutOfDomainError outside the space, ValueError for what is no module (see ModelSpec).
        """
        return self.row_of_spec(ModelSpec(matrix, ops))

    def row_of_spec(self, spec: ModelSpec) -> int:
        """Likewise of a spec."""
        row = self.find(spec.matrix, spec.ops) if spec.valid_spec else -1
        if row < 0:
            check_spec(spec)  # tells what is wrong
            return self.row_of(spec.matrix, spec.ops)  # nothing is: the matrix was changed after it was pruned
        return row

    def lookup(self, bits: NDArray[np.int64], ops: NDArray[np.int8]) -> NDArray[np.int32]:
        """Rows of many labelled matrices, -1 for each that is outside the space.

        bits: (N,) int64, the matrices. ops: (N, 7) int8, -1, the labels, -2 at the last vertex, anything but -2 behind
        it. Vertices that do not lie between input and output may have any label.
        """
        from . import kernels

        tables = self.tables
        return kernels.lookup(
            np.ascontiguousarray(bits, np.int64),
            np.ascontiguousarray(ops, np.int8),
            tables.number,
            tables.kept,
            self._row_starts,
            tables.weights,
            tables.row.reshape(-1),
        )

    @cached_property
    def _row_starts(self) -> NDArray[np.int32]:
        return self.tables.matrix_class.astype(np.int32) * np.int32(LABELINGS)

    def matrix(self, row: int) -> NDArray[np.int8]:
        """The stored matrix, (V, V); a new array."""
        return self._stored_matrices[self.tables.classes.item(row)].copy()

    def operations(self, row: int) -> list[str]:
        """The stored operations, input and output included; a new list."""
        size = self.tables.class_vertices.item(self.tables.classes.item(row))
        return list(self._operations[size][self.tables.codes.item(row)])

    def parameters(self, row: int) -> int:
        return int(self.tables.parameters.item(row))

    def spec(self, row: int) -> ModelSpec:
        return ModelSpec(self.matrix(row), self.operations(row))

    def hash_of(self, row: int) -> str:
        """32 hexadecimal digits."""
        digest: bytes = self.tables.hashes[row].tobytes()
        return digest.hex()

    def row_of_hash(self, module_hash: str) -> int:
        """KeyError if no module has the hash."""
        try:
            digest = bytes.fromhex(module_hash)
        except (TypeError, ValueError):
            raise KeyError(module_hash) from None
        if len(digest) == 16 and digest.hex() == module_hash:
            row = int(np.searchsorted(self._high_words, np.uint64(int.from_bytes(digest[:8], "big"))))
            while row < len(self) and self.tables.hashes[row, :8].tobytes() == digest[:8]:
                if self.tables.hashes[row].tobytes() == digest:
                    return row
                row += 1
        raise KeyError(module_hash)

    def sample(self, count: int, seed: int | np.random.Generator) -> NDArray[np.int64]:
        """Rows, every module equally likely, drawn with replacement."""
        return np.random.default_rng(seed).integers(len(self), size=count)


@lru_cache(maxsize=1)
def space() -> Space:
    """The space; its tables are computed by the first process that wants them and then kept in the user's cache."""
    path = cache_path()
    tables = _read(path)
    if tables is None:
        tables = enumerate_modules()
        with contextlib.suppress(StorageError):  # a place that cannot be written costs every process the computation
            _write(path, tables)
    return Space(tables)


def cache_path() -> Path:
    """$XDG_CACHE_HOME/bitwright/nasbench101-space-1, below ~/.cache without that variable."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "bitwright" / CACHE_FILE


def _write(path: Path, tables: Tables) -> None:
    """SHA-256 of what follows, then the arrays as safetensors."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(array) for name, array in asdict(tables).items()})
    write_atomically(path, lambda file: file.write(hashlib.sha256(content).digest() + content))


def _read(path: Path) -> Tables | None:
    """None if there is no such file or it is not whole."""
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(memoryview(content)[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        return None
    arrays: Mapping[str, Any] = load(content[_DIGEST_BYTES:])
    return Tables(**{field.name: arrays[field.name] for field in fields(Tables)})


def counts() -> dict[int, dict[int, int]]:
    """How many modules there are by vertices and edges, enumerated at this moment."""
    classes = enumerate_classes()
    edges = _edge_counts(classes.class_matrix)
    modules = np.diff(classes.first_module)
    found: dict[int, dict[int, int]] = {}
    for size in SIZES:
        inside = classes.class_vertices == size
        by_edges = np.bincount(edges[inside], modules[inside]).astype(int).tolist()
        found[size] = {e: n for e, n in enumerate(by_edges) if n}
    return found


def matrices_of(bits: NDArray[np.int32], vertices: NDArray[np.int8]) -> NDArray[np.int8]:
    """(N, 7, 7) int8; vertex numbers of a smaller matrix are kept, so it lies in the upper left corner."""
    result = np.zeros((len(bits), MODULE_VERTICES, MODULE_VERTICES), np.int8)
    for bit, (x, y) in enumerate(_EDGES):
        result[:, x, y] = (bits >> bit & 1) * (y < vertices)
    return result


def bits_of(matrices: ArrayLike) -> NDArray[np.int64]:
    """The integers of matrices (..., V, V) with V <= 7."""
    array = np.asarray(matrices)
    bits = np.zeros(array.shape[:-2], np.int64)
    for bit, (x, y) in enumerate(_EDGES):
        if y < array.shape[-1]:
            bits |= (array[..., x, y] != 0).astype(np.int64) << bit
    return bits


def labels_of(ops: Sequence[str]) -> list[int]:
    """Labels as `lookup` wants them, padded to seven; -3 for an operation that is not in the space."""
    inner = [_LABEL.get(op, NO_LABEL) for op in ops[1:-1]]
    ends = (INPUT_LABEL if ops[0] == INPUT else NO_LABEL, OUTPUT_LABEL if ops[-1] == OUTPUT else NO_LABEL)
    return [ends[0], *inner, ends[1], *[NO_LABEL] * (MODULE_VERTICES - len(ops))]


def _edge_counts(bits: NDArray[np.int32]) -> NDArray[np.int8]:
    counts: NDArray[np.int8] = np.sum([bits >> bit & 1 for bit in range(len(_EDGES))], axis=0, dtype=np.int8)
    return counts


def rows() -> Rows:
    return space().rows


def row_of(matrix: ArrayLike, ops: Sequence[str]) -> int:
    return space().row_of(matrix, ops)


def lookup(bits: NDArray[np.int64], ops: NDArray[np.int8]) -> NDArray[np.int32]:
    return space().lookup(bits, ops)
