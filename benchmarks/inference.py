"""Whole-network inference: a VGG-like CIFAR-10 network in integers against onnxruntime.

3x3 convolutions of 64, 64, pool, 128, 128, pool, 256, 256 channels, pool, global pool, classifier: 152.8 million
multiplications (benchmarks/vgg.py), on one thread. `onnxruntime fp32` is the float network of the same shape,
`onnxruntime int8` the 8-bit one as `export --to onnx` writes it: QLinearConv throughout. All others are exports of the
binary, ternary, 4-bit and 8-bit network, each compared with the integer graph before it is timed. "strict C" is the
portable path without vector intrinsics. GOP/s counts two operations for a multiply-accumulate; the peak is that of this
machine's unit for it, measured in the same run.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.exports import c, onnx
from bitwright.integer.graph import IntegerGraph
from bitwright.verify import random_inputs, reference_outputs

from .timing import Table, interleaved
from .vgg import CHANNELS, CLASSES, IMAGE, Bits, vgg_like

OPERATIONS = 2 * 152.8e6
ROUNDS = {1: 60, 64: 9}
PRECISIONS: tuple[Bits, ...] = ("binary", "ternary", "4", "8")
NATIVE = c.FLAGS
STRICT = f"{NATIVE} -DNETWORK_PORTABLE"
BASELINE = "-O3 -march=x86-64-v2 -DNETWORK_PORTABLE"
SCALAR = "-O2 -fno-tree-vectorize -DNETWORK_PORTABLE"
COMPILED: tuple[tuple[Bits, str, str], ...] = (
    *((bits, "C", NATIVE) for bits in PRECISIONS),
    ("binary", "strict C, native", STRICT),
    ("8", "strict C, native", STRICT),
    ("binary", "strict C, x86-64-v2", BASELINE),
    ("8", "strict C, x86-64-v2", BASELINE),
    ("binary", "strict C, scalar", SCALAR),
    ("8", "strict C, scalar", SCALAR),
)
UNITS = {"binary": "peak_binary", "ternary": "peak_binary", "4": "peak_int8", "8": "peak_int8"}
PEAK_SOURCE = Path(__file__).with_name("peak.c")

Images = NDArray[np.uint8]


def run() -> Table:
    graphs = {bits: vgg_like(bits) for bits in PRECISIONS}
    table = Table(["", "batch", "us per image", "x fp32", "x int8", "GOP/s", "of the peak"])
    with tempfile.TemporaryDirectory() as folder:
        peaks = _peaks(Path(folder))
        programs = _programs(graphs, Path(folder))
        for batch, rounds in ROUNDS.items():
            images = random_inputs(graphs["8"], batch).astype(np.uint8)
            calls = {name: _call(program, images) for name, (program, _) in programs.items()}
            seconds = interleaved(calls, rounds)
            fp32, int8 = seconds["onnxruntime fp32"], seconds["onnxruntime int8"]
            for name, taken in seconds.items():
                speed = OPERATIONS * batch / np.median(taken)
                peak = peaks[programs[name][1]]
                table.rows.append(
                    [
                        name,
                        str(batch),
                        f"{np.median(taken) / batch * 1e6:.0f}",
                        f"{np.median(fp32 / taken):.2f}",
                        f"{np.median(int8 / taken):.2f}",
                        f"{speed / 1e9:.0f}",
                        f"{100 * speed / peak:.0f} %" if peak else "",
                    ]
                )
    table.notes.append(
        "Peaks of one thread: "
        + ", ".join(f"{name[5:]} {peak / 1e9:.0f} GOP/s" for name, peak in peaks.items())
        + ". Ratios are medians over rounds, candidates in turn. Ternary and binary both count against the unit for"
        " xor and popcount, 4 and 8 bits against that for dot products of bytes."
    )
    return table


def _programs(graphs: dict[Bits, IntegerGraph], folder: Path) -> dict[str, tuple[Callable[[Images], object], str]]:
    """What runs images (N, C, H, W), by name, and the peak it counts against."""
    programs: dict[str, tuple[Callable[[Images], object], str]] = {
        "onnxruntime fp32": (onnx_session(_float_network()), "peak_fp32")
    }
    for bits in reversed(PRECISIONS):
        onnx.export(graphs[bits], folder / f"{bits}.onnx")
        name = "onnxruntime int8" if bits == "8" else f"ONNX {_named(bits)}"
        programs[name] = (onnx_session((folder / f"{bits}.onnx").read_bytes()), UNITS[bits])
        c.export(graphs[bits], folder / bits)
    for bits, name, flags in COMPILED:
        library = folder / f"{bits} {name}.so"
        programs[f"{name}: {_named(bits)}"] = (c_library(folder / bits, library, flags), UNITS[bits])
    for name, (program, _) in programs.items():
        for bits in PRECISIONS:
            if name.endswith(_named(bits)) or (name, bits) == ("onnxruntime int8", "8"):
                x = random_inputs(graphs[bits], 3)
                expected = reference_outputs(graphs[bits], x)
                if not np.array_equal(np.asarray(program(x.astype(np.uint8))).reshape(expected.shape), expected):
                    raise AssertionError(f"{name} does not compute what the integer graph computes")
    return programs


def _named(bits: Bits) -> str:
    return bits if bits in ("binary", "ternary") else f"{bits} bits"


def _call(program: Callable[[Images], object], images: Images) -> Callable[[int], object]:
    return lambda i: program(images)


def onnx_session(model: bytes) -> Callable[[Images], object]:
    """A model on one thread of onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    kind = np.float32 if "float" in given.type else np.uint8
    return lambda images: session.run(None, {given.name: images.astype(kind, copy=False)})[0]


def c_library(source: Path, library: Path, flags: str) -> Callable[[Images], object]:
    """The exported network in the folder `source`, compiled into `library`."""
    command = ["cc", "-std=c99", *flags.split(), "-shared", "-fPIC", str(source / "network.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    function: Any = ctypes.CDLL(str(library)).network_run

    def program(images: Images) -> object:
        logits = np.empty((len(images), CLASSES), np.int32)
        for image, row in zip(images, logits, strict=True):
            function(image.ctypes.data_as(ctypes.c_void_p), row.ctypes.data_as(ctypes.c_void_p))
        return logits

    return program


def _peaks(folder: Path) -> dict[str, float]:
    library = folder / "peak.so"
    command = ["cc", "-O2", "-march=native", "-shared", "-fPIC", str(PEAK_SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    peaks = {}
    for name in ("peak_fp32", "peak_int8", "peak_binary"):
        function = getattr(loaded, name)
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_long]
        peaks[name] = max(function(2_000_000) for _ in range(15))
    return peaks


def _float_network() -> bytes:
    """Convolutions with bias and rectifier, as normalisations fold; random weights."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, constants = [], []

    def constant(name: str, *shape: int) -> str:
        constants.append(numpy_helper.from_array(random.normal(0, 0.05, shape).astype(np.float32), name))
        return name

    value, channels = "images", IMAGE[0]
    for layer, filters in enumerate(CHANNELS):
        weights = constant(f"w{layer}", filters, channels, 3, 3), constant(f"b{layer}", filters)
        nodes.append(helper.make_node("Conv", [value, *weights], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        value, channels = f"r{layer}", filters
        if layer % 2:
            nodes.append(helper.make_node("MaxPool", [value], [f"p{layer}"], kernel_shape=[2, 2], strides=[2, 2]))
            value = f"p{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(
        helper.make_node("Gemm", ["flat", constant("w", CLASSES, channels), constant("b", CLASSES)], ["y"], transB=1)
    )
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *IMAGE])
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])
    model = helper.make_model(
        helper.make_graph(nodes, "float", [images], [logits], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    content: bytes = model.SerializeToString()
    return content
