"""C for what is done to sums before they are stored: one inline function per step."""

from __future__ import annotations

import numpy as np

from ..integer.graph import Int
from .activation import Activation
from .plan import Storage
from .tables import Tables

COMPARISONS_WRITTEN_OUT = 4
LANES = 16


class Epilogue:
    """`name`(sums, channel, class, count, out): activates `count` sums from `channel` on and stores them at `out`.

    Sums may be read up to the next multiple of 16. With `distances` the sums are numbers of differing bits d, and the
    activation is of distances[class, c] - 2 d; `class`, already multiplied by the width of a row of tables, says
    where in the image the pixel is. `period`: tables are repeated up to that many channels.
    """

    def __init__(
        self,
        step: int,
        act: Activation,
        out: Storage,
        tables: Tables,
        *,
        delta: Int | None = None,
        distances: Int | None = None,
        period: int = 0,
    ) -> None:
        suffix = "_row" if period else ""
        self.name = f"epilogue{step}{suffix}"
        self.act, self.out, self.tables = act, out, tables
        self.width = period or -(-act.channels // LANES) * LANES
        self.prefix = f"t{step}{suffix}_"
        if delta is not None:
            moved = act.on_raw_sums(delta)
            if moved is not None:
                self.act, delta = moved, None
        self.delta = delta if delta is not None and delta.any() else None
        self.distances = distances
        self.limits: Int | None = None  # (classes, C) largest distances that reach the only threshold
        if distances is not None and self.act.kind == "compare" and len(self.act.steps) == 1:
            assert self.act.cuts is not None
            self.limits = np.clip((distances - self.act.cuts[:, 0] - 1) // 2, -1, 2**31 - 1)

    def text(self) -> str:
        out = self.out
        head = (
            f"NW_INLINE void {self.name}(const int32_t *restrict sums, size_t channel, size_t class_, size_t count,"
            f" {ctype(out)} *restrict out)\n{{\n    size_t i;\n    (void)channel;\n    (void)class_;\n"
        )
        vector, plain = self._vector(), self._plain()
        return head + f"#if defined(NW_AVX512)\n    NW_OPAQUE(channel);\n{vector}#else\n{plain}#endif\n}}\n"

    def _plain(self) -> str:
        out = self.out
        lines = ["int32_t x = sums[i];"]
        if self.limits is not None:
            limit = self._table("limit", self.limits, "class_ + channel + i")
            level, step = self.act.base, self.act.steps[0]
            condition = f"x <= {limit}"
            if out.bits:
                return self._bits([*lines, f"bit = {condition};"])
            value = f"{level + out.zero} + ({condition}) * {step}"
            return _loop([*lines, f"out[i] = ({ctype(out)})({value});"])
        if self.distances is not None:
            lines.append(f"x = {self._table('from', self.distances, 'class_ + channel + i')} - 2 * x;")
        if self.delta is not None:
            lines.append(f"x += {self._channelwise('delta', self.delta)};")
        if out.bits:
            act = self.act
            if act.kind == "compare" and len(act.steps) == 1 and self.distances is None and self.delta is None:
                assert act.cuts is not None
                if act.signs is None:
                    return self._bits([lines[0], f"bit = x > {self._channelwise('cut0', act.cuts[:, 0])};"])
            return self._bits([*lines, *self._activate(), "bit = x > 0;"])
        lines += self._activate()
        zero = f" + {out.zero}" if out.zero else ""
        return _loop([*lines, f"out[i] = ({ctype(out)})(x{zero});"])

    def _activate(self) -> list[str]:
        act = self.act
        match act.kind:
            case "identity":
                return []
            case "compare":
                assert act.cuts is not None
                lines = []
                if act.signs is not None:
                    lines.append(f"x *= {self._channelwise('sign', act.signs)};")
                count = len(act.steps)
                if count <= COMPARISONS_WRITTEN_OUT:
                    terms = [
                        f"(x > {self._channelwise(f'cut{j}', act.cuts[:, j])})" + (f" * {d}" if d != 1 else "")
                        for j, d in enumerate(act.steps)
                    ]
                    return [*lines, "x = " + " + ".join([str(act.base), *terms]) + ";"]
                cut = self._cuts()
                step = self._table("step", np.array(act.steps, dtype=np.int64), "j", wide=0)
                return [
                    *lines,
                    f"{{ int32_t y = {act.base}; size_t j; for (j = 0; j < {count}; j++)"
                    f" y += (x > {cut}) * {step}; x = y; }}",
                ]
            case _:
                return self._shift()

    def _shift(self) -> list[str]:
        act = self.act
        assert act.multiplier is not None and act.addend is not None and act.shift is not None
        lines = []
        if act.lows is not None and act.highs is not None:
            low, high = self._channelwise("low", act.lows), self._channelwise("high", act.highs)
            lines += [f"x = x < {low} ? {low} : x;", f"x = x > {high} ? {high} : x;"]
        m = self._channelwise("multiplier", act.multiplier)
        a = self._channelwise("addend", act.addend)
        s = self._channelwise("shift", act.shift)
        wide = act.kind == "shift64"
        product = f"(int64_t)x * {m} + {a}" if wide else f"x * {m} + {a}"
        kind = "int64_t" if wide else "int32_t"
        clip = ""
        if act.lowest is not None:
            clip = f" y = y < {act.lowest} ? {act.lowest} : y; y = y > {act.highest} ? {act.highest} : y;"
        scaled = "(int32_t)y" if act.scale == 1 else f"(int32_t)y * {act.scale}"
        base = f"{act.base} + " if act.base else ""
        return [*lines, f"{{ {kind} y = {product}; y = NW_SAR(y, {s});{clip} x = {base}{scaled}; }}"]

    def _bits(self, lines: list[str]) -> str:
        if len(lines) == 2:  # one condition on one sum
            condition = lines[1].removeprefix("bit = ").removesuffix(";")
            eight = " |\n            ".join(
                f"(unsigned)({condition.replace('x ', f'sums[i + {b}] ').replace('channel + i', f'channel + i + {b}')})"
                f" << {b}"
                for b in range(8)
            )
            whole = f"    for (i = 0; i + 8 <= count; i += 8)\n        out[i / 8] = (uint8_t)({eight});\n"
            return whole + self._bits_loop(lines).replace("for (i = 0;", "for (;", 1)
        return self._bits_loop(lines)

    def _bits_loop(self, lines: list[str]) -> str:
        body = "\n            ".join(lines)
        return (
            "    for (i = 0; i < count; i += 8) {\n        unsigned byte = 0;\n        size_t b;\n"
            "        for (b = 0; b < 8 && i + b < count; b++) {\n            unsigned bit;\n            "
            + body.replace("sums[i]", "sums[i + b]").replace("channel + i", "channel + i + b")
            + "\n            byte |= bit << b;\n        }\n        out[i / 8] = (uint8_t)byte;\n    }\n"
        )

    def _vector(self) -> str:
        """The same for 16 sums at a time with AVX-512."""
        act, out = self.act, self.out
        lines = ["__m512i x = _mm512_loadu_si512((const void *)(sums + i));"]
        if out.bits:
            lines.append("const __mmask16 live = (__mmask16)(count - i >= 16 ? 0xffffu : (1u << (count - i)) - 1);")
        compare, masked = ("_mm512_mask_", "live, ") if out.bits else ("_mm512_", "")
        if self.limits is not None:
            limit = self._vector_table("limit", self.limits, "class_ + channel + i")
            mask = f"{compare}cmple_epi32_mask({masked}x, {limit})"
        else:
            mask = ""
            if self.distances is not None:
                start = self._vector_table("from", self.distances, "class_ + channel + i")
                lines.append(f"x = _mm512_sub_epi32({start}, _mm512_slli_epi32(x, 1));")
            if self.delta is not None:
                lines.append(f"x = _mm512_add_epi32(x, {self._vector_channelwise('delta', self.delta)});")
            if act.kind == "compare":
                assert act.cuts is not None
                if act.signs is not None:
                    sign = self._vector_channelwise("sign", act.signs)
                    lines.append(f"x = _mm512_mullo_epi32(x, {sign});")
                if len(act.steps) == 1:
                    cut = self._vector_channelwise("cut0", act.cuts[:, 0])
                    mask = f"{compare}cmpgt_epi32_mask({masked}x, {cut})"
        if mask:
            if out.bits:
                lines += [
                    f"const unsigned bits = {mask};",
                    "out[i / 8] = (uint8_t)bits;",
                    "if (count - i > 8) out[i / 8 + 1] = (uint8_t)(bits >> 8);",
                ]
                return _blocks(lines)
            base = f"_mm512_set1_epi32({act.base + out.zero})"
            lines.append(f"x = _mm512_mask_add_epi32({base}, {mask}, {base}, _mm512_set1_epi32({act.steps[0]}));")
        elif act.kind == "identity":
            if out.zero:
                lines.append(f"x = _mm512_add_epi32(x, _mm512_set1_epi32({out.zero}));")
        elif act.kind == "compare":
            lines += self._vector_compare()
        else:
            lines += self._vector_shift()
        if out.bits:
            lines += [
                f"const unsigned bits = _mm512_mask_cmpgt_epi32_mask(live, x, _mm512_set1_epi32({out.zero}));",
                "out[i / 8] = (uint8_t)bits;",
                "if (count - i > 8) out[i / 8 + 1] = (uint8_t)(bits >> 8);",
            ]
            return _blocks(lines)
        # masked narrowing stores are slow on some machines: whole blocks go without
        whole, type_ = {
            "u8": ("_mm_storeu_si128((__m128i *)(void *)(@), _mm512_cvtepi32_epi8(x))", "uint8_t"),
            "i16": ("_mm256_storeu_si256((__m256i *)(void *)(@), _mm512_cvtepi32_epi16(x))", "int16_t"),
            "i32": ("_mm512_storeu_si512((void *)(@), x)", "int32_t"),
        }[out.area]
        store = (
            f"if (count - i >= 16) {{ {whole.replace('@', 'out + i')}; }} else {{ {type_} last[16];"
            f" {whole.replace('@', 'last')}; memcpy(out + i, last, (count - i) * sizeof last[0]); }}"
        )
        return _blocks([*lines, store])

    def _vector_compare(self) -> list[str]:
        act = self.act
        assert act.cuts is not None
        base = act.base + self.out.zero
        count = len(act.steps)
        if count <= COMPARISONS_WRITTEN_OUT:
            lines = [f"__m512i y = _mm512_set1_epi32({base});"]
            for j, d in enumerate(act.steps):
                cut = self._vector_channelwise(f"cut{j}", act.cuts[:, j])
                lines.append(
                    f"y = _mm512_mask_add_epi32(y, _mm512_cmpgt_epi32_mask(x, {cut}), y, _mm512_set1_epi32({d}));"
                )
            return [*lines, "x = y;"]
        cut = self._cuts(vector=True)
        step = self._table("step", np.array(act.steps, dtype=np.int64), "j", wide=0)
        return [
            f"__m512i y = _mm512_set1_epi32({base});",
            "size_t j;",
            f"for (j = 0; j < {count}; j++)",
            f"    y = _mm512_mask_add_epi32(y, _mm512_cmpgt_epi32_mask(x, {cut}), y, _mm512_set1_epi32({step}));",
            "x = y;",
        ]

    def _vector_shift(self) -> list[str]:
        act = self.act
        assert act.multiplier is not None and act.addend is not None and act.shift is not None
        lines = []
        if act.lows is not None and act.highs is not None:
            low, high = self._vector_channelwise("low", act.lows), self._vector_channelwise("high", act.highs)
            lines += [f"x = _mm512_max_epi32(x, {low});", f"x = _mm512_min_epi32(x, {high});"]
        if act.kind == "shift32":
            m = self._vector_channelwise("multiplier", act.multiplier)
            a = self._vector_channelwise("addend", act.addend)
            s = self._vector_channelwise("shift", act.shift)
            lines.append(f"x = _mm512_srav_epi32(_mm512_add_epi32(_mm512_mullo_epi32(x, {m}), {a}), {s});")
        else:
            narrow = int(np.abs(act.multiplier).max()) < 2**31
            multiply = "_mm512_mul_epi32" if narrow else "_mm512_mullo_epi64"
            for half in (0, 1):
                part = f"_mm512_extracti64x4_epi64(x, {half})" if half else "_mm512_castsi512_si256(x)"
                offset = f"channel + i + {8 * half}"
                m = self._wide_channelwise("multiplier", act.multiplier, offset)
                a = self._wide_channelwise("addend", act.addend, offset)
                s = self._wide_channelwise("shift", act.shift, offset)
                lines.append(f"__m512i y{half} = {multiply}(_mm512_cvtepi32_epi64({part}), {m});")
                lines.append(f"y{half} = _mm512_srav_epi64(_mm512_add_epi64(y{half}, {a}), {s});")
                if act.lowest is not None:
                    lines.append(f"y{half} = _mm512_max_epi64(y{half}, _mm512_set1_epi64({act.lowest}));")
                    lines.append(f"y{half} = _mm512_min_epi64(y{half}, _mm512_set1_epi64({act.highest}));")
            lines.append(
                "x = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(y0)),"
                " _mm512_cvtepi64_epi32(y1), 1);"
            )
        if act.kind == "shift32" and act.lowest is not None:
            lines.append(f"x = _mm512_max_epi32(x, _mm512_set1_epi32({act.lowest}));")
            lines.append(f"x = _mm512_min_epi32(x, _mm512_set1_epi32({act.highest}));")
        if act.scale != 1:
            lines.append(f"x = _mm512_mullo_epi32(x, _mm512_set1_epi32({act.scale}));")
        if act.base + self.out.zero:
            lines.append(f"x = _mm512_add_epi32(x, _mm512_set1_epi32({act.base + self.out.zero}));")
        return lines

    def _cuts(self, vector: bool = False) -> str:
        assert self.act.cuts is not None
        cuts = self.act.cuts.T  # (L, C)
        if (cuts == cuts[:, :1]).all():
            value = self._table("cuts", cuts[:, 0], "j", wide=0)
            return f"_mm512_set1_epi32({value})" if vector else value
        index = f"j * {self.width} + channel + i"
        return self._vector_table("cuts", cuts, index) if vector else self._table("cuts", cuts, index)

    def _channelwise(self, name: str, values: Int) -> str:
        if (values == values[0]).all():
            return literal(int(values[0]))
        return self._table(name, values, "channel + i")

    def _vector_channelwise(self, name: str, values: Int) -> str:
        if (values == values[0]).all():
            return f"_mm512_set1_epi32({literal(int(values[0]))})"
        return self._vector_table(name, values, "channel + i")

    def _wide_channelwise(self, name: str, values: Int, index: str) -> str:
        if (values == values[0]).all():
            return f"_mm512_set1_epi64({literal(int(values[0]))})"
        kind = self._declare(name, values, self.width)
        at = f"(const void *)({self.prefix}{name} + {index})"
        return {
            "int8_t": f"_mm512_cvtepi8_epi64(_mm_loadl_epi64((const __m128i *){at}))",
            "int16_t": f"_mm512_cvtepi16_epi64(_mm_loadu_si128((const __m128i *){at}))",
            "int32_t": f"_mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *){at}))",
            "int64_t": f"_mm512_loadu_si512({at})",
        }[kind]

    def _vector_table(self, name: str, values: Int, index: str) -> str:
        kind = self._declare(name, values, self.width)
        at = f"(const void *)({self.prefix}{name} + {index})"
        return {
            "int8_t": f"_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *){at}))",
            "int16_t": f"_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *){at}))",
            "int32_t": f"_mm512_loadu_si512({at})",
        }[kind]

    def _table(self, name: str, values: Int, index: str, wide: int | None = None) -> str:
        self._declare(name, values, self.width if wide is None else wide)
        return f"{self.prefix}{name}[{index}]"

    def _declare(self, name: str, values: Int, width: int) -> str:
        """The table, rows repeated or filled up to `width`."""
        if width and values.shape[-1] != width:
            if width % values.shape[-1] == 0:
                values = np.tile(values, (*[1] * (values.ndim - 1), width // values.shape[-1]))
            else:
                values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])])
        return self.tables.add(self.prefix + name, values)


def ctype(storage: Storage) -> str:
    return {"u8": "uint8_t", "i16": "int16_t", "i32": "int32_t"}[storage.area]


def literal(value: int) -> str:
    """C has no negative literals: -2147483648 would be too wide."""
    if value == -(2**31):
        return "(-2147483647 - 1)"
    if value == -(2**63):
        return "(-9223372036854775807 - 1)"
    return f"({value})" if value < 0 else str(value)


def _loop(lines: list[str]) -> str:
    return "    for (i = 0; i < count; i++) {\n        " + "\n        ".join(lines) + "\n    }\n"


def _blocks(lines: list[str]) -> str:
    return "    for (i = 0; i < count; i += 16) {\n        " + "\n        ".join(lines) + "\n    }\n"
