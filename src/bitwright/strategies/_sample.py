"""What a policy of the controller hands back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Sample(NamedTuple):
    """choices: int64 (S, decisions). log_probability, entropy: nats, (S,). penalty: added to the loss, (S,).

    decisions: log-probabilities and entropies of the single decisions, (S, decisions), where a policy tells them.
    """

    choices: Tensor
    log_probability: Tensor
    entropy: Tensor
    penalty: Tensor | None = None
    decisions: tuple[Tensor, Tensor] | None = None
