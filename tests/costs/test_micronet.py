"""Scores of the MicroNet challenge: published ones to the last digit, and the organisers' rules by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.costs import Score, ScoreModel
from bitwright.costs.additions import Additions
from bitwright.costs.exact import Exact
from bitwright.costs.macs import Macs
from bitwright.costs.micronet import Micronet
from bitwright.costs.micronet_2019_entry import Micronet2019Entry
from bitwright.costs.multiplications import Multiplications
from bitwright.costs.parameters import Parameters
from bitwright.errors import ConfigError
from bitwright.integer import graph as integers
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
    Network,
    Node,
    Op,
)
from bitwright.networks import named
from bitwright.networks.inverted_residual import Options, build
from bitwright.networks.published import BLOCK_LISTS
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.uniform import Uniform
from bitwright.workload.rows import workload
from bitwright.workload.table import Workload

ENTRY = Micronet2019Entry()
MOBILE14 = workload(named("mobile14-4b5b"))


def mobile14(bits: int, depthwise: int, first: int = 8) -> Workload:
    options = Options(weight_bits=bits, depthwise_bits=depthwise, first_layer_bits=first)
    return workload(build(BLOCK_LISTS["mobile14"], options))


# the entry


def test_the_entry_scores_what_was_published() -> None:
    score = ENTRY.score(MOBILE14)
    assert score == Score(36413208 / (6.9e6 * 32), 14635254664 / (1170e6 * 32), 0.5558137872445188)
    assert ENTRY.printed(MOBILE14) == 0.5558137893676758  # as the original program prints it, in float32


def test_the_entry_with_input_channels_in_its_accumulators() -> None:
    assert Micronet2019Entry(accumulator="brevitas-2019-in").score(MOBILE14).total == 0.541738932989595


def test_the_terms_of_the_entry() -> None:
    bits = ENTRY.bits(MOBILE14, MOBILE14.designed)
    assert {name: term.sum() for name, term in bits.memory.items() if term.any()} == {
        "weights": 27616280,
        "thresholds": 8777928,
        "biases": 19000,
    }
    assert {name: term.sum() for name, term in bits.math.items() if term.any()} == {
        "multiplications": 2445872912,
        "additions": 9539754784,
        "comparisons": 2649607968,
        "biases": 19000,
    }


def test_every_layer_of_the_entry(shared: Path) -> None:
    table = json.loads((shared / "reference" / "micronet_cost_table.json").read_text())
    for accumulator, field in (("brevitas-2019", "acc_bits"), ("brevitas-2019-in", "acc_bits_if_in_channels")):
        bits = Micronet2019Entry(accumulator=accumulator).bits(MOBILE14, MOBILE14.designed)
        expected: dict[str, dict[str, float]] = {}
        for layer in table["layers"]:
            if layer["type"] == "identity":
                continue
            found = expected.setdefault(_key(layer["name"]), dict.fromkeys(TERMS, 0.0))
            for ours, theirs in TERMS.items():
                scale = layer.get(field, 1) / layer.get("acc_bits", 1) if theirs in SCALED else 1
                found[ours] += layer.get(theirs, 0) * scale
        rows = {row.name or row.operation: i for i, row in enumerate(MOBILE14.rows)}
        assert expected.keys() == rows.keys() - {"Input"}
        for name, terms in expected.items():
            ours = {f"memory {n}": float(t[..., rows[name]]) for n, t in _broadcast(bits.memory).items()}
            ours |= {f"math {n}": float(t[..., rows[name]]) for n, t in _broadcast(bits.math).items()}
            assert {n: v for n, v in ours.items() if v} == {n: pytest.approx(v) for n, v in terms.items() if v}, name


TERMS = {
    "memory weights": "mem_weight_bits",
    "memory thresholds": "mem_threshold_bits",
    "memory biases": "mem_bias_bits",
    "math multiplications": "math_mul_bits",
    "math additions": "math_add_bits",
    "math comparisons": "math_compare_bits",
    "math biases": "math_bias_bits",
}
SCALED = ("mem_threshold_bits", "mem_bias_bits", "math_add_bits", "math_compare_bits", "math_bias_bits")


def _key(name: str) -> str:
    """The reference's name of a layer in our words; a sum and its requantization are one node of ours."""
    name = name.removesuffix("(shared)").replace("residual_add", "add").replace("residual_act", "add")
    name = name.replace("activ", "bn").replace("_act", "_bn").replace("final_pool", "GlobalSumPool")
    return name.replace(".", "/")


def _broadcast(terms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.broadcast_to(term, len(MOBILE14)) for name, term in terms.items()}


# the published variants; the reference rounds to six digits

IN = "brevitas-2019-in"
SATURATING: dict[str, Any] = {"residual": "saturation"}
VARIANTS: list[tuple[str, Workload, ScoreModel, float, float, float]] = [
    ("as published", MOBILE14, ENTRY, 0.164915, 0.390899, 0.555814),
    ("input channels", MOBILE14, Micronet2019Entry(accumulator=IN), 0.161745, 0.379994, 0.541739),
    ("brevitas", MOBILE14, Micronet2019Entry(accumulator="brevitas"), 0.161748, 0.380380, 0.542128),
    ("exact", MOBILE14, Exact(residual="thresholds"), 0.160289, 0.369176, 0.529465),
    ("saturation", MOBILE14, Exact(), 0.159705, 0.368293, 0.527998),
    ("binary search", MOBILE14, Exact(compare="binary"), 0.159705, 0.319267, 0.478972),
    ("4b/4b", mobile14(4, 4), ENTRY, 0.149655, 0.362222, 0.511876),
    ("4b/4b exact", mobile14(4, 4), Exact(residual="thresholds"), 0.147422, 0.344284, 0.491706),
    ("3b/4b exact", mobile14(3, 4), Exact("imagenet", "type", residual="thresholds"), 0.108714, 0.281431, 0.390145),
    ("3b/3b exact", mobile14(3, 3), Exact("imagenet", "type", residual="thresholds"), 0.102182, 0.268543, 0.370725),
    ("2b/2b exact", mobile14(2, 2), Exact("imagenet", "type", residual="thresholds"), 0.064999, 0.203146, 0.268145),
    ("5b/5b", mobile14(5, 5), ENTRY, 0.215355, 0.471630, 0.686985),
    ("6b/6b", mobile14(6, 6), ENTRY, 0.323322, 0.656047, 0.979369),
    ("8b/8b", mobile14(8, 8), ENTRY, 0.919056, 1.696914, 2.615970),
    ("8b/8b, no thresholds", mobile14(8, 8), Micronet2019Entry(thresholds="free"), 0.246836, 0.498782, 0.745618),
    ("32 bits", MOBILE14, Micronet2019Entry(accumulator=32), 0.199177, 0.704235, 0.903412),
    ("16 bits", MOBILE14, Micronet2019Entry(accumulator=16), 0.162417, 0.385258, 0.547675),
    ("float", workload(named("mobile14-float")), Micronet(), 0.990424, 0.999016, 1.989440),
    ("freebie", workload(named("mobile14-float")), Micronet(freebie=True), 0.495212, 0.747974, 1.243186),
]


@pytest.mark.parametrize(
    ("work", "rule", "memory", "math", "total"), [v[1:] for v in VARIANTS], ids=[v[0] for v in VARIANTS]
)
def test_variants_score_what_the_reference_has(
    work: Workload, rule: ScoreModel, memory: float, math: float, total: float
) -> None:
    score = rule.score(work)
    assert (round(score.memory, 6), round(score.math, 6)) == (memory, math)
    assert score.total == pytest.approx(total, abs=1.01e-6)


def test_the_variant_whose_values_are_all_four_bits_wide() -> None:
    rule = Micronet(bias="weight")
    work = workload(named("mobile14-4b"))
    assert rule.totals(work, 4, 4) == pytest.approx(0.683495, abs=5e-7)


# the reference does not say how wide its adder tree is; with RIAIR's published rule the same network scores a bit more


def test_an_adder_tree_takes_fewer_bits_than_one_accumulator() -> None:
    sequential, tree = (Exact(residual="thresholds", adds=adds).score(MOBILE14) for adds in ("sequential", "tree"))
    assert tree.memory == sequential.memory
    assert tree.math == pytest.approx(0.2635449)


@pytest.mark.parametrize("terms", [1, 2, 3, 7, 9, 24, 27, 100])
@pytest.mark.parametrize("signed", [False, True])
def test_the_bits_of_an_adder_tree_are_those_of_its_additions_one_by_one(terms: int, signed: bool) -> None:
    network = one_product(terms, 5, 1, Uniform(4), Uniform(6, signed=signed, step=1.0))
    width, left, expected = 4 + 6 - signed, terms, 0
    while left > 1:
        expected += left // 2 * width
        left, width = left - left // 2, width + 1
    assert _math(Exact(adds="tree"), network, "additions") == 5 * expected


# the organisers' rules, by hand


def one_product(channels: int, filters: int, side: int, weight: Any, activation: Any, kernel: int = 1) -> Network:
    """A convolution of an activation."""
    return Network(
        (
            Node(Input((channels, side, side))),
            Node(Activation(activation), (0,), "activation"),
            Node(Conv2d(filters, kernel, weight), (1,), "conv"),
        )
    )


def _math(rule: ScoreModel, network: Network, term: str) -> float:
    work = workload(network)
    return float(rule.bits(work, work.designed).math[term][-1])


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.9])
def test_a_convolution_counts_as_in_counting_py(sparsity: float) -> None:
    work = workload(one_product(6, 10, 8, Real(), Relu(), kernel=3))
    bits = Micronet(sparsity=sparsity).bits(work, work.designed)
    kept, outputs = 3 * 3 * 6 * (1 - sparsity), 8 * 8 * 10
    assert bits.math["multiplications"][-1] == pytest.approx(32 * kept * outputs)
    assert bits.math["additions"][-1] == pytest.approx(32 * (kept - 1) * outputs)
    stored = 32 * 540 * (1 - sparsity) + (540 if sparsity else 0)
    assert bits.memory["weights"][-1] + bits.memory["masks"][-1] == pytest.approx(stored)


def test_an_operation_counts_the_most_bits_of_what_it_takes() -> None:
    work = workload(one_product(6, 10, 8, Uniform(3), Uniform(5, signed=False, step=1.0)))
    bits = Micronet(accumulator=20).bits(work, work.designed)
    assert bits.math["multiplications"][-1] == 5 * 64 * 60
    assert bits.math["additions"][-1] == 20 * 64 * 50
    assert bits.memory["weights"][-1] == 3 * 60


BLOCK = Network(
    (
        Node(Input((3, 8, 8))),
        Node(Conv2d(4, 3, Real(), stride=2), (0,), "stem"),  # 4x4x4
        Node(BatchNorm(Relu()), (1,), "stem/norm"),
        Node(DepthwiseConv2d(3, Real()), (2,), "depthwise"),
        Node(BatchNorm(), (3,), "depthwise/norm"),
        Node(Add(), (2, 4), "add"),
        Node(BatchNorm(), (5,), "norm"),  # follows no product, so it stays
        Node(MaxPool2d(2, 2), (6,), "max"),
        Node(AveragePool2d(2, 1, "valid"), (7,), "average"),
        Node(GlobalSumPool(), (6,), "pool"),
        Node(Linear(5, Real(), bias=True), (9,), "classes"),
    )
)


def test_multiplications_and_additions_of_every_operation() -> None:
    stem, depthwise = 16 * 4 * 27, 16 * 4 * 9
    assert Multiplications()(BLOCK).per_node == {1: stem, 2: 64, 3: depthwise, 6: 64, 8: 4, 9: 4, 10: 20}
    assert Additions()(BLOCK).per_node == {
        1: stem - 64,
        2: 64,
        3: depthwise - 64,
        4: 64,
        5: 64,
        6: 64,
        7: 16 * 3,
        8: 4 * 3,
        9: 4 * 15,
        10: 15 + 5,
    }


def test_a_folded_normalisation_is_a_bias_and_any_other_two_numbers() -> None:
    work = workload(BLOCK)
    biases = Micronet().bits(work, work.designed).memory["biases"] / 32
    assert {i: n for i, n in enumerate(biases) if n} == {2: 4, 4: 4, 6: 8, 10: 5}


def test_a_bias_in_the_graph_takes_the_place_of_the_one_that_is_folded() -> None:
    weight, bias = np.ones((4, 3, 1, 1), dtype=np.int64), np.arange(4)
    thresholds = integers.MultiThreshold(np.zeros((4, 1), dtype=np.int64), (0, 1))
    for given, expected in ((None, [0, 0, 4]), (bias, [0, 4, 0])):
        nodes = (
            integers.Node(integers.Input((3, 2, 2))),
            integers.Node(integers.Conv(weight, given), (0,)),
            integers.Node(thresholds, (1,)),
        )
        work = workload(integers.IntegerGraph(nodes))
        assert (Micronet().bits(work, work.designed).memory["biases"] / 32).tolist() == expected


@pytest.mark.parametrize(("bits", "free"), [(16, True), (15, False), (4, False)])
def test_the_freebie_is_forfeited_by_fewer_than_16_bits(bits: int, free: bool) -> None:
    network = one_product(6, 10, 8, Uniform(bits), Real())
    plain, freed = Micronet().score(network), Micronet(freebie=True).score(network)
    assert (freed.math < plain.math) == free
    whole = one_product(6, 10, 8, Real(), Uniform(bits, step=1.0))
    assert (Micronet(freebie=True).score(whole).memory < Micronet().score(whole).memory) == free


def test_the_freebie_is_granted_candidate_by_candidate() -> None:
    work = workload(named("mobile14-float"))
    bits = np.full((2, len(work)), 32.0)
    bits[1, 7] = 8
    plain, freed = (Micronet(freebie=f).totals(work, bits, bits) for f in (False, True))
    assert (freed < plain).tolist() == [True, False]
    assert freed[0] == pytest.approx(1.243186, abs=5e-7)


def test_sparsity_by_layer_leaves_the_other_layers_alone() -> None:
    work = workload(BLOCK)
    dense, sparse = (Micronet(sparsity=s).figures(work, work.designed) for s in (0.0, {"classes": 0.5}))
    assert np.flatnonzero(dense != sparse).tolist() == [10]


def test_actual_sparsity_counts_the_zeros_where_that_saves_bits() -> None:
    weight = np.zeros((2, 10), dtype=np.int64)
    weight[:, :4] = [[5], [-5]]  # 12 zeros of 20 weights of 4 bits: 48 bits saved for a mask of 20
    binary = np.where(np.arange(10) < 3, 0, 1).reshape(5, 2)  # 3 zeros of 10 weights of 1 bit save nothing
    nodes = (
        integers.Node(integers.Input((10,), 0, 3)),
        integers.Node(integers.MatMul(weight), (0,)),
        integers.Node(integers.MatMul(binary), (1,)),
    )
    work = workload(integers.IntegerGraph(nodes))
    bits = Micronet(sparsity="actual").bits(work, work.designed)
    assert bits.memory["weights"].tolist() == [0, 8 * 4, 10]
    assert bits.memory["masks"].tolist() == [0, 20, 0]
    assert bits.math["multiplications"].tolist() == [0, 8 * 4, 10 * 7]  # sums of -60 to 60


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Micronet, {"reference": "mnist"}),
        (Micronet, {"accumulator": "wide"}),
        (Micronet, {"accumulator": 0}),
        (Micronet, {"bias": "free"}),
        (Micronet, {"sparsity": 1.0}),
        (Micronet, {"sparsity": {"stem": -0.1}}),
        (Micronet, {"sparsity": "some"}),
        (Exact, {"compare": "ternary"}),
        (Exact, {"adds": "bush"}),
        (Exact, {"thresholds": "some"}),
        (Micronet2019Entry, {"residual": "none"}),
    ],
)
def test_options_outside_the_rules_are_refused(rule: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        rule(**options)
    assert "\n" not in str(raised.value)


def test_what_a_network_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="only an integer graph"):
        Micronet(sparsity="actual").score(BLOCK)
    with pytest.raises(ConfigError, match="no layer 'norm'"):
        Micronet(sparsity={"norm": 0.5}).score(BLOCK)


# published networks


class _Residual:
    """Residual networks in float, node by node."""

    def __init__(self, stem: Op, image: tuple[int, int, int]) -> None:
        self.nodes = [Node(Input(image)), Node(stem, (0,), "stem")]

    def add(self, op: Op, *inputs: int) -> int:
        self.nodes.append(Node(op, inputs or (len(self.nodes) - 1,), f"n{len(self.nodes)}"))
        return len(self.nodes) - 1

    def conv(self, filters: int, kernel: int, stride: int, *inputs: int) -> int:
        return self.add(Conv2d(filters, kernel, Real(), stride, padding="half"), *inputs)


def resnet18() -> Network:
    """He et al. 2015, arXiv:1512.03385, table 1; projections where the size changes."""
    net = _Residual(Conv2d(64, 7, Real(), 2, padding="half"), (3, 224, 224))
    net.add(BatchNorm(Relu()))
    at, channels = net.add(MaxPool2d(3, 2)), 64
    for filters, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            start = at
            net.conv(filters, 3, stride, at)
            net.add(BatchNorm(Relu()))
            net.conv(filters, 3, 1)
            at = net.add(BatchNorm())
            if stride > 1 or filters != channels:
                net.conv(filters, 1, stride, start)
                start = net.add(BatchNorm())
            net.add(Add(), start, at)
            at, channels = net.add(Activation(Relu())), filters
    net.add(GlobalSumPool())
    net.add(Linear(1000, Real(), bias=True))
    return Network(tuple(net.nodes))


def wide_resnet() -> Network:
    """WRN-28-10 (Zagoruyko and Komodakis 2016, arXiv:1605.07146) for CIFAR-100: normalisation before convolution."""
    net = _Residual(Conv2d(16, 3, Real(), padding="half"), (3, 32, 32))
    at, channels = 1, 16
    for filters, first in ((160, 1), (320, 2), (640, 2)):
        for stride in (first, 1, 1, 1):
            active = net.add(BatchNorm(Relu()), at)
            start = at if filters == channels else net.conv(filters, 1, stride, active)
            net.conv(filters, 3, stride, active)
            net.add(BatchNorm(Relu()))
            inner = net.conv(filters, 3, 1)
            at, channels = net.add(Add(), start, inner), filters
    net.add(BatchNorm(Relu()))
    net.add(GlobalSumPool())
    net.add(Linear(100, Real(), bias=True))
    return Network(tuple(net.nodes))


def test_mobile14_has_the_published_numbers() -> None:
    network = named("mobile14-float")
    assert Parameters()(network).total == 6_857_568
    assert Macs()(network).total == 580_883_408


def test_resnet18_has_the_published_numbers() -> None:
    network = resnet18()
    assert Parameters()(network).total == 11_689_512
    assert Macs()(network).total == 1_814_073_344


def test_the_reference_of_cifar100_counts_what_the_challenge_says() -> None:
    network = wide_resnet()
    assert Parameters()(network).total == 36_536_884
    operations = Multiplications()(network).total + Additions()(network).total
    assert (round(Parameters()(network).total / 1e6, 1), round(operations / 1e9, 2)) == (36.5, 10.49)
    score = Micronet(reference="cifar100").score(network)
    assert (round(score.memory, 2), round(score.math, 2)) == (1.0, 1.0)


def test_the_reference_of_imagenet_has_its_operations_but_fewer_parameters() -> None:
    network = named("mobilenetv2-1.4")
    assert Macs()(network).total == 582_195_824  # 582M and 6.06M in TensorFlow's table of checkpoints
    score = Micronet().score(network)
    assert score.math == pytest.approx(1, abs=0.004)
    assert score.memory * 6.9e6 == pytest.approx(6.06e6, rel=0.005)
