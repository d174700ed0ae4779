"""Steps that add up integers one by one: activations, additions and pools of sums."""

from __future__ import annotations

import math
from typing import assert_never

from ..integer.graph import LARGEST, Add, GlobalSumPool, MultiThreshold, Requantize, SumPool
from .epilogue import LANES, Epilogue, ctype, literal
from .plan import Step, Storage
from .unit import Unit

VECTOR = 32  # elements that are computed at a time
LONGEST_PERIOD = 1024  # elements after which tables of whole rows may repeat


def elementwise(
    unit: Unit, number: int, step: Step, op: MultiThreshold | Requantize | Add | SumPool | GlobalSumPool
) -> str:
    out = unit.plan.storage[step.writes]
    s = unit.plan.storage[step.reads[0]]
    channels, height, width = out.shape
    period = math.lcm(channels, VECTOR)
    strided = isinstance(op, SumPool) and op.stride[1] != 1
    by_rows = width > 1 and not strided and period <= LONGEST_PERIOD and not (out.bits and channels % 8)
    act = unit.activation(step)
    epilogue = Epilogue(number, act, out, unit.scalar_tables if by_rows else unit.tables)
    room = -(-channels // LANES) * LANES
    names = ("in", "other") if isinstance(op, Add) else ("in",)
    apart = s.pixel * (op.stride[1] if isinstance(op, SumPool) else 1)
    head = (
        f"static void step{number}(void)\n{{\n{unit.pointers(step, names)}    size_t y, c;\n{unit.border(step.writes)}"
    )
    pixelwise = (
        f"    size_t x;\n    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x++) {{\n"
        f"            {unit.place(room)}int32_t sums[{room}] NW_ALIGN;\n"
        f"{_sums(unit, step, op, f'x * {apart}', channels)}"
        f"            {epilogue.name}(sums, 0, 0, {channels}, out + y * {out.row} + x * {out.pixel});\n"
        "        }\n"
    )
    if not by_rows:
        return f"{epilogue.text()}{head}{pixelwise}}}\n"
    repeated = Epilogue(number, act, out, unit.vector_tables, period=period)
    elements = width * channels
    divided = " / 8" if out.bits else ""
    rowwise = (
        f"    size_t i, j;\n    for (y = 0; y < {height}; y++)\n"
        f"        for (i = 0; i < {elements}; i += {period})\n"
        f"            for (j = 0; j < {period} && i + j < {elements}; j += {VECTOR}) {{\n"
        f"            const size_t at = i + j;\n            int32_t sums[{VECTOR}] NW_ALIGN;\n"
        f"{_sums(unit, step, op, 'at', VECTOR)}"
        f"            {repeated.name}(sums, j, 0, {elements} - at < {VECTOR} ? {elements} - at : {VECTOR},"
        f" out + y * {out.row} + at{divided});\n            }}\n"
    )
    return (
        f"#if defined(NW_VECTOR)\n{repeated.text()}#else\n{epilogue.text()}#endif\n"
        f"{head}#if defined(NW_VECTOR)\n{rowwise}#else\n{pixelwise}#endif\n}}\n"
    )


def _sums(
    unit: Unit,
    step: Step,
    op: MultiThreshold | Requantize | Add | SumPool | GlobalSumPool,
    at: str,
    count: int,
) -> str:
    """Computes `count` sums from the element `at` of row y on."""
    sources = [unit.plan.storage[key] for key in step.reads]
    s = sources[0]
    match op:
        case Add(lowest=lowest, highest=highest):
            t = sources[1]
            both = [unit.edge(key) for key in step.reads]
            kind = "int64_t" if both[0].magnitude + both[1].magnitude > LARGEST else "int32_t"
            zeros = s.zero + t.zero
            value = f"({kind})in[y * {s.row} + {at} + c] + other[y * {t.row} + {at} + c]"
            value += f" - {zeros}" if zeros else ""
            clip = ""
            if lowest is not None and highest is not None:
                low, high = (literal(max(-LARGEST, min(LARGEST, v))) for v in (lowest, highest))
                clip = f" v = v < {low} ? {low} : v; v = v > {high} ? {high} : v;"
            return f"            for (c = 0; c < {count}; c++) {{ {kind} v = {value};{clip} sums[c] = (int32_t)v; }}\n"
        case SumPool(kernel=(kh, kw), stride=(sy, _), shift=shift):
            corner = step.pads[0] * s.row + step.pads[1] * s.pixel
            back = f" - {corner}" if corner else ""
            return _pooled(unit, s, f"in + y * {sy * s.row} + {at}{back}", (kh, kw), shift, count)
        case GlobalSumPool(shift=shift):
            return _pooled(unit, s, "in", s.shape[1:], shift, count)
        case MultiThreshold() | Requantize():
            zero = f" - {s.zero}" if s.zero else ""
            return (
                f"            const {ctype(s)} *p = in + y * {s.row} + {at};\n"
                f"            for (c = 0; c < {count}; c++) sums[c] = p[c]{zero};\n"
            )
        case _:
            assert_never(op)


def _pooled(unit: Unit, s: Storage, start: str, kernel: tuple[int, int], shift: int, count: int) -> str:
    """Sums over a window, in 16 bits where they fit."""
    kh, kw = kernel
    total = s.zero * kh * kw
    zero = f" - {total}" if total else ""
    narrow = s.area == "u8" and 255 * kh * kw < 2**16
    kind, part = ("uint16_t", "part") if narrow else ("int32_t", "sums")
    declare = f"            {unit.place(count)}uint16_t part[{count}] NW_ALIGN;\n" if narrow else ""
    return (
        f"            size_t u, t;\n{declare}            memset({part}, 0, sizeof {part});\n"
        f"            for (u = 0; u < {kh}; u++)\n                for (t = 0; t < {kw}; t++) {{\n"
        f"                    const {ctype(s)} *p = {start} + u * {s.row} + t * {s.pixel};\n"
        f"                    for (c = 0; c < {count}; c++)\n"
        f"                        {part}[c] = ({kind})({part}[c] + p[c]);\n                }}\n"
        f"            for (c = 0; c < {count}; c++) {{ const int32_t v = {part}[c]{zero};"
        f" sums[c] = NW_SAR(v, {shift}); }}\n"
    )
