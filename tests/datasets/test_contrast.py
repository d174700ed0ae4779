"""Contrast normalisation and whitening against what numpy and scipy compute in float64."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bitwright.datasets import Images, _contrast, cifar10

Array = NDArray[np.float64]
CIFAR = 3 * 32 * 32


def smooth_images(count: int, height: int = 9, width: int = 7, channels: int = 3, seed: int = 0) -> Images:
    """Images whose neighbouring pixels are alike, as in photographs."""
    generator = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(generator.normal(size=(count, height, width, channels)), (0, 1, 1, 0.5))
    pixels = np.clip(128 + 150 * noise, 0, 255).astype(np.uint8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(generator.integers(0, 10, count)))


def contrast_normalised(pixels: NDArray[np.uint8]) -> Array:
    """Image by image: less the mean, at the norm 55."""
    result = np.zeros(pixels.shape)
    for image, out in zip(pixels, result, strict=True):
        centred = image.astype(np.float64) - np.mean(image, dtype=np.float64)
        norm = np.sqrt(np.sum(centred**2)) / 55
        out[...] = centred / (norm if norm >= 1e-8 else 1)
    return result


def whitened(train: Array, images: Array) -> Array:
    """(N, D). The whitening matrix as the inverse root of the covariance plus 0.1, by its singular values."""
    mean = train.mean(0)
    vectors, values, _ = np.linalg.svd(np.cov(train, rowvar=False, bias=True) + 0.1 * np.eye(train.shape[1]))
    return (images - mean) @ (vectors / np.sqrt(values)) @ vectors.T


def locally_normalised(images: Array) -> Array:
    """Channel by channel with scipy's correlation and zeros outside the image."""
    row, column = np.mgrid[-3:4, -3:4]
    kernel = np.exp(-(row**2 + column**2) / (2 * 2.0**2))
    kernel /= kernel.sum()
    result = np.zeros(images.shape)
    for number, channel in np.ndindex(images.shape[0], images.shape[3]):
        plane = images[number, :, :, channel]
        mean = ndimage.correlate(plane, kernel, mode="constant")
        root = np.sqrt(ndimage.correlate(plane**2, kernel, mode="constant"))
        result[number, :, :, channel] = (plane - mean) / np.maximum(np.maximum(root, root.mean()), 1e-4)
    return result


def as_bytes(numbers: Array, train: Array) -> Array:
    """The rule of the encoding: of 10,000 training numbers one passes the largest byte."""
    absolute = np.sort(np.abs(train), axis=None)
    limit = absolute[-max(1, absolute.size // 10_000)]
    return np.clip(np.round(numbers * 127 / limit) + 128, 0, 255)


def assert_bytes(found: Images, expected: Array) -> None:
    """Equal but for numbers in the middle between two bytes, where float32 may round to the other side."""
    difference = np.abs(found.pixels.numpy().astype(np.float64) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 1e-3


def test_global_contrast_normalisation_is_that_of_float64() -> None:
    images = smooth_images(20)
    found = _contrast.global_contrast(images.pixels.float()).numpy()
    np.testing.assert_allclose(found, contrast_normalised(images.pixels.numpy()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.reshape(20, -1), axis=1), 55, rtol=1e-5)
    np.testing.assert_allclose(found.reshape(20, -1).mean(1), 0, atol=1e-5)


def test_an_image_of_one_colour_becomes_zero() -> None:
    plain = torch.full((1, 32, 32, 3), 201.0)
    assert not _contrast.global_contrast(plain).any()
    assert not _contrast.global_and_local_contrast(plain).any()
    images = Images(plain.to(torch.uint8), torch.zeros(1, dtype=torch.int64))
    encode = _contrast.encoding(images, _contrast.global_contrast)
    assert encode(images).pixels.unique().tolist() == [128]


@pytest.mark.parametrize("shape", [(9, 7, 3), (32, 32, 3), (4, 6, 1)])
def test_local_contrast_normalisation_is_that_of_scipy(shape: tuple[int, int, int]) -> None:
    images = smooth_images(6, *shape)
    expected = locally_normalised(contrast_normalised(images.pixels.numpy()))
    found = _contrast.global_and_local_contrast(images.pixels.float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_faint_images_are_divided_by_the_threshold() -> None:
    faint = 1e-6 * np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    found = _contrast.local_contrast(torch.from_numpy(faint).float())
    np.testing.assert_allclose(found.numpy(), locally_normalised(faint), rtol=1e-4, atol=1e-8)
    assert found.abs().max() < 0.1


def test_whitening_divides_every_variance_by_itself_plus_the_bias() -> None:
    train = smooth_images(900)
    whitening = _contrast.fit_whitening(train)
    normalised = contrast_normalised(train.pixels.numpy()).reshape(900, -1)
    found = whitening(train.pixels.float()).flatten(1).double().numpy()
    np.testing.assert_allclose(found, whitened(normalised, normalised), atol=2e-4)
    values, vectors = np.linalg.eigh(np.cov(normalised, rowvar=False, bias=True))
    diagonal = vectors.T @ np.cov(found, rowvar=False, bias=True) @ vectors
    np.testing.assert_allclose(diagonal, np.diag(values / (values + 0.1)), atol=1e-3)


def test_whitening_of_fewer_images_than_numbers_is_finite() -> None:
    train = smooth_images(5)
    normalised = contrast_normalised(train.pixels.numpy()).reshape(5, -1)
    found = _contrast.fit_whitening(train)(train.pixels.float()).flatten(1)
    np.testing.assert_allclose(found.numpy(), whitened(normalised, normalised), atol=2e-3)


@pytest.mark.parametrize("block", [7, 512])
def test_bytes_are_the_rounded_numbers_with_the_scale_of_the_training_images(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_contrast, "BLOCK", block)
    train, other = smooth_images(300), smooth_images(40, seed=1)
    normalised = contrast_normalised(train.pixels.numpy())
    encode = _contrast.encoding(train, _contrast.global_contrast)
    assert_bytes(encode(train), as_bytes(normalised, normalised))
    assert_bytes(encode(other), as_bytes(contrast_normalised(other.pixels.numpy()), normalised))
    assert torch.equal(encode(other).labels, other.labels)
    local = locally_normalised(normalised)
    assert_bytes(_contrast.encoding(train, _contrast.global_and_local_contrast)(train), as_bytes(local, local))


def test_one_in_ten_thousand_numbers_passes_the_largest_byte() -> None:
    train = smooth_images(600)
    numbers = _contrast.global_contrast(train.pixels.float())
    encode = _contrast.encoding(train, _contrast.global_contrast)
    passing = int((numbers.abs() * encode.scale > 127.001).sum())
    assert numbers.numel() // 10_000 - 2 <= passing < numbers.numel() // 10_000


# the kept matrix


def test_a_whitening_is_kept_for_the_same_training_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = smooth_images(30), smooth_images(30, seed=1)
    expected = _contrast.whitened_encoding(first, tmp_path)(first)
    (kept,) = tmp_path.iterdir()
    _contrast.whitened_encoding(second, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2

    def refuse(train: Images) -> _contrast.Whitening:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(_contrast, "fit_whitening", refuse)
        again = _contrast.whitened_encoding(first, tmp_path)(first)
        assert torch.equal(again.pixels, expected.pixels)
        with pytest.raises(AssertionError, match="computed again"):
            _contrast.whitened_encoding(first[:29], tmp_path)
    kept.write_bytes(kept.read_bytes()[:-100])
    assert torch.equal(_contrast.whitened_encoding(first, tmp_path)(first).pixels, expected.pixels)


def test_a_folder_that_cannot_be_written_costs_only_the_computation(tmp_path: Path) -> None:
    train = smooth_images(30)
    expected = _contrast.whitened_encoding(train, tmp_path)(train)
    (tmp_path / "file").write_bytes(b"")
    found = _contrast.whitened_encoding(train, tmp_path / "file")(train)
    assert torch.equal(found.pixels, expected.pixels)


# CIFAR-10


def write_cifar(folder: Path) -> NDArray[np.uint8]:
    """Six batches of 20 smooth images; all of them as (120, 32, 32, 3)."""
    images = smooth_images(120, 32, 32)
    rows = images.pixels.permute(0, 3, 1, 2).reshape(120, CIFAR).numpy()
    records = np.concatenate([images.labels.numpy().astype(np.uint8)[:, None], rows], axis=1)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, batch in zip(names, np.split(records, 6), strict=True):
        (folder / f"{name}.bin").write_bytes(batch.tobytes())
    return images.pixels.numpy()


def test_cifar_parts_are_normalised_image_by_image(tmp_path: Path) -> None:
    normalised = contrast_normalised(write_cifar(tmp_path))
    loaded = cifar10.load(tmp_path, validation=30, preprocess="gcn")
    assert loaded.shape == (3, 32, 32)
    for part, rows in ((loaded.train, slice(70)), (loaded.validation, slice(70, 100)), (loaded.test, slice(100, 120))):
        assert isinstance(part, Images)
        assert_bytes(part, as_bytes(normalised[rows], normalised[:70]))


@pytest.mark.slow
def test_the_published_cifar10_is_whitened_with_the_training_images_alone(shared: Path, tmp_path: Path) -> None:
    if not (shared / "data" / "cifar10").is_dir():
        pytest.skip("there is no cifar10 in the shared data")
    script = shared / "data" / "cifar10" / "unpack_cifar10.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    plain = cifar10.load(tmp_path)
    loaded = cifar10.load(tmp_path, preprocess="gcn_zca")
    assert isinstance(plain.train, Images) and isinstance(plain.test, Images) and isinstance(loaded.test, Images)
    train = contrast_normalised(plain.train.pixels.numpy()).reshape(-1, CIFAR)
    expected = whitened(train, contrast_normalised(plain.test.pixels[:100].numpy()).reshape(-1, CIFAR))
    assert_bytes(loaded.test[:100], as_bytes(expected, whitened(train, train)).reshape(100, 32, 32, 3))
