"""Scaled integers against Brevitas (https://github.com/Xilinx/brevitas): codes, scales and gradients."""

import math

import pytest
import torch

from bitwright.quantizers import Fans, quantize
from bitwright.quantizers.uniform import Uniform

pytest.importorskip("brevitas")

import brevitas.nn as qnn
from brevitas.core.function_wrapper import Identity
from brevitas.core.quant import IntQuant
from brevitas.core.restrict_val import LogFloatRestrictValue
from brevitas.core.scaling import ParameterScaling
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloatMaxInit

EPSILON = 2.0**-24  # half the spacing of float32 numbers just above 1
ZERO = torch.tensor(0.0)

KINDS = [
    pytest.param({"signed": True, "narrow": True}, id="narrow"),
    pytest.param({"signed": True, "narrow": False}, id="full"),
    pytest.param({"signed": False, "narrow": False}, id="unsigned"),
]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_width = pytest.mark.parametrize("bits", [2, 3, 4, 8])


def random_weight(seed, shape=(6, 5, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def brevitas_layer(weight, bits, per_channel, narrow):
    layer = qnn.QuantConv2d(
        weight.shape[1],
        weight.shape[0],
        weight.shape[2],
        bias=False,
        weight_quant=Int8WeightPerChannelFloat if per_channel else Int8WeightPerTensorFloat,
        weight_bit_width=bits,
        weight_narrow_range=narrow,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def brevitas_rounding(kind):
    return IntQuant(narrow_range=kind["narrow"], signed=kind["signed"], input_view_impl=Identity())


@every_width
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
def test_weight_codes_and_scales_equal_brevitas(bits, per_channel, narrow):
    for seed in range(5):
        weight = random_weight(seed)
        theirs = brevitas_layer(weight, bits, per_channel, narrow).quant_weight()
        quantizer = Uniform(bits, narrow=narrow, per_channel=per_channel)
        ours = quantize(quantizer, weight, quantizer.scale(weight, Fans(45, 54)))
        assert torch.equal(ours.scale, theirs.scale)
        assert torch.equal(ours.codes, theirs.int().float())
        assert torch.equal(ours.real, theirs.value)


@every_width
@pytest.mark.parametrize("per_channel", [False, True])
def test_weight_gradients_equal_brevitas_except_at_the_largest_magnitudes(bits, per_channel):
    # Brevitas differentiates the maximum as well; that reaches the weight of largest magnitude and no other
    weight, incoming = random_weight(7), random_weight(8)
    layer = brevitas_layer(weight, bits, per_channel, narrow=True)
    layer.quant_weight().value.backward(incoming)
    ours, quantizer = weight.clone().requires_grad_(), Uniform(bits, per_channel=per_channel)
    quantize(quantizer, ours, quantizer.scale(ours, Fans(45, 54))).real.backward(incoming)
    largest = weight.abs().amax((1, 2, 3), keepdim=True) if per_channel else weight.abs().max()
    others = weight.abs() < largest
    assert (~others).sum() == (6 if per_channel else 1)
    assert torch.equal(ours.grad[others], layer.weight.grad[others])


@every_width
@every_kind
@pytest.mark.parametrize("scale", [0.25, 0.0371])
def test_codes_and_gradients_of_a_given_scale_equal_brevitas(bits, kind, scale):
    random, steps = random_weight(9).flatten() * scale * 2**bits, torch.arange(-(2**bits), 2**bits + 1)
    x = torch.cat([random, steps * scale, (steps + 0.5) * scale])
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(10))
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = brevitas_rounding(kind)(torch.tensor(scale), ZERO, torch.tensor(float(bits)), theirs)
    value.backward(incoming)
    quantized = quantize(Uniform(bits, **kind, step=scale), ours, scale)
    quantized.real.backward(incoming)
    assert torch.equal(quantized.real, value)
    assert torch.equal(ours.grad, theirs.grad)


@every_width
@every_kind
def test_a_learned_log2_scale_equals_brevitas_in_value_and_both_gradients(bits, kind):
    x, incoming = random_weight(11), random_weight(12)
    scaling = ParameterScaling(scaling_init=3.0 / 2**bits, restrict_scaling_impl=LogFloatRestrictValue())
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = brevitas_rounding(kind)(scaling(theirs), ZERO, torch.tensor(float(bits)), theirs)
    value.backward(incoming)
    log2_scale = scaling.value.detach().clone().requires_grad_()
    quantized = quantize(Uniform(bits, **kind, step="learned"), ours, log2_scale.exp2())
    quantized.real.backward(incoming)
    assert torch.equal(quantized.real, value)
    assert torch.equal(ours.grad, theirs.grad)
    # both sum g (q - x / s) s ln 2 over the n numbers where q is not clipped and g q s ln 2 elsewhere, in some order;
    # each addition errs by a relative epsilon, and the five factors of a term as well
    scale = log2_scale.exp2().detach()
    magnitudes = (incoming.abs() * (quantized.codes.abs() + (x / scale).abs()) * scale * math.log(2)).sum()
    tolerance = 2 * (x.numel() + 5) * EPSILON * magnitudes
    assert (log2_scale.grad - scaling.value.grad).abs() <= tolerance
    assert tolerance <= 1e-3 * magnitudes


def test_an_unsigned_activation_with_a_given_maximum_equals_brevitas():
    x = random_weight(13).relu()
    activation = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloatMaxInit, max_val=x.max().item(), bit_width=4)
    activation.eval()
    quantizer = Uniform(4, signed=False)
    ours = quantize(quantizer, x, quantizer.scale(x, None))
    assert ours.scale.item() == activation.act_quant.scale().item()
    assert torch.equal(ours.real, activation(x))
    assert ours.codes.max() == 15
