"""Computing the sampled path against computing every operation.

The original ENAS programs evaluate, and differentiate, all five operations of every side of every node and then take
the sampled one. The comparison adds up the five instead of taking one, which is the same work.
"""

from __future__ import annotations

from functools import reduce

from bitwright.network import Add
from bitwright.spaces.enas_micro import Edge, _Integer

from .supernet import architectures, space, training_step
from .timing import Table, comparison, interleaved

ROUNDS = 10


class _AllOperations(_Integer):
    """The supernet's network with every operation on every edge."""

    def _edge(self, cell, key, edge, x, channels, grid):  # type: ignore[no-untyped-def]
        every = [
            super(_AllOperations, self)._edge(cell, key, Edge(edge.source, op), x, channels, grid)
            for op in range(len(self.space.operations))
        ]
        return reduce(lambda total, x: self.add(Add(grid.levels), total, x), every)


def run() -> Table:
    of = space(ops="enas", first_cell_precision="ternary", activation_precision="4")
    drawn = architectures(ROUNDS)
    sampled = [of.shared_network(a) for a in drawn]
    every = [_AllOperations(of, a, shared=True).build() for a in drawn]
    return comparison(
        interleaved(
            {
                "sampled path": training_step(of, sampled),
                "all operations": training_step(of, every, also=every),
            },
            ROUNDS,
        ),
        "sampled path",
    )
