"""Networks of inverted residual blocks (Sandler et al. 2018, arXiv:1801.04381), in float and quantized.

A block list says what the blocks are; `build` makes the network, at any bit widths, from that one definition. The
quantized form is the one of Pappalardo's entry to the MicroNet challenge (2019): all activations of a residual group
share one learned scale, so that the sum of two is an integer sum and its requantization a saturation; what a depthwise
convolution reads has a scale per channel; the average pool is a sum and a shift.

A block is up to three convolutions, each with a normalisation: bc (1x1, expands), dw (depthwise), pw (1x1, linear).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..datasets import imagenet
from ..errors import ConfigError
from ..network import (
    Add,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    GlobalSumPool,
    Input,
    Linear,
    Network,
    Node,
    Op,
    Shape,
)
from ..quantizers import Quantizer
from ..quantizers.clipped import Clipped
from ..quantizers.real import Real
from ..quantizers.uniform import Uniform

RELU6 = 6.0


@dataclass(frozen=True)
class Block:
    """filters: channels that come out. expansion: of the channels that come in, 1 leaves the bc convolution out.

    weight_bits: of its convolutions' weights. value_bits: of what passes from one of them to the next. group_bits: of
        what it puts out, and with it of all sums of the residual group that it starts. None takes those of Options.
    name: stands in the keys of its nodes behind that of the unit, as in stage2/unit1/NAME/dw_conv.
    """

    kernel: int
    expansion: int
    filters: int
    stride: int = 1
    shortcut: bool = False
    middle: int | None = None
    weight_bits: int | None = None
    value_bits: int | None = None
    group_bits: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.shortcut and self.group_bits is not None:
            raise ConfigError("group_bits are of a block that starts a residual group; one with a shortcut joins it")

    def middle_of(self, channels: int) -> int:
        return round(channels * self.expansion) if self.middle is None else self.middle


@dataclass(frozen=True)
class BlockList:
    """stem, stem_stride: of the 3x3 convolution at the start. head: filters of the 1x1 convolution at the end.
    channels, resolution: of the image, which is as wide as high.

    stages: blocks in order; None is a block that was left out, which passes its input on.
    """

    stem: int
    stages: tuple[tuple[Block | None, ...], ...]
    head: int
    resolution: int = 224
    epsilon: float = 1e-3
    classes: int = 1000
    stem_stride: int = 2
    channels: int = 3


class Group(NamedTuple):
    """A residual group: the key of its learned scale, and the bits of its sums."""

    key: str
    bits: int


@dataclass(frozen=True)
class Options:
    """How a block list is built.

    quantized: whether there are bit widths at all; the float network has relu6 in place of the quantized relu.
    weight_bits: of 1x1 convolutions and the classifier.
    activation_bits: of what they read; None for as many as weight_bits.
    depthwise_bits: of the weights of depthwise convolutions, and of what these read.
    first_layer_bits: of the weights of the first convolution.
    hard_tanh: where a group's signed activation starts to clip; it is learned.
    clip_residuals: in the float network, clip at +-hard_tanh where the quantized one does; else it is linear there.
    pool: what pooled numbers mean: "shift" the sum divided by the power of two that it is shifted by, "mean" the mean.
        The integers are the same.
    pixels: "centred" (p - 128) / 128; "symmetric" (p - 127.5) / 127.5, in integers (p - 128) / 127.5; "imagenet" by the
        mean and deviation of each channel of ImageNet, which has no integer form.
    dropout, dropout_samples: rate before the classifier, and how many draws of it a training step averages over.
    scale_gradient: of the learned scales, see the quantizer Uniform.
    """

    quantized: bool = True
    weight_bits: int = 4
    activation_bits: int | None = None
    depthwise_bits: int = 4
    first_layer_bits: int = 8
    hard_tanh: float = 10.0
    clip_residuals: bool = False
    pool: Literal["shift", "mean"] = "shift"
    pixels: Literal["centred", "symmetric", "imagenet"] = "centred"
    dropout: float = 0.0
    dropout_samples: int = 1
    scale_gradient: Literal["lsq", "plain"] = "plain"

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1 or self.dropout_samples < 1:
            raise ConfigError(
                f"dropout is in [0, 1) and dropout_samples at least 1, got {self.dropout} and {self.dropout_samples}"
            )
        if self.hard_tanh <= 0:
            raise ConfigError(f"hard_tanh is positive, got {self.hard_tanh}")

    @property
    def values(self) -> int:
        """Bits of the activations of 1x1 convolutions and the classifier."""
        return self.weight_bits if self.activation_bits is None else self.activation_bits

    def weight(self, bits: int, *, per_channel: bool = True) -> Quantizer:
        return Uniform(bits, per_channel=per_channel) if self.quantized else Real()

    def relu(self, bits: int, *, per_channel: bool = False) -> Quantizer:
        if not self.quantized:
            return Clipped(0.0, RELU6)
        return Uniform(
            bits,
            signed=False,
            step="learned",
            per_channel=per_channel,
            start=RELU6,
            scale_gradient=self.scale_gradient,
        )

    def tanh(self, bits: int) -> Quantizer:
        if self.quantized:
            return Uniform(bits, narrow=False, step="learned", start=self.hard_tanh, scale_gradient=self.scale_gradient)
        return Clipped(-self.hard_tanh, self.hard_tanh) if self.clip_residuals else Real()

    def group(self, block: Block, key: str) -> Group:
        """The residual group that a block starts, by the key of the unit."""
        return Group(f"{key}/group", block.group_bits or self.values)

    def input(self, resolution: int, channels: int = 3) -> Input:
        shape = (channels, resolution, resolution)
        match self.pixels:
            case "centred":
                return Input(shape, (128.0,), (1 / 128,))
            case "symmetric":
                return Input(shape, (128.0 if self.quantized else 127.5,), (1 / 127.5,))
            case "imagenet":
                if channels != len(imagenet.MEAN):
                    raise ConfigError(
                        f"pixels: imagenet is of {len(imagenet.MEAN)} channels, the images have {channels}"
                    )
                return Input(shape, imagenet.MEAN, tuple(1 / s for s in imagenet.DEVIATION))


LINEAR_FLOAT = Options(quantized=False, pool="mean")


def build(blocks: BlockList, options: Options, *, classes: int | None = None, resolution: int | None = None) -> Network:
    """The network of a block list. classes, resolution: in place of those of the list.

    Keys of nodes are stage2/unit1/bc_conv, .../bc_bn, .../dw_conv, ..., .../add, before them init_block/conv and
    init_block/bn, behind them final_block/conv, final_block/bn and output.
    """
    start = options.input(resolution or blocks.resolution, blocks.channels)
    builder = _Builder(options, blocks.epsilon, start)
    return builder.network(blocks, classes or blocks.classes)


def segment(
    block: Block, reads: Shape, key: str, group: Group, options: Options, *, epsilon: float = BlockList.epsilon
) -> Network:
    """The convolutions of a block and their normalisations, up to what its shortcut is added to.

    reads: the shape of what it reads, for which an Input of signed bytes stands, or in the float network of reals.
    key: of the unit. group: that the output belongs to.
    """
    builder = _Builder(options, epsilon, Input(reads, (128.0 if options.quantized else 127.5,), (1 / 128,)))
    builder.path(block, 0, key, group)
    return Network(tuple(builder.nodes))


class _Builder:
    def __init__(self, options: Options, epsilon: float, start: Input) -> None:
        self.options, self.epsilon = options, epsilon
        self.nodes: list[Node] = [Node(start)]
        self.channels = start.shape[0]

    def network(self, blocks: BlockList, classes: int) -> Network:
        options = self.options
        stem = self._conv(blocks.stem, 3, options.first_layer_bits, blocks.stem_stride)
        at = self._normalised(self._add(stem, 0, "init_block/conv"), options.relu(options.values), "init_block/bn")
        self.channels = blocks.stem
        group = None
        for i, stage in enumerate(blocks.stages, start=1):
            for j, block in enumerate(stage, start=1):
                key = f"stage{i}/unit{j}"
                if block is None:
                    continue
                if not block.shortcut:
                    group = options.group(block, key)
                if group is None:
                    raise ConfigError(f"{key}: a shortcut starts behind a block, whose activation it shares")
                at = self._block(block, at, key, group)
        at = self._add(self._conv(blocks.head, 1, options.weight_bits), at, "final_block/conv")
        at = self._normalised(at, options.relu(options.values), "final_block/bn")
        at = self._add(self._pool(at), at)
        if options.dropout:
            at = self._add(Dropout(options.dropout, options.dropout_samples), at)
        weight = options.weight(options.weight_bits, per_channel=False)
        self._add(Linear(classes, weight, bias=True), at, "output")
        return Network(tuple(self.nodes))

    def path(self, block: Block, at: int, key: str, group: Group) -> int:
        """A block without its shortcut."""
        options = self.options
        middle = block.middle_of(self.channels)
        pointwise, depthwise = block.weight_bits or options.weight_bits, block.weight_bits or options.depthwise_bits
        key = f"{key}/{block.name}" if block.name else key
        if block.expansion > 1:
            expanded = options.relu(block.value_bits or options.depthwise_bits, per_channel=True)
            at = self._add(self._conv(middle, 1, pointwise), at, f"{key}/bc_conv")
            at = self._normalised(at, expanded, f"{key}/bc_bn")
        weight = options.weight(depthwise)
        at = self._add(DepthwiseConv2d(block.kernel, weight, block.stride, padding="half"), at, f"{key}/dw_conv")
        at = self._normalised(at, options.relu(block.value_bits or options.values), f"{key}/dw_bn")
        at = self._add(self._conv(block.filters, 1, pointwise), at, f"{key}/pw_conv")
        self.channels = block.filters
        return self._normalised(at, options.tanh(group.bits), f"{key}/pw_bn", group.key)

    def _block(self, block: Block, start: int, key: str, group: Group) -> int:
        end = self.path(block, start, key, group)
        return self._add(Add(self.options.tanh(group.bits).levels), start, f"{key}/add", end) if block.shortcut else end

    def _conv(self, filters: int, kernel: int, bits: int, stride: int = 1) -> Conv2d:
        return Conv2d(filters, kernel, self.options.weight(bits), stride, padding="half")

    def _normalised(self, at: int, activation: Quantizer, key: str, group: str = "") -> int:
        return self._add(BatchNorm(activation, self.epsilon, real=True, scale_key=group), at, key)

    def _pool(self, at: int) -> GlobalSumPool:
        """With the shift that brings the largest sum back to the bits of the activations."""
        if not self.options.quantized:
            return GlobalSumPool()
        _, height, width = Network(tuple(self.nodes)).shapes[at]
        largest = (2**self.options.values - 1) * height * width
        shift = math.ceil(math.log2(largest)) - self.options.values
        return GlobalSumPool(shift, 2.0**shift if self.options.pool == "shift" else None)

    def _add(self, op: Op, at: int, key: str = "", *more: int) -> int:
        self.nodes.append(Node(op, (at, *more), key))
        return len(self.nodes) - 1


def parse_block_list(content: Mapping[str, Any]) -> BlockList:
    """A block list in the JSON format of ProxylessNAS (Cai et al. 2019, arXiv:1812.00332), from what the JSON holds.

    A new stage starts at the second block and at every stride of 2. ConfigError names what it cannot mean.
    """
    if content["name"] not in ("ProxylessNASNets", "MobileNetV2"):
        raise ConfigError(f"holds a {content['name']}; a block list is a ProxylessNASNets or a MobileNetV2")
    stages: list[list[Block | None]] = []
    for number, entry in enumerate(content["blocks"]):
        layer, shortcut = entry["mobile_inverted_conv"], entry["shortcut"] is not None
        block = None
        if layer["name"] != "ZeroLayer":
            block = _parse_block(layer, shortcut, f"block {number}")
        elif not shortcut:
            raise ConfigError(f"block {number} is neither a convolution nor a shortcut")
        if number < 2 or (block is not None and block.stride == 2):
            stages.append([])
        stages[-1].append(block)
    _check_layer(content["first_conv"], "first_conv", kernel=3, stride=2)
    _check_layer(content["feature_mix_layer"], "feature_mix_layer", kernel=1, stride=1)
    return BlockList(
        stem=content["first_conv"]["out_channels"],
        stages=tuple(map(tuple, stages)),
        head=content["feature_mix_layer"]["out_channels"],
        resolution=content.get("resolution", 224),
        epsilon=content["bn"]["eps"],
        classes=content["classifier"]["out_features"],
    )


def _parse_block(layer: Mapping[str, Any], shortcut: bool, name: str) -> Block:
    if layer["name"] != "MBInvertedConvLayer":
        raise ConfigError(f"{name} is a {layer['name']}; a block is an MBInvertedConvLayer or a ZeroLayer")
    if layer.get("use_se") or layer.get("act_func", "relu6") != "relu6":
        raise ConfigError(f"{name} has squeeze-and-excitation or an activation other than relu6")
    if shortcut and (layer["stride"] != 1 or layer["in_channels"] != layer["out_channels"]):
        raise ConfigError(f"{name} has a shortcut past a change of size")
    return Block(
        kernel=layer["kernel_size"],
        expansion=layer["expand_ratio"],
        filters=layer["out_channels"],
        stride=layer["stride"],
        shortcut=shortcut,
        middle=layer.get("mid_channels"),
    )


def _check_layer(layer: Mapping[str, Any], name: str, *, kernel: int, stride: int) -> None:
    wanted = {"kernel_size": kernel, "stride": stride, "groups": 1, "dilation": 1, "use_bn": True, "act_func": "relu6"}
    for key, value in wanted.items():
        if layer.get(key, value) != value:
            raise ConfigError(f"{name} has {key} {layer[key]}, not {value}")
