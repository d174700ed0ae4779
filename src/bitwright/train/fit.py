"""Training one network from scratch, to be interrupted and resumed at any moment with the same result."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import Dataset
from ..journal import Journal
from ..modules import Training, Weights, forward
from ..network import Network
from . import checkpoint
from .augment import Augmenter
from .optimizers import Optimizer
from .recipe import Recipe
from .step import accuracy, random_stream, train_step

CALIBRATION_BATCH, CALIBRATION_BATCHES = 512, 8


@dataclass
class Fitted:
    """weights: those of the epoch with the best validation accuracy (the last of equals)."""

    weights: Weights
    best_epoch: int
    validation_accuracy: float
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    journal: Journal | None = None,
    save_to: Path | None = None,
    checkpoint_seconds: float = 60.0,
    title: str = "training",
) -> Fitted:
    """Train `network` on dataset.train and keep what does best on dataset.validation; dataset.test is not touched.

    save_to: a checkpoint file, written at the end of every epoch and every `checkpoint_seconds`. If it exists,
    training goes on from it.
    """
    run = _Fit(network, dataset, recipe, seed, save_to)
    if save_to is not None and save_to.exists():
        with checkpoint.restoring(save_to):
            run.load(checkpoint.load(save_to, run.device))
    run.train(journal or Journal(), checkpoint_seconds, title)
    kept = Weights([network], seed=seed).to(run.device)
    kept.load_state_dict(run.best["weights"])
    return Fitted(kept, run.best["epoch"], run.best["accuracy"], run.seconds, run.history)


class _Fit:
    """The state of a training run: everything else follows from it and the arguments."""

    def __init__(self, network: Network, dataset: Dataset, recipe: Recipe, seed: int, save_to: Path | None) -> None:
        self.network, self.dataset, self.recipe, self.seed, self.save_to = network, dataset, recipe, seed, save_to
        self.device = dataset.train.pixels.device
        self.weights = Weights([network], seed=seed).to(self.device)
        self.average = Weights([network], seed=seed).to(self.device) if recipe.ema else None
        self.optimizer = Optimizer(self.weights, recipe)
        self.augmenter = Augmenter(dataset.train, recipe.augmentation, dataset.pixel_statistics[0])
        self.steps_per_epoch = len(epoch_rows(len(dataset.train), recipe.batch, seed, 0, torch.device("cpu")))
        self.step, self.seconds = 0, 0.0
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, correct answers of this epoch
        self.best: dict[str, Any] = {"epoch": 0, "accuracy": -1.0, "weights": {}}
        self.history: list[dict[str, float]] = []

    def state(self) -> dict[str, Any]:
        return {
            "weights": self.weights.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "sums": self.sums,
            "best": self.best,
            "history": self.history,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.best, self.history = (
            state["step"],
            state["seconds"],
            state["best"],
            state["history"],
        )
        self.sums.copy_(state["sums"])

    def train(self, journal: Journal, checkpoint_seconds: float, title: str) -> None:
        began = saved = time.monotonic()
        before = self.seconds
        total = self.recipe.epochs * self.steps_per_epoch
        rates = self.recipe.rates()
        with journal.progress(title, total, self.step) as progress:
            while self.step < total:
                epoch, first = divmod(self.step, self.steps_per_epoch)
                batches = epoch_rows(len(self.dataset.train), self.recipe.batch, self.seed, epoch, self.device)
                for rows in batches[first:]:
                    rate = rates(self.step / self.steps_per_epoch)
                    norm = self._step(rows, rate, self.step / total)
                    progress.advance(note=f"epoch {epoch + 1}")
                    self.seconds = before + time.monotonic() - began
                    if self.step % self.steps_per_epoch and time.monotonic() - saved > checkpoint_seconds:
                        self._save()
                        saved = time.monotonic()
                self._end_of_epoch(epoch + 1, rate, float(norm), journal)
                self.seconds = before + time.monotonic() - began
                self._save()
                saved = time.monotonic()

    def _step(self, rows: Tensor, rate: float, done: float) -> Tensor:
        generator = random_stream(self.device, self.seed, "train", self.step)
        images, labels = self.augmenter.batch(rows, generator)
        drop_path = self.recipe.drop_path * done
        result = train_step(
            self.network,
            self.weights,
            self.optimizer,
            images,
            labels,
            self.recipe,
            rate=rate,
            drop_path=drop_path,
            generator=generator,
        )
        if self.average is not None:
            decay = min(
                self.recipe.ema, (1 + self.step) / (10 + self.step)
            )  # a short memory while weights still move far
            torch._foreach_lerp_(
                [p.detach() for p in self.average.parameters()],
                [p.detach() for p in self.weights.parameters()],
                1 - decay,
            )
        self.sums += torch.stack([result.loss.double() * len(rows), result.correct.double()])
        self.step += 1
        return result.gradient_norm

    def _end_of_epoch(self, epoch: int, rate: float, norm: float, journal: Journal) -> None:
        evaluated = self.weights if self.average is None else self.average
        calibrate(self.network, evaluated, self.augmenter, self.seed)
        loss, correct = (self.sums / len(self.dataset.train)).tolist()
        valid = accuracy(self.network, evaluated, self.dataset.validation)
        row = {"lr": rate, "loss": loss, "train_accuracy": correct, "validation_accuracy": valid}
        self.history.append({"epoch": epoch} | row)
        journal.scalars({f"train/{name}": value for name, value in row.items()}, epoch)
        journal.line(
            f"epoch={epoch:<4d} loss={loss:<7.4f} lr={rate:<8.6f} |g|={norm:<7.3f} tr_acc={correct:.4f}"
            f" valid_accuracy={valid:.4f} mins={self.seconds / 60:.2f}"
        )
        if valid >= self.best["accuracy"]:
            tensors = {name: tensor.detach().clone() for name, tensor in evaluated.state_dict().items()}
            self.best = {"epoch": epoch, "accuracy": valid, "weights": tensors}
        self.sums.zero_()

    def _save(self) -> None:
        if self.save_to is not None:
            checkpoint.save(self.save_to, self.state())


def epoch_rows(count: int, batch: int, seed: int, epoch: int, device: torch.device) -> list[Tensor]:
    """The rows of each minibatch of an epoch: a permutation that depends on seed and epoch alone.

    The last minibatch is shorter; a single image, which has no batch statistics, joins the one before.
    """
    order = torch.randperm(count, generator=random_stream(device, seed, "epoch", epoch), device=device)
    parts = list(torch.split(order, batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


@torch.no_grad()
def calibrate(network: Network, weights: Weights, augmenter: Augmenter, seed: int) -> None:
    """Set the running statistics to those of up to 4,096 training images, as the network is deployed: in float32,
    without random draws, with the present weights rather than those of the last hundred steps."""
    device = augmenter.images.pixels.device
    generator = random_stream(device, seed, "calibration")
    order = torch.randperm(len(augmenter.images), generator=generator, device=device)
    batches = torch.split(order[: CALIBRATION_BATCH * CALIBRATION_BATCHES], CALIBRATION_BATCH)
    for i, rows in enumerate(batches):
        if len(rows) > 1:
            images, _ = augmenter.batch(rows, generator)
            forward(network.trunk, weights, images, training=Training(momentum=1 / (i + 1)))
