"""Imports point down: a file imports from rooms below its own, and never in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bitwright

PACKAGE = Path(bitwright.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Rooms of one row know nothing of each other. "journal" is needed by training, hence far down. A part of a room that
# stands higher than the rest of it has a place of its own; "nasbench.__init__" is the package itself.
LAYERS = (
    ("errors", "version"),
    ("files", "pictures"),
    ("architecture", "datasets", "journal", "kernels", "log_lines", "quantizers"),
    ("network", "normalisation", "pareto", "precision", "recurrent.cell", "text", "trial"),
    ("modules",),
    ("networks", "nasbench"),
    ("spaces",),
    ("integer", "strategies", "train"),
    ("nasbench.training",),
    ("nasbench.api",),
    ("nasbench.__init__",),
    ("codegen", "onnx_graph", "workload"),
    ("latency.keys",),
    ("latency.table",),
    ("costs",),
    ("evaluators", "exports", "imports"),
    ("search",),
    ("nasbench.regret", "recurrent", "relaxation"),
    ("report", "verify"),
    ("latency",),
    ("recurrent.drawing",),
    ("catalogue",),
    ("experiment",),
    ("run_directory",),
    ("recurrent.run", "relaxation.run"),
    ("cli",),
    ("__init__", "__main__"),
)
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

# Inside a room of machinery, and between the contract of a catalogue (its __init__) and its components.
TRAINING = (
    ("__init__",),
    ("distributed", "mixing", "post_training", "random_stream"),
    ("augment", "auto_augment", "checkpoint", "losses", "schedules"),
    ("loader", "recipe"),
    ("optimizers",),
    ("step",),
    ("fit",),
)
CATALOGUES = ("costs", "datasets", "evaluators", "quantizers", "spaces", "strategies")


def module_of(path: Path) -> tuple[str, ...]:
    """("spaces", "enas_micro"); a package is itself: ("spaces",)."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[tuple[str, ...]]:
    """The modules of this package that a file imports anywhere: at its top, in functions, for type checkers."""
    found = set()
    folder = path.relative_to(PACKAGE).parts[:-1]
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in statement.names]
            targets = [target[1:] or ("__init__",) for target in targets if target[0] == "bitwright"]
        elif isinstance(statement, ast.ImportFrom):
            if statement.level:
                origin = folder[: len(folder) - statement.level + 1]
                origin += tuple(statement.module.split(".")) if statement.module else ()
            elif statement.module and statement.module.split(".")[0] == "bitwright":
                origin = tuple(statement.module.split("."))[1:]
            else:
                continue
            targets = [(*origin, alias.name) for alias in statement.names]
            targets = [target if target in MODULES else origin or ("__init__",) for target in targets]
        else:
            continue
        found.update(targets)
    return found


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}


def room_of(module: tuple[str, ...]) -> str:
    """Its name in LAYERS."""
    part = ".".join(module[:2]) if len(module) > 1 else f"{module[0]}.__init__"
    return part if part in RANKS else module[0]


def name_of(module: tuple[str, ...]) -> str:
    return ".".join(module)


def test_the_reader_of_imports_sees_all_forms() -> None:
    assert ("train", "fit") in IMPORTS["evaluators", "from_scratch"]  # from ..train.fit import fit
    assert ("train", "checkpoint") in IMPORTS["train", "fit"]  # from . import checkpoint
    assert ("pictures",) in IMPORTS["datasets", "cifar10"]  # inside a function
    assert ("cli", "deploy") in IMPORTS["cli", "commands"]  # from . import deploy, inside a function
    assert ("catalogue",) in IMPORTS["cli", "commands"]  # from .. import catalogue


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(module) for module in MODULES} == set(RANKS)


@pytest.mark.parametrize("module", sorted(MODULES), ids=name_of)
def test_imports_point_to_lower_rooms(module: tuple[str, ...]) -> None:
    upward = {
        name_of(target)
        for target in IMPORTS[module]
        if room_of(target) != room_of(module) and RANKS[room_of(target)] >= RANKS[room_of(module)]
    }
    assert upward == set()


def test_every_imported_module_exists() -> None:
    assert {target for targets in IMPORTS.values() for target in targets} <= set(MODULES)


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError


@pytest.mark.parametrize("room", CATALOGUES)
def test_a_contract_knows_none_of_its_components(room: str) -> None:
    assert {target for target in IMPORTS[room,] if target[0] == room} == set()


def test_training_is_layered_inside() -> None:
    ranks = {name: rank for rank, names in enumerate(TRAINING) for name in names}
    assert {module[1] for module in MODULES if module[0] == "train" and len(module) == 2} == set(ranks) - {"__init__"}
    for module, targets in IMPORTS.items():
        if module[0] == "train" and len(module) == 2:
            below = {target[1] for target in targets if target[0] == "train" and len(target) == 2}
            assert all(ranks[name] < ranks[module[1]] for name in below), module


def test_outside_packages_that_only_one_command_needs_are_not_imported_at_the_top() -> None:
    slow = {"matplotlib", "pyarrow", "sklearn", "scipy", "PIL", "tensorboard", "rich", "numba", "graphviz", "ray"}
    for module, path in MODULES.items():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        tops = {alias.name.split(".")[0] for s in body if isinstance(s, ast.Import) for alias in s.names}
        tops |= {s.module.split(".")[0] for s in body if isinstance(s, ast.ImportFrom) and s.module and not s.level}
        if module[0] != "cli":
            assert not tops & slow, name_of(module)
