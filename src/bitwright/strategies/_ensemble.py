"""Regression by an ensemble of networks with one hidden layer each, of which only the output is fitted.

The hidden weights are drawn and stay (Schmidt et al. 1992; Rahimi and Recht 2008, Weighted sums of random kitchen
sinks), so a fit is a ridge regression in closed form. Its strength is the one with the smallest leave-one-out error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
STRENGTHS = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # of the mean eigenvalue


class Ensemble:
    def __init__(
        self, inputs: NDArray[np.float32], targets: Reals, rng: np.random.Generator, *, members: int, units: int
    ) -> None:
        """inputs: (N, features). targets: (N, outputs), each to be fitted with a strength of its own."""
        features = inputs.shape[1] + 1
        self._spread = float(np.sqrt((_with_one(inputs) ** 2).sum(1).mean()))
        self._hidden = rng.standard_normal((members, features, units)) / self._spread
        activations = np.maximum(_with_one(inputs) @ self._hidden, 0.0)
        self._centre = activations.mean(1, keepdims=True)
        activations -= self._centre
        self._mean = targets.mean(0)
        self._output = _ridge(activations, targets - self._mean)

    def predict(self, inputs: NDArray[np.float32]) -> Reals:
        """What each member says: (members, N, outputs)."""
        activations = np.maximum(_with_one(inputs) @ self._hidden, 0.0) - self._centre
        said: Reals = activations @ self._output + self._mean
        return said


def _with_one(inputs: NDArray[np.float32]) -> Reals:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1, dtype=np.float64)


def _ridge(inputs: Reals, targets: Reals) -> Reals:
    """Weights (members, units, outputs) from inputs (members, N, units) and targets (N, outputs), both centred."""
    count, units = inputs.shape[1:]
    turned = inputs.swapaxes(1, 2)
    wide = count <= units
    eigenvalues, vectors = np.linalg.eigh(inputs @ turned if wide else turned @ inputs)
    eigenvalues = np.maximum(eigenvalues, 0.0)[:, :, None]
    left = vectors if wide else inputs @ vectors / np.sqrt(np.maximum(eigenvalues, 1e-12)).swapaxes(1, 2)
    projected = left.swapaxes(1, 2) @ targets  # (members, rank, outputs)
    best = np.full((len(inputs), 1, targets.shape[1]), np.inf)
    chosen = np.zeros_like(best)
    mean = eigenvalues.sum(1, keepdims=True) / count + 1e-12
    for strength in STRENGTHS:
        shrunk = eigenvalues / (eigenvalues + strength * mean)
        leverage = (left**2) @ shrunk
        errors = (targets - left @ (shrunk * projected)) / np.maximum(1 - leverage, 1e-9)
        error = (errors**2).mean(1, keepdims=True)
        better = error < best
        chosen, best = np.where(better, strength * mean, chosen), np.where(better, error, best)
    weights = projected / (eigenvalues + chosen)
    output: Reals = turned @ (vectors @ weights) if wide else vectors @ (np.sqrt(eigenvalues) * weights)
    return output
