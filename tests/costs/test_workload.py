"""The table under the costs: many bit widths at a time, integer graphs, and the memory of values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitwright import catalogue
from bitwright.costs import CostModel
from bitwright.costs.activation_memory import ActivationMemory
from bitwright.costs.bit_operations import BitOperations
from bitwright.costs.exact import Exact
from bitwright.costs.macs import Macs
from bitwright.costs.memory_bits import MemoryBits
from bitwright.costs.parameters import Parameters
from bitwright.errors import ConfigError
from bitwright.integer import graph as integers
from bitwright.integer.graph import IntegerGraph
from bitwright.integer.lower import lowered
from bitwright.network import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    GlobalSumPool,
    Input,
    Linear,
    Network,
    Node,
)
from bitwright.networks import named
from bitwright.networks.inverted_residual import Options, build
from bitwright.networks.published import BLOCK_LISTS
from bitwright.quantizers.uniform import Uniform
from bitwright.workload.accumulators import FORMULAS, channel_bits
from bitwright.workload.rows import workload
from bitwright.workload.table import Kind, Workload
from random_graphs import random_graph
from random_networks import Builder, some_images, trained

COSTS = {name: catalogue.find("costs", name)() for name in catalogue.names("costs")}
MOBILE14 = workload(named("mobile14-4b5b"))


def options_of(bits: int, depthwise: int) -> Options:
    return Options(weight_bits=bits, depthwise_bits=depthwise, first_layer_bits=8)


def candidate(work: Workload, bits: int, depthwise: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits of weights and values of every row, as `options_of` builds them."""
    weights, values = np.full(len(work), bits), np.full(len(work), bits)
    for i, row in enumerate(work.rows):
        if row.name == "init_block/conv" or row.kind == Kind.INPUT:
            weights[i] = values[i] = 8
        if row.name.endswith(("dw_conv", "bc_bn")):
            weights[i] = values[i] = depthwise
    return weights, values


# many bit widths at a time


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_candidates_cost_what_networks_built_with_their_bits_do(cost: CostModel) -> None:
    pairs = [(2, 2), (3, 4), (4, 5), (6, 6), (7, 3), (8, 8)]
    weights, values = (np.stack(each) for each in zip(*(candidate(MOBILE14, *p) for p in pairs), strict=True))
    found = cost.totals(MOBILE14, weights, values)
    assert found.shape == (len(pairs),)
    for total, pair in zip(found, pairs, strict=True):
        shifted = workload(build(BLOCK_LISTS["mobile14"], options_of(*pair)))  # its pool shifts by 6 as well
        assert total == pytest.approx(float(cost.total(shifted, shifted.designed)), rel=1e-12)


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
@pytest.mark.parametrize("seed", range(12))
def test_the_bits_that_a_network_has_cost_what_it_does(cost: CostModel, seed: int) -> None:
    work = workload(Builder(seed).network())
    same = work.designed
    bits = np.maximum(same.weight_bits, 1), np.minimum(same.value_bits, 32)
    assert cost.totals(work, *bits) == pytest.approx(float(cost.total(work, same)))


@pytest.mark.parametrize("seed", range(12))
def test_ranges_follow_from_those_of_quantizers_as_in_the_network(seed: int) -> None:
    network = Builder(seed).network()
    work = workload(network)
    designed = work.designed
    derived = work.widths(np.maximum(designed.weight_bits, 1))
    for i in work._dependent:
        known = network.ranges[i]
        assert known is not None
        assert (derived.value_low[i], derived.value_high[i], derived.value_bits[i]) == known


def test_a_number_stands_for_all_rows_and_candidates_may_differ_in_one_kind_of_bits() -> None:
    one = BitOperations().totals(MOBILE14, 2, 3)
    many = BitOperations().totals(MOBILE14, np.array([[2.0], [4.0]]) * np.ones(len(MOBILE14)), 3)
    assert one.shape == ()
    assert many.tolist() == [float(one), 2 * float(one)]
    assert float(one) == 2 * 3 * 580_883_408  # the classifier too reads 3 bits: (7 * 49) >> 6


@pytest.mark.parametrize("bits", [np.full(7, 4), 0, 33, 2.5])
def test_bits_that_fit_no_row_are_refused(bits: object) -> None:
    with pytest.raises(ConfigError, match="bits are"):
        MOBILE14.widths(bits)  # type: ignore[arg-type]


# the memory of values


def test_values_are_held_from_the_first_to_the_last_use() -> None:
    network = Network(
        (
            Node(Input((2, 4, 4))),  # 32 bytes
            Node(Conv2d(4, 3, Uniform(2)), (0,), "a"),  # never held
            Node(BatchNorm(Uniform(3, signed=False, step=1.0)), (1,), "a/norm"),  # 64 x 3
            Node(Conv2d(4, 1, Uniform(2)), (2,), "b"),
            Node(BatchNorm(Uniform(2, signed=False, step=1.0)), (3,), "b/norm"),  # 64 x 2
            Node(Add(), (2, 4), "add"),  # 0 to 10: 64 x 4
            Node(Concat(), (5, 2)),  # stays where it is
            Node(Dropout(0.5), (6,)),
            Node(GlobalSumPool(), (7,)),  # 0 to 160: 8 x 8
            Node(Linear(3, Uniform(2)), (8,), "classes"),  # +-1280: 3 x 12
        )
    )
    image, a, b, add, pool, classes = 256, 192, 128, 256, 64, 36
    cost = ActivationMemory()(network)
    assert list(cost.per_node.values()) == [
        image,
        image,  # held until the activation behind the convolution is done
        image + a,
        a,
        a + b,
        a + b + add,
        a + add,
        a + add,
        a + add + pool,
        pool + classes,
    ]
    assert cost.total == a + b + add


def test_the_entry_holds_most_in_its_first_wide_block() -> None:
    expanded, block_input = 72 * 112 * 112 * 5, 24 * 112 * 112 * 4
    assert ActivationMemory()(MOBILE14).total == expanded + block_input


# integer graphs


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_counts_as_the_network_that_it_was(seed: int) -> None:
    network = Builder(seed, dilated=False).network()
    weights = trained(network, seed, some_images(network, seed))
    graph = lowered(network, weights).graph
    assert Macs()(graph).total == Macs()(network).total
    assert sum(row.weights for row in workload(graph).rows) == sum(row.weights for row in workload(network).rows)
    biases = [row.biases for row in workload(graph).rows]
    assert Parameters()(graph).total == sum(row.weights for row in workload(network).rows) + sum(biases)


@pytest.mark.parametrize("seed", range(20))
def test_exact_sums_of_a_graph_hold_every_sum_and_no_more(seed: int) -> None:
    graph = random_graph(seed)
    work = workload(graph)
    found = channel_bits(work, work.designed, "exact")
    for node, edge, bits in zip(graph.nodes, graph.edges, found, strict=True):
        if isinstance(node.op, (integers.Conv, integers.MatMul)):
            ends = zip(edge.lows.tolist(), edge.highs.tolist(), strict=True)
            assert bits == sum(_two_complement(low, high) for low, high in ends)


def _two_complement(low: int, high: int) -> int:
    width = 1
    while not (-(2 ** (width - 1)) <= low and high < 2 ** (width - 1) if low < 0 else high < 2**width):
        width += 1
    return width


@pytest.mark.parametrize("accumulator", [7, *FORMULAS])
def test_every_formula_for_accumulators_has_an_answer_for_every_graph(accumulator: int | str) -> None:
    for seed in range(20):
        work = workload(random_graph(seed))
        bits = channel_bits(work, work.designed, accumulator)  # type: ignore[arg-type]
        assert (bits >= 0).all() and np.isfinite(bits).all()


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_a_cost_of_a_graph_is_a_non_negative_figure_per_node(cost: CostModel) -> None:
    for seed in range(10):
        graph = random_graph(seed)
        counted = cost(graph)
        assert set(counted.per_node) <= set(range(len(graph.nodes)))
        assert all(figure >= 0 and math.isfinite(figure) for figure in counted.per_node.values())


def test_the_memory_of_a_graph_is_that_of_its_constants() -> None:
    weight = np.array([[3, -4], [1, 0]])  # 3 bits
    thresholds = np.array([[-5, 0, 9], [-1, 2, 2]])
    requantize = integers.Requantize(np.array([3, 5]), np.array([-1, 0]), np.array([2, 2]), 0, 3)
    nodes = (
        integers.Node(integers.Input((2,), 0, 3)),
        integers.Node(integers.MatMul(weight, np.array([1, 2])), (0,)),  # -11 to 10 and 2 to 5: 5 and 3 bits
        integers.Node(integers.MultiThreshold(thresholds, (0, 1, 2, 3), np.array([1, -1])), (1,)),
        integers.Node(integers.MatMul(weight), (2,)),
        integers.Node(requantize, (3,)),
    )
    assert MemoryBits()(IntegerGraph(nodes)).per_node == {
        1: 4 * 3 + 5 + 3,
        2: 3 * (5 + 3) + 2,  # signs
        3: 4 * 3,
        4: 2 * 3 + 2 * 1 + 2 * 2,  # multipliers, addends, shifts
    }


def test_a_graph_needs_no_wider_sums_than_its_network() -> None:
    for seed in range(8):
        network = Builder(seed, dilated=False).network()
        graph = lowered(network, trained(network, seed, some_images(network, seed))).graph
        ours, theirs = (
            float(Exact().bits(w, w.designed).math["additions"][w.products].sum())
            for w in (workload(graph), workload(network))
        )
        assert ours <= theirs
