"""The residual networks for CIFAR: published sizes, PyTorch's own layers, and integers that are what was trained."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from bitwright.costs.macs import Macs
from bitwright.errors import ConfigError
from bitwright.integer.compare import differences
from bitwright.integer.lower import lowered
from bitwright.integer.run import Executor
from bitwright.modules import Training, Weights, forward, run, tensor_names
from bitwright.network import Add, Conv2d, Linear
from bitwright.quantizers.uniform import Uniform
from bitwright.spaces.resnet import Resnet

CIFAR = (3, 32, 32)
FLOAT = {"weights": "float", "activations": "float", "first_last": "float"}


def network(image=CIFAR, **options):
    made = Resnet(image, 10, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), **options)
    return made.network(made.architecture(()))


def images(count, shape=CIFAR, seed=0):
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def trained(made, seed=0):
    """Weights whose gains, offsets and learned scales are random and whose running statistics fit."""
    weights, generator = Weights([made], seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in weights.named_parameters():
            if name.endswith(("/gain", "/offset", "/bias", "/log2_range")):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.5)
        forward(made, weights, images(16, made.shapes[0], seed), training=Training(momentum=1.0))
    return weights


# ResNet-8 of MLPerf Tiny has 78,666 parameters: biases in all convolutions (336), no normalisation behind projections
# (192 fewer), and the running statistics of the others (480) are counted. ResNet-20 has 0.27 million in the paper,
# with shortcuts without parameters, where projections and their normalisations have 2,752.
@pytest.mark.parametrize(("blocks", "parameters", "macs"), [(1, 78666 - 336 + 192 - 480, 12501632), (3, 272474, None)])
def test_sizes_are_the_published_ones(blocks, parameters, macs):
    made = network(blocks=blocks)
    weights = Weights([made])
    assert sum(weights[name].numel() for name in tensor_names(made) if "log2_range" not in name) == parameters
    assert sum(isinstance(node.op, Conv2d | Linear) for node in made.nodes) - 2 == 6 * blocks + 2  # two projections
    assert macs is None or Macs()(made).total == macs


def test_the_float_network_is_what_pytorch_s_layers_compute():
    made = network(blocks=2, widths=(4, 6, 8), **FLOAT)
    weights = trained(made)

    def conv(key, x, stride=1):
        w = weights[f"{key}"]
        return F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)

    def norm(key, x):
        return F.batch_norm(x, *weights.statistics(key), weights[f"{key}/gain"], weights[f"{key}/offset"])

    pixels = images(3)
    x = (pixels.float() - 121) * (3 / (63.0 + 62.1 + 66.7))
    x = norm("init_block/bn", conv("init_block/conv", x)).relu()
    for stage, unit in product((1, 2, 3), (1, 2)):
        key = f"stage{stage}/unit{unit}"
        stride = 2 if unit == 1 and stage > 1 else 1
        y = norm(f"{key}/bn1", conv(f"{key}/conv1", x, stride)).relu()
        y = norm(f"{key}/bn2", conv(f"{key}/conv2", y))
        x = y + (norm(f"{key}/shortcut_bn", conv(f"{key}/shortcut_conv", x, stride)) if stride == 2 else x)
        x = x.relu()
    wanted = F.linear(x.mean((2, 3)), weights["output"], weights["output/bias"])
    assert torch.allclose(forward(made, weights, pixels)[0], wanted, rtol=1e-4, atol=1e-5)


PRECISIONS = [
    *product(("8", "4", "2", "binary", "ternary"), ("8", "4", "2", "binary", "ternary"), ("8",)),
    ("3", "5", "binary"),
    ("6", "7", "ternary"),
]


@pytest.mark.parametrize(("weights", "activations", "first_last"), PRECISIONS)
def test_the_integer_graph_computes_every_layer(weights, activations, first_last):
    made = network(
        (3, 8, 8), blocks=2, widths=(4, 6, 8), weights=weights, activations=activations, first_last=first_last
    )
    for seed in range(2):
        store, x = trained(made, seed), images(8, (3, 8, 8), seed + 100)
        lowering = lowered(made, store)
        compared = 0
        for position, exact, codes in differences(made, store, lowering, x, Executor(lowering.graph)):
            assert torch.equal(exact.double(), codes.double()), lowering.graph.label(position)
            compared += 1
        assert compared == len(made.nodes)


@pytest.mark.parametrize("blocks", [1, 2])
def test_sums_are_rectified_sums_of_integers_of_one_scale(blocks):
    made = network((3, 8, 8), blocks=blocks, widths=(4, 6, 8), activations="5")
    values = run(made, trained(made), images(8, (3, 8, 8)), training=Training())
    sums = [(node, value) for node, value in zip(made.nodes, values, strict=True) if isinstance(node.op, Add)]
    assert len(sums) == 3 * blocks
    for node, value in sums:
        left, right = (values[i] for i in node.inputs)
        assert left.scale is right.scale
        assert torch.equal(value.codes, (left.codes + right.codes).clamp(0, 15))


def test_weights_have_a_scale_for_each_filter_but_the_classifier_s():
    per_channel = {
        node.key: node.op.weight.per_channel for node in network().nodes if isinstance(node.op, Conv2d | Linear)
    }
    assert [key for key, apart in per_channel.items() if not apart] == ["output"]
    assert all(isinstance(node.op.weight, Uniform) for node in network().nodes if isinstance(node.op, Conv2d | Linear))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks and widths are at least 1, got 0"),
        ({"widths": ()}, "blocks and widths are at least 1"),
        ({"weights": "9"}, "no precision '9'"),
        ({"activations": "high"}, "no precision 'high'"),
        ({"first_last": "1"}, "no precision '1'"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        network(**options)
