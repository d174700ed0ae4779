"""Components are found by their file's name; an unknown name lists the known ones."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import bitwright
from bitwright import catalogue
from bitwright.costs import CostModel
from bitwright.errors import BitwrightError, ConfigError
from bitwright.evaluators import Evaluator
from bitwright.quantizers import Quantizer
from bitwright.spaces import DecisionSpace
from bitwright.strategies import Strategy

CONTRACTS = {
    "costs": CostModel,
    "evaluators": Evaluator,
    "quantizers": Quantizer,
    "spaces": DecisionSpace,
    "strategies": Strategy,
}
KINDS = [*CONTRACTS, "datasets"]
COMPONENTS = [(kind, name) for kind in KINDS for name in catalogue.names(kind)]
PACKAGE = Path(bitwright.__file__).parent


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_of_a_catalogue_are_its_files_without_hidden_ones(kind: str) -> None:
    files = sorted(p.stem for p in (PACKAGE / kind).glob("*.py") if not p.stem.startswith("_"))
    assert catalogue.names(kind) == files != []


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_is_the_one_that_its_file_defines(kind: str, name: str) -> None:
    component = catalogue.find(kind, name)
    assert component.__module__ == f"bitwright.{kind}.{name}"
    if kind == "datasets":
        assert component.__name__ == "load"
        assert next(iter(inspect.signature(component).parameters)) == "root"
    else:
        assert component.__name__.lower() == name.replace("_", "")
        assert issubclass(component, CONTRACTS[kind])
        assert not inspect.isabstract(component)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_says_what_it_is(kind: str, name: str) -> None:
    assert import_module(f"bitwright.{kind}.{name}").__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_lists_the_known_ones_in_one_line(kind: str) -> None:
    with pytest.raises(ConfigError) as raised:
        catalogue.find(kind, "phrenology")
    text = str(raised.value)
    assert isinstance(raised.value, BitwrightError)
    assert "'phrenology'" in text and kind in text and "\n" not in text
    assert all(name in text for name in catalogue.names(kind))


@pytest.mark.parametrize("name", ["", "_idx", "Controller", "controller.Policy", "../trial"])
def test_only_names_of_components_are_answered(name: str) -> None:
    with pytest.raises(ConfigError):
        catalogue.find("strategies", name)
    with pytest.raises(ConfigError):
        catalogue.find("datasets", name)
