"""The evaluator contract: what an architecture is worth.

Each file of this folder is one evaluator; the class has the file's name in capitals (`shared_weights` holds
`SharedWeights`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..architecture import Architecture
from ..journal import Journal
from ..trial import Measurement

Ask = Callable[[int], list[Architecture]]


class Evaluator(ABC):
    """deterministic: evaluating the same network again gives the same measurement, but for the seconds it takes.
    journal: where it tells what it does; whoever runs a search may replace it.
    """

    deterministic: bool = False
    journal: Journal

    @abstractmethod
    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """One measurement per architecture, in order."""

    def prepare(self, round: int, ask: Ask, tick: Callable[[], None]) -> None:  # noqa: B027
        """Called before round `round` (0, 1, ...). A supernet trains its shared weights here, on what `ask` gives.

        `ask` gives the same architectures whenever it is called in the same round. `tick` is to be called after every
        step that leaves the evaluator in a state worth keeping. Called again for a round that is already prepared, it
        does nothing.
        """

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, as tensors and numbers in containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Return to a state that `state_dict` gave."""
