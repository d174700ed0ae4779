"""`bitwright pareto`: the Pareto front of what a search has evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from .. import catalogue
from ..costs import CostModel
from ..errors import ConfigError, DataError
from ..experiment import Experiment, opened, resolve
from ..experiment.images import LATENCY, MEASURED
from ..latency import table
from ..latency.cost import Latency
from ..report.pareto_report import QUICKLY, ParetoReport, comparable, distinct, mixed, write_pareto
from ..trial import Archive, Objectives, Trial
from ..workload.rows import workload
from .options import Parser, bar, open_console

ALL = "all"
OBJECTIVES = "accuracy,bit_operations"
UNITS = {"seconds": "s"}


def pareto(arguments: Sequence[str]) -> None:
    parser = Parser("pareto", "The Pareto front of what a search has evaluated.", experiment=False)
    parser.add_argument("run", type=Path, help="a search of networks of images, complete or not")
    parser.add_argument(
        "--objectives",
        default=OBJECTIVES,
        metavar="NAMES",
        help=f"accuracy, which should be large, and seconds, costs by name and latency, which should be small"
        f" (default: {OBJECTIVES})",
    )
    parser.add_argument(
        "--purpose",
        metavar="NAMES",
        help=f"of the trials, or {ALL} (default: those on all validation images, else what the strategy has seen)",
    )
    parser.add_argument(
        "--latency-table", type=Path, metavar="FILE", help="that latency is read from (default: the search's)"
    )
    parser.add_argument(
        "--reference",
        default="",
        metavar="NAME=X,...",
        help="the point that hypervolumes are measured from (default: the worst of every objective)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for pareto.md, .json, .csv, .svg, .png (default: RUN/report)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data set is now")
    given, _ = parser.read(arguments, "pareto")
    objectives = Objectives.of(_words(given.objectives))
    reference = _reference(given.reference)
    if given.out is not None and given.out.exists() and not given.out.is_dir():
        raise ConfigError(f"--out is a folder, got the file {given.out}")
    experiment = _experiment(given.run, given.data)
    taken = _taken(given.run / "archive.sqlite", given.purpose)
    trials = distinct(taken, experiment.space)
    models = _models(experiment, objectives, trials, given.latency_table)
    report = ParetoReport(
        run=given.run,
        space=experiment.space.name,
        objectives=objectives,
        trials=_counted(trials, experiment, models),
        given=reference,
        units=UNITS | {name: model.unit for name, model in models.items()},
        notes=_notes(experiment, objectives, trials),
    )
    written = write_pareto(report, given.out or given.run / "report")
    if given.json:
        print(json.dumps(report.as_json()))
        return
    console = open_console()
    console.print(report.as_markdown())
    for path in written:
        console.print(f"wrote {path}")


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _reference(text: str) -> dict[str, float]:
    found = {}
    for word in _words(text):
        name, _, number = word.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise ConfigError(f"--reference takes NAME=NUMBER,..., got {word!r}") from None
    return found


def _experiment(run: Path, data: Path | None) -> Experiment:
    config = run / "config.yaml"
    if not config.exists():
        raise ConfigError(f"{run} holds no search" if run.exists() else f"there is no {run}")
    given = ["--config", str(config), "--device=cpu"] + ([] if data is None else [f"--dataset.root={data}"])
    experiment = opened(resolve(given))
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{run} is of recurrent cells, which have no costs to set against their perplexity")
    return experiment


def _taken(path: Path, purpose: str | None) -> list[Trial]:
    """The trials of the wanted purposes."""
    if not path.exists():
        raise ConfigError(f"there is no {path}: {path.parent} holds no search")
    with closing(Archive(path)) as archive:
        trials = list(archive)
    if not trials:
        raise DataError(f"{path} is empty: nothing has been evaluated yet")
    there = sorted({trial.purpose for trial in trials})
    wanted = comparable(trials) if purpose is None else there if purpose == ALL else _words(purpose)
    if missing := [word for word in wanted if word not in there]:
        raise ConfigError(f"{path} has no trials of purpose {missing[0]!r}: {', '.join(there)}, or {ALL}")
    return [trial for trial in trials if trial.purpose in wanted]


def _models(
    experiment: Experiment, objectives: Objectives, trials: Sequence[Trial], latency_table: Path | None
) -> dict[str, CostModel]:
    """What counts the objectives that are no part of every measurement; ConfigError lists what there is."""
    recorded = set.intersection(*(set(trial.measurement.costs) for trial in trials))
    known = catalogue.names("costs")
    models: dict[str, CostModel] = {}
    for name in objectives.directions:
        if name in MEASURED:
            continue
        if name in known:
            models[name] = catalogue.find("costs", name)()
        elif name == LATENCY and latency_table is not None:
            models[name] = Latency(table.read(latency_table))
        elif name == LATENCY and name not in recorded:
            if not experiment.search.latency_table:
                raise ConfigError("latency is read from a table; name it as --latency-table")
            models[name] = experiment.search.cost(name)
        elif name not in recorded:
            there = (*MEASURED, LATENCY, *known, *sorted(recorded - {LATENCY, *known}))
            raise ConfigError(f"no objective {name!r}: {', '.join(there)}")
    return models


def _counted(trials: Sequence[Trial], experiment: Experiment, models: Mapping[str, CostModel]) -> list[Trial]:
    """The trials with the costs of their networks as these are deployed."""
    if not models:
        return list(trials)
    found = []
    with bar() as progress:
        for trial in progress.track(trials, description="counting costs"):
            work = workload(experiment.space.network(trial.architecture).trunk)
            counted = {name: model(work).total for name, model in models.items()}
            costs = {**trial.measurement.costs, **counted}
            found.append(replace(trial, measurement=replace(trial.measurement, costs=costs)))
    return found


def _notes(experiment: Experiment, objectives: Objectives, trials: Sequence[Trial]) -> list[str]:
    if "accuracy" not in objectives.directions:
        return []
    notes = []
    purposes = {trial.purpose for trial in trials}
    if mixed(purposes):
        notes.append(f"accuracies of {', '.join(sorted(purposes))} were not measured in the same way")
    sampled = experiment.trains_supernet and experiment.search.method == "strategy"
    if sampled and purposes & set(QUICKLY):
        notes.append("accuracies of single minibatches vary, so that the front shows those with luck")
    return notes
