"""The 1,797 8x8 digits that scikit-learn carries (Alpaydin and Kaynak 1998): nothing to download."""

from pathlib import Path

import torch

from . import Dataset, Images, split


def load(root: Path, validation: float = 0.2, test: float = 0.2) -> Dataset:
    """A fixed stratified split. Pixels of 0 to 16 become 0 to 255. `root` is not read.

    validation, test: fractions of all images.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[..., None]
    images = Images(pixels, torch.from_numpy(bunch.target).long())
    train, held_out, tested = split(images, (1 - validation - test, validation, test))
    return Dataset("digits", tuple("0123456789"), train, held_out, tested)
