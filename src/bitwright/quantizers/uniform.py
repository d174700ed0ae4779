"""Scaled integers: evenly spaced levels times one scale per tensor or per channel.

The conventions are Brevitas's: the scale maps the largest magnitude to the largest magnitude among the codes.
The learned scale is trained in the log2 domain (Jain et al. 2020, arXiv:1903.08066, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from . import Fans, Levels, Quantizer, Scale, rounded_range

SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True)
class Uniform(Quantizer):
    """q(x) = s clip(round(x / s), lowest, highest); gradient 1 where nothing is clipped.

    bits: 1 to 16 (2 to 16 if signed).
    signed, narrow: codes are 0 .. 2**bits - 1 if not signed, else -(2**(bits-1)) .. 2**(bits-1) - 1, of which
        `narrow` leaves out the lowest.
    step: the scale s: a number; "max_abs" for max|x| / max|code|, recomputed from each weight, for an activation
        from a running mean of the batches' maxima; "learned" for a trained scale, of weights starting at "max_abs".
    per_channel: one scale for each slice of a weight's first axis instead of one for the tensor; of an activation one
        for each channel, which must be learned.
    start: the real number at which a learned activation scale starts to clip.
    scale_gradient: "lsq" divides the gradient of a learned scale by sqrt(numbers * highest code) (Esser et al. 2020,
        arXiv:1902.08153, section 2.2), "plain" leaves it as it is.
    """

    bits: int = 8
    signed: bool = True
    narrow: bool = True
    step: float | Literal["max_abs", "learned"] = "max_abs"
    per_channel: bool = False
    start: float = 4.0
    scale_gradient: Literal["lsq", "plain"] = "lsq"

    def __post_init__(self) -> None:
        fewest = 2 if self.signed else 1
        if not fewest <= self.bits <= 16:
            kind = "signed" if self.signed else "unsigned"
            raise ConfigError(f"{kind} scaled integers take {fewest} to 16 bits, got {self.bits}")
        if not isinstance(self.step, str) and not self.step > 0:
            raise ConfigError(f"a scale is positive, got {self.step}")
        if not self.start > 0:
            raise ConfigError(f"a learned scale starts above 0, got {self.start}")

    @property
    def levels(self) -> Levels:
        if not self.signed:
            return Levels.between(0, 2**self.bits - 1)
        highest = 2 ** (self.bits - 1) - 1
        return Levels.between(-highest if self.narrow else -highest - 1, highest)

    @property
    def gradient_range(self) -> tuple[float, float]:
        return rounded_range(self.levels.lowest, self.levels.highest)

    @property
    def learns_scale(self) -> bool:
        return self.step == "learned"

    @property
    def first_range(self) -> float:
        return self.start

    @property
    def tames_scale_gradient(self) -> bool:
        return self.scale_gradient == "lsq"

    def codes(self, x: Tensor) -> Tensor:
        return torch.round(x).clamp_(self.levels.lowest, self.levels.highest)

    def scale(self, x: Tensor, fans: Fans | None) -> Scale:
        if not isinstance(self.step, str):
            return float(self.step)
        x = x.detach()
        if self.per_channel and fans is not None:
            largest = torch.linalg.vector_norm(x, float("inf"), dim=tuple(range(1, x.dim())), keepdim=True)
        else:
            largest = torch.linalg.vector_norm(x, float("inf"))
        step: Tensor = largest.div_(self.levels.magnitude).clamp_min_(SMALLEST_SCALE)
        return step
