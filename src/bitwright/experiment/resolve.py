"""Options of an experiment from presets, files and the command line, and which of them wins."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from .. import catalogue
from ..errors import ConfigError
from ..spaces import SearchSpace
from ..spaces.enas_rnn import EnasRnn
from .configuration import Configuration, one_line, read_yaml
from .images import Experiment
from .language import LanguageExperiment
from .trained import latest_training


def presets() -> dict[str, str]:
    """The presets by name, each with its first comment line."""
    found = {}
    for entry in files("bitwright").joinpath("presets").iterdir():
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = entry.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return dict(sorted(found.items()))


def resolve(arguments: Sequence[str], preset: str | None = None) -> dict[str, Any]:
    """Every option of an experiment, from `--section.option value` and `--config FILE` arguments and a preset.

    preset: a name, or several with commas between, of which later ones win.
    """
    layers = _layers(arguments, preset)
    names = _names(layers, arguments)
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
        raise ConfigError(_explained(one_line(error), parser)) from None
    values: dict[str, Any] = yaml.safe_load(parser.dump(parsed, skip_unset=False, skip_validation=True))
    for section, name in names.items():
        values[section]["name"] = name
    opened(values)
    return values


def component_names(arguments: Sequence[str], preset: str | None = None) -> dict[str, str]:
    """The component of every section that has one."""
    return _names(_layers(arguments, preset), arguments)


def opened(values: dict[str, Any]) -> Experiment | LanguageExperiment:
    """The experiment of these options, as `resolve` returns them."""
    return kind_of(values["space"]["name"])(values)


def kind_of(space: str) -> type[Experiment] | type[LanguageExperiment]:
    """What experiments of that space are; ConfigError if there is no such space, or nothing to train in it."""
    found = catalogue.find("spaces", space)
    if issubclass(found, SearchSpace):
        return Experiment
    if found is not EnasRnn:
        raise ConfigError(f"{space} has no networks to train; `bitwright compare` searches the tables of its benchmark")
    return LanguageExperiment


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
    kind = kind_of(names["space"])
    parser = jsonargparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all cores")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    for section in kind.COMPONENTS:
        name = names[section]
        component = kind.component(section, name)
        skipped = kind.GIVEN.get(section, set())
        parser.add_argument(
            f"--{section}.name", type=str, default=name, help=f"one of {', '.join(kind.names(section))}"
        )
        if section == "dataset":
            parser.add_argument("--dataset.root", type=str, default="data", help="folder of the data set's files")
            parser.add_function_arguments(component, section, skip=skipped)
        else:
            if "table" in inspect.signature(component).parameters:
                parser.add_argument(f"--{section}.table", type=str, default="", help="the file of the benchmark")
            parser.add_class_arguments(component, section, skip=skipped)
        _describe(parser, section, component, f"{section} {name}")
    for section, constructor in kind.OPTIONS.items():
        parser.add_class_arguments(constructor, section, skip=kind.GIVEN.get(section, set()))
        _describe(parser, section, constructor, section)
    return parser


def _describe(parser: jsonargparse.ArgumentParser, section: str, component: Any, title: str) -> None:
    """Help texts from the docstrings of a component and its constructor, whose lines `option, option: text` say what
    options mean."""
    texts: dict[str, str] = {}
    names: list[str] = []
    constructor = component.__init__.__doc__ if inspect.isclass(component) else None
    for line in "\n".join(inspect.cleandoc(text or "") for text in (component.__doc__, constructor)).splitlines():
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


def _layers(arguments: Sequence[str], preset: str | None) -> list[dict[str, Any]]:
    """The configurations that come before the command line, weakest first."""
    given = _given_layers(arguments, preset)
    return [*_of_base(given, arguments), *given]


def _given_layers(arguments: Sequence[str], preset: str | None) -> list[dict[str, Any]]:
    layers = [] if preset is None else _preset_layers(preset)
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            layers += _file_layers(read_yaml(Path(argument.removeprefix("--config="))))
        elif argument == "--config":
            if position + 1 == len(arguments):
                raise ConfigError("--config wants the name of a YAML file")
            layers += _file_layers(read_yaml(Path(arguments[position + 1])))
    return layers


def _of_base(layers: Sequence[dict[str, Any]], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Where the space is of a network that a run has trained: its images and how it was trained, as the weakest say."""
    network = _said("space", "network", layers, arguments)
    if not network or not Path(network).is_dir():
        return []
    values = read_yaml(latest_training(Path(network)) / "config.yaml")
    return [{"dataset": values["dataset"], "training": values["training"], "supernet": values["training"]}]


def _said(section: str, option: str, layers: Sequence[dict[str, Any]], arguments: Sequence[str]) -> str | None:
    """The value of an option as the strongest says it, before it is parsed."""
    value = None
    for layer in layers:
        if isinstance(layer.get(section), dict):
            value = layer[section].get(option, value)
    for position, argument in enumerate(arguments):
        if argument.startswith(f"--{section}.{option}="):
            value = argument.partition("=")[2]
        elif argument == f"--{section}.{option}" and position + 1 < len(arguments):
            value = arguments[position + 1]
    return None if value is None else str(value)


def _preset_layers(preset: str) -> list[dict[str, Any]]:
    layers = []
    for name in preset.split(","):
        if name not in presets():
            raise ConfigError(f"no preset {name!r}: {', '.join(presets())}")
        text = files("bitwright").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
        layers += _file_layers(yaml.safe_load(text))
    return layers


def _file_layers(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What a file says, on top of the presets that it names under `preset`.

    A section that is empty says nothing; one that is a word names its component. Bits may be written as numbers.
    """
    below = content.pop("preset", None)
    for section in (*Experiment.COMPONENTS, *Experiment.OPTIONS, *LanguageExperiment.OPTIONS):
        given = content.get(section, {})
        if given is None:
            content[section] = given = {}
        elif isinstance(given, str) and section in Experiment.COMPONENTS:
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


def _names(layers: Sequence[dict[str, Any]], arguments: Sequence[str]) -> dict[str, str]:
    kind = kind_of(_name("space", Experiment, layers, arguments))
    return {section: _name(section, kind, layers, arguments) for section in kind.COMPONENTS}


def _name(section: str, kind: type[Configuration], layers: Sequence[dict[str, Any]], arguments: Sequence[str]) -> str:
    """Which component a section names."""
    name = _said(section, "name", layers, arguments) or kind.DEFAULTS[section]
    if (section, name) == ("dataset", "folder"):
        name = kind.FOLDER
    kind.component(section, name)
    return name


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        renamed = both and "name" in value and value["name"] != merged[key].get("name", value["name"])
        merged[key] = _merged(merged[key], value) if both and not renamed and key != "budgets" else value
    return merged


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
