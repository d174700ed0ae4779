"""Parameter counts of the published macro networks: of the definition, and of the published program's final script."""

from __future__ import annotations

from typing import Any

from bitwright.costs.parameters import Parameters
from bitwright.modules import Weights
from bitwright.spaces.enas_macro import EnasMacro

FLOAT: dict[str, Any] = {
    "image": (3, 32, 32),
    "ops": "enas",
    "wiring": "classic",
    "stem_precision": "float",
    "layer_precision": "float",
}
# the architecture of scripts/cifar10_macro_final.sh of melodyguan/enas, a row per layer
PUBLISHED_ARC = """
0
3 0
0 1 0
2 0 0 1
2 0 0 0 0
3 1 1 0 1 0
2 0 0 0 0 0 1
2 0 1 1 0 1 1 1
1 0 1 1 1 0 1 0 1
0 0 0 0 0 0 0 0 0 0
2 0 0 0 0 0 1 0 0 0 0
0 1 0 0 1 1 0 0 0 0 1 1
2 0 1 0 0 0 0 0 1 0 1 1 0
1 0 0 1 0 0 0 1 1 1 0 1 0 1
0 1 1 0 1 0 1 0 0 0 0 0 1 0 0
2 0 0 1 0 0 0 0 0 0 0 1 0 1 0 1
2 0 1 0 0 0 1 0 0 1 1 1 1 0 0 1 0
2 0 0 0 0 1 0 1 0 1 0 0 1 0 1 0 0 1
3 0 1 1 0 1 0 0 0 0 0 1 0 1 0 1 0 0 0
3 0 1 1 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1
0 1 0 0 1 0 1 1 0 0 0 1 0 0 0 0 0 1 1 0 0
3 0 1 0 1 1 0 0 1 0 1 1 0 1 1 0 1 0 0 1 0 0
0 1 0 1 0 1 0 0 0 0 0 0 0 0 1 0 1 0 0 1 0 0 0
0 1 1 0 0 0 1 1 1 0 1 0 0 0 1 0 1 0 0 1 1 0 0 0
"""
PLAIN = {1: 0, 3: 2}  # the program's final network has a plain convolution in place of a separable one


def final_parameters(text: str) -> float:
    space = EnasMacro(**FLOAT, layers=24, filters=96)
    return Parameters()(space.network(space.parse(text))).total


def test_the_supernet_has_the_published_parameters() -> None:
    space = EnasMacro(**FLOAT, layers=12, filters=36)
    weights = Weights((space.shared_network(a) for a in space.covering()), shared=True)
    assert sum(p.numel() for p in weights.parameters()) == 697_860


def test_the_final_network_with_plain_convolutions_has_the_parameters_of_the_published_program() -> None:
    rows = [list(map(int, line.split())) for line in PUBLISHED_ARC.split("\n") if line]
    plain = [[PLAIN.get(op, op), *bits] for op, *bits in rows]
    assert final_parameters(" ".join(str(choice) for row in plain for choice in row)) == 42_559_392


def test_with_separable_convolutions_it_has_as_many_fewer_as_those_have() -> None:
    rows = [list(map(int, line.split())) for line in PUBLISHED_ARC.split("\n") if line]
    fewer = 0
    for layer, (op, *_) in enumerate(rows):
        channels, kernel = 96 * 2 ** (layer // 8), (3, 3, 5, 5)[op]
        fewer += (kernel**2 * channels**2 - (kernel**2 * channels + channels**2)) * (op in PLAIN)
    assert final_parameters(PUBLISHED_ARC) == 42_559_392 - fewer
