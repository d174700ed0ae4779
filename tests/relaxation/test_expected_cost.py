"""Expected costs: the published latencies, brute force over all architectures, and costs that are no sum of parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bitwright import catalogue
from bitwright.architecture import Architecture
from bitwright.costs import CostModel
from bitwright.costs.activation_memory import ActivationMemory
from bitwright.costs.exact import Exact
from bitwright.costs.macs import Macs
from bitwright.costs.weight_bits import WeightBits
from bitwright.errors import ConfigError
from bitwright.latency.cost import Latency
from bitwright.relaxation.expected_cost import ExpectedCost, combinations
from bitwright.spaces import CostPart
from bitwright.spaces.mobile import Mobile
from bitwright.workload.table import Floats, Widths, Workload
from published_latencies import published

SMALL = Mobile(
    image=(3, 16, 16), classes=5, widths=(8, 12), cells=(1, 2), strides=(1, 2), kernels=(3, 5), expansions=(2,), stem=8,
    first=8, head=16, weight_bits=(2, 8), activation_bits=(3, 8),
)  # fmt: skip
SUMS = [name for name in catalogue.names("costs") if catalogue.find("costs", name).combine == "sum"]


def uniform(space: Mobile) -> list[torch.Tensor]:
    return [torch.full((len(d.options),), 1 / len(d.options)) for d in space.decisions]


def every(space: Mobile) -> Iterator[Architecture]:
    for choices in itertools.product(*(range(len(d.options)) for d in space.decisions)):
        yield Architecture(space.name, choices)


def test_the_published_latencies_have_the_published_expectation() -> None:
    space = Mobile(quantized=False)
    cost = ExpectedCost(space, Latency(published()))
    assert float(cost(uniform(space))) == pytest.approx(113.988, abs=1e-3)
    assert cost.fixed == pytest.approx(11.364, abs=5e-4)
    assert cost.fixed + sum(float(term.min()) for term in cost.terms) == pytest.approx(29.609, abs=1e-3)
    assert cost.fixed + sum(float(term.max()) for term in cost.terms) == pytest.approx(191.030, abs=1e-3)
    slowest = space.architecture([5] * 21)
    assert cost.of(slowest) == pytest.approx(191.030, abs=1e-3)


@pytest.mark.parametrize("model", [WeightBits(), Exact()], ids=["weight_bits", "exact"])
def test_the_expectation_and_its_gradient_are_those_of_a_sum_over_all_architectures(model: CostModel) -> None:
    space = Mobile(
        image=(3, 8, 8), classes=3, widths=(8,), cells=(2,), strides=(2,), kernels=(3,), expansions=(2, 3), stem=8,
        first=8, head=8, weight_bits=(2, 4), activation_bits=(3, 8),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    probabilities = [
        torch.rand(len(d.options), generator=generator, dtype=torch.float64).softmax(0).requires_grad_()
        for d in space.decisions
    ]
    wanted = torch.zeros((), dtype=torch.float64)
    for architecture in every(space):
        chosen = [p[c] for p, c in zip(probabilities, architecture.choices, strict=True)]
        wanted = wanted + torch.stack(chosen).prod() * model(space.network(architecture)).total
    found = ExpectedCost(space, model)(probabilities)
    assert found.dtype == torch.float64
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-12)
    ours, theirs = (torch.autograd.grad(total, probabilities) for total in (found, wanted))
    # along the probabilities' sum the two differ: a product over decisions scales what is fixed as well
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a - a.mean(), b - b.mean(), rtol=1e-9, atol=1e-9 * float(found.detach()))


@pytest.mark.parametrize("name", SUMS)
def test_the_cost_of_an_architecture_is_that_of_its_network(name: str) -> None:
    model: CostModel = catalogue.find("costs", name)()
    cost = ExpectedCost(SMALL, model)
    rng = np.random.default_rng(1)
    for architecture in (SMALL.sample(rng) for _ in range(20)):
        assert cost.of(architecture) == pytest.approx(model(SMALL.network(architecture)).total, rel=1e-12)
        certain = [torch.eye(len(d.options))[c] for d, c in zip(SMALL.decisions, architecture.choices, strict=True)]
        assert float(cost(certain)) == pytest.approx(cost.of(architecture), rel=1e-12)


def test_few_architectures_have_every_combination_of_every_part() -> None:
    space = Mobile(weight_bits=(2, 4, 8), activation_bits=(2, 4, 8))
    met: list[set[tuple[int, ...]]] = [set() for _ in space.cost_parts()]
    count = 0
    for architecture in combinations(space):
        count += 1
        for part, seen in zip(space.cost_parts(), met, strict=True):
            seen.add(tuple(architecture.choices[d] for d in part.decisions))
    sizes = [len(d.options) for d in space.decisions]
    assert [len(seen) for seen in met] == [np.prod([sizes[d] for d in part.decisions]) for part in space.cost_parts()]
    assert 7 * 3 * 3 * 3 <= count < 1.5 * 7 * 3 * 3 * 3


def test_a_cost_that_is_a_largest_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="ActivationMemory is no sum"):
        ExpectedCost(SMALL, ActivationMemory())


@dataclass(frozen=True)
class Squared(CostModel):
    """Of each layer what the whole network has: no sum of parts."""

    unit = "macs"

    def figures(self, work: Workload, widths: Widths) -> Floats:
        found: Floats = work.macs * work.macs.sum()
        return found


def test_a_cost_that_depends_on_other_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="in one network and"):
        ExpectedCost(SMALL, Squared())


class Unattributed(Mobile):
    """Whose parts leave a cell out."""

    def cost_parts(self) -> list[CostPart]:
        return super().cost_parts()[1:]


def test_a_decision_that_changes_what_belongs_to_no_part_is_noticed() -> None:
    fields: Sequence[str] = list(SMALL.__dataclass_fields__)
    space = Unattributed(**{name: getattr(SMALL, name) for name in fields})
    with pytest.raises(ConfigError, match="what no decision changes"):
        ExpectedCost(space, Macs())
