"""The measurements of NAS-Bench-101 by columns: one file that opens memory-mapped, without loss, 20 bytes a run.

An accuracy is float32(k) / float32(9984) with an integer k, because an evaluation counts right answers among 39 batches
of 256 images, and a time is a float32: columns hold uint16 k and float32, and float64 where a value is neither. Rows
are the modules in the order of their hashes. What follows from a module alone (hash, adjacency, operations, parameters)
is not in the file.

The file is a safetensors file, so that other programs can read it. Its metadata says what it holds and the SHA-256 of
every column; opening checks the size and the metadata, the first use of a column checks the column.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError, DataError
from ..files import write_atomically

ROWS = 423_624
IMAGES = 9984  # of an evaluation
METRICS = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
POINTS = ("halfway", "final")
COLUMNS = tuple(f"{point}_{metric}" for point in POINTS for metric in METRICS)
RUN = np.dtype([(name, np.float64) for name in COLUMNS])
KEPT = (
    *(f"start_{metric}" for metric in METRICS),
    *(f"{point}_epoch" for point in ("start", *POINTS)),
    "total_time",
    "position",
)  # with --keep-all: what only the released file needs; position: the number of the record in it
LEVELS = (np.arange(IMAGES + 1, dtype=np.float32) / np.float32(IMAGES)).astype(np.float64)
KEY, VERSION = "bitwright nasbench101", 1
ALIGNMENT = 64
MOST_METADATA = 1 << 24
TYPES = {"F64": np.float64, "F32": np.float32, "I32": np.int32, "U16": np.uint16, "U8": np.uint8}
TYPE_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


@dataclass(frozen=True)
class Budget:
    """What a data set holds for one number of epochs. repeats: the most runs of a module."""

    epochs: int
    modules: int
    repeats: int
    runs: int


@dataclass(frozen=True)
class Metadata:
    """Where the measurements come from. sha256, size: of the file they were read from; released: its name among the
    released files if it is one of them, else empty. wide: the columns that needed float64."""

    budgets: tuple[Budget, ...]
    synthetic: bool
    source: str
    size: int
    sha256: str
    released: str = ""
    kept_all: bool = False
    wide: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Measurements by row of the space (0 to 423,623), epochs, repeat and metric; times are seconds.

    column: the stored array of a name such as "108/final_test_accuracy", of shape (modules, repeats).
    """

    metadata: Metadata
    column: Callable[[str], np.ndarray] = field(repr=False)
    path: Path | None = None
    _fast: dict[tuple[int, bool], _Reader] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """The file that `write` wrote, memory-mapped; DataError if it is anything else."""
        return _open(Path(path))

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of epochs for which there are runs."""
        return tuple(budget.epochs for budget in self.metadata.budgets)

    @property
    def synthetic(self) -> bool:
        return self.metadata.synthetic

    def budget(self, epochs: int) -> Budget:
        """ConfigError if no module was trained for so many epochs."""
        for budget in self.metadata.budgets:
            if budget.epochs == epochs:
                return budget
        raise ConfigError(f"no runs of {epochs} epochs, only of {', '.join(map(str, self.budgets))}")

    def rows(self, epochs: int) -> np.ndarray:
        """The rows that have runs of so many epochs, ascending."""
        budget = self.budget(epochs)
        return np.arange(ROWS, dtype=np.int32) if budget.modules == ROWS else self.column(f"{epochs}/modules")

    def counts(self, epochs: int) -> np.ndarray:
        """Runs of each of `rows(epochs)`."""
        budget = self.budget(epochs)
        if budget.runs == budget.modules * budget.repeats:
            return np.full(budget.modules, budget.repeats, np.uint8)
        return self.column(f"{epochs}/counts")

    def repeats(self, row: int, epochs: int) -> int:
        """How often a module was trained for so many epochs: 0 if it never was."""
        return self._reader(epochs, False).count(row)

    def run(self, row: int, epochs: int, repeat: int, halfway: bool = False) -> tuple[float, float, float, float]:
        """Training time and accuracy on training, validation and test images of one run.

        ConfigError if there is no such run.
        """
        return self._reader(epochs, halfway).run(row, repeat)

    def runs(self, row: int, epochs: int) -> np.ndarray:
        """All runs of a module: a structured array (repeats,) of float64 with the fields of COLUMNS."""
        halves = [self._reader(epochs, halfway) for halfway in (True, False)]
        runs = np.empty(halves[0].count(row), RUN)
        for repeat in range(len(runs)):
            runs[repeat] = halves[0].run(row, repeat) + halves[1].run(row, repeat)
        return runs

    def stored(self, name: str, epochs: int) -> np.ndarray:
        """One of COLUMNS, or of KEPT if the data set has them: float64 (modules, repeats), NaN where there is no run.

        Modules are `rows(epochs)`.
        """
        budget = self.budget(epochs)
        values = _reals(self._whole(name, epochs))
        if budget.runs < values.size:
            values[np.arange(budget.repeats) >= self.counts(epochs)[:, None]] = np.nan
        return values

    def picked(self, name: str, epochs: int, positions: np.ndarray, repeats: np.ndarray) -> np.ndarray:
        """The elements of `stored(name, epochs)` at these positions and repeats, (N,)."""
        return _reals(self._whole(name, epochs)[positions, repeats])

    def values(self, metric: str, epochs: int, halfway: bool = False) -> np.ndarray:
        """A metric of METRICS for all rows of the space: float64 (rows, repeats), NaN where there is no run."""
        return self._spread(self.stored(_column_name(metric, halfway), epochs), epochs)

    def mean(self, metric: str, epochs: int, halfway: bool = False) -> np.ndarray:
        """The mean over a module's runs of a metric of METRICS: float64 (rows,), NaN where there is none."""
        values = self.stored(_column_name(metric, halfway), epochs)
        budget = self.budget(epochs)
        if budget.runs == values.size:
            return self._spread(values.mean(1), epochs)
        return self._spread(np.nansum(values, 1) / self.counts(epochs), epochs)

    def verify(self) -> None:
        """Check every column against its checksum; DataError names the first that differs."""
        for budget in self.metadata.budgets:
            for name in _names(budget, self.metadata.kept_all):
                self.column(name)

    def describe(self) -> str:
        """What the data set holds, in a few lines."""
        lines = [f"NAS-Bench-101{', SYNTHETIC: not measured' if self.synthetic else ''} (from {self.metadata.source})"]
        for budget in self.metadata.budgets:
            lines.append(f"{budget.epochs:>4} epochs: {budget.runs:,} runs of {budget.modules:,} modules")
        if self.metadata.released:
            lines.append(f"the released {self.metadata.released}, by its SHA-256")
        if self.metadata.wide:
            lines.append(f"float64, because the values need it: {', '.join(self.metadata.wide)}")
        return "\n".join(lines)

    def _whole(self, name: str, epochs: int) -> np.ndarray:
        """A column as it is stored, a constant one as a view of full size."""
        if name in KEPT and not self.metadata.kept_all:
            raise ConfigError(f"{name} was not kept: convert with --keep-all")
        if name not in COLUMNS + KEPT:
            raise ConfigError(f"no column {name!r}, only {', '.join(COLUMNS + KEPT)}")
        budget = self.budget(epochs)
        return np.broadcast_to(self.column(f"{epochs}/{name}"), (budget.modules, budget.repeats))

    def _spread(self, values: np.ndarray, epochs: int) -> np.ndarray:
        if len(values) == ROWS:
            return values
        spread = np.full((ROWS, *values.shape[1:]), np.nan)
        spread[self.rows(epochs)] = values
        return spread

    def _reader(self, epochs: int, halfway: bool) -> _Reader:
        reader = self._fast.get((epochs, halfway))
        if reader is None:
            reader = self._fast[epochs, halfway] = _Reader(self, epochs, halfway)
        return reader


class _Reader:
    """One run at a time: the way without arrays."""

    def __init__(self, dataset: Dataset, epochs: int, halfway: bool) -> None:
        budget = dataset.budget(epochs)
        self.epochs, self.repeats = epochs, budget.repeats
        self.modules = None if budget.modules == ROWS else dataset.rows(epochs)
        self.counts = None if budget.runs == budget.modules * budget.repeats else dataset.counts(epochs)
        columns = [dataset.column(f"{epochs}/{_column_name(metric, halfway)}") for metric in METRICS]
        self.time = columns[0].item
        self.accuracies = [column.item for column in columns[1:]]
        levels = LEVELS.tolist()
        self.levels = [levels if column.dtype == np.uint16 else None for column in columns[1:]]
        self.compact = None not in self.levels

    def count(self, row: int) -> int:
        position = self._position(row)
        if position is None:
            return 0
        return self.repeats if self.counts is None else int(self.counts[position])

    def run(self, row: int, repeat: int) -> tuple[float, float, float, float]:
        position = self._position(row)
        if position is None or not 0 <= repeat < (self.repeats if self.counts is None else self.counts[position]):
            raise ConfigError(f"module {row} has {self.count(row)} runs of {self.epochs} epochs, no run {repeat}")
        train, validation, test = self.accuracies
        a, b, c = train(position, repeat), validation(position, repeat), test(position, repeat)
        if self.compact:
            levels: Any = self.levels[0]
            return self.time(position, repeat), levels[a], levels[b], levels[c]
        values = (v if table is None else table[v] for v, table in zip((a, b, c), self.levels, strict=True))
        return (self.time(position, repeat), *values)

    def _position(self, row: int) -> int | None:
        if not 0 <= row < ROWS:
            raise ConfigError(f"rows are 0 to {ROWS - 1}, got {row}")
        if self.modules is None:
            return row
        position = int(self.modules.searchsorted(row))
        return position if position < len(self.modules) and self.modules[position] == row else None


def write(dataset: Dataset, path: Path) -> None:
    """Write a data set, whole or not at all."""
    names = [name for budget in dataset.metadata.budgets for name in _names(budget, dataset.metadata.kept_all)]
    arrays = {name: dataset.column(name) for name in names}
    names.sort(key=lambda name: -arrays[name].dtype.itemsize)  # so that every array is aligned
    offset, table, columns = 0, {}, {}
    for name in names:
        array = arrays[name]
        kind, shape, end = TYPE_NAMES[array.dtype], list(array.shape), offset + array.nbytes
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        columns[name] = {"dtype": kind, "shape": shape, "offset": offset, "sha256": _digest(array)}
        offset = end
    about = json.dumps({"version": VERSION, "bytes": offset, "about": asdict(dataset.metadata), "columns": columns})
    metadata = {KEY: about, "sha256": hashlib.sha256(about.encode()).hexdigest()}
    header = json.dumps({"__metadata__": metadata, **table}).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)

    def write_all(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).data)

    write_atomically(path, write_all)


def is_columnar(path: Path) -> bool:
    """Whether a file starts as one of these does."""
    try:
        with path.open("rb") as file:
            return KEY.encode() in file.read(8 + 64)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _open(path: Path) -> Dataset:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    length = int.from_bytes(content[:8], "little")
    if size < 8 or not 0 < length <= min(MOST_METADATA, size - 8):
        raise DataError(
            f"{path} is truncated or no columnar file of NAS-Bench-101: bytes 0 to 7 give no length of a header"
        )
    try:
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        about, checksum = header[KEY], header["sha256"]
        digest = hashlib.sha256(about.encode()).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is corrupt or no columnar file of NAS-Bench-101: the header in bytes 8 to {7 + length} cannot be"
            f" read ({type(error).__name__}: {error})"
        ) from None
    if checksum != digest:
        raise DataError(f"{path} is corrupt: the checksum of the header in bytes 8 to {7 + length} does not match")
    try:
        described = json.loads(about)
        version, expected = described["version"], 8 + length + described["bytes"]
        metadata = _metadata(described["about"])
        columns = {name: _Column(start=8 + length, **column) for name, column in described["columns"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} has a header of another program ({type(error).__name__}: {error})") from None
    if version != VERSION:
        raise DataError(f"{path} has version {version!r} of the format, this program reads {VERSION}")
    if size != expected:
        raise DataError(f"{path} is truncated or has bytes added: it must end at byte {expected}, it ends at {size}")
    return Dataset(metadata, _Mapped(path, content, columns), path)


@dataclass(frozen=True)
class _Column:
    start: int  # of the data in the file
    dtype: str
    shape: tuple[int, ...]
    offset: int
    sha256: str


class _Mapped:
    """The columns of a file, each checked when it is first used."""

    def __init__(self, path: Path, content: Any, columns: Mapping[str, _Column]) -> None:
        self.path, self.content, self.columns = path, content, columns
        self.checked: dict[str, np.ndarray] = {}

    def __call__(self, name: str) -> np.ndarray:
        if name not in self.checked:
            self.checked[name] = self._check(name)
        return self.checked[name]

    def _check(self, name: str) -> np.ndarray:
        where = f"{self.path}: the column {name}"
        try:
            column = self.columns[name]
            start, count = column.start + column.offset, int(np.prod(column.shape))
            array = np.frombuffer(self.content, TYPES[column.dtype], count, start).reshape(column.shape)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{where} is missing or badly described ({type(error).__name__}: {error})") from None
        if _digest(array) != column.sha256:
            raise DataError(
                f"{where} is corrupt: the checksum of bytes {start} to {start + array.nbytes - 1} does not match"
            )
        if array.dtype == np.uint16 and array.max(initial=0) > IMAGES:
            raise DataError(f"{where} counts more than {IMAGES} right answers")
        return array


def _metadata(about: dict[str, Any]) -> Metadata:
    budgets = tuple(Budget(**budget) for budget in about.pop("budgets"))
    return Metadata(budgets=budgets, wide=tuple(about.pop("wide")), **about)


def _names(budget: Budget, kept_all: bool) -> list[str]:
    """The columns of a budget."""
    names = [*COLUMNS, *(KEPT if kept_all else ())]
    names += ["modules"] if budget.modules < ROWS else []
    names += ["counts"] if budget.runs < budget.modules * budget.repeats else []
    return [f"{budget.epochs}/{name}" for name in names]


def _column_name(metric: str, halfway: bool) -> str:
    if metric not in METRICS:
        raise ConfigError(f"no metric {metric!r}, only {', '.join(METRICS)}")
    return f"{POINTS[not halfway]}_{metric}"


def _reals(stored: np.ndarray) -> np.ndarray:
    """What stored values stand for: a new float64 array."""
    return LEVELS[stored] if stored.dtype == np.uint16 else stored.astype(np.float64)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
