"""Integer graphs for people: a table as text, and a drawing in the DOT language."""

from __future__ import annotations

from typing import NamedTuple, assert_never

from .graph import (
    Add,
    Argmax,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Op,
    Pad,
    Requantize,
    Slice,
    SumPool,
)


class Row(NamedTuple):
    """One node. constants: bits of its weights, thresholds and biases in the narrowest types that hold them."""

    position: int
    name: str
    operation: str
    inputs: tuple[int, ...]
    output: tuple[int, ...]
    lowest: int
    highest: int
    bits: int
    constants: int


def rows(graph: IntegerGraph) -> list[Row]:
    """Every node of the graph, in order."""
    return [
        Row(
            position,
            " ".join(node.name.split()),
            operation(node.op),
            node.inputs,
            edge.shape,
            edge.lowest,
            edge.highest,
            edge.bits,
            constant_bits(graph, position),
        )
        for position, (node, edge) in enumerate(zip(graph.nodes, graph.edges, strict=True))
    ]


def as_text(graph: IntegerGraph) -> str:
    """A line for every node: what it computes and the exact range and width of its values."""
    lines = [f"{'':>4} {'operation':<34}{'output':>12}{'from':>9}{'to':>9}{'bits':>6}  inputs  layer"]
    for row in rows(graph):
        output = "x".join(map(str, row.output))
        inputs = " ".join(map(str, row.inputs))
        lines.append(
            f"{row.position:>4} {row.operation:<34}{output:>12}{row.lowest:>9}{row.highest:>9}{row.bits:>6}"
            f"  {inputs:<6}  {row.name}".rstrip()
        )
    return "\n".join(lines)


def as_dot(graph: IntegerGraph) -> str:
    """The graph in the DOT language of graphviz; arrows carry shape and width."""
    lines = ["digraph integer_graph {", '  node [shape=box, fontname="sans-serif"];', '  edge [fontname="sans-serif"];']
    for row in rows(graph):
        label = "\\n".join(filter(None, (row.operation, row.name.replace("\\", "").replace('"', "'"))))
        lines.append(f'  n{row.position} [label="{label}"];')
        for i in row.inputs:
            edge = graph.edges[i]
            sign = "int" if edge.signed else "uint"
            lines.append(f'  n{i} -> n{row.position} [label="{"x".join(map(str, edge.shape))} {sign}{edge.bits}"];')
    return "\n".join([*lines, "}", ""])


def operation(op: Op) -> str:
    """An operation in a few words, such as "Conv 3x3 /2, weights of 2 bits"."""
    match op:
        case Input(lowest=lowest, highest=highest, zero_point=zero):
            return f"Input {lowest}..{highest}" + (f" less {zero}" if zero else "")
        case Conv(weight=weight, stride=stride, groups=groups):
            kind = "DepthwiseConv" if groups > 1 and groups == len(weight) else "Conv"
            return f"{kind} {_by(weight.shape[2:])}{_over(stride)}, {width(weight)}-bit weights"
        case MatMul(weight=weight):
            return f"MatMul, {width(weight)}-bit weights"
        case MultiThreshold(thresholds=thresholds):
            return f"MultiThreshold, {thresholds.shape[1]} each"
        case Requantize(lowest=lowest, highest=highest):
            return f"Requantize to {lowest}..{highest}"
        case Add(lowest=lowest, highest=highest):
            return "Add" if lowest is None else f"Add, clip to {lowest}..{highest}"
        case MaxPool(kernel=kernel, stride=stride):
            return f"MaxPool {_by(kernel)}{_over(stride)}"
        case SumPool(kernel=kernel, stride=stride, shift=shift):
            return f"SumPool {_by(kernel)}{_over(stride)}" + (f" >> {shift}" if shift else "")
        case GlobalSumPool(shift=shift):
            return "GlobalSumPool" + (f" >> {shift}" if shift else "")
        case Pad(pads=pads):
            return f"Pad {pads}"
        case Slice(channels=channels):
            return f"Slice to {channels}"
        case Concat() | Flatten() | Argmax():
            return type(op).__name__
        case _:
            assert_never(op)


def constant_bits(graph: IntegerGraph, position: int) -> int:
    """Bits of the constants of a node, each kind in the narrowest integers that hold all of it.

    Two levels take one bit. Thresholds are as wide as the values they are compared with need.
    """
    op = graph.nodes[position].op
    match op:
        case Conv(weight=weight, bias=bias) | MatMul(weight=weight, bias=bias):
            return weight.size * width(weight) + (0 if bias is None else bias.size * width(bias))
        case MultiThreshold(thresholds=thresholds, signs=signs):
            compared = graph.edges[graph.nodes[position].inputs[0]].bits
            return thresholds.size * compared + (0 if signs is None else signs.size)
        case Requantize(multiplier=multiplier, addend=addend, shift=shift):
            return sum(each.size * width(each) for each in (multiplier, addend, shift))
        case _:
            return 0


def width(values: Int) -> int:
    """Bits that tell all integers between the extremes apart; 1 for weights of -1 and +1."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if (low, high) == (-1, 1) and (values != 0).all():
        return 1
    return max((-low - 1).bit_length(), high.bit_length()) + 1 if low < 0 else max(high.bit_length(), 1)


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _over(stride: tuple[int, int]) -> str:
    return "" if stride == (1, 1) else f" /{stride[0]}" if stride[0] == stride[1] else f" /{_by(stride)}"
