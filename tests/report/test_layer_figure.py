"""Pictures of macro architectures: a box for every output, and an edge for everything that a layer reads."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Annotation

from bitwright import Architecture
from bitwright.report.layer_figure import draw_layers, layer_dot, layer_figure
from bitwright.spaces.enas_macro import EnasMacro

CASES = {
    f"{layers} layers": (space, space.sample(np.random.default_rng(layers)))
    for layers in (1, 3, 12, 24)
    for space in [EnasMacro(layers=layers, ops="mixed" if layers % 2 else "enas")]
}
each_case = pytest.mark.parametrize(("space", "architecture"), CASES.values(), ids=CASES.keys())


def rows(space: EnasMacro, architecture: Architecture) -> list[list[int]]:
    choices = list(architecture.choices)
    return [[choices.pop(0) for _ in range(layer + 1)] for layer in range(space.layers)]


@each_case
def test_every_output_has_a_box_and_every_reading_an_arrow(space: EnasMacro, architecture: Architecture) -> None:
    (axes,) = layer_figure(space, architecture).axes
    assert len([p for p in axes.patches if isinstance(p, FancyBboxPatch)]) == space.layers + 1
    assert len([t for t in axes.texts if isinstance(t, Annotation)]) == space.layers
    bits = sum(sum(row[1:]) for row in rows(space, architecture))
    assert len([p for p in axes.patches if isinstance(p, FancyArrowPatch)]) == bits
    texts = [t.get_text() for t in axes.texts if not isinstance(t, Annotation)]
    names = [space.operations[row[0]].name for row in rows(space, architecture)]
    assert [t.split(",")[0] for t in texts] == ["stem", *(f"{n} {name}" for n, name in enumerate(names))]
    halved = [n for n, text in enumerate(texts[1:]) if "halved" in text]
    assert halved == list(space.reduction_layers)


@each_case
def test_all_lies_in_the_picture_and_boxes_not_on_each_other(space: EnasMacro, architecture: Architecture) -> None:
    (axes,) = layer_figure(space, architecture).axes
    inside = axes.get_window_extent()
    for patch in axes.patches:
        extent = patch.get_window_extent()
        assert inside.x0 <= extent.x0 and extent.x1 <= inside.x1 and inside.y0 <= extent.y0 and extent.y1 <= inside.y1
    boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert all(a.y1 < b.y0 or b.y1 < a.y0 for a, b in combinations(boxes, 2))


@each_case
def test_the_dot_text_names_every_edge(space: EnasMacro, architecture: Architecture) -> None:
    text = layer_dot(space, architecture)
    plain = re.findall(r"output(\d+) -> output(\d+);", text)
    dashed = re.findall(r"output(\d+) -> output(\d+) \[style=dashed\];", text)
    assert [(int(a), int(b)) for a, b in plain] == [(n, n + 1) for n in range(space.layers)]
    expected = [(i, n + 1) for n, row in enumerate(rows(space, architecture)) for i, bit in enumerate(row[1:]) if bit]
    assert [(int(a), int(b)) for a, b in dashed] == expected


def test_layers_are_drawn_as_svg_png_and_dot(tmp_path: Path) -> None:
    paths = draw_layers(*CASES["3 layers"], tmp_path / "report")
    assert [p.name for p in paths] == ["layers.svg", "layers.png", "layers.dot"]
    assert ElementTree.parse(paths[0]).getroot().tag.endswith("svg")
    assert paths[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert paths[2].read_text(encoding="utf-8") == layer_dot(*CASES["3 layers"])
