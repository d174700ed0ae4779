"""Weights as bytes: a few bits each for flash, bit planes for popcounts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integer.graph import Int

Bytes = NDArray[np.uint8]


class Packed(NamedTuple):
    """Rows of weights lowest + step * code, each row from a new byte, the first code in the lowest bits."""

    rows: Bytes  # (rows, bytes)
    bits: int  # 1, 2, 4 or 8
    lowest: int
    step: int


def pack(weight: Int) -> Packed:
    """(rows, K) integers from -128 to 127 in as few bits as hold them."""
    values = np.unique(weight)
    lowest = int(values[0])
    step = int(np.gcd.reduce(values - lowest)) if len(values) > 1 else 1
    codes = (weight - lowest) // step
    bits = next(b for b in (1, 2, 4, 8) if int(codes.max()) < 2**b)
    if bits == 8:
        codes, lowest, step = weight & 255, 0, 1
    each = 8 // bits
    padded = np.zeros((len(codes), -(-codes.shape[1] // each) * each), dtype=np.int64)
    padded[:, : codes.shape[1]] = codes
    shifted = padded.reshape(len(codes), -1, each) << (bits * np.arange(each))
    return Packed(shifted.sum(2).astype(np.uint8), bits, lowest, step)


def plane(bits: NDArray[np.bool_]) -> Bytes:
    """(..., C) as (..., ceil(C / 8)) bytes, the first in the lowest bit."""
    return np.packbits(bits, axis=-1, bitorder="little")
