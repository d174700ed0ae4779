"""Constant arrays of the generated source, in the narrowest C type that holds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..integer.graph import Int

SIGNED = {"int8_t": 8, "int16_t": 16, "int32_t": 32, "int64_t": 64}
COLUMNS = 116  # of a line of numbers


class Tables:
    """condition: of the preprocessor, for these tables to be there."""

    def __init__(self, condition: str = "") -> None:
        self.condition = condition
        self.texts: dict[str, str] = {}
        self.bytes = 0  # in flash

    def add(self, name: str, values: Int) -> str:
        """Declares `name` unless it is there, and returns its element type."""
        low, high = int(values.min()), int(values.max())
        kind = next(k for k, bits in SIGNED.items() if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1))
        if name not in self.texts:
            self._declare(kind, name, _decimal(values), values.size * SIGNED[kind] // 8)
        return kind

    def add_unsigned(self, name: str, values: NDArray[np.uint8] | NDArray[np.uint64]) -> None:
        width = values.dtype.itemsize
        numbers = [f"0x{int(v):0{2 * width}x}" for v in values.reshape(-1)]
        self._declare(f"uint{8 * width}_t", name, numbers, values.nbytes)

    def _declare(self, kind: str, name: str, numbers: list[str], size: int) -> None:
        lines, line = [], ""
        for number in numbers:
            if len(line) + len(number) + 2 > COLUMNS:
                lines.append(line.rstrip())
                line = ""
            line += number + ", "
        lines.append(line.rstrip(", "))
        body = "\n    ".join(lines)
        self.texts[name] = f"static const {kind} {name}[{len(numbers)}] NW_ALIGN = {{\n    {body}}};\n"
        self.bytes += size

    def text(self) -> str:
        body = "".join(self.texts.values())
        return f"#if {self.condition}\n{body}#endif\n" if self.condition and body else body


def _decimal(values: Int) -> list[str]:
    smallest = {-(2**31): "-2147483647 - 1", -(2**63): "-9223372036854775807 - 1"}
    return [smallest.get(int(v), str(int(v))) for v in values.reshape(-1)]
