"""AutoAugment's operations against definitions by hand, and the policy against the published list."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from bitwright.train.auto_augment import POLICY, STRENGTHS, STRONGEST, amount, apply, auto_augment, draw_operations

# the paper's appendix
PUBLISHED = """
.4 posterize 8/.6 rotate 9; .6 solarize 5/.6 autocontrast 5; .8 equalize 8/.6 equalize 3; .6 posterize 7/.6 posterize 6;
.4 equalize 7/.2 solarize 4; .4 equalize 4/.8 rotate 8; .6 solarize 3/.6 equalize 7; .8 posterize 5/1 equalize 2;
.2 rotate 3/.6 solarize 8; .6 equalize 8/.4 posterize 6; .8 rotate 8/.4 color 0; .4 rotate 9/.6 equalize 2;
0 equalize 7/.8 equalize 8; .6 invert 4/1 equalize 8; .6 color 4/1 contrast 8; .8 rotate 8/1 color 2;
.8 color 8/.8 solarize 7; .4 sharpness 7/.6 invert 8; .6 shearX 5/1 equalize 9; .4 color 0/.6 equalize 3;
.4 equalize 7/.2 solarize 4; .6 solarize 5/.6 autocontrast 5; .6 invert 4/1 equalize 8; .6 color 4/1 contrast 8;
.8 equalize 8/.6 equalize 3
"""

DRAWS = 50_000


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def changed(pixels: np.ndarray, operation: str, strength: float) -> np.ndarray:
    return np.asarray(apply(Image.fromarray(pixels), operation, strength))


def steps(text: str) -> list[tuple[str, float, int]]:
    found = re.findall(r"(\.?\d+) (\w+) (\d)", text)
    return [(name.replace("shearX", "shear_x"), float(p), int(strength)) for p, name, strength in found]


# the policy


def test_the_policy_is_the_published_one() -> None:
    assert [step for pair in POLICY for step in pair] == steps(PUBLISHED)
    assert len(POLICY) == 25


def test_the_policy_is_that_of_the_reference(shared: Path) -> None:
    path = shared / "reference" / "micronet-and-proxylessnas.md"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    listed = re.search(r"fill 128: (.*?); then repeats", path.read_text(encoding="utf-8"))
    assert listed is not None
    pairs = [tuple(steps(pair)) for pair in listed[1].split(";")]
    assert [*pairs, *(pairs[i - 1] for i in (5, 2, 14, 15, 3))] == list(POLICY)


def test_strengths_are_ten_even_steps_from_nothing_to_the_published_ends() -> None:
    ends = {"shear_x": 0.3, "translate_x": 150 / 331, "rotate": 30, "color": 0.9, "posterize": 4, "solarize": 256}
    for operation, end in ends.items():
        found = [amount(operation, strength) for strength in range(STRENGTHS)]
        np.testing.assert_allclose(found, np.linspace(0, end, 10), rtol=1e-12)
    assert amount("equalize", 9) == 0


def test_pairs_and_operations_are_drawn_as_often_as_the_policy_says() -> None:
    draw = Random(0)
    counts: Counter[str] = Counter()
    negative: Counter[str] = Counter()
    for _ in range(DRAWS):
        for operation, size in draw_operations(draw):
            counts[operation] += 1
            negative[operation] += size < 0
    expected: Counter[str] = Counter()
    for operation, probability, _ in (step for pair in POLICY for step in pair):
        expected[operation] += probability / len(POLICY)
    for operation, rate in expected.items():
        # five standard deviations; an operation that is drawn twice in a pair varies at most twice as much
        assert abs(counts[operation] / DRAWS - rate) < 5 * math.sqrt(2 * rate / DRAWS), operation
    both_ways = counts["contrast"]
    assert abs(negative["contrast"] / both_ways - 0.5) < 5 * 0.5 / math.sqrt(both_ways)
    assert abs(negative["shear_x"] / counts["shear_x"] - 0.5) < 5 * 0.5 / math.sqrt(counts["shear_x"])
    assert negative["rotate"] == negative["solarize"] == negative["posterize"] == 0
    assert set(counts) == set(expected)


def test_the_second_operation_does_not_depend_on_the_first() -> None:
    draw = Random(1)
    drawn = Counter(tuple(name for name, _ in draw_operations(draw)) for _ in range(DRAWS))
    # of 1/25 of the pictures: invert 0.4, sharpness 0.6 not done, hence sharpness then invert in 0.4 * 0.6
    rate = 0.4 * 0.6 / 25
    assert abs(drawn["sharpness", "invert"] / DRAWS - rate) < 5 * math.sqrt(rate / DRAWS)
    rate = 0.4 * 0.4 / 25
    assert abs(drawn["sharpness",] / DRAWS - rate) < 5 * math.sqrt(rate / DRAWS)


@pytest.mark.parametrize("shape", [(9, 11, 3), (9, 11)])
def test_a_picture_keeps_its_size_and_mode_and_depends_on_the_draws_alone(shape: tuple[int, ...]) -> None:
    picture = Image.fromarray(noise(*shape))
    for seed in range(60):
        first, second = (auto_augment(picture, Random(seed)) for _ in range(2))
        assert (first.size, first.mode) == (picture.size, picture.mode)
        assert first.tobytes() == second.tobytes()
    assert np.array_equal(np.asarray(picture), noise(*shape))


def test_every_operation_of_the_policy_is_one_that_is_known() -> None:
    for operation, _, strength in (step for pair in POLICY for step in pair):
        apply(Image.fromarray(noise(5, 5, 3)), operation, amount(operation, strength))
    for operation in STRONGEST:
        unchanged = changed(noise(5, 5, 3), operation, 0.0)
        assert np.array_equal(unchanged, noise(5, 5, 3)), operation


# values


@pytest.mark.parametrize(("strength", "bits"), list(enumerate([8, 8, 7, 7, 6, 6, 5, 5, 4, 4])))
def test_posterize_keeps_the_highest_bits(strength: int, bits: int) -> None:
    pixels = noise(16, 16, 3)
    expected = pixels // 2 ** (8 - bits) * 2 ** (8 - bits)
    assert np.array_equal(changed(pixels, "posterize", amount("posterize", strength)), expected)


@pytest.mark.parametrize("strength", range(10))
def test_solarize_inverts_values_from_a_threshold_on(strength: int) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    threshold = np.linspace(256, 0, 10)[strength]
    expected = np.where(pixels < threshold, pixels, 255 - pixels)
    assert np.array_equal(changed(pixels, "solarize", amount("solarize", strength)), expected)


def test_invert_is_255_minus() -> None:
    assert np.array_equal(changed(noise(9, 9, 3), "invert", 0), 255 - noise(9, 9, 3))


def test_autocontrast_stretches_every_channel_to_0_and_255() -> None:
    pixels = np.stack([noise(20, 20) // 4 + 60, noise(20, 20, seed=1) // 2 + 100], axis=2)
    pixels = np.concatenate([pixels, np.full((20, 20, 1), 77, np.uint8)], axis=2)
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1)).astype(float)
    expected = (pixels[..., :2] - low[:2]) * 255 / (high - low)[:2]
    found = changed(pixels, "autocontrast", 0)
    assert np.abs(found[..., :2] - expected).max() <= 1
    assert found[..., :2].min() == 0 and found[..., :2].max() == 255
    assert (found[..., 2] == 77).all()


def test_equalize_makes_a_histogram_as_flat_as_a_table_of_values_can() -> None:
    pixels = (np.random.default_rng(0).beta(2, 5, (64, 64)) * 255).astype(np.uint8)
    # by definition: a value becomes the share of darker pixels, counted in steps of the pixels less those of the last
    # value over 255, and rounded
    counts = np.bincount(pixels.ravel(), minlength=256)
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    table = np.minimum((np.cumsum(counts) - counts + step // 2) // step, 255)
    assert np.array_equal(changed(pixels, "equalize", 0), table[pixels])
    assert np.array_equal(changed(np.full((4, 4), 9, np.uint8), "equalize", 0), np.full((4, 4), 9))


@pytest.mark.parametrize("size", [-0.9, -0.2, 0.4, 0.9])
def test_colour_contrast_and_brightness_move_away_from_grey_mean_and_black(size: float) -> None:
    pixels = noise(12, 12, 3)
    grey = (pixels @ np.array([299, 587, 114]) / 1000)[..., None]
    for operation, centre in (("color", grey), ("contrast", np.floor(grey.mean() + 0.5)), ("brightness", 0)):
        expected = np.clip(centre + (1 + size) * (pixels.astype(float) - centre), 0, 255)
        assert np.abs(changed(pixels, operation, size) - expected).max() <= 2, operation  # grey is rounded too


@pytest.mark.parametrize("size", [-0.5, 0.9])
def test_sharpness_moves_away_from_the_smoothed_picture(size: float) -> None:
    pixels = noise(12, 12).astype(float)
    smooth = pixels.copy()
    around = sum(pixels[1 + i : 11 + i, 1 + j : 11 + j] for i in (-1, 0, 1) for j in (-1, 0, 1))
    smooth[1:-1, 1:-1] = (around + 4 * pixels[1:-1, 1:-1]) / 13
    expected = np.clip(smooth + (1 + size) * (pixels - smooth), 0, 255)
    assert np.abs(changed(noise(12, 12), "sharpness", size) - expected).max() <= 2


# places


@pytest.mark.parametrize("degrees", [10.0, 26.0, 30.0])
def test_rotation_takes_the_nearest_pixel_counter_clockwise_about_the_middle(degrees: float) -> None:
    pixels = noise(21, 15)
    height, width = pixels.shape
    y, x = np.mgrid[:height, :width] + 0.5
    angle = math.radians(degrees)
    # what is at an angle a now was at a - degrees; y points down
    dx, dy = x - width / 2, y - height / 2
    from_x = width / 2 + dx * math.cos(angle) - dy * math.sin(angle)
    from_y = height / 2 + dx * math.sin(angle) + dy * math.cos(angle)
    column, row = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    expected = np.where(inside, pixels[row.clip(0, height - 1), column.clip(0, width - 1)], 128)
    found = changed(pixels, "rotate", degrees)
    assert (found != expected).mean() < 0.02  # Pillow computes places in fixed point
    assert (expected == 128).sum() > 20
    colour = changed(np.stack([pixels] * 3, axis=2), "rotate", degrees)
    assert np.array_equal(colour, np.stack([found] * 3, axis=2))


def test_a_rotated_arrow_points_counter_clockwise() -> None:
    pixels = np.zeros((41, 41), np.uint8)
    pixels[20, 21:40] = 255  # from the middle to the right
    rows, columns = np.nonzero(changed(pixels, "rotate", 30.0) == 255)
    far = columns.argmax()
    angle = math.degrees(math.atan2(20 - rows[far], columns[far] - 20))  # up is positive
    assert abs(angle - 30) < 3


@pytest.mark.parametrize("shift", [-3, 2])
def test_translation_moves_whole_pixels_and_fills_with_128(shift: int) -> None:
    pixels = noise(10, 20, 3)
    padded = np.pad(pixels, ((5, 5), (5, 5), (0, 0)), constant_values=128)
    across, along = changed(pixels, "translate_x", shift / 20), changed(pixels, "translate_y", shift / 10)
    assert np.array_equal(across, padded[5:15, 5 + shift : 25 + shift])
    assert np.array_equal(along, padded[5 + shift : 15 + shift, 5:25])


@pytest.mark.parametrize("size", [-0.3, 0.1, 0.3])
def test_shear_slants_a_ramp_and_fills_with_128(size: float) -> None:
    # away from the border cubic interpolation strays from a straight line by at most a tenth of its step
    height, width = 12, 40
    y, x = np.mgrid[:height, :width].astype(float)
    ramp = (5 * x + 20).astype(np.uint8)
    place = x + size * (y + 0.5)  # the source of a pixel's middle, in pixels
    inside, outside = (place > 2) & (place < width - 3), (place < -0.6) | (place > width - 0.4)
    found = changed(ramp, "shear_x", size)
    assert np.abs(found - (5 * place + 20))[inside].max() <= 1.5
    assert (found[outside] == 128).all() and outside.any() and inside.mean() > 0.5
    assert np.array_equal(changed(ramp.T.copy(), "shear_y", size), found.T)
