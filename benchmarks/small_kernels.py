"""Depthwise 5x5 convolutions and average pools against torch's own, forward and backward, 64x16x32x32.

torch has fast channels-last depthwise kernels for 3x3 but not for the weight gradient of 5x5, and none for pools: the
package takes a 5x5 gradient from 3x3 ones, and an average pool as a depthwise convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bitwright.kernels import average_pool2d, depthwise_conv2d

from .timing import Table, comparison, interleaved

ROUNDS = 100


def _both(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[int], object]:
    def call(i: int) -> object:
        y = f(x)
        return y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]

    return call


def run() -> Table:
    table = Table([])
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(64, 16, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        w = torch.randn(16, 1, 5, 5).to(dtype).requires_grad_()
        pairs = {
            "depthwise 5x5": (
                partial(F.conv2d, weight=w, padding=2, groups=16),
                partial(depthwise_conv2d, weight=w, stride=1, padding=2),
            ),
            "average pool 3x3": (
                partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False),
                partial(average_pool2d, kernel=3, stride=1, padding=1),
            ),
        }
        for name, (theirs, ours) in pairs.items():
            name = f"{name}, {str(dtype).removeprefix('torch.')}"
            seconds = interleaved(
                {f"{name}: torch": _both(theirs, x), f"{name}: bitwright": _both(ours, x)}, ROUNDS, 10
            )
            part = comparison(seconds, f"{name}: torch")
            table.columns = [*part.columns[:2], "ratio to torch (quartiles)"]
            table.rows += part.rows
            table.notes = part.notes
    return table
