"""Writing files that a killed process or a full disk cannot spoil, and reading the JSON that people give.

A file is written beside its target and moved over it when complete, so the last good one stays valid.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BitwrightError, StorageError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a new file that then replaces `path`; StorageError leaves `path` as it was."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            part.unlink()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise StorageError(f"cannot write {path}: {reason}; what was there before is unchanged") from None


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def given_json(path: Path, error: type[BitwrightError]) -> Any:
    """The JSON in a file that a person names; `error` names one that cannot be read or is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise error(f"{path} is no JSON file: {reason}") from None
