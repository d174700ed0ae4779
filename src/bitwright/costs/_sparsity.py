"""Weights that are zero: neither stored nor multiplied, for one bit per weight that says which they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from ..errors import ConfigError
from ..workload.table import Floats, Widths, Workload

Sparsity = float | Mapping[str, float] | Literal["actual"]


class Stored(NamedTuple):
    """density: the part of each row's weights that counts. mask: bits that say which they are; (..., rows)."""

    density: Floats
    mask: Floats


def stored(work: Workload, widths: Widths, sparsity: Sparsity) -> Stored:
    """sparsity: the part of the weights that is zero, of all rows or by the name of a row; "actual" for the zeros that
    an integer graph has, in rows where leaving them out saves more bits than the mask takes.
    """
    if sparsity == "actual":
        zeros = _actual(work)
        zeros = np.where(zeros * widths.weight_bits > work.weights, zeros, 0.0)
    else:
        zeros = work.weights * _parts(work, sparsity)
    weights = np.maximum(work.weights, 1.0)
    return Stored(1.0 - zeros / weights, np.where(zeros > 0, work.weights, 0.0))


def check_sparsity(sparsity: Sparsity) -> None:
    """ConfigError unless every part is in [0, 1)."""
    if isinstance(sparsity, str):
        if sparsity != "actual":
            raise ConfigError(f"a sparsity is a number or actual, got {sparsity!r}")
        return
    for part in sparsity.values() if isinstance(sparsity, Mapping) else (sparsity,):
        if not 0 <= part < 1:
            raise ConfigError(f"a sparsity is at least 0 and below 1, got {part}")


def _actual(work: Workload) -> Floats:
    if (work.products & np.isnan(work.zeros)).any():
        raise ConfigError("only an integer graph has weights to count zeros of; give the sparsity as a number")
    return np.where(work.products, work.zeros, 0.0)


def _parts(work: Workload, sparsity: float | Mapping[str, float]) -> Floats:
    if not isinstance(sparsity, Mapping):
        return np.full(len(work), sparsity)
    parts = np.zeros(len(work))
    for name, part in sparsity.items():
        parts[work.row_of(name)] = part
    return parts
