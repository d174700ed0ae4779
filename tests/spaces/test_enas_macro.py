"""The macro space of ENAS: encoding, errors, the networks it describes, what its supernet shares, and its integers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitwright import Architecture
from bitwright.errors import ConfigError, InvalidArchitecture
from bitwright.exports import c, onnx, qonnx
from bitwright.integer.compare import differences
from bitwright.integer.lower import lowered
from bitwright.integer.run import Executor
from bitwright.modules import Training, Weights, forward, tensor_names
from bitwright.network import Add, BatchNorm, Conv2d, DepthwiseConv2d, GlobalSumPool, Network
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.ternary import Ternary
from bitwright.spaces.enas_macro import EnasMacro, Layer
from bitwright.verify import reference_outputs
from random_networks import some_images, trained

CONV3, SEP3, CONV5, SEP5, AVERAGE, MAX = range(6)  # of the op set "enas"
OPS = ("conv3x3", "sep3x3", "conv5x5", "sep5x5", "avg3x3", "max3x3")
FLOAT: dict[str, Any] = {"stem_precision": "float", "layer_precision": "float"}


def architectures(space: EnasMacro) -> st.SearchStrategy[Architecture]:
    each = [st.integers(0, len(d.options) - 1) for d in space.decisions]
    return st.tuples(*each).map(lambda choices: Architecture(space.name, choices))


def everywhere(space: EnasMacro, op: int, bit: int = 0) -> Architecture:
    return space.architecture([choice for layer in range(space.layers) for choice in (op, *[bit] * layer)])


def convolutions(network: Network, prefix: str) -> list[Conv2d | DepthwiseConv2d]:
    return [n.op for n in network.nodes if isinstance(n.op, (Conv2d, DepthwiseConv2d)) and n.key.startswith(prefix)]


def images(space: EnasMacro, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *space.image), dtype=torch.uint8, generator=generator)


# encoding


@pytest.mark.parametrize(("layers", "integers"), [(1, 1), (3, 6), (12, 78), (24, 300)])
def test_a_layer_takes_its_operation_and_a_bit_for_each_output_before_its_input(layers: int, integers: int) -> None:
    decisions = EnasMacro(layers=layers, ops="enas").decisions
    names = [name for n in range(layers) for name in (f"layer{n}/op", *(f"layer{n}/skip{i}" for i in range(n)))]
    assert [d.name for d in decisions] == names
    assert len(decisions) == integers


def test_the_space_of_twelve_layers_has_the_published_size() -> None:
    sizes = [len(d.options) for d in EnasMacro(ops="enas").decisions]
    assert float(np.prod(np.array(sizes, dtype=object))) == 6**12 * 2**66 == pytest.approx(1.6e29, rel=0.01)


def test_the_operations_are_numbered_as_published() -> None:
    assert tuple(o.name for o in EnasMacro(ops="enas").operations) == OPS


def test_the_mixed_operations_are_each_convolution_at_each_precision_then_the_pools() -> None:
    names = [o.name for o in EnasMacro(ops="mixed", precisions=("binary", "4")).operations]
    assert names == [f"{kind}/{p}" for kind in OPS[:4] for p in ("binary", "4")] + list(OPS[4:])


def test_an_architecture_is_decoded_layer_by_layer() -> None:
    space = EnasMacro(layers=4, ops="enas")
    text = "3   5 1   0 0 1   2 1 0 1"
    assert space.decoded(space.parse(text)) == (Layer(3, ()), Layer(5, (0,)), Layer(0, (1,)), Layer(2, (0, 2)))
    assert space.parse(str(space.parse(text))) == space.parse(text)


def test_architectures_of_another_number_of_layers_are_refused() -> None:
    with pytest.raises(InvalidArchitecture, match=r"12 layers takes 78 integers.*got 300"):
        EnasMacro(ops="enas").parse("0 " * 300)
    with pytest.raises(InvalidArchitecture, match=r"position 2 \(layer1/skip0\) takes 0 to 1 \(none, skip\), got 2"):
        EnasMacro(layers=2, ops="enas").parse("0 0 2")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"layers": 0}, "layers is at least 1"),
        ({"filters": 0}, "filters is at least 1"),
        ({"filters": 3, "wiring": "classic"}, "even number of filters, got 3"),
        ({"dropout": 1.0}, "dropout"),
        ({"ops": "some"}, "enas or mixed"),
        ({"wiring": "original"}, "classic or integer"),
        ({"stem_precision": "9"}, "no precision '9'"),
        ({"layer_precision": "one"}, "no precision 'one'"),
        ({"activation_precision": "0"}, "no precision '0'"),
        ({"precisions": ()}, "precisions"),
        ({"precisions": ("2", "2")}, "precisions"),
        ({"reductions": (1, 1)}, "reductions are different layers from 0 to 11"),
        ({"reductions": (12,)}, "reductions are different layers from 0 to 11"),
        ({"image": (1, 3, 8)}, "3x8 cannot be halved 2 times"),
        ({"pixel_mean": (1.0, 2.0)}, "pixel_mean"),
        ({"pixel_std": (0.0,)}, "pixel_std"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=f"enas_macro: .*{word}"):
        EnasMacro(**options)


@pytest.mark.parametrize(("layers", "expected"), [(1, ()), (2, ()), (3, (0, 1)), (12, (3, 7)), (24, (7, 15))])
def test_images_are_halved_at_thirds_as_published(layers: int, expected: tuple[int, ...]) -> None:
    assert EnasMacro(layers=layers).reduction_layers == expected


@given(architectures(EnasMacro(layers=4, ops="enas")))
def test_neighbours_change_one_operation_or_flip_one_bit(architecture: Architecture) -> None:
    space = EnasMacro(layers=4, ops="enas")
    neighbours = list(space.neighbours(architecture))
    assert len(set(neighbours)) == 4 * 5 + 6
    for other in neighbours:
        assert sum(a != b for a, b in zip(architecture.choices, other.choices, strict=True)) == 1
    assert space.mutate(architecture, np.random.default_rng(0)) in neighbours


def test_a_network_without_convolutions_is_warned_of() -> None:
    space = EnasMacro(layers=3, ops="enas")
    assert space.warnings(space.parse("4 5 0 3 1 0")) == []
    (warning,) = space.warnings(space.parse("4 5 0 4 1 0"))
    assert warning.startswith("collapse") and "average and max" in warning


# networks


def leaf(weights: Weights, key: str) -> Tensor:
    return weights[key].detach()


def normalised(x: Tensor, weights: Weights, key: str, epsilon: float = 1e-5) -> Tensor:
    """By the statistics of the batch."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    gain, offset = (leaf(weights, f"{key}/{name}")[:, None, None] for name in ("gain", "offset"))
    return (x - mean) / (variance + epsilon).sqrt() * gain + offset


def layer_by_hand(op: int, x: Tensor, weights: Weights, key: str, supernet: bool) -> Tensor:
    """One published operation, in torch."""
    relu = torch.relu
    key, epsilon = f"{key}/{OPS[op]}", 1e-3 if supernet else 1e-5
    x = F.conv2d(x if supernet else relu(x), leaf(weights, f"{key}/in"))
    x = relu(normalised(x, weights, f"{key}/in/norm"))
    size = 3 if op in (CONV3, SEP3) else 5
    match op:
        case 4:
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        case 5:
            return F.max_pool2d(x, 3, 1, 1)
        case 0 | 2:
            x = F.conv2d(x, leaf(weights, f"{key}/conv"), padding=size // 2)
        case _:
            x = F.conv2d(x, leaf(weights, f"{key}/depthwise"), padding=size // 2, groups=x.shape[1])
            x = F.conv2d(x, leaf(weights, f"{key}/pointwise"))
    x = normalised(x, weights, f"{key}/norm", epsilon)
    return relu(x) if supernet else x


def halved_by_hand(x: Tensor, weights: Weights, key: str) -> Tensor:
    odd = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [
        F.conv2d(part[:, :, ::2, ::2], leaf(weights, f"{key}/{name}")) for part, name in ((x, "even"), (odd, "odd"))
    ]
    return normalised(torch.cat(halves, dim=1), weights, f"{key}/norm")


def by_hand(space: EnasMacro, architecture: Architecture, weights: Weights, x: Tensor, supernet: bool) -> Tensor:
    """Logits of the published network: every output is halved, whether it is read or not."""
    mean, std = torch.tensor(space.pixel_mean), torch.tensor(space.pixel_std)
    x = (x.float() - mean[:, None, None]) / std[:, None, None]
    x = normalised(F.conv2d(x, leaf(weights, "stem"), padding=1), weights, "stem/norm")
    outputs, halvings = [x], 0
    rows = iter(architecture.choices)
    for layer in range(space.layers):
        op, bits = next(rows), [next(rows) for _ in range(layer)]
        x = layer_by_hand(op, outputs[-1], weights, f"layer{layer}", supernet)
        skips = [i for i, bit in enumerate(bits) if bit]
        if layer and supernet:
            x = normalised(sum((outputs[i] for i in skips), x), weights, f"layer{layer}/skip/norm")
        elif layer:
            names = [*(f"from{i}" for i in skips), "own"]
            kernel = torch.cat([leaf(weights, f"layer{layer}/skip/{name}") for name in names], dim=1)
            x = F.conv2d(torch.relu(torch.cat([*(outputs[i] for i in skips), x], dim=1)), kernel)
            x = normalised(x, weights, f"layer{layer}/skip/norm")
        outputs.append(x)
        if layer in space.reduction_layers:
            keys = [f"reduction{halvings}/output{i}" for i in range(len(outputs))]
            unread = [i for i, key in enumerate(keys) if f"{key}/even" not in weights._parameters]
            outputs = [o if i in unread else halved_by_hand(o, weights, keys[i]) for i, o in enumerate(outputs)]
            halvings += 1
    return outputs[-1].mean((2, 3)) @ leaf(weights, "classifier").T


CLASSIC = EnasMacro(
    image=(3, 8, 8), pixel_mean=(120.0, 110.0, 100.0), pixel_std=(60.0, 55.0, 50.0), layers=6, filters=4,
    ops="enas", wiring="classic", **FLOAT,
)  # fmt: skip


def in_training(network: Network, weights: Weights, x: Tensor) -> Tensor:
    """Logits with the statistics of the batch."""
    logits, _ = forward(network, weights, x, training=Training())
    return logits.detach()


def stirred(network: Network, shared: bool) -> Weights:
    """Weights whose gains and offsets are not those of a fresh network."""
    weights = Weights([network], shared=shared)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in weights.named_parameters():
            if name.endswith(("gain", "offset")):
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return weights


@pytest.mark.parametrize("supernet", [True, False], ids=["supernet", "stand-alone"])
@pytest.mark.parametrize("op", range(6), ids=OPS)
@pytest.mark.parametrize("bit", [0, 1])
def test_every_operation_is_the_published_one(op: int, bit: int, supernet: bool) -> None:
    architecture = everywhere(CLASSIC, op, bit)
    network = (CLASSIC.shared_network if supernet else CLASSIC.network)(architecture)
    weights, x = stirred(network, supernet), images(CLASSIC)
    expected = by_hand(CLASSIC, architecture, weights, x, supernet)
    torch.testing.assert_close(in_training(network, weights, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("supernet", [True, False], ids=["supernet", "stand-alone"])
def test_any_architecture_is_the_published_network(supernet: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        architecture = CLASSIC.sample(rng)
        network = (CLASSIC.shared_network if supernet else CLASSIC.network)(architecture)
        weights, x = stirred(network, supernet), images(CLASSIC)
        expected = by_hand(CLASSIC, architecture, weights, x, supernet)
        torch.testing.assert_close(in_training(network, weights, x), expected, rtol=1e-4, atol=1e-4)


SPACES = [
    EnasMacro(image=image, layers=layers, reductions=reductions, filters=4, ops=ops, wiring=wiring)
    for image, layers, reductions in (((1, 8, 8), 6, None), ((3, 9, 8), 5, (0, 2, 4)), ((2, 16, 16), 1, ()))
    for ops in ("enas", "mixed")
    for wiring in ("classic", "integer")
]
BUILDERS = [("supernet", EnasMacro.shared_network), ("stand-alone", EnasMacro.network)]
each_form = pytest.mark.parametrize("build", [b for _, b in BUILDERS], ids=[name for name, _ in BUILDERS])


@each_form
@pytest.mark.parametrize("wiring", ["classic", "integer"])
def test_the_six_operations_compute_six_different_things(
    build: Callable[[EnasMacro, Architecture], Network], wiring: Any
) -> None:
    """On one store of weights, whose latent kernels they do not share; and no pool is another's."""
    space = EnasMacro(image=(1, 8, 8), layers=3, filters=4, ops="enas", wiring=wiring, activation_precision="4")
    networks = [build(space, everywhere(space, op)) for op in range(6)]
    weights = Weights(networks)
    outputs = [in_training(network, weights, images(space, 16)) for network in networks]
    assert all(float((a - b).abs().max()) > 1e-3 for i, a in enumerate(outputs) for b in outputs[:i])


@settings(max_examples=60)
@given(st.data())
def test_every_architecture_describes_a_network_that_fits_together(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from(SPACES))
    architecture = data.draw(architectures(space))
    halvings = len(space.reduction_layers)
    size = tuple(-(-pixels // 2**halvings) for pixels in space.image[1:])
    for network in (space.network(architecture), space.shared_network(architecture)):
        assert network.shapes[-1] == (10,)
        (pool,) = (n for n in network.nodes if isinstance(n.op, GlobalSumPool))
        widened = halvings if network == space.network(architecture) else 0
        assert network.shapes[pool.inputs[0]] == (4 * 2**widened, *size)
        assert all(network.last_use[i] > i for i in range(len(network.nodes) - 1))  # nothing is computed in vain


def test_a_bit_takes_the_output_of_that_number_and_an_operation_the_output_before() -> None:
    space = EnasMacro(image=(1, 8, 8), layers=4, reductions=(), filters=4, ops="enas", activation_precision="4")
    network = space.network(space.parse("0   0 0   0 0 0   0 1 0 1"))
    at = {node.key: i for i, node in enumerate(network.nodes) if node.key}
    reads = {key: network.nodes[i].inputs for key, i in at.items()}
    assert reads["layer3/conv3x3/in"] == (at["layer2/conv3x3/conv/norm"],)
    first, second = (i for i, node in enumerate(network.nodes) if isinstance(node.op, Add))
    assert network.nodes[first].inputs == (at["layer3/conv3x3/conv/norm"], at["stem/norm"])
    assert network.nodes[second].inputs == (first, at["layer1/conv3x3/conv/norm"])  # bit 2: the stem is output 0


@pytest.mark.parametrize("wiring", ["classic", "integer"])
def test_precision_is_chosen_per_layer_in_the_mixed_set(wiring: Any) -> None:
    space = EnasMacro(
        image=(1, 8, 8), layers=3, wiring=wiring, filters=4, precisions=("binary", "2", "float"),
        stem_precision="8", layer_precision="ternary",
    )  # fmt: skip
    # sep3x3/2, conv5x5/float, max pool
    network = space.network(space.parse("4   8 0   13 1 1"))
    assert {op.weight for op in convolutions(network, "stem")} == {FixedPoint(8)}
    assert {op.weight for op in convolutions(network, "layer0/")} == {FixedPoint(2)}
    assert {op.weight for op in convolutions(network, "layer1/conv5x5")} == {Real()}
    assert {op.weight for op in convolutions(network, "layer2/max3x3")} == {Ternary()}
    assert {op.weight for op in convolutions(network, "reduction")} == {Ternary()}
    binary = space.network(everywhere(space, 0))
    assert {op.weight for op in convolutions(binary, "layer")} >= {Binary()}


# sharing


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_covering_creates_every_tensor_of_every_sample_and_none_that_no_architecture_uses(space: EnasMacro) -> None:
    covering = [space.shared_network(a) for a in space.covering()]
    names = {name for network in covering for name in tensor_names(network)}
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert set(tensor_names(space.shared_network(space.sample(rng)))) <= names
    assert len(names) == len(dict(Weights(covering, shared=True).named_parameters()))


def test_precisions_of_one_convolution_share_latent_weights_and_not_normalisations() -> None:
    options: dict[str, Any] = {"image": (1, 8, 8), "layers": 3, "filters": 4, "precisions": ("binary", "4")}
    for shared in (True, False):
        space = EnasMacro(**options, share_precisions=shared)
        binary, four = (set(tensor_names(space.shared_network(everywhere(space, op)))) for op in (0, 1))
        common = {name for name in binary & four if name.startswith("layer")}
        assert common == (
            {f"layer{n}/conv3x3/{part}" for n in range(3) for part in ("in", "conv")} if shared else set()
        )


# integers


INTEGER = [
    EnasMacro(image=(1, 7, 9), layers=4, filters=5, precisions=("binary", "ternary", "4")),
    EnasMacro(
        image=(3, 8, 8), layers=6, filters=3, pixel_mean=(120.0, 110.0, 100.0), pixel_std=(60.0,) * 3,
        activation_precision="4",
    ),
    EnasMacro(image=(1, 6, 5), layers=5, filters=3, ops="enas", layer_precision="binary"),
    EnasMacro(image=(2, 5, 8), layers=4, filters=4, ops="enas", activation_precision="8", layer_precision="8"),
    EnasMacro(image=(1, 8, 8), layers=7, filters=2, reductions=(6,), activation_precision="2", precisions=("3", "6")),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(INTEGER)))
@pytest.mark.parametrize("seed", range(2))
def test_the_integer_wiring_lowers_to_the_integers_of_training(number: int, seed: int) -> None:
    space = INTEGER[number]
    network = space.network(space.sample(np.random.default_rng(seed)))
    assert network == space.shared_network(space.sample(np.random.default_rng(seed)))
    assert all(r is not None for r in network.ranges)
    x = some_images(network, seed)
    weights = trained(network, seed, x)
    lowering = lowered(network, weights)
    compared = list(differences(network, weights, lowering, x, Executor(lowering.graph)))
    assert [position for position, exact, codes in compared if bool((exact.double() != codes.double()).any())] == []
    assert len(compared) == len(network.nodes)


@pytest.mark.parametrize("number", [0, 1])
def test_exports_compute_what_the_integer_graph_does(number: int, tmp_path: Path) -> None:
    space = (INTEGER[0], INTEGER[2])[number]
    text = ["7   4 1   13 1 0   0 1 1 1", "4   1 1   5 0 1   2 1 0 1   3 1 1 0 1"][number]
    network = space.network(space.parse(text))
    x = some_images(network, 0)
    graph = lowered(network, trained(network, 0, x)).graph
    pixels = x.numpy().astype(np.int64)
    expected = reference_outputs(graph, pixels)
    onnx.export(graph, tmp_path / "onnx")
    qonnx.export(graph, tmp_path / "qonnx")
    c.export(graph, tmp_path / "c")
    found = {"onnx": onnx.execute(tmp_path / "onnx", pixels), "qonnx": qonnx.execute(tmp_path / "qonnx", pixels)}
    if any(map(shutil.which, c.COMPILERS)):
        found["c"] = c.execute(tmp_path / "c", pixels, flags="-O0 -DNETWORK_PORTABLE")
    for name, outputs in found.items():
        assert np.array_equal(outputs, expected), name


@pytest.mark.parametrize("precision", ["4", "8", "binary", "ternary"])
def test_every_output_of_the_integer_wiring_lies_on_one_grid(precision: str) -> None:
    space = EnasMacro(image=(1, 8, 8), layers=6, filters=4, activation_precision=precision, precisions=("binary",))
    network = space.network(everywhere(space, 0, 1))
    (grid,) = {n.op.activation for n in network.nodes if isinstance(n.op, BatchNorm)}
    convolved = [n.inputs[0] for n in network.nodes if isinstance(n.op, Conv2d) and n.key != "stem"]
    read = {r for i in convolved if (r := network.ranges[i]) is not None}
    assert grid.levels is not None
    assert {(r.lowest, r.highest) for r in read} == {(grid.levels.lowest, grid.levels.highest)}
