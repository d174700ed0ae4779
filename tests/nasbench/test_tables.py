"""Tables of benchmarks: published optima and statistics, one interface, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from bitwright.errors import ConfigError, DataError
from bitwright.nasbench import columns, convert, space, synthetic, tables
from bitwright.nasbench.tables import Table

FILES = {
    "ecnas": "ecnas_5v9e_4epochs.csv",
    "nasbench201": "nasbench201_accs.csv",
    "nasbench_macro": "nas-bench-macro_cifar10.json",
    "nasbench101": "nb101_real_rows.json",
}
ROWS = {"ecnas": 2532, "nasbench201": 15_625, "nasbench_macro": 6561, "nasbench101": 423_624}


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data/nas-benchmarks"


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, Table]:
    return {name: tables.load(name, folder / file) for name, file in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_every_table_has_the_same_interface(loaded: dict[str, Table], name: str) -> None:
    table = loaded[name]
    assert len(table) == ROWS[name]
    for row in (0, 1, len(table) // 2, len(table) - 1):
        assert table.row_of(table.architecture(row)) == row
    with pytest.raises(ConfigError):
        table.row_of("no architecture")
    for metric, budgets in table.metrics.items():
        for epochs in budgets or (None,):
            runs, mean = table.runs(metric, epochs), table.values(metric, epochs)
            assert runs.dtype == mean.dtype == np.float64
            assert len(runs) == len(mean) == len(table)
            assert np.array_equal(table.values(metric, epochs, repeat=0), runs[:, 0], equal_nan=True)
            with pytest.raises(ConfigError, match="has repeats 0 to"):
                table.values(metric, epochs, repeat=runs.shape[1])
        assert np.array_equal(table.runs(metric), table.runs(metric, max(budgets, default=None)), equal_nan=True)
        with pytest.raises(ConfigError, match="has the budgets"):
            table.runs(metric, 5)
    with pytest.raises(ConfigError, match="no metric 'accuracy'"):
        table.values("accuracy")
    assert not table.synthetic
    assert (table.training_time() is None) == (name in ("nasbench201", "nasbench_macro"))


def test_names_of_tables_and_their_budgets(loaded: dict[str, Table]) -> None:
    budgets = {name: table.budgets for name, table in loaded.items()}
    assert budgets == {
        "ecnas": (4,),
        "nasbench201": (12, 200),
        "nasbench_macro": (50,),
        "nasbench101": (4, 12, 36, 108),
    }
    with pytest.raises(ConfigError, match="no tabular benchmark 'nas'"):
        tables.load("nas", Path("anywhere"))


@pytest.mark.parametrize(
    ("images", "best", "validation"),
    [("cifar10", 0.943733, 0.84892), ("cifar100", 0.735133, 0.6132), ("imagenet16-120", 0.473111, 0.386667)],
)
def test_nasbench201_has_its_published_optima(folder: Path, images: str, best: float, validation: float) -> None:
    table = tables.nasbench201(folder / FILES["nasbench201"], images)  # type: ignore[arg-type]
    assert table.values("test_accuracy", 200).max() == pytest.approx(best, abs=1e-9)
    assert table.values("validation_accuracy", 12).max() == pytest.approx(validation, abs=1e-9)


def test_nasbench201_rows_are_the_numbers_of_the_benchmark(loaded: dict[str, Table]) -> None:
    table = loaded["nasbench201"]
    assert (table.architecture(0), table.architecture(1), table.architecture(15_624)) == ("421211", "334131", "202022")
    assert table.architecture(6111) == "333132"  # 94.37 %
    assert table.values("test_accuracy", 200)[6111] == table.values("test_accuracy", 200).max()


def test_nasbench_macro_has_its_published_best_and_mean(loaded: dict[str, Table]) -> None:
    table = loaded["nasbench_macro"]
    accuracy = table.values("test_accuracy")
    best = {table.architecture(row) for row in np.flatnonzero(accuracy == accuracy.max()).tolist()}
    assert best == {"22212220", "22212202"}  # one network: identities do nothing wherever in a stage they stand
    assert accuracy.max() == pytest.approx(0.93127, abs=5e-6)
    assert accuracy.mean() == pytest.approx(0.90247, abs=5e-6)
    row = table.row_of("02012100")
    assert table.runs("test_accuracy")[row].tolist() == pytest.approx([0.8947, 0.8895, 0.8917], abs=1e-7)
    assert (table.values("trainable_parameters")[row], table.values("flops")[row]) == (890_666, 47_327_744)


def test_ecnas_has_the_modules_of_the_space_and_the_known_correlations(loaded: dict[str, Table]) -> None:
    table = loaded["ecnas"]
    rows = np.array([space.space().row_of_hash(table.architecture(row)) for row in range(len(table))])
    assert np.array_equal(np.sort(rows), np.flatnonzero(space.rows().vertices <= 5))
    parameters = table.values("trainable_parameters")
    assert np.array_equal(parameters, space.rows().parameters[rows])
    time = table.training_time()
    assert time is not None and np.corrcoef(parameters, time)[0, 1] == pytest.approx(0.892, abs=5e-4)
    rank = spearmanr(table.values("validation_accuracy"), table.values("test_accuracy")).statistic
    assert rank == pytest.approx(0.9996, abs=5e-5)
    for name in ("train_accuracy", "halfway_test_accuracy"):
        assert np.isin(table.values(name), columns.LEVELS).all()


def test_nasbench101_gives_the_real_rows_and_nothing_elsewhere(folder: Path, loaded: dict[str, Table]) -> None:
    table = loaded["nasbench101"]
    described = json.loads((folder / FILES["nasbench101"]).read_text())
    accuracy, halfway = table.runs("test_accuracy", 108), table.runs("halfway_test_accuracy", 108)
    for module_hash, module in described["modules"].items():
        row = table.row_of(module_hash)
        assert accuracy[row].tolist() == [run[7] for run in module["computed"]["108"]]
        assert halfway[row].tolist() == [run[3] for run in module["computed"]["108"]]
        assert table.values("trainable_parameters")[row] == module["trainable_parameters"]
    assert np.isnan(table.values("test_accuracy")).sum() == 423_624 - 33
    time = table.training_time(4)
    assert time is not None and np.isfinite(time).sum() == 2


def test_nasbench101_from_a_columnar_or_a_synthetic_file(tmp_path: Path) -> None:
    source = tmp_path / "synthetic.tfrecord"
    synthetic.write(source, rows=np.array([3, 5]), epochs=(36,))
    convert.convert(source, tmp_path / "synthetic.nb101")
    first, second = tables.nasbench101(source), tables.nasbench101(tmp_path / "synthetic.nb101")
    assert first.synthetic and second.synthetic
    assert np.array_equal(first.runs("training_time"), second.runs("training_time"), equal_nan=True)


def changed(folder: Path, tmp_path: Path, name: str, **changes: str) -> Path:
    """A copy of a CSV file with other values in its first row."""
    with (folder / FILES[name]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0].update(changes)
    path = tmp_path / "changed.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("ecnas", {"module_hash": "0" * 32}, "each of the 2,532 modules"),
        ("ecnas", {"final_test_accuracy": "1.5"}, "test_accuracy of row 0 is"),
        ("ecnas", {"final_training_time": "nan"}, "training_time of row 0 is"),
        ("ecnas", {"final_training_time": "long"}, "row 0: final_training_time is 'long', not a number"),
        ("nasbench201", {"index": "1"}, "the column index is not 0 to 15624"),
        ("nasbench201", {"arch": "421212"}, "each of the 15,625 architectures"),
        ("nasbench201", {"c10_test_200": "99"}, "its best accuracy is 0.990000, not 0.943733"),
    ],
)
def test_changed_tables_are_refused(
    folder: Path, tmp_path: Path, name: str, changes: dict[str, str], told: str
) -> None:
    with pytest.raises(DataError) as raised:
        tables.load(name, changed(folder, tmp_path, name, **changes))
    assert told in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["ecnas", "nasbench201", "nasbench_macro"])
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"[1, 2]", b'{"22212220": {}}', b"{"])
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        tables.load(name, path)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="cannot read"):
        tables.load(name, tmp_path / "nothing")


def test_lines_of_other_lengths_are_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / FILES["ecnas"]).read_text()
    for more in (text + "1,2\n", text.rstrip("\n") + ",7\n"):
        (tmp_path / "other.csv").write_text(more)
        with pytest.raises(DataError, match=r"line 253\d does not have 25 fields"):
            tables.ecnas(tmp_path / "other.csv")


def test_nasbench201_knows_three_sets_of_images(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cifar10, cifar100, imagenet16-120, not 'mnist'"):
        tables.nasbench201(folder / FILES["nasbench201"], "mnist")  # type: ignore[arg-type]
