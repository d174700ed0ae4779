"""Pictures: cells as layered graphs, and the curves of a search. Figures are saved as .svg or .png by their suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..architecture import Architecture
from ..files import write_atomically, write_text
from ..spaces.enas_micro import CELLS, EnasMicro, Operation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER, NODE, OPERATION = 2.5, 0.75, 0.85  # inches: distance of columns, width of boxes
COLOURS = {"separable": "#cfe3ff", "average": "#ffe2b8", "max": "#ffd0c2", "identity": "#e6e6e6"}


def cell_figure(space: EnasMicro, architecture: Architecture) -> Figure:
    """The normal cell above the reduction cell: inputs left, operations on the edges, output right."""
    from matplotlib.figure import Figure

    layouts = {kind: _layout(space, architecture, kind) for kind in CELLS}
    width = max(max(x for x, _ in places.values()) for places in layouts.values()) + LAYER + 1.0
    heights = [
        max(y for _, y in places.values()) - min(y for _, y in places.values()) + 1.7 for places in layouts.values()
    ]
    figure = Figure(figsize=(width, sum(heights)))
    bottom = sum(heights)
    for (kind, places), height in zip(layouts.items(), heights, strict=True):
        bottom -= height
        axes = figure.add_axes((0, bottom / sum(heights), 1, height / sum(heights)))
        top = max(y for _, y in places.values()) + 1.1
        axes.set(xlim=(-0.8, width - 0.8), ylim=(top - height, top))  # one unit is one inch
        axes.axis("off")
        axes.text(-0.7, top - 0.25, f"{kind} cell", fontsize=12, fontweight="bold", va="center")
        axes.text(
            0.75,
            top - 0.25,
            " ".join(map(str, _choices(architecture, kind))),
            fontsize=10,
            va="center",
            family="monospace",
        )
        _draw_cell(axes, space, architecture, kind, places)
    return figure


def cell_dot(space: EnasMicro, architecture: Architecture) -> str:
    """The two cells in the DOT language of graphviz."""
    lines = ["digraph cells {", "  rankdir=LR; node [shape=box, style=rounded];"]
    for kind in CELLS:
        lines.append(f'  subgraph cluster_{kind} {{ label="{kind} cell";')
        lines += [f'    {kind}_{i} [label="{_label(i)}"];' for i in range(space.nodes + 2)]
        for node, edges in enumerate(space.cell(architecture, kind), start=2):
            for edge in edges:
                lines.append(f'    {kind}_{edge.source} -> {kind}_{node} [label="{space.operations[edge.op].name}"];')
        lines.append(f'    {kind}_out [label="concat"];')
        lines += [f"    {kind}_{i} -> {kind}_out;" for i in space.unused(architecture, kind)]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def draw_cells(space: EnasMicro, architecture: Architecture, folder: Path) -> list[Path]:
    """cells.svg, cells.png and cells.dot in `folder`."""
    figure = cell_figure(space, architecture)
    paths = [save_figure(figure, folder / f"cells.{suffix}") for suffix in ("svg", "png")]
    write_text(folder / "cells.dot", cell_dot(space, architecture))
    return [*paths, folder / "cells.dot"]


def search_figure(rounds: Sequence[tuple[float, float, float]], entropies: Sequence[float]) -> Figure:
    """Mean and range of the accuracies of each round's trials, and the policy's entropy where it has one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    numbers = range(1, len(rounds) + 1)
    axes.fill_between(
        numbers, [low for low, _, _ in rounds], [high for _, _, high in rounds], alpha=0.25, label="lowest to highest"
    )
    axes.plot(numbers, [mean for _, mean, _ in rounds], label="mean")
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy with shared weights, one minibatch")
    if entropies:
        right = axes.twinx()
        right.plot(range(1, len(entropies) + 1), entropies, color="tab:gray", linestyle=":")
        right.set_ylabel("policy entropy, nats (dotted)")
    axes.legend(loc="lower right")
    return figure


def correlation_figure(shared: Sequence[float], alone: Sequence[float], tau: float) -> Figure:
    """Accuracy with shared weights against accuracy trained from scratch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(shared, alone)
    axes.set_xlabel("validation accuracy with shared weights")
    axes.set_ylabel("validation accuracy trained from scratch")
    axes.set_title(f"Kendall's tau {tau:.2f}, {len(shared)} architectures", fontsize=10)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write an .svg or .png."""
    from matplotlib import rc_context

    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "bitwright"}):  # the same picture makes the same file
        write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=130, metadata=metadata))
    return path


def _choices(architecture: Architecture, kind: str) -> tuple[int, ...]:
    half = len(architecture.choices) // 2
    return architecture.choices[:half] if kind == "normal" else architecture.choices[half:]


def _label(node: int) -> str:
    return {0: "h[i-2]", 1: "h[i-1]"}.get(node, f"{node} add")


def _depths(space: EnasMicro, architecture: Architecture, kind: str) -> list[int]:
    """The layer of every node: inputs in 0, a node behind the deepest that it reads."""
    depths = [0, 0]
    for edges in space.cell(architecture, kind):
        depths.append(1 + max(depths[edge.source] for edge in edges))
    return depths


def _layout(space: EnasMicro, architecture: Architecture, kind: str) -> dict[int, tuple[float, float]]:
    """Where every node goes, in inches: a column per layer, with its operations left of each node."""
    depths = _depths(space, architecture, kind)
    places = {}
    for depth in range(max(depths) + 1):
        layer = [i for i, d in enumerate(depths) if d == depth]
        for row, node in enumerate(layer):
            # odd columns are moved up a little, so that lines past a node do not run through it
            places[node] = (LAYER * depth, ((len(layer) - 1) / 2 - row) * 1.25 + 0.3 * (depth % 2))
    return places


def _draw_cell(
    axes: Axes, space: EnasMicro, architecture: Architecture, kind: str, places: dict[int, tuple[float, float]]
) -> None:
    for node, edges in enumerate(space.cell(architecture, kind), start=2):
        x, y = places[node]
        for edge, above in zip(edges, (0.27, -0.27), strict=True):
            operation = space.operations[edge.op]
            centre = (x - 1.15, y + above)
            source = places[edge.source]
            _arrow(axes, (source[0] + NODE / 2, source[1]), (centre[0] - OPERATION / 2, centre[1]))
            _arrow(axes, (centre[0] + OPERATION / 2, centre[1]), (x - NODE / 2, y))
            box(axes, centre, OPERATION, 0.46, _short(operation), COLOURS[operation.kind], 8)
    output = (max(x for x, _ in places.values()) + LAYER - 0.4, 0.0)
    for node in space.unused(architecture, kind):
        _arrow(axes, (places[node][0] + NODE / 2, places[node][1]), (output[0] - NODE / 2, output[1]), dashed=True)
    for node, place in places.items():
        box(axes, place, NODE, 0.4, _label(node), "#ffffff" if node < 2 else "#d8f0d2", 9)
    box(axes, output, NODE, 0.4, "concat", "#f3d9f0", 9)


def _short(operation: Operation) -> str:
    return operation.name.replace("/", "\n") + ("-bit" if (operation.precision or "").isdigit() else "")


def box(
    axes: Axes, centre: tuple[float, float], width: float, height: float, text: str, colour: str, size: int
) -> None:
    """A box with rounded corners and text; axes whose unit is an inch."""
    from matplotlib.patches import FancyBboxPatch

    corner = (centre[0] - width / 2 + 0.05, centre[1] - height / 2 + 0.05)
    style = "round,pad=0.05,rounding_size=0.08"
    patch = FancyBboxPatch(
        corner,
        width - 0.1,
        height - 0.1,
        boxstyle=style,
        facecolor=colour,
        edgecolor="#555555",
        linewidth=0.8,
        zorder=3,
    )
    axes.add_patch(patch)
    axes.text(*centre, text, ha="center", va="center", fontsize=size, zorder=4, linespacing=0.95)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> None:
    straight = abs(start[1] - end[1]) < 0.05 and end[0] - start[0] < LAYER
    outward = -0.15 if start[1] > end[1] else 0.15  # long lines to the output go round the nodes between
    bend = 0.0 if straight else outward if dashed else 0.1 if start[1] > end[1] else -0.1
    style = {
        "arrowstyle": "-|>",
        "color": "#888888",
        "linewidth": 0.9,
        "linestyle": "--" if dashed else "-",
        "connectionstyle": f"arc3,rad={bend}",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)
