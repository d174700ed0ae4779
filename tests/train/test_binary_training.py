"""BinaryConnect's training against a recomputation in NumPy, and against the defects of its TensorFlow port."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch

from bitwright.datasets import Dataset, Images
from bitwright.datasets.mnist import load as load_mnist
from bitwright.experiment import resolve
from bitwright.modules import Weights, forward
from bitwright.network import BatchNorm, Conv2d, Dropout, Linear
from bitwright.quantizers import Fans
from bitwright.quantizers.binary import Binary
from bitwright.spaces.binaryconnect import Binaryconnect
from bitwright.train.fit import epoch_rows, fit
from bitwright.train.losses import squared_hinge
from bitwright.train.optimizers import Optimizer, update_scale
from bitwright.train.recipe import Recipe
from bitwright.train.step import measure, predictions, train_step

IMAGE, CLASSES, UNITS, BATCH, STEPS = (1, 6, 6), 10, 24, 32, 5
LAYERS = ("dense1", "dense2", "output")
EPSILON = 1e-4
PRESETS = ("binaryconnect-mnist", "binaryconnect-cifar10", "binaryconnect-svhn", "binarynet-mnist", "binarynet-cifar10")


def space(weights="det", **options):
    return Binaryconnect(IMAGE, CLASSES, (128.0,), (64.0,), layers=2, units=UNITS, weights=weights, **options)


def trained_network(made):
    return made.training_network(made.architecture(()))


def recipe(**options):
    given = {"lr": 0.003, "scale_updates": True, "clip_norm": 0.0, "loss": "squared_hinge", "dtype": "float32"}
    return Recipe(calibrate=False, **(given | options))


def batches(count=STEPS):
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        images = torch.randint(0, 256, (BATCH, *IMAGE), generator=generator, dtype=torch.uint8)
        yield images, torch.randint(0, CLASSES, (BATCH,), generator=generator)


def run_steps(made, options, *, count=STEPS, rates=None):
    """The weights after so many steps, of which step i draws from a stream with seed i."""
    network = trained_network(made)
    weights = Weights([network], seed=3)
    optimizer = Optimizer(weights, options)
    results = []
    for i, (images, labels) in enumerate(batches(count)):
        generator = torch.Generator().manual_seed(i)
        rate = options.lr if rates is None else rates[i]
        results.append(
            train_step(
                network, weights, optimizer, images, labels, options, rate=rate, drop_path=0.0, generator=generator
            )
        )
    return weights, results


class ByHand:
    """BinaryConnect as its paper writes it down, in float64: forward, backward, scaled update, clip."""

    def __init__(self, weights, *, stochastic, optimizer, momentum):
        self.w = {name: weights[name].detach().double().numpy().copy() for name in LAYERS}
        self.gain = {name: np.ones(len(self.w[name])) for name in LAYERS}
        self.offset = {name: np.zeros(len(self.w[name])) for name in LAYERS}
        self.stochastic, self.optimizer, self.momentum = stochastic, optimizer, momentum
        self.moments = {}
        self.time = 0

    def binarized(self, step):
        generator = torch.Generator().manual_seed(step)
        drawn = {}
        for name in LAYERS:
            w = self.w[name]
            if self.stochastic:
                u = torch.rand(w.shape, generator=generator).double().numpy()
                drawn[name] = np.where(u >= (1 - w) / 2, 1.0, -1.0)
            else:
                drawn[name] = np.where(w >= 0, 1.0, -1.0)
        return drawn

    def step(self, number, images, labels, rate):
        wb = self.binarized(number)
        x = (images.double().numpy().reshape(BATCH, -1) - 128) / 64
        saved = []
        for name in LAYERS:
            product = x @ wb[name].T
            mean, variance = product.mean(0), product.var(0)
            normal = (product - mean) / np.sqrt(variance + EPSILON)
            y = normal * self.gain[name] + self.offset[name]
            saved.append((x, normal, variance, y))
            x = y if name == "output" else np.maximum(y, 0)
        targets = np.where(np.arange(CLASSES) == labels.numpy()[:, None], 1.0, -1.0)
        slack = np.maximum(0, 1 - targets * x)
        loss = (slack**2).mean()
        gradient = -2 * slack * targets / slack.size
        gradients = {}
        for name, (read, normal, variance, y) in zip(reversed(LAYERS), reversed(saved), strict=True):
            if name != "output":
                gradient = gradient * (y > 0)
            gradients[f"{name}/gain"] = (gradient * normal).sum(0)
            gradients[f"{name}/offset"] = gradient.sum(0)
            g = gradient * self.gain[name]
            g = (g - g.mean(0) - normal * (g * normal).mean(0)) / np.sqrt(variance + EPSILON)
            gradients[name] = g.T @ read  # with respect to the binarized weights
            gradient = g @ wb[name]
        self.time += 1
        for name in LAYERS:
            coefficient = 1 / math.sqrt(1.5 / sum(self.w[name].shape))
            scale = coefficient**2 if self.optimizer == "sgd" else coefficient
            self.w[name] = np.clip(self.w[name] - rate * scale * self.update(name, gradients[name]), -1, 1)
            self.gain[name] = self.gain[name] - rate * self.update(f"{name}/gain", gradients[f"{name}/gain"])
            self.offset[name] = self.offset[name] - rate * self.update(f"{name}/offset", gradients[f"{name}/offset"])
        return loss

    def update(self, name, gradient):
        if self.optimizer == "adam":
            m, v = self.moments.get(name, (0.0, 0.0))
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            self.moments[name] = m, v
            return (m / (1 - 0.9**self.time)) / (np.sqrt(v / (1 - 0.999**self.time)) + 1e-8)
        velocity = self.momentum * self.moments.get(name, 0.0) + gradient
        self.moments[name] = velocity
        return gradient + self.momentum * velocity if self.momentum else gradient


@pytest.mark.parametrize("weights", ["det", "stoch"])
@pytest.mark.parametrize(
    ("optimizer", "momentum", "lr"), [("adam", 0.9, 0.003), ("sgd", 0.0, 0.05), ("sgd", 0.9, 0.02)]
)
def test_updates_equal_a_recomputation(weights, optimizer, momentum, lr):
    options = recipe(optimizer=optimizer, momentum=momentum, lr=lr)
    made = space(weights)
    rates = [lr * 0.9**i for i in range(STEPS)]
    got, results = run_steps(made, options, rates=rates)
    start = Weights([trained_network(made)], seed=3)
    hand = ByHand(start, stochastic=weights == "stoch", optimizer=optimizer, momentum=momentum)
    for i, (images, labels) in enumerate(batches()):
        assert float(results[i].loss) == pytest.approx(hand.step(i, images, labels, rates[i]), rel=1e-4)
    for name in LAYERS:
        moved = np.abs(hand.w[name] - start[name].detach().numpy())
        assert moved.max() > 0.01
        # Adam divides by the root of squares: where a gradient all but vanishes its last digits decide
        away = np.abs(got[name].detach().numpy() - hand.w[name])
        assert np.quantile(away, 0.99) < 2e-4
        assert away.max() < 0.02 * moved.max()
        np.testing.assert_allclose(got[f"{name}/norm/gain"].detach().numpy(), hand.gain[name], atol=2e-4)
        np.testing.assert_allclose(got[f"{name}/norm/offset"].detach().numpy(), hand.offset[name], atol=2e-4)


def test_the_gradient_of_binarized_weights_is_applied_unchanged():
    made = space()
    network, weights = trained_network(made), Weights([trained_network(made)], seed=3)
    images, labels = next(batches())
    from bitwright.modules import Training

    logits, _ = forward(network, weights, images, training=Training())
    squared_hinge(logits, labels).backward()
    latent = weights["dense2"].grad

    signs = {name: torch.where(weights[name].detach() >= 0, 1.0, -1.0).requires_grad_() for name in LAYERS}
    x = ((images.float() - 128) / 64).flatten(1)
    for name in LAYERS:
        x = torch.nn.functional.batch_norm(x @ signs[name].T, None, None, training=True, eps=EPSILON)
        x = x if name == "output" else x.relu()
    squared_hinge(x, labels).backward()
    torch.testing.assert_close(latent, signs["dense2"].grad, rtol=1e-4, atol=1e-7)
    assert latent.abs().min() > 0 or (latent != 0).double().mean() > 0.9


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("h", [1.0, "glorot", 0.3])
@pytest.mark.parametrize("weights", ["det", "stoch", "ternary"])
def test_latent_weights_never_leave_their_range(weights, h, optimizer):
    made, options = space(weights, h=h), recipe(lr=0.1, optimizer=optimizer)
    network = trained_network(made)
    store = Weights([network], seed=3)
    updates, reached = Optimizer(store, options), 0
    for i, (images, labels) in enumerate(batches(12)):
        generator = torch.Generator().manual_seed(i)
        train_step(network, store, updates, images, labels, options, rate=0.1, drop_path=0.0, generator=generator)
        for name in LAYERS:
            latent = store[name].detach().numpy()
            bound = np.float32(math.sqrt(1.5 / sum(latent.shape)) if h == "glorot" else h)
            assert np.abs(latent).max() <= bound
            reached += int((np.abs(latent) == bound).sum())
    assert reached > 100


@pytest.mark.parametrize("calibrate", [False, True])
def test_what_is_deployed_is_validated_and_kept(calibrate):
    generator = torch.Generator().manual_seed(0)
    images = Images(
        torch.randint(0, 256, (300, 6, 6, 1), generator=generator, dtype=torch.uint8),
        torch.randint(0, CLASSES, (300,), generator=generator),
    )
    dataset = Dataset("noise", tuple("0123456789"), images[:100], images[100:200], images[200:])
    made = space("stoch", evaluated="ensemble", members=4)
    network, deployed = trained_network(made), made.network(made.architecture(()))
    options = dataclasses.replace(recipe(epochs=3, batch=20), calibrate=calibrate)
    fitted = fit(network, dataset, options, deployed=deployed)
    best = fitted.history[fitted.best_epoch - 1]
    assert fitted.validation_accuracy == max(row["validation_accuracy"] for row in fitted.history)
    of_deployed, of_signs = (
        measure(each, fitted.weights, dataset.validation, options.loss) for each in (deployed, network)
    )
    assert (best["validation_accuracy"], best["validation_loss"]) == (of_deployed.top1, of_deployed.loss)
    assert abs(of_deployed.loss - of_signs.loss) > 1e-3


PUBLISHED = {  # by preset: network, layers or filters, units, activations, dropout of the input and of hidden layers;
    # data; batch, epochs, first and last rate, and the part of the running statistics that a step replaces
    "binaryconnect-mnist": (
        ("mlp", 3, 2048, "float", 0.0, 0.0), {"validation": 10000}, (100, 250, 1e-3, 3e-6, 0.15)),
    "binaryconnect-cifar10": (
        ("cnn", 128, 1024, "float", 0.0, 0.0), {"validation": 5000, "preprocess": "gcn_zca"},
        (50, 500, 3e-3, 2e-6, 0.1)),
    "binaryconnect-svhn": (
        ("cnn", 64, 1024, "float", 0.0, 0.0), {"validation": 400, "extra": True, "preprocess": "gcn_lcn"},
        (50, 200, 1e-2, 3e-6, 0.1)),
    "binarynet-mnist": (
        ("mlp", 3, 4096, "binary", 0.2, 0.5), {"validation": 10000}, (100, 1000, 3e-3, 3e-7, 0.1)),
    "binarynet-cifar10": (
        ("cnn", 128, 1024, "binary", 0.0, 0.0), {"validation": 5000, "preprocess": "none"},
        (50, 500, 1e-3, 3e-7, 0.1)),
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_the_published_trainings(preset):
    values = resolve([], preset)
    network, data, training = PUBLISHED[preset]
    size = "layers" if network[0] == "mlp" else "filters"
    options = ("network", size, "units", "activations", "input_dropout", "hidden_dropout")
    assert tuple(values["space"][option] for option in options) == network
    assert (values["space"]["h"], values["space"]["epsilon"], values["space"]["evaluated"]) == (1.0, 1e-4, "published")
    dataset = {key: value for key, value in values["dataset"].items() if key != "root"}
    assert dataset == data | {"name": preset.partition("-")[2]}
    found = values["training"]
    assert tuple(found[name] for name in ("batch", "epochs", "lr", "lr_min", "norm_momentum")) == training
    assert (found["optimizer"], found["schedule"], found["loss"]) == ("adam", "exponential", "squared_hinge")
    assert (found["scale_updates"], found["drop_last"], found["calibrate"]) == (True, True, False)
    assert not any(found[name] for name in ("clip_norm", "weight_decay", "pad", "flip", "cutout", "auto_augment"))


class TestDefectsOfThePort:
    """Each would show here: what was wrong there is said in the name of the test."""

    @pytest.mark.parametrize("preset", [*PRESETS, "port-lenet-mnist"])
    def test_binary_weights_were_switched_off(self, preset):
        values = resolve([], preset)
        assert values["space"]["weights"] == "det"
        for weights, expected in (("det", Binary()), ("stoch", Binary(stochastic=True))):
            made = space(weights)
            assert {n.op.weight for n in trained_network(made).nodes if isinstance(n.op, Linear)} == {expected}

    @pytest.mark.parametrize("weights", ["det", "stoch"])
    def test_weights_had_no_gradient(self, weights):
        made = space(weights)
        network = trained_network(made)
        store = Weights([network], seed=3)
        from bitwright.modules import Training

        images, labels = next(batches())
        logits, _ = forward(network, store, images, training=Training(torch.Generator().manual_seed(0)))
        squared_hinge(logits, labels).backward()
        assert all(float(store[name].grad.norm()) > 0 for name in LAYERS)

    @pytest.mark.parametrize("weights", ["det", "stoch"])
    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    def test_weights_were_not_clipped_and_climbed(self, weights, optimizer):
        store, results = run_steps(space(weights), recipe(lr=0.05, optimizer=optimizer), count=40)
        for name in LAYERS:
            assert float(store[name].detach().abs().max()) == 1.0  # clipped, and some reach the bound
        losses = [float(r.loss) for r in results]
        assert all(math.isfinite(loss) for loss in losses)

    def test_the_loss_goes_down(self):
        images, labels = next(batches())
        made = space()
        network = trained_network(made)
        store = Weights([network], seed=3)
        options, losses = recipe(lr=0.003), []
        optimizer = Optimizer(store, options)
        for i in range(40):
            generator = torch.Generator().manual_seed(i)
            result = train_step(
                network, store, optimizer, images, labels, options, rate=0.003, drop_path=0.0, generator=generator
            )
            losses.append(float(result.loss))
        assert losses[-1] < 0.5 * losses[0]

    def test_biases_started_at_a_tenth(self):
        store = Weights([trained_network(space())], seed=3)
        assert {name for name, _ in store.named_parameters()} == {
            f"{name}{suffix}" for name in LAYERS for suffix in ("", "/norm/gain", "/norm/offset")
        }
        assert not any(store[f"{name}/norm/offset"].detach().any() for name in LAYERS)

    @pytest.mark.parametrize("preset", [*PRESETS, "port-lenet-mnist"])
    def test_the_scale_of_updates_did_not_reach_the_layers(self, preset):
        training = resolve([], preset)["training"]
        scaled = recipe(scale_updates=training["scale_updates"], optimizer=training["optimizer"])
        store = Weights([trained_network(space())], seed=3)
        assert update_scale(store, "dense2", scaled) == pytest.approx(math.sqrt(2 * UNITS / 1.5))
        assert update_scale(store, "dense2/norm/gain", scaled) == 1.0

    def test_biases_were_clipped_and_scaled(self):
        """Gains and offsets move by the plain rate, and may leave [-1, 1]."""
        store, _ = run_steps(space(), recipe(lr=0.5), count=20)
        assert max(float(store[f"{name}/norm/gain"].detach().abs().max()) for name in LAYERS) > 1.5
        one, _ = run_steps(space(), recipe(lr=0.001), count=1)
        for name in LAYERS:  # the first step of Adam is the rate
            assert float((one[f"{name}/norm/gain"].detach() - 1).abs().max()) <= 0.001 * 1.001

    @pytest.mark.parametrize("evaluated", ["real", "binary", "ensemble"])
    def test_signs_were_drawn_anew_at_test(self, evaluated):
        made = space("stoch", evaluated=evaluated)
        store, _ = run_steps(made, recipe())
        images, _ = next(batches())
        deployed = made.network(made.architecture(()))
        torch.manual_seed(0)
        first = forward(deployed, store, images)[0]
        torch.manual_seed(1)
        assert torch.equal(first, forward(deployed, store, images)[0])

    def test_training_draws_anew_in_every_step(self):
        made = space("stoch")
        _, one = run_steps(made, recipe(), count=1)
        network, (images, labels) = trained_network(made), next(batches())
        store, options = Weights([network], seed=3), recipe()
        other = train_step(
            network, store, Optimizer(store, options), images, labels, options,
            rate=0.003, drop_path=0.0, generator=torch.Generator().manual_seed(99),
        )  # fmt: skip
        assert float(one[0].loss) != float(other.loss)

    def test_validation_was_done_on_training_images(self, tmp_path):
        write_idx(tmp_path, 300, 20)
        data = load_mnist(tmp_path, validation=100)
        assert resolve([], "binaryconnect-mnist")["dataset"]["validation"] == 10000
        first = {bytes(image.numpy()) for image in data.train.pixels}
        held_out = {bytes(image.numpy()) for image in data.validation.pixels}
        assert (len(first), len(held_out)) == (200, 100)
        assert not first & held_out
        assert data.validation is not data.test

    def test_an_epoch_left_out_training_images(self):
        rows = torch.cat(epoch_rows(50_000, 100, 0, 0, torch.device("cpu"), drop_last=True))
        assert torch.equal(rows.sort().values, torch.arange(50_000))

    def test_dropout_rates_were_those_of_what_is_kept(self):
        assert not any(isinstance(node.op, Dropout) for node in trained_network(space()).nodes)
        dropped = [n.op.rate for n in trained_network(space(input_dropout=0.2, hidden_dropout=0.5)).nodes
                   if isinstance(n.op, Dropout)]  # fmt: skip
        assert dropped == [0.2, 0.5, 0.5]

    def test_dropout_stayed_on_at_test(self):
        plain, dropping = space(), space(input_dropout=0.2, hidden_dropout=0.5)
        store, _ = run_steps(plain, recipe())
        images, labels = next(batches())
        part = Images(images.permute(0, 2, 3, 1), labels)
        networks = [made.network(made.architecture(())) for made in (plain, dropping)]
        assert torch.equal(*(predictions(network, store, part) for network in networks))

    def test_normalisations_were_left_out(self):
        for options in ({}, {"network": "cnn", "filters": 4}, {"network": "lenet", "filters": 4}):
            made = Binaryconnect((1, 8, 8), CLASSES, (128.0,), (64.0,), units=8, **options)
            ops = [node.op for node in trained_network(made).nodes]
            products = sum(isinstance(op, Conv2d | Linear) for op in ops)
            assert products == sum(isinstance(op, BatchNorm) for op in ops) > 2
        norms = {name: resolve([], name)["training"]["norm_momentum"] for name in PRESETS}
        assert norms["binaryconnect-mnist"] == 0.15
        assert norms["binaryconnect-cifar10"] == norms["binaryconnect-svhn"] == 0.1

    @pytest.mark.parametrize("preset", [*PRESETS, "port-lenet-mnist"])
    def test_the_loss_was_cross_entropy(self, preset):
        assert resolve([], preset)["training"]["loss"] == "squared_hinge"

    def test_the_perceptron_was_a_convolutional_network(self):
        values = resolve([], "binaryconnect-mnist")["space"]
        assert (values["network"], values["layers"], values["units"]) == ("mlp", 3, 2048)

    def test_glorot_was_no_number_and_left_out_the_kernel(self):
        made = Binaryconnect((1, 28, 28), 10, (33.0,), (78.0,), network="lenet", filters=32, h="glorot")
        store = Weights([trained_network(made)], seed=0)
        assert update_scale(store, "conv2", recipe()) == pytest.approx(40.0, rel=1e-6)  # 5x5, 32 to 64 channels
        bound = math.sqrt(1.5 / (25 * 32 + 25 * 64))
        assert bound * 0.999 < float(store["conv2"].detach().abs().max()) <= bound

    @pytest.mark.parametrize(
        ("fans", "h", "multiplier"),
        [((784, 2048), 0.02301, 43.45), ((2048, 2048), 0.01914, 52.26), ((784, 1024), 0.0288, 34.72)],
    )
    def test_published_coefficients(self, fans, h, multiplier):
        assert Fans(*fans).glorot == pytest.approx(h, rel=1e-3)
        assert 1 / Fans(*fans).glorot == pytest.approx(multiplier, rel=1e-3)

    def test_the_loss_was_a_sum(self):
        logits, labels = torch.tensor([[0.5, -2.0], [0.0, 3.0]]), torch.tensor([0, 1])
        expected = ((1 - 0.5) ** 2 + 0 + (1 + 0.0) ** 2 + 0) / 4
        assert float(squared_hinge(logits, labels)) == pytest.approx(expected)

    def test_pixels_were_not_centred(self):
        made = Binaryconnect((1, 28, 28), 10, (33.318,), (78.567,))
        (image,) = (node.op for node in trained_network(made).nodes if not node.inputs)
        assert (image.offset, image.scale) == ((33.0,), (1 / 78.567,))

    def test_a_seed_did_not_reach_the_draws(self):
        runs = [run_steps(space("stoch"), recipe())[0].state_dict() for _ in range(2)]
        assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])

    def test_learning_rates_decay_from_the_first_epoch_to_the_last(self):
        rates = Recipe(epochs=250, lr=0.001, lr_min=3e-6, schedule="exponential").rates()
        assert rates(0.5) == pytest.approx(0.001)
        assert rates(1.0) / rates(0.0) == pytest.approx(0.97703, abs=1e-5)
        assert rates(249) == pytest.approx(3e-6 / 0.97703, rel=1e-4)
        for name, factor in (("binaryconnect-mnist", 0.97703), ("binaryconnect-cifar10", 0.98548),
                             ("binaryconnect-svhn", 0.96025)):  # fmt: skip
            training = resolve([], name)["training"]
            published = Recipe(**{k: v for k, v in training.items() if k in inspect.signature(Recipe).parameters
                                  and k != "milestones"})  # fmt: skip
            assert published.rates()(1) / published.rates()(0) == pytest.approx(factor, abs=1e-5)


def write_idx(folder, train, test):
    """MNIST's four files, of random images that all differ."""
    rng = np.random.default_rng(0)
    for kind, count in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = (0x803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        (folder / f"{kind}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        header = (0x801).to_bytes(4, "big") + count.to_bytes(4, "big")
        (folder / f"{kind}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
