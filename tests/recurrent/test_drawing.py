"""Pictures of recurrent cells: published labels and colours, and lines that cross nothing."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Annotation
from PIL import Image

from bitwright.errors import ConfigError
from bitwright.recurrent.cell import CellNode, RecurrentCell
from bitwright.recurrent.drawing import cell_dot, cell_figure, draw_cell
from bitwright.spaces.enas_rnn import EnasRnn

SVG = "{http://www.w3.org/2000/svg}"
COLOURS = {  # of X11, by the names that the published drawings give them
    "x[t]": ("white", "#ffffff"),
    "h[t-1]": ("skyblue", "#87ceeb"),
    "tanh": ("yellow", "#ffff00"),
    "ReLU": ("pink", "#ffc0cb"),
    "identity": ("orange", "#ffa500"),
    "sigmoid": ("greenyellow", "#adff2f"),
    "avg": ("seagreen3", "#43cd80"),
    "h[t]": ("skyblue", "#87ceeb"),
}
EACH = RecurrentCell(
    (CellNode(-1, "tanh"), CellNode(0, "relu"), CellNode(0, "identity"), CellNode(1, "sigmoid"), CellNode(1, "tanh"))
)
ORIGINAL, AUTHORS = EnasRnn(12), EnasRnn(9, variant="authors")
CASES = [(EACH, EACH.leaves), (RecurrentCell((CellNode(-1, "tanh"),)), (0,))]
CASES += [
    (cell, space.averaged(cell))
    for space in (ORIGINAL, AUTHORS)
    for seed in range(4)
    for cell in [space.cell(space.sample(np.random.default_rng(seed)))]
]
each_case = pytest.mark.parametrize(("cell", "averaged"), CASES)

Point = tuple[float, float]


def boxes(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Left, bottom, right and top of every box."""
    found = []
    for patch in figure.axes[0].patches:
        if isinstance(patch, FancyBboxPatch):
            bounds = patch.get_path().get_extents()
            found.append((bounds.x0, bounds.y0, bounds.x1, bounds.y1))
    return found


def segments(figure: Figure) -> list[tuple[Point, Point]]:
    """Every straight piece of a line, arrows included."""
    (axes,) = figure.axes
    found = [(text.xyann, text.xy) for text in axes.texts if isinstance(text, Annotation)]
    for line in axes.lines:
        points = [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        found += pairwise(points)
    return found


def edges(cell: RecurrentCell, averaged: tuple[int, ...]) -> set[tuple[int, int]]:
    count = len(cell.nodes)
    read = {(node.source, number) for number, node in enumerate(cell.nodes) if number}
    return {(-1, 0), (-2, 0), (count, count + 1)} | read | {(number, count) for number in averaged}


@each_case
def test_the_dot_file_has_the_nodes_and_arrows_of_dag_json(cell: RecurrentCell, averaged: tuple[int, ...]) -> None:
    dot = cell_dot(cell, averaged)
    arrows = {(int(a), int(b)) for a, b in re.findall(r'"(-?\d+)" -> "(-?\d+)"', dot)}
    assert arrows == edges(cell, averaged)
    numbers = [int(number) for number in re.findall(r'"(-?\d+)" \[', dot)]
    assert sorted(numbers) == list(range(-2, len(cell.nodes) + 2))


def test_labels_and_colours_are_the_published_ones() -> None:
    found = re.findall(r'\[label="([^"\\]+)(?:\\n\((\d+)\))?", fillcolor=(\w+)\]', cell_dot(EACH))
    labels = ["x[t]", "h[t-1]", "tanh", "ReLU", "identity", "sigmoid", "tanh", "avg", "h[t]"]
    assert [label for label, _, _ in found] == labels
    assert [number for _, number, _ in found] == ["", "", "0", "1", "2", "3", "4", "", ""]
    assert [colour for _, _, colour in found] == [COLOURS[label][0] for label in labels]
    figure = cell_figure(EACH)
    drawn = [to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert drawn == [COLOURS[label][1] for label in labels]
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert texts == [f"{label}\n({number})" if number else label for label, number, _ in found]


@each_case
def test_boxes_lie_apart_and_inside_the_picture(cell: RecurrentCell, averaged: tuple[int, ...]) -> None:
    figure = cell_figure(cell, averaged)
    found = boxes(figure)
    assert len(found) == len(cell.nodes) + 4
    for first, second in combinations(found, 2):
        apart = first[2] < second[0] or second[2] < first[0] or first[3] < second[1] or second[3] < first[1]
        assert apart
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert all(left < x0 and x1 < right and bottom < y0 and y1 < top for x0, y0, x1, y1 in found)
    assert all(left < x < right for segment in segments(figure) for x, _ in segment)


@each_case
def test_no_line_runs_through_a_box(cell: RecurrentCell, averaged: tuple[int, ...]) -> None:
    figure = cell_figure(cell, averaged)
    assert sum(isinstance(text, Annotation) for text in figure.axes[0].texts) == len(edges(cell, averaged))
    left, bottom, right, top = np.array(boxes(figure)).T[:, :, None]
    share = np.linspace(0, 1, 200)
    for start, end in segments(figure):
        x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
        inside = (left + 0.03 < x) & (x < right - 0.03) & (bottom + 0.03 < y) & (y < top - 0.03)
        assert not inside.any()


def test_no_two_lines_cross() -> None:
    def side(a: Point, b: Point, c: Point) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    for cell, averaged in CASES:
        for (a, b), (c, d) in combinations(segments(cell_figure(cell, averaged)), 2):
            across = side(a, b, c) * side(a, b, d) < -1e-9 and side(c, d, a) * side(c, d, b) < -1e-9
            assert not across


def test_files_are_what_their_suffix_says(tmp_path: Path) -> None:
    for suffix in ("svg", "png", "dot"):
        assert draw_cell(EACH, tmp_path / "new" / f"cell.{suffix}") == tmp_path / "new" / f"cell.{suffix}"
    root = ElementTree.parse(tmp_path / "new" / "cell.svg").getroot()
    assert root.tag == f"{SVG}svg"
    with Image.open(tmp_path / "new" / "cell.png") as picture:
        assert picture.format == "PNG"
        assert (0x43, 0xCD, 0x80) in {colour for _, colour in picture.convert("RGB").getcolors(2**20) or []}
    assert (tmp_path / "new" / "cell.dot").read_text() == cell_dot(EACH)
    first = (tmp_path / "new" / "cell.svg").read_bytes()
    assert draw_cell(EACH, tmp_path / "new" / "cell.svg").read_bytes() == first


def test_another_suffix_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.svg, \.png or \.dot"):
        draw_cell(EACH, tmp_path / "cell.pdf")
