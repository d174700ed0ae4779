"""The residual networks for CIFAR at any precision: a space of one architecture, `resnet()`.

He et al. 2016, arXiv:1512.03385, section 4.2, with projection shortcuts. One block per stage is ResNet-8, the image
classifier of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597), three are ResNet-20.

What is added has one learned scale in each stage, so that a sum is a sum of integers and the rectifier behind it the
lower end of the range to which it saturates. The normalisation of a projection brings it onto that grid at no cost; a
stage that starts without one rescales what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..architecture import Architecture, Decision
from ..errors import ConfigError
from ..network import Activation, Add, BatchNorm, Conv2d, GlobalSumPool, Input, Linear, Network, Node, Op
from ..precision import scaled_weight_quantizer, symmetric_activation, weight_quantizer
from ..quantizers import Levels, Quantizer
from ..quantizers.real import Real
from ..quantizers.uniform import Uniform
from . import SearchSpace

UNSCALED = ("float", "binary", "ternary")  # precisions whose numbers have no learned scale
FIRST_RANGE = 6.0  # at which an activation starts to clip
POOLED_BITS = 10  # at most, so that float32 holds the sums of the classifier, and fewer bits may be searched


class Resnet(SearchSpace):
    """blocks: of every stage; the network has 2 + 6 * blocks layers in three stages.
    widths: filters of each stage, the first of which does not halve the image.
    weights: of the convolutions: float, binary, ternary, or 2 to 8 bits with a scale for each filter.
    activations: float (the rectifier), binary, ternary, or 2 to 8 bits. Those of bits have learned scales; sums keep
        the positive half of theirs.
    first_last: precision of the weights of the first convolution and of the classifier.
    """

    name = "resnet"

    def __init__(
        self,
        image: tuple[int, int, int],
        classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        blocks: int = 3,
        widths: tuple[int, ...] = (16, 32, 64),
        weights: str = "8",
        activations: str = "8",
        first_last: str = "8",
    ) -> None:
        if blocks < 1 or not widths or min(widths) < 1:
            raise ConfigError(f"resnet: blocks and widths are at least 1, got {blocks} and {list(widths)}")
        zero, deviation = (sum(each) / len(each) for each in (pixel_mean, pixel_std))
        pixels = Input(image, (float(round(zero)),), (1 / deviation,))
        builder = _Builder(pixels, _filters(weights), _values(activations))
        self._network = builder.network(blocks, widths, classes, first_last)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return ()

    def network(self, architecture: Architecture) -> Network:
        return self._network

    def covering(self) -> Iterator[Architecture]:
        yield Architecture(self.name, ())


class _Values(NamedTuple):
    """How activations are rounded: rectified ones, those that are added, and sums (where these do not saturate).

    saturate: the range of sums on the grid of what is added.
    """

    rectified: Quantizer
    added: Quantizer
    sums: Quantizer | None
    saturate: Levels | None = None


def _values(precision: str) -> _Values:
    symmetric = symmetric_activation(precision)
    if precision == "float":
        return _Values(symmetric, Real(), symmetric)
    if precision in UNSCALED:
        return _Values(symmetric, symmetric, symmetric)
    rectified = Uniform(int(precision), signed=False, step="learned", start=FIRST_RANGE)
    added = Uniform(int(precision), step="learned", start=FIRST_RANGE)
    return _Values(rectified, added, None, Levels.between(0, added.levels.highest))


def _filters(precision: str) -> Quantizer:
    """The weights of a convolution, whose filters have scales of their own where there are bits."""
    if precision in UNSCALED:
        return weight_quantizer(precision)
    return Uniform(scaled_weight_quantizer(precision).bits, per_channel=True)


class _Builder:
    """Keys of nodes are stage2/unit1/conv1, .../bn1, .../conv2, .../bn2, .../shortcut_conv, .../shortcut_bn, .../add
    and, where sums do not saturate, .../activation; before them init_block/conv and init_block/bn, behind them output.
    What is added in a stage has the scale stage2/group.
    """

    def __init__(self, pixels: Input, weight: Quantizer, values: _Values) -> None:
        self.weight, self.values = weight, values
        self.nodes = [Node(pixels)]

    def network(self, blocks: int, widths: Sequence[int], classes: int, first_last: str) -> Network:
        at = self._add(Conv2d(widths[0], 3, _filters(first_last), padding="half"), "init_block/conv", 0)
        at = self._normalised(at, self.values.rectified, "init_block/bn")
        channels = widths[0]
        for stage, width in enumerate(widths, start=1):
            for unit in range(1, blocks + 1):
                stride = 2 if unit == 1 and stage > 1 else 1
                at = self._block(at, f"stage{stage}", unit, width, stride, stride > 1 or channels != width)
                channels = width
        at = self._add(self._pool(at), "", at)
        self._add(Linear(classes, scaled_weight_quantizer(first_last), bias=True), "output", at)
        return Network(tuple(self.nodes))

    def _block(self, start: int, stage: str, unit: int, width: int, stride: int, project: bool) -> int:
        values, key, group = self.values, f"{stage}/unit{unit}", f"{stage}/group"
        at = self._add(self._conv(width, 3, stride), f"{key}/conv1", start)
        at = self._normalised(at, values.rectified, f"{key}/bn1")
        at = self._add(self._conv(width, 3), f"{key}/conv2", at)
        at = self._normalised(at, values.added, f"{key}/bn2", group)
        shortcut = start
        if project:
            shortcut = self._add(self._conv(width, 1, stride), f"{key}/shortcut_conv", start)
            shortcut = self._normalised(shortcut, values.added, f"{key}/shortcut_bn", group)
        elif unit == 1 and values.saturate is not None:
            shortcut = self._add(Activation(values.added), group, start)
        at = self._add(Add(values.saturate), f"{key}/add", shortcut, at)
        return at if values.sums is None else self._add(Activation(values.sums), f"{key}/activation", at)

    def _pool(self, at: int) -> GlobalSumPool:
        if self.values.saturate is None:
            return GlobalSumPool()
        _, height, width = Network(tuple(self.nodes)).shapes[at]
        largest = self.values.saturate.highest * height * width
        return GlobalSumPool(max(largest.bit_length() - POOLED_BITS, 0))

    def _conv(self, filters: int, kernel: int, stride: int = 1) -> Conv2d:
        return Conv2d(filters, kernel, self.weight, stride, padding="half")

    def _normalised(self, at: int, activation: Quantizer, key: str, group: str = "") -> int:
        return self._add(BatchNorm(activation, real=True, scale_key=group), key, at)

    def _add(self, op: Op, key: str, *inputs: int) -> int:
        self.nodes.append(Node(op, inputs, key))
        return len(self.nodes) - 1
