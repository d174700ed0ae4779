"""The report of a differentiable search: what it found, against what it draws and against random architectures that
cost as much, and how its probabilities came about."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..files import write_json, write_text
from ..spaces import SearchSpace
from ..trial import Objective, Trial
from ..version import VERSION
from .figures import save_figure
from .markdown import table
from .search_report import machine, row_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPECTED = "expected_"  # before the name of a cost, in a row of the history


@dataclass(frozen=True)
class RelaxationReport:
    """best: the derived architecture. sampled: drawn by the probabilities. random: uniform ones, or where there are
        budgets of about its cost. All are measured on all validation images with the same shared weights.
    probabilities: of the options of every decision. history: a row for every epoch. updates: of the probabilities.
    """

    space: SearchSpace
    objective: Objective
    best: Trial
    sampled: Sequence[Trial]
    random: Sequence[Trial]
    probabilities: Sequence[Sequence[float]]
    history: Sequence[Mapping[str, float]]
    updates: int
    warmup_epochs: int
    seconds: float
    device: torch.device

    @property
    def advantage(self) -> float:
        """Accuracy of the derived architecture less the mean of the random ones."""
        return self.best.measurement.accuracy - _mean(self.random)

    @property
    def warnings(self) -> list[str]:
        found = self.space.warnings(self.best.architecture)
        if not self.objective.is_met(self.best.measurement.costs):
            found.append("no architecture within the budgets was found; this is the nearest to them")
        if self.advantage <= 0:
            found.append("the derived architecture is no better than random ones with the same shared weights")
        if not self.updates:
            found.append("the probabilities were never updated; the search is shorter than warm-up and first interval")
        return found

    def as_json(self) -> dict[str, Any]:
        decisions = zip(self.space.decisions, self.probabilities, strict=True)
        return {
            "version": VERSION,
            "best": row_of(self.best),
            "budgets": dict(self.objective.budgets),
            "sampled": [row_of(t) for t in self.sampled],
            "random": [row_of(t) for t in self.random],
            "advantage": self.advantage,
            "probabilities": {d.name: dict(zip(d.options, p, strict=True)) for d, p in decisions},
            "history": [dict(row) for row in self.history],
            "updates": self.updates,
            "warnings": self.warnings,
            "seconds": self.seconds,
            "machine": machine(self.device),
        }

    def as_markdown(self) -> str:
        best = self.best
        costs = "".join(f", {name} {cost:g}{self._budget(name)}" for name, cost in best.measurement.costs.items())
        return "\n".join(
            [
                "# Report of a differentiable search",
                "",
                f"Derived architecture: `{best.architecture}`",
                f"with shared weights {best.measurement.accuracy:.4f} on all validation images{costs}.",
                "",
                *(f"**Warning:** {warning}." for warning in self.warnings),
                "",
                *self._comparison(),
                *self._decisions(),
                *self._epochs(),
                "## Cost",
                "",
                f"{self.updates} updates of the probabilities, {len(self.history)} epochs of the weights,"
                f" {self.seconds / 60:.1f} minutes on {machine(self.device)}.",
                "All options, seeds among them, are in config.yaml; every evaluated architecture is in archive.sqlite.",
                "",
            ]
        )

    def _budget(self, name: str) -> str:
        return f" (budget {self.objective.budgets[name]:g})" if name in self.objective.budgets else ""

    def _comparison(self) -> list[str]:
        costs = list(self.best.measurement.costs)
        rows = []
        for name, trials in (
            ("derived", [self.best]),
            ("drawn by the probabilities", self.sampled),
            (f"random{', of about equal cost' if self.objective.budgets else ''}", self.random),
        ):
            accuracies = [t.measurement.accuracy for t in trials]
            means = [statistics.fmean(t.measurement.costs[cost] for t in trials) for cost in costs]
            figures = [f"{statistics.fmean(accuracies):.4f}", f"{max(accuracies):.4f}", *(f"{m:g}" for m in means)]
            rows.append([name, str(len(trials)), *figures])
        return [
            "## Against random architectures",
            "",
            *table(["", "n", "mean accuracy", "best", *(f"mean {cost}" for cost in costs)], rows),
            "",
            "All with the same shared weights, which have been trained on what the probabilities draw. That favours"
            " the first two rows; what an architecture is worth by itself its own training says.",
            "",
        ]

    def _decisions(self) -> list[str]:
        rows = []
        for decision, probabilities, choice in zip(
            self.space.decisions, self.probabilities, self.best.architecture.choices, strict=True
        ):
            ranked = sorted(zip(probabilities, decision.options, strict=True), key=lambda pair: -pair[0])
            told = ", ".join(f"{option} {p:.2f}" for p, option in ranked[:3])
            rows.append([decision.name, decision.options[choice], f"{probabilities[choice]:.2f}", told])
        return [
            "## The derived network",
            "",
            *table(["decision", "option", "probability", "most probable"], rows),
            "",
            "![probabilities](probabilities.svg)",
            "",
        ]

    def _epochs(self) -> list[str]:
        names = list(dict.fromkeys(name for row in self.history for name in row))
        rows = [[f"{row[name]:g}" if name in row else "" for name in names] for row in self.history]
        return [
            "## Epochs",
            "",
            *table([name.replace("_", " ") for name in names], rows),
            "",
            f"Epochs of warm-up, on uniformly drawn paths: {self.warmup_epochs}.",
            "",
            "![history](search.svg)",
            "",
        ]


def write_relaxation_report(report: RelaxationReport, folder: Path) -> None:
    """report.md, report.json, search.svg and probabilities.svg."""
    save_figure(history_figure(report.history, report.objective.budgets), folder / "search.svg")
    save_figure(probability_figure(report), folder / "probabilities.svg")
    write_json(folder / "report.json", report.as_json())
    write_text(folder / "report.md", report.as_markdown())


def history_figure(history: Sequence[Mapping[str, float]], budgets: Mapping[str, float]) -> Figure:
    """The entropy of the probabilities over epochs, and the expected costs as parts of their budgets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [row["entropy"] for row in history], color="tab:gray", linestyle=":")
    axes.set_xlabel("epoch")
    axes.set_ylabel("entropy, nats (dotted)")
    axes.set_ylim(bottom=0)
    if budgets:
        right = axes.twinx()
        for name, budget in budgets.items():
            right.plot(epochs, [row[EXPECTED + name] / budget for row in history], label=name)
        right.axhline(1.0, color="black", linewidth=0.6)
        right.set_ylabel("expected cost / budget")
        right.legend(loc="upper right")
    return figure


def probability_figure(report: RelaxationReport) -> Figure:
    """A row for every decision, a square for every option, as dark as it is probable; dots mark what was derived."""
    from matplotlib.figure import Figure

    decisions = report.space.decisions
    widest = max(len(d.options) for d in decisions)
    figure = Figure(figsize=(2.5 + 0.8 * widest, 0.8 + 0.24 * len(decisions)), layout="constrained")
    axes = figure.add_subplot()
    values = [[*p, *[float("nan")] * (widest - len(p))] for p in report.probabilities]
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, (decision, p, choice) in enumerate(
        zip(decisions, report.probabilities, report.best.architecture.choices, strict=True)
    ):
        for column, (option, chance) in enumerate(zip(decision.options, p, strict=True)):
            colour = "white" if chance > 0.6 else "black"
            axes.text(column, row, option, ha="center", va="center", fontsize=6, color=colour)
        axes.plot(choice - 0.4, row, marker="o", markersize=3, color="tab:red")
    axes.set_yticks(range(len(decisions)), [d.name for d in decisions], fontsize=6)
    axes.set_xticks([])
    return figure


def _mean(trials: Sequence[Trial]) -> float:
    return statistics.fmean(t.measurement.accuracy for t in trials)
