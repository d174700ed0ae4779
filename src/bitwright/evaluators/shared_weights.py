"""Weight sharing (Pham et al. 2018, ENAS, arXiv:1802.03268): one store of weights for a whole search space.

Every training step samples one architecture, computes only its path and updates only its weights. Batch
normalisation uses the statistics of the batch throughout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..architecture import Architecture
from ..costs import CostModel
from ..datasets import Dataset
from ..errors import ConfigError
from ..journal import Journal
from ..log_lines import child_line
from ..modules import Weights, forward
from ..network import Network
from ..spaces import SearchSpace
from ..train.fit import epoch_rows
from ..train.loader import augmented
from ..train.optimizers import Optimizer
from ..train.random_stream import Key
from ..train.recipe import Recipe
from ..train.step import StepResult, train_step
from ..trial import Measurement
from . import Ask, Evaluator

LOG_EVERY = 50  # steps, as the published program


class SharedWeights(Evaluator):
    def __init__(
        self,
        space: SearchSpace,
        dataset: Dataset,
        recipe: Recipe,
        *,
        warmup_epochs: int = 0,
        round_epochs: int = 1,
        images: int = 0,
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
        journal: Journal | None = None,
        initial: Weights | None = None,
    ) -> None:
        """The recipe's epochs are spent on a warm-up and then on rounds. Rewards come from dataset.validation.

        warmup_epochs: epochs on uniformly sampled architectures before the first round, so that the first rewards
            do not just prefer what needs no training.
        round_epochs: epochs before each round of evaluations; 0 leaves it at the warm-up.
        images: of validation, that a trial is measured on, the same for all; 0 is a minibatch, another for each.
        costs: computed of every evaluated architecture.
        initial: trained weights to start from, of the tensors that they hold.
        """
        if warmup_epochs < 0 or round_epochs < 0:
            raise ConfigError(
                f"supernet: warmup_epochs and round_epochs are at least 0, got {warmup_epochs} and {round_epochs}"
            )
        if not 0 <= images <= len(dataset.validation):
            raise ConfigError(
                f"shared_weights: images are 1 to {len(dataset.validation):,} of validation, 0 for a minibatch,"
                f" got {images}"
            )
        self.measured_on = images
        self.warmup_epochs, self.round_epochs = warmup_epochs, round_epochs
        self.space, self.dataset, self.recipe, self.seed = space, dataset, recipe, seed
        self.costs = dict(costs or {})
        self.journal = journal or Journal()
        self.device = dataset.train.device
        self.weights = Weights((space.shared_network(a) for a in space.covering()), seed=seed, shared=True).to(
            self.device
        )
        if initial is not None:
            self._start_from(initial)
        self.optimizer = Optimizer(self.weights, recipe)
        self.images = augmented(dataset.train, recipe.augmentation, dataset.pixel_statistics[0])
        self.steps_per_epoch = len(epoch_rows(len(dataset.train), recipe.batch, seed, 0, torch.device("cpu")))
        self.rates = recipe.rates()
        self.steps = 0  # of training, so far
        self.evaluations = 0  # of architectures on one minibatch, so far

    @torch.no_grad()
    def _start_from(self, initial: Weights) -> None:
        given = dict(initial.named_parameters())
        for name, parameter in self.weights.named_parameters():
            if name in given:
                parameter.copy_(given[name])

    def prepare(self, round: int, ask: Ask, tick: Callable[[], None]) -> None:
        warm = self.warmup_epochs * self.steps_per_epoch
        if self.steps < warm:
            rng = np.random.default_rng([self.seed, 2])
            self._train([self.space.sample(rng) for _ in range(warm)], 0, "warm-up", tick)
        start = warm + round * self.round_epochs * self.steps_per_epoch
        count = self.round_epochs * self.steps_per_epoch
        if self.steps < start + count:
            self._train(ask(count), start, f"round {round + 1}", tick)

    def _train(self, architectures: Sequence[Architecture], start: int, title: str, tick: Callable[[], None]) -> None:
        """One step on each of `architectures`, the first of which belongs to step `start`; go on from self.steps."""
        with self.journal.progress(f"{title}: shared weights", len(architectures), self.steps - start) as progress:

            def after_step() -> None:
                progress.advance()
                tick()

            self.train(start + len(architectures), lambda step: architectures[step - start], after_step)

    def train(self, end: int, sampled: Callable[[int], Architecture], after_step: Callable[[], None]) -> None:
        """Go on from self.steps to step `end`. sampled: what a step trains, by its number, asked for when it is due."""
        for images, labels, generator in self.images.batches(self._plan(end)):
            epoch = self.steps // self.steps_per_epoch
            rate = self.rates(self.steps / self.steps_per_epoch)
            network = self.space.shared_network(sampled(self.steps))
            result = train_step(
                network, self.weights, self.optimizer, images, labels, self.recipe,
                rate=rate, drop_path=0.0, generator=generator,
            )  # fmt: skip
            self.steps += 1
            if self.steps % LOG_EVERY == 0 or self.steps == end:
                self._tell(epoch, rate, result, len(labels))
            after_step()

    def _plan(self, end: int) -> list[tuple[torch.Tensor, Key]]:
        """The rows and the key of every step from the present one up to `end`."""
        epochs = range(self.steps // self.steps_per_epoch, -(-end // self.steps_per_epoch))
        count = len(self.dataset.train)
        rows = [r for e in epochs for r in epoch_rows(count, self.recipe.batch, self.seed, e, self.device)]
        steps = range(self.steps, end)
        first = epochs.start * self.steps_per_epoch
        return [(rows[step - first], (self.seed, "supernet", step)) for step in steps]

    def _tell(self, epoch: int, rate: float, result: StepResult, count: int) -> None:
        loss, correct, norm = float(result.loss), int(result.correct), float(result.gradient_norm)
        line = child_line(
            epoch=epoch,
            step=self.steps,
            loss=loss,
            rate=rate,
            norm=norm,
            correct=correct,
            batch=count,
            minutes=self.journal.minutes,
        )
        self.journal.line(line, quiet=True)
        self.journal.scalars(
            {"supernet/loss": loss, "supernet/lr": rate, "supernet/accuracy": correct / count}, self.steps
        )

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """Accuracy on one shuffled minibatch of validation images each, or on as many images as were asked for."""
        if self.measured_on:
            parts = torch.tensor_split(self._shuffled[: self.measured_on], -(-self.measured_on // self.recipe.batch))
            return [self._measure(architecture, parts) for architecture in architectures]
        measurements = []
        for architecture in architectures:
            measurements.append(self._measure(architecture, self.minibatch(self.evaluations)[None]))
            self.evaluations += 1
        return measurements

    def minibatch(self, number: int, batch: int = 0) -> torch.Tensor:
        """The rows of a minibatch of shuffled validation images, by its number; as many as a step has, or `batch`."""
        batch = min(batch or self.recipe.batch, len(self.dataset.validation))
        turn, position = divmod(number, len(self.dataset.validation) // batch)
        return epoch_rows(len(self.dataset.validation), batch, self.seed, -1 - turn, self.device)[position]

    def evaluate_fully(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """Accuracy on all validation images each."""
        batch = min(self.recipe.batch, len(self.dataset.validation))
        parts = epoch_rows(len(self.dataset.validation), batch, self.seed, 0, self.device)
        return [self._measure(architecture, parts) for architecture in architectures]

    @torch.no_grad()
    def _measure(self, architecture: Architecture, parts: Sequence[torch.Tensor] | torch.Tensor) -> Measurement:
        began = time.monotonic()
        network = self.space.shared_network(architecture)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        count = 0
        for rows in parts:
            images, labels = self.dataset.validation.batch(rows)
            logits, _ = forward(network, self.weights, images, dtype=self.recipe.compute_dtype(self.device))
            correct += (logits.argmax(1) == labels).sum()
            count += len(rows)
        return Measurement(int(correct) / count, time.monotonic() - began, self._costs(network))

    def _costs(self, network: Network) -> dict[str, float]:
        return {name: cost(network.trunk).total for name, cost in self.costs.items()}

    @cached_property
    def _shuffled(self) -> torch.Tensor:
        """The rows of the validation images in an order of their own."""
        count = len(self.dataset.validation)
        return torch.cat(epoch_rows(count, min(self.recipe.batch, count), self.seed, -1, self.device))

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": self.weights.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "evaluations": self.evaluations,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.evaluations = state["steps"], state["evaluations"]
