"""NSGA-II: evolution toward several objectives at once (Deb et al. 2002, doi:10.1109/4235.996017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import pareto
from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..trial import Objective, Objectives, Trial
from . import Strategy
from ._known import MOST_DRAWS, Known


@dataclass(frozen=True)
class Member:
    """values: of the objectives, less is better. excess: over the budgets. rank, crowding: in its generation."""

    architecture: Architecture
    values: tuple[float, ...]
    excess: float = 0.0
    rank: int = 0
    crowding: float = 0.0

    @property
    def order(self) -> tuple[int, float]:
        """The smaller one wins a tournament and survives."""
        return self.rank, -self.crowding


class Nsga2(Strategy):
    """population: parents of a generation, and how many children they have.
    objectives: accuracy, which should be large, and costs by name, and seconds, which should be small.
    crossover: the probability that a child takes each choice from either parent, and not all from one.
    mutation: the probability that a choice of a child is drawn anew; None is one over the number of choices.

    Budgets are constraints: what meets them is better than what does not, of which the smaller excess is better. What
    was told before is not asked for again, up to isomorphism.
    """

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
        self.parents: list[Member] = []
        self.children: list[Member] = []
        self._sizes = np.array([len(decision.options) for decision in space.decisions])

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        draw = partial(self._child, rng) if self.parents else partial(self.space.sample, rng)
        return self.known.unknown(count, draw)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.known.add(trial.architecture)
            measurement = trial.measurement
            self.children.append(
                Member(trial.architecture, self.objectives(measurement), self.budgets.excess(measurement.costs))
            )
            if len(self.children) == self.population:
                self.parents = ranked([*self.parents, *self.children])[: self.population]
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
        self.parents, self.children = (
            [Member(Architecture(self.space.name, tuple(choices)), tuple(values), *rest)
             for choices, values, *rest in state[name]]
            for name in ("parents", "children")
        )  # fmt: skip

    def _child(self, rng: np.random.Generator) -> Architecture:
        """Of two winners of tournaments; where crossover and mutation give nothing valid, a neighbour of the first."""
        first, second = (np.array(self._winner(rng).architecture.choices) for _ in range(2))
        for _ in range(MOST_DRAWS):
            mixed = rng.random() < self.crossover
            choices = np.where(rng.random(len(first)) < 0.5, first, second) if mixed else first
            mutated = rng.random(len(first)) < self.mutation
            choices = np.where(mutated, rng.integers(self._sizes), choices)
            child = tuple(choices.tolist())
            if self.space.is_valid(child):
                return Architecture(self.space.name, child)
        return self.space.mutate(Architecture(self.space.name, tuple(first.tolist())), rng)

    def _winner(self, rng: np.random.Generator) -> Member:
        a, b = (self.parents[int(i)] for i in rng.integers(len(self.parents), size=2))
        return a if a.order <= b.order else b


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
    crowding = np.empty(len(members))
    for front in np.unique(rank):
        inside = rank == front
        crowding[inside] = pareto.crowding(values[inside])
    order = np.lexsort((-crowding, rank))
    return [
        Member(members[i].architecture, members[i].values, members[i].excess, int(rank[i]), float(crowding[i]))
        for i in order.tolist()
    ]


def _state(member: Member) -> tuple[Any, ...]:
    choices = list(member.architecture.choices)
    return choices, list(member.values), member.excess, member.rank, member.crowding
