"""Random networks, lowered, give the same integers in every program that runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bitwright.exports import c, onnx, qonnx
from bitwright.integer.lower import lower
from bitwright.verify import reference_outputs
from random_networks import Builder, some_images, trained

COMPILED = {"c": "-O0 -march=native", "c_portable": "-O0 -DNETWORK_PORTABLE"}  # compiling takes most of the time
FEW, MANY = 12, 2000


def check(seed: int, folder: Path) -> None:
    made = Builder(seed).network()
    images = some_images(made, seed)
    graph = lower(made, trained(made, seed, images))
    x = images.numpy().astype(np.int64)
    expected = reference_outputs(graph, x)
    onnx.export(graph, folder / "onnx")
    qonnx.export(graph, folder / "qonnx")
    c.export(graph, folder / "c")
    found = {"onnx": onnx.execute(folder / "onnx", x), "qonnx": qonnx.execute(folder / "qonnx", x)}
    if any(map(shutil.which, c.COMPILERS)):
        found |= {name: c.execute(folder / "c", x, flags=flags) for name, flags in COMPILED.items()}
    for name, outputs in found.items():
        assert np.array_equal(outputs, expected), f"{name}, network {seed}"


@pytest.mark.parametrize("seed", range(FEW))
def test_a_random_network_computes_the_same_everywhere(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.slow
def test_two_thousand_random_networks_compute_the_same_everywhere(tmp_path: Path) -> None:
    for seed in range(FEW, FEW + MANY):
        check(seed, tmp_path)
