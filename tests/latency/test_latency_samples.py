"""What robust statistics make of synthetic samples."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.latency.samples import entry, interleaved, kept


def test_without_outliers_nearly_all_samples_stay() -> None:
    samples = np.random.default_rng(0).normal(5.0, 0.1, 1000)
    found = entry(samples)
    assert found.count > 980
    assert found.mean == pytest.approx(5.0, abs=0.02)
    assert found.var == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("part", [0.05, 0.2, 0.45])
def test_disturbed_runs_are_left_out(part: float) -> None:
    """They take from 1.5 to 20 times as long; the plain median would be off by up to 12 standard deviations."""
    random = np.random.default_rng(1)
    clean = random.normal(5.0, 0.1, 1000)
    disturbed = random.random(1000) < part
    samples = np.where(disturbed, clean * random.uniform(1.5, 20, 1000), clean)
    found = entry(samples)
    assert found.count <= (~disturbed).sum()
    assert found.count > 0.95 * (~disturbed).sum()
    assert found.mean == pytest.approx(5.0, abs=0.03)
    assert found.var == pytest.approx(0.01, rel=0.3)


def test_equal_samples_have_no_spread() -> None:
    found = entry([2.0] * 9 + [7.0])
    assert (found.count, found.mean, found.var) == (9, 2.0, 0.0)


def test_one_sample_is_its_own_median() -> None:
    found = entry([3.0])
    assert (found.count, found.mean, found.var) == (1, 3.0, 0.0)


def test_what_is_left_is_sorted_and_contains_the_median_of_clean_samples() -> None:
    assert kept([3.0, 1.0, 2.0, 100.0]).tolist() == [1.0, 2.0, 3.0]


def test_a_difference_below_zero_is_zero() -> None:
    assert entry([-0.2, -0.1, -0.15]).mean == 0.0


def test_programs_run_in_turn_and_the_first_of_a_round_moves_on() -> None:
    order: list[str] = []
    programs = [lambda name=name: order.append(name) for name in "abc"]
    seconds = interleaved(programs, 3, swept=1000)
    assert seconds.shape == (3, 3)
    assert (seconds >= 0).all()
    assert "".join(order[-9:]) == "abcbcacab"
    assert len(order) == 9 + 3 * 3  # rounds that warm up
