"""The networks that BinaryConnect and its successors were published with, at any precision.

mlp: dense layers of rectifiers on the pixels (Courbariaux et al. 2015, BinaryConnect, arXiv:1511.00363, section 3.1).
cnn: (2x128C3)-MP2-(2x256C3)-MP2-(2x512C3)-MP2-(2x1024FC)-10, after VGG (section 3.2).
lenet: 32C5-MP2-64C5-MP2-1024FC-10, of a TensorFlow port of BinaryConnect.

Every layer is a product without bias, a pool where there is one, and a normalisation with its activation; the output
layer is normalised too. With quantized activations these are the networks of BinaryNet (Courbariaux et al. 2016,
arXiv:1602.02830) and QNN (Hubara et al. 2016, arXiv:1609.07061). Normalisations read real numbers, so that running
statistics fit whatever the weights are at test time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..network import (
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
    Op,
)
from ..precision import symmetric_activation
from ..quantizers import Quantizer
from ..quantizers.real import Real
from ..quantizers.uniform import Uniform

Kind = Literal["mlp", "cnn", "lenet"]
OUTPUT_RANGE = 8.0  # where quantized outputs are clipped; the targets of the squared hinge are +1 and -1
STAGES = 3  # of the cnn, each with twice the filters of the one before
WeightQuantizer = Callable[[int], Quantizer]  # of the layer with that number


@dataclass(frozen=True)
class Options:
    """kind: which network. layers: hidden ones of the mlp. units: of a hidden dense layer.
    filters: of the first convolution; those of later stages are in proportion.
    activations: a name of precision.py; float is the rectifier.
    epsilon: of the normalisations.
    input_dropout, hidden_dropout: rates before the first layer and behind every hidden one.
    output_bits: of the outputs of the deployed network where it is in integers; 0 leaves them real.
    """

    kind: Kind = "mlp"
    layers: int = 3
    units: int = 1024
    filters: int = 128
    activations: str = "float"
    epsilon: float = 1e-4
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    output_bits: int = 0


def build(options: Options, image: Input, classes: int, weights: list[WeightQuantizer]) -> Network:
    """The network that reads `image`, with these weights, or the ensemble of several: the mean of their outputs.

    Tensors have the names conv1, conv2, ..., dense1, ..., output, and normalisations conv1/norm, ...: the members of an
    ensemble share them. The number of members is a power of two.
    """
    builder = _Builder(options, image)
    outputs = [builder.member(classes, quantizer) for quantizer in weights]
    while len(outputs) > 1:
        pairs = zip(outputs[::2], outputs[1::2], strict=True)
        outputs = [builder.add(Add(mean=True), left, right) for left, right in pairs]
    return Network(tuple(builder.nodes))


def hidden_layers(options: Options) -> int:
    """Layers with weights, the output layer left out."""
    match options.kind:
        case "mlp":
            return options.layers
        case "cnn":
            return 2 * STAGES + 2
        case "lenet":
            return 3


class _Builder:
    def __init__(self, options: Options, image: Input) -> None:
        self.options = options
        self.activation = symmetric_activation(options.activations)
        self.nodes: list[Node] = [Node(image)]
        self.at = self.convolutions = self.denses = 0  # of the member that is being built
        self.quantizer: WeightQuantizer

    def add(self, op: Op, *inputs: int, key: str = "") -> int:
        self.nodes.append(Node(op, inputs, key))
        return len(self.nodes) - 1

    def member(self, classes: int, quantizer: WeightQuantizer) -> int:
        """One whole network on the pixels; the position of its outputs."""
        options, self.quantizer = self.options, quantizer
        self.at = self.convolutions = self.denses = 0
        self._put(Dropout(options.input_dropout), options.input_dropout > 0)
        match options.kind:
            case "mlp":
                self._put(Flatten())
                for _ in range(options.layers):
                    self._dense(options.units)
            case "cnn":
                for stage in range(STAGES):
                    self._convolution(options.filters * 2**stage, 3)
                    self._convolution(options.filters * 2**stage, 3, pool=True)
                self._put(Flatten())
                self._dense(options.units)
                self._dense(options.units)
            case "lenet":
                self._convolution(options.filters, 5, pool=True)
                self._convolution(2 * options.filters, 5, pool=True)
                self._put(Flatten())
                self._dense(options.units)
        self._put(Linear(classes, quantizer(self.convolutions + self.denses)), key="output")
        bits = options.output_bits
        last = Uniform(bits, step=OUTPUT_RANGE * 2.0 ** (1 - bits)) if bits else Real()
        self._put(BatchNorm(last, options.epsilon, real=True), key="output/norm")
        return self.at

    def _convolution(self, filters: int, kernel: int, *, pool: bool = False) -> None:
        weight = self.quantizer(self.convolutions)
        self.convolutions += 1
        key = f"conv{self.convolutions}"
        self._put(Conv2d(filters, kernel, weight), key=key)
        self._put(MaxPool2d(2, 2), pool)
        self._activated(key)

    def _dense(self, units: int) -> None:
        weight = self.quantizer(self.convolutions + self.denses)
        self.denses += 1
        key = f"dense{self.denses}"
        self._put(Linear(units, weight), key=key)
        self._activated(key)

    def _activated(self, key: str) -> None:
        self._put(BatchNorm(self.activation, self.options.epsilon, real=True), key=f"{key}/norm")
        self._put(Dropout(self.options.hidden_dropout), self.options.hidden_dropout > 0)

    def _put(self, op: Op, wanted: bool = True, *, key: str = "") -> None:
        if wanted:
            self.at = self.add(op, self.at, key=key)
