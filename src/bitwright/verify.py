"""Proof that a network computes the same integers everywhere.

The same inputs go through the integer graph, whose results are the reference, and through what was made of it: the
training code's forward pass, ONNX in onnxruntime, QONNX in the qonnx executor, and compiled C. Outputs are compared
integer by integer. The first layer that differs is found by running the graph's beginnings, one node longer each time.

A network that computes with real numbers has no integers to compare: there the logits of its ONNX form in onnxruntime
are held against those of the training code, to a tolerance.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import ConfigError, ExportError
from .exports import _onnx_weights, c, onnx, qonnx
from .integer.compare import differences, images_at_once
from .integer.graph import IntegerGraph, reaching
from .integer.lower import Lowered
from .integer.run import Executor
from .modules import Weights, forward
from .network import Activation, BatchNorm, Network
from .train.step import evaluation_batch

Integers = NDArray[np.int64]

BATCH = 250
SEED = 0  # of random inputs
TOLERANCE = 1e-4  # of a logit, as a part of the largest
FEWEST_EQUAL = 0.99  # predictions of a network that rounds real numbers
PORTABLE = "-O2 -DNETWORK_PORTABLE"  # no vector instructions but what the compiler finds


@dataclass(frozen=True)
class Difference:
    """The first value that differs: of which layer, in which sample, where in it, and the two integers."""

    layer: str
    sample: int
    channel: int
    position: tuple[int, ...]
    expected: int
    got: int


@dataclass(frozen=True)
class Comparison:
    """One target against the integer graph. skipped: why it could not run, or None."""

    target: str
    samples: int
    equal: bool
    max_difference: int
    differing_samples: int
    first_difference: Difference | None
    seconds: float
    skipped: str | None = None


@dataclass(frozen=True)
class Verification:
    samples: int
    targets: list[Comparison]

    @property
    def equal(self) -> bool:
        """Whether every target that ran agrees, and one did."""
        ran = [t for t in self.targets if t.skipped is None]
        return bool(ran) and all(t.equal for t in ran)

    def as_json(self) -> dict[str, object]:
        return {"equal": self.equal, "samples": self.samples, "targets": {t.target: asdict(t) for t in self.targets}}


@dataclass(frozen=True)
class FloatVerification:
    """Logits in onnxruntime beside those of the training code, both in float32.

    rounds: whether the network rounds real numbers to codes. One that lies on the boundary of two can then become
        either, and what follows differs by far more than float32 rounds.
    largest_logit: in magnitude, of all samples. max_difference: of two logits.
    beyond_tolerance: samples of which a logit differs by more than TOLERANCE * largest_logit.
    """

    samples: int
    rounds: bool
    largest_logit: float
    max_difference: float
    beyond_tolerance: int
    equal_predictions: int
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether all logits are within the tolerance, or of a network that rounds enough predictions are equal."""
        if self.rounds:
            return self.equal_predictions >= FEWEST_EQUAL * self.samples
        return self.beyond_tolerance == 0

    def as_json(self) -> dict[str, object]:
        return {"agrees": self.agrees, "tolerance": TOLERANCE, **asdict(self)}


def _compiled(flags: str | None) -> Callable[[IntegerGraph, Path, Integers], Integers]:
    def outputs(graph: IntegerGraph, folder: Path, x: Integers) -> Integers:
        c.export(graph, folder / "c")
        return c.execute(folder / "c", x) if flags is None else c.execute(folder / "c", x, flags=flags)

    return outputs


def _onnx(graph: IntegerGraph, folder: Path, x: Integers) -> Integers:
    onnx.export(graph, folder / "graph.onnx")
    return onnx.execute(folder / "graph.onnx", x)


def _qonnx(graph: IntegerGraph, folder: Path, x: Integers) -> Integers:
    qonnx.export(graph, folder / "graph.qonnx.onnx")
    return qonnx.execute(folder / "graph.qonnx.onnx", x)


TARGETS: dict[str, Callable[[IntegerGraph, Path, Integers], Integers]] = {
    "onnx": _onnx,
    "qonnx": _qonnx,
    "c": _compiled(None),
    "c_portable": _compiled(PORTABLE),
}
MOST_SAMPLES = {"qonnx": 200}  # the qonnx executor makes a session for every node


def verify(
    graph: IntegerGraph,
    x: Integers,
    *,
    targets: Sequence[str] | None = None,
    every_layer: bool = False,
    trained: tuple[Network, Weights, Lowered] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[Comparison], None] | None = None,
) -> Verification:
    """Compare what `graph` computes for x: (N, *input shape) with every target.

    targets: of TARGETS and "training"; None takes all, and skips those whose tool is missing. A named one must run.
    every_layer: compare the values of every node, not only the outputs.
    trained: the network, its weights and its lowering, for the training code's own forward pass.
    """
    known = [*(["training"] if trained is not None else []), *TARGETS]
    for name in targets or ():
        if name not in known:
            raise ConfigError(f"no target {name!r}: {', '.join(known)}")
    if len(x) == 0:
        raise ConfigError("there is nothing to compare: no samples")
    compared = []
    reference = None if targets == ["training"] else reference_outputs(graph, x, device)
    for name in known if targets is None else targets:
        samples = x[: MOST_SAMPLES.get(name, len(x))]
        start = time.perf_counter()
        try:
            if name == "training":
                assert trained is not None
                comparison = _against_training(trained, samples, device)
            else:
                assert reference is not None
                comparison = _against_export(graph, samples, reference[: len(samples)], name, every_layer, device)
        except ExportError as error:
            if targets is not None:
                raise
            comparison = Comparison(name, 0, False, 0, 0, None, 0.0, skipped=str(error))
        comparison = replace(comparison, seconds=time.perf_counter() - start)
        compared.append(comparison)
        if progress is not None:
            progress(comparison)
    return Verification(len(x), compared)


@torch.no_grad()
def verify_float(network: Network, weights: Weights, x: Integers) -> FloatVerification:
    """Compare the logits of images x: (N, *input shape) in training code with those of the exported ONNX."""
    if len(x) == 0:
        raise ConfigError("there is nothing to compare: no samples")
    start = time.perf_counter()
    images = x.astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        path = Path(folder) / "network.onnx"
        _onnx_weights.export(network, weights, path)
        got = torch.from_numpy(_onnx_weights.execute(path, images))
    given, count = torch.from_numpy(images).to(weights.device), evaluation_batch(network)
    parts = [forward(network, weights, given[i : i + count])[0] for i in range(0, len(x), count)]
    expected = torch.cat(parts).cpu()
    largest, apart = float(expected.abs().max()), (got - expected).abs().amax(1)
    return FloatVerification(
        samples=len(x),
        rounds=_rounds_reals(network.trunk),
        largest_logit=largest,
        max_difference=float(apart.max()),
        beyond_tolerance=len(x) - int((apart <= TOLERANCE * largest).sum()),  # what is not a number is beyond
        equal_predictions=int((got.argmax(1) == expected.argmax(1)).sum()),
        seconds=time.perf_counter() - start,
    )


def _rounds_reals(network: Network) -> bool:
    """Whether an activation of the network makes codes of real numbers."""
    for node in network.nodes:
        match node.op:
            case BatchNorm(activation=quantizer) | Activation(quantizer=quantizer):
                if quantizer.levels is not None and network.ranges[node.inputs[0]] is None:
                    return True
            case _:
                pass
    return False


def random_inputs(graph: IntegerGraph, count: int) -> Integers:
    """Uniform inputs over the whole range, the first two of them all lowest and all highest."""
    op = graph.input
    x = np.random.default_rng(SEED).integers(op.lowest, op.highest + 1, (count, *op.shape))
    x[:1], x[1:2] = op.lowest, op.highest
    return x


def _against_export(
    graph: IntegerGraph, x: Integers, reference: Integers, name: str, every_layer: bool, device: torch.device | str
) -> Comparison:
    """reference: what the graph computes for x."""
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        got = TARGETS[name](graph, Path(folder), x)
        comparison = _compare(name, graph.label(len(graph.nodes) - 1), reference, got)
        if comparison.equal and not every_layer:
            return comparison
        start, few = 0, x
        if not every_layer:
            start = _first_differing(reference, got)
            few = x[start : start + 1]
        for position in range(1, len(graph.nodes)):
            part = reaching(graph.nodes, position)
            here = Path(folder) / str(position)
            here.mkdir()
            layer = _compare(
                name, graph.label(position), reference_outputs(part, few, device), TARGETS[name](part, here, few)
            )
            if not layer.equal:
                largest = layer.max_difference if comparison.equal else comparison.max_difference
                assert layer.first_difference is not None
                first = replace(layer.first_difference, sample=start + layer.first_difference.sample)
                return replace(comparison, equal=False, max_difference=largest, first_difference=first)
        return comparison


def _against_training(trained: tuple[Network, Weights, Lowered], x: Integers, device: torch.device | str) -> Comparison:
    """Every layer is compared: the training code has all values at hand."""
    network, weights, lowering = trained
    executor = Executor(lowering.graph, device)
    largest, bad, first = 0, 0, None
    count = images_at_once(lowering.graph, BATCH)
    for start in range(0, len(x), count):
        batch = torch.from_numpy(x[start : start + count]).to(device, torch.uint8)
        batch = batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch
        wrong = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
        for position, exact, codes in differences(network, weights, lowering, batch, executor):
            apart = (exact.double() - codes.double()).abs()
            if not bool(apart.any()):
                continue
            wrong |= apart.flatten(1).any(1)
            largest = max(largest, int(apart.max().ceil()))
            if first is None:
                label = lowering.graph.label(position)
                first = _first(label, exact.cpu().numpy(), codes.double().round().cpu().numpy(), start)
        bad += int(wrong.sum())
    return Comparison("training", len(x), bad == 0, largest, bad, first, 0.0)


def reference_outputs(graph: IntegerGraph, x: Integers, device: torch.device | str = "cpu") -> Integers:
    """(N, *output shape) by the integer graph itself."""
    executor, count = Executor(graph, device), images_at_once(graph, BATCH)
    parts = [executor(torch.from_numpy(x[i : i + count])).cpu().numpy() for i in range(0, len(x), count)]
    return np.concatenate(parts)


def _compare(target: str, layer: str, expected: Integers, got: Integers) -> Comparison:
    if expected.shape != got.shape:
        raise ExportError(f"{target} puts out {got.shape} at {layer}, not {expected.shape}")
    apart = np.abs(expected - got)
    bad = apart.reshape(len(apart), -1).any(1)
    first = _first(layer, expected, got, 0) if bad.any() else None
    return Comparison(target, len(expected), not bad.any(), int(apart.max(initial=0)), int(bad.sum()), first, 0.0)


def _first_differing(expected: Integers, got: Integers) -> int:
    bad = (expected != got).reshape(len(expected), -1).any(1)
    return int(bad.argmax())


def _first(layer: str, expected: NDArray[np.generic], got: NDArray[np.generic], start: int) -> Difference:
    sample, channel, *position = np.argwhere(expected != got)[0].tolist()
    at = (sample, channel, *position)
    return Difference(layer, start + sample, channel, tuple(position), int(expected[at]), int(got[at]))
