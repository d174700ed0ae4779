"""The analyses of NAS-Bench-101 as tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_json, write_text
from ..nasbench.analyses import (
    Correlation,
    Decay,
    Group,
    Locality,
    Measured,
    Replacement,
    budgets,
    locality,
    measured,
    quantities,
    replacements,
    shapes,
)
from ..nasbench.config import AVAILABLE_OPS
from ..nasbench.regret import POPULATION, TOURNAMENT, Regrets, module_task, regrets
from ..nasbench.tables import Table
from ..version import VERSION
from . import markdown
from .comparison import regrets_as_json, regrets_figure, regrets_lines
from .figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT = dict(zip(AVAILABLE_OPS, ("3x3", "1x1", "pool"), strict=True))
FEW = "Left out: the table lacks modules that it needs."


@dataclass(frozen=True)
class NasbenchReport:
    """replacements, locality, regrets: empty or None where the table has too few modules."""

    data: Measured
    seed: int
    replacements: list[Replacement]
    by_depth: list[Group]
    by_width: list[Group]
    by_both: list[Group]
    quantities: list[Correlation]
    budgets: list[Correlation]
    locality: Locality | None
    regrets: Regrets | None

    @property
    def title(self) -> str:
        """Names the table, and says so if nothing in it was measured."""
        data = self.data
        mark = "SYNTHETIC, not measured: " if data.synthetic else ""
        return f"{mark}{data.name}, {len(data):,} modules, {data.epochs} epochs"

    def as_json(self) -> dict[str, Any]:
        data = self.data
        return {
            "version": VERSION,
            "table": data.name,
            "synthetic": data.synthetic,
            "epochs": data.epochs,
            "modules": len(data),
            "seed": self.seed,
            "replacements": [asdict(each) for each in self.replacements],
            "by_depth": [asdict(each) for each in self.by_depth],
            "by_width": [asdict(each) for each in self.by_width],
            "by_depth_and_width": [asdict(each) for each in self.by_both],
            "quantities": [asdict(each) for each in self.quantities],
            "budgets": [asdict(each) for each in self.budgets],
            "locality": None if self.locality is None else asdict(self.locality) | {"reach": self.locality.reach},
            "regrets": None if self.regrets is None else regrets_as_json(self.regrets),
        }

    def as_markdown(self) -> str:
        lines = [f"# Analyses of {self.title}", ""]
        if self.data.synthetic:
            lines += ["**The table is synthetic: nothing in it was measured, and nothing here says anything.**", ""]
        lines += ["Accuracies are of validation images unless another is named; times are of a training.", ""]
        for section in (_replacements, _shapes, _correlations, _locality, _regrets):
            lines += [*section(self), ""]
        return "\n".join(lines)


def nasbench_report(
    table: Table,
    *,
    epochs: int | None = None,
    searches: int = 100,
    trainings: float = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NasbenchReport:
    """All analyses. epochs: None for the most that there are; searches, trainings: of `regrets`."""
    data = measured(table, epochs)
    by_depth, by_width, by_both = shapes(data)
    task = module_task(table, data)
    return NasbenchReport(
        data=data,
        seed=seed,
        replacements=replacements(data),
        by_depth=by_depth,
        by_width=by_width,
        by_both=by_both,
        quantities=quantities(data),
        budgets=budgets(table),
        locality=locality(data, seed=seed),
        regrets=None
        if task is None
        else regrets(task, searches=searches, trainings=trainings, seed=seed, progress=progress),
    )


def write_report(report: NasbenchReport, folder: Path) -> list[Path]:
    """report.md, report.json, and a picture of each analysis that there is."""
    searched = report.regrets
    figures = {
        "replacements": replacements_figure(report) if report.replacements else None,
        "shapes": shapes_figure(report),
        "scatter": scatter_figure(report),
        "budgets": budgets_figure(report) if report.budgets else None,
        "locality": None if report.locality is None else locality_figure(report, report.locality),
        "regrets": None if searched is None else regrets_figure(searched, report.title, report.data.synthetic),
    }
    write_json(folder / "report.json", report.as_json())
    write_text(folder / "report.md", report.as_markdown())
    drawn = [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items() if figure is not None]
    return [folder / "report.md", folder / "report.json", *drawn]


def replacements_figure(report: NasbenchReport) -> Figure:
    """Change of accuracy and of training time, a bar for each pair of operations."""
    figure = _figure(report, 9, 3)
    names = [f"{SHORT[each.before]} to {SHORT[each.after]}" for each in report.replacements]
    for axes, label, values in (
        (figure.add_subplot(1, 2, 1), "validation accuracy, points", [100 * r.accuracy for r in report.replacements]),
        (figure.add_subplot(1, 2, 2), "training time, %", [100 * r.seconds for r in report.replacements]),
    ):
        bars = axes.barh(names, values, color=["tab:blue" if value >= 0 else "tab:orange" for value in values])
        axes.bar_label(bars, fmt="%+.2f", fontsize=8, padding=2)
        axes.margins(x=0.25)
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel(f"mean change of the {label}")
    return figure


def shapes_figure(report: NasbenchReport) -> Figure:
    """Mean accuracy and mean training time by depth and width."""
    figure = _figure(report, 9, 3.6)
    depths, widths = ([getattr(each, name) for each in report.by_both] for name in ("depth", "width"))
    grid = np.full((2, max(depths), max(widths)), np.nan)
    for each, depth, width in zip(report.by_both, depths, widths, strict=True):
        grid[:, depth - 1, width - 1] = 100 * each.validation, each.seconds
    for i, (name, form) in enumerate((("mean validation accuracy, %", ".1f"), ("mean training time, s", ",.0f"))):
        axes = figure.add_subplot(1, 2, i + 1)
        _heat(axes, grid[i], form)
        axes.set_xticks(range(grid.shape[2]), [str(w) for w in range(1, grid.shape[2] + 1)])
        axes.set_yticks(range(grid.shape[1]), [str(d) for d in range(1, grid.shape[1] + 1)])
        axes.set(xlabel="width: edges of the largest directed cut", ylabel="depth: longest path", title=name)
    return figure


def scatter_figure(report: NasbenchReport) -> Figure:
    """Parameters, training time and accuracy against one another, the third as the colour."""
    figure = _figure(report, 12, 3.6)
    data = report.data
    columns = (
        ("trainable parameters, millions", data.parameters / 1e6, "log"),
        ("training time, s", data.seconds, "linear"),
        ("validation accuracy, %", 100 * data.validation, "linear"),
    )
    for i, (first, second, third) in enumerate(((0, 2, 1), (1, 2, 0), (0, 1, 2))):
        axes = figure.add_subplot(1, 3, i + 1)
        size = float(np.clip(2e4 / len(data), 0.05, 12))
        dots = axes.scatter(
            columns[first][1], columns[second][1], s=size, c=columns[third][1], linewidths=0, rasterized=True
        )
        figure.colorbar(dots, label=columns[third][0])
        axes.set(xlabel=columns[first][0], ylabel=columns[second][0], xscale=columns[first][2])
    return figure


def budgets_figure(report: NasbenchReport) -> Figure:
    """Spearman's correlation of every two accuracies."""
    names = list(dict.fromkeys(name for each in report.budgets for name in (each.first, each.second)))
    grid = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(grid, 1.0)
    for each in report.budgets:
        if each.spearman is not None:
            i, j = names.index(each.first), names.index(each.second)
            grid[i, j] = grid[j, i] = each.spearman
    size = 3.5 + 0.5 * len(names)
    figure = _figure(report, size + 1.5, size)
    axes = figure.add_subplot()
    _heat(axes, grid, ".3f")
    labels = [name.replace("_accuracy", "").replace("_", " ") for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels)
    axes.set_title("Spearman's rank correlation")
    return figure


def locality_figure(report: NasbenchReport, found: Locality) -> Figure:
    """The autocorrelation by steps and the correlation by edit distance, with 95 % bands."""
    figure = _figure(report, 6.5, 3.6)
    axes = figure.add_subplot()
    for label, decays in (("steps of the walk", found.by_steps), ("edit distance", found.by_edits)):
        distances = [decay.distance for decay in decays]
        axes.fill_between(distances, [d.low for d in decays], [d.high for d in decays], alpha=0.25, linewidth=0)
        axes.plot(distances, [d.correlation for d in decays], marker="o", markersize=3, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="distance", ylabel="correlation of validation accuracy")
    axes.legend()
    return figure


def _figure(report: NasbenchReport, width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(report.title, fontsize=10, color="red" if report.data.synthetic else "black")
    return figure


def _heat(axes: Axes, grid: np.ndarray, form: str) -> None:
    """Coloured cells with their numbers; what is NaN stays white."""
    axes.imshow(grid, aspect="auto")
    low, high = np.nanmin(grid), np.nanmax(grid)
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "black" if value - low > 0.6 * (high - low) else "white"  # the colour map grows lighter
            axes.text(column, row, format(value, form), ha="center", va="center", fontsize=7, color=colour)


def _replacements(report: NasbenchReport) -> list[str]:
    heading = ["## One operation replaced by another", ""]
    if not report.replacements:
        return [*heading, FEW]
    rows = [
        (r.before, r.after, f"{r.pairs:,}", f"{100 * r.accuracy:+.2f}", f"{100 * r.deviation:.2f}",
         f"{100 * r.seconds:+.1f}")
        for r in report.replacements
    ]  # fmt: skip
    headings = ("operation", "replaced by", "pairs", "accuracy, points", "deviation", "training time, %")
    return [
        *heading,
        *markdown.table(headings, rows),
        "",
        "A pair is a vertex of a module in its stored form; the time is the mean of the relative changes.",
    ]


def _shapes(report: NasbenchReport) -> list[str]:
    lines = ["## Depth and width", ""]
    for name, groups in (("depth", report.by_depth), ("width", report.by_width)):
        rows = [
            (str(getattr(g, name)), f"{g.modules:,}", f"{100 * g.validation:.2f}",
             f"{100 * g.validation_deviation:.2f}", f"{g.seconds:,.1f}", f"{g.seconds_deviation:,.1f}",
             f"{g.parameters:,.0f}")
            for g in groups
        ]  # fmt: skip
        headings = (name, "modules", "accuracy, %", "deviation", "time, s", "deviation", "parameters")
        lines += [*markdown.table(headings, rows), ""]
    return [
        *lines,
        "Depth is the number of edges on the longest path from input to output, width that of the largest directed"
        " cut. Both together are in shapes.png and report.json.",
    ]


def _correlations(report: NasbenchReport) -> list[str]:
    headings = ("", "", "modules", "Pearson", "Spearman", "Kendall")
    lines = ["## Parameters, time and accuracy", "", *markdown.table(headings, map(_correlation, report.quantities))]
    lines += ["", "## Between budgets, and between validation and test", ""]
    if not report.budgets:
        return [*lines, FEW]
    return [*lines, *markdown.table(headings, map(_correlation, report.budgets))]


def _correlation(each: Correlation) -> tuple[str, ...]:
    numbers = (each.pearson, each.spearman, each.kendall)
    return each.first, each.second, f"{each.modules:,}", *("-" if n is None else f"{n:.4f}" for n in numbers)


def _locality(report: NasbenchReport) -> list[str]:
    found = report.locality
    heading = ["## Locality", ""]
    if found is None:
        return [*heading, FEW]
    by_edits = {decay.distance: decay for decay in found.by_edits}
    rows = [(str(d.distance), *_decay(d), *_decay(by_edits.get(d.distance))) for d in found.by_steps]
    headings = ("distance", "by steps", "95 %", "pairs", "by edit distance", "95 %", "pairs")
    return [
        *heading,
        f"Correlation of the accuracies of two modules on {found.walks} random walks of {found.length} steps among the"
        f" modules of at most {found.vertices} vertices.",
        "",
        *markdown.table(headings, rows),
        "",
        f"Correlated beyond chance up to an edit distance of {found.reach}.",
    ]


def _decay(decay: Decay | None) -> tuple[str, str, str]:
    if decay is None:
        return "", "", ""
    return f"{decay.correlation:.3f}", f"{decay.low:.3f} to {decay.high:.3f}", f"{decay.pairs:,}"


def _regrets(report: NasbenchReport) -> list[str]:
    found = report.regrets
    heading = ["## Searches", ""]
    if found is None:
        return [*heading, FEW]
    return [
        *heading,
        f"Searches are among the modules of at most {report.data.complete} vertices, {found.trainings:g} mean trainings"
        f" long. Regularized evolution has a population of {POPULATION} and tournaments of {TOURNAMENT}.",
        "",
        *regrets_lines(found),
    ]
