"""The real-valued rectifier, so that a float network is described in the same terms as a quantized one."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from . import Fans, Quantizer


@dataclass(frozen=True)
class Relu(Quantizer):
    """q(x) = max(x, 0), gradient 1 for x > 0."""

    @property
    def levels(self) -> None:
        return None

    @property
    def gradient_range(self) -> None:
        return None

    @property
    def signed(self) -> bool:
        return False

    def codes(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def scale(self, x: Tensor, fans: Fans | None) -> float:
        return 1.0
