"""One step of training, and evaluation: what a supernet and a single network have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..datasets import Part
from ..modules import Training, Weights, forward, tensor_names
from ..network import Network
from .distributed import Ranks, gathering
from .losses import LOSSES
from .mixing import Mixed, mix
from .optimizers import Optimizer
from .recipe import Recipe

EVALUATION_BATCH = 500  # images
EVALUATION_PIXELS = 2**23  # of a batch of larger images


@dataclass(frozen=True)
class StepResult:
    """Of one minibatch. The tensors are scalars that stay on the device until they are read.

    gradient_norm: of the update; nan if the step only gathers gradients.
    """

    loss: Tensor
    correct: Tensor
    gradient_norm: Tensor


@dataclass(frozen=True)
class Measured:
    """top1, top5: the fraction of images whose class is the first, or one of the first five. loss: the mean."""

    top1: float
    top5: float
    loss: float


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
    model: DistributedDataParallel | None = None,
    share: float = 1.0,
    update: bool = True,
) -> StepResult:
    """Forward, backward and update of the tensors that `network` uses.

    model: the network and its weights on several ranks. share: what the loss counts among those of the update.
    update: without it, gradients are added up for a later step.
    """
    synchronised = model is not None and recipe.sync_norm
    training = Training(generator, drop_path, recipe.norm_momentum, synchronised)
    dtype = recipe.compute_dtype(images.device)
    mixed = mix(images, labels, recipe.mixing, generator)
    images = mixed.images
    with nullcontext() if update else gathering(model):
        if model is None:
            logits, auxiliary = forward(network, weights, images, training=training, dtype=dtype)
        else:
            logits, auxiliary = model(images, training, dtype)
        loss = mixed_loss(logits, mixed, recipe)
        total = loss if auxiliary is None else loss + recipe.auxiliary_weight * mixed_loss(auxiliary, mixed, recipe)
        (total if share == 1.0 else total * share).backward()  # type: ignore[no-untyped-call]
    norm = optimizer.step(tensor_names(network), rate) if update else loss.new_tensor(math.nan)
    answers = logits.detach()
    if len(answers) > len(labels):
        answers = answers.reshape(-1, len(labels), answers.shape[1]).mean(0)
    return StepResult(loss.detach(), (answers.argmax(1) == labels).sum(), norm.detach())


def mixed_loss(logits: Tensor, mixed: Mixed, recipe: Recipe) -> Tensor:
    """The mean over images, over the two labels of mixed ones, and over the copies that multi-sample dropout makes."""
    function, copies = LOSSES[recipe.loss], len(logits) // len(mixed.labels)
    loss = function(logits, mixed.labels.repeat(copies), recipe.label_smoothing)
    if recipe.mix_rate == 0:
        return loss
    other = function(logits, mixed.other_labels.repeat(copies), recipe.label_smoothing)
    return mixed.weight * loss + (1 - mixed.weight) * other


def evaluation_batch(network: Network, largest: int = EVALUATION_BATCH) -> int:
    """How many images are evaluated at once: `largest`, or what a few gigabytes hold."""
    return max(1, min(largest, EVALUATION_PIXELS // math.prod(network.shapes[0][1:])))


@torch.no_grad()
def predictions(network: Network, weights: Weights, images: Part, batch: int | None = None) -> Tensor:
    """The class each image is put in, (N,), by the network as it is deployed."""
    batches = images.in_batches(batch or evaluation_batch(network))
    return torch.cat([forward(network, weights, x)[0].argmax(1) for x, _ in batches])


def accuracy(network: Network, weights: Weights, images: Part, batch: int | None = None) -> float:
    """The fraction of images that are put in their class."""
    return float((predictions(network, weights, images, batch) == images.labels).double().mean())


@torch.no_grad()
def measure(
    network: Network,
    weights: Weights,
    images: Part,
    loss: str = "cross_entropy",
    *,
    ranks: Ranks | None = None,
    tick: Callable[[int], None] | None = None,
) -> Measured:
    """Accuracies and the loss, without smoothing, of the network as it is deployed.

    ranks: each measures its share of the images, and all are told the whole. tick: told how many images are done.
    """
    ranks = ranks or Ranks()
    sums, done = torch.zeros(3, dtype=torch.float64, device=images.device), 0
    for x, labels in images[ranks.span(len(images))].in_batches(evaluation_batch(network)):
        logits = forward(network, weights, x)[0]
        places = place_of_class(logits, labels)
        figures = [(places < 1).sum(), (places < 5).sum(), LOSSES[loss](logits, labels) * len(labels)]
        sums += torch.stack([figure.double() for figure in figures])
        done += len(labels)
        if tick is not None:
            tick(done)
    top1, top5, total = (ranks.sum(sums) / len(images)).tolist()
    return Measured(top1, top5, total)


def place_of_class(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before each image's own, (N,).

    Of equal logits, which integers often are, the one of the lower class comes first. One that is no number comes last.
    """
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    behind = (logits < own) | ((logits == own) & (classes >= labels[:, None]))
    return (~behind).sum(1)
