"""What every export format owes: to compute what the executor computes, and to be written where it is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bitwright import catalogue
from bitwright.errors import BitwrightError, ExportError
from bitwright.exports import c
from bitwright.verify import reference_outputs
from random_graphs import random_graph, random_inputs

FORMATS = catalogue.names("exports")
WIDEST = 2**24  # that all formats hold


@pytest.fixture(params=FORMATS)
def module(request: pytest.FixtureRequest):
    if request.param == "c" and not any(map(shutil.which, c.COMPILERS)):
        pytest.skip("there is no C compiler")
    return __import__(f"bitwright.exports.{request.param}", fromlist=["export"])


def test_the_formats_are_these() -> None:
    assert FORMATS == ["c", "onnx", "qonnx"]


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_what_is_written_computes_what_the_executor_computes(module, seed: int, tmp_path: Path) -> None:
    graph = random_graph(seed, widest=WIDEST)
    x = random_inputs(graph, 4)
    module.export(graph, tmp_path / "written")
    assert np.array_equal(module.execute(tmp_path / "written", x), reference_outputs(graph, x))


def test_folders_on_the_way_are_made(module, tmp_path: Path) -> None:
    lines = module.export(random_graph(0, widest=WIDEST), tmp_path / "a" / "b" / "written")
    assert (tmp_path / "a" / "b" / "written").exists()
    assert lines and all(isinstance(line, str) and "\n" not in line for line in lines)


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BitwrightError) as caught:
        module.export(random_graph(0, widest=WIDEST), tmp_path / "file" / "written")
    assert "\n" not in str(caught.value)


def test_inputs_of_another_shape_are_refused(module, tmp_path: Path) -> None:
    graph = random_graph(1, widest=WIDEST)
    module.export(graph, tmp_path / "written")
    with pytest.raises(ExportError):
        module.execute(tmp_path / "written", np.zeros((2, 77, 3, 3), dtype=np.int64))
