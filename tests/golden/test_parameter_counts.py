"""Parameter counts that the programs of ENAS and its descendants printed, or that follow from their definitions."""

from __future__ import annotations

from typing import Any

import pytest

from bitwright.costs.parameters import Parameters
from bitwright.modules import Weights
from bitwright.spaces.enas_micro import EnasMicro

README_ARC = "0 2 1 4 1 3 0 1 1 0 1 0 1 2 0 4 0 0 0 1 1 3 1 4 0 1 1 1 1 2 1 4 3 2 0 2 1 1 0 3"
SECOND_README_ARC = "0 0 0 1 1 0 1 3 1 1 0 3 1 1 1 0 0 4 0 0 1 0 1 4 1 1 1 0 1 2 0 4 0 1 4 0 0 0 0 2"
MNIST_ARC = "1 2 1 3 0 1 0 4 1 1 1 1 0 1 0 1 1 0 0 1 0 1 0 4 1 0 2 0 0 3 1 1 0 0 0 0 4 1 1 0"
WELDING_ARC = "1 0 0 1 0 0 1 1 2 2 1 1 1 1 1 2 1 0 0 0 0 0 0 3 2 2 1 0 2 0 2 3 0 3 4 0 1 0 3 2"
PUBLISHED_ARC = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"


def float_space(**options: Any) -> EnasMicro:
    """The published space: real numbers and the classic wiring."""
    return EnasMicro(
        ops="enas",
        wiring="classic",
        stem_precision="float",
        first_cell_precision="float",
        cell_precision="float",
        **options,
    )


def auxiliary_parameters(space: EnasMicro, text: str | None = None) -> float:
    network = space.shared_network(next(space.covering())) if text is None else space.network(space.parse(text))
    count = Parameters()
    return count(network).total - count(network.trunk).total


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image": (3, 32, 32)}, 5_373_140),
        ({"image": (1, 32, 32)}, 5_372_060),
        ({"image": (3, 64, 64), "reductions": (1, 3, 6)}, 14_406_260),
        ({"image": (1, 32, 32), "cells": 4, "nodes": 3, "reductions": (0, 1, 2)}, 5_201_380),
        ({"image": (3, 32, 32), "cells": 5, "nodes": 3, "reductions": (0, 1, 3)}, 5_804_860),
    ],
    ids=["cifar10", "mnist", "welding", "quantized-mnist", "quantized-cifar10"],
)
def test_the_supernet_has_the_parameters_of_the_published_one(options: dict[str, Any], expected: int) -> None:
    space = float_space(filters=20, **options)
    weights = Weights((space.shared_network(a) for a in space.covering()), shared=True)
    assert sum(p.numel() for p in weights.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"image": (3, 32, 32)}, 412_928), ({"image": (3, 64, 64), "reductions": (1, 3, 6)}, 3_558_656)],
    ids=["cifar10", "welding"],
)
def test_the_auxiliary_head_of_the_supernet_comes_on_top(options: dict[str, Any], expected: int) -> None:
    assert auxiliary_parameters(float_space(filters=20, auxiliary=True, **options)) == expected


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"image": (1, 32, 32), "filters": 16, "cells": 17, "reductions": (3, 7, 15)}, MNIST_ARC, 1_931_536),
        ({"image": (3, 64, 64), "filters": 16, "cells": 17, "reductions": (3, 7, 15)}, WELDING_ARC, 1_703_632),
        ({"image": (3, 32, 32), "filters": 36, "cells": 17}, PUBLISHED_ARC, 3_894_372),
        ({"image": (1, 32, 32), "filters": 16, "cells": 8, "reductions": (1, 3, 6)}, README_ARC, 860_752),
        ({"image": (3, 32, 32), "filters": 16, "cells": 17, "reductions": (3, 7, 15)}, README_ARC, 1_421_872),
    ],
    ids=["mnist", "welding", "published", "readme-8-cells", "readme-17-cells"],
)
def test_the_stand_alone_network_has_the_parameters_of_the_published_one(
    options: dict[str, Any], text: str, expected: int
) -> None:
    space = float_space(**options)
    network = space.network(space.parse(text))
    assert Parameters()(network).total == expected
    assert sum(p.numel() for p in Weights([network]).parameters()) == expected


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"image": (1, 32, 32), "filters": 16, "reductions": (3, 7, 15)}, MNIST_ARC, 443_648),
        ({"image": (3, 64, 64), "filters": 16, "reductions": (3, 7, 15)}, WELDING_ARC, 3_581_184),
        ({"image": (3, 32, 32), "filters": 36}, PUBLISHED_ARC, 494_848),
    ],
    ids=["mnist", "welding", "published"],
)
def test_the_auxiliary_head_of_the_stand_alone_network_comes_on_top(
    options: dict[str, Any], text: str, expected: int
) -> None:
    assert auxiliary_parameters(float_space(cells=17, auxiliary=True, **options), text) == expected


@pytest.mark.parametrize(
    ("text", "normal", "reduction"),
    [
        (README_ARC, (2, 3, 4, 5, 6), (2, 4, 5, 6)),
        (SECOND_README_ARC, (2, 3, 4, 5, 6), (2, 3, 5, 6)),
        (PUBLISHED_ARC, (2, 3, 4, 5, 6), (2, 4, 5, 6)),
    ],
    ids=["readme", "second-readme", "published"],
)
def test_the_unused_nodes_of_published_cells(text: str, normal: tuple[int, ...], reduction: tuple[int, ...]) -> None:
    space = float_space()
    architecture = space.parse(text)
    assert space.unused(architecture, "normal") == normal
    assert space.unused(architecture, "reduction") == reduction


def test_quantization_does_not_change_the_number_of_parameters() -> None:
    options: dict[str, Any] = {"image": (1, 32, 32), "filters": 16, "reductions": (1, 3, 6), "ops": "enas"}
    quantized = EnasMicro(wiring="classic", **options)
    assert Parameters()(quantized.network(quantized.parse(README_ARC))).total == 860_752
