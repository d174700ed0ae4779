"""A picture of an integer graph: operations from top to bottom, widths of the values on the arrows between them.

An activation that alone reads a sum shares its box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..integer.describe import operation
from ..integer.graph import Argmax, Conv, Input, IntegerGraph, MatMul, MultiThreshold, Requantize
from .figures import box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, ROW, WIDTH, HEIGHT = 3.1, 0.95, 2.8, 0.56  # inches
COLOURS = {Input: "#ffffff", Conv: "#cfe3ff", MatMul: "#cfe3ff", MultiThreshold: "#d8f0d2", Requantize: "#d8f0d2"}
OTHER, OUTPUT = "#ffe2b8", "#f3d9f0"

Place = tuple[float, float]


def graph_figure(graph: IntegerGraph) -> Figure:
    """One box for every operation, joined ones in one; arrows with shapes and widths."""
    from matplotlib.figure import Figure

    joined = _joined(graph)
    places = _places(graph, joined)
    left, right = (f(x for x, _ in places.values()) for f in (min, max))
    bottom = min(y for _, y in places.values())
    width, height = right - left + WIDTH + 0.4, -bottom + HEIGHT + 0.4
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left - WIDTH / 2 - 0.2, right + WIDTH / 2 + 0.2), ylim=(bottom - HEIGHT / 2 - 0.2, HEIGHT / 2 + 0.2))
    axes.axis("off")
    for position, place in places.items():
        sums = next((i for i, after in joined.items() if after == position), None)
        for i in graph.nodes[position if sums is None else sums].inputs:
            _arrow(axes, graph, i, places[i], place)
        node = graph.nodes[position]
        lines = [operation(graph.nodes[i].op) for i in ((position,) if sums is None else (sums, position))]
        colour = OUTPUT if isinstance(node.op, Argmax) else COLOURS.get(type(node.op), OTHER)
        box(axes, place, WIDTH, HEIGHT, "\n".join([*lines, _short(node.name)]), colour, 6)
    return figure


def _joined(graph: IntegerGraph) -> dict[int, int]:
    """The activation that each sum shares its box with."""
    found = {}
    for position, node in enumerate(graph.nodes):
        readers = graph.consumers[position]
        if isinstance(node.op, Conv | MatMul) and len(readers) == 1:
            (after,) = readers
            if isinstance(graph.nodes[after].op, MultiThreshold | Requantize):
                found[position] = after
    return found


def _places(graph: IntegerGraph, joined: dict[int, int]) -> dict[int, Place]:
    """The centre of every box, in inches: a row below the deepest that it reads, near the middle of what it reads."""
    sums_of = {after: i for i, after in joined.items()}
    rows: dict[int, list[int]] = {}
    depths: dict[int, int] = {}
    for position in range(len(graph.nodes)):
        if position in joined:
            continue
        inputs = graph.nodes[sums_of.get(position, position)].inputs
        depths[position] = 1 + max((depths[i] for i in inputs), default=-1)
        rows.setdefault(depths[position], []).append(position)
    places: dict[int, Place] = {}
    for depth, row in sorted(rows.items()):
        wanted = {}
        for position in row:
            inputs = graph.nodes[sums_of.get(position, position)].inputs
            wanted[position] = sum(places[i][0] for i in inputs) / max(len(inputs), 1)
        ordered = sorted(row, key=lambda position: (wanted[position], position))
        middle = sum(wanted.values()) / len(wanted)
        for column, position in enumerate(ordered):
            places[position] = (middle + (column - (len(row) - 1) / 2) * COLUMN, -ROW * depth)
    return places


def _arrow(axes: Axes, graph: IntegerGraph, source: int, start: Place, end: Place) -> None:
    edge = graph.edges[source]
    top, tip = (start[0], start[1] - HEIGHT / 2), (end[0], end[1] + HEIGHT / 2)
    far = start[1] - end[1] > 1.5 * ROW  # past other boxes: round them
    style = {
        "arrowstyle": "-|>",
        "color": "#888888",
        "linewidth": 0.8,
        "connectionstyle": f"arc3,rad={0.25 if far else 0.0}",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", xy=tip, xytext=top, arrowprops=style, zorder=1)
    if not far:
        text = f"{'x'.join(map(str, edge.shape))} {'int' if edge.signed else 'uint'}{edge.bits}"
        axes.text(tip[0] + 0.06, tip[1] + 0.08, text, fontsize=5, color="#555555", zorder=2)


def _short(name: str) -> str:
    return name if len(name) <= 44 else "..." + name[-41:]
