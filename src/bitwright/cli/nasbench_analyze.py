"""The action that analyzes the measurements of NAS-Bench-101's modules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from ..nasbench import tables
from ..report.nasbench_report import NasbenchReport, nasbench_report, write_report
from .options import Parser, bar, check_report, open_console

KNOWN = ("nasbench_full.columns", "nasbench_only108.columns", "ecnas_5v9e_4epochs.csv")  # the best first


def analyze(arguments: Sequence[str]) -> None:
    parser = Parser("nasbench analyze", "What the measurements say, as tables and pictures.", experiment=False)
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help=f"default: the first in --data of {', '.join(KNOWN)}"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for report.md, report.json, pictures")
    parser.add_argument(
        "--table", metavar="NAME", help=f"{' or '.join(tables.LOADERS)} (default: ecnas for a .csv, else nasbench101)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of the trainings (default: the most there are)")
    parser.add_argument("--searches", type=int, default=100, metavar="N", help="by each strategy (default: 100)")
    parser.add_argument(
        "--trainings", type=float, default=500, metavar="N", help="length of a search in mean trainings (default: 500)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of walks and searches (default: 0)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, _ = parser.read(arguments, "nasbench analyze")
    check_report(given.seed, given.out)
    path = _known(given.data) if given.file is None else given.file
    table = tables.load(given.table or ("ecnas" if path.suffix == ".csv" else "nasbench101"), path)
    with bar() as progress:
        task = progress.add_task("searches", total=None)
        report = nasbench_report(
            table,
            epochs=given.epochs,
            searches=given.searches,
            trainings=given.trainings,
            seed=given.seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    written = write_report(report, given.out)
    if given.json:
        print(json.dumps({"file": str(path)} | report.as_json()))
        return
    _print(report, written)


def _known(folder: Path) -> Path:
    for name in KNOWN:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{folder} has none of {', '.join(KNOWN)}; name a file")


def _print(report: NasbenchReport, written: Sequence[Path]) -> None:
    console = open_console()
    console.print(report.as_markdown())
    for path in written:
        console.print(f"wrote {path}")
