"""A real-valued clip, so that a float network can have the ranges of a quantized one: relu6, the hard tangent."""

from dataclasses import dataclass

from torch import Tensor

from ..errors import ConfigError
from . import RealValued


@dataclass(frozen=True)
class Clipped(RealValued):
    """q(x) = clip(x, low, high), gradient 1 inside. The defaults are relu6 (Howard et al. 2017, arXiv:1704.04861)."""

    low: float = 0.0
    high: float = 6.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a clip has low < high, got {self.low} and {self.high}")

    @property
    def signed(self) -> bool:
        return self.low < 0

    def codes(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)
