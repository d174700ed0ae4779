"""The searchable cells: widths that are multiplied, strides, and the blocks that a cell may be."""

from __future__ import annotations

import pytest

from bitwright.errors import ConfigError
from bitwright.networks import build
from bitwright.networks.cells import CellSpace, scaled
from bitwright.networks.inverted_residual import Block, BlockList, Group, Options, segment

# filters of TensorFlow's MobileNetV2 (Sandler et al. 2018) at other widths: the stem's and those of its seven stages
MOBILENET = (32, 16, 24, 32, 64, 96, 160, 320)
WIDER = {0.35: (16, 8, 8, 16, 24, 32, 56, 112), 1.4: (48, 24, 32, 48, 88, 136, 224, 448)}


@pytest.mark.parametrize("width", WIDER)
def test_filters_are_multiplied_as_in_mobilenetv2(width: float) -> None:
    assert tuple(scaled(channels, width) for channels in MOBILENET) == WIDER[width]


def test_at_width_one_filters_are_what_they_are() -> None:
    assert CellSpace((12,), (1,), (1,)).candidates[0][0].filters == 12  # type: ignore[union-attr]


def test_the_head_grows_with_the_width_but_does_not_shrink() -> None:
    """1280 filters below width 1, and 1792 at 1.4, as published."""
    assert [CellSpace(width=width).covering().__next__().head for width in (0.5, 1.4)] == [1280, 1792]


def test_the_first_convolution_may_keep_the_size_of_the_image() -> None:
    space = CellSpace((8,), (1,), (2,), stem=8, first=8, head=16, resolution=32, classes=10, stem_stride=1)
    network = build(space.block_list([0]), Options())
    at = {node.key: shape for node, shape in zip(network.nodes, network.shapes, strict=True)}
    assert (at["init_block/bn"], at["final_block/bn"]) == ((8, 32, 32), (16, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (24,)}, "one number for each stage"),
        ({"kernels": (3, 4)}, "kernels are odd"),
        ({"kernels": ()}, "kernels are numbers"),
        ({"expansions": (3, 3)}, "expansions are different"),
        ({"stem_stride": 0}, "stem_stride is at least 1"),
        ({"width": 0.0}, "width is positive"),
    ],
)
def test_impossible_spaces_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CellSpace(**options)  # type: ignore[arg-type]


# blocks with bits of their own

MIXED = BlockList(
    8,
    (
        (Block(3, 1, 4),),
        (
            Block(5, 3, 6, 2, weight_bits=3, value_bits=5, group_bits=6),
            Block(3, 2, 6, shortcut=True, weight_bits=2, value_bits=7, name="other"),
        ),
    ),
    12,
    resolution=32,
    classes=7,
)


def test_a_block_has_its_own_bits_and_a_group_those_of_its_first_block() -> None:
    network = build(MIXED, Options(weight_bits=4, activation_bits=4, depthwise_bits=4))
    bits = {}
    for node, held in zip(network.nodes, network.ranges, strict=True):
        quantizer = getattr(node.op, "weight", None)
        levels = None if quantizer is None else quantizer.levels
        bits[node.key] = None if held is None else (levels.bits if levels is not None else held.bits)
    first, second = "stage2/unit1", "stage2/unit2/other"
    for place, weights, values in ((first, 3, 5), (second, 2, 7), ("stage1/unit1", 4, 4)):
        layers = ("bc", "dw", "pw") if place != "stage1/unit1" else ("dw", "pw")
        assert [bits[f"{place}/{layer}_conv"] for layer in layers] == [weights] * len(layers), place
        assert [bits[f"{place}/{layer}_bn"] for layer in layers[:-1]] == [values] * (len(layers) - 1), place
    sums = [f"{first}/pw_bn", f"{second}/pw_bn", "stage2/unit2/add"]
    assert [bits[key] for key in sums] == [6, 6, 6]
    assert [bits[key] for key in ("init_block/conv", "init_block/bn", "final_block/conv", "output")] == [8, 4, 4, 4]


def test_a_shortcut_joins_a_group_and_cannot_choose_its_bits() -> None:
    with pytest.raises(ConfigError, match="joins it"):
        Block(3, 3, 6, shortcut=True, group_bits=4)


def test_a_segment_is_the_part_of_the_network_before_the_sum() -> None:
    options = Options()
    network = build(MIXED, options)
    block = MIXED.stages[1][1]
    assert block is not None
    alone = segment(block, (6, 8, 8), "stage2/unit2", Group("stage2/unit1/group", 6), options)
    start = next(i for i, node in enumerate(network.nodes) if node.key == alone.nodes[1].key)
    end = start + len(alone.nodes) - 1
    assert network.nodes[end].key == "stage2/unit2/add"
    assert [(n.op, n.key) for n in alone.nodes[1:]] == [(n.op, n.key) for n in network.nodes[start:end]]
    assert alone.shapes[1:] == network.shapes[start:end] and alone.ranges[1:] != [None] * (end - start)
