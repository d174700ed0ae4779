"""Dropout of recurrent language models (Merity et al. 2018, arXiv:1708.02182, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import ConfigError


@dataclass(frozen=True)
class Dropout:
    """Rates in [0, 1); what is kept is divided by 1 - rate. Locked masks stay the same at all time steps of a window.

    word: whole words of the vocabulary, everywhere in the window (Gal and Ghahramani 2016, arXiv:1512.05287).
    embedding: single numbers of embedded words, anew at every time step.
    input: locked, of embedded words.
    between: locked, of all that the products of the cell read of states and nodes.
    output: locked, of the cell's outputs.
    weight: single weights of the product of the state in node 0 (DropConnect, Wan et al. 2013).
    """

    word: float = 0.0
    embedding: float = 0.0
    input: float = 0.0
    between: float = 0.0
    output: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < 1:
                raise ConfigError(f"dropout: {field.name} is in [0, 1), got {getattr(self, field.name)}")


@dataclass(frozen=True)
class Training:
    """What a training step does that evaluation does not: batch statistics, and these draws.

    generator: of the model's device; None leaves out dropout, as calibration does.
    """

    generator: torch.Generator | None = None
    dropout: Dropout = Dropout()

    def mask(self, rate: float, like: Tensor, shape: Sequence[int]) -> Tensor | None:
        """1 / (1 - rate) or 0 in `shape`, of the dtype of `like`; None where nothing is dropped."""
        if self.generator is None or rate == 0.0:
            return None
        kept = torch.rand(tuple(shape), generator=self.generator, device=like.device) >= rate
        return kept.to(like.dtype).div_(1 - rate)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
