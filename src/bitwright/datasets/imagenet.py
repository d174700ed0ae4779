"""ImageNet, or other pictures of any size: root/train/CLASS/*.JPEG and root/val/CLASS/*.JPEG, decoded when needed.

Evaluation sees the usual centre crop (Russakovsky et al. 2015, arXiv:1409.0575; He et al. 2016, arXiv:1512.03385).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch

from ..errors import ConfigError, DataError
from ..pictures import class_folders
from . import Dataset, hold_out, locate
from ._image_files import ImageFiles, View, image_files

MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # of ImageNet's pixels, as published networks take them
DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)
TRAIN, VAL = "train", "val"


def load(
    root: Path,
    crop: int = 224,
    resize: int = 256,
    train: str = TRAIN,
    validation: int = 0,
    classes: Literal["imagenet", "folders"] = "imagenet",
    workers: int = 0,
) -> Dataset:
    """root: a folder with val/ and, for training, train/; or a folder with a folder imagenet/ that has them.
    crop: height and width of the images that a network sees.
    resize: evaluation brings the shorter side to this and takes the crop from the middle.
    train: the folder below root with the training images; another than train can be val, to train on those.
        Without a folder train/ the data set can only be evaluated on.
    validation: how many training images, drawn at random but always the same, are held out to choose the best epoch.
        0 takes those of val/, which are also the test images, as published results do.
    classes: imagenet numbers folders by the rank of their name among the 1,000 of ILSVRC-2012, whichever of them are
        there; folders numbers the training folders, or those of val/ if there are none.
    workers: processes that decode images ahead of their use; 0 decodes them in between.
    """
    if not 0 < crop <= resize:
        raise ConfigError(f"imagenet: crop is at least 1 and at most resize, got {crop} and {resize}")
    if workers < 0 or validation < 0:
        raise ConfigError(f"imagenet: workers and validation are at least 0, got {workers} and {validation}")
    place = locate(root, (VAL, f"imagenet/{VAL}"))
    if place is None:
        raise DataError(f"{root} holds no folder {VAL}/: imagenet wants {VAL}/CLASS/*.JPEG and {TRAIN}/CLASS/*.JPEG")
    root = place.parent
    if train != TRAIN and not (root / train).is_dir():
        raise DataError(f"{root} holds no folder {train}/, which is to hold the training images")
    names = _classes(root, train, classes)
    training, tested = (
        image_files(root / folder, names, View(resize, crop), (MEAN, DEVIATION), workers) for folder in (train, VAL)
    )
    validated = tested
    if validation:
        training, validated = hold_out(_shuffled(training), validation, name="imagenet")
    return Dataset("imagenet", names, training, validated, tested)


def _classes(root: Path, train: str, kind: str) -> tuple[str, ...]:
    if kind == "imagenet":
        return tuple(files(__package__).joinpath("imagenet_wnids.txt").read_text(encoding="ascii").split())
    folder = root / (train if (root / train).is_dir() else VAL)
    names = class_folders(folder)
    if len(names) < 2:
        raise DataError(f"{folder} should hold one folder per class, at least two; found {len(names)}")
    return names


def _shuffled(images: ImageFiles) -> ImageFiles:
    """In an order in which the last ones are of all classes."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
