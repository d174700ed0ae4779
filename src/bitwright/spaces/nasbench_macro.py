"""The space of NAS-Bench-Macro (Su et al. 2021, arXiv:2103.11922): 6,561 networks of eight layers, 3,969 different.

Each layer is one of three blocks. The layers make stages of two, three and three. In a stage the first block halves the
image, also where it is the identity; where a later identity stands does not matter.
"""

from __future__ import annotations

import itertools
from functools import cached_property

from ..architecture import Architecture, Decision
from . import DecisionSpace

BLOCKS = ("identity", "mb3_k3", "mb6_k5")
STAGES = (2, 3, 3)
IDENTITY = 0


class NasbenchMacro(DecisionSpace):
    """What only the table knows of: there are no networks here."""

    name = "nasbench_macro"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"layer/{layer}", BLOCKS) for layer in range(sum(STAGES)))

    def canonical(self, architecture: Architecture) -> Architecture:
        """The identities of a stage, but for its first block, stand at its end."""
        choices: list[int] = []
        for start, end in itertools.pairwise(itertools.accumulate(STAGES, initial=0)):
            first, *later = architecture.choices[start:end]
            choices += [first, *sorted(later, key=lambda choice: choice == IDENTITY)]
        return Architecture(self.name, tuple(choices))
