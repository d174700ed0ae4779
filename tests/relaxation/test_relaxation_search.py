"""The differentiable search on small images whose class is their brightest band."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_space import TinySpace

from bitwright.costs.parameters import Parameters
from bitwright.datasets import Dataset
from bitwright.errors import ConfigError
from bitwright.relaxation.options import RelaxationOptions
from bitwright.relaxation.search import Relaxation, rates
from bitwright.train import checkpoint
from bitwright.train.recipe import Recipe

RECIPE = Recipe(epochs=3, batch=32, lr=0.02, schedule="constant", dtype="float32", clip_norm=0.0)
QUICK = RelaxationOptions(warmup_epochs=1, start_epoch=0, interval=1, alpha_lr=0.1)


@pytest.fixture(scope="module")
def bands(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(train=512, validation=128)


def trained(relaxation: Relaxation) -> Relaxation:
    relaxation.train()
    return relaxation


@pytest.mark.parametrize("gradient", ["two", "full", "reinforce"])
def test_the_option_that_sees_where_things_are_is_found(
    bands: Dataset, gradient: Literal["two", "full", "reinforce"]
) -> None:
    options = replace(QUICK, gradient=gradient, samples=4)
    relaxation = trained(Relaxation(TinySpace(options=("blind", "3"), cells=2), bands, RECIPE, options))
    assert relaxation.derive().choices == (1, 1)
    assert all(float(p[1]) > 0.6 for p in relaxation.logits.probabilities)


def test_a_budget_makes_the_cheaper_of_equal_options_more_probable(bands: Dataset) -> None:
    # the accuracy hardly depends on a cell that may be left out, its parameters do
    options = replace(QUICK, warmup_epochs=0, loss="add_linear", lambda_=30.0)
    relaxation = Relaxation(
        TinySpace(options=("5", "1"), cells=2), bands, RECIPE, options,
        budgets={"parameters": 1300.0}, costs={"parameters": Parameters()},
    )  # fmt: skip
    before = relaxation.figures["expected_parameters"]
    relaxation.train()
    assert relaxation.figures["expected_parameters"] < before - 100
    found = relaxation.derive()
    assert Parameters()(relaxation.space.network(found)).total <= 1300


def test_the_derived_architecture_is_within_the_budget_even_if_the_probable_one_is_not(bands: Dataset) -> None:
    relaxation = Relaxation(
        TinySpace(options=("5", "1"), cells=2), bands, RECIPE, QUICK,
        budgets={"parameters": 1600.0}, costs={"parameters": Parameters()},
    )  # fmt: skip
    relaxation.logits.values[0].copy_(torch.tensor([3.0, 0.0]))
    relaxation.logits.values[1].copy_(torch.tensor([2.0, 0.0]))
    assert relaxation.derive().choices == (0, 1)  # 1068 + 408 + 24 parameters; both large ones would be 1884


@pytest.mark.parametrize("gradient", ["two", "reinforce"])
def test_a_resumed_search_finds_the_same_from_any_step(
    bands: Dataset, tmp_path: Path, gradient: Literal["two", "reinforce"]
) -> None:
    options = RelaxationOptions(warmup_epochs=1, start_epoch=0, interval=3, gradient=gradient, samples=2, batch=64)

    def made() -> Relaxation:
        return Relaxation(TinySpace(bits=(2, 8)), bands, RECIPE, options)

    whole = made()

    def tick() -> None:
        if whole.supernet.steps in (5, 25, 32):
            checkpoint.save(tmp_path / f"{whole.supernet.steps}.pt", whole.state_dict())

    whole.train(tick)
    for step in (5, 25, 32):
        resumed = made()
        resumed.load_state_dict(checkpoint.load(tmp_path / f"{step}.pt"))
        resumed.train()
        assert resumed.history == whole.history
        assert all(torch.equal(a, b) for a, b in zip(resumed.logits.values, whole.logits.values, strict=True))
        state = whole.supernet.weights.state_dict()
        assert all(torch.equal(state[n], t) for n, t in resumed.supernet.weights.state_dict().items())


def test_nothing_is_learned_of_the_options_in_the_warm_up_and_before_the_first_epoch(bands: Dataset) -> None:
    options = RelaxationOptions(warmup_epochs=1, start_epoch=1, interval=4)
    relaxation = Relaxation(TinySpace(), bands, RECIPE, options)
    started = copy.deepcopy(relaxation.logits.values)
    seen: dict[int, int] = {}

    def tick() -> None:
        seen[relaxation.supernet.steps] = relaxation.updates
        if relaxation.updates == 0:
            assert all(torch.equal(a, b) for a, b in zip(started, relaxation.logits.values, strict=True))

    relaxation.train(tick)
    per_epoch = 512 // 32
    assert seen[2 * per_epoch] == 0
    assert seen[2 * per_epoch + 4] == 1
    assert relaxation.updates == per_epoch // 4
    assert [row.get("loss") is not None for row in relaxation.history] == [False, False, True]
    assert [row["epoch"] for row in relaxation.history] == [1, 2, 3]


def test_reinforce_prefers_the_cheaper_of_options_that_are_worth_the_same(bands: Dataset) -> None:
    options = replace(QUICK, warmup_epochs=0, gradient="reinforce", samples=6, reward_exponent=1.0)
    relaxation = Relaxation(
        TinySpace(options=("5", "1"), cells=2), bands, RECIPE, options,
        budgets={"parameters": 1200.0}, costs={"parameters": Parameters()},
    )  # fmt: skip
    relaxation.train()
    assert relaxation.figures["expected_parameters"] < 1400  # 1500 where the options are equally probable


def test_the_warm_up_may_have_a_rate_of_its_own() -> None:
    recipe = Recipe(epochs=6, lr=0.025, schedule="cosine")
    rate = rates(recipe, RelaxationOptions(warmup_epochs=2, warmup_lr=0.05))
    assert rate(0) == pytest.approx(0.05)
    assert rate(1.0) == pytest.approx(0.025)
    assert rate(2.0) == pytest.approx(0.025)
    assert rate(4.0) == pytest.approx(0.025 / 2 * (1 + math.cos(math.pi / 2)))
    spanning = rates(recipe, RelaxationOptions(warmup_epochs=2))
    assert all(spanning(e) == recipe.rates()(e) for e in np.linspace(0, 5.9, 7))


def test_a_warm_up_as_long_as_the_search_is_refused(bands: Dataset) -> None:
    with pytest.raises(ConfigError, match="warmup_epochs is less than the supernet's 3 epochs, got 3"):
        Relaxation(TinySpace(), bands, RECIPE, RelaxationOptions(warmup_epochs=3))
