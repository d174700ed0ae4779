"""A published ProxylessNAS network at any bit widths: a space of one architecture, `proxylessnas()`.

Cai et al. 2019, arXiv:1812.00332; quantized as the MicroNet entry of Pappalardo (2019) did with the network mobile14.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..architecture import Architecture, Decision
from ..errors import ConfigError
from ..network import Network
from ..networks import PUBLISHED, build, read
from ..networks.inverted_residual import BlockList, Options
from ..networks.tree import TreeNet
from . import SearchSpace


class Proxylessnas(SearchSpace):
    """network: mobile14, mobile, cpu, gpu, cifar, mobilenetv2-1.0, mobilenetv2-1.4, or a block list in a JSON file.

    quantized: whether there are bit widths at all, or the network is float; cifar and other trees are float only.
    weight_bits: of 1x1 convolutions and the classifier.
    activation_bits: of what they read; 0 for as many as weight_bits.
    depthwise_bits: of the weights of depthwise convolutions, and of what these read.
    first_layer_bits: of the weights of the first convolution.
    hard_tanh: where the signed activation of a residual group starts to clip.
    clip_residuals: clip there in the float network too.
    pool: what pooled numbers mean, shift (the sum divided by the power of two it is shifted by) or mean.
    pixels: centred is (p - 128) / 128, symmetric (p - 127.5) / 127.5, imagenet by ImageNet's mean and deviation.
    dropout: rate before the classifier.
    dropout_samples: draws of it that a training step averages over.
    scale_gradient: of the learned scales, plain or lsq.
    """

    name = "proxylessnas"

    def __init__(
        self,
        image: tuple[int, int, int],
        classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        network: str = "mobile14",
        quantized: bool = True,
        weight_bits: int = 4,
        activation_bits: int = 0,
        depthwise_bits: int = 4,
        first_layer_bits: int = 8,
        hard_tanh: float = 10.0,
        clip_residuals: bool = False,
        pool: Literal["shift", "mean"] = "shift",
        pixels: Literal["centred", "symmetric", "imagenet"] = "centred",
        dropout: float = 0.0,
        dropout_samples: int = 1,
        scale_gradient: Literal["lsq", "plain"] = "plain",
    ) -> None:
        channels, height, width = image
        if channels != 3 or height != width:
            raise ConfigError(f"proxylessnas takes square images of three channels, got {image}")
        self.block_list = _block_list(network)
        self.classes, self.resolution = classes, height
        self.options = Options(
            quantized, weight_bits, activation_bits or None, depthwise_bits, first_layer_bits, hard_tanh,
            clip_residuals, pool, pixels, dropout, dropout_samples, scale_gradient,
        )  # fmt: skip

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return ()

    def network(self, architecture: Architecture) -> Network:
        return self._built(self.options)

    def float_network(self) -> Network:
        """The same network in float, with the same names of tensors."""
        return self._built(dataclasses.replace(self.options, quantized=False))

    def covering(self) -> Iterator[Architecture]:
        yield Architecture(self.name, ())

    def _built(self, options: Options) -> Network:
        return build(self.block_list, options, classes=self.classes, resolution=self.resolution)


def _block_list(name: str) -> BlockList | TreeNet:
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name.endswith(".json") or Path(name).is_file():
        return read(Path(name))
    raise ConfigError(f"no network {name!r}: {', '.join(PUBLISHED)}, or the JSON file of a block list")
