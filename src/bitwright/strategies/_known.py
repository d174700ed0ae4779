"""What a strategy was told of, so that it does not ask for it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..architecture import Architecture
from ..spaces import DecisionSpace

MOST_DRAWS = 100  # for one architecture that is not known


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

    def unknown(self, count: int, draw: Callable[[], Architecture]) -> list[Architecture]:
        """`count` of what `draw` gives, neither known nor the same among themselves.

        Where it hardly gives anything else, as when nearly the whole space is known, the rest is what comes.
        """
        found: list[Architecture] = []
        taken = set(self._forms)
        for _ in range(count):
            for _ in range(MOST_DRAWS):
                architecture = draw()
                form = self.space.canonical(architecture)
                if form not in taken:
                    break
            taken.add(form)
            found.append(architecture)
        return found

    def state(self) -> list[list[int]]:
        return [list(form.choices) for form in self._forms]

    def load(self, state: Sequence[Sequence[int]]) -> None:
        self._forms = dict.fromkeys(Architecture(self.space.name, tuple(choices)) for choices in state)
