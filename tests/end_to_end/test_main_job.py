"""The main job on the command line: search, train, evaluate and show, and what they leave in the run directory."""

from __future__ import annotations

import io
import json
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from bitwright import Architecture
from bitwright.cli import main
from bitwright.experiment import Experiment, read_yaml, resolve
from bitwright.log_lines import read_log
from bitwright.report.evaluation import evaluate
from bitwright.run_directory import TrainingRun
from bitwright.trial import Archive, Trial

TINY = Path(__file__).with_name("tiny.yaml")
ARCH = "0 0 1 1 0 0 2 1 0 0 1 1 0 0 2 1"
PICTURES = {"cells.svg", "cells.png", "cells.dot", "search.png"}


class Job(NamedTuple):
    """A run directory, and what its search and its training printed."""

    run: Path
    searched: str
    trained: str


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    run = tmp_path_factory.mktemp("main_job") / "run"
    outputs = []
    for arguments in (["search", "--config", str(TINY), "--out", str(run)], ["train", str(run)]):
        with redirect_stdout(io.StringIO()) as output:
            assert main(arguments) == 0
        outputs.append(output.getvalue())
    return Job(run, *outputs)


@pytest.fixture
def copy(job: Job, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    shutil.copytree(job.run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command that succeeds without a word on standard error; returns its output."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 0
        output = capsys.readouterr()
        assert output.err == ""
        return output.out

    return run


def trials(run: Path) -> list[Trial]:
    archive = Archive(run / "archive.sqlite")
    archive.close()
    return list(archive)


def best(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "best.json").read_text())
    return content


def findings(run: Path) -> list[tuple[Any, ...]]:
    """What a search has found, less how long it took."""
    return [(t.index, t.purpose, t.architecture, t.measurement.accuracy, t.measurement.costs) for t in trials(run)]


# what a search leaves


def test_a_search_leaves_its_files(job: Job) -> None:
    names = {path.name for path in job.run.iterdir()}
    assert names >= {"config.yaml", "archive.sqlite", "search.log", "events", "checkpoints", "best.json", "report"}
    assert {path.name for path in (job.run / "report").iterdir()} >= {"report.md", "report.json", *PICTURES}
    assert (job.run / "checkpoints" / "search.pt").is_file()
    assert list((job.run / "events").glob("events.out.tfevents.*"))


def test_no_half_written_file_is_left(job: Job) -> None:
    assert list(job.run.rglob("*.part")) == []
    assert list(job.run.rglob("*-wal")) == []


def test_the_archive_holds_every_trial_by_purpose(job: Job) -> None:
    found = trials(job.run)
    assert [t.index for t in found] == list(range(len(found)))
    purposes = Counter(t.purpose for t in found)
    assert purposes == {"search": 2 * 2 * 3, "sample": 2 * 2, "candidate": 4, "random": 4, "standalone": 2}
    by_round = ["search"] * 6 + ["sample"] * 2
    assert [t.purpose for t in found] == 2 * by_round + ["candidate"] * 4 + ["random"] * 4 + ["standalone"] * 2


def test_every_trial_fits_the_space_and_has_its_costs(job: Job) -> None:
    experiment = Experiment(read_yaml(job.run / "config.yaml"))
    for trial in trials(job.run):
        assert experiment.space.architecture(trial.architecture.choices) == trial.architecture
        assert 0 <= trial.measurement.accuracy <= 1
        if trial.purpose != "standalone":
            network = experiment.space.shared_network(trial.architecture).trunk
            assert trial.measurement.costs == {n: c(network).total for n, c in experiment.costs.items()}


def test_the_archive_is_one_sqlite_table(job: Job) -> None:
    connection = sqlite3.connect(f"file:{job.run / 'archive.sqlite'}?mode=ro", uri=True)
    assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("trials",)]
    assert connection.execute("SELECT count(*) FROM trials").fetchone() == (len(trials(job.run)),)
    connection.close()


def test_the_best_is_the_best_candidate_within_the_budget(job: Job) -> None:
    candidates = [t for t in trials(job.run) if t.purpose == "candidate"]
    within = [t for t in candidates if t.measurement.costs["weight_bits"] <= 9000]
    assert within
    chosen = max(within, key=lambda t: t.measurement.accuracy)
    assert best(job.run) == {
        "architecture": str(chosen.architecture),
        "choices": list(chosen.architecture.choices),
        "validation_accuracy": chosen.measurement.accuracy,
        "costs": dict(chosen.measurement.costs),
    }


def test_candidates_are_different_architectures(job: Job) -> None:
    space = Experiment(read_yaml(job.run / "config.yaml")).space
    for purpose in ("candidate", "random"):
        chosen = [space.canonical(t.architecture) for t in trials(job.run) if t.purpose == purpose]
        assert len(set(chosen)) == len(chosen)


def test_the_configuration_is_complete_and_resolves_to_itself(job: Job) -> None:
    written = read_yaml(job.run / "config.yaml")
    assert resolve(["--config", str(job.run / "config.yaml")]) == written
    given = resolve(["--config", str(TINY)])
    assert Path(written["dataset"]["root"]).is_absolute()
    assert written | {"dataset": None} == given | {"dataset": None}


def test_the_log_reads_as_that_of_the_original_program(job: Job) -> None:
    log = read_log((job.run / "search.log").read_text().splitlines())
    found = trials(job.run)
    samples = [t for t in found if t.purpose == "sample"]
    assert [a.text for a in log.architectures] == [" ".join(map(str, t.architecture.choices)) for t in samples]
    assert [a.accuracy for a in log.architectures] == [round(t.measurement.accuracy, 4) for t in samples]
    search = [t.measurement.accuracy for t in found if t.purpose == "search"]
    means = [round(float(np.mean(search[i : i + 6])), 4) for i in (0, 6)]
    assert [(e["epoch"], e["valid_accuracy"]) for e in log.evaluations] == [(1, means[0]), (2, means[1])]
    assert [line["ch_step"] for line in log.child] == [9, 18, 27]
    assert [line["epoch"] for line in log.child] == [0, 1, 2]
    assert log.controller[0]["ctrl_step"] == 0
    assert log.controller[0]["acc"] == round(float(np.mean(search[:3])), 4)


def test_a_listed_architecture_is_what_training_takes(job: Job) -> None:
    space = Experiment(read_yaml(job.run / "config.yaml")).final_space
    for listed in read_log((job.run / "search.log").read_text().splitlines()).architectures:
        assert space.parse(listed.text) in [t.architecture for t in trials(job.run)]


def test_the_report_agrees_with_the_archive(job: Job) -> None:
    report = json.loads((job.run / "report" / "report.json").read_text())
    found = trials(job.run)

    def rows(purpose: str) -> list[tuple[str, float]]:
        return [(str(t.architecture), t.measurement.accuracy) for t in found if t.purpose == purpose]

    assert report["evaluated_architectures"] == len(found)
    for part, purpose in (("candidates", "candidate"), ("random", "random")):
        assert [(row["architecture"], row["accuracy"]) for row in report[part]] == rows(purpose)
    assert [(row["architecture"], row["standalone"]) for row in report["standalone"]] == rows("standalone")
    assert report["best"]["architecture"] == best(job.run)["architecture"]
    assert report["best"]["accuracy"] == best(job.run)["validation_accuracy"]
    means = [np.mean([a for _, a in rows(purpose)]) for purpose in ("candidate", "random")]
    assert report["advantage"] == pytest.approx(means[0] - means[1], abs=1e-12)
    assert report["budgets"] == {"weight_bits": 9000}


def test_the_report_in_words_says_the_same(job: Job) -> None:
    text = (job.run / "report" / "report.md").read_text()
    report = json.loads((job.run / "report" / "report.json").read_text())
    assert best(job.run)["architecture"] in text
    assert f"{best(job.run)['validation_accuracy']:.4f}" in text
    assert f"{report['advantage']:+.4f}" in text
    assert [warning for warning in report["warnings"] if warning not in text] == []
    assert f"{len(trials(job.run))} evaluations" in text


def test_the_pictures_are_pictures(job: Job) -> None:
    for path in (job.run / "report").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 100
    assert "<svg" in (job.run / "report" / "cells.svg").read_text()
    assert (job.run / "report" / "cells.dot").read_text().startswith("digraph")


def test_a_search_says_what_it_found_and_what_comes_next(job: Job) -> None:
    assert f"best architecture: {best(job.run)['architecture']}" in job.searched
    assert f"{best(job.run)['validation_accuracy']:.4f}" in job.searched
    assert job.searched.rstrip().endswith(f"next: bitwright train {job.run}")


# what a training leaves


def test_a_training_leaves_its_files(job: Job) -> None:
    names = {path.name for path in (job.run / "train").iterdir()}
    expected = {
        "config.yaml",
        "network.json",
        ".lock",
        "checkpoint.pt",
        "train.log",
        "events",
        "best.safetensors",
        "report.json",
        "weights.safetensors",
        "result.json",
    }
    assert names == expected


def test_a_training_trains_the_best_architecture(job: Job) -> None:
    for name in ("network.json", "result.json"):
        content = json.loads((job.run / "train" / name).read_text())
        assert content["architecture"] == best(job.run)["architecture"]


def test_a_training_keeps_the_epoch_that_validates_best(job: Job) -> None:
    result = json.loads((job.run / "train" / "result.json").read_text())
    history = result["history"]
    assert [row["epoch"] for row in history] == [1, 2]
    accuracies = [row["validation_accuracy"] for row in history]
    assert result["validation_accuracy"] == max(accuracies)
    assert result["best_epoch"] == max(row["epoch"] for row in history if row["validation_accuracy"] == max(accuracies))


def test_the_training_log_has_a_line_per_epoch(job: Job) -> None:
    lines = (job.run / "train" / "train.log").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["epoch=1", "epoch=2"]
    assert all(line in job.trained for line in lines)


def test_the_weights_name_their_architecture(job: Job) -> None:
    path = job.run / "train" / "weights.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"architecture": best(job.run)["architecture"]}
    assert all(tensor.isfinite().all() for tensor in safetensors.torch.load_file(path).values())


def test_a_training_says_what_comes_next(job: Job) -> None:
    assert job.trained.rstrip().endswith(f"next: bitwright evaluate {job.run}")


# evaluation


def test_evaluation_prints_one_json_object(job: Job, printed: Any) -> None:
    text = printed("evaluate", job.run, "--json", "--threads", 1)
    assert text.count("\n") == 1
    evaluation = json.loads(text)
    assert evaluation["architecture"] == best(job.run)["architecture"]
    assert evaluation["run"] == str(job.run / "train")
    assert evaluation["dataset"] == "digits"
    figures = {name: evaluation[name] for name in ("parameters", "weight_bits", "macs", "bit_operations")}
    assert all(isinstance(figure, int) and figure > 0 for figure in figures.values())
    for name, total in figures.items():
        assert sum(layer[name] for layer in evaluation["layers"]) == total


def test_the_confusion_matrix_counts_every_test_image_once(job: Job, printed: Any) -> None:
    evaluation = json.loads(printed("evaluate", job.run, "--json", "--threads", 1))
    confusion = np.array(evaluation["confusion_matrix"])
    labels = Experiment(read_yaml(job.run / "config.yaml")).dataset.test.labels
    assert confusion.sum() == evaluation["test_images"] == len(labels) == 359
    assert confusion.sum(1).tolist() == torch.bincount(labels).tolist()
    assert evaluation["test_accuracy"] == np.trace(confusion) / confusion.sum()
    assert len(evaluation["classes"]) == len(confusion)


def test_the_weight_bits_of_the_search_are_those_of_the_network(job: Job, printed: Any) -> None:
    evaluation = json.loads(printed("evaluate", job.run, "--json", "--threads", 1))
    assert evaluation["weight_bits"] == best(job.run)["costs"]["weight_bits"]


def test_evaluation_finds_the_validation_accuracy_of_the_training(job: Job, printed: Any) -> None:
    evaluation = json.loads(printed("evaluate", job.run, "--json", "--threads", 1))
    result = json.loads((job.run / "train" / "result.json").read_text())
    assert evaluation["validation_accuracy"] == result["validation_accuracy"]


def test_the_table_says_what_the_json_says(job: Job, printed: Any) -> None:
    table = printed("evaluate", job.run, "--threads", 1)
    evaluation = json.loads(printed("evaluate", job.run, "--threads", 1, "--json"))
    assert f"test accuracy    {evaluation['test_accuracy']:.4f} on 359 images" in table
    for name, label in (("parameters", "parameters"), ("weight_bits", "weight bits"), ("macs", "MACs")):
        assert f"{label:<17}{evaluation[name]:,}" in table
    rows = [" ".join(line.split()) for line in table.splitlines()]
    for name, row in zip(evaluation["classes"], evaluation["confusion_matrix"], strict=True):
        assert " ".join([name, *(str(n) if n else "." for n in row)]) in rows
    named = [line.split()[0] for line in table.splitlines() if line]
    assert [x["name"] for x in evaluation["layers"] if not x["name"].endswith("norm") and x["name"] not in named] == []


def test_a_training_may_be_evaluated_by_its_own_name(job: Job, printed: Any) -> None:
    by_run = json.loads(printed("evaluate", job.run, "--json", "--threads", 1))
    assert json.loads(printed("evaluate", job.run / "train", "--json", "--threads", 1)) == by_run


def test_python_evaluates_as_the_command_does(job: Job, printed: Any) -> None:
    training = TrainingRun.open(job.run / "train")
    evaluation = evaluate(training.network, training.weights(), training.experiment.dataset)
    said = json.loads(printed("evaluate", job.run, "--json", "--threads", 1))
    assert json.loads(json.dumps(evaluation.as_json())).items() <= said.items()


def test_evaluation_changes_no_file(copy: Path, printed: Any) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}

    before = contents()
    printed("evaluate", copy, "--threads", 1)
    assert contents() == before


# further trainings


def test_a_further_training_goes_beside_the_first_and_is_the_one_evaluated(copy: Path, printed: Any) -> None:
    first = (copy / "train" / "weights.safetensors").read_bytes()
    printed("train", copy, "--training.epochs", 1, "--seed", 5)
    assert (copy / "train" / "weights.safetensors").read_bytes() == first
    assert len(json.loads((copy / "train-2" / "result.json").read_text())["history"]) == 1
    assert json.loads(printed("evaluate", copy, "--json", "--threads", 1))["run"] == str(copy / "train-2")


def test_training_again_gives_the_same_weights(copy: Path, printed: Any) -> None:
    printed("train", copy / "best.json")
    first, second = ((copy / name / "weights.safetensors").read_bytes() for name in ("train", "train-2"))
    assert first == second


def test_an_architecture_given_by_hand_is_trained_in_place_of_the_best(copy: Path, printed: Any) -> None:
    printed("train", copy, "--arch", ARCH, "--training.epochs", 1, "--out", copy / "by-hand")
    assert json.loads((copy / "by-hand" / "network.json").read_text()) == {"architecture": f"enas_micro({ARCH})"}
    evaluation = json.loads(printed("evaluate", copy / "by-hand", "--json", "--threads", 1))
    assert evaluation["architecture"] == f"enas_micro({ARCH})"


def test_a_training_may_have_another_final_network(copy: Path, printed: Any) -> None:
    before = json.loads(printed("evaluate", copy, "--json", "--threads", 1))
    printed("train", copy, "--child_num_layers", 1, "--child_out_filters", 8, "--num_epochs", 1)
    after = json.loads(printed("evaluate", copy, "--json", "--threads", 1))
    assert after["parameters"] > before["parameters"]
    assert {layer["name"].partition("/")[0] for layer in after["layers"]} >= {"cell0", "cell1", "cell2"}


def test_a_training_needs_no_search(tmp_path: Path, printed: Any) -> None:
    options = ["--config", TINY, "--training.epochs", 1, "--out", tmp_path / "alone"]
    assert "bitwright evaluate" in printed("train", "--arch", ARCH, *options)
    assert json.loads(printed("evaluate", tmp_path / "alone", "--json", "--threads", 1))["test_images"] == 359


# looking at an architecture


def test_show_describes_the_best_cells_and_draws_them(copy: Path, printed: Any) -> None:
    for path in (copy / "report").glob("cells.*"):
        path.unlink()
    text = printed("show", copy)
    assert best(copy)["architecture"] in text
    assert "normal cell" in text and "reduction cell" in text
    for suffix in ("svg", "png", "dot"):
        assert f"wrote {copy / 'report' / f'cells.{suffix}'}" in text
        assert (copy / "report" / f"cells.{suffix}").stat().st_size > 0


def test_show_draws_the_same_cells_as_the_search(copy: Path, job: Job, printed: Any) -> None:
    printed("show", copy / "best.json", "--out", copy / "pictures")
    assert (copy / "pictures" / "cells.dot").read_text() == (job.run / "report" / "cells.dot").read_text()


def test_show_takes_an_architecture_without_a_run(tmp_path: Path, printed: Any) -> None:
    text = printed("show", "--config", TINY, "--arch", ARCH, "--out", tmp_path)
    assert f"enas_micro({ARCH})" in text
    assert "node 2 = sep3x3/ternary(h[i-2]) + sep3x3/4(h[i-1])" in text
    assert "node 3 = sep3x3/ternary(h[i-2]) + sep3x3/4(node 2)" in text
    assert "output = concat(h[i-1], node 3)" not in text
    assert "output = concat(node 3)" in text


# going on, and repeating


def test_resuming_a_complete_search_says_so_and_changes_nothing(copy: Path, printed: Any) -> None:
    before = findings(copy)
    assert "is complete" in printed("search", "--config", TINY, "--out", copy, "--resume")
    assert findings(copy) == before


def test_resuming_a_complete_training_by_its_name_says_so(copy: Path, printed: Any) -> None:
    before = (copy / "train" / "weights.safetensors").read_bytes()
    assert "is complete" in printed("train", copy, "--out", copy / "train", "--resume")
    assert (copy / "train" / "weights.safetensors").read_bytes() == before


def test_a_run_repeated_from_its_configuration_is_identical(job: Job, tmp_path: Path, printed: Any) -> None:
    again = tmp_path / "again"
    printed("search", "--config", job.run / "config.yaml", "--out", again)
    assert findings(again) == findings(job.run)
    assert best(again) == best(job.run)
    assert (again / "config.yaml").read_bytes() == (job.run / "config.yaml").read_bytes()
    states = [torch.load(run / "checkpoints" / "search.pt", weights_only=True) for run in (job.run, again)]
    first, second = (state["evaluator"]["weights"] for state in states)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    printed("train", again)
    assert [p.read_bytes() for p in again.rglob("weights.safetensors")] == [
        p.read_bytes() for p in job.run.rglob("weights.safetensors")
    ]


@pytest.mark.slow
def test_another_seed_finds_something_else(job: Job, tmp_path: Path, printed: Any) -> None:
    printed("search", "--config", TINY, "--seed", 1, "--out", tmp_path / "other")
    assert [f[2:4] for f in findings(tmp_path / "other")] != [f[2:4] for f in findings(job.run)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--strategy", "random_search"],
        ["--space.ops", "enas"],
        ["--space.wiring", "classic", "--child_use_aux_heads", "--supernet.optimizer", "sgd"],
        ["--search.standalone", "0", "--search.candidates", "1", "--search.samples", "1", "--search.batch", "1"],
        ["--search.budgets", "{weight_bits: 1}"],
        ["--space.cells", "1", "--space.reductions", "[]", "--space.nodes", "1"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_the_job_can_be_done_otherwise(options: list[str], tmp_path: Path, printed: Any) -> None:
    run = tmp_path / "run"
    printed("search", "--config", TINY, "--out", run, *options)
    assert Architecture.parse(best(run)["architecture"]) in [t.architecture for t in trials(run)]
    printed("train", run, "--training.epochs", 1)
    assert json.loads(printed("evaluate", run, "--json", "--threads", 1))["test_images"] == 359
    printed("show", run)


@pytest.mark.slow
def test_a_budget_that_nothing_meets_is_warned_of(tmp_path: Path, printed: Any) -> None:
    text = printed("search", "--config", TINY, "--out", tmp_path / "run", "--search.budgets", "{weight_bits: 1}")
    assert "warning: no candidate met the budgets" in text


@pytest.mark.slow
def test_the_demo_searches_trains_and_deploys(tmp_path: Path, printed: Any) -> None:
    quick = ["--config", TINY, "--search.round_epochs", 1, "--out", tmp_path / "run"]  # the demo's rounds take four
    text = printed("demo", *quick)
    for part in ("best architecture:", "best validation accuracy", "confusion", "test accuracy", "report.md"):
        assert part in text
    again = printed("demo", *quick, "--resume")
    assert "the search in" in again and "the training in" in again
    first, second = (re.sub(r"\([0-9.]+ s\)", "", t[t.index("confusion") :]) for t in (text, again))
    assert first == second
    for target in ("training", "onnx"):
        assert re.search(rf"^  {target} +equal on 359", text, re.MULTILINE)
    assert {p.name for p in (tmp_path / "run" / "deploy").iterdir()} == {"network.onnx", "network.qonnx.onnx", "c"}
    assert (tmp_path / "run" / "train" / "integer.safetensors").is_file()
