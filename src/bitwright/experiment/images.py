"""Experiments on images: a data set, a space of networks, a strategy, and how weights are trained."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from .. import catalogue
from ..costs import CostModel
from ..datasets import Dataset
from ..errors import ConfigError
from ..spaces import SearchSpace
from ..strategies import Strategy
from ..train.recipe import Recipe
from ..trial import Objective
from .configuration import Configuration, as_arguments


@dataclass(frozen=True)
class SearchOptions:
    """warmup_epochs: of the supernet's epochs, how many train on uniformly sampled architectures before round 1.
    round_epochs: how many epochs come before each round.
    updates: of the strategy in a round.
    batch: trials that make one update.
    samples: architectures that are sampled and listed after each round.
    budgets: the most that each cost (a file of costs/) should be, such as {weight_bits: 200000}.
    strength: how much it matters, see Objective.
    candidates: architectures that are ranked on all validation images at the end, half of them the best late trials
        and half sampled; as many random ones are measured beside them.
    standalone: how many of these are also trained from scratch, to see what the ranking is worth; 0 leaves it out.
    standalone_epochs: for how long.
    checkpoint_seconds: at most this much work is lost if the process dies.
    """

    warmup_epochs: int = 0
    round_epochs: int = 1
    updates: int = 30
    batch: int = 10
    samples: int = 10
    budgets: dict[str, float] = field(default_factory=dict)
    strength: float = 0.5
    candidates: int = 20
    standalone: int = 6
    standalone_epochs: int = 5
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, low in (
            ("warmup_epochs", 0),
            ("round_epochs", 1),
            ("checkpoint_seconds", 0),
            ("updates", 1),
            ("batch", 1),
            ("samples", 1),
            ("candidates", 1),
            ("standalone", 0),
            ("standalone_epochs", 1),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"search: {name} is at least {low}, got {getattr(self, name)}")
        for name in self.budgets:
            catalogue.find("costs", name)
        Objective(self.budgets, self.strength)


@dataclass(frozen=True)
class FinalOptions:
    """Options of the space that the finally trained network has in place of the searched one's; None keeps that.

    cells, filters, reductions, stacks, dropout, auxiliary: as of the space.
    """

    cells: int | None = None
    filters: int | None = None
    reductions: tuple[int, ...] | None = None
    stacks: int | None = None
    dropout: float | None = None
    auxiliary: bool | None = None


class Experiment(Configuration):
    """A resolved configuration, and the components it stands for."""

    OPTIONS: ClassVar[dict[str, type]] = {
        "supernet": Recipe,
        "search": SearchOptions,
        "final": FinalOptions,
        "training": Recipe,
    }
    DEFAULTS: ClassVar[dict[str, str]] = {"dataset": "digits", "space": "enas_micro", "strategy": "controller"}
    FOLDER = "image_folder"
    GIVEN: ClassVar[dict[str, set[str | int]]] = {
        "dataset": {"root"},
        "space": {"image", "classes", "pixel_mean", "pixel_std"},
        "strategy": {"space", "objective", "seed"},
    }

    def __init__(self, values: dict[str, Any]) -> None:
        space = values["space"]["name"]
        if not issubclass(catalogue.find("spaces", space), SearchSpace):
            raise ConfigError(f"{space} is of text; search, derive, train, evaluate, show and film know it")
        super().__init__(values)
        self.search: SearchOptions = self.options("search")
        self.final: FinalOptions = self.options("final")
        self.supernet: Recipe = self.options("supernet")
        self.training: Recipe = self.options("training")
        trained = self.supernet.epochs - self.search.warmup_epochs
        if trained < self.search.round_epochs or trained % self.search.round_epochs:
            raise ConfigError(
                f"the supernet's {self.supernet.epochs} epochs less {self.search.warmup_epochs} of warm-up are no"
                f" multiple of the {self.search.round_epochs} epochs of a round"
            )
        self.rounds = trained // self.search.round_epochs

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, on the device."""
        options = as_arguments(self.values["dataset"])
        loaded: Dataset = catalogue.find("datasets", self.values["dataset"]["name"])(
            Path(options.pop("root")), **options
        )
        return loaded.to(self.device)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space for the images of the data set."""
        return self._space({})

    @cached_property
    def final_space(self) -> SearchSpace:
        """The same with the options of the final network."""
        given = {f.name: getattr(self.final, f.name) for f in dataclasses.fields(self.final)}
        changed = {name: value for name, value in given.items() if value is not None}
        known = inspect.signature(catalogue.find("spaces", self.values["space"]["name"])).parameters
        for name in changed:
            if name not in known:
                allowed = ", ".join(option for option in given if option in known) or "none"
                raise ConfigError(
                    f"final: the space {self.values['space']['name']} has no option {name}; of final it has: {allowed}"
                )
        if "cells" in changed and "reductions" not in changed:
            changed["reductions"] = None
        return self._space(changed)

    def _space(self, changed: dict[str, Any]) -> SearchSpace:
        factory = catalogue.find("spaces", self.values["space"]["name"])
        mean, deviation = self.dataset.pixel_statistics
        facts = {
            "image": self.dataset.shape,
            "classes": len(self.dataset.classes),
            "pixel_mean": mean,
            "pixel_std": deviation,
        }
        space: SearchSpace = factory(**facts, **(as_arguments(self.values["space"]) | changed))
        return space

    @property
    def objective(self) -> Objective:
        return Objective(self.search.budgets, self.search.strength)

    @property
    def costs(self) -> dict[str, CostModel]:
        """The cost models that the budgets name."""
        return {name: catalogue.find("costs", name)() for name in self.search.budgets}

    def check(self) -> None:
        """Make every component once, so that a mistake shows before anything is written or computed."""
        for space in (self.space, self.final_space):
            len(space.network(next(iter(space.covering()))).shapes)
        self.strategy()

    def strategy(self) -> Strategy:
        """A strategy that has learned nothing yet."""
        return self.make_strategy(self.space, self.objective)
