"""Losses under budgets, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_space import TinySpace
from torch import Tensor

from bitwright.costs.parameters import Parameters
from bitwright.errors import ConfigError
from bitwright.relaxation.losses import Budgeted, add_hinge, add_linear, mul_log
from bitwright.relaxation.options import RelaxationOptions


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_mul_log_multiplies_by_powers_of_the_ratios_of_logarithms() -> None:
    assert float(mul_log(number(2.0), [number(100.0)], [10.0], 0.2, 0.3)) == pytest.approx(0.2 * 2 * 2**0.3)
    two = mul_log(number(2.0), [number(100.0), number(1000.0)], [10.0, 10.0], 0.2, 0.5)
    assert float(two) == pytest.approx(0.4 * math.sqrt(6))


def test_add_hinge_adds_it_only_where_it_is_an_excess() -> None:
    assert float(add_hinge(number(2.0), [number(90.0)], [80.0], 0.1)) == pytest.approx(2 + 0.1 * 10 / 80)
    assert float(add_hinge(number(2.0), [number(70.0), number(5.0)], [80.0, 10.0], 0.1)) == 2.0


def test_add_linear_adds_the_excess_as_a_part_of_the_budget() -> None:
    assert float(add_linear(number(2.0), [number(90.0)], [80.0], 0.1)) == pytest.approx(2 + 0.1 * 10 / 80)
    two = add_linear(number(2.0), [number(90.0), number(5.0)], [80.0, 10.0], 0.1)
    assert float(two) == pytest.approx(2 + 0.1 * (10 / 80 - 5 / 10))


# a cell's parameters: 4 * 4 * 9 + 8 with kernel 3, 4 * 4 + 8 with kernel 1, none left out; else 36 + 8 + 4 * 256
CELL = {"3": 152, "1": 24, "skip": 0}
FIXED = 36 + 8 + 1024


def budgeted(**options: object) -> Budgeted:
    return Budgeted(
        TinySpace(),
        {"parameters": 1200.0},
        {"parameters": Parameters()},
        RelaxationOptions(**options),  # type: ignore[arg-type]
    )


def test_derivatives_of_the_loss_are_those_by_hand() -> None:
    probabilities = [torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)] * 2
    expected = FIXED + 2 * (0.5 * CELL["3"] + 0.25 * CELL["1"])
    total, by_loss, by_probability = budgeted(loss="add_linear").gradients(2.0, probabilities)
    assert total == pytest.approx(2 + 0.1 * (expected / 1200 - 1))
    assert by_loss == 1
    assert by_probability[0].tolist() == pytest.approx([0.1 * each / 1200 for each in CELL.values()])
    total, by_loss, by_probability = budgeted().gradients(2.0, probabilities)
    ratio = math.log(expected) / math.log(1200)
    assert total == pytest.approx(0.4 * ratio**0.3)
    assert by_loss == pytest.approx(0.2 * ratio**0.3)
    outer = 0.4 * 0.3 * ratio**-0.7 / (expected * math.log(1200))
    assert by_probability[1].tolist() == pytest.approx([outer * each for each in CELL.values()])


def test_without_a_budget_the_loss_is_the_cross_entropy() -> None:
    alone = Budgeted(TinySpace(), {}, {}, RelaxationOptions())
    probabilities = [torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)] * 2
    total, by_loss, by_probability = alone.gradients(2.0, probabilities)
    assert (total, by_loss) == (2.0, 1.0)
    assert all(not each.any() for each in by_probability)
    assert alone.reward(0.75, TinySpace().architecture((0, 0))) == 0.75


def test_rewards_weigh_costs_by_a_power_of_their_ratio_to_the_budget() -> None:
    reward = budgeted(gradient="reinforce").reward(0.8, TinySpace().architecture((0, 1)))
    assert reward == pytest.approx(0.8 * (1200 / (FIXED + 152 + 24)) ** 0.1)


def test_a_budget_that_nothing_meets_is_refused() -> None:
    with pytest.raises(ConfigError, match="no architecture has parameters within 1000; the least is 1068"):
        Budgeted(TinySpace(), {"parameters": 1000.0}, {"parameters": Parameters()}, RelaxationOptions())


class Small(Parameters):
    """In thousands of thousands."""

    def figures(self, work, widths):  # type: ignore[no-untyped-def]
        return super().figures(work, widths) / 1e6


def test_mul_log_refuses_costs_whose_logarithm_may_be_negative() -> None:
    with pytest.raises(ConfigError, match="use add_linear"):
        Budgeted(TinySpace(), {"small": 1.0}, {"small": Small()}, RelaxationOptions())
    Budgeted(TinySpace(), {"small": 1.0}, {"small": Small()}, RelaxationOptions(loss="add_linear"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interval": 0}, "interval is at least 1"),
        ({"alpha_lr": 0.0}, "alpha_lr is positive"),
        ({"beta": -1.0}, "beta is at least 0"),
        ({"baseline_decay": 0.0}, "baseline_decay is above 0"),
        ({"batch": 1}, "batch is 0 or at least 2"),
        ({"beta": math.nan}, "beta is at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RelaxationOptions(**options)  # type: ignore[arg-type]
