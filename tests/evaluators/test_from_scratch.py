"""Training by itself: a budget, an early end, and a folder that remembers what was trained, however long its text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright import Architecture
from bitwright.costs.parameters import Parameters
from bitwright.datasets import Dataset, Images
from bitwright.errors import ConfigError, StorageError
from bitwright.evaluators.from_scratch import FromScratch
from bitwright.spaces.enas_macro import EnasMacro
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.train.fit import fit
from bitwright.train.recipe import Recipe

MakeDataset = Callable[..., Dataset]
SPACE = EnasMacro(image=(1, 8, 8), classes=4, layers=2, filters=4, ops="enas", layer_precision="binary")
RECIPE = Recipe(epochs=4, batch=16, dtype="float32")
ARCHITECTURES = [SPACE.sample(np.random.default_rng(i)) for i in range(2)]


def test_architectures_of_hundreds_of_choices_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (8, 4, 4, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = Images(pixels, torch.arange(8) % 2)
    dataset = Dataset("two", ("a", "b"), part, part, part)
    space = EnasMacro(image=(1, 4, 4), classes=2, layers=20, filters=1, ops="enas", layer_precision="binary")
    choices = [0] * 209
    architectures = [Architecture(space.name, (*choices, bit)) for bit in (0, 1)]
    assert len("-".join(map(str, architectures[0].choices))) > 255  # the longest name of a file
    evaluator = FromScratch(space, dataset, Recipe(epochs=1, batch=8), save_in=tmp_path)
    first = evaluator.evaluate(architectures)
    assert len(list(tmp_path.iterdir())) == 2
    again = evaluator.evaluate(architectures)  # from the checkpoints
    assert [m.accuracy for m in again] == [m.accuracy for m in first]


def test_epochs_are_a_budget_to_which_the_schedule_is_fitted(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    found = FromScratch(SPACE, dataset, RECIPE, epochs=2, seed=5).evaluate(ARCHITECTURES)
    for architecture, measurement in zip(ARCHITECTURES, found, strict=True):
        network = SPACE.network(architecture)
        alone = fit(network, dataset, replace(RECIPE, epochs=2), seed=5)
        assert measurement.accuracy == max(row["validation_accuracy"] for row in alone.history)


@pytest.mark.parametrize(("options", "epochs"), [({}, 4), ({"give_up_below": 1.0}, 1), ({"epochs": 3}, 3)])
def test_a_training_ends_where_its_options_say(
    options: dict[str, float], epochs: int, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def counted(*arguments, **more):
        trained.append(fit(*arguments, **more))
        return trained[-1]

    monkeypatch.setattr("bitwright.evaluators.from_scratch.fit", counted)
    (found,) = FromScratch(SPACE, make_dataset(), RECIPE, **options).evaluate(ARCHITECTURES[:1])
    assert len(trained[0].history) == epochs
    assert (found.accuracy, found.seconds) == (trained[0].validation_accuracy, trained[0].seconds)


def test_an_interrupted_training_has_the_seconds_of_before(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset, architecture = make_dataset(), ARCHITECTURES[0]
    whole = FromScratch(SPACE, dataset, RECIPE).evaluate([architecture])[0]
    file = tmp_path / f"{'-'.join(map(str, architecture.choices))}.pt"
    network = SPACE.training_network(architecture)
    fit(network, dataset, RECIPE, deployed=SPACE.network(architecture), save_to=file, stop_after=5)
    state = torch.load(file, weights_only=True)
    torch.save(state | {"seconds": 1000.0}, file)
    resumed = FromScratch(SPACE, dataset, RECIPE, save_in=tmp_path).evaluate([architecture])[0]
    assert resumed.accuracy == whole.accuracy
    assert 1000 < resumed.seconds < 1500
    again = FromScratch(SPACE, dataset, RECIPE, save_in=tmp_path).evaluate([architecture])[0]
    assert again == resumed


def test_of_a_finished_training_only_what_it_found_is_kept(make_dataset: MakeDataset, tmp_path: Path) -> None:
    evaluator = FromScratch(SPACE, make_dataset(), RECIPE, epochs=1, save_in=tmp_path)
    found = evaluator.evaluate(ARCHITECTURES)
    written = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert sorted(row["validation_accuracy"] for row in written.values()) == sorted(m.accuracy for m in found)
    next(tmp_path.iterdir()).write_text("{}")
    with pytest.raises(StorageError, match="is corrupt: it holds no validation_accuracy and seconds"):
        evaluator.evaluate(ARCHITECTURES)


def test_costs_are_those_of_the_network_without_its_auxiliary_head(make_dataset: MakeDataset) -> None:
    options = {"image": (1, 8, 8), "classes": 4, "cells": 3, "reductions": (1,), "filters": 4, "stacks": 1}
    with_head, without = (EnasMicro(**options, auxiliary=auxiliary) for auxiliary in (True, False))
    architecture = with_head.sample(np.random.default_rng(0))
    evaluator = FromScratch(with_head, make_dataset(), RECIPE, epochs=1, costs={"parameters": Parameters()})
    (found,) = evaluator.evaluate([architecture])
    assert with_head.training_network(architecture).auxiliary is not None
    assert found.costs == {"parameters": Parameters()(without.network(architecture)).total}


def test_senseless_budgets_are_errors(make_dataset: MakeDataset) -> None:
    with pytest.raises(ConfigError, match="from_scratch: epochs are at least 1, or 0 for the recipe's, got -1"):
        FromScratch(SPACE, make_dataset(), RECIPE, epochs=-1)
    with pytest.raises(ConfigError, match="patience is a number of epochs"):
        FromScratch(SPACE, make_dataset(), RECIPE, patience=-1)
