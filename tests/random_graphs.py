"""Random integer graphs with every operation, for tests that compare exports with the executor."""

from __future__ import annotations

import numpy as np

from bitwright.errors import InvalidGraph
from bitwright.integer.graph import (
    Add,
    Argmax,
    Concat,
    Conv,
    Edge,
    Flatten,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Op,
    Pad,
    Requantize,
    Slice,
    SumPool,
)

INPUTS = [(0, 255, 0), (0, 255, 128), (0, 15, 0), (-8, 7, 0), (-100, 100, 3), (0, 1, 0), (0, 255, 300), (-1, 1, 0)]


def random_graph(seed: int, *, depth: int = 7, widest: int = 2**30) -> IntegerGraph:
    """`widest` bounds partial sums."""
    rng = np.random.default_rng(seed)
    low, high, zero = INPUTS[rng.integers(len(INPUTS))]
    shape = tuple(int(n) for n in (rng.integers(1, 5), rng.integers(3, 9), rng.integers(3, 9)))
    nodes = [Node(Input(shape if rng.random() < 0.85 else (int(rng.integers(2, 9)),), low, high, zero))]
    slices = np.random.default_rng([seed, 1])
    for _ in range(depth):
        if seed % 4 == 0 and slices.random() < 0.4:
            channels = IntegerGraph(tuple(nodes)).output.shape[0]
            nodes.append(Node(Slice(int(slices.integers(1, channels + 1))), (len(nodes) - 1,)))
        edges = IntegerGraph(tuple(nodes)).edges
        i = len(nodes) - 1 if rng.random() < 0.8 else int(rng.integers(len(nodes)))
        for _ in range(20):
            op, inputs = _random_op(rng, edges, i)
            try:
                graph = IntegerGraph((*nodes, Node(op, inputs, "layer" if rng.random() < 0.3 else "")))
                fits = graph.partial_sums(len(nodes)) < widest and graph.output.magnitude < widest
            except InvalidGraph:
                continue
            if fits:
                nodes = list(graph.nodes)
                break
    return IntegerGraph(tuple(nodes))


def random_inputs(graph: IntegerGraph, count: int, seed: int = 0) -> Int:
    rng = np.random.default_rng(seed)
    op = graph.input
    x = rng.integers(op.lowest, op.highest + 1, (count, *op.shape))
    x[0], x[-1] = op.lowest, op.highest
    return x


def _random_op(rng: np.random.Generator, edges: list[Edge], i: int) -> tuple[Op, tuple[int, ...]]:
    x = edges[i]
    image = len(x.shape) == 3
    wide = x.highest - x.lowest > 300
    kinds = ["threshold", "requantize"] * (4 if wide else 1) + ["add"]
    if image:
        kinds += ["conv"] * 4 + ["depthwise", "maxpool", "sumpool", "globalsum", "pad", "flatten", "concat"]
    else:
        kinds += ["matmul"] * 3 + ["argmax", "concat"]
    kind = kinds[rng.integers(len(kinds))]
    channels = x.shape[0]
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    pads = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel)) if rng.random() < 0.5 else (0, 0, 0, 0)
    if kind in ("conv", "depthwise"):
        groups = channels if kind == "depthwise" else int(rng.choice([g for g in (1, 2) if channels % g == 0]))
        filters = groups * int(rng.integers(1, 4))
        weight = _weights(rng, (filters, channels // groups, *kernel))
        bias = rng.integers(-40, 40, filters) if rng.random() < 0.4 else None
        return Conv(weight, bias, stride, pads, groups), (i,)
    if kind == "matmul":
        filters = int(rng.integers(1, 9))
        bias = rng.integers(-40, 40, filters) if rng.random() < 0.4 else None
        return MatMul(_weights(rng, (filters, channels)), bias), (i,)
    if kind == "threshold":
        return _threshold(rng, x), (i,)
    if kind == "requantize":
        return _requantize(rng, x), (i,)
    if kind == "add":
        same = [j for j, e in enumerate(edges) if e.shape == x.shape]
        bounds = [(None, None), (0, 15), (-8, 7), (-128, 127), (0, 200), (-1, 1), (3, 9)]
        return Add(*bounds[rng.integers(len(bounds))]), (i, int(rng.choice(same)))
    if kind == "concat":
        same = [j for j, e in enumerate(edges) if e.shape[1:] == x.shape[1:]]
        return Concat(), (i, *(int(j) for j in rng.choice(same, rng.integers(0, 3))))
    simple: dict[str, Op] = {
        "maxpool": MaxPool(kernel, stride, pads),
        "sumpool": SumPool(kernel, stride, pads, int(rng.integers(0, 4))),
        "globalsum": GlobalSumPool(int(rng.integers(0, 5))),
        "pad": Pad(tuple(int(p) for p in rng.integers(0, 3, 4))),
        "flatten": Flatten(),
        "argmax": Argmax(),
    }
    return simple[kind], (i,)


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Int:
    match rng.integers(6):
        case 0:
            return rng.choice([-1, 1], shape)
        case 1:
            return rng.integers(-1, 2, shape)
        case 2:
            return rng.integers(-8, 8, shape)
        case 3:
            return rng.integers(-128, 128, shape)
        case 4:
            return rng.integers(-3, 4, shape)
        case _:
            return rng.integers(-300, 300, shape) if rng.random() < 0.3 else rng.integers(-7, 8, shape)


def _threshold(rng: np.random.Generator, x: Edge) -> MultiThreshold:
    steps = int(rng.choice([0, 1, 1, 2, 3, 7, 15, 40]))
    channels = x.shape[0]
    levels: tuple[int, ...]
    match rng.integers(5):
        case 0 if steps == 1:
            levels = (-1, 1)
        case 0:
            levels = tuple(2 * k - steps for k in range(steps + 1))
        case 1:
            levels = tuple(sorted(int(v) for v in rng.choice(200, steps + 1, replace=False) - 90))
        case 2:
            levels = tuple(range(-(steps // 2), steps - steps // 2 + 1))
        case _:
            levels = tuple(range(steps + 1))
    rows = 1 if rng.random() < 0.2 else channels
    if rng.random() < 0.7:  # a line, so that the fast forms are reached
        slope = rng.uniform(0.5, 1.5, (rows, 1)) * max((x.highest - x.lowest) / (steps + 2), 0.3)
        middle = rng.uniform(x.lowest, x.highest + 1, (rows, 1))
        table = np.floor((np.arange(steps) - steps / 2 + 0.5) * slope + middle)
    else:
        table = np.sort(rng.integers(x.lowest - 3, x.highest + 4, (rows, steps)), axis=1)
    signs = rng.choice([-1, 1], channels) if rng.random() < 0.4 else None
    if signs is not None and rows == channels:
        table = np.where(signs[:, None] < 0, -table[:, ::-1], table)
    return MultiThreshold(table.astype(np.int64), levels, signs)


def _requantize(rng: np.random.Generator, x: Edge) -> Requantize:
    rows = 1 if rng.random() < 0.3 else x.shape[0]
    lowest, highest = [(0, 15), (0, 255), (-8, 7), (-128, 127), (0, 1), (-1, 1), (0, 1000), (-40000, 40000)][
        rng.integers(8)
    ]
    shift = rng.integers(0, 24, rows)
    span = max(x.highest - x.lowest, 1)
    slope = (highest - lowest) / span * rng.uniform(0.3, 1.5, rows) * rng.choice([-1, 1, 1], rows)
    multiplier = np.rint(slope * 2.0**shift).astype(np.int64)
    offset = rng.integers(-span, span + 1, rows)
    addend = multiplier * offset + np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
    return Requantize(multiplier, addend, shift, lowest, highest)
