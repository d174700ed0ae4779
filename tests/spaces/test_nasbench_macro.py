"""NAS-Bench-Macro's networks: which are the same, by what was measured of them."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import product
from pathlib import Path

from bitwright import Architecture
from bitwright.spaces.nasbench_macro import NasbenchMacro

SPACE = NasbenchMacro()
EVERY = [Architecture("nasbench_macro", choices) for choices in product(range(3), repeat=8)]


def test_an_architecture_is_the_blocks_of_eight_layers() -> None:
    assert [len(d.options) for d in SPACE.decisions] == [3] * 8
    assert SPACE.benchmark_name(SPACE.parse("2 2 2 1 2 2 2 0")) == "22212220"


def test_identities_behind_the_first_block_of_a_stage_stand_at_its_end() -> None:
    assert SPACE.canonical(SPACE.parse("0 1 1 0 2 0 0 1")).choices == (0, 1, 1, 2, 0, 0, 1, 0)
    forms = {SPACE.canonical(each) for each in EVERY}
    assert len(forms) == 9 * 21 * 21
    assert all(SPACE.canonical(form) == form for form in forms)


def test_networks_are_the_same_where_the_real_table_has_one_measurement(shared: Path) -> None:
    described = json.loads((shared / "data/nas-benchmarks/nas-bench-macro_cifar10.json").read_text())
    groups: dict[tuple[float, ...], set[Architecture]] = defaultdict(set)
    for each in EVERY:
        row = described[SPACE.benchmark_name(each)]
        groups[*row["test_acc"], row["params"], row["flops"]].add(SPACE.canonical(each))
    assert all(len(forms) == 1 for forms in groups.values())
    assert len(groups) == 3_969


def test_encodings_are_one_hot_choices_of_the_canonical_form() -> None:
    first, second = (SPACE.parse(text) for text in ("0 1 1 0 2 0 0 1", "0 1 1 2 0 0 1 0"))
    rows = SPACE.encodings([first, second])
    assert (rows[0] == rows[1]).all()
    assert rows[0].reshape(8, 3).argmax(1).tolist() == list(second.choices)
