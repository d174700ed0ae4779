"""Pictures of cells and of a search: what they hold, and that the files are what their suffix says."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Annotation
from PIL import Image

from bitwright import Architecture
from bitwright.errors import StorageError
from bitwright.report.figures import (
    cell_dot,
    cell_figure,
    correlation_figure,
    draw_cells,
    save_figure,
    search_figure,
)
from bitwright.spaces.enas_micro import EnasMicro

README_ARC = "0 2 1 4 1 3 0 1 1 0 1 0 1 2 0 4 0 0 0 1 1 3 1 4 0 1 1 1 1 2 1 4 3 2 0 2 1 1 0 3"
ENAS = EnasMicro(ops="enas")
CHAIN = EnasMicro(ops="mixed", nodes=4)
CASES = {
    "readme": (ENAS, ENAS.parse(README_ARC)),
    "chain": (CHAIN, CHAIN.parse(" ".join(["0 0 0 1  2 2 2 12  3 7 3 9  4 10 4 11"] * 2))),
    **{
        f"random {seed}": (space, space.sample(np.random.default_rng(seed)))
        for seed in range(4)
        for space in [EnasMicro(nodes=seed + 1, ops="mixed")]
    },
}
each_case = pytest.mark.parametrize(("space", "architecture"), CASES.values(), ids=CASES.keys())
SVG = "{http://www.w3.org/2000/svg}"


def cells(space: EnasMicro, architecture: Architecture) -> list[list[int]]:
    half = 4 * space.nodes
    return [list(architecture.choices[:half]), list(architecture.choices[half:])]


def unused_nodes(space: EnasMicro, cell: list[int]) -> set[int]:
    return set(range(space.nodes + 2)) - set(cell[0::2])


def boxes_and_arrows(space: EnasMicro, cell: list[int]) -> tuple[int, int]:
    """A box per node, per operation and for the output; an arrow into and out of each operation and to the output."""
    return (2 + space.nodes) + 2 * space.nodes + 1, 4 * space.nodes + len(unused_nodes(space, cell))


@each_case
def test_a_cell_has_a_box_per_node_and_operation_and_arrows_between_them(
    space: EnasMicro, architecture: Architecture
) -> None:
    figure = cell_figure(space, architecture)
    assert len(figure.axes) == 2
    for axes, cell in zip(figure.axes, cells(space, architecture), strict=True):
        boxes = [p for p in axes.patches if isinstance(p, FancyBboxPatch)]
        arrows = [t for t in axes.texts if isinstance(t, Annotation)]
        assert (len(boxes), len(arrows)) == boxes_and_arrows(space, cell)
        texts = [t.get_text() for t in axes.texts if not isinstance(t, Annotation)]
        assert {"h[i-2]", "h[i-1]", "concat", *(f"{i} add" for i in range(2, space.nodes + 2))} <= set(texts)
        drawn = sorted(t.replace("\n", "/").removesuffix("-bit") for t in texts)
        for op in cell[1::2]:
            assert drawn.count(space.operations[op].name) == cell[1::2].count(op)
        assert " ".join(map(str, cell)) in texts


@each_case
def test_boxes_lie_in_the_picture_and_not_on_each_other(space: EnasMicro, architecture: Architecture) -> None:
    for axes in cell_figure(space, architecture).axes:
        boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
        inside = axes.get_window_extent()
        for box in boxes:
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        for a, b in combinations(boxes, 2):
            assert a.x1 < b.x0 or b.x1 < a.x0 or a.y1 < b.y0 or b.y1 < a.y0


@each_case
def test_the_svg_is_well_formed_and_holds_every_box_and_arrow(
    space: EnasMicro, architecture: Architecture, tmp_path: Path
) -> None:
    path = save_figure(cell_figure(space, architecture), tmp_path / "cells.svg")
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    groups = [g.get("id", "") for g in root.iter(f"{SVG}g")]
    patches = [name for name in groups if re.fullmatch(r"patch_\d+", name)]
    background = 1
    assert len(patches) == background + sum(sum(boxes_and_arrows(space, c)) for c in cells(space, architecture))
    assert "date" not in path.read_text(encoding="utf-8").lower()


@each_case
def test_the_dot_text_names_every_edge(space: EnasMicro, architecture: Architecture) -> None:
    text = cell_dot(space, architecture)
    assert text.startswith("digraph cells {") and text.endswith("}\n")
    assert text.count("{") == text.count("}")
    found = re.findall(r'(\w+)_(\w+) -> (\w+)_(\w+)(?: \[label="([^"]+)"\])?;', text)
    expected = []
    for kind, cell in zip(("normal", "reduction"), cells(space, architecture), strict=True):
        for i in range(0, len(cell), 2):
            expected.append((kind, str(cell[i]), kind, str(i // 4 + 2), space.operations[cell[i + 1]].name))
        expected += [(kind, str(i), kind, "out", "") for i in unused_nodes(space, cell)]
    assert sorted(found) == sorted(expected)
    declared = re.findall(r"^ +(\w+) \[label=", text, re.MULTILINE)
    names = [*range(space.nodes + 2), "out"]
    assert sorted(declared) == sorted(f"{kind}_{name}" for kind in ("normal", "reduction") for name in names)


def test_cells_are_drawn_as_svg_png_and_dot(tmp_path: Path) -> None:
    paths = draw_cells(ENAS, ENAS.parse(README_ARC), tmp_path / "new" / "report")
    assert [p.name for p in paths] == ["cells.svg", "cells.png", "cells.dot"]
    assert sorted(p.name for p in (tmp_path / "new" / "report").iterdir()) == ["cells.dot", "cells.png", "cells.svg"]
    assert paths[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with Image.open(paths[1]) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300
    assert paths[2].read_text(encoding="utf-8") == cell_dot(ENAS, ENAS.parse(README_ARC))


@pytest.mark.parametrize("suffix", ["svg", "png"])
@pytest.mark.parametrize(
    "figure",
    [
        search_figure([(0.1, 0.2, 0.3), (0.2, 0.4, 0.6)], [57.19, 50.0]),
        search_figure([(0.1, 0.2, 0.3)], []),
        search_figure([], []),
        correlation_figure([0.1, 0.5, 0.9], [0.2, 0.4, 0.6], 1.0),
        correlation_figure([], [], float("nan")),
    ],
    ids=["rounds", "one round", "no rounds", "correlation", "nothing to correlate"],
)
def test_curves_are_saved_in_both_formats(figure: Figure, suffix: str, tmp_path: Path) -> None:
    path = save_figure(figure, tmp_path / f"figure.{suffix}")
    if suffix == "svg":
        assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"
    else:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_curve_of_a_search_shows_each_rounds_mean_and_range() -> None:
    rounds = [(0.1, 0.2, 0.4), (0.3, 0.5, 0.6)]
    axes, right = search_figure(rounds, [9.0, 7.0]).axes
    assert axes.lines[0].get_ydata().tolist() == [0.2, 0.5]
    assert axes.lines[0].get_xdata().tolist() == [1, 2]
    (band,) = axes.collections
    heights = {(x, y) for x, y in band.get_paths()[0].vertices.tolist()}
    assert {(1.0, 0.1), (1.0, 0.4), (2.0, 0.3), (2.0, 0.6)} <= heights
    assert right.lines[0].get_ydata().tolist() == [9.0, 7.0]


def test_the_correlation_shows_every_architecture_and_tau() -> None:
    (axes,) = correlation_figure([0.1, 0.5, 0.9], [0.2, 0.4, 0.6], 0.333).axes
    assert axes.collections[0].get_offsets().tolist() == [[0.1, 0.2], [0.5, 0.4], [0.9, 0.6]]
    assert "0.33" in axes.get_title() and "3 architectures" in axes.get_title()


def test_the_same_picture_makes_the_same_png(tmp_path: Path) -> None:
    first, second = (draw_cells(*CASES["readme"], tmp_path / name)[1].read_bytes() for name in "ab")
    assert first == second


def test_a_picture_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "cells.svg").mkdir()
    with pytest.raises(StorageError, match=r"cells\.svg"):
        draw_cells(*CASES["readme"], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["cells.svg"]


def test_the_same_picture_makes_the_same_file(tmp_path):
    files = [save_figure(correlation_figure([0.1, 0.2], [0.3, 0.4], 1.0), tmp_path / f"{i}.svg") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
