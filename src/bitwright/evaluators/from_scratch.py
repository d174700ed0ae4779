"""Training each architecture by itself: slow, and what every cheaper evaluator is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import files
from ..architecture import Architecture
from ..costs import CostModel
from ..datasets import Dataset
from ..errors import ConfigError, StorageError
from ..journal import Journal
from ..spaces import SearchSpace
from ..train.fit import EarlyStopping, fit
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
        epochs: int = 0,
        patience: int = 0,
        give_up_below: float = 0.0,
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
        journal: Journal | None = None,
        save_in: Path | None = None,
    ) -> None:
        """epochs: of every training, in place of the recipe's, to which its schedule is fitted; 0 keeps those.
        patience: end a training after so many epochs in a row without a higher validation accuracy; 0 never does.
        give_up_below: end it after the first epoch if the validation accuracy is lower.
        costs: computed of every evaluated architecture.
        save_in: a folder that remembers finished trainings, and from whose checkpoints interrupted ones go on. It is of
            these options and this seed alone.
        """
        if epochs < 0:
            raise ConfigError(f"from_scratch: epochs are at least 1, or 0 for the recipe's, got {epochs}")
        self.space, self.dataset, self.seed = space, dataset, seed
        self.recipe = replace(recipe, training_only=False, epochs=epochs or recipe.epochs)
        self.early_stopping = EarlyStopping(patience, give_up_below)
        self.costs = dict(costs or {})
        self.journal = journal or Journal()
        self.save_in = save_in

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """Best validation accuracy over the epochs, and the seconds of training up to the last checkpoint before an
        interruption and from there on."""
        count = len(architectures)
        return [self._measure(a, f"stand-alone {number}/{count}") for number, a in enumerate(architectures, start=1)]

    def _measure(self, architecture: Architecture, title: str) -> Measurement:
        network = self.space.network(architecture).trunk
        costs = {name: cost(network).total for name, cost in self.costs.items()}
        if self.save_in is None:
            return Measurement(*self._train(architecture, title), costs)
        stem = _stem(architecture)
        saved, remembered = self.save_in / f"{stem}.pt", self.save_in / f"{stem}.json"
        if remembered.exists():
            return Measurement(*_read(remembered), costs)
        accuracy, seconds = self._train(architecture, title, saved)
        files.write_json(remembered, {"validation_accuracy": accuracy, "seconds": seconds})
        saved.unlink(missing_ok=True)  # the weights of hundreds of trials would fill a disk
        return Measurement(accuracy, seconds, costs)

    def _train(self, architecture: Architecture, title: str, save_to: Path | None = None) -> tuple[float, float]:
        """Validation accuracy, and seconds."""
        fitted = fit(
            self.space.training_network(architecture),
            self.dataset,
            self.recipe,
            seed=self.seed,
            deployed=self.space.network(architecture),
            journal=self.journal.muted(),
            save_to=save_to,
            early_stopping=self.early_stopping,
            title=title,
        )
        assert fitted.validation_accuracy is not None
        return fitted.validation_accuracy, fitted.seconds


def _read(path: Path) -> tuple[float, float]:
    """Validation accuracy and seconds of a finished training; StorageError names a corrupt file."""
    found = files.given_json(path, StorageError)
    try:
        return float(found["validation_accuracy"]), float(found["seconds"])
    except (KeyError, TypeError, ValueError):
        raise StorageError(f"{path} is corrupt: it holds no validation_accuracy and seconds") from None


def _stem(architecture: Architecture) -> str:
    """The name of a file: the choices, or a digest of them where file systems might not take so long a name."""
    name = "-".join(map(str, architecture.choices))
    return name if len(name) <= LONGEST_STEM else hashlib.sha256(name.encode()).hexdigest()
