"""A quantized supernet step against a float one.

The same architectures in the same wiring, so the work of the convolutions is the same; what differs is the rounding of
weights and activations. `mixed` draws the precision of every separable convolution from binary, ternary and 4 bits.
"float, NCHW" is the layout that the original programs and most of PyTorch's users have; everything else is
channels-last, which is how the package stores images.
"""

from __future__ import annotations

import numpy as np

from bitwright.architecture import Architecture
from bitwright.train.recipe import has_bfloat16

from .supernet import architectures, space, training_step
from .timing import Table, comparison, interleaved

ROUNDS = 40
MIXED = ("binary", "ternary", "4")


def with_precisions(architecture: Architecture, seed: int) -> Architecture:
    """The architecture in the mixed space, each separable convolution at a precision drawn at random."""
    rng = np.random.default_rng(seed)
    choices = list(architecture.choices)
    for position in range(1, len(choices), 2):
        op = choices[position]
        separable = op < 2
        choices[position] = op * len(MIXED) + int(rng.integers(len(MIXED))) if separable else op + 2 * len(MIXED) - 2
    return Architecture(architecture.space, tuple(choices))


def run() -> Table:
    import torch

    drawn = architectures(ROUNDS)
    uniform = {
        "float": {"stem_precision": "float", "first_cell_precision": "float", "cell_precision": "float"},
        "ternary": {"stem_precision": "4", "first_cell_precision": "ternary", "cell_precision": "ternary"},
        "ternary, 4-bit activations": {
            "stem_precision": "4", "first_cell_precision": "ternary", "cell_precision": "ternary",
            "activation_precision": "4",
        },
    }  # fmt: skip
    candidates = {}
    for name, precisions in uniform.items():
        of = space(ops="enas", **precisions)
        networks = [of.shared_network(a) for a in drawn]
        candidates[name] = training_step(of, networks)
        if name == "float":
            candidates["float, NCHW"] = training_step(of, networks, channels_last=False)
        if has_bfloat16(torch.device("cpu")):
            candidates[f"{name}, bfloat16"] = training_step(of, networks, dtype="bfloat16")
    of = space(ops="mixed", precisions=MIXED, activation_precision="4")
    networks = [of.shared_network(with_precisions(a, i)) for i, a in enumerate(drawn)]
    candidates["mixed, 4-bit activations"] = training_step(of, networks)
    if has_bfloat16(torch.device("cpu")):
        candidates["mixed, 4-bit activations, bfloat16"] = training_step(of, networks, dtype="bfloat16")
    seconds = interleaved(candidates, ROUNDS)
    table = comparison(seconds, "float")
    table.columns = [*table.columns, "ratio to float, NCHW"]
    table.rows = [[*row, f"{np.median(seconds[row[0]] / seconds['float, NCHW']):.3f}"] for row in table.rows]
    return table
