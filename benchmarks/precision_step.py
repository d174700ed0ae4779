"""A training step of a search for precisions against a float one.

Forward, backward and update of ResNet-8 on a batch of 128 images of 3x32x32. A search draws the bits of every layer,
of 2, 4 and 8, anew in each step; "on a path" trains the weights alone, "with gates" also gathers the gradients of the
gates of all options on the same batch. What is not searched has eight bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from bitwright.modules import Gates, Training, Weights, forward, tensor_names
from bitwright.network import Network
from bitwright.spaces.precision import Precision
from bitwright.spaces.resnet import Resnet
from bitwright.train.losses import LOSSES
from bitwright.train.optimizers import Optimizer
from bitwright.train.recipe import Recipe, has_bfloat16

from .timing import Table, comparison, interleaved

ROUNDS = 30
BATCH = 128
OPTIONS = (2, 4, 8)
IMAGES: dict[str, Any] = {
    "image": (3, 32, 32), "classes": 10, "pixel_mean": (125.3, 123.0, 113.9), "pixel_std": (63.0, 62.1, 66.7),
}  # fmt: skip


def resnet8(weights: str, activations: str, first_last: str = "8") -> Network:
    space = Resnet(**IMAGES, blocks=1, weights=weights, activations=activations, first_last=first_last)
    return space.network(space.architecture(()))


class Trained:
    """Weights, their optimizer and a batch of random images, with the channels last as data sets store them."""

    def __init__(self, base: Network, dtype: str) -> None:
        self.weights = Weights([base])
        recipe = Recipe(optimizer="sgd", lr=0.01, dtype="bfloat16" if dtype == "bfloat16" else "float32")
        self.optimizer, self.dtype = Optimizer(self.weights, recipe), recipe.compute_dtype(torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8, generator=generator)
        self.pixels = pixels.permute(0, 3, 1, 2)
        self.labels = torch.randint(0, 10, (BATCH,), generator=generator)

    def step(self, network: Network, gates: dict[str, Gates]) -> None:
        training = Training(torch.Generator().manual_seed(0), gates=gates)
        logits, _ = forward(network, self.weights, self.pixels, training=training, dtype=self.dtype)
        LOSSES["cross_entropy"](logits, self.labels, 0.0).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(tensor_names(network), 0.01)


def fixed_step(network: Network, dtype: str = "float32") -> Callable[[int], None]:
    trained = Trained(network, dtype)
    return lambda _: trained.step(network, {})


def search_step(activation_bits: tuple[int, ...], *, gated: bool, dtype: str = "float32") -> Callable[[int], None]:
    base = resnet8("8", "8")
    space = Precision(**IMAGES, base=base, weight_bits=OPTIONS, activation_bits=activation_bits)
    values = [torch.zeros(len(decision.options), requires_grad=True) for decision in space.decisions]
    trained = Trained(base, dtype)

    def step(i: int) -> None:
        drawn = space.sample(np.random.default_rng(i))
        gates: dict[str, Gates] = {}
        for choice in space.gated(drawn) if gated else ():
            values[choice.decision].grad = None
            gates |= {key: Gates(each, values[choice.decision]) for key, each in choice.quantizers.items()}
        trained.step(space.network(drawn), gates)

    return step


def run() -> Table:
    candidates = {"float": fixed_step(resnet8("float", "float", "float"))}
    for dtype in ("float32", "bfloat16") if has_bfloat16(torch.device("cpu")) else ("float32",):
        name = "" if dtype == "float32" else f", {dtype}"
        candidates[f"4-bit weights, 8-bit activations{name}"] = fixed_step(resnet8("4", "8"), dtype)
        for searched, bits in (("weights", (8,)), ("weights and activations", OPTIONS)):
            make = partial(search_step, bits, dtype=dtype)
            candidates[f"search of {searched}, on a path{name}"] = make(gated=False)
            candidates[f"search of {searched}, with gates{name}"] = make(gated=True)
    return comparison(interleaved(candidates, ROUNDS), "float")
