"""The quantized rectifier of quantized neural networks (Hubara et al. 2016, arXiv:1609.07061)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from . import Fans, Levels, Quantizer, rounded_range


@dataclass(frozen=True)
class QuantizedRelu(Quantizer):
    """q(x) = clip(round(x m), 0, m - 1) / m with m = 2**(nominal_bits - 1); gradient 1 where nothing is clipped.

    The published rule counts a sign bit that the rectifier never uses: 4 nominal bits make 8 levels in [0, 1),
    which is 3 bits.
    """

    nominal_bits: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.nominal_bits <= 16:
            raise ConfigError(f"the quantized relu takes 2 to 16 nominal bits, got {self.nominal_bits}")

    @property
    def levels(self) -> Levels:
        return Levels.between(0, 2 ** (self.nominal_bits - 1) - 1)

    @property
    def gradient_range(self) -> tuple[float, float]:
        return rounded_range(self.levels.lowest, self.levels.highest)

    def codes(self, x: Tensor) -> Tensor:
        return torch.round(x).clamp_(0, 2 ** (self.nominal_bits - 1) - 1)

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return float(2.0 ** (1 - self.nominal_bits))
