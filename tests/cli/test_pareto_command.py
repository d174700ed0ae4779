"""`bitwright pareto`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

from bitwright.cli import main
from bitwright.cli.pareto import pareto
from bitwright.costs.bit_operations import BitOperations
from bitwright.costs.energy import Energy
from bitwright.errors import ConfigError, DataError, InvalidArchitecture
from bitwright.experiment import Experiment, resolve
from bitwright.latency.keys import keys
from bitwright.latency.table import Entry, LatencyTable
from bitwright.trial import Archive, Measurement
from bitwright.workload.rows import workload

Said = Callable[..., dict[str, object]]


@pytest.fixture
def said(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, object]]:
    """What the command says of a finished search as JSON."""

    def run(*options: str) -> dict[str, object]:
        pareto([str(finished), "--out", str(tmp_path), "--json", *options])
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        assert found == json.loads((tmp_path / "pareto.json").read_text())
        return found

    return run


def rows(found: dict[str, object]) -> list[dict[str, object]]:
    front = found["front"]
    assert isinstance(front, list)
    return front


def test_the_front_is_of_what_was_measured_on_all_images(said: Said, finished: Path) -> None:
    found = said()
    assert found["purposes"] == ["candidate", "random"]
    assert found["notes"] == []
    assert found["objectives"] == {"accuracy": "max", "bit_operations": "min"}
    space = Experiment(resolve(["--config", str(finished / "config.yaml")])).space
    with closing(Archive(finished / "archive.sqlite")) as archive:
        trials = [trial for trial in archive if trial.purpose in ("candidate", "random")]
    networks = {space.canonical(trial.architecture) for trial in trials}
    assert found["architectures"] == len(networks)
    points = {(t.measurement.accuracy, BitOperations()(space.network(t.architecture).trunk).total) for t in trials}
    front = {p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)}
    listed = [(row["objectives"]["accuracy"], row["objectives"]["bit_operations"]) for row in rows(found)]  # type: ignore[index]
    assert set(listed) == front
    assert listed == sorted(listed, reverse=True)


def test_a_front_is_printed_with_the_command_that_trains(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pareto([str(finished), "--out", str(tmp_path), "--objectives", "accuracy,energy,weight_bits"])
    said = capsys.readouterr().out
    assert said.startswith((tmp_path / "pareto.md").read_text())
    assert "| trial | accuracy | energy, nJ | weight bits | architecture |" in said
    command = next(line for line in said.splitlines() if "bitwright train" in line)
    assert command.startswith(f"    bitwright train {finished} --arch ")
    for suffix in ("md", "json", "csv", "svg", "png"):
        assert f"wrote {tmp_path / f'pareto.{suffix}'}" in said


def test_purposes_that_do_not_compare_are_told(said: Said) -> None:
    notes = said("--purpose", "all")["notes"]
    assert notes == [
        "accuracies of candidate, random, sample, search, standalone were not measured in the same way",
        "accuracies of single minibatches vary, so that the front shows those with luck",
    ]
    assert said("--purpose", "standalone")["purposes"] == ["standalone"]


def test_without_accuracy_nothing_is_mixed(said: Said) -> None:
    assert said("--purpose", "all", "--objectives", "energy,seconds")["notes"] == []


def test_costs_are_of_the_network_as_it_is_deployed(said: Said, finished: Path) -> None:
    space = Experiment(resolve(["--config", str(finished / "config.yaml")])).space
    for row in rows(said("--objectives", "energy")):
        network = space.network(space.parse(str(row["architecture"]))).trunk
        assert row["objectives"] == {"energy": Energy()(network).total}


def test_latency_is_read_from_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--space.name=mobile", "--space.widths=[8]", "--space.cells=[2]", "--space.strides=[1]"]
    values = resolve([*small, "--dataset.name=digits", "--device=cpu"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    space = Experiment(values).space
    rng = np.random.default_rng(0)
    architectures = list({space.sample(rng) for _ in range(8)})
    with closing(Archive(tmp_path / "archive.sqlite")) as archive:
        archive.record(architectures, [Measurement(0.5) for _ in architectures])
    networks = {str(a): space.network(a).trunk for a in architectures}
    blocks = sorted({key for network in networks.values() for key in keys(workload(network))})
    table = LatencyTable({key: Entry(1, 2.0**number, 0.0) for number, key in enumerate(blocks)})
    table.write(tmp_path / "table.yaml")

    pareto(
        [str(tmp_path), "--objectives", "accuracy,latency", "--latency-table", str(tmp_path / "table.yaml"), "--json"]
    )
    found = json.loads(capsys.readouterr().out)
    expected = {name: sum(2.0 ** blocks.index(key) for key in keys(workload(n))) for name, n in networks.items()}
    (fastest,) = rows(found)  # all are equally accurate
    assert fastest["objectives"] == {"accuracy": 0.5, "latency": min(expected.values())}
    assert expected[str(fastest["architecture"])] == min(expected.values())
    assert found["reference"]["latency"] == max(expected.values())
    assert found["units"]["latency"] == "ms"


def test_the_reference_may_be_given(said: Said) -> None:
    found = said("--reference", "bit_operations=1e9,accuracy=0")
    assert found["reference"] == {"accuracy": 0.0, "bit_operations": 1e9}


def test_the_report_is_where_the_others_are(place: Path) -> None:
    pareto(["searched"])
    assert {path.name for path in (place / "searched" / "report").glob("pareto.*")} == {
        f"pareto.{suffix}" for suffix in ("md", "json", "csv", "svg", "png")
    }


def test_what_is_printed_can_be_trained(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pareto([str(finished), "--out", str(tmp_path / "report")])
    command = next(line for line in capsys.readouterr().out.splitlines() if "bitwright train" in line)
    text = command.partition('--arch "')[2].removesuffix('"')
    options = ["--out", str(tmp_path / "train"), "--stop-after", "1"]
    assert main(["train", str(finished), "--arch", text, *options]) == 0
    assert text in json.loads((tmp_path / "train" / "network.json").read_text())["architecture"]


MISTAKES = {
    "no such run": (["nowhere"], "there is no nowhere"),
    "no search": (["empty"], "empty holds no search"),
    "an unknown objective": (
        ["run", "--objectives", "accuracy,weight"],
        "no objective 'weight': accuracy, seconds, ",
    ),
    "no objective": (["run", "--objectives", ","], "objectives are one or more"),
    "an unknown purpose": (["run", "--purpose", "told"], "no trials of purpose 'told': candidate, random, sample, sea"),
    "no latency table": (["run", "--objectives", "accuracy,latency"], "latency is read from a table"),
    "a reference without a number": (["run", "--reference", "accuracy"], "takes NAME=NUMBER,..., got 'accuracy'"),
    "a reference of something else": (
        ["run", "--reference", "macs=1"],
        "macs, which is no objective: accuracy",
    ),
    "a file in place of a folder": (["run", "--out", "file"], "--out is a folder, got the file file"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(place: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as raised:
        pareto(arguments)
    assert message in str(raised.value)
    assert not (place / "run" / "report" / "pareto.md").exists()


def test_a_training_is_no_search(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no run/train/archive.sqlite: run/train holds no search"):
        pareto(["run/train"])


def test_a_search_that_has_evaluated_nothing_is_told(place: Path) -> None:
    (place / "searched" / "archive.sqlite").unlink()
    Archive(place / "searched" / "archive.sqlite").close()
    with pytest.raises(DataError, match="nothing has been evaluated yet"):
        pareto(["searched"])


def test_architectures_of_another_space_are_refused(place: Path) -> None:
    with closing(Archive(place / "searched" / "archive.sqlite")) as archive:
        archive.record([type(archive.best.architecture)("enas_micro", (99,))], [Measurement(0.5)], "candidate")
    with pytest.raises(InvalidArchitecture):
        pareto(["searched"])


def test_recurrent_cells_are_refused(place: Path) -> None:
    shutil.rmtree(place / "searched")
    (place / "searched").mkdir()
    (place / "searched" / "config.yaml").write_text("space: {name: enas_rnn}\ndataset: {name: ptb}\n")
    with pytest.raises(ConfigError, match="searched is of recurrent cells, which have no costs"):
        pareto(["searched"])
