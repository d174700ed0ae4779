"""Options of the differentiable search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError


@dataclass(frozen=True)
class RelaxationOptions:
    """warmup_epochs: of the supernet's epochs, how many train weights on uniformly sampled paths first.
    warmup_lr: of these epochs, the rate from which half a cosine falls to zero, before the supernet's schedule starts;
        with 0 that spans the warm-up too.
    start_epoch: epochs behind the warm-up in which weights train on paths as probable as they are, none of which learn.
    gradient: of the gates. two evaluates one other option of each decision beside the one that is chosen, full all of
        them; reinforce none: it learns from the accuracy of whole networks.
    interval: steps of the weights from one update of the probabilities to the next.
    batch: validation images of an update; 0 is as many as a step of the weights has.
    alpha_lr: learning rate of the logits, by Adam with betas 0 and 0.999.
    loss: what the budgets do to the cross-entropy. mul_log multiplies by alpha * (ln cost / ln budget)**beta for each,
        add_linear adds lambda_ * (cost / budget - 1), add_hinge the same where it is positive. Costs are expectations.
        Without a budget it is the cross-entropy.
    alpha, beta: of mul_log.
    lambda_: of add_linear.
    samples: networks that an update by reinforce tries.
    reward_exponent: by which reinforce weighs costs: accuracy * (budget / cost)**reward_exponent.
    baseline_decay: how far the baseline of reinforce moves towards the mean reward in an update.
    """

    warmup_epochs: int = 40
    warmup_lr: float = 0.0
    start_epoch: int = 1
    gradient: Literal["two", "full", "reinforce"] = "full"
    interval: int = 5
    batch: int = 0
    alpha_lr: float = 1e-3
    loss: Literal["mul_log", "add_linear", "add_hinge"] = "mul_log"
    alpha: float = 0.2
    beta: float = 0.3
    lambda_: float = 0.1
    samples: int = 10
    reward_exponent: float = 0.1
    baseline_decay: float = 0.99

    def __post_init__(self) -> None:
        for name, low in (("warmup_epochs", 0), ("start_epoch", 0), ("interval", 1), ("batch", 0), ("samples", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"relaxation: {name} is at least {low}, got {getattr(self, name)}")
        for name in ("alpha_lr", "alpha"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"relaxation: {name} is positive, got {getattr(self, name)}")
        for name in ("warmup_lr", "beta", "lambda_", "reward_exponent"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"relaxation: {name} is at least 0, got {getattr(self, name)}")
        if not 0 < self.baseline_decay <= 1:
            raise ConfigError(f"relaxation: baseline_decay is above 0 and at most 1, got {self.baseline_decay}")
        if self.batch == 1:
            raise ConfigError("relaxation: batch is 0 or at least 2, of a single image there are no statistics")
