"""The report of a search, with what the field's checklist asks for (Lindauer and Hutter 2020, arXiv:1909.02453):
a random baseline at equal cost, how well shared weights rank, cost, machine, seeds, and warnings."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files import write_json, write_text
from ..spaces import SearchSpace
from ..spaces.enas_macro import EnasMacro
from ..spaces.enas_micro import EnasMicro
from ..trial import Archive, Objective, Trial
from ..version import VERSION
from .figures import correlation_figure, draw_cells, save_figure, search_figure
from .layer_figure import draw_layers
from .markdown import table


@dataclass(frozen=True)
class SearchReport:
    """candidates, random: measured on all validation images with the same shared weights; without a supernet the best
        trials, and no random ones.
    compared: the trials with shared weights and trained from scratch of the same architectures.
    round_trials: trials of the search per round. entropies: of the policy after each round, in nats.
    """

    space: SearchSpace
    objective: Objective
    archive: Archive
    best: Trial
    candidates: Sequence[Trial]
    random: Sequence[Trial]
    compared: Sequence[tuple[Trial, Trial]]
    standalone_epochs: int
    round_trials: int
    entropies: Sequence[float]
    seconds: float
    device: torch.device

    @property
    def advantage(self) -> float | None:
        """Mean accuracy of the candidates less that of the random architectures; None if there are none."""
        if not self.random:
            return None
        return _mean(self.candidates) - _mean(self.random)

    @property
    def p_value(self) -> float | None:
        """One-sided Mann-Whitney test that candidates are no better than random architectures, if there are any."""
        if not self.random:
            return None
        from scipy.stats import mannwhitneyu

        return float(mannwhitneyu(_accuracies(self.candidates), _accuracies(self.random), alternative="greater").pvalue)

    @property
    def correlation(self) -> dict[str, float] | None:
        """Kendall's tau and Spearman's rho of shared-weight and stand-alone accuracy; None if too few or constant."""
        from scipy.stats import kendalltau, spearmanr

        shared, alone = _accuracies([s for s, _ in self.compared]), _accuracies([a for _, a in self.compared])
        if len(set(shared)) < 2 or len(set(alone)) < 2:
            return None
        return {
            "kendall_tau": float(kendalltau(shared, alone).statistic),
            "spearman_rho": float(spearmanr(shared, alone).statistic),
        }

    @property
    def rounds(self) -> list[tuple[float, float, float]]:
        """Lowest, mean and highest accuracy of the trials of each round."""
        accuracies = _accuracies(self.archive.of("search"))
        parts = [accuracies[i : i + self.round_trials] for i in range(0, len(accuracies), self.round_trials)]
        return [(min(p), statistics.fmean(p), max(p)) for p in parts]

    @property
    def warnings(self) -> list[str]:
        found = self.space.warnings(self.best.architecture)
        if not self.objective.is_met(self.best.measurement.costs):
            found.append("no candidate met the budgets; the best one is over them")
        if self.advantage is not None and self.advantage <= 0:
            found.append("the candidates are no better than random architectures on average")
        correlation = self.correlation
        if correlation is not None and correlation["kendall_tau"] <= 0:
            found.append("accuracy with shared weights does not rank these architectures as training from scratch does")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "best": row_of(self.best),
            "budgets": dict(self.objective.budgets),
            "evaluated_architectures": len(self.archive),
            "candidates": [row_of(t) for t in self.candidates],
            "random": [row_of(t) for t in self.random],
            "advantage": self.advantage,
            "p_value": self.p_value,
            "standalone": [
                {
                    "architecture": str(s.architecture),
                    "shared": s.measurement.accuracy,
                    "standalone": a.measurement.accuracy,
                }
                for s, a in self.compared
            ],
            "standalone_epochs": self.standalone_epochs,
            "rank_correlation": self.correlation,
            "warnings": self.warnings,
            "seconds": self.seconds,
            "machine": machine(self.device),
        }

    def as_markdown(self) -> str:
        best = self.best
        measured = "with shared weights" if self.random else "accuracy"
        lines = [
            "# Search report",
            "",
            f"Best architecture: `{best.architecture}`",
            f"{measured} {best.measurement.accuracy:.4f} on all validation images"
            + "".join(f", {name} {value:g}{self._budget(name)}" for name, value in best.measurement.costs.items())
            + ".",
            "",
            *(f"**Warning:** {warning}." for warning in self.warnings),
            "",
            *(self._against_random() if self.random else self._ranking()),
        ]
        if self.compared:
            lines += [
                f"## Shared weights against training from scratch ({self.standalone_epochs} epochs)",
                "",
                "| architecture | from | shared | from scratch |",
                "|---|---|---|---|",
                *(
                    f"| `{' '.join(map(str, s.architecture.choices))}` | {s.purpose}"
                    f" | {s.measurement.accuracy:.4f} | {a.measurement.accuracy:.4f} |"
                    for s, a in self.compared
                ),
                "",
            ]
            correlation = self.correlation
            if correlation is not None:
                lines += [
                    f"Kendall's tau {correlation['kendall_tau']:.2f}, Spearman's rho {correlation['spearman_rho']:.2f}"
                    f" over {len(self.compared)} architectures.",
                    "",
                ]
        lines += [
            "## Cost",
            "",
            f"{len(self.archive)} evaluations in {self.seconds / 60:.1f} minutes on {machine(self.device)}.",
            "All options, seeds among them, are in config.yaml; every evaluated architecture is in archive.sqlite.",
            "",
        ]
        return "\n".join(lines)

    def _budget(self, name: str) -> str:
        return f" (budget {self.objective.budgets[name]:g})" if name in self.objective.budgets else ""

    def _against_random(self) -> list[str]:
        return [
            "## Against random search at equal cost",
            "",
            "The same number of architectures, measured on all validation images with the same shared weights"
            + (", all within the budgets where that could be had." if self.objective.budgets else "."),
            "",
            "| | n | mean | best |",
            "|---|---|---|---|",
            *(
                f"| {name} | {len(trials)} | {_mean(trials):.4f} | {max(_accuracies(trials)):.4f} |"
                for name, trials in (("candidates of the search", self.candidates), ("random", self.random))
            ),
            "",
            f"The candidates are {self.advantage:+.4f} better on average"
            f" (one-sided Mann-Whitney p = {self.p_value:.2g})."
            " The shared weights have been trained on what the strategy sampled, which favours the candidates;"
            " the table below does not.",
            "",
        ]

    def _ranking(self) -> list[str]:
        names = list(self.best.measurement.costs)
        head = ["architecture", "accuracy", *names]
        return [
            "## The best trials",
            "",
            *table(
                head,
                [
                    [
                        f"`{' '.join(map(str, t.architecture.choices))}`",
                        f"{t.measurement.accuracy:.4f}",
                        *(f"{t.measurement.costs[name]:g}" for name in names),
                    ]
                    for t in self.candidates
                ],
            ),
            "",
        ]


def write_report(report: SearchReport, folder: Path) -> None:
    """report.md, report.json, and the pictures."""
    if isinstance(report.space, EnasMicro):
        draw_cells(report.space, report.best.architecture, folder)
    elif isinstance(report.space, EnasMacro):
        draw_layers(report.space, report.best.architecture, folder)
    save_figure(search_figure(report.rounds, report.entropies), folder / "search.png")
    if report.correlation is not None:
        shared, alone = _accuracies([s for s, _ in report.compared]), _accuracies([a for _, a in report.compared])
        save_figure(correlation_figure(shared, alone, report.correlation["kendall_tau"]), folder / "correlation.png")
    write_json(folder / "report.json", report.as_json())
    write_text(folder / "report.md", report.as_markdown())


def machine(device: torch.device) -> str:
    """What the work ran on, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)} of {processor()}, torch {torch.__version__}"


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accuracies(trials: Sequence[Trial]) -> list[float]:
    return [t.measurement.accuracy for t in trials]


def _mean(trials: Sequence[Trial]) -> float:
    return statistics.fmean(_accuracies(trials))


def row_of(trial: Trial) -> dict[str, Any]:
    """A trial in a report.json."""
    return {
        "architecture": str(trial.architecture),
        "accuracy": trial.measurement.accuracy,
        "costs": dict(trial.measurement.costs),
    }
