"""The search-strategy contract: ask for architectures, tell the trials they became.

Each file of this folder is one strategy; the class has the file's name in capitals (`random_search` holds
`RandomSearch`). Its constructor takes the search space, the objective, and options.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..architecture import Architecture
from ..trial import Trial


class Strategy(ABC):
    """`ask` never changes the strategy; only `tell` does.

    So a supernet may ask for architectures to train on without the strategy noticing, and all randomness comes from
    the generator that `ask` is handed.
    """

    @abstractmethod
    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """`count` architectures to evaluate next."""

    def tell(self, trials: Sequence[Trial]) -> None:  # noqa: B027  (a strategy may ignore results)
        """Learn from evaluated architectures, one batch at a time and in order."""

    def figures(self) -> Mapping[str, float]:
        """What the last `tell` should show in the log, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, as tensors and numbers in containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Return to a state that `state_dict` gave."""
