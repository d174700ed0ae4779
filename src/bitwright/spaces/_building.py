"""What the spaces of ENAS have in common: their skeletons' parts, and the checks of their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import ConfigError
from ..network import BatchNorm, Concat, Conv2d, Dropout, GlobalSumPool, Linear, Node, Op, Shape, Shift2d
from ..precision import NAMES
from ..quantizers import Quantizer
from . import SearchSpace


class Builder:
    """A growing list of nodes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, op: Op, *inputs: int, key: str = "") -> int:
        self.nodes.append(Node(op, inputs, key))
        return len(self.nodes) - 1

    def factorized_reduction(self, x: int, channels: int, weight: Quantizer, key: str) -> int:
        """The even pixels and the odd ones, each projected to half of the channels, side by side and normalised."""
        even = self.add(Conv2d(channels // 2, 1, weight, 2), x, key=f"{key}/even")
        odd = self.add(Conv2d(channels // 2, 1, weight, 2), self.add(Shift2d(), x), key=f"{key}/odd")
        return self.add(BatchNorm(), self.add(Concat(), even, odd), key=f"{key}/norm")

    def classifier(
        self, inputs: Sequence[int], classes: int, weight: Quantizer, dropout: float, blocks: tuple[str, ...] = ("",)
    ) -> None:
        """Global pool, dropout where there is any, and a product with the weights "classifier"."""
        pooled = [self.add(GlobalSumPool(), x) for x in inputs]
        if dropout:
            pooled = [self.add(Dropout(dropout), x) for x in pooled]
        self.add(Linear(classes, weight, blocks), *pooled, key="classifier")


def check_numbers(space: SearchSpace, least: Mapping[str, int], dropout: float) -> None:
    """ConfigError where a field is below its least value or a rate is none."""
    for field, low in least.items():
        if getattr(space, field) < low:
            raise ConfigError(f"{space.name}: {field} is at least {low}, got {getattr(space, field)}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"{space.name}: dropout is in [0, 1), got {dropout}")


def check_choices(name: str, ops: str, wiring: str) -> None:
    """ConfigError where the set of operations or the wiring is unknown."""
    if ops not in ("enas", "mixed"):
        raise ConfigError(f"{name}: ops is enas or mixed, got {ops!r}")
    if wiring not in ("classic", "integer"):
        raise ConfigError(f"{name}: wiring is classic or integer, got {wiring!r}")


def check_precisions(name: str, given: Iterable[str | None], searched: Sequence[str]) -> None:
    """ConfigError where a precision is unknown, or those that are searched are not different ones.

    given: None stands for another one's precision.
    """
    for precision in (*given, *searched):
        if precision is not None and precision not in NAMES:
            raise ConfigError(f"{name}: no precision {precision!r}: {', '.join(NAMES)}")
    if not searched or len(set(searched)) < len(searched):
        raise ConfigError(f"{name}: precisions are one or more different ones, got {list(searched)}")


def check_reductions(name: str, positions: Sequence[int], count: int, of: str, image: Shape) -> None:
    """ConfigError where not every position is another one of `count` cells or layers, or the image is too small."""
    if any(not 0 <= p < count for p in positions) or len(set(positions)) < len(positions):
        raise ConfigError(f"{name}: reductions are different {of} from 0 to {count - 1}, got {list(positions)}")
    if min(image[1:]) < 2 ** len(positions):
        raise ConfigError(f"{name}: an image of {image[1]}x{image[2]} cannot be halved {len(positions)} times")


def check_pixels(name: str, image: Shape, mean: Sequence[float], deviation: Sequence[float]) -> None:
    """ConfigError where the statistics of the pixels are not those of such images."""
    for field, values in (("pixel_mean", mean), ("pixel_std", deviation)):
        if len(values) not in (1, image[0]):
            raise ConfigError(f"{name}: {field} has one number per channel, got {list(values)}")
    if not all(std > 0 for std in deviation):
        raise ConfigError(f"{name}: pixel_std is positive, got {list(deviation)}")
