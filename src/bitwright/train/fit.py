"""Training one network, to be interrupted and resumed at any moment with the same result.

On several devices every rank goes through the same epochs and takes its part of each batch; together they see what one
device would with batches as large as all of theirs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import Dataset
from ..errors import ConfigError
from ..journal import Journal, Progress
from ..modules import Weights
from ..network import Network
from . import checkpoint
from .augment import Augmented, Augmenter
from .distributed import Ranks, ranks, replicated
from .loader import augmented
from .optimizers import Optimizer
from .post_training import refit_statistics
from .random_stream import random_stream
from .recipe import Recipe
from .step import evaluation_batch, measure, train_step

CALIBRATION_BATCH, CALIBRATION_IMAGES = 512, 4096


@dataclass
class Fitted:
    """weights: those of the epoch with the best validation accuracy (the last of equals), or of the last epoch where
    nothing was validated: validation_accuracy is then None.

    finished: False if the training was interrupted before its end, which may be an early one. best_epoch is 0 if no
    epoch had ended.
    """

    weights: Weights
    best_epoch: int
    validation_accuracy: float | None
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    finished: bool = True


@dataclass(frozen=True)
class EpochEnd:
    """What there is at the end of an epoch, before its checkpoint is written.

    row: the number of the epoch and its figures. weights: what was evaluated. is_best: whether no epoch did better.
    images_per_second: of training, on all devices together. state: what the checkpoint will hold.
    """

    row: Mapping[str, float]
    weights: Weights
    is_best: bool
    images_per_second: float
    state: dict[str, Any]


@dataclass(frozen=True)
class EarlyStopping:
    """When a training ends before the last epoch of its recipe; 0 is never.

    patience: after so many epochs in a row without a higher validation accuracy than before.
    give_up_below: after the first epoch, if its validation accuracy is lower.
    """

    patience: int = 0
    give_up_below: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise ConfigError(f"patience is a number of epochs, or 0, got {self.patience}")
        if not 0 <= self.give_up_below <= 1:
            raise ConfigError(f"give_up_below is an accuracy in [0, 1], got {self.give_up_below}")

    def __bool__(self) -> bool:
        return bool(self.patience or self.give_up_below)

    def is_due(self, accuracies: Sequence[float]) -> bool:
        """Whether it ends here. accuracies: on the validation images, of every epoch so far."""
        if not accuracies:
            return False
        since_best = len(accuracies) - 1 - accuracies.index(max(accuracies))
        return accuracies[0] < self.give_up_below or 0 < self.patience <= since_best


def fit(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    deployed: Network | None = None,
    initial: Mapping[str, Tensor] | None = None,
    journal: Journal | None = None,
    save_to: Path | None = None,
    checkpoint_seconds: float = 60.0,
    stop_after: int | None = None,
    early_stopping: EarlyStopping | None = None,
    after_epoch: Callable[[EpochEnd], None] | None = None,
    title: str = "training",
) -> Fitted:
    """Train `network` on dataset.train and keep what does best on dataset.validation; dataset.test is not touched.

    deployed: the network that is validated with the same tensors, where it is not `network` itself.
    initial: the weights to start from, by name, in place of random ones.
    save_to: a checkpoint file, written at the end of every epoch and every `checkpoint_seconds`. If it exists,
    training goes on from it.
    stop_after: stop after the update in which this process makes its step of that number, and leave a checkpoint.
    early_stopping: when it ends before its last epoch. Learning rates are those of a training that does not.
    after_epoch: called on rank 0 at the end of every epoch.
    """
    if early_stopping and recipe.training_only:
        raise ConfigError("a training that validates nothing (training_only) does not know when to stop early")
    run = _Fit(network, deployed or network, dataset, recipe, seed)
    if save_to is not None and save_to.exists():
        with checkpoint.restoring(save_to):
            run.load(checkpoint.load(save_to, run.device))
    elif initial is not None:
        run.start_from(initial)
    run.save_to = save_to if run.ranks.is_first else None
    run.checkpoint_seconds, run.stop_after, run.after_epoch = checkpoint_seconds, stop_after, after_epoch
    run.early_stopping = early_stopping or EarlyStopping()
    run.train(journal or Journal(), title)
    return run.fitted()


class _Fit:
    """The state of a training run: everything else follows from it and the arguments."""

    save_to: Path | None = None
    checkpoint_seconds = math.inf
    stop_after: int | None = None
    early_stopping = EarlyStopping()
    after_epoch: Callable[[EpochEnd], None] | None = None

    def __init__(self, network: Network, deployed: Network, dataset: Dataset, recipe: Recipe, seed: int) -> None:
        self.network, self.deployed = network, deployed
        self.dataset, self.recipe, self.seed = dataset, recipe, seed
        self.device = dataset.train.device
        self.ranks = ranks()
        self.weights = Weights([network], seed=seed).to(self.device)
        self.average = Weights([network], seed=seed).to(self.device) if recipe.ema else None
        self.optimizer = Optimizer(self.weights, recipe)
        self.images = augmented(dataset.train, recipe.augmentation, dataset.pixel_statistics[0])
        self.batch = recipe.batch * self.ranks.count
        self.per_update = recipe.steps_per_update(self.ranks.count)
        self.epoch, self.seen = 0, 0  # epochs that have ended, and images of the present one
        self.steps_per_epoch = len(self._rest_of_epoch(torch.device("cpu")))
        if not self.steps_per_epoch:
            raise ConfigError(f"drop_last leaves no batch of {self.batch} of the {len(dataset.train)} training images")
        self.total = recipe.epochs * self.steps_per_epoch
        self.rates = recipe.rates()
        self.step, self.seconds = 0, 0.0
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, correct answers of this epoch
        self.best: dict[str, Any] = {"epoch": 0, "accuracy": -1.0, "weights": {}}
        self.history: list[dict[str, float]] = []
        self.rate, self.norm = 0.0, torch.tensor(math.nan)  # of the last update

    @property
    def evaluated(self) -> Weights:
        return self.weights if self.average is None else self.average

    @property
    def position(self) -> int:
        """Steps from the start of training to here, had all been made on as many devices as there are now."""
        return self.epoch * self.steps_per_epoch + min(-(-self.seen // self.batch), self.steps_per_epoch)

    @property
    def is_over(self) -> bool:
        """Whether no epoch is to come."""
        if self.epoch == self.recipe.epochs or not self.early_stopping:
            return self.epoch == self.recipe.epochs
        return self.early_stopping.is_due([row["validation_accuracy"] for row in self.history])

    def start_from(self, initial: Mapping[str, Tensor]) -> None:
        for weights in {self.weights, self.evaluated}:
            weights.load_state_dict(dict(initial))

    def state(self) -> dict[str, Any]:
        return {
            "weights": self.weights.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "seen": self.seen,
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
        self.step, self.epoch, self.seen = state["step"], state["epoch"], state["seen"]
        self.seconds, self.best, self.history = state["seconds"], state["best"], state["history"]
        self.sums.copy_(state["sums"])

    def fitted(self) -> Fitted:
        kept = Weights([self.network], seed=self.seed).to(self.device)
        kept.load_state_dict(self.best["weights"] or self.evaluated.state_dict())
        accuracy = self.best["accuracy"] if self.best["epoch"] and not self.recipe.training_only else None
        return Fitted(kept, self.best["epoch"], accuracy, self.seconds, self.history, self.is_over)

    def train(self, journal: Journal, title: str) -> None:
        self.model = replicated(self.network, self.weights) if self.ranks.count > 1 else None
        self.began, self.saved = time.monotonic() - self.seconds, time.monotonic()
        last = math.inf if self.stop_after is None else self.step + self.stop_after
        with journal.progress(title, self.total, self.position) as progress:
            while not self.is_over and self.step < last:
                began, seen = time.monotonic(), self.seen
                ended = self._train_epoch(progress, last)
                loss, correct = (self.sums / self.seen).tolist()
                speed = (self.seen - seen) / (time.monotonic() - began)
                if ended:
                    row = {"lr": self.rate, "loss": loss, "train_accuracy": correct}
                    self._end_epoch(row | self._validated(progress), speed, journal)
                else:
                    journal.line(f"stopped behind step {self.step}, in epoch {self.epoch + 1}: images/s={speed:.1f}")
                self.save()

    def _train_epoch(self, progress: Progress, last: float) -> bool:
        """Make the updates of the epoch that are still to come, as far as step `last`; whether these were all."""
        batches = self._rest_of_epoch(self.device)
        stream = self._stream(batches)
        while batches:
            update, batches = batches[: self.per_update], batches[self.per_update :]
            self._update(update, stream)
            progress.advance(len(update), note=f"epoch {self.epoch + 1}")
            if batches and self.step >= last:
                return False
            if batches and time.monotonic() - self.saved > self.checkpoint_seconds:
                self.save()
        return True

    def _rest_of_epoch(self, device: torch.device) -> list[Tensor]:
        """The rows of every batch of the epoch that is still to come, on all devices together."""
        return epoch_rows(
            len(self.dataset.train), self.batch, self.seed, self.epoch, device,
            start=self.seen, least=2 * self.ranks.count, drop_last=self.recipe.drop_last,
        )  # fmt: skip

    def _stream(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """This rank's part of the images and labels of every batch, and what each step draws from."""
        keys = [(self.seed, "train", self.step + i) for i in range(len(batches))]
        if self.ranks.count == 1:
            yield from self.images.batches(list(zip(batches, keys, strict=True)))
            return
        parts = [read_by(self.ranks, self.images, rows) for rows in batches]
        stream = self.images.batches([(rows, key) for (rows, _), key in zip(parts, keys, strict=True)])
        for (_, part), key, (images, labels, _) in zip(parts, keys, stream, strict=True):
            yield images[part], labels[part], random_stream(self.device, *key, "rank", self.ranks.rank)

    def _update(self, batches: Sequence[Tensor], stream: Iterator[tuple[Tensor, Tensor, torch.Generator]]) -> None:
        """One update of the weights from these batches, which come next in the stream."""
        count = sum(len(rows) for rows in batches)
        for number, rows in enumerate(batches, start=1):
            images, labels, generator = next(stream)
            result = train_step(
                self.network,
                self.weights,
                self.optimizer,
                images,
                labels,
                self.recipe,
                rate=self._rate(),
                drop_path=self.recipe.drop_path * (self.position / self.total),
                generator=generator,
                model=self.model,
                share=len(labels) * self.ranks.count / count,
                update=number == len(batches),
            )
            figures = torch.stack([result.loss.double() * len(labels), result.correct.double()])
            self.sums += self.ranks.sum(figures)
            self.rate, self.norm = self._rate(), result.gradient_norm
            self.step += 1
            self.seen += len(rows)
        if self.average is not None:
            self._move_average(self.average)
        self.seconds = time.monotonic() - self.began

    def _rate(self) -> float:
        return self.rates(self.position / self.steps_per_epoch)

    def _move_average(self, average: Weights) -> None:
        decay = min(self.recipe.ema, self.step / (9 + self.step))  # a short memory while weights still move far
        pairs = [(a.detach(), w.detach()) for a, w in zip(average.parameters(), self.weights.parameters(), strict=True)]
        if not self.recipe.calibrate:
            pairs += zip(average.buffers(), self.weights.buffers(), strict=True)
        torch._foreach_lerp_([a for a, _ in pairs], [w for _, w in pairs], 1 - decay)

    def _validated(self, progress: Progress) -> dict[str, float]:
        """The figures on the validation images."""
        if self.recipe.calibrate:
            calibrate(self.deployed, self.evaluated, self.images, self.seed, self.ranks)
        self.ranks.copy_first(self.evaluated.buffers())
        if self.recipe.training_only:
            return {}
        images = self.dataset.validation

        def tick(done: int) -> None:
            progress.advance(0, note=f"epoch {self.epoch + 1}, validating {done * self.ranks.count}/{len(images)}")

        measured = measure(self.deployed, self.evaluated, images, self.recipe.loss, ranks=self.ranks, tick=tick)
        return {
            "validation_accuracy": measured.top1,
            "validation_top5": measured.top5,
            "validation_loss": measured.loss,
        }

    def _end_epoch(self, row: dict[str, float], images_per_second: float, journal: Journal) -> None:
        self.epoch, self.seen = self.epoch + 1, 0
        self.seconds = time.monotonic() - self.began
        self.sums.zero_()
        self.history.append({"epoch": self.epoch} | row)
        accuracy = row.get("validation_accuracy", -1.0)
        is_best = accuracy >= self.best["accuracy"]
        if is_best:
            tensors = {name: tensor.detach().clone() for name, tensor in self.evaluated.state_dict().items()}
            self.best = {"epoch": self.epoch, "accuracy": accuracy, "weights": tensors}
        told = row | {"images_per_second": images_per_second}
        journal.scalars({f"train/{name}": value for name, value in told.items()}, self.epoch)
        journal.line(self._line(row, images_per_second))
        if self.after_epoch is not None and self.ranks.is_first:
            self.after_epoch(EpochEnd(self.history[-1], self.evaluated, is_best, images_per_second, self.state()))

    def _line(self, row: Mapping[str, float], images_per_second: float) -> str:
        validated = ""
        if "validation_accuracy" in row:
            validated = (
                f" valid_accuracy={row['validation_accuracy']:.4f} top5={row['validation_top5']:.4f}"
                f" valid_loss={row['validation_loss']:<7.4f}"
            )
        return (
            f"epoch={self.epoch:<4d} loss={row['loss']:<7.4f} lr={row['lr']:<8.6f} |g|={float(self.norm):<7.3f}"
            f" tr_acc={row['train_accuracy']:.4f}{validated} mins={self.seconds / 60:.2f}"
            f" images/s={images_per_second:.1f}"
        )

    def save(self) -> None:
        if self.save_to is not None:
            checkpoint.save(self.save_to, self.state())
        self.saved = time.monotonic()


def epoch_rows(
    count: int,
    batch: int,
    seed: int,
    epoch: int,
    device: torch.device,
    *,
    start: int = 0,
    least: int = 2,
    drop_last: bool = False,
) -> list[Tensor]:
    """The rows of each minibatch of an epoch from image `start` on: a permutation that depends on seed and epoch alone.

    The last minibatch is shorter, or with drop_last left out. One of fewer than `least` images, such as a single one,
    which has no batch statistics, joins the one before.
    """
    order = torch.randperm(count, generator=random_stream(device, seed, "epoch", epoch), device=device)[start:]
    parts = list(torch.split(order, batch)) if len(order) else []
    last = len(parts[-1]) if parts else batch
    if drop_last and last < batch:
        return parts[:-1]
    if last < least and len(parts) > 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    elif last < least and start:
        return []
    return parts


def read_by(ranks: Ranks, images: Augmented, rows: Tensor) -> tuple[Tensor, slice]:
    """Which rows of a batch this rank reads, and which of the images are its part of it.

    Images in memory are augmented a whole batch at once, so that what they become does not depend on the ranks.
    """
    part = ranks.span(len(rows))
    return (rows, part) if isinstance(images, Augmenter) else (rows[part], slice(None))


@torch.no_grad()
def calibrate(network: Network, weights: Weights, images: Augmented, seed: int, ranks: Ranks | None = None) -> None:
    """Set the running statistics to those of up to 4,096 training images, as the network is deployed: in float32,
    without random draws, with the present weights rather than those of the last hundred steps.

    ranks: each takes its part of every batch.
    """
    ranks = ranks or Ranks()
    device = images.images.device
    generator = random_stream(device, seed, "calibration")
    order = torch.randperm(len(images.images), generator=generator, device=device)
    batches = torch.split(order[:CALIBRATION_IMAGES], evaluation_batch(network, CALIBRATION_BATCH))
    parts = (read_by(ranks, images, rows) for rows in batches if len(rows) >= 2 * ranks.count)
    pixels = (images.batch(read, generator)[0][part] for read, part in parts)
    refit_statistics(network.trunk, weights, pixels, synchronised=ranks.count > 1)
