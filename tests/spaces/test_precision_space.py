"""The bits of every layer of one network: what is decided, what it costs, and that any choice has an integer form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from bitwright.architecture import Architecture
from bitwright.costs import CostModel
from bitwright.costs.bit_operations import BitOperations
from bitwright.costs.exact import Exact
from bitwright.costs.memory_bits import MemoryBits
from bitwright.costs.micronet import Micronet
from bitwright.costs.weight_bits import WeightBits
from bitwright.errors import ConfigError
from bitwright.integer.compare import differences
from bitwright.integer.lower import lowered
from bitwright.integer.run import Executor
from bitwright.modules import Gates, Training, Weights, forward, tensor_names
from bitwright.network import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
)
from bitwright.networks.inverted_residual import Block, BlockList, Options, build
from bitwright.precision import rectified_activation
from bitwright.quantizers import Levels, Quantizer
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.uniform import Uniform
from bitwright.spaces.precision import Precision
from bitwright.spaces.resnet import Resnet
from bitwright.workload.rows import workload
from random_networks import Builder, some_images, trained

COSTS: list[CostModel] = [
    BitOperations(), WeightBits(), MemoryBits(), Exact(), Micronet(), Micronet(accumulator="exact"),
]  # fmt: skip
MEAN, DEVIATION = (120.0, 120.0, 120.0), (60.0, 60.0, 60.0)


def space_of(network: Network, **options: object) -> Precision:
    shape, classes = network.shapes[0], network.trunk.shapes[-1][0]
    return Precision(shape, classes, MEAN, DEVIATION, network, **options)  # type: ignore[arg-type]


def resnet(**options: object) -> Network:
    space = Resnet((3, 8, 8), 5, MEAN, DEVIATION, blocks=1, widths=(4, 6), **options)  # type: ignore[arg-type]
    return space.network(space.architecture(()))


def mobile() -> Network:
    blocks = BlockList(6, ((Block(3, 1, 4),), (Block(5, 3, 6, 2), Block(3, 2, 6, shortcut=True))), 10, 12, classes=5)
    return build(blocks, Options(weight_bits=8, depthwise_bits=8))


def tiny(quantizer: Quantizer, weight: Quantizer) -> Network:
    """Two convolutions and a classifier."""
    return Network(
        (
            Node(Input((3, 6, 6), (128.0,), (1 / 64,))),
            Node(Conv2d(4, 3, weight), (0,), "a"),
            Node(BatchNorm(quantizer), (1,), "a/norm"),
            Node(MaxPool2d(2, 2), (2,)),
            Node(Conv2d(4, 1, weight), (3,), "b"),
            Node(BatchNorm(quantizer), (4,), "b/norm"),
            Node(GlobalSumPool(), (5,)),
            Node(Linear(5, weight), (6,), "classes"),
        )
    )


def quantizer_of(node: Node) -> Quantizer:
    match node.op:
        case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer) | Linear(weight=quantizer):
            return quantizer
        case BatchNorm(activation=quantizer) | Activation(quantizer=quantizer):
            return quantizer
        case _:
            raise AssertionError(node)


def by_key(network: Network) -> dict[str, Node]:
    return {node.key: node for node in network.nodes if node.key}


def names(space: Precision) -> list[str]:
    return [decision.name for decision in space.decisions]


def test_every_choice_of_a_tiny_network_is_another_network_with_the_same_tensors() -> None:
    space = space_of(tiny(Uniform(8, signed=False, step="learned"), Uniform(8)), weight_bits=(2, 8))
    assert names(space) == ["a/weights", "a/norm/values", "b/weights", "b/norm/values", "classes/weights"]
    assert [decision.options for decision in space.decisions] == [
        ("2", "8"), ("2", "3", "4", "8"), ("2", "8"), ("2", "3", "4", "8"), ("2", "8"),
    ]  # fmt: skip
    networks = []
    for choices in itertools.product(range(2), range(4), range(2), range(4), range(2)):
        network = space.network(space.architecture(choices))
        bits = [int(d.options[c]) for d, c in zip(space.decisions, choices, strict=True)]
        nodes = by_key(network)
        assert [quantizer_of(nodes[key]).bits for key in ("a", "a/norm", "b", "b/norm", "classes")] == bits
        assert tensor_names(network) == tensor_names(space.base)
        networks.append(network)
    assert len(set(networks)) == 2 * 4 * 2 * 4 * 2
    assert networks[-1] == space.base  # eight bits everywhere
    assert space.network(next(iter(space.covering()))) == space.base


def test_what_is_added_has_one_number_of_bits() -> None:
    space = space_of(resnet())
    assert names(space) == [
        "init_block/conv/weights", "init_block/bn/values",
        "stage1/unit1/conv1/weights", "stage1/unit1/bn1/values", "stage1/unit1/conv2/weights", "stage1/group/values",
        "stage2/unit1/conv1/weights", "stage2/unit1/bn1/values", "stage2/unit1/conv2/weights", "stage2/group/values",
        "stage2/unit1/shortcut_conv/weights",
        "output/weights",
    ]  # fmt: skip
    choices = [3] * 12
    choices[names(space).index("stage2/group/values")] = 1
    nodes = by_key(space.network(space.architecture(choices)))
    assert quantizer_of(nodes["stage2/unit1/bn2"]).bits == quantizer_of(nodes["stage2/unit1/shortcut_bn"]).bits == 3
    assert nodes["stage2/unit1/add"].op == Add(Levels.between(0, 3))  # from -3 to 3, rectified
    assert nodes["stage1/unit1/add"].op == Add(Levels.between(0, 127))


def test_fixed_steps_are_tied_where_they_are_added_and_follow_the_bits() -> None:
    def network(left: Quantizer, right: Quantizer, limit: Levels | None) -> Network:
        return Network(
            (
                Node(Input((3, 4, 4), (128.0,), (1 / 64,))),
                Node(Conv2d(4, 1, FixedPoint(8)), (0,), "a"),
                Node(BatchNorm(left), (1,), "a/norm"),
                Node(Conv2d(4, 1, FixedPoint(8)), (0,), "b"),
                Node(BatchNorm(right), (3,), "b/norm"),
                Node(Add(limit), (2, 4), "sum"),
                Node(GlobalSumPool(), (5,)),
                Node(Linear(5, FixedPoint(8)), (6,), "classes"),
            )
        )

    rectified = rectified_activation("8")
    space = space_of(network(rectified, rectified, rectified.levels))
    assert names(space) == ["a/weights", "a/norm/values", "b/weights", "classes/weights"]
    nodes = by_key(space.network(space.architecture((0, 0, 0, 0))))
    assert quantizer_of(nodes["b/norm"]) == rectified_activation("2") == Uniform(2, signed=False, step=1.0)
    assert quantizer_of(nodes["b"]) == FixedPoint(2)
    # a byte from 0 and one that is signed have one step; they keep it when both lose bits
    half = Uniform(7, signed=False, step=1 / 128)
    space = space_of(network(FixedPoint(8), half, None))
    nodes = by_key(space.network(space.architecture((3, 1, 3, 3))))
    assert quantizer_of(nodes["a/norm"]) == FixedPoint(3)
    assert quantizer_of(nodes["b/norm"]) == Uniform(2, signed=False, step=1 / 4)
    # where one of them has no number of bits, or a sum ends elsewhere, nothing is decided
    assert "a/norm/values" not in names(space_of(network(rectified, Binary(), None)))
    assert "a/norm/values" not in names(space_of(network(rectified, rectified, Levels.between(-3, 2))))


@pytest.mark.parametrize("seed", range(12))
def test_any_choice_in_a_random_network_computes_its_integers(seed: int) -> None:
    network = Builder(seed).network()
    check_integers(space_of(network), seed, count=2)


@pytest.mark.parametrize("network", [resnet(), mobile()], ids=["resnet", "mobile"])
@pytest.mark.parametrize("together", [False, True])
def test_any_choice_in_a_residual_network_computes_its_integers(network: Network, together: bool) -> None:
    check_integers(space_of(network, together=together), seed=3, count=4)


def check_integers(space: Precision, seed: int, count: int) -> None:
    """Every layer of the lowered network equals training code, for random choices on the weights of the base."""
    rng, x = np.random.default_rng(seed), some_images(space.base, seed)
    weights = trained(space.base, seed, x)
    for _ in range(count):
        network = space.network(space.sample(rng))
        lowering = lowered(network, weights)
        for _, exact, codes in differences(network, weights, lowering, x, Executor(lowering.graph)):
            assert torch.equal(exact.double(), codes.double())


@pytest.mark.parametrize("network", [resnet(), mobile(), tiny(rectified_activation("8"), FixedPoint(8))])
@pytest.mark.parametrize("together", [False, True])
def test_costs_are_sums_of_parts_that_depend_on_their_decisions_alone(network: Network, together: bool) -> None:
    space, rng = space_of(network, together=together), np.random.default_rng(0)
    prefixes = {part.prefix: part for part in space.cost_parts()}
    first, second = space.sample(rng), space.sample(rng)
    for cost in COSTS:
        costs = [keyed(cost, space.network(each)) for each in (first, second)]
        for key in costs[0]:
            if key not in prefixes:
                assert costs[0][key] == costs[1][key]
        for key, part in prefixes.items():
            choices = [first.choices[i] if i in part.decisions else o for i, o in enumerate(second.choices)]
            mixed = keyed(cost, space.network(space.architecture(choices)))
            assert mixed.get(key, 0) == pytest.approx(costs[0].get(key, 0), rel=1e-12)
    assert max(len(part.decisions) for part in prefixes.values()) <= 3  # weights, values read and written


def keyed(cost: CostModel, network: Network) -> dict[str, float]:
    """Of nodes by key."""
    return {network.nodes[i].key: figure for i, figure in cost(network).per_node.items()}


@pytest.mark.parametrize("network", [resnet(), mobile()], ids=["resnet", "mobile"])
def test_bit_operations_are_those_of_the_base_counted_at_other_bits(network: Network) -> None:
    space, rectified = space_of(network), Add(Levels.between(0, 127))
    for bits in (2, 3, 4, 8):
        # a sum that ends at 0 has the upper half of its grid, in one bit less
        values = [8 if isinstance(node.op, Input) else bits - (node.op == rectified) for node in space.base.nodes]
        counted = BitOperations().totals(space.base, bits, values)
        assert BitOperations()(space.network(space.uniform(bits))).total == pytest.approx(float(counted))
    assert len(workload(space.base)) == len(network.nodes)


def test_gates_name_the_quantizers_that_the_network_takes() -> None:
    space, rng = space_of(resnet()), np.random.default_rng(1)
    architecture = space.sample(rng)
    network = space.network(architecture)
    choices = space.gated(architecture)
    assert [choice.decision for choice in choices] == list(range(len(space.decisions)))
    grids = {getattr(node.op, "scale_key", "") or node.key: node for node in network.nodes}
    for choice in choices:
        for key, quantizers in choice.quantizers.items():
            assert len(quantizers) == 4
            assert quantizer_of(grids[key]) == quantizers[architecture.choices[choice.decision]]
    weights = Weights([network])
    gates = {
        key: Gates(quantizers, torch.zeros(4, requires_grad=True))
        for choice in choices
        for key, quantizers in choice.quantizers.items()
    }
    logits, _ = forward(network, weights, some_images(network, 0), training=Training(gates=gates))
    logits.square().mean().backward()  # type: ignore[no-untyped-call]
    for gate in gates.values():
        assert gate.values.grad is not None and bool(gate.values.grad.isfinite().all())
        assert len(set(gate.values.grad.tolist())) > 1


def test_bits_together_are_one_decision_for_a_layer_and_what_it_reads() -> None:
    space = space_of(tiny(Uniform(8, signed=False, step="learned"), Uniform(8)), together=True)
    assert names(space) == ["a/weights", "b/bits", "classes/bits"]  # pixels have no other bits
    nodes = by_key(space.network(space.architecture((0, 1, 2))))
    assert [quantizer_of(nodes[key]).bits for key in ("a", "a/norm", "b", "b/norm", "classes")] == [2, 3, 3, 4, 4]
    residual = space_of(resnet(), together=True)
    assert names(residual) == [
        "init_block/conv/weights", "stage1/unit1/conv1/bits", "stage1/unit1/conv2/bits", "stage2/unit1/conv1/bits",
        "stage2/unit1/conv2/bits", "output/bits",
    ]  # fmt: skip


def test_what_is_kept_is_not_decided() -> None:
    space = space_of(resnet(), keep=("init_block/conv", "output", "stage2/group"))
    assert set(names(space_of(resnet()))) - set(names(space)) == {
        "init_block/conv/weights", "output/weights", "stage2/group/values",
    }  # fmt: skip
    nodes = by_key(space.network(space.uniform(2)))
    assert quantizer_of(nodes["output"]).bits == quantizer_of(nodes["stage2/unit1/bn2"]).bits == 8


def test_binary_and_real_layers_stay() -> None:
    network = tiny(Uniform(8, signed=False, step="learned"), Uniform(8))
    nodes = list(network.nodes)
    nodes[1] = replace(nodes[1], op=Conv2d(4, 3, Binary()))
    nodes[4] = replace(nodes[4], op=Conv2d(4, 1, Real()))
    assert names(space_of(Network(tuple(nodes)))) == ["a/norm/values", "b/norm/values", "classes/weights"]


@pytest.mark.parametrize(("bits", "found"), [(2, "2"), (3, "4"), (5, "4"), (6, "8"), (8, "8")])
def test_uniform_takes_the_nearest_bits_and_of_two_the_larger(bits: int, found: str) -> None:
    space = space_of(resnet(), weight_bits=(2, 4, 8), activation_bits=(2, 4, 8))
    architecture = space.uniform(bits)
    chosen = {d.options[c] for d, c in zip(space.decisions, architecture.choices, strict=True)}
    assert isinstance(architecture, Architecture) and chosen == {found}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": (4, 2)}, "rising"),
        ({"activation_bits": ()}, "rising"),
        ({"weight_bits": (1, 2)}, "from 2 to 8"),
        ({"activation_bits": (4, 16)}, "from 2 to 8"),
        ({"together": True, "weight_bits": (4, 8)}, "the same"),
        ({"keep": ("stage9",)}, "stage9"),
        ({"keep": ("",)}, "train it with 8 bits first"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Sequence[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(resnet(), **options)


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="train it with 8 bits first"):
        space_of(resnet(weights="float", activations="float", first_last="float"))
    for shape, classes in (((3, 9, 9), 5), ((3, 8, 8), 4)):
        with pytest.raises(ConfigError, match="the data set has"):
            Precision(shape, classes, MEAN, DEVIATION, resnet())
