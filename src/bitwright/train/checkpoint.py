"""Files that a killed process, a full disk or a bad file cannot spoil.

A file is written beside its target and moved over it when complete, so the last good one stays valid. Checkpoints
hold tensors, numbers and strings in containers; nothing in a file can run code when it is loaded.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import StorageError


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


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers, strings, lists and dictionaries."""
    content = io.BytesIO()  # a file would hide from us why the disk refuses it
    torch.save(state, content)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def load(path: Path, device: torch.device | None = None) -> dict[str, Any]:
    """Read a checkpoint; StorageError names one that is missing, truncated or not a checkpoint."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None
    if not content.startswith(b"PK"):
        raise StorageError(f"{path} is no checkpoint, or corrupt from its first bytes on")
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise StorageError(f"{path} is corrupt: it holds more than tensors, numbers and text") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise StorageError(f"{path} is truncated or corrupt ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise StorageError(f"{path} is no checkpoint: it holds a {type(state).__name__}")
    return state


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Around the use of a checkpoint's content: StorageError names a file that does not hold what is needed."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise StorageError(f"{path} is no checkpoint of this run, or corrupt ({reason})") from None
