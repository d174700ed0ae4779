"""Training a language model with one cell, to be interrupted and resumed at any moment with the same result."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..journal import Journal, Progress
from ..text import Corpus
from ..train import checkpoint
from ..train.optimizers import Optimizer
from ..train.random_stream import random_stream
from .cell import RecurrentCell
from .model import LanguageModel, ModelOptions
from .perplexity import columns, exponential, perplexity
from .recipe import LanguageRecipe
from .step import StepResult, calibration_words, require_finite, train_step, window_ends, window_rate


@dataclass
class FittedLanguageModel:
    """model: with the weights of the epoch of the lowest validation perplexity, or as it is if no epoch has ended.

    perplexity: on the whole validation text; None if no epoch has ended. finished: False if the training was told to
    stop before its end.
    """

    model: LanguageModel
    best_epoch: int
    perplexity: float | None
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    finished: bool = True


def fit_language_model(
    cell: RecurrentCell,
    corpus: Corpus,
    options: ModelOptions,
    recipe: LanguageRecipe,
    *,
    seed: int = 0,
    initial: Mapping[str, Tensor] | None = None,
    journal: Journal | None = None,
    save_to: Path | None = None,
    checkpoint_seconds: float = 60.0,
    stop_after: int | None = None,
    title: str = "training",
) -> FittedLanguageModel:
    """Train on corpus.train and keep what does best on corpus.validation; corpus.test is not touched.

    initial: the state of a language model, of all cells or of this one, to start from in place of random weights.
    save_to: a checkpoint file, written at the end of every epoch and every `checkpoint_seconds`. If it exists,
    training goes on from it. stop_after: stop after so many steps of this process, and leave a checkpoint.
    """
    run = _Fit(cell, corpus, options, recipe, seed)
    if save_to is not None and save_to.exists():
        with checkpoint.restoring(save_to):
            run.load(checkpoint.load(save_to, run.device))
    elif initial is not None:
        run.model.load_state_dict({name: initial[name] for name in run.model.state_dict()})
    run.save_to, run.checkpoint_seconds, run.stop_after = save_to, checkpoint_seconds, stop_after
    run.train(journal or Journal(), title)
    return run.fitted()


class _Fit:
    """The state of a training run: everything else follows from it and the arguments."""

    save_to: Path | None = None
    checkpoint_seconds = math.inf
    stop_after: int | None = None

    def __init__(
        self, cell: RecurrentCell, corpus: Corpus, options: ModelOptions, recipe: LanguageRecipe, seed: int
    ) -> None:
        self.cell, self.corpus, self.recipe, self.seed = cell, corpus, recipe, seed
        self.device = corpus.train.device
        self.model = LanguageModel(len(corpus.words), options, cell=cell, seed=seed).to(self.device)
        self.optimizer = Optimizer(self.model.store, recipe.for_optimizer())
        self.words, self.targets = columns(corpus.train, recipe.batch)
        self.rates = recipe.rates()
        self.state = self.model.zero_state(recipe.batch)
        self.step, self.epoch, self.position = 0, 0, 0  # position: time steps of the present epoch that are done
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss and words of this epoch
        self.average: dict[str, Tensor] = {}
        self.averaged = 0  # updates in the average
        self.best: dict[str, Any] = {"epoch": 0, "perplexity": math.inf, "weights": {}}
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    def snapshot(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "averaged": self.averaged,
            "state": self.state,
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "sums": self.sums,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
        }

    def load(self, snapshot: dict[str, Any]) -> None:
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.average, self.averaged = snapshot["average"], snapshot["averaged"]
        self.state, self.sums = snapshot["state"], snapshot["sums"]
        self.step, self.epoch, self.position = snapshot["step"], snapshot["epoch"], snapshot["position"]
        self.best, self.history, self.seconds = snapshot["best"], snapshot["history"], snapshot["seconds"]

    def fitted(self) -> FittedLanguageModel:
        if self.best["weights"]:
            self.model.load_state_dict(self.best["weights"])
        reached = self.best["perplexity"] if self.best["epoch"] else None
        finished = self.epoch == self.recipe.epochs
        return FittedLanguageModel(self.model, self.best["epoch"], reached, self.seconds, self.history, finished)

    def train(self, journal: Journal, title: str) -> None:
        self.began, self.saved = time.monotonic() - self.seconds, time.monotonic()
        last = math.inf if self.stop_after is None else self.step + self.stop_after
        steps = self.recipe.epochs * len(self.words)
        with journal.progress(title, steps, self.epoch * len(self.words) + self.position) as progress:
            while self.epoch < self.recipe.epochs and self.step < last:
                if self._train_epoch(journal, progress, last):
                    self._end_epoch(journal, progress)
                self.save()

    def _train_epoch(self, journal: Journal, progress: Progress, last: float) -> bool:
        """Make the steps of the epoch that are still to come, as far as step `last`; whether these were all."""
        for end in window_ends(len(self.words), self.recipe, self.seed, self.epoch):
            if end <= self.position:
                continue
            if self.step >= last:
                return False
            length = end - self.position
            result = self._step(end)
            if self.step % self.recipe.log_every == 0:
                self._tell(journal, result)
            progress.advance(length, note=f"epoch {self.epoch + 1}")
            if time.monotonic() - self.saved > self.checkpoint_seconds:
                self.save()
        return True

    def _step(self, end: int) -> StepResult:
        result = train_step(
            self.model,
            self.optimizer,
            [self.cell],
            self.words[self.position : end],
            self.targets[self.position : end],
            self.state,
            self.recipe,
            rate=window_rate(self._rate(), end - self.position, self.recipe),
            generator=random_stream(self.device, self.seed, "language model", self.step),
        )
        self.sums[0] += result.loss
        self.sums[1] += result.count
        self.state, self.position, self.step = result.state, end, self.step + 1
        if self.average:
            self._move_average()
        self.seconds = time.monotonic() - self.began
        return result

    def _rate(self) -> float:
        return self.rates(self.epoch)

    def _tell(self, journal: Journal, result: StepResult) -> None:
        loss, norm = float(result.loss / result.count), float(result.gradient_norm)
        require_finite(loss, self.step)
        journal.line(
            f"epoch={self.epoch + 1:<4d} step={self.step:<7d} loss={loss:<7.4f} ppl={exponential(loss):<9.2f}"
            f" lr={self._rate():<9.6g} |g|={norm:<8.4f} mins={self.seconds / 60:.2f}",
            quiet=True,
        )
        journal.scalars({"language/loss": loss, "language/gradient_norm": norm}, self.step)

    def _move_average(self) -> None:
        self.averaged += 1
        names = list(self.average)
        present = [self.model.store[name].detach() for name in names]
        torch._foreach_lerp_([self.average[name] for name in names], present, 1 / self.averaged)

    def _end_epoch(self, journal: Journal, progress: Progress) -> None:
        rate = self._rate()
        loss = float(self.sums[0] / self.sums[1])
        require_finite(loss, self.step)

        def tick(done: int, total: int) -> None:
            progress.advance(0, note=f"epoch {self.epoch + 1}, validating {done}/{total}")

        with self._evaluated():
            self.model.calibrate(self.cell, calibration_words(self.words, self.recipe))
            found = perplexity(
                self.model, self.cell, self.corpus.validation, batch=self.recipe.evaluation_batch, tick=tick
            )
            if found <= self.best["perplexity"]:
                tensors = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
                self.best = {"epoch": self.epoch + 1, "perplexity": found, "weights": tensors}
        self.epoch, self.position = self.epoch + 1, 0
        self.state, self.seconds = self.model.zero_state(self.recipe.batch), time.monotonic() - self.began
        self.sums.zero_()
        row = {"epoch": self.epoch, "lr": rate, "loss": loss, "perplexity": exponential(loss)}
        self.history.append(row | {"validation_perplexity": found, "averaged": float(bool(self.average))})
        journal.scalars({f"language/{name}": value for name, value in self.history[-1].items()}, self.epoch)
        journal.line(
            f"epoch={self.epoch:<4d} loss={loss:<7.4f} ppl={exponential(loss):<9.2f} valid_ppl={found:<9.2f}"
            f" lr={rate:<9.6g} mins={self.seconds / 60:.2f}"
        )
        self._start_average()

    def _start_average(self) -> None:
        """Where asgd has not begun to average, and the latest epoch is no better than those of long ago."""
        earlier = [row["validation_perplexity"] for row in self.history[: -self.recipe.patience - 1]]
        worse = bool(earlier) and self.history[-1]["validation_perplexity"] > min(earlier)
        if self.recipe.optimizer == "asgd" and not self.average and worse:
            self.average = {name: p.detach().clone() for name, p in self.model.store.named_parameters()}

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        """The model holds the averaged weights, if there are any."""
        parameters = {name: self.model.store[name].detach() for name in self.average}
        present = {name: tensor.clone() for name, tensor in parameters.items()}
        for name, tensor in parameters.items():
            tensor.copy_(self.average[name])
        try:
            yield
        finally:
            for name, tensor in parameters.items():
                tensor.copy_(present[name])

    def save(self) -> None:
        if self.save_to is not None:
            checkpoint.save(self.save_to, self.snapshot())
        self.saved = time.monotonic()
