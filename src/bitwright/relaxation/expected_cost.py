"""What a network costs on average while its decisions are still probabilities (Cai et al. 2019, arXiv:1812.00332).

A cost that is a sum over nodes is a sum over the parts of a space, each of which depends on a few decisions only. So
the expectation under independent decisions is the sum of the parts' own, exact and differentiable.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..architecture import Architecture
from ..costs import CostModel
from ..errors import ConfigError
from ..spaces import CostPart, RelaxedSpace

TOLERANCE = 1e-9  # by which sums of the same numbers in another order may differ, as a part of them
CHECKED = 3  # random architectures whose cost must be the sum of their parts

Choices = tuple[int, ...]
Floats = NDArray[np.float64]


class ExpectedCost:
    """fixed: what every architecture costs. terms: of every part what it adds, by its decisions, one axis each.

    ConfigError where the cost is no sum of the space's parts.
    """

    def __init__(self, space: RelaxedSpace, model: CostModel) -> None:
        self.parts = tuple(space.cost_parts())
        if model.combine != "sum":
            raise ConfigError(f"{_named(model)} is no sum over nodes; its expectation is not that of its parts")
        sizes = [len(decision.options) for decision in space.decisions]
        self.terms: list[Floats] = [np.full([sizes[d] for d in part.decisions], np.nan) for part in self.parts]
        self.fixed = np.nan
        self._part_of: dict[str, int] = {}
        for architecture in combinations(space):
            self._take(space, model, architecture)
        self._tensors = [torch.from_numpy(term) for term in self.terms]
        rng = np.random.default_rng(0)
        for _ in range(CHECKED):
            self._take(space, model, space.sample(rng))

    def __call__(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The expected cost, float64: (). probabilities: of the options of every decision, which are independent."""
        total = torch.full((), self.fixed, dtype=torch.float64, device=probabilities[0].device)
        exact = [p.double() for p in probabilities]
        for part, term in zip(self.parts, self._tensors, strict=True):
            term = term.to(total.device)
            for decision in reversed(part.decisions):
                term = term @ exact[decision]
            total = total + term
        return total

    def of(self, architecture: Architecture) -> float:
        """The cost of one architecture."""
        terms = zip(self.parts, self.terms, strict=True)
        return self.fixed + sum(float(term[_of(part, architecture.choices)]) for part, term in terms)

    def _take(self, space: RelaxedSpace, model: CostModel, architecture: Architecture) -> None:
        """Keep what the parts of an architecture cost; ConfigError where it is not what they cost in another one."""
        network = space.network(architecture).trunk
        sums, fixed = [0.0] * len(self.parts), 0.0
        for position, figure in model(network).per_node.items():
            part = self._part(network.nodes[position].key)
            if part is None:
                fixed += figure
            else:
                sums[part] += figure
        for part, (term, found) in enumerate(zip(self.terms, sums, strict=True)):
            place = _of(self.parts[part], architecture.choices)
            self._agree(model, self.parts[part].prefix, term[place], found)
            term[place] = found
        self._agree(model, "what no decision changes", self.fixed, fixed)
        self.fixed = fixed

    def _part(self, key: str) -> int | None:
        """The part that a node of that key belongs to."""
        if key not in self._part_of:
            fitting = [i for i, part in enumerate(self.parts) if key.startswith(part.prefix)]
            self._part_of[key] = max(fitting, key=lambda i: len(self.parts[i].prefix), default=-1)
        found = self._part_of[key]
        return None if found < 0 else found

    @staticmethod
    def _agree(model: CostModel, what: str, known: float, found: float) -> None:
        if not np.isnan(known) and abs(known - found) > TOLERANCE * max(abs(known), abs(found)):
            raise ConfigError(f"{_named(model)} of {what} is {known:g} in one network and {found:g} in another")


def combinations(space: RelaxedSpace) -> Iterator[Architecture]:
    """Architectures, as few as come easily, in which every part meets every combination of its decisions.

    InvalidArchitecture where the space does not allow one of them.
    """
    sizes = [len(decision.options) for decision in space.decisions]
    parts = space.cost_parts()
    missing = [dict.fromkeys(itertools.product(*(range(sizes[d]) for d in part.decisions))) for part in parts]
    first = space.architecture([0] * len(sizes))  # where no part is missing, there is still what no decision changes
    for part, absent in zip(parts, missing, strict=True):
        absent.pop(_of(part, first.choices), None)
    yield first
    while any(missing):
        choices: list[int | None] = [None] * len(sizes)
        for at in sorted(range(len(parts)), key=lambda at: -len(missing[at])):
            given = [choices[d] for d in parts[at].decisions]
            wanted = next((c for c in missing[at] if all(g in (None, w) for g, w in zip(given, c, strict=True))), None)
            for decision, option in zip(parts[at].decisions, wanted or (), strict=False):
                choices[decision] = option
        architecture = space.architecture([choice or 0 for choice in choices])
        for part, absent in zip(parts, missing, strict=True):
            absent.pop(_of(part, architecture.choices), None)
        yield architecture


def _of(part: CostPart, choices: Choices) -> Choices:
    return tuple(choices[decision] for decision in part.decisions)


def _named(model: CostModel) -> str:
    return type(model).__name__
