"""How weights are trained: the options that the supernet and a network by itself have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import ConfigError
from .augment import Augmentation
from .schedules import Schedule, constant, cosine_restarts, exponential, one_cycle


@dataclass(frozen=True)
class Recipe:
    """epochs: passes over the training images.
    batch: images per step.
    optimizer: sgd with Nesterov momentum, or adam.
    momentum: of sgd; beta_1 of adam.
    adam_beta2, adam_epsilon: of adam.
    lr, lr_min: highest and lowest learning rate.
    schedule: cosine_restarts, one_cycle, exponential or constant.
    restart_period, restart_factor: epochs of the first cosine cycle, and how much longer each next one is.
    warmup: fraction of training over which one_cycle rises.
    weight_decay: added to the gradient as weight_decay * weight, for weights whose range is free (a published L2 term
        of 1e-4 sum(w**2) is 2e-4 here). Normalisations and latent weights kept in [-H, H] do not decay.
    scale_updates: multiply the update of binary, ternary and fixed-point weights by the Glorot coefficient of their
        layer (its square for sgd), as BinaryConnect does.
    clip_norm: largest norm of the whole gradient; 0 does not clip.
    loss: cross_entropy or squared_hinge.
    label_smoothing: the part of a target that is spread over all classes (cross_entropy).
    pad, flip, cutout: augmentation of the training images, see Augmentation.
    auxiliary_weight: of the auxiliary head's loss.
    drop_path: the rate that the deepest cell reaches at the end of training; it grows linearly from 0.
    ema: decay of an exponential moving average of the weights, which is then what is evaluated and kept; 0 is none.
    dtype: of the convolutions in training; auto is bfloat16 where the machine computes with it, else float32.
        Networks are always evaluated in float32.
    """

    epochs: int = 30
    batch: int = 128
    optimizer: Literal["sgd", "adam"] = "adam"
    momentum: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    lr: float = 0.01
    lr_min: float = 1e-5
    schedule: Literal["cosine_restarts", "one_cycle", "exponential", "constant"] = "one_cycle"
    restart_period: int = 10
    restart_factor: int = 2
    warmup: float = 0.1
    weight_decay: float = 0.0
    scale_updates: bool = False
    clip_norm: float = 5.0
    loss: Literal["cross_entropy", "squared_hinge"] = "cross_entropy"
    label_smoothing: float = 0.0
    pad: int = 0
    flip: bool = False
    cutout: int = 0
    auxiliary_weight: float = 0.4
    drop_path: float = 0.0
    ema: float = 0.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch", 2), ("restart_period", 1), ("restart_factor", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"recipe: {name} is at least {low}, got {getattr(self, name)}")
        for name in ("lr", "lr_min"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"recipe: {name} is positive, got {getattr(self, name)}")
        for name in ("momentum", "adam_beta2", "warmup", "label_smoothing", "drop_path", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"recipe: {name} is in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "clip_norm", "auxiliary_weight", "adam_epsilon"):
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe: {name} is at least 0, got {getattr(self, name)}")
        if self.lr_min > self.lr:
            raise ConfigError(f"recipe: lr_min is at most lr, got {self.lr_min} and {self.lr}")
        Augmentation(self.pad, self.flip, self.cutout)  # which checks its own options

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.pad, self.flip, self.cutout)

    def rates(self) -> Schedule:
        match self.schedule:
            case "cosine_restarts":
                return cosine_restarts(self.lr, self.lr_min, self.restart_period, self.restart_factor)
            case "one_cycle":
                return one_cycle(self.lr, self.lr_min, self.epochs, self.warmup)
            case "exponential":
                return exponential(self.lr, self.lr_min, self.epochs)
            case "constant":
                return constant(self.lr)

    def compute_dtype(self, device: torch.device) -> torch.dtype:
        if self.dtype == "auto":
            return torch.bfloat16 if has_bfloat16(device) else torch.float32
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers faster than float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    read = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 does not have it
    capabilities = {} if read is None else read()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
