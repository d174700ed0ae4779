"""torch's optimizers on a store of weights, of which every step updates only what the step has used.

Two rules of BinaryConnect (Courbariaux et al. 2015, arXiv:1511.00363, sections 2.4 and 2.5) are applied here to every
quantized weight, shared or not: latent weights are clipped to [-H, H] after each update, and the update (not the
gradient, which Adam would normalise away) may be multiplied by the layer's Glorot coefficient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..modules import Weights
from .recipe import Recipe


def update_scale(weights: Weights, name: str, recipe: Recipe) -> float:
    """The factor on the updates of a tensor: 1 / sqrt(1.5 / (fan_in + fan_out)), squared for sgd, or 1.

    39.19 for a 3x3 convolution from 128 to 128 channels under Adam.
    """
    latent = weights.latents.get(name)
    if not recipe.scale_updates or latent is None or latent.quantizer.latent_bound(latent.fans) is None:
        return 1.0
    coefficient = 1 / latent.fans.glorot
    return coefficient**2 if recipe.optimizer == "sgd" else coefficient


def decays(name: str, parameter: Tensor, bound: float | None, recipe: Recipe) -> bool:
    """Whether weight decay acts on a tensor. bound: H of a latent weight that is kept in [-H, H], which does not."""
    if bound is not None:
        return False
    if name.endswith(("/gain", "/offset")):
        return recipe.norm_decay
    if name.endswith(("/log2_range", "/bias")):
        return recipe.scale_decay
    return parameter.dim() > 1


class RMSProp(torch.optim.Optimizer):
    """RMSProp (Tieleman and Hinton 2012) with momentum, as TensorFlow 1 computes it.

    mean_square, from 1 on, moves towards the squared gradient by 1 - decay; then
    velocity = momentum * velocity + lr * gradient / sqrt(mean_square + epsilon), which is subtracted. torch's starts
    mean_square at 0, adds epsilon outside the root and multiplies by the rate behind the momentum.
    """

    def __init__(self, params: Any, lr: float, decay: float, momentum: float, epsilon: float) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            if not used:
                continue
            for p in used:
                if not self.state[p]:
                    self.state[p] = {"mean_square": torch.ones_like(p), "velocity": torch.zeros_like(p)}
            squares = [self.state[p]["mean_square"] for p in used]
            velocities = [self.state[p]["velocity"] for p in used]
            gradients = torch._foreach_add([p.grad for p in used], used, alpha=group["weight_decay"])
            torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - group["decay"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_addcdiv_(velocities, gradients, roots, group["lr"])
            torch._foreach_sub_(used, velocities)


class Optimizer:
    """One torch optimizer with a group for every pair of update scale and weight decay."""

    def __init__(self, weights: Weights, recipe: Recipe) -> None:
        self.clip_norm = recipe.clip_norm
        self._parameters = dict(weights.named_parameters())
        self._bounds: dict[str, float] = {}
        self._group_of: dict[str, int] = {}
        groups: dict[tuple[float, float], int] = {}
        for name, parameter in self._parameters.items():
            latent = weights.latents.get(name)
            bound = None if latent is None else latent.quantizer.latent_bound(latent.fans)
            if bound is not None:
                self._bounds[name] = bound
            decay = recipe.weight_decay if decays(name, parameter, bound, recipe) else 0.0
            key = (update_scale(weights, name, recipe), decay)
            self._group_of[name] = groups.setdefault(key, len(groups))
        self._scales = [scale for scale, _ in groups]
        settings = [{"params": [], "weight_decay": decay} for _, decay in groups]
        for name, group in self._group_of.items():
            settings[group]["params"].append(self._parameters[name])  # type: ignore[attr-defined]
        self._torch: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            nesterov = recipe.nesterov and recipe.momentum > 0
            self._torch = torch.optim.SGD(
                settings, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True
            )
        elif recipe.optimizer == "rmsprop":
            self._torch = RMSProp(settings, recipe.lr, recipe.rmsprop_decay, recipe.momentum, recipe.rmsprop_epsilon)
        else:
            betas = (recipe.momentum, recipe.adam_beta2)
            self._torch = torch.optim.Adam(settings, lr=recipe.lr, betas=betas, eps=recipe.adam_epsilon, fused=True)

    def step(self, names: Iterable[str], rate: float) -> Tensor:
        """Update the named tensors from their gradients, clear these, and return the norm before clipping."""
        used = [(name, self._parameters[name]) for name in names if self._parameters[name].grad is not None]
        norm = nn.utils.clip_grad_norm_([p for _, p in used], self.clip_norm or float("inf"))
        members: list[list[nn.Parameter]] = [[] for _ in self._scales]
        for name, parameter in used:
            members[self._group_of[name]].append(parameter)
        for group, scale, parameters in zip(self._torch.param_groups, self._scales, members, strict=True):
            group["params"] = parameters
            group["lr"] = rate * scale
            if isinstance(self._torch, torch.optim.SGD) and group["momentum"]:
                # torch's fused sgd does not take a buffer that is not there yet
                for parameter in parameters:
                    self._torch.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        self._torch.step()
        by_bound: dict[float, list[Tensor]] = {}
        for name, parameter in used:
            if name in self._bounds:
                by_bound.setdefault(self._bounds[name], []).append(parameter.detach())
            parameter.grad = None
        for bound, tensors in by_bound.items():
            torch._foreach_clamp_min_(tensors, -bound)
            torch._foreach_clamp_max_(tensors, bound)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer remembers of each tensor, by the tensor's name."""
        return {name: dict(self._torch.state[p]) for name, p in self._parameters.items() if p in self._torch.state}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        self._torch.state.clear()
        for name, remembered in state.items():
            parameter = self._parameters[name]
            # Adam counts its steps on the processor; moments live beside the parameter
            self._torch.state[parameter] = {
                key: value.clone().to(parameter.device) for key, value in remembered.items()
            }
