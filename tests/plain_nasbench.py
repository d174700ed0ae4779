"""The network of a NAS-Bench-101 module in plain torch, written from the published description alone.

A function of tensors that are asked for by name, in any floating-point type. Nothing of bitwright is used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
OPS = (CONV3, CONV1, POOL)
MEAN, STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)

Tensors = Callable[[str, tuple[int, ...]], Tensor]  # a tensor by name; the shape is what it must have


def widths(matrix: list[list[int]], width_in: int, width_out: int) -> list[int]:
    last = len(matrix) - 1
    into_output = [v for v in range(1, last) if matrix[v][last]]
    found = {0: width_in, last: width_out}
    share, more = divmod(width_out, len(into_output)) if into_output else (0, 0)
    for v in into_output:
        found[v] = share + 1 if more > 0 else share
        more -= 1
    while len(found) <= last:
        for v in range(1, last):
            after = [t for t in range(v + 1, last) if matrix[v][t]]
            if v not in found and all(t in found for t in after):
                found[v] = max(found[t] for t in after)
    return [found[v] for v in range(last + 1)]


class Plain:
    """training: normalise by the batch's statistics, the biased variance; otherwise by the running ones."""

    def __init__(self, matrix, ops, tensors: Tensors, *, training: bool, stem: int, modules: int, stacks: int = 3):
        self.matrix = [[int(e) for e in row] for row in matrix]
        self.ops, self.tensors, self.training = list(ops), tensors, training
        self.stem, self.modules, self.stacks = stem, modules, stacks

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels x (N, 3, H, W) of 0 to 255."""
        x = (x - torch.tensor(MEAN, dtype=x.dtype)[:, None, None]) / torch.tensor(STD, dtype=x.dtype)[:, None, None]
        x = self.conv(x, self.stem, 3, "stem")
        for stack in range(self.stacks):
            if stack > 0:
                x = F.max_pool2d(x, 2, 2)
            for module in range(self.modules):
                x = self.module(x, self.stem << stack, f"stack{stack + 1}/module{module + 1}")
        x = x.mean((2, 3))
        return x @ self.tensors("classifier", (10, x.shape[1])).T + self.tensors("classifier/bias", (10,))

    def conv(self, x: Tensor, width: int, kernel: int, name: str) -> Tensor:
        x = F.conv2d(x, self.tensors(name, (width, x.shape[1], kernel, kernel)), padding=kernel // 2)
        gain, offset = (self.tensors(f"{name}/norm/{part}", (width,)) for part in ("gain", "offset"))
        if self.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, variance = (self.tensors(f"{name}/norm/{part}", (width,)) for part in ("mean", "variance"))
        factor = gain / (variance + 1e-5).sqrt()
        return ((x - mean[:, None, None]) * factor[:, None, None] + offset[:, None, None]).relu()

    def module(self, x: Tensor, width_out: int, name: str) -> Tensor:
        last = len(self.matrix) - 1
        width = widths(self.matrix, x.shape[1], width_out)
        made: dict[int, Tensor] = {}
        for t in range(1, last):
            total = None
            for s in range(1, t):
                if self.matrix[s][t]:
                    part = made[s][:, : width[t]]
                    total = part if total is None else total + part
            if self.matrix[0][t]:
                part = self.conv(x, width[t], 1, f"{name}/vertex{t}/input/{width[t]}")
                total = part if total is None else total + part
            assert total is not None
            if self.ops[t] == POOL:
                made[t] = F.max_pool2d(F.pad(total, (1, 1, 1, 1), value=float("-inf")), 3, 1)
            else:
                kernel = 3 if self.ops[t] == CONV3 else 1
                made[t] = self.conv(total, width[t], kernel, f"{name}/vertex{t}/conv{kernel}x{kernel}/{width[t]}")
        parts = [made[t] for t in range(1, last) if self.matrix[t][last]]
        output = torch.cat(parts, 1) if parts else None
        if self.matrix[0][last]:
            projected = self.conv(x, width_out, 1, f"{name}/output/input")
            output = projected if output is None else output + projected
        assert output is not None
        return output


def size(matrix, ops, stem: int = 128, modules: int = 3) -> int:
    """Trainable numbers of the network, from shapes alone."""
    sizes: dict[str, int] = {}

    def tensors(name: str, shape: tuple[int, ...]) -> Tensor:
        made = torch.empty(shape, device="meta")
        sizes[name] = made.numel()
        return made

    with torch.device("meta"):
        Plain(matrix, ops, tensors, training=True, stem=stem, modules=modules)(torch.empty(2, 3, 32, 32))
    return sum(sizes.values())
