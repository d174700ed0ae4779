"""Latency as a cost of a network, from a table: what a budget of a search or an objective asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..costs import CostModel
from ..workload.table import Floats, Widths, Workload
from .keys import key_with, parts
from .table import LatencyTable


@dataclass(frozen=True)
class Latency(CostModel):
    """Every block's milliseconds, at its last node. ConfigError lists the keys that the table lacks.

    Unlike the costs of the catalogue it takes a table, so it has no name there.
    """

    table: LatencyTable

    unit = "ms"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        found = np.zeros(widths.value_bits.shape)
        wanted: list[str] = []
        looked_up = []
        for part in parts(work):
            weights, values = part.columns(widths)
            count = weights.shape[-1]
            leading = np.broadcast_shapes(weights.shape[:-1], values.shape[:-1])
            bits = np.concatenate(
                [np.broadcast_to(each, (*leading, each.shape[-1])) for each in (weights, values)], axis=-1
            )
            distinct, which = np.unique(bits.reshape(-1, bits.shape[-1]), axis=0, return_inverse=True)
            names = [key_with(part.key, row[:count], row[count:]) for row in distinct]
            wanted += names
            looked_up.append((part.output, names, which.reshape(leading)))
        self.table.require(wanted)
        for position, names, which in looked_up:
            found[..., position] = np.array([self.table.entries[name].mean for name in names])[which]
        return found
