"""Search guided by a predictor: a Gaussian process learns what architectures are worth, and says which to try next.

After White et al. 2021 (BANANAS, arXiv:1910.11858): of mutated good architectures and random ones, those are asked for
of which the predictor expects most, its doubt included. A second output predicts the logarithm of how long an
evaluation takes, so that what is expected per second can be asked for (Snoek et al. 2012, arXiv:1206.2944, 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..trial import Objective, Trial
from . import Strategy
from ._gaussian_process import GaussianProcess
from ._known import Known

Reals = NDArray[np.float64]
ACQUISITIONS = ("thompson", "expected_improvement", "upper_bound", "mean")


@dataclass(frozen=True)
class Prediction:
    """reward, deviation: (N,), what is expected and how much it is doubted. seconds: (N,), of an evaluation; 1 if
    unknown. score, score_deviation: (N,), as reward, in units in which those that were seen are normally distributed.
    """

    reward: Reals
    deviation: Reals
    seconds: Reals
    score: Reals = field(repr=False)
    score_deviation: Reals = field(repr=False)


class PredictorGuided(Strategy):
    """initial: architectures drawn at random before the first prediction.
    candidates: of which the best by the acquisition are asked for; half are mutated from the best `parents`, in one
        choice or more, half are drawn at random.
    acquisition: thompson draws each candidate's reward from what the predictor says; expected_improvement is over the
        best so far; upper_bound adds one deviation to the mean; mean doubts nothing.
    time_weight: the acquisition, of rewards, is divided by the predicted seconds to this power: 1 asks for the reward
        per second, 0 ignores the time.
    most: trials that are learned from; of more, the best half and the latest.

    What was told before is not asked for again, up to isomorphism.
    """

    def __init__(
        self,
        space: DecisionSpace,
        objective: Objective | None = None,
        initial: int = 10,
        candidates: int = 200,
        parents: int = 10,
        acquisition: Literal["thompson", "expected_improvement", "upper_bound", "mean"] = "thompson",
        time_weight: float = 0.0,
        most: int = 1000,
    ) -> None:
        if not space.decisions:
            raise ConfigError(f"predictor_guided makes decisions; {space.name} has none")
        if acquisition not in ACQUISITIONS:
            raise ConfigError(f"predictor_guided: acquisition is one of {', '.join(ACQUISITIONS)}, got {acquisition!r}")
        for name, value, least in (
            ("initial", initial, 2),
            ("candidates", candidates, 1),
            ("parents", parents, 1),
            ("time_weight", time_weight, 0),
            ("most", most, 2),
        ):
            if value < least:
                raise ConfigError(f"predictor_guided: {name} is at least {least}, got {value}")
        self.space, self.objective = space, objective or Objective()
        self.initial, self.candidates, self.parents, self.most = initial, candidates, parents, most
        self.acquisition, self.time_weight = acquisition, time_weight
        self.known = Known(space)
        self.seen: list[tuple[Architecture, float, float]] = []  # different networks: reward and seconds
        self._encodings: list[NDArray[np.float32]] = []  # of each batch of them

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        # a supernet may ask for more than that before anything is known
        founders = min(count, max(self.initial - len(self.seen), 0)) if self.seen else count
        found = self.known.sampled(founders, rng)
        if founders == count:
            return found
        number = max(self.candidates, 4 * count)
        best = sorted(self.seen, key=lambda each: -each[1])[: self.parents]
        mutated = iter(range(number // 2))

        def drawn(missing: int) -> Iterator[Architecture]:
            for _ in range(missing):
                yield self.space.sample(rng) if next(mutated, None) is None else self._mutated(best, rng)

        pool = self.known.unknown(number, drawn)
        merit = self._merit(self.predict(pool), count - founders, rng)
        return found + [pool[i] for i in _best_of_each(merit)]

    def tell(self, trials: Sequence[Trial]) -> None:
        new = [trial for trial in trials if self.known.add(trial.architecture)]
        for trial in new:
            seconds = trial.measurement.seconds
            if self.time_weight and not seconds > 0:
                raise ConfigError("predictor_guided: time_weight needs evaluations that take time; here one took none")
            self.seen.append((trial.architecture, self.objective(trial.measurement), seconds))
        if new:
            self._encodings.append(self.space.encodings([trial.architecture for trial in new]))

    def predict(self, architectures: Sequence[Architecture]) -> Prediction:
        """What is expected of each after what was told."""
        rewards, seconds = self._told()
        scores = _normal_scores(rewards)
        timed = bool((seconds > 0).all())
        targets = np.stack([scores, np.log(seconds)] if timed else [scores], axis=1)
        learned = self._learned(rewards)
        process = GaussianProcess(np.concatenate(self._encodings)[learned], targets[learned])
        means, deviations = process.predict(self.space.encodings(architectures))
        mean, deviation = means[:, 0], deviations[:, 0]
        low, middle, high = (_from_scores(mean + step * deviation, scores, rewards) for step in (-1, 0, 1))
        expected = np.exp(means[:, 1]) if timed else np.ones(len(mean))
        return Prediction(middle, (high - low) / 2, expected, mean, deviation)

    def _told(self) -> tuple[Reals, Reals]:
        """Rewards and seconds of all that was seen."""
        return np.array([reward for _, reward, _ in self.seen]), np.array([seconds for _, _, seconds in self.seen])

    def _learned(self, rewards: Reals) -> NDArray[np.int64]:
        """Positions of those that are learned from, in the order in which they were told."""
        every = np.arange(len(rewards))
        if len(every) <= self.most:
            return every
        best = np.argsort(-rewards, kind="stable")[: self.most // 2]
        others = np.setdiff1d(every, best)
        return np.union1d(best, others[len(others) + len(best) - self.most :])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": [(list(each.choices), reward, seconds) for each, reward, seconds in self.seen]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        name = self.space.name
        self.seen = [(Architecture(name, tuple(choices)), reward, secs) for choices, reward, secs in state["seen"]]
        self.known = Known(self.space)
        for architecture, _, _ in self.seen:
            self.known.add(architecture)
        self._encodings = [self.space.encodings([each for each, _, _ in self.seen])] if self.seen else []

    def _mutated(self, best: Sequence[tuple[Architecture, float, float]], rng: np.random.Generator) -> Architecture:
        """One choice changed, two with probability 1/2, three with 1/4, ..."""
        architecture = self.space.mutate(best[int(rng.integers(len(best)))][0], rng)
        while rng.random() < 0.5:
            architecture = self.space.mutate(architecture, rng)
        return architecture

    def _merit(self, predicted: Prediction, count: int, rng: np.random.Generator) -> Reals:
        """What speaks for each candidate in each of `count` choices, (count, N)."""
        rewards, _ = self._told()
        scores = _normal_scores(rewards)
        mean, deviation = predicted.score, predicted.score_deviation
        merit: Reals
        if self.acquisition == "expected_improvement":
            merit = np.broadcast_to(_expected_improvement(mean, deviation, float(scores.max())), (count, len(mean)))
        else:
            doubt = {"upper_bound": 1.0, "mean": 0.0}.get(self.acquisition)
            draws = rng.standard_normal((count, len(mean))) if doubt is None else np.full((count, 1), doubt)
            merit = mean + draws * deviation
            if self.time_weight:
                merit = _from_scores(merit, scores, rewards)
        return merit / predicted.seconds**self.time_weight if self.time_weight else merit


def _expected_improvement(mean: Reals, deviation: Reals, best: float) -> Reals:
    """Over the best, of normal distributions (Jones et al. 1998)."""
    from scipy.special import ndtr

    deviation = np.maximum(deviation, 1e-9)
    over = (mean - best) / deviation
    density = np.exp(-0.5 * over**2) / np.sqrt(2 * np.pi)
    improvement: Reals = deviation * (over * ndtr(over) + density)
    return improvement


def _best_of_each(merit: Reals) -> list[int]:
    """In each row the best that no earlier row took."""
    left = merit.copy()
    taken: list[int] = []
    for row in left:
        row[taken] = -np.inf
        taken.append(int(row.argmax()))
    return taken


def _normal_scores(values: Reals) -> Reals:
    """The quantiles of the normal distribution at the values' ranks: no outlier is far away."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores: Reals = ndtri((rankdata(values) - 0.5) / len(values))
    return scores


def _from_scores(scores: Reals, known: Reals, values: Reals) -> Reals:
    """The values that scores stand for, between the known ones and, at the mean slope, beyond them."""
    order = np.argsort(known)
    low, high = known[order[0]], known[order[-1]]
    slope = (values[order[-1]] - values[order[0]]) / (high - low) if high > low else 0.0
    beyond = np.maximum(scores - high, 0) + np.minimum(scores - low, 0)
    return np.asarray(np.interp(scores, known[order], values[order]) + slope * beyond)
