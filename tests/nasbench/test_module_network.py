"""Modules of NAS-Bench-101 as networks, held against plain torch, published parameter counts and all executors."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.errors import ConfigError
from bitwright.integer.lower import lowered
from bitwright.modules import Training, Weights, forward
from bitwright.nasbench.network import Skeleton, module_network
from bitwright.nasbench.training import initialise
from bitwright.network import Network
from bitwright.quantizers.real import Real
from bitwright.verify import verify
from plain_nasbench import CONV1, CONV3, OPS, POOL, Plain, size

INCEPTION = (
    [
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    ["input", CONV1, CONV3, CONV3, CONV3, POOL, "output"],
)


def module(vertices: int, edges: str, ops: str) -> tuple[list[list[int]], list[str]]:
    """edges: such as "01 12"; ops: digits, 0 and 1 for the convolutions, 2 for the pool."""
    matrix = np.zeros((vertices, vertices), dtype=int)
    for a, b in edges.split():
        matrix[int(a), int(b)] = 1
    return matrix.tolist(), ["input", *(OPS[int(op)] for op in ops), "output"]


BEST = module(7, "01 02 05 06 15 23 34 45 56", "10200")
SLICED = module(6, "01 12 13 15 24 35 45", "0120")  # vertex 1 is a channel wider than those that read it
POOLS_ONLY = module(5, "01 12 14 23 34 04", "222")
SKIP = module(2, "01", "")


def random_modules(count: int, seed: int = 0) -> list[tuple[list[list[int]], list[str]]]:
    """Pruned modules of up to 7 vertices and 9 edges, in any order of vertices."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        vertices = int(rng.integers(2, 8))
        matrix = np.triu(rng.random((vertices, vertices)) < rng.uniform(0.3, 0.8), 1).astype(int)
        full = matrix[:-1].any(1).all() and matrix[:, 1:].any(0).all()
        if full and matrix.sum() <= 9:
            ops = ["input", *(OPS[i] for i in rng.integers(0, 3, vertices - 2)), "output"]
            found.append((matrix.tolist(), ops))
    return found


def reordered(matrix, ops) -> tuple[list[list[int]], list[str]] | None:
    """The same module with two neighbouring inner vertices swapped, if any two have no edge between them."""
    edges = np.array(matrix)
    for v in range(1, len(edges) - 2):
        if not edges[v, v + 1]:
            order = list(range(len(edges)))
            order[v], order[v + 1] = v + 1, v
            return edges[np.ix_(order, order)].tolist(), [ops[i] for i in order]
    return None


def parameters(network: Network) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Weights([network]).parameters())


def tiny(**options) -> Skeleton:
    """16 is 3 * 5 + 1 and 32 is 3 * 10 + 2: shared by three vertices, some are a channel wider."""
    return Skeleton(**{"image": (3, 8, 8), "stem_filters": 16, "modules": 1} | options)


def disturbed(network: Network, seed: int = 0) -> Weights:
    """Weights whose gains, offsets and statistics all matter."""
    weights = Weights([network], seed=seed)
    initialise(weights, network, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted([*weights.named_parameters(), *weights.named_buffers()]):
            noise = torch.rand(tensor.shape, generator=generator)
            match name.rsplit("/", 1)[-1]:
                case "gain" | "variance":
                    tensor.copy_(noise + 0.5)
                case "offset" | "mean" | "bias":
                    tensor.copy_(noise - 0.3)
    return weights


def pixels(count: int, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("cell", "published"), [(INCEPTION, 2_694_282), (BEST, 32_426_634)])
def test_published_cells_have_their_published_number_of_parameters(cell, published):
    assert parameters(module_network(*cell)) == published


def test_the_smallest_module_of_the_space_has_its_published_number_of_parameters():
    assert parameters(module_network(*module(7, "01 12 23 34 45 56", "22222"))) >= 227_274


def test_the_real_rows_have_their_number_of_parameters(shared: Path):
    rows = json.loads((shared / "data/nas-benchmarks/nb101_real_rows.json").read_text())["modules"]
    assert len(rows) == 33
    for row in rows.values():
        network = module_network(row["module_adjacency"], row["module_operations"])
        assert parameters(network) == row["trainable_parameters"]


def test_modules_of_five_vertices_have_the_parameters_that_tensorflow_counted(shared: Path):
    with (shared / "data/nas-benchmarks/ecnas_5v9e_4epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2532
    for row in rows[::40]:
        vertices = int(row["vertices"])
        matrix = np.array([int(e) for e in row["adjacency"]]).reshape(vertices, vertices)
        ops = ["input", *(OPS[int(i)] for i in row["labels_0conv3x3_1conv1x1_2maxpool"]), "output"]
        assert parameters(module_network(matrix, ops)) == int(row["trainable_parameters"])


def test_200_random_modules_have_the_parameters_of_plain_torch_in_both_orders_of_their_vertices():
    differ = 0
    for matrix, ops in random_modules(200):
        expected = size(matrix, ops, modules=1)
        assert parameters(module_network(matrix, ops, Skeleton(modules=1))) == expected
        swapped = reordered(matrix, ops)
        if swapped is not None:
            again = size(*swapped, modules=1)
            assert parameters(module_network(*swapped, Skeleton(modules=1))) == again
            differ += again != expected
    assert differ > 0  # who gets the channel that is left over depends on the order


@pytest.mark.parametrize("training", [False, True])
def test_logits_are_those_of_plain_torch(training: bool):
    cells = [INCEPTION, BEST, SLICED, POOLS_ONLY, SKIP, *random_modules(12, seed=3)]
    slices = 0
    for seed, (matrix, ops) in enumerate(cells):
        network = module_network(matrix, ops, tiny(modules=2))
        slices += sum(type(node.op).__name__ == "Slice" for node in network.nodes)
        weights = disturbed(network, seed)
        known = dict(weights.named_parameters()) | dict(weights.named_buffers())
        used = set()

        def tensors(name, shape, known=known, used=used):
            used.add(name)
            assert known[name].shape == shape, name
            return known[name].double()

        x = pixels(4)
        mine = forward(network, weights, x, training=Training() if training else None)[0]
        plain = Plain(matrix, ops, tensors, training=training, stem=16, modules=2)(x.double())
        torch.testing.assert_close(mine.double(), plain, rtol=1e-3, atol=1e-4)
        assert used == set(known) - ({n for n in known if n.endswith(("/mean", "/variance"))} if training else set())
    assert slices > 0


def test_an_operation_that_is_not_of_the_space_is_named():
    with pytest.raises(ConfigError, match="no operation 'conv5x5': conv3x3-bn-relu"):
        module_network([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv5x5", "output"])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"stem_filters": 3}, "stem_filters"),
        ({"stacks": 0}, "stacks"),
        ({"image": (3, 2, 2)}, "cannot be halved 2 times"),
        ({"weight_precision": "9"}, "weight_precision '9'"),
        ({"pixel_mean": (1.0, 2.0)}, "pixel_mean"),
    ],
)
def test_a_skeleton_that_cannot_be_is_an_error(options, name):
    with pytest.raises(ConfigError, match=name):
        Skeleton(**options)


def test_convolutions_start_truncated_at_two_deviations_and_the_classifier_uniform():
    network = module_network(*module(3, "01 12", "0"), Skeleton(stem_filters=64))
    weights = Weights([network])
    initialise(weights, network, seed=5)
    for position, node in enumerate(network.nodes):
        for shape in network.weights(position):
            values, fan_in = weights[shape.name].detach(), math.prod(shape.shape[1:])
            if node.key == "classifier":
                bound = math.sqrt(6 / (fan_in + 10))
                assert float(values.abs().max()) <= bound < 1.1 * float(values.abs().max())
            else:
                deviation = 1 / math.sqrt(fan_in)
                assert float(values.std()) == pytest.approx(deviation, rel=0.05)
                assert float(values.abs().max()) <= 2 * deviation / 0.87962566103423978
    assert not weights["classifier/bias"].any()


def test_what_a_tensor_starts_as_depends_on_seed_and_name_alone():
    small, large = (module_network(*module(3, "01 12", "0"), tiny(modules=n)) for n in (1, 2))
    first, second, other = Weights([small]), Weights([large]), Weights([small])
    initialise(first, small, 1)
    initialise(second, large, 1)
    initialise(other, small, 2)
    assert torch.equal(first["stack1/module1/vertex1/conv3x3/16"], second["stack1/module1/vertex1/conv3x3/16"])
    assert not torch.equal(first["stem"], other["stem"])


@pytest.mark.parametrize(
    ("cell", "weight", "activation"),
    [
        (SLICED, "4", None),
        (SLICED, "binary", "binary"),
        (SLICED, "8", "8"),
        (INCEPTION, "ternary", "4"),
        (POOLS_ONLY, "2", "3"),
    ],
)
def test_a_quantized_cell_is_the_same_integers_everywhere(cell, weight, activation):
    network = module_network(*cell, tiny(weight_precision=weight, activation_precision=activation))
    weights = disturbed(network)
    with torch.no_grad():
        forward(network, weights, pixels(32), training=Training(momentum=1.0))
    made = lowered(network, weights)
    assert any(type(node.op).__name__ == "Slice" for node in made.graph.nodes) == (cell is SLICED)
    x = pixels(6).numpy().astype(np.int64)
    result = verify(made.graph, x, trained=(network, weights, made))
    assert result.equal
    assert {t.target for t in result.targets if t.skipped is None} >= {"training"}


def test_float_weights_fit_the_quantized_network():
    """At 8 bits the logits of the float network come out, as nearly as 8 bits let them."""
    plain = module_network(*SLICED, tiny())
    coarse = module_network(*SLICED, tiny(weight_precision="8", pixel_std=(64.0,), pixel_mean=(121.0,)))
    trained = disturbed(plain)
    quantized = Weights([coarse])
    missing = quantized.load_state_dict(trained.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("/log2_range") for name in missing.missing_keys)
    wanted, got = forward(plain, trained, pixels(32))[0], forward(coarse, quantized, pixels(32))[0]
    assert torch.corrcoef(torch.stack([wanted.flatten(), got.flatten()]))[0, 1] > 0.95


def test_a_float_network_has_no_quantizer():
    for node in module_network(*INCEPTION).nodes:
        assert getattr(node.op, "weight", Real()) == Real()
        activation = getattr(node.op, "activation", None)
        assert activation is None or activation.levels is None
