"""The policy of ENAS's macro space (Pham et al. 2018, arXiv:1802.03268, section 2.3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._lstm import Steps, attention, uniform
from ._sample import Sample


class MacroPolicy(nn.Module):
    """A distribution over the architectures of a macro space.

    An LSTM takes two steps for each layer. After the first it chooses the operation by a softmax. The state after the
    second is the layer's anchor; attention between it and each earlier layer's anchor gives a score q, and the softmax
    of (-q, q) is the probability of the skip bit of that number. The mean of the anchors that were taken, divided by
    one more than their number, is read next.

    Its penalty is skip_weight times the divergence, in nats, of (sigmoid(-q), sigmoid(q)) from (1 - skip_target,
    skip_target), summed over a layer's bits and averaged over all layers but the first. As published these are not the
    probabilities of the bits: at no divergence a bit is set with probability 1 / (1 + ((1 - t) / t)**2), 0.31 for 0.4.
    """

    def __init__(
        self,
        layers: int,
        operations: int,
        *,
        hidden: int,
        tanh_constant: float,
        op_tanh_reduce: float,
        temperature: float,
        attention: str,
        position_embedding: bool,
        skip_target: float,
        skip_weight: float,
        seed: int,
    ) -> None:
        """As of Controller."""
        super().__init__()
        self.layers, self.hidden = layers, hidden
        self.skip_bound, self.op_bound, self.temperature = tanh_constant, tanh_constant / op_tanh_reduce, temperature
        self.skip_target, self.skip_weight = skip_target, skip_weight
        weights = uniform(seed)
        self.input_weight, self.state_weight = weights(4 * hidden, hidden), weights(4 * hidden, hidden)
        self.start = weights(1, hidden)
        self.op_embedding, self.op_weight = weights(operations, hidden), weights(operations, hidden)
        self.attend_layer, self.attend_state = weights(hidden, hidden), weights(hidden, hidden)
        self.attend = weights(1, hidden) if attention == "additive" else None
        self.position_embedding = weights(2 * layers, hidden) if position_embedding else None

    def forward(self, count: int, choices: Tensor | None = None, generator: torch.Generator | None = None) -> Sample:
        """`count` samples: drawn with `generator`, or the given choices, int64 (count, L (L + 1) / 2)."""
        step = Steps(count, self.input_weight, self.state_weight, self.position_embedding)
        start = x = self.start.expand(count, -1)
        drawn: list[Tensor] = []
        log_probabilities: list[Tensor] = []
        entropies: list[Tensor] = []
        divergences: list[Tensor] = []
        anchors: list[Tensor] = []
        for layer in range(self.layers):
            first = layer * (layer + 1) // 2
            logits = self.op_bound * torch.tanh(F.linear(step(x), self.op_weight) / self.temperature)
            log_p = F.log_softmax(logits, dim=1)
            if choices is None:
                op = torch.multinomial(log_p.exp(), 1, generator=generator)
            else:
                op = choices[:, first : first + 1]
            drawn.append(op)
            log_probabilities.append(log_p.gather(1, op)[:, 0])
            entropies.append(-(log_p.exp() * log_p).sum(1))
            anchor = step(F.embedding(op[:, 0], self.op_embedding))
            x = start
            if anchors:
                earlier = torch.stack(anchors, dim=1)
                q = self._scores(anchor, earlier)
                if choices is None:
                    skips = torch.bernoulli(torch.sigmoid(2 * q), generator=generator).long()
                else:
                    skips = choices[:, first + 1 : first + 1 + layer]
                drawn.append(skips)
                log_probabilities.append(F.logsigmoid(2 * q * (2 * skips - 1)).sum(1))
                entropies.append(_entropy(2 * q).sum(1))
                divergences.append(_divergence(q, self.skip_target).sum(1))
                x = (skips[:, :, None] * earlier).sum(1) / (1 + skips.sum(1, keepdim=True))
            anchors.append(anchor)
        return Sample(
            torch.cat(drawn, dim=1),
            torch.stack(log_probabilities).sum(0),
            torch.stack(entropies).sum(0),
            self.skip_weight * torch.stack(divergences).mean(0) if divergences else None,
        )

    def _scores(self, anchor: Tensor, earlier: Tensor) -> Tensor:
        """q of a layer's bits, (count, layer); earlier: (count, layer, hidden)."""
        known = F.linear(earlier, self.attend_layer)
        scores = attention(known, F.linear(anchor, self.attend_state), self.attend)
        return self.skip_bound * torch.tanh(scores / self.temperature)


def _entropy(logits: Tensor) -> Tensor:
    """Of bits that are 1 with the probability sigmoid(logits), in nats."""
    p = torch.sigmoid(logits)
    return p * F.softplus(-logits) + (1 - p) * F.softplus(logits)


def _divergence(logits: Tensor, target: float) -> Tensor:
    """KL divergence of bits with the probability sigmoid(logits) from ones with `target`, in nats."""
    p = torch.sigmoid(logits)
    return p * (F.logsigmoid(logits) - math.log(target)) + (1 - p) * (F.logsigmoid(-logits) - math.log1p(-target))
