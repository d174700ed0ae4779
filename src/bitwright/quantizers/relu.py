"""The real-valued rectifier, so that a float network is described in the same terms as a quantized one."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from . import RealValued


@dataclass(frozen=True)
class Relu(RealValued):
    """q(x) = max(x, 0), gradient 1 for x > 0."""

    @property
    def signed(self) -> bool:
        return False

    def codes(self, x: Tensor) -> Tensor:
        return F.relu(x)
