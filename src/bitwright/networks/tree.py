"""Residual networks whose cells are trees of layers: ProxylessNAS's network for CIFAR-10 (arXiv:1812.00332).

A node of a tree (Cai et al. 2018, arXiv:1806.02639) hands its input, or a part of it, to each of its branches and adds
or joins what they make of it. A branch is a layer, its edge, and behind it another node, its child. A residual block
is a cell between two layers; where it widens, its shortcut is padded with zeros (Han et al. 2017, arXiv:1610.02915).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never, get_args

from ..errors import ConfigError
from ..network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    GlobalSumPool,
    Linear,
    MaxPool2d,
    Network,
    Node,
    Op,
    PadChannels,
    Shape,
    Shuffle,
    Slice,
    output_shape,
    pads,
)
from ..quantizers import Quantizer
from ..quantizers.clipped import Clipped
from ..quantizers.real import Real
from ..quantizers.relu import Relu
from .inverted_residual import RELU6, Options

Kind = Literal["conv", "separable", "max", "avg", "identity"]
Split = Literal["copy", "split"]
Merge = Literal["add", "concat"]
Rectifier = Literal["relu", "relu6"]
LAYERS = {"ConvLayer": "conv", "DepthConvLayer": "separable", "PoolingLayer": "pool", "IdentityLayer": "identity"}


@dataclass(frozen=True)
class Layer:
    """A layer with an optional normalisation and an optional rectifier.

    kind: a convolution; a separable one, that is depthwise and then 1x1; a pool; or nothing but those two.
    channels, filters: that come in and that go out.
    groups: of the convolution, in a separable one of the 1x1 part. shuffle: whether their channels are mixed after it.
    order: in which normalisation (bn), rectifier (act) and the operation itself (weight) follow each other.
    """

    kind: Kind
    channels: int
    filters: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    shuffle: bool = False
    normalised: bool = False
    activation: Rectifier | None = None
    order: tuple[str, ...] = ("bn", "act", "weight")


@dataclass(frozen=True)
class Branch:
    """An edge and the node behind it; None is one that passes its input on."""

    edge: Layer | None
    child: Tree | None = None


@dataclass(frozen=True)
class Tree:
    """A node. split: a copy of the input to every branch, or to each its part of the channels; None for one branch.

    merge: the sum of the branches, or their concatenation; None for one branch.
    branch_norms: whether a branch is the sum of what its edge makes and the normalised output of its child.
    """

    branches: tuple[Branch, ...]
    split: Split | None = None
    merge: Merge | None = None
    branch_norms: bool = False


@dataclass(frozen=True)
class ResidualTree:
    """The sum of a shortcut and a cell between two layers. norm: whether the cell's end is normalised."""

    shortcut: Layer
    cell: Tree
    in_bottle: Layer | None = None
    out_bottle: Layer | None = None
    norm: bool = True


@dataclass(frozen=True)
class TreeNet:
    """Blocks are residual trees or plain sequences of layers. They end with one pixel, which the classifier reads.

    dropout: rate before the classifier. bias: of the classifier.
    """

    blocks: tuple[ResidualTree | tuple[Layer, ...], ...]
    resolution: int = 32
    epsilon: float = 1e-5
    classes: int = 10
    dropout: float = 0.0
    bias: bool = True


def build(net: TreeNet, options: Options, *, classes: int | None = None, resolution: int | None = None) -> Network:
    """The float network; of the options it takes those of pixels and dropout. classes, resolution: in place of its own.

    Keys of nodes are the paths of ProxylessNAS's modules, blocks/1/cell/edges/0/bn, and output for the classifier.
    ConfigError where layers do not fit together, and for options.quantized.
    """
    if options.quantized:
        raise ConfigError("a PyramidTreeNet has no quantized form; build it with quantized: false")
    return _Builder(net, options, resolution or net.resolution).network(classes or net.classes)


class _Builder:
    def __init__(self, net: TreeNet, options: Options, resolution: int) -> None:
        self.net, self.options = net, options
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = []
        self._add(options.input(resolution))

    def network(self, classes: int) -> Network:
        net, options, at = self.net, self.options, 0
        for number, block in enumerate(net.blocks):
            key = f"blocks/{number}"
            if isinstance(block, ResidualTree):
                at = self._residual(block, at, key)
            else:
                for i, layer in enumerate(block):
                    at = self._layer(layer, at, f"{key}/layers/{i}")
        left = self.shapes[at][1:]
        if left != (1, 1):
            raise ConfigError(
                f"images of {self.shapes[0][1]} pixels leave {left[0]}x{left[1]} before the classifier, which reads one"
            )
        at = self._add(GlobalSumPool(), at)
        if rate := options.dropout or net.dropout:
            at = self._add(Dropout(rate, options.dropout_samples), at)
        self._add(Linear(classes, Real(), bias=net.bias), at, key="output")
        return Network(tuple(self.nodes))

    def _residual(self, block: ResidualTree, start: int, key: str) -> int:
        shortcut, at = self._layer(block.shortcut, start, f"{key}/shortcut"), start
        if block.in_bottle is not None:
            at = self._layer(block.in_bottle, at, f"{key}/in_bottle")
        at = self._tree(block.cell, at, f"{key}/cell")
        if block.out_bottle is not None:
            at = self._layer(block.out_bottle, at, f"{key}/out_bottle")
        if block.norm:
            at = self._normalised(at, Real(), f"{key}/final_bn")
        channels = self.shapes[at][0]
        if self.shapes[shortcut][0] != channels:
            shortcut = self._add(PadChannels(channels), shortcut, key=f"{key}/pad")
        return self._add(Add(), shortcut, at, key=f"{key}/add")

    def _tree(self, tree: Tree, start: int, key: str) -> int:
        ends = []
        for i, (branch, at) in enumerate(zip(tree.branches, self._allocated(tree, start, key), strict=True)):
            if branch.edge is not None:
                at = self._layer(branch.edge, at, f"{key}/edges/{i}")
            edge = at
            if branch.child is not None:
                at = self._tree(branch.child, at, f"{key}/child_nodes/{i}")
            if tree.branch_norms:
                at = self._normalised(at, Real(), f"{key}/branch_bns/{i}")
                at = self._add(Add(), at, edge, key=f"{key}/residuals/{i}")
            ends.append(at)
        return self._merged(tree, ends, key)

    def _allocated(self, tree: Tree, at: int, key: str) -> list[int]:
        """What each branch reads."""
        count = len(tree.branches)
        if tree.split != "split":
            return [at] * count
        (channels, *_), parts, start = self.shapes[at], [], 0
        for i in range(count):
            size = channels // count + (i < channels % count)
            parts.append(self._add(Slice(size, start), at, key=f"{key}/split/{i}"))
            start += size
        return parts

    def _merged(self, tree: Tree, ends: list[int], key: str) -> int:
        if len(ends) == 1:
            return ends[0]
        if tree.merge == "concat":
            return self._add(Concat(), *ends, key=f"{key}/concat")
        at = ends[0]
        for i, end in enumerate(ends[1:], 1):
            at = self._add(Add(), at, end, key=f"{key}/add/{i}")
        return at

    def _layer(self, layer: Layer, at: int, key: str) -> int:
        channels = self.shapes[at][0]
        if channels != layer.channels:
            raise ConfigError(f"{key} takes {layer.channels} channels and gets {channels}")
        fused = layer.normalised and "bn_act" in "_".join(layer.order)
        for step in layer.order:
            if step == "weight":
                at = self._operation(layer, at, key)
            elif step == "bn" and layer.normalised:
                at = self._normalised(at, _rectifier(layer.activation if fused else None), f"{key}/bn")
            elif step == "act" and layer.activation is not None and not fused:
                at = self._add(Activation(_rectifier(layer.activation)), at, key=f"{key}/act")
        return at

    def _operation(self, layer: Layer, at: int, key: str) -> int:
        kernel, stride, dilation, real = layer.kernel, layer.stride, layer.dilation, Real()
        match layer.kind:
            case "identity":
                return at
            case "conv":
                conv = Conv2d(layer.filters, kernel, real, stride, ("",), "half", layer.groups, dilation)
                at = self._add(conv, at, key=f"{key}/conv")
            case "separable":
                at = self._add(DepthwiseConv2d(kernel, real, stride, "half", dilation), at, key=f"{key}/depth_conv")
                at = self._add(Conv2d(layer.filters, 1, real, groups=layer.groups), at, key=f"{key}/point_conv")
            case "avg":
                at = self._add(AveragePool2d(kernel, stride, "same" if stride == 1 else "valid"), at, key=f"{key}/pool")
            case "max":
                if stride > 1 and any(pads(size, kernel, stride) != (0, 0) for size in self.shapes[at][1:]):
                    raise ConfigError(f"{key} does not tile {self.shapes[at]} with windows of {kernel}, {stride} apart")
                at = self._add(MaxPool2d(kernel, stride), at, key=f"{key}/pool")
            case _:
                assert_never(layer.kind)
        return self._add(Shuffle(layer.groups), at, key=f"{key}/shuffle") if layer.shuffle and layer.groups > 1 else at

    def _normalised(self, at: int, activation: Quantizer, key: str) -> int:
        return self._add(BatchNorm(activation, self.net.epsilon, real=True), at, key=key)

    def _add(self, op: Op, *inputs: int, key: str = "") -> int:
        try:
            self.shapes.append(output_shape(op, [self.shapes[i] for i in inputs]))
        except ValueError as mismatch:
            raise ConfigError(f"{key} {mismatch}") from None
        self.nodes.append(Node(op, inputs, key))
        return len(self.nodes) - 1


def _rectifier(activation: Rectifier | None) -> Quantizer:
    match activation:
        case "relu":
            return Relu()
        case "relu6":
            return Clipped(0.0, RELU6)
        case None:
            return Real()
        case _:
            assert_never(activation)


def parse_tree_net(content: Mapping[str, Any]) -> TreeNet:
    """A PyramidTreeNet in the JSON format of ProxylessNAS. ConfigError names what it cannot mean.

    Cells and paths that are dropped in training are not read.
    """
    if content["name"] != "PyramidTreeNet":
        raise ConfigError(f"holds a {content['name']}, not a PyramidTreeNet")
    if content.get("cell_drop_rate"):
        raise ConfigError(f"drops cells in training (cell_drop_rate {content['cell_drop_rate']}), which is not read")
    settings = content.get("tree_node_config") or {}
    classifier = content["classifier"]
    if classifier["name"] != "LinearLayer" or classifier.get("use_bn") or classifier.get("act_func"):
        raise ConfigError("the classifier is no LinearLayer, or has a normalisation or an activation")
    return TreeNet(
        blocks=tuple(_parse_block(block, settings, f"blocks/{i}") for i, block in enumerate(content["blocks"])),
        epsilon=content.get("bn", {}).get("eps", 1e-5),
        classes=classifier["out_features"],
        dropout=classifier.get("dropout_rate", 0.0),
        bias=classifier.get("bias", True),
    )


def _parse_block(
    content: Mapping[str, Any], settings: Mapping[str, Any], name: str
) -> ResidualTree | tuple[Layer, ...]:
    match content["name"]:
        case "TransitionBlock":
            return tuple(_parse_layer(layer, f"{name}/layers/{i}") for i, layer in enumerate(content["layers"]))
        case "ResidualTreeBlock":
            return ResidualTree(
                _parse_layer(content["shortcut"], f"{name}/shortcut"),
                _parse_cell(content["cell"], settings, f"{name}/cell"),
                _parse_optional(content["in_bottle"], f"{name}/in_bottle"),
                _parse_optional(content["out_bottle"], f"{name}/out_bottle"),
                bool(content.get("final_bn")),
            )
        case other:
            raise ConfigError(f"{name} is a {other}; a block is a TransitionBlock or a ResidualTreeBlock")


def _parse_cell(content: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> Tree:
    """A cell; `settings` replace those of the nodes below its first child, and only that child has branch norms."""
    first, *others = content["child_nodes"]
    if first is not None:
        first = _settled(first, settings)
    return _parse_tree({**content, "child_nodes": [first, *others]}, name)


def _settled(content: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    below = {**settings, "has_branch_bn": False}
    children = [None if child is None else _settled(child, below) for child in content["child_nodes"]]
    return {**content, **settings, "child_nodes": children}


def _parse_tree(content: Mapping[str, Any], name: str) -> Tree:
    edges, children = content["edges"], content["child_nodes"]
    if len(edges) != len(children):
        raise ConfigError(f"{name} has {len(edges)} edges and {len(children)} child nodes")
    if content.get("path_drop_rate"):
        raise ConfigError(f"{name} drops paths in training (path_drop_rate {content['path_drop_rate']})")
    split, merge = content.get("split_type", "copy"), content.get("merge_type", "add")
    if split not in (None, *get_args(Split)) or merge not in (None, *get_args(Merge)):
        raise ConfigError(f"{name} splits by {split} and merges by {merge}; they are copy, split and add, concat")
    if not edges or (len(edges) > 1 and None in (split, merge)):
        raise ConfigError(f"{name} has {len(edges)} edges, splits by {split} and merges by {merge}")
    branches = (
        Branch(
            _parse_optional(edge, f"{name}/edges/{i}"),
            None if child is None else _parse_tree(child, f"{name}/child_nodes/{i}"),
        )
        for i, (edge, child) in enumerate(zip(edges, children, strict=True))
    )
    return Tree(tuple(branches), split, merge, bool(content.get("has_branch_bn")))


def _parse_optional(content: Mapping[str, Any] | None, name: str) -> Layer | None:
    return None if content is None else _parse_layer(content, name)


def _parse_layer(content: Mapping[str, Any], name: str) -> Layer:
    kind: Any = LAYERS.get(content["name"])
    if kind is None:
        raise ConfigError(f"{name} is a {content['name']}; a layer is one of {', '.join(LAYERS)}")
    if kind == "pool":
        kind = content["pool_type"]
    order, activation = tuple(content["ops_order"].split("_")), content["act_func"]
    kernel, stride = content.get("kernel_size", 1), content.get("stride", 1)
    centred = stride == 1 or kind in ("conv", "separable")
    wrong = {
        "a bias": content.get("bias"),
        "dropout": content.get("dropout_rate"),
        f"the activation {activation}": activation not in (None, *get_args(Rectifier)),
        f"the order {content['ops_order']}": sorted(order) != ["act", "bn", "weight"],
        f"the kind {kind}": kind not in get_args(Kind),
        f"a kernel of {kernel}": type(kernel) is not int or (centred and kernel % 2 == 0),
    }
    for what, present in wrong.items():
        if present:
            raise ConfigError(f"{name} has {what}, which is not read")
    return Layer(
        kind,
        content["in_channels"],
        content["out_channels"],
        kernel,
        stride,
        content.get("dilation", 1),
        content.get("groups", 1),
        content.get("has_shuffle", False),
        content["use_bn"],
        activation,
        order,
    )
