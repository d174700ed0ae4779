"""Convolutions and matrix products with the activation behind them: bits, bytes, depthwise, and anything else."""

from __future__ import annotations

import math

import numpy as np

from ..integer.graph import Conv, Edge, Int, MatMul
from .activation import Activation
from .epilogue import LANES, Epilogue, ctype
from .pack import pack, plane
from .plan import Step
from .sums import LONGEST_PERIOD, VECTOR
from .unit import Unit

ACCUMULATORS = 16  # vectors of sums that an AVX-512 kernel holds
SMALL_TILE = (1, 4)  # vectors, pixels of the other vector kernels
MOST_BLOCK = 16  # output channels that the portable kernel unpacks at once
LONG_ROW = 1024  # weights of an output channel; with more, fewer channels are unpacked at once
KERNELS = {
    "bits": "bits",
    "depthwise": "depthwise products of bytes",
    "dot": "products of bytes",
    "wide": "one product at a time",
}


def convolution(unit: Unit, number: int, step: Step) -> str:
    worker = unit.graph.nodes[step.node if step.sums is None else step.sums].op
    assert isinstance(worker, Conv | MatMul) and step.weight is not None
    weight = np.array(step.weight, dtype=np.int64)
    x = unit.edge(step.reads[0])
    weight = _without_dead(weight, x, step.groups)
    bias = np.zeros(len(weight), dtype=np.int64) if worker.bias is None else np.array(worker.bias, dtype=np.int64)
    act = unit.activation(step)
    if act.signs is not None and int(weight.min()) > -128:
        flip = act.signs
        weight, bias, act = weight * flip[:, None, None, None], bias * flip, act.without_signs()
    unit.kernels.append((step.node if step.sums is None else step.sums, KERNELS[str(step.kernel)]))
    match step.kernel:
        case "bits":
            return _bits(unit, number, step, weight, bias, act)
        case "dot":
            return _dot(unit, number, step, weight, bias, act)
        case "depthwise":
            return _depthwise(unit, number, step, weight, bias, act)
        case _:
            return _wide(unit, number, step, weight, bias, act)


def _wide(unit: Unit, number: int, step: Step, weight: Int, bias: Int, act: Activation) -> str:
    """Any integers, one product at a time."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    filters, inner, kh, kw = weight.shape
    per_group = filters // step.groups
    epilogue = Epilogue(number, act, out, unit.tables, delta=bias)
    rows = weight.transpose(0, 2, 3, 1).reshape(filters, -1)
    array = f"w{number}"
    zero = f" - {s.zero}" if s.zero else ""
    room = -(-filters // LANES) * LANES
    once = out.shape[1:] == (1, 1) and int(rows.min()) >= -128 and int(rows.max()) <= 127
    load = ""
    if once and (packed := pack(rows)).bits < 8:
        unit.fragments.add("unpack.h")
        unit.tables.add_unsigned(array, packed.rows)
        unit.share("int8_t row", rows.shape[1])
        load = (
            f"                for (i = 0; i < {rows.shape[1]}; i++)\n"
            f"                    row[i] = (int8_t)nw_weight({array} + o * {packed.rows.shape[1]}, i,"
            f" {packed.bits}, {packed.lowest}, {packed.step});\n"
        )
        kind, start = "int8_t", "row"
    else:
        kind, start = unit.tables.add(array, rows), f"{array} + o * {rows.shape[1]}"
    sy, sx = step.stride
    corner = step.pads[0] * s.row + step.pads[1] * s.pixel
    back = f" - {corner}" if corner else ""
    group = "" if step.groups == 1 else f" + o / {per_group} * {inner}"
    return (
        f"{epilogue.text()}static void step{number}(void)\n{{\n{unit.pointers(step)}"
        f"    size_t y, x, o, i, j, k;\n{unit.border(step.writes)}"
        f"    for (y = 0; y < {out.shape[1]}; y++)\n        for (x = 0; x < {out.shape[2]}; x++) {{\n"
        f"            {unit.place(room)}int32_t sums[{room}] NW_ALIGN;\n"
        f"            for (o = 0; o < {filters}; o++) {{\n"
        f"                const {ctype(s)} *p = in + y * {sy * s.row} + x * {sx * s.pixel}{group}{back};\n"
        f"                const {kind} *w = {start};\n                int32_t sum = 0;\n{load}"
        f"                for (i = 0; i < {kh}; i++, p += {s.row})\n"
        f"                    for (j = 0; j < {kw}; j++, w += {inner})\n"
        f"                        for (k = 0; k < {inner}; k++)\n"
        f"                            sum += (p[j * {s.pixel} + k]{zero}) * w[k];\n"
        f"                sums[o] = sum;\n            }}\n"
        f"            {epilogue.name}(sums, 0, 0, {filters}, out + y * {out.row} + x * {out.pixel});\n"
        "        }\n}\n"
    )


def _dot(unit: Unit, number: int, step: Step, weight: Int, bias: Int, act: Activation) -> str:
    """Products of bytes. The window is `runs` runs of consecutive bytes, one for each of its rows."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    filters, inner, kh, kw = weight.shape
    rows = weight.transpose(0, 2, 3, 1).reshape(filters, -1)
    delta = bias - s.zero * rows.sum(1)
    epilogue = Epilogue(number, act, out, unit.tables, delta=delta)
    runs, run = kh, kw * inner
    if s.row == run:  # rows follow one another without a gap
        runs, run = 1, kh * run
    packed = pack(rows)
    array = f"w{number}"
    if packed.bits == 8:
        unit.tables.add(array, np.where(packed.rows > 127, packed.rows.astype(np.int64) - 256, packed.rows))
    else:
        unit.tables.add_unsigned(array, packed.rows)
    unit.fragments |= {"unpack.h", "lanes_dot.h", "rows_dot.h"}
    edge = unit.edge(step.reads[0])
    kind = "pair" if max(edge.highest, 0) + s.zero <= 127 else "dot"
    words = -(-run // 4)
    blocks = -(-filters // LANES)
    block = runs * words * 64
    unit.lane_arrays.append(f"#if defined(NW_DOT)\nstatic uint8_t lanes{number}[{blocks * block}] NW_ALIGN;\n#endif\n")
    unit.lane_ram += blocks * block
    unit.init.append(
        f"#if defined(NW_DOT)\n    nw_lanes_dot(lanes{number}, {array}, {filters}, {packed.rows.shape[1]}, {runs},"
        f" {run}, {packed.bits}, {packed.lowest}, {packed.step});\n#endif\n"
    )
    loops = _lane_loops(unit, number, step, kind, runs, words, block, epilogue, "0")
    portable = _dot_rows(unit, number, step, rows, epilogue, runs, run)
    return (
        f"{epilogue.text()}static void step{number}(void)\n{{\n{unit.pointers(step)}{unit.border(step.writes)}"
        f"#if defined(NW_AVX512)\n{loops[0]}#elif defined(NW_DOT)\n{loops[1]}#else\n{portable}#endif\n}}\n"
    )


def _lane_loops(
    unit: Unit, number: int, step: Step, kind: str, runs: int, words: int, block: int, epilogue: Epilogue, class_: str
) -> tuple[str, str]:
    """The loops over tiles of 16 V output channels and P pixels, for AVX-512 and for the other vectors."""
    filters = epilogue.act.channels
    width = unit.plan.storage[step.writes].shape[2]
    blocks = -(-filters // LANES)
    vectors = min(4, blocks)
    return (
        _loops(unit, number, step, kind, runs, words, block, epilogue, class_, vectors, _pixels(width, vectors)),
        _loops(unit, number, step, kind, runs, words, block, epilogue, class_, 1, min(SMALL_TILE[1], width)),
    )


def _loops(
    unit: Unit,
    number: int,
    step: Step,
    kind: str,
    runs: int,
    words: int,
    block: int,
    epilogue: Epilogue,
    class_: str,
    vectors: int,
    pixels: int,
) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    filters = epilogue.act.channels
    _, height, width = out.shape
    blocks = -(-filters // LANES)
    sy, sx = step.stride
    corner = step.pads[0] * s.row + step.pads[1] * s.pixel
    back = f" - {corner}" if corner else ""
    lines = ["    size_t b, y, x, p;\n"]
    spans = [(0, blocks // vectors * vectors, vectors)]
    if blocks % vectors:
        spans.append((spans[0][1], blocks, blocks % vectors))
    for first, last, v in spans:
        whole = filters >= LANES * last
        count = str(LANES * v) if whole else f"({filters} - b * 16 < {LANES * v} ? {filters} - b * 16 : {LANES * v})"
        channel = "b * 2" if out.bits else "b * 16"
        lines.append(
            f"    for (b = {first}; b < {last}; b += {v})\n        for (y = 0; y < {height}; y++) {{\n"
            f"            const uint8_t *row = in + y * {sy * s.row}{back};\n"
            f"            {ctype(out)} *to = out + y * {out.row} + {channel};\n"
        )
        x = 0
        for p, end in ((pixels, width // pixels * pixels), (width % pixels, width)):
            if x == end:
                continue
            tile = _tile(unit, kind, v, p)
            loop = f"for (x = {x}; x < {end}; x += {p})" if end - x > p else f"x = {x};"
            lines.append(
                f"            {loop} {{\n                int32_t sums[{p * v * LANES}] NW_ALIGN;\n"
                f"                {tile}(row + x * {sx * s.pixel}, {sx * s.pixel}, {runs}, {s.row}, {words},"
                f" lanes{number} + b * {block}, {block}, sums);\n"
                f"                for (p = 0; p < {p}; p++)\n"
                f"                    {epilogue.name}(sums + p * {v * LANES}, b * 16,"
                f" {class_.replace('@', 'x + p')},"
                f" {count}, to + (x + p) * {out.pixel});\n            }}\n"
            )
            x = end
        lines.append("        }\n")
    return "".join(lines)


def _tile(unit: Unit, kind: str, vectors: int, pixels: int) -> str:
    """A function that multiplies `pixels` windows with 16 `vectors` output channels, sums held in registers."""
    name = f"nw_{kind}_{vectors}x{pixels}"
    if name in unit.tiles:
        return name
    bit = kind in ("xnor", "tern")
    suffix = "_bit" if bit else ""
    step = 128 if kind == "tern" else 64
    names = [[f"s{p}{v}" for v in range(vectors)] for p in range(pixels)]
    flat = [each for row in names for each in row]
    declare = ", ".join(f"{each} = nw_zero{suffix}()" for each in flat)
    loads = " ".join(
        f"const nw_w_{kind} w{v} = nw_load_{kind}(w + {v} * block);"
        if v
        else f"const nw_w_{kind} w0 = nw_load_{kind}(w);"
        for v in range(vectors)
    )
    macs = []
    for p in range(pixels):
        at = f"at + {p} * step" if p > 1 else ("at + step" if p else "at")
        inner = " ".join(f"NW_MAC_{kind}({names[p][v]}, w{v}, v);" for v in range(vectors))
        macs.append(f"            {{ const nw_x_{kind} v = nw_spread_{kind}({at}); {inner} }}\n")
    puts = "".join(f"    nw_put{suffix}(sums + {i * LANES}, {each});\n" for i, each in enumerate(flat))
    guard = "NW_BIT" if bit else "NW_DOT"
    type_ = "nw_b" if bit else "nw_v"
    unit.tiles[name] = (
        f"#if defined({guard})\nNW_INLINE void {name}(const uint8_t *x, size_t step, size_t runs, size_t row,"
        f" size_t words, const uint8_t *w, size_t block, int32_t *sums)\n{{\n    {type_} {declare};\n"
        f"    size_t t, k;\n    (void)step;\n    (void)block;\n    for (t = 0; t < runs; t++, x += row) {{\n"
        f"        const uint8_t *at = x;\n        for (k = 0; k < words; k++, at += 4, w += {step}) {{\n"
        f"            {loads}\n{''.join(macs)}        }}\n    }}\n{puts}}}\n#endif\n"
    )
    return name


def _dot_rows(unit: Unit, number: int, step: Step, rows: Int, epilogue: Epilogue, runs: int, run: int) -> str:
    """The portable form of a convolution of bytes."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    filters, count = rows.shape
    packed = pack(rows)
    most = MOST_BLOCK if count <= LONG_ROW else MOST_BLOCK // 2
    block = min(most, -(-filters // 8) * 8)
    unit.share("nw_a window", 4 * -(-count // 32) * 32)
    unit.share("nw_k weights", block * -(-count // 32) * 32)
    _, height, width = out.shape
    sy, sx = step.stride
    corner = step.pads[0] * s.row + step.pads[1] * s.pixel
    back = f" - {corner}" if corner else ""
    channel = "b / 8" if out.bits else "b"
    length = f"NW_COUNT({count})"
    products = (
        f"                for (o = 0; o < live; o += 4) {{\n                    int32_t tile[16];\n"
        f"                    nw_rows_4x4(window, weights + o * {length}, {length}, {length}, {length}, tile);\n"
        f"                    for (p = 0; p < 4; p++)\n"
        f"                        memcpy(sums[p] + o, tile + 4 * p, 4 * sizeof(int32_t));\n                }}\n"
    )
    return (
        f"    size_t b, y, x, p, o, i;\n"
        f"    for (b = 0; b < {filters}; b += {block}) {{\n"
        f"        const size_t live = {filters} - b < {block} ? {filters} - b : {block};\n"
        f"        for (o = 0; o < live; o++)\n"
        f"            nw_unpack(weights + o * {length}, (const uint8_t *)w{number}"
        f" + (b + o) * {packed.rows.shape[1]}, {count}, {packed.bits}, {packed.lowest}, {packed.step});\n"
        f"        memset(weights + live * {length}, 0, ({block} - live) * {length} * sizeof weights[0]);\n"
        f"        for (y = 0; y < {height}; y++)\n            for (x = 0; x < {width}; x += 4) {{\n"
        f"                const size_t pixels = {width} - x < 4 ? {width} - x : 4;\n"
        f"                int32_t sums[4][{-(-block // 16) * 16}] NW_ALIGN;\n"
        f"                for (p = 0; p < pixels; p++)\n                    for (i = 0; i < {runs}; i++)\n"
        f"                        nw_copy_run(window + p * {length} + i * {run}, in + y * {sy * s.row} + (x + p) *"
        f" {sx * s.pixel} + i * {s.row}{back}, {run});\n"
        f"{products}"
        f"                for (p = 0; p < pixels; p++)\n"
        f"                    {epilogue.name}(sums[p], b, 0, live, out + y * {out.row} + (x + p) * {out.pixel} +"
        f" {channel});\n            }}\n    }}\n"
    )


def _bits(unit: Unit, number: int, step: Step, weight: Int, bias: Int, act: Activation) -> str:
    """Differing bits. Zeros around the image are neither +1 nor -1: they are stored as -1, and what that adds to
    the sums of a pixel near the edge is taken off again by tables of its own."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    filters, _, kh, kw = weight.shape
    taps = weight.sum(1)  # (O, kh, kw)
    row_class, row_outside = _classes(s.shape[1], kh, step.stride[0], step.pads[0], out.shape[1])
    column_class, column_outside = _classes(s.shape[2], kw, step.stride[1], step.pads[1], out.shape[2])
    weights_present = np.abs(weight).sum((1, 2, 3))
    distances = []
    for outside_rows in row_outside:
        for outside_columns in column_outside:
            outside = outside_rows[:, None] | outside_columns[None, :]
            distances.append(weights_present + bias + (taps * outside).sum((1, 2)))
    epilogue = Epilogue(number, act, out, unit.tables, distances=np.array(distances, dtype=np.int64))
    pixel = s.pixel
    runs, run = kh, kw * pixel
    if s.row == run:
        runs, run = 1, kh * run
    ternary = bool((weight == 0).any())
    planes = [weight.transpose(0, 2, 3, 1) > 0]  # bit 1: +1
    if ternary:
        planes.insert(0, weight.transpose(0, 2, 3, 1) != 0)
    length = -(-runs * run // 8)  # words
    words = np.zeros((filters, len(planes), length * 8), dtype=np.uint8)
    for p, bits in enumerate(planes):
        words[:, p, : runs * run] = plane(bits).reshape(filters, -1)
    unit.tables.add_unsigned(f"w{number}", words.view("<u8").astype(np.uint64))
    # bytes past a run must not count: without a mask of its own the plane gets one
    kind = "xnor" if not ternary and run % 4 == 0 else "tern"
    unit.fragments |= {"lanes_bit.h", "rows_bit.h"}
    fours = -(-run // 4)
    lane_planes = 2 if kind == "tern" else 1
    block = runs * fours * lane_planes * 64
    blocks = -(-filters // LANES)
    unit.lane_arrays.append(f"#if defined(NW_BIT)\nstatic uint8_t lanes{number}[{blocks * block}] NW_ALIGN;\n#endif\n")
    unit.lane_ram += blocks * block
    unit.init.append(
        f"#if defined(NW_BIT)\n    nw_lanes_bit(lanes{number}, w{number}, {filters}, {length}, {runs}, {run},"
        f" {len(planes)}, {lane_planes - len(planes)});\n#endif\n"
    )
    class_ = "0"
    border = ""
    if len(distances) > 1:
        columns = len(column_outside) * epilogue.width
        unit.tables.add(f"rows{number}", np.array(row_class) * columns)
        unit.tables.add(f"columns{number}", np.array(column_class) * epilogue.width)
        class_ = f"(size_t)rows{number}[y] + (size_t)columns{number}[@]"
        border = ", 9 border classes" if len(distances) == 9 else f", {len(distances)} border classes"
    unit.kernels[-1] = (unit.kernels[-1][0], ("ternary bits" if ternary else "binary bits") + border)
    loops = _lane_loops(unit, number, step, kind, runs, fours, block, epilogue, class_)
    portable = _bit_rows(unit, number, step, ternary, runs, run, length, epilogue, class_)
    return (
        f"{epilogue.text()}static void step{number}(void)\n{{\n{unit.pointers(step)}{unit.border(step.writes)}"
        f"#if defined(NW_AVX512) && defined(NW_BIT)\n{loops[0]}#elif defined(NW_BIT)\n{loops[1]}#else\n{portable}"
        "#endif\n}\n"
    )


def _bit_rows(
    unit: Unit,
    number: int,
    step: Step,
    ternary: bool,
    runs: int,
    run: int,
    length: int,
    epilogue: Epilogue,
    class_: str,
) -> str:
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    filters = epilogue.act.channels
    unit.share("uint64_t gathered", 4 * length)
    room = -(-filters // LANES) * LANES
    _, height, width = out.shape
    sy, sx = step.stride
    corner = step.pads[0] * s.row + step.pads[1] * s.pixel
    back = f" - {corner}" if corner else ""
    kernel = "nw_rows_tern" if ternary else "nw_rows_xnor"
    return (
        f"    size_t y, x, p, o, i;\n"
        f"    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x += 4) {{\n"
        f"            const size_t pixels = {width} - x < 4 ? {width} - x : 4;\n"
        f"            {unit.place(4 * room)}int32_t sums[4 * {room}] NW_ALIGN;\n"
        f"            for (p = 0; p < pixels; p++)\n                for (i = 0; i < {runs}; i++)\n"
        f"                    nw_gather(gathered + p * {length}, i * {run}, in + y * {sy * s.row} + (x + p) *"
        f" {sx * s.pixel} + i * {s.row}{back}, {run});\n"
        f"            for (o = 0; o < {filters}; o++)\n"
        f"                {kernel}(gathered, w{number} + o * {length * (2 if ternary else 1)}, {length}, sums + o,"
        f" {room});\n"
        f"            for (p = 0; p < pixels; p++)\n"
        f"                {epilogue.name}(sums + p * {room}, 0, {class_.replace('@', 'x + p')}, {filters},"
        f" out + y * {out.row} + (x + p) * {out.pixel});\n        }}\n"
    )


def _depthwise(unit: Unit, number: int, step: Step, weight: Int, bias: Int, act: Activation) -> str:
    """Every channel with its own window. Sums are 16 bits wide where that is enough."""
    s, out = unit.plan.storage[step.reads[0]], unit.plan.storage[step.writes]
    channels, _, kh, kw = weight.shape
    edge = unit.edge(step.reads[0])
    rows = weight.reshape(channels, kh * kw).T  # (taps, C)
    delta = bias - s.zero * rows.sum(0)
    most = int((np.abs(rows).sum(0) * (max(edge.highest, 0) + s.zero)).max())
    bits = 16 if most < 2**15 else 32
    unit.tables.add(f"w{number}", rows)
    period = math.lcm(channels, VECTOR)
    by_rows = step.stride[1] == 1 and period <= LONGEST_PERIOD and not (out.bits and channels % 8)
    epilogue = Epilogue(number, act, out, unit.scalar_tables if by_rows else unit.tables, delta=delta)
    _, height, width = out.shape
    sy, sx = step.stride
    corner = step.pads[0] * s.row + step.pads[1] * s.pixel
    back = f" - {corner}" if corner else ""
    room = -(-channels // LANES) * LANES
    pixelwise = (
        f"    size_t y, x, c, i, j;\n"
        f"    for (y = 0; y < {height}; y++)\n        for (x = 0; x < {width}; x++) {{\n"
        f"            const uint8_t *p = in + y * {sy * s.row} + x * {sx * s.pixel}{back};\n"
        f"            {unit.place(channels)}int{bits}_t part[{channels}] NW_ALIGN;\n"
        f"            {unit.place(room)}int32_t sums[{room}] NW_ALIGN;\n"
        f"            memset(part, 0, sizeof part);\n"
        f"            for (i = 0; i < {kh}; i++)\n                for (j = 0; j < {kw}; j++)\n"
        f"                    for (c = 0; c < {channels}; c++)\n"
        f"                        part[c] = (int{bits}_t)(part[c] + p[i * {s.row} + j * {s.pixel} + c] *"
        f" w{number}[(i * {kw} + j) * {channels} + c]);\n"
        f"            for (c = 0; c < {channels}; c++)\n                sums[c] = part[c];\n"
        f"            {epilogue.name}(sums, 0, 0, {channels}, out + y * {out.row} + x * {out.pixel});\n        }}\n"
    )
    start = f"static void step{number}(void)\n{{\n{unit.pointers(step)}{unit.border(step.writes)}"
    if not by_rows:
        return f"{epilogue.text()}{start}{pixelwise}}}\n"
    repeated = Epilogue(number, act, out, unit.vector_tables, delta=delta, period=period)
    unit.fragments.add("depthwise.h")
    taps = kh * kw
    unit.lane_arrays.append(
        f"#if defined(NW_VECTOR)\nstatic int16_t lanes{number}[{taps * period}] NW_ALIGN;\n#endif\n"
    )
    unit.lane_ram += taps * period * 2
    unit.init.append(
        f"#if defined(NW_VECTOR)\n    nw_repeat(lanes{number}, w{number}, {taps}, {channels}, {period});\n#endif\n"
    )
    elements = width * channels
    divided = " / 8" if out.bits else ""
    rowwise = (
        f"    size_t y, i, j;\n    for (y = 0; y < {height}; y++)\n"
        f"        for (i = 0; i < {elements}; i += {period})\n"
        f"            for (j = 0; j < {period} && i + j < {elements}; j += {VECTOR}) {{\n"
        f"                int32_t sums[{VECTOR}] NW_ALIGN;\n"
        f"                nw_depthwise{bits}(in + y * {sy * s.row} + i + j{back}, {s.row}, {s.pixel}, {kh}, {kw},"
        f" lanes{number} + j, {period}, sums);\n"
        f"                {repeated.name}(sums, j, 0,"
        f" {elements} - i - j < {VECTOR} ? {elements} - i - j : {VECTOR},"
        f" out + y * {out.row} + (i + j){divided});\n            }}\n"
    )
    return (
        f"#if defined(NW_VECTOR)\n{repeated.text()}#else\n{epilogue.text()}#endif\n"
        f"{start}#if defined(NW_VECTOR)\n{rowwise}#else\n{pixelwise}#endif\n}}\n"
    )


def _without_dead(weight: Int, x: Edge, groups: int) -> Int:
    """Weights of channels that are always zero may be anything; they become zero."""
    dead = (x.lows == 0) & (x.highs == 0)
    if not dead.any() or len(dead) != weight.shape[1] * groups:
        return weight
    per_group = len(weight) // groups
    mask = np.repeat(~dead.reshape(groups, 1, weight.shape[1]), per_group, axis=1).reshape(len(weight), -1)
    return np.asarray(weight * mask[:, :, None, None])


def _classes(size: int, kernel: int, stride: int, before: int, positions: int) -> tuple[list[int], list[Int]]:
    """For each position along one axis which of the classes it is in, and which taps of each lie outside."""
    kinds: dict[tuple[bool, ...], int] = {}
    found = []
    for position in range(positions):
        start = position * stride - before
        outside = tuple(not 0 <= start + tap < size for tap in range(kernel))
        found.append(kinds.setdefault(outside, len(kinds)))
    return found, [np.array(kind, dtype=bool) for kind in kinds]


def _pixels(width: int, vectors: int) -> int:
    """Pixels of a tile: as many as registers allow, but not so many that the last tile of a row is nearly empty."""
    most = min(ACCUMULATORS // vectors, 8, width)
    return -(-width // -(-width // most))
