"""A recurrent cell over a window of time steps: node by node for reference, and fused.

Every node of a cell is a highway layer (Zilly et al. 2017, Recurrent Highway Networks, arXiv:1607.03474) on one value:

    c, z = read(v) W,   node = v + sigmoid(c) (activation(z) - v),

where v is the state for node 0, to whose product that of the word is added, and the source's value for the others.

The fused form computes the nodes of one depth together, one batched product per level. It has a backward pass of its
own: what needs no order in time (derivatives of gates and activations, gradients of weights) is computed for all time
steps at once, so a weight's gradient is one product over the window instead of a sum of as many as there are steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..quantizers import Quantizer, quantize
from .cell import RecurrentCell
from .plan import Level, Plan, plan_of


@dataclass(frozen=True)
class Wiring:
    """What a variant does with the nodes of a cell.

    averaged: the nodes whose mean is the output. state: the node that is the next state, None for the output itself.
    norm_clip: the largest Euclidean norm of a state, per example; 0 does not clip. The factor is not differentiated.
    reads: what rounds the numbers that products read, None for nothing.
    """

    averaged: tuple[int, ...]
    state: int | None
    norm_clip: float
    reads: Quantizer | None = None


@dataclass(frozen=True)
class CellWeights:
    """Rows 0 to H - 1 of each matrix are the gate's, the others the candidate's.

    state: (2 H, H) of node 0. blocks: (2 H, H) of each later node, by number. mask: (B, H), multiplies all that
    products read, None for nothing.
    """

    state: Tensor
    blocks: Mapping[int, Tensor]
    mask: Tensor | None = None


Run = Callable[[RecurrentCell, Wiring, CellWeights, Tensor, Tensor], tuple[Tensor, Tensor]]


def run_loop(
    cell: RecurrentCell, wiring: Wiring, weights: CellWeights, words: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs and states, (T, B, H) each, node by node.

    words: (T, B, 2 H), the products of the words, gate first. state: (B, H), before the first time step.
    """
    outputs, states = [], []
    for word in words:
        values: list[Tensor] = []
        for number, node in enumerate(cell.nodes):
            value = state if number == 0 else values[node.source]
            matrix = weights.state if number == 0 else weights.blocks[number]
            product = _product(_read(value, wiring, weights.mask), matrix.T, words.dtype)
            if number == 0:
                product = product + word
            gate, candidate = product.chunk(2, dim=-1)
            values.append(value + torch.sigmoid(gate) * (ACTIVATE[node.activation](candidate) - value))
        output = torch.stack([values[number] for number in wiring.averaged]).mean(0)
        state = output if wiring.state is None else values[wiring.state]
        if wiring.norm_clip:
            state = state * _clip_factor(state.detach(), wiring.norm_clip)
        outputs.append(output)
        states.append(state)
    return torch.stack(outputs), torch.stack(states)


def run_fused(
    cell: RecurrentCell, wiring: Wiring, weights: CellWeights, words: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """As `run_loop`."""
    plan = plan_of(cell)
    stacked = [
        torch.stack([weights.blocks[node] for node in plan.order[level.start : level.stop]])
        for level in plan.levels[1:]
    ]
    outputs, states = _Window.apply(plan, wiring, weights.mask, words, state, weights.state, *stacked)  # type: ignore[no-untyped-call]
    return outputs, states


ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}
ACTIVATE_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh_,
    "relu": torch.relu_,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid_,
}
# by the activation's value
DERIVATIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda value: 1 - value * value,
    "relu": lambda value: (value > 0).to(value.dtype),
    "identity": torch.ones_like,
    "sigmoid": lambda value: value * (1 - value),
}


def _product(x: Tensor, matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """x @ matrix, computed in the dtype of the matrix."""
    return torch.matmul(x.to(matrix.dtype), matrix).to(dtype)


def _read(value: Tensor, wiring: Wiring, mask: Tensor | None) -> Tensor:
    if wiring.reads is not None:
        value = quantize(wiring.reads, value, wiring.reads.scale(value, None)).real
    return value if mask is None else value * mask


def _read_slope(value: Tensor, wiring: Wiring, mask: Tensor | None) -> Tensor | None:
    """The derivative of `_read`, straight through the rounding; None where it is 1."""
    if wiring.reads is None or wiring.reads.gradient_range is None:
        return mask
    low, high = wiring.reads.gradient_range
    units = value / wiring.reads.scale(value, None)
    passes = ((units >= low) & (units <= high)).to(value.dtype)
    return passes if mask is None else passes * mask


def _clip_factor(state: Tensor, norm: float) -> Tensor:
    """(B, 1): what a state is multiplied by so that its norm is at most `norm`."""
    norms: Tensor = torch.linalg.vector_norm(state, dim=-1, keepdim=True)
    return (norm / norms).clamp_max(1.0)


class _Window(torch.autograd.Function):
    """Nodes are in the order of the plan. Between forward and backward it keeps three numbers of every node.

    Views of single time steps are made before the loop over time, which they would dominate in narrow cells.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        wiring: Wiring,
        mask: Tensor | None,
        words: Tensor,
        state: Tensor,
        first: Tensor,
        *stacked: Tensor,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, width = words.shape[0], words.shape[1], words.shape[2] // 2
        values = words.new_empty(len(plan.order), steps, batch, width)
        pairs = words.new_empty(len(plan.order), steps, batch, 2 * width)  # gates and candidates
        states, factors = words.new_empty(values.shape[1:]), words.new_ones(steps, batch, 1)
        averaged = torch.tensor([plan.place[node] for node in wiring.averaged], device=words.device)
        kept = None if wiring.state is None else plan.place[wiring.state]
        levels = [
            _Level(level, matrix.mT, values, pairs, wiring, mask)
            for level, matrix in zip(plan.levels[1:], stacked, strict=True)
        ]
        entry = _Level(plan.levels[0], first.T, values, pairs, wiring, mask)
        whole, last = values.unbind(1), None if kept is None else values[kept].unbind(0)
        before = state
        for t, word in enumerate(words.unbind(0)):
            entry.enter(t, before, word)
            for level in levels:
                level.step(t)
            following = whole[t].index_select(0, averaged).mean(0) if last is None else last[t]
            if wiring.norm_clip:
                factors[t] = _clip_factor(following, wiring.norm_clip)
                following = following * factors[t]
            states[t] = following
            before = states[t]
        outputs = values.index_select(0, averaged).mean(0)
        ctx.plan, ctx.wiring, ctx.kept = plan, wiring, kept
        ctx.save_for_backward(mask, state, first, values, pairs, states, factors, averaged, *stacked)
        return outputs, states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_states: Tensor) -> tuple[Tensor | None, ...]:
        plan, wiring = ctx.plan, ctx.wiring
        mask, state, first, values, pairs, states, factors, averaged, *stacked = ctx.saved_tensors
        sources = torch.tensor([source for level in plan.levels[1:] for source in level.sources], device=values.device)
        read_values = torch.cat([state[None], states[:-1]])[None]
        if len(sources):
            read_values = torch.cat([read_values, values.index_select(0, sources)])
        slopes = _slopes(plan, read_values, pairs)
        passed = _read_slope(read_values, wiring, mask)
        if passed is mask and mask is not None:
            passed = mask.expand_as(read_values)
        carried = 1 - pairs[..., : values.shape[-1]]
        d_products = torch.empty_like(slopes)  # (nodes, T, B, 2, H)
        d_values = values.new_empty(values[:, 0].shape)
        entry, *levels = (
            _LevelBack(level, matrix, slopes, d_products, carried, passed, d_values)
            for level, matrix in zip(plan.levels, [first[None], *stacked], strict=True)
        )
        share = values.new_zeros(len(values), 1, 1).index_fill_(0, averaged, 1 / len(averaged))
        d_before = torch.zeros_like(state)
        for t in reversed(range(len(states))):
            d_state = (d_states[t] + d_before).mul_(factors[t])
            torch.mul(share, d_outputs[t] + d_state if ctx.kept is None else d_outputs[t], out=d_values)
            if ctx.kept is not None:
                d_values[ctx.kept] += d_state
            for level in reversed(levels):
                level.step(t)
            d_before = entry.d_read(t)[0]
        read = _read(read_values, wiring, mask)
        d_matrices = [
            _weight_gradient(d_products[level.start : level.stop], read[level.start : level.stop], matrix.dtype)
            for level, matrix in zip(plan.levels, [first, *stacked], strict=True)
        ]
        return None, None, None, d_products[0].flatten(2), d_before, d_matrices[0][0], *d_matrices[1:]


class _Level:
    """One level of a window, forwards."""

    def __init__(
        self, level: Level, matrix: Tensor, values: Tensor, pairs: Tensor, wiring: Wiring, mask: Tensor | None
    ) -> None:
        """matrix: (nodes, H, 2 H), or (H, 2 H) of node 0. values, pairs: of all nodes, (N, T, B, H), (N, T, B, 2 H)."""
        nodes = slice(level.start, level.stop)
        self.matrix, self.wiring, self.mask = matrix, wiring, mask
        self.narrow = matrix.dtype != values.dtype
        self.products, self.values = pairs[nodes].unbind(1), values[nodes].unbind(1)
        self.activations = level.activations
        self.sources: Tensor | None = None
        source = level.sources[0]
        if len(set(level.sources)) == 1:  # which needs no copy
            self.read_from = values[max(source, 0) : max(source, 0) + 1].unbind(1)
        else:
            self.read_from = values.unbind(1)
            self.sources = torch.tensor(level.sources, device=values.device)

    def enter(self, t: int, state: Tensor, word: Tensor) -> None:
        """Node 0 at time t."""
        read = _read(state, self.wiring, self.mask)
        if self.narrow:
            torch.add(torch.mm(read.to(self.matrix.dtype), self.matrix).to(word.dtype), word, out=self.products[t][0])
        else:
            torch.addmm(word, read, self.matrix, out=self.products[t][0])
        self._activate(t, state)

    def step(self, t: int) -> None:
        """The nodes of a later level at time t."""
        value = self.read_from[t] if self.sources is None else self.read_from[t].index_select(0, self.sources)
        read = _read(value, self.wiring, self.mask).expand(len(self.matrix), -1, -1)
        if self.narrow:
            self.products[t].copy_(torch.bmm(read.to(self.matrix.dtype), self.matrix))
        else:
            torch.bmm(read, self.matrix, out=self.products[t])
        self._activate(t, value)

    def _activate(self, t: int, value: Tensor) -> None:
        gates, candidates = self.products[t].chunk(2, dim=-1)
        gates.sigmoid_()
        for name, start, stop in self.activations:
            ACTIVATE_IN_PLACE[name](candidates[start:stop] if len(self.activations) > 1 else candidates)
        torch.lerp(value, candidates, gates, out=self.values[t])


class _LevelBack:
    """One level of a window, backwards."""

    def __init__(
        self,
        level: Level,
        matrix: Tensor,
        slopes: Tensor,
        d_products: Tensor,
        carried: Tensor,
        passed: Tensor | None,
        d_values: Tensor,
    ) -> None:
        """matrix: (nodes, 2 H, H). d_values: (all nodes, B, H), of the time step that is being worked on."""
        nodes = slice(level.start, level.stop)
        self.matrix, self.narrow = matrix, matrix.dtype != slopes.dtype
        self.slopes, self.carried = slopes[nodes].unbind(1), carried[nodes].unbind(1)
        self.d_products = d_products[nodes].unbind(1)
        self.passed = None if passed is None else passed[nodes].unbind(1)
        self.d_values, self.d_pairs = d_values[nodes], d_values[nodes][:, :, None]
        self.d_sources = [d_values[source] for source in level.sources if source >= 0]
        self.one_source = len(set(level.sources)) == 1

    def d_read(self, t: int) -> Tensor:
        """The gradient of what the nodes read at time t, (nodes, B, H)."""
        d_product = torch.mul(self.slopes[t], self.d_pairs, out=self.d_products[t]).flatten(2)
        if self.narrow:
            found = torch.bmm(d_product.to(self.matrix.dtype), self.matrix).to(self.d_values.dtype)
        else:
            found = torch.bmm(d_product, self.matrix)
        if self.passed is not None:
            found.mul_(self.passed[t])
        return found.addcmul_(self.d_values, self.carried[t])

    def step(self, t: int) -> None:
        """Add that to the gradients of the sources, in an order that is always the same."""
        found = self.d_read(t)
        if self.one_source:
            self.d_sources[0] += found[0] if len(found) == 1 else found.sum(0)
        else:
            for d_source, each in zip(self.d_sources, found.unbind(0), strict=True):
                d_source += each


def _slopes(plan: Plan, read_values: Tensor, pairs: Tensor) -> Tensor:
    """The derivatives of every node by its two products, (nodes, T, B, 2, H)."""
    slopes = pairs.new_empty((*pairs.shape[:-1], 2, pairs.shape[-1] // 2))
    gates, candidates = pairs.chunk(2, dim=-1)
    torch.mul(torch.sub(candidates, read_values), DERIVATIVE["sigmoid"](gates), out=slopes[..., 0, :])
    for level in plan.levels:
        for name, start, stop in level.activations:
            nodes = slice(level.start + start, level.start + stop)
            torch.mul(gates[nodes], DERIVATIVE[name](candidates[nodes]), out=slopes[nodes, ..., 1, :])
    return slopes


def _weight_gradient(d_products: Tensor, read: Tensor, dtype: torch.dtype) -> Tensor:
    """(nodes, 2 H, H) from d_products (nodes, T, B, 2, H) and read (nodes, T, B, H)."""
    by_example = d_products.flatten(3).flatten(1, 2).to(dtype)
    return torch.bmm(by_example.mT, read.flatten(1, 2).to(dtype))
