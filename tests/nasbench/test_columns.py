"""Conversion to the columnar file and back: what it holds, for every real run; what it refuses; how it fails."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import released_records as peer

from bitwright.errors import ConfigError, DataError, StorageError
from bitwright.nasbench import columns, convert, space, synthetic
from bitwright.nasbench.columns import COLUMNS, METRICS, Dataset


def write_records(path: Path, runs: list[peer.Run]) -> Path:
    path.write_bytes(peer.framed([peer.data(run) for run in runs]))
    return path


@pytest.fixture(scope="module")
def runs(shared: Path) -> list[peer.Run]:
    return peer.real_runs(shared)


@pytest.fixture(scope="module")
def real(runs: list[peer.Run], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("real")
    return convert.convert(write_records(folder / "real.tfrecord", runs), folder / "real.nb101")


def test_every_real_run_is_found_exactly(real: Dataset, runs: list[peer.Run]) -> None:
    found: dict[tuple[str, int], int] = defaultdict(int)
    for run in runs:
        row = space.row_of(np.array(run["adjacency"]), run["operations"])
        repeat = found[run["hash"], run["epochs"]]
        found[run["hash"], run["epochs"]] += 1
        for halfway in (True, False):
            expected = tuple(run["evaluations"][2 - halfway][1:])
            assert real.run(row, run["epochs"], repeat, halfway) == expected
        stored = real.runs(row, run["epochs"])[repeat]
        assert stored.tolist() == (*run["evaluations"][1][1:], *run["evaluations"][2][1:])
    assert sum(found.values()) == sum(budget.runs for budget in real.metadata.budgets) == 109
    assert real.budgets == (4, 12, 36, 108)
    assert [budget.modules for budget in real.metadata.budgets] == [2, 1, 1, 33]
    assert real.metadata.wide == ()


def test_means_and_values_over_the_space(real: Dataset, runs: list[peer.Run]) -> None:
    for m, metric in enumerate(METRICS, start=1):
        for halfway in (True, False):
            expected = np.full((columns.ROWS, 3), np.nan)
            places: dict[int, int] = defaultdict(int)
            for run in runs:
                if run["epochs"] == 4:
                    row = space.row_of(np.array(run["adjacency"]), run["operations"])
                    expected[row, places[row]] = run["evaluations"][2 - halfway][m]
                    places[row] += 1
            assert np.array_equal(real.values(metric, 4, halfway), expected, equal_nan=True)
            mean = real.mean(metric, 4, halfway)
            assert mean.dtype == np.float64 and mean.shape == (columns.ROWS,)
            for row in places:
                there = expected[row, : places[row]]
                assert mean[row] == pytest.approx(there.mean(), rel=1e-15)
            assert np.isnan(mean).sum() == columns.ROWS - 2


def test_what_is_not_there_is_said(real: Dataset) -> None:
    first = "00005c142e6f48ac74fdcf73e3439874"
    row = space.space().row_of_hash(first)
    assert (row, real.repeats(row, 4), real.repeats(row, 12), real.repeats(1, 108)) == (0, 1, 0, 0)
    for call, told in (
        (lambda: real.run(0, 4, 1), "module 0 has 1 runs of 4 epochs, no run 1"),
        (lambda: real.run(0, 4, -1), "no run -1"),
        (lambda: real.run(1, 108, 0), "module 1 has 0 runs"),
        (lambda: real.run(423_624, 108, 0), "rows are 0 to 423623"),
        (lambda: real.run(-1, 108, 0), "rows are 0 to 423623"),
        (lambda: real.mean("test_accuracy", 5), "no runs of 5 epochs, only of 4, 12, 36, 108"),
        (lambda: real.mean("accuracy", 4), "no metric 'accuracy'"),
        (lambda: real.stored("total_time", 4), "convert with --keep-all"),
        (lambda: real.stored("nothing", 4), "no column 'nothing'"),
    ):
        with pytest.raises(ConfigError, match=told):
            call()
    assert len(real.runs(1, 108)) == 0


def test_the_file_is_safetensors_for_other_programs(real: Dataset) -> None:
    from safetensors.numpy import load_file

    assert real.path is not None
    arrays = load_file(real.path)
    assert arrays["108/final_test_accuracy"].dtype == np.uint16
    assert arrays["108/final_test_accuracy"].shape == (33, 3)
    assert arrays["108/final_training_time"].dtype == np.float32
    assert arrays["4/counts"].tolist() == [1, 3]
    levels = arrays["108/final_test_accuracy"].astype(np.float32) / np.float32(9984)
    assert np.array_equal(levels.astype(np.float64), real.stored("final_test_accuracy", 108))


def test_a_full_budget_takes_20_bytes_a_run_and_needs_no_list_of_modules(tmp_path: Path) -> None:
    source, target = tmp_path / "all.tfrecord", tmp_path / "all.nb101"
    synthetic.write(source, epochs=(108,), repeats=1)
    full = convert.convert(source, target)
    assert full.metadata.budgets == (columns.Budget(108, 423_624, 1, 423_624),)
    assert target.stat().st_size - 423_624 * 20 < 8192
    assert full.synthetic and "SYNTHETIC" in full.describe()
    accuracy = full.mean("validation_accuracy", 108)
    rng = np.random.default_rng(0)
    contents = peer.contents(source.read_bytes())
    for row in rng.integers(0, len(contents), 50).tolist():
        run = peer.read(contents[row])
        assert run["hash"] == space.space().hash_of(row)
        assert run["parameters"] == space.space().parameters(row)
        assert accuracy[row] == run["evaluations"][2][3]
        assert full.run(row, 108, 0, halfway=True) == tuple(run["evaluations"][1][1:])


def test_the_genuine_record_comes_back_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    genuine = shared / "data/nas-benchmarks/nb101_one_real_record.tfrecord"
    kept = convert.convert(genuine, tmp_path / "one.nb101", keep_all=True)
    convert.restore(kept, tmp_path / "one.tfrecord")
    assert (tmp_path / "one.tfrecord").read_bytes() == genuine.read_bytes()
    assert kept.stored("total_time", 4)[0, 0] == 413.7015450000763
    assert kept.stored("start_test_accuracy", 4)[0, 0] == 0.09985977411270142


def test_any_order_of_runs_comes_back_byte_for_byte(runs: list[peer.Run], tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(len(runs))
    source = write_records(tmp_path / "mixed.tfrecord", [runs[i] for i in order])
    convert.restore(convert.convert(source, tmp_path / "mixed.nb101", keep_all=True), tmp_path / "again.tfrecord")
    assert (tmp_path / "again.tfrecord").read_bytes() == source.read_bytes()


def test_a_synthetic_file_comes_back_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "synthetic.tfrecord"
    synthetic.write(source, rows=np.arange(0, 423_624, 997), epochs=(4, 36), repeats=3)
    convert.restore(convert.load(source, keep_all=True), tmp_path / "again.tfrecord")
    assert (tmp_path / "again.tfrecord").read_bytes() == source.read_bytes()


def test_what_cannot_come_back_is_not_kept(runs: list[peer.Run], shared: Path, tmp_path: Path) -> None:
    content = peer.data(runs[0])
    path = tmp_path / "other.tfrecord"
    path.write_bytes(peer.framed([content, content.replace(b", ", b",")]))
    with pytest.raises(DataError, match="cannot be kept byte for byte"):
        convert.convert(path, tmp_path / "out", keep_all=True)
    assert os.listdir(tmp_path) == ["other.tfrecord"]
    assert convert.load(path).budget(108).runs == 2
    with pytest.raises(ConfigError, match="is JSON"):
        convert.load(shared / "data/nas-benchmarks/nb101_real_rows.json", keep_all=True)
    with pytest.raises(ConfigError, match="convert with --keep-all"):
        convert.restore(convert.load(path), tmp_path / "again")


def test_json_gives_what_the_records_give(shared: Path, real: Dataset) -> None:
    loaded = convert.load(shared / "data/nas-benchmarks/nb101_real_rows.json")
    for epochs in real.budgets:
        assert np.array_equal(loaded.rows(epochs), real.rows(epochs))
        for name in COLUMNS:
            assert np.array_equal(loaded.stored(name, epochs), real.stored(name, epochs), equal_nan=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"columns": [], "modules": {}}',
        '{"columns": COLUMNS, "modules": {}}',
        '{"columns": COLUMNS, "modules": {"00": 3}}',
        '{"columns": COLUMNS, "modules": {"0000": {"module_adjacency": [[0, 0.5], [0, 0]], "module_operations":'
        ' ["input", "output"], "trainable_parameters": 1, "computed": {"4": [[0, 0, 0, 0, 0, 0, 0, 0]]}}}}',
        '{"columns": COLUMNS, "modules": {"0000": {"module_adjacency": [[0, 1], [0, 0]], "module_operations":'
        ' ["input", "output"], "trainable_parameters": 1, "computed": {"4": [[0, 0, 0, 0, 0, 0, 0, 0]]}}}}',
        '{"columns": COLUMNS, "modules": {"0000": {"module_adjacency": [[0, 1], [0, 0]], "module_operations":'
        ' ["input", "output"], "trainable_parameters": 1, "computed": {"5": [[0, 0, 0, 0, 0, 0, 0, 0]]}}}}',
    ],
)
def test_other_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text.replace("COLUMNS", json.dumps(COLUMNS)))
    with pytest.raises(DataError, match=r"is no JSON of|holds no run"):
        convert.load(path)


def test_values_of_another_precision_are_kept_in_float64(runs: list[peer.Run], tmp_path: Path) -> None:
    odd = json.loads(json.dumps(runs))
    last = len(odd) - 1
    odd[last]["evaluations"][2][4] = 0.1
    odd[last]["evaluations"][1][1] = 1e300
    odd[0]["evaluations"][1][2] = float("nan")
    odd[1]["evaluations"][1][3] = -0.0
    odd[2]["evaluations"][2][2] = 1 + 1 / 9984
    path = write_records(tmp_path / "odd.tfrecord", odd)
    wide = convert.convert(path, tmp_path / "odd.nb101")
    places: dict[tuple[str, int], int] = defaultdict(int)
    for run in odd:
        row = space.space().row_of_hash(run["hash"])
        repeat = places[run["hash"], run["epochs"]]
        places[run["hash"], run["epochs"]] += 1
        got = np.array([wide.run(row, run["epochs"], repeat, halfway) for halfway in (True, False)])
        expected = np.array([run["evaluations"][1][1:], run["evaluations"][2][1:]])
        assert got.tobytes() == expected.tobytes()
    assert set(wide.metadata.wide) == {
        f"{run['epochs']}/{name}"
        for run, name in (
            (odd[last], "final_test_accuracy"),
            (odd[last], "halfway_training_time"),
            (odd[0], "halfway_train_accuracy"),
            (odd[1], "halfway_validation_accuracy"),
            (odd[2], "final_train_accuracy"),
        )
    }
    kept = convert.load(path, keep_all=True)
    convert.restore(kept, tmp_path / "again.tfrecord")
    assert (tmp_path / "again.tfrecord").read_bytes() == path.read_bytes()


def test_foreign_files_are_refused_at_the_first_record_that_differs(runs: list[peer.Run], tmp_path: Path) -> None:
    inception = next(run for run in runs if run["hash"].startswith("28cfc787"))
    size = len(peer.framed([peer.data(inception)]))

    def other(**changes: object) -> str:
        path = write_records(tmp_path / "foreign.tfrecord", [inception, {**inception, **changes}])
        with pytest.raises(DataError) as raised:
            convert.convert(path, tmp_path / "out.nb101")
        assert os.listdir(tmp_path) == ["foreign.tfrecord"]
        assert f"the record at byte {size} (module " in str(raised.value)
        return str(raised.value)

    assert "hash is that of no module" in other(hash="0" * 32)
    assert "hash is that of no module" in other(hash="f" * 32)
    assert "hash is that of no module" in other(hash=inception["hash"][:31] + "1")
    swapped = [*inception["operations"]]
    swapped[1], swapped[2] = swapped[2], swapped[1]
    assert "operations are not those" in other(operations=swapped)
    changed = json.loads(json.dumps(inception["adjacency"]))
    changed[0][5] = 1
    assert "adjacency is not the one" in other(adjacency=changed)
    assert "has 2694283 trainable parameters, the module 2694282" in other(parameters=2_694_283)
    path = write_records(tmp_path / "foreign.tfrecord", [inception] * 4)
    with pytest.raises(DataError, match=f"byte {3 * size} .* one run of {inception['epochs']} epochs more than the 3"):
        convert.load(path)


def test_released_files_are_known_by_their_checksum(
    runs: list[peer.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_records(tmp_path / "some.tfrecord", runs)
    digest = convert.hashlib.sha256(path.read_bytes()).hexdigest()
    assert convert.load(path).metadata.released == ""
    monkeypatch.setitem(convert.RELEASED, digest, "nasbench_full.tfrecord")
    loaded = convert.load(path)
    assert (loaded.metadata.released, loaded.metadata.sha256) == ("nasbench_full.tfrecord", digest)
    assert "the released nasbench_full.tfrecord" in loaded.describe()


def test_a_place_that_cannot_be_written_is_named(real: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        columns.write(real, tmp_path / "file" / "below")


def test_writing_what_was_read_gives_the_same_file(real: Dataset, tmp_path: Path) -> None:
    assert real.path is not None
    columns.write(real, tmp_path / "again.nb101")
    assert (tmp_path / "again.nb101").read_bytes() == real.path.read_bytes()


def test_other_files_are_no_columnar_file(real: Dataset, shared: Path, tmp_path: Path) -> None:
    assert real.path is not None and columns.is_columnar(real.path)
    genuine = shared / "data/nas-benchmarks/nb101_one_real_record.tfrecord"
    assert not columns.is_columnar(genuine)
    for path in (genuine, shared / "data/nas-benchmarks/README.md"):
        with pytest.raises(DataError, match="no columnar file"):
            Dataset.open(path)
    with pytest.raises(DataError, match="No such file"):
        Dataset.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="No such file"):
        columns.is_columnar(tmp_path / "nothing")


def test_a_file_is_not_converted_onto_itself_nor_twice(real: Dataset, runs: list[peer.Run], tmp_path: Path) -> None:
    source = write_records(tmp_path / "real.tfrecord", runs)
    with pytest.raises(ConfigError, match="is the file to be converted"):
        convert.convert(source, source)
    assert real.path is not None
    with pytest.raises(ConfigError, match="is a columnar file already"):
        convert.convert(real.path, tmp_path / "again")
    assert os.listdir(tmp_path) == ["real.tfrecord"]


def test_files_of_another_version_are_refused(real: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "VERSION", 2)
    columns.write(replace(real), tmp_path / "newer.nb101")
    monkeypatch.undo()
    with pytest.raises(DataError, match="has version 2 of the format, this program reads 1"):
        Dataset.open(tmp_path / "newer.nb101")
