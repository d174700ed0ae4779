"""The rows of networks and of integer graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, assert_never

from .. import network as layers
from ..integer import graph as integers
from ..integer.describe import width
from ..integer.graph import IntegerGraph
from ..network import Network, Range, Shape
from ..quantizers import Levels, Quantizer
from .table import POSITIVE_REALS, REALS, Codes, Kind, Row, Workload, integer_bits


def workload(target: Network | IntegerGraph | Workload) -> Workload:
    """The table of a network, of an integer graph, or the table itself."""
    match target:
        case Workload():
            return target
        case Network():
            return Workload(tuple(_network_row(target, position) for position in range(len(target.nodes))))
        case IntegerGraph():
            return Workload(tuple(_graph_rows(target)))
        case _:
            assert_never(target)


def _codes(quantizer: Quantizer) -> Codes:
    if quantizer.levels is None:
        return REALS if quantizer.signed else POSITIVE_REALS
    return _level_codes(quantizer.levels)


def _level_codes(levels: Levels) -> Codes:
    return Codes(levels.bits, levels.lowest, levels.highest)


def _range_codes(of: Range | None) -> Codes:
    return REALS if of is None else Codes(of.bits, of.lowest, of.highest)


def _network_row(network: Network, position: int) -> Row:
    node, shape = network.nodes[position], network.shapes[position]
    inputs = [network.shapes[i] for i in node.inputs]
    value = _range_codes(network.ranges[position])

    def row(kind: Kind, **more: Any) -> Row:
        given = {"value": value} | more
        return Row(kind, node.key, type(node.op).__name__, shape, node.inputs, **given)

    match node.op:
        case layers.Input():
            return row(Kind.INPUT, chooses=True)
        case layers.Conv2d(kernel=k, weight=weight, groups=groups):
            terms, outputs = k * k * sum(s[0] for s in inputs) // groups, k * k * shape[0] // groups
            return row(Kind.CONVOLUTION, terms=terms, output_terms=outputs, **_weights(network, position, weight))
        case layers.DepthwiseConv2d(kernel=k, weight=weight):
            return row(Kind.CONVOLUTION, terms=k * k, output_terms=k * k, **_weights(network, position, weight))
        case layers.Linear(weight=weight, bias=bias):
            terms = sum(s[0] for s in inputs)
            biases = shape[0] if bias else 0
            return row(
                Kind.LINEAR, terms=terms, output_terms=terms, biases=biases, **_weights(network, position, weight)
            )
        case layers.BatchNorm(activation=quantizer):
            activation = _activation(quantizer, shape)
            return row(Kind.ACTIVATION, normalises=True, gains=2 * shape[0], **activation)
        case layers.Activation(quantizer=quantizer):
            return row(Kind.ACTIVATION, **_activation(quantizer, shape))
        case layers.Add(saturate=saturate):
            return row(Kind.ADD, chooses=saturate is not None, tables=shape[0])
        case layers.MaxPool2d(kernel=k):
            return row(Kind.MAX_POOL, terms=k * k)
        case layers.AveragePool2d(kernel=k):
            return row(Kind.POOL, terms=k * k, divides=True, averages=True)
        case layers.SumPool2d(kernel=k):
            return row(Kind.POOL, terms=k * k)
        case layers.GlobalSumPool(shift=shift):
            return row(Kind.POOL, terms=math.prod(inputs[0][1:]), divides=True, shift=shift)
        case (
            layers.Concat()
            | layers.Flatten()
            | layers.Slice()
            | layers.PadChannels()
            | layers.Shuffle()
            | layers.Shift2d()
        ):
            return row(Kind.PASS)
        case layers.DropPath() | layers.Dropout():
            return row(Kind.PASS)
        case _:
            assert_never(node.op)


def _weights(network: Network, position: int, quantizer: Quantizer) -> dict[str, Any]:
    return {"weights": sum(w.size for w in network.weights(position)), "weight": _codes(quantizer)}


def _activation(quantizer: Quantizer, shape: Shape) -> dict[str, Any]:
    return {"chooses": True, "rectifies": not quantizer.signed, "tables": shape[0], "value": _codes(quantizer)}


def _graph_rows(graph: IntegerGraph) -> list[Row]:
    rows: list[Row] = []
    for position in range(len(graph.nodes)):
        rows.append(_graph_row(graph, position, rows))
    return rows


def _graph_row(graph: IntegerGraph, position: int, before: Sequence[Row]) -> Row:
    """before: the rows of the nodes before it."""
    node, edge = graph.nodes[position], graph.edges[position]
    value = Codes(edge.bits, edge.lowest, edge.highest)
    read = [graph.edges[i] for i in node.inputs]

    def row(kind: Kind, **more: Any) -> Row:
        given = {"value": value} | more
        return Row(kind, " ".join(node.name.split()), type(node.op).__name__, edge.shape, node.inputs, **given)

    match node.op:
        case integers.Input():
            return row(Kind.INPUT, chooses=True)
        case integers.Conv(weight=weight, bias=bias, groups=groups):
            window = math.prod(weight.shape[2:])
            outputs = window * (len(weight) // groups)
            weights = _constant_weights(weight, bias, edge)
            return row(Kind.CONVOLUTION, terms=weight[0].size, output_terms=outputs, **weights)
        case integers.MatMul(weight=weight, bias=bias):
            terms = weight.shape[1]
            return row(Kind.LINEAR, terms=terms, output_terms=terms, **_constant_weights(weight, bias, edge))
        case integers.MultiThreshold(thresholds=thresholds, levels=levels, signs=signs):
            codes = value._replace(bits=math.ceil(math.log2(len(levels)))) if len(levels) > 1 else value
            return row(
                Kind.ACTIVATION,
                value=codes,
                chooses=True,
                normalises=True,
                rectifies=levels[0] >= 0,
                tables=len(thresholds),
                thresholds=thresholds.shape[1],
                constants=0 if signs is None else signs.size,
            )
        case integers.Requantize(multiplier=multiplier, addend=addend, shift=shift, lowest=lowest):
            return row(
                Kind.ACTIVATION,
                chooses=True,
                normalises=True,
                rectifies=lowest >= 0,
                constants=sum(each.size * width(each) for each in (multiplier, addend, shift)),
                multiplier_bits=width(multiplier),
            )
        case integers.Add(lowest=lowest):
            return row(Kind.ADD, chooses=lowest is not None, tables=edge.shape[0])
        case integers.MaxPool(kernel=kernel):
            return row(Kind.MAX_POOL, terms=math.prod(kernel), value=_widest(value, node.inputs, before))
        case integers.SumPool(kernel=kernel, shift=shift):
            return row(Kind.POOL, terms=math.prod(kernel), shift=shift)
        case integers.GlobalSumPool(shift=shift):
            return row(Kind.POOL, terms=math.prod(read[0].shape[1:]), divides=True, shift=shift)
        case integers.Concat() | integers.Slice() | integers.Flatten():
            return row(Kind.PASS, value=_widest(value, node.inputs, before))
        case integers.Pad() | integers.Argmax():
            return row(Kind.PASS)
        case _:
            assert_never(node.op)


def _constant_weights(weight: integers.Int, bias: integers.Int | None, edge: integers.Edge) -> dict[str, Any]:
    return {
        "weights": weight.size,
        "weight": Codes(width(weight), int(weight.min(initial=0)), int(weight.max(initial=0))),
        "zeros": int((weight == 0).sum()),
        "biases": 0 if bias is None else bias.size,
        "sum_bits": int(integer_bits(edge.lows.astype(float), edge.highs.astype(float)).sum()),
    }


def _widest(value: Codes, inputs: Sequence[int], before: Sequence[Row]) -> Codes:
    """With the bits of what is only moved: two levels stay one bit."""
    return value._replace(bits=max(before[i].value.bits for i in inputs))
