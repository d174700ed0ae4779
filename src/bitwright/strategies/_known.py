"""What a strategy was told of, so that it does not ask for it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..architecture import Architecture
from ..spaces import DecisionSpace

DOUBLED = 7  # times, until what is known is asked for again: 127 draws for each of those that are wanted


class Known:
    """The canonical forms of architectures, in the order in which they became known."""

    def __init__(self, space: DecisionSpace) -> None:
        self.space = space
        self._forms: dict[Architecture, None] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def __contains__(self, architecture: Architecture) -> bool:
        return self.space.canonical(architecture) in self._forms

    def add(self, architecture: Architecture) -> bool:
        """Whether it is new."""
        before = len(self._forms)
        self._forms.setdefault(self.space.canonical(architecture))
        return len(self._forms) > before

    def sampled(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """`count` drawn at random, neither known nor the same among themselves."""
        return self.unknown(count, lambda missing: (self.space.sample(rng) for _ in range(missing)))

    def unknown(self, count: int, draw: Callable[[int], Iterable[Architecture]]) -> list[Architecture]:
        """`count` of what `draw` gives, neither known nor the same among themselves.

        draw: gives as many as it is asked for. Where it hardly gives anything new, as when nearly the whole space is
        known, the rest is what comes.
        """
        found: dict[Architecture, Architecture] = {}  # by canonical form
        for doubled in range(DOUBLED if count else 0):  # who draws many at once is quicker
            for architecture in draw(count << doubled):
                form = self.space.canonical(architecture)
                if form not in self._forms and form not in found:
                    found[form] = architecture
                    if len(found) == count:
                        return list(found.values())
        return [*found.values(), *draw(count - len(found))]

    def state(self) -> list[list[int]]:
        return [list(form.choices) for form in self._forms]

    def load(self, state: Sequence[Sequence[int]]) -> None:
        self._forms = dict.fromkeys(Architecture(self.space.name, tuple(choices)) for choices in state)
