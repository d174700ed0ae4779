"""No quantization: the full-precision baseline."""

from dataclasses import dataclass

from torch import Tensor

from . import Fans, Quantizer


@dataclass(frozen=True)
class Real(Quantizer):
    """q(x) = x, gradient 1."""

    @property
    def levels(self) -> None:
        return None

    @property
    def gradient_range(self) -> None:
        return None

    def codes(self, x: Tensor) -> Tensor:
        return x

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return 1.0
