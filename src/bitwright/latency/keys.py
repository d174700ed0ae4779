"""The blocks of a network, and the names that ProxylessNAS's latency tables give them.

Cai et al. 2019, arXiv:1812.00332. A name is joined by "-": a type and the sizes of what comes in and goes out,

    Conv-input:224x224x3-output:112x112x32
    expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:3-stride:2-idskip:0
    Conv_1-input:7x7x320-output:7x7x1280
    Logits-input:7x7x1280-output:1000

idskip: whether there is a shortcut. Logits is the pool and the product behind it. A quantized block has two parts more,

    -weights:4.5.4-values:4.5.4.4

the bits of the weights of each of its convolutions or products, and those of what it reads, of what passes from one of
its convolutions to the next, and of what it puts out; the pixels of the image and the final sums are left out. 32 are
real numbers, and a block with nothing else has neither part.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..network import Shape
from ..workload.table import REAL_BITS, Floats, Kind, Row, Widths, Workload

NAMES = re.compile(r"(init_block|stage\d+/unit\d+|final_block|output)(?:/|$)")
TYPES = {"init_block": "Conv", "final_block": "Conv_1", "output": "Logits"}
BLOCK = "expanded_conv"
UNNAMED = (Kind.INPUT, Kind.POOL, Kind.PASS)  # what belongs to the named rows behind it


@dataclass(frozen=True)
class Part:
    """The rows `start` to `end` (not included) of a network's table: one block.

    name: as in the network: init_block, stage2/unit1, final_block, output. key: in a table, without bits.
    products: the rows with weights.
    """

    name: str
    key: str
    start: int
    end: int
    products: tuple[int, ...]

    @property
    def output(self) -> int:
        return self.end - 1

    def columns(self, widths: Widths) -> tuple[Floats, Floats]:
        """Bits of weights, and of values, as the key lists them: (..., n) each."""
        values = [widths.value_bits[..., self.start - 1]] if self.start else []
        values += [widths.input_bits[..., row] for row in self.products[1:]]
        if self.name != "output":
            values.append(widths.value_bits[..., self.output])
        return widths.weight_bits[..., list(self.products)], np.stack(values, -1)


def key_with(key: str, weights: Floats, values: Floats) -> str:
    """The key of a block with these bits: (n,) each."""
    if (weights == REAL_BITS).all() and (values == REAL_BITS).all():
        return key
    return f"{key}-weights:{_joined(weights)}-values:{_joined(values)}"


def keys(work: Workload) -> list[str]:
    """The keys of all blocks of a network, in the order of execution."""
    return [key_with(part.key, *part.columns(work.designed)) for part in parts(work)]


def parts(work: Workload) -> list[Part]:
    """The blocks of a network. ConfigError if it is not made of inverted residual blocks by their names."""
    found: list[Part] = []
    begun, name = 0, ""
    for position, row in enumerate(work.rows):
        matched = NAMES.match(row.name)
        if matched is None and row.kind not in UNNAMED:
            raise _unknown(row, position)
        if matched is None or matched[1] == name:
            continue
        if name:
            end = _last_named(work, position)
            found.append(_part(work, name, begun, end))
            begun = end
        name = matched[1]
    found.append(_part(work, name, begun, len(work)))
    return found


def _last_named(work: Workload, position: int) -> int:
    """Where the rows of one block end that stand before the first row of the next."""
    while NAMES.match(work.rows[position - 1].name) is None:
        position -= 1
    return position


def _part(work: Workload, name: str, start: int, end: int) -> Part:
    rows = work.rows[start:end]
    for position, row in enumerate(rows, start):
        if any(i < start - 1 for i in row.inputs):
            raise _unknown(row, position)
    products = tuple(position for position, row in enumerate(rows, start) if row.weights)
    kind = TYPES.get(name, BLOCK)
    if len(products) not in ((2, 3) if kind == BLOCK else (1,)) or (start == 0) != (kind == "Conv"):
        raise _unknown(rows[0], start)
    given = work.rows[start - 1 if start else 0].shape
    key = f"{kind}-input:{_size(given)}-output:{_size(work.rows[end - 1].shape)}"
    return Part(name, key + (_shape_of(work, products, given, end) if kind == BLOCK else ""), start, end, products)


def _shape_of(work: Workload, products: tuple[int, ...], given: Shape, end: int) -> str:
    depthwise, last = work.rows[products[-2]], work.rows[end - 1]
    if len(given) < 3 or depthwise.weights != depthwise.channels * depthwise.terms:
        raise _unknown(depthwise, products[-2])
    expansion = f"{depthwise.channels / given[0]:g}"
    stride = -(-given[1] // last.shape[1])
    return (
        f"-expand:{expansion}-kernel:{math.isqrt(depthwise.terms)}-stride:{stride}-idskip:{int(last.kind == Kind.ADD)}"
    )


def _unknown(row: Row, position: int) -> ConfigError:
    return ConfigError(
        "latency by blocks is of networks of init_block, stage1/unit1, ..., final_block, output, as those of"
        f" ProxylessNAS and MobileNetV2 are; node {position} ({' '.join(filter(None, (row.operation, row.name)))}) does"
        " not fit"
    )


def _size(shape: Shape) -> str:
    """Height, width and channels, or the features of a vector."""
    return "x".join(map(str, (*shape[1:], shape[0])))


def _joined(bits: Floats) -> str:
    return ".".join(f"{b:g}" for b in bits)
