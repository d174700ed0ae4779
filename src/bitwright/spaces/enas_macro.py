"""The macro space of ENAS (Pham et al. 2018, arXiv:1802.03268, section 2.3), over operations of chosen precision.

A network is a stem and L layers, whose outputs are kept: output 0 is the stem's, output l + 1 that of layer l. Layer l
applies an operation to the output before it, l, and may join earlier ones to the result: bit i of its l skip bits takes
output i. 1 + l integers make a layer, the operation and then the bits; L (L + 1) / 2 make an architecture. After two
layers, at thirds, the image is halved, and with it every output that a later layer reads.

Two sets of operations:
    enas    0 convolution 3x3, 1 separable 3x3, 2 convolution 5x5, 3 separable 5x5, 4 average pool, 5 max pool, each
            behind a 1x1 convolution, all of one precision
    mixed   each of the four at each of several precisions, then the pools: the precision is searched

Two wirings:
    classic  as published. In the supernet an operation is 1x1, normalisation, activation and then the convolution,
             normalisation, activation, or the pool; skips are added, and the sum is normalised; channels stay as they
             are. By itself the network is activation, 1x1, normalisation, activation, convolution, normalisation, or
             the pool; skips are concatenated and pass activation, 1x1, normalisation; channels double at reductions.
             Images are halved by a factorized reduction, which has no activation. The published stand-alone network
             had plain convolutions in place of separable ones and no pools.
    integer  convolution, normalisation, quantization. All outputs lie on one grid of integers, on which sums saturate.
             Images are halved by a 2x2 convolution of stride 2, which doubles the channels. The supernet runs the same
             network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from ..architecture import Architecture, Decision
from ..errors import ConfigError, InvalidArchitecture
from ..network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    Input,
    MaxPool2d,
    Network,
    Shape,
    SumPool2d,
)
from ..precision import rectified_activation, symmetric_activation, weight_quantizer
from ..quantizers import Quantizer
from ..quantizers.real import Real
from ..quantizers.uniform import Uniform
from . import SearchSpace
from ._building import Builder, check_choices, check_numbers, check_pixels, check_precisions, check_reductions

SHARED_EPSILON = 1e-3  # of the normalisations behind the convolutions of the published supernet


class Operation(NamedTuple):
    """precision: of the weights; None takes the layers'. weights: what its shared convolutions are kept under."""

    name: str
    kind: Literal["convolution", "separable", "average", "max"]
    kernel: int = 3
    precision: str | None = None
    weights: str = ""

    @property
    def is_pool(self) -> bool:
        return self.kind in ("average", "max")


class Layer(NamedTuple):
    """An operation, and the outputs that are joined to its result: 0 the stem's, l + 1 that of layer l."""

    op: int
    skips: tuple[int, ...]


@dataclass(frozen=True)
class EnasMacro(SearchSpace):
    """The space of one data set.

    image: (C, H, W) of the data set.
    classes: how many classes it has.
    pixel_mean, pixel_std: statistics of its training images per channel, in units of 0 to 255.
    layers: how many.
    filters: channels of the stem and of the first layers.
    reductions: layers, counted from 0, behind which the image is halved; None puts two at thirds as published.
    ops: the set of operations, six of ENAS or mixed in precision.
    precisions: of the convolutions of the mixed set.
    stem_precision: of the first convolution's weights.
    layer_precision: of all other weights, but for the convolutions of the mixed set and the classifier.
    activation_precision: of all activations; None takes layer_precision.
    wiring: how layers are wired, as published or integer throughout.
    share_precisions: in a supernet, whether the precisions of one convolution round the same latent weights. Their
        normalisations are always their own.
    dropout: rate before the classifier in training.
    """

    image: Shape = (1, 8, 8)
    classes: int = 10
    pixel_mean: tuple[float, ...] = (0.0,)
    pixel_std: tuple[float, ...] = (255.0,)
    layers: int = 12
    filters: int = 36
    reductions: tuple[int, ...] | None = None
    ops: Literal["enas", "mixed"] = "mixed"
    precisions: tuple[str, ...] = ("binary", "ternary", "2", "4", "8")
    stem_precision: str = "4"
    layer_precision: str = "ternary"
    activation_precision: str | None = None
    wiring: Literal["classic", "integer"] = "integer"
    share_precisions: bool = True
    dropout: float = 0.0
    name = "enas_macro"

    def __post_init__(self) -> None:
        check_numbers(self, {"layers": 1, "filters": 1, "classes": 2}, self.dropout)
        check_choices(self.name, self.ops, self.wiring)
        given = (self.stem_precision, self.layer_precision, self.activation_precision)
        check_precisions(self.name, given, self.precisions)
        check_reductions(self.name, self.reduction_layers, self.layers, "layers", self.image)
        check_pixels(self.name, self.image, self.pixel_mean, self.pixel_std)
        if self.wiring == "classic" and self.reduction_layers and self.filters % 2:
            raise ConfigError(
                f"{self.name}: a factorized reduction takes an even number of filters, got {self.filters}"
            )

    @cached_property
    def reduction_layers(self) -> tuple[int, ...]:
        if self.reductions is not None:
            return tuple(sorted(self.reductions))
        third = self.layers // 3
        return (third - 1, 2 * third - 1) if third else ()

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        searched = self.precisions if self.ops == "mixed" else (None,)
        kinds: tuple[tuple[str, Literal["convolution", "separable"]], ...] = (
            ("conv", "convolution"),
            ("sep", "separable"),
        )
        convolutions = tuple(
            Operation(name, kind, k, precision, f"{short}{k}x{k}" if self.share_precisions else name)
            for k in (3, 5)
            for short, kind in kinds
            for precision in searched
            for name in [f"{short}{k}x{k}/{precision}" if precision else f"{short}{k}x{k}"]
        )
        pools = Operation("avg3x3", "average", weights="avg3x3"), Operation("max3x3", "max", weights="max3x3")
        return (*convolutions, *pools)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        names = tuple(operation.name for operation in self.operations)
        return tuple(
            decision
            for layer in range(self.layers)
            for decision in (
                Decision(f"layer{layer}/op", names),
                *(Decision(f"layer{layer}/skip{output}", ("none", "skip")) for output in range(layer)),
            )
        )

    def architecture(self, choices: Sequence[int]) -> Architecture:
        if len(choices) != self.layers * (self.layers + 1) // 2:
            raise InvalidArchitecture(
                f"enas_macro with {self.layers} layers takes {self.layers * (self.layers + 1) // 2} integers, the"
                f" operation of each layer and a bit for each output before its input; got {len(choices)}"
            )
        return super().architecture(choices)

    def decoded(self, architecture: Architecture) -> tuple[Layer, ...]:
        starts = (layer * (layer + 1) // 2 for layer in range(self.layers))
        rows = (architecture.choices[start : start + layer + 1] for layer, start in enumerate(starts))
        return tuple(Layer(op, tuple(i for i, bit in enumerate(bits) if bit)) for op, *bits in rows)

    def warnings(self, architecture: Architecture) -> list[str]:
        kinds = {self.operations[layer.op].kind for layer in self.decoded(architecture)}
        if kinds & {"convolution", "separable"}:
            return []
        return [
            f"collapse: no layer has a convolution of more than one pixel, only pools: {' and '.join(sorted(kinds))}"
        ]

    def covering(self) -> Iterator[Architecture]:
        for op in range(len(self.operations)):
            yield Architecture(self.name, tuple(c for layer in range(self.layers) for c in (op, *[1] * layer)))

    def network(self, architecture: Architecture) -> Network:
        return self._build(architecture, _Fixed if self.wiring == "classic" else _Integer)

    def shared_network(self, architecture: Architecture) -> Network:
        return self._build(architecture, _Shared if self.wiring == "classic" else _Integer)

    def _build(self, architecture: Architecture, builder: type[_Builder]) -> Network:
        self.architecture(architecture.choices)
        return builder(self).build(self.decoded(architecture))


class _Builder(Builder, ABC):
    """The skeleton: a stem, layers, and their outputs at every size at which they are read."""

    def __init__(self, space: EnasMacro) -> None:
        super().__init__()
        self.space = space
        self.weight = weight_quantizer(space.layer_precision)
        self._outputs: dict[tuple[int, int], int] = {}  # by number, and how often the image has been halved

    def build(self, layers: Sequence[Layer]) -> Network:
        space, halvings = self.space, 0
        self._outputs[0, 0] = self.stem()
        for number, layer in enumerate(layers):
            channels = self.channels(halvings)
            x = self.operation(space.operations[layer.op], self._output(number, halvings), channels, f"layer{number}")
            if number:
                skips = {i: self._output(i, halvings) for i in layer.skips}
                x = self.joined(x, skips, channels, f"layer{number}/skip")
            self._outputs[number + 1, halvings] = x
            halvings += number in space.reduction_layers
        self.classifier([self._output(space.layers, halvings)], space.classes, self.last_weight, space.dropout)
        return Network(tuple(self.nodes))

    def _output(self, number: int, halvings: int) -> int:
        """The node of an output whose image has been halved so often."""
        if (number, halvings) not in self._outputs:
            x = self._output(number, halvings - 1)
            key = f"reduction{halvings - 1}/output{number}"
            self._outputs[number, halvings] = self.halved(x, self.channels(halvings), key)
        return self._outputs[number, halvings]

    def channels(self, halvings: int) -> int:
        return self.space.filters << halvings

    def weight_of(self, operation: Operation) -> Quantizer:
        return weight_quantizer(operation.precision or self.space.layer_precision)

    @property
    def activation_name(self) -> str:
        return self.space.activation_precision or self.space.layer_precision

    @property
    def last_weight(self) -> Quantizer:
        return Real()

    @abstractmethod
    def stem(self) -> int:
        """Output 0."""

    @abstractmethod
    def operation(self, operation: Operation, x: int, channels: int, key: str) -> int:
        """An operation on x."""

    @abstractmethod
    def joined(self, x: int, skips: dict[int, int], channels: int, key: str) -> int:
        """What becomes of x, the result of a layer, and the outputs that skip to it, nodes by number."""

    @abstractmethod
    def halved(self, x: int, channels: int, key: str) -> int:
        """x with half as many rows and columns."""


class _Classic(_Builder):
    """What the two published forms share."""

    def __init__(self, space: EnasMacro) -> None:
        super().__init__(space)
        self.activation = symmetric_activation(self.activation_name)

    def stem(self) -> int:
        space = self.space
        x = self.add(Input(space.image, space.pixel_mean, tuple(1 / s for s in space.pixel_std)))
        x = self.add(Conv2d(space.filters, 3, weight_quantizer(space.stem_precision)), x, key="stem")
        return self.add(BatchNorm(), x, key="stem/norm")

    def halved(self, x: int, channels: int, key: str) -> int:
        return self.factorized_reduction(x, channels, self.weight, key)

    def bottleneck(self, operation: Operation, x: int, channels: int, latent: str, own: str) -> int:
        """The 1x1 convolution before an operation, its normalisation and activation."""
        x = self.add(Conv2d(channels, 1, self.weight_of(operation)), x, key=f"{latent}/in")
        return self.add(BatchNorm(self.activation), x, key=f"{own}/in/norm")

    def pooled_or_convolved(self, operation: Operation, x: int, channels: int, latent: str) -> int:
        weight = self.weight_of(operation)
        match operation.kind:
            case "average":
                return self.add(AveragePool2d(3), x)
            case "max":
                return self.add(MaxPool2d(3), x)
            case "convolution":
                return self.add(Conv2d(channels, operation.kernel, weight), x, key=f"{latent}/conv")
            case "separable":
                x = self.add(DepthwiseConv2d(operation.kernel, weight), x, key=f"{latent}/depthwise")
                return self.add(Conv2d(channels, 1, weight), x, key=f"{latent}/pointwise")


class _Shared(_Classic):
    """The published supernet's networks."""

    def channels(self, halvings: int) -> int:
        return self.space.filters

    def operation(self, operation: Operation, x: int, channels: int, key: str) -> int:
        latent, own = f"{key}/{operation.weights}", f"{key}/{operation.name}"
        x = self.bottleneck(operation, x, channels, latent, own)
        x = self.pooled_or_convolved(operation, x, channels, latent)
        if operation.is_pool:
            return x
        return self.add(BatchNorm(self.activation, SHARED_EPSILON), x, key=f"{own}/norm")

    def joined(self, x: int, skips: dict[int, int], channels: int, key: str) -> int:
        for skip in skips.values():
            x = self.add(Add(), x, skip)
        return self.add(BatchNorm(), x, key=f"{key}/norm")


class _Fixed(_Classic):
    """The published stand-alone networks."""

    def __init__(self, space: EnasMacro) -> None:
        super().__init__(space)
        self._activated: dict[int, int] = {}

    def operation(self, operation: Operation, x: int, channels: int, key: str) -> int:
        latent, own = f"{key}/{operation.weights}", f"{key}/{operation.name}"
        x = self.bottleneck(operation, self._active(x), channels, latent, own)
        x = self.pooled_or_convolved(operation, x, channels, latent)
        return x if operation.is_pool else self.add(BatchNorm(), x, key=f"{own}/norm")

    def joined(self, x: int, skips: dict[int, int], channels: int, key: str) -> int:
        blocks = (*(f"from{number}" for number in skips), "own")
        op = Conv2d(channels, 1, self.weight, blocks=blocks)
        x = self.add(op, *(self._active(node) for node in (*skips.values(), x)), key=key)
        return self.add(BatchNorm(), x, key=f"{key}/norm")

    def _active(self, x: int) -> int:
        if x not in self._activated:
            self._activated[x] = self.add(Activation(self.activation), x, key=f"act{x}")
        return self._activated[x]


class _Integer(_Builder):
    """Convolution, normalisation, quantization; one grid of integers throughout."""

    def __init__(self, space: EnasMacro) -> None:
        super().__init__(space)
        self.grid = rectified_activation(self.activation_name)

    @property
    def last_weight(self) -> Quantizer:
        return Real() if self.grid.levels is None else Uniform(8)

    def stem(self) -> int:
        space = self.space
        zero = round(sum(space.pixel_mean) / len(space.pixel_mean))
        x = self.add(Input(space.image, offset=(float(zero),)))
        return self._normalised(Conv2d(space.filters, 3, weight_quantizer(space.stem_precision)), x, "stem", "stem")

    def operation(self, operation: Operation, x: int, channels: int, key: str) -> int:
        latent, own = f"{key}/{operation.weights}", f"{key}/{operation.name}"
        weight = self.weight_of(operation)
        x = self._normalised(Conv2d(channels, 1, weight), x, f"{latent}/in", f"{own}/in")
        match operation.kind:
            case "max":
                return self.add(MaxPool2d(3), x)
            case "average":
                return self.add(Activation(self.grid), self.add(SumPool2d(3), x), key=f"{own}/mean")
            case "convolution":
                return self._normalised(Conv2d(channels, operation.kernel, weight), x, f"{latent}/conv", f"{own}/conv")
            case "separable":
                depthwise = DepthwiseConv2d(operation.kernel, weight)
                x = self._normalised(depthwise, x, f"{latent}/depthwise", f"{own}/depthwise")
                return self._normalised(Conv2d(channels, 1, weight), x, f"{latent}/pointwise", f"{own}/pointwise")

    def joined(self, x: int, skips: dict[int, int], channels: int, key: str) -> int:
        for skip in skips.values():
            x = self.add(Add(self.grid.levels), x, skip)
        return x

    def halved(self, x: int, channels: int, key: str) -> int:
        return self._normalised(Conv2d(channels, 2, self.weight, 2), x, key, key)

    def _normalised(self, op: Conv2d | DepthwiseConv2d, x: int, latent: str, own: str) -> int:
        return self.add(BatchNorm(self.grid), self.add(op, x, key=latent), key=f"{own}/norm")
