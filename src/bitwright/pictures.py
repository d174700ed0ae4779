"""Picture files: finding and decoding them, what evaluation sees of them, and reading many ahead of their use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
PART = 32  # pictures that are worth a process

Request = TypeVar("Request")


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in `folder`, sorted; hidden ones are left out."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))


def list_pictures(folder: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Paths below `folder` of the pictures in its class folders, and which of `classes` each belongs to."""
    numbers = {name: number for number, name in enumerate(classes)}
    found = class_folders(folder)
    if unknown := [name for name in found if name not in numbers]:
        raise DataError(f"{folder} has folders that are none of the {len(classes)} classes: {', '.join(unknown[:5])}")
    files: list[str] = []
    labels: list[int] = []
    for name in found:
        listed = sorted(_pictures_below(str(folder / name)))
        files += [file[len(str(folder)) + 1 :] for file in listed]
        labels += [numbers[name]] * len(listed)
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    return files, labels


def _pictures_below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(place, name)


def decode(file: IO[bytes] | Path, name: str, mode: str) -> Image:
    """The whole picture in the mode "RGB", "RGBA" or "L", not turned as its EXIF data may ask; DataError names one that
    does not decode."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            if opened.mode.startswith("I") or opened.mode == "F":
                raise DataError(f"{name} has more than 8 bits per pixel; convert it to 8 bits first")
            return opened.convert(mode)
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} is truncated, corrupt or no image ({reason})") from None


def centre_crop(picture: Image, resize: int, crop: int) -> Image:
    """The `crop` pixels square in the middle, after the shorter side was brought to `resize`, as ImageNet's published
    accuracies are measured: bilinear over all pixels that fall on one, the longer side rounded down."""
    from PIL import Image

    width, height = picture.size
    if width <= height:
        size = resize, resize * height // width
    else:
        size = resize * width // height, resize
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)  # .5 to even, as the published evaluation
    return picture.crop((left, top, left + crop, top + crop))


def as_array(picture: Image) -> NDArray[np.uint8]:
    """The pixels, uint8 (H, W, C)."""
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[..., None]


def read_ahead(
    read: Callable[[Request], NDArray[np.uint8]],
    plan: Iterable[Sequence[Request]],
    *,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Tensor]:
    """What `read` makes of each request, stacked by the batches of `plan` and in its order.

    workers: processes with one thread each, which read two batches ahead; 0 reads in this process.
    pin: put batches into page-locked memory, from which they are copied to a GPU in the background.
    A DataError of `read` is raised here, as it is.
    """
    if workers:
        _import_decoders()
    loader: DataLoader[Any] = DataLoader(
        _Batches(read),
        batch_sampler=plan,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        generator=torch.Generator(),  # so that torch's own stays where it is
    )
    try:
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"a process that reads images died, for want of memory perhaps ({reason})") from None


def read_all(
    read: Callable[[Request], NDArray[np.uint8]], requests: Sequence[Request], *, workers: int = 0, pin: bool = False
) -> Tensor:
    """What `read` makes of all requests, stacked; `workers` processes take a share each if there are enough."""
    shares = max(1, min(workers, len(requests) // PART))
    size = -(-len(requests) // shares)
    plan = [requests[start : start + size] for start in range(0, len(requests), size)]
    return torch.cat(list(read_ahead(read, plan, workers=shares if shares > 1 else 0, pin=pin)))


class _Batches(Dataset[Any]):
    """Reads a batch at once; what cannot be read is returned, since an exception would lose its one line on its way
    between processes."""

    def __init__(self, read: Callable[[Any], NDArray[np.uint8]]) -> None:
        self.read = read

    def __getitems__(self, requests: Sequence[Any]) -> Tensor | DataError:
        try:
            return torch.from_numpy(np.stack([self.read(request) for request in requests]))
        except DataError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _import_decoders() -> None:
    """Once, before the processes that need them are made as copies of this one."""
    from PIL import Image

    Image.preinit()
