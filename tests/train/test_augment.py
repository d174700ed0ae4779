"""Crops, flips and cutout: every augmented image is one of those that a naive loop makes, as often as it should."""

import itertools
import math
from collections import Counter

import pytest
import scipy.stats
import torch

from bitwright.datasets import Images
from bitwright.errors import ConfigError
from bitwright.train.augment import Augmentation, Augmenter

HEIGHT, WIDTH, CHANNELS = 5, 7, 2
FILL = (251.0, 252.0)


def data_set(count=3):
    """Images of which no two pixels are equal in any channel of an image, and none is 0 or a fill value."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.stack(
        [
            1 + torch.randperm(240, generator=generator)[: HEIGHT * WIDTH * CHANNELS].reshape(HEIGHT, WIDTH, CHANNELS)
            for _ in range(count)
        ]
    )
    return Images(pixels.to(torch.uint8), torch.arange(count) + 10)


def draw(augmentation, count, seed=1, images=None):
    images = images or data_set()
    rows = torch.arange(count) % len(images)
    batch, labels = Augmenter(images, augmentation, FILL).batch(rows, torch.Generator().manual_seed(seed))
    assert torch.equal(labels, images.labels[rows])
    return images, rows, batch


def key(image):
    return tuple(image.flatten().tolist())


def windows(image, pad, flip):
    """Every crop of (H, W, C) zero-padded pixels, by (top, left, mirrored), as a (C, H, W) image."""
    padded = torch.zeros(HEIGHT + 2 * pad, WIDTH + 2 * pad, CHANNELS, dtype=torch.uint8)
    padded[pad : pad + HEIGHT, pad : pad + WIDTH] = image
    crops = {}
    for top, left in itertools.product(range(2 * pad + 1), repeat=2):
        crop = padded[top : top + HEIGHT, left : left + WIDTH].permute(2, 0, 1)
        crops[top, left, False] = crop
        if flip:
            crops[top, left, True] = crop.flip(2)
    return crops


def squares(side):
    """Which pixels a square covers, by the row and column of its centre."""
    covered = {}
    for row, column in itertools.product(range(HEIGHT), range(WIDTH)):
        mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        top, left = row - side // 2, column - side // 2
        mask[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
        covered[row, column] = mask
    return covered


def assert_uniform(found, outcomes):
    """Each of `outcomes` equally likely events happened about equally often: chance fails one seed in 10^9."""
    counts = Counter(found)
    assert len(counts) == outcomes
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-9


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(2, True, 3), Augmentation(cutout=2)])
def test_batches_are_uint8_images_in_channels_last_memory(augmentation):
    _, _, batch = draw(augmentation, 6)
    assert batch.dtype == torch.uint8
    assert batch.shape == (6, CHANNELS, HEIGHT, WIDTH)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_no_augmentation_returns_the_images_themselves():
    images, rows, batch = draw(Augmentation(), 7)
    assert torch.equal(batch, images.pixels[rows].permute(0, 3, 1, 2))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [1, 2])
def test_every_crop_is_a_window_of_the_zero_padded_image_and_every_window_is_as_likely(pad, flip):
    images, rows, batch = draw(Augmentation(pad, flip), 6000)
    origin = [{key(crop): where for where, crop in windows(image, pad, flip).items()} for image in images.pixels]
    outcomes = (2 * pad + 1) ** 2 * (2 if flip else 1)
    assert all(len(crops) == outcomes for crops in origin)
    found = [origin[row][key(image)] for row, image in zip(rows.tolist(), batch, strict=True)]
    assert_uniform(found, outcomes)


def test_a_flip_without_crop_mirrors_half_of_the_images():
    images, rows, batch = draw(Augmentation(flip=True), 6000)
    straight = images.pixels[rows].permute(0, 3, 1, 2)
    mirrored = (batch != straight).flatten(1).any(1)
    assert torch.equal(batch, torch.where(mirrored[:, None, None, None], straight.flip(3), straight))
    assert abs(mirrored.double().mean() - 0.5) <= math.sqrt(math.log(2e9) / (2 * len(rows)))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9, 20])
def test_cutout_fills_one_square_clipped_at_the_borders_and_leaves_the_rest(side):
    images, rows, batch = draw(Augmentation(cutout=side), 400)
    straight = images.pixels[rows].permute(0, 3, 1, 2)
    allowed = {key(mask) for mask in squares(side).values()}
    masks = batch[:, 0] == 251
    assert all(key(mask) in allowed for mask in masks)
    fill = torch.tensor(FILL).to(torch.uint8).reshape(1, CHANNELS, 1, 1)
    assert torch.equal(batch, torch.where(masks[:, None], fill, straight))


@pytest.mark.parametrize("side", [1, 3, 4])
def test_the_centre_of_the_cutout_is_uniform_over_the_image(side):
    _, _, batch = draw(Augmentation(cutout=side), 6000)
    centre = {key(mask): where for where, mask in squares(side).items()}
    assert len(centre) == HEIGHT * WIDTH
    assert_uniform((centre[key(mask)] for mask in batch[:, 0] == 251), HEIGHT * WIDTH)


def test_a_cutout_inside_the_image_covers_its_whole_square_and_at_a_corner_a_quarter():
    _, _, batch = draw(Augmentation(cutout=4), 2000)
    areas = (batch[:, 0] == 251).sum((1, 2)).unique().tolist()
    # rows covered around a centre 0 ... 4 of 5: 2, 3, 4, 4, 3; columns around 0 ... 6 of 7: 2, 3, 4, 4, 4, 4, 3
    assert areas == [4, 6, 8, 9, 12, 16]


def test_crop_flip_and_cutout_together_are_a_window_with_a_square():
    images, rows, batch = draw(Augmentation(1, True, 3), 300)
    crops = [list(windows(image, 1, True).values()) for image in images.pixels]
    allowed = {key(mask) for mask in squares(3).values()}
    for row, image in zip(rows.tolist(), batch, strict=True):
        mask = image[0] == 251
        assert key(mask) in allowed
        assert torch.equal(image[1] == 252, mask)
        assert sum(torch.equal(image[:, ~mask], crop[:, ~mask]) for crop in crops[row]) >= 1


def test_the_fill_is_rounded_to_whole_pixel_values():
    images = data_set()
    rows = torch.arange(3)
    augmenter = Augmenter(images, Augmentation(cutout=40), (33.4, 71.6))
    batch, _ = augmenter.batch(rows, torch.Generator().manual_seed(0))
    assert batch[:, 0].unique().tolist() == [33]
    assert batch[:, 1].unique().tolist() == [72]


def test_augmentation_depends_on_the_generator_alone():
    augmentation = Augmentation(2, True, 3)
    torch.manual_seed(1)
    first = draw(augmentation, 50, seed=3)[2]
    torch.manual_seed(2)
    assert torch.equal(first, draw(augmentation, 50, seed=3)[2])
    assert not torch.equal(first, draw(augmentation, 50, seed=4)[2])


def test_examples_of_a_batch_are_augmented_independently():
    images = data_set(1)
    _, _, batch = draw(Augmentation(2, True), 50, images=images)
    assert len({key(image) for image in batch}) > 10


def test_the_data_set_is_left_as_it_was():
    images = data_set()
    before = images.pixels.clone(), images.labels.clone()
    draw(Augmentation(2, True, 3), 50, images=images)
    assert torch.equal(images.pixels, before[0])
    assert torch.equal(images.labels, before[1])


@pytest.mark.parametrize("arguments", [{"pad": -1}, {"cutout": -1}])
def test_negative_sizes_are_an_error(arguments):
    with pytest.raises(ConfigError, match="at least 0"):
        Augmentation(**arguments)
