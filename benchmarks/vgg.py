"""The network that inference is measured on: VGG-like, for CIFAR-10's images, as an integer graph.

3x3 convolutions of 64, 64, pool, 128, 128, pool, 256, 256 channels, pool, global pool, classifier: 152.8 million
multiplications. Weights are random; thresholds are at quantiles of what reaches them, so that activations are as varied
as a trained network's, and on lines, as those of a normalisation are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from bitwright.integer.graph import (
    Conv,
    Edge,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Op,
    Requantize,
)
from bitwright.integer.lower import requantization, thresholds_on
from bitwright.integer.run import Executor
from bitwright.normalisation import finest_factor, line
from bitwright.quantizers.uniform import Uniform

Bits = Literal["binary", "ternary", "4", "8"]
CHANNELS = (64, 64, 128, 128, 256, 256)
IMAGE = (3, 32, 32)
CLASSES = 10
SAMPLES = 4  # images that thresholds are placed with


def vgg_like(bits: Bits, seed: int = 0) -> IntegerGraph:
    """binary, ternary: weights; activations are -1 and +1. 4, 8: weights and unsigned activations of that many bits.

    The first layer has 8-bit weights on 8-bit pixels in all of them.
    """
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (SAMPLES, *IMAGE)))
    nodes = [Node(Input(IMAGE, 0, 255, 128), name="image")]
    channels = IMAGE[0]

    def add(op: Op, name: str) -> torch.Tensor:
        nodes.append(Node(op, (len(nodes) - 1,), name))
        return Executor(IntegerGraph(tuple(nodes)))(images)

    for layer, filters in enumerate(CHANNELS):
        weight = random.integers(-127, 128, (filters, channels, 3, 3)) if layer == 0 else None
        sums = add(
            Conv(_weights(random, (filters, channels, 3, 3), bits) if weight is None else weight, pads=(1, 1, 1, 1)),
            f"convolution {layer}",
        )
        add(
            _activation(random, sums.numpy(), IntegerGraph(tuple(nodes)).output, bits, layer == 0),
            f"activation {layer}",
        )
        if layer % 2:
            add(MaxPool((2, 2), (2, 2)), f"pool {layer // 2}")
        channels = filters
    add(GlobalSumPool(), "global pool")
    add(MatMul(_weights(random, (CLASSES, channels), bits)), "classifier")
    return IntegerGraph(tuple(nodes))


def _weights(random: np.random.Generator, shape: tuple[int, ...], bits: Bits) -> Int:
    match bits:
        case "binary":
            return random.choice(np.array([-1, 1]), shape)
        case "ternary":
            return random.integers(-1, 2, shape)
        case "4":
            return random.integers(-8, 8, shape)
        case "8":
            return random.integers(-128, 128, shape)


def _activation(
    random: np.random.Generator, sums: Int, edge: Edge, bits: Bits, first: bool
) -> MultiThreshold | Requantize:
    """Of sums (N, C, H, W): the upper half of a channel's sums, in equal steps; or their sign."""
    rows = sums.transpose(1, 0, 2, 3).reshape(sums.shape[1], -1)
    middle, top = (np.quantile(rows, q, axis=1).astype(np.int64) for q in (0.5, 0.98))
    if bits in ("binary", "ternary"):
        return MultiThreshold(middle[:, None] + 1, (-1, 1))
    quantizer = Uniform(int(bits), signed=False, step=1.0)
    levels = quantizer.levels
    # trained gains and means are no fractions of small integers
    gain = torch.from_numpy(levels.highest / np.maximum(top - middle, 1) * random.uniform(0.98, 1.02, len(top)))
    mean = torch.from_numpy(middle + random.uniform(-1, 1, len(top)))
    zero, one = torch.zeros_like(gain), torch.ones_like(gain)
    factor = finest_factor(8, 15, edge.magnitude) if bits == "4" and not first else 1
    normalisation = line(gain, zero, mean, one, 0.0, 1.0, levels, factor, edge.magnitude)
    wide = requantization(quantizer, normalisation, edge) if bits == "8" else None
    if wide is not None:
        return wide
    signs = np.ones(len(middle), dtype=np.int64)
    return MultiThreshold(thresholds_on(quantizer, normalisation, signs, edge), levels.values)
