"""A finished run to make mistakes with, and a way to see that they break nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bitwright.cli import main

TINY = Path(__file__).parents[1] / "end_to_end" / "tiny.yaml"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a search and a training in it, not to be written to."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(["search", "--config", str(TINY), "--out", str(run)]) == 0
    assert main(["train", str(run)]) == 0
    return run


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: run/, searched/ (a run without a training), empty/, file, tiny.yaml."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished, tmp_path / "searched", ignore=shutil.ignore_patterns("train"))
    shutil.copy(TINY, tmp_path / "tiny.yaml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a directory\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that is a mistake; returns the one line it prints. No file may change."""

    def run(arguments: list[str]) -> str:
        before = _files(place)
        capsys.readouterr()
        status = main(arguments)
        errors = capsys.readouterr().err
        assert status == 2
        assert errors.endswith("\n")
        assert errors.count("\n") == 1
        assert "Traceback" not in errors
        assert _files(place) == before
        return errors

    return run


def _files(folder: Path) -> dict[Path, bytes | None]:
    """What there is, less what comes and goes with a connection to SQLite, a lock or TensorBoard."""
    paths = (path for path in folder.rglob("*") if not path.name.endswith(("-shm", "-wal", ".lock")))
    paths = (path for path in paths if "events" not in path.parts)
    return {path: path.read_bytes() if path.is_file() else None for path in paths}
