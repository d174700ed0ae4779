"""Augmentation picture by picture: where crops lie, and that an image depends on its key and row alone."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from bitwright.datasets import Dataset, Images, imagenet
from bitwright.errors import ConfigError, DataError
from bitwright.network import BatchNorm, Conv2d, GlobalSumPool, Input, Linear, Network, Node
from bitwright.quantizers.uniform import Uniform
from bitwright.train.augment import Augmentation, Augmenter
from bitwright.train.auto_augment import auto_augment
from bitwright.train.fit import fit
from bitwright.train.loader import Loader, augment, augmented, resized_crop
from bitwright.train.random_stream import random_stream
from bitwright.train.recipe import Recipe

CPU = torch.device("cpu")
FILL = (10.0, 20.0, 30.0)
FULL = Augmentation(crop="resized", auto_augment=True, flip=True, cutout=3)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def in_memory(count: int = 6, channels: int = 3) -> Images:
    return Images(torch.from_numpy(noise(count, 8, 9, channels)), torch.arange(count) + 10)


def in_files(root: Path, count: int = 12, workers: int = 0) -> Dataset:
    if not root.exists():
        for number in range(count):
            folder = root / "val" / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(30 + number, 40, 3, seed=number)).save(folder / f"{number:02}.png")
    return imagenet.load(root, crop=16, resize=20, train="val", classes="folders", workers=workers)


def pictures(augmentation: Augmentation, count: int, size: tuple[int, int] = (9, 8), seed: int = 0) -> list[np.ndarray]:
    """`count` augmentations of one picture."""
    draw = Random(seed)
    original = Image.fromarray(noise(size[1], size[0], 3))
    return [np.asarray(augment(original.copy(), augmentation, size, (10, 20, 30), draw)) for _ in range(count)]


# resized crops


def test_resized_crops_lie_inside_and_have_the_published_areas_and_ratios() -> None:
    draw = Random(0)
    boxes = np.array([resized_crop((1000, 800), 0.08, draw) for _ in range(5000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 1000 and bottom.max() <= 800
    width, height = right - left, bottom - top
    areas, ratios = width * height / 800_000, width / height
    assert 0.079 < areas.min() < 0.09 and 0.95 < areas.max() <= 1
    assert ratios.min() > 0.74 and ratios.max() < 1.35
    # what fits always has an area of at most 800^2 * 3/4 pixels, and is drawn uniformly
    fits = areas < 0.6
    assert scipy.stats.kstest(areas[fits], scipy.stats.uniform(0.08, 0.52).cdf).pvalue > 1e-6
    logs = np.log(ratios[fits])
    assert scipy.stats.kstest(logs, scipy.stats.uniform(math.log(3 / 4), math.log(16 / 9)).cdf).pvalue > 1e-6
    assert scipy.stats.kstest(left / (1001 - width), "uniform").pvalue > 1e-4
    assert scipy.stats.kstest(top / (801 - height), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("size", "box"),
    # a box of 3:4 to 4:3 with 8 % of the area is longer than the short side: the middle, as wide or as tall as allowed
    [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((2000, 30), (980, 0, 1020, 30))],
)
def test_ten_crops_that_do_not_fit_are_followed_by_the_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert resized_crop(size, 0.08, Random(0)) == box


def test_crop_area_bounds_the_area_from_below() -> None:
    draw = Random(0)
    boxes = [resized_crop((500, 500), 0.5, draw) for _ in range(500)]
    assert min((right - left) * (bottom - top) for left, top, right, bottom in boxes) > 0.49 * 500**2


def test_a_resized_crop_is_the_box_brought_to_size() -> None:
    picture = Image.fromarray(noise(50, 70, 3))
    found = augment(picture, Augmentation(crop="resized"), (16, 16), (0, 0, 0), Random(5))
    box = resized_crop((70, 50), 0.08, Random(5))
    assert np.array_equal(np.asarray(found), np.asarray(picture.crop(box).resize((16, 16), Image.Resampling.BILINEAR)))


# the other augmentations


def test_padded_crops_are_the_windows_of_the_zero_padded_picture_each_as_often() -> None:
    padded = np.pad(noise(8, 9, 3), ((2, 2), (2, 2), (0, 0)))
    windows = {padded[y : y + 8, x : x + 9].tobytes(): (y, x) for y in range(5) for x in range(5)}
    counts = Counter(windows[found.tobytes()] for found in pictures(Augmentation(pad=2), 5000))
    assert len(counts) == 25
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-6


def test_half_of_the_pictures_are_mirrored() -> None:
    found = pictures(Augmentation(flip=True), 2000)
    mirrored = sum(np.array_equal(each, noise(8, 9, 3)[:, ::-1]) for each in found)
    assert sum(np.array_equal(each, noise(8, 9, 3)) for each in found) == 2000 - mirrored
    assert abs(mirrored - 1000) < 5 * math.sqrt(500)


def test_cutout_is_a_square_around_a_centre_anywhere_in_the_picture() -> None:
    counts: Counter[tuple[int, int]] = Counter()
    squares = {}
    for row in range(8):
        for column in range(9):
            mask = np.zeros((8, 9), bool)
            mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
            squares[mask.tobytes()] = row, column
    for found in pictures(Augmentation(cutout=3), 6000):
        mask = (found == (10, 20, 30)).all(2)
        counts[squares[mask.tobytes()]] += 1
        assert np.array_equal(found[~mask], noise(8, 9, 3)[~mask])
    assert len(counts) == 72
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-6


def test_the_policy_follows_the_crop_and_the_flip() -> None:
    picture = Image.fromarray(noise(50, 70, 3))
    draw = Random(3)
    found = augment(picture, Augmentation(crop="resized", flip=True, auto_augment=True), (16, 16), (0, 0, 0), draw)
    draw = Random(3)
    before = augment(picture, Augmentation(crop="resized", flip=True), (16, 16), (0, 0, 0), draw)
    assert found.tobytes() == auto_augment(before, draw).tobytes()


@pytest.mark.parametrize("options", [{"crop_area": 0.0}, {"crop_area": 1.5}, {"crop": "resized", "pad": 2}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="augmentation"):
        Augmentation(**options)  # type: ignore[arg-type]


# which of the two ways


def test_images_in_memory_go_through_pillow_only_where_they_must() -> None:
    assert isinstance(augmented(in_memory(), Augmentation(2, True, 3), FILL), Augmenter)
    for augmentation in (Augmentation(crop="resized"), Augmentation(auto_augment=True)):
        assert isinstance(augmented(in_memory(), augmentation, FILL), Loader)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_are_augmented_as_pictures(channels: int) -> None:
    images = in_memory(channels=channels)
    rows = torch.tensor([3, 0, 3])
    batch, labels = augmented(images, FULL, FILL[:channels]).batch(rows, torch.Generator().manual_seed(1))
    assert batch.shape == (3, channels, 8, 9)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [13, 10, 13]


def test_the_data_set_is_left_as_it_was() -> None:
    images = in_memory()
    before = images.pixels.clone()
    source = augmented(images, Augmentation(auto_augment=True, cutout=3, pad=1, flip=True), FILL)
    for seed in range(20):
        source.batch(torch.arange(6), torch.Generator().manual_seed(seed))
    assert torch.equal(images.pixels, before)


def test_pictures_have_one_or_three_channels() -> None:
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        augmented(in_memory(channels=2), FULL, FILL[:2]).batch(torch.tensor([0]), torch.Generator())


def test_files_without_augmentation_are_what_evaluation_sees(tmp_path: Path) -> None:
    images = in_files(tmp_path / "d").train
    rows = torch.tensor([5, 0, 7])
    seen, labels = images.batch(rows)
    ((batch, same, _),) = augmented(images, Augmentation(), FILL).batches([(rows, (0, "train", 0))])
    assert torch.equal(batch, seen)
    assert torch.equal(same, labels)


def test_only_who_trains_misses_the_training_images(tmp_path: Path) -> None:
    in_files(tmp_path / "d")
    loaded = imagenet.load(tmp_path / "d", crop=16, resize=20, classes="folders")
    assert len(loaded.train) == 0
    with pytest.raises(DataError, match="no training images"):
        augmented(loaded.train, FULL, FILL)


# what an image depends on


def plan(sizes: list[int], key: str = "train") -> list[tuple[torch.Tensor, tuple[int | str, ...]]]:
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
    return [(rows, (7, key, step)) for step, rows in enumerate(torch.split(order, sizes))]


def test_batches_are_the_same_with_any_number_of_processes_and_from_any_step_on(tmp_path: Path) -> None:
    steps = plan([5, 4, 3])
    whole = list(augmented(in_files(tmp_path / "d").train, FULL, FILL).batches(steps))
    assert [len(images) for images, _, _ in whole] == [5, 4, 3]
    for workers in (1, 2):
        source = augmented(in_files(tmp_path / "d", workers=workers).train, FULL, FILL)
        for first in (0, 2):  # interrupted after two steps, and gone on
            again = list(source.batches(steps[first:]))
            for (images, labels, generator), (expected, names, stream) in zip(again, whole[first:], strict=True):
                assert torch.equal(images, expected)
                assert torch.equal(labels, names)
                assert generator.initial_seed() == stream.initial_seed()


def test_an_image_depends_on_key_and_row_and_not_on_the_rest_of_its_batch(tmp_path: Path) -> None:
    images = in_files(tmp_path / "d").train
    source = augmented(images, FULL, FILL)
    rows, key = torch.tensor([4, 9, 1, 6]), (7, "train", 3)
    ((together, _, _),) = source.batches([(rows, key)])
    halves = [batch for batch, _, _ in source.batches([(rows[:2], key), (rows[2:], key)])]  # as two ranks have them
    assert torch.equal(torch.cat(halves), together)
    ((other, _, _),) = source.batches([(rows, (7, "train", 4))])
    ((seeded, _, _),) = source.batches([(rows, (8, "train", 3))])
    assert all(not torch.equal(a, b) for a, b in zip(together, other, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(together, seeded, strict=True))
    ((twice, _, _),) = source.batches([(torch.tensor([4, 4]), key)])
    assert torch.equal(twice[0], twice[1])


def test_a_single_batch_depends_on_the_generator_alone(tmp_path: Path) -> None:
    rows = torch.arange(12)
    batches = [
        augmented(in_files(tmp_path / "d", workers=w).train, FULL, FILL).batch(rows, torch.Generator().manual_seed(s))[
            0
        ]
        for w, s in ((0, 1), (2, 1), (0, 2))
    ]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_the_generator_of_a_step_is_that_of_its_key(tmp_path: Path) -> None:
    for images in (in_memory(12), in_files(tmp_path / "d").train):
        for (_, _, generator), (_, key) in zip(
            augmented(images, Augmentation(crop="resized"), FILL).batches(plan([6, 6])), plan([6, 6]), strict=True
        ):
            assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=random_stream(CPU, *key)))


def test_batches_of_images_in_memory_draw_from_the_generator_of_their_step() -> None:
    images, augmentation = in_memory(), Augmentation(2, True, 3)
    source = augmented(images, augmentation, FILL)
    for (rows, key), (batch, labels, generator) in zip(plan([4, 2]), source.batches(plan([4, 2])), strict=True):
        own = random_stream(CPU, *key)
        expected, names = Augmenter(images, augmentation, FILL).batch(rows, own)
        assert torch.equal(batch, expected)
        assert torch.equal(labels, names)
        assert torch.equal(generator.get_state(), own.get_state())


def test_training_on_files_that_is_interrupted_goes_on_with_other_processes_to_the_same_weights(tmp_path: Path) -> None:
    network = Network(
        (
            Node(Input((3, 16, 16), (128.0,), (1 / 128,))),
            Node(Conv2d(4, 3, Uniform(4), stride=4), (0,), "conv"),
            Node(BatchNorm(Uniform(4, signed=False)), (1,), "norm"),
            Node(GlobalSumPool(), (2,)),
            Node(Linear(2, Uniform(4)), (3,), "output"),
        )
    )
    recipe = Recipe(epochs=2, batch=5, crop="resized", auto_augment=True, mix_rate=1.0, dtype="float32")
    whole = fit(network, in_files(tmp_path / "d"), recipe).weights.state_dict()
    saved = tmp_path / "checkpoint.pt"
    fit(network, in_files(tmp_path / "d"), recipe, save_to=saved, stop_after=2)  # of three steps of the first epoch
    resumed = fit(network, in_files(tmp_path / "d", workers=2), recipe, save_to=saved).weights.state_dict()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_damaged_file_is_named_by_any_number_of_processes(tmp_path: Path) -> None:
    in_files(tmp_path / "d")
    bad = tmp_path / "d" / "val" / "b" / "05.png"
    bad.write_bytes(bad.read_bytes()[:300])
    for workers in (0, 2):
        with pytest.raises(DataError) as raised:
            list(augmented(in_files(tmp_path / "d", workers=workers).train, FULL, FILL).batches(plan([6, 6])))
        assert str(raised.value).startswith(f"{bad} is truncated, corrupt or no image")
        assert "\n" not in str(raised.value)
