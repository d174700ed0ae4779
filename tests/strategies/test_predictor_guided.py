"""The predictor against ridge regression by others, and what it is worth in a search."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from sklearn.linear_model import RidgeCV

from bitwright import Architecture, Measurement, Trial
from bitwright.errors import ConfigError
from bitwright.spaces.nasbench_macro import NasbenchMacro
from bitwright.strategies._ensemble import STRENGTHS, Ensemble
from bitwright.strategies.predictor_guided import PredictorGuided, _from_scores, _normal_scores

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


@pytest.mark.parametrize("count", [12, 60])  # fewer and more rows than hidden units
def test_a_member_is_the_ridge_regression_with_the_least_leave_one_out_error(count: int) -> None:
    rng = np.random.default_rng(1)
    inputs, targets = rng.random((count, 5), np.float32), rng.standard_normal((count, 2))
    targets[:, 0] += 4 * inputs[:, 0] * inputs[:, 1]
    ensemble = Ensemble(inputs, targets, np.random.default_rng(2), members=3, units=20)
    said = ensemble.predict(inputs)
    for member, hidden in enumerate(ensemble._hidden):
        features = np.maximum(np.hstack([inputs, np.ones((count, 1))]) @ hidden, 0)
        features -= features.mean(0)
        for output in range(2):
            centred = targets[:, output] - targets[:, output].mean()
            strengths = [strength * (features**2).sum() / count for strength in STRENGTHS]
            ridge = RidgeCV(strengths, fit_intercept=False).fit(features, centred)  # leaves one out, too
            best = ridge.predict(features) + targets[:, output].mean()
            np.testing.assert_allclose(said[member, :, output], best, rtol=1e-6, atol=1e-8)


def test_predictions_rank_what_was_never_seen() -> None:
    strategy = told(150)
    rng = np.random.default_rng(9)
    fresh = [SPACE.sample(rng) for _ in range(300)]
    predicted = strategy.predict(fresh, rng)
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
        ({"members": 1}, "members is at least 2"),
        ({"time_weight": -1.0}, "time_weight is at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            PredictorGuided(SPACE, **options)  # type: ignore[arg-type]
