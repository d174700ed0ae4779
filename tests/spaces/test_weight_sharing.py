"""A supernet is one store of weights: what architectures share in it, and how its networks compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitwright import Architecture
from bitwright.datasets import Dataset
from bitwright.evaluators.shared_weights import SharedWeights
from bitwright.modules import Training, Weights, forward, run, tensor_names
from bitwright.network import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    DropPath,
    GlobalSumPool,
    Linear,
    MaxPool2d,
    Network,
    Node,
    SumPool2d,
)
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.train.recipe import Recipe

TINY: dict[str, Any] = {"image": (1, 8, 8), "cells": 4, "reductions": (1, 3), "nodes": 3, "filters": 4}
SPACES = {
    "enas classic": EnasMicro(**TINY, ops="enas", wiring="classic"),
    "enas integer": EnasMicro(**TINY, ops="enas", wiring="integer"),
    "mixed classic": EnasMicro(**TINY, ops="mixed", wiring="classic", share_precisions=False),
    "mixed integer": EnasMicro(**TINY, ops="mixed", wiring="integer", share_precisions=False),
    "mixed integer, precisions shared": EnasMicro(**TINY, ops="mixed", wiring="integer"),
}
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def architectures(space: EnasMicro) -> st.SearchStrategy[Architecture]:
    each = [st.integers(0, len(d.options) - 1) for d in space.decisions]
    return st.tuples(*each).map(lambda choices: Architecture(space.name, choices))


def convolved_edges(space: EnasMicro, architecture: Architecture) -> set[tuple[int, int, int, int, int]]:
    """(cell, node, side, op, input index) of every separable convolution; pools and the identity have no weights."""
    found = set()
    separable = len(space.operations) - 3
    half = 4 * space.nodes
    for cell in range(space.cells):
        own = architecture.choices[half:] if cell in space.reduction_cells else architecture.choices[:half]
        for i in range(0, half, 2):
            source, op = own[i : i + 2]
            if op < separable:
                found.add((cell, i // 4, i // 2 % 2, op, source))
    return found


def edge_tensors(network: Network) -> set[str]:
    return {name for name in tensor_names(network) if "/node" in name}


def pictures(count: int = 6, seed: int = 0, shape: tuple[int, ...] = (1, 8, 8)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def supernet(space: EnasMicro) -> Weights:
    return Weights((space.shared_network(a) for a in space.covering()), shared=True)


kept_supernet = cache(supernet)


# what is shared


@each_space
@settings(max_examples=40)
@given(st.data())
def test_architectures_share_the_tensors_of_edges_with_equal_cell_node_side_op_and_input(
    space: EnasMicro, data: st.DataObject
) -> None:
    first, second = data.draw(architectures(space)), data.draw(architectures(space))
    mixed = Architecture(
        space.name, tuple(data.draw(st.sampled_from(p)) for p in zip(first.choices, second.choices, strict=True))
    )
    edges = [convolved_edges(space, a) for a in (first, mixed)]
    tensors = [edge_tensors(space.shared_network(a)) for a in (first, mixed)]
    # each of two stacks: depthwise, pointwise, and gain and offset of one normalisation or two
    per_edge = 2 * (2 + 2 * (1 if space.wiring == "classic" else 2))
    assert [len(t) for t in tensors] == [per_edge * len(e) for e in edges]
    if not space.share_precisions or space.ops == "enas":
        assert len(tensors[0] & tensors[1]) == per_edge * len(edges[0] & edges[1])


@pytest.mark.parametrize("name", ["enas classic", "enas integer"])
@pytest.mark.parametrize(
    ("position", "choice"),
    [(0, 0), (1, 0), (5, 1), (8, 3), (11, 0)],
    ids=["input", "op", "op", "input", "op"],
)
def test_architectures_that_differ_in_one_choice_differ_in_the_tensors_of_that_edge(
    name: str, position: int, choice: int
) -> None:
    space = SPACES[name]
    first = space.parse(" ".join(["1 1 0 1  2 0 1 0  2 1 0 1"] * 2))
    choices = list(first.choices)
    assert choices[position] != choice
    choices[position] = choice
    second = space.architecture(choices)
    changed = edge_tensors(space.shared_network(first)) ^ edge_tensors(space.shared_network(second))
    edge = f"node{position // 4 + 2}/{'xy'[position // 2 % 2]}/"
    assert changed
    assert all(f"cell{cell}/{edge}" in tensor for tensor in changed for cell in [tensor[4]])
    assert {int(tensor[4]) for tensor in changed} == {0, 2}  # the normal cells


def test_precisions_share_latent_weights_but_not_normalisations() -> None:
    space = SPACES["mixed integer, precisions shared"]
    binary, ternary = (
        edge_tensors(space.shared_network(space.architecture([0, op, 0, 10] * 6))) for op in (0, 1)
    )  # sep3x3/binary and sep3x3/ternary beside an average pool
    assert {name for name in binary if name.endswith(("/gain", "/offset"))}.isdisjoint(ternary)
    weights = {name for name in binary if not name.endswith(("/gain", "/offset"))}
    assert weights == binary & ternary != set()


@each_space
@settings(max_examples=40)
@given(st.data())
def test_sampling_creates_no_tensor_that_covering_has_not(space: EnasMicro, data: st.DataObject) -> None:
    store = kept_supernet(space)
    before = [(name, id(tensor)) for name, tensor in store.state_dict(keep_vars=True).items()]
    network = space.shared_network(data.draw(architectures(space)))
    store.add(network)
    assert [(name, id(tensor)) for name, tensor in store.state_dict(keep_vars=True).items()] == before
    assert set(tensor_names(network)) <= {name for name, _ in before}


@each_space
def test_covering_creates_nothing_that_no_architecture_uses(space: EnasMicro) -> None:
    used: set[str] = set()
    for architecture in space.covering():
        assert space.architecture(architecture.choices) == architecture
        used.update(tensor_names(space.shared_network(architecture)))
    assert used == {name for name, _ in supernet(space).named_parameters()}


@each_space
def test_what_a_tensor_starts_as_does_not_depend_on_what_was_added_before(space: EnasMicro) -> None:
    networks = [space.shared_network(a) for a in space.covering()]
    forwards, backwards = Weights(networks, shared=True), Weights(reversed(networks), shared=True)
    ours, theirs = forwards.state_dict(), backwards.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# how a supernet's networks compute


@each_space
def test_in_evaluation_shared_weights_normalise_with_the_statistics_of_the_batch(space: EnasMicro) -> None:
    store = supernet(space)
    assert not any(name.endswith(("/mean", "/variance")) for name in store.state_dict())
    network = space.shared_network(space.sample(np.random.default_rng(3)))
    images = pictures()
    values = run(network, store, images)
    checked = 0
    for node, value in zip(network.nodes, values, strict=True):
        if isinstance(node.op, BatchNorm) and value is not None:
            read = values[node.inputs[0]]
            assert read is not None
            mean = read.codes.mean((0, 2, 3), keepdim=True)
            variance = read.codes.var((0, 2, 3), keepdim=True, correction=0)
            normal = (read.codes - mean) / (variance + node.op.epsilon).sqrt()
            quantizer = node.op.activation
            scale = quantizer.scale(normal, None)
            if quantizer.levels is None:
                # float32 sums of a few hundred terms
                torch.testing.assert_close(value.codes, quantizer.codes(normal), rtol=1e-4, atol=1e-4)
            else:
                differing = value.codes != quantizer.codes(normal / scale)
                assert differing.double().mean() < 1e-3  # ties that rounding decides
            checked += 1
    assert checked > 10


@each_space
def test_an_image_is_classified_together_with_its_batch_by_shared_weights_only(space: EnasMicro) -> None:
    architecture = space.sample(np.random.default_rng(5))
    shared, alone = space.shared_network(architecture), space.network(architecture)
    images = pictures(8)
    store = supernet(space)
    assert not torch.allclose(forward(shared, store, images)[0][:4], forward(shared, store, images[:4])[0])
    weights = Weights([alone])
    forward(alone, weights, images, training=Training(momentum=1.0))
    whole, half = forward(alone, weights, images)[0][:4], forward(alone, weights, images[:4])[0]
    if space.wiring == "integer":
        assert torch.equal(whole, half)
    else:
        torch.testing.assert_close(whole, half, rtol=1e-4, atol=1e-4)


def without_drop_path(network: Network) -> tuple[Node, ...]:
    """The nodes with what reads a drop-path reading its input."""
    moved: dict[int, int] = {}
    nodes: list[Node] = []
    for position, node in enumerate(network.nodes):
        if isinstance(node.op, DropPath):
            moved[position] = moved[node.inputs[0]]
        else:
            moved[position] = len(nodes)
            nodes.append(Node(node.op, tuple(moved[i] for i in node.inputs), node.key))
    return tuple(nodes)


@settings(max_examples=20)
@given(st.data())
def test_with_integer_wiring_the_supernet_runs_the_stand_alone_network(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from([s for s in SPACES.values() if s.wiring == "integer"]))
    architecture = data.draw(architectures(space))
    shared, alone = space.shared_network(architecture), space.network(architecture)
    assert not any(isinstance(node.op, DropPath) for node in shared.nodes)
    assert shared.nodes == without_drop_path(alone)


CLASSIC = SPACES["enas classic"]
CLASSIC_TEXT = " ".join(["0 0 1 1  0 2 1 4  2 3 0 4"] * 2)


def test_with_classic_wiring_only_the_supernet_projects_what_a_cell_concatenates() -> None:
    architecture = CLASSIC.parse(CLASSIC_TEXT)
    unused = 2  # nodes 3 and 4
    alone, shared = CLASSIC.network(architecture), CLASSIC.shared_network(architecture)
    keys = {node.key: node for node in shared.nodes}
    assert [op.filters for k in range(4) if isinstance(op := keys[f"cell{k}/out"].op, Conv2d)] == [4, 8, 8, 16]
    assert isinstance(op := keys["cell0/out"].op, Conv2d) and op.blocks == ("from3", "from4")
    assert not any(node.key.endswith("/out") for node in alone.nodes)
    assert alone.shapes[alone.nodes[-1].inputs[0]] == (unused * 16,)
    assert shared.shapes[shared.nodes[-1].inputs[0]] == (16,)


def test_with_classic_wiring_only_the_stand_alone_network_projects_the_second_input_once_more() -> None:
    architecture = CLASSIC.parse(CLASSIC_TEXT)
    based = [[n.key for n in each.nodes if n.key.endswith("/base")] for each in (CLASSIC.network(architecture),)]
    assert based == [[f"cell{k}/base" for k in range(4)]]
    assert not any(n.key.endswith("/base") for n in CLASSIC.shared_network(architecture).nodes)


def test_with_classic_wiring_the_reduction_cells_of_the_supernet_are_fed_twice_by_one_tensor() -> None:
    network = CLASSIC.shared_network(CLASSIC.parse(CLASSIC_TEXT))
    by_key = {node.key: node for node in network.nodes}
    for cell in CLASSIC.reduction_cells:
        (reduced,) = by_key[f"cell{cell}/reduce/even"].inputs
        (activated,) = by_key[f"cell{cell}/in0/even"].inputs
        assert network.nodes[activated].inputs == (reduced,)
        assert network.nodes[reduced].key == f"cell{cell - 1}/out/norm"


def test_with_classic_wiring_only_the_stand_alone_network_strides_inside_reduction_cells() -> None:
    architecture = CLASSIC.parse(CLASSIC_TEXT)
    for network, strides in ((CLASSIC.network(architecture), {1, 2}), (CLASSIC.shared_network(architecture), {1})):
        found = {n.op.stride for n in network.nodes if isinstance(n.op, (DepthwiseConv2d, MaxPool2d))}
        assert found == strides
    strided = {
        n.key.split("/")[0] for n in CLASSIC.network(architecture).nodes if isinstance(n.op, DepthwiseConv2d)
        and n.op.stride == 2
    }  # fmt: skip
    assert strided == {f"cell{c}" for c in CLASSIC.reduction_cells}


# exactness


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: the output has ceil(size / stride) pixels, the odd one of the padding comes last."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def in_float64(network: Network, weights: Weights, position: int, inputs: list[Tensor]) -> Tensor | None:
    """The accumulators of a node from the codes that it reads: sums of integers below 2**53, so exact."""
    op = network.nodes[position].op
    x = torch.cat(inputs, dim=1)
    if isinstance(op, (Conv2d, DepthwiseConv2d, Linear)):
        latent = torch.cat([weights[w.name] for w in network.weights(position)], dim=1).detach()
        w = op.weight.codes(latent / op.weight.scale(latent, None)).double()
        if isinstance(op, Linear):
            return x @ w.T
    elif isinstance(op, SumPool2d):
        w = torch.ones(x.shape[1], 1, op.kernel, op.kernel, dtype=torch.float64)
    elif isinstance(op, GlobalSumPool):
        return x.sum((2, 3))
    elif isinstance(op, Add):
        assert op.saturate is not None
        return (inputs[0] + inputs[1]).clamp(op.saturate.lowest, op.saturate.highest)
    else:
        return None
    rows, columns = (same_pads(size, op.kernel, op.stride) for size in x.shape[2:])
    groups = 1 if isinstance(op, Conv2d) else x.shape[1]
    return F.conv2d(F.pad(x, (*columns, *rows)), w, stride=op.stride, groups=groups)


@pytest.mark.parametrize("shared", [False, True], ids=["stand-alone", "shared"])
@pytest.mark.parametrize(
    "options",
    [
        {"ops": "mixed"},
        {"ops": "enas", "cell_precision": "binary", "first_cell_precision": "ternary"},
        {"ops": "enas", "cell_precision": "8", "stem_precision": "8", "activation_precision": "8"},
        {"ops": "mixed", "activation_precision": "2", "image": (3, 13, 9), "pixel_mean": (120.0, 3.0, 60.0)},
    ],
    ids=["mixed", "binary", "8 bits", "2-bit activations, odd image"],
)
@torch.no_grad()
def test_with_integer_wiring_every_accumulator_is_the_exact_integer(options: dict[str, Any], shared: bool) -> None:
    space = EnasMicro(**TINY | {"wiring": "integer"} | options)
    rng = np.random.default_rng(11)
    generator = torch.Generator().manual_seed(11)
    reached = set()
    for _ in range(6):
        architecture = space.sample(rng)
        network = space.shared_network(architecture) if shared else space.network(architecture)
        weights = Weights([network], shared=shared)
        for name, parameter in weights.named_parameters():
            if name.endswith("/gain"):  # also negative ones
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        images = pictures(4, shape=space.image)
        if not shared:
            forward(network, weights, images, training=Training(momentum=1.0))
        values = [value for value in run(network, weights, images) if value is not None]
        for position, (node, value, bounds) in enumerate(zip(network.nodes, values, network.ranges, strict=True)):
            assert bounds is not None
            assert torch.equal(value.codes, value.codes.round())
            assert bounds.lowest <= float(value.codes.min()) and float(value.codes.max()) <= bounds.highest
            if node.inputs and not isinstance(node.op, Concat):
                expected = in_float64(network, weights, position, [values[i].codes.double() for i in node.inputs])
                if expected is not None:
                    assert torch.equal(value.codes.double(), expected), node
                    reached.add(type(node.op))
    assert {Conv2d, DepthwiseConv2d, Linear, SumPool2d, GlobalSumPool, Add} <= reached


# training


def recipe(**options: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch": 16, "schedule": "constant", "dtype": "float32"} | options)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_step_changes_only_tensors_of_the_sampled_architecture(
    make_dataset: Callable[..., Dataset], optimizer: str
) -> None:
    space = EnasMicro(**TINY, classes=4, ops="enas")
    evaluator = SharedWeights(space, make_dataset(), recipe(optimizer=optimizer, weight_decay=0.1, momentum=0.9))
    architecture = space.parse(" ".join(["0 0 1 2 0 3 1 4 2 0 0 0"] * 2))
    other = space.parse(" ".join(["0 1 1 2 0 3 1 4 2 1 0 1"] * 2))
    before = {name: p.detach().clone() for name, p in evaluator.weights.named_parameters()}
    evaluator.prepare(0, lambda count: [other] + [architecture] * (count - 1), lambda: None)
    used = set(tensor_names(space.shared_network(architecture)) + tensor_names(space.shared_network(other)))
    changed = {name for name, p in evaluator.weights.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= used
    assert len(changed) > 0.9 * len(used)


def test_evaluation_changes_no_weights_and_creates_none(make_dataset: Callable[..., Dataset]) -> None:
    space = EnasMicro(**TINY, classes=4, ops="enas")
    evaluator = SharedWeights(space, make_dataset(), recipe())
    rng = np.random.default_rng(0)
    before = {name: tensor.clone() for name, tensor in evaluator.weights.state_dict().items()}
    sampled = [space.sample(rng) for _ in range(5)]
    measured = evaluator.evaluate(sampled) + evaluator.evaluate_fully(sampled)
    after = evaluator.weights.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(0 <= m.accuracy <= 1 and m.seconds > 0 for m in measured)


def test_a_supernet_that_stops_and_goes_on_is_the_one_that_did_not_stop(make_dataset: Callable[..., Dataset]) -> None:
    space = EnasMicro(**TINY, classes=4, ops="enas")

    def ask(count: int) -> list[Architecture]:
        rng = np.random.default_rng(1)
        return [space.sample(rng) for _ in range(count)]

    def made() -> SharedWeights:
        return SharedWeights(space, make_dataset(), recipe(epochs=3, flip=True, pad=1), warmup_epochs=1)

    whole = made()
    states: list[dict[str, Any]] = []

    def keep() -> None:
        if whole.steps == 6:  # the second of the four steps of the first round
            state = whole.state_dict()
            weights = {name: tensor.clone() for name, tensor in state["weights"].items()}
            optimizer = {
                name: {key: torch.as_tensor(value).clone() for key, value in moments.items()}
                for name, moments in state["optimizer"].items()
            }
            states.append(state | {"weights": weights, "optimizer": optimizer})

    for number in range(2):
        whole.prepare(number, ask, keep)
    again = made()
    again.load_state_dict(states[0])
    for number in range(2):
        again.prepare(number, ask, lambda: None)
    assert again.steps == whole.steps == 12
    ours, theirs = again.weights.state_dict(), whole.weights.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    sampled = ask(3)
    assert [m.accuracy for m in again.evaluate(sampled)] == [m.accuracy for m in whole.evaluate(sampled)]
