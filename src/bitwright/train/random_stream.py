"""Randomness as a function of what is drawn for, such as (seed, "train", step): nothing to save, nothing to restore."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

Key = Sequence[int | str]


def seed_of(*key: int | str) -> int:
    """A number of 63 bits that depends on `key` alone."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def random_stream(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator that depends on `key` alone, so that a resumed run draws what the uninterrupted one would."""
    return torch.Generator(device).manual_seed(seed_of(*key))
