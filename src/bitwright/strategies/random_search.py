"""Uniform sampling: the baseline that every other strategy has to beat (Li and Talwalkar 2019, arXiv:1902.07638)."""

import numpy as np

from ..architecture import Architecture
from ..spaces import DecisionSpace
from ..trial import Objective
from . import Strategy


class RandomSearch(Strategy):
    def __init__(self, space: DecisionSpace, objective: Objective | None = None) -> None:
        self.space = space

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        return [self.space.sample(rng) for _ in range(count)]
