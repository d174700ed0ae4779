"""What experiments of every kind have in common: seed, threads, device, and options that become dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, ClassVar

import torch

from .. import catalogue
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..strategies import Strategy
from ..trial import Objective


class Configuration:
    """A resolved configuration."""

    COMPONENTS: ClassVar[dict[str, str]] = {"dataset": "datasets", "space": "spaces", "strategy": "strategies"}
    OPTIONS: ClassVar[dict[str, type]]  # the other sections, and the dataclass that each one fills
    DEFAULTS: ClassVar[dict[str, str]]
    FOLDER: ClassVar[str]  # the data set that `folder:PATH` stands for
    GIVEN: ClassVar[dict[str, set[str | int]]]  # what the program passes to a component itself

    def __init__(self, values: dict[str, Any]) -> None:
        """values: nested options as `resolve` returns them."""
        self.values = values
        self.seed: int = values["seed"]
        self.threads: int = values["threads"]
        if self.threads < 0 or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed (below 2**63) and threads are at least 0, got {self.seed} and {self.threads}")
        self.device = _device(values["device"])

    @classmethod
    def names(cls, section: str) -> list[str]:
        """The components that a section may name."""
        return catalogue.names(cls.COMPONENTS[section])

    @classmethod
    def component(cls, section: str, name: str) -> Any:
        """What makes the component of that name; ConfigError lists the names there are."""
        return catalogue.find(cls.COMPONENTS[section], name)

    def options(self, section: str, **given_here: Any) -> Any:
        """The dataclass of a section."""
        kind, given = self.OPTIONS[section], self.values[section]
        known = [field.name for field in dataclasses.fields(kind) if field.name not in self.GIVEN.get(section, ())]
        unknown = set(given) - set(known)
        if unknown:
            raise ConfigError(f"{section} has no option {sorted(unknown)[0]!r}: {', '.join(known)}")
        return kind(**as_arguments(given), **given_here)

    def make_strategy(self, space: DecisionSpace, objective: Objective) -> Strategy:
        """A strategy that has learned nothing yet."""
        factory = catalogue.find("strategies", self.values["strategy"]["name"])
        options = as_arguments(self.values["strategy"])
        if "seed" in inspect.signature(factory).parameters:
            options["seed"] = self.seed
        made: Strategy = factory(space, objective, **options)
        return made


def as_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a section but for its name, lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items() if key != "name"}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
    except RuntimeError:
        raise ConfigError(f"no device {name!r}: auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"there is no device {name!r} on this machine; torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device
