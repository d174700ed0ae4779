"""A mutation is a neighbour, and every neighbour is as likely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import chisquare

from bitwright.architecture import Architecture, Decision
from bitwright.errors import InvalidArchitecture
from bitwright.spaces import DecisionSpace
from bitwright.spaces.enas_micro import EnasMicro


class Uneven(DecisionSpace):
    """Decisions of one, four, two and three options; valid are sums that three does not divide, or few."""

    name = "uneven"
    decisions = tuple(Decision(f"d{i}", tuple("abcd"[:n])) for i, n in enumerate((1, 4, 2, 3)))

    def __init__(self, valid: set[tuple[int, ...]] | None = None) -> None:
        self.valid = valid

    def is_valid(self, choices: Sequence[int]) -> bool:
        return sum(choices) % 3 > 0 if self.valid is None else tuple(choices) in self.valid


@pytest.mark.parametrize("space", [Uneven(), EnasMicro(nodes=1, ops="enas")], ids=lambda space: space.name)
def test_every_neighbour_is_as_likely(space: DecisionSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        start = space.sample(rng)
        neighbours = list(space.neighbours(start))
        drawn = Counter(space.mutate(start, rng) for _ in range(150 * len(neighbours)))
        assert set(drawn) == set(neighbours)
        assert chisquare([drawn[each] for each in neighbours]).pvalue > 1e-4


def test_rare_neighbours_are_found_and_none_is_told() -> None:
    start = Architecture("uneven", (0, 0, 0, 0))
    space = Uneven({(0, 0, 0, 0), (0, 3, 0, 0), (0, 0, 0, 2)})
    rng = np.random.default_rng(0)
    assert {space.mutate(start, rng).choices for _ in range(60)} == {(0, 3, 0, 0), (0, 0, 0, 2)}
    alone = Uneven({(0, 0, 0, 0)})
    with pytest.raises(InvalidArchitecture, match=r"uneven\(0 0 0 0\) has no neighbour"):
        alone.mutate(start, rng)
