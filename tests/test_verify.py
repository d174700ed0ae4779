"""verify: a target that is wrong at one place is found there, and everything else is reported as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright import verify as module
from bitwright.errors import ConfigError, ExportError
from bitwright.integer.graph import (
    Argmax,
    Conv,
    GlobalSumPool,
    Input,
    IntegerGraph,
    MatMul,
    MultiThreshold,
    Node,
    reaching,
)
from bitwright.integer.lower import lowered
from bitwright.modules import Weights
from bitwright.network import BatchNorm, Conv2d, Linear, Network
from bitwright.network import GlobalSumPool as GlobalSum
from bitwright.network import Input as Pixels
from bitwright.network import Node as NetworkNode
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.ternary import Ternary
from bitwright.verify import MOST_SAMPLES, TARGETS, random_inputs, verify
from naive_executor import naive, naive_step, whole
from random_graphs import random_graph

Target = Callable[[IntegerGraph, Path, np.ndarray], np.ndarray]


def small() -> IntegerGraph:
    rng = np.random.default_rng(0)
    return IntegerGraph(
        (
            Node(Input((2, 4, 5), 0, 15), (), "pixels"),
            Node(Conv(rng.integers(-3, 4, (3, 2, 3, 3)), None, (1, 1), (1, 1, 1, 1)), (0,), "first"),
            Node(MultiThreshold(whole([-20, 0, 20]), (0, 1, 2, 3)), (1,), "first/norm"),
            Node(Conv(rng.integers(-3, 4, (4, 3, 1, 1))), (2,), "second"),
            Node(GlobalSumPool(), (3,), "pool"),
            Node(MatMul(rng.integers(-9, 10, (5, 4))), (4,), "classes"),
        )
    )


def right(graph: IntegerGraph, folder: Path, x: np.ndarray) -> np.ndarray:
    assert folder.is_dir()
    return naive(graph, x)[-1]


def wrong_at(layer: str, at: tuple[int, ...], sample: np.ndarray, change: int = 1) -> Target:
    """Adds to one value of one layer wherever this sample is run."""

    def target(graph: IntegerGraph, folder: Path, x: np.ndarray) -> np.ndarray:
        hit = np.array([np.array_equal(row, sample) for row in x])
        values: list[np.ndarray] = []
        for node in graph.nodes:
            value = naive_step(node.op, x, [values[i] for i in node.inputs])
            if node.name == layer:
                value[(hit.nonzero()[0], *at)] += change
            values.append(value)
        return values[-1]

    return target


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces all targets."""

    def replace(**targets: Target) -> None:
        monkeypatch.setattr(module, "TARGETS", targets)

    return replace


def test_a_right_target_is_equal(only):
    only(mine=right)
    graph = small()
    for every_layer in (False, True):
        result = verify(graph, random_inputs(graph, 9), every_layer=every_layer)
        (found,) = result.targets
        assert result.equal
        assert (found.target, found.samples, found.equal, found.max_difference) == ("mine", 9, True, 0)
        assert (found.differing_samples, found.first_difference, found.skipped) == (0, None, None)


@pytest.mark.parametrize("every_layer", [False, True])
@pytest.mark.parametrize("sample", [0, 4, 8])
@pytest.mark.parametrize(
    ("layer", "at", "position"),
    [
        ("first", (1, 2, 3), 1),
        ("first/norm", (2, 0, 1), 2),
        ("second", (3, 3, 4), 3),
        ("pool", (2,), 4),
        ("classes", (4,), 5),
    ],
)
def test_the_first_wrong_layer_channel_and_position_are_found(only, layer, at, position, sample, every_layer):
    graph = small()
    x = random_inputs(graph, 9)
    change = 100 if layer == "first" else 1
    only(mine=wrong_at(layer, at, x[sample], change), other=right)
    result = verify(graph, x, every_layer=every_layer)
    found, other = result.targets
    assert other.equal
    if layer == "first" and not every_layer and naive(graph, x)[2][sample, 1, 2, 3] == 3:
        return  # clipped behind, hence not seen in the outputs
    assert not result.equal
    assert not found.equal
    difference = found.first_difference
    assert difference is not None
    exact = naive(graph, x)[position][(sample, *at)]
    assert difference.layer == graph.label(position)
    assert (difference.channel, difference.position) == (at[0], at[1:])
    assert (difference.expected, difference.got) == (exact, exact + change)
    assert difference.sample == sample
    if layer == "classes":
        assert (found.max_difference, found.differing_samples) == (1, 1)


def test_the_largest_difference_and_the_number_of_samples_are_those_of_the_outputs(only):
    graph = small()
    x = random_inputs(graph, 10)

    def target(part: IntegerGraph, folder: Path, given: np.ndarray) -> np.ndarray:
        value = naive(part, given)[-1].copy()
        for row, sample in zip(value, given, strict=True):
            place = next(i for i, each in enumerate(x) if np.array_equal(each, sample))
            if part.nodes[-1].name == "classes" and place in (4, 6, 7):
                row[2] -= 7 if place == 6 else 3
        return value

    only(mine=target)
    (found,) = verify(graph, x).targets
    assert (found.equal, found.max_difference, found.differing_samples) == (False, 7, 3)
    assert found.first_difference is not None
    assert (found.first_difference.sample, found.first_difference.channel) == (4, 2)


def test_every_layer_finds_what_the_outputs_hide(only):
    graph = IntegerGraph((*small().nodes, Node(Argmax(), (5,), "class")))
    x = random_inputs(graph, 6)
    only(mine=wrong_at("first/norm", (0, 0, 0), x[3]))
    hidden = verify(graph, x).targets[0]
    found = verify(graph, x, every_layer=True).targets[0]
    assert np.array_equal(naive(graph, x)[-1], module.TARGETS["mine"](graph, Path(), x)) == hidden.equal
    assert not found.equal
    assert found.first_difference is not None
    assert found.first_difference.layer == "node 2 (MultiThreshold first/norm)"
    assert found.max_difference == 1


def test_a_target_without_its_tool_is_skipped_unless_it_is_named(only):
    def missing(graph: IntegerGraph, folder: Path, x: np.ndarray) -> np.ndarray:
        raise ExportError("no compiler: install one")

    only(mine=right, other=missing)
    graph = small()
    x = random_inputs(graph, 3)
    result = verify(graph, x)
    assert result.equal
    assert [t.skipped for t in result.targets] == [None, "no compiler: install one"]
    assert not result.targets[1].equal
    with pytest.raises(ExportError, match="no compiler"):
        verify(graph, x, targets=["other"])
    only(other=missing)
    assert not verify(graph, x).equal  # nothing ran


def test_a_target_of_another_shape_is_no_agreement(only):
    only(mine=lambda graph, folder, x: naive(graph, x)[-1][:, :-1])
    graph = small()
    with pytest.raises(ExportError, match=r"mine puts out \(3, 4\)"):
        verify(graph, random_inputs(graph, 3), targets=["mine"])


def test_unknown_targets_and_no_samples_are_errors():
    graph = small()
    with pytest.raises(ConfigError, match=r"no target 'rust': onnx, qonnx, c, c_portable"):
        verify(graph, random_inputs(graph, 2), targets=["c", "rust"])
    with pytest.raises(ConfigError, match="training"):
        verify(graph, random_inputs(graph, 2), targets=["training"])  # there is no trained network
    with pytest.raises(ConfigError, match="no samples"):
        verify(graph, random_inputs(graph, 0))


def test_named_targets_run_in_their_order_and_progress_sees_each(only):
    only(one=right, two=right, three=right)
    graph, seen = small(), []
    result = verify(graph, random_inputs(graph, 2), targets=["three", "one"], progress=seen.append)
    assert [t.target for t in result.targets] == ["three", "one"]
    assert seen == result.targets


def test_slow_targets_take_fewer_samples(only, monkeypatch):
    only(mine=right)
    monkeypatch.setitem(MOST_SAMPLES, "mine", 3)
    graph = small()
    result = verify(graph, random_inputs(graph, 8))
    assert (result.samples, result.targets[0].samples) == (8, 3)


def test_more_samples_than_a_batch_are_compared_to_the_last(only):
    graph = small()
    x = random_inputs(graph, 2 * module.BATCH + 3)
    only(mine=wrong_at("classes", (0,), x[-1]))
    (found,) = verify(graph, x).targets
    assert found.differing_samples == 1
    assert found.first_difference is not None
    assert found.first_difference.sample == len(x) - 1


def test_the_report_is_json_with_the_facts_of_every_target(only):
    graph = small()
    x = random_inputs(graph, 4)
    only(mine=wrong_at("classes", (2,), x[0]), other=right)
    report = json.loads(json.dumps(verify(graph, x).as_json()))
    assert set(report) == {"equal", "samples", "targets"}
    assert (report["equal"], report["samples"]) == (False, 4)
    assert set(report["targets"]) == {"mine", "other"}
    mine = report["targets"]["mine"]
    assert mine["max_difference"] == 1
    assert mine["first_difference"]["layer"] == "node 5 (MatMul classes)"
    assert set(mine["first_difference"]) == {"layer", "sample", "channel", "position", "expected", "got"}
    assert report["targets"]["other"]["first_difference"] is None


# beginnings of graphs


@pytest.mark.parametrize("seed", range(12))
def test_the_beginning_of_a_graph_computes_its_last_node(seed):
    graph = random_graph(seed)
    x = np.random.default_rng(seed).integers(graph.input.lowest, graph.input.highest + 1, (3, *graph.input.shape))
    values = naive(graph, x)
    for position, edge in enumerate(graph.edges):
        part = reaching(graph.nodes, position)
        assert np.array_equal(naive(part, x)[-1], values[position])
        assert part.nodes[-1].name == graph.nodes[position].name
        assert len(part.nodes) <= position + 1
        assert (part.output.lows.tolist(), part.output.highs.tolist()) == (edge.lows.tolist(), edge.highs.tolist())
        used = {i for node in part.nodes for i in node.inputs}
        assert used | {0, len(part.nodes) - 1} == set(range(len(part.nodes)))


def test_random_inputs_stay_in_the_range_and_hold_both_ends_of_it():
    graph = IntegerGraph((Node(Input((3, 2, 2), -7, 12, 5)),))
    x = random_inputs(graph, 50)
    assert x.shape == (50, 3, 2, 2)
    assert (x[0] == -7).all()
    assert (x[1] == 12).all()
    assert set(np.unique(x[2:])) == set(range(-7, 13))
    assert np.array_equal(x, random_inputs(graph, 50))
    assert (random_inputs(graph, 1) == -7).all()


# the training code


def tiny() -> tuple[Network, Weights]:
    network = Network(
        (
            NetworkNode(Pixels((1, 6, 5), offset=(100.0,))),
            NetworkNode(Conv2d(4, 3, Ternary()), (0,), "stem"),
            NetworkNode(BatchNorm(FixedPoint(3)), (1,), "stem/norm"),
            NetworkNode(Conv2d(5, 3, FixedPoint(4), 2), (2,), "second"),
            NetworkNode(BatchNorm(FixedPoint(4)), (3,), "second/norm"),
            NetworkNode(GlobalSum(), (4,)),
            NetworkNode(Linear(3, FixedPoint(4)), (5,), "classes"),
        )
    )
    weights = Weights([network])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*weights.named_parameters(), *weights.named_buffers()]:
            if name.endswith(("gain", "offset")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            elif name.endswith("variance"):
                tensor.fill_(40000.0 if "stem" in name else 400.0)
    return network, weights


def test_the_training_code_is_equal_to_its_own_lowering(only):
    only(mine=right)
    network, weights = tiny()
    lowering = lowered(network, weights)
    result = verify(lowering.graph, random_inputs(lowering.graph, 300), trained=(network, weights, lowering))
    assert [(t.target, t.equal, t.samples) for t in result.targets] == [("training", True, 300), ("mine", True, 300)]


def test_a_weight_changed_after_lowering_is_found_in_its_layer(only):
    only()
    network, weights = tiny()
    lowering = lowered(network, weights)
    x = random_inputs(lowering.graph, 260)
    with torch.no_grad():
        weights["second"][2] = -weights["second"][2]
    result = verify(lowering.graph, x, trained=(network, weights, lowering), targets=["training"])
    before, after = (naive(graph, x)[3] for graph in (lowering.graph, lowered(network, weights).graph))
    (found,) = result.targets
    assert not result.equal
    difference = found.first_difference
    assert difference is not None
    assert difference.layer == "node 3 (Conv second)"
    sample, channel, *position = np.argwhere(before != after)[0].tolist()
    assert channel == 2
    assert (difference.sample, difference.channel, difference.position) == (sample, channel, tuple(position))
    assert difference.expected == before[sample, channel, *position]
    assert difference.got == after[sample, channel, *position]
    assert found.differing_samples == (before != after).any((1, 2, 3)).sum()


# the targets there are


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_lowered_network_is_the_same_integers_in_every_target(name):
    network, weights = tiny()
    lowering = lowered(network, weights)
    result = verify(lowering.graph, random_inputs(lowering.graph, 12), every_layer=name in ("onnx", "c"))
    found = next(t for t in result.targets if t.target == name)
    if found.skipped:
        pytest.skip(found.skipped)
    assert found.equal, found.first_difference
