"""Channels and trainable parameters of a module in the NAS-Bench-101 network, in closed form.

The network: a 3x3 convolution of 128 filters, three stacks of three modules, the channels doubled before the second
and the third stack, global average pooling and a classifier of ten classes (Ying et al., NAS-Bench-101, ICML 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .config import AVAILABLE_OPS

STEM, STACKS, MODULES, CLASSES = 128, 3, 3, 10


def vertex_channels(inputs: int, outputs: int, matrix: NDArray[np.int8]) -> NDArray[np.int64]:
    """Channels of every vertex of a module, (V,); `matrix` (V, V) has no vertex that could be pruned.

    The channels of the output are shared out among the vertices that feed it, earlier ones get what is left over; any
    other vertex has as many as the widest vertex that it feeds.
    """
    last = len(matrix) - 1
    channels = np.zeros(last + 1, np.int64)
    channels[0] = inputs
    channels[last] = outputs
    feeding = 0
    for v in range(1, last):
        if matrix[v, last]:
            feeding += 1
    if feeding == 0:
        return channels
    left_over = outputs % feeding
    for v in range(1, last):
        if matrix[v, last]:
            channels[v] = outputs // feeding
            if left_over > 0:
                channels[v] += 1
                left_over -= 1
    for v in range(last - 1, 0, -1):
        if not matrix[v, last]:
            for target in range(v + 1, last):
                if matrix[v, target]:
                    channels[v] = max(channels[v], channels[target])
    return channels


def trainable_parameters(matrix: NDArray[np.int8], ops: Sequence[str]) -> int:
    """Trainable parameters of the network of a pruned module.

    They may depend on the order of the vertices: the dataset has those of the stored form. ValueError: unknown op.
    """
    costs = module_cost(np.asarray(matrix, np.int8))
    return int(costs[0, 0] + sum(costs[v, AVAILABLE_OPS.index(op)] for v, op in enumerate(ops[:-1]) if v))


def module_cost(matrix: NDArray[np.int8]) -> NDArray[np.int64]:
    """Trainable parameters of the network by vertex and label, (V, 3), and those of no label in [0, 0].

    A convolution has no bias; its batch normalisation has a gain and an offset per channel.
    """
    last = len(matrix) - 1
    costs = np.zeros((last + 1, 3), np.int64)
    costs[0, 0] = 9 * 3 * 128 + 2 * 128  # the stem
    inputs = 128
    for stack in range(3):
        outputs = 128 << stack
        for _ in range(3):
            channels = vertex_channels(inputs, outputs, matrix)
            for v in range(1, last + 1):
                c = channels[v]
                if matrix[0, v]:
                    costs[0, 0] += inputs * c + 2 * c  # the projection of the module's input
                if v < last:
                    costs[v, 0] += 9 * c * c + 2 * c
                    costs[v, 1] += c * c + 2 * c
            inputs = outputs
    costs[0, 0] += 512 * 10 + 10  # the classifier
    return costs
