"""What the loss of a network becomes when it should also be cheap (Cai et al. 2019, arXiv:1812.00332, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..architecture import Architecture
from ..costs import CostModel
from ..errors import ConfigError
from ..spaces import RelaxedSpace
from .expected_cost import ExpectedCost
from .options import RelaxationOptions


def mul_log(loss: Tensor, costs: Sequence[Tensor], budgets: Sequence[float], alpha: float, beta: float) -> Tensor:
    """alpha * loss times the product of (ln cost / ln budget)**beta. Costs and budgets are above 1."""
    total = alpha * loss
    for cost, budget in zip(costs, budgets, strict=True):
        total = total * (cost.log() / math.log(budget)) ** beta
    return total


def add_linear(loss: Tensor, costs: Sequence[Tensor], budgets: Sequence[float], weight: float) -> Tensor:
    """loss + weight * the sum of (cost - budget) / budget."""
    for cost, budget in zip(costs, budgets, strict=True):
        loss = loss + weight * (cost - budget) / budget
    return loss


def add_hinge(loss: Tensor, costs: Sequence[Tensor], budgets: Sequence[float], weight: float) -> Tensor:
    """loss + weight * the sum of max(cost - budget, 0) / budget: what is within a budget is no cheaper than it must."""
    for cost, budget in zip(costs, budgets, strict=True):
        loss = loss + weight * (cost - budget).clamp_min(0) / budget
    return loss


class Budgeted:
    """The loss under the budgets of a search.

    expected: by the name of each budget, the cost that it is on. ConfigError where no architecture is within a budget,
    or the loss takes the logarithm of what may be below 1.
    """

    def __init__(
        self,
        space: RelaxedSpace,
        budgets: Mapping[str, float],
        costs: Mapping[str, CostModel],
        options: RelaxationOptions,
    ) -> None:
        self.options, self.budgets = options, dict(budgets)
        self.expected = {name: ExpectedCost(space, costs[name]) for name in budgets}
        for name, cost in self.expected.items():
            least = cost.fixed + sum(float(term.min()) for term in cost.terms)
            if least > budgets[name]:
                raise ConfigError(
                    f"no architecture has {name} within {budgets[name]:g}; the least is {least:g} or more"
                )
            if options.loss == "mul_log" and options.gradient != "reinforce" and least <= 1:
                raise ConfigError(f"mul_log takes the logarithm of {name}, which may be {least:g} here; use add_linear")

    def __call__(self, loss: Tensor, probabilities: Sequence[Tensor]) -> Tensor:
        """loss: (), the cross-entropy. probabilities: of the options of every decision."""
        if not self.budgets:
            return loss
        costs = [cost(probabilities) for cost in self.expected.values()]
        budgets, options = list(self.budgets.values()), self.options
        if options.loss == "mul_log":
            return mul_log(loss, costs, budgets, options.alpha, options.beta)
        return {"add_linear": add_linear, "add_hinge": add_hinge}[options.loss](loss, costs, budgets, options.lambda_)

    def reward(self, accuracy: float, architecture: Architecture) -> float:
        """accuracy times the product of (budget / cost)**reward_exponent, what reinforce learns from."""
        for name, cost in self.costs_of(architecture).items():
            accuracy *= (self.budgets[name] / cost) ** self.options.reward_exponent
        return accuracy

    def costs_of(self, architecture: Architecture) -> dict[str, float]:
        """What an architecture costs, by the name of each budget."""
        return {name: cost.of(architecture) for name, cost in self.expected.items()}

    def expectations(self, probabilities: Sequence[Tensor]) -> dict[str, float]:
        """The expected costs, by the name of each budget."""
        return {name: float(cost(probabilities)) for name, cost in self.expected.items()}

    def gradients(self, loss: float, probabilities: Sequence[Tensor]) -> tuple[float, float, list[Tensor]]:
        """The loss, its derivative by the cross-entropy, and those by the probabilities through the expected costs."""
        leaves = [torch.tensor(loss, dtype=torch.float64), *(p.detach().clone() for p in probabilities)]
        for leaf in leaves:
            leaf.requires_grad_()
        total = self(leaves[0], leaves[1:])
        by_loss, *by_probability = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        return total.item(), float(by_loss), list(by_probability)
