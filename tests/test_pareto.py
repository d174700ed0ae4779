"""Fronts, crowding and hypervolumes against their definitions."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.pareto import BLOCK, compromise, crowding, front, hypervolume, hypervolumes, ranks

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


# the front


@given(points())
def test_the_front_is_what_nothing_dominates(given_points: Points) -> None:
    expected = [i for i, a in enumerate(given_points) if not any(dominates(b, a) for b in given_points)]
    assert front(np.array(given_points, np.float64)).tolist() == expected


def test_the_front_of_many_points_is_the_first_rank() -> None:
    rng = np.random.default_rng(0)
    for figures in (2, 4):
        values = rng.integers(0, 40, (3 * BLOCK + 7, figures)).astype(np.float64)
        assert front(values).tolist() == np.flatnonzero(ranks(values) == 0).tolist()


def test_the_front_of_nothing_is_empty() -> None:
    assert front(np.empty((0, 2))).tolist() == []


def test_the_compromise_is_nearest_to_the_best_of_every_figure() -> None:
    # in parts of the range (0, 1), (0.1, 0.5), (0.5, 0.2), (1, 0): squares 1, 0.26, 0.29, 1
    assert compromise(np.array([[0.0, 100.0], [1.0, 50.0], [5.0, 20.0], [10.0, 0.0]])) == 1
    assert compromise(np.array([[3.0, 7.0]])) == 0
    assert compromise(np.array([[3.0, 7.0], [3.0, 7.0]])) == 0


# hypervolumes


def by_inclusion_and_exclusion(given_points: Points, reference: list[int]) -> int:
    """The volume of a union of boxes from the volumes of all their intersections."""
    total = 0
    for count in range(1, len(given_points) + 1):
        for chosen in combinations(given_points, count):
            corner = [max(column) for column in zip(*chosen, strict=True)]
            sides = [max(r - c, 0) for r, c in zip(reference, corner, strict=True)]
            total += (-1) ** (count + 1) * math.prod(sides)
    return total


def by_cells(given_points: Points, reference: list[int]) -> int:
    """The volume by counting unit cells: those whose lower corner some point is nowhere above."""
    cells = np.stack(np.meshgrid(*(np.arange(r) for r in reference), indexing="ij"), -1).reshape(-1, len(reference))
    return int((np.array(given_points)[:, None] <= cells).all(-1).any(0).sum())


@given(points(), st.integers(1, 5))
def test_a_hypervolume_is_the_number_of_unit_cells(given_points: Points, bound: int) -> None:
    reference = [bound + i % 2 for i in range(len(given_points[0]))]
    found = hypervolume(np.array(given_points, np.float64), np.array(reference, np.float64))
    assert found == by_cells(given_points, reference)


@pytest.mark.parametrize("figures", [1, 2, 3, 4, 5])
def test_a_hypervolume_includes_and_excludes(figures: int) -> None:
    rng = np.random.default_rng(figures)
    given_points = rng.integers(0, 100, (9, figures)).tolist()
    reference = [90] * figures
    found = hypervolume(np.array(given_points, np.float64), np.array(reference, np.float64))
    assert found == by_inclusion_and_exclusion(given_points, reference)


@pytest.mark.parametrize("figures", [3, 4])
def test_a_hypervolume_of_many_points_is_the_part_of_random_ones_that_they_dominate(figures: int) -> None:
    rng = np.random.default_rng(figures)
    values = rng.random((60, figures))
    values = 1 - values / np.linalg.norm(values, axis=1, keepdims=True)
    drawn = rng.random((200_000, figures))
    part = np.mean([(values <= each[:, None]).all(-1).any(1).mean() for each in np.split(drawn, 100)])
    deviation = math.sqrt(part * (1 - part) / len(drawn))
    assert hypervolume(values, np.ones(figures)) == pytest.approx(part, abs=4 * deviation)


def test_hypervolumes_by_hand() -> None:
    reference = np.array([4.0, 4.0])
    staircase = np.array([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    assert hypervolumes(staircase, reference).tolist() == [3.0, 5.0, 6.0]
    assert hypervolume(staircase, reference) == 6.0
    assert hypervolume(np.array([[1.0, 4.0], [5.0, 0.0]]), reference) == 0.0  # not below the reference
    assert hypervolume(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]]), np.full(3, 3.0)) == 8 + 3 - 2
    assert hypervolume(np.empty((0, 3)), np.ones(3)) == 0.0
    assert hypervolumes(np.empty((0, 3)), np.ones(3)).tolist() == []


@given(points())
def test_hypervolumes_are_those_of_the_first_points(given_points: Points) -> None:
    values = np.array(given_points, np.float64)
    reference = np.full(values.shape[1], 4.0)
    expected = [hypervolume(values[: i + 1], reference) for i in range(len(values))]
    assert hypervolumes(values, reference).tolist() == expected


@given(points())
def test_many_fronts_are_crowded_front_by_front(given_points: Points) -> None:
    values = np.array(given_points, np.float64)
    rank = ranks(values)
    found = crowding(values, rank)
    for number in set(rank.tolist()):
        assert found[rank == number] == pytest.approx(crowding(values[rank == number]))
