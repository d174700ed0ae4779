"""Perplexity of a text, every word of which but the first is predicted once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .cell import RecurrentCell
from .model import LanguageModel

IGNORED = -100  # the target of a place behind the end of the text
EVALUATED_NUMBERS = 2**24  # logits that are computed at once


def columns(tokens: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Words and those that follow them, (T, batch) each: `batch` pieces of the text, read side by side.

    All of the text is there. Where it does not fill the rectangle, the last columns end with words 0 whose targets are
    IGNORED.
    """
    pairs = len(tokens) - 1
    if pairs < 1:
        raise ConfigError(f"a text to predict has at least two words, got {len(tokens)}")
    length = -(-pairs // batch)
    missing = length * batch - pairs
    words = F.pad(tokens[:-1], (0, missing)).view(batch, length)
    targets = F.pad(tokens[1:], (0, missing), value=IGNORED).view(batch, length)
    return words.T.contiguous(), targets.T.contiguous()


def loss_of(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of -log p, in nats, over the targets that count, and how many these are."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (targets != IGNORED).sum()


@torch.no_grad()
def perplexity(
    model: LanguageModel,
    cell: RecurrentCell,
    tokens: Tensor,
    *,
    batch: int = 10,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """exp of the mean of -log p over a whole text, (N,), of which `batch` pieces are read from zero states.

    tick: told how many time steps are done, and of how many.
    """
    words, targets = columns(tokens.to(model.device), batch)
    state, sums = model.zero_state(batch), torch.zeros(2, dtype=torch.float64, device=model.device)
    length = max(1, EVALUATED_NUMBERS // (model.vocabulary * batch))
    for start in range(0, len(words), length):
        outputs, state = model(cell, words[start : start + length], state)
        sums += torch.stack(loss_of(model.logits(outputs.dropped), targets[start : start + length]))
        tick(min(start + length, len(words)), len(words))
    return exponential(float(sums[0] / sums[1]))


def exponential(loss: float) -> float:
    """exp(loss); infinity where that is no number."""
    return math.exp(loss) if loss < 700 else math.inf
