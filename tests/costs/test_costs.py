"""Every cost keeps the contract, and gives the figures that a small network has by hand."""

from __future__ import annotations

import math

import pytest

from bitwright import Network, catalogue
from bitwright.costs import Cost, CostModel
from bitwright.costs.bit_operations import BitOperations
from bitwright.costs.macs import Macs
from bitwright.costs.parameters import Parameters
from bitwright.costs.weight_bits import WeightBits
from bitwright.costs.weight_precision import WeightPrecision
from bitwright.network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Node,
)
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform
from bitwright.spaces.enas_micro import EnasMicro

# An 9x8 image: after a stride of 2 it measures 5x4.
QUANTIZED = Network(
    (
        Node(Input((3, 9, 8))),  # 8 bits
        Node(Conv2d(4, 3, FixedPoint(4)), (0,), "stem"),
        Node(BatchNorm(Uniform(3, signed=False, step=1.0)), (1,), "stem/norm"),
        Node(DepthwiseConv2d(5, Binary(), stride=2), (2,), "cell0/a"),
        Node(BatchNorm(Ternary(clip_gradient=True)), (3,), "cell0/a/norm"),
        Node(MaxPool2d(3, stride=2), (2,)),
        Node(Conv2d(6, 1, Ternary(), blocks=("left", "right")), (4, 5), "cell0/b"),
        Node(BatchNorm(Binary()), (6,), "cell0/b/norm"),
        Node(GlobalSumPool(), (7,)),  # -20 to 20: 6 bits
        Node(Linear(10, Uniform(8)), (8,), "classifier"),
    )
)
REAL = Network(
    (
        Node(Input((1, 4, 4), (1.5,), (0.5,))),
        Node(Conv2d(2, 3, Real()), (0,), "stem"),
        Node(BatchNorm(), (1,), "stem/norm"),
        Node(Activation(Relu()), (2,), "act"),
        Node(AveragePool2d(3), (3,)),
        Node(Add(), (3, 4)),
        Node(GlobalSumPool(), (5,)),
        Node(Linear(3, Real()), (6,), "classifier"),
    )
)
NETWORKS = {
    "quantized": QUANTIZED,
    "real": REAL,
    "only an input": Network((Node(Input((1, 2, 2))),)),
    **{
        f"{ops} {wiring}": space.network(next(space.covering()))
        for ops in ("enas", "mixed")
        for wiring in ("classic", "integer")
        for space in [EnasMicro(image=(1, 28, 28), ops=ops, wiring=wiring, filters=4, auxiliary=True)]
    },
}
COSTS = {name: catalogue.find("costs", name)() for name in catalogue.names("costs")}


# the contract


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_cost_is_a_non_negative_figure_per_node_that_makes_the_total(cost: CostModel, network: Network) -> None:
    counted = cost(network)
    assert counted.unit
    assert set(counted.per_node) <= set(range(len(network.nodes)))
    figures = list(counted.per_node.values())
    assert all(figure >= 0 and math.isfinite(figure) for figure in figures)
    assert counted.total == (sum(figures) if counted.combine == "sum" else max(figures, default=0))
    assert cost(network) == counted


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_the_trunk_costs_what_the_network_without_an_auxiliary_head_does(cost: CostModel) -> None:
    space = EnasMicro(image=(1, 28, 28), filters=4)
    architecture = next(space.covering())
    with_head = EnasMicro(image=(1, 28, 28), filters=4, auxiliary=True).network(architecture)
    assert cost(with_head.trunk) == cost(space.network(architecture))
    assert cost(with_head).total >= cost(with_head.trunk).total


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_a_network_too_large_to_run_is_counted_all_the_same(cost: CostModel) -> None:
    network = Network(
        (
            Node(Input((3, 2**20, 2**20))),
            Node(Conv2d(2**20, 7, FixedPoint(8)), (0,), "cell0/a"),
            Node(Conv2d(2**20, 7, FixedPoint(8)), (1,), "cell0/b"),
        )
    )
    assert cost(network).total > 0


def test_figures_combine_by_their_sum_or_their_largest() -> None:
    assert Cost("bits", {1: 2.0, 5: 3.0}).total == 5.0
    assert Cost("bits", {1: 2.0, 5: 3.0}, "max").total == 3.0
    assert Cost("bits", {}).total == Cost("bits", {}, "max").total == 0


# figures by hand


def test_macs_are_output_pixels_times_weights() -> None:
    assert Macs()(QUANTIZED).per_node == {
        1: 9 * 8 * 4 * 3 * 3 * 3,
        3: 5 * 4 * 4 * 5 * 5,
        6: 5 * 4 * 6 * (4 + 4),
        9: 10 * 6,
    }
    assert Macs()(QUANTIZED).total == 7776 + 2000 + 960 + 60


def test_bit_operations_are_macs_times_weight_bits_times_activation_bits() -> None:
    assert BitOperations()(QUANTIZED).per_node == {
        1: 7776 * 4 * 8,  # 4-bit weights on bytes
        3: 2000 * 1 * 3,  # binary weights on 3-bit activations
        6: 960 * 2 * 3,  # ternary weights; the wider of a 2-bit and a 3-bit input
        9: 60 * 8 * 6,  # 8-bit weights on sums of 20 signs
    }


def test_real_numbers_count_as_32_bits() -> None:
    assert Macs()(REAL).per_node == {1: 16 * 2 * 9, 7: 3 * 2}
    assert BitOperations()(REAL).per_node == {1: 288 * 32 * 32, 7: 6 * 32 * 32}
    assert WeightBits()(REAL).total == 32 * Parameters()(REAL).total
    real_on_bytes = Network((Node(Input((1, 4, 4))), Node(Conv2d(2, 3, Real()), (0,), "stem")))
    assert BitOperations()(real_on_bytes).total == 288 * 32 * 8


def test_parameters_are_weights_and_two_numbers_per_normalised_channel() -> None:
    assert Parameters()(QUANTIZED).per_node == {1: 108, 2: 8, 3: 100, 4: 8, 6: 48, 7: 12, 9: 60}
    assert Parameters()(REAL).per_node == {1: 18, 2: 4, 7: 6}


def test_weight_bits_are_weights_at_their_precision_and_normalisations_at_32_bits() -> None:
    assert WeightBits()(QUANTIZED).per_node == {
        1: 108 * 4,
        2: 8 * 32,
        3: 100 * 1,
        4: 8 * 32,
        6: 48 * 2,
        7: 12 * 32,
        9: 60 * 8,
    }


@pytest.mark.parametrize(
    ("quantizer", "bits"),
    [(Real(), 32), (Binary(), 1), (Ternary(), 2), (FixedPoint(2), 2), (FixedPoint(8), 8), (Uniform(5), 5)],
    ids=repr,
)
def test_the_bits_of_a_weight(quantizer: Real, bits: int) -> None:
    network = Network((Node(Input((1, 1, 1))), Node(Conv2d(1, 1, quantizer), (0,), "cell0")))
    assert WeightBits()(network).total == WeightPrecision()(network).total == bits


def test_the_weight_precision_is_the_widest_of_the_cells_without_stem_and_classifier() -> None:
    cost = WeightPrecision()(QUANTIZED)
    assert cost.per_node == {3: 1, 6: 2}
    assert cost.total == 2
    assert WeightPrecision(prefix="")(QUANTIZED).total == 4
    assert WeightPrecision()(REAL).total == 0


def test_a_cheaper_precision_costs_fewer_bits_and_as_many_macs() -> None:
    space = EnasMicro(image=(1, 8, 8), nodes=1, precisions=("binary", "4"), filters=4)
    binary, four = (space.network(space.architecture([0, op, 0, 4] * 2)) for op in (0, 1))  # beside an average pool
    assert Macs()(binary) == Macs()(four)
    assert Parameters()(binary) == Parameters()(four)
    separable = [p for p, n in enumerate(binary.nodes) if "/sep3x3/" in n.key and binary.weights(p)]
    saved = sum(3 * w.size for p in separable for w in binary.weights(p))
    assert WeightBits()(four).total - WeightBits()(binary).total == saved > 0
