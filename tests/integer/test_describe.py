"""Integer graphs as text and as a drawing, and the bits of their constants counted by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bitwright.integer.describe import as_dot, as_text, constant_bits, operation, rows
from bitwright.integer.graph import (
    Add,
    Argmax,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Input,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Pad,
    Requantize,
    SumPool,
)
from naive_executor import chain, whole


def small() -> IntegerGraph:
    weight = whole([1, -1], [-1, 1]).reshape(2, 2, 1, 1)
    return IntegerGraph(
        (
            Node(Input((2, 4, 6), 0, 255, 128), (), "pixels"),
            Node(Conv(weight, None, (2, 2)), (0,), 'a "quoted" \\ name'),
            Node(MultiThreshold(whole([-5, 5]), (-1, 0, 1)), (1,), "norm"),
            Node(Add(-1, 1), (2, 2)),
            Node(Concat(), (3, 2)),
            Node(GlobalSumPool(), (4,), "pool"),
        )
    )


def test_the_text_has_a_heading_and_one_line_per_node():
    lines = as_text(small()).splitlines()
    assert len(lines) == 1 + 6
    for position, line in enumerate(lines[1:]):
        assert line.split()[0] == str(position)
        assert line == line.rstrip()
    assert lines[1].split() == ["0", "Input", "0..255", "less", "128", "2x4x6", "-128", "127", "8", "pixels"]
    assert lines[3].split() == ["2", "MultiThreshold,", "2", "each", "2x2x3", "-1", "1", "2", "1", "norm"]
    assert lines[5].split() == ["4", "Concat", "4x2x3", "-1", "1", "2", "3", "2"]
    assert lines[6].split() == ["5", "GlobalSumPool", "4", "-6", "6", "4", "4", "pool"]


def test_names_of_several_lines_stay_on_one_line():
    graph = IntegerGraph((Node(Input((1,)), (), "one\ntwo"), Node(Argmax(), (0,), "three\r\nfour")))
    assert len(as_text(graph).splitlines()) == 3


def test_every_string_of_the_drawing_is_closed_and_every_arrow_joins_declared_nodes():
    dot = as_dot(small())
    lines = dot.splitlines()
    assert lines[0] == "digraph integer_graph {"
    assert lines[-1] == "}"
    for line in lines[1:-1]:
        without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert '"' not in without_strings, line
        assert line.endswith(";")
        assert line.count("[") == line.count("]")
    declared = set(re.findall(r"^  (n\d+) \[", dot, re.MULTILINE))
    arrows = re.findall(r"^  (n\d+) -> (n\d+) \[label=\"([^\"]*)\"\]", dot, re.MULTILINE)
    assert declared == {f"n{i}" for i in range(6)}
    assert [(a, b) for a, b, _ in arrows] == [
        ("n0", "n1"),
        ("n1", "n2"),
        ("n2", "n3"),
        ("n2", "n3"),
        ("n3", "n4"),
        ("n2", "n4"),
        ("n4", "n5"),
    ]
    assert arrows[0][2] == "2x4x6 int8"


def test_an_unsigned_edge_is_drawn_as_unsigned():
    assert "1 uint4" in as_dot(chain(Input((1,), 0, 15), Argmax()))


@pytest.mark.parametrize(
    ("first", "op", "bits"),
    [
        (Input((2,)), MatMul(whole([1, -1], [-1, -1])), 4),  # two levels take one bit
        (Input((2,)), MatMul(whole([1, 0], [-1, -1])), 4 * 2),
        (Input((2,)), MatMul(whole([1, 1], [1, 1])), 4 * 1),
        (Input((2,)), MatMul(whole([0, 0], [0, 0])), 4 * 1),
        (Input((2,)), MatMul(whole([-8, 7], [0, 1])), 4 * 4),
        (Input((2,)), MatMul(whole([-8, 8], [0, 1])), 4 * 5),
        (Input((2,)), MatMul(whole([15, 0], [0, 1])), 4 * 4),
        (Input((2,)), MatMul(whole([-8, 7]), whole(-129)), 2 * 4 + 9),
        (Input((1, 3, 3)), Conv(np.full((2, 1, 3, 3), -1)), 18 * 1),
        (Input((1, 3, 3)), Conv(np.full((2, 1, 3, 3), 127), whole(255, 0)), 18 * 7 + 2 * 8),
        (Input((3,), 0, 15), MultiThreshold(whole([1, 2], [3, 4], [5, 6]), (0, 1, 2)), 6 * 4),
        (Input((3,), 0, 15), MultiThreshold(whole([1, 2]), (0, 1, 2)), 2 * 4),
        (Input((3,), -16, 15), MultiThreshold(whole([1, 2]), (0, 1, 2), whole(1, 1, -1)), 2 * 5 + 3),
        (Input((3,)), Requantize(whole(5, 1, 1), whole(-4), whole(8, 0, 0), 0, 1), 3 * 3 + 3 + 3 * 4),
        (Input((3,)), Argmax(), 0),
        (Input((2, 3, 3)), MaxPool((2, 2)), 0),
    ],
)
def test_bits_of_constants_counted_by_hand(first, op, bits):
    assert constant_bits(chain(first, op), 1) == bits
    assert rows(chain(first, op))[1].constants == bits


def test_operations_in_a_few_words():
    ones = np.ones((4, 1, 3, 5), dtype=np.int64)
    assert operation(Conv(ones, None, (2, 2))) == "Conv 3x5 /2, 1-bit weights"
    assert operation(Conv(ones * 3, None, (1, 2), groups=4)) == "DepthwiseConv 3x5 /1x2, 2-bit weights"
    assert operation(SumPool((2, 2), (1, 1), shift=3)) == "SumPool 2x2 >> 3"
    assert operation(MaxPool((2, 3), (3, 3))) == "MaxPool 2x3 /3"
    assert operation(Add(0, 7)) == "Add, clip to 0..7"
    assert operation(Add()) == "Add"
    assert operation(Pad((1, 2, 3, 4))) == "Pad (1, 2, 3, 4)"
    assert operation(Flatten()) == "Flatten"
    assert operation(Input((1,), 0, 9)) == "Input 0..9"
