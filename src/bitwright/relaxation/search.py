"""The differentiable search: shared weights and probabilities learn in turn (Cai et al. 2019, arXiv:1812.00332).

Weights train on training images, one path at a time: uniform ones in a warm-up, then ones drawn by the probabilities.
These learn on validation images, every few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..architecture import Architecture
from ..costs import CostModel
from ..datasets import Dataset
from ..errors import ConfigError
from ..evaluators.shared_weights import LOG_EVERY, SharedWeights
from ..journal import Journal, Progress
from ..modules import Weights, forward
from ..spaces import RelaxedSpace
from ..train.random_stream import random_stream
from ..train.recipe import Recipe
from ..train.schedules import Schedule, cosine
from .derive import most_probable
from .gates import Logits, Sampled, among, reinforced, through_softmax
from .losses import Budgeted
from .options import RelaxationOptions
from .path_gradients import gate_gradients


class Relaxation:
    """supernet: the shared weights. logits: of every decision. updates: of the logits, so far.

    history: at the end of every epoch its number, the mean loss or reward of its updates if there were any, the
    entropy, and the expected cost of each budget.
    """

    def __init__(
        self,
        space: RelaxedSpace,
        dataset: Dataset,
        recipe: Recipe,
        options: RelaxationOptions,
        *,
        budgets: Mapping[str, float] | None = None,
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
        journal: Journal | None = None,
        initial: Weights | None = None,
    ) -> None:
        """The recipe's epochs are spent on the warm-up and then on the search. dataset.test is not touched.

        budgets: the most that each named cost should be. costs: those and others, computed of evaluated architectures.
        initial: trained weights to start from.
        """
        if options.warmup_epochs >= recipe.epochs:
            raise ConfigError(
                f"relaxation: warmup_epochs is less than the supernet's {recipe.epochs} epochs,"
                f" got {options.warmup_epochs}"
            )
        if len(dataset.validation) < 2:
            raise ConfigError(f"relaxation learns from validation images; {dataset.name} has {len(dataset.validation)}")
        self.space, self.dataset, self.recipe, self.options, self.seed = space, dataset, recipe, options, seed
        self.budgeted = Budgeted(space, budgets or {}, costs or {}, options)
        self.supernet = SharedWeights(space, dataset, recipe, costs=costs, seed=seed, journal=journal, initial=initial)
        self.supernet.rates = rates(recipe, options)
        self.logits = Logits(space, lr=options.alpha_lr, seed=seed)
        self.updates = 0
        self.history: list[dict[str, float]] = []
        self._gain = "reward" if options.gradient == "reinforce" else "loss"
        self._gains: list[float] = []  # of the updates of the present epoch
        self._baseline: float | None = None

    def train(self, tick: Callable[[], None] = lambda: None) -> None:
        """Go on to the end. tick: called behind every step, when the search can go on from its state."""
        supernet, per_epoch = self.supernet, self.supernet.steps_per_epoch
        total = self.recipe.epochs * per_epoch
        with supernet.journal.progress("relaxation", total, supernet.steps) as progress:

            def after_step() -> None:
                self._after_step(progress)
                tick()

            while supernet.steps < total:
                supernet.train((supernet.steps // per_epoch + 1) * per_epoch, self._path, after_step)

    def derive(self) -> Architecture:
        """The most probable architecture within the budgets."""
        return most_probable(self.space, self.logits.probabilities, self.budgeted.budgets, self.budgeted.costs_of)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """An architecture by the probabilities."""
        return self.logits.sample(rng).architecture

    def state_dict(self) -> dict[str, Any]:
        return {
            "supernet": self.supernet.state_dict(),
            "logits": self.logits.state_dict(),
            "updates": self.updates,
            "history": [dict(row) for row in self.history],
            "gains": list(self._gains),
            "baseline": self._baseline,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.logits.load_state_dict(state["logits"])
        self.updates, self._baseline = state["updates"], state["baseline"]
        self.history, self._gains = [dict(row) for row in state["history"]], list(state["gains"])

    @property
    def figures(self) -> dict[str, float]:
        """The entropy of the probabilities, in nats, and what an architecture costs on average."""
        expected = self.budgeted.expectations(self.logits.probabilities)
        return {"entropy": self.logits.entropy} | {f"expected_{name}": cost for name, cost in expected.items()}

    def _path(self, step: int) -> Architecture:
        """What a step of the weights trains."""
        rng = np.random.default_rng([self.seed, 7, step])
        if step < self.options.warmup_epochs * self.supernet.steps_per_epoch:
            return self.space.sample(rng)
        return self.sample(rng)

    def _after_step(self, progress: Progress) -> None:
        steps, per_epoch = self.supernet.steps, self.supernet.steps_per_epoch
        learning = steps - (self.options.warmup_epochs + self.options.start_epoch) * per_epoch
        if learning > 0 and learning % self.options.interval == 0:
            self._update()
        if steps % per_epoch == 0:
            self._end_epoch(steps // per_epoch)
        elif steps % LOG_EVERY == 0 and learning > 0:
            self._tell(self.figures)
        warm = steps <= self.options.warmup_epochs * per_epoch
        progress.advance(note=f"epoch {(steps - 1) // per_epoch + 1}{' (warm-up)' if warm else ''}")

    def _update(self) -> None:
        """One update of the logits, on the next validation images."""
        images, labels = self.dataset.validation.batch(self.supernet.minibatch(self.updates, self.options.batch))
        rng = np.random.default_rng([self.seed, 8, self.updates])
        if self.options.gradient == "reinforce":
            gain = self._reinforce(images, labels, rng)
        else:
            sampled = self.logits.sample_two(rng) if self.options.gradient == "two" else self.logits.sample(rng)
            gain = self._descend(images, labels, sampled)
        self._gains.append(gain)
        self.updates += 1

    def _descend(self, images: Tensor, labels: Tensor, sampled: Sampled) -> float:
        """An update by the gradient of the loss, which is returned."""
        device = self.supernet.device
        loss, by_gate = gate_gradients(
            self.space, sampled.architecture, sampled.considered, self.supernet.weights, images, labels,
            loss=self.recipe.loss, dtype=self.recipe.compute_dtype(device),
            generator=random_stream(device, self.seed, "relaxation", self.updates),
        )  # fmt: skip
        probabilities = [among(z, options) for z, options in zip(self.logits.values, sampled.considered, strict=True)]
        total, by_loss, by_cost = self.budgeted.gradients(float(loss), probabilities)
        gradients = []
        for decision, (options, p) in enumerate(zip(sampled.considered, probabilities, strict=True)):
            by_probability = torch.zeros_like(p)
            if (
                decision in by_gate
            ):  # else it puts out zeros or takes no effect here: as published, not even costs count
                by_probability[list(options)] = by_loss * by_gate[decision]
                by_probability += by_cost[decision]
            gradients.append(through_softmax(by_probability, p))
        self.logits.step(gradients, sampled.considered)
        return total

    @torch.no_grad()
    def _reinforce(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> float:
        """An update by the rewards of whole networks, whose mean is returned."""
        sampled = [self.logits.sample(rng) for _ in range(self.options.samples)]
        architectures = [each.architecture for each in sampled]
        rewards = []
        for architecture in architectures:
            network, dtype = self.space.shared_network(architecture), self.recipe.compute_dtype(self.supernet.device)
            answers = forward(network, self.supernet.weights, images, dtype=dtype)[0].argmax(1)
            rewards.append(self.budgeted.reward(float((answers == labels).double().mean()), architecture))
        mean = float(np.mean(rewards))
        before = mean if self._baseline is None else self._baseline
        self._baseline = before + self.options.baseline_decay * (mean - before)
        gradients = reinforced(self.logits.probabilities, architectures, rewards, self._baseline)
        self.logits.step(gradients, sampled[0].considered)
        return mean

    def _end_epoch(self, epoch: int) -> None:
        gain = {self._gain: float(np.mean(self._gains))} if self._gains else {}
        figures = gain | self.figures
        self.history.append({"epoch": float(epoch)} | figures)
        self._gains = []
        journal = self.supernet.journal
        told = " ".join(f"{name}={value:<10.6g}" for name, value in figures.items())
        journal.line(f"relaxation: epoch={epoch:<4d} {told} mins={journal.minutes:.2f}", quiet=True)
        self._tell(figures)
        decisions = zip(self.space.decisions, self.logits.probabilities, strict=True)
        chances = {
            f"probability/{decision.name}/{option}": chance
            for decision, p in decisions
            for option, chance in zip(decision.options, p.tolist(), strict=True)
        }
        journal.scalars(chances, self.supernet.steps)

    def _tell(self, figures: Mapping[str, float]) -> None:
        gain = {self._gain: self._gains[-1]} if self._gains else {}
        scalars = {f"relaxation/{name}": value for name, value in (gain | dict(figures)).items()}
        self.supernet.journal.scalars(scalars, self.supernet.steps)


def rates(recipe: Recipe, options: RelaxationOptions) -> Schedule:
    """The learning rate of the weights by epoch; with warmup_lr the recipe's schedule starts behind the warm-up."""
    if not (options.warmup_lr and options.warmup_epochs):
        return recipe.rates()
    warm = options.warmup_epochs
    first, then = cosine(options.warmup_lr, warm), replace(recipe, epochs=recipe.epochs - warm).rates()
    return lambda epoch: first(epoch) if epoch < warm else then(epoch - warm)
