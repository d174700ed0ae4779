"""A differentiable search in its directory.

RUN/config.yaml            every option, resolved
RUN/search.log  events/    the log, and TensorBoard's
RUN/checkpoints/search.pt  shared weights, probabilities, and where the search was
RUN/archive.sqlite         the architectures that were measured in the end: derived, sampled and random
RUN/report/                report.md, report.json, pictures
RUN/best.json              the derived architecture; it comes last, so a run that has it is complete
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..architecture import Architecture
from ..errors import ConfigError
from ..experiment import Experiment
from ..journal import Journal
from ..report.relaxation_report import RelaxationReport, write_relaxation_report
from ..run_directory import alone_in, claim_search, write_best
from ..spaces import RelaxedSpace
from ..train import checkpoint
from ..trial import Archive, Trial
from .derive import of_equal_cost
from .search import Relaxation

if TYPE_CHECKING:
    from rich.console import Console


class RelaxationRun:
    """A differentiable search in its directory."""

    def __init__(self, experiment: Experiment, path: Path, console: Console | None = None) -> None:
        self.experiment, self.path, self.console = experiment, path, console
        self.checkpoint = path / "checkpoints" / "search.pt"

    def execute(self) -> RelaxationReport:
        """Search to the end, from the last checkpoint if there is one."""
        with alone_in(self.path), contextlib.closing(Archive(self.path / "archive.sqlite")) as self.archive:
            return self._execute()

    def _execute(self) -> RelaxationReport:
        self.relaxation = opened(self.experiment)
        self.seconds = 0.0
        self._restore()
        supernet = self.relaxation.supernet
        journal = Journal(
            self.path / "search.log", self.path / "events", self.console,
            first_step=supernet.steps + 1, seconds=self.seconds,
        )  # fmt: skip
        with journal:
            supernet.journal = journal
            self.began = self.saved = time.monotonic()
            self.relaxation.train(self._tick)
            self._save()
            report = self._conclude(journal)
        write_best(self.path, report.best)
        return report

    def _restore(self) -> None:
        self.archive.truncate(0)  # what is in it belongs to a conclusion that was not reached
        if self.checkpoint.exists():
            state = checkpoint.load(self.checkpoint, self.experiment.device)
            with checkpoint.restoring(self.checkpoint):
                self.relaxation.load_state_dict(state["relaxation"])
                self.seconds = state["seconds"]

    def _save(self) -> None:
        checkpoint.save(self.checkpoint, {"relaxation": self.relaxation.state_dict(), "seconds": self._elapsed})
        self.saved = time.monotonic()

    @property
    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def _tick(self) -> None:
        if time.monotonic() - self.saved > self.experiment.search.checkpoint_seconds:
            self._save()

    def _conclude(self, journal: Journal) -> RelaxationReport:
        """Derive, measure what was derived, drawn and random, and write the report."""
        experiment, relaxation = self.experiment, self.relaxation
        count, rng = experiment.search.candidates, np.random.default_rng([experiment.seed, 9])
        derived = relaxation.derive()
        wanted, costs_of = relaxation.budgeted.costs_of(derived), relaxation.budgeted.costs_of
        sampled = [relaxation.sample(rng) for _ in range(count)]
        drawn = [of_equal_cost(relaxation.space, wanted, costs_of, rng) for _ in range(count)]
        (best,) = self._measured("derived", [derived], journal)
        report = RelaxationReport(
            space=experiment.space,
            objective=experiment.objective,
            best=best,
            sampled=self._measured("sample", sampled, journal),
            random=self._measured("random", drawn, journal),
            probabilities=[p.tolist() for p in relaxation.logits.probabilities],
            history=relaxation.history,
            updates=relaxation.updates,
            warmup_epochs=relaxation.options.warmup_epochs,
            seconds=self._elapsed,
            device=experiment.device,
        )
        write_relaxation_report(report, self.path / "report")
        return report

    def _measured(self, purpose: str, architectures: Sequence[Architecture], journal: Journal) -> list[Trial]:
        """Trials on all validation images with the shared weights."""
        found = []
        with journal.progress(f"measuring: {purpose}", len(architectures)) as progress:
            for architecture in architectures:
                found += self.relaxation.supernet.evaluate_fully([architecture])
                progress.advance()
        return self.archive.record(architectures, found, purpose)


def opened(experiment: Experiment) -> Relaxation:
    """The search as it is at its start; ConfigError where the space has no gates."""
    space = experiment.space
    if not isinstance(space, RelaxedSpace):
        raise ConfigError(f"relaxation is of spaces with gates, which {space.name} has none of")
    return Relaxation(
        space,
        experiment.dataset,
        experiment.supernet,
        experiment.relaxation,
        budgets=experiment.search.budgets,
        costs=experiment.costs,
        seed=experiment.seed,
        initial=experiment.initial,
    )


def start_relaxation(
    experiment: Experiment, path: Path, *, resume: bool, console: Console | None = None
) -> RelaxationRun:
    """A search in a new directory, or with `resume` in the one where it was started."""

    def check() -> None:
        experiment.check()
        opened(experiment)

    claim_search(path, experiment.values, check, resume=resume)
    return RelaxationRun(experiment, path, console)
