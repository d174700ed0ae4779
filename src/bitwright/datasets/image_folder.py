"""Images in folders named by class: root/train/cat/1.png, root/val/..., root/test/..., or just root/cat/1.png.

Parts that are missing are split off at random: the test part from all images, the validation part from those for
training, each with its share of every class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError
from ..pictures import as_array, class_folders, decode, list_pictures
from . import Dataset, Images, split

PARTS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}


def load(root: Path, size: int | None = None, validation: float = 0.1, test: float = 0.15) -> Dataset:
    """root: the folder.
    size: height and width that all images are brought to; None wants them equal as they are.
    validation, test: fractions to split off where there is no such part.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder of images; it should hold train/CLASS/*.png or CLASS/*.png")
    found = {part: next((root / n for n in names if (root / n).is_dir()), None) for part, names in PARTS.items()}
    if found["train"] is None and (found["validation"] or found["test"]):
        found["train"] = found.pop("validation") or found.pop("test")
    folders = {part: folder for part, folder in found.items() if folder is not None} or {"train": root}
    classes = class_folders(folders["train"])
    if len(classes) < 2:
        raise DataError(f"{folders['train']} should hold one folder per class, at least two; found {len(classes)}")
    files = {part: list_pictures(folder, classes) for part, folder in folders.items()}
    mode = _mode(folders["train"] / files["train"][0][0])
    parts = {part: _read(folders[part], *listed, mode, size) for part, listed in files.items()}
    sizes = {tuple(p.pixels.shape[1:]) for p in parts.values()}
    if len(sizes) > 1:
        raise DataError(
            f"{root}: the parts hold images of different sizes {sorted(sizes)}; choose one with the option size"
        )
    train = parts["train"]
    if "test" not in parts:
        train, parts["test"] = split(train, (1 - test, test))
    if "validation" not in parts:
        train, parts["validation"] = split(train, (1 - validation, validation))
    for part in ("validation", "test"):
        if len(parts[part]) == 0:
            raise DataError(f"{root}: too few images to split off a {part} part; give it a folder of its own")
    return Dataset("folder", classes, train, parts["validation"], parts["test"])


def _mode(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return "L" if image.mode in ("L", "1") else "RGB"
    except OSError as error:
        raise DataError(f"{path} is truncated, corrupt or no image ({error})") from None


def _read(folder: Path, files: list[str], labels: list[int], mode: str, size: int | None) -> Images:
    arrays = [_pixels(folder / file, mode, size) for file in files]
    if len({a.shape for a in arrays}) > 1:
        raise DataError(f"{folder}: images of different sizes; choose one with the option size")
    return Images(torch.from_numpy(np.stack(arrays)), torch.tensor(labels))


def _pixels(path: Path, mode: str, size: int | None) -> NDArray[np.uint8]:
    from PIL import Image

    picture = decode(path, str(path), mode)
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return as_array(picture)
