"""Checkpoints: tensors, numbers and strings in containers; nothing in a file can run code when it is loaded."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import StorageError
from ..files import write_atomically


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
