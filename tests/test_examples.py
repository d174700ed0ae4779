"""The examples run."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_search_in_python_finds_and_trains_a_network():
    main = runpy.run_path(str(EXAMPLES / "search_in_python.py"))["main"]
    assert main(supernet_epochs=2, epochs=6) > 0.5  # chance is 0.1


def test_the_integers_in_python_are_equal_everywhere(tmp_path: Path) -> None:
    compared = runpy.run_path(str(EXAMPLES / "integers_in_python.py"))["main"](tmp_path / "c", epochs=1)
    assert compared.equal
    assert (tmp_path / "c" / "network.c").is_file()


def test_the_original_nasbench_program_runs_on_invented_runs(capsys) -> None:
    nasbench = runpy.run_path(str(EXAMPLES / "nasbench_in_python.py"))["with_invented_runs"]()
    assert nasbench.get_budget_counters()[1] == 108 + 6 + 108
    said = capsys.readouterr()
    assert "2694282 {4: 3, 12: 3, 36: 3, 108: 3}" in said.out and "synthetic" in said.err
