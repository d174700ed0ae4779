"""What experiments of every kind have in common: seed, threads, device, and options that become dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml

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
        kind, given = self.OPTIONS[section], self.values.get(section) or {}
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


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; ConfigError names a file that is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML file: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should map sections such as `space:` to options")
    try:
        json.dumps(content, default=str)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} holds an alias that contains itself") from None
    return content


def one_line(error: Exception) -> str:
    """What an error of YAML or jsonargparse says, in the words of this program."""
    text = " ".join(str(error).split()).removeprefix("Parser key ")
    union = re.match(r'(".+?"): Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors', text)
    if union is not None:
        wanted = re.sub(r"<class '(\w+)'>", r"\1", union[2]).replace("NoneType", "null").replace(", null", " or null")
        text = f"{union[1]} takes {wanted}, got {text.rpartition('Given value: ')[2]}"
    return text
