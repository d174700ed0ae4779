"""A trained network beside its integer graph, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..modules import Weights, run
from ..network import Network
from .graph import IntegerGraph
from .lower import Lowered
from .run import Executor

HELD_VALUES = 2**27  # of all layers together


def images_at_once(graph: IntegerGraph, most: int) -> int:
    """How many images of at most `most` can be run with all their values held."""
    return max(1, min(most, HELD_VALUES // sum(edge.size for edge in graph.edges)))


def differences(
    network: Network, weights: Weights, lowering: Lowered, x: Tensor, executor: Executor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For every node of the network: its position in the graph, and its integers in the graph and in training code.

    x: (N, C, H, W) uint8. Values are only held as long as they are needed.
    """
    trunk = network.trunk
    with torch.no_grad():
        values = run(trunk, weights, x)
    wanted: dict[int, list[int]] = {}
    for at, position in enumerate(lowering.positions):
        wanted.setdefault(position, []).append(at)
    for position, exact in executor.steps(x):
        for at in wanted.get(position, ()):
            value = values[at]
            assert value is not None
            yield position, exact, value.codes
            values[at] = None
