"""Generated C computes what integer/run.py computes, with vector instructions and without."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.errors import ExportError, InvalidGraph
from bitwright.exports import c
from bitwright.integer.graph import (
    Add,
    Argmax,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Input,
    Int,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Op,
    Pad,
    Requantize,
    Slice,
    SumPool,
)
from bitwright.integer.run import Executor

STRICT = "-O1 -Wall -Wextra -pedantic -Werror"
NATIVE = f"{STRICT} -march=native"
PORTABLE = f"{STRICT} -DNETWORK_PORTABLE"
BUILDS = (NATIVE, PORTABLE)

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, c.COMPILERS)), reason="there is no C compiler on this machine"
)


def ints(*values: int) -> Int:
    return np.array(values, dtype=np.int64)


class Builder:
    """Appends operations to a graph; each reads the one before unless told otherwise."""

    def __init__(self, seed: int, shape: tuple[int, ...], lowest: int = 0, highest: int = 255, zero: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes = [Node(Input(shape, lowest, highest, zero))]

    def add(self, op: Op, *inputs: int) -> int:
        self.nodes.append(Node(op, inputs or (len(self.nodes) - 1,)))
        return len(self.nodes) - 1

    def weights(self, kind: str, *shape: int) -> Int:
        low, high = {"ternary": (-1, 2), "2": (-2, 2), "4": (-8, 8), "8": (-128, 128), "12": (-2048, 2048)}.get(
            kind, (0, 2)
        )
        values = self.random.integers(low, high, shape)
        return 2 * values - 1 if kind == "binary" else values

    def conv(self, kind: str, filters: int, kernel: tuple[int, int], *, groups: int = 1, **options: object) -> int:
        channels = self.graph.output.shape[0] // groups
        return self.add(Conv(self.weights(kind, filters, channels, *kernel), groups=groups, **options))  # type: ignore[arg-type]

    def threshold(self, levels: tuple[int, ...], *, signs: bool = False, rows: int | None = None) -> int:
        edge = self.graph.output
        count = (edge.shape[0] if rows is None else rows, len(levels) - 1)
        table = np.sort(self.random.integers(edge.lowest // 3 - 1, edge.highest // 3 + 2, count), axis=1)
        return self.add(MultiThreshold(table, levels, self.random.choice([-1, 1], edge.shape[0]) if signs else None))

    def line(self, levels: int) -> int:
        """Thresholds on a line, as trained networks have them."""
        edge = self.graph.output
        start = self.random.integers(edge.lowest // 2, edge.highest // 4 + 1, (edge.shape[0], 1))
        step = self.random.random((edge.shape[0], 1)) * max(edge.highest - edge.lowest, 8) / levels / 2
        table = start + np.ceil(step * np.arange(levels)).astype(np.int64)
        return self.add(MultiThreshold(table, tuple(range(levels + 1))))

    @property
    def graph(self) -> IntegerGraph:
        return IntegerGraph(tuple(self.nodes))


def agrees(graph: IntegerGraph, path: Path, builds: tuple[str, ...] = BUILDS, count: int = 3) -> None:
    c.export(graph, path)
    op = graph.input
    x = np.random.default_rng(1).integers(op.lowest, op.highest, (count, *op.shape), endpoint=True)
    wanted = Executor(graph)(torch.from_numpy(x)).numpy()
    for flags in builds:
        np.testing.assert_array_equal(c.execute(path, x, flags=flags), wanted, err_msg=flags)


def binary_network() -> IntegerGraph:
    b = Builder(0, (3, 9, 7), 0, 255, 128)
    b.conv("8", 32, (3, 3), pads=(1, 1, 1, 1))
    b.threshold((-1, 1))
    b.conv("binary", 40, (3, 3), pads=(1, 1, 1, 1))
    b.threshold((-1, 1), signs=True)
    b.add(MaxPool((2, 2), (2, 2)))
    b.conv("ternary", 70, (2, 3), pads=(2, 0, 1, 1), stride=(1, 2), bias=np.arange(70) - 30)
    b.threshold((-1, 1), rows=1)
    b.conv("binary", 24, (1, 1))
    b.threshold((0, 1, 2, 3, 7))
    b.add(Flatten())
    b.add(MatMul(b.weights("2", 10, b.graph.output.shape[0])))
    return b.graph


def byte_network() -> IntegerGraph:
    """Products of bytes of every width, and every form of activation."""
    b = Builder(1, (5, 6, 11), -128, 127)
    b.conv("4", 20, (3, 3), pads=(1, 1, 1, 1), stride=(2, 1))
    b.line(15)
    b.conv("binary", 33, (1, 1))
    b.line(255)
    b.conv("8", 18, (5, 4), pads=(3, 2, 4, 2))
    b.threshold((-7, -2, 0, 1, 40, 41, 50), signs=True)
    b.conv("ternary", 16, (1, 3), bias=np.arange(16))
    b.add(Requantize(ints(-3), ints(70), ints(9), -8, 7))
    b.conv("2", 9, (3, 1))
    b.threshold(tuple(range(40)))
    return b.graph


def depthwise_network() -> IntegerGraph:
    b = Builder(2, (20, 7, 9), 0, 15)
    for kind, kernel, stride in (("ternary", 3, 1), ("8", 5, 1), ("4", 3, 2)):
        pad = kernel // 2
        b.conv(kind, 20, (kernel, kernel), groups=20, pads=(pad,) * 4, stride=(1, stride), bias=np.arange(20) - 9)
        b.line(15)
    b.conv("8", 40, (2, 2), groups=20)
    b.line(200)
    b.conv("8", 40, (3, 2), groups=40, pads=(2, 1, 0, 1))
    b.threshold((-1, 1))
    b.conv("2", 6, (1, 1), groups=2)
    return b.graph


def wired_network() -> IntegerGraph:
    """Values with several readers, of several widths and forms."""
    b = Builder(3, (8, 5, 4), 0, 255, 3)
    first = b.threshold((-1, 1))
    left = b.conv("binary", 8, (3, 3), pads=(1, 1, 1, 1))
    right = b.add(Pad((1, 2, 1, 0)), first)
    b.add(Add(), left, first)
    both = b.add(Concat(), first, left, 0, b.add(Slice(8), b.add(Concat(), first, 0)))
    b.add(SumPool((3, 2), (1, 1), (1, 0, 1, 1), 1), both)
    b.add(Requantize(b.random.integers(1, 2**20, 32), b.random.integers(-99, 99, 32), ints(30), -5, 99))
    pooled = b.add(MaxPool((3, 3), (2, 1), (1, 1, 1, 1)))
    shrunk = b.conv("4", 8, (3, 3), pads=(2, 2, 2, 2))
    b.add(GlobalSumPool(2), right)
    a = b.add(MatMul(b.weights("4", 6, 8), np.arange(6)))
    b.add(GlobalSumPool(), pooled)
    d = b.add(MatMul(b.weights("ternary", 6, 32)))
    b.add(Flatten(), shrunk)
    e = b.add(MatMul(b.weights("2", 6, b.graph.output.shape[0])))
    b.add(Add(-300, 200), a, d)
    b.add(Add(), len(b.nodes) - 1, e)
    return b.graph


def wide_network() -> IntegerGraph:
    b = Builder(4, (3, 4, 5), -70000, 70000, 3)
    b.conv("12", 7, (2, 2), pads=(0, 1, 1, 0))
    b.add(
        Requantize(
            b.random.integers(-(2**30), 2**30, 7), b.random.integers(-(2**40), 2**40, 7), ints(50), -30000, 30000
        )
    )
    b.conv("12", 4, (2, 3))
    b.add(MultiThreshold(np.sort(b.random.integers(-(2**28), 2**28, (4, 3)), axis=1), (-(2**31) + 1, -1, 0, 2**31 - 1)))
    b.add(Flatten())
    b.add(Argmax())
    return b.graph


def vector_network() -> IntegerGraph:
    b = Builder(5, (37,), -3, 900, 5)
    b.add(MatMul(b.weights("8", 19, 37), np.arange(19)))
    b.threshold((-1, 1))
    b.add(MatMul(b.weights("binary", 21, 19)))
    b.threshold((-1, 0, 1))
    b.add(MatMul(b.weights("ternary", 12, 21)))
    return b.graph


def tall_network() -> IntegerGraph:
    """A kernel larger than the image, one pixel, one channel; the output is an image of sums."""
    b = Builder(6, (1, 1, 3), 0, 1)
    b.conv("8", 1, (5, 5), pads=(2, 3, 2, 3))
    b.threshold((0, 5))
    b.add(Pad((0, 1, 2, 0)))
    b.add(Add(), len(b.nodes) - 1, len(b.nodes) - 1)
    b.conv("2", 3, (1, 1))
    b.add(MaxPool((2, 1), (1, 1), (1, 0, 0, 0)))
    return b.graph


NETWORKS = (
    binary_network,
    byte_network,
    depthwise_network,
    wired_network,
    wide_network,
    vector_network,
    tall_network,
)


@needs_compiler
@pytest.mark.parametrize("network", NETWORKS)
def test_generated_c_computes_what_the_executor_computes(network, tmp_path) -> None:  # type: ignore[no-untyped-def]
    agrees(network(), tmp_path)


def random_graph(seed: int) -> IntegerGraph:
    """Operations drawn at random, those that do not fit left out."""
    r = np.random.default_rng(seed)
    shape = (int(r.integers(1, 40)), int(r.integers(1, 9)), int(r.integers(1, 9)))
    b = Builder(seed, shape, *[(0, 255, 0), (-128, 127, 0), (0, 15, 4), (-9, 600, 0)][seed % 4])
    b.threshold((-1, 1)) if seed % 2 else b.line(12)
    for _ in range(6):
        before = len(b.nodes)
        try:
            edge = b.graph.output
            if len(edge.shape) == 1:
                b.add(
                    MatMul(b.weights(str(r.choice(["binary", "ternary", "8"])), int(r.integers(1, 40)), edge.shape[0]))
                )
                b.threshold((-1, 1))
                continue
            kernel = (int(r.integers(1, 5)), int(r.integers(1, 5)))
            pads = tuple(int(v) for v in r.integers(0, 3, 4))
            stride = (int(r.integers(1, 3)), int(r.integers(1, 3)))
            match int(r.integers(0, 8)):
                case 0 | 1 | 2:
                    kind = str(r.choice(["binary", "ternary", "4", "8"]))
                    groups = edge.shape[0] if r.random() < 0.3 else 1
                    filters = edge.shape[0] if groups > 1 else int(r.integers(1, 50))
                    b.conv(kind, filters, kernel, groups=groups, pads=pads, stride=stride)
                    b.graph.edges  # noqa: B018
                    b.threshold((-1, 1), signs=True) if r.random() < 0.6 else b.line(int(r.integers(2, 30)))
                case 3:
                    b.add(MaxPool(kernel, stride, tuple(min(p, 1) for p in pads)))  # type: ignore[arg-type]
                case 4:
                    b.add(SumPool(kernel, stride, pads, 1))  # type: ignore[arg-type]
                case 5:
                    b.add(Concat(), before - 1, before - 1)
                case 6:
                    b.add(Add(-2, 5), before - 1, before - 1)
                case 7:
                    b.add(Flatten() if r.random() < 0.5 else Pad(pads))  # type: ignore[arg-type]
            b.graph.edges  # noqa: B018
        except (InvalidGraph, ValueError):
            del b.nodes[before:]
    return b.graph


@needs_compiler
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_agree(seed: int, tmp_path: Path) -> None:
    agrees(random_graph(seed), tmp_path, (BUILDS[seed % 3 == 0],))


@needs_compiler
def test_the_self_test_passes_and_notices_a_difference(tmp_path: Path) -> None:
    c.export(vector_network(), tmp_path)
    program = c.build(tmp_path, tmp_path / "program", flags=STRICT)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok: 4 samples\n")
    vectors = tmp_path / "network_test.h"
    text = vectors.read_text()
    start = text.index("test_output")
    vectors.write_text(text[:start] + re.sub(r"(\{\s+)(-?\d+)", r"\g<1>1234567", text[start:], count=1))
    program = c.build(tmp_path, tmp_path / "program", flags=STRICT)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout.startswith("sample 0, output 0: expected 1234567, got ")


@needs_compiler
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")
def test_make_test_builds_and_passes(tmp_path: Path) -> None:
    c.export(binary_network(), tmp_path, name="small_net")
    done = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ok: 4 samples" in done.stdout and "warning" not in done.stderr


def test_the_library_has_no_floating_point_and_no_heap(tmp_path: Path) -> None:
    for network in NETWORKS:
        c.export(network(), tmp_path)
        text = (tmp_path / "network.c").read_text() + (tmp_path / "network.h").read_text()
        assert not re.search(r"\b(float|double|malloc|calloc|free)\b", text)


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        c.export(wired_network(), tmp_path / folder)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["Makefile", "main.c", "network.c", "network.h", "network_test.h"]
    for file in files:
        text = (tmp_path / "a" / file).read_bytes()
        assert text == (tmp_path / "b" / file).read_bytes() and str(tmp_path).encode() not in text


def test_export_says_how_much_memory_the_network_takes(tmp_path: Path) -> None:
    lines = c.export(binary_network(), tmp_path)
    assert any(line.startswith("flash: ") for line in lines) and any(line.startswith("RAM: ") for line in lines)
    (kernels,) = [line for line in lines if line.startswith("kernels: ")]
    assert "1 of binary bits, 9 border classes" in kernels


def test_buffers_of_dead_values_are_used_again(tmp_path: Path) -> None:
    def ram(layers: int) -> int:
        b = Builder(0, (16, 8, 8), 0, 15)
        for _ in range(layers):
            b.add(MaxPool((3, 3), (1, 1), (1, 1, 1, 1)))
        (line,) = [line for line in c.export(b.graph, tmp_path) if line.startswith("RAM")]
        return int(line.split()[1].replace(",", ""))

    assert ram(9) == ram(2)


def test_without_a_compiler_the_source_is_written_but_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    c.export(vector_network(), tmp_path)
    assert (tmp_path / "network.c").exists()
    with pytest.raises(ExportError, match=r"^no C compiler found; looked for cc, gcc, clang$"):
        c.execute(tmp_path, np.zeros((1, 37), dtype=np.int64))


@pytest.mark.parametrize("name", ["", "Net", "a b", "main", "3d"])
def test_names_that_are_no_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a C network's name"):
        c.export(vector_network(), tmp_path, name=name)


def test_a_folder_without_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no exported C network"):
        c.execute(tmp_path, np.zeros((1, 37), dtype=np.int64))


MACHINES = {
    "no vectors beyond SSE2": "-O1",
    "AVX2": "-O1 -march=x86-64-v3",
    "AVX-512 without VNNI": "-O1 -march=skylake-avx512",
    "AVX-512 with VNNI and VPOPCNTDQ": "-O1 -march=icelake-server",
    "32 bits": "-O1 -m32",
}
NEON = ("-O1 -march=armv8-a", "-O1 -march=armv8.2-a+dotprod")


@needs_compiler
@pytest.mark.parametrize("flags", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("network", [binary_network, byte_network, depthwise_network])
def test_every_kind_of_processor_gets_the_same_integers(network, flags: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    c.export(network(), tmp_path / "c", samples=6)
    try:
        program = c.build(tmp_path / "c", tmp_path / "network", flags=flags)
    except ExportError:
        pytest.skip("the compiler does not build for it")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGILL:
        pytest.skip("this processor is another one")
    assert (done.returncode, done.stdout) == (0, "ok: 6 samples\n")


@pytest.mark.parametrize("flags", NEON)
@pytest.mark.parametrize("network", [binary_network, byte_network, depthwise_network])
def test_neon_gives_the_same_integers(network, flags: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("there is no compiler for it or no emulator")
    c.export(network(), tmp_path / "c", samples=3)
    sources = [str(tmp_path / "c" / name) for name in ("main.c", "network.c")]
    program = str(tmp_path / "network")
    command = [compiler, "-std=c99", *STRICT.split(), *flags.split(), "-static", *sources, "-o", program]
    subprocess.run(command, check=True)
    done = subprocess.run([emulator, "-cpu", "max", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok: 3 samples\n")
