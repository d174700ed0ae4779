"""The ENAS cell space: encoding, errors, the networks it describes, and which architectures are the same."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright import Architecture
from bitwright.errors import ConfigError, InvalidArchitecture
from bitwright.modules import Weights, forward, tensor_names
from bitwright.network import BatchNorm, Conv2d, DepthwiseConv2d, DropPath, GlobalSumPool, Linear, Network
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.ternary import Ternary
from bitwright.spaces.enas_micro import Edge, EnasMicro

SEP3, SEP5, AVERAGE, MAX, IDENTITY = range(5)  # of the op set "enas"
README_ARCS = (
    "0 2 1 4 1 3 0 1 1 0 1 0 1 2 0 4 0 0 0 1 1 3 1 4 0 1 1 1 1 2 1 4 3 2 0 2 1 1 0 3",
    "0 0 0 1 1 0 1 3 1 1 0 3 1 1 1 0 0 4 0 0 1 0 1 4 1 1 1 0 1 2 0 4 0 1 4 0 0 0 0 2",
)


def architectures(space: EnasMicro) -> st.SearchStrategy[Architecture]:
    each = [st.integers(0, len(d.options) - 1) for d in space.decisions]
    return st.tuples(*each).map(lambda choices: Architecture(space.name, choices))


def convolutions(network: Network, prefix: str) -> list[Conv2d | DepthwiseConv2d]:
    return [n.op for n in network.nodes if isinstance(n.op, (Conv2d, DepthwiseConv2d)) and n.key.startswith(prefix)]


def every_node(*quad: int, nodes: int = 5) -> str:
    """An architecture text that repeats one node in both cells."""
    return " ".join(map(str, quad * nodes * 2))


# encoding


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_a_node_takes_four_integers_index_op_index_op(nodes: int) -> None:
    names = [d.name for d in EnasMicro(nodes=nodes, ops="enas").decisions]
    assert names == [
        f"{cell}/{node}/{part}{side}"
        for cell in ("normal", "reduction")
        for node in range(2, nodes + 2)
        for side in (1, 2)
        for part in ("index", "op")
    ]
    assert len(names) == 8 * nodes


def test_an_index_names_any_earlier_node_and_an_op_any_operation() -> None:
    space = EnasMicro(nodes=3, ops="enas")
    sizes = [len(d.options) for d in space.decisions]
    assert sizes == [2, 5, 2, 5, 3, 5, 3, 5, 4, 5, 4, 5] * 2
    assert np.prod(sizes[:12], dtype=np.int64) == 9_000_000  # the published count of cells with 3 nodes


def test_a_cell_is_decoded_node_by_node_normal_first() -> None:
    space = EnasMicro(nodes=2, ops="enas")
    architecture = space.architecture([1, 2, 0, 3, 2, 4, 1, 0, 0, 1, 1, 1, 0, 0, 2, 2])
    assert space.cell(architecture, "normal") == ((Edge(1, 2), Edge(0, 3)), (Edge(2, 4), Edge(1, 0)))
    assert space.cell(architecture, "reduction") == ((Edge(0, 1), Edge(1, 1)), (Edge(0, 0), Edge(2, 2)))


def test_the_operations_of_enas_are_numbered_as_published() -> None:
    operations = EnasMicro(ops="enas").operations
    assert [o.name for o in operations] == ["sep3x3", "sep5x5", "avg3x3", "max3x3", "identity"]
    assert [(o.kind, o.kernel) for o in operations[:2]] == [("separable", 3), ("separable", 5)]


def test_the_mixed_operations_are_both_kernels_at_each_precision_then_the_rest() -> None:
    space = EnasMicro(ops="mixed", precisions=("binary", "4"))
    assert [o.name for o in space.operations] == [
        "sep3x3/binary",
        "sep3x3/4",
        "sep5x5/binary",
        "sep5x5/4",
        "avg3x3",
        "max3x3",
        "identity",
    ]
    assert len(EnasMicro(ops="mixed").operations) == 2 * 5 + 3


@pytest.mark.parametrize("text", README_ARCS)
def test_the_architectures_of_the_original_documentation_build(text: str) -> None:
    space = EnasMicro(image=(1, 32, 32), filters=4, ops="enas")
    architecture = space.parse(text)
    assert " ".join(map(str, architecture.choices)) == text
    assert space.network(architecture).shapes[-1] == (10,)


SMALL = EnasMicro(nodes=2, ops="enas")


@given(architectures(SMALL))
def test_parse_reads_every_way_to_write_an_architecture(architecture: Architecture) -> None:
    words = [str(c) for c in architecture.choices]
    half = len(words) // 2
    for text in (
        str(architecture),
        " ".join(words),
        ", ".join(words),
        f"[{' '.join(words[:half])}]\n[{' '.join(words[half:])}]",
        f"  {str(architecture).replace('(', ' ( ')} ",
    ):
        assert SMALL.parse(text) == architecture


@pytest.mark.parametrize("count", [0, 4, 20, 24, 39, 41])
def test_a_wrong_length_is_refused_with_the_right_one(count: int) -> None:
    with pytest.raises(InvalidArchitecture, match=f"40 integers, 20 of the normal and 20 of the.*got {count}"):
        EnasMicro(ops="enas").parse(" ".join(["0"] * count))


@pytest.mark.parametrize(
    ("position", "value", "name", "highest"),
    [
        (0, 2, "normal/2/index1", 1),
        (1, 5, "normal/2/op1", 4),
        (3, -1, "normal/2/op2", 4),
        (18, 6, "normal/6/index2", 5),
        (22, 2, "reduction/2/index2", 1),
        (39, 7, "reduction/6/op2", 4),
    ],
)
def test_a_choice_out_of_place_is_named_with_its_position(position: int, value: int, name: str, highest: int) -> None:
    words = ["0"] * 40
    words[position] = str(value)
    with pytest.raises(InvalidArchitecture) as raised:
        EnasMicro(ops="enas").parse(" ".join(words))
    assert f"position {position} ({name}) takes 0 to {highest}" in str(raised.value)
    assert f"got {value}" in str(raised.value)


@pytest.mark.parametrize("text", ["zero", "0 1 2.5", "0-1", "1e3", "enas_micro 0 1", "0 1 --2"])
def test_what_is_not_integers_is_refused(text: str) -> None:
    with pytest.raises(InvalidArchitecture, match="integers divided by blanks"):
        EnasMicro(ops="enas").parse(text)


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="of nasbench101, not of enas_micro"):
        EnasMicro().parse("nasbench101(0 1 2)")


def test_a_network_is_only_built_of_valid_choices() -> None:
    space = EnasMicro(nodes=1, ops="enas")
    for build in (space.network, space.shared_network):
        with pytest.raises(InvalidArchitecture, match="position 2"):
            build(Architecture("enas_micro", (0, 0, 2, 0, 0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"nodes": 0}, "nodes"),
        ({"cells": 0}, "cells"),
        ({"filters": 0}, "filters"),
        ({"stacks": 0}, "stacks"),
        ({"classes": 1}, "classes"),
        ({"ops": "darts"}, "ops"),
        ({"wiring": "float"}, "wiring"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"precisions": ("binary", "9")}, "9"),
        ({"precisions": ()}, "precisions"),
        ({"precisions": ("2", "2")}, "precisions"),
        ({"stem_precision": "half"}, "half"),
        ({"first_cell_precision": ""}, "float, binary"),
        ({"cell_precision": "1"}, "float, binary"),
        ({"activation_precision": "16"}, "16"),
        ({"cells": 4, "reductions": (4,)}, "0 to 3"),
        ({"reductions": (-1,)}, "reductions"),
        ({"reductions": (1, 1)}, "reductions"),
        ({"image": (1, 8, 8), "reductions": (0, 1, 2, 3)}, "8x8"),
        ({"image": (3, 32, 3), "reductions": (0, 1)}, "32x3"),
    ],
)
def test_an_impossible_option_is_an_error_that_names_it(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=f"enas_micro: .*{word}"):
        EnasMicro(**options)


@pytest.mark.parametrize(("cells", "expected"), [(1, ()), (2, ()), (5, (1, 3)), (8, (2, 5)), (17, (5, 11))])
def test_reductions_come_at_thirds_as_published(cells: int, expected: tuple[int, ...]) -> None:
    assert EnasMicro(cells=cells).reduction_cells == expected


# networks


SPACES = [
    EnasMicro(image=image, cells=cells, reductions=reductions, nodes=nodes, filters=4, ops=ops, wiring=wiring)
    for image, cells, reductions, nodes in (
        ((1, 8, 8), 4, (1, 3), 3),
        ((3, 8, 8), 4, (0, 1, 2), 3),
        ((1, 28, 28), 8, None, 5),
        ((3, 28, 28), 5, (4,), 2),
        ((1, 32, 32), 3, (), 5),
        ((3, 32, 32), 8, (1, 3, 6), 5),
        ((2, 13, 9), 3, (0, 2), 2),
    )
    for ops in ("enas", "mixed")
    for wiring in ("classic", "integer")
]


@settings(max_examples=120)
@given(st.data())
def test_every_architecture_describes_a_network_that_fits_together(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from(SPACES))
    architecture = data.draw(architectures(space))
    halvings = len(space.reduction_cells)
    size = tuple(-(-pixels // 2**halvings) for pixels in space.image[1:])
    for network in (space.network(architecture), space.shared_network(architecture)):
        assert network.shapes[-1] == (10,)
        pooled = {network.shapes[n.inputs[0]][1:] for n in network.nodes if isinstance(n.op, GlobalSumPool)}
        assert pooled == {size}
        assert all(network.last_use[i] > i for i in range(len(network.nodes) - 1))  # nothing is computed in vain


@settings(max_examples=60)
@given(st.data())
def test_the_output_of_a_cell_is_the_concatenation_of_its_unused_nodes(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from(SPACES))
    architecture = data.draw(architectures(space))
    kind = "reduction" if space.cells - 1 in space.reduction_cells else "normal"
    own = architecture.choices[: 4 * space.nodes] if kind == "normal" else architecture.choices[4 * space.nodes :]
    unused = tuple(sorted(set(range(space.nodes + 2)) - set(own[0::2])))
    assert space.unused(architecture, kind) == unused
    assert unused[-1] == space.nodes + 1  # nobody can read the last node
    network = space.network(architecture)
    classifier = network.nodes[-1].op
    assert isinstance(classifier, Linear)
    inputs = sum(w.shape[1] for w in network.weights(len(network.nodes) - 1))
    assert inputs == len(unused) * 4 * 2 ** len(space.reduction_cells)
    if space.wiring == "integer":
        assert classifier.blocks == tuple(f"from{i}" for i in unused)


@pytest.mark.parametrize("wiring", ["classic", "integer"])
def test_the_inputs_of_a_cell_are_the_cell_before_the_previous_and_the_previous(wiring: Any) -> None:
    space = EnasMicro(image=(1, 8, 8), cells=3, reductions=(), filters=4, nodes=1, ops="enas", wiring=wiring)
    network = space.network(space.parse("0 4 1 4 0 4 1 4"))
    by_key = {node.key: node for node in network.nodes}

    def origins(position: int) -> set[str]:
        """The keys of the nearest keyed normalisations behind a node."""
        node = network.nodes[position]
        if isinstance(node.op, BatchNorm):
            return {node.key}
        return set().union(*(origins(i) for i in node.inputs))

    def read_by(key: str) -> set[str]:
        return set().union(*(origins(i) for i in by_key[key].inputs))

    if wiring == "integer":
        assert read_by("cell0/in0") == read_by("cell0/in1") == read_by("cell1/in0") == {"stem/norm"}
        assert read_by("cell1/in1") == read_by("cell2/in0") == {"cell0/in0/norm", "cell0/in1/norm"}
        assert read_by("cell2/in1") == {"cell1/in0/norm", "cell1/in1/norm"}
    else:
        assert read_by("cell0/in0") == read_by("cell0/in1") == read_by("cell1/in0") == {"stem/norm"}
        assert read_by("cell1/base") == {"cell0/in0/norm", "cell0/base/norm"}
        assert read_by("cell2/base") == {"cell1/in0/norm", "cell1/base/norm"}


def test_channels_double_at_every_reduction() -> None:
    space = EnasMicro(image=(1, 32, 32), cells=6, reductions=(1, 3, 4), filters=3, ops="enas")
    network = space.network(space.parse(every_node(0, SEP3, 1, SEP5)))
    widths = [
        {network.shapes[p][0] for p, n in enumerate(network.nodes) if n.key.startswith(f"cell{cell}/")}
        for cell in range(6)
    ]
    assert widths == [{3}, {6}, {6}, {12}, {24}, {24}]


@pytest.mark.parametrize("wiring", ["classic", "integer"])
def test_precision_follows_the_position_in_the_set_enas(wiring: Any) -> None:
    space = EnasMicro(image=(1, 16, 16), ops="enas", wiring=wiring)
    network = space.network(space.parse(every_node(0, SEP3, 1, SEP5)))
    assert {op.weight for op in convolutions(network, "stem")} == {FixedPoint(4)}
    assert {op.weight for op in convolutions(network, "cell0/")} == {FixedPoint(4)}
    for cell in range(1, 8):
        assert {op.weight for op in convolutions(network, f"cell{cell}/")} == {Ternary()}


@pytest.mark.parametrize("wiring", ["classic", "integer"])
def test_precision_is_chosen_per_edge_in_the_mixed_set(wiring: Any) -> None:
    space = EnasMicro(
        image=(1, 8, 8),
        cells=2,
        nodes=2,
        wiring=wiring,
        precisions=("binary", "2", "float"),
        stem_precision="8",
        first_cell_precision="4",
        cell_precision="ternary",
    )
    # node 2: sep3x3/binary on 0, sep5x5/2 on 1; node 3: sep3x3/float on 2, identity on 0
    cell = "0 0 1 4 2 2 0 8"
    network = space.network(space.parse(f"{cell} {cell}"))
    depthwise = [
        (op.kernel, op.weight) for op in convolutions(network, "cell1/node") if isinstance(op, DepthwiseConv2d)
    ]
    expected = [(3, Binary()), (5, FixedPoint(2)), (3, Real())]
    assert depthwise == [each for each in expected for _ in range(2)]  # applied twice in a row
    assert {op.weight for op in convolutions(network, "stem")} == {FixedPoint(8)}
    assert {op.weight for op in convolutions(network, "cell0/in") + convolutions(network, "cell0/base")} == {
        FixedPoint(4)
    }
    assert {op.weight for op in convolutions(network, "cell1/in") + convolutions(network, "cell1/base")} == {Ternary()}


def test_the_integer_wiring_holds_integers_from_the_image_to_the_logits() -> None:
    space = EnasMicro(image=(1, 8, 8), pixel_mean=(77.7,), cells=4, ops="enas")
    for text in (every_node(0, SEP3, 1, SEP5), every_node(1, AVERAGE, 0, MAX), every_node(1, IDENTITY, 0, SEP3)):
        network = space.network(space.parse(text))
        assert all(r is not None for r in network.ranges)
        assert network.ranges[0][:2] == (-78, 177)  # type: ignore[index]


def test_the_network_without_auxiliary_head_is_the_trunk_of_the_one_with_it() -> None:
    for wiring in ("classic", "integer"):
        options: dict[str, Any] = {"image": (1, 28, 28), "filters": 4, "ops": "enas", "wiring": wiring}
        plain, with_head = EnasMicro(**options), EnasMicro(auxiliary=True, **options)
        architecture = plain.parse(README_ARCS[0])
        network = with_head.network(architecture)
        assert plain.network(architecture).auxiliary is None
        assert network.auxiliary is not None
        assert network.shapes[network.auxiliary] == (10,)
        assert [(n.op, n.inputs) for n in network.trunk.nodes] == [
            (n.op, n.inputs) for n in plain.network(architecture).nodes
        ]
        assert tensor_names(network.trunk) == tensor_names(plain.network(architecture))


def test_deeper_cells_drop_paths_more_often_and_identities_are_never_dropped() -> None:
    space = EnasMicro(image=(1, 8, 8), cells=4, reductions=(), nodes=1, ops="enas")
    network = space.network(space.parse("0 2 1 4 0 2 1 4"))
    assert [n.op.rate for n in network.nodes if isinstance(n.op, DropPath)] == [0.25, 0.5, 0.75, 1.0]


@settings(max_examples=10)
@given(st.data())
def test_any_architecture_classifies_a_batch_of_images(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from(SPACES[:8]))
    network = space.network(data.draw(architectures(space)))
    images = torch.randint(0, 256, (3, *space.image), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits, auxiliary = forward(network, Weights([network]), images)
    assert logits.shape == (3, 10)
    assert auxiliary is None
    assert bool(logits.isfinite().all())


# which architectures are the same


Cell = tuple[tuple[Edge, Edge], ...]


def graph(cell: Cell) -> tuple[Any, ...]:
    """A form that two cells share exactly if some renaming of computed nodes turns one's edges into the other's."""
    count = len(cell)
    forms = []
    for names in permutations(range(2, count + 2)):
        named = {0: 0, 1: 1} | dict(zip(range(2, count + 2), names, strict=True))
        forms.append(sorted((named[node], named[e.source], e.op) for node, edges in enumerate(cell, 2) for e in edges))
    return tuple(min(forms))


@pytest.mark.parametrize(("nodes", "ops"), [(2, range(5)), (3, (SEP5, IDENTITY))])
def test_the_canonical_form_is_the_smallest_encoding_of_the_same_graph(nodes: int, ops: tuple[int, ...]) -> None:
    """Over all cells with these operations; so forms are equal exactly where the graphs are."""
    space = EnasMicro(nodes=nodes, ops="enas")
    quads = [product(range(node), ops, range(node), ops) for node in range(2, nodes + 2)]
    forms: dict[tuple[Any, ...], set[tuple[int, ...]]] = defaultdict(set)
    smallest: dict[tuple[Any, ...], tuple[int, ...]] = {}
    half = 4 * space.nodes
    for cell in product(*quads):
        encoding = sum(cell, ())
        architecture = Architecture(space.name, encoding * 2)
        key = graph(space.cell(architecture, "normal"))
        canonical = space.canonical(architecture).choices
        assert canonical[:half] == canonical[half:]
        forms[key].add(canonical[:half])
        smallest[key] = min(smallest.get(key, encoding), encoding)
    assert all(forms[key] == {smallest[key]} for key in forms)


FIVE = EnasMicro(nodes=5, ops="enas")


@settings(max_examples=30)
@given(architectures(FIVE), st.permutations(range(2, 7)), st.lists(st.booleans(), min_size=5, max_size=5))
def test_renumbering_and_swapping_sides_keeps_the_canonical_form(
    architecture: Architecture, order: list[int], swapped: list[bool]
) -> None:
    cell = FIVE.cell(architecture, "normal")
    # the given order, repaired so that every node comes after those that it reads
    placed: list[int] = [0, 1]
    while len(placed) < 7:
        placed.append(next(n for n in order if n not in placed and all(e.source in placed for e in cell[n - 2])))
    encoding: list[int] = []
    for old, swap in zip(placed[2:], swapped, strict=True):
        for edge in reversed(cell[old - 2]) if swap else cell[old - 2]:
            encoding += [placed.index(edge.source), edge.op]
    other = FIVE.architecture([*encoding, *architecture.choices[20:]])
    canonical = FIVE.canonical(architecture)
    assert FIVE.canonical(other) == canonical
    assert FIVE.canonical(canonical) == canonical
    assert canonical.choices <= min(architecture.choices, other.choices)
    assert FIVE.canonical(Architecture(FIVE.name, architecture.choices[20:] * 2)).choices[20:] == canonical.choices[20:]


# neighbours


@given(architectures(SMALL))
def test_neighbours_are_all_architectures_that_differ_in_one_choice(architecture: Architecture) -> None:
    neighbours = list(SMALL.neighbours(architecture))
    assert len(neighbours) == len(set(neighbours)) == sum(len(d.options) - 1 for d in SMALL.decisions)
    for other in neighbours:
        assert sum(a != b for a, b in zip(architecture.choices, other.choices, strict=True)) == 1
        assert SMALL.architecture(other.choices) == other


@given(architectures(SMALL), st.integers(0, 10**6))
def test_a_mutation_is_a_neighbour_that_the_generator_determines(architecture: Architecture, seed: int) -> None:
    first, second = (SMALL.mutate(architecture, np.random.default_rng(seed)) for _ in range(2))
    assert first == second
    assert first in set(SMALL.neighbours(architecture))


def test_samples_are_uniform_over_every_decision() -> None:
    rng = np.random.default_rng(0)
    count = 4000
    drawn = np.array([SMALL.sample(rng).choices for _ in range(count)])
    for position, decision in enumerate(SMALL.decisions):
        options = len(decision.options)
        found = np.bincount(drawn[:, position], minlength=options)
        assert len(found) == options
        # five standard deviations of a binomial count
        assert np.abs(found - count / options).max() < 5 * np.sqrt(count / options * (1 - 1 / options))


# warnings


def test_a_cell_without_convolutions_is_warned_of() -> None:
    space = EnasMicro(nodes=2, ops="enas")
    skips, pools, useful = "0 4 1 4 2 4 1 4", "0 2 1 3 0 3 1 4", "0 4 1 4 0 4 1 1"
    assert space.warnings(space.parse(f"{useful} {useful}")) == []
    assert space.warnings(space.parse(f"{skips} {useful}")) == [
        "collapse: the normal cell has no convolution, only identity"
    ]
    (warning,) = space.warnings(space.parse(f"{useful} {pools}"))
    assert "collapse: the reduction cell" in warning
    assert all(kind in warning for kind in ("average", "identity", "max"))
    assert len(space.warnings(space.parse(f"{skips} {pools}"))) == 2
