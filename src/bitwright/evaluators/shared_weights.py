"""Weight sharing (Pham et al. 2018, ENAS, arXiv:1802.03268): one store of weights for a whole search space.

Every training step samples one architecture, computes only its path and updates only its weights. Batch
normalisation uses the statistics of the batch throughout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
        journal: Journal | None = None,
    ) -> None:
        """The recipe's epochs are spent on a warm-up and then on rounds. Rewards come from dataset.validation.

        warmup_epochs: epochs on uniformly sampled architectures before the first round, so that the first rewards
            do not just prefer what needs no training.
        round_epochs: epochs before each round of evaluations.
        costs: computed of every evaluated architecture.
        """
        if warmup_epochs < 0 or round_epochs < 1:
            raise ConfigError(
                "supernet: warmup_epochs is at least 0 and round_epochs at least 1,"
                f" got {warmup_epochs} and {round_epochs}"
            )
        self.warmup_epochs, self.round_epochs = warmup_epochs, round_epochs
        self.space, self.dataset, self.recipe, self.seed = space, dataset, recipe, seed
        self.costs = dict(costs or {})
        self.journal = journal or Journal()
        self.device = dataset.train.device
        self.weights = Weights((space.shared_network(a) for a in space.covering()), seed=seed, shared=True).to(
            self.device
        )
        self.optimizer = Optimizer(self.weights, recipe)
        self.images = augmented(dataset.train, recipe.augmentation, dataset.pixel_statistics[0])
        self.steps_per_epoch = len(epoch_rows(len(dataset.train), recipe.batch, seed, 0, torch.device("cpu")))
        self.steps = 0  # of training, so far
        self.evaluations = 0  # of architectures on one minibatch, so far

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
        rates = self.recipe.rates()
        end = start + len(architectures)
        with self.journal.progress(f"{title}: shared weights", len(architectures), self.steps - start) as progress:
            for images, labels, generator in self.images.batches(self._plan(end)):
                epoch = self.steps // self.steps_per_epoch
                rate = rates(self.steps / self.steps_per_epoch)
                network = self.space.shared_network(architectures[self.steps - start])
                result = train_step(
                    network, self.weights, self.optimizer, images, labels, self.recipe,
                    rate=rate, drop_path=0.0, generator=generator,
                )  # fmt: skip
                self.steps += 1
                if self.steps % LOG_EVERY == 0 or self.steps == end:
                    self._tell(epoch, rate, result, len(labels))
                progress.advance()
                tick()

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
        """Accuracy on one shuffled minibatch of validation images each."""
        measurements = []
        batch = min(self.recipe.batch, len(self.dataset.validation))
        per_pass = len(self.dataset.validation) // batch
        for architecture in architectures:
            turn, position = divmod(self.evaluations, per_pass)
            rows = epoch_rows(len(self.dataset.validation), batch, self.seed, -1 - turn, self.device)[position]
            measurements.append(self._measure(architecture, rows[None]))
            self.evaluations += 1
        return measurements

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
