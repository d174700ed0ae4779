"""The search-space contract: decisions to make, and the network or recurrent cell that they describe.

Each file of this folder is one space; the class has the file's name in capitals (`enas_micro` holds `EnasMicro`). Most
are a SearchSpace, of networks of images. What needs the decisions alone, such as a strategy, takes a DecisionSpace.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..architecture import Architecture, Decision
from ..errors import InvalidArchitecture
from ..network import Network
from ..quantizers import Quantizer

MOST_DRAWS = 100  # of a change that is valid, before the neighbours are listed


class DecisionSpace(ABC):
    """Architectures as choices: reading, checking, sampling and changing them."""

    name: str

    @property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """What is to be decided, in the order of an architecture's choices."""

    def is_valid(self, choices: Sequence[int]) -> bool:
        """Whether in-range choices also meet the constraints of the space."""
        return True

    def canonical(self, architecture: Architecture) -> Architecture:
        """The representative of all architectures that describe the same network or cell."""
        return architecture

    def warnings(self, architecture: Architecture) -> list[str]:
        """What a reader of the result should know about the architecture, such as a collapse to skips."""
        return []

    def benchmark_name(self, architecture: Architecture) -> str:
        """What a tabular benchmark of this space calls the architecture: the digits of its choices."""
        return "".join(map(str, architecture.choices))

    def encodings(self, architectures: Sequence[Architecture]) -> NDArray[np.float32]:
        """What a predictor reads of each architecture, (N, features) from 0 to 1; here its canonical choices, one-hot.

        Architectures of one canonical form have the same.
        """
        sizes = [len(decision.options) for decision in self.decisions]
        choices = np.array([self.canonical(a).choices for a in architectures], np.int64).reshape(-1, len(sizes))
        encoded = np.zeros((len(choices), sum(sizes)), np.float32)
        np.put_along_axis(encoded, choices + np.cumsum([0, *sizes[:-1]], dtype=np.int64)[: len(sizes)], 1.0, axis=1)
        return encoded

    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The architecture of these choices; InvalidArchitecture names the first one that is out of place."""
        decisions = self.decisions
        if len(choices) != len(decisions):
            raise InvalidArchitecture(f"{self.name} takes {len(decisions)} integers here, got {len(choices)}")
        for position, (choice, decision) in enumerate(zip(choices, decisions, strict=True)):
            if not 0 <= choice < len(decision.options):
                raise InvalidArchitecture(
                    f"{self.name}: position {position} ({decision.name}) takes 0 to {len(decision.options) - 1}"
                    f" ({', '.join(decision.options)}), got {choice}"
                )
        if not self.is_valid(choices):
            raise InvalidArchitecture(f"{self.name} excludes {' '.join(map(str, choices))}")
        return Architecture(self.name, tuple(choices))

    def parse(self, text: str) -> Architecture:
        """Read `space(0 2 1 4)` or the bare integers, divided by blanks or commas, with or without brackets."""
        match = re.fullmatch(r"\s*(?:(\w*)\s*\(([^()]*)\)|([^()]*))\s*", text)
        if match is None:
            raise InvalidArchitecture(f"an architecture is integers divided by blanks, got {text!r}")
        if match[1] not in (None, "", self.name):
            raise InvalidArchitecture(f"this is an architecture of {match[1]}, not of {self.name}")
        try:
            return self.architecture(
                [int(word) for word in re.split(r"[\s,;\[\]]+", match[2] or match[3] or "") if word]
            )
        except ValueError as error:
            if isinstance(error, InvalidArchitecture):
                raise
            raise InvalidArchitecture(f"an architecture is integers divided by blanks, got {text!r}") from None

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Uniform over the valid choices, by rejection."""
        while True:
            choices = tuple(rng.integers(self._sizes).tolist())
            if self.is_valid(choices):
                return Architecture(self.name, choices)

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Valid architectures that differ in exactly one choice."""
        for position, decision in enumerate(self.decisions):
            for option in range(len(decision.options)):
                if option != architecture.choices[position]:
                    choices = (*architecture.choices[:position], option, *architecture.choices[position + 1 :])
                    if self.is_valid(choices):
                        yield Architecture(self.name, choices)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """A uniformly drawn neighbour; InvalidArchitecture if there is none."""
        choices, changes = architecture.choices, self._changes
        for _ in range(MOST_DRAWS if changes else 0):  # mostly the first is valid, and the neighbours need no list
            position, option = changes[int(rng.random() * len(changes))]
            option += option >= choices[position]
            changed = (*choices[:position], option, *choices[position + 1 :])
            if self.is_valid(changed):
                return Architecture(self.name, changed)
        if not (candidates := list(self.neighbours(architecture))):
            raise InvalidArchitecture(f"{architecture} has no neighbour: no choice can change alone")
        return candidates[int(rng.integers(len(candidates)))]

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.array([len(decision.options) for decision in self.decisions], np.int64)

    @cached_property
    def _changes(self) -> list[tuple[int, int]]:
        """Every position, as often as it has options besides the chosen one, with the number of each among these."""
        return [(i, k) for i, decision in enumerate(self.decisions) for k in range(len(decision.options) - 1)]


class SearchSpace(DecisionSpace):
    """A space whose architectures are networks of images."""

    @abstractmethod
    def network(self, architecture: Architecture) -> Network:
        """The network the architecture describes, as it is trained by itself and deployed."""

    def training_network(self, architecture: Architecture) -> Network:
        """The network as it is trained, where that differs from what is deployed; its tensors are the same."""
        return self.network(architecture)

    def shared_network(self, architecture: Architecture) -> Network:
        """The network as it runs on a supernet's weights, where that differs."""
        return self.network(architecture)

    @abstractmethod
    def covering(self) -> Iterator[Architecture]:
        """Architectures whose shared networks together touch every tensor of the supernet."""


@dataclass(frozen=True)
class PathChoice:
    """A decision about which nodes lie between two places of the network.

    decision: its number. output: the key of the last node of the chosen segment, "" where nothing was chosen.
    segments: for every option the nodes from one place to the other, behind an Input of the shape of what they read;
        None for an option that puts out zeros.
    """

    decision: int
    output: str
    segments: tuple[Network | None, ...]


@dataclass(frozen=True)
class QuantizerChoice:
    """A decision about quantizers, one for every option, by the key of the node of the weights that they round, or by
    the key of the scale of the activations."""

    decision: int
    quantizers: Mapping[str, tuple[Quantizer, ...]]


@dataclass(frozen=True)
class CostPart:
    """Nodes whose cost depends on these decisions alone: all those whose key starts with `prefix` (of several such
    parts, the one with the longest prefix). decisions: their numbers, in rising order.
    """

    prefix: str
    decisions: tuple[int, ...]


class RelaxedSpace(SearchSpace):
    """A space that can be searched by the gradient of gates (Cai et al. 2019, ProxylessNAS, arXiv:1812.00332)."""

    @abstractmethod
    def gated(self, architecture: Architecture) -> Sequence[PathChoice | QuantizerChoice]:
        """Where each decision takes effect in `shared_network(architecture)`, and what the other options put there."""

    @abstractmethod
    def cost_parts(self) -> Sequence[CostPart]:
        """Parts that hold all nodes whose cost depends on a decision; what is in none costs the same everywhere."""
