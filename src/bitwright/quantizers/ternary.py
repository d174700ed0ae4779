"""Ternary numbers, -H, 0 or +H, with the fixed threshold of Hubara et al.'s follow-up code for ternary networks.

Unlike Ternary Weight Networks (Li et al. 2016, arXiv:1605.04711) the threshold is a fixed half of H, not 0.7
times the mean magnitude, and there is no scale per layer: batch normalisation carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from . import Fans, Levels, Quantizer
from .binary import half_width


@dataclass(frozen=True)
class Ternary(Quantizer):
    """q(x) = +H for x > H/2, -H for x <= -H/2, else 0.

    h: the value H, or "glorot" for sqrt(1.5 / (fan_in + fan_out)) of each layer.
    clip_gradient: weights pass the gradient everywhere (False); activations only where |x| <= H (True).
    """

    h: float | Literal["glorot"] = 1.0
    clip_gradient: bool = False

    @property
    def levels(self) -> Levels:
        return Levels((-1, 0, 1))

    @property
    def gradient_range(self) -> tuple[float, float] | None:
        return (-1.0, 1.0) if self.clip_gradient else None

    def codes(self, x: Tensor) -> Tensor:
        x = x.detach()
        above = torch.gt(x, 0.5, out=torch.empty_like(x))  # not as booleans, whose conversion takes far longer
        return above.sub_(torch.le(x, -0.5, out=torch.empty_like(x)))

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return half_width(self.h, fans)

    def latent_bound(self, fans: Fans) -> float:
        return half_width(self.h, fans)
