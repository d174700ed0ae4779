"""Learning rates against their formulas and the logs of the originals."""

import math

import pytest
import torch

from bitwright.train.recipe import Recipe
from bitwright.train.schedules import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    linear,
    one_cycle,
    step,
    warmed_up,
)


def test_cosine_restarts_follow_equation_5_of_sgdr():
    rate = cosine_restarts(0.05, 0.0005, 10, 2)
    starts = [(0, 10), (10, 20), (30, 40), (70, 80), (150, 160)]
    for start, period in starts:
        for since in range(period):
            expected = 0.0005 + 0.5 * (0.05 - 0.0005) * (1 + math.cos(math.pi * since / period))
            assert rate(start + since) == pytest.approx(expected, rel=1e-14)


def test_cosine_restarts_begin_again_at_the_highest_rate():
    rate = cosine_restarts(0.05, 0.0005, 10, 2)
    highest = [epoch for epoch in range(640) if rate(epoch) == 0.05]
    assert highest == [0, 10, 30, 70, 150, 310, 630]


def test_cosine_restarts_agree_with_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.05)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3, T_mult=2, eta_min=0.001)
    ours = cosine_restarts(0.05, 0.001, 3, 2)
    for epoch in range(50):
        assert ours(epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_the_rate_of_epoch_181_is_the_one_in_the_published_log():
    # "epoch=181 ch_step=77830 ... lr=0.0456": step 77,830 = 181 * 430 is the first of the 182nd epoch, counted from 0
    rate = cosine_restarts(0.05, 0.0005, 10, 2)(77_830 / 430)
    assert f"{rate:.4f}" == "0.0456"
    assert f"{rate:.5f}" == "0.04555"
    for lowest in (1e-4, 1e-5):  # the published defaults would print another number
        assert f"{cosine_restarts(0.05, lowest, 10, 2)(181):.4f}" == "0.0455"


def test_the_last_epoch_before_a_restart_does_not_quite_reach_the_lowest_rate():
    assert f"{cosine_restarts(0.05, 0.0005, 10, 2)(149):.6f}" == "0.000519"


def test_cosine_restarts_are_constant_within_an_epoch():
    rate = cosine_restarts(0.05, 0.0005, 10, 2)
    assert rate(7.0) == rate(7.25) == rate(7.999)
    assert rate(8.0) < rate(7.999)


def test_a_factor_of_one_repeats_the_period():
    rate = cosine_restarts(0.1, 0.01, 4, 1)
    assert [rate(epoch) for epoch in range(4)] * 3 == [rate(epoch) for epoch in range(12)]


def test_one_cycle_rises_linearly_peaks_after_the_warmup_and_ends_at_the_lowest_rate():
    rate = one_cycle(0.1, 0.001, 20, 0.25)
    assert rate(0) == 0.001
    assert rate(2.5) == pytest.approx((0.001 + 0.1) / 2, rel=1e-14)
    assert rate(5) == pytest.approx(0.1, rel=1e-14)
    assert rate(12.5) == pytest.approx((0.001 + 0.1) / 2, rel=1e-14)
    assert rate(20) == pytest.approx(0.001, rel=1e-14)
    assert max(rate(step / 100) for step in range(2001)) == rate(5)


def test_one_cycle_stays_at_the_lowest_rate_after_its_end():
    rate = one_cycle(0.1, 0.001, 20, 0.25)
    assert rate(20.5) == rate(1000) == rate(20)


def test_one_cycle_without_warmup_starts_at_the_highest_rate():
    assert one_cycle(0.1, 0.001, 20, 0.0)(0) == 0.1


def test_one_cycle_changes_within_an_epoch():
    rate = one_cycle(0.1, 0.001, 20, 0.25)
    assert rate(1.0) < rate(1.5) < rate(2.0)


def test_exponential_decay_is_a_constant_factor_per_epoch():
    # BinaryConnect's MNIST recipe: 0.001 to 3e-6 in 250 epochs, a factor of 0.97703
    rate = exponential(0.001, 3e-6, 250)
    assert rate(0) == 0.001
    assert round(rate(1) / rate(0), 5) == 0.97703
    for epoch in range(250):
        assert rate(epoch + 1) / rate(epoch) == pytest.approx((3e-6 / 0.001) ** (1 / 250), rel=1e-12)
    assert rate(250) == pytest.approx(3e-6, rel=1e-12)


@pytest.mark.parametrize(
    ("highest", "lowest", "epochs", "factor"), [(0.003, 2e-6, 500, 0.98548), (0.01, 3e-6, 200, 0.96025)]
)
def test_exponential_decay_has_the_factors_of_the_originals(highest, lowest, epochs, factor):
    assert abs(exponential(highest, lowest, epochs)(1) / highest - factor) <= 0.5e-5


def test_exponential_decay_is_constant_within_an_epoch():
    rate = exponential(0.001, 3e-6, 250)
    assert rate(3.0) == rate(3.999)


# the schedules of the MicroNet program: rates per epoch, each with a warm-up


def published(schedule, lr, epochs, epoch, *, milestones=(15, 30, 45), warmup=0):
    """The formulas of the MicroNet program: e counts after the warm-up, milestones from the start."""
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    since, left = epoch - warmup, epochs - warmup
    return {
        "step": lr * math.prod([0.1 for milestone in milestones if epoch >= milestone]),
        "linear": lr * (1 - since / left),
        "cosine": 0.5 * (1 + math.cos(math.pi * since / left)) * lr,
    }[schedule]


@pytest.mark.parametrize("schedule", ["step", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_a_recipe_follows_the_published_rates_epoch_by_epoch(schedule, warmup):
    recipe = Recipe(epochs=60, lr=0.005, schedule=schedule, milestones=(15, 30, 45), warmup_epochs=warmup)
    rates = recipe.rates()
    for epoch in range(60):
        expected = published(schedule, 0.005, 60, epoch, warmup=warmup)
        assert rates(epoch) == pytest.approx(expected, rel=1e-12)
        assert rates(epoch + 0.999) == rates(epoch)


def test_the_step_schedule_of_the_two_micronet_trainings():
    first, second = step(0.005, (15, 30, 45), 0.1), step(1e-4, (5, 10, 15), 0.1)
    assert [first(e) for e in (0, 14, 15, 29, 30, 44, 45, 59)] == pytest.approx(
        [5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6]
    )
    assert [second(e) for e in (0, 4, 5, 10, 15, 19)] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-7])


def test_step_agrees_with_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4, 9], gamma=0.2)
    ours = step(0.3, (3, 4, 9), 0.2)
    for epoch in range(12):
        assert ours(epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_linear_and_cosine_would_reach_zero_after_the_last_epoch():
    assert linear(0.1, 10)(10) == 0.0
    assert cosine(0.1, 10)(10) == pytest.approx(0.0, abs=1e-17)
    assert linear(0.1, 10)(9) == pytest.approx(0.01)
    assert min(linear(0.1, 10)(9), cosine(0.1, 10)(9)) > 0


def test_the_warm_up_ends_at_the_full_rate():
    rate = warmed_up(0.4, 4, constant(0.4))
    assert [rate(epoch) for epoch in (0, 1, 2, 3, 4)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_a_warm_up_may_be_longer_than_the_training():
    rates = Recipe(epochs=2, lr=0.1, schedule="linear", warmup_epochs=5).rates()
    assert [rates(0), rates(1)] == pytest.approx([0.02, 0.04])


def test_a_constant_rate_is_constant():
    assert {constant(0.01)(epoch) for epoch in (0, 0.5, 7, 1000)} == {0.01}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine_restarts", cosine_restarts(0.05, 0.001, 4, 3)),
        ("one_cycle", one_cycle(0.05, 0.001, 20, 0.2)),
        ("exponential", exponential(0.05, 0.001, 20)),
        ("constant", constant(0.05)),
    ],
)
def test_a_recipe_makes_the_schedule_it_names(name, expected):
    recipe = Recipe(epochs=20, lr=0.05, lr_min=0.001, schedule=name, restart_period=4, restart_factor=3, warmup=0.2)
    epochs = [step / 8 for step in range(160)]
    assert [recipe.rates()(epoch) for epoch in epochs] == [expected(epoch) for epoch in epochs]
