"""ONNX of networks that compute with real numbers, in onnxruntime, against the training code's forward pass."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.errors import BitwrightError, ConfigError, ExportError
from bitwright.exports import _onnx_weights as exporter
from bitwright.modules import Weights, forward
from bitwright.network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    Flatten,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
    Op,
    PadChannels,
    Shift2d,
    Shuffle,
    Slice,
    SumPool2d,
)
from bitwright.quantizers import Levels, Quantizer
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.clipped import Clipped
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.quantized_relu import QuantizedRelu
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform
from bitwright.verify import TOLERANCE, verify_float
from random_networks import Builder, some_images, trained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLOSE = 5e-6  # of a logit, as a part of the largest
WEIGHTS: list[Quantizer] = [
    Real(),
    Binary(),
    Binary(0.25),
    Binary("glorot"),
    Binary(sample=3),
    Ternary(),
    Ternary("glorot"),
    *[FixedPoint(bits) for bits in range(2, 17)],
    *[Uniform(bits, narrow=False) for bits in (2, 5, 8, 12)],
    Uniform(2),
    Uniform(1, signed=False, step=0.1),
    Uniform(8, signed=False, step=0.01),
    Uniform(3, per_channel=True),
    Uniform(4, step="learned"),
    Uniform(6, step=0.05, narrow=False),
]


def chain(*ops: Op) -> Network:
    return Network(tuple(Node(op, (i - 1,) if i else (), f"n{i}") for i, op in enumerate(ops)))


def both(network: Network, path: Path, seed: int = 0, count: int = 6) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits in onnxruntime and in training code, of trained weights, and the lines of the export."""
    x = some_images(network, seed, count)
    weights = trained(network, seed, x)
    lines = exporter.export(network, weights, path)
    with torch.no_grad():
        expected, _ = forward(network, weights, x)
    return exporter.execute(path, x.numpy()), expected.numpy(), lines


def close(got: np.ndarray, expected: np.ndarray) -> bool:
    assert got.shape == expected.shape
    return bool(np.abs(got - expected).max() <= CLOSE * np.abs(expected).max())


def check(network: Network, path: Path, seed: int = 1) -> None:
    got, expected, _ = both(network, path, seed)
    assert close(got, expected)
    assert expected.any()


def in_reals(network: Network, rng: random.Random, some: float) -> Network:
    """The network with a part of its activations real, and all of them that read real numbers."""
    nodes = list(network.nodes)
    for position, node in enumerate(nodes):
        if not isinstance(node.op, BatchNorm | Activation):
            continue
        reads = Network(tuple(nodes[: position + 1])).ranges[node.inputs[0]]
        if reads is None or rng.random() < some:
            real = rng.choice([Real(), Relu(), Clipped(), Clipped(-1.0, 1.0)])
            op = node.op
            given = replace(op, activation=real) if isinstance(op, BatchNorm) else replace(op, quantizer=real)
            nodes[position] = replace(node, op=given)
    return Network(tuple(nodes))


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def bits_of(packed: np.ndarray, count: int) -> np.ndarray:
    """(planes, count) single bits of what the file holds, (planes, bytes, 1)."""
    return np.unpackbits(packed[:, :, 0], axis=1, bitorder="little")[:, :count]


# the same numbers


@pytest.mark.parametrize("block", range(4))
def test_a_random_network_of_real_activations_computes_the_same(block: int, tmp_path: Path) -> None:
    for seed in range(block * 15, block * 15 + 15):
        network = in_reals(Builder(seed).network(), random.Random(seed), 1.0)
        got, expected, _ = both(network, tmp_path / "net.onnx", seed)
        assert close(got, expected), seed


@pytest.mark.parametrize("block", range(4))
def test_a_random_network_of_mixed_activations_computes_the_same(block: int, tmp_path: Path) -> None:
    for seed in range(100 + block * 15, 100 + block * 15 + 15):
        network = in_reals(Builder(seed).network(), random.Random(seed), 0.4)
        got, expected, _ = both(network, tmp_path / "net.onnx", seed)
        assert close(got, expected), seed


@pytest.mark.parametrize("block", range(4))
def test_where_codes_are_integers_the_codes_are_equal(block: int, tmp_path: Path) -> None:
    """A code that differed anywhere would change logits by far more than this."""
    for seed in range(200 + block * 15, 200 + block * 15 + 15):
        got, expected, _ = both(Builder(seed).network(), tmp_path / "net.onnx", seed)
        assert np.abs(got - expected).max() <= 1e-7 * np.abs(expected).max()


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_every_quantizer_of_weights(weight: Quantizer, tmp_path: Path) -> None:
    network = chain(
        Input((3, 7, 6), (33.0,), (1 / 78,)),
        Conv2d(6, 3, weight),
        BatchNorm(Relu(), real=True),
        DepthwiseConv2d(3, weight, 2),
        BatchNorm(Relu()),
        Flatten(),
        Dropout(0.5),
        Linear(5, weight, bias=True),
    )
    check(network, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "activation",
    [
        Binary(),
        Ternary(0.5),
        FixedPoint(4),
        QuantizedRelu(5),
        Uniform(4, signed=False, step=0.3),
        Uniform(3, step="learned"),
        Uniform(5),
        Uniform(4, signed=False, step="learned", per_channel=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("weight", [Binary(), Real()], ids=str)
def test_every_quantizer_of_activations_behind_integers_and_behind_reals(
    activation: Quantizer, weight: Quantizer, tmp_path: Path
) -> None:
    network = chain(
        Input((2, 6, 6), (100.0,)),
        Conv2d(4, 3, weight),
        BatchNorm(activation),
        DepthwiseConv2d(2, Ternary()),
        SumPool2d(2, 2),
        Activation(replace(activation, per_channel=False) if isinstance(activation, Uniform) else activation),
        GlobalSumPool(),
        Linear(3, FixedPoint(4)),
    )
    check(network, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "op",
    [
        Conv2d(6, 3, Binary(), 2, groups=2),
        Conv2d(6, 3, Ternary(), padding="half", dilation=2),
        Conv2d(3, 5, FixedPoint(3), 2, padding="half"),
        DepthwiseConv2d(4, FixedPoint(2), 3),
        DepthwiseConv2d(3, Binary(), padding="half", dilation=3),
        MaxPool2d(3, 2),
        MaxPool2d(1, 3),
        AveragePool2d(3, 2),
        AveragePool2d(4, 1),
        AveragePool2d(2, 1, "valid"),
        SumPool2d(3, 2),
        Slice(3, 2),
        PadChannels(9),
        Shuffle(3),
        Shift2d(),
        Concat(),
    ],
    ids=str,
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_operation_on_one_scale_and_on_one_per_channel(op: Op, per_channel: bool, tmp_path: Path) -> None:
    activation = Uniform(4, signed=False, step="learned", per_channel=per_channel)
    network = chain(
        Input((3, 9, 8), (0.0,), (1 / 255,)),
        Conv2d(6, 1, FixedPoint(4)),
        BatchNorm(activation),
        op,
        GlobalSumPool(1),
        Linear(4, Real()),
    )
    check(network, tmp_path / "net.onnx")


@pytest.mark.parametrize("image", [(3, 8, 8), (4, 5, 7)])
def test_branches_of_different_scales_are_joined_and_added(image: tuple[int, ...], tmp_path: Path) -> None:
    own = Uniform(4, signed=False, step="learned", per_channel=True)
    fine, coarse = FixedPoint(4), Uniform(4, step=0.7)
    nodes = (
        Node(Input(image)),
        Node(Conv2d(4, 3, Binary()), (0,), "a"),
        Node(BatchNorm(fine), (1,), "a/norm"),
        Node(Conv2d(4, 3, Ternary("glorot")), (0,), "b"),
        Node(BatchNorm(coarse), (3,), "b/norm"),
        Node(BatchNorm(own), (3,), "c/norm"),
        Node(Add(), (2, 4)),
        Node(Add(mean=True), (2, 2)),
        Node(Add(Levels.between(-3, 2)), (4, 4)),
        Node(Add(mean=True), (5, 5)),
        Node(Conv2d(3, 1, FixedPoint(3), blocks=("x", "y", "z")), (6, 7, 8), "d"),
        Node(Concat(), (10, 5, 9)),
        Node(GlobalSumPool(), (11,)),
        Node(GlobalSumPool(2, 3.0), (8,)),
        Node(Linear(5, Ternary(), ("x", "y"), bias=True), (12, 13), "e"),
        Node(BatchNorm(real=True), (14,), "e/norm"),
    )
    check(Network(nodes), tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "pixels",
    [
        Input((3, 4, 4), (125.3, 122.9, 113.8), (0.01, 0.02, 0.03)),
        Input((3, 4, 4), (125.3,), (0.01,)),
        Input((3, 4, 4), (125.0, 3.0, 0.0), (0.01,)),
        Input((3, 4, 4)),
        Input((11,), (128.0,), (0.5,)),
        Input((2,), (1.5, 2.5), (0.5, 0.25)),
    ],
    ids=str,
)
def test_pixels_are_centred_and_scaled_as_in_training(pixels: Input, tmp_path: Path) -> None:
    ops = [Flatten()] if len(pixels.shape) == 3 else []
    check(chain(pixels, *ops, Linear(4, Binary()), BatchNorm(Clipped())), tmp_path / "net.onnx")


def test_the_auxiliary_output_is_left_out(tmp_path: Path) -> None:
    nodes = (
        Node(Input((2, 4, 4))),
        Node(Conv2d(3, 3, Binary()), (0,), "a"),
        Node(BatchNorm(Relu()), (1,), "a/norm"),
        Node(GlobalSumPool(), (2,)),
        Node(Linear(7, Binary()), (3,), "side"),
        Node(Linear(4, Binary()), (3,), "classes"),
    )
    check(Network(nodes, auxiliary=4), tmp_path / "net.onnx")
    assert "classes/weight" in initializers(tmp_path / "net.onnx")
    assert "side/weight" not in initializers(tmp_path / "net.onnx")


def dense(weight: Quantizer, activation: Quantizer | None = None) -> Network:
    return chain(
        Input((1, 28, 28), (33.0,), (1 / 78,)),
        Flatten(),
        Linear(64, weight),
        BatchNorm(activation or Relu(), real=True),
        Linear(10, weight),
        BatchNorm(real=True),
    )


def test_batches_of_any_size_are_taken_and_none_of_another_shape(tmp_path: Path) -> None:
    network, path = dense(Binary()), tmp_path / "net.onnx"
    x = some_images(network, 0, 9)
    exporter.export(network, trained(network, 0, x), path)
    whole = exporter.execute(path, x.numpy())
    assert whole.shape == (9, 10) and whole.dtype == np.float32
    single = np.concatenate([exporter.execute(path, x[i : i + 1].numpy()) for i in range(9)])
    np.testing.assert_allclose(single, whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(ExportError, match=r"takes inputs of \(1, 28, 28\), got \(28, 28\)"):
        exporter.execute(path, x[:, 0].numpy())


# what is stored


def test_a_binary_tensor_is_the_signs_of_its_latent_weights(tmp_path: Path) -> None:
    network = chain(Input((3, 5, 5)), Conv2d(7, 3, Binary()), BatchNorm(Relu()), GlobalSumPool(), Linear(5, Binary()))
    weights = trained(network, 0, some_images(network, 0))
    with torch.no_grad():
        weights["n1"].view(-1)[:2] = torch.tensor([0.0, -0.0])  # both are +1
    exporter.export(network, weights, tmp_path / "net.onnx")
    for name in ("n1", "n4"):
        latent = weights[name].detach().numpy()
        packed = initializers(tmp_path / "net.onnx")[f"{name}/weight"]
        assert (packed.dtype, packed.shape) == (np.uint8, (1, -(-latent.size // 8), 1))
        signs = 2 * bits_of(packed, latent.size)[0].astype(int) - 1
        assert np.array_equal(signs.reshape(latent.shape), np.where(latent >= 0, 1, -1))


@pytest.mark.parametrize("bits", [2, 3, 5, 7, 9, 11])
def test_planes_hold_the_bits_of_a_fixed_point_number(bits: int, tmp_path: Path) -> None:
    network = chain(Input((6,)), Linear(5, FixedPoint(bits)), BatchNorm())
    weights = trained(network, 0, some_images(network, 0))
    exporter.export(network, weights, tmp_path / "net.onnx")
    latent, half = weights["n1"].detach().double().numpy(), 2 ** (bits - 1)
    planes = bits_of(initializers(tmp_path / "net.onnx")["n1/weight"], 30)
    assert len(planes) == bits
    codes = sum(plane.astype(int) << place for place, plane in enumerate(planes)) - half
    assert np.array_equal(codes.reshape(5, 6), np.clip(np.rint(latent * half), -half, half - 1))


def test_ternary_weights_take_two_bits(tmp_path: Path) -> None:
    network = chain(Input((6,)), Linear(7, Ternary()), BatchNorm())
    weights = trained(network, 0, some_images(network, 0))
    exporter.export(network, weights, tmp_path / "net.onnx")
    latent = weights["n1"].detach().numpy()
    planes = bits_of(initializers(tmp_path / "net.onnx")["n1/weight"], 42).astype(int)
    codes = (planes[0] + 2 * planes[1] - 1).reshape(7, 6)
    assert np.array_equal(codes, (latent > 0.5).astype(int) - (latent <= -0.5).astype(int))


@pytest.mark.parametrize(
    ("weight", "bits"),
    [(Real(), 32), (Binary(), 1), (Ternary(), 2), *[(FixedPoint(bits), bits) for bits in (2, 3, 4, 6, 7, 8, 12, 16)]],
    ids=str,
)
def test_a_file_is_as_large_as_its_bits(weight: Quantizer, bits: int, tmp_path: Path) -> None:
    """Beyond the weights: four tensors per normalisation, 64 + 10 channels, and operators and names."""
    network, path = dense(weight), tmp_path / "net.onnx"
    _, _, lines = both(network, path)
    size = (784 * 64 + 64 * 10) * bits // 8
    stored = sum(array.nbytes for name, array in initializers(path).items() if name.endswith("/weight"))
    assert stored == size
    assert 0 < path.stat().st_size - size - 4 * 4 * (64 + 10) < 5000
    assert any(f"50,816 weights of {bits} bit" in line and f" in {size:,} bytes" in line for line in lines)
    assert "activations stay float32" in lines


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    nodes = [
        Node(Input((8,))),
        *[Node(Linear(8, Binary()), (i,), "tied") for i in range(3)],
        Node(Linear(8, Binary(sample=1)), (3,), "tied"),
        Node(BatchNorm(), (4,), "norm"),
    ]
    check(Network(tuple(nodes)), tmp_path / "net.onnx")
    names = [name for name in initializers(tmp_path / "net.onnx") if "weight" in name]
    assert names == ["tied/weight", "tied/weight'"]


def test_onnxruntime_unpacks_at_load_and_never_again(tmp_path: Path) -> None:
    path, loaded = tmp_path / "net.onnx", tmp_path / "loaded.onnx"
    for weight in (Binary(), FixedPoint(3), FixedPoint(8)):
        both(dense(weight), path)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(loaded)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        left = {node.op_type for node in onnx.load(loaded).graph.node}
        assert left <= {"Cast", "Sub", "Mul", "Flatten", "Gemm", "BatchNormalization", "Relu", "Identity"}


def test_operators_are_standard_and_activations_float32(tmp_path: Path) -> None:
    for seed in range(20):
        both(in_reals(Builder(seed).network(), random.Random(seed), 0.5), tmp_path / "net.onnx", seed)
        model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "net.onnx"), strict_mode=True)
        assert {node.domain for node in model.graph.node} == {""}
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


# what is refused or said


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (chain(Input((4,)), Linear(3, Real()), BatchNorm(Binary(sample=2))), "n2: activations of Binary"),
        (chain(Input((4,)), Linear(3, Real()), Activation(Binary(sample=2))), "n2: activations of Binary"),
    ],
)
def test_a_quantizer_without_a_form_is_named(network: Network, said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=said):
        exporter.export(network, Weights([network]), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_shared_weights_are_refused(tmp_path: Path) -> None:
    network = chain(Input((4,)), Linear(3, Real()), BatchNorm())
    with pytest.raises(ExportError, match="n2: shared weights keep no running statistics"):
        exporter.export(network, Weights([network], shared=True), tmp_path / "net.onnx")


@pytest.mark.parametrize("weight", [Real(), FixedPoint(4), Uniform(4)], ids=str)
def test_a_diverged_training_is_refused(weight: Quantizer, tmp_path: Path) -> None:
    network = chain(Input((4,)), Linear(3, weight), BatchNorm(Relu(), real=True))
    weights = Weights([network])
    with torch.no_grad():
        weights["n1"][0, 0] = torch.nan
    with pytest.raises(ExportError, match=r"n1: .*not finite"):
        exporter.export(network, weights, tmp_path / "net.onnx")


def test_sums_that_float32_does_not_hold_are_reported(tmp_path: Path) -> None:
    wide = chain(Input((784,)), Linear(3, FixedPoint(8)), BatchNorm(FixedPoint(4)), Linear(3, Real()))
    _, _, lines = both(wide, tmp_path / "net.onnx")
    assert any(line.startswith("n2: the sums it reads can pass 2**24") for line in lines)
    narrow = chain(Input((784,)), Linear(3, FixedPoint(4)), BatchNorm(FixedPoint(4)), Linear(3, Real()))
    assert not any("2**24" in line for line in both(narrow, tmp_path / "net.onnx")[2])


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    network = dense(Binary())
    with pytest.raises(BitwrightError) as caught:
        exporter.export(network, Weights([network]), tmp_path / "file" / "net.onnx")
    assert "\n" not in str(caught.value)


# verify


def of(network: Network, count: int = 12) -> tuple[Weights, np.ndarray]:
    x = some_images(network, 0, count)
    return trained(network, 0, x), x.numpy().astype(np.int64)


def test_verification_finds_real_networks_in_agreement() -> None:
    for activation in (Relu(), FixedPoint(3)):
        network = dense(Binary(), activation)
        weights, x = of(network)
        found = verify_float(network, weights, x)
        assert found.agrees and found.beyond_tolerance == 0
        assert (found.samples, found.equal_predictions, found.rounds) == (12, 12, False)
        with torch.no_grad():
            largest = forward(network, weights, torch.from_numpy(x).to(torch.uint8))[0].abs().max()
        assert found.largest_logit == float(largest)
        assert found.max_difference <= TOLERANCE * largest


def test_a_network_that_rounds_real_numbers_is_known() -> None:
    network = dense(Real(), FixedPoint(3))
    found = verify_float(network, *of(network))
    assert found.rounds and found.agrees


@pytest.mark.parametrize(("rounds", "wrong"), [(False, 1), (True, 1), (True, 3)])
def test_a_difference_is_found_and_counted(rounds: bool, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense(Real(), FixedPoint(3)) if rounds else dense(Real())
    weights, x = of(network, 150)
    execute = exporter.execute

    def spoiled(path: Path, images: np.ndarray) -> np.ndarray:
        logits = execute(path, images)
        logits[:wrong] *= -1
        return logits

    monkeypatch.setattr(exporter, "execute", spoiled)
    found = verify_float(network, weights, x)
    assert (found.beyond_tolerance, found.equal_predictions) == (wrong, 150 - wrong)
    assert found.agrees == (rounds and wrong == 1)  # one of 150 is less than 1 %
    report: dict[str, Any] = found.as_json()
    assert report["agrees"] == found.agrees
    assert (report["tolerance"], report["samples"], report["rounds"]) == (TOLERANCE, 150, rounds)


def test_what_is_not_a_number_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense(Real())
    weights, x = of(network)
    monkeypatch.setattr(exporter, "execute", lambda path, images: np.full((12, 10), np.nan, np.float32))
    found = verify_float(network, weights, x)
    assert found.beyond_tolerance == 12 and not found.agrees


def test_no_samples_are_an_error() -> None:
    network = dense(Real())
    weights, x = of(network)
    with pytest.raises(ConfigError, match="no samples"):
        verify_float(network, weights, x[:0])
