"""The policy of recurrent cells (Pham et al. 2018, ENAS, arXiv:1802.03268, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Decision
from ._lstm import uniform
from ._sample import Sample


class CellPolicy(nn.Module):
    """A distribution over sequences of decisions, as the widespread PyTorch program has it.

    An LSTM, whose first input is zero, takes one step for each decision. A linear layer of that decision turns its
    state into logits, and the embedding of what is chosen is the next input. Decisions of one kind, such as prev_1 and
    prev_2, share the embeddings of their options. 93,814 parameters with 100 units and the 23 decisions of 12 nodes.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        *,
        hidden: int,
        tanh_constant: float,
        temperature: float,
        position_embedding: bool,
        seed: int,
    ) -> None:
        """As of Controller. Decisions have names such as act_3: a kind and the number of a node."""
        super().__init__()
        self.hidden, self.bound, self.temperature = hidden, tanh_constant, temperature
        self.sizes = [len(decision.options) for decision in decisions]
        self.kinds = [decision.name.rpartition("_")[0] for decision in decisions]
        weights = uniform(seed)
        self.input_weight, self.state_weight = weights(4 * hidden, hidden), weights(4 * hidden, hidden)
        self.input_bias, self.state_bias = weights(4 * hidden), weights(4 * hidden)
        pairs = list(zip(self.kinds, self.sizes, strict=True))
        self.embedding = nn.ParameterDict(
            {kind: weights(max(size for other, size in pairs if other == kind), hidden) for kind in dict(pairs)}
        )
        self.weights = nn.ParameterList([weights(size, hidden) for size in self.sizes])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in self.sizes])
        self.position_embedding = weights(len(self.sizes), hidden) if position_embedding else None

    def forward(self, count: int, choices: Tensor | None = None, generator: torch.Generator | None = None) -> Sample:
        """`count` samples: drawn with `generator`, or the given choices, int64 (count, decisions)."""
        x = self.state_weight.new_zeros(count, self.hidden)
        state = x, x
        drawn: list[Tensor] = []
        chosen: list[Tensor] = []
        entropies: list[Tensor] = []
        for position, kind in enumerate(self.kinds):
            if self.position_embedding is not None:
                x = x + self.position_embedding[position]
            state = torch.lstm_cell(x, state, self.input_weight, self.state_weight, self.input_bias, self.state_bias)
            scores = F.linear(state[0], self.weights[position], self.biases[position])
            log_p = F.log_softmax(self.bound * torch.tanh(scores / self.temperature), dim=1)
            if choices is None:
                choice = torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0]
            else:
                choice = choices[:, position]
            drawn.append(choice)
            chosen.append(log_p.gather(1, choice[:, None])[:, 0])
            entropies.append(-(log_p.exp() * log_p).sum(1))
            x = F.embedding(choice, self.embedding[kind])
        each = torch.stack(chosen, dim=1), torch.stack(entropies, dim=1)
        return Sample(torch.stack(drawn, dim=1), each[0].sum(1), each[1].sum(1), decisions=each)
