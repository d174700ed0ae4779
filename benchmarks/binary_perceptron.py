"""What binary weights are worth at inference: BinaryNet's MNIST network against the float one of its shape.

784 pixels, three hidden layers of 1,024 or 4,096 units, 10 outputs; weights and activations are one bit, pixels and the
first layer's sums integers of more. `onnxruntime fp32` is the same network with real weights and rectifiers (each
normalisation folded into its product), `1-bit weights` the float network with binary weights stored as bits, which are
unpacked when the model is loaded: it is smaller, and no faster. C runs one image at a time. Every C program is compared
with the integer graph on all images first. One thread.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from bitwright.exports import _onnx_weights as onnx_weights
from bitwright.exports import c, onnx
from bitwright.integer.lower import lower
from bitwright.modules import Training, Weights, forward
from bitwright.network import Network
from bitwright.spaces.binaryconnect import Binaryconnect
from bitwright.verify import reference_outputs

from .inference import Images, c_library, onnx_session
from .timing import Table, interleaved

UNITS = (1024, 4096)
IMAGES = 10_000
ROUNDS = {1: 40, 100: 9}
STRICT = f"{c.FLAGS} -DNETWORK_PORTABLE"


def run() -> Table:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, 28, 28)).astype(np.uint8)
    table = Table(["units", "", "batch", "us per image", "images/s", "x fp32", "KiB"])
    for units in UNITS:
        with tempfile.TemporaryDirectory() as folder:
            programs, sizes = _programs(units, images, Path(folder))
            for batch, rounds in ROUNDS.items():
                calls = {name: (lambda i, run=run, n=batch: run(images[:n])) for name, run in programs.items()}
                seconds = interleaved(calls, rounds)
                for name, taken in seconds.items():
                    each = float(np.median(taken)) / batch
                    ratio = float(np.median(seconds["onnxruntime fp32"] / taken))
                    row = [str(units), name, str(batch), f"{each * 1e6:.0f}", f"{1 / each:,.0f}", f"{ratio:.1f}"]
                    table.rows.append([*row, f"{sizes[name] / 1024:,.0f}"])
    table.notes.append(
        "Random weights, which do not change the speed. KiB: of the ONNX file, or of the compiled library. Ratios are"
        " medians over rounds, candidates in turn."
    )
    return table


def _programs(units: int, images: Images, folder: Path):  # type: ignore[no-untyped-def]
    """What runs images, by name, and the bytes of the file that holds it."""
    binary, binary_store = _network(units, images, weights="det", activations="binary")
    graph = lower(binary, binary_store)
    c.export(graph, folder / "c")
    onnx.export(graph, folder / "integer.onnx")
    for name, weights in (("float", "none"), ("packed", "det")):
        onnx_weights.export(*_network(units, images, weights=weights, activations="float"), folder / f"{name}.onnx")
    libraries = {"C": folder / "native.so", "strict C": folder / "strict.so"}
    files = {
        "onnxruntime fp32": folder / "float.onnx",
        "onnxruntime, 1-bit weights": folder / "packed.onnx",
        "onnxruntime, integers": folder / "integer.onnx",
        **libraries,
    }
    programs = {name: onnx_session(file.read_bytes()) for name, file in files.items() if name not in libraries}
    expected = reference_outputs(graph, images.astype(np.int64))
    for name, flags in (("C", c.FLAGS), ("strict C", STRICT)):
        programs[name] = c_library(folder / "c", libraries[name], flags)
        if not np.array_equal(np.asarray(programs[name](images)).reshape(expected.shape), expected):
            raise AssertionError(f"{name} does not compute what the integer graph computes")
    return programs, {name: file.stat().st_size for name, file in files.items()}


def _network(units: int, images: Images, **options: str) -> tuple[Network, Weights]:
    """The network and weights whose normalisations have seen some images."""
    space = Binaryconnect((1, 28, 28), 10, (127.5,), (73.9,), units=units, **options)  # type: ignore[arg-type]
    network = space.network(space.architecture(()))
    weights = Weights([network], seed=0)
    with torch.no_grad():
        forward(network, weights, torch.from_numpy(images[:200]), training=Training(momentum=0.99))
    return network, weights
