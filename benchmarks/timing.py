"""Timing of candidates in turn, so that a machine that changes its speed changes it for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Table:
    """What a benchmark found: a markdown table and the sentences under it."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


def interleaved(
    candidates: Mapping[str, Callable[[int], object]], rounds: int, warmup: int = 2
) -> dict[str, np.ndarray]:
    """Seconds of every call, by candidate: round i calls each with i, in an order that moves on by one each round."""
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-warmup, rounds):
        for k in range(len(names)):
            name = names[(i + k) % len(names)]
            start = time.perf_counter()
            candidates[name](max(i, 0))
            if i >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(taken) for name, taken in seconds.items()}


def comparison(seconds: Mapping[str, np.ndarray], reference: str, unit: str = "ms") -> Table:
    """The median of each candidate, and the median over rounds of its ratio to the reference."""
    factor = {"s": 1, "ms": 1e3, "us": 1e6}[unit]
    table = Table(["", f"median, {unit}", f"ratio to {reference} (quartiles)"])
    for name, taken in seconds.items():
        low, middle, high = np.quantile(taken / seconds[reference], [0.25, 0.5, 0.75])
        table.rows.append([name, f"{np.median(taken) * factor:.1f}", f"{middle:.3f} ({low:.3f}-{high:.3f})"])
    table.notes.append(f"{len(seconds[reference])} rounds, candidates in turn.")
    return table
