"""The networks of BinaryConnect, BinaryNet and QNN at any precision: a space of one architecture, `binaryconnect()`.

Courbariaux et al. 2015, arXiv:1511.00363, and 2016, arXiv:1602.02830; Hubara et al. 2016, arXiv:1609.07061.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from ..architecture import Architecture, Decision
from ..errors import ConfigError
from ..network import Input, Network
from ..networks.binaryconnect import Options, WeightQuantizer, build, hidden_layers
from ..precision import weight_quantizer
from ..quantizers import Quantizer
from ..quantizers.binary import Binary
from ..quantizers.real import Real
from ..quantizers.ternary import Ternary
from . import SearchSpace

MOST_MEMBERS = 64  # of an ensemble


class Binaryconnect(SearchSpace):
    """network: mlp, cnn (after VGG) or lenet.
    layers: hidden ones of the mlp.
    units: of every hidden dense layer.
    filters: of the first convolution of cnn and lenet, to which the others are in proportion.
    weights: none (real numbers), det or stoch (binary, rounded or drawn in each training step), ternary, or 2 to 8
        bits.
    activations: float (the rectifier), binary, ternary, or 2 to 8 bits.
    evaluated: how weights of stoch are evaluated: published (as real), real, binary (their signs), or ensemble, the
        mean output of networks with drawn signs.
    members: of that ensemble, a power of two.
    h: H of binary and ternary weights, glorot for that of each layer.
    epsilon: of the normalisations.
    input_dropout, hidden_dropout: rates before the first layer and behind every hidden one.
    output_bits: of the outputs where the deployed network is in integers; they are real in training.
    """

    name = "binaryconnect"

    def __init__(
        self,
        image: tuple[int, int, int],
        classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        network: Literal["mlp", "cnn", "lenet"] = "mlp",
        layers: int = 3,
        units: int = 1024,
        filters: int = 128,
        weights: str = "det",
        activations: str = "float",
        evaluated: Literal["published", "real", "binary", "ensemble"] = "published",
        members: int = 8,
        h: float | Literal["glorot"] = 1.0,
        epsilon: float = 1e-4,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        output_bits: int = 8,
    ) -> None:
        for name, value, least in (("layers", layers, 1), ("units", units, 1), ("filters", filters, 1)):
            if value < least:
                raise ConfigError(f"binaryconnect: {name} is at least {least}, got {value}")
        for name, rate in (("input_dropout", input_dropout), ("hidden_dropout", hidden_dropout)):
            if not 0 <= rate < 1:
                raise ConfigError(f"binaryconnect: {name} is in [0, 1), got {rate}")
        if not 2 <= members <= MOST_MEMBERS or members & (members - 1):
            raise ConfigError(f"binaryconnect: members is a power of two from 2 to {MOST_MEMBERS}, got {members}")
        if not 2 <= output_bits <= 16:
            raise ConfigError(f"binaryconnect: output_bits is 2 to 16, got {output_bits}")
        if evaluated != "published" and weights != "stoch":
            raise ConfigError(f"evaluated: {evaluated} is of weights: stoch, not of {weights}")
        if h != "glorot" and not 0 < float(h) < math.inf:
            raise ConfigError(f"binaryconnect: h is positive or glorot, got {h}")
        if not 0 < epsilon < math.inf:
            raise ConfigError(f"binaryconnect: epsilon is positive, got {epsilon}")
        self.weights, self.evaluated, self.members, self.h = weights, evaluated, members, h
        self.classes = classes
        zero, deviation = (sum(each) / len(each) for each in (pixel_mean, pixel_std))
        self.image = Input(image, (float(round(zero)),), (1 / deviation,))
        self.options = Options(network, layers, units, filters, activations, epsilon, input_dropout, hidden_dropout)
        self.output_bits = output_bits
        self._trained = self._trained_weights()
        len(self.network(self.architecture(())).shapes)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return ()

    def training_network(self, architecture: Architecture) -> Network:
        return build(self.options, self.image, self.classes, [lambda _: self._trained])

    def network(self, architecture: Architecture) -> Network:
        deployed = self._deployed_weights()
        in_integers = self.options.activations != "float" and deployed[0](0).levels is not None
        options = replace(self.options, output_bits=self.output_bits) if in_integers else self.options
        return build(options, self.image, self.classes, deployed)

    def covering(self) -> Iterator[Architecture]:
        yield Architecture(self.name, ())

    def warnings(self, architecture: Architecture) -> list[str]:
        if self.weights != "stoch":
            return []
        match self.evaluated:
            case "binary":
                return [
                    "trained with drawn signs, evaluated with the signs of the weights: 1 bit per weight; without"
                    " training.calibrate its normalisations do not fit"
                ]
            case "ensemble":
                return [
                    f"trained with drawn signs, evaluated as the mean of {self.members} networks of drawn signs:"
                    f" {self.members} bits per weight"
                ]
            case _:
                return ["trained with drawn signs, evaluated with real weights: 32 bits per weight, not 1"]

    def _trained_weights(self) -> Quantizer:
        match self.weights:
            case "none":
                return Real()
            case "det" | "stoch":
                return Binary(self.h, stochastic=self.weights == "stoch")
            case "ternary":
                return Ternary(self.h)
            case "2" | "3" | "4" | "5" | "6" | "7" | "8":
                return weight_quantizer(self.weights)
            case _:
                raise ConfigError(f"no weights {self.weights!r}: none, det, stoch, ternary, or 2 to 8 bits")

    def _deployed_weights(self) -> list[WeightQuantizer]:
        """The weights of every member of what is deployed."""
        if self.weights != "stoch":
            return [lambda _: self._trained]
        match self.evaluated:
            case "binary":
                return [lambda _: Binary(self.h)]
            case "ensemble":
                count = hidden_layers(self.options) + 1
                return [self._drawn(member * count) for member in range(self.members)]
            case _:
                return [lambda _: Real()]

    def _drawn(self, first: int) -> WeightQuantizer:
        return lambda layer: Binary(self.h, sample=first + layer)
