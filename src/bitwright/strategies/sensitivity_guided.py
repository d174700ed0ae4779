"""Precisions by sensitivity: what each decision costs in accuracy alone says in which order to save.

First comes the dearest architecture, then every change of one of its decisions. From what these lose and save follows a
path: again and again the change with the least predicted loss per cost saved, the predicted loss being the sum of those
that were measured (compare Dong et al. 2020, HAWQ-V2, arXiv:1911.03852, who add up sensitivities of another kind).
Points along it are measured, and from there on it is NSGA-II, whose first generation is what was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..trial import Measurement, Objective, Objectives, Trial
from . import Strategy
from ._known import Known
from .nsga2 import Nsga2


class Effect(NamedTuple):
    """What an option does in place of the dearest one: accuracy lost, and cost saved."""

    lost: float
    saved: float


NOTHING = Effect(0.0, 0.0)


class SensitivityGuided(Strategy):
    """cost: what is to be small beside a large accuracy, by name.
    points: how many architectures along the path are measured.
    population, crossover, mutation: of NSGA-II, see there; the population is at most what is told before it begins.

    The options of every decision are to be ordered from cheap to dear, as those of the space `precision` are.
    """

    known: Known
    told: list[Trial]  # before the evolution began
    on_path: bool
    began: bool
    _open: dict[Architecture, Architecture]  # what is to be measured now, by canonical form

    def __init__(
        self,
        space: DecisionSpace,
        objective: Objective | None = None,
        cost: str = "bit_operations",
        points: int = 16,
        population: int = 32,
        crossover: float = 0.9,
        mutation: float | None = None,
    ) -> None:
        if not space.decisions:
            raise ConfigError(f"sensitivity_guided changes decisions; {space.name} has none")
        if points < 1:
            raise ConfigError(f"sensitivity_guided: points are at least 1, got {points}")
        if population < 2:
            raise ConfigError(f"sensitivity_guided: the population is at least 2, got {population}")
        self.space, self.points = space, points
        self.objectives = Objectives.of(("accuracy", cost))
        self.dearest = space.architecture([len(decision.options) - 1 for decision in space.decisions])
        self._changes = dict(self._single_changes())
        most = min(population, 1 + len(self._changes))
        self.evolution = Nsga2(space, objective, max(most, 2), ("accuracy", cost), crossover, mutation)
        self._forget()

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        if self.began:
            return self.evolution.ask(count, rng)
        open_now = list(self._open.values())
        asked = [open_now[i] for i in rng.permutation(len(open_now))[:count].tolist()]
        return asked + self.known.sampled(count - len(asked), rng)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if self.began:
                self.evolution.tell([trial])
                continue
            self.objectives(trial.measurement)  # says at once if the cost was not measured
            self.known.add(trial.architecture)
            self.told.append(trial)
            self._open.pop(self.space.canonical(trial.architecture), None)
            if not self._open and not self.on_path:
                self.on_path = True
                self._open = self._unknown(self._points())
            if not self._open:
                self._begin()

    def figures(self) -> Mapping[str, float]:
        return self.evolution.figures()

    def state_dict(self) -> dict[str, Any]:
        return {"told": [_state(trial) for trial in self.told], "evolution": self.evolution.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._forget()
        self.evolution.load_state_dict(state["evolution"])
        self.began = not state["told"] and len(self.evolution.known) > 0
        self.tell([Trial(i, *_measured(self.space.name, each)) for i, each in enumerate(state["told"])])

    def _forget(self) -> None:
        """Be as if nothing had been told; the evolution has a state of its own."""
        self.known = Known(self.space)
        self.told = []
        self.on_path = self.began = False
        self._open = self._unknown([self.dearest, *self._changes.values()])

    def _unknown(self, architectures: Iterable[Architecture]) -> dict[Architecture, Architecture]:
        return {self.space.canonical(each): each for each in architectures if each not in self.known}

    def _begin(self) -> None:
        """Hand over to the evolution. The path goes first: what is left over waits for the next generation."""
        self.began = True
        self.evolution.tell(self.told[::-1])
        self.told = []

    def _single_changes(self) -> Iterator[tuple[tuple[int, int], Architecture]]:
        """The dearest architecture with one other option, by the position and the option."""
        dearest = self.dearest.choices
        for position, most in enumerate(dearest):
            for option in range(most):
                choices = _changed(dearest, position, option)
                if self.space.is_valid(choices):
                    yield (position, option), Architecture(self.space.name, choices)

    def _points(self) -> list[Architecture]:
        """Places on the path, evenly spaced, of which the last is its end."""
        path = list(self._path())
        places = np.linspace(0, len(path) - 1, self.points + 1)[1:].round().astype(int)
        return [Architecture(self.space.name, path[place]) for place in dict.fromkeys(places.tolist()) if path]

    def _path(self) -> Iterator[tuple[int, ...]]:
        """From the dearest architecture on, each time changed where it loses the least accuracy for what it saves."""
        effects = self._effects()
        choices = self.dearest.choices
        while steps := list(self._steps(choices, effects)):
            _, _, choices = min(steps)
            yield choices

    def _steps(
        self, choices: tuple[int, ...], effects: Mapping[tuple[int, int], Effect]
    ) -> Iterator[tuple[float, float, tuple[int, ...]]]:
        """Every change to a cheaper option: accuracy lost for cost saved, minus what it saves, and its outcome."""
        for (position, option), effect in effects.items():
            now = effects.get((position, choices[position]), NOTHING)
            saved = effect.saved - now.saved
            if option < choices[position] and saved > 0:
                changed = _changed(choices, position, option)
                if self.space.is_valid(changed):
                    yield (effect.lost - now.lost) / saved, -saved, changed

    def _effects(self) -> dict[tuple[int, int], Effect]:
        """What every single change was measured to do. No change counts as a gain of accuracy, which would be noise."""
        values: dict[Architecture, tuple[float, ...]] = {}
        for trial in self.told:
            values.setdefault(self.space.canonical(trial.architecture), self.objectives(trial.measurement))
        accuracy, cost = values[self.space.canonical(self.dearest)]
        effects = {}
        for place, architecture in self._changes.items():
            its_accuracy, its_cost = values[self.space.canonical(architecture)]
            effects[place] = Effect(max(its_accuracy - accuracy, 0.0), cost - its_cost)  # less is better: of both
        return effects


def _changed(choices: tuple[int, ...], position: int, option: int) -> tuple[int, ...]:
    return (*choices[:position], option, *choices[position + 1 :])


def _state(trial: Trial) -> tuple[Any, ...]:
    measured = trial.measurement
    return list(trial.architecture.choices), measured.accuracy, measured.seconds, dict(measured.costs)


def _measured(space: str, state: Sequence[Any]) -> tuple[Architecture, Measurement]:
    choices, *measured = state
    return Architecture(space, tuple(choices)), Measurement(*measured)
