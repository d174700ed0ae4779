"""NAS-Bench-101: the original library's example, and what can be asked of the space beside it.

python examples/nasbench_in_python.py [FILE]

FILE is a columnar file (`bitwright nasbench convert`) or a released .tfrecord; without it, invented runs are queried.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from bitwright import nasbench as api  # the original: from nasbench import api
from bitwright.nasbench import synthetic
from bitwright.nasbench.moves import edit_distance, neighbours
from bitwright.nasbench.space import space

INPUT, OUTPUT = "input", "output"
CONV1X1, CONV3X3, MAXPOOL3X3 = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"


def inception_like() -> api.ModelSpec:
    """Three branches of an Inception module, its 5x5 convolution as two of 3x3, and a pool."""
    return api.ModelSpec(
        matrix=[
            [0, 1, 1, 1, 0, 1, 0],  # input
            [0, 0, 0, 0, 0, 0, 1],  # 1x1 convolution
            [0, 0, 0, 0, 0, 0, 1],  # 3x3 convolution
            [0, 0, 0, 0, 1, 0, 0],  # 5x5 convolution, first half
            [0, 0, 0, 0, 0, 0, 1],  # second half
            [0, 0, 0, 0, 0, 0, 1],  # 3x3 max-pool
            [0, 0, 0, 0, 0, 0, 0],  # output
        ],
        ops=[INPUT, CONV1X1, CONV3X3, CONV3X3, CONV3X3, MAXPOOL3X3, OUTPUT],
    )


def main(dataset_file: Path) -> api.NASBench:
    nasbench = api.NASBench(dataset_file, seed=0)
    model_spec = inception_like()

    print(nasbench.query(model_spec))  # one of the runs, at random
    print(nasbench.query(model_spec, epochs=12, stop_halfway=True)["validation_accuracy"])
    print(nasbench.query(model_spec, repeat="mean")["test_accuracy"])
    print("seconds and epochs spent:", nasbench.get_budget_counters())

    fixed_metrics, computed_metrics = nasbench.get_metrics_from_spec(model_spec)
    print(fixed_metrics["trainable_parameters"], {epochs: len(runs) for epochs, runs in computed_metrics.items()})
    for module_hash in nasbench.hash_iterator():
        print("the first of", len(nasbench.hash_iterator()), "modules:", nasbench.get_metrics_from_hash(module_hash)[0])
        break

    row = space().row_of_spec(model_spec)  # what follows needs no file
    near = neighbours(row)
    smallest = near[np.argmin(space().rows.parameters[near])]
    print(f"row {row}: {len(near)} neighbours, the smallest has {space().parameters(smallest):,} parameters")
    print("edits to a random module:", edit_distance(row, int(space().sample(1, seed=0)[0])))
    return nasbench


def with_invented_runs() -> api.NASBench:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "synthetic.tfrecord"
        synthetic.write(file, rows=np.array([space().row_of_spec(inception_like()), *space().sample(99, seed=1)]))
        return main(file)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with_invented_runs()
