"""The search: which text is read, what a reward is, and that an interruption changes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitwright import Architecture, Archive
from bitwright.errors import ConfigError, StorageError
from bitwright.journal import Journal
from bitwright.recurrent import supernet
from bitwright.recurrent.cell import read_dag
from bitwright.recurrent.model import ModelOptions
from bitwright.recurrent.perplexity import columns, perplexity
from bitwright.recurrent.recipe import LanguageRecipe
from bitwright.recurrent.search import CellSearchOptions, derive, load_search, search_cells
from bitwright.recurrent.step import train_step
from bitwright.recurrent.supernet import SharedLanguageModel, SharedOptions
from bitwright.spaces.enas_rnn import EnasRnn
from bitwright.strategies.controller import RECURRENT, Controller
from bitwright.strategies.random_search import RandomSearch
from tiny_language_models import corpus

SPACE = EnasRnn(4)
MODEL = ModelOptions(nodes=4, embedding=8, hidden=8, initial=0.1)
RECIPE = LanguageRecipe(epochs=2, batch=3, evaluation_batch=2, bptt=6, lr=1.0, dtype="float32", log_every=2)


def shared(train: int = 100, space: EnasRnn = SPACE, seed: int = 0, **options: Any) -> SharedLanguageModel:
    recipe = LanguageRecipe(**{**vars(RECIPE), **options.pop("recipe", {})})
    model = ModelOptions(**{**vars(MODEL), "variant": space.variant, **options.pop("model", {})})
    return SharedLanguageModel(space, corpus(train=train), recipe, model, SharedOptions(**options), seed=seed)


def cells(count: int, space: EnasRnn = SPACE) -> list[Architecture]:
    rng = np.random.default_rng(4)
    return [space.sample(rng) for _ in range(count)]


def test_training_goes_on_through_the_text_over_rounds_and_reaches_every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def watch(model: Any, optimizer: Any, sampled: Any, words: Tensor, *rest: Any, **options: Any) -> Any:
        result = train_step(model, optimizer, sampled, words, *rest, **options)
        seen.append((words, rest[1], result.state))
        return result

    monkeypatch.setattr(supernet, "train_step", watch)
    evaluator = shared(steps=4)
    assert len(evaluator.words) == 33  # six windows
    for round in range(3):
        evaluator.prepare(round, cells, lambda: None)
        evaluator.prepare(round, cells, lambda: None)  # does nothing
        evaluator.evaluate(cells(2))  # neither does this, to the state of training
    assert evaluator.steps == len(seen) == 12
    passes = [torch.cat([words for words, *_ in seen[start : start + 6]]) for start in (0, 6)]
    for words in passes:
        assert torch.equal(words.T.flatten()[:99], evaluator.corpus.train[:-1])
    for number, (_, before, _) in enumerate(seen):
        assert not before.any() if number % 6 == 0 else torch.equal(before, seen[number - 1][2])


def test_without_a_number_of_steps_a_round_is_a_pass() -> None:
    assert shared(steps=0).steps_per_round == 6


def test_a_step_on_several_cells_is_the_mean_of_their_gradients() -> None:
    drops = {"word_dropout": 0, "input_dropout": 0, "output_dropout": 0, "weight_dropout": 0, "clip_norm": 0}
    two = [SPACE.parse("0 0 1 0 2 1 3"), SPACE.parse("1 0 2 1 1 0 1")]
    moved = []
    for chosen in (two, two[:1], two[1:]):
        evaluator = shared(cells=len(chosen), steps=1, recipe=drops)
        before = {name: p.detach().clone() for name, p in evaluator.model.store.named_parameters()}
        evaluator.prepare(0, lambda count, chosen=chosen: chosen, lambda: None)
        moved.append({name: p.detach() - before[name] for name, p in evaluator.model.store.named_parameters()})
    for name, both in moved[0].items():
        if name.startswith("block/") and (not moved[1][name].any() or not moved[2][name].any()):
            continue  # weight decay acts on what a step uses
        torch.testing.assert_close(both, (moved[1][name] + moved[2][name]) / 2, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_a_reward_is_the_inverse_perplexity_of_the_next_window_with_the_state_carried() -> None:
    evaluator = shared(reward_batch=2)
    architectures = cells(5)
    found = evaluator.evaluate(architectures)
    model, (words, targets) = evaluator.model, columns(evaluator.corpus.validation, 2)
    assert len(words) == 16  # windows of 6, 6 and 4 time steps, and then again from the start
    state = model.zero_state(2)
    for number, (architecture, measured) in enumerate(zip(architectures, found, strict=True)):
        cell, window = SPACE.cell(architecture), slice(6 * (number % 3), min(6 * (number % 3) + 6, 16))
        state = model.zero_state(2) if number % 3 == 0 else state
        model.calibrate(cell, evaluator.words[:12])
        outputs, state = model(cell, words[window], state)
        log_p = torch.log_softmax(model.logits(outputs.dropped), -1)
        mean = float(log_p.gather(-1, targets[window][..., None]).mean())
        assert measured.accuracy == pytest.approx(math.exp(mean), rel=1e-5)
        assert 0 < measured.accuracy < 1


def test_rewards_are_of_evaluation_unless_the_original_is_asked_for() -> None:
    plain, zero = shared(reward_state="zero", reward_windows=2), shared(reward_state="zero", reward_windows=2)
    first, again = plain.evaluate(cells(1) * 2)
    assert first.accuracy == again.accuracy == zero.evaluate(cells(1))[0].accuracy  # no draw, no carried state
    noisy = shared(reward_state="zero", reward_windows=2, reward_dropout=True)
    first, again = noisy.evaluate(cells(1) * 2)
    assert first.accuracy != again.accuracy
    assert shared(reward_state="zero", reward_windows=2, reward_dropout=True).evaluate(cells(1))[0].accuracy == (
        first.accuracy
    )


def test_the_whole_validation_text_ranks_the_derived_cells() -> None:
    evaluator, archive = shared(), Archive()
    best = derive(RandomSearch(SPACE), evaluator, 8, np.random.default_rng(0), archive)
    trials = archive.of("derive")
    assert 1 < len(trials) <= 8 and best.measurement.accuracy == max(t.measurement.accuracy for t in trials)
    cell = SPACE.cell(best.architecture)
    evaluator.model.calibrate(cell, evaluator.words[:12])
    expected = perplexity(evaluator.model, cell, evaluator.corpus.validation, batch=2)
    assert best.measurement.accuracy == pytest.approx(1 / expected, rel=1e-9)


def strategies() -> dict[str, Any]:
    return {"controller": Controller(SPACE, **RECURRENT), "random": RandomSearch(SPACE)}


OPTIONS = CellSearchOptions(rewards=6, batch=2, derive_every=1, derive_samples=4, checkpoint_seconds=1e9)


def trials_of(path: Path) -> list[tuple[str, str, float]]:
    archive = Archive(path / "archive.sqlite")
    found = [(t.purpose, str(t.architecture), t.measurement.accuracy) for t in archive]
    archive.close()
    return found


@pytest.mark.parametrize("name", ["controller", "random"])
@pytest.mark.parametrize("stop", [2, 5])
def test_a_resumed_search_finds_what_the_uninterrupted_one_does(name: str, stop: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 4, "warmup_steps": 2, "seed": 5}
    whole_evaluator = shared(**settings)
    whole = search_cells(strategies()[name], whole_evaluator, OPTIONS, path=tmp_path / "whole")
    parts = 0
    while True:
        evaluator = shared(**settings)
        found = search_cells(strategies()[name], evaluator, OPTIONS, path=tmp_path / "parts", stop_after=stop)
        parts += 1
        if found is not None:
            break
    assert parts > 2 and whole is not None
    assert trials_of(tmp_path / "parts") == trials_of(tmp_path / "whole")
    assert (found.epoch, found.cell, found.perplexity) == (whole.epoch, whole.cell, whole.perplexity)
    for key, tensor in whole_evaluator.model.state_dict().items():
        assert torch.equal(tensor, evaluator.model.state_dict()[key]), key
    assert read_dag(tmp_path / "parts" / "dag.json") == found.cell
    again = search_cells(strategies()[name], shared(**settings), OPTIONS, path=tmp_path / "parts")
    assert again is not None and again.cell == found.cell  # a finished search stays finished


def test_a_checkpoint_of_a_search_can_be_derived_from(tmp_path: Path) -> None:
    strategy, evaluator = Controller(SPACE, **RECURRENT), shared(steps=4)
    found = search_cells(strategy, evaluator, OPTIONS, path=tmp_path)
    path = tmp_path / "checkpoints" / "search.pt"
    again, loaded = Controller(SPACE, **RECURRENT), shared(steps=4, seed=9)
    load_search(again, loaded, path)
    best = derive(again, loaded, 4, np.random.default_rng([0, 3, 1]), Archive())
    assert found is not None and best.measurement.accuracy == found.trial.measurement.accuracy
    with pytest.raises(StorageError, match="no checkpoint of this run"):
        load_search(again, shared(steps=4, model={"embedding": 9, "hidden": 9}), path)


def test_an_epoch_is_logged_derived_and_kept(tmp_path: Path) -> None:
    evaluator = shared(steps=2, recipe={"epochs": 5})
    log, told = tmp_path / "log.txt", []
    with Journal(log) as evaluator.journal:
        options = CellSearchOptions(
            rewards=2, batch=1, derive_every=2, derive_samples=3, checkpoint_seconds=1e9, save_every=1, keep=2
        )
        search_cells(RandomSearch(SPACE), evaluator, options, path=tmp_path, after_derivation=told.append)
    assert [derived.epoch for derived in told] == [2, 4, 5]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-0004.pt", "epoch-0005.pt", "search.pt"]
    assert log.read_text().count("best derived valid_ppl=") == 3


@pytest.mark.parametrize("variant", ["original", "authors"])
def test_quantized_shared_weights_stay_in_their_bounds(variant: Any) -> None:
    space = EnasRnn(4, variant=variant)
    evaluator = shared(steps=8, space=space, model={"weights": "ternary", "activations": "3"}, recipe={"lr": 20.0})
    evaluator.prepare(0, lambda count: cells(count, space), lambda: None)
    bound = math.sqrt(1.5 / 16)
    for name, parameter in evaluator.model.store.named_parameters():
        if name in evaluator.model.store.latents and name != "embedding":
            assert float(parameter.detach().abs().max()) <= bound * (1 + 1e-6), name


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="original cells of 4 nodes"):
        SharedLanguageModel(EnasRnn(5), corpus(), RECIPE, MODEL)
    with pytest.raises(ConfigError, match="carried or zero"):
        SharedOptions(reward_state="kept")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple"):
        CellSearchOptions(rewards=5, batch=2)
