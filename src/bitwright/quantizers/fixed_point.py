"""k-bit fixed point on [-1, 1), for weights and as the quantized tanh (Hubara et al. 2016, arXiv:1609.07061)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from . import Fans, Levels, Quantizer, rounded_range


@dataclass(frozen=True)
class FixedPoint(Quantizer):
    """q(x) = clip(round(x m), -m, m - 1) / m with m = 2**(bits - 1); gradient 1 where nothing is clipped.

    2**bits levels from -1 to 1 - 1/m; halves round to even. Latent weights stay in [-1, 1].
    """

    bits: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ConfigError(f"fixed point takes 2 to 16 bits, got {self.bits}; one bit is the binary quantizer")

    @property
    def levels(self) -> Levels:
        return Levels.between(-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)

    @property
    def gradient_range(self) -> tuple[float, float]:
        return rounded_range(self.levels.lowest, self.levels.highest)

    def codes(self, x: Tensor) -> Tensor:
        m = 2 ** (self.bits - 1)
        return torch.round(x).clamp_(-m, m - 1)

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return float(2.0 ** (1 - self.bits))

    def latent_bound(self, fans: Fans) -> float:
        return 1.0
