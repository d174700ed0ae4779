"""Pictures of macro architectures: layers from top to bottom, skips as curves at their sides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..architecture import Architecture
from ..files import write_text
from ..spaces.enas_macro import EnasMacro, Operation
from .figures import COLOURS, box, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, WIDTH, HEIGHT = 0.62, 2.0, 0.4  # inches: distance of layers, size of their boxes
REACH, STEP = 0.5, 0.11  # inches: how far the shortest skip swings out, and how much further each longer one
STEM, CONVOLUTION = "#ffffff", "#d8f0d2"


def layer_figure(space: EnasMacro, architecture: Architecture) -> Figure:
    """A box per output, the stem's on top; skips to layers of even number are at the right, to odd ones at the left."""
    from matplotlib.figure import Figure

    side = WIDTH / 2 + REACH + STEP * space.layers + 0.2
    height = ROW * (space.layers + 1) + 0.2
    figure = Figure(figsize=(2 * side, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-side, side), ylim=(ROW / 2 - height, ROW / 2))  # one unit is one inch
    axes.axis("off")
    box(axes, (0, 0), WIDTH, HEIGHT, "stem", STEM, 9)
    for number, layer in enumerate(space.decoded(architecture)):
        output = number + 1
        _arrow(axes, number, output)
        for skip in layer.skips:
            _skip(axes, skip, output, 1 if number % 2 == 0 else -1)
        operation = space.operations[layer.op]
        box(axes, (0, -ROW * output), WIDTH, HEIGHT, _label(space, number, operation), _colour(operation), 9)
    return figure


def layer_dot(space: EnasMacro, architecture: Architecture) -> str:
    """The layers in the DOT language of graphviz; dashed edges are skips."""
    lines = ["digraph layers {", "  node [shape=box, style=rounded];", '  output0 [label="stem"];']
    for number, layer in enumerate(space.decoded(architecture)):
        label = _label(space, number, space.operations[layer.op])
        lines += [f'  output{number + 1} [label="{label}"];', f"  output{number} -> output{number + 1};"]
        lines += [f"  output{skip} -> output{number + 1} [style=dashed];" for skip in layer.skips]
    return "\n".join([*lines, "}", ""])


def draw_layers(space: EnasMacro, architecture: Architecture, folder: Path) -> list[Path]:
    """layers.svg, layers.png and layers.dot in `folder`."""
    figure = layer_figure(space, architecture)
    paths = [save_figure(figure, folder / f"layers.{suffix}") for suffix in ("svg", "png")]
    write_text(folder / "layers.dot", layer_dot(space, architecture))
    return [*paths, folder / "layers.dot"]


def _label(space: EnasMacro, number: int, operation: Operation) -> str:
    halved = ", then halved" if number in space.reduction_layers else ""
    return f"{number} {operation.name}{halved}"


def _colour(operation: Operation) -> str:
    return COLOURS.get(operation.kind, CONVOLUTION)


def _arrow(axes: Axes, source: int, target: int) -> None:
    style = {"arrowstyle": "-|>", "color": "#888888", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    start, end = (0, -ROW * source - HEIGHT / 2), (0, -ROW * target + HEIGHT / 2)
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)


def _skip(axes: Axes, source: int, target: int, side: int) -> None:
    """A curve from the lower part of one box to the upper part of another, the further out the longer it is."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    edge, swing = side * WIDTH / 2, side * (REACH + STEP * (target - source))
    start, end = -ROW * source - HEIGHT / 4, -ROW * target + HEIGHT / 4
    points = [(edge, start), (edge + swing, start), (edge + swing, end), (edge, end)]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axes.add_patch(
        FancyArrowPatch(
            path=curve, arrowstyle="-|>", mutation_scale=8, color="#4878a8", linewidth=0.8, linestyle="--", zorder=2
        )
    )
