"""NSGA-II: evolution toward several objectives at once (Deb et al. 2002, doi:10.1109/4235.996017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import pareto
from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..trial import Objective, Objectives, Trial
from . import Strategy
from ._known import Known

MOST_DRAWS = 100  # of a child that is valid


@dataclass(frozen=True)
class Member:
    """values: of the objectives, less is better. excess: over the budgets. rank, crowding: in its generation."""

    architecture: Architecture
    values: tuple[float, ...]
    excess: float = 0.0
    rank: int = 0
    crowding: float = 0.0


class Nsga2(Strategy):
    """population: parents of a generation, and how many children they have.
    objectives: accuracy, which should be large, and costs by name, and seconds, which should be small.
    crossover: the probability that a child takes each choice from either parent, and not all from one.
    mutation: the probability that a choice of a child is drawn anew; None is one over the number of choices.

    Budgets are constraints: what meets them is better than what does not, of which the smaller excess is better. What
    was told before is not asked for again, up to isomorphism.
    """

    parents: list[Member]
    _choices: NDArray[np.int64]  # of the parents, (population, decisions)
    _places: NDArray[np.int64]  # of the parents in a tournament, (population,): the smaller one wins

    def __init__(
        self,
        space: DecisionSpace,
        objective: Objective | None = None,
        population: int = 50,
        objectives: tuple[str, ...] = ("accuracy",),
        crossover: float = 0.9,
        mutation: float | None = None,
    ) -> None:
        if not space.decisions:
            raise ConfigError(f"nsga2 changes decisions; {space.name} has none")
        if population < 2:
            raise ConfigError(f"nsga2: the population is at least 2, got {population}")
        if not 0 <= crossover <= 1:
            raise ConfigError(f"nsga2: crossover is from 0 to 1, got {crossover}")
        if mutation is not None and not 0 < mutation <= 1:
            raise ConfigError(f"nsga2: mutation is above 0 and at most 1, got {mutation}")
        self.space, self.objectives = space, Objectives.of(objectives)
        self.budgets = objective or Objective()
        self.population, self.crossover = population, crossover
        self.mutation = 1 / len(space.decisions) if mutation is None else mutation
        self.known = Known(space)
        self.children: list[Member] = []
        self._breed([])
        self._sizes = np.array([len(decision.options) for decision in space.decisions])

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        if not self.parents:
            return self.known.sampled(count, rng)
        return self.known.unknown(count, partial(self._children, rng))

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.known.add(trial.architecture)
            measurement = trial.measurement
            self.children.append(
                Member(trial.architecture, self.objectives(measurement), self.budgets.excess(measurement.costs))
            )
            if len(self.children) == self.population:
                self._breed(ranked([*self.parents, *self.children])[: self.population])
                self.children = []

    @property
    def front(self) -> list[Member]:
        """The parents that no other one dominates."""
        return [member for member in self.parents if member.rank == 0]

    def figures(self) -> Mapping[str, float]:
        return {"front": float(len(self.front))}

    def state_dict(self) -> dict[str, Any]:
        parents, children = ([_state(m) for m in members] for members in (self.parents, self.children))
        return {"known": self.known.state(), "parents": parents, "children": children}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.known.load(state["known"])
        parents, self.children = (
            [Member(Architecture(self.space.name, tuple(choices)), tuple(values), *rest)
             for choices, values, *rest in state[name]]
            for name in ("parents", "children")
        )  # fmt: skip
        self._breed(parents)

    def _breed(self, parents: list[Member]) -> None:
        """Make them the parents of the next generation."""
        self.parents = parents
        self._choices = np.array([member.architecture.choices for member in parents], np.int64)
        orders = [(member.rank, -member.crowding) for member in parents]
        place = {order: number for number, order in enumerate(sorted(set(orders)))}
        self._places = np.array([place[order] for order in orders], np.int64)

    def _children(self, rng: np.random.Generator, count: int) -> list[Architecture]:
        """Of two winners of tournaments each; where crossover and mutation give nothing valid, a neighbour of the
        first."""
        name, is_valid = self.space.name, self.space.is_valid
        first, second = self._winners((2, count), rng)
        found: dict[int, Architecture] = {}
        left = np.arange(count)
        for _ in range(MOST_DRAWS):
            children = self._mixed(first[left], second[left], rng).tolist()
            drawn = ((i, tuple(choices)) for i, choices in zip(left.tolist(), children, strict=True))
            found |= {i: Architecture(name, choices) for i, choices in drawn if is_valid(choices)}
            if len(found) == count:
                break
            left = np.array([i for i in range(count) if i not in found])
        lacking = (i for i in range(count) if i not in found)
        found |= {i: self.space.mutate(Architecture(name, tuple(first[i].tolist())), rng) for i in lacking}
        return [found[i] for i in range(count)]

    def _winners(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
        """The choices of the better one of two parents, of the first if they are alike, (*shape, decisions)."""
        a, b = rng.integers(len(self.parents), size=(2, *shape))
        winners: NDArray[np.int64] = self._choices[np.where(self._places[a] <= self._places[b], a, b)]
        return winners

    def _mixed(
        self, first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Crossover, then mutation, of choices (count, decisions)."""
        crossed = rng.random((len(first), 1)) < self.crossover
        children = np.where(crossed & (rng.random(first.shape) < 0.5), second, first)
        mutated = rng.random(first.shape) < self.mutation
        return np.where(mutated, (rng.random(first.shape) * self._sizes).astype(np.int64), children)


def ranked(members: Sequence[Member]) -> list[Member]:
    """Front by front, the least crowded of each first.

    Those over budget come behind, each excess a front of its own, as constrained domination has it.
    """
    values = np.array([member.values for member in members], np.float64)
    excesses = np.array([member.excess for member in members])
    rank = np.zeros(len(members), np.int64)
    met = excesses == 0
    rank[met] = pareto.ranks(values[met])
    fronts = rank[met].max(initial=-1) + 1
    rank[~met] = fronts + np.unique(excesses[~met], return_inverse=True)[1]
    crowding = pareto.crowding(values, rank)
    order = np.lexsort((-crowding, rank))
    return [
        Member(members[i].architecture, members[i].values, members[i].excess, int(rank[i]), float(crowding[i]))
        for i in order.tolist()
    ]


def _state(member: Member) -> tuple[Any, ...]:
    choices = list(member.architecture.choices)
    return choices, list(member.values), member.excess, member.rank, member.crowding
