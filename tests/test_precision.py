"""The quantizers that names of precisions stand for."""

import pytest

from bitwright.errors import ConfigError
from bitwright.precision import NAMES, rectified_activation, symmetric_activation, weight_quantizer
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform

WIDTHS = ("2", "3", "4", "5", "6", "7", "8")
ROLES = (weight_quantizer, symmetric_activation, rectified_activation)

every_role = pytest.mark.parametrize("role", ROLES)


def test_the_names_are_float_binary_ternary_and_two_to_eight():
    assert ("float", "binary", "ternary", *WIDTHS) == NAMES


@every_role
@pytest.mark.parametrize("name", ["", "1", "9", "16", "4.0", "-2", "Binary", "int8", " 4"])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(role, name):
    with pytest.raises(ConfigError, match="float, binary, ternary, 2, 3, 4, 5, 6, 7, 8"):
        role(name)


@every_role
@pytest.mark.parametrize(("name", "count"), [("binary", 2), ("ternary", 3), *((w, 2 ** int(w)) for w in WIDTHS)])
def test_every_integer_precision_has_as_many_levels_as_its_name_says(role, name, count):
    assert len(role(name).levels.values) == count


@every_role
def test_float_has_no_levels(role):
    assert role("float").levels is None


def test_float_weights_are_real_and_float_activations_rectified():
    assert weight_quantizer("float") == Real()
    assert symmetric_activation("float") == rectified_activation("float") == Relu()


def test_binary_and_ternary_have_a_width_of_one():
    assert weight_quantizer("binary") == symmetric_activation("binary") == rectified_activation("binary") == Binary(1.0)
    assert weight_quantizer("ternary") == Ternary(1.0, clip_gradient=False)


def test_ternary_activations_clip_the_gradient_and_ternary_weights_do_not():
    assert weight_quantizer("ternary").gradient_range is None
    assert symmetric_activation("ternary").gradient_range == (-1.0, 1.0)
    assert rectified_activation("ternary") == symmetric_activation("ternary")


@pytest.mark.parametrize("name", WIDTHS)
def test_weights_and_symmetric_activations_of_k_bits_are_fixed_point(name):
    assert weight_quantizer(name) == symmetric_activation(name) == FixedPoint(int(name))


@pytest.mark.parametrize(
    ("name", "step", "largest"),
    [
        ("2", 1.0, 3.0),
        ("3", 1.0, 7.0),
        ("4", 0.5, 7.5),
        ("5", 0.25, 7.75),
        ("6", 0.125, 7.875),
        ("7", 0.0625, 7.9375),
        ("8", 0.03125, 7.96875),
    ],
)
def test_rectified_activations_are_unsigned_and_reach_almost_eight(name, step, largest):
    quantizer = rectified_activation(name)
    assert quantizer == Uniform(int(name), signed=False, step=step)
    assert quantizer.levels.lowest == 0
    assert quantizer.levels.highest * quantizer.scale(None, None) == largest
