"""Batches in which each image is mixed with another one: CutMix and mixup."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError


@dataclass(frozen=True)
class Mixing:
    """mix_kind: cutmix puts a rectangle of the other image into each (Yun et al. 2019, arXiv:1905.04899); mixup adds
        both images up (Zhang et al. 2018, arXiv:1710.09412), rounded to whole pixel values.
    mix_rate: alpha of Beta(alpha, alpha), from which the weight of a batch is drawn; 0 does not mix.
    mix_prob: of a batch to be mixed.
    mix_clipped_weight: the weight of cutmix is the part of the image that is left, the rectangle having been clipped
        at the border; otherwise it is what was drawn.
    """

    mix_kind: Literal["cutmix", "mixup"] = "cutmix"
    mix_rate: float = 0.0
    mix_prob: float = 0.5
    mix_clipped_weight: bool = True

    def __post_init__(self) -> None:
        if self.mix_kind not in ("cutmix", "mixup"):
            raise ConfigError(f"mixing: mix_kind is cutmix or mixup, got {self.mix_kind!r}")
        if self.mix_rate < 0 or not 0 <= self.mix_prob <= 1:
            raise ConfigError(
                f"mixing: mix_rate is at least 0 and mix_prob in [0, 1], got {self.mix_rate} and {self.mix_prob}"
            )


@dataclass(frozen=True)
class Mixed:
    """images: as they went in, uint8 (B, C, H, W). labels, other_labels: int64 (B,), of both images of each.
    weight: float32 (), the part of the loss that is that of `labels`; the rest is that of `other_labels`.
    """

    images: Tensor
    labels: Tensor
    other_labels: Tensor
    weight: Tensor


def mix(images: Tensor, labels: Tensor, options: Mixing, generator: torch.Generator) -> Mixed:
    """One permutation, weight and rectangle for the whole batch; everything stays on the device."""
    device = images.device
    if options.mix_rate == 0:
        return Mixed(images, labels, labels, torch.ones((), device=device))
    order = torch.randperm(len(images), generator=generator, device=device)
    draws = torch.rand(5, generator=generator, device=device, dtype=torch.float64)
    drawn = symmetric_beta(options.mix_rate, draws[0], draws[1])
    weight = torch.where(draws[2] < options.mix_prob, drawn, torch.ones_like(drawn))
    others = images[order]
    if options.mix_kind == "mixup":
        mixed = (weight.float() * images + (1 - weight.float()) * others).round().to(torch.uint8)
        return Mixed(mixed, labels, labels[order], weight.float())
    inside = _rectangle(images.shape[2], 1 - weight, draws[3])[:, None] & _rectangle(
        images.shape[3], 1 - weight, draws[4]
    )
    if options.mix_clipped_weight:
        weight = 1 - inside.double().mean()
    return Mixed(torch.where(inside, others, images), labels, labels[order], weight.float())


def symmetric_beta(alpha: float, first: Tensor, second: Tensor) -> Tensor:
    """A number from Beta(alpha, alpha), given two from the uniform distribution on [0, 1).

    The two make one of Student's t distribution with 2 alpha degrees of freedom (Bailey 1994, Mathematics of
    Computation 62), whose t / (2 sqrt(2 alpha + t^2)) + 1/2 has that distribution.
    """
    student = ((1 - first) ** (-1 / alpha) - 1).sqrt().clamp_max(1e100) * torch.cos(2 * math.pi * second)
    return 0.5 + 0.5 * student / torch.hypot(student, torch.ones_like(student))


def _rectangle(size: int, area: Tensor, centre: Tensor) -> Tensor:
    """Which of `size` pixels are within the side of a rectangle with that share of the area, clipped at the border."""
    half = (size * area.sqrt()).floor().div(2, rounding_mode="floor")
    distance = torch.arange(size, device=area.device) - (centre * size).floor()
    return (distance >= -half) & (distance < half)
