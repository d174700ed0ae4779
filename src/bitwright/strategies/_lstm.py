"""What the LSTM policies have in common: how weights start, the steps of the LSTM, and attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uniform(seed: int) -> Callable[..., nn.Parameter]:
    """What makes weights of a shape, uniform in [-0.1, 0.1), one after the other from one stream."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: nn.Parameter(torch.rand(shape, generator=generator).mul_(0.2).sub_(0.1))


class Steps:
    """An LSTM without biases from a zero state, which may be told the number of the step by a row of `positions`."""

    def __init__(self, count: int, input_weight: Tensor, state_weight: Tensor, positions: Tensor | None) -> None:
        """count: sequences at once. weights: (4 H, H). positions: (steps, H)."""
        zeros = state_weight.new_zeros(count, state_weight.shape[1])
        self.state = zeros, zeros
        self.weights = input_weight, state_weight
        self.positions = None if positions is None else iter(positions)

    def __call__(self, x: Tensor) -> Tensor:
        """The state (count, H) after reading x: (count, H)."""
        if self.positions is not None:
            x = x + next(self.positions)
        self.state = torch.lstm_cell(x, self.state, *self.weights)
        return self.state[0]


def attention(known: Tensor, query: Tensor, additive: Tensor | None) -> Tensor:
    """The score of each of known: (count, n, H), for query: (count, H); (count, n).

    additive: (1, H) of additive attention (Bahdanau et al. 2015, arXiv:1409.0473); None for the dot product.
    """
    query = query[:, None, :]
    if additive is None:
        return (known * query).sum(2)
    return F.linear(torch.tanh(known + query), additive)[:, :, 0]
