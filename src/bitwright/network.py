"""A network as data: a graph of operations with known shapes, ranges and quantizers.

One value serves everything: modules.py trains it, costs/ count it, spaces/ produce it, pictures draw it, and
shared weights are kept under its node keys. The set of operations is closed; `assert_never` in each reader names
what a new one must teach.

Every spatial operation pads so that the output measures ceil(input / stride), as "SAME" does in TensorFlow: an odd
amount of padding puts the extra row and column at the bottom and right. Convolutions can also pad as PyTorch's networks
do, by half the kernel on every side; with a stride the two read different pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, assert_never

from .errors import InvalidNetwork
from .quantizers import Fans, Levels, Quantizer
from .quantizers.real import Real

Shape = tuple[int, ...]  # without the batch axis: (C, H, W) or (F,)
Padding = Literal["same", "half"]


@dataclass(frozen=True)
class Input:
    """uint8 images become (pixel - offset) * scale. One offset and scale, or one per channel.

    With integral offsets and a single scale the pixels stay integer codes; otherwise they become real numbers.
    """

    shape: Shape
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1 / 255,)

    @property
    def is_integer(self) -> bool:
        return len(self.scale) == 1 and all(o == int(o) for o in self.offset)


@dataclass(frozen=True)
class Conv2d:
    """Convolution without bias. Several inputs are concatenated by channel, each with its own block of weights.

    blocks: a name for each input's block, so that a supernet shares blocks between different sets of inputs.
    padding: "same", or "half" for (kernel - 1) / 2 zeros on every side, the gaps of a dilated kernel counted.
    groups: into so many equal parts are channels and filters cut, and each filter reads one part; of a single input.
    dilation: taps are so many pixels apart.
    """

    filters: int
    kernel: int
    weight: Quantizer
    stride: int = 1
    blocks: tuple[str, ...] = ("",)
    padding: Padding = "same"
    groups: int = 1
    dilation: int = 1

    @property
    def extent(self) -> int:
        return extent(self.kernel, self.dilation)


@dataclass(frozen=True)
class DepthwiseConv2d:
    """One filter per channel, no bias. padding, dilation: as of Conv2d."""

    kernel: int
    weight: Quantizer
    stride: int = 1
    padding: Padding = "same"
    dilation: int = 1

    @property
    def extent(self) -> int:
        return extent(self.kernel, self.dilation)


@dataclass(frozen=True)
class Linear:
    """A product with a weight matrix. Several inputs are concatenated, each with its own block of weights.

    bias: one number per feature is added. In a quantized network it is rounded to units of the accumulator and clipped
    to as many bits as the accumulator has.
    """

    features: int
    weight: Quantizer
    blocks: tuple[str, ...] = ("",)
    bias: bool = False


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation with gain and offset, then a quantizer: the pair that lowers to thresholds.

    It reads accumulators in integer units and so needs no scale: what the convolution's scales would change,
    the normalisation takes away. With `real` it reads the real numbers that they mean, so that statistics and epsilon
    are those of a float network, whatever the bit widths.
    scale_key: the name of the activation's scale where several nodes share one; the node's own key if empty.
    """

    activation: Quantizer = Real()
    epsilon: float = 1e-5
    real: bool = False
    scale_key: str = ""


@dataclass(frozen=True)
class Activation:
    quantizer: Quantizer


@dataclass(frozen=True)
class MaxPool2d:
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class AveragePool2d:
    """Mean over the window, padding not counted. Its result is real even where the input is integer."""

    kernel: int
    stride: int = 1
    padding: Literal["same", "valid"] = "same"


@dataclass(frozen=True)
class SumPool2d:
    """Sum over the window, padding counted as zero: an average pool whose division is left to the scale."""

    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class GlobalSumPool:
    """Sum over the image, then floor(sum / 2**shift): a global average pool whose division is left to the scale.

    divisor: what the sum is divided by to mean the pooled number; None for the number of pixels, the true average.
    """

    shift: int = 0
    divisor: float | None = None


@dataclass(frozen=True)
class Flatten:
    """The numbers of an image as one vector: all of the first channel row by row, then the second, ..."""


@dataclass(frozen=True)
class Add:
    """Sum of two inputs, clipped to the range of `saturate` where that is given.

    mean: half of the sum is meant. The integers are the same, the halving is left to the scale.
    """

    saturate: Levels | None = None
    mean: bool = False


@dataclass(frozen=True)
class Concat:
    """All inputs, by channel."""


@dataclass(frozen=True)
class Slice:
    """`channels` channels, those from `start` on."""

    channels: int
    start: int = 0


@dataclass(frozen=True)
class PadChannels:
    """As many zeros behind the channels as make them `channels` (Han et al. 2017, arXiv:1610.02915)."""

    channels: int


@dataclass(frozen=True)
class Shuffle:
    """The first channel of every group, then the second of every group, ... (Zhang et al. 2018, arXiv:1707.01083)."""

    groups: int


@dataclass(frozen=True)
class Shift2d:
    """The image moved one pixel up and left; zeros come in at the bottom and right."""


@dataclass(frozen=True)
class DropPath:
    """In training, whole examples are dropped with probability rate * (the run's drop-path rate)."""

    rate: float


@dataclass(frozen=True)
class Dropout:
    """In training, single numbers are dropped with probability `rate`.

    samples: how many copies of the batch, one behind the other, leave it in training, each with draws of its own
    (multi-sample dropout, Inoue 2019, arXiv:1905.09788).
    """

    rate: float
    samples: int = 1


Op = (
    Input
    | Conv2d
    | DepthwiseConv2d
    | Linear
    | BatchNorm
    | Activation
    | MaxPool2d
    | AveragePool2d
    | SumPool2d
    | GlobalSumPool
    | Flatten
    | Add
    | Concat
    | Slice
    | PadChannels
    | Shuffle
    | Shift2d
    | DropPath
    | Dropout
)


@dataclass(frozen=True)
class Node:
    """`key` names the trained tensors of the node; nodes with one key share them."""

    op: Op
    inputs: tuple[int, ...] = ()
    key: str = ""


class Range(NamedTuple):
    """The integers a node can hold, and the bits that store one of them."""

    lowest: int
    highest: int
    bits: int

    @classmethod
    def of(cls, levels: Levels) -> Range:
        return cls(levels.lowest, levels.highest, levels.bits)

    @classmethod
    def between(cls, lowest: int, highest: int) -> Range:
        return cls(lowest, highest, math.ceil(math.log2(highest - lowest + 1)))

    @property
    def magnitude(self) -> int:
        return max(-self.lowest, self.highest)


class WeightShape(NamedTuple):
    """Dimensions of a trained tensor and its fans."""

    name: str
    shape: tuple[int, ...]
    fans: Fans

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Network:
    """Nodes in execution order; `inputs` are positions of earlier nodes; the last node is the output.

    auxiliary: the position of a second set of logits, which training may use and evaluation leaves out.
    Raises InvalidNetwork where the nodes do not fit together.
    """

    nodes: tuple[Node, ...]
    auxiliary: int | None = None

    def __post_init__(self) -> None:
        for position, node in enumerate(self.nodes):
            if any(not 0 <= i < position for i in node.inputs):
                raise InvalidNetwork(f"node {position} reads {node.inputs}, which are not all earlier nodes")
            wanted = _arity(node.op)
            if len(node.inputs) != wanted if wanted is not None else not node.inputs:
                raise InvalidNetwork(
                    f"node {position} ({_name(node.op)}) takes {wanted or 'some'} inputs, got {len(node.inputs)}"
                )
        if self.auxiliary is not None and not 0 <= self.auxiliary < len(self.nodes):
            raise InvalidNetwork(f"the auxiliary output is node {self.auxiliary} of {len(self.nodes)}")

    @cached_property
    def shapes(self) -> list[Shape]:
        """The output shape of every node, without the batch axis."""
        shapes: list[Shape] = []
        for position, node in enumerate(self.nodes):
            try:
                shapes.append(output_shape(node.op, [shapes[i] for i in node.inputs]))
            except (ValueError, IndexError) as mismatch:
                raise InvalidNetwork(f"node {position} ({_name(node.op)} {node.key}): {mismatch}") from None
        return shapes

    @cached_property
    def ranges(self) -> list[Range | None]:
        """The integers every node can hold, whatever the image and the weights; None where it holds reals."""
        ranges: list[Range | None] = []
        for position, node in enumerate(self.nodes):
            ranges.append(
                _range(
                    node.op,
                    [ranges[i] for i in node.inputs],
                    [self.shapes[i] for i in node.inputs],
                    self.shapes[position],
                )
            )
        return ranges

    @cached_property
    def product_ranges(self) -> list[Range | None]:
        """What every Linear can hold before its bias is added; None for all other nodes."""
        return [
            _product([self.ranges[i] for i in node.inputs], node.op.weight, sum(self.shapes[i][0] for i in node.inputs))
            if isinstance(node.op, Linear)
            else None
            for node in self.nodes
        ]

    @cached_property
    def read_as_real(self) -> list[bool]:
        """For every node whether a normalisation reads the real numbers that it means."""
        read = [False] * len(self.nodes)
        for node in self.nodes:
            if isinstance(node.op, BatchNorm) and node.op.real:
                read[node.inputs[0]] = True
        return read

    @cached_property
    def last_use(self) -> list[int]:
        """For every node the position of the last node that reads it (itself if none does)."""
        last = list(range(len(self.nodes)))
        for position, node in enumerate(self.nodes):
            for i in node.inputs:
                last[i] = position
        return last

    @cached_property
    def trunk(self) -> Network:
        """The network without the nodes that only the auxiliary output needs."""
        if self.auxiliary is None:
            return self
        needed = {len(self.nodes) - 1}
        for position in range(len(self.nodes) - 1, -1, -1):
            if position in needed:
                needed.update(self.nodes[position].inputs)
        renumbered = {old: new for new, old in enumerate(sorted(needed))}
        return Network(
            tuple(
                replace(self.nodes[old], inputs=tuple(renumbered[i] for i in self.nodes[old].inputs))
                for old in renumbered
            )
        )

    def weights(self, position: int) -> list[WeightShape]:
        """The weight tensors of a convolution or product, one per block; empty for other operations."""
        node = self.nodes[position]
        inputs = [self.shapes[i] for i in node.inputs]
        match node.op:
            case Conv2d(filters=filters, kernel=k, blocks=blocks, groups=groups):
                area = k * k
                return [
                    WeightShape(
                        _block(node.key, block),
                        (filters, c // groups, k, k),
                        Fans(c // groups * area, filters // groups * area),
                    )
                    for block, (c, _, _) in zip(blocks, inputs, strict=True)
                ]
            case DepthwiseConv2d(kernel=k):
                return [WeightShape(node.key, (inputs[0][0], 1, k, k), Fans(k * k, k * k))]
            case Linear(features=features, blocks=blocks):
                return [
                    WeightShape(_block(node.key, block), (features, size), Fans(size, features))
                    for block, (size,) in zip(blocks, inputs, strict=True)
                ]
            case _:
                return []


def pads(size: int, kernel: int, stride: int, padding: Padding = "same") -> tuple[int, int]:
    """(before, after) padding of one axis of `size` pixels."""
    if padding == "half":
        return (kernel - 1) // 2, (kernel - 1) // 2
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def extent(kernel: int, dilation: int) -> int:
    """Pixels from the first tap of a kernel to its last, both counted."""
    return (kernel - 1) * dilation + 1


def _arity(op: Op) -> int | None:
    """How many inputs an operation takes; None for one or more."""
    match op:
        case Input():
            return 0
        case Add():
            return 2
        case Conv2d(blocks=blocks) | Linear(blocks=blocks):
            return len(blocks)
        case Concat():
            return None
        case _:
            return 1


def _block(key: str, block: str) -> str:
    return f"{key}/{block}" if block else key


def _name(op: Op) -> str:
    return type(op).__name__


def output_shape(op: Op, inputs: Sequence[Shape]) -> Shape:
    """The shape of what `op` puts out; ValueError where it does not fit its inputs."""
    match op:
        case Input(shape=shape):
            if len(shape) not in (1, 3):
                raise ValueError(f"an image has channels, height and width, a vector one size; got {shape}")
            return shape
        case Conv2d(kernel=kernel, padding="half") | DepthwiseConv2d(kernel=kernel, padding="half") if kernel % 2 == 0:
            raise ValueError(f"pads by half of an even kernel, {kernel}")
        case Conv2d(filters=filters, stride=stride, groups=groups):
            if len({s[1:] for s in inputs}) > 1:
                raise ValueError(f"concatenates images of sizes {[s[1:] for s in inputs]}")
            channels, height, width = inputs[0]
            if groups < 1 or (groups > 1 and (len(inputs) > 1 or channels % groups or filters % groups)):
                raise ValueError(f"cuts inputs {[s[0] for s in inputs]} and {filters} filters into {groups} groups")
            return filters, -(-height // stride), -(-width // stride)
        case AveragePool2d(kernel=kernel, stride=stride, padding="valid"):
            channels, height, width = inputs[0]
            if min(height, width) < kernel:
                raise ValueError(f"a {kernel}x{kernel} window does not fit an image of {height}x{width}")
            return channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        case (
            DepthwiseConv2d(stride=stride)
            | MaxPool2d(stride=stride)
            | AveragePool2d(stride=stride)
            | SumPool2d(stride=stride)
        ):
            channels, height, width = inputs[0]
            return channels, -(-height // stride), -(-width // stride)
        case Linear(features=features):
            if any(len(s) != 1 for s in inputs):
                raise ValueError(f"multiplies vectors, got {list(inputs)}")
            return (features,)
        case GlobalSumPool():
            channels, _, _ = inputs[0]
            return (channels,)
        case Flatten():
            return (math.prod(inputs[0]),)
        case Slice(channels=channels, start=start):
            if channels < 1 or not 0 <= start <= inputs[0][0] - channels:
                behind = f" behind {start}" if start else ""
                raise ValueError(f"takes {channels} of {inputs[0][0]} channels{behind}")
            return (channels, *inputs[0][1:])
        case PadChannels(channels=channels):
            if channels < inputs[0][0]:
                raise ValueError(f"pads {inputs[0][0]} channels to {channels}")
            return (channels, *inputs[0][1:])
        case Shuffle(groups=groups):
            if groups < 1 or inputs[0][0] % groups:
                raise ValueError(f"shuffles {inputs[0][0]} channels in {groups} groups")
            return inputs[0]
        case Shift2d():
            if len(inputs[0]) != 3:
                raise ValueError(f"shifts images, got {inputs[0]}")
            return inputs[0]
        case BatchNorm() | Activation() | DropPath() | Dropout():
            return inputs[0]
        case Add():
            if inputs[0] != inputs[1]:
                raise ValueError(f"adds {inputs[0]} to {inputs[1]}")
            return inputs[0]
        case Concat():
            if len({s[1:] for s in inputs}) > 1:
                raise ValueError(f"concatenates images of sizes {[s[1:] for s in inputs]}")
            return (sum(s[0] for s in inputs), *inputs[0][1:])
        case _:
            assert_never(op)


def _range(op: Op, inputs: Sequence[Range | None], shapes: Sequence[Shape], shape: Shape) -> Range | None:
    match op:
        case Input(offset=offset):
            # an image is stored as bytes, whatever is subtracted from it on the way in
            return Range(-int(max(offset)), 255 - int(min(offset)), 8) if op.is_integer else None
        case Conv2d(kernel=k, weight=weight, groups=groups):
            return _product(inputs, weight, sum(s[0] for s in shapes) // groups * k * k)
        case DepthwiseConv2d(kernel=k, weight=weight):
            return _product(inputs, weight, k * k)
        case Linear(weight=weight, bias=bias):
            product = _product(inputs, weight, sum(s[0] for s in shapes))
            if product is None or not bias:
                return product
            added = bias_range(product)
            return Range.between(product.lowest + added.lowest, product.highest + added.highest)
        case BatchNorm(activation=quantizer) | Activation(quantizer=quantizer):
            return None if quantizer.levels is None else Range.of(quantizer.levels)
        case MaxPool2d() | Flatten() | Slice() | Shuffle() | DropPath() | Dropout():
            return inputs[0]
        case AveragePool2d():
            return None
        case SumPool2d(kernel=k):
            return None if inputs[0] is None else _scaled(_with_zero(inputs[0]), k * k)
        case GlobalSumPool(shift=shift):
            if inputs[0] is None:
                return None
            pooled = _scaled(inputs[0], shapes[0][1] * shapes[0][2])
            return Range.between(pooled.lowest >> shift, pooled.highest >> shift) if shift else pooled
        case Add(saturate=saturate):
            if inputs[0] is None or inputs[1] is None:
                return None
            if saturate is not None:
                return Range.between(saturate.lowest, saturate.highest)  # -1 + 1 is 0, which is no binary level
            return Range.between(inputs[0].lowest + inputs[1].lowest, inputs[0].highest + inputs[1].highest)
        case Concat():
            known = [r for r in inputs if r is not None]
            if len(known) < len(inputs):
                return None
            if len(set(known)) == 1:
                return known[0]
            return Range.between(min(r.lowest for r in known), max(r.highest for r in known))
        case PadChannels() | Shift2d():
            return None if inputs[0] is None else _with_zero(inputs[0])
        case _:
            assert_never(op)


def bias_range(product: Range) -> Range:
    """The integers that a bias can be, which is added to products in that range: those of as many bits."""
    return Range(-(2 ** (product.bits - 1)), 2 ** (product.bits - 1) - 1, product.bits)


def _product(inputs: Sequence[Range | None], weight: Quantizer, terms: int) -> Range | None:
    """Bounds of a sum of `terms` products; the terms of the padding are zero."""
    if weight.levels is None:
        return None
    low = high = 0
    for r in inputs:
        if r is None:
            return None
        corners = [a * w for a in (r.lowest, r.highest) for w in (weight.levels.lowest, weight.levels.highest)]
        low, high = min(low, *corners), max(high, *corners)
    return Range.between(terms * low, terms * high)


def _with_zero(r: Range) -> Range:
    """`r` with the zero of the padding."""
    return r if r.lowest <= 0 <= r.highest and r != (-1, 1, 1) else Range.between(min(r.lowest, 0), max(r.highest, 0))


def _scaled(r: Range, terms: int) -> Range:
    return Range.between(terms * r.lowest, terms * r.highest)
