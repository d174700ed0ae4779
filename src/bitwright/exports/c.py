"""C99 without dependencies: a library, its self-test and a program that runs it on bytes from standard input.

    NAME.h, NAME.c   the network: void NAME_run(const input_t *input, int32_t *output); no heap, no floating point
    main.c           ./NAME tests itself; ./NAME -r N is a filter; ./NAME -b N measures
    NAME_test.h      test vectors for main.c, from integer/run.py
    Makefile         make test

The same graph gives the same bytes. The machinery is in codegen/.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..codegen.emit import Source, emit
from ..codegen.steps import input_type
from ..errors import ExportError
from ..files import write_text
from ..integer.graph import Input, Int, IntegerGraph
from ..integer.run import Executor

FLAGS = "-O3 -march=native"
COMPILERS = ("cc", "gcc", "clang")
SAMPLE_SEED = 0
NUMBERS_PER_LINE = 20
MOST_TEST_NUMBERS = 2**22  # in all test vectors together


def export(graph: IntegerGraph, path: Path, *, name: str = "network", samples: int = 4) -> list[str]:
    """Writes the graph's library into the folder `path`; returns lines about what was written.

    name: of the files and the functions, a C identifier. samples: test vectors, from random inputs; fewer for large
    inputs.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name) or name in ("main", "test"):
        raise ExportError(f"a C network's name is lower-case letters, digits and underscores, got {name!r}")
    if input_type(graph.input) == "int64_t":
        raise ExportError(f"{graph.label(0)}: its inputs exceed 32 bits")
    source = emit(graph, name)
    samples = min(samples, max(MOST_TEST_NUMBERS // math.prod(graph.input.shape), 1))
    files = {
        f"{name}.h": _header(graph, name, source),
        f"{name}.c": source.text,
        f"{name}_test.h": _vectors(graph, name, samples),
        "main.c": _main(graph, name),
        "Makefile": _makefile(name),
    }
    for file, text in files.items():
        write_text(path / file, text)
    lines = [f"{file}: {len(text.encode()):,} bytes" for file, text in files.items()]
    lines.append(f"flash: {source.flash:,} bytes of constants")
    lines.append(f"RAM: {source.ram:,} bytes of buffers (and {source.lane_ram:,} for weights where lanes are used)")
    kernels = Counter(kernel for _, kernel in source.kernels)
    lines.append(f"kernels: {', '.join(f'{count} of {kernel}' for kernel, count in kernels.items()) or 'none'}")
    return lines


def execute(path: Path, x: NDArray[np.int64], *, flags: str = FLAGS) -> NDArray[np.int64]:
    """Compiles what `export` wrote and runs it on x: (N, *input shape); returns (N, *output shape).

    flags: for the compiler. Raises ExportError if there is no compiler, or it fails.
    """
    headers = [header for header in sorted(path.glob("*.h")) if not header.name.endswith("_test.h")]
    if len(headers) != 1:
        raise ExportError(f"no exported C network in {path}, or more than one")
    text = headers[0].read_text(encoding="utf-8")
    inputs, outputs = _shape(text, "input"), _shape(text, "output")
    if x.shape[1:] != inputs:
        raise ExportError(f"the network takes inputs of {inputs}, got {x.shape[1:]}")
    with tempfile.TemporaryDirectory() as folder:
        program = build(path, Path(folder) / "network", flags=flags)
        wide = "const uint8_t *input" not in text
        data = x.astype("<i4").tobytes() if wide else x.astype(np.uint8).tobytes()
        done = subprocess.run([program, "-r", str(len(x))], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise ExportError(f"the exported network failed: {done.stderr.decode(errors='replace').strip()}")
    return np.frombuffer(done.stdout, dtype="<i4").astype(np.int64).reshape(len(x), *outputs)


def build(path: Path, program: Path, *, flags: str = FLAGS) -> Path:
    """Compiles the program in `path` to the file `program`."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise ExportError(f"no C compiler found; looked for {', '.join(COMPILERS)}")
    sources = sorted(str(p) for p in path.glob("*.c"))
    command = [compiler, "-std=c99", *shlex.split(flags), *sources, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError(f"{Path(compiler).name} failed: {(done.stderr.splitlines() or ['no message'])[0]}")
    return program


def _shape(header: str, which: str) -> tuple[int, ...]:
    found = re.search(rf"{which} shape: ([0-9 x]+)", header)
    if found is None:
        raise ExportError("the header of the exported network is not ours")
    return tuple(int(size) for size in found[1].split("x"))


def _header(graph: IntegerGraph, name: str, source: Source) -> str:
    op, output = graph.input, graph.output
    upper = name.upper()
    kind = input_type(op)
    shape = " x ".join(map(str, op.shape))
    result = " x ".join(map(str, output.shape))
    return f"""/* Generated by bitwright: an integer network.

   input shape: {shape}
   output shape: {result}
   Axes are channel, row, column, or one axis of features. Inputs are integers from {op.lowest} to {op.highest};
   outputs are integers from {output.lowest} to {output.highest}.

   flash: {source.flash} bytes of constants
   RAM: {source.ram} bytes of static buffers; with AVX-512, AVX2 or NEON also {source.lane_ram} bytes of rearranged
   weights

   Buffers are static: one thread at a time. Compile with -D{upper}_PORTABLE for C without vector instructions. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_INPUT_SIZE {math.prod(op.shape)}
#define {upper}_OUTPUT_SIZE {output.size}

#ifdef __cplusplus
extern "C" {{
#endif

/* Rearranges weights, once. {name}_run does it when first called; call it before if that call must not take longer. */
void {name}_init(void);

/* input: {upper}_INPUT_SIZE integers, channel by channel. output: {upper}_OUTPUT_SIZE integers, channel by channel. */
void {name}_run(const {kind} *input, int32_t *output);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _random_inputs(op: Input, count: int) -> Int:
    random = np.random.default_rng(SAMPLE_SEED)
    return random.integers(op.lowest, op.highest, (count, *op.shape), endpoint=True)


def _vectors(graph: IntegerGraph, name: str, samples: int) -> str:
    x = _random_inputs(graph.input, samples)
    y = Executor(graph)(torch.from_numpy(x)).numpy()
    upper = name.upper()

    def numbers(values: Int) -> str:
        flat = [_literal(int(v)) for v in values.reshape(-1)]
        lines = [", ".join(flat[i : i + NUMBERS_PER_LINE]) for i in range(0, len(flat), NUMBERS_PER_LINE)]
        return ",\n        ".join(lines)

    def rows(values: Int) -> str:
        return ",\n".join(f"    {{\n        {numbers(each)}}}" for each in values) or "    {0}"

    return (
        "/* Generated by bitwright: inputs, and what the reference computes from them. */\n"
        f"#define SAMPLES {samples}\n"
        f"static const {input_type(graph.input)} test_input[SAMPLES + !SAMPLES][{upper}_INPUT_SIZE] ="
        f" {{\n{rows(x)}}};\n"
        f"static const int32_t test_output[SAMPLES + !SAMPLES][{upper}_OUTPUT_SIZE] = {{\n{rows(y)}}};\n"
    )


def _literal(value: int) -> str:
    return "-2147483647 - 1" if value == -(2**31) else str(value)


def _main(graph: IntegerGraph, name: str) -> str:
    op = graph.input
    upper = name.upper()
    kind = input_type(op)
    if kind == "uint8_t":
        width, manner = 1, "as 1 byte"
        read = "input[i] = bytes[i];"
    else:
        width, manner = 4, "as 4 bytes, lowest first"
        read = f"input[i] = ({kind})from_bytes(bytes + 4 * i);"
    helper = (
        ""
        if width == 1
        else """
static int32_t from_bytes(const unsigned char *b)
{
    const uint32_t v = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return v < 0x80000000u ? (int32_t)v : -(int32_t)(0xffffffffu - v) - 1;
}
"""
    )
    return f"""/* Generated by bitwright. ./{name} runs the self-test and exits with 1 if an output differs.
   ./{name} -r N reads N inputs from standard input, each integer {manner}, and writes N outputs, each integer as
   4 bytes, lowest first. ./{name} -b N prints nanoseconds per inference, of the processor's time, over N runs. */
#include "{name}.h"
#include "{name}_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

static {kind} input[{upper}_INPUT_SIZE];
static int32_t output[{upper}_OUTPUT_SIZE];
static unsigned char bytes[{max(math.prod(op.shape) * width, graph.output.size * 4)}];
{helper}
static int self_test(void)
{{
    int sample, i;
    for (sample = 0; sample < SAMPLES; sample++) {{
        {name}_run(test_input[sample], output);
        for (i = 0; i < {upper}_OUTPUT_SIZE; i++)
            if (output[i] != test_output[sample][i]) {{
                printf("sample %d, output %d: expected %ld, got %ld\\n", sample, i, (long)test_output[sample][i],
                       (long)output[i]);
                return 1;
            }}
    }}
    printf("ok: %d samples\\n", SAMPLES);
    return 0;
}}

static int filter(long count)
{{
    long i;
#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    for (; count > 0; count--) {{
        if (fread(bytes, {width}, {upper}_INPUT_SIZE, stdin) != {upper}_INPUT_SIZE) {{
            fprintf(stderr, "the input ends early\\n");
            return 1;
        }}
        for (i = 0; i < {upper}_INPUT_SIZE; i++)
            {read}
        {name}_run(input, output);
        for (i = 0; i < {upper}_OUTPUT_SIZE; i++) {{
            const uint32_t v = (uint32_t)output[i];
            bytes[4 * i] = (unsigned char)(v & 255);
            bytes[4 * i + 1] = (unsigned char)(v >> 8 & 255);
            bytes[4 * i + 2] = (unsigned char)(v >> 16 & 255);
            bytes[4 * i + 3] = (unsigned char)(v >> 24);
        }}
        if (fwrite(bytes, 4, {upper}_OUTPUT_SIZE, stdout) != {upper}_OUTPUT_SIZE)
            return 1;
    }}
    return fflush(stdout) ? 1 : 0;
}}

static int measure(long count)
{{
    long i;
    clock_t start;
    memcpy(input, test_input[0], sizeof input);
    {name}_run(input, output);
    start = clock();
    for (i = 0; i < count; i++)
        {name}_run(input, output);
    printf("%ld\\n", (long)((clock() - start) * (1e9 / CLOCKS_PER_SEC) / (count > 0 ? count : 1)));
    return 0;
}}

int main(int argc, char **argv)
{{
    if (argc == 1)
        return self_test();
    if (argc == 3 && strcmp(argv[1], "-r") == 0)
        return filter(strtol(argv[2], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "-b") == 0)
        return measure(strtol(argv[2], NULL, 10));
    fprintf(stderr, "usage: %s [-r N | -b N]\\n", argv[0]);
    return 2;
}}
"""


def _makefile(name: str) -> str:
    return f"""# Generated by bitwright. `make test` builds the network and compares it with the reference.
CFLAGS ?= -O3 -march=native
{name}: main.c {name}.c {name}.h {name}_test.h
\t$(CC) -std=c99 -Wall -Wextra -pedantic $(CFLAGS) main.c {name}.c -o $@

test: {name}
\t./{name}

clean:
\trm -f {name}

.PHONY: test clean
"""
