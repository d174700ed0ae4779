"""A step of the controller: 20 samples and one update, 40 decisions.

Sampled in one batch, against the same twenty drawn one by one as the original and most ports do. NNI 3.0's controller
(PPO, its defaults) was measured elsewhere at 44 x_ref for this step; x_ref is that of the float step.
"""

from __future__ import annotations

import numpy as np
import torch

from bitwright.strategies.controller import Controller
from bitwright.trial import Measurement, Trial

from .float_step import ten_convolutions
from .supernet import space
from .timing import Table, comparison, interleaved

ROUNDS, SAMPLES, NNI = 20, 20, 44.0


def run() -> Table:
    of = space(ops="enas")
    controller = Controller(of)

    def batched(i: int) -> None:
        drawn = controller.ask(SAMPLES, np.random.default_rng(i))
        controller.tell([Trial(k, a, Measurement(0.5 + 0.01 * k)) for k, a in enumerate(drawn)])

    policy = Controller(of).policy
    adam = torch.optim.Adam(policy.parameters(), lr=0.002)

    def one_by_one(i: int) -> None:
        generator = torch.Generator().manual_seed(i)
        loss = torch.zeros(())
        for k in range(SAMPLES):
            sample = policy(1, generator=generator)
            loss = loss - (sample.log_probability * (0.01 * k - 0.1)).mean() - 0.1 * sample.entropy.mean()
        adam.zero_grad()
        (loss / SAMPLES).backward()  # type: ignore[no-untyped-call]
        adam.step()

    seconds = interleaved(
        {"in one batch": batched, "one by one": one_by_one, "ten convolutions": ten_convolutions()}, ROUNDS
    )
    table = comparison(seconds, "in one batch")
    nni = NNI * float(np.median(seconds["ten convolutions"] / seconds["in one batch"]))
    table.notes.append(f"NNI's {NNI:.0f} x_ref would be {nni:.0f} times the batched step here.")
    return table
