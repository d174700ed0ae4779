"""Networks that other tools wrote (see the README beside them), and round trips through our own exports."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.errors import InvalidGraph
from bitwright.exports import c as c_export
from bitwright.exports import onnx as onnx_export
from bitwright.exports import qonnx as qonnx_export
from bitwright.imports import onnx as importer
from bitwright.integer.graph import Argmax, Int, IntegerGraph
from bitwright.integer.run import Executor
from random_graphs import random_graph, random_inputs

onnx = pytest.importorskip("onnx")
helper: Any = onnx.helper

ACCURACIES = {"TFC_1W1A": 0.9296, "TFC_1W2A": 0.9474, "TFC_2W2A": 0.9660}  # of qonnx's executor, on 10,000 images


def run(graph: IntegerGraph, x: Int) -> Int:
    return Executor(graph)(torch.from_numpy(x)).numpy()


def qonnx_run(path: Path, x: np.ndarray) -> np.ndarray:
    """One image after the other through qonnx's executor."""
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    model = cleanup_model(ModelWrapper(str(path)))
    given, result = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {given: image[None]})[result] for image in x.astype(np.float32)])


@pytest.fixture(scope="module")
def models(shared: Path) -> Path:
    return shared / "data" / "models"


@pytest.fixture(scope="module")
def mnist(shared: Path) -> tuple[Int, Int]:
    folder = shared / "data" / "mnist"
    (images,), (labels,) = folder.glob("t10k-images*"), folder.glob("t10k-labels*")
    x = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return x.astype(np.int64), np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8).astype(np.int64)


@pytest.mark.parametrize("name", ACCURACIES)
def test_the_fully_connected_networks_of_finn_keep_their_accuracy(
    name: str, models: Path, mnist: tuple[Int, Int], tmp_path: Path
) -> None:
    images, labels = mnist
    graph = importer.load(models / f"{name}.onnx")
    logits = run(graph, images)
    assert round(float((logits.argmax(1) == labels).mean()), 4) == ACCURACIES[name]
    onnx_export.export(graph, tmp_path / "net.onnx")
    assert np.array_equal(onnx_export.execute(tmp_path / "net.onnx", images), logits)
    if any(map(shutil.which, c_export.COMPILERS)):
        c_export.export(graph, tmp_path / "c")
        for flags in ("-O1 -march=native", "-O1 -DNETWORK_PORTABLE"):
            assert np.array_equal(c_export.execute(tmp_path / "c", images, flags=flags), logits)


@pytest.mark.parametrize("name", ACCURACIES)
def test_logits_are_those_of_the_qonnx_executor_up_to_a_constant(
    name: str, models: Path, mnist: tuple[Int, Int]
) -> None:
    images = mnist[0][:80]
    graph, lines = importer.read(models / f"{name}.onnx")
    theirs = qonnx_run(models / f"{name}.onnx", images / 255)
    difference = theirs - run(graph, images) * graph.scales[0]
    assert np.ptp(difference) < 1e-5
    assert any(f"{difference.mean():.3g}"[:5] in line and "left out" in line for line in lines)


@pytest.mark.parametrize("name", ACCURACIES)
def test_the_stored_reference_outputs_are_reproduced(name: str, models: Path) -> None:
    """The reference's input is no image of bytes; 30 bits hold it but for what no threshold sees."""
    stored = np.load(models / f"{name}.ref.npz")
    graph = importer.load(models / f"{name}.onnx", input_range=(0, 2**30), input_scale=2.0**-30)
    x = np.rint(stored["x"].astype(np.float64) * 2**30).astype(np.int64)
    difference = stored["y"] - run(graph, x) * graph.scales[0]
    assert np.ptp(difference) < 1e-5


@pytest.mark.parametrize("name", ACCURACIES)
def test_all_test_images_through_the_qonnx_export(
    name: str, models: Path, mnist: tuple[Int, Int], tmp_path: Path
) -> None:
    pytest.importorskip("qonnx")
    graph = importer.load(models / f"{name}.onnx")
    qonnx_export.export(graph, tmp_path / "net.onnx")
    logits = qonnx_export.execute(tmp_path / "net.onnx", mnist[0])
    assert np.array_equal(logits, run(graph, mnist[0]))


def test_three_hundred_images_through_the_qonnx_export(models: Path, mnist: tuple[Int, Int], tmp_path: Path) -> None:
    pytest.importorskip("qonnx")
    graph = importer.load(models / "TFC_2W2A.onnx")
    qonnx_export.export(graph, tmp_path / "net.onnx")
    assert np.array_equal(qonnx_export.execute(tmp_path / "net.onnx", mnist[0][:300]), run(graph, mnist[0][:300]))


def test_the_build_flow_network_finds_the_expected_classes(models: Path) -> None:
    graph = importer.load(models / "finn_build_dataflow.onnx")
    assert isinstance(graph.nodes[-1].op, Argmax)
    x = np.load(models / "finn_build_dataflow_input.npy").astype(np.int64)
    assert np.array_equal(run(graph, x)[:, 0], np.load(models / "finn_build_dataflow_expected.npy"))


def test_the_binary_layer_is_that_of_the_qonnx_executor(models: Path) -> None:
    path = models / "bnn_model_fc_1layer.onnx"
    x = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T.astype(np.int64)
    assert np.array_equal(run(importer.load(path), x), qonnx_run(path, x))


def test_the_separable_network_is_that_of_the_qonnx_executor(models: Path, tmp_path: Path) -> None:
    """Channels last, biases, a leaky ReLU between quantizers; cut to 24 x 24 pixels, for time."""
    model = onnx.load(models / "separable_conv_model_ch_last.onnx")
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in (1, 2):
            if len(info.type.tensor_type.shape.dim) == 4 and info.type.tensor_type.shape.dim[axis].dim_value == 512:
                info.type.tensor_type.shape.dim[axis].dim_value = 24
    path = tmp_path / "cut.onnx"
    onnx.save(model, path)
    graph = importer.load(path)
    assert graph.input.shape == (3, 24, 24) and (graph.input.lowest, graph.input.highest) == (-8, 7)
    x = np.random.default_rng(0).integers(-8, 8, (3, 3, 24, 24))
    theirs = qonnx_run(path, x.transpose(0, 2, 3, 1) / 16).transpose(0, 3, 1, 2)
    assert np.array_equal(run(graph, x) * graph.scales[0], theirs)


def test_the_residual_block_of_finn_layers_is_computed_as_finn_does(models: Path) -> None:
    """FINN's layers run nowhere else, so they are written out here."""
    graph = importer.load(models / "residual_testcase.onnx")
    x = np.random.default_rng(0).integers(-8, 8, (2, 16, 32, 32))
    w = {
        t.name: onnx.numpy_helper.to_array(t).astype(np.int64)
        for t in onnx.load(models / "residual_testcase.onnx").graph.initializer
    }
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    depthwise = np.einsum("nchwij,cij->nchw", windows, w["Conv_3_param0"][:, 0])
    middle = (depthwise[..., None] >= w["MultiThreshold_3_param0"][:, None, None]).sum(-1)
    mixed = np.einsum("nchw,co->nohw", middle, w["Conv_4_param0"])
    after = (mixed[..., None] >= w["MultiThreshold_4_param0"][:, None, None]).sum(-1) - 8
    assert np.array_equal(run(graph, x), x + after)


@pytest.mark.parametrize("name", ["conv2d_small_keras", "three_layer_keras"])
def test_a_network_of_floats_is_refused_by_the_name_of_its_first_layer(name: str, models: Path) -> None:
    with pytest.raises(InvalidGraph, match=r"(Conv|MatMul) \S+: its weights are not quantized"):
        importer.load(models / f"{name}.onnx")


@pytest.mark.parametrize("block", range(6))
def test_an_onnx_export_comes_back_as_a_graph_that_computes_the_same(block: int, tmp_path: Path) -> None:
    for seed in range(block * 15, block * 15 + 15):
        graph = random_graph(seed)
        onnx_export.export(graph, tmp_path / "net.onnx")
        again = importer.load(tmp_path / "net.onnx")
        x = random_inputs(graph, 4)
        assert np.array_equal(run(again, x), run(graph, x)), seed


@pytest.mark.parametrize("block", range(6))
def test_a_qonnx_export_comes_back_as_a_graph_that_computes_the_same(block: int, tmp_path: Path) -> None:
    for seed in range(block * 15, block * 15 + 15):
        graph = random_graph(seed, widest=2**24)
        qonnx_export.export(graph, tmp_path / "net.onnx")
        again = importer.load(tmp_path / "net.onnx")
        x = random_inputs(graph, 4)
        assert np.array_equal(run(again, x), run(graph, x)), seed
        assert again.input == graph.input or vars(again.input) == vars(graph.input)


def float_model(nodes: list[Any], constants: dict[str, Any], shape: list[int], path: Path, opset: int = 13) -> Path:
    """A model with the input `x` and the output `y`."""
    kinds = onnx.TensorProto
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("qonnx.custom_op.general", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def quant(x: str, y: str, scale: str = "s", bits: str = "b", **attributes: Any) -> Any:
    given = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    return helper.make_node("Quant", [x, scale, "z", bits], [y], domain="qonnx.custom_op.general", **given)


@pytest.mark.parametrize("mode", ["ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"])
def test_ties_are_rounded_as_the_mode_says(mode: str, tmp_path: Path) -> None:
    """Every second integer is a tie of a quantizer with twice the step."""
    constants = {"s": np.float32(1), "z": np.float32(0), "b": np.float32(6), "t": np.float32(2), "c": np.float32(3)}
    nodes = [quant("x", "q"), quant("q", "y", "t", "c", rounding_mode=mode)]
    graph = importer.load(float_model(nodes, constants, [1, 64], tmp_path / "m.onnx"))
    qonnx = pytest.importorskip("qonnx.custom_op.general.quant")
    x = np.arange(-32, 32, dtype=np.float32)
    theirs = qonnx.quant(x, np.float32(2), np.float32(0), np.float32(3), 1, 0, mode)
    assert np.array_equal(run(graph, x[None].astype(np.int64))[0] * graph.scales[0], theirs)


def test_normalisation_of_either_sign_becomes_thresholds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    constants = {
        "s": np.float32(0.37),
        "z": np.float32(0),
        "b": np.float32(8),
        "t": np.float32(0.11),
        "c": np.float32(4),
        "w": np.round(rng.normal(size=(6, 3, 3, 3)) * 4).astype(np.float32),
        **{n: rng.normal(size=6).astype(np.float32) for n in ("gamma", "beta", "mean")},
        "variance": rng.uniform(1e4, 1e5, 6).astype(np.float32),
    }
    nodes = [
        quant("x", "q"),
        helper.make_node("Conv", ["q", "w"], ["a"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        quant("p", "y", "t", "c", signed=0),
    ]
    constants["gamma"][:] = [1.3, 1.1, 0.7, 0.2, 0.9, 2.0]
    path = float_model(nodes, constants, [1, 3, 8, 8], tmp_path / "m.onnx")
    x = rng.integers(-128, 128, (20, 3, 8, 8))
    theirs = np.rint(qonnx_run(path, x * np.float32(0.37)) / np.float32(0.11))
    graph = importer.load(path)
    assert np.array_equal(run(graph, x), theirs)
    assert graph.scales == (float(np.float32(0.11)),)


def qcdq(path: Path) -> Path:
    """QuantizeLinear, Clip, DequantizeLinear around a convolution, as Brevitas writes it."""
    rng = np.random.default_rng(2)
    kinds = onnx.TensorProto
    constants = {
        "sx": np.float32(0.5),
        "zx": np.int8(0),
        "sw": rng.choice(np.float32([0.25, 0.5, 0.125]), 4),
        "zw": np.zeros(4, np.int8),
        "w": rng.integers(-7, 8, (4, 2, 3, 3)).astype(np.int8),
        "bias": np.float32([1, -2, 0.5, 0]),
        "low": np.int8(-8),
        "high": np.int8(7),
        "sy": np.float32(2),
        "wide": rng.integers(-3, 4, (100, 3)).astype(np.float32),
        "offsets": np.float32([1, -2, 3]),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["x1"]),
        helper.make_node("DequantizeLinear", ["x1", "sx", "zx"], ["x2"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["w2"], axis=0),
        helper.make_node("Conv", ["x2", "w2", "bias"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["a", "sy", "zx"], ["a1"]),
        helper.make_node("Clip", ["a1", "low", "high"], ["a2"]),
        helper.make_node("DequantizeLinear", ["a2", "sy", "zx"], ["a3"]),
        helper.make_node("Flatten", ["a3"], ["f"]),
        helper.make_node("Gemm", ["f", "wide", "offsets"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qcdq",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["N", 2, 7, 7])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_network_of_quantize_and_dequantize_pairs_is_that_of_onnxruntime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = qcdq(tmp_path / "m.onnx")
    graph = importer.load(path)
    x = np.random.default_rng(3).integers(-128, 128, (16, 2, 7, 7))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": (x * 0.5).astype(np.float32)})
    assert np.array_equal(run(graph, x) * graph.scales[0], theirs)


def test_a_network_of_quantized_operators_is_that_of_onnxruntime(tmp_path: Path) -> None:
    """QLinearConv and QLinearMatMul with zero points everywhere, as ONNX Runtime's own quantizer writes them."""
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(4)
    constants = {
        "sx": np.float32(0.02),
        "zx": np.uint8(113),
        "w": rng.integers(-128, 128, (5, 2, 3, 3)).astype(np.int8),
        "sw": rng.uniform(0.001, 0.01, 5).astype(np.float32),
        "zw": np.zeros(5, np.int8),
        "bias": rng.integers(-3000, 3000, 5).astype(np.int32),
        "sy": np.float32(0.071),
        "zy": np.uint8(121),
        "v": rng.integers(0, 256, (5 * 16, 4)).astype(np.uint8),
        "sv": np.float32(0.013),
        "zv": np.uint8(128),
        "sz": np.float32(0.37),
        "zz": np.uint8(99),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["a"]),
        helper.make_node(
            "QLinearConv",
            ["a", "sx", "zx", "w", "sw", "zw", "sy", "zy", "bias"],
            ["b"],
            pads=[1, 0, 1, 2],
            strides=[2, 2],
        ),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("QLinearMatMul", ["c", "sy", "zy", "v", "sv", "zv", "sz", "zz"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "sz", "zz"], ["y"]),
    ]
    path = float_model(nodes, constants, [1, 2, 7, 7], tmp_path / "m.onnx")
    graph, lines = importer.read(path)
    assert (graph.input.lowest, graph.input.highest) == (-113, 142)
    assert any("those of the quantizer that reads it" in line for line in lines)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = rng.integers(-113, 143, (40, 2, 7, 7))
    theirs = np.concatenate([session.run(None, {"x": (i[None] * np.float32(0.02)).astype(np.float32)})[0] for i in x])
    assert np.array_equal(run(graph, x), np.rint(theirs / np.float32(0.37)))
    assert graph.scales == pytest.approx([0.37])


def test_what_the_integers_of_the_input_mean_can_be_said(tmp_path: Path) -> None:
    """By default bytes / 255, or bytes themselves where the model divides by 255."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), quant("m", "y")]
    constants = {"s": np.float32(0.25), "z": np.float32(0), "b": np.float32(4), "two": np.float32(2)}
    path = float_model(nodes, constants, [1, 5], tmp_path / "m.onnx")
    x = np.array([[0, 17, 50, 200, 255]])
    assert np.array_equal(run(importer.load(path), x)[0], np.minimum(np.rint(x[0] / 255 * 2 / 0.25), 7))
    graph = importer.load(path, input_range=(-10, 10), input_scale=0.5)
    assert np.array_equal(run(graph, np.array([[-10, -1, 0, 1, 10]])), [[-8, -4, 0, 4, 7]])
    divided = [
        helper.make_node("Div", ["x", "d"], ["n"]),
        helper.make_node("Mul", ["n", "two"], ["m"]),
        quant("m", "y"),
    ]
    path = float_model(divided, {**constants, "d": np.float32(255)}, [1, 5], tmp_path / "d.onnx")
    assert np.array_equal(run(importer.load(path), x)[0], np.minimum(np.rint(x[0] / 255 * 2 / 0.25), 7))


# what anyone may send


def test_every_truncation_and_random_damage_ends_in_one_line(models: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for name in ("bnn_model_fc_1layer.onnx", "residual_testcase.onnx"):
        data = (models / name).read_bytes()
        damaged = [data[: int(n)] for n in rng.integers(0, len(data), 60)]
        for _ in range(300):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), int(rng.integers(1, 6))):
                changed[place] = rng.integers(256)
            damaged.append(bytes(changed))
        for each in damaged:
            path.write_bytes(each)
            message = ""
            try:
                importer.load(path)
            except InvalidGraph as mistake:
                message = str(mistake)
            assert message.isprintable()


def test_constants_in_other_files_are_not_opened(tmp_path: Path) -> None:
    path = float_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(4, dtype=np.float32)}, [1, 4], tmp_path / "m.onnx"
    )
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidGraph, match="lies in another file, which is not opened"):
        importer.load(path)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "b"], ["b"])], "depends on itself"),
        ([helper.make_node("Add", ["x", "nothing"], ["y"])], "reads nothing, which nothing computes"),
        ([helper.make_node("Einsum", ["x"], ["y"], equation="ij->ji")], "Einsum: this operator is not read"),
        ([helper.make_node("Foo", ["x"], ["y"], domain="evil")], "Foo: operators of evil are not read"),
        ([helper.make_node("Reshape", ["x", "huge"], ["y"])], "Reshape"),
        ([helper.make_node("ConstantOfShape", ["huge"], ["y"])], "ConstantOfShape"),
        ([helper.make_node("Sigmoid", ["x"], ["y"])], "Sigmoid: this operator is not read"),
    ],
)
def test_what_is_no_network_is_refused_by_name(nodes: list[Any], message: str, tmp_path: Path) -> None:
    path = float_model(nodes, {"huge": np.array([2**40, 2**40])}, [1, 4], tmp_path / "m.onnx")
    with pytest.raises(InvalidGraph, match=message):
        importer.load(path)


def test_a_file_that_is_missing_or_no_protocol_buffer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="No such file"):
        importer.load(tmp_path / "none.onnx")
    for data in (b"", b"hello", b"\xff" * 1000, b"\x0a" * 100_000):
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(InvalidGraph, match="not an ONNX file"):
            importer.load(tmp_path / "m.onnx")
