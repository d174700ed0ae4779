"""A module of NAS-Bench-101 as a network: the skeleton of Ying et al. 2019 (arXiv:1902.09635), float or quantized.

The stem, then stacks of equal modules with a max pool between, which halves the image and doubles the channels, then
a global average pool and a classifier. In a module the edges from the input are 1x1 convolutions (projections), those
into one vertex are added, and those into the output concatenated. Where a vertex is a channel wider than one that it
feeds, the sum takes its first channels. Neither a sum nor a concatenation has an activation behind it.

In the quantized network all values of a module are integers of one step, so that sums (which saturate), maxima and
concatenations are those of integers; every module's input passes a projection onto the module's own step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..network import Add, BatchNorm, Concat, Conv2d, GlobalSumPool, Input, Linear, MaxPool2d, Network, Node, Op, Slice
from ..precision import NAMES, rectified_activation, weight_quantizer
from ..quantizers import Quantizer
from ..quantizers.real import Real
from ..quantizers.uniform import Uniform
from .config import AVAILABLE_OPS, CONV3X3, MAXPOOL3X3
from .parameters import vertex_channels

PIXEL_MEAN, PIXEL_STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)  # CIFAR-10, as published
FIRST_RANGE = 8.0  # where a module's learned scale clips at first: standard deviations, with room for sums
POOLED_BITS = 8  # that the sums of the global pool are shifted to


@dataclass(frozen=True)
class Skeleton:
    """Everything about a network but its module; the defaults are those of the benchmark.

    image: (C, H, W). classes: of the data set.
    pixel_mean, pixel_std: per channel, in units of 0 to 255. Integers subtract one whole number from all channels.
    stem_filters: channels of the first stack; every later one has twice those of the one before.
    stacks, modules: number of stacks, and of modules in each.
    epsilon: of all normalisations.
    weight_precision: of the modules' convolutions, a name of `bitwright.precision`; of 2 to 8 bits they are scaled
        integers with one scale per filter, which take float weights as they are.
    activation_precision: of the modules' values; None takes weight_precision. Of 2 to 8 bits their scale is learned.
    end_precision: of the weights of the first convolution and the classifier, unless the modules' are float.
    """

    image: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD
    stem_filters: int = 128
    stacks: int = 3
    modules: int = 3
    epsilon: float = 1e-5
    weight_precision: str = "float"
    activation_precision: str | None = None
    end_precision: str = "8"

    def __post_init__(self) -> None:
        for name, least in (("stem_filters", 4), ("stacks", 1), ("modules", 1), ("classes", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"nasbench101: {name} is at least {least}, got {getattr(self, name)}")
        if min(self.image[1:]) < 2 ** (self.stacks - 1):
            raise ConfigError(
                f"nasbench101: an image of {self.image[1]}x{self.image[2]} cannot be halved {self.stacks - 1} times"
            )
        for name in ("weight_precision", "activation_precision", "end_precision"):
            precision = getattr(self, name)
            if precision is not None and precision not in NAMES:
                raise ConfigError(f"nasbench101: no {name} {precision!r}: {', '.join(NAMES)}")
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(self, name)) not in (1, self.image[0]):
                raise ConfigError(f"nasbench101: {name} has one number per channel, got {list(getattr(self, name))}")

    @property
    def quantized(self) -> bool:
        return self.weight_precision != "float"

    def widths(self) -> list[tuple[int, int]]:
        """(channels in, channels out) of every module in turn."""
        found, channels = [], self.stem_filters
        for stack in range(self.stacks):
            out = self.stem_filters * 2**stack
            for _ in range(self.modules):
                found.append((channels, out))
                channels = out
        return found


PUBLISHED = Skeleton()


def module_network(matrix: Any, ops: Sequence[str], skeleton: Skeleton = PUBLISHED) -> Network:
    """The network of a module.

    matrix: (V, V) of 0 and 1, upper triangular and pruned: every vertex lies on a path from the first to the last.
    ops: V names, of which the first (input) and the last (output) are not looked at.

    Keys of nodes are stem, stack1/module1/vertex2/conv3x3/64 (64 channels wide), .../input/64 for the projection into
    vertex 2, .../output/input for the one into the output, and classifier; a normalisation's ends in /norm. As the
    width is in it, networks of different modules can share the tensors of one store.
    ConfigError names an operation that is not of the space.
    """
    return _Builder((np.asarray(matrix) != 0).astype(np.int64), ops, skeleton).build()


class _Builder:
    def __init__(self, edges: Any, ops: Sequence[str], skeleton: Skeleton) -> None:
        self.edges, self.ops, self.skeleton = edges, ops, skeleton
        self.nodes: list[Node] = []
        for op in ops[1:-1]:
            if op not in AVAILABLE_OPS:
                raise ConfigError(f"no operation {op!r}: {', '.join(AVAILABLE_OPS)}")
        name = skeleton.activation_precision or skeleton.weight_precision
        self.weight = _weight(skeleton.weight_precision)
        self.end = _weight(skeleton.end_precision) if skeleton.quantized else Real()
        self.activation = _activation(name)

    def build(self) -> Network:
        skeleton = self.skeleton
        x = self._add(_pixels(skeleton))
        x = self._convolved(x, skeleton.stem_filters, 3, self.end, "stem", "stem/grid")
        for number, (channels_in, channels_out) in enumerate(skeleton.widths()):
            stack, module = divmod(number, skeleton.modules)
            if stack and module == 0:
                x = self._add(MaxPool2d(2, 2), x)
            x = self._module(x, channels_in, channels_out, f"stack{stack + 1}/module{module + 1}")
        x = self._add(self._pool(x), x)
        classifier = Uniform(8) if self.end.per_channel else self.end  # classes are compared: one scale for all
        self._add(Linear(skeleton.classes, classifier, bias=True), x, key="classifier")
        return Network(tuple(self.nodes))

    def _module(self, x: int, channels_in: int, channels_out: int, key: str) -> int:
        edges, last = self.edges, len(self.edges) - 1
        channels = vertex_channels(channels_in, channels_out, edges).tolist()
        values: dict[int, int] = {}
        for v in range(1, last):
            width, name = channels[v], f"{key}/vertex{v}"
            terms = [self._first(values[u], channels[u], width) for u in range(1, v) if edges[u, v]]
            if edges[0, v]:
                terms.append(self._projected(x, width, f"{name}/input/{width}", key))
            values[v] = self._operation(self._sum(terms), self.ops[v], width, name, key)
        joined = [values[v] for v in range(1, last) if edges[v, last]]
        outputs = [joined[0] if len(joined) == 1 else self._add(Concat(), *joined)] if joined else []
        if edges[0, last]:
            outputs.append(self._projected(x, channels_out, f"{key}/output/input", key))
        return self._sum(outputs)

    def _operation(self, x: int, op: str, width: int, name: str, grid: str) -> int:
        if op == MAXPOOL3X3:
            return self._add(MaxPool2d(3), x)
        kernel = 3 if op == CONV3X3 else 1
        return self._convolved(x, width, kernel, self.weight, f"{name}/conv{kernel}x{kernel}/{width}", grid)

    def _projected(self, x: int, width: int, key: str, grid: str) -> int:
        return self._convolved(x, width, 1, self.weight, key, grid)

    def _convolved(self, x: int, width: int, kernel: int, weight: Quantizer, key: str, grid: str) -> int:
        """Convolution, normalisation, activation on the module's grid."""
        x = self._add(Conv2d(width, kernel, weight), x, key=key)
        shared = grid if self.activation.learns_scale else ""
        normal = BatchNorm(self.activation, self.skeleton.epsilon, real=True, scale_key=shared)
        return self._add(normal, x, key=f"{key}/norm")

    def _first(self, x: int, channels: int, width: int) -> int:
        return x if channels == width else self._add(Slice(width), x)

    def _sum(self, terms: Sequence[int]) -> int:
        total, *others = terms
        for other in others:
            total = self._add(Add(self.activation.levels), total, other)
        return total

    def _pool(self, x: int) -> GlobalSumPool:
        """With the shift that brings the largest sum to eight bits."""
        network = Network(tuple(self.nodes))
        values, (_, height, width) = network.ranges[x], network.shapes[x]
        if values is None:
            return GlobalSumPool()
        largest = values.magnitude * height * width
        return GlobalSumPool(max(largest.bit_length() - POOLED_BITS, 0))

    def _add(self, op: Op, *inputs: int, key: str = "") -> int:
        self.nodes.append(Node(op, inputs, key))
        return len(self.nodes) - 1


def _pixels(skeleton: Skeleton) -> Input:
    mean, std = skeleton.pixel_mean, skeleton.pixel_std
    if not skeleton.quantized:
        return Input(skeleton.image, mean, tuple(1 / s for s in std))
    return Input(skeleton.image, (float(round(sum(mean) / len(mean))),), (len(std) / sum(std),))


def _weight(name: str) -> Quantizer:
    return Uniform(int(name), per_channel=True) if name.isdigit() else weight_quantizer(name)


def _activation(name: str) -> Quantizer:
    if name.isdigit():
        return Uniform(int(name), signed=False, step="learned", start=FIRST_RANGE)
    return rectified_activation(name)
