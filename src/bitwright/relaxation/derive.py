"""From probabilities to one architecture: the most probable one within the budgets, and others that cost as much."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..architecture import Architecture
from ..spaces import DecisionSpace
from ..trial import Objective

EXACT = 1000  # most probable choices that are looked through before a way to the budgets is sought
NEAR = 0.05  # part by which costs that count as equal may differ
TRIES = 2000  # changes of a random architecture on its way to a cost

CostsOf = Callable[[Architecture], Mapping[str, float]]
Floats = NDArray[np.float64]


def most_probable(
    space: DecisionSpace, probabilities: Sequence[Tensor], budgets: Mapping[str, float], costs_of: CostsOf
) -> Architecture:
    """The most probable architecture within the budgets, or the nearest to them that was found.

    It is exact if it is among the thousand most probable choices. Else the most probable of all valid ones is changed
    one decision at a time, where the least probability is lost for the cost that is saved, until it is within the
    budgets, and then where it becomes more probable.
    """
    logarithms = [p.clamp_min(np.finfo(np.float64).tiny).log().numpy() for p in probabilities]
    objective = Objective(budgets)
    start: Architecture | None = None
    for choices in itertools.islice(_in_order(logarithms), EXACT):
        if space.is_valid(choices):
            architecture = space.architecture(choices)
            if not budgets or objective.is_met(costs_of(architecture)):
                return architecture
            start = start or architecture
    climb = _Climb(space, logarithms, objective, costs_of)
    within = climb.into_budgets(start or space.sample(np.random.default_rng(0)))
    return climb.to_the_top(within) if climb.excess(within) == 0 else within


class _Climb:
    """Single changes of architectures, by their probability and by what they exceed the budgets."""

    def __init__(
        self, space: DecisionSpace, logarithms: Sequence[Floats], objective: Objective, costs_of: CostsOf
    ) -> None:
        self.space, self.logarithms, self.objective, self.costs_of = space, logarithms, objective, costs_of

    def excess(self, architecture: Architecture) -> float:
        return self.objective.excess(self.costs_of(architecture))

    def log_probability(self, architecture: Architecture) -> float:
        return sum(float(logs[choice]) for logs, choice in zip(self.logarithms, architecture.choices, strict=True))

    def into_budgets(self, architecture: Architecture) -> Architecture:
        """Changed where the least probability is lost for the excess that is saved, until none is left or no single
        change saves any."""
        while (excess := self.excess(architecture)) > 0:
            probability = self.log_probability(architecture)
            best, least = None, math.inf
            for changed in self.space.neighbours(architecture):
                saved = excess - self.excess(changed)
                if saved > 0 and (price := (probability - self.log_probability(changed)) / saved) < least:
                    best, least = changed, price
            if best is None:
                return architecture
            architecture = best
        return architecture

    def to_the_top(self, architecture: Architecture) -> Architecture:
        """Changed, in one decision or in two, as long as it becomes more probable within the budgets."""
        while True:
            better = max(self._more_probable(architecture), key=self.log_probability, default=architecture)
            if better is architecture:
                return architecture
            architecture = better

    def _more_probable(self, architecture: Architecture) -> Iterator[Architecture]:
        """Architectures within the budgets that differ in one decision, which is now more probable, or in a second."""
        probability = self.log_probability(architecture)
        for changed in self.space.neighbours(architecture):
            if self.log_probability(changed) <= probability:
                continue
            if self.excess(changed) == 0:
                yield changed
                continue
            for twice in self.space.neighbours(changed):
                if self.log_probability(twice) > probability and self.excess(twice) == 0:
                    yield twice


def _in_order(logarithms: Sequence[Floats]) -> Iterator[tuple[int, ...]]:
    """All choices from the most to the least probable."""
    orders = [np.argsort(-logs, kind="stable") for logs in logarithms]
    # by place in the order
    losses = [logs[order[0]] - logs[order] for logs, order in zip(logarithms, orders, strict=True)]
    heap: list[tuple[float, tuple[int, ...], int]] = [(0.0, (0,) * len(orders), 0)]
    while heap:
        loss, places, last = heapq.heappop(heap)
        yield tuple(int(order[place]) for order, place in zip(orders, places, strict=True))
        for decision in range(last, len(orders)):  # each follows from the one in which its last place is one less
            place = places[decision] + 1
            if place < len(orders[decision]):
                step = float(losses[decision][place] - losses[decision][place - 1])
                heapq.heappush(heap, (loss + step, (*places[:decision], place, *places[decision + 1 :]), decision))


def of_equal_cost(
    space: DecisionSpace, costs: Mapping[str, float], costs_of: CostsOf, rng: np.random.Generator
) -> Architecture:
    """A random architecture that costs about as much: a uniform one, changed at random where that brings it nearer."""

    def distance(architecture: Architecture) -> float:
        return max((abs(cost / costs[name] - 1) for name, cost in costs_of(architecture).items()), default=0.0)

    found = space.sample(rng)
    off = distance(found)
    for _ in range(TRIES):
        if off <= NEAR:
            break
        changed = space.mutate(found, rng)
        if (then := distance(changed)) <= off:
            found, off = changed, then
    return found
