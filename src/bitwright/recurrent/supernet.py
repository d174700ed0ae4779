"""Shared weights of all recurrent cells (Pham et al. 2018, ENAS, arXiv:1802.03268, section 2.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ..architecture import Architecture
from ..errors import ConfigError
from ..evaluators import Ask, Evaluator
from ..journal import Journal
from ..spaces.enas_rnn import EnasRnn
from ..text import Corpus
from ..train.optimizers import Optimizer
from ..train.random_stream import random_stream
from ..trial import Measurement
from .dropout import Training
from .model import LanguageModel, ModelOptions
from .perplexity import columns, exponential, loss_of, perplexity
from .recipe import LanguageRecipe
from .step import StepResult, calibration_words, require_finite, train_step, window_ends, window_rate


@dataclass(frozen=True)
class SharedOptions:
    """steps: of training in each round; 0 makes every round one pass over the training text.
    warmup_steps: before the first round, on uniformly sampled cells.
    cells: sampled for every step, whose mean gradient makes the update.
    reward_windows: windows of validation text that an evaluation reads; the next one goes on behind them.
    reward_batch: pieces of the validation text that are read side by side; 0 takes the recipe's batch.
    reward_state: carried takes the state over from the evaluation before, of whatever cell; zero starts anew.
    reward_dropout: evaluate with the dropout and the batch statistics of training, as the original did.
    """

    steps: int = 400
    warmup_steps: int = 0
    cells: int = 1
    reward_windows: int = 1
    reward_batch: int = 0
    reward_state: Literal["carried", "zero"] = "carried"
    reward_dropout: bool = False

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("warmup_steps", 0), ("cells", 1), ("reward_windows", 1), ("reward_batch", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"supernet: {name} is at least {low}, got {getattr(self, name)}")
        if self.reward_state not in ("carried", "zero"):
            raise ConfigError(f"supernet: reward_state is carried or zero, got {self.reward_state!r}")


class SharedLanguageModel(Evaluator):
    """One model for all cells of a space. Every step trains on the next window of the text, with the state of the step
    before; a pass ends at the end of the text, in whatever round that is.

    The accuracy of a measurement is exp(-loss) = 1 / perplexity, the geometric mean probability of the right word.
    """

    def __init__(
        self,
        space: EnasRnn,
        corpus: Corpus,
        recipe: LanguageRecipe,
        model: ModelOptions | None = None,
        options: SharedOptions | None = None,
        *,
        seed: int = 0,
        journal: Journal | None = None,
    ) -> None:
        model, options = model or ModelOptions(nodes=space.nodes, variant=space.variant), options or SharedOptions()
        if (model.nodes, model.variant) != (space.nodes, space.variant):
            raise ConfigError(
                f"the language model is for {model.variant} cells of {model.nodes} nodes,"
                f" the space has {space.variant} ones of {space.nodes}"
            )
        self.space, self.corpus, self.recipe, self.options, self.seed = space, corpus, recipe, options, seed
        self.journal = journal or Journal()
        self.device = corpus.train.device
        self.model = LanguageModel(len(corpus.words), model, activations=space.activations, seed=seed).to(self.device)
        self.optimizer = Optimizer(self.model.store, recipe.for_optimizer())
        self.words, self.targets = columns(corpus.train, recipe.batch)
        self.validation = columns(corpus.validation, options.reward_batch or recipe.batch)
        self.rates = recipe.rates()
        self.steps_per_round = options.steps or len(window_ends(len(self.words), recipe, seed, 0))
        self.steps = 0  # of training, so far
        self.turn, self.position = 0, 0  # passes over the training text, and time steps of the present one
        self.state = self.model.zero_state(recipe.batch)
        self.reward_position, self.evaluations = 0, 0  # time step of the validation text
        self.reward_state = self.model.zero_state(self.validation[0].shape[1])

    def prepare(self, round: int, ask: Ask, tick: Callable[[], None]) -> None:
        warm = self.options.warmup_steps
        if self.steps < warm:
            rng = np.random.default_rng([self.seed, 2])
            cells = [self.space.sample(rng) for _ in range(warm * self.options.cells)]
            self._train(cells, 0, 0, "warm-up", tick)
        start = warm + round * self.steps_per_round
        if self.steps < start + self.steps_per_round:
            count = self.steps_per_round * self.options.cells
            self._train(ask(count), start, round, f"round {round + 1}", tick)

    def _train(
        self, architectures: Sequence[Architecture], start: int, round: int, title: str, tick: Callable[[], None]
    ) -> None:
        """One step on each `cells` of the architectures, the first of which belong to step `start`."""
        count, rate = self.options.cells, self.rates(round)
        total = len(architectures) // count
        with self.journal.progress(f"{title}: shared weights", total, self.steps - start) as progress:
            while self.steps < start + total:
                first = (self.steps - start) * count
                result = self._step(architectures[first : first + count], rate)
                if self.steps % self.recipe.log_every == 0 or self.steps == start + total:
                    self._tell(round, rate, result)
                progress.advance()
                tick()

    def _step(self, architectures: Sequence[Architecture], rate: float) -> StepResult:
        ends = window_ends(len(self.words), self.recipe, self.seed, self.turn)
        end = next(end for end in ends if end > self.position)
        result = train_step(
            self.model,
            self.optimizer,
            [self.space.cell(architecture) for architecture in architectures],
            self.words[self.position : end],
            self.targets[self.position : end],
            self.state,
            self.recipe,
            rate=window_rate(rate, end - self.position, self.recipe),
            generator=random_stream(self.device, self.seed, "shared language model", self.steps),
        )
        self.state, self.position, self.steps = result.state, end, self.steps + 1
        if end == len(self.words):
            self.turn, self.position = self.turn + 1, 0
            self.state = self.model.zero_state(self.recipe.batch)
        return result

    def _tell(self, round: int, rate: float, result: StepResult) -> None:
        loss, norm = float(result.loss / result.count), float(result.gradient_norm)
        require_finite(loss, self.steps)
        self.journal.line(
            f"epoch={round + 1:<4d} step={self.steps:<7d} loss={loss:<7.4f} ppl={exponential(loss):<9.2f}"
            f" lr={rate:<9.6g} |g|={norm:<8.4f} mins={self.journal.minutes:.2f}",
            quiet=True,
        )
        self.journal.scalars({"supernet/loss": loss, "supernet/perplexity": exponential(loss)}, self.steps)

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """On the next windows of the validation text each, which starts anew when it is over."""
        return [self._measure(architecture) for architecture in architectures]

    @torch.no_grad()
    def _measure(self, architecture: Architecture) -> Measurement:
        began, cell = time.monotonic(), self.space.cell(architecture)
        training = None
        if self.options.reward_dropout:
            generator = random_stream(self.device, self.seed, "reward", self.evaluations)
            training = Training(generator, self.recipe.dropout)
        else:
            self.model.calibrate(cell, calibration_words(self.words, self.recipe))
        if self.options.reward_state == "zero":
            self.reward_state.zero_()
        words, targets = self.validation
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for _ in range(self.options.reward_windows):
            window = slice(self.reward_position, self.reward_position + self.recipe.bptt)
            outputs, self.reward_state = self.model(cell, words[window], self.reward_state, training=training)
            sums += torch.stack(loss_of(self.model.logits(outputs.dropped), targets[window]))
            self.reward_position = window.stop
            if self.reward_position >= len(words):
                self.reward_position = 0
                self.reward_state = torch.zeros_like(self.reward_state)
        self.evaluations += 1
        loss = float(sums[0] / sums[1])
        require_finite(loss, self.steps)
        return Measurement(math.exp(-loss), time.monotonic() - began)

    def evaluate_fully(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """On the whole validation text each."""
        measurements = []
        with self.journal.progress("evaluating cells", len(architectures)) as progress:
            for architecture in architectures:
                began, cell = time.monotonic(), self.space.cell(architecture)
                self.model.calibrate(cell, calibration_words(self.words, self.recipe))
                found = perplexity(self.model, cell, self.corpus.validation, batch=self.recipe.evaluation_batch)
                measurements.append(Measurement(1 / found, time.monotonic() - began))
                progress.advance()
        return measurements

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "turn": self.turn,
            "position": self.position,
            "state": self.state,
            "reward_position": self.reward_position,
            "reward_state": self.reward_state,
            "evaluations": self.evaluations,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.turn, self.position = state["steps"], state["turn"], state["position"]
        self.reward_position, self.evaluations = state["reward_position"], state["evaluations"]
        self.state, self.reward_state = state["state"].clone(), state["reward_state"].clone()
