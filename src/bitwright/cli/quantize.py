"""Quantization of trained weights without training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import ConfigError
from ..experiment import Experiment, resolve
from ..modules import Weights
from ..network import Network
from ..run_directory import TrainingRun
from ..train.post_training import float_form, quantize_after_training
from ..train.step import measure
from .options import Parser, open_console, open_experiment

IMAGES, BATCH = 256, 64


def quantize(arguments: Sequence[str]) -> None:
    parser = Parser(
        "quantize", "Quantize trained float weights without training: the ranges of activations come from a few images."
    )
    parser.add_argument("--init", type=Path, required=True, metavar="FILE", help="a run or a published checkpoint")
    parser.add_argument("--arch", metavar="TEXT", help="the architecture; a space of one needs none")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the quantized network goes")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"training images to look at (default: {IMAGES})")
    parser.add_argument("--no-refit", action="store_true", help="keep the running statistics of the float network")
    options, rest = parser.read(arguments, "quantize")
    if options.images < 2:
        raise ConfigError(f"images are at least 2, got {options.images}")
    if not options.init.exists():
        raise ConfigError(f"there is no {options.init} to start from")
    experiment = open_experiment(resolve(rest, options.preset))
    space = experiment.final_space
    if options.arch is None and space.decisions:
        raise ConfigError("name an architecture with --arch")
    architecture = space.architecture(()) if options.arch is None else space.parse(options.arch)
    training = TrainingRun(experiment, architecture, options.out, options.init)
    training.start(resume=False)
    console = open_console()
    assert training.initialised is not None
    weights, loaded = training.initialised
    weights = weights.to(experiment.device)
    console.print(f"from {options.init}: {loaded}")
    images = experiment.dataset.train
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(experiment.seed))[: options.images]
    network, began = training.network, time.monotonic()
    before = _validation(float_form(network), weights, experiment)
    batches = [x.contiguous(memory_format=torch.channels_last) for x, _ in images[order].in_batches(BATCH)]
    quantize_after_training(network, weights, batches, refit=not options.no_refit)
    after = _validation(network, weights, experiment)
    training.finish(
        weights,
        {
            "validation_accuracy": after[0],
            "validation_top5": after[1],
            "float_accuracy": before[0],
            "float_top5": before[1],
            "calibration_images": len(order),
            "seconds": time.monotonic() - began,
        },
    )
    count = len(experiment.dataset.validation)
    console.print(f"{count:,} validation images: float top-1 {before[0]:.4f}, top-5 {before[1]:.4f}")
    console.print(f"quantized with {len(order)} training images: top-1 {after[0]:.4f}, top-5 {after[1]:.4f}")
    console.print(f"\nnext: bitwright evaluate {options.out}")


def _validation(network: Network, weights: Weights, experiment: Experiment) -> tuple[float, float]:
    measured = measure(network, weights, experiment.dataset.validation)
    return measured.top1, measured.top5
