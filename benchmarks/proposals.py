"""The cost of a proposed architecture, for every strategy.

Asking for and telling 1,000 trials in NAS-Bench-201's space, ten at a time, 200 for the predictor-guided search, which
fits its ensemble anew for every ten. Nothing is evaluated: a reward is the sum of the choices. Measured elsewhere, with
40 choices of 5 options: regularized evolution in plain Python 9 us, pymoo's NSGA-II 70 to 100 us, Optuna 1,040 us at
random and 25,000 us with TPE.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitwright.nasbench.regret import STRATEGIES
from bitwright.spaces.nasbench201 import Nasbench201
from bitwright.trial import Measurement, Trial

from .timing import Table, interleaved

ROUNDS, BATCH = 5, 10
TRIALS = {name: 200 if name == "predictor_guided" else 1000 for name in STRATEGIES}


def run() -> Table:
    seconds = interleaved({name: _search(name) for name in STRATEGIES}, ROUNDS, warmup=1)
    table = Table(["", "median, us per architecture", "quartiles"])
    for name, taken in seconds.items():
        low, middle, high = np.quantile(taken / TRIALS[name] * 1e6, [0.25, 0.5, 0.75])
        table.rows.append([name.replace("_", " "), f"{middle:,.1f}", f"{low:,.1f}-{high:,.1f}"])
    table.notes.append(f"{ROUNDS} rounds, candidates in turn.")
    return table


def _search(name: str) -> Callable[[int], None]:
    space = Nasbench201()

    def proposals(i: int) -> None:
        strategy = STRATEGIES[name].make(space)
        rng = np.random.default_rng(i)
        for start in range(0, TRIALS[name], BATCH):
            asked = strategy.ask(BATCH, rng)
            strategy.tell([Trial(start + k, a, Measurement(sum(a.choices) / 24)) for k, a in enumerate(asked)])

    return proposals
