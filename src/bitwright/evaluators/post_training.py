"""Quantization after training: one trained network at any precision of its layers, without a training step.

Every architecture of the space `precision` gets the trained weights, clipped where that rounds them better at its bits,
activation ranges with the least squared error, and running statistics of its own, the last two from a few training
images without labels. That takes seconds at most, and ranks precisions before a training at the chosen one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence

import torch

from ..architecture import Architecture
from ..costs import CostModel
from ..datasets import Dataset, Images, Part
from ..errors import ConfigError
from ..journal import Journal
from ..modules import Weights
from ..spaces import SearchSpace
from ..spaces.precision import Precision
from ..train.post_training import Requantizer
from ..train.step import accuracy, evaluation_batch
from ..trial import Measurement
from . import Evaluator

BATCH = 64  # images at once for ranges and statistics
VALIDATION_BATCH = 128  # or fewer; small batches stay in a processor's cache


class PostTraining(Evaluator):
    deterministic = True

    def __init__(
        self,
        space: SearchSpace,
        dataset: Dataset,
        initial: Weights,
        *,
        images: int = 256,
        validation: int = 0,
        costs: Mapping[str, CostModel] | None = None,
        seed: int = 0,
        journal: Journal | None = None,
    ) -> None:
        """initial: trained weights of the network that the space is of; they stay as they are.

        images: training images that ranges and statistics come from.
        validation: images that an accuracy is that of, the same for all architectures; 0 for all there are.
        """
        if not isinstance(space, Precision):
            raise ConfigError(f"post_training is of the space precision, a trained network; {space.name} has many")
        if images < 2 or validation < 0:
            raise ConfigError(
                f"post_training: images are at least 2 and validation at least 0, got {images} and {validation}"
            )
        self.space, self.costs, self.journal = space, dict(costs or {}), journal or Journal()
        self._validation = _drawn(dataset.validation, validation, seed) if validation else dataset.validation
        self._weights = copy.deepcopy(initial)
        batches = [x for x, _ in _drawn(dataset.train, images, seed).in_batches(BATCH)]
        self._requantizer = Requantizer(space.base, initial, batches)

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """Accuracy on the validation images."""
        measurements = []
        with self.journal.progress("quantization after training", len(architectures), 0) as progress:
            for architecture in architectures:
                measurements.append(self._measure(architecture))
                progress.advance()
        return measurements

    def quantized(self, architecture: Architecture) -> Weights:
        """The weights with which an architecture is measured."""
        self._requantizer.apply(self.space.network(architecture), self._weights)
        return copy.deepcopy(self._weights)

    def _measure(self, architecture: Architecture) -> Measurement:
        began = time.monotonic()
        network = self.space.network(architecture).trunk
        self._requantizer.apply(network, self._weights)
        found = accuracy(network, self._weights, self._validation, evaluation_batch(network, VALIDATION_BATCH))
        costs = {name: cost(network).total for name, cost in self.costs.items()}
        return Measurement(found, time.monotonic() - began, costs)


def _drawn(part: Part, count: int, seed: int) -> Images:
    """Images of a part in memory, drawn at random."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count].to(part.device)
    pixels, labels = part.batch(order)
    return Images(pixels.permute(0, 2, 3, 1).contiguous(), labels)
