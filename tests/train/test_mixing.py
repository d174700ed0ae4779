"""CutMix and mixup against loops over pixels, and the distribution of their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import torch

from bitwright.errors import ConfigError
from bitwright.train.mixing import Mixed, Mixing, mix, symmetric_beta

HEIGHT, WIDTH = 12, 20


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of which every pixel says whose it is; labels that say so too."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, HEIGHT, WIDTH, 3) * 30
    return images.contiguous().permute(0, 3, 1, 2), torch.arange(count) + 100


def draws(options: Mixing, times: int, count: int = 8) -> Iterator[tuple[torch.Tensor, Mixed]]:
    images, labels = batch(count)
    for seed in range(times):
        yield images, mix(images, labels, options, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 10.0])
def test_weights_have_the_beta_distribution(alpha: float) -> None:
    first, second = torch.rand(2, 50_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = symmetric_beta(alpha, first, second)
    assert scipy.stats.kstest(found, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-6


@pytest.mark.parametrize("alpha", [1e-3, 0.01, 100.0])
def test_extreme_draws_give_weights_between_0_and_1(alpha: float) -> None:
    ends = torch.tensor([0.0, 1e-300, 0.25, 0.5, 1 - 2**-53], dtype=torch.float64)
    found = symmetric_beta(alpha, ends[:, None], ends[None, :])
    assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_a_batch_is_mixed_with_its_probability(kind: str) -> None:
    for prob in (0.0, 0.3, 1.0):
        options = Mixing(mix_kind=kind, mix_rate=1.0, mix_prob=prob, mix_clipped_weight=False)  # type: ignore[arg-type]
        unmixed = 0
        for images, mixed in draws(options, 600):
            if float(mixed.weight) == 1:
                assert torch.equal(mixed.images, images)
                unmixed += 1
        assert abs(unmixed / 600 - (1 - prob)) <= 5 * math.sqrt(prob * (1 - prob) / 600)


@pytest.mark.parametrize("clipped", [True, False])
def test_cutmix_puts_one_rectangle_of_the_other_image_into_each(clipped: bool) -> None:
    reached = 0
    options = Mixing(mix_rate=1.0, mix_prob=1.0, mix_clipped_weight=clipped)
    for images, mixed in draws(options, 300):
        assert mixed.images.dtype == torch.uint8
        assert mixed.images.is_contiguous(memory_format=torch.channels_last)
        others = (mixed.other_labels - 100).to(torch.uint8) * 30
        assert mixed.labels.tolist() == list(range(100, 108))
        assert sorted(mixed.other_labels.tolist()) == list(range(100, 108))
        moved = others != images[:, 0, 0, 0]
        inside = (mixed.images[moved] != images[moved]).any(1)
        assert bool((inside == inside[:1]).all())  # the same for all
        if len(inside) == 0 or not inside[0].any():
            continue
        rows, columns = inside[0].any(1).nonzero().flatten(), inside[0].any(0).nonzero().flatten()
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        assert bool(inside[0, top:bottom, left:right].all())
        expected = images.clone()
        expected[:, :, top:bottom, left:right] = others[:, None, None, None]
        assert torch.equal(mixed.images, expected)
        area = (bottom - top) * (right - left) / (HEIGHT * WIDTH)
        weight = float(mixed.weight)
        if clipped:
            assert weight == pytest.approx(1 - area, abs=1e-6)
        else:
            # sides of the drawn weight, rounded down to whole and then to even pixels
            tall, wide = (2 * (int(side * math.sqrt(1 - weight) + 1e-4) // 2) for side in (HEIGHT, WIDTH))
            assert bottom - top <= tall and right - left <= wide
            assert bottom - top == tall or top == 0 or bottom == HEIGHT
            assert right - left == wide or left == 0 or right == WIDTH
            reached += top == 0 or left == 0 or bottom == HEIGHT or right == WIDTH
    assert clipped or reached > 100  # many rectangles are clipped


def test_the_centre_of_the_rectangle_is_uniform() -> None:
    counts = np.zeros(WIDTH, int)
    options = Mixing(mix_rate=400.0, mix_prob=1.0, mix_clipped_weight=False)  # weights near one half: sides of 13 to 15
    for images, mixed in draws(options, 3000, count=2):
        if mixed.other_labels[0] == 100:
            continue
        columns = (mixed.images[0] != images[0]).any(0).any(0).nonzero().flatten()
        half = int(WIDTH * math.sqrt(1 - float(mixed.weight)) + 1e-4) // 2
        left, right = int(columns[0]), int(columns[-1]) + 1
        counts[left + half if left > 0 else right - half] += 1
    assert counts.sum() > 1000
    assert scipy.stats.chisquare(counts).pvalue > 1e-6


def test_mixup_adds_both_images_up_and_rounds() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 5, 4), dtype=torch.uint8, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(6)
    weights = []
    for seed in range(200):
        options = Mixing("mixup", mix_rate=0.7, mix_prob=1.0)
        mixed = mix(images, labels, options, torch.Generator().manual_seed(seed))
        weight = float(mixed.weight)
        exact = weight * images.double() + (1 - weight) * images[mixed.other_labels].double()
        assert mixed.images.dtype == torch.uint8
        assert mixed.images.is_contiguous(memory_format=torch.channels_last)
        assert float((mixed.images - exact).abs().max()) <= 0.5 + 1e-4
        weights.append(weight)
    assert scipy.stats.kstest(weights, scipy.stats.beta(0.7, 0.7).cdf).pvalue > 1e-6


def test_a_rate_of_0_changes_nothing_and_draws_nothing() -> None:
    images, labels = batch()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    mixed = mix(images, labels, Mixing(), generator)
    assert mixed.images is images
    assert torch.equal(mixed.other_labels, labels)
    assert float(mixed.weight) == 1
    assert torch.equal(generator.get_state(), before)


def test_mixing_depends_on_the_generator_alone() -> None:
    options = Mixing(mix_rate=1.0, mix_prob=1.0)
    first, second = ([m.images for _, m in draws(options, 5)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("options", [{"mix_rate": -1.0}, {"mix_prob": 1.1}, {"mix_prob": -0.1}, {"mix_kind": "cutout"}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="mixing"):
        Mixing(**options)  # type: ignore[arg-type]
