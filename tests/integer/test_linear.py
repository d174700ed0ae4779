"""Thresholds as one multiplication: against brute force over every integer of the range."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.integer.graph import LARGEST, Requantize, thresholds_of
from bitwright.integer.linear import FloatForm, ShiftForm, counts, evaluate_float_form, float_form, probes, shift_form
from naive_executor import whole

seeds = st.integers(0, 2**32)


def counted(thresholds: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C, n) by comparison with every threshold."""
    return (x[:, :, None] >= thresholds[:, None, :]).sum(2)


def everything(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """(C, n) all x of every channel; shorter ranges repeat their highest."""
    steps = np.arange(int((highs - lows).max()) + 1)
    return np.minimum(lows[:, None] + steps, highs[:, None])


def shifted(form: ShiftForm, x: np.ndarray, count: int) -> np.ndarray:
    """What a ShiftForm says, in Python integers."""
    rows = []
    for m, a, s, row in zip(form.multiplier, form.addend, form.shift, x, strict=True):
        rows.append([min(max((int(v) * int(m) + int(a)) // 2 ** int(s), 0), count) for v in row])
    return np.array(rows)


def floated(form: FloatForm, x: np.ndarray, factor: int, count: int) -> np.ndarray:
    """What a FloatForm says, number by number in float32."""
    rows = []
    for offset, multiplier, row in zip(form.offset, form.multiplier, x, strict=True):
        exact = [np.float32(factor * int(v) + int(offset)) for v in row]
        levels = [float(np.rint(np.float32(u * multiplier))) + form.zero for u in exact]
        rows.append([int(min(max(level, 0), count)) for level in levels])
    return np.array(rows)


def staircase(rng: np.random.Generator, bits: int, channels: int, span: int) -> tuple[np.ndarray, ...]:
    """Thresholds on a line as lowering makes them, with levels out of reach on either side, and the ranges."""
    count = 2**bits - 1
    lows = rng.integers(-span, span // 2, channels)
    highs = lows + rng.integers(0, span, channels)
    slope = np.exp(rng.uniform(np.log(0.02), np.log(30.0), (channels, 1))) * (highs - lows + 1)[:, None] / count
    middle = rng.uniform(lows - 0.2 * span, highs + 0.2 * span)[:, None]
    table = np.ceil(middle + slope * (np.arange(count) - count / 2)).astype(np.int64)
    table = np.clip(table, lows[:, None], highs[:, None] + 1)
    return table, lows, highs


# shift_form


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("span", [3, 60, 4000])
def test_a_shift_form_counts_every_integer_of_the_range(bits, span, width):
    rng = np.random.default_rng([bits, span])
    found = 0
    for _ in range(12):
        table, lows, highs = staircase(rng, bits, 3, span)
        form = shift_form(table, lows, highs, bits=width)
        if form is None:
            continue
        found += 1
        x = everything(lows, highs)
        assert np.array_equal(shifted(form, x, 2**bits - 1), counted(table, x))
        ends = [
            abs(int(m) * int(e)) for m, low, high in zip(form.multiplier, lows, highs, strict=True) for e in (low, high)
        ]
        sums = [p + abs(int(a)) for p, a in zip(ends, np.repeat(form.addend, 2), strict=True)]
        assert max(sums) < 2 ** (width - 1)
        assert form.shift.min() >= 0
        assert form.shift.max() < width
    assert found >= (12 if width == 64 else 6)


@given(seeds, st.integers(1, 6), st.integers(1, 40))
@settings(max_examples=300)
def test_a_shift_form_of_any_table_is_exact_or_none(seed, count, span):
    rng = np.random.default_rng(seed)
    lows = rng.integers(-50, 50, 2)
    highs = lows + rng.integers(0, span, 2)
    table = np.sort(rng.integers(-60, 100, (2, count)), axis=1)
    x = everything(lows, highs)
    for width in (32, 64):
        form = shift_form(table, lows, highs, bits=width)
        if form is not None:
            assert np.array_equal(shifted(form, x, count), counted(table, x))


def some_line(wanted: np.ndarray, x: np.ndarray, count: int) -> bool:
    """Whether a line with a small multiplier has these levels: all multipliers, shifts and addends are tried."""
    for shift in range(7):
        for multiplier in range(3 * 2**shift + 1):
            low, high = -(2**70), 2**70
            for v, level in zip(x.tolist(), wanted.tolist(), strict=True):
                if level > 0:
                    low = max(low, level * 2**shift - v * multiplier)
                if level < count:
                    high = min(high, (level + 1) * 2**shift - 1 - v * multiplier)
            if low <= high:
                return True
    return False


@pytest.mark.parametrize("count", [1, 2, 3])
def test_none_means_that_there_is_no_line(count):
    """All tables of up to three thresholds on the integers from -2 to 4."""
    x = np.arange(-2, 5)
    lows, highs = whole(-2), whole(4)
    missed = []
    for row in combinations_with_replacement(range(-2, 6), count):
        table = whole(row)
        wanted = counted(table, x[None])[0]
        exists = some_line(wanted, x, count)
        for width in (32, 64):
            form = shift_form(table, lows, highs, bits=width)
            if form is not None:
                assert np.array_equal(shifted(form, x[None], count)[0], wanted)
            if (form is not None) != exists:
                missed.append((row, width, exists))
    assert missed == []


def test_a_table_without_thresholds_has_the_form_zero():
    empty = np.zeros((2, 0), dtype=np.int64)
    form = shift_form(empty, whole(-3, 0), whole(3, 9), bits=32)
    assert form is not None
    assert shifted(form, everything(whole(-3, 0), whole(3, 9)), 0).max() == 0
    level = float_form(empty, whole(-3, 0), whole(3, 9))
    assert level is not None
    assert floated(level, everything(whole(-3, 0), whole(3, 9)), 1, 0).max() == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("reached", ["all", "none", "both", "low half"])
def test_levels_that_are_always_or_never_reached_have_a_line(bits, reached):
    count = 2**bits - 1
    lows, highs = whole(-700, 5), whole(900, 5)
    table = {
        "all": np.repeat(lows[:, None], count, 1),
        "none": np.repeat(highs[:, None] + 1, count, 1),
        "both": np.stack([np.full(count, -700), np.full(count, 6)]),
        "low half": np.where(np.arange(count) < count // 2, lows[:, None], highs[:, None] + 1),
    }[reached]
    x = everything(lows, highs)
    for width in (32, 64):
        form = shift_form(table, lows, highs, bits=width)
        assert form is not None
        assert np.array_equal(shifted(form, x, count), counted(table, x))
    for factor in (1, 8):
        level = float_form(table, lows, highs, factor=factor)
        assert level is not None
        assert np.array_equal(floated(level, x, factor, count), counted(table, x))


def test_two_steps_at_one_integer_and_a_flat_run_have_no_line():
    table = whole([0, 0, 0, 100])
    assert shift_form(whole([0, 1, 2, 100]), whole(-200), whole(200), bits=64) is None
    assert shift_form(table, whole(-200), whole(200), bits=64) is None
    assert float_form(table, whole(-200), whole(200)) is None


def test_one_channel_without_a_line_leaves_the_table_without_one():
    table = whole([0, 10, 20], [0, 1, 200])
    assert shift_form(table, whole(-300, -300), whole(300, 300), bits=64) is None
    assert shift_form(table[:1], whole(-300), whole(300), bits=64) is not None


@pytest.mark.parametrize("base", [2**30, -(2**30), 2**31 - 4000])
def test_a_shift_form_far_from_zero_is_exact(base):
    """Products of 32 bits may have no room there; those of 64 bits do."""
    table = base + 300 * np.arange(1, 8)[None]
    lows, highs = whole(base), whole(base + 3000)
    x = everything(lows, highs)
    form = shift_form(table, lows, highs, bits=64)
    assert form is not None
    assert np.array_equal(shifted(form, x, 7), counted(table, x))
    narrow = shift_form(table, lows, highs, bits=32)
    if narrow is not None:
        assert np.array_equal(shifted(narrow, x, 7), counted(table, x))


# float_form


@pytest.mark.parametrize("factor", [1, 2, 16, 64])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("span", [3, 60, 2000])
def test_a_float_form_counts_every_integer_of_the_range(bits, span, factor):
    rng = np.random.default_rng([bits, span, factor])
    for _ in range(2):
        table, lows, highs = staircase(rng, bits, 2, span)
        form = float_form(table, lows, highs, factor=factor)
        if form is None:
            continue
        x = everything(lows, highs)
        wanted = counted(table, x)
        assert np.array_equal(floated(form, x, factor, 2**bits - 1), wanted)
        assert np.array_equal(evaluate_float_form(form, x, factor, 2**bits - 1), wanted)
        assert form.multiplier.dtype == np.float32
        assert np.abs(form.offset).max() <= 2**30
        assert 0 <= form.zero <= 2**bits - 1


@given(seeds, st.integers(1, 5), st.integers(1, 30), st.sampled_from([1, 4]))
@settings(max_examples=150)
def test_a_float_form_of_any_table_is_exact_or_none(seed, count, span, factor):
    rng = np.random.default_rng(seed)
    lows = rng.integers(-50, 50, 2)
    highs = lows + rng.integers(0, span, 2)
    table = np.sort(rng.integers(-60, 100, (2, count)), axis=1)
    form = float_form(table, lows, highs, factor=factor)
    if form is not None:
        x = everything(lows, highs)
        assert np.array_equal(floated(form, x, factor, count), counted(table, x))


def test_one_threshold_always_has_a_float_form():
    """A sign."""
    for low, high in ((-5, 5), (0, 9), (-9, -2), (-(2**20), 2**20)):
        for threshold in (low, low + 1, (low + high) // 2, high, high + 1):
            form = float_form(whole([threshold]), whole(low), whole(high))
            assert form is not None, (low, high, threshold)
            x = np.unique(np.clip(np.arange(threshold - 3, threshold + 4), low, high))[None]
            assert np.array_equal(floated(form, x, 1, 1), counted(whole([threshold]), x))


# counts, probes and thresholds_of


@given(seeds)
@settings(max_examples=100)
def test_counts_are_comparisons_with_every_threshold(seed):
    rng = np.random.default_rng(seed)
    table = np.sort(rng.integers(-9, 10, (3, int(rng.integers(0, 9)))), axis=1)
    x = rng.integers(-12, 13, (3, 40))
    assert np.array_equal(counts(table, x), counted(table, x))


@given(seeds)
@settings(max_examples=100)
def test_probes_lie_in_the_range_and_hold_both_sides_of_every_step(seed):
    rng = np.random.default_rng(seed)
    table = np.sort(rng.integers(-20, 20, (2, 5)), axis=1)
    lows = rng.integers(-15, 5, 2)
    highs = lows + rng.integers(0, 15, 2)
    found = probes(table, lows, highs)
    assert (found >= lows[:, None]).all()
    assert (found <= highs[:, None]).all()
    for row, mine, low, high in zip(table, found, lows, highs, strict=True):
        for v in (*row, *(row - 1), low, high):
            assert v in mine or not low <= v <= high


@given(seeds, st.booleans())
@settings(max_examples=200)
def test_the_thresholds_of_a_requantization_count_its_levels(seed, per_channel):
    rng = np.random.default_rng(seed)
    rows = 3 if per_channel else 1
    multiplier = rng.integers(-20, 21, rows) * int(rng.choice([1, 1000]))
    lowest = int(rng.integers(-9, 5))
    op = Requantize(
        multiplier,
        rng.integers(-5000, 5001, rows),
        rng.integers(0, 12, rows),
        lowest,
        lowest + int(rng.integers(0, 12)),
    )
    table = thresholds_of(op, 3)
    assert table.shape == (3, op.highest - lowest)
    assert (np.diff(table, axis=1) >= 0).all()
    for c, v in product(range(3), range(-400, 401)):
        m, a, s = (int(each[c if per_channel else 0]) for each in (op.multiplier, op.addend, op.shift))
        sign = -1 if m < 0 else 1
        wanted = min(max((v * m + a) // 2**s, lowest), op.highest)
        assert lowest + (sign * v >= table[c]).sum() == wanted


@pytest.mark.parametrize("m", [-(2**40), -7, -1, 0, 1, 7, 2**40])
@pytest.mark.parametrize("a", [-(2**60), -1, 0, 1, 2**60])
def test_the_thresholds_of_extreme_requantizations_hold_at_both_ends_of_32_bits(m, a):
    op = Requantize(whole(m), whole(a), whole(20), -3, 3)
    (row,) = thresholds_of(op, 1)
    assert row.min() >= -LARGEST
    assert row.max() <= LARGEST + 1
    near = {int(t) + d for t in row for d in (-1, 0, 1)} | {-LARGEST, -1, 0, 1, LARGEST}
    for v in (v for v in near if abs(v) <= LARGEST):
        x = -v if m < 0 else v
        assert -3 + (v >= row).sum() == min(max((x * m + a) >> 20, -3), 3)
