"""The mobile space: its size, the published networks, weights that are shared, gates, and integers at any bits."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.architecture import Architecture
from bitwright.costs.macs import Macs
from bitwright.errors import ConfigError, InvalidNetwork
from bitwright.integer.compare import differences
from bitwright.integer.lower import lowered
from bitwright.integer.run import Executor
from bitwright.latency.keys import keys, parts
from bitwright.modules import Training, Weights, forward, run, scale_key, tensor_names
from bitwright.network import BatchNorm, Conv2d, DepthwiseConv2d, Network
from bitwright.networks import PUBLISHED, build
from bitwright.networks.cells import CellSpace
from bitwright.networks.inverted_residual import LINEAR_FLOAT
from bitwright.spaces import PathChoice, QuantizerChoice
from bitwright.spaces.mobile import Mobile
from bitwright.workload.rows import workload
from random_networks import some_images, trained

DEFAULT = Mobile()
SMALL: dict[str, Any] = {
    "image": (3, 16, 16), "classes": 5, "widths": (8, 12), "cells": (2, 3), "strides": (1, 2), "kernels": (3, 5),
    "expansions": (2, 3), "stem": 8, "first": 8, "head": 16, "stem_stride": 1,
}  # fmt: skip
MIXED = Mobile(**SMALL, weight_bits=(2, 4, 8), activation_bits=(3, 8))


def random_ones(space: Mobile, count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


# what the space holds


def test_the_default_space_is_the_published_one() -> None:
    sizes = [len(decision.options) for decision in DEFAULT.decisions]
    assert math.prod(sizes) == 6**6 * 7**15
    assert [d.name for d in DEFAULT.decisions][:5] == [
        f"stage{i}/unit{j}" for i, j in ((2, 1), (2, 2), (2, 3), (2, 4), (3, 1))
    ]
    assert DEFAULT.decisions[0].options == ("e3k3", "e3k5", "e3k7", "e6k3", "e6k5", "e6k7")
    assert DEFAULT.decisions[1].options[-1] == "skip"


def test_its_extreme_networks_are_the_block_lists_of_the_cells() -> None:
    """In float, so that the two are the same but for the names of tensors."""
    space, cells = Mobile(quantized=False, pixels="symmetric"), CellSpace()
    choices = tuple(len(decision.options) - 1 for decision in space.decisions)
    ours, theirs = space.network(Architecture("mobile", choices)), build(cells.block_list(choices), LINEAR_FLOAT)
    assert [type(n.op) for n in ours.nodes] == [type(n.op) for n in theirs.nodes]
    assert ours.shapes == theirs.shapes
    assert [re.sub("/e[36]k[357]", "", n.key) for n in ours.nodes] == [n.key for n in theirs.nodes]


def test_the_published_network_is_in_the_space_of_its_widths() -> None:
    """Choices of kernel and expansion read off the published block list; its MACs are 320 million."""
    published = PUBLISHED["mobile"]
    space = Mobile(quantized=False, widths=(32, 40, 80, 96, 192, 320))
    units = [block for stage in published.stages[1:] for block in stage]  # type: ignore[union-attr]
    # the published stages join those of one size of image, and so do ours
    wanted = ["skip" if block is None else f"e{block.expansion:g}k{block.kernel}" for block in units]
    choices = [decision.options.index(name) for decision, name in zip(space.decisions, wanted, strict=True)]
    network = space.network(space.architecture(choices))
    assert Macs()(network).total == pytest.approx(320e6, rel=3e-3)
    assert sum(p.numel() for p in Weights([network]).parameters()) == 4080512


def test_bits_are_two_more_decisions_of_each_cell() -> None:
    assert len(MIXED.decisions) == 3 * 5
    assert [(d.name, d.options) for d in MIXED.decisions[3:6]] == [
        ("stage2/unit2", ("e2k3", "e2k5", "e3k3", "e3k5", "skip")),
        ("stage2/unit2/weights", ("2", "4", "8")),
        ("stage2/unit2/values", ("3", "8")),
    ]
    assert len(Mobile(**SMALL, weight_bits=(2, 4)).decisions) == 2 * 5


def test_bits_are_where_they_were_chosen() -> None:
    """stage3/unit1 halves the image and starts a residual group; unit2 and unit3 add to it."""
    space = MIXED
    names = [decision.name for decision in space.decisions]
    chosen = {"stage3/unit1": (1, 0, 0), "stage3/unit2": (2, 2, 1), "stage3/unit3": (4, 1, 1)}  # path, weights, values
    choices = [0] * len(names)
    for cell, options in chosen.items():
        for what, option in zip(("", "/weights", "/values"), options, strict=True):
            choices[names.index(cell + what)] = option
    network = space.network(space.architecture(choices))
    weights = {n.key: n.op.weight.levels.bits for n in network.nodes if isinstance(n.op, Conv2d | DepthwiseConv2d)}
    values = {n.key: n.op.activation.levels.bits for n in network.nodes if isinstance(n.op, BatchNorm)}
    assert {k.rsplit("/", 1)[0] for k in weights if k.startswith("stage3")} == {
        "stage3/unit1/e2k5",
        "stage3/unit2/e3k3",
    }
    assert {bits for k, bits in weights.items() if k.startswith("stage3/unit1")} == {2}
    assert {bits for k, bits in weights.items() if k.startswith("stage3/unit2")} == {8}
    assert {k.rsplit("/", 1)[1]: v for k, v in values.items() if k.startswith("stage3/unit1")} == {
        "bc_bn": 3, "dw_bn": 3, "pw_bn": 3,
    }  # fmt: skip
    assert {k.rsplit("/", 1)[1]: v for k, v in values.items() if k.startswith("stage3/unit2")} == {
        "bc_bn": 8, "dw_bn": 8, "pw_bn": 3,
    }  # fmt: skip
    assert (weights["init_block/conv"], weights["final_block/conv"], values["final_block/bn"]) == (8, 8, 8)


def test_the_bits_of_a_cell_that_is_left_out_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for architecture in random_ones(MIXED, 60):
        canonical = MIXED.canonical(architecture)
        assert MIXED.network(canonical) == MIXED.network(architecture)
        changed = MIXED.mutate(architecture, rng)
        same = MIXED.network(changed) == MIXED.network(architecture)
        assert same == (MIXED.canonical(changed) == canonical)
        seen += same
    assert seen > 3


def test_an_image_of_one_channel_is_taken() -> None:
    space = Mobile(**SMALL | {"image": (1, 8, 8)})
    assert space.network(next(space.covering())).shapes[0] == (1, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": (3, 16, 8)}, "square"),
        ({"weight_bits": ()}, "weight_bits are one or more"),
        ({"activation_bits": (4, 4)}, "activation_bits are one or more"),
        ({"weight_bits": (1, 4)}, "2 to 16 bits"),
        ({"weight_bits": (2, 4), "quantized": False}, "float network has no bits"),
        ({"cells": (1,)}, "one number for each stage"),
        ({"image": (1, 8, 8), "pixels": "imagenet"}, "3 channels"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mobile(**SMALL | options)


# integers


@pytest.mark.parametrize("pool", ["mean", "shift"])
def test_integers_are_what_was_trained_at_any_choice_and_bits(pool: str) -> None:
    space = replace(MIXED, pool=pool)
    for seed, architecture in enumerate(random_ones(space, 6, seed=7)):
        network = space.network(architecture)
        x = some_images(network, seed, count=6)
        weights = trained(network, seed, x)
        lowering = lowered(network, weights)
        executor = Executor(lowering.graph)
        compared = 0
        for position, exact, codes in differences(network, weights, lowering, x, executor):
            assert torch.equal(exact.double(), codes.double()), lowering.graph.nodes[position].name
            compared += 1
        assert compared == len(network.nodes)


# the supernet


def test_covering_has_every_tensor_and_no_other() -> None:
    for space in (MIXED, Mobile(**SMALL, quantized=False)):
        store = Weights((space.shared_network(a) for a in space.covering()), shared=True)
        held = {name for name, _ in store.named_parameters()}
        used: set[str] = set()
        for architecture in [*space.covering(), *random_ones(space, 50)]:
            network = space.shared_network(architecture)
            store.add(network)  # raises where a tensor of that name has another shape
            used.update(tensor_names(network))
        assert used == held == {name for name, _ in store.named_parameters()}


def test_candidates_share_no_weights_but_the_range_of_their_group() -> None:
    choices = [0] * len(MIXED.decisions)
    first, second = MIXED.architecture(choices), MIXED.architecture([1, *choices[1:]])
    names = [set(tensor_names(MIXED.shared_network(a))) for a in (first, second)]
    assert {n for n in names[0] & names[1] if n.startswith("stage2/unit1/")} == set()
    assert "stage1/unit1/group/log2_range" in names[0] & names[1]
    reduced = [d.name for d in MIXED.decisions].index("stage3/unit1")
    choices[reduced] = 3
    names = [set(tensor_names(MIXED.shared_network(a))) for a in (first, MIXED.architecture(choices))]
    assert {n for n in names[0] & names[1] if n.startswith("stage3/unit1/")} == {"stage3/unit1/group/log2_range"}


def test_a_derived_network_takes_the_weights_of_the_supernet_by_name() -> None:
    (architecture,) = random_ones(MIXED, 1, seed=3)
    alone = MIXED.network(architecture)
    store = Weights((MIXED.shared_network(a) for a in MIXED.covering()), shared=True)
    assert {name for name, _ in Weights([alone]).named_parameters()} <= {name for name, _ in store.named_parameters()}


def test_networks_have_the_blocks_of_a_latency_table() -> None:
    for architecture in random_ones(MIXED, 5):
        network = MIXED.network(architecture)
        work = workload(network)
        assert [part.name for part in parts(work)][:2] == ["init_block", "stage1/unit1"]
        left_out = sum(MIXED.decisions[i].options[c] == "skip" for i, c in enumerate(architecture.choices))
        assert len(keys(work)) == 2 + 5 - left_out + 2


# gates


def at(network: Network, key: str) -> int:
    return next(i for i, node in enumerate(network.nodes) if node.key == key)


def test_the_chosen_segment_is_what_the_network_runs() -> None:
    for architecture in random_ones(MIXED, 8):
        network = MIXED.shared_network(architecture)
        gates = [gate for gate in MIXED.gated(architecture) if isinstance(gate, PathChoice)]
        assert [gate.decision for gate in gates] == list(range(0, len(MIXED.decisions), 3))
        for gate in gates:
            assert len(gate.segments) == len(MIXED.decisions[gate.decision].options)
            chosen = gate.segments[architecture.choices[gate.decision]]
            assert (chosen is None) == (gate.output == "")
            if chosen is None:
                continue
            end = at(network, gate.output)
            start = end - len(chosen.nodes) + 2
            assert [(n.op, n.key) for n in chosen.nodes[1:]] == [(n.op, n.key) for n in network.nodes[start : end + 1]]
            (read,) = network.nodes[start].inputs
            assert chosen.shapes[0] == network.shapes[read]
            others = [segment for segment in gate.segments if segment is not None]
            assert {segment.shapes[-1] for segment in others} == {network.shapes[end]}
            assert {scale_key(segment.nodes[-1]) for segment in others} == {scale_key(network.nodes[end])}


def test_another_segment_is_what_the_network_would_run_with_that_choice() -> None:
    (architecture,) = random_ones(MIXED, 1, seed=5)
    for gate in MIXED.gated(architecture):
        if isinstance(gate, PathChoice):
            for option, segment in enumerate(gate.segments):
                choices = list(architecture.choices)
                choices[gate.decision] = option
                network = MIXED.network(MIXED.architecture(choices))
                keys_of = {node.key: node.op for node in network.nodes}
                if segment is not None:
                    assert all(keys_of[node.key] == node.op for node in segment.nodes[1:])


def test_gates_of_quantizers_are_all_that_a_decision_on_bits_changes() -> None:
    def quantizers(architecture: Architecture) -> dict[str, Any]:
        found = {}
        for node in MIXED.shared_network(architecture).nodes:
            if isinstance(node.op, Conv2d | DepthwiseConv2d):
                found[node.key] = node.op.weight
            elif isinstance(node.op, BatchNorm):
                found[scale_key(node)] = node.op.activation
        return found

    for architecture in random_ones(MIXED, 6, seed=2):
        gates = {g.decision: g for g in MIXED.gated(architecture) if isinstance(g, QuantizerChoice)}
        for decision, described in enumerate(MIXED.decisions):
            if decision % 3 == 0:
                continue
            left_out = described.name.rpartition("/")[0]
            skipped = (
                MIXED.decisions[decision - decision % 3].options[architecture.choices[decision - decision % 3]]
                == "skip"
            )
            assert (decision in gates) != skipped, left_out
            if skipped:
                continue
            each = []
            for option in range(len(described.options)):
                choices = list(architecture.choices)
                choices[decision] = option
                each.append(quantizers(MIXED.architecture(choices)))
            changed = {key for key in each[0] if len({found[key] for found in each}) > 1}
            assert set(gates[decision].quantizers) == changed
            for key in changed:
                assert list(gates[decision].quantizers[key]) == [found[key] for found in each]


def test_gates_of_one_architecture_are_made_once() -> None:
    (architecture,) = random_ones(DEFAULT, 1)
    first, second = ([g for g in DEFAULT.gated(architecture) if isinstance(g, PathChoice)] for _ in range(2))
    assert all(
        a is b for one, two in zip(first, second, strict=True) for a, b in zip(one.segments, two.segments, strict=True)
    )


def test_a_supernet_trains_on_any_choice() -> None:
    store = Weights((MIXED.shared_network(a) for a in MIXED.covering()), shared=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (8, *MIXED.image), generator=generator, dtype=torch.uint8)
    for architecture in random_ones(MIXED, 4):
        network = MIXED.shared_network(architecture)
        logits, _ = forward(network, store, x, training=Training(generator))
        store.zero_grad()
        logits.logsumexp(1).sum().backward()
        trained_names = {name for name, p in store.named_parameters() if p.grad is not None}
        assert trained_names == set(tensor_names(network))
    with pytest.raises(InvalidNetwork):
        run(Mobile(**SMALL | {"kernels": (7,)}).network(next(Mobile(**SMALL | {"kernels": (7,)}).covering())), store, x)
