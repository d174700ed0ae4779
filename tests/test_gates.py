"""Gates on quantizers: their gradients against autograd of y = sum_k g_k q_k(x), written out in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bitwright.errors import InvalidNetwork
from bitwright.modules import Gates, Training, Weights, forward, run
from bitwright.network import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    GlobalSumPool,
    Input,
    Linear,
    Network,
    Node,
)
from bitwright.quantizers import Levels
from bitwright.quantizers.binary import Binary
from bitwright.quantizers.fixed_point import FixedPoint
from bitwright.quantizers.real import Real
from bitwright.quantizers.relu import Relu
from bitwright.quantizers.ternary import Ternary
from bitwright.quantizers.uniform import Uniform


def bits(*widths, **options):
    return tuple(Uniform(width, **options) for width in widths)


# by the key of the weights or of the scale; the first quantizer of each stands in the network
OPTIONS = {
    "stem": bits(8, 2, 4, per_channel=True),
    "group": bits(4, 2, 8, step="learned", start=1.5),
    "deep": (*bits(3, 8), Binary("glorot"), Ternary("glorot"), Real()),
    "deep/norm": (*bits(2, 4, 8, signed=False), Uniform(4, signed=False, step=0.5), Relu()),
    "inner": (FixedPoint(4), FixedPoint(2), *bits(8, step=0.01)),
    "act": (Uniform(4, signed=False, step=0.5), Uniform(2, signed=False, step=1.0), *bits(8, signed=False)),
    "channels": bits(4, 8, 2, signed=False, step="learned", per_channel=True, start=2.0),
    "classes": (*bits(8, 2), Real()),
}
NODES = (
    Node(Input((2, 6, 6), (100.0,), (1 / 64,))),
    Node(Conv2d(4, 3, OPTIONS["stem"][0], padding="half"), (0,), "stem"),
    Node(BatchNorm(OPTIONS["group"][0], real=True, scale_key="group"), (1,), "stem/norm"),
    Node(Conv2d(4, 3, OPTIONS["inner"][0], padding="half"), (2,), "inner"),
    Node(BatchNorm(OPTIONS["group"][0], real=True, scale_key="group"), (3,), "inner/norm"),
    Node(Add(Levels.between(-7, 7)), (2, 4), "sum"),
    Node(Activation(OPTIONS["act"][0]), (5,), "act"),
    Node(Conv2d(4, 1, OPTIONS["deep"][0]), (6,), "deep"),
    Node(BatchNorm(OPTIONS["deep/norm"][0], epsilon=1e-12), (7,), "deep/norm"),
    Node(DepthwiseConv2d(3, Real(), padding="half"), (8,), "mixing"),
    Node(BatchNorm(OPTIONS["channels"][0], real=True, scale_key="channels"), (9,), "mixing/norm"),
    Node(DepthwiseConv2d(3, Real(), padding="half"), (10,), "last"),
    Node(GlobalSumPool(), (11,)),
    Node(Linear(3, OPTIONS["classes"][0]), (12,), "classes"),
)


def network(active):
    """The network with the quantizer of that number among those of each key."""
    chosen = {key: options[active % len(options)] for key, options in OPTIONS.items()}
    nodes = []
    for node in NODES:
        match node.op:
            case Conv2d() | Linear():
                node = replace(node, op=replace(node.op, weight=chosen[node.key]))
            case BatchNorm():
                node = replace(node, op=replace(node.op, activation=chosen[node.op.scale_key or node.key]))
            case Activation():
                node = Node(Activation(chosen["act"]), node.inputs, node.key)
            case Add():
                node = replace(node, op=Add(chosen["group"].levels))
            case _:
                pass
        nodes.append(node)
    return Network(tuple(nodes))


def images():
    return torch.randint(0, 256, (5, 2, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def store(seed=0):
    weights = Weights([network(active) for active in range(5)], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in weights.named_parameters():
            if name.endswith(("/gain", "/offset", "log2_range")):
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.5)
    return weights


def gates(dtype=torch.float64):
    return {
        key: Gates(options, torch.rand(len(options), dtype=dtype).requires_grad_()) for key, options in OPTIONS.items()
    }


def loss_of(logits):
    return (logits.double() * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)).sin().sum()


# the reference


def through(value, x, passes):
    """`value` with the gradient of `x` where `passes` holds."""
    surrogate = torch.where(passes, x, x.detach())
    return surrogate + (value - surrogate).detach()


def rounded(quantizer, x, scale):
    """What the docstring of the quantizer says, and where its gradient passes."""
    match quantizer:
        case Real():
            return x
        case Relu():
            return x.relu()
        case Binary():
            return through(torch.where(x >= 0, scale, -scale), x, x.abs() <= scale)
        case Ternary():
            units = (x > scale / 2).to(x) - (x <= -scale / 2).to(x)
            return through(units * scale, x, torch.ones_like(x, dtype=torch.bool))
        case FixedPoint(bits=width):
            low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
        case Uniform(bits=width, signed=True):
            high = 2 ** (width - 1) - 1
            low = -high
        case Uniform(bits=width):
            low, high = 0, 2**width - 1
    units = (x.detach() / scale).round()
    return through(units.clamp(low, high) * scale, x, (units >= low) & (units <= high))


def scale_of(quantizer, x, learned, fans):
    match quantizer:
        case Uniform(bits=width, signed=signed, step="learned"):
            return learned.detach().exp2() / (2 ** (width - 1) - 1 if signed else 2**width - 1)
        case Uniform(bits=width, signed=signed, step="max_abs", per_channel=apart):
            largest = x.detach().abs().amax((1, 2, 3), keepdim=True) if apart else x.detach().abs().max()
            return largest / (2 ** (width - 1) - 1 if signed else 2**width - 1)
        case Uniform(step=step):
            return step
        case FixedPoint(bits=width):
            return 2.0 ** (1 - width)
        case Binary() | Ternary():
            return (1.5 / sum(fans)) ** 0.5
        case _:
            return 1.0


class Plain:
    """The network as sums over all quantizers, each times its gate."""

    def __init__(self, weights, active):
        self.weights = weights
        self.gates = {
            key: F.one_hot(torch.tensor(active % len(options)), len(options)).double().requires_grad_()
            for key, options in OPTIONS.items()
        }
        self.active = active

    def mixed(self, key, x, fans=None):
        learned = dict(self.weights.named_parameters()).get(f"{key}/log2_range")
        values = [rounded(q, x, scale_of(q, x, learned, fans)) for q in OPTIONS[key]]
        return sum(gate * value for gate, value in zip(self.gates[key], values, strict=True))

    def conv(self, key, x):
        latent = self.weights[key]
        out, inputs, side, _ = latent.shape
        return F.conv2d(x, self.mixed(key, latent, (inputs * side**2, out * side**2)), padding=side // 2)

    def depthwise(self, key, x):
        return F.conv2d(x, self.weights[key], padding=1, groups=4)

    def norm(self, key, x, scale="", epsilon=1e-5):
        gain, offset = self.weights[f"{key}/gain"], self.weights[f"{key}/offset"]
        return self.mixed(scale or key, F.batch_norm(x, None, None, gain, offset, True, eps=epsilon))

    def __call__(self, pixels):
        x = self.norm("stem/norm", self.conv("stem", (pixels.double() - 100) / 64), "group")
        sums = x + self.norm("inner/norm", self.conv("inner", x), "group")
        quantizer = OPTIONS["group"][self.active % 3]
        step = scale_of(quantizer, sums, self.weights["group/log2_range"], None)
        high = quantizer.levels.highest
        units = (sums.detach() / step).round()
        sums = through(units.clamp(-high, high) * step, sums, units.abs() <= high)
        # this normalisation reads accumulators, whose epsilon would be another one
        x = self.norm("deep/norm", self.conv("deep", self.mixed("act", sums)), epsilon=1e-12)
        x = self.norm("mixing/norm", self.depthwise("mixing", x), "channels")
        x = self.depthwise("last", x).mean((2, 3))
        return F.linear(x, self.mixed("classes", self.weights["classes"]))


@pytest.mark.parametrize("active", range(5))
def test_gates_have_the_gradient_of_the_sum_over_all_quantizers(active):
    weights = store().double()
    given = gates()
    values = run(network(active), weights, images(), training=Training(gates=given), dtype=torch.float64)
    plain = Plain(weights, active)
    wanted = plain(images())
    assert torch.allclose(values[-1].real, wanted, rtol=1e-9)
    loss_of(values[-1].real).backward()
    loss_of(wanted).backward()
    for key, each in given.items():
        assert torch.allclose(each.values.grad, plain.gates[key].grad, rtol=1e-7, atol=1e-9), key


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_gates_change_neither_the_network_nor_its_other_gradients(memory):
    pixels = images().to(memory_format=memory)

    def step(training):
        weights = store()
        logits, _ = forward(network(0), weights, pixels, training=training)
        loss_of(logits).backward()
        return logits, {name: tensor.grad for name, tensor in weights.named_parameters() if tensor.grad is not None}

    plain, gradients = step(Training())
    with_gates, others = step(Training(gates=gates(torch.float32)))
    assert torch.equal(plain, with_gates) and gradients.keys() == others.keys()
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_gradients_of_gates_add_up_over_steps():
    once, twice = gates(), gates()
    for given in (once, twice, twice):
        loss_of(forward(network(0), store(), images(), training=Training(gates=given))[0]).backward()
    for key in OPTIONS:
        assert torch.allclose(twice[key].values.grad, 2 * once[key].values.grad, rtol=1e-6), key


def test_gates_take_bfloat16():
    fixed = bits(4, 2, 8, signed=False, step=0.25)
    small = Network(
        (
            *NODES[:1],
            Node(Conv2d(4, 3, FixedPoint(4)), (0,), "conv"),
            Node(BatchNorm(fixed[0]), (1,), "norm"),
            Node(GlobalSumPool(), (2,)),
            Node(Linear(3, Uniform(4)), (3,), "classes"),
        )
    )
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        weights, given = Weights([small]), Gates(fixed, torch.zeros(3, requires_grad=True))
        values = run(small, weights, images(), training=Training(gates={"norm": given}), dtype=dtype)
        assert values[2].codes.dtype == dtype
        values[-1].real.float().square().sum().backward()
        gradients.append(given.values.grad)
    # 8 bits of mantissa, after which some codes are neighbours
    assert torch.allclose(*gradients, rtol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((Uniform(2),), r"stem: it has Uniform\(.*, for which there is no gate"),
        ((OPTIONS["stem"][0], Binary(stochastic=True)), "draws its codes"),
    ],
)
def test_quantizers_that_can_have_no_gate_are_named(options, message):
    training = Training(gates={"stem": Gates(options, torch.zeros(len(options), requires_grad=True))})
    with pytest.raises(InvalidNetwork, match=message):
        forward(network(0), store(), images(), training=training)
