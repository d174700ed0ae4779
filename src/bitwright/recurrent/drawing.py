"""A recurrent cell as a picture with the labels and colours of the published drawings: inputs above, h[t] below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..files import write_text
from ..report.figures import box, save_figure
from .cell import AVERAGE, OUTPUT, RecurrentCell, published_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, ROW, WIDTH, HEIGHT, MARGIN = 1.0, 0.85, 0.84, 0.48, 0.25  # inches
WORD, STATE = -1, -2  # the inputs, numbered as in dag.json
COLOURS = {  # by label: what graphviz calls the colour, and the same for SVG and PNG
    "x[t]": ("white", "#ffffff"),
    "h[t-1]": ("skyblue", "#87ceeb"),
    "tanh": ("yellow", "#ffff00"),
    "ReLU": ("pink", "#ffc0cb"),
    "identity": ("orange", "#ffa500"),
    "sigmoid": ("greenyellow", "#adff2f"),
    AVERAGE: ("seagreen3", "#43cd80"),
    OUTPUT: ("skyblue", "#87ceeb"),
}

Place = tuple[float, float]


def cell_figure(cell: RecurrentCell, averaged: Sequence[int] | None = None) -> Figure:
    """A box per node, input and output, arrows between them.

    averaged: the nodes whose mean is the output; None for the leaves.
    """
    from matplotlib.figure import Figure

    averaged = cell.leaves if averaged is None else averaged
    places, lanes = _places(cell, averaged)
    left, right = (f(x for x, _ in places.values()) for f in (min, max))
    right = max(right, *lanes.values())
    bottom = min(y for _, y in places.values())
    width, height = right - left + WIDTH + 2 * MARGIN, -bottom + HEIGHT + 2 * MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    low = left - WIDTH / 2 - MARGIN, bottom - HEIGHT / 2 - MARGIN
    axes.set(xlim=(low[0], low[0] + width), ylim=(low[1], low[1] + height))  # one unit is one inch
    axes.axis("off")
    for source, target in _edges(cell, averaged):
        bend = lanes[source] if target == len(cell.nodes) else None
        _arrow(axes, places[source], places[target], bend)
    for number, label in _labels(cell).items():
        text = f"{label}\n({number})" if 0 <= number < len(cell.nodes) else label
        box(axes, places[number], WIDTH, HEIGHT, text, COLOURS[label][1], 9)
    return figure


def cell_dot(cell: RecurrentCell, averaged: Sequence[int] | None = None) -> str:
    """The same in the DOT language of graphviz, with the numbers of dag.json."""
    lines = ["digraph cell {", '  node [shape=box, style=filled, fontname="Helvetica"];']
    for number, label in _labels(cell).items():
        text = f"{label}\\n({number})" if 0 <= number < len(cell.nodes) else label
        lines.append(f'  "{number}" [label="{text}", fillcolor={COLOURS[label][0]}];')
    edges = _edges(cell, cell.leaves if averaged is None else averaged)
    lines += [f'  "{source}" -> "{target}";' for source, target in edges]
    return "\n".join([*lines, "}", ""])


def draw_cell(cell: RecurrentCell, path: Path, averaged: Sequence[int] | None = None) -> Path:
    """Write an .svg, .png or .dot."""
    if path.suffix == ".dot":
        write_text(path, cell_dot(cell, averaged))
        return path
    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"a cell is drawn as .svg, .png or .dot, got {path}")
    return save_figure(cell_figure(cell, averaged), path)


def draw_cell_in(folder: Path, cell: RecurrentCell, averaged: Sequence[int] | None = None) -> list[Path]:
    """cell.svg, cell.png and cell.dot in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"cell{suffix}" for suffix in (".svg", ".png", ".dot")]
    for path in paths:
        draw_cell(cell, path, averaged)
    return paths


def _labels(cell: RecurrentCell) -> dict[int, str]:
    """Of the inputs, the nodes, the mean and the output."""
    count = len(cell.nodes)
    nodes = {number: published_name(node.activation) for number, node in enumerate(cell.nodes)}
    return {WORD: "x[t]", STATE: "h[t-1]"} | nodes | {count: AVERAGE, count + 1: OUTPUT}


def _edges(cell: RecurrentCell, averaged: Sequence[int]) -> list[tuple[int, int]]:
    count = len(cell.nodes)
    inner = [(node.source, number) for number, node in enumerate(cell.nodes) if number]
    return [(WORD, 0), (STATE, 0), *inner, *((number, count) for number in averaged), (count, count + 1)]


def _places(cell: RecurrentCell, averaged: Sequence[int]) -> tuple[dict[int, Place], dict[int, float]]:
    """The centre of every box, and the column in which the line of a node runs down to the mean, in inches.

    Each leaf and each averaged node has a column of its own and a node stands over the middle of what hangs on it, so
    no line crosses another or a box.
    """
    lanes = _lanes(cell, averaged)
    across: dict[int, float] = {}
    for number in reversed(range(len(cell.nodes))):
        below = [across[child] for child in cell.children[number]]
        below += [lanes[number]] if number in lanes else []
        across[number] = (min(below) + max(below)) / 2
    places = {number: (across[number], -ROW * (depth + 1)) for number, depth in enumerate(cell.depths)}
    middle, last = (min(lanes.values()) + max(lanes.values())) / 2, max(cell.depths) + 1
    count = len(cell.nodes)
    places |= {count: (middle, -ROW * (last + 1)), count + 1: (middle, -ROW * (last + 2))}
    return places | {WORD: (across[0] - COLUMN / 2, 0.0), STATE: (across[0] + COLUMN / 2, 0.0)}, lanes


def _lanes(cell: RecurrentCell, averaged: Sequence[int]) -> dict[int, float]:
    """Columns from left to right: a node's own comes after those of its children."""
    lanes: dict[int, float] = {}
    waiting = [(0, False)]
    while waiting:
        number, done = waiting.pop()
        if not done:
            waiting.append((number, True))
            waiting += [(child, False) for child in reversed(cell.children[number])]
        elif number in averaged or not cell.children[number]:
            lanes[number] = COLUMN * len(lanes)
    return lanes


def _arrow(axes: Axes, start: Place, end: Place, lane: float | None) -> None:
    """From the lower edge of a box to the upper one of another; down a column between them if there is one."""
    colour = "#555555"
    origin, tip = (start[0], start[1] - HEIGHT / 2), (end[0], end[1] + HEIGHT / 2)
    if lane is not None:
        over = end[1] + ROW - HEIGHT / 2  # the lower edge of the row above
        bends = [origin, *([(lane, start[1] - ROW + HEIGHT / 2)] if lane != start[0] else []), (lane, over)]
        axes.plot([x for x, _ in bends], [y for _, y in bends], color=colour, linewidth=0.9, zorder=1)
        origin = bends[-1]
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=tip, xytext=origin, arrowprops=style, zorder=1)
