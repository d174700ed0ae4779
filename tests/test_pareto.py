"""Fronts and crowding against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.pareto import crowding, ranks

Points = list[list[int]]


@st.composite
def points(draw: st.DrawFn) -> Points:
    """Few values, so that many figures are equal."""
    figures = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(st.integers(0, 4), min_size=figures, max_size=figures), min_size=1, max_size=25))


def dominates(a: list[int], b: list[int]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(points())
def test_a_front_is_what_only_earlier_fronts_dominate(given_points: Points) -> None:
    found = ranks(np.array(given_points, np.float64))
    left = list(range(len(given_points)))
    for rank in range(max(found) + 1):
        front = [i for i in left if not any(dominates(given_points[j], given_points[i]) for j in left)]
        assert front == [i for i in left if found[i] == rank] != []
        left = [i for i in left if i not in front]
    assert left == []


def test_one_figure_ranks_like_sorting() -> None:
    assert ranks(np.array([[3.0], [1.0], [2.0], [1.0]])).tolist() == [2, 0, 1, 0]


def test_no_points_have_no_ranks() -> None:
    assert ranks(np.empty((0, 2))).tolist() == []


def test_crowding_is_the_neighbours_distance_in_parts_of_the_range() -> None:
    found = crowding(np.array([[0.0, 10.0], [2.0, 8.0], [3.0, 1.0], [10.0, 0.0]]))
    # point 1: (3 - 0) / 10 + (10 - 1) / 10; point 2: (10 - 2) / 10 + (8 - 0) / 10
    assert found == pytest.approx([np.inf, 1.2, 1.6, np.inf])


def test_a_figure_without_a_range_crowds_nobody() -> None:
    assert crowding(np.array([[1.0, 5.0], [1.0, 6.0], [1.0, 8.0]]))[1] == pytest.approx(1.0)
