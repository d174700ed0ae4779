"""Networks as programs on one thread of this machine: ONNX Runtime, or our C in a shared library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..codegen.steps import input_type
from ..errors import ConfigError
from ..exports import _onnx_weights, c, onnx
from ..integer.graph import IntegerGraph
from ..integer.lower import lower
from ..modules import Weights
from ..network import Network

Program = Callable[[], Any]

SHARED = f"{c.FLAGS} -shared -fPIC"
SEED = 0  # of images and of weights


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ConfigError(f"no backend {backend!r}: {', '.join(BACKENDS)}")


def description(backend: str) -> str:
    """The backend and what its speed depends on: its version, or the compiler's flags."""
    check_backend(backend)
    if backend == "c":
        return f"c {c.FLAGS}"
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def program(network: Network, backend: str, folder: Path, weights: Weights | None = None) -> Program:
    """What runs `network` on one image. folder: an empty one, for its files, which must stay.

    weights: None takes random ones. Integers become integer ONNX or C, real numbers ONNX in float32; ConfigError where
    C is asked for and there is no integer form.
    """
    check_backend(backend)
    weights = weights or Weights([network], seed=SEED)
    if all(held is not None for held in network.trunk.ranges):
        return BACKENDS[backend](lower(network, weights), folder)
    if backend == "c":
        raise ConfigError("C runs integers only, and the network holds real numbers; say its --bits")
    _onnx_weights.export(network, weights, folder / "network.onnx")
    return _session(folder / "network.onnx", network.shapes[0], 0, 255)


def _onnx(graph: IntegerGraph, folder: Path) -> Program:
    onnx.export(graph, folder / "graph.onnx")
    return _session(folder / "graph.onnx", graph.input.shape, graph.input.lowest, graph.input.highest)


def _session(path: Path, shape: tuple[int, ...], lowest: int, highest: int) -> Program:
    running = onnx.session(path)
    (given,) = running.get_inputs()
    kind = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int32)": np.int32}[given.type]
    feed = {given.name: _image(shape, lowest, highest)[None].astype(kind)}
    names = [output.name for output in running.get_outputs()]
    return lambda: running.run(names, feed)


def _c(graph: IntegerGraph, folder: Path) -> Program:
    c.export(graph, folder / "c", samples=0)
    library = ctypes.CDLL(str(c.build(folder / "c", folder / "network.so", flags=SHARED)))
    run: Any = library.network_run
    run.argtypes, run.restype = [ctypes.c_void_p, ctypes.c_void_p], None
    op = graph.input
    image = np.ascontiguousarray(_image(op.shape, op.lowest, op.highest), dtype=input_type(op).removesuffix("_t"))
    output = np.empty(graph.output.size, np.int32)

    def call() -> object:
        return run(image.ctypes.data, output.ctypes.data)

    return call


BACKENDS: dict[str, Callable[[IntegerGraph, Path], Program]] = {"onnxruntime": _onnx, "c": _c}


def _image(shape: tuple[int, ...], lowest: int, highest: int) -> Any:
    return np.random.default_rng(SEED).integers(lowest, highest, shape, endpoint=True)
