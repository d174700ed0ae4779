"""The Pareto front of what a search has evaluated: as a picture, as text, as numbers, and how its hypervolume grew."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import pareto
from ..architecture import Architecture
from ..errors import ConfigError
from ..files import write_json, write_text
from ..pareto import Reals
from ..spaces import DecisionSpace
from ..trial import Objectives, Trial
from ..version import VERSION
from .figures import save_figure
from .markdown import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULLY = ("candidate", "random")  # the purposes of trials on all validation images
QUICKLY = ("search", "sample")  # of those that the strategy sees
KINDS = (("told",), QUICKLY, FULLY, ("standalone",))  # purposes whose accuracies compare, the fullest last
LOGARITHMIC = 20  # an axis is, where its largest figure is so many times its smallest


@dataclass(frozen=True)
class ParetoReport:
    """run: its directory. trials: of different networks, in order, whose measurements have every objective.

    given: the figures of the reference point by objective, in their own units; the others are the worst of `trials`.
    units: of objectives, by name. notes: what a reader should know.
    """

    run: Path
    space: str
    objectives: Objectives
    trials: Sequence[Trial]
    given: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.given if name not in self.names]:
            raise ConfigError(f"the reference has {unknown[0]}, which is no objective: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.objectives.directions)

    @cached_property
    def signs(self) -> Reals:
        """-1 for what is to be large, so that less is better."""
        return np.array([-1.0 if way == "max" else 1.0 for way in self.objectives.directions.values()])

    @cached_property
    def values(self) -> Reals:
        """Every trial's objectives, of which less is better: (trials, objectives)."""
        return np.array([self.objectives(trial.measurement) for trial in self.trials], float)

    @cached_property
    def front(self) -> NDArray[np.int64]:
        """Positions of the trials that no other dominates, by the first objective from its best."""
        found = pareto.front(self.values)
        return found[np.lexsort(self.values[found].T[::-1])]

    @property
    def _of_front(self) -> list[Trial]:
        return [self.trials[i] for i in self.front.tolist()]

    @property
    def compromise(self) -> Trial:
        """The trial of the front that is nearest to the best of every objective, see `pareto.compromise`."""
        return self._of_front[pareto.compromise(self.values[self.front])]

    @cached_property
    def reference(self) -> Reals:
        worst = self.values.max(0)
        given = [self.given.get(name) for name in self.names]
        return np.array([w if g is None else s * g for w, g, s in zip(worst, given, self.signs, strict=True)])

    @cached_property
    def hypervolumes(self) -> Reals:
        """After every trial, as a part of the box between the reference and the best of every objective."""
        box = float(np.prod(np.maximum(self.reference - self.values.min(0), 0)))
        return pareto.hypervolumes(self.values, self.reference) / (box or math.inf)

    def figures(self, trial: Trial) -> dict[str, float]:
        """Its objectives by name, in their own units."""
        return self._named(np.array(self.objectives(trial.measurement)))

    def _named(self, values: Reals) -> dict[str, float]:
        return dict(zip(self.names, (self.signs * values + 0.0).tolist(), strict=True))  # no -0.0

    def train_command(self, trial: Trial) -> str:
        """What trains its architecture."""
        return f'bitwright train {shlex.quote(str(self.run))} --arch "{short(trial.architecture)}"'

    def as_json(self) -> dict[str, Any]:
        grown = np.flatnonzero(np.diff(self.hypervolumes, prepend=0.0) > 0).tolist()
        return {
            "version": VERSION,
            "run": str(self.run),
            "space": self.space,
            "objectives": dict(self.objectives.directions),
            "units": dict(self.units),
            "purposes": sorted({trial.purpose for trial in self.trials}),
            "architectures": len(self.trials),
            "front": [self._row(trial) for trial in self._of_front],
            "compromise": self.compromise.index,
            "reference": self._named(self.reference),
            "ideal": self._named(self.values.min(0)),
            "hypervolume": pareto.hypervolume(self.values, self.reference),
            "hypervolume_part": float(self.hypervolumes[-1]),
            "hypervolume_parts": [[self.trials[i].index, float(self.hypervolumes[i])] for i in grown],
            "notes": list(self.notes),
        }

    def _row(self, trial: Trial) -> dict[str, Any]:
        return {
            "trial": trial.index,
            "purpose": trial.purpose,
            "architecture": str(trial.architecture),
            "objectives": self.figures(trial),
        }

    def as_markdown(self) -> str:
        headings = [_heading(name, self.units) for name in self.names]
        chosen = self.compromise
        rows = []
        for trial in self._of_front:
            marked = f"**{trial.index}**" if trial is chosen else str(trial.index)
            figures = (_shown(name, value) for name, value in self.figures(trial).items())
            rows.append((marked, *figures, f"`{short(trial.architecture)}`"))
        purposes = ", ".join(sorted({trial.purpose for trial in self.trials}))
        reference = ", ".join(f"{name} {_shown(name, value)}" for name, value in self._named(self.reference).items())
        lines = [
            f"# Pareto front of {self.run}",
            "",
            f"{len(self.front)} of {len(self.trials)} different architectures of {self.space} (trials: {purposes}).",
            *(line for note in self.notes for line in ("", f"**Note:** {note}.")),
            "",
            *table(["trial", *headings, "architecture"], rows),
            "",
            f"Hypervolume {self.hypervolumes[-1]:.4f} of the box from the best of every objective to the reference"
            f" ({reference}; {'as given' if self.given else 'the worst seen'}).",
            "",
            f"The compromise, nearest to the best of every objective, is trial {chosen.index}. To train it:",
            "",
            f"    {self.train_command(chosen)}",
            "",
        ]
        return "\n".join(lines)

    def as_csv(self) -> str:
        """All architectures; `front` is 1 for those of the front, else 0."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "purpose", "front", *self.names, "architecture"])
        front = set(self.front.tolist())
        for position, trial in enumerate(self.trials):
            figures = self.figures(trial).values()
            writer.writerow([trial.index, trial.purpose, int(position in front), *figures, short(trial.architecture)])
        return text.getvalue()


def write_pareto(report: ParetoReport, folder: Path) -> list[Path]:
    """pareto.md, pareto.json, pareto.csv, and the picture as pareto.svg and pareto.png."""
    write_text(folder / "pareto.md", report.as_markdown())
    write_json(folder / "pareto.json", report.as_json())
    write_text(folder / "pareto.csv", report.as_csv())
    figure = pareto_figure(report)
    drawn = [save_figure(figure, folder / f"pareto.{suffix}") for suffix in ("svg", "png")]
    return [*(folder / f"pareto.{suffix}" for suffix in ("md", "json", "csv")), *drawn]


def comparable(trials: Iterable[Trial]) -> tuple[str, ...]:
    """The purposes of those trials that are taken where nothing else is said: of as full a measurement as many have.

    All validation images, else what the strategy has seen; trainings from scratch are too few, and chosen to differ.
    """
    there = {trial.purpose for trial in trials}
    for kind in (FULLY, QUICKLY):
        if found := tuple(purpose for purpose in kind if purpose in there):
            return found
    return tuple(sorted(there))


def mixed(purposes: Collection[str]) -> bool:
    """Whether accuracies of these purposes were not measured in the same way."""
    return len({_fullness(purpose) for purpose in purposes}) > 1


def distinct(trials: Iterable[Trial], space: DecisionSpace) -> list[Trial]:
    """One trial for every network, in their order.

    Of several it is the last of the fullest measurement; the first of those that say the same.
    """
    chosen: dict[Architecture, Trial] = {}
    for trial in trials:
        canonical = space.canonical(space.architecture(trial.architecture.choices))
        known = chosen.get(canonical)
        if known is None or _supersedes(trial, known):
            chosen[canonical] = trial
    return sorted(chosen.values(), key=lambda trial: trial.index)


def _supersedes(trial: Trial, known: Trial) -> bool:
    fuller = _fullness(trial.purpose) - _fullness(known.purpose)
    return fuller > 0 or (fuller == 0 and trial.measurement.accuracy != known.measurement.accuracy)


def _fullness(purpose: str) -> int:
    return next((i for i, kind in enumerate(KINDS) if purpose in kind), len(KINDS))


def pareto_figure(report: ParetoReport) -> Figure:
    """Every pair of objectives against each other, and the hypervolume over the trials."""
    from matplotlib.figure import Figure

    pairs = list(combinations(range(len(report.names)), 2))
    columns = math.ceil(math.sqrt(len(pairs) + 1))
    rows = math.ceil((len(pairs) + 1) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    for number, (y, x) in enumerate(pairs):
        _draw_pair(figure.add_subplot(rows, columns, number + 1), report, x, y)
    axes = figure.add_subplot(rows, columns, len(pairs) + 1)
    axes.step([trial.index for trial in report.trials], report.hypervolumes, where="post")
    axes.set(xlabel="trial", ylabel="hypervolume, part of the box", ylim=(0, 1))
    return figure


def _draw_pair(axes: Axes, report: ParetoReport, x: int, y: int) -> None:
    """All points, the front, with two objectives its steps, and the compromise."""
    names, values = report.names, report.values * report.signs
    front = values[report.front]
    axes.scatter(values[:, x], values[:, y], s=10, color="tab:gray", alpha=0.5, linewidths=0, label="evaluated")
    if len(names) == 2:
        order = np.argsort(report.values[report.front, x], kind="stable")
        steps = np.repeat(front[order], 2, axis=0)
        axes.plot(steps[1:, x], steps[:-1, y], color="tab:blue", linewidth=1)
    axes.scatter(front[:, x], front[:, y], s=22, color="tab:blue", label="Pareto front", zorder=3)
    best = report.figures(report.compromise)
    axes.scatter(best[names[x]], best[names[y]], s=130, marker="*", color="tab:red", label="compromise", zorder=4)
    axes.set(xlabel=_heading(names[x], report.units), ylabel=_heading(names[y], report.units))
    for set_scale, column in ((axes.set_xscale, values[:, x]), (axes.set_yscale, values[:, y])):
        if column.min() > 0 and column.max() > LOGARITHMIC * column.min():
            set_scale("log")
    axes.legend(fontsize=8)


def short(architecture: Architecture) -> str:
    """Its choices."""
    return " ".join(map(str, architecture.choices))


def _heading(name: str, units: Mapping[str, str]) -> str:
    plain = name.replace("_", " ")
    unit = units.get(name, "")
    return plain if plain.lower().endswith(unit.lower()) else f"{plain}, {unit}"


def _shown(name: str, value: float) -> str:
    if name == "accuracy":
        return f"{value:.4f}"
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
