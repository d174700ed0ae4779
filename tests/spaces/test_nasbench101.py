"""The space of NAS-Bench-101: decisions, validity, one representative per module, sampling, networks."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import ConfigError, InvalidArchitecture
from bitwright.modules import Weights, tensor_names
from bitwright.nasbench import space as modules
from bitwright.spaces.nasbench101 import Nasbench101

CIFAR = {"image": (3, 32, 32), "classes": 10, "pixel_mean": (125.3,), "pixel_std": (63.0,)}
SMALL = {"image": (3, 8, 8), "stem_filters": 16, "modules": 1}


def space(**options) -> Nasbench101:
    return Nasbench101(**(CIFAR | options))


WHOLE = space()
FIVE = space(vertices=5, **SMALL)


def choices(vertices: int, edges: str, ops: str) -> tuple[int, ...]:
    """edges: such as "01 16"."""
    wanted = {(int(a), int(b)) for a, b in edges.split()}
    pairs = [(source, target) for target in range(1, vertices) for source in range(target)]
    return (*(int(pair in wanted) for pair in pairs), *map(int, ops))


def test_decisions_are_21_edges_and_5_operations():
    names = [decision.name for decision in WHOLE.decisions]
    assert names[:4] == ["edge/0->1", "edge/0->2", "edge/1->2", "edge/0->3"]
    assert names[20:] == ["edge/5->6", "op/1", "op/2", "op/3", "op/4", "op/5"]
    assert [len(decision.options) for decision in WHOLE.decisions] == [2] * 21 + [3] * 5


@pytest.mark.parametrize(
    ("edges", "valid"),
    [
        ("06", True),
        ("01 16", True),
        ("01 12 23", False),  # nothing reaches the output
        ("16 26", False),  # nothing leaves the input
        ("01 02 03 04 05 16 26 36 46", True),  # vertex 5 leads nowhere: 8 edges remain
        ("01 02 03 04 05 16 26 36 46 56", False),  # 10 edges
        ("06 12 13 14 15 23 24 25 34 35 45", True),  # 10 of the edges do not count
    ],
)
def test_what_lies_on_no_path_does_not_count_and_nine_edges_may_remain(edges: str, valid: bool):
    given = choices(7, edges, "00000")
    assert WHOLE.is_valid(given) == valid
    if not valid:
        with pytest.raises(InvalidArchitecture, match="excludes"):
            WHOLE.architecture(given)


def test_every_module_of_five_vertices_is_met_and_has_one_representative(shared: Path):
    """All 2**10 * 3**3 choices against a list of hashes that others made."""
    with (shared / "data/nas-benchmarks/ecnas_5v9e_4epochs.csv").open() as file:
        expected = {row["module_hash"] for row in csv.DictReader(file)}
    representatives = {}
    for bits in range(1024):
        for ops in product(range(3), repeat=3):
            given = (*(bits >> i & 1 for i in range(10)), *ops)
            if FIVE.is_valid(given):
                architecture = FIVE.architecture(given)
                name = FIVE.benchmark_name(architecture)
                canonical = FIVE.canonical(architecture)
                assert FIVE.benchmark_name(canonical) == name
                assert representatives.setdefault(name, canonical) == canonical
    assert set(representatives) == expected


def test_isomorphic_choices_have_one_representative_and_one_network():
    first = WHOLE.architecture(choices(7, "01 02 13 26 36", "01200"))
    second = WHOLE.architecture(choices(7, "01 02 24 16 46", "10020"))
    other = WHOLE.architecture(choices(7, "01 02 13 26 36", "11200"))
    assert WHOLE.canonical(first) == WHOLE.canonical(second) != WHOLE.canonical(other)
    assert WHOLE.network(first) == WHOLE.network(second) != WHOLE.network(other)


def test_every_row_is_the_row_of_its_architecture():
    for row in [0, 1, 423_623, *np.random.default_rng(0).integers(423_624, size=300).tolist()]:
        architecture = WHOLE.of_row(row)
        assert WHOLE.row(architecture) == row
        assert WHOLE.canonical(architecture) == architecture
    assert WHOLE.benchmark_name(WHOLE.of_row(0)) == "00005c142e6f48ac74fdcf73e3439874"


def test_samples_are_uniform_over_modules_or_favour_small_ones_as_published():
    rng = np.random.default_rng(0)
    sizes = {"modules": Counter(), "choices": Counter()}
    for sampling, counter in sizes.items():
        drawn = space(sampling=sampling)
        for _ in range(2000):
            architecture = drawn.sample(rng)
            counter[len(modules.space().operations(drawn.row(architecture)))] += 1
    # parts of the space, and of what the published sampler accepts, by vertices
    assert sizes["modules"][7] / 2000 == pytest.approx(0.848, abs=0.03)
    assert sizes["modules"][6] / 2000 == pytest.approx(0.146, abs=0.03)
    published = {2: 0.097, 3: 0.202, 4: 0.275, 5: 0.303, 6: 0.119, 7: 0.0031}
    for vertices, part in published.items():
        assert sizes["choices"][vertices] / 2000 == pytest.approx(part, abs=0.04)


def test_samples_of_few_vertices_are_uniform_over_their_modules():
    three = space(vertices=4, **SMALL)
    rng = np.random.default_rng(1)
    counts = Counter(three.sample(rng) for _ in range(91 * 60))
    assert len(counts) == 91  # 1 + 6 + 84
    expected = 60
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 140  # chi-square of 90 degrees, 99.9 %


def test_mutations_are_valid_neighbours():
    rng = np.random.default_rng(2)
    architecture = WHOLE.sample(rng)
    for _ in range(20):
        changed = WHOLE.mutate(architecture, rng)
        assert sum(a != b for a, b in zip(architecture.choices, changed.choices, strict=True)) == 1
        assert WHOLE.is_valid(changed.choices)
        architecture = changed


def test_covering_architectures_touch_every_tensor_of_a_supernet():
    supernet = Weights([FIVE.shared_network(a) for a in FIVE.covering()], shared=True)
    rng = np.random.default_rng(3)
    for _ in range(300):
        network = FIVE.shared_network(FIVE.sample(rng))
        for name in tensor_names(network):
            assert name in supernet.state_dict()


def test_a_module_without_convolutions_is_warned_of():
    assert WHOLE.warnings(WHOLE.architecture(choices(7, "01 16", "20000")))
    assert not WHOLE.warnings(WHOLE.architecture(choices(7, "01 16", "00000")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vertices": 8}, "vertices are 2 to 7"),
        ({"sampling": "all"}, "sampling is modules or choices"),
        ({"weight_precision": "17"}, "weight_precision"),
        ({"image": (3,)}, "takes images"),
    ],
)
def test_options_that_mean_nothing_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        space(**options)
