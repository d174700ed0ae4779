"""A training step of NAS-Bench-101's Inception-like cell against plain PyTorch.

The published recipe on a batch of 16 images: two shards, decay of all variables, TensorFlow's RMSProp. The peer is the
network written with torch.nn and the same optimizer one tensor at a time, as public ports have it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitwright.datasets import Dataset, Images
from bitwright.nasbench.network import PUBLISHED, module_network
from bitwright.nasbench.training import Run, TrainingOptions

from .timing import Table, comparison, interleaved

ROUNDS, BATCH = 8, 16
EDGES = ((0, 1), (0, 2), (0, 3), (0, 5), (1, 6), (2, 6), (3, 4), (4, 6), (5, 6))
OPS = ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")


class Convolution(nn.Sequential):
    def __init__(self, channels: int, filters: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(filters, eps=1e-5, momentum=0.003),
            nn.ReLU(),
        )


class Cell(nn.Module):
    """The four branches of the module, each with a projection of its input."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        each = filters // 4
        self.projections = nn.ModuleList(Convolution(channels, each, 1) for _ in range(4))
        self.branches = nn.ModuleList(
            [
                Convolution(each, each, 1),
                Convolution(each, each, 3),
                nn.Sequential(Convolution(each, each, 3), Convolution(each, each, 3)),
                nn.MaxPool2d(3, 1, 1),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.projections, self.branches, strict=True)
        return torch.cat([branch(projection(x)) for projection, branch in pairs], 1)


def plain_network() -> nn.Module:
    layers: list[nn.Module] = [Convolution(3, 128, 3)]
    channels = 128
    for stack in range(3):
        layers += [nn.MaxPool2d(2)] if stack else []
        for _ in range(3):
            layers.append(Cell(channels, 128 << stack))
            channels = 128 << stack
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def plain_step(pixels: Tensor, labels: Tensor) -> Callable[[int], object]:
    mean, std = (torch.tensor(v)[:, None, None] for v in (PUBLISHED.pixel_mean, PUBLISHED.pixel_std))
    network = plain_network()
    squares = {p: torch.ones_like(p) for p in network.parameters()}
    velocities = {p: torch.zeros_like(p) for p in network.parameters()}

    def call(i: int) -> object:
        x = (pixels.float() - mean) / std
        loss = torch.zeros(())
        for part, own in zip(x.chunk(2), labels.chunk(2), strict=True):
            loss = loss + F.cross_entropy(network(part), own) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p, square in squares.items():
                assert p.grad is not None
                gradient = p.grad + 1e-4 * p
                square.mul_(0.9).add_(0.1 * gradient**2)
                velocities[p].mul_(0.9).add_(0.1 * gradient / (square + 1.0).sqrt())
                p.sub_(velocities[p])
                p.grad = None
        return loss

    return call


def run() -> Table:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (256, 32, 32, 3), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.randint(0, 10, (256,), generator=generator))
    data = Dataset("noise", tuple("abcdefghij"), images, images, images)
    matrix = np.zeros((7, 7), dtype=np.int8)
    for source, target in EDGES:
        matrix[source, target] = 1
    mine = Run(module_network(matrix, OPS), data, TrainingOptions(epochs=100, batch=BATCH), 0, 0)
    x, labels = images[:BATCH].batch(slice(0, BATCH))
    seconds = interleaved({"plain torch": plain_step(x, labels), "bitwright": lambda i: mine.make_step(0.0)}, ROUNDS)
    return comparison(seconds, "plain torch")
