"""Levels, rounding and straight-through gradients of every quantizer, against formulas written out by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from bitwright.catalogue import find, names
from bitwright.errors import ConfigError
from bitwright.network import Conv2d, Input, Linear, Network, Node
from bitwright.quantizers import Fans, Levels, Quantized, quantize, rounded_range, saturate, straight_through
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.quantized_relu import QuantizedRelu
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import SMALLEST_SCALE, Uniform

BITS = range(2, 9)
VARIANTS = [
    Binary(0.25),
    Binary("glorot", stochastic=True),
    Ternary("glorot"),
    Ternary(clip_gradient=True),
    *(FixedPoint(bits) for bits in (2, 3, 8)),
    *(QuantizedRelu(bits) for bits in (2, 3, 8)),
    *(Uniform(bits, signed=False) for bits in (1, 2, 8)),
    *(Uniform(bits, narrow=narrow) for bits in (2, 3, 8) for narrow in (True, False)),
    Uniform(4, step=0.5),
    Uniform(4, step="learned", per_channel=True),
]
DEFAULTS = [find("quantizers", name)() for name in names("quantizers")]
EVERY = list(dict.fromkeys([*DEFAULTS, *VARIANTS]))
INTEGER = [quantizer for quantizer in EVERY if quantizer.levels is not None]
FANS = Fans(18, 36)

BFLOAT16 = [q for q in INTEGER if q.gradient_range is not None and max(map(abs, q.levels.values)) <= 127]
BOUNDED = [q for q in INTEGER if q.latent_bound(FANS) is not None]

every_quantizer = pytest.mark.parametrize("quantizer", EVERY, ids=repr)
every_integer_quantizer = pytest.mark.parametrize("quantizer", INTEGER, ids=repr)
bits_2_to_8 = pytest.mark.parametrize("bits", BITS)


def neighbours(values: Tensor) -> Tensor:
    """The float32 values with the next float on either side of each, ascending."""
    array = values.numpy()
    infinity = np.float32(np.inf)
    both = [np.nextafter(array, -infinity), array, np.nextafter(array, infinity)]
    return torch.from_numpy(np.concatenate(both)).unique()


def dense_grid(quantizer) -> Tensor:
    """Code units from three below the lowest level to three above the highest, with the floats around each half."""
    lowest, highest = (-4, 4) if quantizer.levels is None else (quantizer.levels.lowest, quantizer.levels.highest)
    sixteenths = torch.arange(16 * (lowest - 3), 16 * (highest + 3) + 1) / 16
    halves = torch.arange(2 * (lowest - 3), 2 * (highest + 3) + 1) / 2
    return torch.cat([sixteenths, neighbours(halves)]).unique()


def gradient_of(quantizer, x: Tensor, incoming: Tensor | None = None, **training) -> Tensor:
    x = x.clone().requires_grad_()
    codes = straight_through(quantizer, x, **training)
    (gradient,) = torch.autograd.grad(codes, x, torch.ones_like(codes) if incoming is None else incoming)
    return gradient


class RoundThrough(torch.autograd.Function):
    """round_through of the originals: rounds half to even, gradient 1."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


round_through = RoundThrough.apply


# the contract


def test_the_catalogue_lists_the_quantizers_of_the_originals():
    assert {"binary", "ternary", "fixed_point", "quantized_relu", "uniform", "real", "relu"} <= set(names("quantizers"))


@every_integer_quantizer
def test_the_codes_are_exactly_the_levels(quantizer):
    codes = quantizer.codes(dense_grid(quantizer))
    assert codes.unique().tolist() == list(quantizer.levels.values)


@every_quantizer
def test_codes_are_monotone(quantizer):
    codes = quantizer.codes(dense_grid(quantizer))
    assert (codes.diff() >= 0).all()


@every_integer_quantizer
def test_levels_are_ascending_integers_that_fit_the_bits(quantizer):
    values = quantizer.levels.values
    assert all(type(value) is int for value in values)
    assert sorted(set(values)) == list(values)
    assert 2 ** (quantizer.bits - 1) < len(values) <= 2**quantizer.bits


@every_integer_quantizer
def test_signed_says_whether_a_level_is_negative(quantizer):
    assert quantizer.signed == any(value < 0 for value in quantizer.levels.values)


@every_integer_quantizer
def test_the_levels_quantize_to_themselves(quantizer):
    levels = torch.tensor(quantizer.levels.values, dtype=torch.float32)
    assert torch.equal(quantizer.codes(levels), levels)


@every_integer_quantizer
def test_infinities_take_the_outermost_levels(quantizer):
    codes = quantizer.codes(torch.tensor([-math.inf, math.inf]))
    assert codes.tolist() == [quantizer.levels.lowest, quantizer.levels.highest]


@every_integer_quantizer
def test_the_gradient_passes_exactly_on_the_closed_gradient_range(quantizer):
    x = dense_grid(quantizer)
    if quantizer.gradient_range is None:
        expected = torch.ones_like(x)
    else:
        low, high = quantizer.gradient_range
        x = torch.cat([x, neighbours(torch.tensor([low, high]))]).unique()
        expected = ((low <= x) & (x <= high)).float()
        assert 0 < expected.sum() < len(expected)
    assert torch.equal(gradient_of(quantizer, x), expected)


@every_integer_quantizer
def test_the_incoming_gradient_passes_unchanged(quantizer):
    x = dense_grid(quantizer)
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(gradient_of(quantizer, x, incoming), incoming * gradient_of(quantizer, x))


@pytest.mark.parametrize("quantizer", BFLOAT16, ids=repr)
def test_the_gradient_range_holds_for_bfloat16_boundaries(quantizer):
    outermost = torch.tensor([quantizer.levels.lowest, quantizer.levels.highest])
    x = torch.cat([outermost + offset for offset in (-1.0, -0.5, 0.0, 0.5, 1.0)]).bfloat16()
    low, high = quantizer.gradient_range
    assert torch.equal(gradient_of(quantizer, x).float(), ((low <= x.float()) & (x.float() <= high)).float())


@every_quantizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_codes_keep_shape_and_dtype_and_leave_the_input_alone(quantizer, dtype):
    x = torch.linspace(-3, 3, 24).to(dtype).reshape(2, 3, 4)
    before = x.clone()
    codes = quantizer.codes(x)
    assert codes.shape == x.shape
    assert codes.dtype == dtype
    assert torch.equal(x, before)


@every_quantizer
def test_codes_are_deterministic(quantizer):
    x = torch.linspace(-3, 3, 1001)
    assert torch.equal(quantizer.codes(x), quantizer.codes(x))


@every_quantizer
def test_scales_are_positive_and_broadcast(quantizer):
    x = torch.randn((4, 3, 5, 5), generator=torch.Generator().manual_seed(2))
    before = x.clone()
    scale = quantizer.scale(x, FANS)
    assert (torch.as_tensor(scale) > 0).all()
    assert (x / scale).shape == x.shape
    assert torch.equal(x, before)


@every_quantizer
def test_the_scale_of_an_activation_is_one_positive_number(quantizer):
    assert float(quantizer.scale(torch.zeros(1), None)) > 0


@every_quantizer
def test_latent_weights_are_bounded_by_a_positive_number_or_free(quantizer):
    bound = quantizer.latent_bound(FANS)
    assert bound is None or bound > 0


@pytest.mark.parametrize("quantizer", BOUNDED, ids=repr)
def test_the_outermost_levels_lie_within_the_latent_bound(quantizer):
    scale = quantizer.scale(torch.zeros(1), FANS)
    assert max(-quantizer.levels.lowest, quantizer.levels.highest) * scale <= quantizer.latent_bound(FANS)


@every_quantizer
def test_equal_descriptions_are_equal_and_hash_alike(quantizer):
    twin = type(quantizer)(**{name: getattr(quantizer, name) for name in quantizer.__dataclass_fields__})
    assert twin == quantizer
    assert hash(twin) == hash(quantizer)


@every_quantizer
def test_draws_are_levels(quantizer):
    x = torch.linspace(-3, 3, 1001)
    draws = quantizer.draw(x, torch.Generator().manual_seed(3))
    if quantizer.levels is None:
        assert torch.equal(draws, quantizer.codes(x))
    else:
        assert set(draws.unique().tolist()) <= set(quantizer.levels.values)


@every_quantizer
def test_only_stochastic_quantizers_draw_in_training(quantizer):
    x = torch.linspace(-0.9, 0.9, 1001)
    drawn = straight_through(quantizer, x, training=True, generator=torch.Generator().manual_seed(4))
    assert torch.equal(drawn, quantizer.codes(x)) != quantizer.stochastic


# real numbers


def test_real_numbers_are_unchanged():
    x = torch.tensor([-math.inf, -1.5, -0.0, 0.3, math.inf])
    assert torch.equal(Real().codes(x), x)
    assert Real().bits == 32
    assert torch.equal(gradient_of(Real(), x), torch.ones(5))


def test_the_rectifier_passes_the_gradient_above_zero_only():
    x = torch.tensor([-1.0, -1e-30, 0.0, 1e-30, 2.0])
    assert Relu().codes(x).tolist() == [0.0, 0.0, 0.0, x[3].item(), 2.0]
    assert gradient_of(Relu(), x).tolist() == [0, 0, 0, 1, 1]
    assert not Relu().signed


# binary


@pytest.mark.parametrize("h", [1.0, 0.5, 0.3, "glorot"])
def test_binary_numbers_are_plus_and_minus_h(h):
    half_width = math.sqrt(1.5 / (18 + 36)) if h == "glorot" else h
    weights = torch.linspace(-2, 2, 801) * half_width
    quantizer = Binary(h)
    real = quantize(quantizer, weights, quantizer.scale(weights, FANS)).real
    assert real.unique().tolist() == torch.tensor([-half_width, half_width]).tolist()
    assert torch.equal(real > 0, weights >= 0)


def test_binary_zero_is_positive_whatever_its_sign():
    assert Binary().codes(torch.tensor([0.0, -0.0])).tolist() == [1, 1]


def test_the_smallest_negative_number_is_minus_one():
    assert Binary().codes(torch.tensor([-(2.0**-149), 2.0**-149])).tolist() == [-1, 1]


def test_the_binary_gradient_includes_both_ends_of_h():
    x = neighbours(torch.tensor([-1.0, 1.0]))
    assert gradient_of(Binary(), x).tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("h", [1.0, 0.5, 0.125])
def test_the_binary_gradient_of_scaled_weights_is_one_within_h(h):
    weights = neighbours(torch.tensor([-h, 0.0, h])).requires_grad_()
    quantize(Binary(h), weights, Binary(h).scale(weights, FANS)).real.sum().backward()
    assert torch.equal(weights.grad, (weights.abs() <= h).float())


def test_binary_activations_take_one_for_glorot():
    assert Binary("glorot").scale(torch.zeros(3), None) == 1.0


def test_stochastic_draws_follow_the_hard_sigmoid():
    # Hoeffding: n draws leave [p - t, p + t] with probability 2 exp(-2 n t^2), here below 1e-9 for each of 21 points
    n = 100_000
    tolerance = math.sqrt(math.log(2e9) / (2 * n))
    generator = torch.Generator().manual_seed(5)
    for x in torch.linspace(-1.25, 1.25, 21).tolist():
        draws = Binary(stochastic=True).draw(torch.full((n,), x), generator)
        probability = min(max((x + 1) / 2, 0.0), 1.0)
        assert abs((draws > 0).double().mean().item() - probability) <= tolerance


def test_stochastic_draws_beyond_h_are_certain():
    quantizer, generator = Binary(stochastic=True), torch.Generator().manual_seed(6)
    assert (quantizer.draw(torch.full((10_000,), 1.0), generator) == 1).all()
    assert (quantizer.draw(torch.full((10_000,), 1.001), generator) == 1).all()
    assert (quantizer.draw(torch.full((10_000,), -1.001), generator) == -1).all()


def test_stochastic_draws_depend_on_the_generator_alone():
    x = torch.linspace(-1, 1, 1001)
    first, again, other = (
        straight_through(Binary(stochastic=True), x, training=True, generator=torch.Generator().manual_seed(seed))
        for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_stochastic_quantizer_is_deterministic_in_evaluation():
    x = torch.linspace(-1, 1, 1001)
    codes = straight_through(Binary(stochastic=True), x, generator=torch.Generator().manual_seed(9))
    assert torch.equal(codes, torch.where(x >= 0, 1.0, -1.0))


def test_the_gradient_of_a_draw_does_not_depend_on_what_was_drawn():
    x = neighbours(torch.linspace(-2, 2, 1001))
    drawn = gradient_of(Binary(stochastic=True), x, training=True, generator=torch.Generator().manual_seed(10))
    assert torch.equal(drawn, gradient_of(Binary(), x))


# ternary


@pytest.mark.parametrize("h", [1.0, 0.5, 2.0])
def test_ternary_thresholds_are_half_of_h(h):
    weights = torch.arange(-4096, 4097) / 2048 * h
    real = quantize(Ternary(h), weights, Ternary(h).scale(weights, FANS)).real
    expected = torch.where(weights > 0.5 * h, h, torch.where(weights <= -0.5 * h, -h, 0.0))
    assert torch.equal(real, expected)


def test_ternary_ties_go_down():
    x = torch.tensor([-0.5, 0.5])
    assert Ternary().codes(x).tolist() == [-1, 0]
    assert Ternary().codes(torch.nextafter(x, torch.tensor(math.inf)))[1] == 1
    assert Ternary().codes(torch.nextafter(x, torch.tensor(-math.inf))).tolist() == [-1, 0]


def test_ternary_weights_pass_the_gradient_everywhere():
    x = torch.tensor([-1e6, -1.0, -0.5, 0.0, 0.5, 1.0, 1e6])
    assert gradient_of(Ternary(), x).tolist() == [1] * 7


def test_ternary_activations_pass_the_gradient_on_the_closed_interval_of_h():
    x = neighbours(torch.tensor([-1.0, 1.0]))
    assert gradient_of(Ternary(clip_gradient=True), x).tolist() == [0, 1, 1, 1, 1, 0]


def test_ternary_glorot_weights_are_three_multiples_of_the_glorot_width():
    half_width = math.sqrt(1.5 / (18 + 36))
    weights = torch.linspace(-1, 1, 201) * half_width
    real = quantize(Ternary("glorot"), weights, Ternary("glorot").scale(weights, FANS)).real
    assert real.unique().tolist() == torch.tensor([-half_width, 0.0, half_width]).tolist()


# fixed point


@bits_2_to_8
def test_fixed_point_levels_go_from_minus_one_to_one_step_below_one(bits):
    m = 2 ** (bits - 1)
    x = torch.linspace(-2, 2, 64 * m + 1)
    real = quantize(FixedPoint(bits), x, FixedPoint(bits).scale(x, None)).real
    assert real.unique().tolist() == [i / m for i in range(-m, m)]
    assert len(real.unique()) == 2**bits


@bits_2_to_8
def test_fixed_point_rounds_to_the_nearest_level_and_ties_to_even_levels(bits):
    m = 2 ** (bits - 1)
    sixteenths = range(-16 * (m + 2), 16 * (m + 2) + 1)
    codes = FixedPoint(bits).codes(torch.tensor(sixteenths) / 16)
    assert codes.tolist() == [min(max(round(Fraction(i, 16)), -m), m - 1) for i in sixteenths]


@bits_2_to_8
def test_fixed_point_equals_the_original_formula_in_value_and_gradient(bits):
    m = 2 ** (bits - 1)
    ours = neighbours(torch.arange(-4 * m, 4 * m + 1) / (2 * m)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    value = quantize(FixedPoint(bits), ours, FixedPoint(bits).scale(ours, None)).real
    naive = round_through(theirs * m).clamp(-m, m - 1) / m
    assert torch.equal(value, naive)
    value.sum().backward()
    naive.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@bits_2_to_8
def test_the_upper_tie_of_fixed_point_is_clipped_and_the_lower_is_not(bits):
    m = 2 ** (bits - 1)
    x = neighbours(torch.tensor([-m - 0.5, m - 0.5]))
    assert gradient_of(FixedPoint(bits), x).tolist() == [0, 1, 1, 1, 0, 0]


def test_fixed_point_latent_weights_stay_within_one():
    assert FixedPoint(4).latent_bound(FANS) == 1.0


@pytest.mark.parametrize("bits", [1, 17])
def test_fixed_point_refuses_widths_it_does_not_have(bits):
    with pytest.raises(ConfigError, match=str(bits)):
        FixedPoint(bits)


# quantized relu


@bits_2_to_8
def test_the_quantized_relu_has_half_as_many_levels_as_its_nominal_bits(bits):
    m = 2 ** (bits - 1)
    x = torch.linspace(-2, 2, 64 * m + 1)
    real = quantize(QuantizedRelu(bits), x, QuantizedRelu(bits).scale(x, None)).real
    assert real.unique().tolist() == [i / m for i in range(m)]
    assert QuantizedRelu(bits).bits == bits - 1


@bits_2_to_8
def test_the_quantized_relu_equals_the_original_formula_in_value_and_gradient(bits):
    m = 2 ** (bits - 1)
    ours = (torch.arange(-64 * m, 64 * m + 1) / (32 * m)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    value = quantize(QuantizedRelu(bits), ours, QuantizedRelu(bits).scale(ours, None)).real
    hard_sigmoid = ((theirs + 1) / 2).clamp(0, 1)
    naive = (2 * round_through(hard_sigmoid * 2**bits) / 2**bits - 1).clamp(0, 1 - 2.0 ** (1 - bits))
    assert torch.equal(value, naive)
    value.sum().backward()
    naive.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("bits", [1, 17])
def test_the_quantized_relu_refuses_widths_it_does_not_have(bits):
    with pytest.raises(ConfigError, match=str(bits)):
        QuantizedRelu(bits)


# uniform

UNIFORM_LEVELS = [
    *((Uniform(bits, signed=False, step=1.0), 0, 2**bits - 1) for bits in range(1, 9)),
    *((Uniform(bits, step=1.0), 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) for bits in BITS),
    *((Uniform(bits, narrow=False, step=1.0), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in BITS),
]
every_uniform = pytest.mark.parametrize(("quantizer", "lowest", "highest"), UNIFORM_LEVELS)


@every_uniform
def test_uniform_levels_are_all_integers_between_the_ends(quantizer, lowest, highest):
    assert quantizer.levels.values == tuple(range(lowest, highest + 1))


@every_uniform
def test_uniform_rounds_to_the_nearest_level_and_ties_to_even_levels(quantizer, lowest, highest):
    sixteenths = range(16 * (lowest - 2), 16 * (highest + 2) + 1)
    codes = quantizer.codes(torch.tensor(sixteenths) / 16)
    assert codes.tolist() == [min(max(round(Fraction(i, 16)), lowest), highest) for i in sixteenths]


@every_uniform
def test_uniform_passes_the_gradient_where_the_rounded_number_is_not_clipped(quantizer, lowest, highest):
    x = dense_grid(quantizer)
    naive = x.clone().requires_grad_()
    round_through(naive).clamp(lowest, highest).sum().backward()
    assert torch.equal(gradient_of(quantizer, x), naive.grad)


@bits_2_to_8
def test_a_tie_at_an_even_end_is_not_clipped_and_at_an_odd_end_is(bits):
    m = 2 ** (bits - 1)
    ties = torch.tensor([-m - 0.5, -m + 0.5, -0.5, m - 0.5, 2 * m - 0.5])
    assert gradient_of(Uniform(bits, narrow=False), ties)[[0, 3]].tolist() == [1, 0]
    assert gradient_of(Uniform(bits), ties)[[1, 3]].tolist() == [0, 0]
    assert gradient_of(Uniform(bits, signed=False), ties)[[2, 4]].tolist() == [1, 0]


@pytest.mark.parametrize(("quantizer", "code"), [(Uniform(4), 7), (Uniform(4, narrow=False), 8)])
def test_max_abs_maps_the_largest_magnitude_to_the_largest_code(quantizer, code):
    x = torch.tensor([[0.5, -3.0], [2.0, 1.0]])
    assert quantizer.scale(x, FANS).item() == torch.tensor(3.0).div(code).item()


def test_max_abs_per_channel_takes_each_slice_of_the_first_axis():
    x = torch.tensor([[[[0.5, -3.5]]], [[[14.0, 1.0]]]])
    scale = Uniform(4, per_channel=True).scale(x, FANS)
    assert scale.shape == (2, 1, 1, 1)
    assert scale.flatten().tolist() == [0.5, 2.0]


def test_max_abs_of_zeros_is_the_smallest_scale():
    assert Uniform().scale(torch.zeros(5), None).item() == SMALLEST_SCALE
    assert Uniform(per_channel=True).scale(torch.tensor([[0.0], [127.0]]), Fans(1, 2)).flatten().tolist() == [
        SMALLEST_SCALE,
        1.0,
    ]


def test_the_max_abs_scale_carries_no_gradient():
    x = torch.randn(5, requires_grad=True)
    assert not Uniform().scale(x, None).requires_grad


def test_a_fixed_step_is_the_scale():
    assert Uniform(4, step=0.125).scale(torch.randn(5), FANS) == 0.125


def test_only_a_learned_step_learns():
    assert [Uniform(step=step).learns_scale for step in (0.5, "max_abs", "learned")] == [False, False, True]


def test_uniform_latent_weights_are_free():
    assert Uniform().latent_bound(FANS) is None


@pytest.mark.parametrize(
    "arguments",
    [{"bits": 1}, {"bits": 17}, {"bits": 0, "signed": False}, {"step": 0.0}, {"step": -1.0}, {"step": math.nan}],
)
def test_uniform_refuses_what_has_no_meaning(arguments):
    with pytest.raises(ConfigError):
        Uniform(**arguments)


# scales and fans


def test_the_glorot_coefficient_of_a_known_convolution():
    network = Network((Node(Input((128, 8, 8))), Node(Conv2d(128, 3, Binary("glorot")), (0,), "conv")))
    (weight,) = network.weights(1)
    assert weight.fans == Fans(3 * 3 * 128, 3 * 3 * 128)
    assert weight.fans.glorot == math.sqrt(1.5 / (1152 + 1152))
    assert round(1 / weight.fans.glorot, 2) == 39.19
    assert Binary("glorot").latent_bound(weight.fans) == weight.fans.glorot


@pytest.mark.parametrize(
    ("inputs", "outputs", "width", "coefficient"),
    [
        (784, 2048, 0.02301, 43.45),
        (2048, 2048, 0.01914, 52.26),
        (784, 1024, 0.0288, 34.72),
        (1024, 1024, 0.02706, 36.95),
    ],
)
def test_the_glorot_coefficient_of_the_dense_layers_of_the_originals(inputs, outputs, width, coefficient):
    network = Network((Node(Input((inputs,))), Node(Linear(outputs, Binary("glorot")), (0,), "dense")))
    glorot = network.weights(1)[0].fans.glorot
    assert abs(glorot - width) <= 0.5e-5
    assert abs(1 / glorot - coefficient) <= 0.5e-2


def test_scaled_numbers_are_quantized_in_units_of_the_scale():
    x = torch.tensor([-1.0, -0.26, 0.24, 0.26, 10.0])
    assert quantize(Uniform(3, narrow=False), x, 0.5).real.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.5]


def test_the_gradient_of_a_tensor_scale_is_the_derivative_of_the_codes_times_it():
    # d/ds [s q(x / s)] with a straight-through q is q - x / s where q is not clipped and q where it is
    x, scale = torch.tensor([-5.0, -0.75, 0.5, 1.25, 9.0]), torch.tensor(0.5, requires_grad=True)
    quantize(Uniform(3, step="learned"), x, scale).real.sum().backward()
    assert scale.grad.item() == -3 + (-2 + 1.5) + (1 - 1) + (2 - 2.5) + 3


@pytest.mark.parametrize("lowest", range(-9, 10))
@pytest.mark.parametrize("width", [1, 2, 7])
def test_rounded_range_holds_the_floats_that_round_into_it_and_no_others(lowest, width):
    highest = lowest + width
    low, high = rounded_range(lowest, highest)
    inside = torch.tensor([low, high])
    outside = torch.nextafter(inside, torch.tensor([-math.inf, math.inf]))
    assert inside.round().tolist() == [lowest, highest]
    assert (outside.round()[0] < lowest) and (outside.round()[1] > highest)


def test_saturation_clips_to_the_levels_and_passes_the_gradient_inside():
    codes = torch.arange(-5.0, 6.0).requires_grad_()
    clipped = saturate(codes, Levels.between(-3, 2))
    clipped.sum().backward()
    assert clipped.tolist() == [-3, -3, -3, -2, -1, 0, 1, 2, 2, 2, 2]
    assert codes.grad.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert torch.equal(saturate(codes.detach(), Levels.between(-3, 2)), clipped)


@pytest.mark.parametrize(("count", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (255, 8), (256, 8), (257, 9)])
def test_levels_take_the_bits_that_tell_them_apart(count, bits):
    assert Levels.between(0, count - 1).bits == bits


def test_the_real_numbers_of_codes_are_codes_times_scale():
    codes = torch.tensor([[-1.0, 2.0], [3.0, 0.0]])
    assert Quantized(codes, 0.5).real.tolist() == [[-0.5, 1.0], [1.5, 0.0]]
    assert Quantized(codes, torch.tensor([[2.0], [4.0]])).real.tolist() == [[-2.0, 4.0], [12.0, 0.0]]
    assert Quantized(codes, 1.0).real is codes


def test_an_activation_has_one_scale_even_where_weights_have_one_per_channel():
    assert Uniform(per_channel=True).scale(torch.randn(4, 3, 2, 2), None).numel() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_just_above_minus_one_half_is_ternary_zero(dtype):
    half = torch.tensor(-0.5, dtype=dtype)
    above = torch.nextafter(half, torch.tensor(0.0, dtype=dtype))
    assert Ternary().codes(torch.stack([half, above])).tolist() == [-1.0, 0.0]


def test_a_stochastic_draw_at_either_end_is_certain():
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([[-1.0], [1.0]]).expand(2, 100_000).bfloat16()
    draws = Binary(stochastic=True).draw(ends, generator)
    assert (draws[0] == -1).all()
    assert (draws[1] == 1).all()


def test_a_saturated_number_between_levels_passes_gradient_only_inside():
    x = torch.tensor([6.9, 7.0, 7.3, -7.0, -7.3], requires_grad=True)
    saturate(x, Levels.between(-7, 7)).sum().backward()
    assert x.grad.tolist() == [1, 1, 0, 1, 0]
