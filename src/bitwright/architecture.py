"""An architecture: one option index per decision of a search space."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidArchitecture


@dataclass(frozen=True, slots=True)
class Decision:
    """A named choice among `options`, such as ("normal/2/op1", ("sep3x3", "identity"))."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """A point of a search space. Hashable, ordered, and written `space(0 2 1 4)`.

    >>> Architecture.parse("enas_micro(0 2 1 4)")
    Architecture(space='enas_micro', choices=(0, 2, 1, 4))
    """

    space: str
    choices: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.space}({' '.join(map(str, self.choices))})"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the text form; raises InvalidArchitecture where `text` is not one."""
        space, bracket, rest = text.strip().partition("(")
        try:
            if not space or not bracket or not rest.endswith(")"):
                raise ValueError
            return cls(space, tuple(int(c) for c in rest[:-1].split()))
        except ValueError:
            raise InvalidArchitecture(f"expected an architecture such as `space(0 2 1 4)`, got {text!r}") from None
