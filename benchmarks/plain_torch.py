"""The ENAS micro supernet written directly with torch.nn, as a good engineer without a framework would."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitwright.architecture import Architecture
from bitwright.spaces.enas_micro import CELLS, EnasMicro

Arc = Sequence[Sequence[tuple[int, int]]]


def _conv(i: int, o: int, k: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, groups=groups, bias=False)


class Separable(nn.Module):
    """Twice: rectifier, depthwise, pointwise, batch normalisation."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (
                    nn.ReLU(),
                    _conv(channels, channels, kernel, groups=channels),
                    _conv(channels, channels, 1),
                    nn.BatchNorm2d(channels, track_running_stats=False),
                )
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class FactorizedReduction(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.even, self.odd = (nn.Conv2d(i, o // 2, 1, stride=2, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(o, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.even(x), self.odd(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])], 1))


class Projection(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv, self.norm = _conv(i, o, 1), nn.BatchNorm2d(o, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))


class Cell(nn.Module):
    def __init__(self, left: nn.Module, right: nn.Module, channels: int, nodes: int) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.separable = nn.ModuleDict(
            {
                f"{node}{side}{op}{source}": Separable(channels, 3 + 2 * op)
                for node in range(2, nodes + 2)
                for side in range(2)
                for op in range(2)
                for source in range(node)
            }
        )
        self.out = nn.ParameterList([nn.Parameter(torch.empty(channels, channels, 1, 1)) for _ in range(nodes + 2)])
        for p in self.out:
            nn.init.kaiming_normal_(p)
        self.norm = nn.BatchNorm2d(channels, track_running_stats=False)

    def forward(self, left: Tensor, right: Tensor, arc: Arc) -> Tensor:
        nodes = [self.left(left), self.right(right)]
        for node, edges in enumerate(arc, start=2):
            sides = []
            for side, (source, op) in enumerate(edges):
                x = nodes[source]
                if op < 2:
                    x = self.separable[f"{node}{side}{op}{source}"](x)
                elif op == 2:
                    x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
                elif op == 3:
                    x = F.max_pool2d(x, 3, 1, 1)
                sides.append(x)
            nodes.append(sides[0] + sides[1])
        read = {source for edges in arc for source, _ in edges}
        unused = [i for i in range(len(nodes)) if i not in read]
        joined = F.relu(torch.cat([nodes[i] for i in unused], 1))
        return self.norm(F.conv2d(joined, torch.cat([self.out[i] for i in unused], 1)))


class Supernet(nn.Module):
    def __init__(self, space: EnasMicro) -> None:
        super().__init__()
        self.reductions = space.reduction_cells
        channels = space.filters
        self.stem = nn.Sequential(
            _conv(space.image[0], 3 * channels, 3), nn.BatchNorm2d(3 * channels, track_running_stats=False)
        )
        shapes = [(3 * channels, 0)] * 2
        self.cells, self.halvings, depth = nn.ModuleList(), nn.ModuleDict(), 0
        for cell in range(space.cells):
            if cell in self.reductions:
                channels, depth = 2 * channels, depth + 1
                self.halvings[str(cell)] = FactorizedReduction(shapes[1][0], channels)
                shapes = [shapes[1], (channels, depth)]
            calibrate = [
                nn.Sequential(nn.ReLU(), FactorizedReduction(c, channels))
                if d != depth
                else (Projection(c, channels) if c != channels else nn.Identity())
                for c, d in shapes
            ]
            self.cells.append(Cell(calibrate[0], calibrate[1], channels, space.nodes))
            shapes = [shapes[1], (channels, depth)]
        self.classifier = nn.Linear(channels, space.classes)

    def forward(self, x: Tensor, arcs: Sequence[Arc]) -> Tensor:
        x = self.stem(x)
        layers = [x, x]
        for i, cell in enumerate(self.cells):
            if i in self.reductions:
                layers = [layers[1], self.halvings[str(i)](layers[1])]
            layers = [layers[1], cell(layers[0], layers[1], arcs[i in self.reductions])]
        return self.classifier(F.relu(layers[1]).mean((2, 3)))


def training_step(
    space: EnasMicro, drawn: Sequence[Architecture], pixels: Tensor, labels: Tensor
) -> Callable[[int], object]:
    """The i-th step. The memory format of the images decides that of all activations."""
    network = Supernet(space)
    if pixels.is_contiguous(memory_format=torch.channels_last) and not pixels.is_contiguous():
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    arcs = [[[[(e.source, e.op) for e in node] for node in space.cell(a, kind)] for kind in CELLS] for a in drawn]

    def step(i: int) -> object:
        optimizer.zero_grad()
        loss = F.cross_entropy(network((pixels.float() - 120) / 64, arcs[i % len(arcs)]), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        return loss

    return step
