"""The space of recurrent cells: its published strings, and one form for all numberings of a cell."""

from __future__ import annotations

import inspect
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright import Architecture, Measurement, Trial, catalogue
from bitwright.errors import ConfigError, InvalidArchitecture
from bitwright.recurrent.cell import CellNode, RecurrentCell
from bitwright.spaces import SearchSpace
from bitwright.spaces.enas_rnn import EnasRnn

PAPER = "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"  # of the published script for Penn Treebank
FIGURE = "0 0 0 1 1 1 0 2 0 2 0 2 1 4 1 7 1 8 1 8 1 8 1"  # the dag.json that the PyTorch program ships
AUTHORS = "0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2"  # of the authors' corrected program

Table = tuple[tuple[int, str], ...]


def table(cell: RecurrentCell) -> Table:
    return tuple((node.source, node.activation) for node in cell.nodes)


def numberings(nodes: Table, *, keep_last: bool) -> set[Table]:
    """The same tree under every valid numbering of its nodes, by trying all."""
    found = set()
    for order in permutations(range(1, len(nodes))):
        order = (0, *order)
        if keep_last and order[-1] != len(nodes) - 1:
            continue
        new = {old: number for number, old in enumerate(order)} | {-1: -1}
        renumbered = tuple((new[nodes[old][0]], nodes[old][1]) for old in order)
        if all(source < number for number, (source, _) in enumerate(renumbered)):
            found.add(renumbered)
    return found


def architectures(space: EnasRnn) -> list[Architecture]:
    return [space.architecture(choices) for choices in product(*(range(len(d.options)) for d in space.decisions))]


def test_the_decisions_are_those_of_the_published_controller() -> None:
    decisions = EnasRnn().decisions
    assert len(decisions) == 23
    assert [d.name for d in decisions[:5]] == ["act_0", "prev_1", "act_1", "prev_2", "act_2"]
    assert decisions[-2].options == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
    assert decisions[0].options == ("tanh", "relu", "identity", "sigmoid")


def test_the_authors_variant_decides_on_as_many_nodes_after_a_fixed_one() -> None:
    space = EnasRnn(9, variant="authors")
    assert len(space.decisions) == 18
    assert [d.name for d in space.decisions[:4]] == ["prev_1", "act_1", "prev_2", "act_2"]
    assert space.decisions[0].options == ("0",) and len(space.decisions[-2].options) == 9
    assert space.decisions[1].options == ("tanh", "relu", "sigmoid", "identity")


def test_the_published_cell_is_read_as_its_description_says() -> None:
    space = EnasRnn()
    cell = space.cell(space.parse(PAPER))
    assert [node.source for node in cell.nodes] == [-1, 0, 1, 2, 2, 2, 5, 1, 6, 8, 8, 8]
    assert [n for n, node in enumerate(cell.nodes) if node.activation == "tanh"] == [0, 1, 4, 5, 7]
    assert space.averaged(cell) == cell.leaves == (3, 4, 7, 9, 10, 11)


def test_the_authors_cell_is_read_as_its_description_says() -> None:
    space = EnasRnn(8, variant="authors")
    cell = space.cell(space.parse(AUTHORS))
    expected = [(-1, "tanh"), (0, "sigmoid"), (1, "tanh"), (2, "relu"), (2, "sigmoid"), (4, "tanh"), (5, "tanh")]
    assert table(cell) == (*expected, (3, "sigmoid"), (6, "sigmoid"))
    assert space.averaged(cell) == (1, 2, 3, 4, 5, 6, 7, 8)


def test_the_published_cell_and_the_shipped_dag_are_one_up_to_numbering() -> None:
    space = EnasRnn()
    first, second = space.parse(PAPER), space.parse(FIGURE)
    assert first != second
    assert space.canonical(first) == space.canonical(second)


@pytest.mark.parametrize("variant", ["original", "authors"])
def test_canonical_forms_are_the_classes_of_equal_trees(variant: str) -> None:
    space = EnasRnn(5 if variant == "original" else 4, ("tanh", "relu"), variant)  # type: ignore[arg-type]
    forms: dict[frozenset[Table], set[Architecture]] = {}
    for architecture in architectures(space):
        same = frozenset(numberings(table(space.cell(architecture)), keep_last=variant == "original"))
        canonical = space.canonical(architecture)
        assert table(space.cell(canonical)) in same
        forms.setdefault(same, set()).add(canonical)
    assert all(len(representatives) == 1 for representatives in forms.values())
    assert len(set.union(*forms.values())) == len(forms)


@given(st.integers(1, 12), st.sampled_from(["original", "authors"]), st.integers(0, 2**32))
def test_a_cell_gives_back_its_architecture(nodes: int, variant: str, seed: int) -> None:
    space = EnasRnn(nodes, variant=variant)  # type: ignore[arg-type]
    architecture = space.sample(np.random.default_rng(seed))
    assert space.architecture_of(space.cell(architecture)) == architecture
    canonical = space.canonical(architecture)
    assert space.canonical(canonical) == canonical


def test_the_last_node_of_the_original_variant_stays_the_last() -> None:
    space = EnasRnn(3)
    relu_last, tanh_last = space.parse("0 0 0 0 1"), space.parse("0 0 1 0 0")  # one tree, another next state
    assert space.canonical(relu_last) != space.canonical(tanh_last)
    authors = EnasRnn(2, variant="authors")
    assert authors.canonical(authors.parse("0 0 0 1")) == authors.canonical(authors.parse("0 1 0 0"))


def test_a_long_chain_has_a_canonical_form() -> None:
    space = EnasRnn(1500)
    chain = space.architecture([0, *(number for node in range(1, 1500) for number in (node - 1, 1))])
    assert space.canonical(chain) == chain


@pytest.mark.parametrize(
    ("nodes", "part"),
    [
        (((-1, "tanh"),), "3 nodes"),
        (((-1, "tanh"), (0, "sigmoid"), (0, "tanh")), "sigmoid"),
        (((-1, "relu"), (0, "relu"), (0, "tanh")), "node 0"),
    ],
)
def test_a_cell_of_another_space_has_no_architecture(nodes: Table, part: str) -> None:
    space = EnasRnn(2, ("tanh", "relu"), "authors")
    with pytest.raises(InvalidArchitecture, match=part):
        space.architecture_of(RecurrentCell(tuple(CellNode(*node) for node in nodes)))


def test_an_architecture_that_is_out_of_place_names_the_decision() -> None:
    with pytest.raises(InvalidArchitecture, match="prev_2"):
        EnasRnn(3).parse("0 0 0 2 0")
    with pytest.raises(InvalidArchitecture, match="23 integers"):
        EnasRnn().parse("0 0 0")


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 0},
        {"variant": "mine"},
        {"activations": ()},
        {"activations": ("ReLU",)},
        {"activations": ("tanh",) * 2},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="enas_rnn"):
        EnasRnn(**options)  # type: ignore[arg-type]


def test_a_collapsed_cell_is_named() -> None:
    space = EnasRnn(3)
    assert space.warnings(space.parse("0 0 1 0 0")) == []
    assert len(space.warnings(space.parse("0 0 1 1 0"))) == 1 and "chain" in space.warnings(space.parse("0 0 1 1 0"))[0]
    assert "tanh" in space.warnings(space.parse("0 0 0 0 0"))[0]
    assert len(space.warnings(space.parse("2 0 2 1 2"))) == 2
    assert EnasRnn(1).warnings(EnasRnn(1).parse("0")) == []


@pytest.mark.parametrize("name", catalogue.names("strategies"))
@pytest.mark.parametrize("variant", ["original", "authors"])
def test_every_strategy_searches_it(name: str, variant: str) -> None:
    space = EnasRnn(4, variant=variant)  # type: ignore[arg-type]
    assert not isinstance(space, SearchSpace)
    factory = catalogue.find("strategies", name)
    known = {"seed": 0, "cost": "seconds"}
    strategy = factory(space, **{key: known[key] for key in known.keys() & inspect.signature(factory).parameters})
    for _ in range(2):
        asked = strategy.ask(3, np.random.default_rng(0))
        assert all(space.architecture(a.choices) == a for a in asked)
        strategy.tell([Trial(i, a, Measurement(0.1, 1.0)) for i, a in enumerate(asked)])
