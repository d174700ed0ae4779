"""From a network written by hand to proven integers: train on digits, lower, verify, write C.

python examples/integers_in_python.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bitwright.datasets.digits import load
from bitwright.exports import c
from bitwright.integer.describe import as_text
from bitwright.integer.lower import lowered
from bitwright.network import BatchNorm, Conv2d, GlobalSumPool, Input, Linear, MaxPool2d, Network, Node
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform
from bitwright.train.fit import fit
from bitwright.train.recipe import Recipe
from bitwright.verify import Verification, verify


def main(folder: Path | None = None, epochs: int = 15) -> Verification:
    """What was compared. The C goes to `folder` if there is one."""
    digits = load(Path())
    four_bits = Uniform(4, signed=False, step=0.5)
    network = Network(
        (
            Node(Input(digits.shape)),
            Node(Conv2d(16, 3, Uniform(8)), (0,), "first"),
            Node(BatchNorm(four_bits), (1,), "first/norm"),
            Node(Conv2d(32, 3, Ternary("glorot")), (2,), "second"),
            Node(BatchNorm(Binary()), (3,), "second/norm"),
            Node(MaxPool2d(2, 2), (4,)),
            Node(Conv2d(32, 3, Binary("glorot")), (5,), "third"),
            Node(BatchNorm(four_bits), (6,), "third/norm"),
            Node(GlobalSumPool(), (7,)),
            Node(Linear(10, Uniform(8)), (8,), "classifier"),
        )
    )
    weights = fit(network, digits, Recipe(epochs=epochs, batch=64, scale_updates=True)).weights
    lowering = lowered(network, weights)
    print(as_text(lowering.graph))

    images, _ = digits.test.batch(slice(None))
    x = images.numpy().astype(np.int64)
    compared = verify(lowering.graph, x, trained=(network, weights, lowering))
    for target in compared.targets:
        print(f"{target.target:<12}{'equal' if target.equal else target.skipped or target.first_difference}")
    if folder is not None:
        print("\n".join(c.export(lowering.graph, folder)))
    return compared


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
