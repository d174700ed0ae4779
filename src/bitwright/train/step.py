"""One step of training, and evaluation: what a supernet and a single network have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ..datasets import Images
from ..modules import Training, Weights, forward, tensor_names
from ..network import Network
from .losses import LOSSES
from .optimizers import Optimizer
from .recipe import Recipe

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class StepResult:
    """Of one minibatch. The tensors are scalars that stay on the device until they are read."""

    loss: Tensor
    correct: Tensor
    gradient_norm: Tensor


def random_stream(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator that depends on `key` alone, so that a resumed run draws what the uninterrupted one would."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def train_step(
    network: Network,
    weights: Weights,
    optimizer: Optimizer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    rate: float,
    drop_path: float,
    generator: torch.Generator,
) -> StepResult:
    """Forward, backward and update of the tensors that `network` uses."""
    training = Training(generator, drop_path)
    logits, auxiliary = forward(network, weights, images, training=training, dtype=recipe.compute_dtype(images.device))
    loss = LOSSES[recipe.loss](logits, labels, recipe.label_smoothing)
    total = loss
    if auxiliary is not None:
        total = loss + recipe.auxiliary_weight * LOSSES[recipe.loss](auxiliary, labels, recipe.label_smoothing)
    total.backward()  # type: ignore[no-untyped-call]
    norm = optimizer.step(tensor_names(network), rate)
    return StepResult(loss.detach(), (logits.argmax(1) == labels).sum(), norm.detach())


@torch.no_grad()
def predictions(network: Network, weights: Weights, images: Images, batch: int = EVALUATION_BATCH) -> Tensor:
    """The class each image is put in, (N,), by the network as it is deployed."""
    parts = []
    for start in range(0, len(images), batch):
        x, _ = images.batch(slice(start, start + batch))
        parts.append(forward(network, weights, x)[0].argmax(1))
    return torch.cat(parts)


def accuracy(network: Network, weights: Weights, images: Images, batch: int = EVALUATION_BATCH) -> float:
    """The fraction of images that are put in their class."""
    return float((predictions(network, weights, images, batch) == images.labels).double().mean())
