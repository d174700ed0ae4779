"""What a network scores by one rule, where the cost goes layer by layer, and the plain costs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..costs import REFERENCES, Bits, CostModel, Score, ScoreModel, Target
from ..costs.activation_memory import ActivationMemory
from ..costs.additions import Additions
from ..costs.bit_operations import BitOperations
from ..costs.macs import Macs
from ..costs.memory_bits import MemoryBits
from ..costs.micronet_2019_entry import Micronet2019Entry
from ..costs.multiplications import Multiplications
from ..costs.parameters import Parameters
from ..costs.weight_bits import WeightBits
from ..workload.rows import workload
from ..workload.table import Floats, Workload

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS: dict[str, CostModel] = {
    "parameters": Parameters(),
    "weight_bits": WeightBits(),
    "memory_bits": MemoryBits(),
    "activation_memory": ActivationMemory(),
    "macs": Macs(),
    "multiplications": Multiplications(),
    "additions": Additions(),
    "bit_operations": BitOperations(),
}
BAR = 0.22  # inches


@dataclass(frozen=True)
class CostLayer:
    """A node that costs something. Bits: of weights, and of the widest number it reads; memory and math: by term."""

    name: str
    operation: str
    output: tuple[int, ...]
    weight_bits: float
    input_bits: float
    parameters: float
    macs: float
    score: float
    memory: dict[str, float]
    math: dict[str, float]


@dataclass(frozen=True)
class CostReport:
    """score: by `rule`. terms: bits of memory and math by name. costs: the totals of COSTS.

    float32_total: the score as the entry of 2019 printed it, where it is counted by its rule.
    """

    rule: str
    model: ScoreModel
    score: Score
    float32_total: float | None
    memory: dict[str, float]
    math: dict[str, float]
    costs: dict[str, float]
    layers: list[CostLayer]

    def as_json(self) -> dict[str, Any]:
        reference = REFERENCES[self.model.reference]
        printed = {} if self.float32_total is None else {"float32_total": self.float32_total}
        return {
            "rule": self.rule,
            "options": asdict(self.model),  # type: ignore[call-overload]
            "reference": {"name": self.model.reference} | reference._asdict(),
            "total": self.score.total,
            "memory": self.score.memory,
            "math": self.score.math,
            **printed,
            "bits": {"memory": self.memory, "math": self.math},
            **self.costs,
            "layers": [asdict(layer) for layer in self.layers],
        }


def cost_report(
    target: Target, rule: str, model: ScoreModel, *, weight_bits: int | None = None, activation_bits: int | None = None
) -> CostReport:
    """The costs of `target`. weight_bits, activation_bits: in place of those it has."""
    work = workload(target)
    widths = work.widths(weight_bits, activation_bits)
    bits = model.bits(work, widths)
    return CostReport(
        rule=rule,
        model=model,
        score=model.score(work, widths),
        float32_total=model.printed(work, widths) if isinstance(model, Micronet2019Entry) else None,
        memory=_totals(bits.memory),
        math=_totals(bits.math),
        costs={name: _plain(float(cost.total(work, widths))) for name, cost in COSTS.items()},
        layers=_layers(work, model.figures(work, widths), bits, widths.weight_bits, widths.input_bits),
    )


def cost_figure(report: CostReport) -> Figure:
    """A bar for every block, from the image to the classes: what of the score is its, by term."""
    from matplotlib.figure import Figure

    divisors = report.model.divisors
    blocks: list[tuple[str, dict[str, float]]] = []
    for layer in report.layers:
        name = layer.name.rpartition("/")[0] or layer.name or layer.operation
        if not blocks or blocks[-1][0] != name:
            blocks.append((name, {}))
        parts = blocks[-1][1]
        for kind, terms, divisor in (
            ("memory", layer.memory, divisors.parameters),
            ("math", layer.math, divisors.operations),
        ):
            for term, value in terms.items():
                parts[f"{kind}: {term}"] = parts.get(f"{kind}: {term}", 0.0) + value / divisor
    found = dict.fromkeys(term for _, parts in blocks for term in parts)
    figure = Figure(figsize=(8, 1.2 + BAR * len(blocks)), layout="constrained")
    axes = figure.add_subplot()
    places, left = np.arange(len(blocks)), np.zeros(len(blocks))
    for term in sorted(found, key=lambda t: t.startswith("math")):
        values = np.array([parts.get(term, 0.0) for _, parts in blocks])
        axes.barh(places, values, left=left, label=f"{term} {values.sum():.4f}")
        left += values
    axes.set_yticks(places, [name for name, _ in blocks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("score")
    axes.set_title(
        f"{report.rule}: memory {report.score.memory:.4f} + math {report.score.math:.4f} = {report.score.total:.4f}",
        fontsize=10,
    )
    axes.legend(fontsize=8)
    return figure


def _layers(work: Workload, scores: Floats, bits: Bits, weight_bits: Floats, input_bits: Floats) -> list[CostLayer]:
    memory, math = ({name: np.broadcast_to(t, len(work)) for name, t in part.items()} for part in bits)
    layers = []
    for i, row in enumerate(work.rows):
        if scores[i] or work.macs[i]:
            layers.append(
                CostLayer(
                    row.name,
                    row.operation,
                    row.shape,
                    _plain(weight_bits[i]),
                    _plain(input_bits[i]),
                    row.weights + row.biases + row.gains,
                    _plain(work.macs[i]),
                    float(scores[i]),
                    _terms(memory, i),
                    _terms(math, i),
                )
            )
    return layers


def _totals(terms: Mapping[str, Floats]) -> dict[str, float]:
    return {name: _plain(float(term.sum())) for name, term in terms.items() if term.any()}


def _terms(terms: Mapping[str, Floats], position: int) -> dict[str, float]:
    return {name: _plain(float(term[position])) for name, term in terms.items() if term[position]}


def _plain(value: float) -> float:
    """An integer if it is one."""
    return int(value) if float(value).is_integer() else float(value)
