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

from .configuration import read_yaml
from .images import Experiment, FinalOptions, SearchOptions
from .language import LanguageExperiment
from .resolve import component_names, experiment_parser, kind_of, opened, presets, resolve

__all__ = [
    "Experiment",
    "FinalOptions",
    "LanguageExperiment",
    "SearchOptions",
    "component_names",
    "experiment_parser",
    "kind_of",
    "opened",
    "presets",
    "read_yaml",
    "resolve",
]
