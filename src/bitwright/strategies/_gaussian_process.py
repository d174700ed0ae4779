"""Regression by a Gaussian process: what infinitely wide networks with one hidden layer say of what they have not seen.

Its covariance is the arc-cosine kernel of degree one (Cho and Saul 2009), that of the outputs of networks whose hidden
units are rectified and whose weights are drawn from normal distributions (Neal 1996; Lee et al. 2018,
arXiv:1711.00165). So neither width nor draws limit it, and its doubt grows with the distance from what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
NOISES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # variances, of the mean variance of what was seen


@dataclass(frozen=True)
class _Fit:
    """Of one output: the lower Cholesky factor of the covariance, and the weights of what was seen, (N,)."""

    factor: Reals
    weights: Reals
    mean: float
    amplitude: float
    likelihood: float


class GaussianProcess:
    def __init__(self, inputs: NDArray[np.float32], targets: Reals, noises: Sequence[float] = NOISES) -> None:
        """inputs: (N, features). targets: (N, outputs), each with its own mean, and with the amplitude and that one of
        the noises with which it is most likely.
        """
        self._inputs = _with_one(inputs)
        covariance = _arc_cosine(self._inputs, self._inputs)
        self._scale = float(np.trace(covariance)) / len(inputs)
        covariance /= self._scale
        fits = [_fits(covariance, targets, noise) for noise in noises]
        self._fits = [max(each, key=lambda fit: fit.likelihood) for each in zip(*fits, strict=True)]

    def predict(self, inputs: NDArray[np.float32]) -> tuple[Reals, Reals]:
        """Mean and standard deviation of each output, noise apart, both (N, outputs)."""
        from scipy.linalg import solve_triangular

        asked = _with_one(inputs)
        between = _arc_cosine(self._inputs, asked) / self._scale
        prior = (asked**2).sum(1) / self._scale
        means, deviations = [], []
        for fit in self._fits:
            known = solve_triangular(fit.factor, between, lower=True, check_finite=False)
            variance = fit.amplitude * np.maximum(prior - (known**2).sum(0), 0.0)
            means.append(fit.mean + fit.weights @ between)
            deviations.append(np.sqrt(variance))
        return np.stack(means, axis=1), np.stack(deviations, axis=1)


def _with_one(inputs: NDArray[np.float32]) -> Reals:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1, dtype=np.float64)


def _arc_cosine(a: Reals, b: Reals) -> Reals:
    """|a| |b| (sin t + (pi - t) cos t) / pi, t the angle between a and b: |a| ** 2 of a with itself."""
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    cosine = np.clip(a @ b.T / lengths, -1.0, 1.0)
    angle = np.arccos(cosine)
    found: Reals = lengths * (np.sqrt(1 - cosine**2) + (np.pi - angle) * cosine) / np.pi
    return found


def _fits(covariance: Reals, targets: Reals, noise: float) -> list[_Fit]:
    """Of every output with this noise; the amplitude is the most likely one (Rasmussen and Williams 2006, 5.4.1)."""
    from scipy.linalg import cho_solve, cholesky

    count = len(targets)
    factor = cholesky(covariance + noise * np.eye(count), lower=True, check_finite=False)
    means = targets.mean(0)
    centred = targets - means
    weights = cho_solve((factor, True), centred, check_finite=False)
    amplitudes = np.maximum((centred * weights).sum(0) / count, 1e-12)
    likelihoods = -0.5 * count * np.log(amplitudes) - np.log(np.diag(factor)).sum()
    columns = zip(weights.T, means, amplitudes, likelihoods, strict=True)
    return [_Fit(factor, w, float(mean), float(a), float(likelihood)) for w, mean, a, likelihood in columns]
