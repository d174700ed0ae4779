"""Recurrent cells as data, and the published dag.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import BitwrightError, DataError, InvalidArchitecture
from bitwright.recurrent.cell import ACTIVATIONS, CellNode, RecurrentCell, from_dag, read_dag, to_dag, write_dag

AVERAGE = [[12, "avg"]]
SHIPPED: dict[str, Any] = {  # the dag.json of the PyTorch ENAS program: the cell of figure 6 of the paper
    "-1": [[0, "tanh"]],
    "-2": [[0, "tanh"]],
    "0": [[1, "tanh"]],
    "1": [[2, "ReLU"], [3, "tanh"]],
    "2": [[4, "tanh"], [5, "tanh"], [6, "ReLU"]],
    "4": [[7, "ReLU"]],
    "7": [[8, "ReLU"]],
    "8": [[9, "ReLU"], [10, "ReLU"], [11, "ReLU"]],
    "3": AVERAGE,
    "5": AVERAGE,
    "6": AVERAGE,
    "9": AVERAGE,
    "10": AVERAGE,
    "11": AVERAGE,
    "12": [[13, "h[t]"]],
}


def chain(*pairs: tuple[int, str]) -> RecurrentCell:
    return RecurrentCell(tuple(CellNode(source, activation) for source, activation in pairs))


@st.composite
def cells(draw: st.DrawFn) -> RecurrentCell:
    count = draw(st.integers(1, 14))
    sources = [-1, *(draw(st.integers(0, number - 1)) for number in range(1, count))]
    return chain(*((source, draw(st.sampled_from(ACTIVATIONS))) for source in sources))


def test_the_shipped_dag_is_the_cell_of_the_papers_figure() -> None:
    cell = from_dag(SHIPPED)
    assert [node.source for node in cell.nodes] == [-1, 0, 1, 1, 2, 2, 2, 4, 7, 8, 8, 8]
    assert [n for n, node in enumerate(cell.nodes) if node.activation == "tanh"] == [0, 1, 3, 4, 5]
    assert {node.activation for node in cell.nodes} == {"tanh", "relu"}
    assert cell.leaves == (3, 5, 6, 9, 10, 11)
    assert cell.depths == (0, 1, 2, 2, 3, 3, 3, 4, 5, 6, 6, 6)
    assert cell.levels == ((0,), (1,), (2, 3), (4, 5, 6), (7,), (8,), (9, 10, 11))


def test_the_shipped_dag_is_written_as_it_is_read() -> None:
    assert json.dumps(to_dag(from_dag(SHIPPED))) == json.dumps(SHIPPED)  # with the order of its keys


@given(cells())
def test_every_cell_is_read_back_as_it_was_written(cell: RecurrentCell) -> None:
    assert from_dag(json.loads(json.dumps(to_dag(cell)))) == cell


@given(cells())
def test_levels_are_the_nodes_by_depth_and_leaves_those_without_readers(cell: RecurrentCell) -> None:
    read = {node.source for node in cell.nodes}
    assert set(cell.leaves) == set(range(len(cell.nodes))) - read
    assert sorted(number for level in cell.levels for number in level) == list(range(len(cell.nodes)))
    for depth, level in enumerate(cell.levels):
        for number in level:
            steps, node = 0, number
            while node:
                steps, node = steps + 1, cell.nodes[node].source
            assert steps == depth == cell.depths[number]


def test_a_cell_of_one_node_has_a_dag() -> None:
    assert to_dag(chain((-1, "sigmoid"))) == {
        "-1": [[0, "sigmoid"]],
        "-2": [[0, "sigmoid"]],
        "0": [[1, "avg"]],
        "1": [[2, "h[t]"]],
    }


@pytest.mark.parametrize(
    ("pairs", "part"),
    [
        ([], "at least one"),
        ([(0, "tanh")], "-1"),
        ([(-1, "tanh"), (1, "tanh")], "node 1"),
        ([(-1, "tanh"), (-1, "tanh")], "node 1"),
        ([(-1, "tanh"), (0, "ReLU")], "'ReLU'"),
        ([(-1, "swish")], "'swish'"),
    ],
)
def test_a_cell_checks_itself(pairs: list[tuple[int, str]], part: str) -> None:
    with pytest.raises(InvalidArchitecture) as raised:
        chain(*pairs)
    assert part in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "dag",
    [
        [],
        {},
        "0",
        SHIPPED | {"-1": [[0, "ReLU"]]},  # the inputs disagree
        SHIPPED | {"-1": [[1, "tanh"]]},
        SHIPPED | {"-2": []},
        SHIPPED | {"3": [[5, "tanh"], [12, "avg"]]},  # 5 has two sources
        SHIPPED | {"8": [[9, "ReLU"], [10, "ReLU"]]},  # 11 has none
        SHIPPED | {"8": [[9, "ReLU"], [10, "ReLU"], [11, "swish"]]},
        SHIPPED | {"8": [[9, "ReLU"], [10, "ReLU"], [11, "avg"]]},
        SHIPPED | {"11": [[14, "tanh"]]},
        SHIPPED | {"11": []},  # a leaf that is not averaged
        SHIPPED | {"8": [*SHIPPED["8"], [12, "avg"]]},  # an inner node that is
        SHIPPED | {"12": [[13, "y[t]"]]},
        SHIPPED | {"12": []},
        SHIPPED | {"15": [[16, "h[t]"]]},
        SHIPPED | {"0": [[1.0, "tanh"]]},
        SHIPPED | {"0": [["1", "tanh"]]},
        SHIPPED | {"0": [[1, 2]]},
        SHIPPED | {"0": [1, "tanh"]},
        SHIPPED | {"0": 5},
        SHIPPED | {"0": None},
        SHIPPED | {"zero": []},
        SHIPPED | {"-3": [[0, "tanh"]]},
        SHIPPED | {"999999999": [[1, "tanh"]]},
        SHIPPED | {str(10**30): [[1, "tanh"]]},
        SHIPPED | {" 3": [[12, "avg"]]},
        SHIPPED | {"8": [[9, "ReLU"], [10, "ReLU"], [-5, "ReLU"]]},
        {key: value for key, value in SHIPPED.items() if key != "12"},
        {key: value for key, value in SHIPPED.items() if key != "-2"},
        {"-1": [[0, "tanh"]], "-2": [[0, "tanh"]], "0": [[0, "avg"]]},
    ],
)
def test_what_describes_no_cell_is_an_error_of_one_line(dag: Any) -> None:
    with pytest.raises(InvalidArchitecture) as raised:
        from_dag(dag)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


def test_a_cell_goes_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "shipped.json").write_text(json.dumps(SHIPPED), encoding="utf-8")
    cell = read_dag(tmp_path / "shipped.json")
    write_dag(cell, tmp_path / "runs" / "dag.json")
    assert json.loads((tmp_path / "runs" / "dag.json").read_text(encoding="utf-8")) == SHIPPED


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, DataError),
        (b"{", DataError),
        (b"\xff", DataError),
        (b"[" * 100_000, DataError),
        (b"{}", InvalidArchitecture),
    ],
)
def test_a_file_without_a_cell_is_named(content: bytes | None, kind: type[BitwrightError], tmp_path: Path) -> None:
    path = tmp_path / "dag.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind) as raised:
        read_dag(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
