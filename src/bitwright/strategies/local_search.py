"""Local search: climb from neighbour to better neighbour, and start anew at the top (White et al. 2021,
arXiv:2005.02960)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..trial import Objective, Trial
from . import Strategy
from ._known import Known


class LocalSearch(Strategy):
    """The neighbours of the best architecture of the climb are asked for in random order. The first that is better is
    climbed to; where none is, the next climb starts at an architecture drawn at random. What was told before is not
    asked for again, up to isomorphism.
    """

    def __init__(self, space: DecisionSpace, objective: Objective | None = None) -> None:
        if not space.decisions:
            raise ConfigError(f"local_search changes decisions; {space.name} has none")
        self.space, self.objective = space, objective or Objective()
        self.known = Known(space)
        self.top: tuple[Architecture, float] | None = None  # of the present climb, with its reward
        self._open: dict[Architecture, Architecture] = {}  # neighbours of it that are not known, by canonical form

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        neighbours = list(self._open.values())
        found = [neighbours[int(i)] for i in rng.permutation(len(neighbours))[:count]]
        return found + self.known.sampled(count - len(found), rng)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            ended = not self._open  # every neighbour was known: what comes now starts a climb
            self.known.add(trial.architecture)
            self._open.pop(self.space.canonical(trial.architecture), None)
            reward = self.objective(trial.measurement)
            if self.top is None or ended or reward > self.top[1]:
                self.top = trial.architecture, reward
                self._look_around()

    def state_dict(self) -> dict[str, Any]:
        top = None if self.top is None else (list(self.top[0].choices), self.top[1])
        return {"known": self.known.state(), "top": top}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.known.load(state["known"])
        top = state["top"]
        self.top = None if top is None else (Architecture(self.space.name, tuple(top[0])), top[1])
        self._look_around()

    def _look_around(self) -> None:
        self._open = {}
        if self.top is not None:
            for neighbour in self.space.neighbours(self.top[0]):
                if neighbour not in self.known:
                    self._open.setdefault(self.space.canonical(neighbour), neighbour)
