"""Contrast normalisation and whitening of small images, as pylearn2 prepared CIFAR-10 and SVHN (Goodfellow et al. 2013,
arXiv:1302.4389) and BinaryConnect took them over (Courbariaux et al. 2015, arXiv:1511.00363).

The results are real numbers. They are kept as bytes, because a byte is what a deployed network reads: the number x is
round(x * scale) + 128, at most 255 and at least 0, with one scale for all channels and all parts of a data set.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import StorageError
from ..files import write_atomically
from . import Images

Transform = Callable[[Tensor], Tensor]  # float32 (N, H, W, C) to the same

BLOCK = 512  # images that are real numbers at one time; more would not fit into a cache
ZERO = 128  # the byte of the number 0
CLIPPED = 10_000  # of so many numbers of the training images, one may pass the largest byte

NORM = 55.0  # of an image after global contrast normalisation
SMALLEST_DIVISOR = 1e-8  # an image of one colour is divided by 1
WHITENING_BIAS = 0.1  # added to every eigenvalue

KERNEL, DEVIATION = 7, 2.0  # of the Gaussian that weighs a neighbourhood, in pixels
SMALLEST_CONTRAST = 1e-4


@dataclass(frozen=True)
class Encoding:
    """What becomes of the images of all parts: `transform`, then the bytes round(x * scale) + 128."""

    transform: Transform
    scale: float

    def __call__(self, images: Images) -> Images:
        pixels = torch.empty_like(images.pixels)
        for start, block in _blocks(images):
            numbers = self.transform(block) * self.scale
            pixels[start : start + BLOCK] = numbers.round_().add_(ZERO).clamp_(0, 255).to(torch.uint8)
        return Images(pixels, images.labels)


@dataclass(frozen=True)
class Whitening:
    """Zero-phase whitening of contrast-normalised images. mean: float32 (D,), matrix: float32 (D, D), D = H * W * C."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, block: Tensor) -> Tensor:
        return ((global_contrast(block).flatten(1) - self.mean) @ self.matrix).view_as(block)


def encoding(train: Images, transform: Transform) -> Encoding:
    """The scale gives the byte 255 to the number that one in 10,000 of the training images' absolute numbers passes."""
    return Encoding(transform, _scale(train, transform))


def whitened_encoding(train: Images, folder: Path) -> Encoding:
    """What `fit_whitening` finds; it is kept in a file in `folder`, if one can be written there, for the next time."""
    path = folder / f"whitening-{_digest(train)[:16]}.safetensors"
    found = _read(path, train.pixels[0].numel())
    if found is None:
        found = encoding(train, fit_whitening(train))
        with contextlib.suppress(StorageError):  # a folder that cannot be written costs every run the computation
            _write(path, found)
    return found


def global_contrast(images: Tensor) -> Tensor:
    """float32 (N, H, W, C): every image less its mean over all its numbers, brought to the norm 55."""
    centred = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    divisor: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / NORM
    return (centred / divisor.masked_fill(divisor < SMALLEST_DIVISOR, 1)).view_as(images)


def local_contrast(images: Tensor) -> Tensor:
    """float32 (N, H, W, C): subtractive and divisive normalisation channel by channel (Jarrett et al. 2009).

    A number is reduced by the weighted mean of its neighbourhood and divided by the root of the weighted mean of the
    squares there, but by no less than that root's mean over the image. The weights are a 7x7 Gaussian of deviation 2;
    outside the image there is zero. The squares are those of the input, as in pylearn2, not of what the subtraction
    leaves, as in the paper; on globally normalised images, as they are here, the former are about the contrast too.
    """
    contrast = _smooth(images.square()).clamp_min(0).sqrt()
    divisor = torch.maximum(contrast, contrast.mean((1, 2), keepdim=True)).clamp_min(SMALLEST_CONTRAST)
    return (images - _smooth(images)) / divisor


def global_and_local_contrast(images: Tensor) -> Tensor:
    """`local_contrast` of `global_contrast`."""
    return local_contrast(global_contrast(images))


def fit_whitening(train: Images) -> Whitening:
    """Mean and V diag(1 / sqrt(e + 0.1)) V^T, with e and V the eigenvalues and eigenvectors of the covariance of the
    contrast-normalised training images."""
    size, count = train.pixels[0].numel(), len(train)
    total = torch.zeros(size, dtype=torch.float64)
    for _, block in _blocks(train):
        total += global_contrast(block).flatten(1).sum(0, dtype=torch.float64)
    centre = (total / count).float()
    covariance = torch.zeros(size, size, dtype=torch.float64)
    for _, block in _blocks(train):
        centred = global_contrast(block).flatten(1) - centre
        covariance += centred.T @ centred
    values, vectors = torch.linalg.eigh(covariance / count)
    gains = (values.clamp_min(0) + WHITENING_BIAS).rsqrt()
    return Whitening(centre, ((vectors * gains) @ vectors.T).float())


def _smooth(images: Tensor) -> Tensor:
    """Weighted means of the neighbourhoods, (N, H, W, C)."""
    count, height, width, channels = images.shape
    down, across = _band(height).to(images), _band(width).to(images)  # the Gaussian is a product, so there are two
    across = torch.kron(across, torch.eye(channels).to(across))
    return ((down @ images.flatten(2)).reshape(count * height, width * channels) @ across.T).view(images.shape)


def _band(size: int) -> Tensor:
    """float64 (size, size): row i weighs the numbers around the i-th of a line."""
    line = torch.arange(size, dtype=torch.float64)
    distance = (line[:, None] - line).abs()
    reach = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    weights = torch.exp(-(distance**2) / (2 * DEVIATION**2)) * (distance <= KERNEL // 2)
    return weights / torch.exp(-(reach**2) / (2 * DEVIATION**2)).sum()


def _blocks(images: Images) -> Iterator[tuple[int, Tensor]]:
    """The images as float32 (n, H, W, C), in parts, and where each part starts."""
    for start in range(0, len(images), BLOCK):
        yield start, images.pixels[start : start + BLOCK].float()


def _scale(train: Images, transform: Transform) -> float:
    """Bytes per unit."""
    allowed = max(1, train.pixels.numel() // CLIPPED)
    largest = torch.zeros(allowed)
    for _, block in _blocks(train):
        absolute = transform(block).abs_().flatten()
        candidates = torch.cat([largest, absolute[absolute > largest.min()]])
        largest = candidates.topk(allowed, sorted=False).values
    limit = float(largest.min())
    return (255 - ZERO) / limit if limit > 0 else 1.0


def _digest(train: Images) -> str:
    """Of everything that the fit depends on."""
    constants = NORM, SMALLEST_DIVISOR, WHITENING_BIAS, CLIPPED, tuple(train.pixels.shape)
    digest = hashlib.sha256(repr(constants).encode())
    digest.update(train.pixels.contiguous().numpy().data)
    return digest.hexdigest()


def _write(path: Path, fitted: Encoding) -> None:
    from safetensors.torch import save

    assert isinstance(fitted.transform, Whitening)
    scale = torch.tensor([fitted.scale], dtype=torch.float64)
    content = save({"mean": fitted.transform.mean, "matrix": fitted.transform.matrix, "scale": scale})
    write_atomically(path, lambda file: file.write(content))


def _read(path: Path, size: int) -> Encoding | None:
    """None if there is no such file or it is not whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        stored = load(path.read_bytes())
        mean, matrix, scale = stored["mean"], stored["matrix"], stored["scale"]
    except (OSError, SafetensorError, KeyError):
        return None
    if mean.shape != (size,) or matrix.shape != (size, size) or scale.shape != (1,):
        return None
    return Encoding(Whitening(mean, matrix), float(scale))
