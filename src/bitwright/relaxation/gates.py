"""Decisions as probabilities, and how these learn from the gradients of gates (Cai et al. 2019, arXiv:1812.00332).

Of every decision one option is active: its gate is 1, those of all others are 0. A gate has a gradient nevertheless,
from which the logits of the decision learn (equation 4), among all options or among two that were drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..architecture import Architecture
from ..spaces import DecisionSpace

START = 1e-3  # standard deviation of the first logits
BETAS = 0.0, 0.999
EPSILON = 1e-8
TRIES = 1000  # draws of an architecture before the probabilities are taken to exclude all valid ones


class Sampled(NamedTuple):
    """An architecture, and the options of every decision whose gates are to have a gradient, in rising order."""

    architecture: Architecture
    considered: tuple[tuple[int, ...], ...]


class Logits:
    """values: the logits of every decision of a space, float64 on the processor, with the optimizer they learn by."""

    def __init__(self, space: DecisionSpace, *, lr: float = 1e-3, seed: int = 0) -> None:
        self.space = space
        rng = np.random.default_rng([seed, 6])
        self.values = [torch.from_numpy(START * rng.standard_normal(len(d.options))) for d in space.decisions]
        self._adam = torch.optim.Adam(self.values, lr=lr, betas=BETAS, eps=EPSILON)

    @property
    def probabilities(self) -> list[Tensor]:
        """Of the options of every decision."""
        return [logits.softmax(0) for logits in self.values]

    @property
    def entropy(self) -> float:
        """Of all decisions together, in nats."""
        return -sum(float((logits.softmax(0) * logits.log_softmax(0)).sum()) for logits in self.values)

    def sample(self, rng: np.random.Generator) -> Sampled:
        """A valid architecture by the probabilities; all options are considered."""
        drawn = self._valid(rng, 1)
        everything = tuple(tuple(range(len(logits))) for logits in self.values)
        return Sampled(Architecture(self.space.name, tuple(options[0] for options in drawn)), everything)

    def sample_two(self, rng: np.random.Generator) -> Sampled:
        """Of every decision two options, drawn by their probabilities without putting back, and one of the two chosen
        by how probable they are among themselves."""
        drawn = self._valid(rng, 2)
        choices = tuple(options[0] for options in drawn)
        return Sampled(Architecture(self.space.name, choices), tuple(tuple(sorted(options)) for options in drawn))

    def _valid(self, rng: np.random.Generator, count: int) -> list[tuple[int, ...]]:
        """`count` options of every decision, first those of a valid architecture."""
        for _ in range(TRIES):
            drawn = [_drawn(logits.numpy(), count, rng) for logits in self.values]
            if self.space.is_valid([options[0] for options in drawn]):
                return drawn
        choices = self.space.sample(rng).choices
        return [
            (choice, *[option for option in options if option != choice][: count - 1])
            for choice, options in zip(choices, drawn, strict=True)
        ]

    def step(self, gradients: Sequence[Tensor], considered: Sequence[Sequence[int]]) -> None:
        """Update the logits by their gradients, one of each option, which are 0 where one was not considered.

        The considered options of a decision are then moved together, so that all others keep their probabilities.
        """
        before = [logits.clone() for logits in self.values]
        for logits, gradient in zip(self.values, gradients, strict=True):
            logits.grad = gradient
        self._adam.step()
        for logits, old, options in zip(self.values, before, considered, strict=True):
            logits.grad = None
            if len(options) < len(logits):
                among = list(options)
                logits[among] -= logits[among].logsumexp(0) - old[among].logsumexp(0)

    def state_dict(self) -> dict[str, Any]:
        return copy.deepcopy({"logits": self.values, "adam": self._adam.state_dict()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for logits, given in zip(self.values, state["logits"], strict=True):
            logits.copy_(given)
        self._adam.load_state_dict(copy.deepcopy(state["adam"]))


def among(logits: Tensor, options: Sequence[int]) -> Tensor:
    """The probabilities of all options of a decision where only these may be chosen."""
    excluded = torch.ones_like(logits, dtype=torch.bool)
    excluded[list(options)] = False
    return logits.masked_fill(excluded, -torch.inf).softmax(0)


def through_softmax(gradient: Tensor, probabilities: Tensor) -> Tensor:
    """The gradient of the logits of a decision from that of its gates: sum_j dL/dg_j p_j (delta_ij - p_i)."""
    weighted = gradient * probabilities
    return weighted - probabilities * weighted.sum()


def reinforced(
    probabilities: Sequence[Tensor], architectures: Sequence[Architecture], rewards: Sequence[float], baseline: float
) -> list[Tensor]:
    """The gradients of the logits by REINFORCE (Williams 1992).

    They are the mean over architectures of (reward - baseline) times the gradient of -ln p of their choices.
    """
    advantages = torch.tensor(rewards, dtype=torch.float64) - baseline
    gradients = []
    for decision, p in enumerate(probabilities):
        chosen = F.one_hot(torch.tensor([a.choices[decision] for a in architectures]), len(p))
        gradients.append((advantages[:, None] * (p - chosen)).mean(0))
    return gradients


def _drawn(logits: NDArray[np.float64], count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Up to `count` different options, drawn one after the other by softmax(logits); first the one that is chosen, by
    how probable they are among themselves."""
    # the largest keys are such a draw (Kool et al. 2019, arXiv:1903.06059)
    options = np.argsort(-(logits + rng.gumbel(size=len(logits))))[:count]
    chosen = int(options[np.argmax(logits[options] + rng.gumbel(size=len(options)))])
    return (chosen, *[option for option in options.tolist() if option != chosen])
