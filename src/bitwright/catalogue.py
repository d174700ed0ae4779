"""Components are found by file name: strategies/controller.py holds `Controller`.

A plural folder is a catalogue. Its __init__ states the contract, each file is one component, and a leading underscore
hides a file. A new component is a new file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from .errors import ConfigError

FUNCTIONS = {"datasets": "load", "exports": "export", "imports": "load"}  # catalogues whose components are functions


def names(kind: str) -> list[str]:
    """The components of a catalogue, such as "strategies"."""
    package = import_module(f"{__package__}.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def find(kind: str, name: str) -> Any:
    """The class (or function) that `name` stands for; ConfigError lists the known ones."""
    if name not in names(kind):
        raise ConfigError(f"no {name!r} among {kind}: {', '.join(names(kind))}")
    module = import_module(f"{__package__}.{kind}.{name}")
    attribute = FUNCTIONS.get(kind) or "".join(word.title() for word in name.split("_"))
    return getattr(module, attribute)
