"""Block lists in JSON files: what every format of them has in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError

T = TypeVar("T")


def parse_file(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """What `parse` makes of the JSON in a file. ConfigError names the file where it cannot be read or understood."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON file: {error}") from None
    try:
        return parse(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(f"{path} is no block list of ProxylessNAS: {type(error).__name__} {error}") from None
