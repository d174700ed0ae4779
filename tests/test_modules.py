"""Running networks: against a naive fake-quantized reference, exact accumulators, and the store of weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from bitwright.errors import ConfigError, InvalidNetwork
from bitwright.modules import Training, Weights, forward, run, tensor_names
from bitwright.network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
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
from bitwright.quantizers import Levels
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.clipped import Clipped
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform


def network(*nodes, auxiliary=None):
    return Network(tuple(Node(*node) if isinstance(node, tuple) else Node(node) for node in nodes), auxiliary)


def images(count, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def set_(weights, name, values):
    with torch.no_grad():
        weights[name].copy_(torch.as_tensor(values, dtype=weights[name].dtype).reshape(weights[name].shape))


# a naive reference: real numbers that are rounded on the way, in float64, differentiated by autograd


def through(value, x, passes=True):
    """`value` with the gradient of `x` where `passes` holds."""
    surrogate = torch.where(torch.as_tensor(passes), x, x.detach())
    return surrogate + (value - surrogate).detach()


def fixed_point(x, bits):
    m = 2 ** (bits - 1)
    rounded = (x.detach() * m).round()
    return through(rounded.clamp(-m, m - 1) / m, x, (rounded >= -m) & (rounded < m))


def binary(x):
    return through(2.0 * (x >= 0).to(x) - 1.0, x, x.abs() <= 1)


def ternary(x, h=1.0, *, clip=False):
    sign = (x > h / 2).to(x) - (x <= -h / 2).to(x)
    return through(sign * h, x, (x.abs() <= h) | (not clip))


def uniform(x, scale, lowest, highest):
    rounded = (x.detach() / scale).round()
    return through(rounded.clamp(lowest, highest) * scale, x, (rounded >= lowest) & (rounded <= highest))


def same(x, kernel, stride, value=0.0):
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def normalised(x, weights, key, unit, training, factor):
    """Batch normalisation of reals that are integers times `unit`, whose epsilon is in integer units.

    Outside training what is added to the integers is a multiple of 1 / factor (None: anything).
    """
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    else:
        mean, variance = weights.statistics(key)
        mean, variance = mean * unit, variance * unit**2
    rows = [t.reshape(1, -1, 1, 1) for t in (mean, variance + 1e-5 * unit**2)]
    gain, offset = (weights[f"{key}/{name}"].reshape(1, -1, 1, 1) for name in ("gain", "offset"))
    if training or factor is None:
        return (x - rows[0]) / rows[1].sqrt() * gain + offset
    slope = gain / rows[1].sqrt()
    unit = torch.as_tensor(unit).reshape(1, -1, 1, 1)
    added = (offset / slope - rows[0]) / unit
    return slope * (x + (added * factor).round() / factor * unit)


def every_scheme():
    return network(
        Input((2, 7, 6), offset=(120.0,), scale=(1 / 64,)),
        (Conv2d(6, 3, FixedPoint(4)), (0,), "stem"),
        (BatchNorm(Ternary(clip_gradient=True)), (1,), "stem/norm"),
        (DepthwiseConv2d(5, Binary()), (2,), "depthwise"),
        (BatchNorm(FixedPoint(3)), (3,), "depthwise/norm"),
        (Conv2d(8, 3, Ternary("glorot"), 2), (4,), "down"),
        (BatchNorm(Uniform(3, signed=False, step=0.5)), (5,), "down/norm"),
        (MaxPool2d(3), (6,)),
        (Conv2d(8, 1, Uniform(4, per_channel=True)), (7,), "point"),
        (BatchNorm(Binary()), (8,), "point/norm"),
        (Conv2d(4, 3, Uniform(5, narrow=False), blocks=("a", "b")), (7, 9), "join"),
        (BatchNorm(), (10,), "join/norm"),
        (Activation(Relu()), (11,), "join/act"),
        (AveragePool2d(3, 2), (12,)),
    )


def every_scheme_naively(weights, pixels, *, training):
    def norm(x, key, unit, factor=None):
        return normalised(x, weights, key, unit, training, factor)

    x = (pixels.double() - 120) / 64
    x = F.conv2d(same(x, 3, 1), fixed_point(weights["stem"], 4))
    x = ternary(norm(x, "stem/norm", 1 / 64 / 8, factor=8), clip=True)
    x = F.conv2d(same(x, 5, 1), binary(weights["depthwise"]), groups=6)
    x = fixed_point(norm(x, "depthwise/norm", 1.0, factor=64), 3)
    h = math.sqrt(1.5 / (3 * 3 * 6 + 3 * 3 * 8))
    x = F.conv2d(same(x, 3, 2), ternary(weights["down"], h), stride=2)
    x = uniform(norm(x, "down/norm", h / 4, factor=64), 0.5, 0, 7)
    left = F.max_pool2d(same(x, 3, 1, value=-math.inf), 3, 1)
    scale = weights["point"].detach().abs().amax((1, 2, 3)) / 7
    x = F.conv2d(left, uniform(weights["point"], scale.reshape(-1, 1, 1, 1), -7, 7))
    right = binary(norm(x, "point/norm", (scale / 2).reshape(-1), factor=16))
    joined = torch.cat([weights["join/a"], weights["join/b"]], 1)
    scale = joined.detach().abs().max() / 16
    x = F.conv2d(same(torch.cat([left, right], 1), 3, 1), uniform(joined, scale, -16, 15))
    x = norm(x, "join/norm", scale).relu()
    ones = torch.ones_like(x[:1, :1])
    counts = F.avg_pool2d(same(ones, 3, 2), 3, 2, divisor_override=1)
    return F.avg_pool2d(same(x, 3, 2), 3, 2, divisor_override=1) / counts


def scattered(weights):
    """Gains of both signs and offsets, where fresh ones are all 1 and 0."""
    with torch.no_grad():
        for name, parameter in weights.named_parameters():
            if name.endswith(("/gain", "/offset")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator(sum(map(ord, name)))))
    return weights


# Sums of at most 252 terms (6 images of 7 by 6 pixels) through 14 operations: relative errors of 252 * 14 * 2^-53
FLOAT64_TOLERANCE = 4e-13


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= FLOAT64_TOLERANCE * max(theirs.abs().max().item(), 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_training_step_equals_naive_fake_quantization_in_value_and_every_gradient(seed):
    net = every_scheme()
    weights = scattered(Weights([net], seed=seed)).double()
    pixels = images(6, 2, 7, 6, seed=seed)
    ours = run(net, weights, pixels, training=Training(), dtype=torch.float64)[-1].real
    theirs = every_scheme_naively(weights, pixels, training=True)
    assert_close(ours, theirs)
    incoming = torch.randn(ours.shape, generator=generator(seed), dtype=torch.float64)
    parameters = dict(weights.named_parameters())
    mine = torch.autograd.grad(ours, list(parameters.values()), incoming)
    reference = torch.autograd.grad(theirs, list(parameters.values()), incoming)
    for name, a, b in zip(parameters, mine, reference, strict=True):
        assert b.abs().max() > 0, name
        assert_close(a, b)


def test_evaluation_equals_naive_fake_quantization_with_running_statistics():
    net = every_scheme()
    weights = scattered(Weights([net])).double()
    for seed in range(3):
        run(net, weights, images(6, 2, 7, 6, seed=seed), training=Training(), dtype=torch.float64)
    pixels = images(5, 2, 7, 6, seed=9)
    ours = run(net, weights, pixels, dtype=torch.float64)[-1].real
    assert_close(ours, every_scheme_naively(weights, pixels, training=False))


def test_the_codes_of_every_quantized_node_are_its_levels():
    net = every_scheme()
    values = run(net, Weights([net]), images(6, 2, 7, 6), training=Training())
    for position in (2, 4, 6, 9):
        assert set(values[position].codes.unique().tolist()) <= set(net.nodes[position].op.activation.levels.values)


# accumulators


def windows(codes, kernel, stride):
    """(N, C, k k, H', W') int64: what each position of a SAME window sees."""
    unfolded = F.unfold(same(codes.double(), kernel, stride), kernel, stride=stride).long()
    height, width = (math.ceil(size / stride) for size in codes.shape[2:])
    return unfolded.reshape(len(codes), codes.shape[1], kernel**2, height, width)


def test_accumulators_are_exactly_the_integer_sums():
    net = network(
        Input((5, 9, 8), offset=(128.0,)),
        (Conv2d(7, 3, FixedPoint(8), 2), (0,), "conv"),
        (DepthwiseConv2d(5, FixedPoint(8), 2), (0,), "depthwise"),
        (SumPool2d(3, 2), (0,)),
        (GlobalSumPool(), (0,)),
        (Linear(6, FixedPoint(8)), (4,), "linear"),
    )
    weights, pixels = Weights([net]), images(4, 5, 9, 8)
    codes = pixels.long() - 128

    def weight(name):
        return (weights[name].detach() * 128).round().clamp(-128, 127).long()

    values = [value.codes for value in run(net, weights, pixels)]
    assert torch.equal(values[0].long(), codes)
    conv = torch.einsum("ncthw,fct->nfhw", windows(codes, 3, 2), weight("conv").flatten(2))
    depthwise = torch.einsum("ncthw,ct->nchw", windows(codes, 5, 2), weight("depthwise").flatten(1))
    expected = [conv, depthwise, windows(codes, 3, 2).sum(2), codes.sum((2, 3))]
    expected.append(expected[-1] @ weight("linear").T)
    for accumulators, integers in zip(values[1:], expected, strict=True):
        assert torch.equal(accumulators.long(), integers)
        assert torch.equal(accumulators, accumulators.round())


def large_product():
    net = network(
        Input((300, 1, 1), scale=(1.0,)),
        (GlobalSumPool(), (0,)),
        (Linear(4, Uniform(16, step=1.0)), (1,), "linear"),
    )
    weights = Weights([net])
    set_(weights, "linear", torch.randint(-32767, 32768, (4, 300), generator=generator()))
    return net, weights, images(8, 300, 1, 1)


def test_accumulators_beyond_2_to_the_24_are_exact_in_evaluation():
    net, weights, pixels = large_product()
    accumulators = run(net, weights, pixels)[2].codes
    exact = pixels.long().flatten(1) @ weights["linear"].detach().long().T
    assert net.ranges[2].magnitude == 300 * 255 * 32767
    assert (exact % 2 == 1).logical_and(exact.abs() > 2**24).any()  # which float32 does not hold
    assert accumulators.dtype == torch.float64
    assert torch.equal(accumulators.long(), exact)


def test_training_stays_in_float32():
    net, weights, pixels = large_product()
    assert run(net, weights, pixels, training=Training())[2].codes.dtype == torch.float32


def test_accumulators_below_2_to_the_24_stay_in_float32():
    net = network(Input((300, 1, 1)), (GlobalSumPool(), (0,)), (Linear(4, FixedPoint(8)), (1,), "linear"))
    assert net.ranges[2].magnitude < 2**24
    assert run(net, Weights([net]), images(2, 300, 1, 1))[2].codes.dtype == torch.float32


def test_codes_of_8_bits_are_exact_in_bfloat16():
    net = network(
        Input((1, 16, 16), offset=(128.0,)),
        (DepthwiseConv2d(1, FixedPoint(8)), (0,), "one"),
        (MaxPool2d(1), (0,)),
    )
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    values = run(net, Weights([net]), pixels, dtype=torch.bfloat16)
    assert values[2].codes.dtype == torch.bfloat16
    assert torch.equal(values[2].codes.flatten().long(), torch.arange(-128, 128))


def test_scales_are_multiplied_last():
    net = network(
        Input((3, 4, 4), scale=(1 / 255,)),
        (SumPool2d(3), (0,)),
        (Conv2d(2, 3, FixedPoint(4)), (1,), "conv"),
        (GlobalSumPool(), (2,)),
        (Linear(2, Binary(0.25)), (3,), "linear"),
    )
    scales = [value.scale for value in run(net, Weights([net]), images(2, 3, 4, 4))]
    by_hand = [1 / 255, 1 / 255 / 9, 1 / 255 / 9 / 8, 1 / 255 / 9 / 8 / 16, 1 / 255 / 9 / 8 / 16 / 4]
    assert scales == pytest.approx(by_hand, rel=1e-15)


# single operations


def test_pixels_are_centred_and_scaled_per_channel():
    net = network(Input((2, 1, 1), offset=(10.5, 20.0), scale=(0.5, 2.0)))
    value = run(net, Weights(), torch.tensor([12, 30], dtype=torch.uint8).reshape(1, 2, 1, 1))[0]
    assert value.real.flatten().tolist() == [0.75, 20.0]


def test_the_average_pool_does_not_count_the_padding():
    net = network(Input((1, 4, 5), scale=(1.0,)), (AveragePool2d(3, 2), (0,)), (AveragePool2d(3), (0,)))
    for value in run(net, Weights(), torch.full((1, 1, 4, 5), 7, dtype=torch.uint8))[1:]:
        assert value.real.unique().tolist() == [7.0]


def test_the_max_pool_of_negative_numbers_ignores_the_padding():
    net = network(Input((1, 4, 5), offset=(200.0,), scale=(1.0,)), (MaxPool2d(3, 2), (0,)), (MaxPool2d(3), (0,)))
    for value in run(net, Weights(), torch.full((1, 1, 4, 5), 7, dtype=torch.uint8))[1:]:
        assert value.real.unique().tolist() == [-193.0]


def test_shift_moves_the_image_up_and_left_and_brings_in_zeros():
    net = network(Input((1, 2, 3), scale=(1.0,)), (Shift2d(), (0,)))
    pixels = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)[None, None]
    assert run(net, Weights(), pixels)[1].codes.tolist() == [[[[5, 6, 0], [0, 0, 0]]]]


def test_a_slice_has_the_first_channels_and_their_scales():
    per_channel = Uniform(4, signed=False, step="learned", per_channel=True)
    net = network(Input((3, 1, 2), scale=(1.0,)), (Activation(per_channel), (0,), "act"), (Slice(2), (1,)))
    weights = Weights([net])
    set_(weights, "act/log2_range", torch.tensor([15.0, 30.0, 60.0]).log2().reshape(1, 3, 1, 1))
    pixels = torch.tensor([[[5, 6]], [[8, 20]], [[40, 60]]], dtype=torch.uint8)[None]
    real = run(net, weights, pixels)[2].real
    torch.testing.assert_close(real, torch.tensor([[[[5.0, 6.0]], [[8.0, 20.0]]]]))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_a_shuffle_is_pytorch_s(groups):
    net = network(Input((6, 2, 3), scale=(1.0,)), (Shuffle(groups), (0,)))
    pixels = images(2, 6, 2, 3).contiguous(memory_format=torch.channels_last)
    shuffled = run(net, Weights(), pixels)[1].real
    assert torch.equal(shuffled, torch.nn.ChannelShuffle(groups)(pixels.float().contiguous()))
    assert shuffled.is_contiguous(memory_format=torch.channels_last)


def test_channels_are_moved_with_their_scales():
    per_channel = Uniform(4, signed=False, step="learned", per_channel=True)
    act = (Activation(per_channel), (0,), "act")
    net = network(Input((4, 1, 2), scale=(1.0,)), act, (Slice(2, 1), (1,)), (PadChannels(6), (1,)), (Shuffle(2), (1,)))
    weights = Weights([net])
    set_(weights, "act/log2_range", torch.tensor([15.0, 30.0, 60.0, 120.0]).log2().reshape(1, 4, 1, 1))
    pixels = torch.tensor([[[5, 6]], [[8, 20]], [[40, 60]], [[80, 8]]], dtype=torch.uint8)[None]
    sliced, padded, shuffled = (value.real for value in run(net, weights, pixels)[2:])
    torch.testing.assert_close(sliced, pixels[:, 1:3].float())
    torch.testing.assert_close(padded, F.pad(pixels.float(), (0, 0, 0, 0, 0, 2)))
    torch.testing.assert_close(shuffled, pixels[:, [0, 2, 1, 3]].float())


def test_a_saturated_sum_is_clipped_and_a_free_one_is_not():
    net = network(Input((1, 1, 4), offset=(4.0,), scale=(0.5,)), (Add(), (0, 0)), (Add(Levels.between(-4, 3)), (0, 0)))
    pixels = torch.tensor([0, 3, 5, 8], dtype=torch.uint8).reshape(1, 1, 1, 4)
    values = run(net, Weights(), pixels)
    assert values[1].codes.flatten().tolist() == [-8, -2, 2, 8]
    assert values[2].codes.flatten().tolist() == [-4, -2, 2, 3]
    assert values[2].scale == 0.5


def test_sums_and_concatenations_of_different_scales_are_real():
    net = network(
        Input((1, 1, 3), offset=(1.0,), scale=(1.0,)),
        (Activation(FixedPoint(2)), (0,), "a"),
        (Activation(FixedPoint(3)), (0,), "b"),
        (Add(), (1, 2)),
        (Concat(), (1, 2)),
    )
    values = run(net, Weights(), torch.tensor([0, 1, 2], dtype=torch.uint8).reshape(1, 1, 1, 3))
    assert values[3].real.flatten().tolist() == [-2.0, 0.0, 1.25]
    assert values[4].real.flatten().tolist() == [-1.0, 0.0, 0.5, -1.0, 0.0, 0.75]


def test_an_activation_of_another_scale_requantizes():
    net = network(
        Input((1, 1, 5), offset=(2.0,), scale=(0.25,)),
        (Activation(Uniform(3, narrow=False, step=0.5)), (0,), "act"),
        (Activation(Uniform(3, narrow=False, step=0.5)), (1,), "again"),
    )
    values = run(net, Weights(), torch.tensor([0, 1, 2, 3, 20], dtype=torch.uint8).reshape(1, 1, 1, 5))
    assert values[1].codes.flatten().tolist() == [-1, 0, 0, 0, 3]  # ties to even: -0.5 and 0.5 are 0
    assert torch.equal(values[2].codes, values[1].codes)


def test_a_convolution_of_several_inputs_is_that_of_their_concatenation():
    nodes = [Input((2, 4, 4)), (Conv2d(3, 1, Binary()), (0,), "side")]
    split = network(*nodes, (Conv2d(5, 3, FixedPoint(4), blocks=("a", "b")), (0, 1), "conv"))
    joined = network(*nodes, (Concat(), (0, 1)), (Conv2d(5, 3, FixedPoint(4)), (2,), "whole"))
    weights = Weights([split, joined])
    set_(weights, "whole", torch.cat([weights["conv/a"], weights["conv/b"]], 1))
    pixels = images(2, 2, 4, 4)
    assert torch.equal(run(split, weights, pixels)[-1].real, run(joined, weights, pixels)[-1].real)


# batch normalisation


def test_batch_normalisation_gives_the_same_bits_for_every_scale_of_its_input():
    results = []
    for scale, h in ((1 / 255, 1.0), (3.0, 1.0), (1 / 255, 0.3)):
        net = network(
            Input((2, 5, 5), offset=(120.0,), scale=(scale,)),
            (Conv2d(4, 3, Ternary(h)), (0,), "conv"),
            (BatchNorm(FixedPoint(8)), (1,), "norm"),
        )
        weights = Weights([net])
        set_(weights, "conv", torch.randint(-1, 2, (4, 2, 3, 3), generator=generator()) * h)
        results.append(run(net, weights, images(6, 2, 5, 5), training=Training())[-1].real)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert len(results[0].unique()) > 100


def test_batch_normalisation_of_scaled_weights_is_invariant_to_their_scale():
    net = network(
        Input((2, 5, 5), offset=(120.0,)),
        (Conv2d(4, 3, Uniform(4, per_channel=True)), (0,), "conv"),
        (BatchNorm(FixedPoint(8)), (1,), "norm"),
    )
    weights, pixels = Weights([net]), images(6, 2, 5, 5)
    before = run(net, weights, pixels, training=Training())
    set_(weights, "conv", weights["conv"].detach() * 4)
    after = run(net, weights, pixels, training=Training())
    assert torch.equal(after[1].scale, before[1].scale * 4)
    assert torch.equal(after[2].real, before[2].real)


def normalisation(quantizer=None):
    return network(Input((2, 3, 3), offset=(128.0,), scale=(1.0,)), (BatchNorm(quantizer or Real()), (0,), "norm"))


def test_running_statistics_move_a_tenth_of_the_way_to_those_of_the_batch():
    net = normalisation()
    weights, pixels = Weights([net]), images(8, 2, 3, 3)
    run(net, weights, pixels, training=Training())
    codes = pixels.double() - 128
    mean, variance = weights.statistics("norm")
    # torch's float32 sums of 72 numbers: a relative error of at most 72 2^-24 of the sum of magnitudes
    tolerance = 72 * 2.0**-24
    assert (mean - 0.1 * codes.mean((0, 2, 3))).abs().max() <= tolerance * codes.abs().mean()
    unbiased = codes.var((0, 2, 3), unbiased=True)
    assert (variance - (0.9 + 0.1 * unbiased)).abs().max() <= tolerance * unbiased.max()


def test_evaluation_uses_running_statistics_and_does_not_move_them():
    net = normalisation()
    weights = Weights([net])
    before = {name: tensor.clone() for name, tensor in weights.state_dict().items()}
    pixels = images(8, 2, 3, 3)
    value = run(net, weights, pixels)[-1].real
    expected = (pixels.double() - 128) / math.sqrt(1 + 1e-5)
    assert ((value - expected).abs() <= 4 * 2.0**-24 * expected.abs()).all()  # of a few float32 operations
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.state_dict().items())
    assert torch.equal(run(net, weights, pixels[:1])[-1].real, value[:1])


def test_a_shared_store_keeps_no_running_statistics():
    weights = Weights([every_scheme()], shared=True)
    assert list(weights.buffers()) == []
    assert weights.statistics("stem/norm") is None


def test_a_shared_store_uses_the_statistics_of_the_batch_in_evaluation_too():
    net = every_scheme()
    shared = scattered(Weights([net], shared=True))
    pixels = images(8, 2, 7, 6)
    evaluated = run(net, shared, pixels)[-1].real
    assert torch.equal(evaluated, run(net, shared, pixels, training=Training())[-1].real)
    assert not torch.equal(run(net, shared, pixels[:4])[-1].real, evaluated[:4])


def test_a_fixed_activation_scale_costs_nothing_but_a_rescaled_gain():
    net = normalisation(Uniform(4, signed=False, step=0.5))
    weights = scattered(Weights([net])).double()
    pixels = images(8, 2, 3, 3)
    ours = run(net, weights, pixels, training=Training(), dtype=torch.float64)[-1].real
    naive = normalised(pixels.double() - 128, weights, "norm", 1.0, True, None)
    assert torch.equal(ours, (naive / 0.5).round().clamp(0, 15) * 0.5)


# scales that training finds


def test_a_learned_activation_scale_starts_with_its_highest_code_at_four_deviations():
    weights = Weights([normalisation(Uniform(4, signed=False, step="learned"))])
    assert weights["norm/log2_range"].item() == 2.0


def test_a_learned_weight_scale_starts_at_the_largest_magnitude():
    net = network(Input((2, 3, 3)), (Conv2d(4, 3, Uniform(4, step="learned", per_channel=True)), (0,), "conv"))
    weights = Weights([net])
    largest = weights["conv"].detach().abs().amax((1, 2, 3), keepdim=True)
    assert torch.allclose(weights["conv/log2_range"], largest.log2(), rtol=0, atol=1e-6)


def test_the_gradient_of_a_learned_scale_is_divided_by_the_root_of_what_it_sums_over():
    net = network(
        Input((1, 2, 4), offset=(4.0,), scale=(1.0,)),
        (Activation(Uniform(3, narrow=False, step="learned")), (0,), "act"),
    )
    weights = Weights([net])
    set_(weights, "act/log2_range", 3.0)  # a step of 2
    pixels = torch.arange(0, 24, 3, dtype=torch.uint8).reshape(1, 1, 2, 4)
    run(net, weights, pixels, training=Training())[-1].real.sum().backward()
    x = torch.arange(0, 24, 3).double() - 4
    codes = (x / 2).round().clamp(-4, 3)
    terms = torch.where((x / 2).round() == codes, codes - x / 2, codes) * 2 * math.log(2)
    assert weights["act/log2_range"].grad.item() == pytest.approx(terms.sum().item() / math.sqrt(8 * 3), rel=1e-6)


def test_a_measured_activation_scale_follows_the_maxima_of_the_batches():
    net = network(Input((1, 2, 2), scale=(1.0,)), (Activation(Uniform(4, signed=False)), (0,), "act"))
    weights = Weights([net])
    bright, dark = torch.full((1, 1, 2, 2), 150, dtype=torch.uint8), torch.full((1, 1, 2, 2), 45, dtype=torch.uint8)
    assert run(net, weights, bright, training=Training())[1].scale.item() == 10.0
    assert run(net, weights, dark, training=Training(momentum=0.5))[1].scale.item() == 3.0
    running = (0.9 * 4 + 0.1 * 150) * 0.5 + 45 * 0.5
    assert run(net, weights, bright)[1].scale.item() == pytest.approx(running / 15, rel=1e-6)
    assert weights.running_max("act").item() == pytest.approx(running, rel=1e-6)


# what only training does


def stochastic_network():
    return network(
        Input((2, 5, 5), offset=(128.0,)),
        (Conv2d(4, 3, Binary(stochastic=True)), (0,), "conv"),
        (BatchNorm(Binary(stochastic=True)), (1,), "norm"),
    )


def test_stochastic_quantizers_draw_from_the_generator_of_the_training_step():
    net = stochastic_network()
    weights, pixels = Weights([net]), images(4, 2, 5, 5)
    first, again, other = (
        run(net, weights, pixels, training=Training(generator(seed)))[-1].codes for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_calibration_without_a_generator_draws_nothing():
    net = stochastic_network()
    weights, pixels = Weights([net], shared=True), images(4, 2, 5, 5)
    calibrated = run(net, weights, pixels, training=Training())
    for ours, evaluated in zip(calibrated, run(net, weights, pixels), strict=True):
        assert torch.equal(ours.codes, evaluated.codes)


def test_drop_path_drops_whole_examples_and_scales_up_the_others():
    net = network(Input((2, 2, 2), scale=(1.0,)), (DropPath(0.5), (0,)))
    count = 20_000
    pixels = torch.full((count, 2, 2, 2), 7, dtype=torch.uint8)
    codes = run(net, Weights(), pixels, training=Training(generator(), drop_path=0.5))[1].codes
    kept = codes[:, 0, 0, 0] > 0
    assert torch.equal(codes, kept.float().reshape(-1, 1, 1, 1).expand_as(codes) * torch.tensor(1.0).div(0.75) * 7)
    # Hoeffding: beyond this with probability 1e-9
    assert abs(kept.double().mean() - 0.75) <= math.sqrt(math.log(2e9) / (2 * count))


def test_dropout_drops_single_numbers_and_scales_up_the_others():
    net = network(Input((2, 50, 50), scale=(1.0,)), (Dropout(0.25), (0,)))
    codes = run(net, Weights(), torch.full((4, 2, 50, 50), 7, dtype=torch.uint8), training=Training(generator()))[
        1
    ].codes
    assert codes.unique().tolist() == [0.0, (torch.tensor(1.0).div(0.75) * 7).item()]
    assert abs((codes > 0).double().mean() - 0.75) <= math.sqrt(math.log(2e9) / (2 * codes.numel()))


@pytest.mark.parametrize("training", [None, Training(drop_path=0.9)])
def test_nothing_is_dropped_in_evaluation_and_in_calibration(training):
    net = network(Input((2, 4, 4)), (DropPath(0.5), (0,)), (Dropout(0.5), (1,)))
    values = run(net, Weights(), images(3, 2, 4, 4), training=training)
    assert torch.equal(values[2].codes, values[0].codes)


# outputs


def two_headed():
    return network(
        Input((2, 6, 6), offset=(128.0,)),
        (Conv2d(4, 3, Ternary()), (0,), "stem"),
        (BatchNorm(Binary()), (1,), "stem/norm"),
        (GlobalSumPool(), (2,)),
        (Linear(3, Real()), (3,), "aux"),
        (Conv2d(4, 3, Binary()), (2,), "body"),
        (BatchNorm(Ternary(clip_gradient=True)), (5,), "body/norm"),
        (GlobalSumPool(), (6,)),
        (Linear(3, Real()), (7,), "classes"),
        auxiliary=4,
    )


def test_the_auxiliary_logits_come_in_training_only():
    net, pixels = two_headed(), images(4, 2, 6, 6)
    weights = Weights([net])
    values = run(net, weights, pixels, training=Training())
    logits, auxiliary = forward(net, weights, pixels, training=Training())
    assert torch.equal(logits, values[8].real)
    assert torch.equal(auxiliary, values[4].real)
    assert forward(net, weights, pixels)[1] is None


def test_evaluation_needs_no_tensor_of_the_auxiliary_head():
    net, pixels = two_headed(), images(4, 2, 6, 6)
    assert torch.equal(forward(net, Weights([net.trunk]), pixels)[0], forward(net, Weights([net]), pixels)[0])


def test_freeing_memory_on_the_way_changes_no_output():
    net, pixels = every_scheme(), images(4, 2, 7, 6)
    weights = Weights([net])
    kept, freed = (run(net, weights, pixels, keep=keep) for keep in (True, False))
    assert torch.equal(kept[-1].real, freed[-1].real)
    assert freed[:-1] == [None] * (len(net.nodes) - 1)


def test_logits_are_float32_also_where_convolutions_are_bfloat16():
    net = two_headed()
    logits, auxiliary = forward(net, Weights([net]), images(4, 2, 6, 6), training=Training(), dtype=torch.bfloat16)
    assert logits.dtype == auxiliary.dtype == torch.float32
    assert logits.shape == (4, 3)


# the store


def test_adding_a_network_twice_creates_nothing():
    net = every_scheme()
    weights = Weights([net])
    before = {name: tensor.data_ptr() for name, tensor in weights.state_dict().items()}
    weights.add(net)
    assert {name: tensor.data_ptr() for name, tensor in weights.state_dict().items()} == before


def test_networks_with_a_common_key_share_its_tensors():
    one, two = (
        network(Input((2, 4, 4)), (Conv2d(3, 1, Binary()), (0,), "common"), (Conv2d(3, 1, Binary()), (1,), own))
        for own in ("one", "two")
    )
    weights = Weights([one, two])
    assert sorted(dict(weights.named_parameters())) == ["common", "one", "two"]


def test_a_key_that_two_networks_give_different_shapes_is_an_error():
    weights = Weights([network(Input((2, 4, 4)), (Conv2d(3, 1, Binary()), (0,), "conv"))])
    with pytest.raises(InvalidNetwork, match=r"conv has shape \(3, 2, 1, 1\), a network wants \(3, 2, 3, 3\)"):
        weights.add(network(Input((2, 4, 4)), (Conv2d(3, 3, Binary()), (0,), "conv")))


def test_what_a_tensor_starts_as_does_not_depend_on_the_order_of_adding():
    nets = [every_scheme(), stochastic_network()]
    forwards, backwards = Weights(nets, seed=3).state_dict(), Weights(nets[::-1], seed=3).state_dict()
    alone = Weights(nets[1:], seed=3).state_dict()
    assert forwards.keys() == backwards.keys() > alone.keys()
    assert all(torch.equal(tensor, backwards[name]) for name, tensor in forwards.items())
    assert all(torch.equal(tensor, forwards[name]) for name, tensor in alone.items())


def test_what_a_tensor_starts_as_depends_on_the_seed_and_its_name():
    def conv(name, seed):
        net = network(Input((2, 4, 4)), (Conv2d(3, 3, Binary()), (0,), name))
        return Weights([net], seed=seed)[name]

    torch.manual_seed(1)
    first = conv("a", 0)
    torch.manual_seed(2)
    assert torch.equal(first, conv("a", 0))
    assert not torch.equal(first, conv("a", 1))
    assert not torch.equal(first, conv("b", 0))


def test_bounded_latent_weights_start_uniform_within_their_bound():
    net = network(Input((16, 4, 4)), (Conv2d(64, 3, Binary("glorot")), (0,), "conv"))
    latent = Weights([net])["conv"].detach().double()
    h = math.sqrt(1.5 / (144 + 576))
    assert latent.abs().max() <= h
    # Hoeffding for the mean of n numbers in [-h, h], and of their squares in [0, h^2]: beyond with probability 1e-9
    n = latent.numel()
    assert abs(latent.mean()) <= 2 * h * math.sqrt(math.log(2e9) / (2 * n))
    assert abs(latent.square().mean() - h**2 / 3) <= h**2 * math.sqrt(math.log(2e9) / (2 * n))


@pytest.mark.parametrize(
    ("op", "shape", "gain"), [(Conv2d(256, 3, Real()), (16, 4, 4), 2), (Linear(512, Real()), (200,), 1)]
)
def test_free_weights_start_normal_with_the_deviation_of_he(op, shape, gain):
    weights = Weights([network(Input(shape), (op, (0,), "w"))])
    values = weights["w"].detach().double()
    fan_in = values[0].numel()
    # the mean square of n normal numbers deviates by sqrt(2 / n); seven such deviations happen with probability 1e-11
    assert abs(values.square().mean() * fan_in / gain - 1) <= 7 * math.sqrt(2 / values.numel())
    assert abs(values.mean()) <= 7 * math.sqrt(gain / fan_in / values.numel())


def test_the_state_dict_of_one_store_makes_another_compute_the_same():
    net, pixels = every_scheme(), images(4, 2, 7, 6)
    trained, fresh = scattered(Weights([net], seed=1)), Weights([net], seed=2)
    run(net, trained, pixels, training=Training())
    assert not torch.equal(run(net, trained, pixels)[-1].real, run(net, fresh, pixels)[-1].real)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(run(net, trained, pixels)[-1].real, run(net, fresh, pixels)[-1].real)


def test_weights_survive_a_safetensors_file_bit_for_bit(tmp_path):
    net = network(
        Input((2, 6, 6)),
        (Conv2d(4, 3, Uniform(4, step="learned", per_channel=True)), (0,), "conv"),
        (BatchNorm(Uniform(4, signed=False)), (1,), "norm"),
    )
    weights, pixels = Weights([net], seed=1), images(4, 2, 6, 6)
    run(net, weights, pixels, training=Training())
    save_file(weights.state_dict(), tmp_path / "weights.safetensors")
    restored = Weights([net], seed=2)
    restored.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert sorted(restored.state_dict()) == [
        "conv",
        "conv/log2_range",
        "norm/gain",
        "norm/max_abs",
        "norm/mean",
        "norm/offset",
        "norm/variance",
    ]
    for name, tensor in weights.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name])
    assert torch.equal(run(net, weights, pixels)[-1].real, run(net, restored, pixels)[-1].real)


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ((Conv2d(3, 3, Binary()), (0,), "conv"), "conv"),
        ((Conv2d(3, 3, Binary(), blocks=("a",)), (0,), "conv"), "conv/a"),
        ((DepthwiseConv2d(3, Ternary()), (0,), "depthwise"), "depthwise"),
        ((BatchNorm(), (0,), "norm"), "norm/gain"),
        ((Activation(Uniform(4, step="learned")), (0,), "act"), "act/log2_range"),
    ],
)
def test_a_missing_tensor_is_an_error_that_names_it(node, name):
    with pytest.raises(InvalidNetwork, match=f"'{name}'"):
        forward(network(Input((2, 4, 4)), node), Weights(), images(1, 2, 4, 4))


def test_tensor_names_are_the_tensors_that_get_a_gradient():
    net = two_headed()
    weights = Weights([net, stochastic_network()])
    logits, auxiliary = forward(net, weights, images(4, 2, 6, 6), training=Training())
    (logits.square().sum() + auxiliary.square().sum()).backward()
    touched = [name for name, parameter in weights.named_parameters() if parameter.grad is not None]
    assert sorted(tensor_names(net)) == sorted(touched)
    assert not {"aux"} & set(tensor_names(net.trunk))


def test_tensor_names_include_learned_scales_and_blocks_once():
    quantizer = Uniform(4, step="learned")
    net = network(
        Input((2, 4, 4)),
        (Conv2d(2, 3, quantizer, blocks=("a", "b")), (0, 0), "conv"),
        (Activation(quantizer), (1,), "act"),
        (Conv2d(2, 3, quantizer, blocks=("a", "b")), (2, 2), "conv"),
    )
    assert tensor_names(net) == ["conv/a", "conv/b", "conv/log2_range", "act/log2_range"]


def test_latents_name_the_quantizer_and_fans_of_every_quantized_weight():
    weights = Weights([two_headed()])
    assert set(weights.latents) == {"stem", "body"}
    assert weights.latents["stem"].quantizer == Ternary()
    assert weights.latents["stem"].fans == (18, 36)


# accumulators wider than float32 holds, wherever they arise


def wide(*behind):
    return network(
        Input((64, 4, 4), offset=(0.0,), scale=(1.0,)),
        (Conv2d(2, 3, Uniform(16, step=1.0)), (0,), "conv"),
        *behind,
    )


def wide_accumulators(weights, pixels):
    codes = windows(pixels.long(), 3, 1)
    return torch.einsum("ncthw,fct->nfhw", codes, weights["conv"].detach().long().flatten(2))


def wide_weights(net):
    weights = Weights([net])
    set_(weights, "conv", torch.randint(-32767, 32768, (2, 64, 3, 3), generator=generator()))
    return weights


def test_wide_accumulators_of_a_convolution_are_exact():
    net, pixels = wide(), images(3, 64, 4, 4)
    weights = wide_weights(net)
    assert torch.equal(run(net, weights, pixels)[1].codes.long(), wide_accumulators(weights, pixels))


def test_wide_sums_and_pools_stay_exact():
    net = wide((Add(), (1, 1)), (SumPool2d(2, 2), (2,)), (GlobalSumPool(), (3,)))
    weights, pixels = wide_weights(net), images(3, 64, 4, 4)
    values, exact = run(net, weights, pixels), wide_accumulators(weights, pixels)
    assert torch.equal(values[2].codes.long(), 2 * exact)
    assert torch.equal(values[4].codes.long(), 2 * exact.sum((2, 3)))


def test_a_normalisation_of_wide_accumulators_returns_to_float32():
    net = wide((BatchNorm(FixedPoint(4)), (1,), "norm"))
    weights, pixels = wide_weights(net), images(3, 64, 4, 4)
    run(net, weights, pixels, training=Training(momentum=1.0))
    value = run(net, weights, pixels)[2].codes
    mean, variance = (t.double().reshape(1, -1, 1, 1) for t in weights.statistics("norm"))
    normal = (wide_accumulators(weights, pixels) - mean) / (variance + 1e-5).sqrt()
    assert value.dtype == torch.float32
    assert torch.equal(value.double(), (normal * 8).float().round().clamp(-8, 7).double())


# what stores and scales must not do


def test_a_batch_normalisation_does_not_change_when_another_network_measures_its_range():
    one = network(Input((2, 4, 4)), (BatchNorm(Uniform(4, signed=False, step=0.5)), (0,), "b"))
    other = network(Input((2, 4, 4)), (BatchNorm(Uniform(4, signed=False)), (0,), "b"))
    weights, pixels = Weights([one]), images(3, 2, 4, 4)
    before = run(one, weights, pixels)[1].real
    weights.add(other)
    assert torch.equal(run(one, weights, pixels)[1].real, before)


def test_scales_per_channel_are_multiplied_before_channels_mix():
    net = network(
        Input((3, 4, 4), scale=(1.0,)),
        (DepthwiseConv2d(3, Uniform(4, per_channel=True)), (0,), "depthwise"),
        (Conv2d(2, 1, Uniform(4, per_channel=True)), (1,), "pointwise"),
        (GlobalSumPool(), (2,)),
    )
    weights, pixels = Weights([net]), images(2, 3, 4, 4)

    def real(name):
        w = weights[name].detach()
        scale = w.abs().amax((1, 2, 3), keepdim=True) / 7
        return (w / scale).round() * scale

    x = F.conv2d(same(pixels.float(), 3, 1), real("depthwise"), groups=3)
    x = F.conv2d(x, real("pointwise")).mean((2, 3))
    ours = run(net, weights, pixels)[-1].real
    assert ours.shape == x.shape
    assert torch.allclose(ours, x, rtol=1e-5)


def test_blocks_of_different_glorot_h_are_refused():
    nodes = [Input((2, 4, 4)), (Conv2d(32, 1, Binary()), (0,), "side")]
    net = network(*nodes, (Conv2d(5, 3, Ternary("glorot"), blocks=("a", "b")), (0, 1), "conv"))
    with pytest.raises(InvalidNetwork, match="conv"):
        Weights([net])


def test_a_measured_range_that_is_missing_is_named():
    net = network(Input((1, 2, 2), scale=(1.0,)), (Activation(Uniform(4)), (0,), "act"))
    with pytest.raises(InvalidNetwork, match="act"):
        run(net, Weights(), images(1, 1, 2, 2))


def test_constants_made_in_inference_mode_serve_training():
    net = network(Input((1, 5, 4), scale=(1.0,)), (AveragePool2d(3), (0,)), (DepthwiseConv2d(3, Real()), (1,), "w"))
    weights, pixels = Weights([net]), images(2, 1, 5, 4)
    with torch.inference_mode():
        run(net, weights, pixels)
    run(net, weights, pixels, training=Training())[-1].real.sum().backward()
    assert weights["w"].grad is not None


def test_vectors_are_inputs_too():
    net = network(Input((4,), scale=(1.0,)), (Linear(3, Binary()), (0,), "w"))
    weights, x = Weights([net]), torch.arange(8, dtype=torch.uint8).reshape(2, 4)
    expected = x.float() @ binary(weights["w"].detach()).T
    assert torch.equal(run(net, weights, x)[1].real, expected)


# what float checkpoints and shared scales need


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8])
def test_half_padding_is_pytorch_s(kernel, stride, size):
    dense = Conv2d(4, kernel, Real(), stride, padding="half")
    net = network(
        Input((3, size, size), scale=(1.0,)),
        (dense, (0,), "dense"),
        (DepthwiseConv2d(kernel, Real(), stride, padding="half"), (1,), "depthwise"),
    )
    weights, pixels = Weights([net]), images(2, 3, size, size)
    half = kernel // 2
    wanted = F.conv2d(pixels.float(), weights["dense"], stride=stride, padding=half)
    wanted = F.conv2d(wanted, weights["depthwise"], stride=stride, padding=half, groups=4)
    assert torch.allclose(run(net, weights, pixels)[-1].real, wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_and_dilation_are_pytorch_s(kernel, dilation, stride, groups):
    net = network(
        Input((4, 8, 7), scale=(1.0,)),
        (Conv2d(8, kernel, Real(), stride, padding="half", groups=groups, dilation=dilation), (0,), "dense"),
        (DepthwiseConv2d(kernel, Real(), stride, "half", dilation), (1,), "depthwise"),
    )
    weights, pixels = Weights([net]), images(2, 4, 8, 7)
    where = {"stride": stride, "padding": kernel // 2 * dilation, "dilation": dilation}
    wanted = F.conv2d(pixels.float(), weights["dense"], groups=groups, **where)
    wanted = F.conv2d(wanted, weights["depthwise"], groups=8, **where)
    ours = run(net, weights, pixels)[-1].real
    assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-2)
    for loss in (ours, wanted):
        loss.square().mean().backward()
    assert all(weights[name].grad.isfinite().all() for name in ("dense", "depthwise"))


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
def test_same_padding_counts_the_gaps_of_a_dilated_kernel(kernel, dilation):
    net = network(
        Input((2, 6, 9), scale=(1.0,)),
        (Conv2d(3, kernel, Real(), dilation=dilation), (0,), "dense"),
        (DepthwiseConv2d(kernel, Real(), dilation=dilation), (1,), "depthwise"),
    )
    weights, pixels = Weights([net]), images(2, 2, 6, 9)
    wanted = F.conv2d(pixels.float(), weights["dense"], padding="same", dilation=dilation)
    wanted = F.conv2d(wanted, weights["depthwise"], padding="same", dilation=dilation, groups=3)
    assert torch.allclose(run(net, weights, pixels)[-1].real, wanted, rtol=1e-4, atol=1e-2)


def test_half_padding_wants_an_odd_kernel():
    with pytest.raises(InvalidNetwork, match="half of an even kernel, 2"):
        _ = network(Input((1, 4, 4)), (Conv2d(1, 2, Real(), padding="half"), (0,), "conv")).shapes


@pytest.mark.parametrize("quantizer", [Real(), Uniform(4, per_channel=True)])
@pytest.mark.parametrize("step", [1.0, 1 / 128])
def test_a_real_normalisation_is_pytorch_s(quantizer, step):
    """In training and evaluation it sees the real numbers, whatever the scales of inputs and weights."""
    net = network(
        Input((3, 6, 6), (128.0,), (step,)),
        (Conv2d(4, 3, quantizer), (0,), "conv"),
        (BatchNorm(epsilon=1e-3, real=True), (1,), "norm"),
    )
    weights, pixels = scattered(Weights([net])), images(16, 3, 6, 6)
    layer = torch.nn.BatchNorm2d(4, eps=1e-3)
    with torch.no_grad():
        layer.weight.copy_(weights["norm/gain"])
        layer.bias.copy_(weights["norm/offset"])
        layer.running_mean.copy_(weights.statistics("norm")[0])
        layer.running_var.copy_(weights.statistics("norm")[1])
        latent = weights["conv"]
        if quantizer.levels is not None:
            largest = latent.abs().amax((1, 2, 3), keepdim=True)
            latent = (latent / largest * 7).round() * largest / 7
        real = F.conv2d((pixels.float() - 128) * step, latent, padding=1)
        for training in (None, Training(momentum=0.1)):
            ours = run(net, weights, pixels, training=training)[-1].real
            assert torch.allclose(ours, layer.train(training is not None)(real), rtol=1e-3, atol=1e-3)
        assert torch.allclose(weights.statistics("norm")[0], layer.running_mean, rtol=1e-4, atol=1e-4)
        assert torch.allclose(weights.statistics("norm")[1], layer.running_var, rtol=1e-4)


def test_a_scale_per_channel_learns_from_its_own_channel():
    act = Uniform(3, signed=False, step="learned", per_channel=True, scale_gradient="plain")
    net = network(Input((2, 3, 3), (128.0,), (1 / 64,)), (BatchNorm(act, real=True), (0,), "norm"))
    weights, pixels = Weights([net]), images(4, 2, 3, 3)
    ranges = torch.tensor([0.5, 1.5])
    set_(weights, "norm/log2_range", ranges.log2())
    run(net, weights, pixels, training=Training())[-1].real.sum().backward()
    gradient = weights["norm/log2_range"].grad.flatten()
    real = (pixels.double() - 128) / 64
    for channel in range(2):
        x, step = real[:, channel], float(ranges[channel]) / 7
        normal = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() / step
        codes = normal.round().clamp(0, 7)
        terms = torch.where(normal.round() == codes, codes - normal, codes) * step * math.log(2)
        assert gradient[channel].item() == pytest.approx(terms.sum().item(), rel=1e-4)


def group_of_two():
    act = Uniform(4, narrow=False, step="learned", start=10.0)
    return network(
        Input((3, 6, 6), (128.0,), (1 / 64,)),
        (Conv2d(4, 3, Uniform(4)), (0,), "a"),
        (BatchNorm(act, real=True, scale_key="group"), (1,), "a/norm"),
        (Conv2d(4, 3, Uniform(4)), (2,), "b"),
        (BatchNorm(act, real=True, scale_key="group"), (3,), "b/norm"),
        (Add(act.levels), (2, 4), "add"),
    )


def test_a_group_shares_one_scale_and_its_sums_saturate():
    net = group_of_two()
    weights, pixels = scattered(Weights([net])), images(8, 3, 6, 6)
    assert tensor_names(net).count("group/log2_range") == 1
    assert not {"a/norm/log2_range", "b/norm/log2_range"} & set(weights.state_dict())
    set_(weights, "group/log2_range", 0.3)
    for training in (None, Training()):
        values = run(net, weights, pixels, training=training)
        assert values[2].scale.item() == pytest.approx(2**0.3 / 8)
        assert torch.equal(values[5].codes, (values[2].codes + values[4].codes).clamp(-8, 7))
        assert values[5].codes.detach().max() == 7
    values[5].real.sum().backward()
    assert weights["group/log2_range"].grad is not None


@pytest.mark.parametrize("shift", [0, 2, 6])
def test_a_pool_with_a_shift_rounds_down(shift):
    net = network(Input((2, 5, 5), (128.0,), (0.5,)), (GlobalSumPool(shift, 8.0), (0,)))
    pixels = images(4, 2, 5, 5)
    total = (pixels.long() - 128).sum((2, 3))
    for training in (None, Training()):
        value = run(net, Weights([net]), pixels, training=training)[-1]
        assert torch.equal(value.codes.long(), total >> shift)
        assert value.scale == 0.5 * 2**shift / 8
    low, high, _ = net.ranges[-1]
    assert (low, high) == (-128 * 25 >> shift, 127 * 25 >> shift)


def test_a_bias_is_rounded_to_units_of_the_accumulator_and_clipped_to_its_bits():
    net = network(Input((6,), (128.0,), (0.25,)), (Linear(3, Uniform(3), bias=True), (0,), "classes"))
    weights, pixels = Weights([net]), images(4, 6)
    largest = weights["classes"].detach().abs().max()
    unit = 0.25 * largest.item() / 3
    set_(weights, "classes/bias", [10.4 * unit, -3.6 * unit, 1e6])
    value = run(net, weights, pixels)[-1]
    codes = (weights["classes"].detach() / largest * 3).round()
    product = (pixels.float() - 128) @ codes.T
    bits = math.ceil(math.log2((128 + 127) * 6 * 3 + 1))
    assert torch.equal(value.codes - product, torch.tensor([10.0, -4.0, 2 ** (bits - 1) - 1]).expand(4, 3))
    assert net.ranges[-1].highest == 128 * 6 * 3 + 2 ** (bits - 1) - 1
    run(net, weights, pixels, training=Training())[-1].real.sum().backward()
    assert torch.allclose(weights["classes/bias"].grad, torch.tensor([4.0, 4.0, 0.0]))


def test_several_draws_of_dropout_stand_one_behind_the_other():
    net = network(Input((50,), scale=(1.0,)), (Dropout(0.4, samples=3), (0,)))
    weights, pixels = Weights([net]), torch.full((5, 50), 10, dtype=torch.uint8)
    assert run(net, weights, pixels)[-1].codes.shape == (5, 50)
    assert run(net, weights, pixels, training=Training())[-1].codes.shape == (5, 50)
    dropped = run(net, weights, pixels, training=Training(generator()))[-1].codes
    assert dropped.shape == (15, 50)
    assert not torch.equal(dropped[:5], dropped[5:10])
    assert torch.allclose(dropped.unique(), torch.tensor([0.0, 10 / 0.6]))


def test_clipped_reals_are_relu6_unless_told_otherwise():
    x = torch.linspace(-20, 20, 81, requires_grad=True)
    assert torch.equal(Clipped().codes(x), F.relu6(x))
    assert torch.equal(Clipped(-10.0, 10.0).codes(x), F.hardtanh(x, -10, 10))
    with pytest.raises(ConfigError, match="low < high"):
        Clipped(1.0, 1.0)
