"""A float supernet step against plain PyTorch.

The published wiring in float, against the same network written directly with torch.nn (benchmarks/plain_torch.py), in
both memory formats. `x_ref` is the step over ten 3x3 convolutions 16 -> 16, forward and backward, on 64x16x32x32, by
which figures of different machines compare: NNI 3.0's step was measured elsewhere at 19.3 x_ref, and plain PyTorch at
15.7 (NCHW) and 10.7 (channels-last).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from . import plain_torch
from .supernet import architectures, images, space, training_step
from .timing import Table, comparison, interleaved

ROUNDS = 30


def ten_convolutions() -> Callable[[int], object]:
    """The reference by which machines compare."""
    x = torch.randn(64, 16, 32, 32, requires_grad=True)
    weights = [torch.randn(16, 16, 3, 3).mul_(0.1).requires_grad_() for _ in range(10)]

    def call(i: int) -> object:
        y = x
        for w in weights:
            y = F.conv2d(y, w, padding=1)
        return y.sum().backward()  # type: ignore[no-untyped-call]

    return call


def run() -> Table:
    of = space(
        ops="enas", wiring="classic", stem_precision="float", first_cell_precision="float", cell_precision="float"
    )
    drawn = architectures(ROUNDS)
    networks = [of.shared_network(a) for a in drawn]
    seconds = interleaved(
        {
            "plain torch, channels-last": plain_torch.training_step(of, drawn, *images()),
            "bitwright": training_step(of, networks),
            "plain torch, NCHW": plain_torch.training_step(of, drawn, *images(channels_last=False)),
            "ten convolutions": ten_convolutions(),
        },
        ROUNDS,
    )
    table = comparison(seconds, "plain torch, channels-last")
    table.columns = [*table.columns, "x_ref"]
    table.rows = [[*row, f"{np.median(seconds[row[0]] / seconds['ten convolutions']):.1f}"] for row in table.rows]
    return table
