"""Steps that move integers: input, output, packing, joining, slicing, padding, and the pools of the largest."""

from __future__ import annotations

from ..integer.graph import LARGEST, Input, MaxPool
from .epilogue import ctype, literal
from .plan import WIDTH, Step, Storage
from .unit import Unit

MOST_TAPS = 49  # of a maximum that is written out


def read_input(unit: Unit, step: Step, op: Input) -> str:
    out = unit.plan.storage[step.writes]
    channels, height, width = out.shape
    shift = out.zero - op.zero_point
    value = "input[(c * H + y) * W + x]".replace("H", str(height)).replace("W", str(width))
    if max(abs(op.lowest), abs(op.highest), abs(shift)) > LARGEST:
        value = f"(int64_t){value}"
    if shift:
        value = f"{value} + {literal(shift)}"
    return (
        f"    {ctype(out)} *out = {unit.at(step.writes)};\n    size_t y, x, c;\n"
        f"{unit.border(step.writes)}"
        f"    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x++)\n"
        f"            for (c = 0; c < {channels}; c++)\n"
        f"                out[y * {out.row} + x * {out.pixel} + c] = ({ctype(out)})({value});\n"
    )


def write_output(unit: Unit) -> str:
    key = unit.plan.output
    s = unit.plan.storage[key]
    channels, height, width = s.shape
    zero = f" - {s.zero}" if s.zero else ""
    return (
        "static void finish(int32_t *output)\n{\n"
        f"    const {ctype(s)} *in = {unit.at(key)};\n    size_t y, x, c;\n"
        f"    for (c = 0; c < {channels}; c++)\n        for (y = 0; y < {height}; y++)\n"
        f"            for (x = 0; x < {width}; x++)\n"
        f"                output[(c * {height} + y) * {width} + x] = in[y * {s.row} + x * {s.pixel} + c]{zero};\n"
        "}\n"
    )


def pack_bits(unit: Unit, step: Step) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    channels, height, width = s.shape
    return (
        f"{unit.pointers(step)}    size_t y, x, c;\n{unit.border(step.writes)}"
        f"    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x++) {{\n"
        f"            memset(out + y * {out.row} + x * {out.pixel}, 0, {out.pixel});\n"
        f"            for (c = 0; c < {channels}; c++)\n"
        f"                out[y * {out.row} + x * {out.pixel} + c / 8] |="
        f" (uint8_t)((in[y * {s.row} + x * {s.pixel} + c] > {s.zero}) << c % 8);\n        }}\n"
    )


def concat(unit: Unit, step: Step) -> str:
    out = unit.plan.storage[step.writes]
    _, height, width = out.shape
    lines = [f"    {ctype(out)} *out = {unit.at(step.writes)};\n    size_t y, x, c;\n{unit.border(step.writes)}"]
    start = 0
    for key in step.reads:
        s = unit.plan.storage[key]
        added = _rebased(s, out)
        lines.append(
            f"    {{\n        const {ctype(s)} *in = {unit.at(key)};\n"
            f"        for (y = 0; y < {height}; y++)\n            for (x = 0; x < {width}; x++)\n"
            f"                for (c = 0; c < {s.pixel}; c++)\n"
            f"                    out[y * {out.row} + x * {out.pixel} + {start} + c] ="
            f" ({ctype(out)})(in[y * {s.row} + x * {s.pixel} + c]{added});\n    }}\n"
        )
        start += s.pixel
    return "".join(lines)


def first_channels(unit: Unit, step: Step) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    channels, height, width = out.shape
    added = _rebased(s, out)
    return (
        f"{unit.pointers(step)}    size_t y, x, c;\n{unit.border(step.writes)}"
        f"    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x++)\n"
        f"            for (c = 0; c < {channels}; c++)\n"
        f"                out[y * {out.row} + x * {out.pixel} + c] ="
        f" ({ctype(out)})(in[y * {s.row} + x * {s.pixel} + c]{added});\n"
    )


def max_pool(unit: Unit, step: Step, op: MaxPool) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    _, height, width = s.shape
    kind = ctype(s)
    added = _rebased(s, out)
    (kh, kw), (sy, sx), (top, left, bottom, right) = op.kernel, op.stride, op.pads
    join = "best[c] | p[c]" if s.bits else "p[c] > best[c] ? p[c] : best[c]"
    inside = (out.shape[1] - 1) * sy + kh <= height + top + bottom
    inside &= (out.shape[2] - 1) * sx + kw <= width + left + right
    if inside and step.pads == op.pads and kh * kw <= MOST_TAPS:
        return _max_of_taps(unit, step, op, added)
    window = (
        f"const size_t y0 = y * {sy} > {top} ? y * {sy} - {top} : 0, x0 = x * {sx} > {left} ? x * {sx} - {left}"
        f" : 0;\n            const size_t y1 = y * {sy} + {kh} < {height + top} ? y * {sy} + {kh} - {top} :"
        f" {height}, x1 = x * {sx} + {kw} < {width + left} ? x * {sx} + {kw} - {left} : {width};"
    )
    return (
        f"{unit.pointers(step)}    size_t y, x, c, i, j;\n{unit.border(step.writes)}"
        f"    for (y = 0; y < {out.shape[1]}; y++)\n        for (x = 0; x < {out.shape[2]}; x++) {{\n"
        f"            {window}\n            {unit.place(s.pixel)}{kind} best[{s.pixel}];\n"
        f"            {ctype(out)} *to = out + y * {out.row} + x * {out.pixel};\n"
        f"            memcpy(best, in + y0 * {s.row} + x0 * {s.pixel}, sizeof best);\n"
        f"            for (i = y0; i < y1; i++)\n                for (j = x0; j < x1; j++) {{\n"
        f"                    const {kind} *p = in + i * {s.row} + j * {s.pixel};\n"
        f"                    for (c = 0; c < {s.pixel}; c++)\n"
        f"                        best[c] = ({kind})({join});\n                }}\n"
        f"            for (c = 0; c < {s.pixel}; c++)\n"
        f"                to[c] = ({ctype(out)})(best[c]{added});\n        }}\n"
    )


def _max_of_taps(unit: Unit, step: Step, op: MaxPool, added: str) -> str:
    """Windows that lie inside the stored image and its border; along a row without stride they are one loop."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    (kh, kw), (sy, sx) = op.kernel, op.stride
    kind = ctype(s)
    taps = [i * s.row + j * s.pixel for i in range(kh) for j in range(kw)]
    rest = "".join(f" v = v | p[i + {t}];" if s.bits else f" v = v > p[i + {t}] ? v : p[i + {t}];" for t in taps[1:])
    corner = op.pads[0] * s.row + op.pads[1] * s.pixel
    back = f" - {corner}" if corner else ""
    body = f"{{ {kind} v = p[i];{rest} to[i] = ({ctype(out)})(v{added}); }}\n"
    if s.bits:
        body = body.replace(f"{kind} v", "unsigned v")
    head = f"{unit.pointers(step)}    size_t y, x, i;\n{unit.border(step.writes)}"
    if sx == 1:
        return head.replace("y, x, i", "y, i") + (
            f"    for (y = 0; y < {out.shape[1]}; y++) {{\n"
            f"        const {kind} *restrict p = in + y * {sy * s.row}{back};\n"
            f"        {ctype(out)} *restrict to = out + y * {out.row};\n"
            f"        for (i = 0; i < {out.shape[2] * s.pixel}; i++)\n            {body}    }}\n"
        )
    return head + (
        f"    for (y = 0; y < {out.shape[1]}; y++)\n        for (x = 0; x < {out.shape[2]}; x++) {{\n"
        f"            const {kind} *restrict p = in + y * {sy * s.row} + x * {sx * s.pixel}{back};\n"
        f"            {ctype(out)} *restrict to = out + y * {out.row} + x * {out.pixel};\n"
        f"            for (i = 0; i < {s.pixel}; i++)\n                {body}        }}\n"
    )


def pad(unit: Unit, step: Step, corner: tuple[int, ...]) -> str:
    """Zeros, and the image among them."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    channels, height, width = s.shape
    added = _rebased(s, out)
    top, left = corner
    return (
        f"{unit.pointers(step)}    size_t y, x, c;\n{unit.border(step.writes)}"
        f"    for (y = 0; y < {out.shape[1]}; y++)\n"
        f"        memset(out + y * {out.row}, {out.zero}, {out.shape[2] * out.pixel * WIDTH[out.area]});\n"
        f"    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x++)\n"
        f"            for (c = 0; c < {channels}; c++)\n"
        f"                out[(y + {top}) * {out.row} + (x + {left}) * {out.pixel} + c] ="
        f" ({ctype(out)})(in[y * {s.row} + x * {s.pixel} + c]{added});\n"
    )


def flatten(unit: Unit, step: Step) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    channels, height, width = s.shape
    added = _rebased(s, out)
    return (
        f"{unit.pointers(step)}    size_t y, x, c;\n{unit.border(step.writes)}"
        f"    for (c = 0; c < {channels}; c++)\n        for (y = 0; y < {height}; y++)\n"
        f"            for (x = 0; x < {width}; x++)\n"
        f"                out[(c * {height} + y) * {width} + x] ="
        f" ({ctype(out)})(in[y * {s.row} + x * {s.pixel} + c]{added});\n"
    )


def argmax(unit: Unit, step: Step) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    return (
        f"{unit.pointers(step)}    size_t c, best = 0;\n{unit.border(step.writes)}"
        f"    for (c = 1; c < {s.shape[0]}; c++)\n        if (in[c] > in[best])\n            best = c;\n"
        f"    out[0] = ({ctype(out)})best;\n"
    )


def input_type(op: Input) -> str:
    """The narrowest C integer that holds the inputs."""
    for kind, low, high in (
        ("uint8_t", 0, 255),
        ("int8_t", -128, 127),
        ("int16_t", -(2**15), 2**15 - 1),
        ("int32_t", -(2**31), 2**31 - 1),
    ):
        if low <= op.lowest and op.highest <= high:
            return kind
    return "int64_t"


def _rebased(s: Storage, out: Storage) -> str:
    """What is added to a number of `s` to be the same one in `out`, whose zero may be another."""
    shift = out.zero - s.zero
    return f" + {literal(shift)}" if shift else ""
