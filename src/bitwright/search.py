"""The one search loop: ask, evaluate, record, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from .architecture import Architecture
from .errors import ConfigError
from .evaluators import Evaluator
from .spaces import DecisionSpace
from .strategies import Strategy
from .trial import Archive, Measurement, Trial

LEARNED = ("told", "search")  # purposes of trials that a strategy has learned from: another search's, and its own


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    *,
    trials: int,
    batch: int = 1,
    round_trials: int | None = None,
    seed: int = 0,
    archive: Archive | None = None,
    told: int = 0,
    space: DecisionSpace | None = None,
    until: Callable[[], bool] = lambda: False,
    tick: Callable[[], None] = lambda: None,
    after_batch: Callable[[Sequence[Trial]], None] = lambda trials: None,
    after_round: Callable[[int], None] = lambda number: None,
) -> Archive:
    """Evaluate until the archive holds `trials` trials of the search; a partly filled one is gone on with.

    batch: trials that are asked for, and told, together.
    round_trials: trials between two preparations of the evaluator; None makes the whole search one round.
    told: how many of the archive's trials the strategy knows already; it is told the others first.
    space: says by its canonical form which architectures describe the same network. Where the evaluator is
        deterministic, what the archive knows is not evaluated again: its trial has the known measurement, at the price
        of 0 seconds. None evaluates whatever is asked for.
    until: asked before every batch; True ends the search before it has all its trials.
    tick: called where strategy, evaluator and archive are in a state from which the search can go on.
    after_batch, after_round: called with what has just been told, and with the number of a round just finished.

    All randomness comes from `seed` and the number of the trial, so a search that stops and goes on finds the same.
    """
    archive = Archive() if archive is None else archive
    round_trials = trials if round_trials is None else round_trials
    if round_trials % batch or trials % round_trials:
        raise ConfigError(f"{trials} trials in rounds of {round_trials} and batches of {batch} do not come out even")
    known = archive.of("search")
    for start in range(told, len(known), batch):
        strategy.tell(known[start : start + batch])
    done = len(known)
    measured = _Measured(evaluator, space, archive)
    while done < trials and not until():
        number, within = divmod(done, round_trials)
        if within == 0:
            evaluator.prepare(number, partial(_ask, strategy, [seed, 1, number]), tick)
        asked = strategy.ask(batch, np.random.default_rng([seed, 0, done]))
        told_now = archive.record(asked, measured.evaluate(asked))
        strategy.tell(told_now)
        after_batch(told_now)
        done += batch
        if done % round_trials == 0:
            after_round(number)
        else:
            tick()
    return archive


class _Measured:
    """An evaluator that knows again what was measured; the one place where duplicates are recognised."""

    def __init__(self, evaluator: Evaluator, space: DecisionSpace | None, archive: Archive) -> None:
        self.evaluator, self.space = evaluator, space if evaluator.deterministic else None
        self.known: dict[Architecture, Measurement] = {}
        if self.space is not None:
            learned = [trial for trial in archive if trial.purpose in LEARNED]
            for trial in reversed(learned):  # the first of the same network is the one that took time
                self.known[self.space.canonical(trial.architecture)] = replace(trial.measurement, seconds=0.0)

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        if self.space is None:
            return self.evaluator.evaluate(architectures)
        forms = [self.space.canonical(architecture) for architecture in architectures]
        new: dict[Architecture, int] = {}
        for position, form in enumerate(forms):
            if form not in self.known:
                new.setdefault(form, position)
        found = self.evaluator.evaluate([architectures[position] for position in new.values()]) if new else []
        self.known |= {form: replace(each, seconds=0.0) for form, each in zip(new, found, strict=True)}
        fresh = dict(zip(new.values(), found, strict=True))
        return [fresh.get(position, self.known[form]) for position, form in enumerate(forms)]


def _ask(strategy: Strategy, seed: list[int], count: int) -> list[Architecture]:
    return list(strategy.ask(count, np.random.default_rng(seed)))
