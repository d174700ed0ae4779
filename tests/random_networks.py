"""Random quantized networks of blocks with random weights and statistics, and images for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from bitwright.modules import Training, Weights, forward
from bitwright.network import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    DropPath,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
    Slice,
    SumPool2d,
)
from bitwright.quantizers import Levels, Quantizer
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.quantized_relu import QuantizedRelu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform

WEIGHTS: list[Quantizer] = [
    Binary(),
    Binary("glorot"),
    Ternary(),
    *[FixedPoint(bits) for bits in range(2, 9)],
    Uniform(8),
    Uniform(4, narrow=False, step="learned"),
    Uniform(3, per_channel=True),
]
GRIDS: list[Quantizer] = [
    Binary(),
    Ternary(clip_gradient=True),
    *[FixedPoint(bits) for bits in range(2, 9)],
    *[Uniform(bits, signed=False, step=min(2.0 ** (3 - bits), 1.0)) for bits in range(1, 9)],
    QuantizedRelu(4),
    Uniform(4, step=0.3),
    Uniform(6, narrow=False, step=0.07),
    Uniform(8, signed=False, step=1 / 3),
    *[Uniform(bits, narrow=False, step="learned") for bits in (2, 4, 6)],
]


class Builder:
    """A random network of blocks. All nodes of `grid` hold integers of one step and may be added and joined."""

    def __init__(self, seed: int, *, dilated: bool = True) -> None:
        """dilated: whether kernels may be; their integer form has zeros in it."""
        self.dilated = dilated
        self.rng = np.random.default_rng(seed)
        shape = tuple(int(v) for v in (self.rng.integers(1, 4), *self.rng.integers(2, 10, 2)))
        zero = float(self.rng.choice([0, 128, 100, 255]))
        self.nodes = [Node(Input(shape, offset=(zero,)))]
        self.switch()
        first = self.block(Conv2d(self.channels(), int(self.rng.integers(1, 5)), self.pick(WEIGHTS), self.stride()), 0)
        self.alike = {(self.shape(first), self.grid): [first]}
        for _ in range(int(self.rng.integers(1, 6))):
            self.extend()
        self.finish()

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def channels(self) -> int:
        return int(self.rng.integers(1, 8))

    def stride(self) -> int:
        return int(self.pick([1, 1, 2, 3]))

    def switch(self) -> None:
        """Another step for what follows; where it is learned, under a name that all nodes of the grid share."""
        self.grid = self.pick(GRIDS)
        if self.grid.learns_scale:
            self.grid = replace(self.grid, start=1.0 + len(self.nodes))

    @property
    def scale_key(self) -> str:
        return f"grid{self.grid.start:.0f}" if self.grid.learns_scale else ""

    def dilation(self) -> int:
        return int(self.pick([1, 1, 1, 2, 3])) if self.dilated else 1

    def grouped(self, channels: int) -> dict[str, int]:
        """Filters and groups of a convolution that reads so many channels."""
        groups = int(self.pick([1, 1, *[g for g in range(2, channels + 1) if channels % g == 0]]))
        return {"filters": groups * int(self.rng.integers(1, 4)) if groups > 1 else self.channels(), "groups": groups}

    def padding(self, kernel: int) -> str:
        return self.pick(["same", "half"]) if kernel % 2 else "same"

    def shape(self, x: int) -> tuple[int, ...]:
        return Network(tuple(self.nodes)).shapes[x]

    def add(self, op, *inputs: int, key: str = "") -> int:
        self.nodes.append(Node(op, inputs, key))
        return len(self.nodes) - 1

    def block(self, op, *inputs: int) -> int:
        key = f"layer{len(self.nodes)}"
        x = self.add(op, *inputs, key=key)
        if self.rng.random() < 0.2:
            x = self.add(MaxPool2d(int(self.rng.integers(1, 4)), self.stride()), x)
        normal = BatchNorm(self.grid, real=bool(self.rng.random() < 0.4), scale_key=self.scale_key)
        return self.add(normal, x, key=f"{key}/norm")

    def depthwise(self, kernel: int, x: int) -> int:
        """A depthwise convolution, half the time behind an activation with a scale per channel."""
        if self.rng.random() < 0.5:
            key, bits = f"layer{len(self.nodes)}", int(self.rng.integers(1, 7))
            x = self.add(Conv2d(self.channels(), 1, self.pick(WEIGHTS)), x, key=key)
            own = Uniform(bits, signed=False, step="learned", per_channel=True, scale_gradient="plain")
            x = self.add(BatchNorm(own, real=bool(self.rng.random() < 0.7)), x, key=f"{key}/norm")
        op = DepthwiseConv2d(kernel, self.pick(WEIGHTS), self.stride(), self.padding(kernel), self.dilation())
        return self.block(op, x)

    def any_node(self) -> int:
        return int(self.pick(self.pick(list(self.alike.values()))))

    def record(self, x: int) -> None:
        self.alike.setdefault((self.shape(x), self.grid), []).append(x)

    def extend(self) -> None:
        x = self.any_node()
        self.grid = next(grid for (_, grid), nodes in self.alike.items() if x in nodes)
        shape, mine = self.shape(x), self.alike[self.shape(x), self.grid]
        kernel = int(self.rng.integers(1, 6))
        match self.rng.integers(10):
            case 0 | 1:
                if self.rng.random() < 0.5:
                    self.switch()
                conv = Conv2d(
                    kernel=kernel,
                    weight=self.pick(WEIGHTS),
                    stride=self.stride(),
                    padding=self.padding(kernel),
                    dilation=self.dilation(),
                    **self.grouped(shape[0]),
                )
                self.record(self.block(conv, x))
            case 2:
                self.record(self.depthwise(kernel, x))
            case 3:
                others = [y for (s, g), ys in self.alike.items() for y in ys if s[1:] == shape[1:] and g == self.grid]
                weight = self.pick([w for w in WEIGHTS if w not in (Binary("glorot"),)])
                several = Conv2d(self.channels(), kernel, weight, self.stride(), ("a", "b"))
                self.record(self.block(several, x, int(self.pick(others))))
            case 4:
                levels = self.grid.levels if self.rng.random() < 0.8 else Levels.between(-3, 2)
                self.record(self.add(Add(levels), x, int(self.pick(mine))))
            case 5:
                self.record(self.add(MaxPool2d(kernel, self.stride()), x))
            case 6:
                y = self.add(SumPool2d(int(self.rng.integers(1, 4)), self.stride()), x)
                self.record(self.add(Activation(self.grid), y, key=self.scale_key or f"pool{y}"))
            case 7:
                others = [y for (s, g), ys in self.alike.items() for y in ys if s[1:] == shape[1:] and g == self.grid]
                self.record(self.add(Concat(), x, int(self.pick(others)), x))
            case 8:
                self.record(self.add(Slice(int(self.rng.integers(1, shape[0] + 1))), x))
            case _:
                y = self.add(self.pick([DropPath(0.5), Dropout(0.2)]), x)
                self.record(y)

    def finish(self) -> None:
        heads = [self.any_node()]
        same = [
            y for (_, g), ys in self.alike.items() for y in ys if heads[0] in self.alike.get((self.shape(y), g), [])
        ]
        heads += [int(self.pick(same))] if self.rng.random() < 0.3 else []
        pool = self.pick([GlobalSumPool(), GlobalSumPool(1), GlobalSumPool(3, 8.0)])
        pooled = [self.add(pool, x) for x in heads]
        weight = self.pick([Binary(), Ternary(), FixedPoint(4), FixedPoint(8), Uniform(8)])
        classes = Linear(
            int(self.rng.integers(2, 11)), weight, ("a", "b")[: len(pooled)], bias=bool(self.rng.random() < 0.5)
        )
        self.add(classes, *pooled, key="classes")

    def network(self) -> Network:
        return Network(tuple(self.nodes))


def trained(made: Network, seed: int, x: torch.Tensor) -> Weights:
    """Weights with the statistics of a batch, then gains of both signs, shifted offsets and other scales."""
    weights = Weights([made], seed=seed)
    with torch.no_grad():
        forward(made.trunk, weights, x, training=Training(None, momentum=1.0))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted([*weights.named_parameters(), *weights.named_buffers()]):
            noise = torch.randn(tensor.shape, generator=generator)
            match name.rsplit("/", 1)[-1]:
                case "gain":
                    tensor.copy_(noise)
                case "offset" | "bias":
                    tensor.copy_(noise * 0.7)
                case "mean":
                    tensor.add_(noise)
                case "variance":
                    tensor.mul_((noise * 0.5).exp())
                case "log2_range" | "max_abs":
                    tensor.add_(noise.abs() * 0.3)
    return weights


def some_images(made: Network, seed: int, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, *made.nodes[0].op.shape), generator=generator, dtype=torch.uint8)
    x[0], x[1] = 0, 255
    return x
