"""Images in folders named by class: root/train/cat/1.png, root/val/..., root/test/..., or just root/cat/1.png.

Parts that are missing are split off at random: the test part from all images, the validation part from those for
training, each with its share of every class.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import torch

from ..errors import DataError
from . import Dataset, Images, split

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
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
    classes = tuple(sorted(p.name for p in folders["train"].iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        raise DataError(f"{folders['train']} should hold one folder per class, at least two; found {len(classes)}")
    files = {part: _files(folder, classes) for part, folder in folders.items()}
    mode = _mode(files["train"][0][0])
    parts = {part: _read(listed, mode, size) for part, listed in files.items()}
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


def decode(file: IO[bytes] | Path, name: str, mode: str, size: int | None = None) -> np.ndarray:
    """One image as uint8 (H, W, C); DataError names one that does not decode."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            if opened.mode.startswith("I") or opened.mode == "F":
                raise DataError(f"{name} has more than 8 bits per pixel; convert it to 8 bits first")
            image = opened.convert(mode)
            if size is not None:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            array = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is truncated, corrupt or no image ({error})") from None
    return array if array.ndim == 3 else array[..., None]


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes and p.name[0] != ".")
    if unknown:
        raise DataError(f"{folder} has classes that the training part has not: {', '.join(unknown[:5])}")
    listed = [
        (path, label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not listed:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return listed


def _mode(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return "L" if image.mode in ("L", "1") else "RGB"
    except OSError as error:
        raise DataError(f"{path} is truncated, corrupt or no image ({error})") from None


def _read(listed: list[tuple[Path, int]], mode: str, size: int | None) -> Images:
    arrays = [decode(path, str(path), mode, size) for path, _ in listed]
    if len({a.shape for a in arrays}) > 1:
        raise DataError(f"{listed[0][0].parent.parent}: images of different sizes; choose one with the option size")
    return Images(torch.from_numpy(np.stack(arrays)), torch.tensor([label for _, label in listed]))
