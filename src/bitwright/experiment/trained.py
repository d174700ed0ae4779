"""What searches and trainings left in their directories: which architecture, and where its weights are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..architecture import Architecture
from ..errors import ConfigError, StorageError
from ..spaces import DecisionSpace


def found_architecture(path: Path, space: DecisionSpace) -> Architecture:
    """The architecture of a best.json."""
    try:
        return space.parse(json.loads(path.read_text(encoding="utf-8"))["architecture"])
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; has the search been completed?") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise StorageError(f'{path} is corrupt: it should hold {{"architecture": "space(0 2 1 ...)"}}') from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that a run has written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise StorageError(f"{path} is corrupt: it holds no JSON object")
    return content


def latest_training(path: Path) -> Path:
    """The newest completed training of a run; `path` may also be a training itself."""
    if (path / "weights.safetensors").exists():
        return path
    done = [p for p in path.glob("train*") if (p / "result.json").exists()]
    if not done:
        raise ConfigError(f"{path} holds no trained network; run `bitwright train {path}` first")
    return max(done, key=lambda p: int(p.name.partition("-")[2] or 1))
