"""Every block of a network as a small network of its own.

A block cannot be timed by itself: whoever runs it turns the image into the layout that its kernels want, and back. So
it stands between a 1x1 convolution, which makes its input out of an image of one channel, and a global pool, and what
the same without the block takes, the frame, is subtracted. A block's time is then too large by the pool of its output
and too small by the pool of its input, and in the sum over a network these cancel: each output is the next one's input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..network import Add, BatchNorm, Conv2d, DepthwiseConv2d, GlobalSumPool, Input, Linear, Network, Node
from ..workload.rows import workload
from .keys import key_with, parts

FRAME_INPUT = Input((1, 1, 1), (0.0,), (1 / 255,))
GROUP = "frame/group"  # the scale that a block's input has, and with a shortcut also its output


@dataclass(frozen=True)
class Alone:
    """network: of the block in its frame. frame: without the block; None for the first block, which has the image."""

    key: str
    network: Network
    frame: Network | None


def blocks(networks: Iterable[Network]) -> list[Alone]:
    """The different blocks of the networks, those with one frame side by side."""
    found: dict[str, Alone] = {}
    for network in networks:
        trunk = network.trunk
        work = workload(trunk)
        for part in parts(work):
            key = key_with(part.key, *part.columns(work.designed))
            if key not in found:
                found[key] = _alone(trunk, key, part.start, part.end)
    frames = {frame: place for place, frame in enumerate(dict.fromkeys(block.frame for block in found.values()))}
    return sorted(found.values(), key=lambda block: frames[block.frame])


def _alone(network: Network, key: str, start: int, end: int) -> Alone:
    is_last = end == len(network.nodes)
    if start == 0:
        return Alone(key, _pooled(network.nodes[:end]), None)
    scale = _scale(network, start - 1)
    frame = _frame(network, start)
    inner = [replace(_renamed(node, scale), inputs=tuple(i - start + len(frame) for i in node.inputs))
             for node in network.nodes[start:end]]  # fmt: skip
    nodes = (*frame, *inner)
    return Alone(key, Network(nodes) if is_last else _pooled(nodes), _pooled(frame))


def _pooled(nodes: tuple[Node, ...]) -> Network:
    return Network((*nodes, Node(GlobalSumPool(), (len(nodes) - 1,))))


def _frame(network: Network, start: int) -> tuple[Node, ...]:
    """An image of one channel, and what makes of it the codes that the node at `start` reads."""
    channels, height, width = network.shapes[start - 1]
    convolution = next(n.op for n in network.nodes[start:] if isinstance(n.op, Conv2d | DepthwiseConv2d | Linear))
    normal = replace(_normalisation(network, start - 1), scale_key=GROUP)
    return (
        Node(replace(FRAME_INPUT, shape=(1, height, width))),
        Node(Conv2d(channels, 1, convolution.weight), (0,), "frame/conv"),
        Node(normal, (1,), "frame/bn"),
    )


def _normalisation(network: Network, position: int) -> BatchNorm:
    """The one whose codes the node at `position` holds, or sums up."""
    node = network.nodes[position]
    if isinstance(node.op, BatchNorm):
        return node.op
    assert isinstance(node.op, Add)
    return _normalisation(network, node.inputs[1])


def _scale(network: Network, position: int) -> str:
    """The name of the scale of the codes that the node at `position` holds."""
    node = network.nodes[position]
    if isinstance(node.op, Add):
        return _scale(network, node.inputs[1])
    assert isinstance(node.op, BatchNorm)
    return node.op.scale_key or node.key


def _renamed(node: Node, scale: str) -> Node:
    """The node with its scale's name in the frame, if it shares that of the block's input."""
    if isinstance(node.op, BatchNorm) and node.op.scale_key == scale:
        return replace(node, op=replace(node.op, scale_key=GROUP))
    return node
