"""The precision of every layer of one given network: a space of bit widths alone.

Decisions are the bits of the weights of each convolution and product, and the bits of each grid: values that are added
or joined are integers of one step, so they have one number of bits (compare Wang et al. 2019, HAQ, arXiv:1811.08886,
where every layer has its own). Weights, scales and normalisations keep their names, so tensors trained at some bit
widths are a starting point at any others. Fixed steps follow the bits, so that the largest number stays about the same;
running statistics of accumulators in integer units do not, and have to be taken anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from ..architecture import Architecture, Decision
from ..errors import ConfigError
from ..modules import scale_key
from ..network import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Linear,
    Network,
    Node,
    Shape,
)
from ..precision import NAMES, rectified_activation
from ..quantizers import Levels, Quantizer
from ..quantizers.fixed_point import FixedPoint
from ..quantizers.uniform import Uniform
from . import CostPart, QuantizerChoice, RelaxedSpace

FEWEST_BITS, MOST_BITS = 2, 8


class Grid(NamedTuple):
    """What is rounded: the weights under the key of their node, or the values under the key of their scale."""

    kind: Literal["weights", "values"]
    key: str


PIXELS = Grid("values", "")


class Precision(RelaxedSpace):
    """network: a run with a trained network, or the name of a published one, whose layers get the bits.
    weight_bits: that the weights of a convolution or product may have, rising.
    activation_bits: that values may have, rising; of values of several kinds on one grid those of the widest.
    together: whether the weights of a layer and the values it reads have one number of bits.
    keep: how the names of nodes begin that stay as they are.

    What is binary, ternary or real stays as it is, and so do pixels.
    """

    name = "precision"

    def __init__(
        self,
        image: Shape,
        classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        base: Network,
        network: str = "",
        weight_bits: tuple[int, ...] = (2, 3, 4, 8),
        activation_bits: tuple[int, ...] = (2, 3, 4, 8),
        together: bool = False,
        keep: tuple[str, ...] = (),
    ) -> None:
        """base: the network to start from, of such images and classes. `network` is only its name."""
        bits = {"weights": tuple(weight_bits), "values": tuple(activation_bits)}
        _check_bits(bits, together)
        _check_base(base, tuple(image), classes)
        self.base = _named(base)
        self._choices = _choices(self.base, bits, together, tuple(keep))
        if not self._choices:
            raise ConfigError(
                f"precision: {network or 'the network'} has no weights or values with a number of bits"
                f"{' that are not kept' if keep else ''}; train it with 8 bits first, or quantize it"
            )

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(choice.name, tuple(map(str, choice.bits))) for choice in self._choices)

    def network(self, architecture: Architecture) -> Network:
        nodes = list(self.base.nodes)
        for choice, option in zip(self._choices, architecture.choices, strict=True):
            for position, forms in choice.nodes.items():
                nodes[position] = forms[option]
        return Network(tuple(nodes), self.base.auxiliary)

    def covering(self) -> Iterator[Architecture]:
        """The one with the most bits; all have the same tensors."""
        yield self.architecture([len(choice.bits) - 1 for choice in self._choices])

    def uniform(self, bits: int) -> Architecture:
        """The architecture whose decisions are nearest to so many bits; of two that are as near, the larger."""
        return self.architecture([_nearest(choice.bits, bits) for choice in self._choices])

    def gated(self, architecture: Architecture) -> Sequence[QuantizerChoice]:
        return [QuantizerChoice(number, choice.quantizers) for number, choice in enumerate(self._choices)]

    @cached_property
    def _parts(self) -> tuple[CostPart, ...]:
        """One for every node that decisions bear on: its own, and those of the integers that it reads.

        An activation is a set of thresholds on sums, whose widths follow from weights and values before them.
        """
        own: dict[int, set[int]] = {}
        for number, choice in enumerate(self._choices):
            for position in choice.nodes:
                own.setdefault(position, set()).add(number)
        held: list[set[int]] = []  # what the integers of a node depend on
        parts: dict[str, set[int]] = {}
        for position, node in enumerate(self.base.nodes):
            mine = own.get(position, set())
            bears = mine.union(*(held[i] for i in node.inputs))
            held.append(mine if isinstance(node.op, BatchNorm | Activation) else bears)
            if bears:
                parts.setdefault(node.key, set()).update(bears)
        return tuple(CostPart(key, tuple(sorted(numbers))) for key, numbers in parts.items())

    def cost_parts(self) -> Sequence[CostPart]:
        return self._parts


@dataclass(frozen=True)
class _Choice:
    """One decision. nodes: by position, one form for each option. quantizers: as of QuantizerChoice."""

    name: str
    bits: tuple[int, ...]
    nodes: Mapping[int, tuple[Node, ...]]
    quantizers: Mapping[str, tuple[Quantizer, ...]]


def _nearest(options: Sequence[int], bits: int) -> int:
    """The number of the option that is nearest, the larger of two."""
    return min(range(len(options)), key=lambda i: (abs(options[i] - bits), -options[i]))


def _check_bits(bits: Mapping[str, tuple[int, ...]], together: bool) -> None:
    for kind, name in (("weights", "weight_bits"), ("values", "activation_bits")):
        given = bits[kind]
        if not given or list(given) != sorted(set(given)) or given[0] < FEWEST_BITS or given[-1] > MOST_BITS:
            raise ConfigError(
                f"precision: {name} are rising numbers from {FEWEST_BITS} to {MOST_BITS}, got {list(given)}"
            )
    if together and bits["weights"] != bits["values"]:
        raise ConfigError(
            "precision: bits that are chosen together are the same for weights and activations, got"
            f" {list(bits['weights'])} and {list(bits['values'])}"
        )


def _check_base(base: Network, image: Shape, classes: int) -> None:
    read, given = base.trunk.shapes[0], base.trunk.shapes[-1]
    if read != image or given != (classes,):
        raise ConfigError(
            f"precision: the network takes images of {read} and puts out {given}, the data set has images of {image}"
            f" and {classes} classes"
        )


def _named(network: Network) -> Network:
    """The network with a key for every node, by which decisions and parts of the cost name it."""
    nodes = (
        replace(node, key=node.key or f"{type(node.op).__name__}_{position}") if node.inputs else node
        for position, node in enumerate(network.nodes)
    )
    return replace(network, nodes=tuple(nodes))


def _choices(
    network: Network, bits: Mapping[str, tuple[int, ...]], together: bool, keep: tuple[str, ...]
) -> tuple[_Choice, ...]:
    for prefix in keep:
        if not any(name.startswith(prefix) for node in network.nodes for name in _names(node)):
            raise ConfigError(f"precision: no node to keep has a name that begins with {prefix!r}")
    carried = _carried(network)
    found: dict[Grid, _Choice] = {}
    for grids in _classes(network, carried):
        choice = _choice(_members(network, carried, grids), network, bits, keep)
        if choice is not None:
            found |= dict.fromkeys(grids, choice)
    return _together(network, carried, found) if together else _distinct(found.values())


def _own(node: Node) -> tuple[Grid, Quantizer] | None:
    """What a node rounds, and by which rule."""
    match node.op:
        case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer) | Linear(weight=quantizer):
            return Grid("weights", node.key), quantizer
        case BatchNorm(activation=quantizer) | Activation(quantizer=quantizer):
            return Grid("values", scale_key(node)), quantizer
        case _:
            return None


def _names(node: Node) -> set[str]:
    own = _own(node)
    return {node.key, node.key if own is None else own[0].key}


def _carried(network: Network) -> list[frozenset[Grid]]:
    """For every node the grids that say what its integers mean: of a sum of products those of both factors."""
    carried: list[frozenset[Grid]] = []
    for node in network.nodes:
        own = _own(node)
        read = frozenset[Grid]().union(*(carried[i] for i in node.inputs))
        if own is None:
            carried.append(frozenset({PIXELS}) if isinstance(node.op, Input) else read)
        else:
            carried.append(frozenset({own[0]}) | (read if own[0].kind == "weights" else frozenset()))
    return carried


def _classes(network: Network, carried: Sequence[frozenset[Grid]]) -> list[set[Grid]]:
    """Grids that change together, those whose integers are added or joined, in the order of the network."""
    classes: dict[Grid, set[Grid]] = {grid: {grid} for grids in carried for grid in sorted(grids)}
    for node in network.nodes:
        if len(node.inputs) > 1 and all(network.ranges[i] is not None for i in node.inputs):
            joined = frozenset[Grid]().union(*(carried[i] for i in node.inputs))
            for kind in ("weights", "values"):
                _unite(classes, [grid for grid in joined if grid.kind == kind])
    return list({id(grids): grids for grids in classes.values()}.values())


def _unite(classes: dict[Grid, set[Grid]], grids: Iterable[Grid]) -> None:
    united = set[Grid]().union(*(classes[grid] for grid in grids))
    classes.update(dict.fromkeys(united, united))


class _Members(NamedTuple):
    """What the integers of some grids pass: the nodes that round to them, and sums that saturate where they end."""

    rounds: dict[int, tuple[Grid, Quantizer]]
    sums: dict[int, Levels]
    pixels: bool


def _members(network: Network, carried: Sequence[frozenset[Grid]], grids: set[Grid]) -> _Members:
    rounds = {i: own for i, node in enumerate(network.nodes) if (own := _own(node)) is not None and own[0] in grids}
    sums = {
        i: node.op.saturate
        for i, node in enumerate(network.nodes)
        if isinstance(node.op, Add) and node.op.saturate is not None and carried[i] & grids
    }
    return _Members(rounds, sums, PIXELS in grids)


def _choice(
    members: _Members, network: Network, bits: Mapping[str, tuple[int, ...]], keep: tuple[str, ...]
) -> _Choice | None:
    """The decision about grids that change together; None where they stay as they are."""
    quantizers = {i: quantizer for i, (_, quantizer) in members.rounds.items()}
    if members.pixels or not all(isinstance(quantizer, Uniform | FixedPoint) for quantizer in quantizers.values()):
        return None
    ends = {i: _end(levels, quantizers) for i, levels in members.sums.items()}
    if None in ends.values():
        return None
    if any(name.startswith(keep) for i in quantizers for name in _names(network.nodes[i])):
        return None
    grid = members.rounds[min(quantizers)][0]
    try:
        options = _options(members, bits[grid.kind])
    except ConfigError as mistake:
        raise ConfigError(f"precision: {grid.key} cannot have {bits[grid.kind][0]} bits: {mistake}") from None
    nodes = {i: tuple(_with(network.nodes[i], quantizer) for quantizer in each) for i, each in options.items()}
    for i, end in ends.items():
        assert end is not None
        nodes[i] = tuple(_limited(network.nodes[i], quantizer, members.sums[i]) for quantizer in options[end])
    quantized = {members.rounds[i][0].key: each for i, each in options.items()}
    return _Choice(f"{grid.key}/{grid.kind}", bits[grid.kind], nodes, quantized)


def _options(members: _Members, bits: Sequence[int]) -> dict[int, tuple[Quantizer, ...]]:
    """The quantizer of each node at each number of bits: those of the widest; others keep their distance from it."""
    quantizers = {i: quantizer for i, (_, quantizer) in members.rounds.items()}
    if all(_is_rectified(quantizer) for quantizer in quantizers.values()):
        return dict.fromkeys(quantizers, tuple(rectified_activation(str(each)) for each in bits))
    widest = max(quantizer.bits for quantizer in quantizers.values())
    return {
        i: tuple(_at_bits(quantizer, each - widest + quantizer.bits) for each in bits)
        for i, quantizer in quantizers.items()
    }


def _is_rectified(quantizer: Quantizer) -> bool:
    return str(quantizer.bits) in NAMES and quantizer == rectified_activation(str(quantizer.bits))


def _at_bits(quantizer: Quantizer, bits: int) -> Quantizer:
    """The same rule at other bits; a fixed step changes so that as large numbers remain."""
    assert isinstance(quantizer, Uniform | FixedPoint)
    if isinstance(quantizer, FixedPoint) or isinstance(quantizer.step, str):
        return replace(quantizer, bits=bits)
    return replace(quantizer, bits=bits, step=quantizer.step * 2.0 ** (quantizer.bits - bits))


def _with(node: Node, quantizer: Quantizer) -> Node:
    match node.op:
        case Conv2d() | DepthwiseConv2d() | Linear():
            return replace(node, op=replace(node.op, weight=quantizer))
        case BatchNorm():
            return replace(node, op=replace(node.op, activation=quantizer))
        case _:
            return replace(node, op=Activation(quantizer))


def _end(saturated: Levels, quantizers: Mapping[int, Quantizer]) -> int | None:
    """The node whose quantizer says where a sum saturates: at both of its ends, or at 0 and its upper end."""
    for i, quantizer in quantizers.items():
        levels = quantizer.levels
        if levels is not None and saturated in (levels, Levels.between(0, levels.highest)):
            return i
    return None


def _limited(node: Node, quantizer: Quantizer, saturated: Levels) -> Node:
    """A sum that saturates at the ends of a quantizer, or at 0 if it did so before."""
    levels = quantizer.levels
    assert isinstance(node.op, Add) and levels is not None
    limits = Levels.between(0, levels.highest) if saturated.lowest == 0 else levels
    return replace(node, op=replace(node.op, saturate=limits))


def _together(
    network: Network, carried: Sequence[frozenset[Grid]], found: Mapping[Grid, _Choice]
) -> tuple[_Choice, ...]:
    """One choice for the weights of a layer and all values that it reads."""
    classes = {grid: {grid} for grid in found}
    for choice in _distinct(found.values()):
        _unite(classes, [grid for grid in found if found[grid] is choice])
    for node in network.nodes:
        own = _own(node)
        if own is not None and own[0].kind == "weights":
            read = frozenset({own[0]}).union(*(carried[i] for i in node.inputs))
            _unite(classes, [grid for grid in read if grid in found])
    merged: dict[Grid, _Choice] = {}
    for grids in {id(grids): grids for grids in classes.values()}.values():
        choice = _joined(_distinct(found[grid] for grid in found if grid in grids))
        merged |= dict.fromkeys(grids, choice)
    return _distinct(merged[grid] for grid in found)


def _joined(choices: Sequence[_Choice]) -> _Choice:
    """One choice in place of several with the same bits, named after the first layer among them."""
    if len(choices) == 1:
        return choices[0]
    layer = next(choice.name for choice in choices if choice.name.endswith("/weights"))
    nodes: dict[int, tuple[Node, ...]] = {}
    quantizers: dict[str, tuple[Quantizer, ...]] = {}
    for choice in choices:
        nodes |= choice.nodes
        quantizers |= choice.quantizers
    return _Choice(f"{layer.removesuffix('/weights')}/bits", choices[0].bits, nodes, quantizers)


def _distinct(choices: Iterable[_Choice]) -> tuple[_Choice, ...]:
    """Each once, in the order of their first node."""
    return tuple(sorted({id(choice): choice for choice in choices}.values(), key=lambda choice: min(choice.nodes)))
