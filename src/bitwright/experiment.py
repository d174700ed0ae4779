"""An experiment: one YAML file of component names and keyword arguments, which are the constructors' own.

    dataset:  {name: mnist, root: data, validation: 5000}
    space:    {name: enas_micro, nodes: 5, ...}
    strategy: {name: controller, learning_rate: 0.002, ...}
    supernet: the Recipe of the shared weights
    search:   SearchOptions
    final:    FinalOptions, what differs in the network that is trained at the end
    training: its Recipe

An option is looked up in this order: the command line, `--config` files, the preset, the defaults of the constructors.
A file may start from presets itself: `preset: mnist-quick`.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml

from . import catalogue
from .costs import CostModel
from .datasets import Dataset
from .errors import ConfigError
from .spaces import SearchSpace
from .strategies import Strategy
from .train.recipe import Recipe
from .trial import Objective

COMPONENTS = {"dataset": "datasets", "space": "spaces", "strategy": "strategies"}
SECTIONS = (*COMPONENTS, "supernet", "search", "final", "training")
DEFAULTS = {"dataset": "digits", "space": "enas_micro", "strategy": "controller"}
GIVEN: dict[str, set[str | int]] = {  # what the program passes to a component itself
    "dataset": {"root"},
    "space": {"image", "classes", "pixel_mean", "pixel_std"},
    "strategy": {"space", "objective", "seed"},
}


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


class Experiment:
    """A resolved configuration, and the components it stands for."""

    def __init__(self, values: dict[str, Any]) -> None:
        """values: nested options as `resolve` returns them."""
        self.values = values
        self.seed: int = values["seed"]
        self.threads: int = values["threads"]
        if self.threads < 0 or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed (below 2**63) and threads are at least 0, got {self.seed} and {self.threads}")
        self.device = _device(values["device"])
        self.search = _options(SearchOptions, "search", values)
        self.final = _options(FinalOptions, "final", values)
        self.supernet = _options(Recipe, "supernet", values)
        self.training = _options(Recipe, "training", values)
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
        options = _without_name(self.values["dataset"])
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
        if "cells" in changed and "reductions" not in changed:
            changed["reductions"] = None
        return self._space(changed)

    def _space(self, changed: dict[str, Any]) -> SearchSpace:
        mean, deviation = self.dataset.pixel_statistics
        facts = {
            "image": self.dataset.shape,
            "classes": len(self.dataset.classes),
            "pixel_mean": mean,
            "pixel_std": deviation,
        }
        factory = catalogue.find("spaces", self.values["space"]["name"])
        space: SearchSpace = factory(**facts, **(_without_name(self.values["space"]) | changed))
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
        factory = catalogue.find("strategies", self.values["strategy"]["name"])
        options = _without_name(self.values["strategy"])
        if "seed" in inspect.signature(factory).parameters:
            options["seed"] = self.seed
        made: Strategy = factory(self.space, self.objective, **options)
        return made


def presets() -> dict[str, str]:
    """The presets by name, each with its first comment line."""
    found = {}
    for entry in files(__package__).joinpath("presets").iterdir():
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = entry.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return dict(sorted(found.items()))


def resolve(arguments: Sequence[str], preset: str | None = None) -> dict[str, Any]:
    """Every option of an experiment, from `--section.option value` and `--config FILE` arguments and a preset.

    preset: a name, or several with commas between, of which later ones win.
    """
    layers = _layers(arguments, preset)
    names = {section: _name(section, layers, arguments) for section in COMPONENTS}
    parser = experiment_parser(names)
    defaults: dict[str, Any] = {}
    for layer in layers:
        defaults = _merged(defaults, layer)
    for section, name in names.items():
        given = defaults.get(section)
        if isinstance(given, dict) and given.get("name", name) != name:
            defaults[section] = {}  # options of another component
    defaults = _without_empty(defaults, parser.get_defaults(skip_validation=True).as_dict())
    try:
        start = parser.parse_object(defaults, defaults=True)
        rest = [a for i, a in enumerate(arguments) if a != "--config" and (i == 0 or arguments[i - 1] != "--config")]
        parsed = parser.parse_args([a for a in rest if not a.startswith("--config=")], namespace=start)
    except (jsonargparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(_explained(_one_line(error), parser)) from None
    values: dict[str, Any] = yaml.safe_load(parser.dump(parsed, skip_unset=False, skip_validation=True))
    for section, name in names.items():
        values[section]["name"] = name
    Experiment(values)
    return values


def _without_empty(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """An option that is given as nothing keeps its default, unless nothing is a value it can have."""
    kept: dict[str, Any] = {}
    for key, value in given.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict) and default:
            kept[key] = _without_empty(value, default)
        elif value is not None or default is None:
            kept[key] = value
    return kept


def experiment_parser(names: dict[str, str]) -> jsonargparse.ArgumentParser:
    """Options of an experiment with these components, as views of their constructors' arguments."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all cores")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    for section, kind in COMPONENTS.items():
        name = names[section]
        component = catalogue.find(kind, name)
        parser.add_argument(
            f"--{section}.name", type=str, default=name, help=f"one of {', '.join(catalogue.names(kind))}"
        )
        if section == "dataset":
            parser.add_argument("--dataset.root", type=str, default="data", help="folder of the data set's files")
            parser.add_function_arguments(component, section, skip=GIVEN[section])
        else:
            parser.add_class_arguments(component, section, skip=GIVEN[section])
        _describe(parser, section, component, f"{section} {name}")
    options = {"supernet": Recipe, "search": SearchOptions, "final": FinalOptions, "training": Recipe}
    for section, constructor in options.items():
        parser.add_class_arguments(constructor, section)
        _describe(parser, section, constructor, section)
    return parser


def _describe(parser: jsonargparse.ArgumentParser, section: str, component: Any, title: str) -> None:
    """Help texts from the docstring of a component, whose lines `option, option: text` say what its options mean."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(component.__doc__ or "").splitlines():
        if match := re.fullmatch(r"(\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            texts |= dict.fromkeys(names, match[2])
        elif line.startswith("    "):
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
        else:
            names = []
    for group in parser._action_groups:
        if repr(component) in str(group.title):
            group.title = title
    for action in parser._actions:
        head, _, option = action.dest.partition(".")
        if head == section and option in texts:
            action.help = texts[option].replace("%", "%%")
        elif action.dest == section:
            action.help = argparse.SUPPRESS


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; ConfigError names a file that is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML file: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should map sections such as `space:` to options")
    try:
        json.dumps(content, default=str)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} holds an alias that contains itself") from None
    return content


def _layers(arguments: Sequence[str], preset: str | None) -> list[dict[str, Any]]:
    """The configurations that come before the command line, weakest first."""
    layers = [] if preset is None else _preset_layers(preset)
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            layers += _file_layers(read_yaml(Path(argument.removeprefix("--config="))))
        elif argument == "--config":
            if position + 1 == len(arguments):
                raise ConfigError("--config wants the name of a YAML file")
            layers += _file_layers(read_yaml(Path(arguments[position + 1])))
    return layers


def _preset_layers(preset: str) -> list[dict[str, Any]]:
    layers = []
    for name in preset.split(","):
        if name not in presets():
            raise ConfigError(f"no preset {name!r}: {', '.join(presets())}")
        text = files(__package__).joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
        layers += _file_layers(yaml.safe_load(text))
    return layers


def _file_layers(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What a file says, on top of the presets that it names under `preset`.

    A section that is empty says nothing; one that is a word names its component. Bits may be written as numbers.
    """
    below = content.pop("preset", None)
    for section in SECTIONS:
        given = content.get(section, {})
        if given is None:
            content[section] = given = {}
        elif isinstance(given, str) and section in COMPONENTS:
            content[section] = given = {"name": given}
        elif not isinstance(given, dict):
            raise ConfigError(f"{section} should hold options, such as `{section}: {{option: value}}`; got {given!r}")
        if "name" in given and given["name"] is None:
            del given["name"]
        for key, value in given.items():
            if key.endswith(("precision", "precisions")):
                given[key] = [_bits(v) for v in value] if isinstance(value, list) else _bits(value)
    return [*([] if below is None else _preset_layers(str(below))), content]


def _bits(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _name(section: str, layers: Sequence[dict[str, Any]], arguments: Sequence[str]) -> str:
    """Which component a section names."""
    name = DEFAULTS[section]
    for layer in layers:
        if isinstance(layer.get(section), dict):
            name = layer[section].get("name", name)
    for position, argument in enumerate(arguments):
        if argument.startswith(f"--{section}.name="):
            name = argument.partition("=")[2]
        elif argument == f"--{section}.name" and position + 1 < len(arguments):
            name = arguments[position + 1]
    catalogue.find(COMPONENTS[section], name)
    return name


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        renamed = both and "name" in value and value["name"] != merged[key].get("name", value["name"])
        merged[key] = _merged(merged[key], value) if both and not renamed and key != "budgets" else value
    return merged


def _options(kind: Any, section: str, values: dict[str, Any]) -> Any:
    given = values[section]
    annotated = {f.name: f for f in dataclasses.fields(kind)}
    unknown = set(given) - set(annotated)
    if unknown:
        raise ConfigError(f"{section} has no option {sorted(unknown)[0]!r}: {', '.join(annotated)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _without_name(options: dict[str, Any]) -> dict[str, Any]:
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


def _explained(text: str, parser: jsonargparse.ArgumentParser) -> str:
    """An error about an unknown option with the options there are."""
    match = re.search(
        r"unrecognized arguments: (?P<a>\S+)|Key '?\"?(?P<b>[\w.]+)\"?'? is not expected"
        r"|Group '(?P<section>\w+)' does not accept option '(?P<c>[\w.]+)'|Option '(?P<d>[\w.]+)' is not accepted",
        text,
    )
    if match is None:
        return text
    word = match["a"] or match["b"] or match["c"] or match["d"]
    if match["section"]:
        word = f"{match['section']}.{word}"
    defaults = parser.get_defaults(skip_validation=True)
    known = sorted(key for key in defaults.keys() if "." in key or not hasattr(parser, key))  # noqa: SIM118 (a Namespace)
    section = word.lstrip("-").split(".")[0]
    beside = [key for key in known if key.startswith(f"{section}.")]
    if beside:
        return f"no option {word}; {section} has: {', '.join(key.partition('.')[2] for key in beside)}"
    return f"no option {word}; the sections are: {', '.join(dict.fromkeys(key.split('.')[0] for key in known))}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).removeprefix("Parser key ")
    union = re.match(r'(".+?"): Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors', text)
    if union is not None:
        wanted = re.sub(r"<class '(\w+)'>", r"\1", union[2]).replace("NoneType", "null").replace(", null", " or null")
        text = f"{union[1]} takes {wanted}, got {text.rpartition('Given value: ')[2]}"
    return text
