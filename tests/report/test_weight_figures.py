"""Pictures of weights: every weight is counted, tiles are filters, both are of what was trained and deployed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import StepPatch
from numpy.typing import NDArray
from PIL import Image

from bitwright.cli import main
from bitwright.modules import Weights
from bitwright.network import Conv2d, Flatten, Input, Linear, Network, Node
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.real import Real
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform
from bitwright.report.weight_figures import (
    BINS,
    KINDS,
    LayerWeights,
    draw_weights,
    filter_figure,
    filter_tiles,
    histogram_figure,
    layer_weights,
)
from bitwright.spaces.binaryconnect import Binaryconnect

SVG = "{http://www.w3.org/2000/svg}"


def trained(image: tuple[int, int, int] = (1, 8, 8), **options: object) -> tuple[Network, Network, Weights]:
    """A small network as it is trained and as it is deployed, and its first weights."""
    channels = image[0]
    given: dict[str, object] = {"units": 12, "filters": 6, "layers": 2} | options
    space = Binaryconnect(image, 10, (30.0,) * channels, (70.0,) * channels, **given)  # type: ignore[arg-type]
    architecture = space.architecture(())
    training = space.training_network(architecture)
    return training, space.network(architecture), Weights([training])


def latents(weights: Weights) -> dict[str, NDArray[np.float64]]:
    return {name: tensor.detach().double().numpy() for name, tensor in weights.named_parameters()}


def drawn(axes: Axes) -> tuple[list[float], list[float]]:
    """Counts and edges of the histogram in a panel."""
    (stairs,) = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    counts, edges, _ = stairs.get_data()
    return counts.tolist(), edges.tolist()


def picture(layer: LayerWeights, kind: str) -> AxesImage:
    (axes,) = filter_figure(layer, kind).axes  # type: ignore[arg-type]
    (image,) = axes.images
    return image


# what the layers are


@pytest.mark.parametrize("kind", ["mlp", "cnn", "lenet"])
def test_layers_have_the_latent_weights_in_the_order_of_the_network(kind: str) -> None:
    training, deployed, weights = trained(network=kind)
    layers = layer_weights(training, deployed, weights)
    expected = {name: value for name, value in latents(weights).items() if value.ndim > 1}
    assert [layer.name for layer in layers] == list(expected)
    assert all(np.array_equal(layer.latent, expected[layer.name]) for layer in layers)


def test_binary_weights_are_deployed_as_their_signs_times_h() -> None:
    for layer in layer_weights(*trained(weights="det", h=0.25)):
        assert np.array_equal(layer.deployed, np.where(layer.latent >= 0, 0.25, -0.25))
        assert layer.bound == 0.25


def test_drawn_weights_are_deployed_as_real_numbers_or_as_signs() -> None:
    for layer in layer_weights(*trained(weights="stoch")):
        assert np.array_equal(layer.deployed, layer.latent)
        assert (layer.bound, layer.codes) == (1.0, None)
    for layer in layer_weights(*trained(weights="stoch", evaluated="binary")):
        assert np.array_equal(layer.deployed, np.where(layer.latent >= 0, 1.0, -1.0))


def test_of_an_ensemble_the_first_member_is_shown() -> None:
    training, deployed, weights = trained(weights="stoch", evaluated="ensemble", members=2)
    (first, *_) = layer_weights(training, deployed, weights)
    binary = next(node.op.weight for node in deployed.nodes if isinstance(node.op, Linear))
    assert np.array_equal(first.deployed, binary.codes(weights["dense1"].detach()).double().numpy())


def test_codes_are_multiplied_by_the_scale_of_their_channel() -> None:
    weight = Uniform(4, per_channel=True)
    network = Network(
        (Node(Input((2, 4, 4))), Node(Conv2d(5, 3, weight), (0,), "c"), Node(Flatten(), (1,)),
         Node(Linear(3, weight), (2,), "d"))
    )  # fmt: skip
    for layer in layer_weights(network, network, Weights([network])):
        flat = layer.latent.reshape(len(layer.latent), -1)
        step = np.abs(flat).max(axis=1, keepdims=True) / 7
        assert layer.deployed.reshape(flat.shape) == pytest.approx(np.round(flat / step) * step, rel=1e-6)
        assert layer.scale is None


def test_blocks_of_weights_are_one_layer() -> None:
    nodes = (
        Node(Input((1, 4, 4))),
        Node(Conv2d(2, 1, Real()), (0,), "a"),
        Node(Conv2d(3, 3, Binary(), blocks=("x", "y")), (0, 1), "b"),
    )
    weights = Weights([Network(nodes)])
    _, layer = layer_weights(Network(nodes), Network(nodes), weights)
    assert layer.latent.shape == (3, 3, 3, 3)
    assert np.array_equal(layer.latent[:, :1], latents(weights)["b/x"])
    assert np.array_equal(layer.latent[:, 1:], latents(weights)["b/y"])


# histograms


@pytest.mark.parametrize("weights", ["none", "det", "stoch", "ternary", "4"])
def test_every_latent_weight_is_counted_in_its_bin(weights: str) -> None:
    layers = layer_weights(*trained(weights=weights))
    panels = histogram_figure(layers, "latent").axes
    for axes, layer in zip(panels, layers, strict=True):
        counts, edges = drawn(axes)
        values = layer.latent.ravel()
        limit = 1.0 if weights != "none" else np.abs(values).max()
        assert (edges[0], edges[-1]) == (-limit, limit) == axes.get_xlim()
        assert len(counts) == BINS
        assert edges == pytest.approx(np.linspace(-limit, limit, BINS + 1))
        inside = [int(((values >= low) & (values < high)).sum()) for low, high in pairwise(edges)]
        inside[-1] += int((values == limit).sum())
        assert counts == inside
        assert sum(counts) == values.size
        assert f"{layer.name}, {values.size:,} latent weights" == axes.get_title()


def test_weights_clipped_to_a_bound_that_float32_has_not_are_counted() -> None:
    training, deployed, weights = trained(weights="det", h="glorot")
    with torch.no_grad():
        for name, tensor in weights.named_parameters():
            if name in weights.latents:
                bound = weights.latents[name].quantizer.latent_bound(weights.latents[name].fans)
                assert bound is not None
                tensor.mul_(100).clamp_(-bound, bound)  # nearly all at an end
    layers = layer_weights(training, deployed, weights)
    for axes, layer in zip(histogram_figure(layers, "latent").axes, layers, strict=True):
        counts, _ = drawn(axes)
        assert sum(counts) == layer.latent.size
        assert counts[0] + counts[-1] > 0.9 * layer.latent.size


@pytest.mark.parametrize(
    ("weights", "levels", "codes"),
    [
        ("det", [-1, 1], lambda w: np.where(w >= 0, 1, -1)),
        ("ternary", [-1, 0, 1], lambda w: (w > 0.5).astype(int) - (w <= -0.5)),
        ("2", [-2, -1, 0, 1], lambda w: np.clip(np.round(w * 2), -2, 1)),
    ],
)
def test_every_deployed_weight_is_counted_at_its_code(weights: str, levels: list[int], codes: object) -> None:
    layers = layer_weights(*trained(weights=weights))
    for axes, layer in zip(histogram_figure(layers, "deployed").axes, layers, strict=True):
        counts, edges = drawn(axes)
        expected = codes(layer.latent)  # type: ignore[operator]
        assert edges == [code - 0.5 for code in range(levels[0], levels[-1] + 2)]
        assert counts == [int((expected == code).sum()) for code in range(levels[0], levels[-1] + 1)]
        assert axes.get_xticks().tolist() == levels


def test_levels_that_no_weight_has_are_shown_empty() -> None:
    network = Network((Node(Input((4,))), Node(Linear(3, Ternary()), (0,), "d")))
    weights = Weights([network])
    with torch.no_grad():
        weights["d"].fill_(1)
    (axes,) = histogram_figure(layer_weights(network, network, weights), "deployed").axes
    assert drawn(axes) == ([0, 0, 12], [-1.5, -0.5, 0.5, 1.5])


def test_weights_that_are_all_zero_can_be_drawn() -> None:
    network = Network((Node(Input((4,))), Node(Linear(3, Real()), (0,), "d")))
    weights = Weights([network])
    with torch.no_grad():
        weights["d"].zero_()
    layers = layer_weights(network, network, weights)
    counts, edges = drawn(histogram_figure(layers, "latent").axes[0])
    assert (sum(counts), edges[0], edges[-1]) == (12, -1, 1)
    assert (filter_tiles(layers[0], "latent") == 0.5).all()


# filters


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_on_pixels_is_a_tile_of_the_image(kind: str) -> None:
    (layer, *_) = layer_weights(*trained(image=(1, 5, 7), weights="det", input_dropout=0.2))
    tiles = filter_tiles(layer, kind)  # type: ignore[arg-type]
    assert tiles.shape == (12, 5, 7, 3)
    for unit in range(12):
        row = layer.latent[unit] if kind == "latent" else np.sign(layer.latent[unit])
        for y in range(5):
            for x in range(7):
                grey = (row[7 * y + x] - row.min()) / (row.max() - row.min())
                assert tiles[unit, y, x] == pytest.approx([grey] * 3)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_three_channels_are_red_green_and_blue(kind: str) -> None:
    (layer, *_) = layer_weights(*trained(image=(3, 8, 8), network=kind))
    tiles = filter_tiles(layer, "latent")
    size = 8 if kind == "mlp" else 3
    filters = layer.latent.reshape(-1, 3, size, size)
    for unit, filter_ in enumerate(filters):
        scaled = (filter_ - filter_.min()) / (filter_.max() - filter_.min())
        for channel in range(3):
            assert tiles[unit, :, :, channel] == pytest.approx(scaled[channel])


def test_equal_weights_make_a_grey_tile_and_vectors_a_row() -> None:
    network = Network((Node(Input((4,))), Node(Linear(2, Real()), (0,), "d")))
    weights = Weights([network])
    with torch.no_grad():
        weights["d"].copy_(torch.tensor([[3.0, 3, 3, 3], [-1, 0, 1, 3]]))
    (layer,) = layer_weights(network, network, weights)
    tiles = filter_tiles(layer, "latent")
    assert tiles[:, 0, :, 0].tolist() == [[0.5, 0.5, 0.5, 0.5], [0, 0.25, 0.5, 1]]


@pytest.mark.parametrize(("units", "shown", "rows"), [(250, 100, 10), (100, 100, 10), (23, 23, 3), (4, 4, 1)])
def test_at_most_a_hundred_tiles_are_drawn_ten_in_a_row(units: int, shown: int, rows: int) -> None:
    (layer, *_) = layer_weights(*trained(units=units))
    image = picture(layer, "latent")
    columns = min(shown, 10)
    canvas = np.asarray(image.get_array())
    assert canvas.shape == (9 * rows + 1, 9 * columns + 1, 3)
    tiles = filter_tiles(layer, "latent")
    assert len(tiles) == shown
    last = shown - 1
    top, left = 9 * (last // 10) + 1, 9 * (last % 10) + 1
    assert np.array_equal(canvas[top : top + 8, left : left + 8], tiles[last])
    title = image.axes.get_title()
    assert (f"the first 100 of {units}" in title) == (units > 100)
    assert f"{units} units" in title


# files


def test_pictures_are_written_as_svg_and_png_and_the_same_each_time(tmp_path: Path) -> None:
    given = trained(weights="det", layers=1, units=4)
    first, second = (draw_weights(*given, tmp_path / name / "report") for name in "ab")
    names = [f"{what}-{kind}.{s}" for what in ("histograms", "filters") for kind in KINDS for s in ("svg", "png")]
    assert [path.name for path in first] == names
    assert sorted(p.name for p in (tmp_path / "a" / "report").iterdir()) == sorted(names)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    for path in first:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"
        else:
            with Image.open(path) as image:
                image.verify()
                assert image.format == "PNG"
    assert first[0].read_bytes() != first[2].read_bytes()


# the command

TRAIN = [
    *("train", "--dataset", "digits", "--space", "binaryconnect", "--space.layers", "1", "--space.units", "8"),
    *("--space.weights", "stoch", "--training.epochs", "1", "--threads", "1", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "run"
    assert main([*TRAIN, "--out", str(path / "train")]) == 0
    return path


def test_show_draws_the_weights_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run), "--draw-weights"]) == 0
    assert f"wrote {run / 'report' / 'filters-deployed.svg'}" in capsys.readouterr().out
    assert len(list((run / "report").iterdir())) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a run directory"),
        (["{run}/train/result.json"], "name a run directory"),
        (["{run}", "--arch", "0"], "no architecture"),
        (["{run}/missing"], "there is no"),
        (["{empty}"], "holds no trained network"),
        (["{run}", "--space.units", "9"], "does not fit the network"),
        (["{run}", "--space.nonsense", "9"], "no option"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(run=run, empty=tmp_path) for word in arguments]
    assert main(["show", "--draw-weights", *filled]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
