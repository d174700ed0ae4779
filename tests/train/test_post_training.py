"""Ranges from images: least squared error by exhaustive search, and what they cost on a real network."""

import copy

import pytest
import torch

from bitwright.modules import Training, Weights, forward, run
from bitwright.network import Add, BatchNorm, Conv2d, DepthwiseConv2d, Input, Network, Node
from bitwright.networks.inverted_residual import Block, BlockList, Options, build
from bitwright.quantizers import Levels
from bitwright.quantizers.real import Real
from bitwright.quantizers.uniform import Uniform
from bitwright.train.post_training import Requantizer, float_form, quantize_after_training, refit_statistics, set_ranges

BLOCKS = BlockList(
    8, ((Block(3, 1, 4),), (Block(5, 3, 6, 2), Block(3, 2, 6, shortcut=True))), 12, resolution=24, classes=5
)


def images(count, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def settled(network, seed=0):
    """Weights with the statistics of a batch and random gains and offsets."""
    weights = Weights([network], seed=seed)
    with torch.no_grad():
        forward(network, weights, images(32), training=Training(momentum=1.0))
        generator = torch.Generator().manual_seed(seed)
        for name, p in weights.named_parameters():
            if name.endswith("/offset"):
                p.add_(torch.randn(p.shape, generator=generator) * 0.5)
    return weights


def test_the_float_form_is_the_float_network_of_the_same_definition():
    quantized, plain = build(BLOCKS, Options(pool="mean")), build(BLOCKS, Options(quantized=False, pool="mean"))
    assert float_form(quantized) == plain
    weights = settled(quantized)
    x = images(4)
    with torch.no_grad():
        assert torch.equal(forward(float_form(quantized), weights, x)[0], forward(plain, weights, x)[0])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_ranges_have_the_least_squared_error(bits, signed, per_channel):
    quantizer = Uniform(bits, signed=signed, narrow=False, step="learned", start=6.0, per_channel=per_channel)
    network = Network(
        (
            Node(Input((3, 8, 8), (128.0,), (1 / 64,))),
            Node(Conv2d(4, 3, Real()), (0,), "conv"),
            Node(BatchNorm(quantizer, real=True), (1,), "norm"),
        )
    )
    weights = settled(network)
    batches = [images(8, 8, seed) for seed in range(3)]
    set_ranges(network, weights, batches)
    with torch.no_grad():
        real = torch.cat([run(float_form(network), weights, x)[-1].real for x in batches]).double()
    rows = real.transpose(0, 1).flatten(1) if per_channel else real.reshape(1, -1)
    low, high = quantizer.levels.lowest, quantizer.levels.highest

    def error(row, limit):
        step = limit / max(-low, high)
        return float((((row / step).round().clamp(low, high) * step) - row).square().sum())

    chosen = weights["norm/log2_range"].detach().exp2().flatten().double()
    for row, limit in zip(rows, chosen, strict=True):
        tried = torch.linspace(0.02, 1.0, 400).double() * row.abs().max()
        best = min(error(row, t) for t in tried)
        assert error(row, limit) <= best * 1.02 + 1e-9


def test_channels_that_are_always_zero_get_a_usual_range():
    quantizer = Uniform(4, signed=False, step="learned", per_channel=True)
    network = Network(
        (
            Node(Input((3, 8, 8), (128.0,), (1 / 64,))),
            Node(Conv2d(2, 1, Real()), (0,), "conv"),
            Node(BatchNorm(quantizer, real=True), (1,), "norm"),
            Node(DepthwiseConv2d(3, Real()), (2,), "depthwise"),
        )
    )
    weights = settled(network)
    with torch.no_grad():
        weights["norm/gain"][0], weights["norm/offset"][0] = 0.0, -1.0
    set_ranges(network, weights, [images(8, 8)])
    ranges = weights["norm/log2_range"].detach().exp2().flatten()
    assert torch.isfinite(ranges).all() and ranges[0] == ranges[1]


def test_a_group_gets_one_range_that_holds_its_sums_too():
    network = build(BLOCKS, Options(weight_bits=8, depthwise_bits=8))
    weights = settled(network)
    batches = [images(16), images(16, seed=1)]
    set_ranges(network, weights, batches)
    with torch.no_grad():
        values = [v.real for v in run(float_form(network), weights, images(32))]
    at = {node.key: i for i, node in enumerate(network.nodes)}
    members = [values[at[f"stage2/unit{u}/{k}"]] for u, k in ((1, "pw_bn"), (2, "pw_bn"), (2, "add"))]
    largest = max(float(m.abs().max()) for m in members)
    limit = float(weights["stage2/unit1/group/log2_range"].detach().exp2())
    assert float(members[0].abs().max()) < limit <= largest * 1.01  # eight bits clip next to nothing


def test_statistics_are_refitted_to_the_quantized_network():
    network = build(BLOCKS, Options(depthwise_bits=4))
    weights = settled(network)
    x = images(64)
    refit_statistics(network, weights, [x])
    with torch.no_grad():
        values = [v.real for v in run(network, weights, x)]
    position = next(i for i, n in enumerate(network.nodes) if n.key == "stage2/unit1/pw_conv")
    mean, variance = weights.statistics("stage2/unit1/pw_bn")
    assert torch.allclose(values[position].mean((0, 2, 3)), mean, atol=2e-2)
    assert torch.allclose(values[position].var((0, 2, 3)), variance, rtol=5e-2)


def test_eight_bits_keep_the_predictions_and_two_do_not():
    agreement = {}
    for bits in (8, 2):
        network = build(BLOCKS, Options(weight_bits=bits, depthwise_bits=bits, pool="mean"))
        weights = settled(network)
        x = images(200, seed=5)
        with torch.no_grad():
            wanted = forward(float_form(network), weights, x)[0].argmax(1)
            quantize_after_training(network, weights, list(images(64, seed=6).split(32)), refit=False)
            agreement[bits] = float((forward(network, weights, x)[0].argmax(1) == wanted).double().mean())
    assert agreement[8] > 0.9 > agreement[2]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_trained_network_at_other_bits_has_the_ranges_with_the_least_squared_error(bits, per_channel):
    def network(width):
        relu = Uniform(width, signed=False, step="learned", start=2.0, per_channel=per_channel)
        return Network(
            (
                Node(Input((3, 8, 8), (128.0,), (1 / 64,))),
                Node(Conv2d(4, 3, Uniform(width, per_channel=per_channel)), (0,), "conv"),
                Node(BatchNorm(relu, real=True), (1,), "norm"),
            )
        )

    trained, changed = network(8), network(bits)
    weights, batches = settled(trained), [images(8, 8, seed) for seed in range(3)]
    copied = copy.deepcopy(weights)
    Requantizer(trained, weights, batches).apply(changed, copied)
    with torch.no_grad():
        values = torch.cat([run(trained, weights, x)[-1].real for x in batches]).double()
    rows = values.transpose(0, 1).flatten(1) if per_channel else values.reshape(1, -1)
    check_least_squares(rows, copied["norm/log2_range"].detach().exp2().flatten(), 2.0, 0, 2**bits - 1)
    latent, clipped = (each["conv"].detach().double() for each in (weights, copied))
    rows, limits = (each.flatten(1) if per_channel else each.reshape(1, -1) for each in (latent, clipped))
    highest = 2 ** (bits - 1) - 1
    for row, limit in zip(rows, limits.abs().amax(1), strict=True):
        check_least_squares(row[None], limit[None], float(row.abs().max()), -highest, highest)
    assert torch.equal(weights["conv"], settled(trained)["conv"])


def check_least_squares(rows, chosen, most, low, high):
    """No other range up to `most` has a squared error that is much smaller."""

    def error(row, limit):
        step = limit / high
        return float((((row / step).round().clamp(low, high) * step) - row).square().sum())

    for row, limit in zip(rows, chosen.double(), strict=True):
        best = min(error(row, t) for t in torch.linspace(0.02, 1.0, 400).double() * most)
        assert error(row, limit) <= best * 1.03 + 1e-9


def test_at_the_bits_it_was_trained_with_a_network_stays_what_it_was():
    network = build(BLOCKS, Options(weight_bits=8, depthwise_bits=8))
    weights = settled(network)
    copied = copy.deepcopy(weights)
    requantizer = Requantizer(network, weights, list(images(64, seed=6).split(32)))
    requantizer.apply(build(BLOCKS, Options(weight_bits=2, depthwise_bits=3)), copied)
    assert not torch.equal(copied["stage2/unit1/bc_conv"], weights["stage2/unit1/bc_conv"])
    requantizer.apply(network, copied)
    for name, tensor in weights.state_dict().items():
        assert torch.allclose(copied.state_dict()[name], tensor, rtol=1e-4, atol=1e-6), name


def test_sums_that_saturate_at_zero_are_rectified_in_the_float_form():
    signed = Uniform(8, step="learned")
    network = Network(
        (
            Node(Input((3, 8, 8), (128.0,), (1 / 64,))),
            Node(Conv2d(3, 1, Real()), (0,), "conv"),
            Node(BatchNorm(signed, real=True, scale_key="group"), (1,), "norm"),
            Node(Conv2d(3, 1, Real()), (0,), "other"),
            Node(BatchNorm(signed, real=True, scale_key="group"), (3,), "other/norm"),
            Node(Add(Levels.between(0, 127)), (2, 4), "sum"),
        )
    )
    weights, x = settled(network), images(4, 8)
    with torch.no_grad():
        *_, left, _, right, total = [value.real for value in run(float_form(network), weights, x)]
    assert torch.equal(total, (left + right).clamp_min(0))
    assert bool((total == 0).any()) and bool((total > 0).any())
