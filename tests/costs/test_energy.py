"""Energy by hand, from the published energies of single operations."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright import Network
from bitwright.costs.energy import Energy, addition, multiplication
from bitwright.costs.memory_bits import MemoryBits
from bitwright.errors import ConfigError
from bitwright.integer import graph as integers
from bitwright.integer.graph import IntegerGraph
from bitwright.network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
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

COMPUTED = Energy(weights="none", activations="none")
ADD8, ADD32, MULTIPLY8, MULTIPLY32 = 0.03, 0.1, 0.2, 3.1  # pJ
PER_BIT = {"8KB": 10 / 64, "32KB": 20 / 64, "1MB": 100 / 64, "DRAM": 1300 / 64}

QUANTIZED = Network(
    (
        Node(Input((3, 9, 8))),  # 8 bits
        Node(Conv2d(4, 3, FixedPoint(8)), (0,), "stem"),  # 7776 MACs
        Node(BatchNorm(Uniform(3, signed=False, step=1.0)), (1,), "stem/norm"),  # 288 numbers, 7 thresholds
        Node(MaxPool2d(3), (2,)),
        Node(GlobalSumPool(), (3,)),
        Node(Linear(10, Uniform(8)), (4,), "classifier"),
    )
)
REAL = Network(
    (
        Node(Input((1, 4, 4), (1.5,), (0.5,))),
        Node(Conv2d(2, 3, Real()), (0,), "stem"),  # 288 MACs, 32 numbers
        Node(BatchNorm(), (1,), "stem/norm"),
        Node(Activation(Relu()), (2,), "act"),
        Node(AveragePool2d(3), (3,)),
        Node(Add(), (3, 4)),
        Node(BatchNorm(), (5,), "norm"),  # behind no convolution
        Node(GlobalSumPool(), (6,)),
        Node(Linear(3, Real()), (7,), "classifier"),
    )
)


def test_the_published_energies_are_met() -> None:
    assert [addition(float(bits)) for bits in (8, 32)] == pytest.approx([ADD8, ADD32])
    assert [multiplication(float(bits * bits)) for bits in (8, 32)] == pytest.approx([MULTIPLY8, MULTIPLY32])
    assert addition(16.0) == pytest.approx(0.05, rel=0.07)  # published, and not used


def test_one_bit_takes_some_energy_too() -> None:
    assert 0 < addition(1.0) < ADD8 / 3
    assert 0 < multiplication(1.0) < MULTIPLY8 / 20


def test_integers_are_multiplied_at_their_bits_and_added_at_the_accumulators() -> None:
    picojoules = {position: 1000 * each for position, each in COMPUTED(QUANTIZED).per_node.items()}
    assert picojoules[1] == pytest.approx(7776 * MULTIPLY8 + (7776 - 288) * ADD32)
    assert picojoules[2] == pytest.approx(288 * 3 * ADD32)  # a binary search in 7 thresholds
    assert picojoules[3] == pytest.approx(288 * 8 * addition(3.0))
    assert picojoules[4] == pytest.approx(4 * 71 * addition(9.0))  # sums of 72 numbers up to 7 are up to 504
    assert picojoules[5] == pytest.approx(40 * multiplication(8.0 * 9.0) + (40 - 10) * ADD32)


def test_real_numbers_are_multiplied_and_added_as_float32() -> None:
    picojoules = {position: 1000 * each for position, each in COMPUTED(REAL).per_node.items()}
    assert picojoules == pytest.approx(
        {
            1: 288 * 3.7 + (288 - 32) * 0.9,
            2: 32 * 0.9,  # an offset; the gain is folded, the rectifier behind it free
            4: 32 * (8 * 0.9 + 3.7),
            5: 32 * 0.9,
            6: 32 * (3.7 + 0.9),
            7: 2 * (15 * 0.9 + 3.7),
            8: 6 * 3.7 + (6 - 3) * 0.9,
        }
    )


@pytest.mark.parametrize("weight", [Binary(), Ternary()], ids=repr)
def test_signs_of_real_numbers_change_for_nothing(weight: Binary | Ternary) -> None:
    network = Network((Node(Input((1, 4, 4), (1.5,), (0.5,))), Node(Conv2d(2, 3, weight), (0,), "stem")))
    assert COMPUTED(network).total == pytest.approx((288 - 32) * 0.9 / 1000)


def test_thresholds_behind_real_sums_are_compared_as_float32() -> None:
    norm = Node(BatchNorm(Uniform(4, signed=False, step=1.0)), (1,), "norm")  # 15 thresholds, a search of 4
    network = Network((Node(Input((1, 4, 4))), Node(Conv2d(2, 3, Real()), (0,), "stem"), norm))
    assert COMPUTED(network).per_node[2] == pytest.approx(32 * 4 * 0.9 / 1000)


def test_a_requantization_is_a_multiplication_and_an_addition() -> None:
    one, five = np.ones((2, 1, 1, 1), np.int64), np.full(2, 5, np.int64)
    nodes = (
        integers.Node(integers.Input((1, 2, 2), 0, 255)),
        integers.Node(integers.Conv(one, None), (0,), "conv"),
        integers.Node(integers.Requantize(five, np.zeros(2, np.int64), np.ones(2, np.int64), 0, 255), (1,), "scale"),
    )
    counted = COMPUTED(IntegerGraph(nodes))
    bits = 3  # 5 is 101
    assert counted.per_node[2] == pytest.approx(8 * (multiplication(32.0 * bits) + addition(32.0 + bits)) / 1000)


@pytest.mark.parametrize("memory", PER_BIT)
def test_constants_are_read_once(memory: str) -> None:
    found = Energy(weights=memory, activations="none")(QUANTIZED)  # type: ignore[arg-type]
    constants = MemoryBits()(QUANTIZED).total
    assert found.total - COMPUTED(QUANTIZED).total == pytest.approx(constants * PER_BIT[memory] / 1000)


@pytest.mark.parametrize("memory", PER_BIT)
def test_values_that_are_held_are_written_once_and_read_by_every_reader(memory: str) -> None:
    network = Network(
        (
            Node(Input((1, 4, 4))),
            Node(Conv2d(2, 3, FixedPoint(4)), (0,), "a"),  # read by its normalisation alone, so never held
            Node(BatchNorm(Uniform(3, signed=False, step=1.0)), (1,), "a/norm"),
            Node(Conv2d(2, 3, FixedPoint(4)), (2,), "b"),
            Node(BatchNorm(Uniform(3, signed=False, step=1.0)), (3,), "b/norm"),
            Node(Concat(), (2, 4)),  # moves nothing
            Node(MaxPool2d(3), (5,)),
        )
    )
    with_memory, without = Energy(weights="none", activations=memory)(network), COMPUTED(network)  # type: ignore[arg-type]
    bits = {i: (with_memory.per_node[i] - without.per_node[i]) * 1000 / PER_BIT[memory] for i in without.per_node}
    assert bits == pytest.approx({1: 16 * 8, 2: 32 * 3, 3: 32 * 3, 4: 32 * 3, 6: 64 * 3 + 64 * 3})


def test_fewer_bits_take_less_energy() -> None:
    totals = Energy().totals(QUANTIZED, [[bits] * 6 for bits in (1, 2, 4, 8)])
    assert (np.diff(totals) > 0).all()


def test_an_unknown_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"activations are kept in none, 8KB, 32KB, 1MB, DRAM, got 'tape'"):
        Energy(activations="tape")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="an accumulator is"):
        Energy(accumulator=0)
