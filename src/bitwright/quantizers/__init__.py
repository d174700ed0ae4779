"""The quantizer contract: a rule from real numbers to integer codes, defined once.

Real numbers are approximated by  scale * code,  code in `levels`,  codes monotone in the real number.
Training, cost, thresholds and export ask the same object, so no other file restates a rounding rule.

A quantizer works in *code units*: it is given x / scale. Its gradient is straight-through (Bengio et al.
2013, arXiv:1308.3432): the incoming gradient passes where x / scale lies in the closed interval
`gradient_range` and is zero elsewhere.

Each file of this folder is one quantizer; the class has the file's name in capitals (`fixed_point` holds
`FixedPoint`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Scale = float | Tensor  # positive; a Tensor broadcasts over the codes


@dataclass(frozen=True, slots=True)
class Levels:
    """The integer codes a quantizer can emit, ascending."""

    values: tuple[int, ...]

    @staticmethod
    @cache
    def between(lowest: int, highest: int) -> Levels:
        """Every integer from lowest to highest."""
        return Levels(tuple(range(lowest, highest + 1)))

    @property
    def lowest(self) -> int:
        return self.values[0]

    @property
    def highest(self) -> int:
        return self.values[-1]

    @property
    def magnitude(self) -> int:
        return max(-self.lowest, self.highest)

    @property
    def bits(self) -> int:
        """Bits that tell the levels apart: 1 for two, 2 for three or four."""
        return math.ceil(math.log2(len(self.values)))

    @property
    def signed(self) -> bool:
        return self.lowest < 0


class Fans(NamedTuple):
    """How many numbers one output sums (`fan_in`) and one input feeds (`fan_out`), kernel area included."""

    fan_in: int
    fan_out: int

    @property
    def glorot(self) -> float:
        """sqrt(1.5 / (fan_in + fan_out)): the half-width of BinaryConnect's Glorot-scaled weights.

        Its inverse is the factor on the updates of binary weights (Courbariaux et al. 2015, section 2.5):
        39.19 for a 3x3 convolution from 128 to 128 channels.
        """
        return math.sqrt(1.5 / (self.fan_in + self.fan_out))


class Quantized(NamedTuple):
    """Integer codes held in a floating-point tensor, and the scale that makes them real numbers."""

    codes: Tensor
    scale: Scale

    @property
    def real(self) -> Tensor:
        return self.codes if isinstance(self.scale, float) and self.scale == 1.0 else self.codes * self.scale


class Quantizer(ABC):
    """Frozen description of one rule; it holds no tensors."""

    @property
    @abstractmethod
    def levels(self) -> Levels | None:
        """The codes it emits, or None for real numbers, which train but have no integer form."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Codes of `x`, any shape, already divided by its scale. Element-wise, monotone, deterministic."""

    @property
    @abstractmethod
    def gradient_range(self) -> tuple[float, float] | None:
        """Where the straight-through gradient passes, in code units; None for everywhere.

        Quantizers without levels have the gradient of their function instead.
        """

    @abstractmethod
    def scale(self, x: Tensor, fans: Fans | None) -> Scale:
        """The scale that suits `x`: a latent weight (out, ...) with its fans, or an activation with None."""

    @property
    def bits(self) -> int:
        """Storage bits of one number: 32 for real numbers."""
        return 32 if self.levels is None else self.levels.bits

    @property
    def signed(self) -> bool:
        return self.levels is None or self.levels.signed

    @property
    def stochastic(self) -> bool:
        """Whether a training step draws the codes instead of rounding."""
        return False

    @property
    def learns_scale(self) -> bool:
        """Whether the scale is trained; it starts at `scale` for weights, for activations it clips at `first_range`."""
        return False

    @property
    def first_range(self) -> float:
        """The real number at which an activation with a learned scale clips at first."""
        return 1.0

    @property
    def per_channel(self) -> bool:
        """Whether every channel has a scale of its own."""
        return False

    @property
    def tames_scale_gradient(self) -> bool:
        """Whether the gradient of a learned scale is divided as LSQ does."""
        return True

    def latent_bound(self, fans: Fans) -> float | None:
        """H where the latent weights must stay in [-H, H] after every update, None where they are free."""
        return None

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random codes of `x` for a training step of a stochastic quantizer."""
        return self.codes(x)


class RealValued(Quantizer):
    """A function of real numbers that has no levels; its gradient is its own."""

    @property
    def levels(self) -> None:
        return None

    @property
    def gradient_range(self) -> None:
        return None

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return 1.0


class _StraightThrough(torch.autograd.Function):
    """codes(x) forwards; backwards one fused kernel that zeroes the gradient outside the open interval.

    A boolean mask would take several times longer than `hardtanh_backward` (docs/benchmarks.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: Quantizer, draw: bool, generator: torch.Generator | None) -> Tensor:
        ctx.gradient_range = quantizer.gradient_range
        if ctx.gradient_range is not None:
            ctx.save_for_backward(x)
        return quantizer.draw(x, generator) if draw else quantizer.codes(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.gradient_range is not None:
            (x,) = ctx.saved_tensors
            low, high = ctx.gradient_range
            gradient = torch.ops.aten.hardtanh_backward(gradient, x, *_open(low, high))
        return gradient, None, None, None


def straight_through(
    quantizer: Quantizer, x: Tensor, *, training: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Codes of `x` (in code units) with the straight-through gradient; a stochastic quantizer draws in training."""
    if quantizer.levels is None or not x.requires_grad:
        return quantizer.draw(x, generator) if training and quantizer.stochastic else quantizer.codes(x)
    codes: Tensor = _StraightThrough.apply(x, quantizer, training and quantizer.stochastic, generator)  # type: ignore[no-untyped-call]
    return codes


class _Saturate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lowest: int, highest: int) -> Tensor:
        ctx.gradient_range = float(lowest), float(highest)
        ctx.save_for_backward(x)
        return x.clamp(lowest, highest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, x, *_open(*ctx.gradient_range)), None, None


def saturate(codes: Tensor, levels: Levels) -> Tensor:
    """Codes clipped to the range of `levels`; gradient 1 where nothing is clipped."""
    if not codes.requires_grad:
        return codes.clamp(levels.lowest, levels.highest)
    clipped: Tensor = _Saturate.apply(codes, levels.lowest, levels.highest)  # type: ignore[no-untyped-call]
    return clipped


def quantize(
    quantizer: Quantizer,
    x: Tensor,
    scale: Scale,
    *,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Quantized:
    """Codes of the real numbers `x` at `scale`; differentiable in `x` and in a scale that is a tensor."""
    codes = straight_through(quantizer, in_units(x, scale), training=training, generator=generator)
    return Quantized(codes, scale)


def in_units(x: Tensor, scale: Scale) -> Tensor:
    """The real numbers `x` in code units."""
    return x if isinstance(scale, float) and scale == 1.0 else x / scale


class Option(NamedTuple):
    """A quantizer that a value could have, and the scale that the value would have with it (1 without levels)."""

    quantizer: Quantizer
    scale: Scale


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, gates: Tensor, units: Tensor, options: Sequence[Option], active: int
    ) -> Tensor:
        ctx.options, ctx.active = options, active
        ctx.save_for_backward(codes, units, gates)
        return codes.view_as(codes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        codes, units, gates = ctx.saved_tensors
        scale = ctx.options[ctx.active].scale
        products = [
            sum_of_products(gradient, codes) if k == ctx.active else _product_with(option, gradient, units, scale)
            for k, option in enumerate(ctx.options)
        ]
        return gradient, torch.stack(products).to(gates), None, None, None


def gated(codes: Tensor, units: Tensor, options: Sequence[Option], active: int, gates: Tensor) -> Tensor:
    """The codes that the active option made of `units`, as y = sum_k gates[k] y_k at gates 1 for it and 0 for others.

    y_k are the real numbers that option k makes of the same ones. The gradient of gates[k] is <dL/dy, y_k> (Cai et al.
    2019, arXiv:1812.00332, equation 4), that of the codes is what it is without gates.

    units: real numbers / the scale of the active option. gates: (options,); what they hold is not read.
    """
    summed: Tensor = _Gated.apply(codes, gates, units, options, active)  # type: ignore[no-untyped-call]
    return summed


def _product_with(option: Option, gradient: Tensor, units: Tensor, scale: Scale) -> Tensor:
    """<gradient, y_k / scale>, where `units` and `gradient` are those of codes of that scale.

    dL/dy is the gradient of the codes / scale, element by element.
    """
    ratio = scale / option.scale
    real = option.quantizer.codes(units.to(torch.promote_types(units.dtype, torch.float32)) * ratio)
    if isinstance(ratio, float):
        return sum_of_products(gradient, real) / ratio
    if ratio.numel() == 1:
        return sum_of_products(gradient, real) / ratio.reshape(())
    return sum_of_products(gradient, real.div_(ratio))


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> in float32 or wider, in the order of the memory of `a`: one pass over both."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.movedim(1, -1), b.movedim(1, -1)
    return torch.dot(a.reshape(-1).to(dtype), b.reshape(-1).to(dtype))


@cache
def rounded_range(lowest: int, highest: int) -> tuple[float, float]:
    """The closed interval of float32 numbers that round (half to even) to an integer in [lowest, highest]."""
    low, high = np.float32(lowest - 0.5), np.float32(highest + 0.5)
    if lowest % 2:
        low = np.nextafter(low, np.float32(np.inf))
    if highest % 2:
        high = np.nextafter(high, np.float32(-np.inf))
    return float(low), float(high)


@cache
def _open(low: float, high: float) -> tuple[float, float]:
    """The open float32 interval that holds the same numbers as the closed one."""
    infinity = np.float32(np.inf)
    return float(np.nextafter(np.float32(low), -infinity)), float(np.nextafter(np.float32(high), infinity))
