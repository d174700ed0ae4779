"""The command of NAS-Bench-101: count the space, convert, query, export and analyze its measurements."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import DownloadColumn, TransferSpeedColumn
from rich.table import Table

from ..errors import ConfigError
from ..nasbench import ModelSpec, OutOfDomainError
from ..nasbench.columns import POINTS, Dataset, is_columnar
from ..nasbench.config import AVAILABLE_OPS, INPUT, OUTPUT
from ..nasbench.drawing import as_dot
from ..nasbench.space import counts, space
from .options import Parser, bar, open_console, run_action

ACTIONS = {
    "count": "enumerate the space and count its modules by vertices and edges",
    "query": "what is known of one module",
    "convert": "turn a released .tfrecord file into a columnar file that opens at once",
    "export": "write the runs of a columnar file as parquet",
    "download": "fetch a released file",
    "analyze": "what the measurements say, as tables and pictures",
}


def nasbench(arguments: Sequence[str]) -> None:
    run_action("nasbench", ACTIONS, (_count, _query, _convert, _export, _download, _analyze), arguments)


def _analyze(arguments: Sequence[str]) -> None:
    from .nasbench_analyze import analyze  # searches too, which takes PyTorch

    analyze(arguments)


def _parser(action: str) -> Parser:
    return Parser(f"nasbench {action}", f"{ACTIONS[action].capitalize()}.", experiment=False)


def _count(arguments: Sequence[str]) -> None:
    parser = _parser("count")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, _ = parser.read(arguments, "nasbench count")
    found = counts()
    by_vertices = {vertices: sum(by_edges.values()) for vertices, by_edges in found.items()}
    edges = sorted({e for by_edges in found.values() for e in by_edges})
    by_edges = {e: sum(each.get(e, 0) for each in found.values()) for e in edges}
    total = sum(by_vertices.values())
    if given.json:
        result = {"modules": total, "by_vertices": by_vertices, "by_edges": by_edges, "by_vertices_and_edges": found}
        print(json.dumps(result))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("vertices", *(f"{e} edges" for e in edges), "modules"):
        table.add_column(heading, justify="right", no_wrap=True)
    for vertices, each in found.items():
        cells = (f"{each[e]:,}" if e in each else "" for e in edges)
        table.add_row(str(vertices), *cells, f"{by_vertices[vertices]:,}")
    table.add_row("all", *(f"{n:,}" for n in by_edges.values()), f"{total:,}")
    open_console().print(table)


def _query(arguments: Sequence[str]) -> None:
    parser = _parser("query")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a columnar file; without it, what is fixed")
    parser.add_argument("--matrix", metavar="BITS", help="V x V characters 0 or 1, row by row; spaces are ignored")
    parser.add_argument("--ops", metavar="A,B,...", help=f"of the inner vertices: {', '.join(AVAILABLE_OPS)}")
    parser.add_argument("--hash", metavar="MD5", help="the hash of the module, in place of --matrix and --ops")
    parser.add_argument("--epochs", type=int, metavar="N", help="only the runs of so many epochs")
    parser.add_argument("--dot", action="store_true", help="print a drawing in the DOT language instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, _ = parser.read(arguments, "nasbench query")
    row = _row(given)
    if given.dot:
        print(as_dot(space().matrix(row), space().operations(row)), end="")
        return
    dataset = None if given.file is None else _dataset(given.file)
    if dataset is None and given.epochs is not None:
        raise ConfigError("--epochs wants a file")
    runs = {} if dataset is None else _runs(dataset, row, given.epochs)
    synthetic = dataset is not None and dataset.synthetic
    if given.json:
        print(json.dumps(_as_json(row, runs) | ({"synthetic": True} if synthetic else {})))
        return
    _print(open_console(), row, runs)
    if synthetic:
        print("the file is SYNTHETIC: nothing in it was measured")
    elif dataset is not None and not runs:
        print("the file has no run of this module")


def _row(given: argparse.Namespace) -> int:
    if (given.hash is None) == (given.matrix is None and given.ops is None):
        raise ConfigError("name a module by --hash, or by --matrix and --ops")
    if given.hash is not None:
        try:
            return space().row_of_hash(given.hash)
        except KeyError:
            raise ConfigError(f"no module has the hash {given.hash}") from None
    if given.matrix is None:
        raise ConfigError("--ops wants --matrix")
    text = "".join(given.matrix.split())
    vertices = math.isqrt(len(text))
    if vertices < 2 or vertices * vertices != len(text) or set(text) - {"0", "1"}:
        raise ConfigError(f"--matrix is V x V characters 0 or 1, got {len(text)} of {''.join(sorted(set(text)))!r}")
    ops = [op for op in (given.ops or "").split(",") if op]
    if len(ops) == vertices - 2:
        ops = [INPUT, *ops, OUTPUT]
    try:
        matrix = np.array([int(c) for c in text], np.int8).reshape(vertices, vertices)
        return space().row_of_spec(ModelSpec(matrix, ops))
    except (ValueError, OutOfDomainError) as error:
        raise ConfigError(str(error)) from None


def _runs(dataset: Dataset, row: int, epochs: int | None) -> dict[int, list[dict[str, float]]]:
    if epochs is not None:
        dataset.budget(epochs)
    found = {}
    for budget in dataset.budgets if epochs is None else (epochs,):
        runs = dataset.runs(row, budget)
        if len(runs):
            found[budget] = [dict(zip(runs.dtype.names or (), run, strict=True)) for run in runs.tolist()]
    return found


def _as_json(row: int, runs: dict[int, list[dict[str, float]]]) -> dict[str, Any]:
    known = space()
    return {
        "row": row,
        "module_hash": known.hash_of(row),
        "module_adjacency": known.matrix(row).tolist(),
        "module_operations": known.operations(row),
        "trainable_parameters": known.parameters(row),
        "computed": runs,
    }


def _print(console: Console, row: int, runs: dict[int, list[dict[str, float]]]) -> None:
    known = space()
    console.print(f"module {row:,} of {len(known):,}, hash {known.hash_of(row)}")
    for edges, op in zip(known.matrix(row).tolist(), known.operations(row), strict=True):
        console.print(f"  {' '.join(map(str, edges))}  {op}")
    console.print(f"{known.parameters(row):,} trainable parameters")
    if not runs:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("epochs", "run", "at", "seconds", "train", "validation", "test"):
        table.add_column(heading, justify="right", no_wrap=True)
    for epochs, each in runs.items():
        for number, run in enumerate(each):
            for point in POINTS:
                seconds = f"{run[f'{point}_training_time']:,.1f}"
                accuracies = (f"{run[f'{point}_{part}_accuracy']:.4f}" for part in ("train", "validation", "test"))
                table.add_row(str(epochs), str(number), point, seconds, *accuracies)
    console.print(table)


def _convert(arguments: Sequence[str]) -> None:
    parser = _parser("convert")
    parser.add_argument("source", type=Path, metavar="IN", help="a .tfrecord file, or the same runs in .json")
    parser.add_argument("target", type=Path, metavar="OUT", help="the columnar file")
    parser.add_argument(
        "--keep-all",
        action="store_true",
        help="keep also what no query uses, so that the file can be written again",
    )
    given, _ = parser.read(arguments, "nasbench convert")
    from ..nasbench.convert import convert

    with bar(DownloadColumn(), TransferSpeedColumn()) as progress:
        task = progress.add_task("read", total=given.source.stat().st_size)
        dataset = convert(
            given.source,
            given.target,
            keep_all=given.keep_all,
            progress=lambda _, size: progress.update(task, completed=size),
        )
    console = open_console()
    console.print(dataset.describe())
    console.print(f"wrote {given.target}")


def _export(arguments: Sequence[str]) -> None:
    parser = _parser("export")
    parser.add_argument("file", type=Path, metavar="FILE", help="a columnar file")
    parser.add_argument("target", type=Path, metavar="OUT", help="a .parquet file, a row per run")
    given, _ = parser.read(arguments, "nasbench export")
    if given.target.suffix != ".parquet":
        raise ConfigError(f"runs are exported to a .parquet file, got {given.target}")
    from ..nasbench.export import to_parquet

    runs = to_parquet(_dataset(given.file), given.target)
    open_console().print(f"wrote {given.target}, {runs:,} runs")


def _download(arguments: Sequence[str]) -> None:
    from ..nasbench.download import FILES, download

    parser = _parser("download")
    parser.add_argument("which", nargs="?", default="full", help=f"{' or '.join(FILES)} (default: full)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="its folder (default: data)")
    given, _ = parser.read(arguments, "nasbench download")
    with bar(DownloadColumn(), TransferSpeedColumn()) as progress:
        task = progress.add_task("fetched", total=None)
        path = download(
            given.which,
            given.data,
            progress=lambda there, size: progress.update(task, completed=there, total=size),
        )
    console = open_console()
    console.print(f"{path} has the published SHA-256")
    console.print(f"next: bitwright nasbench convert {path} {path.with_suffix('.columns')}")


def _dataset(path: Path) -> Dataset:
    if not is_columnar(path):
        raise ConfigError(
            f"{path} is no columnar file; `bitwright nasbench convert {path} OUT` makes one of a .tfrecord"
        )
    return Dataset.open(path)
