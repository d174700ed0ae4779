"""Real modules and runs of NAS-Bench-101."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.nasbench.columns import Dataset
from bitwright.nasbench.convert import convert

LABELS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


@pytest.fixture(scope="session")
def real_rows_file(shared: Path) -> Path:
    path = shared / "data" / "nas-benchmarks" / "nb101_real_rows.json"
    if not path.is_file():
        pytest.skip("the real rows of NAS-Bench-101 are not here")
    return path


@pytest.fixture(scope="session")
def real_modules(real_rows_file: Path) -> dict[str, Any]:
    """By hash: module_adjacency, module_operations, trainable_parameters, computed."""
    modules: dict[str, Any] = json.loads(real_rows_file.read_text())["modules"]
    return modules


@pytest.fixture(scope="session")
def small_modules(shared: Path) -> list[tuple[str, np.ndarray, list[str], int]]:
    """Hash, matrix, operations and parameters of all 2,532 modules of up to five vertices, as EC-NAS has them."""
    path = shared / "data" / "nas-benchmarks" / "ecnas_5v9e_4epochs.csv"
    if not path.is_file():
        pytest.skip("the table of EC-NAS is not here")
    modules = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            size = int(line["vertices"])
            matrix = np.array([int(c) for c in line["adjacency"]], np.int8).reshape(size, size)
            inner = [LABELS[int(c)] for c in line["labels_0conv3x3_1conv1x1_2maxpool"]]
            ops = ["input", *inner, "output"]
            modules.append((line["module_hash"], matrix, ops, int(line["trainable_parameters"])))
    return modules


@pytest.fixture(scope="session")
def real_file(real_rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 109 real runs as a columnar file."""
    path = tmp_path_factory.mktemp("real") / "real.columns"
    assert isinstance(convert(real_rows_file, path), Dataset)
    return path
