"""The search for a recurrent cell: shared weights, rewards, and the best of many sampled cells now and then."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, StorageError
from ..files import write_json
from ..journal import Journal
from ..search import search
from ..strategies import Strategy
from ..train import checkpoint
from ..trial import Archive, Trial
from .cell import RecurrentCell, write_dag
from .supernet import SharedLanguageModel


@dataclass(frozen=True)
class CellSearchOptions:
    """rewards: cells that are evaluated in each of the recipe's epochs.
    batch: of them that make one update of the strategy.
    derive_every: epochs between two derivations; the last epoch always ends with one. 0 leaves the others out.
    derive_samples: cells that are sampled, and evaluated on the whole validation text, in a derivation.
    checkpoint_seconds: at most this much work is lost if the process dies.
    save_every, keep: keep the checkpoint of every so manyth epoch beside the present one, and how many of these. 0
        keeps none.
    """

    rewards: int = 2000
    batch: int = 1
    derive_every: int = 4
    derive_samples: int = 100
    checkpoint_seconds: float = 60.0
    save_every: int = 0
    keep: int = 4

    def __post_init__(self) -> None:
        for name, low in (
            ("rewards", 1),
            ("batch", 1),
            ("derive_every", 0),
            ("derive_samples", 1),
            ("checkpoint_seconds", 0),
            ("save_every", 0),
            ("keep", 1),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"cell search: {name} is at least {low}, got {getattr(self, name)}")
        if self.rewards % self.batch:
            raise ConfigError(f"cell search: {self.rewards} rewards are no multiple of batches of {self.batch}")


@dataclass(frozen=True)
class Derived:
    """The best of the cells of a derivation. epoch: counted from 1. perplexity: on the whole validation text."""

    epoch: int
    trial: Trial
    cell: RecurrentCell
    perplexity: float


def search_cells(
    strategy: Strategy,
    evaluator: SharedLanguageModel,
    options: CellSearchOptions,
    *,
    path: Path | None = None,
    after_derivation: Callable[[Derived], None] = lambda derived: None,
    stop_after: int | None = None,
) -> Derived | None:
    """Search for the epochs of the evaluator's recipe, and what the last derivation found.

    path: a folder for archive.sqlite, checkpoints/, and in the end best.json and dag.json. Where it holds a checkpoint,
    the search goes on from it, and finds what it would have found without the interruption.
    after_derivation: called with what each one found, before its checkpoint is written.
    stop_after: stop with a checkpoint where the search could go on, after so many of these places. The result is None.
    """
    with contextlib.closing(_archive(path)) as archive:
        run = _Search(strategy, evaluator, options, path, archive, after_derivation)
        run.places_left = math.inf if stop_after is None else stop_after
        run.restore()
        try:
            return run.run()
        except _Stopped:
            return None


def derive(
    strategy: Strategy, evaluator: SharedLanguageModel, count: int, rng: np.random.Generator, archive: Archive
) -> Trial:
    """The best, on the whole validation text, of `count` cells that the strategy samples; equal ones count once.

    The archive keeps all of them, with the purpose "derive".
    """
    sampled = list(dict.fromkeys(strategy.ask(count, rng)))
    trials = archive.record(sampled, evaluator.evaluate_fully(sampled), "derive")
    return max(trials, key=lambda trial: trial.measurement.accuracy)


def write_derived(found: Derived, folder: Path, *, provisional: bool = False) -> None:
    """dag.json and best.json. provisional: the search it comes from has not come to its end."""
    write_dag(found.cell, folder / "dag.json")
    architecture = found.trial.architecture
    best: dict[str, Any] = {"architecture": str(architecture), "choices": list(architecture.choices)}
    best |= {"validation_perplexity": found.perplexity} | ({"provisional": True} if provisional else {})
    write_json(folder / "best.json", best)


def load_search(strategy: Strategy, evaluator: SharedLanguageModel, path: Path) -> dict[str, Any]:
    """Give both the state in a checkpoint of `search_cells`; what else is in it is returned.

    StorageError where the file does not hold a search of this space and this model.
    """
    state = checkpoint.load(path, evaluator.device)
    with checkpoint.restoring(path):
        strategy.load_state_dict(state["strategy"])
        evaluator.load_state_dict(state["evaluator"])
        return {"trials": state["trials"], "derived": state["derived"]}


class _Stopped(Exception):
    pass


class _Search:
    places_left: float = math.inf

    def __init__(
        self,
        strategy: Strategy,
        evaluator: SharedLanguageModel,
        options: CellSearchOptions,
        path: Path | None,
        archive: Archive,
        after_derivation: Callable[[Derived], None],
    ) -> None:
        self.strategy, self.evaluator, self.options = strategy, evaluator, options
        self.path, self.archive, self.after_derivation = path, archive, after_derivation
        self.journal: Journal = evaluator.journal
        self.epochs = evaluator.recipe.epochs
        self.derived = -1  # the index in the archive of what the last derivation found
        self.saved = time.monotonic()

    @property
    def checkpoint(self) -> Path | None:
        return None if self.path is None else self.path / "checkpoints" / "search.pt"

    def run(self) -> Derived:
        search(
            self.strategy,
            self.evaluator,
            trials=self.epochs * self.options.rewards,
            batch=self.options.batch,
            round_trials=self.options.rewards,
            seed=self.evaluator.seed,
            archive=self.archive,
            told=len(self.archive.of("search")),
            tick=self._tick,
            after_batch=self._after_batch,
            after_round=self._after_round,
        )
        found = self._found(self.epochs, list(self.archive)[self.derived])
        if self.path is not None:
            write_derived(found, self.path)
        return found

    def _tick(self) -> None:
        self.places_left -= 1
        if self.places_left < 0 or time.monotonic() - self.saved > self.options.checkpoint_seconds:
            self._save()
        if self.places_left < 0:
            raise _Stopped

    def _after_batch(self, trials: Sequence[Trial]) -> None:
        update = len(self.archive.of("search")) // self.options.batch
        if update % self.evaluator.recipe.log_every:
            return
        mean = float(np.mean([trial.measurement.accuracy for trial in trials]))
        figures = self.strategy.figures()
        told = " ".join(f"{name}={value:.5g}" for name, value in figures.items())
        self.journal.line(f"update={update:<6d} ppl={_inverse(mean):<9.2f} {told}", quiet=True)
        scalars = {f"search/{name}": value for name, value in figures.items()}
        self.journal.scalars(scalars | {"search/accuracy": mean}, update)

    def _after_round(self, number: int) -> None:
        epoch, every = number + 1, self.options.derive_every
        recent = [trial.measurement.accuracy for trial in self.archive.of("search")[-self.options.rewards :]]
        self.journal.line(f"epoch={epoch:<4d} mean reward ppl={_inverse(float(np.mean(recent))):.2f}")
        if epoch == self.epochs or (every and epoch % every == 0):
            rng = np.random.default_rng([self.evaluator.seed, 3, number])
            best = derive(self.strategy, self.evaluator, self.options.derive_samples, rng, self.archive)
            self.derived, found = best.index, self._found(epoch, best)
            self.journal.line(f"epoch={epoch:<4d} best derived valid_ppl={found.perplexity:.2f}  {best.architecture}")
            self.journal.scalars({"search/derived_perplexity": found.perplexity}, epoch)
            self.after_derivation(found)
        self._save()
        if self.options.save_every and epoch % self.options.save_every == 0:
            self._keep(epoch)
        self.places_left -= 1
        if self.places_left < 0:
            raise _Stopped

    def _found(self, epoch: int, trial: Trial) -> Derived:
        return Derived(
            epoch, trial, self.evaluator.space.cell(trial.architecture), _inverse(trial.measurement.accuracy)
        )

    def _state(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.state_dict(),
            "evaluator": self.evaluator.state_dict(),
            "trials": len(self.archive),
            "derived": self.derived,
        }

    def restore(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            self.archive.truncate(0)
            return
        found = load_search(self.strategy, self.evaluator, self.checkpoint)
        self.derived = found["derived"]
        self.archive.truncate(found["trials"])

    def _save(self) -> None:
        if self.checkpoint is not None:
            checkpoint.save(self.checkpoint, self._state())
        self.saved = time.monotonic()

    def _keep(self, epoch: int) -> None:
        """The checkpoint as it is now under the epoch's name; of the older ones only the latest stay."""
        if self.checkpoint is None:
            return
        checkpoint.save(self.checkpoint.with_name(f"epoch-{epoch:04d}.pt"), self._state())
        for old in sorted(self.checkpoint.parent.glob("epoch-*.pt"))[: -self.options.keep]:
            old.unlink(missing_ok=True)


def _archive(path: Path | None) -> Archive:
    if path is None:
        return Archive()
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write to {path}: {error.strerror}") from None
    return Archive(path / "archive.sqlite")


def _inverse(accuracy: float) -> float:
    """The perplexity of a geometric mean probability."""
    return 1 / accuracy if accuracy > 0 else math.inf
