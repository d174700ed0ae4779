"""Updates of latent weights: clipping, Glorot scaling, decay, and leaving alone what a step did not use."""

import math

import pytest
import torch

from bitwright.modules import Weights, tensor_names
from bitwright.network import BatchNorm, Conv2d, GlobalSumPool, Input, Linear, Network, Node
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform
from bitwright.train.checkpoint import load, save
from bitwright.train.optimizers import Optimizer, update_scale
from bitwright.train.random_stream import random_stream
from bitwright.train.recipe import Recipe
from bitwright.train.step import train_step

EACH = pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])


def chain(*quantizers, key="", channels=4, bias=False):
    """A 1x1 convolution per quantizer, each with a batch normalisation, then a real classifier of 3 classes."""
    nodes = [Node(Input((2, 3, 3), offset=(128.0,), scale=(1 / 64,)))]
    for i, quantizer in enumerate(quantizers):
        nodes.append(Node(Conv2d(channels, 1, quantizer), (len(nodes) - 1,), f"{key}conv{i}"))
        nodes.append(Node(BatchNorm(Binary()), (len(nodes) - 1,), f"{key}conv{i}/norm"))
    nodes.append(Node(GlobalSumPool(), (len(nodes) - 1,)))
    nodes.append(Node(Linear(3, Real(), bias=bias), (len(nodes) - 1,), "classes"))
    return Network(tuple(nodes))


def set_gradients(weights, names=None, seed=0, scale=1.0):
    for name, parameter in weights.named_parameters():
        if names is None or name in names:
            generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
            # multiples of 1/64, so that sums and products with powers of two are exact
            parameter.grad = torch.randint(-64, 65, parameter.shape, generator=generator) / 64 * scale


def gradients(weights):
    return {name: parameter.grad.clone() for name, parameter in weights.named_parameters()}


def values(weights):
    return {name: parameter.detach().clone() for name, parameter in weights.named_parameters()}


def copied(state):
    return {name: {key: tensor.clone() for key, tensor in moments.items()} for name, moments in state.items()}


def set_to(weights, value):
    """Dyadic numbers well inside every bound."""
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.fill_(value)


# scaling


def test_the_update_scale_of_a_3x3_convolution_from_128_to_128_channels_is_39_19():
    net = Network((Node(Input((128, 4, 4))), Node(Conv2d(128, 3, Binary("glorot")), (0,), "conv")))
    weights = Weights([net])
    adam = update_scale(weights, "conv", Recipe(optimizer="adam", scale_updates=True))
    sgd = update_scale(weights, "conv", Recipe(optimizer="sgd", scale_updates=True))
    assert adam == 1 / math.sqrt(1.5 / (1152 + 1152))
    assert round(adam, 2) == 39.19
    assert sgd == pytest.approx((1152 + 1152) / 1.5, rel=1e-15)
    assert update_scale(weights, "conv", Recipe(scale_updates=False)) == 1.0


@EACH
def test_only_weights_with_a_bound_have_an_update_scale(optimizer):
    weights = Weights([chain(Binary(), Ternary(), FixedPoint(4), Uniform(4), Real())])
    recipe = Recipe(optimizer=optimizer, scale_updates=True)
    scaled = {name for name, _ in weights.named_parameters() if update_scale(weights, name, recipe) != 1.0}
    assert scaled == {"conv0", "conv1", "conv2"}


@pytest.mark.parametrize("quantizer", [Binary(), Ternary(), FixedPoint(4)], ids=repr)
def test_glorot_scaling_multiplies_the_sgd_update_by_the_squared_coefficient(quantizer):
    # 2 inputs and 4 filters of 1x1: the coefficient squared is (2 + 4) / 1.5 = 4
    updates = []
    for scale_updates in (False, True):
        weights = Weights([chain(quantizer)])
        set_to(weights, 0.25)
        optimizer = Optimizer(weights, Recipe(optimizer="sgd", momentum=0.5, scale_updates=scale_updates, clip_norm=0))
        start = values(weights)
        for seed in (1, 2):
            set_gradients(weights, seed=seed)
            optimizer.step(start, 2.0**-6)
        updates.append({name: tensor - start[name] for name, tensor in values(weights).items()})
    plain, scaled = updates
    assert plain["conv0"].abs().min() > 0
    assert torch.equal(scaled["conv0"], 4 * plain["conv0"])
    for name in ("conv0/norm/gain", "conv0/norm/offset", "classes"):
        assert torch.equal(scaled[name], plain[name])


def test_glorot_scaled_nesterov_sgd_equals_a_hand_rolled_update():
    weights = Weights([chain(Ternary())])
    set_to(weights, 0.125)
    recipe = Recipe(optimizer="sgd", momentum=0.5, scale_updates=True, clip_norm=0)
    optimizer, rate = Optimizer(weights, recipe), 2.0**-7
    by_hand = {name: tensor.double() for name, tensor in values(weights).items()}
    velocity = dict.fromkeys(by_hand, 0.0)
    for seed in range(4):
        set_gradients(weights, seed=seed)
        for name, gradient in gradients(weights).items():
            velocity[name] = 0.5 * velocity[name] + gradient.double()
            factor = 4.0 if name == "conv0" else 1.0
            by_hand[name] = by_hand[name] - rate * factor * (gradient.double() + 0.5 * velocity[name])
            if name == "conv0":
                by_hand[name] = by_hand[name].clamp(-1, 1)
        optimizer.step(by_hand, rate)
        # multiples of 2^-6 * 2^-7 * 2^-4 below 1: exact in float32
        assert all(torch.equal(tensor.double(), by_hand[name]) for name, tensor in values(weights).items())


def test_glorot_scaled_adam_equals_a_hand_rolled_update():
    # 4 inputs would make the coefficient irrational; with 2 inputs and 4 filters it is 2
    weights = Weights([chain(Binary())])
    recipe = Recipe(optimizer="adam", momentum=0.9, adam_beta2=0.99, adam_epsilon=1e-3, scale_updates=True, clip_norm=0)
    optimizer, rate = Optimizer(weights, recipe), 0.01
    by_hand = {name: tensor.double() for name, tensor in values(weights).items()}
    first, second = dict.fromkeys(by_hand, 0.0), dict.fromkeys(by_hand, 0.0)
    for step in range(1, 6):
        set_gradients(weights, seed=step)
        for name, gradient in gradients(weights).items():
            first[name] = 0.9 * first[name] + 0.1 * gradient.double()
            second[name] = 0.99 * second[name] + 0.01 * gradient.double() ** 2
            corrected = first[name] / (1 - 0.9**step)
            deviation = (second[name] / (1 - 0.99**step)).sqrt() + 1e-3
            factor = 2.0 if name == "conv0" else 1.0
            by_hand[name] = by_hand[name] - rate * factor * corrected / deviation
            if name == "conv0":
                by_hand[name] = by_hand[name].clamp(-1, 1)
        optimizer.step(by_hand, rate)
    # five updates of at most rate * factor * 1 / sqrt(1 - .99) each: a dozen float32 roundings of them and of a weight
    tolerance = 5 * 12 * 2.0**-24 * (1 + rate * 2 * 10)
    for name, tensor in values(weights).items():
        assert (tensor.double() - by_hand[name]).abs().max() <= tolerance


def test_adam_does_not_normalise_the_glorot_coefficient_away():
    updates = []
    for scale_updates in (False, True):
        weights = Weights([chain(Binary())])
        set_to(weights, 0.0)
        set_gradients(weights)
        optimizer = Optimizer(weights, Recipe(optimizer="adam", scale_updates=scale_updates, clip_norm=0))
        optimizer.step(values(weights), 0.01)
        updates.append(values(weights)["conv0"])
    assert torch.equal(updates[1], 2 * updates[0])
    assert updates[0].abs().max() > 0


# clipping of latent weights


@EACH
@pytest.mark.parametrize(
    ("quantizer", "bound"),
    [
        (Binary(), 1.0),
        (Binary(0.25), 0.25),
        (Binary("glorot"), 0.5),
        (Ternary(0.5), 0.5),
        (Ternary("glorot"), 0.5),
        (FixedPoint(3), 1.0),
    ],
    ids=repr,
)
def test_latent_weights_are_clipped_to_their_bound_after_every_update(optimizer, quantizer, bound):
    weights = Weights([chain(quantizer)])
    assert weights["conv0"].abs().max() <= bound
    stepper = Optimizer(weights, Recipe(optimizer=optimizer, clip_norm=0))
    for seed in range(4):
        set_gradients(weights, seed=seed, scale=4.0)
        stepper.step(values(weights), 0.5)
        assert weights["conv0"].abs().max() <= bound
    assert (weights["conv0"].abs() == bound).any()


@EACH
@pytest.mark.parametrize("quantizer", [Real(), Uniform(4)], ids=repr)
def test_free_weights_and_normalisations_are_not_clipped(optimizer, quantizer):
    weights = Weights([chain(quantizer)])
    set_to(weights, 0.0)
    stepper = Optimizer(weights, Recipe(optimizer=optimizer, clip_norm=0))
    for name, parameter in weights.named_parameters():
        parameter.grad = torch.full_like(parameter, 1.0 if name == "conv0" else -1.0)
    stepper.step(values(weights), 100.0)
    assert weights["conv0"].abs().min() > 1
    assert weights["conv0/norm/gain"].abs().min() > 1


@EACH
def test_shared_latent_weights_stay_within_their_bounds_while_a_supernet_trains(optimizer):
    one, two, common = chain(Binary(), Binary("glorot"), key="a/"), chain(Ternary(), key="b/"), chain(Ternary(0.5))
    weights = Weights([one, two, common], shared=True)
    recipe = Recipe(optimizer=optimizer, scale_updates=True, dtype="float32")
    stepper = Optimizer(weights, recipe)
    pixels = torch.randint(0, 256, (16, 2, 3, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels = torch.arange(16) % 3
    bounds = {"a/conv0": 1.0, "a/conv1": math.sqrt(1.5 / 8), "b/conv0": 1.0, "conv0": 0.5}
    for step in range(12):
        net = (one, two, common)[step % 3]
        generator = random_stream(torch.device("cpu"), step)
        train_step(net, weights, stepper, pixels, labels, recipe, rate=2.0, drop_path=0.0, generator=generator)
        for name, bound in bounds.items():
            assert weights[name].abs().max() <= torch.tensor(bound)
    assert all((weights[name].abs() == torch.tensor(bound)).any() for name, bound in bounds.items())


# only what was used


@EACH
def test_tensors_that_a_step_does_not_name_keep_their_values_and_their_moments(optimizer):
    weights = Weights([chain(Binary(), Real(), Ternary())])
    stepper = Optimizer(weights, Recipe(optimizer=optimizer, weight_decay=0.1))
    set_gradients(weights, seed=1)
    stepper.step(values(weights), 0.01)
    before, moments = (
        values(weights),
        {n: {k: v.clone() for k, v in s.items()} for n, s in stepper.state_dict().items()},
    )
    used = {"conv0", "conv1/norm/gain", "classes"}
    set_gradients(weights, used, seed=2)
    stepper.step(used, 0.01)
    for name, tensor in values(weights).items():
        assert torch.equal(tensor, before[name]) == (name not in used), name
        same = [torch.equal(moment, moments[name][key]) for key, moment in stepper.state_dict()[name].items()]
        assert all(same) if name not in used else not any(same), name


@EACH
def test_a_supernet_step_changes_exactly_the_tensors_of_the_sampled_network(optimizer):
    one, two = chain(Binary(), key="a/"), chain(Ternary(), Real(), key="b/")
    weights = Weights([one, two], shared=True)
    recipe = Recipe(optimizer=optimizer, weight_decay=0.1, dtype="float32")
    stepper = Optimizer(weights, recipe)
    pixels = torch.randint(0, 256, (16, 2, 3, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for net in (one, two, one):
        before = values(weights)
        generator = random_stream(torch.device("cpu"), "step")
        train_step(
            net, weights, stepper, pixels, torch.arange(16) % 3, recipe, rate=0.01, drop_path=0.0, generator=generator
        )
        changed = {name for name, tensor in values(weights).items() if not torch.equal(tensor, before[name])}
        assert changed == set(tensor_names(net))


@EACH
def test_a_step_clears_the_gradients_it_used(optimizer):
    weights = Weights([chain(Binary())])
    stepper = Optimizer(weights, Recipe(optimizer=optimizer))
    set_gradients(weights)
    stepper.step(values(weights), 0.01)
    assert all(parameter.grad is None for parameter in weights.parameters())


@EACH
def test_named_tensors_without_a_gradient_stay_as_they_are(optimizer):
    weights = Weights([chain(Binary())])
    before = values(weights)
    norm = Optimizer(weights, Recipe(optimizer=optimizer, weight_decay=0.1)).step(before, 0.01)
    assert norm == 0.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(weights).items())


# decay and norm


def test_weight_decay_shrinks_free_weights_only():
    weights = Weights([chain(Binary(), Ternary(), FixedPoint(4), Uniform(4), Real())])
    set_to(weights, 0.5)
    optimizer = Optimizer(weights, Recipe(optimizer="sgd", momentum=0.0, weight_decay=0.25, clip_norm=0))
    for parameter in weights.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(values(weights), 0.5)
    decayed = {name for name, tensor in values(weights).items() if not (tensor == 0.5).all()}
    assert decayed == {"conv3", "conv4", "classes"}
    for name in decayed:
        assert (weights[name] == 0.5 - 0.5 * 0.25 * 0.5).all()


@pytest.mark.parametrize("per_channel", [False, True])
def test_learned_scales_do_not_decay(per_channel):
    weights = Weights([chain(Uniform(4, step="learned", per_channel=per_channel))])
    before = weights["conv0/log2_range"].tolist()
    optimizer = Optimizer(weights, Recipe(optimizer="sgd", weight_decay=0.25))
    for parameter in weights.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(values(weights), 0.5)
    assert weights["conv0/log2_range"].tolist() == before


@pytest.mark.parametrize("norm_decay", [False, True])
@pytest.mark.parametrize("scale_decay", [False, True])
def test_normalisations_and_learned_scales_decay_where_the_recipe_says_so(norm_decay, scale_decay):
    weights = Weights([chain(Uniform(4, step="learned", per_channel=True), bias=True)])
    set_to(weights, 0.5)
    recipe = Recipe(optimizer="sgd", weight_decay=0.25, norm_decay=norm_decay, scale_decay=scale_decay)
    optimizer = Optimizer(weights, recipe)
    for parameter in weights.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(values(weights), 0.5)
    decayed = {name for name, tensor in values(weights).items() if not (tensor == 0.5).all()}
    expected = {"conv0", "classes"}
    expected |= {"conv0/norm/gain", "conv0/norm/offset"} if norm_decay else set()
    expected |= {"conv0/log2_range", "classes/bias"} if scale_decay else set()
    assert decayed == expected


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_agrees_with_torch_with_and_without_nesterov_momentum(nesterov):
    weights, theirs = Weights([chain(Real())]), Weights([chain(Real())])
    optimizer = Optimizer(weights, Recipe(optimizer="sgd", momentum=0.9, nesterov=nesterov, clip_norm=0))
    peer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, nesterov=nesterov)
    for seed in range(4):
        set_gradients(weights, seed=seed)
        set_gradients(theirs, seed=seed)
        optimizer.step(values(weights), 0.01)
        peer.step()
    for name, tensor in values(weights).items():
        assert torch.allclose(tensor, theirs[name], rtol=1e-6, atol=1e-7)


def test_rmsprop_is_that_of_tensorflow():
    """Step by step in float64: the mean square starts at 1, epsilon is under the root, the rate is in the velocity."""
    weights = Weights([chain(Real())])
    recipe = Recipe(
        optimizer="rmsprop", momentum=0.8, rmsprop_decay=0.9, rmsprop_epsilon=0.5, weight_decay=0.25, clip_norm=0,
        norm_decay=True, scale_decay=True,
    )  # fmt: skip
    optimizer = Optimizer(weights, recipe)
    expected = {name: tensor.detach().double() for name, tensor in values(weights).items()}
    squares = {name: torch.ones_like(tensor) for name, tensor in expected.items()}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    for seed, rate in enumerate((0.0, 0.1, 0.05, 0.2)):
        set_gradients(weights, seed=seed)
        for name, gradient in gradients(weights).items():
            g = gradient.double() + 0.25 * expected[name]
            squares[name] = 0.9 * squares[name] + 0.1 * g**2
            velocity[name] = 0.8 * velocity[name] + rate * g / (squares[name] + 0.5).sqrt()
            expected[name] = expected[name] - velocity[name]
        optimizer.step(values(weights), rate)
        for name, tensor in values(weights).items():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_as_torch_clips_them():
    weights, theirs = Weights([chain(Real(), Real())]), Weights([chain(Real(), Real())])
    set_gradients(weights)
    set_gradients(theirs)
    set_to(weights, 0.0)
    optimizer = Optimizer(weights, Recipe(optimizer="sgd", momentum=0.0, clip_norm=0.5))
    norm = optimizer.step(values(weights), 1.0)
    reference = torch.nn.utils.clip_grad_norm_(list(theirs.parameters()), 0.5)
    assert norm == reference
    assert reference > 0.5
    for name, gradient in gradients(theirs).items():
        assert torch.equal(weights[name], -gradient)


def test_the_norm_is_that_of_the_named_gradients_before_clipping():
    weights = Weights([chain(Real())])
    for name, parameter in weights.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = {"conv0": 3.0, "classes": 4.0}.get(name, 12.0)
    optimizer = Optimizer(weights, Recipe(optimizer="sgd", clip_norm=1.0))
    assert optimizer.step(["conv0", "classes"], 0.01) == 5.0


@pytest.mark.parametrize("clip_norm", [0.0, 1e6])
def test_gradients_below_the_limit_and_without_one_are_not_clipped(clip_norm):
    weights = Weights([chain(Real())])
    set_to(weights, 0.0)
    set_gradients(weights)
    expected = gradients(weights)
    Optimizer(weights, Recipe(optimizer="sgd", momentum=0.0, clip_norm=clip_norm)).step(expected, 1.0)
    assert all(torch.equal(weights[name], -gradient) for name, gradient in expected.items())


# resuming


def steps(weights, optimizer, seeds):
    for seed in seeds:
        used = [name for i, name in enumerate(values(weights)) if (i + seed) % 3]
        set_gradients(weights, used, seed=seed)
        optimizer.step(used, 0.01)


@EACH
def test_an_optimizer_restored_from_its_state_continues_bit_for_bit(optimizer, tmp_path):
    recipe = Recipe(optimizer=optimizer, weight_decay=0.01, scale_updates=True)
    net = chain(Binary(), Ternary("glorot"), Uniform(4))
    through, stopped, resumed = (Weights([net]) for _ in range(3))
    uninterrupted = Optimizer(through, recipe)
    steps(through, uninterrupted, range(8))

    first = Optimizer(stopped, recipe)
    steps(stopped, first, range(4))
    save(tmp_path / "half.pt", {"weights": stopped.state_dict(), "optimizer": first.state_dict()})
    state = load(tmp_path / "half.pt")
    second = Optimizer(resumed, recipe)
    steps(resumed, second, range(20, 22))  # what it did before must not matter
    resumed.load_state_dict(state["weights"])
    second.load_state_dict(state["optimizer"])
    steps(resumed, second, range(4, 8))

    assert all(torch.equal(tensor, values(through)[name]) for name, tensor in values(resumed).items())
    for name, remembered in uninterrupted.state_dict().items():
        assert all(torch.equal(moment, second.state_dict()[name][key]) for key, moment in remembered.items())


@EACH
def test_restoring_forgets_what_the_saved_state_does_not_hold(optimizer):
    weights = Weights([chain(Binary())])
    stepper = Optimizer(weights, Recipe(optimizer=optimizer))
    steps(weights, stepper, range(3))
    saved = {"classes": copied(stepper.state_dict())["classes"]}
    stepper.load_state_dict(saved)
    assert set(stepper.state_dict()) == {"classes"}


@EACH
def test_a_restored_state_is_a_copy(optimizer):
    weights = Weights([chain(Binary())])
    stepper = Optimizer(weights, Recipe(optimizer=optimizer))
    steps(weights, stepper, range(2))
    state = copied(stepper.state_dict())
    other = Optimizer(weights, Recipe(optimizer=optimizer))
    other.load_state_dict(state)
    kept = copied(state)
    steps(weights, other, range(2, 4))
    assert all(torch.equal(moment, kept[n][k]) for n, s in state.items() for k, moment in s.items())
