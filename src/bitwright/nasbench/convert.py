"""From the files of NAS-Bench-101 as released, or from the same numbers in JSON, to the columnar file.

Every module is compared with the space: hash, adjacency, operations and trainable parameters follow from each other, so
a file of anything else is refused at its first record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from . import columns, space, tfrecord
from .columns import COLUMNS, IMAGES, KEPT, LEVELS, METRICS, POINTS, ROWS, Budget, Dataset, Metadata
from .config import VALID_EPOCHS
from .tfrecord import Block, Record, Source

RELEASED = {
    "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c": "nasbench_full.tfrecord",
    "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1": "nasbench_only108.tfrecord",
}
MOST_REPEATS = 3
EVALUATIONS = ("start", *POINTS)  # in the order of a record
Progress = Callable[[int, int], object]  # records, bytes


def convert(source: Path, target: Path, *, keep_all: bool = False, progress: Progress | None = None) -> Dataset:
    """Write the columnar file of a .tfrecord or .json file, whole or not at all, and open it.

    keep_all: keep also what the API does not use (the evaluation before training, the total time, the order of the
    records), so that `restore` writes the same file again. DataError names the place of what does not belong.
    """
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target} is the file to be converted: name another one")
    columns.write(load(source, keep_all=keep_all, progress=progress), target)
    return Dataset.open(target)


def load(source: Path, *, keep_all: bool = False, progress: Progress | None = None) -> Dataset:
    """As `convert`, in memory."""
    is_json = source.suffix == ".json"
    if keep_all and is_json:
        raise ConfigError(f"only a .tfrecord file has something to keep, {source} is JSON")
    if columns.is_columnar(source):
        raise ConfigError(f"{source} is a columnar file already")
    table = _Table(source, keep_all)
    seen = Source()
    for block, data in (_json_blocks if is_json else tfrecord.blocks)(source, seen):
        table.add(block)
        if keep_all:
            _check_restorable(source, block, data)
        if progress is not None:
            progress(table.records, seen.size)
    return table.dataset(seen)


def restore(dataset: Dataset, target: Path) -> None:
    """Write the .tfrecord file that was converted with keep_all, byte for byte."""
    if not dataset.metadata.kept_all:
        raise ConfigError("this data set has not all that a .tfrecord file has: convert with --keep-all")
    tfrecord.write(target, _restored(dataset))


class Modules(NamedTuple):
    """What the space knows of its modules, by row; as in tfrecord.Block. keys: the first 8 bytes of the hashes, as
    numbers: ascending, and different from each other."""

    keys: np.ndarray
    hashes: np.ndarray
    vertices: np.ndarray
    matrices: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray

    def rows_of(self, hashes: np.ndarray) -> np.ndarray:
        """Rows of hashes (N, 16) uint8, -1 for what is none."""
        rows = np.minimum(np.searchsorted(self.keys, _keys(hashes)), ROWS - 1)
        rows[(self.hashes[rows] != hashes).any(1)] = -1
        return rows

    def fill(self, block: Block, chosen: np.ndarray, rows: np.ndarray) -> None:
        """Write what is known of the modules `rows` into the rows `chosen` of a block."""
        block.hashes[chosen] = self.hashes[rows]
        block.vertices[chosen] = self.vertices[rows]
        block.matrices[chosen] = self.matrices[rows]
        block.labels[chosen] = self.labels[rows]
        block.parameters[chosen] = self.parameters[rows]


@cache
def modules() -> Modules:
    """The modules of the space."""
    rows = space.rows()
    return Modules(
        _keys(rows.hashes),
        rows.hashes,
        rows.vertices,
        rows.matrices,
        np.maximum(rows.labels[:, 1:-1], -1),  # the output, and what is behind it, is no inner vertex
        rows.parameters,
    )


def _keys(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes[:, :8]).view(">u8").ravel().astype(np.uint64)


def _check_restorable(source: Path, block: Block, data: np.ndarray) -> None:
    """DataError if `restore` would write a record otherwise."""
    marked = block.synthetic & (block.offsets > 0)  # only the first record is marked by the writer
    if marked.any() or not np.array_equal(np.frombuffer(tfrecord.encode(block), np.uint8), data):
        raise DataError(
            f"{source}: from byte {block.offsets[0]} on, records are not written as in the released files;"
            " they cannot be kept byte for byte, convert without --keep-all"
        )


@dataclass
class _Growing:
    """A column while it is filled: as narrow as its values allow, (rows, repeats)."""

    values: np.ndarray

    @classmethod
    def of(cls, name: str) -> _Growing:
        kind: Any = np.float32
        if name.endswith("accuracy"):
            kind = np.uint16
        elif name == "total_time":
            kind = np.float64
        elif name == "position":
            kind = np.int32
        return cls(np.zeros((ROWS, MOST_REPEATS), kind))  # pages that are not written take no memory

    def put(self, rows: np.ndarray, repeats: np.ndarray, values: np.ndarray) -> None:
        narrow = _narrow(values, self.values.dtype)
        if narrow is None:
            wide = LEVELS[self.values] if self.values.dtype == np.uint16 else self.values.astype(np.float64)
            self.values, narrow = wide, values
        self.values[rows, repeats] = narrow

    def packed(self, rows: np.ndarray, counts: np.ndarray, repeats: int, constant: bool) -> np.ndarray:
        """The runs of `rows`; (1, 1) if `constant` allows it and all are equal."""
        values = self.values if len(rows) == ROWS and repeats == MOST_REPEATS else self.values[rows, :repeats]
        if constant:
            present = values[np.arange(repeats) < counts[:, None]]
            if (_bits(present) == _bits(present[:1])).all():
                return present[:1].reshape(1, 1)
        return values


def _narrow(values: np.ndarray, kind: np.dtype[Any]) -> np.ndarray | None:
    """Float64 values in a narrower type, None if one of them would change; accuracies become uint16."""
    if kind == np.uint16:
        with np.errstate(invalid="ignore"):
            levels = np.rint(values * IMAGES)
            inside = (levels >= 0) & (levels <= IMAGES)
            narrow = np.where(inside, levels, 0).astype(np.uint16)
        back = LEVELS[narrow]
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = values.astype(kind)
        back = narrow.astype(np.float64)
    return narrow if np.array_equal(_bits(back), _bits(values)) else None


def _bits(values: np.ndarray) -> np.ndarray:
    """Numbers as integers, equal where every bit is: NaN equals itself, 0 does not equal -0."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


class _Table:
    """The runs read so far."""

    def __init__(self, source: Path, keep_all: bool) -> None:
        self.source, self.keep_all = source, keep_all
        self.records = 0
        self.synthetic = False
        self.modules = modules()
        self.counts = {epochs: np.zeros(ROWS, np.uint8) for epochs in VALID_EPOCHS}
        names = (*COLUMNS, *(KEPT if keep_all else ()))
        self.columns = {epochs: {name: _Growing.of(name) for name in names} for epochs in VALID_EPOCHS}

    def add(self, block: Block) -> None:
        rows = self._rows(block)
        positions = np.arange(self.records, self.records + len(rows), dtype=np.float64)
        self.records += len(rows)
        self.synthetic |= bool(block.synthetic.any())
        for epochs in VALID_EPOCHS:
            chosen = np.flatnonzero(block.epochs == epochs)
            if len(chosen):
                where = rows[chosen]
                repeats = self._repeats(block, chosen, where, epochs)
                for name, values in self._values(block, positions).items():
                    self.columns[epochs][name].put(where, repeats, values[chosen])

    def dataset(self, seen: Source) -> Dataset:
        arrays: dict[str, np.ndarray] = {}
        budgets: list[Budget] = []
        wide: list[str] = []
        for epochs in VALID_EPOCHS:
            rows = np.flatnonzero(self.counts[epochs]).astype(np.int32)
            if not len(rows):
                continue
            counts = self.counts[epochs][rows]
            budget = Budget(epochs, len(rows), int(counts.max()), int(counts.sum()))
            budgets.append(budget)
            arrays |= {f"{epochs}/modules": rows, f"{epochs}/counts": counts}
            for name in list(self.columns[epochs]):
                growing = self.columns[epochs].pop(name)
                arrays[f"{epochs}/{name}"] = growing.packed(rows, counts, budget.repeats, name in KEPT)
                if growing.values.dtype == np.float64 and name != "total_time":
                    wide.append(f"{epochs}/{name}")
        metadata = Metadata(
            tuple(budgets),
            self.synthetic,
            self.source.name,
            seen.size,
            seen.sha256,
            RELEASED.get(seen.sha256, ""),
            self.keep_all,
            tuple(wide),
        )
        return Dataset(metadata, arrays.__getitem__)

    def _rows(self, block: Block) -> np.ndarray:
        """The rows of the modules; DataError if one is not as the space has it."""
        rows = self.modules.rows_of(block.hashes)
        self._refuse(block, rows < 0, "its hash is that of no module of NAS-Bench-101")
        other = (self.modules.matrices[rows] != block.matrices) | (self.modules.vertices[rows] != block.vertices)
        self._refuse(block, other, "its adjacency is not the one that the benchmark stores for its hash")
        other = (self.modules.labels[rows] != block.labels).any(1)
        self._refuse(block, other, "its operations are not those that the benchmark stores for its hash")
        other = self.modules.parameters[rows] != block.parameters
        if other.any():
            i = int(other.argmax())
            text = f"it has {block.parameters[i]} trainable parameters, the module {self.modules.parameters[rows[i]]}"
            self._refuse(block, other, text)
        return rows

    def _repeats(self, block: Block, chosen: np.ndarray, rows: np.ndarray, epochs: int) -> np.ndarray:
        """Which run of its module each record is, in the order of the file."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        first = np.searchsorted(ordered, ordered)
        repeats = np.empty(len(rows), np.int64)
        repeats[order] = np.arange(len(rows)) - first + self.counts[epochs][ordered]
        surplus = np.zeros(len(block.epochs), np.bool_)
        surplus[chosen] = repeats >= MOST_REPEATS
        self._refuse(block, surplus, f"it is one run of {epochs} epochs more than the {MOST_REPEATS} that a module has")
        np.add.at(self.counts[epochs], rows, 1)
        return repeats

    def _values(self, block: Block, positions: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a block by name."""
        values = {
            f"{point}_{metric}": block.values[:, e, m]
            for e, point in enumerate(EVALUATIONS)
            for m, metric in enumerate(METRICS, start=1)
            if self.keep_all or point != "start"
        }
        if self.keep_all:
            values |= {f"{point}_epoch": block.values[:, e, 0] for e, point in enumerate(EVALUATIONS)}
            values |= {"total_time": block.total_time, "position": positions}
        return values

    def _refuse(self, block: Block, wrong: np.ndarray, why: str) -> None:
        if wrong.any():
            i = int(wrong.argmax())
            place = f"the record at byte {block.offsets[i]}"
            if self.source.suffix == ".json":
                place = f"run {block.offsets[i]}"
            raise DataError(f"{self.source}: {place} (module {block.hashes[i].tobytes().hex()}) is foreign: {why}")


def _json_blocks(path: Path, seen: Source) -> Iterator[tuple[Block, np.ndarray]]:
    """Runs in JSON as records: {"columns": names, "modules": {hash: {module_adjacency, module_operations,
    trainable_parameters, computed: {epochs: [[a value per column], ...]}}}}; offsets count the runs."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    seen.size, seen.sha256 = len(content), hashlib.sha256(content).hexdigest()
    try:
        described = json.loads(content)
        named = [described["columns"].index(column) for column in COLUMNS]
        records = [record for h, module in described["modules"].items() for record in _json_records(h, module, named)]
        block = Block.empty(len(records))
        for i, record in enumerate(records):
            block.put(i, record)
            block.offsets[i] = i
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} is no JSON of NAS-Bench-101's runs ({type(error).__name__}: {error})") from None
    if not records:
        raise DataError(f"{path} holds no run")
    yield block, np.zeros(0, np.uint8)


def _json_records(module_hash: str, module: dict[str, Any], named: list[int]) -> Iterator[Record]:
    names = tfrecord.operations(",".join(module["module_operations"]))
    adjacency = tfrecord.matrix("".join(str(edge) for row in module["module_adjacency"] for edge in row), len(names))
    parameters = module["trainable_parameters"]
    for text, runs in module["computed"].items():
        epochs = int(text)
        if epochs not in VALID_EPOCHS:
            raise ValueError(f"{epochs} epochs are not one of {', '.join(map(str, VALID_EPOCHS))}")
        for run in runs:
            values = [float(run[i]) for i in named]
            evaluations = ((0.0,) * 5, (epochs / 2, *values[:4]), (float(epochs), *values[4:]))
            yield Record(module_hash, epochs, adjacency, names, parameters, evaluations, 0.0)


def _restored(dataset: Dataset) -> Iterator[Block]:
    """The records of a data set that kept everything, in the order in which they were read."""
    places = _places(dataset)
    for start in range(0, places.shape[1], tfrecord.BLOCK):
        part = places[:, start : start + tfrecord.BLOCK]
        block = Block.empty(part.shape[1])
        block.synthetic[0] = dataset.synthetic and start == 0
        for epochs in dataset.budgets:
            chosen = np.flatnonzero(part[1] == epochs)
            module, repeat = part[2, chosen], part[3, chosen]
            modules().fill(block, chosen, dataset.rows(epochs)[module])
            block.epochs[chosen] = epochs
            for e, point in enumerate(EVALUATIONS):
                for m, name in enumerate(("epoch", *METRICS)):
                    block.values[chosen, e, m] = dataset.picked(f"{point}_{name}", epochs, module, repeat)
            block.total_time[chosen] = dataset.picked("total_time", epochs, module, repeat)
        yield block


def _places(dataset: Dataset) -> np.ndarray:
    """Epochs, position in the columns and repeat of every record: (4, runs) int64, the first row ascending."""
    places = []
    for epochs in dataset.budgets:
        module, repeat = np.nonzero(np.arange(dataset.budget(epochs).repeats) < dataset.counts(epochs)[:, None])
        position = dataset.picked("position", epochs, module, repeat).astype(np.int64)
        places.append(np.stack([position, np.full(len(module), epochs), module, repeat]))
    joined = np.concatenate(places, axis=1)
    return joined[:, np.argsort(joined[0])]
