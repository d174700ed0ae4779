"""Lowering: every threshold against brute force, whole networks against the training code, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.architecture import Architecture
from bitwright.errors import LoweringError
from bitwright.integer import graph as ig
from bitwright.integer.compare import differences
from bitwright.integer.graph import Conv, IntegerGraph, MatMul, MaxPool, MultiThreshold, Requantize
from bitwright.integer.lower import lower, lowered
from bitwright.integer.run import Executor
from bitwright.modules import Training, Weights, deployed_scale, forward, normalisation_line
from bitwright.network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    DropPath,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
    PadChannels,
    Shift2d,
    Shuffle,
    Slice,
    SumPool2d,
)
from bitwright.networks import named
from bitwright.normalisation import Line
from bitwright.quantizers import Levels, Quantizer
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.quantized_relu import QuantizedRelu
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform
from bitwright.spaces.enas_micro import EnasMicro
from random_networks import Builder, some_images, trained

Floats = np.ndarray


def network(*nodes: object) -> Network:
    return Network(tuple(Node(*node) if isinstance(node, tuple) else Node(node) for node in nodes))


def set_(weights: Weights, name: str, values: object) -> None:
    tensor = weights[name] if name in dict(weights.named_parameters()) else dict(weights.named_buffers())[name]
    with torch.no_grad():
        tensor.copy_(torch.as_tensor(values, dtype=tensor.dtype).reshape(tensor.shape))


# the reference: the published rules in numpy


def rule(quantizer: Quantizer, u: Floats) -> np.ndarray:
    """Codes of u, float32, by the docstring of the quantizer."""
    match quantizer:
        case Binary():
            return np.where(u >= 0, 1, -1)
        case Ternary():
            return (u > 0.5).astype(np.int64) - (u <= -0.5)
        case FixedPoint(bits=bits):
            m = 2 ** (bits - 1)
            return np.clip(np.rint(u), -m, m - 1).astype(np.int64)
        case QuantizedRelu(nominal_bits=bits):
            return np.clip(np.rint(u), 0, 2 ** (bits - 1) - 1).astype(np.int64)
        case Uniform(bits=bits, signed=False):
            return np.clip(np.rint(u), 0, 2**bits - 1).astype(np.int64)
        case Uniform(bits=bits, narrow=narrow):
            m = 2 ** (bits - 1)
            return np.clip(np.rint(u), narrow - m, m - 1).astype(np.int64)
        case _:
            raise AssertionError(quantizer)


def factor_of(weight: int, activation: int, accumulator: int) -> int:
    """The largest power of two that leaves weights in eight bits, pairs of products in 16 and accumulators in 21."""
    powers = [2**k for k in range(8)]
    return max(
        f
        for f in powers
        if f == 1 or (f * weight <= 127 and 2 * f * weight * activation <= 32767 and f * accumulator <= 2**20)
    )


NEAREST = 64  # neighbours of the multiplier, either way, that wide activations may take


def canonical(
    x: np.ndarray, line: Line, channel: int, statistics: list[np.ndarray], epsilon: float, step: float, factor: int
) -> Floats:
    """u of one channel for accumulators x, by the docstring of normalisation.py.

    The numbers of the line are computed anew in float64. Its multiplier may be a neighbour, which then is taken.
    """
    gain, offset, mean, variance = (np.float64(each[channel]) for each in statistics)
    with np.errstate(all="ignore"):
        slope = gain / np.sqrt(variance + epsilon)
        start = (offset - mean * slope) / step
        slope = slope / step
        added = np.rint(start * factor / slope)
    constant = not abs(added) <= 2.0**30
    given = [np.float32(np.broadcast_to(each.cpu().numpy(), len(statistics[0]))[channel]) for each in line]
    multiplier = np.float32(start) if constant else np.float32(slope / factor)
    added, factor = (1, 0) if constant else (int(np.float32(added)), factor)
    assert (given[0], given[1]) == (factor, added), channel
    assert abs(int(given[2].view(np.int32)) - int(multiplier.view(np.int32))) <= NEAREST, (channel, given, multiplier)
    total = (factor * x + added).astype(np.float32)  # exact in 64 bits, then rounded once
    return total * given[2]


def apply(graph: IntegerGraph, position: int, channel: int, x: np.ndarray) -> np.ndarray:
    """What a node puts out for the integers x of one channel."""
    op = graph.nodes[position].op
    if isinstance(op, MultiThreshold):
        sign = 1 if op.signs is None else op.signs[channel]
        row = op.thresholds[channel if len(op.thresholds) > 1 else 0]
        order = np.searchsorted(row, sign * x, side="right")
        return np.array(op.levels)[order]
    assert isinstance(op, Requantize)
    m, a, s = (v[channel if len(v) > 1 else 0] for v in (op.multiplier, op.addend, op.shift))
    return np.clip((x * m + a) >> s, op.lowest, op.highest)


# thresholds against brute force

STEPS: list[Quantizer] = [
    Binary(),
    Binary(0.25),
    Ternary(),
    Ternary(0.5, clip_gradient=True),
    *[FixedPoint(bits) for bits in range(2, 9)],
    *[QuantizedRelu(bits) for bits in range(2, 9)],
    *[Uniform(bits, signed=False, step=min(2.0 ** (3 - bits), 1.0)) for bits in range(1, 9)],
    *[Uniform(bits, narrow=narrow, step=0.3) for bits in range(2, 9) for narrow in (True, False)],
    *[Uniform(bits, signed=False, step=step) for bits in (1, 3, 5, 8) for step in ("learned", "max_abs")],
    *[Uniform(bits, step=step) for bits in (2, 4, 8) for step in ("learned", "max_abs")],
]


def statistics(rng: np.random.Generator, channels: int, spread: float, quantizer: Quantizer) -> list[np.ndarray]:
    """Gain, offset, mean and variance of every channel: ordinary ones, then those that are special."""
    assert quantizer.levels is not None
    gain = rng.choice([-1, 1], channels) * np.exp(rng.normal(0, 1, channels))
    offset, mean = rng.normal(0, 1, channels), rng.normal(0, spread, channels)
    deviation = spread * np.exp(rng.normal(-1, 1, channels))
    special = [
        (0.0, 0.7),
        (-0.0, -0.7),
        (0.0, 0.0),
        (1e-42, 0.3),
        (-1e-42, 1e-42),
        (1e-20, -0.5),
        (-1e-6, 3.0),
        (1e-3, 1e6),
        (1e-3, -1e6),
        (1.0, 1e30),
        (1e6, 0.1),
        (-1e6, -3.0),
    ]
    for c, (g, o) in enumerate(special):
        gain[c], offset[c] = g, o
    deviation[len(special)] = 0.0
    mean[len(special) + 1] = 0.0
    offset[len(special) + 1] = 0.0
    return [each.astype(np.float32) for each in (gain, offset, mean, deviation**2)]


def normalised(
    quantizer: Quantizer, inputs: int, weight: Quantizer, zero: int, channels: int, seed: int, epsilon: float = 1e-5
) -> tuple[Network, Weights, int]:
    """A product of a vector of pixels with a normalisation behind it, and the factor of its offset."""
    made = network(
        Input((inputs,), offset=(float(zero),)),
        (Linear(channels, weight), (0,), "product"),
        (BatchNorm(quantizer, epsilon), (1,), "norm"),
    )
    weights = Weights([made], seed=seed)
    assert weight.levels is not None
    low, high = weight.levels.lowest, weight.levels.highest
    corners = [a * w for a in (-zero, 255 - zero) for w in (low, high)]
    largest = inputs * max(-min(*corners, 0), max(*corners, 0))
    return made, weights, factor_of(max(-low, high), max(255 - zero, 0) - min(-zero, 0), largest)


def mistakes(
    quantizer: Quantizer,
    made: Network,
    weights: Weights,
    factor: int,
    values: list[np.ndarray],
    epsilon: float = 1e-5,
    around: int | None = None,
) -> tuple[int, list[str]]:
    """Cases compared, and where the integer graph and the published rules differ.

    around: only so many accumulators on each side of every step and of both ends of the range.
    """
    for name, each in zip(("gain", "offset", "mean", "variance"), values, strict=True):
        set_(weights, f"norm/{name}", each)
    if "norm/log2_range" in dict(weights.named_parameters()):
        step = float(weights["norm/log2_range"].detach().exp2() / quantizer.levels.magnitude)
    elif isinstance(quantizer, Uniform) and quantizer.step == "max_abs":
        largest = max(-quantizer.levels.lowest, quantizer.levels.highest)
        step = float(np.float32(dict(weights.named_buffers())["norm/max_abs"].numpy() / np.float32(largest)))
    else:
        step = float(quantizer.scale(torch.zeros(1), None))
    graph = lower(made, weights)
    line = normalisation_line(made, 2, weights)
    assert line is not None
    edge = graph.edges[1]
    cases, found = 0, []
    for c in range(edge.shape[0]):
        low, high = int(edge.lows[c]), int(edge.highs[c])
        x = np.arange(low, high + 1) if around is None else near_steps(graph, 2, c, low, high, around)
        u = canonical(x, line, c, values, epsilon, step, factor)
        wanted, got = rule(quantizer, u), apply(graph, 2, c, x)
        cases += len(x)
        if (wanted != got).any():
            i = int((wanted != got).argmax())
            found.append(
                f"{type(graph.nodes[2].op).__name__} channel {c}, {int((wanted != got).sum())} of {len(x)}, first at"
                f" x = {x[i]}: u = {u[i]!r} is {wanted[i]}, not {got[i]}; {[float(v[c]) for v in values]}"
            )
    return cases, found


def near_steps(graph: IntegerGraph, position: int, channel: int, low: int, high: int, around: int) -> np.ndarray:
    op = graph.nodes[position].op
    if isinstance(op, MultiThreshold):
        sign = 1 if op.signs is None else int(op.signs[channel])
        steps = sign * op.thresholds[channel if len(op.thresholds) > 1 else 0]
    else:
        assert isinstance(op, Requantize)
        m, a, s = (int(v[channel if len(v) > 1 else 0]) for v in (op.multiplier, op.addend, op.shift))
        steps = np.array([((level << s) - a) // (m or 1) for level in range(op.lowest, op.highest + 2)])
    ends = np.concatenate([steps.astype(np.float64), [low, high, 0]])
    centres = np.clip(ends, low, high).astype(np.int64)
    return np.unique(np.clip(centres[:, None] + np.arange(-around, around + 1), low, high))


CASES: dict[str, int] = {}


@pytest.mark.parametrize("quantizer", STEPS, ids=repr)
def test_every_accumulator_gets_the_level_of_the_published_rule(quantizer):
    cases, found = 0, []
    for seed, (inputs, weight, zero) in enumerate(
        [
            (3, FixedPoint(3), 128),
            (9, Binary(), 0),
            (7, Ternary(), 128),
            (2, FixedPoint(8), 100),
            (40, FixedPoint(4), 0),
        ]
    ):
        made, weights, factor = normalised(quantizer, inputs, weight, zero, 24, seed)
        rng = np.random.default_rng([seed, len(repr(quantizer))])
        spread = 60.0 * inputs * {8: 50, 4: 4, 3: 2}.get(weight.bits, 1) / 2
        values = statistics(rng, 24, spread, quantizer)
        if "norm/log2_range" in dict(weights.named_parameters()):
            set_(weights, "norm/log2_range", rng.normal(-2, 1))
        if "norm/max_abs" in dict(weights.named_buffers()):
            set_(weights, "norm/max_abs", np.exp(rng.normal(1, 1)))
        compared, wrong = mistakes(quantizer, made, weights, factor, values)
        cases, found = cases + compared, found + wrong
    CASES[repr(quantizer)] = cases
    assert found == [], f"{len(found)} channels of {5 * 24}: {found[0]}"
    assert cases > 10_000_000 / len(STEPS)  # in every part, so that they need not run in one process


@pytest.mark.parametrize("quantizer", STEPS, ids=repr)
def test_accumulators_that_lie_exactly_on_a_tie_round_as_published(quantizer):
    """Gains of powers of two and offsets of halves and quarters: u hits k + 1/2, 0 and both halves of H."""
    if quantizer.learns_scale:
        pytest.skip("its step is a power of two by chance only; the fixed steps cover the rounding")
    made, weights, factor = normalised(quantizer, 4, Binary(), 128, 24, 0, 0.0)
    fixed = quantizer.scale(torch.zeros(1), None)
    step = fixed if isinstance(fixed, float) and np.log2(fixed) == round(np.log2(fixed)) else None
    if step is None:
        made_step = 4.0 / max(-quantizer.levels.lowest, quantizer.levels.highest)
        step = made_step if not isinstance(fixed, float) else fixed
    c = np.arange(24)
    sign = np.where(c % 2, -1.0, 1.0)
    gain = sign * step * 2.0 ** -(c % 5)
    offset = step * ((c * 7) % 12 - 6) / 4
    mean = (c * 5) % 11 - 5.0
    values = [v.astype(np.float32) for v in (gain, offset, mean, np.ones(24))]
    _, found = mistakes(quantizer, made, weights, factor, values, 0.0)
    assert found == [], f"{len(found)} channels: {found[0]}"


@pytest.mark.parametrize("quantizer", [q for q in STEPS if q.bits <= 4], ids=repr)
def test_the_multiplier_of_narrow_activations_is_the_nearest_float32(quantizer):
    made, weights, factor = normalised(quantizer, 5, FixedPoint(4), 128, 24, 1)
    values = statistics(np.random.default_rng(2), 24, 900.0, quantizer)
    for name, each in zip(("gain", "offset", "mean", "variance"), values, strict=True):
        set_(weights, f"norm/{name}", each)
    step = deployed_scale(made.nodes[2], weights)
    line = normalisation_line(made, 2, weights)
    assert line is not None
    with np.errstate(all="ignore"):
        gain, offset, mean, variance = (v.astype(np.float64) for v in values)
        slope = gain / np.sqrt(variance + 1e-5)
        start = (offset - mean * slope) / float(step)
        slope = slope / float(step)
        constant = ~(np.abs(np.rint(start * factor / slope)) <= 2.0**30)
    wanted = np.where(constant, start, slope / factor).astype(np.float32)
    assert line.multiplier.tolist() == wanted.tolist()


@pytest.mark.parametrize("quantizer", [q for q in STEPS if q.bits in (1, 2, 4, 8)], ids=repr)
def test_accumulators_beyond_float32_get_the_level_of_the_published_rule(quantizer):
    made, weights, factor = normalised(quantizer, 3000, FixedPoint(8), 0, 24, 3)
    assert factor == 1
    with torch.no_grad():
        weights["product"].copy_(weights["product"].sign() * 0.99)
        weights["product"][:12] = weights["product"][:12].abs()
    values = statistics(np.random.default_rng(7), 24, 2e7, quantizer)
    graph = lower(made, weights)
    assert graph.edges[1].magnitude > 2**26
    _, found = mistakes(quantizer, made, weights, factor, values, around=150)
    assert found == [], f"{len(found)} channels: {found[0]}"


def test_at_least_ten_million_levels_were_compared():
    if len(CASES) < len(STEPS):
        pytest.skip("only a part of the tests ran")
    assert sum(CASES.values()) > 10_000_000


@pytest.mark.parametrize(
    "quantizer", [Binary(), Ternary(), FixedPoint(4), Uniform(4, signed=False, step=0.5)], ids=repr
)
def test_four_bits_and_fewer_become_thresholds_sorted_and_inside_the_range(quantizer):
    made, weights, _ = normalised(quantizer, 5, FixedPoint(4), 128, 24, 1)
    for name, each in zip(
        ("gain", "offset", "mean", "variance"), statistics(np.random.default_rng(1), 24, 900.0, quantizer), strict=True
    ):
        set_(weights, f"norm/{name}", each)
    graph = lower(made, weights)
    op, edge = graph.nodes[2].op, graph.edges[1]
    assert isinstance(op, MultiThreshold)
    assert op.thresholds.shape == (24, 2**quantizer.bits - 1 if not isinstance(quantizer, Ternary) else 2)
    assert (np.diff(op.thresholds, axis=1) >= 0).all()
    signs = op.signs if op.signs is not None else np.ones(24, dtype=np.int64)
    lows, highs = np.where(signs > 0, edge.lows, -edge.highs), np.where(signs > 0, edge.highs, -edge.lows)
    assert (op.thresholds >= lows[:, None]).all()
    assert (op.thresholds <= highs[:, None] + 1).all()


# whole networks against the training code


def first_difference(made: Network, weights: Weights, x: torch.Tensor) -> str | None:
    """The first node whose integers differ; every node of the trunk is compared."""
    lowering = lowered(made, weights)
    compared = 0
    for position, exact, codes in differences(made, weights, lowering, x, Executor(lowering.graph)):
        compared += 1
        apart = exact.double() != codes.double()
        if bool(apart.any()):
            example = f"{exact[apart][0]:g} in integers, {codes[apart][0]:g} in training code"
            return f"{lowering.graph.label(position)}: {int(apart.sum())} of {apart.numel()} values, {example}"
    assert compared == len(made.trunk.nodes)
    logits, _ = forward(made, weights, x)
    assert torch.equal(Executor(lowering.graph)(x).flatten(1).argmax(1), logits.flatten(1).argmax(1))
    return None


def check_random_network(seed: int) -> None:
    made = Builder(seed).network()
    x = some_images(made, seed)
    assert first_difference(made, trained(made, seed, x), x) is None


@given(st.integers(0, 2**32))
@settings(max_examples=300)
def test_random_networks_have_the_integers_of_the_training_code(seed):
    check_random_network(seed)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=2000)
def test_many_random_networks_have_the_integers_of_the_training_code(seed):
    check_random_network(seed)


SPACES = [
    EnasMicro(image=(1, 7, 9), nodes=2, cells=3, filters=5, precisions=("binary", "ternary", "4")),
    EnasMicro(image=(3, 8, 8), nodes=3, cells=4, filters=3, pixel_mean=(120.0, 110.0, 100.0), pixel_std=(60.0,) * 3),
    EnasMicro(image=(1, 6, 5), nodes=2, cells=3, filters=3, activation_precision="binary"),
    EnasMicro(image=(1, 6, 6), nodes=2, cells=3, filters=3, activation_precision="ternary", cell_precision="2"),
    EnasMicro(image=(2, 5, 8), nodes=2, cells=4, filters=3, activation_precision="8", cell_precision="8"),
    EnasMicro(image=(1, 8, 8), nodes=2, cells=3, filters=4, activation_precision="5", stacks=1, precisions=("3", "6")),
    EnasMicro(image=(1, 9, 7), nodes=3, cells=5, filters=2, ops="enas", reductions=(1, 2), cell_precision="3"),
    EnasMicro(image=(1, 9, 7), nodes=2, cells=3, filters=2, auxiliary=True, dropout=0.2, first_cell_precision="7"),
]


def check_architecture(space: EnasMicro, seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = tuple(int(rng.integers(len(d.options))) for d in space.decisions)
    made = space.network(Architecture(space.name, choices))
    x = some_images(made, seed)
    assert first_difference(made, trained(made, seed, x), x) is None, choices


@pytest.mark.parametrize("number", range(len(SPACES)))
@pytest.mark.parametrize("seed", range(3))
def test_sampled_architectures_have_the_integers_of_the_training_code(number, seed):
    check_architecture(SPACES[number], seed)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SPACES)))
def test_many_sampled_architectures_have_the_integers_of_the_training_code(number):
    for seed in range(100, 160):
        check_architecture(SPACES[number], seed)


# particular networks

PIXELS = Input((2, 6, 5), offset=(128.0,))
FOUR = Uniform(4, signed=False, step=0.5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_ties_of_an_activation_round_half_to_even(bits):
    """A sum pool of 2x2 pixels divides by four: half of all odd sums lie on a tie."""
    made = network(
        Input((1, 5, 7)),
        (SumPool2d(2), (0,)),
        (Activation(Uniform(bits, signed=False, step=1 / 255)), (1,), "act"),
        (GlobalSumPool(), (2,)),
    )
    weights = Weights([made])
    x = torch.randint(0, 4, (20, 1, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert first_difference(made, weights, x) is None
    sums = np.array([0, 1, 2, 3, 4, 6, 10])
    graph = lower(made, weights)
    wanted = np.clip([0, 0, 0, 1, 1, 2, 2], 0, 2**bits - 1)
    assert apply(graph, 2, 0, sums).tolist() == wanted.tolist()


@pytest.mark.parametrize("gain", [0.5, -0.5, 0.25, 1.5])
def test_ties_of_a_normalisation_to_eight_bits_round_half_to_even(gain):
    made = network(
        Input((1, 4, 4), offset=(128.0,)),
        (DepthwiseConv2d(1, Binary()), (0,), "copy"),
        (BatchNorm(Uniform(8, step=1.0), 0.0), (1,), "norm"),
        (GlobalSumPool(), (2,)),
    )
    weights = Weights([made])
    set_(weights, "copy", 1.0)
    set_(weights, "norm/gain", gain)
    x = torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4)
    assert first_difference(made, weights, x) is None
    codes = np.clip(np.rint(gain * (np.arange(256) - 128)), -127, 127)
    assert apply(lower(made, weights), 2, 0, np.arange(-128, 128)).tolist() == codes.tolist()


@pytest.mark.parametrize("step", ["learned", "max_abs"])
def test_activations_of_one_key_and_a_measured_step_can_be_added_and_joined(step):
    """As the error about different scales advises."""
    grid = Uniform(4, signed=False, step=step)
    made = network(
        PIXELS,
        (Conv2d(3, 3, Ternary()), (0,), "left"),
        (BatchNorm(grid), (1,), "norm"),
        (Conv2d(3, 1, Ternary()), (0,), "right"),
        (BatchNorm(grid), (3,), "norm"),
        (Add(grid.levels), (2, 4)),
        (Concat(), (2, 4)),
        (MaxPool2d(3), (6,)),
    )
    weights = Weights([made])
    assert first_difference(made, weights, some_images(made, 0)) is None


def test_fresh_learned_steps_that_happen_to_be_equal_mean_the_same_integers_in_both():
    grid = Uniform(4, signed=False, step="learned")
    made = network(
        PIXELS,
        (Conv2d(3, 3, Ternary()), (0,), "left"),
        (BatchNorm(grid), (1,), "left/norm"),
        (Conv2d(3, 1, Ternary()), (0,), "right"),
        (BatchNorm(grid), (3,), "right/norm"),
        (Add(grid.levels), (2, 4)),
    )
    weights = Weights([made])
    try:
        lower(made, weights)
    except LoweringError as error:
        assert "scale" in str(error)  # noqa: PT017 (either is right)
    else:
        assert first_difference(made, weights, some_images(made, 0)) is None


@pytest.mark.parametrize("step", ["learned", "max_abs", 0.5])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_global_sum_follows_an_activation_of_any_step(step, bits):
    made = network(
        PIXELS,
        (Conv2d(4, 3, FixedPoint(4)), (0,), "conv"),
        (BatchNorm(Uniform(bits, signed=False, step=step)), (1,), "norm"),
        (GlobalSumPool(), (2,)),
        (Linear(3, FixedPoint(4)), (3,), "classes"),
    )
    x = some_images(made, 0)
    assert first_difference(made, trained(made, 0, x), x) is None


@pytest.mark.parametrize("step", ["learned", "max_abs", 0.3])
def test_pools_and_activations_of_any_step_follow_one_another(step):
    made = network(
        PIXELS,
        (Conv2d(4, 3, Uniform(4, step="learned")), (0,), "conv"),
        (BatchNorm(Uniform(4, signed=False, step=step)), (1,), "norm"),
        (SumPool2d(3, 2), (2,)),
        (Activation(Uniform(3, signed=False, step=step)), (3,), "pool"),
        (Conv2d(4, 3, Uniform(4)), (4,), "second"),
        (Activation(Uniform(5, narrow=False, step=step)), (5,), "act"),
    )
    x = some_images(made, 0)
    assert first_difference(made, trained(made, 0, x), x) is None


def test_evaluation_does_not_depend_on_whether_gradients_are_recorded():
    made = network(
        PIXELS,
        (Conv2d(3, 3, Uniform(4, step="learned")), (0,), "twice"),
        (Conv2d(3, 3, Uniform(4, step="learned")), (0,), "twice"),
        (Add(), (1, 2)),
        (BatchNorm(FOUR), (3,), "norm"),
        (GlobalSumPool(), (4,)),
    )
    x = some_images(made, 0)
    weights = trained(made, 0, x)
    with torch.no_grad():
        wanted, _ = forward(made, weights, x)
    with torch.enable_grad():
        logits, _ = forward(made, weights, x)
    assert torch.equal(logits, wanted)
    assert first_difference(made, weights, x) is None


def test_a_graph_computes_the_training_codes_logits_at_its_scale():
    made = SPACES[0].network(Architecture("enas_micro", (0,) * len(SPACES[0].decisions)))
    x = some_images(made, 0)
    weights = trained(made, 0, x)
    graph = lower(made, weights)
    assert len(graph.scales) == 1
    logits, _ = forward(made, weights, x)
    assert torch.allclose(Executor(graph)(x).float() * graph.scales[0], logits, rtol=1e-6)


def test_positions_name_the_node_of_every_node_of_the_trunk():
    made = Network(
        (
            Node(PIXELS),
            Node(Conv2d(2, 1, Ternary()), (0,), "conv"),
            Node(BatchNorm(FOUR), (1,), "norm"),
            Node(GlobalSumPool(), (1,), "auxiliary"),
            Node(DropPath(0.5), (2,)),
            Node(Conv2d(2, 1, Ternary(), blocks=("a", "b")), (2, 4), "join"),
        ),
        auxiliary=3,
    )
    graph, positions = lowered(made, Weights([made]))
    assert [type(node.op).__name__ for node in graph.nodes] == ["Input", "Conv", "MultiThreshold", "Concat", "Conv"]
    assert positions == (0, 1, 2, 2, 4)


def test_the_graph_holds_the_codes_of_the_weights_and_the_pads_of_the_image():
    made = network(
        Input((1, 5, 8), offset=(3.0,)),
        (Conv2d(2, 3, FixedPoint(3), 2), (0,), "conv"),
        (BatchNorm(Binary()), (1,), "norm"),
        (GlobalSumPool(), (2,)),
        (Linear(2, Ternary()), (3,), "classes"),
    )
    weights = Weights([made])
    latent = torch.linspace(-1, 1, 18).reshape(2, 1, 3, 3)
    set_(weights, "conv", latent)
    set_(weights, "classes", [[-1.0, -0.4], [0.51, 0.5]])
    graph = lower(made, weights)
    conv, product = graph.nodes[1].op, graph.nodes[4].op
    assert graph.input.zero_point == 3
    assert isinstance(conv, Conv)
    assert isinstance(product, MatMul)
    assert conv.weight.flatten().tolist() == np.clip(np.rint(latent.numpy().flatten() * 4), -4, 3).tolist()
    assert (conv.stride, conv.pads, conv.bias) == ((2, 2), (1, 0, 1, 1), None)
    assert product.weight.tolist() == [[-1, 0], [1, 0]]


def test_a_dilated_kernel_has_zeros_between_its_taps_and_a_group_is_a_group():
    conv = (Conv2d(4, 2, FixedPoint(3), padding="same", groups=2, dilation=2), (0,), "stem")
    deep = (DepthwiseConv2d(2, FixedPoint(3), dilation=3), (2,), "deep")
    made = network(Input((2, 6, 5), (3.0,)), conv, (BatchNorm(FOUR), (1,), "norm"), deep, (GlobalSumPool(), (3,)))
    weights = Weights([made])
    graph = lower(made, weights)
    grouped, depthwise = graph.nodes[1].op, graph.nodes[3].op
    assert isinstance(grouped, Conv) and isinstance(depthwise, Conv)
    for op, name, gap in ((grouped, "stem", 2), (depthwise, "deep", 3)):
        codes = np.clip(np.rint(weights[name].detach().numpy() * 4), -4, 3)
        assert op.weight.shape == (4, 1, gap + 1, gap + 1)
        assert np.array_equal(op.weight[:, :, ::gap, ::gap], codes)
        assert op.weight.astype(bool).sum() == codes.astype(bool).sum()
    assert (grouped.groups, grouped.pads) == (2, (1, 1, 1, 1))
    assert (depthwise.groups, depthwise.pads) == (4, (1, 1, 2, 2))


# what has no integer form


def refusal(made: Network, weights: Weights | None = None) -> str:
    with pytest.raises(LoweringError) as caught:
        lower(made, weights or Weights([made]))
    text = str(caught.value)
    assert "\n" not in text
    assert "node" not in text.split(":")[0]
    return text


CONV = (Conv2d(2, 3, Ternary()), (0,), "stem")
NORM = (BatchNorm(FOUR), (1,), "stem/norm")


@pytest.mark.parametrize(
    ("nodes", "layer", "says"),
    [
        ([(Conv2d(2, 3, Real()), (0,), "stem")], "stem", ["real-valued", "Real", "8 bits or less"]),
        ([(DepthwiseConv2d(3, Real()), (0,), "stem")], "stem", ["real-valued", "weight"]),
        ([CONV, NORM, (GlobalSumPool(), (2,)), (Linear(3, Real()), (3,), "classes")], "classes", ["weight", "8 bits"]),
        ([CONV, (BatchNorm(Real()), (1,), "norm")], "norm", ["activation", "8 bits"]),
        ([CONV, (BatchNorm(Relu()), (1,), "norm")], "norm", ["activation", "Relu", "8 bits"]),
        ([CONV, (Activation(Relu()), (1,), "act")], "act", ["activation", "Relu"]),
        ([CONV, NORM, (AveragePool2d(3), (2,), "pool")], "pool", ["average", "sum pool", "wiring: integer"]),
        ([CONV, NORM, (AveragePool2d(3), (2,))], "averagepool2d3", ["sum pool"]),
        ([CONV, NORM, (Shift2d(), (2,), "shift")], "shift", ["factorized reduction"]),
        ([CONV, NORM, (Shuffle(2), (2,), "shuffle")], "shuffle", ["a shuffle of channels"]),
        ([CONV, NORM, (PadChannels(3), (2,), "pad")], "pad", ["channels of zeros"]),
        ([CONV, NORM, (Slice(1, 1), (2,), "slice")], "slice", ["not start at the first channel"]),
        (
            [CONV, NORM, (BatchNorm(Uniform(4, signed=False, step=0.25)), (1,), "other"), (Add(), (2, 3), "total")],
            "total",
            ["scales", "0.5", "0.25", "one fixed step"],
        ),
        (
            [CONV, NORM, (BatchNorm(Uniform(4, signed=False, step=0.25)), (1,), "other"), (Concat(), (2, 3), "side")],
            "side",
            ["scales", "0.5", "0.25"],
        ),
        (
            [
                CONV,
                NORM,
                (BatchNorm(Binary()), (1,), "other"),
                (Conv2d(2, 1, Ternary(), blocks=("a", "b")), (2, 3), "join"),
            ],
            "join",
            ["scales"],
        ),
        (
            [CONV, NORM, (GlobalSumPool(), (2,)), (Linear(3, Uniform(4, per_channel=True)), (3,), "classes")],
            "classes",
            ["scale of its own", "one scale for the tensor"],
        ),
        (
            [(Conv2d(2, 3, Uniform(4, per_channel=True)), (0,), "stem"), (Activation(FOUR), (1,), "act")],
            "act",
            ["scale per channel"],
        ),
        (
            [(Conv2d(2, 3, Uniform(4, per_channel=True)), (0,), "stem"), (Conv2d(2, 1, Ternary()), (1,), "next")],
            "next",
            ["scale per channel", "normalisation"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_without_an_integer_form_is_named_with_a_way_out(nodes, layer, says):
    text = refusal(network(PIXELS, *nodes))
    assert text.startswith(f"{layer}:"), text
    for words in says:
        assert words in text, text


@pytest.mark.parametrize(
    "pixels", [Input((2, 6, 5), (0.5,)), Input((2, 6, 5), (1.0, 2.0)), Input((2, 6, 5), (0.0,), (1.0, 2.0))]
)
def test_pixels_that_are_no_integers_have_no_integer_form(pixels):
    text = refusal(network(pixels, CONV, NORM))
    assert text.startswith("input0:")
    assert "wiring: integer" in text


def test_shared_weights_without_statistics_have_no_integer_form():
    made = network(PIXELS, CONV, NORM)
    text = refusal(made, Weights([made], shared=True))
    assert text.startswith("stem/norm:")
    assert "train" in text


def test_the_classic_wiring_has_no_integer_form():
    space = EnasMicro(wiring="classic", nodes=2, cells=3, filters=4, ops="enas")
    made = space.network(Architecture(space.name, (0,) * len(space.decisions)))
    text = refusal(made)
    assert text.startswith("stem/norm:")
    assert "real-valued" in text


def test_sums_that_exceed_32_bits_have_no_integer_form():
    made = network(
        Input((40,), offset=(128.0,)),
        (Linear(300, Uniform(16)), (0,), "first"),
        (Linear(2, Uniform(16)), (1,), "second"),
    )
    text = refusal(made)
    assert text.startswith("second:")
    assert "32 bits" in text


def test_outputs_that_other_nodes_read_have_no_integer_form():
    made = network(PIXELS, CONV, NORM, (GlobalSumPool(), (2,)), (Concat(), (2,)))
    assert "output" in refusal(made)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gain", np.nan),
        ("gain", np.inf),
        ("offset", np.nan),
        ("mean", np.nan),
        ("variance", np.nan),
        ("variance", -1.0),
    ],
)
def test_a_normalisation_whose_training_diverged_is_named(name, value, bits):
    made = network(PIXELS, CONV, (BatchNorm(Uniform(bits)), (1,), "stem/norm"))
    weights = Weights([made])
    set_(weights, f"stem/norm/{name}", [1.0, value])
    assert refusal(made, weights).startswith("stem/norm:")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(value):
    made = network(PIXELS, (Conv2d(2, 3, Uniform(4)), (0,), "stem"), NORM)
    weights = Weights([made])
    with torch.no_grad():
        weights["stem"][0, 0, 0, 0] = value
    assert refusal(made, weights).startswith("stem:")


def test_a_value_that_two_edges_pool_alike_is_pooled_once():
    made = network(
        Input((2, 6, 6)),
        (Conv2d(4, 3, Binary()), (0,), "first"),
        (BatchNorm(Uniform(4, signed=False, step=0.5)), (1,), "first/norm"),
        (MaxPool2d(3), (2,)),
        (MaxPool2d(3), (2,)),
        (MaxPool2d(2), (2,)),
        (Add(Levels.between(0, 15)), (3, 4)),
        (Add(Levels.between(0, 15)), (5, 6)),
        (GlobalSumPool(), (7,)),
        (Linear(3, Ternary()), (8,), "classes"),
    )
    x = some_images(made, 0)
    weights = trained(made, 0, x)
    assert first_difference(made, weights, x) is None
    assert sum(isinstance(node.op, MaxPool) for node in lower(made, weights).nodes) == 2


@pytest.mark.parametrize("seed", range(12))
def test_wide_activations_are_the_same_integers_as_thresholds_and_as_multiplications(seed):
    made = Builder(seed + 700).network()
    x = some_images(made, seed)
    weights = trained(made, seed, x)
    fewest, most = (lower(made, weights, threshold_bits=bits) for bits in (1, 8))
    assert not any(isinstance(n.op, Requantize) for n in most.nodes)
    assert torch.equal(Executor(fewest)(x), Executor(most)(x))


def test_the_entry_s_activations_are_thresholds_of_its_widths():
    network = named("mobile14-4b5b")
    weights = Weights([network])
    with torch.no_grad():
        small = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        forward(network, weights, small, training=Training(momentum=1.0))
    graph = lower(network, weights, threshold_bits=5)
    counts = [n.op.thresholds.size for n in graph.nodes if isinstance(n.op, MultiThreshold)]
    # all of the entry's 532,080 but those behind the 13 sums, which saturate
    saturated = 15 * (40 + 3 * 56 + 3 * 112 + 3 * 136 + 3 * 256)
    assert len(counts) == 61 and sum(counts) == 532080 - saturated
    assert sum(isinstance(n.op, ig.Add) and (n.op.lowest, n.op.highest) == (-8, 7) for n in graph.nodes) == 13
    widest = max(edge.bits for edge in graph.edges)
    assert widest <= 21
