"""The score of one network of 138 nodes, and of a thousand choices of its bit widths at a time.

The network is mobile14-4b5b. A search that builds a network for every choice pays for the network and its table; one
that keeps the table pays for the widths and the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bitwright.costs import ScoreModel
from bitwright.costs.exact import Exact
from bitwright.costs.micronet import Micronet
from bitwright.costs.micronet_2019_entry import Micronet2019Entry
from bitwright.networks import named
from bitwright.workload.rows import workload
from bitwright.workload.table import Workload

from .timing import Table, comparison, interleaved

ROUNDS = 30
CANDIDATES = 1000
RULES: dict[str, ScoreModel] = {
    "micronet": Micronet(),
    "micronet_2019_entry": Micronet2019Entry(),
    "exact": Exact(),
}


def run() -> Table:
    work = workload(named("mobile14-4b5b"))
    bits = np.random.default_rng(0).integers(2, 9, (CANDIDATES, len(work)))
    candidates: dict[str, Callable[[int], object]] = {"network and table": _build}
    for name, rule in RULES.items():
        candidates[f"{name}, as it is"] = partial(_score, rule, work)
        candidates[f"{name}, other bits"] = partial(_other_bits, rule, work, bits[:1])
        candidates[f"{name}, {CANDIDATES} choices"] = partial(_other_bits, rule, work, bits)
    return comparison(interleaved(candidates, ROUNDS), "network and table")


def _build(i: int) -> Workload:
    return workload(named("mobile14-4b5b"))


def _score(rule: ScoreModel, work: Workload, i: int) -> object:
    return rule.score(work)


def _other_bits(rule: ScoreModel, work: Workload, bits: np.ndarray, i: int) -> object:
    return rule.totals(work, bits, bits)
