"""NASBench on the real rows: values, draws, budgets and errors of the original."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.errors import ConfigError, DataError
from bitwright.nasbench import ModelSpec, NASBench, OutOfDomainError, synthetic
from bitwright.nasbench.columns import COLUMNS
from bitwright.nasbench.convert import convert
from bitwright.nasbench.space import space

INCEPTION = [[0, 1, 1, 1, 0, 1, 0], *[[0] * 6 + [1]] * 2, [0, 0, 0, 0, 1, 0, 0], *[[0] * 6 + [1]] * 2, [0] * 7]
OPS = ["input", "conv1x1-bn-relu", *["conv3x3-bn-relu"] * 3, "maxpool3x3", "output"]
HASH = "28cfc7874f6d200472e1a9dcd8650aa0"


@pytest.fixture
def benchmark(real_file: Path) -> NASBench:
    return NASBench(real_file, seed=1)


@pytest.fixture(scope="module")
def synthetic_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of each budget of 200 modules, invented."""
    path = tmp_path_factory.mktemp("synthetic")
    synthetic.write(path / "some.tfrecord", rows=np.arange(0, 423_624, 2_119))
    convert(path / "some.tfrecord", path / "some.columns")
    return path / "some.columns"


def expected_runs(modules: dict[str, Any], module_hash: str, epochs: int) -> list[dict[str, float]]:
    return [dict(zip(COLUMNS, run, strict=True)) for run in modules[module_hash]["computed"][str(epochs)]]


def test_all_real_metrics_are_told_without_loss(benchmark: NASBench, real_modules: dict[str, Any]) -> None:
    assert sorted(benchmark.hash_iterator()) == sorted(real_modules)
    for module_hash, module in real_modules.items():
        fixed, computed = benchmark.get_metrics_from_hash(module_hash)
        assert list(fixed) == ["module_adjacency", "module_operations", "trainable_parameters"]
        assert fixed["module_adjacency"].dtype == np.int8
        assert fixed["module_adjacency"].tolist() == module["module_adjacency"]
        assert fixed["module_operations"] == module["module_operations"]
        assert fixed["trainable_parameters"] == module["trainable_parameters"]
        assert sorted(computed) == sorted(map(int, module["computed"]))
        for epochs, runs in computed.items():
            assert runs == expected_runs(real_modules, module_hash, epochs)


def test_a_query_is_one_run_in_the_stored_form(benchmark: NASBench, real_modules: dict[str, Any]) -> None:
    data = benchmark.query(ModelSpec(INCEPTION, OPS))
    assert list(data) == [
        "module_adjacency",
        "module_operations",
        "trainable_parameters",
        "training_time",
        "train_accuracy",
        "validation_accuracy",
        "test_accuracy",
    ]
    stored = real_modules[HASH]
    assert data["module_adjacency"].tolist() == stored["module_adjacency"] != INCEPTION
    assert data["module_operations"] == stored["module_operations"] != OPS
    assert data["trainable_parameters"] == 2_694_282
    assert all(type(data[metric]) is float for metric in list(data)[3:])


def test_draws_are_those_of_the_module_random_with_the_same_seed(real_file: Path, real_modules: dict[str, Any]) -> None:
    spec = ModelSpec(INCEPTION, OPS)
    for seed in (0, 5, "text"):
        benchmark = NASBench(real_file, seed)
        random.seed(seed)
        for i in range(30):
            epochs, halfway = (4, 12, 36, 108)[i % 4], i % 3 == 0
            data = benchmark.query(spec, epochs, stop_halfway=halfway)
            run = expected_runs(real_modules, HASH, epochs)[random.randint(0, 2)]
            point = "halfway_" if halfway else "final_"
            for metric in ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy"):
                assert data[metric] == run[point + metric]


def test_only_a_query_that_succeeds_draws(real_file: Path) -> None:
    spec = ModelSpec(INCEPTION, OPS)
    disturbed, other = NASBench(real_file, 3), NASBench(real_file, 3)
    state = random.getstate()
    for _ in range(10):
        with pytest.raises(OutOfDomainError):
            disturbed.query(spec, epochs=7)
        with pytest.raises(OutOfDomainError):
            disturbed.query(ModelSpec([[0, 0], [0, 0]], ["input", "output"]))
        with pytest.raises(KeyError):
            disturbed.query(ModelSpec([[0, 1], [0, 0]], ["input", "output"]))
        disturbed.is_valid(spec)
        disturbed.get_metrics_from_spec(spec)
        disturbed.query(spec, repeat=1)
        disturbed.query(spec, repeat="mean")
        assert disturbed.query(spec)["training_time"] == other.query(spec)["training_time"]
    assert random.getstate() == state


def test_a_repeat_may_be_chosen(benchmark: NASBench, real_modules: dict[str, Any]) -> None:
    spec = ModelSpec(INCEPTION, OPS)
    runs = expected_runs(real_modules, HASH, 36)
    for i, run in enumerate(runs):
        assert benchmark.query(spec, 36, repeat=i)["test_accuracy"] == run["final_test_accuracy"]
    mean = benchmark.query(spec, 36, True, repeat="mean")
    assert mean["test_accuracy"] == pytest.approx(np.mean([run["halfway_test_accuracy"] for run in runs]), abs=1e-15)
    for wrong in (3, -1, "median", 1.5):
        with pytest.raises(ConfigError, match="0 to 2"):
            benchmark.query(spec, 36, repeat=wrong)


def test_queries_cost_and_nothing_else_does(benchmark: NASBench) -> None:
    spec = ModelSpec(INCEPTION, OPS)
    assert benchmark.get_budget_counters() == (0.0, 0)
    whole = benchmark.query(spec)["training_time"]
    half = benchmark.query(spec, epochs=12, stop_halfway=True)["training_time"]
    assert benchmark.get_budget_counters() == (whole + half, 108 + 6)
    benchmark.is_valid(spec)
    benchmark.get_metrics_from_spec(spec)
    benchmark.get_metrics_from_hash(HASH)
    with pytest.raises(OutOfDomainError):
        benchmark.query(spec, epochs=3)
    assert (benchmark.training_time_spent, benchmark.total_epochs_spent) == (whole + half, 114)
    benchmark.reset_budget_counters()
    assert benchmark.get_budget_counters() == (0.0, 0)


def test_the_epochs_are_checked_before_the_spec(benchmark: NASBench) -> None:
    broken = ModelSpec([[0, 0], [0, 0]], ["input", "output"])
    with pytest.raises(OutOfDomainError, match=r"invalid number of epochs, must be one of \{"):
        benchmark.query(broken, epochs=5)
    with pytest.raises(OutOfDomainError, match="disconnected"):
        benchmark.query(broken, epochs=4)


def test_the_original_attributes_are_there(real_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = NASBench(real_file)
    assert benchmark.valid_epochs == {4, 12, 36, 108}
    assert benchmark.history == {}
    assert benchmark.config["available_ops"] == ["conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"]
    assert [benchmark.config[name] for name in ("module_vertices", "max_edges", "num_repeats")] == [7, 9, 3]
    assert capsys.readouterr().out.splitlines() == [
        "Loading dataset from file... This may take a few minutes...",
        "Loaded dataset in 0 seconds",
    ]


def test_statistics_look_like_the_dicts_and_cannot_be_spoilt(benchmark: NASBench) -> None:
    assert len(benchmark.fixed_statistics) == len(benchmark.computed_statistics) == len(benchmark.hash_iterator()) == 33
    assert HASH in benchmark.fixed_statistics and "0" * 32 not in benchmark.computed_statistics
    assert next(iter(benchmark.hash_iterator())) == "00005c142e6f48ac74fdcf73e3439874"
    benchmark.fixed_statistics[HASH]["module_adjacency"][:] = 7
    benchmark.query(ModelSpec(INCEPTION, OPS))["module_operations"].append("x")
    benchmark.computed_statistics[HASH][4].clear()
    fixed, computed = benchmark.get_metrics_from_hash(HASH)
    assert fixed["module_adjacency"].max() == 1 and len(fixed["module_operations"]) == 7 and len(computed[4]) == 3
    assert dict(benchmark.fixed_statistics.items()).keys() == set(benchmark.hash_iterator())
    assert "33 modules" in repr(benchmark.hash_iterator())


def test_what_the_file_lacks_is_a_key_error(benchmark: NASBench) -> None:
    known = space().hash_of(5)
    for module_hash in (known, "0" * 32):
        with pytest.raises(KeyError, match=module_hash):
            benchmark.get_metrics_from_hash(module_hash)
    with pytest.raises(KeyError, match=known):
        benchmark.query(space().spec(5))
    with pytest.raises(KeyError, match="36"):
        benchmark.query(space().spec(0), epochs=36)  # the first module has runs of 4 and of 108 epochs


def test_one_of_few_runs_is_drawn(benchmark: NASBench, real_modules: dict[str, Any]) -> None:
    (run,) = expected_runs(real_modules, "00005c142e6f48ac74fdcf73e3439874", 4)
    assert {benchmark.query(space().spec(0), 4)["test_accuracy"] for _ in range(10)} == {run["final_test_accuracy"]}


def test_is_valid_is_false_for_too_many_vertices(benchmark: NASBench) -> None:
    chain = np.eye(8, k=1, dtype=int)
    spec = ModelSpec(chain, ["input", *["conv3x3-bn-relu"] * 6, "output"])
    assert not benchmark.is_valid(spec)
    with pytest.raises(OutOfDomainError, match="too many vertices, got 8"):
        benchmark.query(spec)
    assert benchmark.is_valid(ModelSpec(INCEPTION, OPS))


def test_a_spec_changed_by_hand_is_what_it_says(benchmark: NASBench) -> None:
    spec = ModelSpec(INCEPTION, OPS)
    spec.matrix = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]])  # its middle is useless
    spec.ops = ["input", "maxpool3x3", "output"]
    with pytest.raises(KeyError, match=space().hash_of(space().row_of([[0, 1], [0, 0]], ["input", "output"]))):
        benchmark.query(spec)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("available_ops", ["conv3x3-bn-relu", "maxpool3x3"], "unsupported op conv1x1-bn-relu"),
        ("max_edges", 8, "too many edges, got 9"),
        ("module_vertices", 6, "too many vertices, got 7"),
    ],
)
def test_a_narrower_config_is_respected(name: str, value: Any, said: str, benchmark: NASBench) -> None:
    benchmark.config[name] = value
    with pytest.raises(OutOfDomainError, match=said):
        benchmark.query(ModelSpec(INCEPTION, OPS))


def test_a_released_file_is_converted_in_memory(
    shared: Path, capsys: pytest.CaptureFixture[str], real_modules: dict[str, Any]
) -> None:
    path = shared / "data" / "nas-benchmarks" / "nb101_one_real_record.tfrecord"
    benchmark = NASBench(str(path))
    said = capsys.readouterr()
    assert "bitwright nasbench convert" in said.err and "Loaded dataset" in said.out
    assert benchmark.valid_epochs == {4}
    (module_hash,) = benchmark.hash_iterator()
    assert benchmark.computed_statistics[module_hash][4] == expected_runs(real_modules, module_hash, 4)


def test_a_synthetic_file_says_so(synthetic_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = NASBench(synthetic_file, 0)
    assert "synthetic" in capsys.readouterr().err
    assert len(benchmark.hash_iterator()) == 200
    for epochs in (4, 12, 36, 108):
        assert benchmark.query(space().spec(2_119), epochs)["training_time"] > 0


@pytest.mark.parametrize("content", [None, b"", b"foreign" * 100])
def test_what_is_no_data_set_is_a_data_error(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file"):
        NASBench(tmp_path / "file")


def test_evaluate_hands_over_what_the_original_does(
    benchmark: NASBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {}

    def evaluate(matrix: Any, ops: Any, model_dir: Any, config: Any) -> dict[str, Any]:
        seen.update(matrix=matrix, ops=ops, model_dir=model_dir, config=config)
        return {"trainable_parameters": 1}

    monkeypatch.setattr("bitwright.nasbench.training.evaluate", evaluate)
    spec = ModelSpec(INCEPTION, OPS)
    assert benchmark.evaluate(spec, tmp_path) == {"trainable_parameters": 1}
    assert seen == {"matrix": spec.matrix, "ops": spec.ops, "model_dir": tmp_path, "config": benchmark.config}
    with pytest.raises(OutOfDomainError, match="disconnected"):
        benchmark.evaluate(ModelSpec([[0, 0], [0, 0]], ["input", "output"]), tmp_path)
