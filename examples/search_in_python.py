"""The main job without the command line: search a small mixed-precision space on digits, train and evaluate the best.

python examples/search_in_python.py
"""

from __future__ import annotations

from pathlib import Path

from bitwright.costs.bit_operations import BitOperations
from bitwright.datasets.digits import load
from bitwright.evaluators.shared_weights import SharedWeights
from bitwright.report.evaluation import evaluate
from bitwright.search import search
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.strategies.controller import Controller
from bitwright.train.fit import fit
from bitwright.train.recipe import Recipe
from bitwright.trial import Objective


def main(supernet_epochs: int = 12, epochs: int = 20) -> float:
    """Test accuracy of the network that was found."""
    digits = load(Path())
    mean, deviation = digits.pixel_statistics
    space = EnasMicro(
        image=digits.shape, pixel_mean=mean, pixel_std=deviation,
        nodes=2, cells=3, reductions=(1,), filters=16, stacks=1,
        precisions=("binary", "ternary", "4"), activation_precision="4",
    )  # fmt: skip
    objective = Objective({"bit_operations": 2e6})
    supernet = SharedWeights(
        space,
        digits,
        Recipe(epochs=supernet_epochs, batch=32, scale_updates=True),
        warmup_epochs=supernet_epochs // 2,
        round_epochs=supernet_epochs // 2,
        costs={"bit_operations": BitOperations()},
    )
    archive = search(Controller(space, objective), supernet, trials=100, batch=10)
    best = max(archive, key=lambda trial: objective(trial.measurement))
    print(best.architecture, best.measurement.accuracy, best.measurement.costs)

    network = space.network(best.architecture)
    fitted = fit(network, digits, Recipe(epochs=epochs, batch=64, scale_updates=True))
    evaluation = evaluate(network, fitted.weights, digits)
    print(f"test accuracy {evaluation.test_accuracy:.4f}, {evaluation.bit_operations:,} bit operations")
    return evaluation.test_accuracy


if __name__ == "__main__":
    main()
