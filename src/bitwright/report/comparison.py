"""Search strategies compared on a table: regret over simulated time, as a picture, as text and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_json, write_text
from ..nasbench.regret import TOP, Mark, Regret, Regrets, Task
from ..version import VERSION
from .figures import save_figure
from .markdown import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {"seconds": "simulated training time, s", "trainings": "trainings"}


@dataclass(frozen=True)
class Comparison:
    """regrets: of searches in `task`, where nothing was trained twice if `distinct`."""

    task: Task
    regrets: Regrets
    seed: int
    distinct: bool

    @property
    def title(self) -> str:
        """Names the table, and says so if nothing in it was measured."""
        mark = "SYNTHETIC, not measured: " if self.task.table.synthetic else ""
        return f"{mark}{self.task.table.name}, {len(self.task.rows):,} architectures"

    def as_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "table": self.task.table.name,
            "synthetic": self.task.table.synthetic,
            "space": self.task.space.name,
            "architectures": len(self.task.rows),
            "metric": self.task.metric,
            "epochs": self.task.epochs,
            "seed": self.seed,
            "distinct": self.distinct,
            "regrets": regrets_as_json(self.regrets),
        }

    def as_markdown(self) -> str:
        found, task = self.regrets, self.task
        lines = [f"# Strategies compared on {self.title}", ""]
        if task.table.synthetic:
            lines += ["**The table is synthetic: nothing in it was measured, and nothing here says anything.**", ""]
        after = "" if task.epochs is None else f" after {task.epochs} epochs"
        lines += [
            f"A search sees the {task.metric.replace('_', ' ')}{after}, for the time of {found.trainings:g} mean"
            f" trainings. {'What is known is not trained again.' if self.distinct else 'Repeated trainings count.'}",
            "",
            *regrets_lines(found),
            "",
            *_top_lines(found),
            "",
        ]
        return "\n".join(lines)


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """comparison.md, comparison.json and the curves as regrets.svg and regrets.png."""
    write_text(folder / "comparison.md", comparison.as_markdown())
    write_json(folder / "comparison.json", comparison.as_json())
    figure = regrets_figure(comparison.regrets, comparison.title, comparison.task.table.synthetic)
    drawn = [save_figure(figure, folder / f"regrets.{suffix}") for suffix in ("svg", "png")]
    return [folder / "comparison.md", folder / "comparison.json", *drawn]


def regrets_figure(found: Regrets, title: str, synthetic: bool) -> Figure:
    """Mean test regret over the clock, and one standard deviation about it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    figure.suptitle(title, fontsize=10, color="red" if synthetic else "black")
    axes = figure.add_subplot()
    lowest = [float(curve.judged.mean(0).min()) for curve in found.curves]
    floor = min([each for each in lowest if each > 0], default=0.0) / 4
    for curve in found.curves:
        mean, deviation = curve.judged.mean(0), curve.judged.std(0)
        low = np.maximum(mean - deviation, floor)  # a logarithmic axis has no 0
        axes.fill_between(found.clock, low, np.maximum(mean + deviation, floor), alpha=0.2, linewidth=0)
        axes.plot(found.clock, np.maximum(mean, floor), label=_plain(curve.strategy))
    axes.set(xscale="log", xlabel=AXES[found.unit], ylabel="test regret")
    if floor > 0:
        axes.set_yscale("log")
    axes.legend(title=f"{found.searches} searches each")
    return figure


def regrets_lines(found: Regrets) -> list[str]:
    """The regrets after each part of the clock, and what their differences are worth."""
    names = [curve.strategy for curve in found.curves]
    unit = "time, s" if found.unit == "seconds" else "trainings"
    rows = [(f"{mark.time:,.0f}", *(_regret(mark, name) for name in names)) for mark in found.marks]
    lines = [
        f"Test regret in points, mean and standard deviation of {found.searches} searches by each strategy.",
        "",
        *table([unit, *map(_plain, names)], rows),
    ]
    if len(names) > 1:
        null = f"it is no better than {_plain(names[0])}, at that time alone"
        lines += ["", f"p: one-sided Mann-Whitney test that {null}{_holm(names)}."]
    return lines


def _regret(mark: Mark, name: str) -> str:
    p_value = f", p {mark.p_values[name]:.2g}" if name in mark.p_values else ""
    return f"{100 * mark.means[name]:.3f} ± {100 * mark.deviations[name]:.3f}{p_value}"


def _top_lines(found: Regrets) -> list[str]:
    """Trainings until the best part of the table."""
    p_values = found.top_p_values()
    names = [curve.strategy for curve in found.curves]
    rows = []
    for curve in found.curves:
        p_value = p_values.get(curve.strategy)
        rows.append((_plain(curve.strategy), *_top(curve), "" if p_value is None else f"{p_value:.2g}"))
    return [
        f"Trainings until one of the best {100 * TOP:g} % by what a search sees:",
        "",
        *table(("strategy", "found by", "median", "mean of those", "p"), rows),
        "",
        "A search that found none counts as longer than any other. p: one-sided Mann-Whitney test that the strategy"
        f" needs no fewer than {_plain(names[0])}{_holm(names)}.",
    ]


def _holm(names: Sequence[str]) -> str:
    return f", with Holm's correction for {len(names) - 1} of them" if len(names) > 2 else ""


def _top(curve: Regret) -> tuple[str, str, str]:
    there = np.isfinite(curve.top)
    median = float(np.median(np.nan_to_num(curve.top, nan=np.inf)))
    mean = f"{curve.top[there].mean():.0f}" if there.any() else "-"
    return f"{there.sum()} of {len(there)}", f"{median:.0f}" if np.isfinite(median) else "-", mean


def regrets_as_json(found: Regrets) -> dict[str, Any]:
    return {
        "searches": found.searches,
        "trainings": found.trainings,
        "unit": found.unit,
        "clock": found.clock.tolist(),
        "curves": {
            curve.strategy: {
                "test_mean": curve.judged.mean(0).tolist(),
                "test_deviation": curve.judged.std(0).tolist(),
                "seen_mean": curve.seen.mean(0).tolist(),
                "seen_deviation": curve.seen.std(0).tolist(),
                "trainings_to_the_top": [None if np.isnan(n) else int(n) for n in curve.top],
            }
            for curve in found.curves
        },
        "marks": [asdict(mark) for mark in found.marks],
        "top_p_values": found.top_p_values(),
    }


def _plain(name: str) -> str:
    return name.replace("_", " ")
