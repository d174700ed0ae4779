"""Training each architecture by itself: slow, and what every cheaper evaluator is compared with."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..architecture import Architecture
from ..costs import CostModel
from ..datasets import Dataset
from ..journal import Journal
from ..spaces import SearchSpace
from ..train.fit import fit
from ..train.recipe import Recipe
from ..trial import Measurement
from . import Evaluator

LONGEST_STEM = 200  # characters


class FromScratch(Evaluator):
    deterministic = True  # a training is decided by its seed

    def __init__(
        self,
        space: SearchSpace,
        dataset: Dataset,
        recipe: Recipe,
        *,
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
        journal: Journal | None = None,
        save_in: Path | None = None,
    ) -> None:
        """save_in: a folder with a checkpoint per architecture, from which an interrupted evaluation goes on."""
        self.space, self.dataset, self.seed = space, dataset, seed
        self.recipe = replace(recipe, training_only=False)
        self.costs = dict(costs or {})
        self.journal = journal or Journal()
        self.save_in = save_in

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """Best validation accuracy over the epochs of the recipe."""
        measurements = []
        for number, architecture in enumerate(architectures, start=1):
            began = time.monotonic()
            network = self.space.network(architecture)
            fitted = fit(
                self.space.training_network(architecture),
                self.dataset,
                self.recipe,
                seed=self.seed,
                deployed=network,
                journal=self.journal.muted(),
                save_to=None if self.save_in is None else self.save_in / f"{_stem(architecture)}.pt",
                title=f"stand-alone {number}/{len(architectures)}",
            )
            assert fitted.validation_accuracy is not None
            costs = {key: cost(network.trunk).total for key, cost in self.costs.items()}
            measurements.append(Measurement(fitted.validation_accuracy, time.monotonic() - began, costs))
        return measurements


def _stem(architecture: Architecture) -> str:
    """The name of a file: the choices, or a digest of them where file systems might not take so long a name."""
    name = "-".join(map(str, architecture.choices))
    return name if len(name) <= LONGEST_STEM else hashlib.sha256(name.encode()).hexdigest()
