"""The parquet table: every run once, as the readers of it see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import released_records as peer

from bitwright.errors import StorageError
from bitwright.nasbench import convert, export, synthetic


def test_the_real_runs_are_in_the_table(shared: Path, tmp_path: Path) -> None:
    dataset = convert.load(shared / "data/nas-benchmarks/nb101_real_rows.json")
    assert export.to_parquet(dataset, tmp_path / "real.parquet") == 109
    rows = pq.read_table(tmp_path / "real.parquet").to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["epochs"], row["row"], row["repeat"]))
    found = {(row["module_hash"], row["epochs"], row["repeat"]): row for row in rows}
    assert len(found) == 109
    places: dict[tuple[str, int], int] = {}
    for run in peer.real_runs(shared):
        key = run["hash"], run["epochs"]
        places[key] = places.get(key, -1) + 1
        row = found[*key, places[key]]
        assert row["adjacency"] == "".join(str(edge) for line in run["adjacency"] for edge in line)
        assert row["operations"] == ",".join(run["operations"])
        assert (row["vertices"], row["edges"]) == (len(run["operations"]), np.sum(run["adjacency"]))
        assert row["trainable_parameters"] == run["parameters"]
        for point, evaluation in zip(("halfway", "final"), run["evaluations"][1:], strict=True):
            for name, value in zip(peer.EVALUATION[1:], evaluation[1:], strict=True):
                assert row[f"{point}_{name}"] == value


def test_types_and_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "synthetic.tfrecord"
    synthetic.write(source, rows=np.arange(0, 423_624, 10_000), epochs=(4, 108), repeats=2)
    dataset = convert.load(source)
    export.to_parquet(dataset, tmp_path / "all.parquet")
    schema = pq.read_schema(tmp_path / "all.parquet")
    assert str(schema.field("final_test_accuracy").type) == "float"
    assert json.loads(schema.metadata[b"bitwright"])["synthetic"] is True
    monkeypatch.setattr(export, "MODULES_AT_ONCE", 7)
    export.to_parquet(dataset, tmp_path / "parts.parquet")
    assert pq.read_table(tmp_path / "parts.parquet").equals(pq.read_table(tmp_path / "all.parquet"))


def test_wide_columns_stay_wide(shared: Path, tmp_path: Path) -> None:
    runs = peer.real_runs(shared)
    runs[0]["evaluations"][2][1] = 0.1
    (tmp_path / "odd.tfrecord").write_bytes(peer.framed([peer.data(run) for run in runs]))
    export.to_parquet(convert.load(tmp_path / "odd.tfrecord"), tmp_path / "odd.parquet")
    times = pq.read_table(tmp_path / "odd.parquet")["final_training_time"].to_pylist()
    assert sorted(times) == sorted(run["evaluations"][2][1] for run in runs)


def test_a_place_that_cannot_be_written_is_named(shared: Path, tmp_path: Path) -> None:
    dataset = convert.load(shared / "data/nas-benchmarks/nb101_real_rows.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        export.to_parquet(dataset, tmp_path / "file" / "real.parquet")
