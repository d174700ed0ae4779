"""The policy that AutoAugment found for ImageNet (Cubuk et al. 2019, arXiv:1805.09501, appendix), on Pillow's images.

A picture gets one of 25 pairs of operations; each of the two happens with its own probability. Strengths are numbered
0 to 9. Pixels that come in from outside are 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

STRENGTHS = 10
OUTSIDE = 128

Step = tuple[str, float, int]  # operation, probability, strength

POLICY: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

# what strength 9 is; that of 0 is nothing, and those between are evenly spaced
STRONGEST = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,  # of the width
    "translate_y": 150 / 331,
    "rotate": 30.0,  # degrees
    "color": 0.9,
    "contrast": 0.9,
    "brightness": 0.9,
    "sharpness": 0.9,
    "posterize": 4.0,  # bits that are dropped
    "solarize": 256.0,  # values that are inverted
}
SIGNED = {"shear_x", "shear_y", "translate_x", "translate_y", "color", "contrast", "brightness", "sharpness"}


def auto_augment(picture: Image, draw: Random) -> Image:
    """`picture`, in the mode "RGB" or "L", after one pair of the policy."""
    for operation, amount in draw_operations(draw):
        picture = apply(picture, operation, amount)
    return picture


def draw_operations(draw: Random) -> list[tuple[str, float]]:
    """None to two operations and the amount of each; what has two directions goes in either half of the time."""
    drawn = []
    for operation, probability, strength in POLICY[int(draw.random() * len(POLICY))]:
        if draw.random() < probability:
            sign = -1 if operation in SIGNED and draw.random() < 0.5 else 1
            drawn.append((operation, sign * amount(operation, strength)))
    return drawn


def amount(operation: str, strength: int) -> float:
    """What `apply` takes for a strength of 0 to 9."""
    return STRONGEST.get(operation, 0.0) * strength / (STRENGTHS - 1)


def apply(picture: Image, operation: str, amount: float) -> Image:
    """One operation; the unit of `amount` is that of STRONGEST."""
    return _operations()[operation](picture, amount)


def _operations() -> dict[str, Callable[[Image, float], Image]]:
    from PIL import ImageEnhance, ImageOps

    return {
        "shear_x": lambda picture, amount: _moved(picture, (1, amount, 0, 0, 1, 0)),
        "shear_y": lambda picture, amount: _moved(picture, (1, 0, 0, amount, 1, 0)),
        "translate_x": lambda picture, amount: _moved(picture, (1, 0, amount * picture.width, 0, 1, 0)),
        "translate_y": lambda picture, amount: _moved(picture, (1, 0, 0, 0, 1, amount * picture.height)),
        "rotate": lambda picture, amount: picture.rotate(amount, fillcolor=_outside(picture)),
        "color": lambda picture, amount: ImageEnhance.Color(picture).enhance(1 + amount),
        "contrast": lambda picture, amount: ImageEnhance.Contrast(picture).enhance(1 + amount),
        "brightness": lambda picture, amount: ImageEnhance.Brightness(picture).enhance(1 + amount),
        "sharpness": lambda picture, amount: ImageEnhance.Sharpness(picture).enhance(1 + amount),
        "posterize": lambda picture, amount: ImageOps.posterize(picture, round(8 - amount)),
        "solarize": lambda picture, amount: ImageOps.solarize(picture, math.ceil(256 - amount)),
        "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
        "equalize": lambda picture, _: ImageOps.equalize(picture),
        "invert": lambda picture, _: ImageOps.invert(picture),
    }


def _moved(picture: Image, matrix: tuple[float, ...]) -> Image:
    """The picture whose pixel (x, y) is that of `picture` at (ax + by + c, dx + ey + f)."""
    from PIL.Image import Resampling, Transform

    fill = _outside(picture)
    return picture.transform(picture.size, Transform.AFFINE, matrix, Resampling.BICUBIC, fillcolor=fill)


def _outside(picture: Image) -> int | tuple[int, ...]:
    return OUTSIDE if picture.mode == "L" else (OUTSIDE,) * len(picture.mode)
