"""Shapes, validity, padding and ranges of networks as data."""

import itertools
import math

import pytest
import torch

from bitwright.errors import InvalidNetwork
from bitwright.modules import Weights, run
from bitwright.network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    DropPath,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
    PadChannels,
    Range,
    Shift2d,
    Shuffle,
    Slice,
    SumPool2d,
    pads,
)
from bitwright.quantizers import Fans, Levels
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform

PIXELS = Input((3, 9, 14))
VECTOR = Input((7,))


def network(*nodes, auxiliary=None):
    return Network(tuple(Node(*node) if isinstance(node, tuple) else Node(node) for node in nodes), auxiliary)


# padding


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_pads_is_the_rule_of_tensorflow(kernel, stride):
    for size in range(1, 21):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        before, after = pads(size, kernel, stride)
        assert before + after == total
        assert after - before in (0, 1)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_pads_yields_one_output_per_stride(kernel, stride):
    for size in range(1, 21):
        padded = size + sum(pads(size, kernel, stride))
        assert (padded - kernel) // stride + 1 == math.ceil(size / stride)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        (32, 3, 2, (0, 1)),
        (32, 5, 2, (1, 2)),
        (32, 3, 1, (1, 1)),
        (32, 5, 1, (2, 2)),
        (7, 3, 2, (1, 1)),
        (8, 1, 2, (0, 0)),
    ],
)
def test_pads_of_the_layers_of_the_originals(size, kernel, stride, padding):
    assert pads(size, kernel, stride) == padding


# shapes


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Conv2d(5, 3, Real()), (5, 9, 14)),
        (Conv2d(5, 3, Real(), 2), (5, 5, 7)),
        (Conv2d(5, 2, Real(), 4), (5, 3, 4)),
        (DepthwiseConv2d(5, Real(), 2), (3, 5, 7)),
        (BatchNorm(), (3, 9, 14)),
        (Activation(Binary()), (3, 9, 14)),
        (MaxPool2d(3, 2), (3, 5, 7)),
        (AveragePool2d(3, 2), (3, 5, 7)),
        (AveragePool2d(5, 3, "valid"), (3, 2, 4)),
        (AveragePool2d(9, 1, "valid"), (3, 1, 6)),
        (SumPool2d(3, 3), (3, 3, 5)),
        (GlobalSumPool(), (3,)),
        (Slice(2), (2, 9, 14)),
        (Slice(2, 1), (2, 9, 14)),
        (PadChannels(5), (5, 9, 14)),
        (Shuffle(3), (3, 9, 14)),
        (Conv2d(6, 3, Real(), groups=3), (6, 9, 14)),
        (Conv2d(6, 3, Real(), 2, dilation=3), (6, 5, 7)),
        (DepthwiseConv2d(5, Real(), 2, "half", dilation=2), (3, 5, 7)),
        (Shift2d(), (3, 9, 14)),
        (DropPath(0.1), (3, 9, 14)),
        (Dropout(0.1), (3, 9, 14)),
    ],
)
def test_the_shape_of_an_operation_on_3_channels_of_9_by_14_pixels(op, shape):
    assert network(PIXELS, (op, (0,))).shapes == [(3, 9, 14), shape]


def test_the_shapes_of_operations_on_several_inputs():
    net = network(
        PIXELS,
        (Conv2d(5, 1, Real(), blocks=("a", "b")), (0, 0)),
        (Concat(), (0, 1, 0)),
        (Add(), (2, 2)),
        (GlobalSumPool(), (3,)),
        (Linear(10, Real(), ("a", "b")), (4, 4)),
        (Concat(), (4, 5)),
    )
    assert net.shapes == [(3, 9, 14), (5, 9, 14), (11, 9, 14), (11, 9, 14), (11,), (10,), (21,)]


@pytest.mark.parametrize(
    ("wrong", "first", "name"),
    [
        ((Add(), (0, 1), "total"), Conv2d(4, 3, Real()), "Add total"),
        ((Add(), (0, 1), "total"), Conv2d(3, 3, Real(), 2), "Add total"),
        ((Concat(), (0, 1), "side"), Conv2d(3, 3, Real(), 2), "Concat side"),
        ((Slice(4), (0,), "more"), MaxPool2d(3), "Slice more"),
        ((Slice(0), (0,), "none"), MaxPool2d(3), "Slice none"),
        ((Slice(2, 2), (0,), "end"), MaxPool2d(3), "Slice end"),
        ((Slice(2, -1), (0,), "start"), MaxPool2d(3), "Slice start"),
        ((PadChannels(2), (0,), "fewer"), MaxPool2d(3), "PadChannels fewer"),
        ((Shuffle(2), (0,), "odd"), MaxPool2d(3), "Shuffle odd"),
        ((Shuffle(0), (0,), "none"), MaxPool2d(3), "Shuffle none"),
        ((Conv2d(4, 1, Real(), groups=2), (0,), "in"), MaxPool2d(3), "Conv2d in"),
        ((Conv2d(4, 1, Real(), groups=3), (0,), "out"), MaxPool2d(3), "Conv2d out"),
        ((Conv2d(3, 1, Real(), groups=0), (0,), "zero"), MaxPool2d(3), "Conv2d zero"),
        ((Conv2d(3, 1, Real(), blocks=("a", "b"), groups=3), (0, 0), "both"), MaxPool2d(3), "Conv2d both"),
        ((Conv2d(4, 1, Real(), blocks=("a", "b")), (0, 1), "join"), MaxPool2d(3, 2), "Conv2d join"),
        ((Linear(10, Real()), (1,), "classes"), MaxPool2d(3), "Linear classes"),
        ((Conv2d(4, 1, Real()), (1,), "late"), GlobalSumPool(), "Conv2d late"),
        ((DepthwiseConv2d(3, Real()), (1,), "late"), GlobalSumPool(), "DepthwiseConv2d late"),
        ((MaxPool2d(3), (1,), "late"), GlobalSumPool(), "MaxPool2d late"),
        ((GlobalSumPool(), (1,), "twice"), GlobalSumPool(), "GlobalSumPool twice"),
        ((AveragePool2d(10, 1, "valid"), (1,), "wide"), MaxPool2d(3), "AveragePool2d wide"),
        ((Add(), (0, 1), "total"), GlobalSumPool(), "Add total"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error_that_names_the_node(wrong, first, name):
    net = network(PIXELS, (first, (0,)), wrong)
    with pytest.raises(InvalidNetwork, match=rf"^node 2 \({name}\)"):
        _ = net.shapes


@pytest.mark.parametrize("inputs", [(1,), (2,), (-1,)])
def test_a_node_reads_earlier_nodes_only(inputs):
    with pytest.raises(InvalidNetwork, match=r"node 1 .* earlier"):
        network(PIXELS, (BatchNorm(), inputs))


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Input((1, 2, 2)), (0,), "Input"),
        (Conv2d(4, 3, Real()), (0, 0), "Conv2d"),
        (Conv2d(4, 3, Real(), blocks=("a", "b")), (0,), "Conv2d"),
        (Linear(4, Real(), ("a", "b")), (0,), "Linear"),
        (Add(), (0,), "Add"),
        (Add(), (0, 0, 0), "Add"),
        (Concat(), (), "Concat"),
        (BatchNorm(), (0, 0), "BatchNorm"),
        (MaxPool2d(3), (), "MaxPool2d"),
    ],
)
def test_a_wrong_number_of_inputs_is_an_error_that_names_the_operation(op, inputs, message):
    with pytest.raises(InvalidNetwork, match=rf"node 1 \({message}\)"):
        network(PIXELS, (op, inputs))


# weights


def test_a_convolution_has_a_weight_per_block_with_its_own_fans():
    net = network(
        PIXELS,
        (MaxPool2d(3), (0,)),
        (Concat(), (0, 1)),
        (Conv2d(4, 5, Binary(), blocks=("from0", "from2")), (0, 2), "conv"),
    )
    assert net.weights(3) == [
        ("conv/from0", (4, 3, 5, 5), Fans(75, 100)),
        ("conv/from2", (4, 6, 5, 5), Fans(150, 100)),
    ]
    assert [weight.size for weight in net.weights(3)] == [300, 600]


def test_a_convolution_of_one_input_is_named_by_its_key_alone():
    net = network(PIXELS, (Conv2d(4, 3, Real()), (0,), "conv"))
    assert net.weights(1) == [("conv", (4, 3, 3, 3), Fans(27, 36))]


def test_a_depthwise_convolution_has_one_filter_per_channel():
    net = network(PIXELS, (DepthwiseConv2d(5, Real()), (0,), "depthwise"))
    assert net.weights(1) == [("depthwise", (3, 1, 5, 5), Fans(25, 25))]


def test_a_grouped_convolution_has_the_weights_of_its_groups():
    net = network(PIXELS, (Conv2d(6, 5, Real(), groups=3), (0,), "grouped"))
    assert net.weights(1) == [("grouped", (6, 1, 5, 5), Fans(25, 50))]


def test_a_product_has_a_matrix_per_block():
    net = network(VECTOR, (Linear(10, Real(), ("", "b")), (0, 0), "classes"))
    assert net.weights(1) == [("classes", (10, 7), Fans(7, 10)), ("classes/b", (10, 7), Fans(7, 10))]


def test_only_convolutions_and_products_have_weights():
    net = network(PIXELS, (BatchNorm(), (0,)), (MaxPool2d(3), (1,)), (Add(), (1, 2)), (GlobalSumPool(), (3,)))
    assert [net.weights(position) for position in range(5)] == [[]] * 5


# ranges


def brute_force(net, latents):
    """The codes each node takes over all images of darkest and brightest pixels and all the given latent weights."""
    channels, height, width = net.shapes[0]
    corners = list(itertools.product((0, 255), repeat=channels * height * width))
    images = torch.tensor(corners, dtype=torch.uint8).reshape(-1, channels, height, width)
    weights = Weights([net])
    names = [each.name for position in range(len(net.nodes)) for each in net.weights(position)]
    reached = [set() for _ in net.nodes]
    with torch.no_grad():
        for values in itertools.product(latents, repeat=sum(weights[name].numel() for name in names)):
            remaining = torch.tensor(values)
            for name in names:
                weights[name].copy_(remaining[: weights[name].numel()].reshape(weights[name].shape))
                remaining = remaining[weights[name].numel() :]
            for position, value in enumerate(run(net, weights, images)):
                reached[position].update(value.codes.unique().tolist())
    return reached


IMAGE = Input((1, 2, 2), offset=(100.0,), scale=(1 / 32,))
SMALL = {
    "binary convolution of pixels": (
        [IMAGE, (Conv2d(1, 2, Binary()), (0,), "conv")],
        [-1.0, 1.0],
    ),
    "ternary convolution of pixels": (
        [IMAGE, (Conv2d(1, 2, Ternary()), (0,), "conv")],
        [-1.0, 0.0, 1.0],
    ),
    "dilated ternary convolution of pixels": (
        [Input((1, 3, 3), offset=(100.0,)), (Conv2d(1, 2, Ternary(), dilation=2), (0,), "conv")],
        [-1.0, 0.0, 1.0],
    ),
    "grouped binary convolution of two channels": (
        [
            IMAGE,
            (Concat(), (0, 0)),
            (Activation(Ternary()), (1,), "act"),
            (Conv2d(2, 1, Binary(), groups=2), (2,), "c"),
        ],
        [-1.0, 1.0],
    ),
    "channels that are padded, shuffled and cut": (
        [
            IMAGE,
            (Activation(Binary()), (0,), "act"),
            (Concat(), (1, 1)),
            (PadChannels(4), (2,)),
            (Shuffle(2), (3,)),
            (Slice(2, 1), (4,)),
        ],
        [],
    ),
    "2-bit depthwise convolution of ternary activations": (
        [IMAGE, (Activation(Ternary()), (0,), "act"), (DepthwiseConv2d(2, FixedPoint(2)), (1,), "depthwise")],
        [-1.0, -0.5, 0.0, 0.5],
    ),
    "unsigned weights and unsigned activations": (
        [
            IMAGE,
            (Activation(Uniform(2, signed=False, step=1.0)), (0,), "act"),
            (Conv2d(2, 1, Uniform(1, signed=False, step=1.0)), (1,), "conv"),
        ],
        [0.0, 1.0],
    ),
    "pools of binary activations": (
        [
            IMAGE,
            (Activation(Binary()), (0,), "act"),
            (MaxPool2d(3), (1,)),
            (SumPool2d(2), (1,)),
            (GlobalSumPool(), (1,)),
            (Shift2d(), (1,)),
        ],
        [],
    ),
    "pools of pixels": ([IMAGE, (MaxPool2d(2), (0,)), (SumPool2d(2), (0,)), (GlobalSumPool(), (0,))], []),
    "sums and concatenations of one scale": (
        [
            IMAGE,
            (Activation(FixedPoint(3)), (0,), "act"),
            (Shift2d(), (1,)),
            (Add(), (1, 1)),
            (Add(Levels.between(-4, 3)), (1, 1)),
            (Concat(), (1, 2)),
            (Concat(), (1, 3)),
            (Dropout(0.5), (3,)),
            (DropPath(0.5), (3,)),
        ],
        [],
    ),
    "product with a ternary matrix": (
        [IMAGE, (Activation(Ternary()), (0,), "act"), (GlobalSumPool(), (1,)), (Linear(2, Ternary()), (2,), "classes")],
        [-1.0, 0.0, 1.0],
    ),
    "convolution of two inputs": (
        [
            IMAGE,
            (Activation(Binary()), (0,), "act"),
            (SumPool2d(1), (1,)),
            (Conv2d(1, 1, Binary(), blocks=("a", "b")), (1, 1), "conv"),
        ],
        [-1.0, 1.0],
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_ranges_are_the_extremes_that_brute_force_reaches(name):
    nodes, latents = SMALL[name]
    net = network(*nodes)
    for r, reached in zip(net.ranges, brute_force(net, latents), strict=True):
        assert (r.lowest, r.highest) == (min(reached), max(reached))
        assert all(code == int(code) for code in reached)
        assert len(reached) <= 2**r.bits


def test_an_image_takes_8_bits_whatever_is_subtracted_from_it():
    assert network(Input((1, 2, 2), offset=(100.0,))).ranges == [Range(-100, 155, 8)]
    assert network(Input((3, 2, 2), offset=(1.0, 2.0, 3.0))).ranges == [Range(-3, 254, 8)]


def test_a_binary_number_takes_1_bit_and_2_where_padding_puts_zeros():
    net = network(IMAGE, (Activation(Binary()), (0,), "act"), (Shift2d(), (1,)), (MaxPool2d(3), (1,)))
    assert net.ranges[1:] == [Range(-1, 1, 1), Range(-1, 1, 2), Range(-1, 1, 1)]


def test_the_padding_of_a_convolution_counts_as_zero_where_the_input_has_none():
    net = network(
        Input((1, 2, 2), offset=(-10.0,)),
        (Conv2d(1, 3, Uniform(1, signed=False, step=1.0)), (0,), "conv"),
        (SumPool2d(3), (0,)),
        (Shift2d(), (0,)),
    )
    assert net.ranges == [Range(10, 265, 8), Range(0, 2385, 12), Range(0, 2385, 12), Range(0, 265, 9)]


def test_a_sum_of_512_binary_products_goes_from_minus_512_to_512():
    net = network(Input((512,)), (Activation(Binary()), (0,), "act"), (Linear(3, Binary()), (1,), "classes"))
    assert net.ranges[2] == Range(-512, 512, 11)
    assert net.ranges[2].magnitude == 512


@pytest.mark.parametrize(
    "node",
    [
        (Conv2d(1, 1, Real()), (0,), "conv"),
        (BatchNorm(), (0,), "norm"),
        (Activation(Real()), (0,), "act"),
        (AveragePool2d(3), (0,)),
    ],
)
def test_operations_that_make_reals_have_no_range_and_nor_has_what_reads_them(node):
    readers = [
        (Conv2d(1, 1, Binary()), (1,), "conv2"),
        (DepthwiseConv2d(3, Binary()), (1,), "depthwise"),
        (Add(), (0, 1)),
        (Add(Levels.between(-1, 1)), (0, 1)),
        (Concat(), (0, 1)),
        (SumPool2d(3), (1,)),
        (GlobalSumPool(), (1,)),
        (MaxPool2d(3), (1,)),
        (Shift2d(), (1,)),
        (Dropout(0.1), (1,)),
    ]
    assert network(IMAGE, node, *readers).ranges[1:] == [None] * (1 + len(readers))


@pytest.mark.parametrize(
    ("op", "is_integer"),
    [
        (Input((1, 2, 2)), True),
        (Input((3, 2, 2), offset=(1.0, 2.0, 3.0)), True),
        (Input((1, 2, 2), offset=(0.5,)), False),
        (Input((3, 2, 2), scale=(1.0, 1.0, 1.0)), False),
    ],
)
def test_pixels_stay_integers_under_integral_offsets_and_one_scale(op, is_integer):
    assert op.is_integer == is_integer
    assert (network(op).ranges[0] is not None) == is_integer


# structure


def two_headed():
    return network(
        PIXELS,
        (Conv2d(4, 3, Real()), (0,), "stem"),
        (BatchNorm(), (1,), "aux/norm"),
        (Conv2d(6, 3, Real()), (1,), "body"),
        (GlobalSumPool(), (2,)),
        (Linear(10, Real()), (4,), "aux/classes"),
        (GlobalSumPool(), (3,)),
        (Linear(10, Real()), (6,), "classes"),
        auxiliary=5,
    )


def test_the_trunk_drops_the_auxiliary_head_and_keeps_the_rest_in_order():
    trunk = two_headed().trunk
    assert [node.key for node in trunk.nodes] == ["", "stem", "body", "", "classes"]
    assert [node.inputs for node in trunk.nodes] == [(), (0,), (1,), (2,), (3,)]
    assert trunk.auxiliary is None
    assert trunk.shapes[-1] == (10,)


def test_a_network_without_an_auxiliary_head_is_its_own_trunk():
    net = network(PIXELS, (BatchNorm(), (0,), "norm"))
    assert net.trunk is net
    assert two_headed().trunk.trunk == two_headed().trunk


def test_last_use_is_the_last_reader_or_the_node_itself():
    assert two_headed().last_use == [1, 3, 4, 6, 5, 5, 7, 7]


def test_networks_of_equal_nodes_are_equal():
    assert two_headed() == two_headed()
    assert hash(two_headed()) == hash(two_headed())
    assert two_headed() != two_headed().trunk


def test_a_saturated_sum_of_binary_numbers_can_be_zero():
    net = network(Input((1, 2, 2)), (Activation(Binary()), (0,), "act"), (Add(Binary().levels), (1, 1)))
    assert (net.ranges[2].lowest, net.ranges[2].highest, net.ranges[2].bits) == (-1, 1, 2)


def test_an_auxiliary_output_that_is_no_node_is_refused():
    with pytest.raises(InvalidNetwork, match="auxiliary"):
        network(Input((1, 2, 2)), auxiliary=3)


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 2, 3, 4)])
def test_an_input_is_an_image_or_a_vector(shape):
    with pytest.raises(InvalidNetwork, match="image"):
        network(Input(shape)).shapes  # noqa: B018
