"""The names that people give to precisions, and the quantizers they stand for.

float     32-bit reals; as an activation the rectifier
binary    -1, +1
ternary   -1, 0, +1
2 ... 8   so many bits
"""

from __future__ import annotations

from .errors import ConfigError
from .quantizers import Quantizer
from .quantizers.binary import Binary
from .quantizers.fixed_point import FixedPoint
from .quantizers.real import Real
from .quantizers.relu import Relu
from .quantizers.ternary import Ternary
from .quantizers.uniform import Uniform

NAMES = ("float", "binary", "ternary", "2", "3", "4", "5", "6", "7", "8")


def weight_quantizer(name: str) -> Quantizer:
    """The weights of a convolution; k-bit ones are fixed point on [-1, 1)."""
    match name:
        case "float":
            return Real()
        case "binary":
            return Binary()
        case "ternary":
            return Ternary()
        case _:
            return FixedPoint(_bits(name))


def scaled_weight_quantizer(name: str) -> Quantizer:
    """The weights of a product that no normalisation follows, whose scale must suit what reads it.

    Binary and ternary ones have the Glorot half-width of their layer; k bits span the largest weight of the tensor.
    """
    match name:
        case "float":
            return Real()
        case "binary":
            return Binary("glorot")
        case "ternary":
            return Ternary("glorot")
        case _:
            return Uniform(_bits(name))


def symmetric_activation(name: str) -> Quantizer:
    """Activations of the quantized networks of Hubara et al.: k bits are the quantized tanh on [-1, 1)."""
    match name:
        case "float":
            return Relu()
        case "binary":
            return Binary()
        case "ternary":
            return Ternary(clip_gradient=True)
        case _:
            return FixedPoint(_bits(name))


def rectified_activation(name: str) -> Quantizer:
    """Activations behind a batch normalisation: k bits are unsigned and reach eight standard deviations.

    The step is the power of two 2**(3 - k), at most 1: 0.5 and up to 7.5 for 4 bits. A normalised number seldom passes
    4, the rest is room for sums: half of it costs a supernet on digits 8 points of accuracy. Two and three levels have
    no room for a rectifier and stay symmetric.
    """
    if name in ("float", "binary", "ternary"):
        return symmetric_activation(name)
    bits = _bits(name)
    return Uniform(bits, signed=False, step=min(2.0 ** (3 - bits), 1.0))


def _bits(name: str) -> int:
    if name not in NAMES:
        raise ConfigError(f"no precision {name!r}: {', '.join(NAMES)}")
    return int(name)
