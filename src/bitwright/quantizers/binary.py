"""Binary numbers, +H or -H (Courbariaux et al. 2015, BinaryConnect, arXiv:1511.00363, equations 1 to 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from . import Fans, Levels, Quantizer


@dataclass(frozen=True)
class Binary(Quantizer):
    """q(x) = +H for x >= 0, else -H; gradient 1 where |x| <= H.

    h: the value H, or "glorot" for sqrt(1.5 / (fan_in + fan_out)) of each layer.
    stochastic: a training step draws +H with probability clip((x / H + 1) / 2, 0, 1); evaluation takes the sign.
    sample: evaluation takes the draw of that number, which is always the same, in place of the sign: a member of the
        ensemble that section 2.6 of the paper speaks of.
    """

    h: float | Literal["glorot"] = 1.0
    stochastic: bool = field(default=False)
    sample: int | None = None

    @property
    def levels(self) -> Levels:
        return Levels((-1, 1))

    @property
    def gradient_range(self) -> tuple[float, float]:
        return -1.0, 1.0

    def codes(self, x: Tensor) -> Tensor:
        if self.sample is not None:
            # on the processor, whose random numbers are the same beside every device
            return self.draw(x.cpu(), torch.Generator().manual_seed(self.sample)).to(x.device)
        return torch.copysign(x.new_ones(()), x + 0.0)  # adding zero turns -0.0 into +0.0

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        uniform = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        # u is in [0, 1), so x >= 1 - 2u never holds for x = -1 and always for x = 1
        return torch.copysign(x.new_ones(()), x.sub(uniform.mul_(-2).add_(1)) + 0.0)

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return half_width(self.h, fans)

    def latent_bound(self, fans: Fans) -> float:
        return half_width(self.h, fans)


def half_width(h: float | Literal["glorot"], fans: Fans | None) -> float:
    """H as a number; activations, which have no fans, take 1 for "glorot"."""
    if h != "glorot":
        return float(h)
    return 1.0 if fans is None else fans.glorot
