"""NAS-Bench-201's cells: decisions, isomorphism, encodings."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from bitwright import Architecture
from bitwright.errors import InvalidArchitecture
from bitwright.spaces.nasbench201 import Nasbench201, unary

SPACE = Nasbench201()
EVERY = [Architecture("nasbench201", choices) for choices in product(range(5), repeat=6)]


def test_a_cell_is_the_operations_of_six_edges() -> None:
    assert [d.name for d in SPACE.decisions] == [f"edge/{e}" for e in ("1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2")]
    assert SPACE.decisions[0].options == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert SPACE.benchmark_name(SPACE.parse("4 2 1 2 1 1")) == "421211"
    with pytest.raises(InvalidArchitecture, match="takes 0 to 4"):
        SPACE.parse("4 2 1 2 1 5")


def test_of_15625_cells_6466_are_different() -> None:
    forms = {SPACE.canonical(each) for each in EVERY}
    assert (len(EVERY), len(forms)) == (15_625, 6_466)  # as published
    assert all(SPACE.canonical(form) == form for form in forms)


def test_the_string_of_a_cell_is_the_published_one() -> None:
    assert unary((3, 0, 0, 1, 0, 0)) == "#+#+0"  # a skip of the input alone
    assert unary((3, 1, 2, 0, 1, 2)) == "#+(((0)@nor_conv_3x3)@nor_conv_1x1+0)@nor_conv_1x1+(0)@nor_conv_3x3"


def computed(choices: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """A cell whose operations are made-up functions of integers; the nodes are sums."""
    functions = (lambda x: 0 * x, lambda x: x, lambda x: 3 * x * x + x, lambda x: 5 * x**3 + 2 * x, lambda x: 7 * x)
    nodes = [values]
    edges = iter(choices)
    for target in range(1, 4):
        nodes.append(np.array(sum(functions[next(edges)](nodes[source]) for source in range(target))))
    return nodes[-1]


def test_cells_of_one_form_compute_the_same() -> None:
    values = np.array([0.37, -0.61, 0.83])
    for each in EVERY[::7]:
        form = SPACE.canonical(each)
        np.testing.assert_allclose(computed(each.choices, values), computed(form.choices, values), rtol=1e-9)


def test_cells_have_the_same_encoding_if_and_only_if_they_are_isomorphic() -> None:
    encoded = SPACE.encodings(EVERY)
    assert encoded.dtype == np.float32 and set(np.unique(encoded)) == {0.0, 1.0}
    of_form: dict[Architecture, bytes] = {}
    for each, row in zip(EVERY, encoded, strict=True):
        assert of_form.setdefault(SPACE.canonical(each), row.tobytes()) == row.tobytes()
    assert len(set(of_form.values())) == 6_466


def test_an_encoding_marks_edges_and_ways() -> None:
    cell = SPACE.canonical(SPACE.parse("3 3 3 3 3 3"))
    assert cell.choices == (3,) * 6
    # six edges; ways of two edges over node 1 and over node 2, one of three: none is cut
    assert SPACE.encodings([cell]).sum() == 6 + 3
    assert SPACE.encodings([cell]).shape == (1, 6 * 5 + 4**2 + 4**2 + 4**3)
