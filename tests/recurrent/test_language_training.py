"""Training of one cell: what is read, what is learned, and that an interruption changes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitwright.errors import ConfigError, TrainingError
from bitwright.recurrent import training
from bitwright.recurrent.dropout import Training
from bitwright.recurrent.model import LanguageModel, ModelOptions
from bitwright.recurrent.perplexity import IGNORED, columns, perplexity
from bitwright.recurrent.recipe import LanguageRecipe
from bitwright.recurrent.step import regularisation, train_step, window_ends
from bitwright.recurrent.training import fit_language_model
from bitwright.text.corpora import load_corpus
from bitwright.train.optimizers import Optimizer
from tiny_language_models import AUTHORS, TREE, corpus, text, tiny

SMALL = ModelOptions(nodes=6, embedding=16, hidden=16, initial=0.1)
RECIPE = LanguageRecipe(
    epochs=3, batch=4, evaluation_batch=3, bptt=7, lr=1.0, decay_after=2, dtype="float32", log_every=5
)


def recipe(**options: Any) -> LanguageRecipe:
    return LanguageRecipe(**{**vars(RECIPE), **options})


@pytest.mark.parametrize(("length", "batch"), [(50, 1), (50, 7), (9, 8), (12, 11), (3, 5), (101, 10)])
def test_columns_hold_every_word_after_the_first_as_a_target_once(length: int, batch: int) -> None:
    tokens = torch.arange(length)
    words, targets = columns(tokens, batch)
    assert words.shape == targets.shape == (math.ceil((length - 1) / batch), batch)
    counted = targets != IGNORED
    assert sorted(targets[counted].tolist()) == list(range(1, length))
    assert torch.equal(words[counted] + 1, targets[counted])
    in_order = words.T.flatten()[: length - 1]
    assert torch.equal(in_order, tokens[:-1])


def test_a_text_of_one_word_cannot_be_predicted() -> None:
    with pytest.raises(ConfigError, match="two words"):
        columns(torch.zeros(1, dtype=torch.int64), 2)


@pytest.mark.parametrize("random", [False, True])
def test_windows_reach_the_end_of_the_text(random: bool) -> None:
    ends = window_ends(1000, recipe(bptt=35, random_bptt=random), 3, 0)
    lengths = np.diff([0, *ends])
    assert ends[-1] == 1000 and (lengths > 0).all()
    assert len(ends) == 29 if not random else len(set(lengths)) > 5
    assert ends == window_ends(1000, recipe(bptt=35, random_bptt=random), 3, 0)
    assert (ends != window_ends(1000, recipe(bptt=35, random_bptt=random), 3, 1)) == random


@pytest.mark.parametrize("batch", [1, 4])
@torch.no_grad()
def test_perplexity_is_that_of_every_word_of_the_text(batch: int) -> None:
    model, tokens = tiny(TREE), text(41)
    model.mean.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for piece in range(batch):  # 40 pairs in `batch` pieces, word by word
        state = model.zero_state(1)
        for t in range(piece * 40 // batch, (piece + 1) * 40 // batch):
            outputs, state = model(TREE, tokens[t].view(1, 1), state)
            total -= float(torch.log_softmax(model.logits(outputs.dropped), -1)[0, 0, tokens[t + 1]])
    assert perplexity(model, TREE, tokens, batch=batch) == pytest.approx(math.exp(total / 40), rel=1e-6)


def test_every_word_of_the_training_text_is_read_with_the_state_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def watch(model: LanguageModel, optimizer: Any, cells: Any, words: Tensor, *rest: Any, **options: Any) -> Any:
        result = train_step(model, optimizer, cells, words, *rest, **options)
        seen.append((words, rest[0], rest[1], result.state))
        return result

    monkeypatch.setattr(training, "train_step", watch)
    data = corpus(train=100)
    fit_language_model(TREE, data, SMALL, recipe(epochs=2))
    words = torch.cat([words for words, *_ in seen])
    per_epoch = math.ceil(99 / 4)
    assert len(words) == 2 * per_epoch
    for epoch in (words[:per_epoch], words[per_epoch:]):
        assert torch.equal(epoch.T.flatten()[:99], data.train[:-1])
    targets = torch.cat([targets for _, targets, *_ in seen])[:per_epoch].T.flatten()
    assert torch.equal(targets[:99], data.train[1:])
    steps = math.ceil(per_epoch / 7)
    for number, (_, _, before, _) in enumerate(seen):
        if number % steps == 0:  # the text starts anew
            assert not before.any()
        else:
            assert torch.equal(before, seen[number - 1][3]) and before.any()


@pytest.mark.parametrize("rate", ["word", "embedding", "input", "between", "output", "weight"])
def test_dropout_acts_when_one_cell_is_trained_by_itself(rate: str) -> None:
    none = {f"{name}_dropout": 0.0 for name in ("word", "embedding", "input", "between", "output", "weight")}
    losses = []
    for value in (0.0, 0.5):
        run = training._Fit(TREE, corpus(train=60), SMALL, recipe(**{**none, f"{rate}_dropout": value}), 0)
        run.began = 0.0
        run._step(7)  # the state that weight and between act on is zero before the first window
        losses.append(float(run._step(14).loss))
    assert losses[0] != losses[1]


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.5},
    "adam": {"optimizer": "adam", "lr": 0.01, "clip_norm": 0.0},
    "asgd": {"optimizer": "asgd", "patience": 1, "lr": 5.0, "epochs": 5, "clip_norm": 0.5},
    "random windows": {"random_bptt": True, "bptt": 12, "weight_decay": 1e-4, "temporal_reg": 1.0},
}


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("stop", [3, 7])
def test_a_resumed_training_ends_bit_by_bit_where_the_uninterrupted_one_does(
    options: dict[str, Any], stop: int, tmp_path: Path
) -> None:
    data, chosen = corpus(train=120), recipe(**options)
    whole = fit_language_model(TREE, data, SMALL, chosen, seed=3)
    path = tmp_path / "checkpoint.pt"
    parts = 0
    while True:
        part = fit_language_model(TREE, data, SMALL, chosen, seed=3, save_to=path, stop_after=stop)
        parts += 1
        if part.finished:
            break
    assert parts > 1
    assert part.history == whole.history and part.best_epoch == whole.best_epoch
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, part.model.state_dict()[name]), name
    if chosen.optimizer == "asgd":
        assert whole.history[-1]["averaged"] == 1.0


def test_asgd_averages_all_weights_since_its_trigger() -> None:
    run = training._Fit(TREE, corpus(train=120), SMALL, recipe(optimizer="asgd", patience=2), 0)
    run.began = 0.0
    for perplexities, begins in (([5, 4, 3, 3.5], False), ([5, 4, 4.5, 4.2], False), ([4, 5, 5, 4.5], True)):
        run.history = [{"validation_perplexity": value} for value in perplexities]
        run._start_average()
        assert bool(run.average) == begins
    seen = []
    for end in (7, 14, 21):
        run._step(end)
        seen.append(run.model.store["block/1-4"].detach().clone())
    torch.testing.assert_close(run.average["block/1-4"], sum(seen) / 3)
    with run._evaluated():
        assert torch.equal(run.model.store["block/1-4"], run.average["block/1-4"])
    assert torch.equal(run.model.store["block/1-4"], seen[-1])


@pytest.mark.parametrize("variant", ["original", "authors"])
def test_it_learns_a_text_that_repeats_itself(variant: str) -> None:
    data = corpus(train=600, repeat=True)
    cell, nodes = (TREE, 6) if variant == "original" else (AUTHORS, 5)
    options = ModelOptions(nodes=nodes, embedding=16, hidden=16, initial=0.1, variant=variant)  # type: ignore[arg-type]
    adam = recipe(optimizer="adam", lr=0.02, clip_norm=1.0, epochs=6, decay_after=10, weight_dropout=0.1)
    chosen = LanguageRecipe(**{**vars(adam), "input_dropout": 0.0, "output_dropout": 0.0, "word_dropout": 0.0})
    fitted = fit_language_model(cell, data, options, chosen)
    assert fitted.perplexity is not None and fitted.perplexity < 2.0  # of eleven words, by chance 11
    calibrated = perplexity(fitted.model, cell, data.validation, batch=3)
    assert calibrated == fitted.perplexity  # the kept model is the one that was evaluated


def test_a_training_can_start_from_the_weights_of_all_cells() -> None:
    everything = LanguageModel(11, SMALL, seed=8)
    started = fit_language_model(TREE, corpus(), SMALL, RECIPE, initial=everything.state_dict(), stop_after=0)
    assert not started.finished and started.perplexity is None
    for name, parameter in started.model.store.named_parameters():
        assert torch.equal(parameter, everything.store[name])


def test_bfloat16_products_are_those_of_float32_but_for_rounding() -> None:
    losses = {}
    for dtype in ("float32", "bfloat16"):
        run = training._Fit(TREE, corpus(train=60), SMALL, recipe(dtype=dtype), 0)
        run.began = 0.0
        result = run._step(7)
        losses[dtype] = float(result.loss / result.count), float(result.gradient_norm)
        assert run.state.dtype == torch.float32
    # eight bits of mantissa
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
    assert losses["bfloat16"] != losses["float32"]


def test_all_of_the_penn_treebank_is_read(shared: Path) -> None:
    if not (shared / "data" / "ptb").is_dir():
        pytest.skip("no Penn Treebank")
    data = load_corpus("ptb", shared / "data")
    words, targets = columns(data.train, 64)
    ends = window_ends(len(words), LanguageRecipe(), 0, 0)
    assert (len(data.words), int((targets != IGNORED).sum())) == (10_000, 929_588)
    assert (len(words), len(ends), ends[-1]) == (14_525, 415, 14_525)  # the original's 401 steps end at row 14,035


def test_quantized_latents_stay_in_their_bounds() -> None:
    options = ModelOptions(nodes=6, embedding=16, hidden=16, weights="binary", activations="4")
    fitted = fit_language_model(TREE, corpus(train=100), options, recipe(lr=20.0, clip_norm=5.0))
    for name in ("state", "block/1-4", "words"):
        bound = math.sqrt(1.5 / 32)
        latent = fitted.model.store[name].detach()
        assert float(latent.abs().max()) == pytest.approx(bound)  # reached, and not passed
        assert float(fitted.model._real(name).detach().abs().max()) == pytest.approx(bound)
        assert len(fitted.model._real(name).unique()) == 2


def test_the_rate_decays_after_its_epoch() -> None:
    rate = recipe(lr=20.0, decay=0.96, decay_after=15, lr_min=2.0).rates()
    assert [rate(epoch) for epoch in (0, 14)] == [20.0, 20.0]
    assert rate(15) == pytest.approx(20 * 0.96)  # the 16th epoch is one after the 15th
    assert rate(24) == pytest.approx(20 * 0.96**10)
    assert rate(500) == 2.0


def test_regularisation_is_what_the_papers_write() -> None:
    model, tokens = tiny(TREE), text(24).view(8, 3)
    outputs, _ = model(TREE, tokens, model.zero_state(3), training=Training())
    raw, states = outputs.raw.detach().numpy(), outputs.states.detach().numpy()
    chosen = recipe(activation_reg=2.0, temporal_reg=3.0, norm_stabilizer=0.5, norm_stabilizer_point=1.5)
    expected = 2 * np.mean(raw**2) + 3 * np.mean((raw[1:] - raw[:-1]) ** 2)
    expected += 0.5 * np.mean((np.sqrt((states**2).sum(-1)) - 1.5) ** 2)
    assert float(regularisation(outputs, chosen).detach()) == pytest.approx(expected, rel=1e-12)
    one, _ = model(TREE, tokens[:1], model.zero_state(3), training=Training())
    assert math.isfinite(float(regularisation(one, chosen).detach()))


def test_clipping_is_of_the_whole_gradient_and_changes_the_update() -> None:
    moved = {}
    for clip in (0.0, 0.05):
        model, chosen = tiny(TREE), recipe(clip_norm=clip, weight_decay=0.0)
        before = {name: p.detach().clone() for name, p in model.store.named_parameters()}
        optimizer, (words, targets) = Optimizer(model.store, chosen.for_optimizer()), columns(text(29), 4)
        result = train_step(
            model, optimizer, [TREE], words, targets, model.zero_state(4), chosen,
            rate=1.0, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        squares = [(p.detach() - before[name]).pow(2).sum() for name, p in model.store.named_parameters()]
        moved[clip] = float(torch.stack(squares).sum().sqrt())
        assert float(result.gradient_norm) > 0.05
    assert moved[0.05] == pytest.approx(0.05, rel=1e-4)
    assert moved[0.0] > 0.05


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(TrainingError, match="lower lr"):
        fit_language_model(TREE, corpus(train=200), SMALL, recipe(lr=1e30, clip_norm=0.0, log_every=1))


def test_recipes_without_sense_are_refused() -> None:
    for options, message in (
        ({"optimizer": "momentum"}, "sgd, adam, asgd"),
        ({"input_dropout": 1.0}, "input"),
        ({"bptt": 0}, "at least 1"),
        ({"lr": 0.0}, "positive"),
        ({"clip_norm": -1.0}, "at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe(**options)
