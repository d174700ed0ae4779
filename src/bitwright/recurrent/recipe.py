"""How a recurrent language model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import ConfigError
from ..train.recipe import Recipe, has_bfloat16
from ..train.schedules import Schedule, decaying
from .dropout import Dropout


@dataclass(frozen=True)
class LanguageRecipe:
    """epochs: passes over the training text; of a search, its rounds.
    batch: pieces of the training text that are read side by side, with carried states.
    evaluation_batch: pieces of the validation or test text; each starts from a zero state.
    bptt: time steps that a gradient reaches back, the length of a window.
    random_bptt: draw the lengths around bptt, or in 5 % of the cases around its half, and scale the rate with the
        length (Merity et al. 2018, arXiv:1708.02182, section 5).
    optimizer: sgd, adam, or asgd: sgd whose weights are averaged from the first epoch on in which the validation
        perplexity is above the best of all but the last `patience` epochs (there section 3).
    patience: epochs; of asgd.
    momentum: of sgd and asgd.
    adam_beta1, adam_beta2, adam_epsilon: of adam.
    lr, lr_min, decay, decay_after: epoch e, counted from 1, has the rate max(lr decay^max(e - decay_after, 0), lr_min).
    weight_decay: added to the gradient as weight_decay * weight, for matrices whose range is free.
    clip_norm: largest norm of the whole gradient; 0 does not clip.
    word_dropout, embedding_dropout, input_dropout, between_dropout, output_dropout, weight_dropout: rates, see Dropout.
    activation_reg: times the mean square of what the decoder reads, added to the loss.
    temporal_reg: times the mean square of the differences of successive outputs.
    norm_stabilizer: times the mean square of the distance of the states' norms from norm_stabilizer_point (Krueger and
        Memisevic 2016, arXiv:1511.08400, with a fixed point).
    dtype: of products in training; auto is bfloat16 where the machine computes with it, else float32. Evaluation is in
        float32.
    log_every: steps between lines in the log.

    The loss is the mean of -log p per word, in nats.
    """

    epochs: int = 150
    batch: int = 64
    evaluation_batch: int = 10
    bptt: int = 35
    random_bptt: bool = False
    optimizer: Literal["sgd", "adam", "asgd"] = "sgd"
    patience: int = 5
    momentum: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    lr: float = 20.0
    lr_min: float = 0.0
    decay: float = 0.96
    decay_after: int = 15
    weight_decay: float = 1e-7
    clip_norm: float = 0.25
    word_dropout: float = 0.1
    embedding_dropout: float = 0.0
    input_dropout: float = 0.65
    between_dropout: float = 0.0
    output_dropout: float = 0.4
    weight_dropout: float = 0.5
    activation_reg: float = 0.0
    temporal_reg: float = 0.0
    norm_stabilizer: float = 0.0
    norm_stabilizer_point: float = 5.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    log_every: int = 50

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "evaluation_batch", "bptt", "patience", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recipe: {name} is at least 1, got {getattr(self, name)}")
        for name in ("lr", "decay"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"recipe: {name} is positive, got {getattr(self, name)}")
        for name in (
            "lr_min", "decay_after", "weight_decay", "clip_norm", "activation_reg", "temporal_reg", "norm_stabilizer",
            "norm_stabilizer_point", "adam_epsilon",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe: {name} is at least 0, got {getattr(self, name)}")
        for name in ("momentum", "adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"recipe: {name} is in [0, 1), got {getattr(self, name)}")
        for name, allowed in (("optimizer", ("sgd", "adam", "asgd")), ("dtype", ("auto", "float32", "bfloat16"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"recipe: {name} is one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        self.dropout  # noqa: B018 (which checks its own rates)

    @property
    def dropout(self) -> Dropout:
        return Dropout(
            self.word_dropout,
            self.embedding_dropout,
            self.input_dropout,
            self.between_dropout,
            self.output_dropout,
            self.weight_dropout,
        )

    def rates(self) -> Schedule:
        return decaying(self.lr, self.lr_min, self.decay, self.decay_after)

    def for_optimizer(self) -> Recipe:
        """What the optimizer of the other trainings reads."""
        return Recipe(
            optimizer="adam" if self.optimizer == "adam" else "sgd",
            momentum=self.adam_beta1 if self.optimizer == "adam" else self.momentum,
            nesterov=False,
            adam_beta2=self.adam_beta2,
            adam_epsilon=self.adam_epsilon,
            lr=self.lr,
            lr_min=min(self.lr, 1e-5),
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )

    def compute_dtype(self, device: torch.device) -> torch.dtype | None:
        """None for that of the weights."""
        narrow = self.dtype == "bfloat16" or (self.dtype == "auto" and has_bfloat16(device))
        return torch.bfloat16 if narrow else None
