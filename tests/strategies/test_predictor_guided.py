"""The predictor against its definition, and what it is worth in a search."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, spearmanr

from bitwright import Architecture, Measurement, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.nasbench_macro import NasbenchMacro
from bitwright.strategies._gaussian_process import NOISES, GaussianProcess
from bitwright.strategies.predictor_guided import PredictorGuided, _expected_improvement, _from_scores, _normal_scores

SPACE = NasbenchMacro()


def worth(architecture: Architecture) -> float:
    """The sum of choices, and a bonus where neighbouring layers agree: 0 to 1."""
    choices = SPACE.canonical(architecture).choices
    return (sum(choices) + sum(a == b for a, b in pairwise(choices))) / 23


def told(count: int, seed: int = 0, **options: object) -> PredictorGuided:
    strategy = PredictorGuided(SPACE, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    drawn = [SPACE.sample(rng) for _ in range(count)]
    seconds = [float(np.exp(sum(each.choices) / 4)) for each in drawn]
    strategy.tell([Trial(i, a, Measurement(worth(a), s)) for i, (a, s) in enumerate(zip(drawn, seconds, strict=True))])
    return strategy


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The covariance of infinitely wide networks, from its integral: 2 E[relu(w a) relu(w b)], w standard normal."""
    a, b = (np.hstack([each, np.ones((len(each), 1))]) for each in (a, b))
    radius = np.linspace(0, 9, 4001)
    weight = norm.pdf(radius) * (radius[1] - radius[0])
    found = np.empty((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            across = x @ y / np.linalg.norm(x)
            rest = np.sqrt(max(y @ y - across**2, 0.0))
            # given the part of w along x, what is left of w y is normal: E[relu] in closed form
            mean = radius * across
            safe = max(rest, 1e-12)
            inner = mean * norm.cdf(mean / safe) + rest * norm.pdf(mean / safe)
            found[i, j] = 2 * (weight * radius * np.linalg.norm(x) * inner).sum()
    return found


def test_the_process_is_that_of_infinitely_wide_networks_with_the_likeliest_noise() -> None:
    rng = np.random.default_rng(1)
    inputs, asked = rng.random((14, 3), np.float32), rng.random((5, 3), np.float32)
    targets = np.stack([4 * inputs[:, 0] * inputs[:, 1], rng.standard_normal(14)], axis=1)
    means, deviations = GaussianProcess(inputs, targets).predict(asked)
    covariance = angles(inputs, inputs)
    scale = np.trace(covariance) / 14
    covariance, between = covariance / scale, angles(asked, inputs) / scale
    prior = np.diag(angles(asked, asked)) / scale
    for output in range(2):
        centred = targets[:, output] - targets[:, output].mean()

        def likelihood(noise: float, centred: np.ndarray = centred) -> tuple[float, float]:
            whole = covariance + noise * np.eye(14)
            amplitude = centred @ np.linalg.solve(whole, centred) / 14
            return float(multivariate_normal(np.zeros(14), amplitude * whole).logpdf(centred)), float(amplitude)

        noise = max(NOISES, key=lambda each: likelihood(each)[0])
        solved = np.linalg.solve(covariance + noise * np.eye(14), np.stack([centred, *between], axis=1))
        np.testing.assert_allclose(means[:, output], targets[:, output].mean() + between @ solved[:, 0], atol=1e-5)
        variance = prior - (between * solved[:, 1:].T).sum(1)
        np.testing.assert_allclose(
            deviations[:, output], np.sqrt(likelihood(noise)[1] * variance), rtol=1e-4, atol=1e-5
        )


def test_doubt_is_least_where_it_was_seen_and_grows_away_from_it() -> None:
    inputs = np.eye(6, dtype=np.float32)[:3]
    _, deviations = GaussianProcess(inputs, np.array([[0.0], [1.0], [2.0]])).predict(np.eye(6, dtype=np.float32))
    assert deviations[:3].max() < deviations[3:].min()


def test_predictions_rank_what_was_never_seen() -> None:
    strategy = told(150)
    rng = np.random.default_rng(9)
    fresh = [SPACE.sample(rng) for _ in range(300)]
    predicted = strategy.predict(fresh)
    assert spearmanr(predicted.reward, [worth(each) for each in fresh])[0] > 0.8
    expected = np.exp([sum(each.choices) / 4 for each in fresh])
    assert np.median(np.abs(predicted.seconds / expected - 1)) < 0.1
    assert np.abs(predicted.reward - [worth(each) for each in fresh]).mean() < 0.06


def test_scores_are_normal_quantiles_and_lead_back_to_the_values() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.5])
    scores = _normal_scores(values)
    assert scores == pytest.approx(norm.ppf([0.125, 0.875, 0.5, 0.5]))
    assert _from_scores(scores, scores, values) == pytest.approx(values)
    assert _from_scores(scores.max() + np.ones(1), scores, values)[0] == pytest.approx(
        0.9 + 0.8 / (scores.max() - scores.min())
    )


def test_a_weight_on_time_asks_for_quick_ones() -> None:
    rng = np.random.default_rng(3)
    slow, quick = (told(60, time_weight=weight).ask(20, rng) for weight in (0.0, 1.0))
    assert np.mean([sum(a.choices) for a in quick]) < np.mean([sum(a.choices) for a in slow]) - 3
    untimed = PredictorGuided(SPACE, time_weight=1.0)
    with pytest.raises(ConfigError, match="here one took none"):
        untimed.tell([Trial(0, SPACE.parse("0 0 0 0 0 0 0 0"), Measurement(0.5))])


def test_the_reward_per_second_is_what_is_expected_of_it_by_the_predicted_seconds_to_a_power() -> None:
    """With no doubt: r / t ** w, the weighted product of both predictions."""
    for weight in (0.5, 1.0):
        strategy = told(60, acquisition="mean", time_weight=weight)
        every = [SPACE.sample(np.random.default_rng([7, i])) for i in range(50)]
        predicted = strategy.predict(every)
        merit = strategy._merit(predicted, 1, np.random.default_rng(0))[0]
        np.testing.assert_allclose(merit, predicted.reward / predicted.seconds**weight)


def test_the_improvement_that_is_expected_is_that_of_many_draws() -> None:
    mean, deviation = np.array([0.0, 1.0, 2.0, 0.5]), np.array([1.0, 0.5, 0.1, 2.0])
    drawn = mean + deviation * np.random.default_rng(0).standard_normal((400_000, 4))
    expected = np.maximum(drawn - 1.2, 0).mean(0)
    np.testing.assert_allclose(_expected_improvement(mean, deviation, 1.2), expected, rtol=0.02)


def test_of_many_trials_the_best_half_and_the_latest_are_learned_from() -> None:
    strategy = told(60, most=10)
    rewards, _ = strategy._told()
    learned = strategy._learned(rewards)
    best = set(np.argsort(-rewards, kind="stable")[:5].tolist())
    latest = [i for i in range(len(rewards)) if i not in best][-5:]
    assert sorted({*best, *latest}) == learned.tolist()
    assert len(strategy.ask(3, np.random.default_rng(0))) == 3


def test_nothing_that_is_known_is_asked_for() -> None:
    strategy = told(80)
    known = {SPACE.canonical(each) for each, _, _ in strategy.seen}
    asked = strategy.ask(50, np.random.default_rng(0))
    assert len({SPACE.canonical(each) for each in asked} - known) == 50
    before = len(strategy.seen)
    strategy.tell([Trial(99, strategy.seen[0][0], Measurement(0.0))])  # it is known already
    assert len(strategy.seen) == before


@pytest.mark.parametrize("acquisition", ["thompson", "expected_improvement", "upper_bound", "mean"])
def test_what_is_asked_for_is_better_than_what_was_seen(acquisition: str) -> None:
    strategy = told(60, acquisition=acquisition)
    asked = strategy.ask(10, np.random.default_rng(1))
    seen = [reward for _, reward, _ in strategy.seen]
    assert np.mean([worth(each) for each in asked]) > np.quantile(seen, 0.8)


def test_options_without_sense_are_refused() -> None:
    for options, message in (
        ({"acquisition": "luck"}, "one of thompson"),
        ({"initial": 1}, "initial is at least 2"),
        ({"most": 1}, "most is at least 2"),
        ({"time_weight": -1.0}, "time_weight is at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            PredictorGuided(SPACE, **options)  # type: ignore[arg-type]
