"""The measurements of NAS-Bench-101 as one parquet table, a row per run, for pandas, polars and duckdb."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ExportError
from ..files import write_atomically
from .columns import COLUMNS, Dataset
from .config import AVAILABLE_OPS, INPUT, OUTPUT
from .convert import Modules, modules

MODULES_AT_ONCE = 1 << 15


def to_parquet(dataset: Dataset, path: Path) -> int:
    """Write the runs, whole or not at all; their number.

    Columns: row (of the space), module_hash, vertices, edges, adjacency (V*V characters, by rows), operations
    (comma-joined), trainable_parameters, epochs, repeat, then the metrics as the API names them: float32, in which the
    released values are exact, or float64 where they are not. Sorted by epochs, row and repeat.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ExportError("parquet files are written by pyarrow: pip install pyarrow") from None
    about = {b"bitwright": json.dumps(asdict(dataset.metadata)).encode()}
    schema = pyarrow.schema(
        [
            ("row", pyarrow.int32()),
            ("module_hash", pyarrow.string()),
            ("vertices", pyarrow.int8()),
            ("edges", pyarrow.int8()),
            ("adjacency", pyarrow.string()),
            ("operations", pyarrow.string()),
            ("trainable_parameters", pyarrow.int32()),
            ("epochs", pyarrow.int16()),
            ("repeat", pyarrow.int8()),
            *((name, _kind(pyarrow, dataset, name)) for name in COLUMNS),
        ],
        metadata=about,
    )

    def write_all(file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for epochs in dataset.budgets:
                rows = dataset.rows(epochs)
                for start in range(0, len(rows), MODULES_AT_ONCE):
                    part = slice(start, start + MODULES_AT_ONCE)
                    columns = _columns(dataset, epochs, rows[part], part)
                    arrays = [pyarrow.array(columns[f.name]).cast(f.type) for f in schema]
                    writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

    write_atomically(path, write_all)
    return sum(budget.runs for budget in dataset.metadata.budgets)


def _kind(pyarrow: Any, dataset: Dataset, name: str) -> Any:
    wide = any(f"{epochs}/{name}" in dataset.metadata.wide for epochs in dataset.budgets)
    return pyarrow.float64() if wide else pyarrow.float32()


def _columns(dataset: Dataset, epochs: int, rows: np.ndarray, part: slice) -> dict[str, Any]:
    """The runs of the modules `rows`, which are `dataset.rows(epochs)[part]`."""
    counts = dataset.counts(epochs)[part]
    module, repeat = np.nonzero(np.arange(dataset.budget(epochs).repeats) < counts[:, None])
    columns: dict[str, Any] = {name: values[module] for name, values in _fixed(modules(), rows).items()}
    columns |= {"epochs": np.full(len(module), epochs, np.int16), "repeat": repeat.astype(np.int8)}
    for name in COLUMNS:
        columns[name] = dataset.picked(name, epochs, module + part.start, repeat)
    return columns


def _fixed(space: Modules, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What does not depend on the training, by module."""
    names = (*AVAILABLE_OPS, "")
    operations, adjacencies = [], []
    each = (array[rows].tolist() for array in (space.matrices, space.labels, space.vertices))
    for matrix, labels, vertices in zip(*each, strict=True):
        adjacencies.append(_adjacency(matrix, vertices))
        operations.append(",".join((INPUT, *(names[label] for label in labels[: vertices - 2]), OUTPUT)))
    return {
        "row": rows,
        "module_hash": np.array([h.tobytes().hex() for h in space.hashes[rows]], object),
        "vertices": space.vertices[rows],
        "edges": np.bitwise_count(space.matrices[rows]).astype(np.int8),
        "adjacency": np.array(adjacencies, object),
        "operations": np.array(operations, object),
        "trainable_parameters": space.parameters[rows].astype(np.int32),
    }


def _adjacency(matrix: int, vertices: int) -> str:
    return "".join(
        str(matrix >> (x + y * (y - 1) // 2) & 1) if x < y else "0" for x in range(vertices) for y in range(vertices)
    )
