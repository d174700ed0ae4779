"""How weights are trained: the options that the supernet and a network by itself have in common."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch

from ..errors import ConfigError
from .augment import Augmentation
from .mixing import Mixing
from .schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    exponential,
    linear,
    one_cycle,
    step,
    warmed_up,
)


@dataclass(frozen=True)
class Recipe:
    """epochs: passes over the training images.
    batch: images per step, on each device if there are several.
    optimizer_batch: images per update on all devices together, a multiple of those of a step: so many steps gather
        their gradients, and the update is made with the mean. 0 updates after every step.
    drop_last: leave out the images of an epoch that are too few for a whole step; otherwise the last step is smaller.
    optimizer: sgd, adam, or rmsprop as TensorFlow defines it.
    momentum: of sgd and rmsprop; beta_1 of adam.
    nesterov: of sgd, whether its momentum is Nesterov's.
    adam_beta2, adam_epsilon: of adam.
    rmsprop_decay, rmsprop_epsilon: of rmsprop; the epsilon is inside the square root.
    lr, lr_min: highest and lowest learning rate; step, linear, cosine and constant have no lowest one.
    schedule: cosine_restarts, one_cycle, exponential or constant; step (times step_factor at each milestone), linear
        or cosine (half a cosine), the last two to zero. All but one_cycle are constant within an epoch.
    restart_period, restart_factor: epochs of the first cosine cycle, and how much longer each next one is.
    milestones, step_factor: epochs, counted from 0, in which step lowers the rate, and to which part of it.
    warmup: fraction of training over which one_cycle rises.
    warmup_epochs: of step, linear and cosine: epoch e, counted from 0, then has the rate lr * (e + 1) / warmup_epochs.
    weight_decay: added to the gradient as weight_decay * weight, for weights whose range is free (a published L2 term
        of 1e-4 sum(w**2) is 2e-4 here). Latent weights kept in [-H, H] do not decay.
    norm_decay: whether gains and offsets of normalisations decay too.
    scale_decay: whether learned scales, as their logarithms, and biases decay too.
    scale_updates: multiply the update of binary, ternary and fixed-point weights by the Glorot coefficient of their
        layer (its square for sgd), as BinaryConnect does.
    clip_norm: largest norm of the whole gradient; 0 does not clip.
    loss: cross_entropy or squared_hinge.
    label_smoothing: the part of a target that is spread over all classes (cross_entropy).
    crop, pad, crop_area: padded crops of the original size, out of so many pixels of zero padding, or resized ones of
        at least that part of the area.
    flip, cutout: whether half of the images are mirrored; the side of a square of each that is blotted out.
    auto_augment: two operations on each image from the policy that AutoAugment found for ImageNet.
    mix_kind: how the images of a batch are mixed, cutmix or mixup.
    mix_rate: alpha of Beta(alpha, alpha), from which the weight of a batch is drawn; 0 does not mix.
    mix_prob: of a batch to be mixed.
    mix_clipped_weight: whether the weight of cutmix counts what is left of the image, or is what was drawn.
    auxiliary_weight: of the auxiliary head's loss.
    drop_path: the rate that the deepest cell reaches at the end of training; it grows linearly from 0.
    ema: decay of an exponential moving average of the weights, which is then what is evaluated and kept; 0 is none.
    calibrate: set the running statistics of normalisations anew at the end of every epoch, from up to 4,096 training
        images and the weights as they are then; otherwise they are the running averages of the training steps.
    norm_momentum: the part of those running averages that a step replaces.
    sync_norm: on several devices, normalise by the statistics of the images of all; otherwise each by its own.
    training_only: validate nothing and keep the weights of the last epoch.
    gather_checkpoints: keep the checkpoints of the first ten epochs and of every tenth.
    dtype: of the convolutions in training; auto is bfloat16 where the machine computes with it, else float32.
        Networks are always evaluated in float32.

    A supernet takes no notice of optimizer_batch, drop_last, drop_path, ema, calibrate, sync_norm, training_only and
    gather_checkpoints.
    """

    epochs: int = 30
    batch: int = 128
    optimizer_batch: int = 0
    drop_last: bool = False
    optimizer: Literal["sgd", "adam", "rmsprop"] = "adam"
    momentum: float = 0.9
    nesterov: bool = True
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    rmsprop_decay: float = 0.9
    rmsprop_epsilon: float = 1e-10
    lr: float = 0.01
    lr_min: float = 1e-5
    schedule: Literal["cosine_restarts", "one_cycle", "exponential", "constant", "step", "linear", "cosine"] = (
        "one_cycle"
    )
    restart_period: int = 10
    restart_factor: int = 2
    milestones: tuple[int, ...] = (15, 30, 45)
    step_factor: float = 0.1
    warmup: float = 0.1
    warmup_epochs: int = 0
    weight_decay: float = 0.0
    norm_decay: bool = False
    scale_decay: bool = False
    scale_updates: bool = False
    clip_norm: float = 5.0
    loss: Literal["cross_entropy", "squared_hinge"] = "cross_entropy"
    label_smoothing: float = 0.0
    pad: int = 0
    flip: bool = False
    cutout: int = 0
    crop: Literal["padded", "resized"] = "padded"
    crop_area: float = 0.08
    auto_augment: bool = False
    mix_kind: Literal["cutmix", "mixup"] = "cutmix"
    mix_rate: float = 0.0
    mix_prob: float = 0.5
    mix_clipped_weight: bool = True
    auxiliary_weight: float = 0.4
    drop_path: float = 0.0
    ema: float = 0.0
    calibrate: bool = True
    norm_momentum: float = 0.1
    sync_norm: bool = True
    training_only: bool = False
    gather_checkpoints: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        for name, low in (
            ("epochs", 1),
            ("batch", 2),
            ("optimizer_batch", 0),
            ("restart_period", 1),
            ("restart_factor", 1),
            ("warmup_epochs", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"recipe: {name} is at least {low}, got {getattr(self, name)}")
        for name in ("lr", "lr_min", "step_factor"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"recipe: {name} is positive, got {getattr(self, name)}")
        for name in (
            "momentum",
            "adam_beta2",
            "rmsprop_decay",
            "norm_momentum",
            "warmup",
            "label_smoothing",
            "drop_path",
            "ema",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"recipe: {name} is in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "clip_norm", "auxiliary_weight", "adam_epsilon", "rmsprop_epsilon"):
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe: {name} is at least 0, got {getattr(self, name)}")
        if self.lr_min > self.lr:
            raise ConfigError(f"recipe: lr_min is at most lr, got {self.lr_min} and {self.lr}")
        if any(milestone < 0 for milestone in self.milestones):
            raise ConfigError(f"recipe: milestones are epochs from 0 on, got {list(self.milestones)}")
        self.steps_per_update()
        self.augmentation, self.mixing  # noqa: B018 (which check their own options)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(**{option.name: getattr(self, option.name) for option in fields(Augmentation)})

    @property
    def mixing(self) -> Mixing:
        return Mixing(self.mix_kind, self.mix_rate, self.mix_prob, self.mix_clipped_weight)

    def rates(self) -> Schedule:
        after = max(self.epochs - self.warmup_epochs, 1)
        match self.schedule:
            case "cosine_restarts":
                return cosine_restarts(self.lr, self.lr_min, self.restart_period, self.restart_factor)
            case "one_cycle":
                return one_cycle(self.lr, self.lr_min, self.epochs, self.warmup)
            case "exponential":
                return exponential(self.lr, self.lr_min, self.epochs)
            case "constant":
                return constant(self.lr)
            case "step":
                lowered = step(self.lr, self.milestones, self.step_factor)
                return warmed_up(self.lr, self.warmup_epochs, lowered, counts_on=True)
            case "linear":
                return warmed_up(self.lr, self.warmup_epochs, linear(self.lr, after))
            case "cosine":
                return warmed_up(self.lr, self.warmup_epochs, cosine(self.lr, after))

    def steps_per_update(self, devices: int = 1) -> int:
        """How many steps gather their gradients for one update; ConfigError where optimizer_batch is no multiple."""
        together = self.batch * devices
        if self.optimizer_batch % together:
            on = f" on {devices} devices" if devices > 1 else ""
            raise ConfigError(
                f"recipe: optimizer_batch {self.optimizer_batch} is no multiple of the {together} images of a step{on}"
            )
        return max(self.optimizer_batch // together, 1)

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
