"""Recurrent cells from the command line: search, derive, train, evaluate, show and film, each from what others left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bitwright.architecture import Architecture
from bitwright.cli import main
from bitwright.cli.film import moments
from bitwright.cli.flags import translate
from bitwright.experiment import LanguageExperiment, opened, read_yaml, resolve
from bitwright.recurrent.cell import read_dag, write_dag
from bitwright.recurrent.supernet import SharedLanguageModel
from bitwright.spaces.enas_rnn import EnasRnn
from bitwright.trial import Archive, Measurement

NODES = 4
OPTIONS = [
    "--space", "enas_rnn", "--space.nodes", str(NODES), "--model.hidden", "12", "--model.embedding", "12",
    "--supernet.epochs", "2", "--supernet.batch", "4", "--supernet.lr", "5", "--shared.steps", "4",
    "--search.rewards", "6", "--search.derive_every", "1", "--search.derive_samples", "3",
    "--training.epochs", "2", "--training.batch", "4", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, random = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for part, lines in (("train", 60), ("valid", 12), ("test", 12)):
        words = random.integers(0, 9, (lines, 8))
        (path / f"{part}.txt").write_text("\n".join(" ".join(f"w{w}" for w in line) for line in words) + "\n")
    return path


@pytest.fixture(scope="module")
def searched(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "search"
    assert main(["search", *OPTIONS, "--dataset", f"folder:{folder}", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def trained(searched: Path) -> Path:
    assert main(["train", str(searched)]) == 0
    return searched / "train"


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert status == 0, output.err
    return output.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_search_leaves_a_cell_and_its_picture(searched: Path) -> None:
    best = json.loads((searched / "best.json").read_text())
    space = EnasRnn(NODES)
    assert space.cell(space.parse(best["architecture"])) == read_dag(searched / "dag.json")
    assert 1 < best["validation_perplexity"] < 1000
    assert {path.suffix for path in (searched / "report").iterdir()} == {".svg", ".png", ".dot"}


def test_a_complete_search_is_not_repeated(searched: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["search", *OPTIONS, "--dataset", f"folder:{folder}", "--out", str(searched)]
    assert "holds a run already" in refused(capsys, *again)
    assert "is complete" in said(capsys, *again, "--resume")
    assert "a run that is resumed keeps its options" in refused(capsys, *again, "--resume", "--seed", "7")


def test_the_trained_cell_is_evaluated_on_the_test_text(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads(said(capsys, "evaluate", trained, "--json"))
    recorded = json.loads((trained / "result.json").read_text())["validation_perplexity"]
    assert figures["validation_perplexity"] == pytest.approx(recorded, rel=1e-6)
    assert 1 < figures["test_perplexity"] < 1000
    # embedding 10 words of 12 (nine and the end of a line), two products and three blocks of 24 x 12, biases and norm
    assert figures["parameters"] == 10 * 12 + (2 + NODES - 1) * 24 * 12 + 24 + 10 + 24
    assert figures["weight_bits"] == 32 * figures["parameters"]
    assert f"test perplexity  {figures['test_perplexity']:.2f}" in said(capsys, "evaluate", trained.parent)


def test_cells_are_derived_from_a_search_and_from_a_training(
    searched: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (searched, trained):
        out = tmp_path / run.name
        text = said(capsys, "derive", run, "--samples", "2", "--out", out)
        assert "best of 2 cells: enas_rnn(" in text
        assert len(read_dag(out / "dag.json").nodes) == NODES
    assert "say with --out" in refused(capsys, "derive", trained)


def test_a_search_without_a_training_is_evaluated_with_shared_weights(
    searched: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    said(capsys, "search", *OPTIONS, "--dataset", f"folder:{folder}", "--out", out)
    figures = json.loads(said(capsys, "evaluate", out, "--json"))
    found = json.loads((out / "best.json").read_text())["validation_perplexity"]
    assert figures["validation_perplexity"] == pytest.approx(found, rel=1e-5)


def test_a_given_cell_is_trained_from_shared_weights(
    searched: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", *OPTIONS, "--dataset", f"folder:{folder}", "--cell", searched / "dag.json"]
    text = said(capsys, *given, "--out", tmp_path / "started", "--init", searched)
    assert f"from {searched}: " in text
    rows = json.loads((tmp_path / "started" / "result.json").read_text())["history"]
    said(capsys, *given, "--out", tmp_path / "fresh")
    fresh = json.loads((tmp_path / "fresh" / "result.json").read_text())["history"]
    assert rows[0]["loss"] != fresh[0]["loss"]


def test_a_search_starts_from_the_weights_of_a_training(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    text = said(capsys, "search", *OPTIONS, "--dataset", f"folder:{folder}", "--out", out, "--init", trained)
    assert f"from {trained}: " in text


def test_a_cell_of_another_size_brings_its_size(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = EnasRnn(6)
    write_dag(space.cell(space.sample(np.random.default_rng(0))), tmp_path / "dag.json")
    given = ["train", "--space", "enas_rnn", "--cell", tmp_path / "dag.json", "--dataset", f"folder:{folder}"]
    shrunk = ["--model.hidden", "12", "--model.embedding", "12", "--training.batch", "4", "--training.epochs", "1"]
    said(capsys, *given, *shrunk, "--threads", "1", "--out", tmp_path / "run")
    assert read_yaml(tmp_path / "run" / "config.yaml")["space"]["nodes"] == 6


def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    searched: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", *OPTIONS, "--dataset", f"folder:{folder}", "--cell", searched / "dag.json"]
    said(capsys, *given, "--out", tmp_path / "whole")
    assert "--resume goes on" in said(capsys, *given, "--out", tmp_path / "parts", "--stop-after", "2")
    said(capsys, *given, "--out", tmp_path / "parts", "--resume")
    whole, parts = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_training_goes_on_from_the_weights_that_it_started_from(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", searched, "--out", tmp_path / "out"]
    said(capsys, *given, "--init", searched, "--stop-after", "1")
    assert "say with --out" in refused(capsys, "derive", tmp_path / "out")
    assert "started from" in refused(capsys, *given, "--init", searched / "train", "--resume")
    said(capsys, *given, "--resume")
    assert read_dag(tmp_path / "out" / "dag.json") == read_dag(searched / "dag.json")


def test_an_interrupted_search_is_used_and_ends_as_an_uninterrupted_one(
    searched: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["search", *OPTIONS, "--dataset", f"folder:{folder}", "--out", tmp_path / "run"]
    evaluate, left = SharedLanguageModel.evaluate, 9  # of twelve, six in each of two rounds

    def interrupted(model: SharedLanguageModel, architectures: Sequence[Architecture]) -> list[Measurement]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return evaluate(model, architectures)

    with monkeypatch.context() as patch:
        patch.setattr(SharedLanguageModel, "evaluate", interrupted)
        assert main([str(word) for word in given]) == 130
    run = tmp_path / "run"
    assert "holds no derived cell" in refused(capsys, "evaluate", run)
    assert "1 of 1 moments" in said(capsys, "film", run)
    said(capsys, "derive", run, "--samples", "2")
    for command in ("evaluate", "show"):
        said(capsys, command, run)
    assert "best derived cell" in said(capsys, *given, "--resume")
    for name in ("best.json", "dag.json"):
        assert (run / name).read_bytes() == (searched / name).read_bytes()
    assert moments_of(run) == moments_of(searched)


def moments_of(run: Path) -> list[tuple[int, str, float]]:
    found = moments(run / "archive.sqlite")
    return [(step, str(best.architecture), best.measurement.accuracy) for step, best in found]


def test_weights_that_cannot_be_taken_over_leave_nothing_behind(
    searched: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    search = ["search", *OPTIONS, "--dataset", f"folder:{folder}"]
    for command in (search, ["train", searched]):
        text = refused(capsys, *command, "--out", tmp_path / "out", "--init", tmp_path / "bad.pt")
        assert "is no checkpoint" in text
        assert "is no checkpoint" not in said(capsys, *command, "--out", tmp_path / command[0])
        assert not (tmp_path / "out").exists()


def test_a_training_leaves_a_folder_with_something_else_alone(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (searched, tmp_path):
        before = (searched / "config.yaml").read_bytes()
        (tmp_path / "notes.txt").touch()
        assert "is not empty and holds no training" in refused(capsys, "train", searched, "--out", out, "--resume")
        assert (searched / "config.yaml").read_bytes() == before


def test_commands_for_images_refuse_a_recurrent_cell(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("lower", "cost", "verify"):
        assert "enas_rnn is of text" in refused(capsys, command, trained)


def test_a_film_needs_no_device_of_the_search(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = read_yaml(searched / "config.yaml") | {"device": "cuda:7"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "archive.sqlite").write_bytes((searched / "archive.sqlite").read_bytes())
    assert "2 of 2 moments" in said(capsys, "film", tmp_path)


def test_a_film_shows_the_best_cell_of_every_derivation(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 of 2 moments" in said(capsys, "film", searched)
    with Image.open(searched / "film.gif") as film:
        assert getattr(film, "n_frames", 1) == 2


@pytest.mark.parametrize(("count", "most", "frames"), [(1, 50, 1), (3, 50, 3), (120, 50, 50)])
def test_a_film_of_few_or_many_moments(
    count: int, most: int, frames: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = resolve(translate([*OPTIONS, "--dataset", f"folder:{folder}"], "search"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    archive, space, random = Archive(tmp_path / "archive.sqlite"), EnasRnn(NODES), np.random.default_rng(1)
    for number in range(count):
        archive.record([space.sample(random)], [Measurement(0.01)], "search")
        measured = [Measurement(0.02 + number / 10_000), Measurement(0.01)]
        archive.record([space.sample(random) for _ in measured], measured, "derive")
    archive.close()
    found = list(moments(tmp_path / "archive.sqlite"))
    assert [moment.step for moment in found] == list(range(1, count + 1))
    assert all(moment.best.measurement.accuracy >= 0.02 for moment in found)
    said(capsys, "film", tmp_path, "--out", tmp_path / "cells.gif", "--max-frames", str(most))
    with Image.open(tmp_path / "cells.gif") as film:
        assert getattr(film, "n_frames", 1) == frames


def test_old_command_lines_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "python main.py --network_type rnn --dataset ptb --controller_optim adam --controller_lr 0.00035"
        " \\\n               --shared_optim sgd --shared_lr 20.0 --entropy_coeff 0.0001"
    )
    experiment = opened(resolve(translate(["--import-flags", line], "search")))
    assert isinstance(experiment, LanguageExperiment)
    assert (experiment.space.nodes, experiment.model.hidden, experiment.supernet.lr) == (12, 1000, 20.0)
    assert experiment.training == experiment.supernet
    strategy = experiment.values["strategy"]
    assert (strategy["learning_rate"], strategy["temperature"], strategy["entropy_weight"]) == (0.00035, 5.0, 1e-4)
    assert experiment.values["dataset"]["name"] == "penn_treebank"
    wikitext = opened(resolve(translate(["--import-flags", "--network_type rnn --dataset wikitext"], "search")))
    assert wikitext.values["dataset"]["name"] == "wikitext2"

    line = (
        "--network_type cnn --dataset cifar --controller_optim momentum --controller_lr_cosine=True"
        " --controller_lr_max 0.05 --controller_lr_min 0.0001 --entropy_coeff 0.1"
    )
    images = resolve(translate(["--import-flags", line], "search"))
    assert (images["space"]["name"], images["dataset"]["name"]) == ("enas_macro", "cifar10")
    assert images["strategy"]["entropy_weight"] == 0.1
    told = capsys.readouterr().err
    assert "--controller_lr_cosine has no effect" in told and "--controller_optim has no effect" in told


def test_flags_without_effect_are_told_by_their_own_names(capsys: pytest.CaptureFixture[str]) -> None:
    translate(["--import-flags", "--log_level DEBUG --use_tensorboard False"], "search")
    told = capsys.readouterr().err
    assert "--log_level has no effect" in told and "--use_tensorboard has no effect" in told
    translate(["--import-flags", "--log_level INFO --use_tensorboard True"], "search")
    assert capsys.readouterr().err == ""
    line = "--network_type cnn --test_batch_size 3 --temporal_activation_regularization True --log_level WARN"
    words = translate(["--import-flags", f"{line} --controller_optim sgd --controller_grad_clip 2"], "search")
    assert words[4:] == ["--strategy.optimizer", "sgd", "--strategy.clip_norm", "2.0"]
    told = capsys.readouterr().err
    for name in ("test_batch_size", "temporal_activation_regularization", "log_level"):
        assert f"--{name} has no effect" in told
    assert told.count("\n") == 3


def test_what_wins_over_an_old_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = translate(["--import-flags", "--shared_lr 20 --num_blocks 8", "--supernet.lr", "3"], "search")
    values = resolve(words)
    assert (values["supernet"]["lr"], values["training"]["lr"], values["space"]["nodes"]) == (3.0, 20.0, 8)


@pytest.mark.parametrize(("arguments", "message"), [
    (["search", "--import-flags", "--mode single"], "--mode single is `bitwright train`"),
    (["search", "--import-flags", "--network_type cnn --mode single"], "--mode single is `bitwright train`"),
    (["search", "--import-flags", "python generate_gif.py --model_name=ptb"], "is `bitwright film RUN"),
    (["search", "--import-flags", "--shared_speed 3"], "the ENAS program has no flag --shared_speed"),
    (["search", "--import-flags", "--network_type cnn --dataset ptb"], "--dataset ptb is no data set of images"),
    (["search", "--space", "enas_rnn", "--dataset", "digits"], "no corpus 'digits': penn_treebank"),
    (["search", "--space", "enas_rnn", "--dataset", "folder:nowhere"], "text_folder is not in nowhere"),
    (["search", "--space", "enas_rnn", "--space.nodes", "0"], "nodes is at least 1"),
    (["search", "--space", "enas_rnn", "--model.hidden", "8"], "tied weights need embedding = hidden"),
    (["search", "--space", "enas_rnn", "--model.nodes", "8"], "no option --model.nodes"),
    (["search", "--space", "nasbench201"], "nasbench201 has no networks to train"),
    (["search", "--init", "runs"], "--init is of searches for recurrent cells"),
    (["train", "--space", "enas_rnn"], "name a run directory, a cell with --cell dag.json"),
    (["train", "--space", "enas_rnn", "--cell", "no.json"], "no.json"),
    (["train", "--cell", "no.json"], "--cell is of the space enas_rnn"),
    (["train", "--space", "enas_rnn", "--evaluate"], "are of images"),
    (["derive", "nowhere"], "there is no nowhere"),
    (["film", "nowhere"], "there is no nowhere"),
])  # fmt: skip
def test_mistakes_are_named(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "data", "check", "text_folder", "--data", folder)
    assert text == "text_folder: 540 training, 108 validation and 108 test words, 10 different ones\n"
    assert "wikitext2 is not downloaded" in refused(capsys, "data", "download", "wikitext2")


def test_a_batch_larger_than_the_text_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["search", *OPTIONS, "--dataset", f"folder:{folder}", "--supernet.batch", "600", "--out", tmp_path / "run"]
    assert "a batch of 600 is more than the 539 words to predict" in refused(capsys, *given)
