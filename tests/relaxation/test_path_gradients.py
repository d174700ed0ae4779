"""Gradients of gates against plain torch, in which every gate is there and every option is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_space import TinySpace
from torch import Tensor

from bitwright.modules import Training, Weights, run
from bitwright.relaxation.path_gradients import _source, gate_gradients
from bitwright.spaces import PathChoice
from bitwright.spaces.mobile import Mobile


def images_and_labels(count: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, 4, (count,), generator=generator)


def plain_loss(space: TinySpace, weights: Weights, images: Tensor, labels: Tensor, gates: list[Tensor]) -> Tensor:
    """The loss with y = sum_k g_k o_k(x) in every cell, and in the stem's weights."""

    def normalised(x: Tensor, key: str) -> Tensor:
        return F.relu(F.batch_norm(x, None, None, weights[f"{key}/gain"], weights[f"{key}/offset"], True))

    def option(name: str, cell: int, x: Tensor) -> Tensor:
        if name == "skip":
            return torch.zeros_like(x)
        key = f"cell{cell}/{name}"
        return normalised(F.conv2d(x, weights[f"{key}/conv"], padding=int(name) // 2), f"{key}/bn")

    stem = weights["stem/conv"]
    if space.bits:
        rounded = []
        for bits in space.bits:
            highest = 2 ** (bits - 1) - 1
            scale = stem.abs().max() / highest
            rounded.append((stem / scale).round() * scale)
        stem = sum(g * q for g, q in zip(gates[-1], rounded, strict=True))
    x = normalised(F.conv2d(images.float() / 255, stem, padding=1), "stem/bn")
    for cell in range(space.cells):
        y = sum(g * option(name, cell, x) for g, name in zip(gates[cell], space.options, strict=True))
        assert isinstance(y, Tensor)
        x = x + y if "skip" in space.options else y
    return F.cross_entropy(F.linear(x.flatten(1), weights["output"]), labels)


def one_hot(space: TinySpace, choices: tuple[int, ...]) -> list[Tensor]:
    sizes = [len(d.options) for d in space.decisions]
    return [F.one_hot(torch.tensor(c), n).float().requires_grad_() for c, n in zip(choices, sizes, strict=True)]


def everything(space: TinySpace) -> list[tuple[int, ...]]:
    return [tuple(range(len(d.options))) for d in space.decisions]


@pytest.mark.parametrize("choices", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gradients_of_paths_are_those_of_explicit_gates(choices: tuple[int, int]) -> None:
    space = TinySpace()
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    images, labels = images_and_labels()
    gates = one_hot(space, choices)
    loss = plain_loss(space, weights, images, labels, gates)
    wanted = torch.autograd.grad(loss, gates)
    found, gradients = gate_gradients(space, space.architecture(choices), everything(space), weights, images, labels)
    torch.testing.assert_close(found, loss.detach())
    for decision in range(2):
        torch.testing.assert_close(gradients[decision].float(), wanted[decision], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_gradients_of_quantizers_are_those_of_explicit_gates(choice: int) -> None:
    space = TinySpace(options=("3", "1"), cells=1, bits=(2, 4, 8))
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    images, labels = images_and_labels()
    gates = one_hot(space, (0, choice))
    wanted = torch.autograd.grad(plain_loss(space, weights, images, labels, gates), gates)
    architecture = space.architecture((0, choice))
    _, gradients = gate_gradients(space, architecture, everything(space), weights, images, labels)
    for decision in range(2):
        torch.testing.assert_close(gradients[decision].float(), wanted[decision], rtol=1e-3, atol=1e-6)


def test_only_considered_options_have_gradients_and_those_are_the_same() -> None:
    space = TinySpace(bits=(2, 4, 8))
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    images, labels = images_and_labels()
    architecture = space.architecture((0, 1, 1))
    _, full = gate_gradients(space, architecture, everything(space), weights, images, labels)
    pairs = [(0, 2), (0, 1), (1, 2)]
    _, two = gate_gradients(space, architecture, pairs, weights, images, labels)
    for decision, pair in enumerate(pairs):
        torch.testing.assert_close(two[decision], full[decision][list(pair)])


def test_a_cell_that_puts_out_zeros_has_no_gradient_and_zeros_elsewhere_have_gradient_zero() -> None:
    space = TinySpace()
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    images, labels = images_and_labels()
    skip = space.options.index("skip")
    _, gradients = gate_gradients(space, space.architecture((skip, 0)), everything(space), weights, images, labels)
    assert set(gradients) == {1}
    assert gradients[1][skip] == 0


def test_the_weights_keep_their_values_and_get_no_gradients() -> None:
    space = TinySpace(bits=(2, 8))
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    before = {name: tensor.clone() for name, tensor in weights.state_dict().items()}
    images, labels = images_and_labels()
    gate_gradients(space, space.architecture((0, 1, 0)), everything(space), weights, images, labels)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in weights.parameters())


def test_gradients_in_bfloat16_are_about_those_in_float32() -> None:
    space = TinySpace()
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    images, labels = images_and_labels(64)
    architecture = space.architecture((0, 1))
    _, exact = gate_gradients(space, architecture, everything(space), weights, images, labels)
    _, rough = gate_gradients(space, architecture, everything(space), weights, images, labels, dtype=torch.bfloat16)
    for decision in range(2):
        torch.testing.assert_close(rough[decision], exact[decision], rtol=0.1, atol=0.01)


def test_the_chosen_segment_of_a_mobile_space_gives_what_the_network_has_there() -> None:
    space = Mobile(
        image=(3, 16, 16), classes=4, stem=8, stem_stride=1, first=8, widths=(8, 16), cells=(2, 1), strides=(1, 2),
        kernels=(3, 5), expansions=(3,), head=16, weight_bits=(4, 8), activation_bits=(4, 8),
    )  # fmt: skip
    weights = Weights((space.network(a) for a in space.covering()), shared=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    architecture = space.sample(np.random.default_rng(0))
    network = space.shared_network(architecture)
    values = run(network, weights, images, training=Training())
    keys = [node.key for node in network.nodes]
    for choice in space.gated(architecture):
        if isinstance(choice, PathChoice) and choice.output:
            segment = choice.segments[architecture.choices[choice.decision]]
            assert segment is not None
            output = keys.index(choice.output)
            source = values[_source(network, output, segment)]
            assert source is not None
            (*_, again) = run(segment, weights, source, training=Training())
            there = values[output]
            assert again is not None
            assert there is not None
            assert torch.equal(again.real, there.real)
