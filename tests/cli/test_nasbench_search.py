"""From a search over NAS-Bench-101's modules to integers that are the same everywhere, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main

OPTIONS = [
    "--space.name", "nasbench101", "--space.stem_filters", "8", "--space.modules", "1", "--space.vertices", "5",
    "--space.weight_precision", "4", "--supernet.epochs", "1", "--search.updates", "2", "--search.batch", "4",
    "--search.candidates", "4", "--search.standalone", "0", "--training.epochs", "1",
]  # fmt: skip


@pytest.mark.slow
def test_a_module_is_found_trained_lowered_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--out", "run", *OPTIONS]) == 0
    assert main(["train", "run"]) == 0
    assert main(["lower", "run"]) == 0
    capsys.readouterr()
    assert main(["verify", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]
    assert main(["show", "run", "--out", "pictures"]) == 0
    said = capsys.readouterr().out
    assert "module " in said
    assert " = output(" in said
    assert (tmp_path / "pictures" / "module.dot").read_text().startswith("digraph")
