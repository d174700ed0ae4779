"""Pictures of a network's weights: how they are distributed, and what the first layer looks for.

The figures 2 and 3 of BinaryConnect (Courbariaux et al. 2015, arXiv:1511.00363), each drawn twice: of the latent
weights, which training updates, and of the deployed ones, which the evaluated network multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..modules import Weights, weight_codes
from ..network import Activation, Conv2d, DepthwiseConv2d, Dropout, Flatten, Linear, Network
from ..quantizers import Levels
from .figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["latent", "deployed"]
KINDS: tuple[Kind, ...] = ("latent", "deployed")
WEIGHTED = (Conv2d, DepthwiseConv2d, Linear)
BINS = 100  # of a histogram of real numbers
COLUMNS = 3  # panels side by side
PANEL = (3.2, 2.0)  # inches
MOST_TICKS = 16  # for each level one
TILES = 100  # at most
TILES_IN_A_ROW = 10
TILE_WIDTH = 0.6  # inches
GAP = (0.62, 0.76, 0.95)  # between tiles, a colour that is in no grey one


@dataclass(frozen=True)
class LayerWeights:
    """Of one convolution or product, in float64: (outputs, inputs) or (outputs, channels, height, width).

    latent, deployed: real numbers; of several deployed layers with the same latent weights, the first.
    codes, levels: of the deployed ones where these are integers times a scale, else None.
    scale: None where every output has its own, or there are no codes.
    bound: H where latent weights stay in [-H, H], else None.
    image: the (channels, height, width) that a product reads flattened, or None.
    """

    name: str
    latent: NDArray[np.float64]
    deployed: NDArray[np.float64]
    codes: NDArray[np.int64] | None
    levels: Levels | None
    scale: float | None
    bound: float | None
    image: tuple[int, int, int] | None

    def of(self, kind: Kind) -> NDArray[np.float64]:
        return self.latent if kind == "latent" else self.deployed


def layer_weights(trained: Network, deployed: Network, weights: Weights) -> list[LayerWeights]:
    """The layers of the trained network in their order. `deployed` has the same tensors, maybe at other precisions."""
    of_key: dict[str, int] = {}
    for position in _layers(deployed):
        of_key.setdefault(deployed.nodes[position].key, position)
    found: dict[str, LayerWeights] = {}
    for position in _layers(trained):
        node = trained.nodes[position]
        if node.key not in found and node.key in of_key:
            found[node.key] = _layer(trained, position, deployed, of_key[node.key], weights)
    return list(found.values())


def histogram_figure(layers: Sequence[LayerWeights], kind: Kind) -> Figure:
    """A panel for every layer: how many weights there are of each value, over [-H, H] where latent ones are bounded."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    for number, layer in enumerate(layers, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set_title(f"{layer.name}, {layer.latent.size:,} {kind} weights", fontsize=8)
        axes.tick_params(labelsize=7)
        if kind == "deployed" and layer.codes is not None and layer.levels is not None:
            _draw_codes(axes, layer.codes, layer.levels, layer.scale)
        else:
            _draw_values(axes, layer.of(kind), layer.bound)
    return figure


def filter_figure(layer: LayerWeights, kind: Kind) -> Figure:
    """The first filters of a layer, or the first units of a product on pixels, each normalised from black to white."""
    from matplotlib.figure import Figure

    pictures = filter_tiles(layer, kind)
    canvas = _mosaic(pictures)
    shown = "" if len(pictures) == len(layer.latent) else f"the first {len(pictures)} of "
    columns = min(TILES_IN_A_ROW, len(pictures))
    width = max(columns * TILE_WIDTH, 3.0)
    figure = Figure(figsize=(width, width * canvas.shape[0] / canvas.shape[1] + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.axis("off")
    of = "filters" if layer.latent.ndim == 4 else "units"
    axes.set_title(f"{layer.name}, {shown}{len(layer.latent):,} {of}, {kind} weights", fontsize=8)
    return figure


def filter_tiles(layer: LayerWeights, kind: Kind) -> NDArray[np.float64]:
    """(tiles, height, width, 3) in [0, 1]: the smallest weight of a tile is 0, the largest 1; equal ones are 0.5.

    Three channels are red, green and blue, one is grey, and others are shown by their mean. Units that read no image
    are rows.
    """
    values = layer.of(kind)[:TILES]
    if values.ndim == 2:
        values = values.reshape(len(values), *(layer.image or (1, 1, -1)))
    if values.shape[1] != 3:
        values = values.mean(axis=1, keepdims=True).repeat(3, axis=1)
    low, high = (reduce(values, axis=(1, 2, 3), keepdims=True) for reduce in (np.min, np.max))
    spread = np.where(high > low, high - low, 1.0)
    return np.where(high > low, (values - low) / spread, 0.5).transpose(0, 2, 3, 1)


def draw_weights(trained: Network, deployed: Network, weights: Weights, folder: Path) -> list[Path]:
    """histograms-KIND and filters-KIND, KIND latent and deployed, as .svg and .png in `folder`.

    trained, deployed: the network in training and as it is evaluated; `weights` are of both.
    """
    layers = layer_weights(trained, deployed, weights)
    figures = {f"histograms-{kind}": histogram_figure(layers, kind) for kind in KINDS}
    figures |= {f"filters-{kind}": filter_figure(layers[0], kind) for kind in KINDS}
    return [
        save_figure(figure, folder / f"{name}.{suffix}")
        for name, figure in figures.items()
        for suffix in ("svg", "png")
    ]


def _layers(network: Network) -> list[int]:
    return [i for i, node in enumerate(network.nodes) if isinstance(node.op, WEIGHTED)]


@torch.no_grad()
def _layer(trained: Network, position: int, deployed: Network, at: int, weights: Weights) -> LayerWeights:
    op, shapes, evaluated = trained.nodes[position].op, trained.weights(position), deployed.nodes[at].op
    assert isinstance(op, WEIGHTED) and isinstance(evaluated, WEIGHTED)
    latent = torch.cat([weights[shape.name] for shape in shapes], dim=1).double()
    codes, scale = weight_codes(deployed, at, weights)
    per_output = torch.as_tensor(scale).double().cpu().reshape(-1, *[1] * (latent.dim() - 1))
    codes = codes.double().cpu()
    levels = evaluated.weight.levels
    return LayerWeights(
        name=trained.nodes[position].key,
        latent=latent.cpu().numpy(),
        deployed=(codes * per_output).numpy(),
        codes=None if levels is None else codes.long().numpy(),
        levels=levels,
        scale=None if levels is None or per_output.numel() > 1 else float(per_output),
        bound=op.weight.latent_bound(shapes[0].fans),
        image=_flattened(trained, position),
    )


def _flattened(network: Network, position: int) -> tuple[int, int, int] | None:
    """The image whose numbers a product reads one behind the other."""
    node = network.nodes[position]
    if not isinstance(node.op, Linear) or len(node.inputs) > 1:
        return None
    (position,) = node.inputs
    while isinstance(network.nodes[position].op, Dropout | Activation):
        (position,) = network.nodes[position].inputs
    if not isinstance(network.nodes[position].op, Flatten):
        return None
    channels, height, width = network.shapes[network.nodes[position].inputs[0]]
    return channels, height, width


def _draw_values(axes: Axes, values: NDArray[np.float64], bound: float | None) -> None:
    # weights that were clipped to H in float32 may be a little beyond it
    limit = max(float(np.abs(values).max()), bound or 0.0) or 1.0
    axes.stairs(*np.histogram(values, BINS, (-limit, limit)), fill=True)
    axes.set_xlim(-limit, limit)
    if bound is not None:
        axes.set_xlabel(f"H = {bound:.4g}", fontsize=7)


def _draw_codes(axes: Axes, codes: NDArray[np.int64], levels: Levels, scale: float | None) -> None:
    counts = np.bincount((codes - levels.lowest).ravel(), minlength=levels.highest - levels.lowest + 1)
    axes.stairs(counts, np.arange(levels.lowest, levels.highest + 2) - 0.5, fill=True)
    axes.set_xlabel("code" if scale is None else f"code, in units of {scale:.4g}", fontsize=7)
    if len(levels.values) <= MOST_TICKS:
        axes.set_xticks(levels.values)


def _mosaic(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """One picture with the tiles in rows, a pixel between them."""
    count, height, width, _ = tiles.shape
    columns = min(TILES_IN_A_ROW, count)
    rows = -(-count // columns)
    canvas = np.tile(GAP, (rows * (height + 1) + 1, columns * (width + 1) + 1, 1))
    for number, tile in enumerate(tiles):
        top, left = 1 + number // columns * (height + 1), 1 + number % columns * (width + 1)
        canvas[top : top + height, left : left + width] = tile
    return canvas
