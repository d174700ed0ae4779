"""The cell space of NAS-Bench-101 (Ying et al. 2019, arXiv:1902.09635): 423,624 modules of at most 7 vertices, 9 edges.

An architecture is a bit for every pair of vertices, edge 0->1, 0->2, 1->2, 0->3, ..., and the operation of every inner
vertex. What lies on no path from the first vertex, the input, to the last, the output, does not count; choices that
leave no path or more than nine edges are not valid. Choices that describe isomorphic modules describe one network,
that of the form in which the benchmark stores the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..architecture import Architecture, Decision
from ..errors import ConfigError, InvalidArchitecture
from ..nasbench import space as modules
from ..nasbench.config import AVAILABLE_OPS, MAXPOOL3X3, MODULE_VERTICES
from ..nasbench.encodings import path_encodings
from ..nasbench.network import Skeleton, module_network
from ..nasbench.parameters import vertex_channels
from ..network import Network, Shape
from . import SearchSpace

REMEMBERED = 1 << 16  # modules, in both directions: searches meet the same ones again and again


class Nasbench101(SearchSpace):
    """vertices: the most a module has, 7 in the benchmark.
    stem_filters: channels of the first stack; every later one has twice those of the one before.
    stacks, modules: number of stacks, and of modules in each.
    weight_precision: of the modules' convolutions: float, binary, ternary or 2 to 8 bits.
    activation_precision: of the modules' values; None takes weight_precision.
    end_precision: of the weights of the first convolution and the classifier in a quantized network.
    sampling: modules draws each module equally often; choices draws bits and operations until they are valid, as the
        published example does, which favours small modules: 1 in 300 has 7 vertices, of the modules 85 in 100.
    """

    name = "nasbench101"

    def __init__(
        self,
        image: Shape,
        classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        vertices: int = MODULE_VERTICES,
        stem_filters: int = 128,
        stacks: int = 3,
        modules: int = 3,
        weight_precision: str = "float",
        activation_precision: str | None = None,
        end_precision: str = "8",
        sampling: Literal["modules", "choices"] = "modules",
    ) -> None:
        if not 2 <= vertices <= MODULE_VERTICES:
            raise ConfigError(f"nasbench101: vertices are 2 to {MODULE_VERTICES}, got {vertices}")
        if sampling not in ("modules", "choices"):
            raise ConfigError(f"nasbench101: sampling is modules or choices, got {sampling!r}")
        if len(image) != 3:
            raise ConfigError(f"nasbench101 takes images (channels, height, width), got {image}")
        self.vertices, self.sampling = vertices, sampling
        self.pairs = _pairs(vertices)
        self.skeleton = Skeleton(
            (image[0], image[1], image[2]), classes, pixel_mean, pixel_std, stem_filters, stacks, modules,
            weight_precision=weight_precision, activation_precision=activation_precision, end_precision=end_precision,
        )  # fmt: skip

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        edges = tuple(Decision(f"edge/{source}->{target}", ("none", "edge")) for source, target in self.pairs)
        return (*edges, *(Decision(f"op/{v}", AVAILABLE_OPS) for v in range(1, self.vertices - 1)))

    def row(self, architecture: Architecture) -> int:
        """The module's row in the benchmark; InvalidArchitecture if it is none of its modules."""
        row = _row(architecture.choices, self.vertices)
        if row < 0:
            raise InvalidArchitecture(f"{self.name} excludes {' '.join(map(str, architecture.choices))}")
        return row

    def of_row(self, row: int) -> Architecture:
        """The architecture of a module in its stored form, without the vertices that it does not have."""
        count = int(modules.rows().vertices[row])
        if count > self.vertices:
            raise InvalidArchitecture(f"module {row} has {count} vertices, {self.name} here at most {self.vertices}")
        return Architecture(self.name, _choices(row, self.vertices))

    def is_valid(self, choices: Sequence[int]) -> bool:
        return _row(tuple(choices), self.vertices) >= 0

    def canonical(self, architecture: Architecture) -> Architecture:
        return self.of_row(self.row(architecture))

    def benchmark_name(self, architecture: Architecture) -> str:
        """The module's hash."""
        return modules.space().hash_of(self.row(architecture))

    def encodings(self, architectures: Sequence[Architecture]) -> NDArray[np.float32]:
        """Of the stored form: choices, one-hot, and the paths from input to output (White et al. 2021, BANANAS)."""
        rows = np.array([self.row(architecture) for architecture in architectures], np.int64)
        known = modules.rows()
        paths = path_encodings(known.matrices[rows].astype(np.int64), known.labels[rows])
        return np.concatenate([super().encodings(architectures), paths], axis=1, dtype=np.float32)

    def module(self, architecture: Architecture) -> tuple[NDArray[np.int8], list[str]]:
        """Matrix and operations in the form in which the benchmark stores the module."""
        row = self.row(architecture)
        return modules.space().matrix(row), modules.space().operations(row)

    def network(self, architecture: Architecture) -> Network:
        return module_network(*self.module(architecture), self.skeleton)

    def sample(self, rng: np.random.Generator) -> Architecture:
        if self.sampling == "choices":
            return super().sample(rng)
        return self.of_row(int(self._rows[rng.integers(len(self._rows))]))

    def warnings(self, architecture: Architecture) -> list[str]:
        _, ops = self.module(architecture)
        if any(op != MAXPOOL3X3 for op in ops[1:-1]):
            return []
        return ["collapse: the module has no convolution but the projections of its input"]

    def covering(self) -> Iterator[Architecture]:
        """A tensor belongs to a vertex, its width, and whether it is a convolution or a projection."""
        covered: set[tuple[int, ...]] = set()
        rows = modules.rows()
        matrices = rows.matrices[self._rows]
        for first in np.unique(matrices, return_index=True)[1]:
            row = int(self._rows[first])
            tensors = set(self._tensors(modules.space().matrix(row)))
            if tensors <= covered:
                continue
            covered |= tensors
            plain = self.of_row(row)
            for label in (0, 1):  # a pool has no tensors
                inner = len(modules.space().operations(row)) - 2
                labels = [label if v < inner else 0 for v in range(self.vertices - 2)]
                yield Architecture(self.name, (*plain.choices[: len(self.pairs)], *labels))

    def _tensors(self, matrix: NDArray[np.int8]) -> Iterator[tuple[int, ...]]:
        for channels_in, channels_out in sorted(set(self.skeleton.widths())):
            channels = vertex_channels(channels_in, channels_out, matrix.astype(np.int64))
            for v in range(1, len(matrix)):
                last = v == len(matrix) - 1  # whose number is of no account
                yield channels_in, channels_out, -1 if last else v, int(channels[v]), 0 if last else 1
                if matrix[0, v]:
                    yield channels_in, channels_out, -1 if last else v, int(channels[v]), 2

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The modules of at most so many vertices."""
        return np.flatnonzero(modules.rows().vertices <= self.vertices)


@lru_cache(maxsize=REMEMBERED)
def _row(choices: tuple[int, ...], vertices: int) -> int:
    """The row of the module of these choices of so many vertices, -1 if they describe none."""
    count = len(_pairs(vertices))
    bits = sum(choice << i for i, choice in enumerate(choices[:count]))
    ops = np.full((1, MODULE_VERTICES), modules.NO_LABEL, np.int8)
    ops[0, 0], ops[0, vertices - 1] = modules.INPUT_LABEL, modules.OUTPUT_LABEL
    ops[0, 1 : vertices - 1] = choices[count:]
    return int(modules.lookup(np.array([bits]), ops)[0])


@lru_cache(maxsize=REMEMBERED)
def _choices(row: int, vertices: int) -> tuple[int, ...]:
    """Of the stored form of a module, as one of so many vertices."""
    matrix, ops = modules.space().matrix(row), modules.space().operations(row)
    inner = len(ops) - 2
    place = [*range(inner + 1), vertices - 1]
    edges = {(place[source], place[target]) for source, target in np.argwhere(matrix)}
    labels = [AVAILABLE_OPS.index(op) for op in ops[1:-1]]
    bits = (int(pair in edges) for pair in _pairs(vertices))
    return (*bits, *labels, *[0] * (vertices - 2 - inner))


def _pairs(vertices: int) -> list[tuple[int, int]]:
    """Source and target of every edge that there may be."""
    return [(source, target) for target in range(1, vertices) for source in range(target)]
