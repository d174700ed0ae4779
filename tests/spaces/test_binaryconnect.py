"""The published binary networks: their sizes, and what is deployed of networks that were trained with drawn signs."""

import numpy as np
import pytest
import torch

from bitwright.costs.weight_bits import WeightBits
from bitwright.errors import ConfigError
from bitwright.integer.lower import lower
from bitwright.integer.run import Executor
from bitwright.modules import Training, Weights, forward
from bitwright.network import BatchNorm, Conv2d, Flatten, Input, Linear, MaxPool2d
from bitwright.quantizers.binary import Binary
from bitwright.spaces.binaryconnect import Binaryconnect
from bitwright.workload.rows import workload

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def space(image=MNIST, **options):
    return Binaryconnect(image, 10, (33.3,) * image[0], (78.6,) * image[0], **options)


def networks(made):
    architecture = made.architecture(())
    return made.training_network(architecture), made.network(architecture)


def trained(made, seed=0, steps=3):
    """Weights whose running statistics have seen a few batches, and these images."""
    network, _ = networks(made)
    weights = Weights([network], seed=seed)
    images = torch.randint(0, 256, (48, *network.shapes[0]), generator=torch.Generator().manual_seed(seed))
    images = images.to(torch.uint8)
    for step in range(steps):
        training = Training(torch.Generator().manual_seed(step), momentum=0.5)
        with torch.no_grad():
            forward(network, weights, images, training=training)
    return weights, images


def weight_count(network):
    return sum(w.size for i in range(len(network.nodes)) for w in network.weights(i))


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"units": 1024}, [784 * 1024, 1024**2, 1024**2, 1024 * 10]),
        ({"units": 2048}, [784 * 2048, 2048**2, 2048**2, 2048 * 10]),
        ({"units": 4096}, [784 * 4096, 4096**2, 4096**2, 4096 * 10]),
        (
            {"network": "cnn", "image": CIFAR},
            [9 * 3 * 128, 9 * 128**2, 9 * 128 * 256, 9 * 256**2, 9 * 256 * 512, 9 * 512**2, 2**23, 1024**2, 10 * 1024],
        ),
        ({"network": "lenet", "filters": 32}, [25 * 32, 25 * 32 * 64, 64 * 49 * 1024, 1024 * 10]),
    ],
)
def test_the_published_networks_have_their_weights(options, sizes):
    network, _ = networks(space(**options))
    assert [w.size for i in range(len(network.nodes)) for w in network.weights(i)] == sizes


def test_the_network_after_vgg_has_fourteen_million_weights():
    assert weight_count(networks(space(CIFAR, network="cnn"))[0]) == pytest.approx(14.02e6, abs=0.005e6)


def test_every_layer_has_its_pool_and_then_its_normalisation():
    network, _ = networks(space(CIFAR, network="cnn"))
    kinds = [type(node.op) for node in network.nodes]
    stage = [Conv2d, BatchNorm, Conv2d, MaxPool2d, BatchNorm]
    assert kinds == [Input, *stage * 3, Flatten, *[Linear, BatchNorm] * 3]
    assert [network.shapes[i][0] for i, k in enumerate(kinds) if k is Conv2d] == [128, 128, 256, 256, 512, 512]


def test_dense_layers_equal_plain_torch():
    made = space(weights="none", units=16)
    weights, images = trained(made)
    x = ((images.float() - 33) / 78.6).flatten(1)
    for name in ("dense1", "dense2", "dense3", "output"):
        mean, variance = weights.statistics(f"{name}/norm")
        gain, offset = weights[f"{name}/norm/gain"], weights[f"{name}/norm/offset"]
        x = (x @ weights[name].T - mean) / (variance + 1e-4).sqrt() * gain + offset
        x = x if name == "output" else x.relu()
    torch.testing.assert_close(forward(networks(made)[1], weights, images)[0], x, rtol=1e-4, atol=1e-4)


def by_hand(weights, images, draw):
    """Logits of the 3-layer network of rectifiers whose weights are what `draw` makes of latent ones."""
    x = ((images.float() - 33) / 78.6).flatten(1)
    for layer, name in enumerate(("dense1", "dense2", "dense3", "output")):
        mean, variance = weights.statistics(f"{name}/norm")
        x = (x @ draw(weights[name].detach(), layer).T - mean) / (variance + 1e-4).sqrt()
        x = x if name == "output" else x.relu()
    return x


@pytest.mark.parametrize(
    ("options", "draw"),
    [
        ({"weights": "det"}, lambda w, _: torch.where(w >= 0, 1.0, -1.0)),
        ({"weights": "stoch"}, lambda w, _: w),
        ({"weights": "stoch", "evaluated": "real"}, lambda w, _: w),
        ({"weights": "stoch", "evaluated": "binary"}, lambda w, _: torch.where(w >= 0, 1.0, -1.0)),
    ],
)
def test_what_is_deployed_is_what_was_asked_for(options, draw):
    made = space(units=16, **options)
    weights, images = trained(made)
    got = forward(networks(made)[1], weights, images)[0]
    torch.testing.assert_close(got, by_hand(weights, images, draw), rtol=1e-4, atol=1e-3)


def test_an_ensemble_is_the_mean_of_networks_of_drawn_signs():
    made = space(units=16, weights="stoch", evaluated="ensemble", members=4)
    weights, images = trained(made)

    def drawn(member):
        def draw(w, layer):
            u = torch.rand(w.shape, generator=torch.Generator().manual_seed(4 * member + layer))
            return torch.where(u >= (1 - w) / 2, 1.0, -1.0)

        return by_hand(weights, images, draw)

    members = [drawn(member) for member in range(4)]
    assert len({tuple(each.flatten().tolist()) for each in members}) == 4
    got = forward(networks(made)[1], weights, images)[0]
    torch.testing.assert_close(got, sum(members) / 4, rtol=1e-4, atol=1e-3)


def test_drawn_signs_have_the_probability_of_the_weight():
    weight = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0])
    drawn = torch.stack([Binary(sample=k).codes(weight) for k in range(4000)])
    np.testing.assert_allclose((drawn == 1).double().mean(0), [0, 0.25, 0.5, 0.625, 1], atol=0.03)


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"weights": "none"}, 32),
        ({"weights": "det"}, 1),
        ({"weights": "stoch"}, 32),
        ({"weights": "stoch", "evaluated": "binary"}, 1),
        ({"weights": "stoch", "evaluated": "ensemble", "members": 8}, 8),
        ({"weights": "ternary"}, 2),
        ({"weights": "3"}, 3),
    ],
)
def test_bits_of_the_deployed_weights(options, bits):
    _, deployed = networks(space(units=64, **options))
    work = workload(deployed)
    products = {i for i, row in enumerate(work.rows) if row.weights}
    counted = sum(v for i, v in WeightBits()(work).per_node.items() if i in products)
    assert counted == bits * (784 * 64 + 2 * 64 * 64 + 64 * 10)


@pytest.mark.parametrize(("options", "words"), [
    ({"weights": "det"}, None),
    ({"weights": "stoch"}, "32 bits"),
    ({"weights": "stoch", "evaluated": "binary"}, "1 bit"),
    ({"weights": "stoch", "evaluated": "ensemble"}, "8 networks"),
])  # fmt: skip
def test_what_is_evaluated_is_said(options, words):
    made = space(units=16, **options)
    warnings = made.warnings(made.architecture(()))
    assert warnings == [] if words is None else words in warnings[0]


@pytest.mark.parametrize("options", [
    {"activations": "binary"},
    {"activations": "ternary", "weights": "ternary"},
    {"activations": "2", "weights": "4"},
    {"activations": "binary", "weights": "stoch", "evaluated": "binary", "input_dropout": 0.2, "hidden_dropout": 0.5},
    {"activations": "binary", "weights": "stoch", "evaluated": "ensemble", "members": 2},
    {"activations": "binary", "output_bits": 16},
    {"network": "cnn", "filters": 4, "image": CIFAR, "activations": "binary"},
    {"network": "lenet", "filters": 4, "activations": "binary", "h": "glorot"},
])  # fmt: skip
def test_quantized_networks_lower_to_equal_integers(options):
    made = space(**{"units": 32, **options})
    weights, images = trained(made)
    _, deployed = networks(made)
    graph = lower(deployed, weights)
    integers = Executor(graph)(images)
    assert len(integers.unique()) > 10
    torch.testing.assert_close(
        integers.double() * graph.scales[0], forward(deployed, weights, images)[0].double(), rtol=0, atol=0
    )


@pytest.mark.parametrize(("options", "message"), [
    ({"weights": "sign"}, "no weights 'sign': none, det, stoch, ternary, or 2 to 8 bits"),
    ({"activations": "tanh"}, "no precision 'tanh'"),
    ({"evaluated": "ensemble"}, "evaluated: ensemble is of weights: stoch, not of det"),
    ({"evaluated": "real"}, "evaluated: real is of weights: stoch, not of det"),
    ({"weights": "stoch", "evaluated": "ensemble", "members": 3}, "a power of two"),
    ({"units": 0}, "units is at least 1"),
    ({"hidden_dropout": 1.0}, r"in \[0, 1\)"),
    ({"h": 0.0}, "positive or glorot"),
    ({"h": float("inf")}, "positive or glorot"),
    ({"epsilon": 0.0}, "epsilon is positive, got 0.0"),
    ({"epsilon": float("nan")}, "epsilon is positive, got nan"),
    ({"output_bits": 1}, "2 to 16"),
])  # fmt: skip
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        space(**options)
