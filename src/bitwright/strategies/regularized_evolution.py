"""Regularized evolution: a child of the best of a few, and the oldest dies (Real et al. 2019, arXiv:1802.01548)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..trial import Objective, Trial
from . import Strategy


class RegularizedEvolution(Strategy):
    """population: how many of the latest trials may have children; as many are drawn at random at the start.
    tournament: how many of them are drawn, with replacement, of which the best one is mutated.
    """

    def __init__(
        self, space: DecisionSpace, objective: Objective | None = None, population: int = 100, tournament: int = 25
    ) -> None:
        if not space.decisions:
            raise ConfigError(f"regularized_evolution changes decisions; {space.name} has none")
        if population < 1:
            raise ConfigError(f"regularized_evolution: the population is at least 1, got {population}")
        if not 1 <= tournament <= population:
            raise ConfigError(f"regularized_evolution: a tournament is 1 to {population} of them, got {tournament}")
        self.space, self.objective = space, objective or Objective()
        self.population, self.tournament = population, tournament
        self.members: deque[tuple[Architecture, float]] = deque(maxlen=population)  # with their rewards, oldest first

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        # a supernet may ask for more than a population before anything is known
        founders = min(count, self.population - len(self.members)) if self.members else count
        founded = [self.space.sample(rng) for _ in range(founders)]
        return founded + [self.space.mutate(parent, rng) for parent in self._parents(count - founders, rng)]

    def tell(self, trials: Sequence[Trial]) -> None:
        self.members.extend((trial.architecture, self.objective(trial.measurement)) for trial in trials)

    def state_dict(self) -> dict[str, Any]:
        return {"members": [(member.space, list(member.choices), reward) for member, reward in self.members]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.members.clear()
        self.members.extend(
            (Architecture(space, tuple(choices)), reward) for space, choices, reward in state["members"]
        )

    def _parents(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """The first drawn of the best in each of `count` tournaments."""
        if not count:
            return []
        members = list(self.members)
        rewards = [reward for _, reward in members]
        drawn = rng.integers(len(members), size=(count, self.tournament)).tolist()
        return [members[max(tournament, key=rewards.__getitem__)][0] for tournament in drawn]
