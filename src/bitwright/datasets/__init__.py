"""The data-set contract: three disjoint parts of labelled images.

Each file of this folder is one data set and holds `load(root, ...) -> Dataset`. Images stay uint8; what a network
subtracts and divides by comes from the training part alone.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import urllib.error
import urllib.request
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

CONNECT_SECONDS = 10

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
SomePart = TypeVar("SomePart", bound="Part")


class Part(ABC):
    """Labelled images of one shape, in memory or in files. labels: int64 (N,), on the device that batches go to."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def workers(self) -> int:
        """Processes that make images ready ahead of their use."""
        return 0

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @property
    @abstractmethod
    def pixel_statistics(self) -> Statistics:
        """Mean and standard deviation of the pixels per channel, in units of 0 to 255."""

    @abstractmethod
    def __getitem__(self, rows: slice | Tensor) -> Self: ...

    @abstractmethod
    def to(self, device: torch.device) -> Self: ...

    @abstractmethod
    def batch(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Unaugmented images, uint8 (B, C, H, W) in channels-last memory, and their labels."""

    def in_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in their order, `size` at a time, as `batch` returns them."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    @abstractmethod
    def picture(self, row: int, whole: bool) -> Image:
        """An image for Pillow to change. whole: before what evaluation does not see is cut off."""


@dataclass(frozen=True)
class Images(Part):
    """pixels: uint8 (N, H, W, C). labels: int64 (N,)."""

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.pixels.shape
        return channels, height, width

    @cached_property
    def pixel_statistics(self) -> Statistics:
        counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in self.pixels.unbind(-1)])
        counts = counts.cpu().double()
        values, total = torch.arange(256, dtype=torch.float64), counts.sum(1)
        mean = (counts * values).sum(1) / total
        deviation = ((counts * values**2).sum(1) / total - mean**2).clamp_min(0).sqrt().clamp_min(1.0)
        return tuple(mean.tolist()), tuple(deviation.tolist())

    def __getitem__(self, rows: slice | Tensor) -> Images:
        return Images(self.pixels[rows], self.labels[rows])

    def to(self, device: torch.device) -> Images:
        return Images(self.pixels.to(device), self.labels.to(device))

    def batch(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """A view of the pixels where the rows are a slice."""
        return self.pixels[rows].permute(0, 3, 1, 2), self.labels[rows]

    def picture(self, row: int, whole: bool) -> Image:
        from PIL.Image import fromarray

        pixels = self.pixels[row].cpu().numpy()
        if pixels.shape[-1] not in (1, 3):
            raise ConfigError(
                f"only images of 1 or 3 channels can be changed as pictures, these have {pixels.shape[-1]}"
            )
        return fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


@dataclass(frozen=True)
class Dataset:
    """train, validation and test hold different images, unless the options of a data set say otherwise."""

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.train.shape

    @property
    def pixel_statistics(self) -> Statistics:
        """Mean and standard deviation of the training images per channel, in units of 0 to 255."""
        return self.train.pixel_statistics

    def to(self, device: torch.device) -> Dataset:
        test = self.test.to(device)
        validation = test if self.validation is self.test else self.validation.to(device)
        return Dataset(self.name, self.classes, self.train.to(device), validation, test)


@dataclass(frozen=True)
class RemoteFile:
    """A published file and what it must hash to."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def hold_out(images: SomePart, count: int, *, name: str) -> tuple[SomePart, SomePart]:
    """All but the last `count` images, and these."""
    if len(images) < 2:
        raise DataError(f"{name}: {len(images)} training images are too few to hold some out")
    if not 0 < count < len(images):
        raise ConfigError(
            f"{name}: validation takes 1 to {len(images) - 1} of the {len(images)} training images, got {count}"
        )
    return images[:-count], images[-count:]


def split(images: Images, parts: Sequence[float], seed: int = 0) -> list[Images]:
    """Disjoint random parts of the given fractions (the first takes the rest), each with its share of every class."""
    if any(not 0 < fraction < 1 for fraction in parts[1:]) or not sum(parts[1:]) < 1:
        raise ConfigError(
            f"validation and test are fractions above 0 that leave something to train on, got {list(parts[1:])}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen: list[list[Tensor]] = [[] for _ in parts]
    for label in torch.unique(images.labels):
        rows = order[images.labels[order] == label]
        ends = np.cumsum([round(fraction * len(rows)) for fraction in parts[1:]]).tolist()
        starts = [0, *ends[:-1]] if ends else []
        for part, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
            chosen[part].append(rows[start:end])
        chosen[0].append(rows[ends[-1] if ends else 0 :])
    return [images[torch.cat(rows).sort().values] for rows in chosen]


def join(parts: Sequence[Images]) -> Images:
    """The images of all parts, one part after the other."""
    return Images(torch.cat([p.pixels for p in parts]), torch.cat([p.labels for p in parts]))


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if it is gzipped; DataError names a file that is truncated or corrupt."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or corrupt ({error})") from None


def locate(root: Path, candidates: Sequence[str]) -> Path | None:
    """The first of the relative paths that exists below `root`."""
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    return None


def download(files: Sequence[RemoteFile], folder: Path, *, name: str) -> None:
    """Fetch what is missing in `folder`. DataError says what to put where if there is no network."""
    for file in files:
        target = folder / file.name
        if target.exists():
            continue
        wanted = ", ".join(f.name for f in files)
        try:
            with urllib.request.urlopen(file.url, timeout=CONNECT_SECONDS) as response:
                content: bytes = response.read()
            folder.mkdir(parents=True, exist_ok=True)
        except (TimeoutError, urllib.error.URLError, ConnectionError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise DataError(
                f"{name} is not in {folder} and {file.url} cannot be reached ({reason});"
                f" put {wanted} into {folder}, or name their folder with --data"
            ) from None
        except OSError as error:
            raise DataError(f"{name}: cannot write to {folder}: {error.strerror}") from None
        if hashlib.md5(content).hexdigest() != file.md5:
            raise DataError(f"{file.url} arrived with a wrong checksum; nothing was kept, try again")
        part = target.with_suffix(target.suffix + ".part")
        try:
            part.write_bytes(content)
            part.replace(target)
        except OSError as error:
            raise DataError(f"{name}: cannot write to {folder}: {error.strerror}") from None
