"""The training behind every number of NAS-Bench-101 (Ying et al. 2019, arXiv:1902.09635).

TensorFlow's RMSProp, decay of all variables, half a cosine over the steps, batches of two shards that are normalised
apart, and three evaluations: before training, half-way, at the end. A budget of epochs is a run of its own.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets import Dataset, Part
from ..datasets.cifar10 import load
from ..errors import ConfigError, StorageError, TrainingError
from ..files import write_atomically
from ..journal import Journal
from ..modules import Weights
from ..network import Linear, Network
from ..train import checkpoint
from ..train.fit import epoch_rows
from ..train.loader import augmented
from ..train.optimizers import Optimizer
from ..train.random_stream import random_stream, seed_of
from ..train.recipe import Recipe
from ..train.step import predictions, train_step
from .network import Skeleton, module_network

Decay = Literal["COSINE_BY_STEP", "COSINE_BY_TIME", "STEPWISE"]

VALIDATION_IMAGES = 10_000  # the fifth batch of CIFAR-10
SAMPLE_IMAGES = 10_000  # of the training images, on which their accuracy is measured: the first batch
TRUNCATED_DEVIATION = 0.87962566103423978  # of a normal distribution that is cut off at two deviations
STEPWISE = ((1 / 2, 0.1), (2 / 3, 0.01), (5 / 6, 0.0001))  # from this part of training on, this part of the rate
LOOK_EVERY = 100  # steps, whether the loss is still a number


@dataclass(frozen=True)
class TrainingOptions:
    """The defaults are those of the published runs.

    epochs: 4, 12, 36 and 108 in the benchmark.
    batch: images of a step. shards: parts of it that are normalised by their own statistics, as on so many TPU cores.
    learning_rate: of one shard; several add up.
    lr_decay_method: half a cosine by steps or by time, or a rate lowered at 1/2, 2/3 and 5/6 of the steps.
    momentum, weight_decay: of the optimizer; decay is that of all variables.
    rmsprop_decay, rmsprop_epsilon: of the mean squared gradient; what is added to it under the root.
    batch_norm_momentum: the part of running statistics that a step keeps.
    intermediate_evaluations: parts of the training after which is evaluated, besides its start and its end.
    train_seconds: after which training ends, and is evaluated.
    max_attempts: how often a run starts, with other draws, before its divergence is an error.
    """

    epochs: float = 108
    batch: int = 256
    shards: int = 2
    learning_rate: float = 0.1
    lr_decay_method: Decay = "COSINE_BY_STEP"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    rmsprop_decay: float = 0.9
    rmsprop_epsilon: float = 1.0
    batch_norm_momentum: float = 0.997
    intermediate_evaluations: tuple[float, ...] = (0.5,)
    train_seconds: float = 4 * 3600.0
    max_attempts: int = 5

    def __post_init__(self) -> None:
        if self.lr_decay_method not in ("COSINE_BY_STEP", "COSINE_BY_TIME", "STEPWISE"):
            raise ConfigError(
                f"lr_decay_method is COSINE_BY_STEP, COSINE_BY_TIME or STEPWISE, got {self.lr_decay_method!r}"
            )
        if self.shards < 1 or self.batch < 2 * self.shards or self.batch % self.shards:
            raise ConfigError(f"{self.batch} images are no whole batches of two or more on {self.shards} shards")
        if not self.epochs > 0 or self.max_attempts < 1:
            raise ConfigError(f"epochs and max_attempts are positive, got {self.epochs} and {self.max_attempts}")
        if any(not 0 <= part <= 1 for part in self.intermediate_evaluations):
            raise ConfigError(f"intermediate_evaluations are from 0 to 1, got {list(self.intermediate_evaluations)}")

    @property
    def recipe(self) -> Recipe:
        """What the project's training step needs to know. Its learning rate is that of all shards together."""
        rate = self.learning_rate * self.shards
        return Recipe(
            batch=self.batch, optimizer="rmsprop", momentum=self.momentum, rmsprop_decay=self.rmsprop_decay,
            rmsprop_epsilon=self.rmsprop_epsilon, lr=rate, lr_min=rate, weight_decay=self.weight_decay,
            norm_decay=True, scale_decay=True, clip_norm=0.0, pad=4, flip=True, calibrate=False,
            norm_momentum=1 - self.batch_norm_momentum, dtype="float32",
        )  # fmt: skip

    def rate(self, step: int, steps: int, seconds: float) -> float:
        """The learning rate of step `step` of `steps`, the first of which only gathers statistics."""
        if step == 0:
            return 0.0
        done = step / steps
        highest = self.learning_rate * self.shards
        if self.lr_decay_method == "STEPWISE":
            return highest * next((factor for start, factor in reversed(STEPWISE) if done >= start), 1.0)
        if self.lr_decay_method == "COSINE_BY_TIME":
            done = min(seconds / self.train_seconds, 1.0)
        return 0.5 * highest * (1 + math.cos(math.pi * done))


def options_of(config: Mapping[str, Any]) -> TrainingOptions:
    """What the original's `config` says about training; what it does not say is as published."""
    names = {
        "train_epochs": "epochs", "batch_size": "batch", "learning_rate": "learning_rate", "momentum": "momentum",
        "lr_decay_method": "lr_decay_method", "weight_decay": "weight_decay", "train_seconds": "train_seconds",
        "batch_norm_momentum": "batch_norm_momentum", "max_attempts": "max_attempts",
    }  # fmt: skip
    given = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    if "intermediate_evaluations" in config:
        given["intermediate_evaluations"] = tuple(float(part) for part in config["intermediate_evaluations"])
    if "use_tpu" in config:
        given["shards"] = int(config.get("tpu_num_shards", 2)) if config["use_tpu"] else 1
    return TrainingOptions(**given)


def skeleton_of(config: Mapping[str, Any]) -> Skeleton:
    """What the original's `config` says about the network around a module."""
    names = {
        "stem_filter_size": "stem_filters", "num_stacks": "stacks", "num_modules_per_stack": "modules",
        "num_labels": "classes", "batch_norm_epsilon": "epsilon",
    }  # fmt: skip
    return Skeleton(**{ours: config[theirs] for theirs, ours in names.items() if theirs in config})


@dataclass(frozen=True)
class Evaluation:
    """training_time: seconds of training until then. Accuracies are those of whole batches, in float32."""

    current_epoch: float
    training_time: float
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float


@dataclass
class Trained:
    """evaluations: before training, at the intermediate ones, at the end. total_time: seconds, evaluations included."""

    weights: Weights
    evaluations: list[Evaluation] = field(default_factory=list)
    total_time: float = 0.0
    finished: bool = True


def evaluate(
    matrix: Any,
    ops: Sequence[str],
    model_dir: Path | str,
    config: Mapping[str, Any] | None = None,
    *,
    dataset: Dataset | None = None,
    seed: int = 0,
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Train a module from scratch; what the original's `NASBench.evaluate` returns.

    matrix, ops: pruned, as of `module_network`.
    model_dir: takes metadata.json, and the checkpoint from which an interrupted training goes on.
    config: of the original; its `data_dir` (data) is where CIFAR-10 lies if no dataset is given.
    """
    config = config or {}
    if dataset is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dataset = load(Path(config.get("data_dir", "data")), VALIDATION_IMAGES).to(device)
    folder = Path(model_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror}") from None
    network = module_network(matrix, ops, replace(skeleton_of(config), image=dataset.shape))
    trained = train(network, dataset, options_of(config), seed=seed, save_to=folder / "checkpoint.pt", journal=journal)
    count = sum(p.numel() for p in trained.weights.parameters())
    metadata = {
        "trainable_params": count,
        "total_time": trained.total_time,
        "evaluation_results": [asdict(each) for each in trained.evaluations],
    }
    write_atomically(folder / "metadata.json", lambda file: file.write(json.dumps(metadata).encode()))
    last = asdict(trained.evaluations[-1])
    del last["current_epoch"]
    return {"module_adjacency": matrix, "module_operations": ops, "trainable_parameters": count, **last}


def train(
    network: Network,
    dataset: Dataset,
    options: TrainingOptions,
    *,
    seed: int = 0,
    save_to: Path | None = None,
    checkpoint_seconds: float = 60.0,
    stop_after: int | None = None,
    journal: Journal | None = None,
) -> Trained:
    """Train `network` as published, on all of dataset.train.

    save_to: a checkpoint file, from which an interrupted training goes on as if nothing had been.
    stop_after: stop after so many steps of this process, and leave a checkpoint.
    TrainingError if it diverges in every attempt.
    """
    state = None
    if save_to is not None and save_to.exists():
        state = checkpoint.load(save_to, dataset.train.device)
    journal = journal or Journal()
    first = 0 if state is None else int(state.get("attempt", 0))
    for attempt in range(first, options.max_attempts):
        run = Run(network, dataset, options, seed, attempt)
        if state is not None and save_to is not None:
            with checkpoint.restoring(save_to):
                run.load(state)
        state = None
        run.save_to, run.checkpoint_seconds = save_to, checkpoint_seconds
        try:
            run.train(journal, stop_after)
        except _Diverged as place:
            journal.line(f"attempt {attempt + 1} of {options.max_attempts} diverged by step {place}")
            continue
        return Trained(run.weights, run.evaluations, run.total, run.step == run.steps)
    raise TrainingError(f"the training diverged in each of {options.max_attempts} attempts")


class _Diverged(Exception):
    pass


class Run:
    """One attempt: all that is not a function of the arguments is in `state`."""

    save_to: Path | None = None
    checkpoint_seconds = math.inf

    def __init__(self, network: Network, dataset: Dataset, options: TrainingOptions, seed: int, attempt: int) -> None:
        self.network, self.dataset, self.options, self.attempt = network, dataset, options, attempt
        self.seed = seed if attempt == 0 else seed_of(seed, "attempt", attempt)
        self.device = dataset.train.device
        self.recipe = options.recipe
        self.weights = Weights([network], seed=self.seed)
        initialise(self.weights, network, self.seed)
        self.weights.to(self.device)
        self.optimizer = Optimizer(self.weights, self.recipe)
        self.images = augmented(dataset.train, self.recipe.augmentation, dataset.pixel_statistics[0])
        per_epoch = len(dataset.train) / options.batch
        self.steps = int(options.epochs * per_epoch)
        if self.steps < 1:
            raise ConfigError(f"{options.epochs} epochs of {len(dataset.train)} images are no batch of {options.batch}")
        # the first evaluation is behind the step that gathers statistics
        self.due = {1: 0.0, self.steps: float(options.epochs)}
        for part in sorted(options.intermediate_evaluations):
            self.due.setdefault(int(part * options.epochs * per_epoch), part * options.epochs)
        self.step, self.seconds, self.total = 0, 0.0, 0.0
        self.evaluations: list[Evaluation] = []
        self.orders = lru_cache(2)(self._order)

    def state(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt,
            "step": self.step,
            "seconds": self.seconds,
            "total": self.total,
            "evaluations": [asdict(each) for each in self.evaluations],
            "weights": self.weights.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.step, self.seconds, self.total = state["step"], state["seconds"], state["total"]
        self.evaluations = [Evaluation(**each) for each in state["evaluations"]]
        self.weights.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.seconds >= self.options.train_seconds:
            self.steps = self.step

    def train(self, journal: Journal, stop_after: int | None) -> None:
        last = math.inf if stop_after is None else self.step + stop_after
        saved = began = time.monotonic()
        with journal.progress("training", self.steps, self.step) as progress:
            while self.step < self.steps and self.step < last:
                loss = self.make_step(self.seconds + time.monotonic() - began)
                progress.advance()
                ended = self.seconds + time.monotonic() - began >= self.options.train_seconds
                due = self.step in self.due or ended
                if due or self.step % LOOK_EVERY == 0:
                    self._look(loss)
                if due:
                    began = self._passed(began, training=True)
                    self._evaluate(self.options.epochs * self.step / self.steps if ended else self.due[self.step])
                    began = self._passed(began, training=False)
                    journal.line(_line(self.evaluations[-1]))
                if ended:
                    self.steps = self.step
                if time.monotonic() - saved > self.checkpoint_seconds:
                    began = self._passed(began, training=True)
                    self.save()
                    saved = time.monotonic()
        self._passed(began, training=True)
        self.save()

    def make_step(self, seconds: float) -> Tensor:
        """One step on every shard, and the update from all of them; the loss of the last."""
        rate = self.options.rate(self.step, self.steps, seconds)
        generator = random_stream(self.device, self.seed, "train", self.step)
        images, labels = self.images.batch(self.next_rows(), generator)
        parts = list(zip(images.chunk(self.options.shards), labels.chunk(self.options.shards), strict=True))
        recipe = self.recipe
        for number, (part, own) in enumerate(parts, start=1):
            result = train_step(
                self.network, self.weights, self.optimizer, part, own, recipe, rate=rate, drop_path=0.0,
                generator=generator, share=1 / len(parts), update=number == len(parts),
            )  # fmt: skip
            recipe = replace(recipe, norm_momentum=0.0)  # running statistics are those of the first shard
        self.step += 1
        return result.loss

    def next_rows(self) -> Tensor:
        """The rows of the present batch: permutations of all images, one behind the other, cut into batches."""
        start, wanted, count = self.step * self.options.batch, self.options.batch, len(self.dataset.train)
        found = []
        while wanted:
            epoch, first = divmod(start, count)
            found.append(self.orders(epoch)[first : first + wanted])
            start, wanted = start + len(found[-1]), wanted - len(found[-1])
        return torch.cat(found)

    def _order(self, epoch: int) -> Tensor:
        count = len(self.dataset.train)
        return epoch_rows(count, count, self.seed, epoch, self.device)[0]

    def _look(self, loss: Tensor) -> None:
        if not bool(loss.isfinite()):
            raise _Diverged(self.step)

    def _passed(self, began: float, *, training: bool) -> float:
        """Count the time since `began`; the present one."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.monotonic()
        self.total += now - began
        self.seconds += (now - began) if training else 0.0
        return now

    def _evaluate(self, epoch: float) -> None:
        data = self.dataset
        parts = (data.train[:SAMPLE_IMAGES], data.validation, data.test)
        figures = [_accuracy(self.network, self.weights, part, self.options.batch) for part in parts]
        self.evaluations.append(Evaluation(epoch, self.seconds if epoch else 0.0, *figures))

    def save(self) -> None:
        if self.save_to is not None:
            checkpoint.save(self.save_to, self.state())


def _accuracy(network: Network, weights: Weights, images: Part, batch: int) -> float:
    """Of the whole batches among the images: 9,984 of 10,000."""
    count = max(len(images) // batch * batch, min(len(images), batch))
    part = images[:count]
    correct = int((predictions(network, weights, part, batch) == part.labels).sum())
    return float(np.float32(correct) / np.float32(count))


def _line(each: Evaluation) -> str:
    return (
        f"epoch={each.current_epoch:<6g} train_accuracy={each.train_accuracy:.4f}"
        f" validation_accuracy={each.validation_accuracy:.4f} test_accuracy={each.test_accuracy:.4f}"
        f" mins={each.training_time / 60:.2f}"
    )


@torch.no_grad()
def initialise(weights: Weights, network: Network, seed: int = 0) -> None:
    """Draw the weights as TensorFlow does: convolutions from a normal distribution cut off at two deviations, of
    variance 1 / fan-in, the classifier uniformly (Glorot and Bengio 2010). Each depends on seed and name alone.

    Latent weights that are kept in [-H, H] stay as they are.
    """
    for position, node in enumerate(network.nodes):
        for shape in network.weights(position):
            latent = weights.latents.get(shape.name)
            if latent is not None and latent.quantizer.latent_bound(latent.fans) is not None:
                continue
            generator = torch.Generator().manual_seed(seed_of(seed, "initial", shape.name))
            values = torch.empty(shape.shape)
            if isinstance(node.op, Linear):
                bound = math.sqrt(6 / (shape.fans.fan_in + shape.fans.fan_out))
                nn.init.uniform_(values, -bound, bound, generator=generator)
            else:
                deviation = math.sqrt(1 / shape.fans.fan_in) / TRUNCATED_DEVIATION
                nn.init.trunc_normal_(values, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)
            weights[shape.name].copy_(values)
