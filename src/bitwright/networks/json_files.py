"""Block lists in JSON files: what every format of them has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from ..files import given_json

T = TypeVar("T")


def parse_file(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """What `parse` makes of the JSON in a file. ConfigError names the file where it cannot be read or understood."""
    content = given_json(path, ConfigError)
    try:
        return parse(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(f"{path} is no block list of ProxylessNAS: {type(error).__name__} {error}") from None
