"""What several tests need: one torch thread, the folder of shared data, small data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from bitwright.datasets import Dataset, Images
from bitwright.nasbench import space

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"

torch.set_num_threads(1)
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("there is no folder `shared` beside the checkout")
    return SHARED.resolve()


@pytest.fixture(scope="session", autouse=True)
def nasbench_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The NAS-Bench-101 space is kept in a folder of this session, not in the user's cache."""
    path = tmp_path_factory.getbasetemp() / "cache" / "space"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "cache_path", lambda: path)
        yield path


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    """Noisy images whose class is the brightest of `classes` horizontal bands."""

    def make(train: int = 64, validation: int = 32, test: int = 32, classes: int = 4, channels: int = 1) -> Dataset:
        generator = torch.Generator().manual_seed(0)

        def images(count: int) -> Images:
            labels = torch.randint(0, classes, (count,), generator=generator)
            band = torch.arange(8) * classes // 8
            bright = (labels[:, None] == band)[:, :, None, None] * 150
            noise = torch.randint(0, 100, (count, 8, 8, channels), generator=generator)
            return Images((bright + noise).to(torch.uint8), labels)

        names = tuple("abcdefghij"[:classes])
        return Dataset("bands", names, images(train), images(validation), images(test))

    return make
