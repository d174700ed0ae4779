"""The published training, held against float64 and against what interruption must not change."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bitwright.datasets import Dataset, Images
from bitwright.errors import ConfigError, TrainingError
from bitwright.modules import Weights
from bitwright.nasbench.network import Skeleton, module_network
from bitwright.nasbench.training import (
    Run,
    TrainingOptions,
    evaluate,
    initialise,
    options_of,
    skeleton_of,
    train,
)
from bitwright.network import Network
from bitwright.train import checkpoint
from bitwright.train.random_stream import random_stream
from plain_nasbench import CONV1, CONV3, POOL, Plain

FIVE = (
    [[0, 1, 1, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0] * 5],
    ["input", CONV3, POOL, CONV1, "output"],
)
TINY = Skeleton(image=(3, 8, 8), stem_filters=8, modules=1)
OPTIONS = TrainingOptions(epochs=2, batch=16)


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(train=72, validation=40, test=36, classes=10, channels=3)


def network() -> Network:
    return module_network(*FIVE, TINY)


def test_a_few_steps_are_those_of_float64(dataset: Dataset):
    """TensorFlow's RMSProp on a loss with the decay of all variables in it, each shard with its own statistics."""
    steps = 6
    options = TrainingOptions(epochs=2, batch=16, weight_decay=1e-2)
    run = Run(network(), dataset, options, 3, 0)
    total = int(2 * 72 / 16)
    w = {name: p.detach().double().numpy().copy() for name, p in run.weights.named_parameters()}
    moving = {name: b.double().numpy().copy() for name, b in run.weights.named_buffers()}
    squares, velocity = ({name: start(v) for name, v in w.items()} for start in (np.ones_like, np.zeros_like))
    seen = []
    for step in range(steps):
        rate = 0.0 if step == 0 else 0.5 * 0.2 * (1 + math.cos(math.pi * step / total))
        rows = run.next_rows()
        seen.append(rows)
        images, labels = run.images.batch(rows, random_stream(run.device, 3, "train", step))
        leaves = {name: torch.from_numpy(v).requires_grad_() for name, v in w.items()}
        loss = 0.0
        for shard in range(2):
            part = slice(8 * shard, 8 * shard + 8)

            def tensors(name, shape, leaves=leaves):
                assert leaves[name].shape == shape
                return leaves[name]

            plain = Watched(*FIVE, tensors, training=True, stem=8, modules=1)
            loss = loss + F.cross_entropy(plain(images[part].double()), labels[part]) / 2
            if shard == 0:
                for name, value in plain.statistics.items():
                    moving[name] = 0.997 * moving[name] + 0.003 * value
        loss = loss + 1e-2 * sum(leaf.square().sum() / 2 for leaf in leaves.values())
        loss.backward()
        for name, leaf in leaves.items():
            g = leaf.grad.numpy()
            squares[name] = 0.9 * squares[name] + 0.1 * g**2
            velocity[name] = 0.9 * velocity[name] + rate * g / np.sqrt(squares[name] + 1.0)
            w[name] = w[name] - velocity[name]
        run.make_step(0.0)
        for name, p in run.weights.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), w[name], rtol=2e-3, atol=2e-5, err_msg=f"{name}, {step}")
        for name, b in run.weights.named_buffers():
            np.testing.assert_allclose(b.numpy(), moving[name], rtol=1e-3, atol=1e-5, err_msg=f"{name}, {step}")
    assert torch.cat(seen)[:72].sort().values.tolist() == list(range(72))  # batches go on over the end of an epoch


class Watched(Plain):
    """Notes the statistics that moving averages see: the mean, and the variance as of a sample."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.statistics = {}

    def conv(self, x, width, kernel, name):
        y = F.conv2d(x, self.tensors(name, (width, x.shape[1], kernel, kernel)), padding=kernel // 2).detach()
        self.statistics[f"{name}/norm/mean"] = y.mean((0, 2, 3)).numpy()
        self.statistics[f"{name}/norm/variance"] = y.var((0, 2, 3), unbiased=True).numpy()
        return super().conv(x, width, kernel, name)


def test_training_is_evaluated_at_its_start_half_way_and_at_its_end(dataset: Dataset):
    made = train(network(), dataset, OPTIONS)
    assert made.finished
    assert [each.current_epoch for each in made.evaluations] == [0.0, 1.0, 2]
    times = [each.training_time for each in made.evaluations]
    assert times[0] == 0.0 < times[1] < times[2] <= made.total_time
    last = made.evaluations[-1]
    # whole batches: 64 of 72, 32 of 40 and 32 of 36 images, and quotients of float32
    for accuracy, count in ((last.train_accuracy, 64), (last.validation_accuracy, 32), (last.test_accuracy, 32)):
        assert accuracy in {float(np.float32(k) / np.float32(count)) for k in range(count + 1)}


def test_the_first_step_changes_statistics_only(dataset: Dataset):
    run = Run(network(), dataset, OPTIONS, 0, 0)
    before = {name: value.clone() for name, value in run.weights.state_dict().items()}
    run.make_step(0.0)
    for name, value in run.weights.state_dict().items():
        assert torch.equal(value, before[name]) != name.endswith(("/mean", "/variance")), name


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(stop: int, dataset: Dataset, tmp_path: Path):
    whole = train(network(), dataset, OPTIONS, seed=1)
    file = tmp_path / "checkpoint.pt"
    part = train(network(), dataset, OPTIONS, seed=1, save_to=file, stop_after=stop)
    assert not part.finished
    rest = train(network(), dataset, OPTIONS, seed=1, save_to=file)
    assert rest.finished
    for name, value in whole.weights.state_dict().items():
        assert torch.equal(rest.weights.state_dict()[name], value), name
    for a, b in zip(rest.evaluations, whole.evaluations, strict=True):
        assert (a.train_accuracy, a.validation_accuracy, a.test_accuracy) == (
            b.train_accuracy,
            b.validation_accuracy,
            b.test_accuracy,
        )


def test_it_learns(make_dataset: Callable[..., Dataset]):
    data = make_dataset(train=256, validation=64, test=64, channels=3)
    made = train(network(), data, TrainingOptions(epochs=6, batch=32, batch_norm_momentum=0.9))
    assert made.evaluations[-1].validation_accuracy > 0.8


def test_a_training_that_diverges_starts_anew_and_then_is_an_error(dataset: Dataset, tmp_path: Path):
    options = TrainingOptions(epochs=4, batch=16, learning_rate=1e30, max_attempts=2)
    with pytest.raises(TrainingError, match="diverged in each of 2 attempts"):
        train(network(), dataset, options)
    second = Run(network(), dataset, OPTIONS, 0, 1)
    first = Run(network(), dataset, OPTIONS, 0, 0)
    assert not torch.equal(first.weights["stem"], second.weights["stem"])


def test_training_ends_when_its_time_is_over(dataset: Dataset, tmp_path: Path):
    options = TrainingOptions(epochs=50, batch=16, train_seconds=1e-6)
    file = tmp_path / "checkpoint.pt"
    made = train(network(), dataset, options, save_to=file)
    assert made.finished
    assert len(made.evaluations) == 1
    again = train(network(), dataset, options, save_to=file)
    assert again.evaluations == made.evaluations


@pytest.mark.parametrize(
    ("epochs", "steps", "half"), [(4, 625, 312), (12, 1875, 937), (36, 5625, 2812), (108, 16875, 8437)]
)
def test_the_published_budgets_have_their_published_steps(epochs: int, steps: int, half: int):
    pixels = torch.zeros(1, 1, 1, 3, dtype=torch.uint8).expand(40_000, 8, 8, 3)
    images = Images(pixels, torch.zeros(40_000, dtype=torch.int64))
    small = Images(pixels[:256], images.labels[:256])
    data = Dataset("grey", tuple("abcdefghij"), images, small, small)
    run = Run(network(), data, TrainingOptions(epochs=epochs), 0, 0)
    assert run.steps == steps
    assert sorted(run.due) == [1, half, steps]


def test_rates():
    by_step = TrainingOptions()
    assert by_step.rate(0, 625, 0.0) == 0.0
    assert by_step.rate(1, 625, 0.0) == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi / 625)))
    assert by_step.rate(312, 624, 0.0) == pytest.approx(0.1)
    stepwise = TrainingOptions(lr_decay_method="STEPWISE", shards=1)
    assert [stepwise.rate(s, 600, 0.0) for s in (1, 299, 300, 399, 400, 499, 500, 599)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.00001, 0.00001]
    )
    by_time = TrainingOptions(lr_decay_method="COSINE_BY_TIME", shards=1, train_seconds=100)
    assert by_time.rate(7, 625, 50.0) == pytest.approx(0.05)


def test_the_config_of_the_original_is_understood():
    config = {
        "train_epochs": 12, "batch_size": 64, "learning_rate": 0.05, "use_tpu": False, "tpu_num_shards": 2,
        "intermediate_evaluations": ["0.25", "0.5"], "stem_filter_size": 32, "num_stacks": 2, "num_labels": 7,
        "num_modules_per_stack": 1, "batch_norm_momentum": 0.9, "batch_norm_epsilon": 1e-3, "max_edges": 9,
    }  # fmt: skip
    options, skeleton = options_of(config), skeleton_of(config)
    assert (options.epochs, options.batch, options.shards, options.learning_rate) == (12, 64, 1, 0.05)
    assert options.intermediate_evaluations == (0.25, 0.5)
    assert options.recipe.norm_momentum == pytest.approx(0.1)
    assert (skeleton.stem_filters, skeleton.stacks, skeleton.modules, skeleton.classes) == (32, 2, 1, 7)
    assert skeleton.epsilon == 1e-3
    assert options_of({"use_tpu": True}).shards == 2
    assert options_of({}) == TrainingOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_decay_method": "LINEAR"}, "COSINE_BY_STEP, COSINE_BY_TIME or STEPWISE"),
        ({"batch": 15}, "15 images are no whole batches"),
        ({"epochs": 0}, "are positive"),
        ({"intermediate_evaluations": (2.0,)}, "from 0 to 1"),
    ],
)
def test_options_that_mean_nothing_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainingOptions(**options)


def test_evaluate_returns_what_the_original_does_and_writes_its_metadata(dataset: Dataset, tmp_path: Path):
    config = {"train_epochs": 1, "batch_size": 16, "stem_filter_size": 8, "num_modules_per_stack": 1}
    found = evaluate(*FIVE, tmp_path / "model", config, dataset=dataset)
    assert set(found) == {
        "module_adjacency", "module_operations", "trainable_parameters",
        "training_time", "train_accuracy", "validation_accuracy", "test_accuracy",
    }  # fmt: skip
    metadata = json.loads((tmp_path / "model" / "metadata.json").read_text())
    assert metadata["trainable_params"] == found["trainable_parameters"]
    results = metadata["evaluation_results"]
    assert [r["current_epoch"] for r in results] == [0.0, 0.5, 1]
    assert results[-1]["test_accuracy"] == found["test_accuracy"]
    state = checkpoint.load(tmp_path / "model" / "checkpoint.pt")
    assert state["step"] == 4


def test_quantized_modules_are_trained_too(dataset: Dataset):
    quantized = module_network(*FIVE, Skeleton(image=(3, 8, 8), stem_filters=8, modules=1, weight_precision="4"))
    start = Weights([quantized])
    initialise(start, quantized, 0)
    made = train(quantized, dataset, OPTIONS)
    assert made.finished
    moved = [name for name, p in made.weights.named_parameters() if not torch.equal(p, start[name])]
    assert any(name.endswith("log2_range") for name in moved)
