"""Running a `Network` in PyTorch, on one store of weights.

Convolutions and products run on integer codes and multiply by the scales last, so that outside training every
accumulator is an exact integer (in float32 below 2**24, in float64 beyond).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InvalidNetwork
from .kernels import average_pool2d, depthwise_conv2d, sum_pool2d, synchronised_batch_norm
from .network import (
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    DropPath,
    Flatten,
    GlobalSumPool,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Node,
    PadChannels,
    Padding,
    Shift2d,
    Shuffle,
    Slice,
    SumPool2d,
    WeightShape,
    bias_range,
    pads,
)
from .normalisation import Line, finest_factor, line
from .quantizers import Fans, Option, Quantized, Quantizer, Scale, gated, in_units, saturate, straight_through

EXACT_IN_FLOAT32 = 2**24  # integers below it are exact, and so is any sum whose partial sums stay below it
FIRST_RANGE = 4.0  # of an activation whose range is measured, before it is: so many standard deviations


@dataclass(frozen=True)
class Latent:
    """What the optimiser must know of a trained tensor that a quantizer rounds."""

    quantizer: Quantizer
    fans: Fans


class Weights(nn.Module):
    """Trained tensors by name.

    A fresh store trains one network. A store to which many networks are added is a weight-sharing supernet: nodes
    with the same key share their tensors. A `shared` store keeps no running statistics; its batch normalisation
    always uses those of the batch, because running ones would mix architectures.

    Every tensor starts from a random stream of its own, made from `seed` and its name, so that what a tensor starts
    as does not depend on which networks were added before.
    """

    def __init__(self, networks: Iterable[Network] = (), *, seed: int = 0, shared: bool = False) -> None:
        super().__init__()
        self.seed = seed
        self.shared = shared
        self.latents: dict[str, Latent] = {}
        for network in networks:
            self.add(network)

    def add(self, network: Network) -> None:
        """Create the tensors of `network` that the store does not have yet."""
        for position, node in enumerate(network.nodes):
            shape = network.shapes[position]
            match node.op:
                case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer) | Linear(weight=quantizer):
                    blocks = network.weights(position)
                    if len({quantizer.latent_bound(block.fans) for block in blocks}) > 1:
                        raise InvalidNetwork(f"{node.key}: blocks of different Glorot H have no sum; give H a number")
                    for block in blocks:
                        self._add_weight(block, quantizer, gain=1.0 if isinstance(node.op, Linear) else 2.0)
                    if isinstance(node.op, Linear) and node.op.bias and f"{node.key}/bias" not in self._parameters:
                        self.register_parameter(f"{node.key}/bias", nn.Parameter(torch.zeros(shape[0])))
                    self._add_scale(node.key, quantizer, [self[b.name] for b in blocks], blocks[0].fans)
                case BatchNorm(activation=quantizer):
                    if f"{node.key}/gain" not in self._parameters:
                        self.register_parameter(f"{node.key}/gain", nn.Parameter(torch.ones(shape[0])))
                        self.register_parameter(f"{node.key}/offset", nn.Parameter(torch.zeros(shape[0])))
                        if not self.shared:
                            self.register_buffer(f"{node.key}/mean", torch.zeros(shape[0]))
                            self.register_buffer(f"{node.key}/variance", torch.ones(shape[0]))
                    self._add_activation_scale(scale_key(node), quantizer, shape)
                case Activation(quantizer=quantizer):
                    self._add_activation_scale(scale_key(node), quantizer, shape)
                case _:
                    pass

    def _add_weight(self, weight: WeightShape, quantizer: Quantizer, gain: float) -> None:
        if weight.name in self._parameters:
            if self[weight.name].shape != weight.shape:
                raise InvalidNetwork(
                    f"{weight.name} has shape {tuple(self[weight.name].shape)}, a network wants {weight.shape}"
                )
            return
        generator = torch.Generator().manual_seed(_stream(self.seed, weight.name))
        bound = quantizer.latent_bound(weight.fans)
        if bound is not None:
            values = torch.rand(weight.shape, generator=generator).mul_(2 * bound).sub_(bound)
        else:  # He et al. 2015, arXiv:1502.01852
            values = torch.randn(weight.shape, generator=generator).mul_((gain / weight.fans.fan_in) ** 0.5)
        self.register_parameter(weight.name, nn.Parameter(values))
        if quantizer.levels is not None:
            self.latents[weight.name] = Latent(quantizer, weight.fans)

    def _add_scale(self, key: str, quantizer: Quantizer, latents: Sequence[Tensor], fans: Fans) -> None:
        """A learned scale of weights, which starts from the blocks it is first added with."""
        name = f"{key}/log2_range"
        if quantizer.levels is not None and quantizer.learns_scale and name not in self._parameters:
            scale = torch.as_tensor(quantizer.scale(_joined(latents), fans), dtype=torch.float32)
            self.register_parameter(name, nn.Parameter((scale.detach() * quantizer.levels.magnitude).log2()))

    def _add_activation_scale(self, key: str, quantizer: Quantizer, shape: tuple[int, ...]) -> None:
        """The learned or measured scale of an activation of that shape."""
        if quantizer.levels is None:
            return
        if quantizer.learns_scale:
            name, size = f"{key}/log2_range", (1, shape[0], *[1] * (len(shape) - 1)) if quantizer.per_channel else ()
            if name not in self._parameters:
                self.register_parameter(name, nn.Parameter(torch.full(size, quantizer.first_range).log2()))
            elif self[name].shape != size:
                raise InvalidNetwork(f"{name} has shape {tuple(self[name].shape)}, a network wants {size}")
        elif not isinstance(quantizer.scale(torch.zeros(1), None), float) and f"{key}/max_abs" not in self._buffers:
            self.register_buffer(f"{key}/max_abs", torch.tensor(FIRST_RANGE))

    def __getitem__(self, name: str) -> Tensor:
        """The latent tensor of that name."""
        tensor = self._parameters.get(name)
        if tensor is None:
            raise InvalidNetwork(f"the weights hold no tensor {name!r}; add the network to them first")
        return tensor

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def statistics(self, key: str) -> tuple[Tensor, Tensor] | None:
        """Running (mean, variance) of a batch normalisation, or None in a shared store."""
        mean, variance = self._buffers.get(f"{key}/mean"), self._buffers.get(f"{key}/variance")
        return None if mean is None or variance is None else (mean, variance)

    def running_max(self, key: str) -> Tensor:
        running = self._buffers.get(f"{key}/max_abs")
        if running is None:
            raise InvalidNetwork(f"the weights hold no range of {key!r}; add the network to them first")
        return running


def scale_key(node: Node) -> str:
    """The name of the scale of an activation."""
    return (node.op.scale_key if isinstance(node.op, BatchNorm) else "") or node.key


def tensor_names(network: Network) -> list[str]:
    """The names of the trained tensors that `network` uses, each once."""
    names: dict[str, None] = {}
    for position, node in enumerate(network.nodes):
        match node.op:
            case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer) | Linear(weight=quantizer):
                names.update(dict.fromkeys(w.name for w in network.weights(position)))
                if isinstance(node.op, Linear) and node.op.bias:
                    names[f"{node.key}/bias"] = None
            case BatchNorm(activation=quantizer):
                names[f"{node.key}/gain"] = names[f"{node.key}/offset"] = None
            case Activation(quantizer=quantizer):
                pass
            case _:
                continue
        if quantizer.learns_scale:
            names[f"{scale_key(node)}/log2_range"] = None
    return list(names)


@dataclass(frozen=True)
class Gates:
    """The quantizers that weights or activations could have, of which a network has one (the active one).

    values: (quantizers,), a leaf with requires_grad. Its gradient is that of y = sum_k values[k] y_k at 1 for the
    active one and 0 for the others, whatever it holds; y_k are the real numbers that quantizer k makes of those that
    y is made of, with the learned scales that the weights hold for the node.
    """

    quantizers: tuple[Quantizer, ...]
    values: Tensor


@dataclass(frozen=True)
class Training:
    """What a training step does that evaluation does not.

    generator: draws of dropout and stochastic quantizers; None leaves all of them out, as calibration does.
    drop_path: the run's drop-path rate, which every DropPath node scales by its own.
    momentum: the part of the running statistics that this batch replaces.
    synchronised: batch statistics are those of the batches of all ranks of torch.distributed together.
    gates: by the key of the node of weights, or of the scale of activations. What has gates computes what it does
        without, and its backward pass also adds to the gradients of their values, of a shared scale those of all nodes.
    """

    generator: torch.Generator | None = None
    drop_path: float = 0.0
    momentum: float = 0.1
    synchronised: bool = False
    gates: Mapping[str, Gates] = field(default_factory=dict)


def forward(
    network: Network,
    weights: Weights,
    x: Tensor,
    *,
    training: Training | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """Logits (N, classes) of uint8 images x: (N, C, H, W), and in training the auxiliary logits if there are any.

    dtype: of the convolutions. bfloat16 holds codes of up to 8 bits exactly, but not their accumulators.
    """
    if training is None:
        network = network.trunk
    values = run(network, weights, x, training=training, dtype=dtype, keep=False)
    auxiliary = None if network.auxiliary is None else values[network.auxiliary]
    logits = values[-1]
    assert logits is not None
    return logits.real.float(), None if auxiliary is None else auxiliary.real.float()


def run(
    network: Network,
    weights: Weights,
    x: Tensor | Quantized,
    *,
    training: Training | None = None,
    dtype: torch.dtype = torch.float32,
    keep: bool = True,
) -> list[Quantized | None]:
    """The value of every node; without `keep` only of the outputs (the others are None and their memory is free).

    x: uint8 images (N, C, H, W), or what its Input holds already, of a network that is a part of another.
    """
    values: list[Quantized | None] = []
    learned: dict[str, Tensor] = {}  # activation scales: those that nodes share must be one tensor
    joined: dict[tuple[int, ...], Quantized] = {}  # the output of a cell, which the next two cells concatenate
    doomed: dict[int, list[int]] = {}
    if not keep:
        for position, last in enumerate(network.last_use):
            if position != network.auxiliary and position != len(network.nodes) - 1:
                doomed.setdefault(last, []).append(position)
    for position, node in enumerate(network.nodes):
        inputs = [value for i in node.inputs if (value := values[i]) is not None]
        if training is None:
            inputs = _widened(network, position, inputs)
        if len(inputs) > 1 and isinstance(node.op, (Concat, Conv2d, Linear)):
            if node.inputs not in joined:
                joined[node.inputs] = _concat(inputs)
            inputs = [joined[node.inputs]]
        values.append(_run_node(network, position, weights, inputs, x, training, dtype, learned))
        for i in doomed.get(position, ()):
            values[i] = None
            for key in [key for key in joined if i in key]:
                del joined[key]
    return values


def _run_node(
    network: Network,
    position: int,
    weights: Weights,
    inputs: list[Quantized],
    x: Tensor | Quantized,
    training: Training | None,
    dtype: torch.dtype,
    learned: dict[str, Tensor],
) -> Quantized:
    node = network.nodes[position]
    generator = None if training is None else training.generator
    match node.op:
        case Input(offset=offset, scale=scale) as op:
            if isinstance(x, Quantized):
                return x
            centred = x.float() - _channelwise(offset, x.dim(), x.device)
            if op.is_integer:
                return Quantized(centred.to(dtype), scale[0])
            return Quantized(centred.mul_(_channelwise(scale, x.dim(), x.device)).to(dtype), 1.0)
        case Conv2d(weight=quantizer, stride=stride, padding=border, groups=groups, dilation=dilation) as op:
            a = _of_one_scale(inputs[0])
            w = _weight(network, position, weights, quantizer, training)
            w, product = _scaled_weight(network, position, w, a, training)
            codes, zeros = _padded(a.codes, op.extent, stride, border)
            kernels = w.codes.to(codes.dtype)
            return Quantized(F.conv2d(codes, kernels, None, stride, zeros, dilation, groups), product)
        case DepthwiseConv2d(weight=quantizer, stride=stride, padding=border, dilation=dilation) as op:
            (a,) = inputs
            w = _weight(network, position, weights, quantizer, training)
            w, product = _scaled_weight(network, position, w, a, training)
            codes, zeros = _padded(a.codes, op.extent, stride, border)
            return Quantized(depthwise_conv2d(codes, w.codes.to(codes.dtype), stride, zeros, dilation), product)
        case Linear(weight=quantizer, bias=bias):
            a = _of_one_scale(inputs[0])
            w = _weight(network, position, weights, quantizer, training)
            codes, product = _float(a.codes), _product(a.scale, w.scale)
            result = F.linear(codes, w.codes.to(codes.dtype))
            return Quantized(result + bias_units(network, position, weights, product) if bias else result, product)
        case BatchNorm(activation=quantizer):
            (a,) = inputs
            if (
                training is None
                and (requantized := normalisation_line(network, position, weights, a.scale)) is not None
            ):
                units = requantized(a.codes).to(weights[f"{node.key}/gain"].dtype)
                return Quantized(quantizer.codes(units), deployed_scale(node, weights))
            return _batch_norm(node, weights, a.real if node.op.real else a.codes, training, learned)
        case Activation(quantizer=quantizer):
            (a,) = inputs
            if (
                training is None
                and quantizer.levels is not None
                and network.ranges[node.inputs[0]] is not None
                and _scalar(a.scale)
            ):
                deployed = deployed_scale(node, weights)
                return Quantized(quantizer.codes(a.codes.float() * units_per_code(a.scale, deployed)), deployed)
            step = _known_scale(scale_key(node), weights, quantizer, a.codes.numel(), training, learned)
            if step is None:
                step = _measured_scale(scale_key(node), weights, quantizer, a, training)
            return _activated(node, weights, quantizer, Quantized(a.codes, a.scale / step).real, step, training)
        case MaxPool2d(kernel=kernel, stride=stride):
            (a,) = inputs
            codes, padding = _padded(a.codes, kernel, stride, value=-torch.inf)
            return Quantized(F.max_pool2d(codes, kernel, stride, padding), a.scale)
        case AveragePool2d(kernel=kernel, stride=stride, padding="valid"):
            (a,) = inputs
            return Quantized(average_pool2d(a.codes, kernel, stride), a.scale)
        case AveragePool2d(kernel=kernel, stride=stride):
            (a,) = inputs
            codes, padding = _padded(a.codes, kernel, stride)
            if codes is a.codes:
                return Quantized(average_pool2d(codes, kernel, stride, padding), a.scale)
            counts, _ = _padded(a.codes.new_ones((1, 1, *a.codes.shape[2:])), kernel, stride)
            return Quantized(sum_pool2d(codes, kernel, stride) / sum_pool2d(counts, kernel, stride), a.scale)
        case SumPool2d(kernel=kernel, stride=stride):
            (a,) = inputs
            codes, padding = _padded(a.codes, kernel, stride)
            return Quantized(sum_pool2d(codes, kernel, stride, padding), _product(a.scale, 1 / kernel**2))
        case GlobalSumPool(shift=shift):
            (a,) = inputs
            per_map = a.scale if isinstance(a.scale, float) or a.scale.dim() < 2 else a.scale.flatten(1)
            total = _float(a.codes).sum((2, 3))
            if shift:
                exact = total * 2.0**-shift
                total = exact + (exact.detach().floor() - exact.detach()) if training else exact.floor()
            return Quantized(total, _product(per_map, pooled_scale(node.op, a.codes.shape[2:])))
        case Flatten():
            a = _of_one_scale(inputs[0])
            return Quantized(a.codes.flatten(1), a.scale if isinstance(a.scale, float) else a.scale.flatten())
        case Add(saturate=levels):
            left, right = inputs
            if not _same(left.scale, right.scale):
                left, right = Quantized(left.real, 1.0), Quantized(right.real, 1.0)
            codes = left.codes + right.codes
            return Quantized(codes if levels is None else saturate(codes, levels), added_scale(node.op, left.scale))
        case Concat():
            return inputs[0]
        case Slice(channels=channels, start=start):
            (a,) = inputs
            return Quantized(a.codes[:, start : start + channels], sliced_scale(a.scale, start, channels))
        case PadChannels(channels=channels):
            a = _of_one_scale(inputs[0])
            return Quantized(F.pad(a.codes, (0, 0) * (a.codes.dim() - 2) + (0, channels - a.codes.shape[1])), a.scale)
        case Shuffle(groups=groups):
            (a,) = inputs
            return Quantized(_shuffled(a.codes, groups), _shuffled_scale(a.scale, groups))
        case Shift2d():
            (a,) = inputs
            return Quantized(F.pad(a.codes[:, :, 1:, 1:], (0, 1, 0, 1)), a.scale)
        case DropPath(rate=rate):
            (a,) = inputs
            dropped = rate * (0.0 if training is None else training.drop_path)
            if generator is None or dropped == 0.0:
                return a
            per_image = (len(a.codes), *[1] * (a.codes.dim() - 1))
            kept = torch.rand(per_image, generator=generator, device=a.codes.device) >= dropped
            return Quantized(a.codes * kept.to(a.codes.dtype).div_(1 - dropped), a.scale)
        case Dropout(rate=rate, samples=samples):
            (a,) = inputs
            if generator is None or rate == 0.0:
                return a
            codes = a.codes if samples == 1 else a.codes.repeat(samples, *[1] * (a.codes.dim() - 1))
            kept = torch.rand(codes.shape, generator=generator, device=codes.device) >= rate
            return Quantized(codes * kept.to(codes.dtype).div_(1 - rate), a.scale)
        case _:
            assert_never(node.op)


def added_scale(op: Add, scale: Scale) -> Scale:
    """The scale of a sum whose terms have that scale."""
    return 0.5 * scale if op.mean else scale


def sliced_scale(scale: Scale, start: int, channels: int) -> Scale:
    """The scale of `channels` channels from `start` on."""
    return scale[:, start : start + channels] if isinstance(scale, Tensor) and scale.dim() > 1 else scale


def _shuffled_scale(scale: Scale, groups: int) -> Scale:
    return _shuffled(scale, groups) if isinstance(scale, Tensor) and scale.numel() > 1 else scale


def pooled_scale(op: GlobalSumPool, image: Sequence[int]) -> float:
    """What the scale of an image of (height, width) is multiplied by when it is pooled."""
    return 2.0**op.shift / (math.prod(image) if op.divisor is None else op.divisor)


def bias_units(network: Network, position: int, weights: Weights, scale: Scale) -> Tensor:
    """The bias of a Linear in units of its accumulator, (features,): integers where that holds integers.

    The gradient passes the rounding, and the clipping where nothing is clipped.
    """
    node = network.nodes[position]
    assert isinstance(node.op, Linear)
    bias = weights[f"{node.key}/bias"]
    units = bias if isinstance(scale, float) and scale == 1.0 else bias / torch.as_tensor(scale).flatten()
    product = network.product_ranges[position]
    if product is None:
        return units
    allowed = bias_range(product)
    clipped = units.clamp(allowed.lowest, allowed.highest)
    return clipped + (clipped.detach().round() - clipped.detach())


def normalisation_line(network: Network, position: int, weights: Weights, unit: Scale = 1.0) -> Line | None:
    """The canonical expression of the BatchNorm at `position` in evaluation.

    unit: the scale of the accumulators that it reads. None where its input is real, it has no quantizer, or the store
    keeps no running statistics.
    """
    node = network.nodes[position]
    assert isinstance(node.op, BatchNorm)
    statistics, accumulator = weights.statistics(node.key), network.ranges[node.inputs[0]]
    if node.op.activation.levels is None or accumulator is None or statistics is None:
        return None
    return line(
        weights[f"{node.key}/gain"].detach(),
        weights[f"{node.key}/offset"].detach(),
        *statistics,
        node.op.epsilon,
        deployed_scale(node, weights),
        node.op.activation.levels,
        _finest_factor(network, node.inputs[0]),
        accumulator.magnitude,
        _flat(unit) if node.op.real else 1.0,
    )


def units_per_code(scale: Scale, step: Scale) -> Tensor:
    """What an Activation in evaluation multiplies integer codes of that scale by: scale / step, rounded once."""
    return (torch.as_tensor(scale).double() / torch.as_tensor(step).double()).float()


def _finest_factor(network: Network, position: int) -> int:
    """How finely offsets behind the accumulators of a node are kept."""
    node, accumulator = network.nodes[position], network.ranges[position]
    match node.op:
        case Conv2d(weight=quantizer) | DepthwiseConv2d(weight=quantizer) | Linear(weight=quantizer):
            ranges = [network.ranges[i] for i in node.inputs]
            assert quantizer.levels is not None and accumulator is not None
            largest = max(max(r.highest, 0) - min(r.lowest, 0) for r in ranges if r is not None)
            weight = max(-quantizer.levels.lowest, quantizer.levels.highest)
            return finest_factor(weight, largest, accumulator.magnitude)
        case _:
            return 1


def deployed_scale(node: Node, weights: Weights) -> Scale:
    """The scale of an activation or a normalisation's activation outside training."""
    assert isinstance(node.op, BatchNorm | Activation)
    quantizer = node.op.activation if isinstance(node.op, BatchNorm) else node.op.quantizer
    with torch.no_grad():
        scale = _known_scale(scale_key(node), weights, quantizer, 0, None, {})
    assert scale is not None
    return scale


def _flat(scale: Scale) -> Scale:
    """One scale, or one per channel: (C,)."""
    return scale if isinstance(scale, float) else scale.flatten()


def _scalar(scale: Scale) -> bool:
    return isinstance(scale, float) or scale.numel() == 1


def _batch_norm(
    node: Node, weights: Weights, x: Tensor, training: Training | None, learned: dict[str, Tensor]
) -> Quantized:
    """Normalisation of accumulators, or of the real numbers that they mean, and its activation."""
    assert isinstance(node.op, BatchNorm)
    quantizer, epsilon = node.op.activation, node.op.epsilon
    gain, offset = weights[f"{node.key}/gain"], weights[f"{node.key}/offset"]
    statistics = weights.statistics(node.key)
    narrow = gain.dtype
    if x.dtype == torch.float64 and narrow != torch.float64:  # accumulators that float32 does not hold
        gain, offset = gain.double(), offset.double()
        statistics = statistics and (statistics[0].double(), statistics[1].double())
    scale = _known_scale(scale_key(node), weights, quantizer, x.numel(), training, learned)
    if scale is not None:  # the normalisation then gives code units at no cost
        gain, offset = in_units(gain, _flat(scale)), in_units(offset, _flat(scale))
    if training is None and statistics is not None:
        normal = F.batch_norm(x, *statistics, gain, offset, False, 0.0, epsilon)
    elif training is not None and training.synchronised:
        normal = synchronised_batch_norm(x, statistics, gain, offset, training.momentum, epsilon)
    else:
        momentum = 0.0 if training is None else training.momentum
        mean, variance = statistics or (None, None)
        normal = F.batch_norm(x, mean, variance, gain, offset, True, momentum, epsilon)
    if normal.dtype == torch.float64:
        normal = normal.to(narrow)
    if scale is None:
        scale = _measured_scale(scale_key(node), weights, quantizer, Quantized(normal, 1.0), training)
        normal = in_units(normal, scale)
    return _activated(node, weights, quantizer, normal, scale, training)


def weight_codes(network: Network, position: int, weights: Weights) -> Quantized:
    """The codes of a node's weights in evaluation, blocks side by side, and their scale."""
    node = network.nodes[position]
    assert isinstance(node.op, (Conv2d, DepthwiseConv2d, Linear))
    return _weight(network, position, weights, node.op.weight, None)


def _weight(
    network: Network, position: int, weights: Weights, quantizer: Quantizer, training: Training | None
) -> Quantized:
    """Codes of a node's weights in float32, and their scale shaped to multiply the output."""
    key, shapes = network.nodes[position].key, network.weights(position)
    latent, fans = _joined([weights[w.name] for w in shapes]), shapes[0].fans
    scale = _weight_scale(key, weights, quantizer, latent, fans, training)
    units = in_units(latent, scale)
    codes = _rounded(quantizer, units, training)
    if training is not None and (gates := training.gates.get(key)) is not None:
        scales = [_weight_scale(key, weights, each, latent, fans, None) for each in gates.quantizers]
        codes = _gated(key, gates, quantizer, codes, units, scale, scales)
    if not isinstance(scale, float) and scale.dim() > 1:
        scale = scale.reshape(1, -1, 1, 1) if latent.dim() == 4 else scale.reshape(1, -1)
    return Quantized(codes, scale)


def _scaled_weight(
    network: Network, position: int, w: Quantized, a: Quantized, training: Training | None
) -> tuple[Quantized, Scale]:
    """What a convolution multiplies, and the scale of its result.

    In training, where a normalisation wants real numbers, the scales go into the weights: multiplying the result would
    be another pass over memory.
    """
    scale = _product(a.scale, w.scale)
    if training is None or not network.read_as_real[position] or a.codes.dtype != torch.float32:
        return w, scale
    if isinstance(scale, float):
        return (w if scale == 1.0 else Quantized(w.codes * scale, 1.0)), 1.0
    return Quantized(w.codes * (scale if scale.numel() == 1 else scale.reshape(-1, 1, 1, 1)), 1.0), 1.0


def _weight_scale(
    key: str, weights: Weights, quantizer: Quantizer, latent: Tensor, fans: Fans, training: Training | None
) -> Scale:
    if quantizer.learns_scale:
        return _learned(weights[f"{key}/log2_range"], latent.numel(), quantizer, training)
    return quantizer.scale(latent, fans)


def _known_scale(
    key: str,
    weights: Weights,
    quantizer: Quantizer,
    count: int,
    training: Training | None,
    learned: dict[str, Tensor],
) -> Scale | None:
    """The scale of an activation of `count` numbers; None where it is measured on the batch."""
    if quantizer.learns_scale:
        if key not in learned:
            parameter = weights[f"{key}/log2_range"]
            learned[key] = _learned(parameter, count // parameter.numel(), quantizer, training)
        return learned[key]
    fixed = quantizer.scale(torch.zeros(1), None)
    if isinstance(fixed, float):
        return fixed
    return quantizer.scale(weights.running_max(key), None) if training is None else None


def _measured_scale(key: str, weights: Weights, quantizer: Quantizer, a: Quantized, training: Training | None) -> Scale:
    """The scale that suits the batch `a`, of which the running maximum learns."""
    assert training is not None
    largest, running = _largest(a), weights.running_max(key)
    with torch.no_grad():
        running.lerp_(largest.to(running), training.momentum)
    return quantizer.scale(largest, None)


def _largest(a: Quantized) -> Tensor:
    """The largest magnitude of real numbers."""
    if not _scalar(a.scale):
        a = Quantized(a.real, 1.0)
    largest = Quantized(torch.linalg.vector_norm(a.codes.detach(), float("inf")), a.scale).real
    return largest.reshape(()).detach()


def _scales_of(key: str, weights: Weights, quantizers: Sequence[Quantizer], a: Quantized) -> list[Scale]:
    """The scales that the batch `a` of activations would have with each quantizer; they are not trained."""
    scales: list[Scale] = []
    largest: Tensor | None = None
    for quantizer in quantizers:
        if quantizer.learns_scale:
            scales.append(_learned(weights[f"{key}/log2_range"], a.codes.numel(), quantizer, None))
            continue
        scale = quantizer.scale(torch.zeros(1), None)
        if not isinstance(scale, float):
            largest = _largest(a) if largest is None else largest
            scale = quantizer.scale(largest, None)
        scales.append(scale)
    return scales


def _activated(
    node: Node, weights: Weights, quantizer: Quantizer, units: Tensor, scale: Scale, training: Training | None
) -> Quantized:
    """What the quantizer of an activation makes of real numbers / scale."""
    codes, key = _rounded(quantizer, units, training), scale_key(node)
    if training is not None and (gates := training.gates.get(key)) is not None:
        scales = _scales_of(key, weights, gates.quantizers, Quantized(units, scale))
        codes = _gated(key, gates, quantizer, codes, units, scale, scales)
    return Quantized(codes, scale)


def _rounded(quantizer: Quantizer, units: Tensor, training: Training | None) -> Tensor:
    """Codes of `units`; stochastic quantizers draw in a training step that has a generator."""
    generator = None if training is None else training.generator
    return straight_through(quantizer, units, training=generator is not None, generator=generator)


def _gated(
    key: str,
    gates: Gates,
    quantizer: Quantizer,
    codes: Tensor,
    units: Tensor,
    scale: Scale,
    scales: Sequence[Scale],
) -> Tensor:
    """The codes that `quantizer` made of `units`, so that the gates get gradients. scales: with each quantizer."""
    if quantizer not in gates.quantizers:
        raise InvalidNetwork(f"{key}: it has {quantizer}, for which there is no gate")
    if any(each.stochastic for each in gates.quantizers):
        raise InvalidNetwork(f"{key}: a quantizer that draws its codes has no gate")
    active = gates.quantizers.index(quantizer)
    options = [Option(*each) for each in zip(gates.quantizers, scales, strict=True)]
    options[active] = Option(quantizer, scale if isinstance(scale, float) else scale.detach())
    return gated(codes, units, options, active, gates.values)


def _learned(parameter: Tensor, count: int, quantizer: Quantizer, training: Training | None) -> Tensor:
    """The learned scale, of which log2 of what the largest code stands for is kept: that suits any number of bits.

    Its gradient, a sum over `count` numbers, may be scaled down as LSQ does.
    """
    assert quantizer.levels is not None
    if training is None:
        parameter = parameter.detach()
    elif quantizer.tames_scale_gradient:
        tame = 1 / math.sqrt(max(count, 1) * quantizer.levels.highest)
        parameter = parameter * tame + (parameter * (1 - tame)).detach()
    return parameter.exp2() / quantizer.levels.magnitude


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """The weight blocks of one convolution, side by side along the input channels."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim=1)


def _concat(inputs: list[Quantized]) -> Quantized:
    if all(_same(inputs[0].scale, each.scale) for each in inputs[1:]):
        return Quantized(torch.cat([each.codes for each in inputs], dim=1), inputs[0].scale)
    return Quantized(torch.cat([each.real for each in inputs], dim=1), 1.0)


def _same(a: Scale, b: Scale) -> bool:
    """Whether two scales are equal. Scales that are being trained count as different unless they are one tensor."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and not (a.requires_grad or b.requires_grad):
        return a is b or torch.equal(a, b)
    return a is b or (isinstance(a, float) and isinstance(b, float) and a == b)


def _product(a: Scale, b: Scale) -> Scale:
    return b if isinstance(a, float) and a == 1.0 else a if isinstance(b, float) and b == 1.0 else a * b


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # it outlives the call that makes it
def _channelwise(values: tuple[float, ...], dimensions: int, device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).reshape(1, -1, *[1] * (dimensions - 2))


def _padded(x: Tensor, kernel: int, stride: int, padding: Padding = "same", value: float = 0.0) -> tuple[Tensor, int]:
    """`x` and the padding still to be put on all four sides; `x` is padded here where the sides differ."""
    top, bottom = pads(x.shape[2], kernel, stride, padding)
    left, right = pads(x.shape[3], kernel, stride, padding)
    if top == bottom == left == right:
        return x, top
    return F.pad(x, (left, right, top, bottom), value=value), 0


def _shuffled(x: Tensor, groups: int) -> Tensor:
    """x: (N, C, ...) with its channels (groups, C / groups) transposed."""
    last = x.movedim(1, -1)  # channels-last memory stays so
    return last.reshape(*last.shape[:-1], groups, -1).transpose(-1, -2).flatten(-2).movedim(-1, 1)


def _widened(network: Network, position: int, inputs: list[Quantized]) -> list[Quantized]:
    """The inputs of a node in float64 where float32 might not hold its integers exactly."""
    bound = network.ranges[position]
    if bound is None or bound.magnitude < EXACT_IN_FLOAT32:
        return inputs
    return [Quantized(each.codes.double(), each.scale) for each in inputs]


def _float(codes: Tensor) -> Tensor:
    """Codes that are summed by the thousand: not in bfloat16."""
    return codes.float() if codes.dtype == torch.bfloat16 else codes


def _of_one_scale(x: Quantized) -> Quantized:
    """Reals where every channel has its own scale, which an operation that mixes channels cannot multiply last."""
    return x if _scalar(x.scale) else Quantized(x.real, 1.0)


def _stream(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big") >> 1
