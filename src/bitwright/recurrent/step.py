"""One step of training a language model, and the windows that the steps of a pass over the text read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..errors import TrainingError
from ..train.optimizers import Optimizer
from ..train.random_stream import seed_of
from .cell import RecurrentCell
from .dropout import Training
from .model import LanguageModel, Outputs
from .perplexity import loss_of
from .recipe import LanguageRecipe

SHORTEST_WINDOW, LENGTH_DEVIATION, HALVED = 5, 5.0, 0.05  # of random lengths


@dataclass(frozen=True)
class StepResult:
    """loss: the sum of -log p over `count` words, without regularisation. state: after the window."""

    loss: Tensor
    count: Tensor
    gradient_norm: Tensor
    state: Tensor


def train_step(
    model: LanguageModel,
    optimizer: Optimizer,
    cells: Sequence[RecurrentCell],
    words: Tensor,
    targets: Tensor,
    state: Tensor,
    recipe: LanguageRecipe,
    *,
    rate: float,
    generator: torch.Generator,
) -> StepResult:
    """One update from the mean gradient of `cells` on a window; the loss is the mean, the state that of the last cell.

    words, targets: (T, B). state: (B, H), before the window.
    """
    dtype = recipe.compute_dtype(model.device)
    total, after, count = words.new_zeros((), dtype=torch.float32), state, words.new_ones(())
    for cell in cells:
        outputs, after = model(cell, words, state, training=Training(generator, recipe.dropout), dtype=dtype)
        loss, count = loss_of(model.logits(outputs.dropped, dtype=dtype), targets)
        total = total + loss.detach() / len(cells)
        objective = loss / count + regularisation(outputs, recipe)
        (objective / len(cells)).backward()  # type: ignore[no-untyped-call]
    names = dict.fromkeys(name for cell in cells for name in model.tensor_names(cell))
    return StepResult(total, count, optimizer.step(names, rate).detach(), after)


def regularisation(outputs: Outputs, recipe: LanguageRecipe) -> Tensor:
    """What is added to the loss."""
    total = outputs.raw.new_zeros(())
    if recipe.activation_reg:
        total = total + recipe.activation_reg * outputs.dropped.pow(2).mean()
    if recipe.temporal_reg and len(outputs.raw) > 1:
        total = total + recipe.temporal_reg * outputs.raw.diff(dim=0).pow(2).mean()
    if recipe.norm_stabilizer:
        norms = torch.linalg.vector_norm(outputs.states, dim=-1)
        total = total + recipe.norm_stabilizer * (norms - recipe.norm_stabilizer_point).pow(2).mean()
    return total


@lru_cache(maxsize=8)  # asked for at every step
def window_ends(length: int, recipe: LanguageRecipe, seed: int, turn: int) -> tuple[int, ...]:
    """Where the windows of pass number `turn` over `length` time steps end; the last one ends at `length`."""
    if not recipe.random_bptt:
        return *range(recipe.bptt, length, recipe.bptt), length
    rng, ends = np.random.default_rng(seed_of(seed, "windows", turn)), [0]
    while ends[-1] < length:
        typical = recipe.bptt / 2 if rng.random() < HALVED else recipe.bptt
        ends.append(min(length, ends[-1] + max(SHORTEST_WINDOW, int(rng.normal(typical, LENGTH_DEVIATION)))))
    return tuple(ends[1:])


def window_rate(rate: float, length: int, recipe: LanguageRecipe) -> float:
    """The rate of a window of so many time steps."""
    return rate * length / recipe.bptt if recipe.random_bptt else rate


def require_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise TrainingError(f"the loss is {loss} at step {step}: a lower lr or clip_norm keeps it finite")


def calibration_words(words: Tensor, recipe: LanguageRecipe) -> Tensor:
    """The start of the columns of a training text, from which statistics are measured: (at most two windows, B)."""
    return words[: 2 * recipe.bptt]
