"""`bitwright compare`: search strategies on the table of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from ..nasbench import tables
from ..nasbench.regret import SPACES, STRATEGIES, regrets, task
from ..report.comparison import Comparison, write_comparison
from .options import Parser, bar, check_report, open_console

KNOWN_SPACES = ("nasbench101", *SPACES)
SHORT = {"imagenet16": "imagenet16-120"}


def compare(arguments: Sequence[str]) -> None:
    parser = Parser("compare", "Compare search strategies on the table of a benchmark.", experiment=False)
    parser.add_argument("--space", required=True, metavar="NAME", help=f"one of {', '.join(KNOWN_SPACES)}")
    parser.add_argument(
        "--table", type=Path, required=True, metavar="FILE", help="the benchmark's; of nasbench101 a .csv is EC-NAS's"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help=f"of nasbench201: {', '.join(tables.IMAGES_201)} (default: cifar10)"
    )
    parser.add_argument(
        "--strategies",
        default=",".join(STRATEGIES),
        metavar="NAMES",
        help="others are tested against the first",
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="searches by each strategy (default: 20)")
    parser.add_argument(
        "--budget", type=float, default=300, metavar="N", help="length of a search in mean trainings (default: 300)"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="what a search sees (default: validation_accuracy, else test_accuracy)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of that (default: the most there are)")
    parser.add_argument(
        "--repeats", action="store_true", help="train again, and let it take time, what was trained before"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first search (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="for comparison.md, comparison.json, regrets.svg and .png",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, _ = parser.read(arguments, "compare")
    if given.space not in KNOWN_SPACES:
        raise ConfigError(f"--space is one of {', '.join(KNOWN_SPACES)}, got {given.space!r}")
    if given.dataset is not None and given.space != "nasbench201":
        raise ConfigError(f"--dataset is of nasbench201; {given.space} has only one")
    check_report(given.seed, given.out)
    found = task(given.space, _table(given.space, given.table, given.dataset), given.metric, given.epochs)
    with bar() as progress:
        searches = progress.add_task("searches", total=None)
        curves = regrets(
            found,
            searches=given.seeds,
            trainings=given.budget,
            seed=given.seed,
            strategies=[name for name in given.strategies.split(",") if name],
            distinct=not given.repeats,
            progress=lambda done, total: progress.update(searches, completed=done, total=total),
        )
    comparison = Comparison(found, curves, given.seed, not given.repeats)
    written = write_comparison(comparison, given.out)
    if given.json:
        print(json.dumps(comparison.as_json()))
        return
    printed = open_console()
    printed.print(comparison.as_markdown())
    for path in written:
        printed.print(f"wrote {path}")


def _table(space: str, path: Path, images: str | None) -> tables.Table:
    if space == "nasbench201":
        name = (images or "cifar10").lower()
        return tables.nasbench201(path, SHORT.get(name, name))
    return tables.load("ecnas" if space == "nasbench101" and path.suffix == ".csv" else space, path)
