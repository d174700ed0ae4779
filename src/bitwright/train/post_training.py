"""Quantization after training: the ranges of activations from a few images, without labels and without a gradient.

The learned ranges of a network are set to those with the least squared error of the activations, each histogram being
that of the float network (Migacz 2017 and others; the search over clipping thresholds is that of Banner et al. 2019,
arXiv:1810.05723). Then the running statistics of all normalisations are taken anew in the quantized network, which
corrects the shift of means that rounding causes (Nagel et al. 2019, arXiv:1906.04721, section 4.2).

A network that was trained with quantizers is brought to other numbers of bits in the same way (`Requantizer`), but
the values whose error counts are those that it computes itself, at the ranges that it has learned.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from ..modules import Training, Weights, forward, run, scale_key
from ..network import (
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
    Op,
    PadChannels,
    Shift2d,
    Shuffle,
    Slice,
    SumPool2d,
)
from ..quantizers import Levels, Quantized, Quantizer
from ..quantizers.clipped import Clipped
from ..quantizers.real import Real
from ..quantizers.relu import Relu
from ..quantizers.uniform import Uniform

BINS = 2048  # of a histogram, from 0 or minus the largest magnitude to it
ANY_POSITIVE = Levels((0, 2**30))  # where a sum of real numbers is rectified, as one of integers is that saturates at 0
FRACTIONS = 200  # of the largest magnitude that are tried as ranges, evenly spaced


def float_form(network: Network) -> Network:
    """The same network without quantizers; it runs on the same weights.

    Unsigned activations become rectifiers, which clip where a learned range starts; signed ones leave numbers as they
    are.
    """
    return Network(tuple(replace(node, op=_float_op(node.op)) for node in network.nodes), network.auxiliary)


def quantize_after_training(
    network: Network, weights: Weights, batches: Sequence[Tensor], *, refit: bool = True
) -> None:
    """Set the activation ranges in `weights` from images, and with `refit` the running statistics.

    batches: uint8 (B, C, H, W). Weights themselves need no step: their quantizers take scales from them.
    """
    network = network.trunk
    set_ranges(network, weights, batches)
    if refit:
        refit_statistics(network, weights, batches)


@torch.no_grad()
def set_ranges(network: Network, weights: Weights, batches: Sequence[Tensor]) -> None:
    """Set every learned activation range to the one with the least squared error on what the float network computes."""
    groups = _range_groups(network)
    if not groups:
        return
    plain = float_form(network)
    largest: dict[str, Tensor] = {}
    for values in _values(plain, weights, batches):
        for key, members in groups.items():
            for quantizer, position in members:
                magnitude = _rows(values[position].real, quantizer).abs().amax(1)
                largest[key] = torch.maximum(largest[key], magnitude) if key in largest else magnitude
    counts: dict[tuple[str, Quantizer], Tensor] = {}
    for values in _values(plain, weights, batches):
        for key, members in groups.items():
            for quantizer, position in members:
                count = _histogram(_rows(values[position].real, quantizer), largest[key], quantizer.signed)
                counts[key, quantizer] = counts[key, quantizer] + count if (key, quantizer) in counts else count
    for key, members in groups.items():
        seen = [Seen(quantizer, _centres(quantizer), counts[key, quantizer]) for quantizer in dict(members)]
        _set_range(weights, key, _best_ranges(seen, largest[key]).log2())


class Requantizer:
    """A trained network with quantizers, brought to other numbers of bits without training.

    Weights are clipped, and learned activation ranges set, where the squared error is least: of activations that to the
    values which the trained network computes on some images. What follows for a quantizer is computed once.
    """

    def __init__(self, network: Network, weights: Weights, batches: Sequence[Tensor]) -> None:
        """weights: the trained ones. batches: images, uint8 (B, C, H, W), for ranges and running statistics."""
        self.network, self.weights, self.batches = network.trunk, weights, batches
        self._groups = _range_groups(self.network)
        self._counts = self._count_codes() if self._groups else {}
        self._drawn = self._drawn_statistics()
        self._ranges: dict[tuple[str, tuple[Quantizer, ...]], Tensor] = {}
        self._limits: dict[tuple[str, Quantizer], Tensor] = {}

    @torch.no_grad()
    def apply(self, network: Network, weights: Weights) -> None:
        """Make `weights`, a copy of the trained ones, those of `network`, the trained one at other numbers of bits.

        What has the bits that it had is as it was, but for the running statistics. Whatever differs between such
        networks is set, so that it does not matter for which of them the copy was used before.
        """
        network = network.trunk
        for position in range(len(network.nodes)):
            if network.weights(position):
                self._set_weights(network, position, weights)
        for key, members in _range_groups(network).items():
            quantizers = tuple(quantizer for quantizer, _ in members)
            if (key, quantizers) not in self._ranges:
                self._ranges[key, quantizers] = self._range(key, quantizers)
            _set_range(weights, key, self._ranges[key, quantizers])
        refit_statistics(network, weights, self.batches)
        self._correct_statistics(weights)

    @torch.no_grad()
    def _count_codes(self) -> dict[int, Tensor]:
        """How often the values of each node that learns a range are each of its codes."""
        counts: dict[int, Tensor] = {}
        for values in _values(self.network, self.weights, self.batches):
            for quantizer, position in (member for members in self._groups.values() for member in members):
                count = _code_counts(_rows(values[position].codes, quantizer), quantizer)
                counts[position] = counts[position] + count if position in counts else count
        return counts

    def _drawn_statistics(self) -> Weights:
        """The trained weights with running statistics of the images."""
        weights = copy.deepcopy(self.weights)
        refit_statistics(self.network, weights, self.batches)
        return weights

    def _correct_statistics(self, weights: Weights) -> None:
        """Leave of the difference to the trained running statistics what comes from the bits, not from the images.

        Of accumulators in integer units, whose unit changes with the bits, the statistics are those of the images.
        """
        for node in self.network.nodes:
            if isinstance(node.op, BatchNorm) and node.op.real:
                stores = (weights, self.weights, self._drawn)
                now, trained, drawn = (store.statistics(node.key) for store in stores)
                if now is not None and trained is not None and drawn is not None:
                    epsilon = node.op.epsilon
                    now[0].add_(trained[0] - drawn[0])
                    factor = (trained[1] + epsilon) / (drawn[1] + epsilon)
                    now[1].copy_(((now[1] + epsilon) * factor - epsilon).clamp_min_(0.0))

    def _range(self, key: str, quantizers: Sequence[Quantizer]) -> Tensor:
        """log2 of the range for these quantizers."""
        learned, trained = self._groups[key], self.weights[f"{key}/log2_range"].detach().flatten()
        if all(was == now for (was, _), now in zip(learned, quantizers, strict=True)):
            return trained
        seen = [
            Seen(now, _fractions_of(was), self._counts[position])
            for (was, position), now in zip(learned, quantizers, strict=True)
        ]
        return _best_ranges(seen, trained.exp2()).log2()

    def _set_weights(self, network: Network, position: int, weights: Weights) -> None:
        key, blocks = network.nodes[position].key, [block.name for block in network.weights(position)]
        quantizer = _weight_quantizer(network, position)
        clips = quantizer != _weight_quantizer(self.network, position) and _follows_weights(quantizer)
        limit = self._limit(key, quantizer, blocks) if clips else None
        for name in blocks:
            trained = self.weights[name]
            weights[name].copy_(trained if limit is None else trained.clamp(-limit, limit))
        if quantizer.learns_scale:
            _set_range(weights, key, self.weights[f"{key}/log2_range"] if limit is None else limit.log2())

    def _limit(self, key: str, quantizer: Quantizer, blocks: Sequence[str]) -> Tensor:
        """Where the weights of a layer are clipped, as it broadcasts over them."""
        if (key, quantizer) not in self._limits:
            trained = [self.weights[name] for name in blocks]
            rows = torch.cat([_weight_rows(each, quantizer) for each in trained], 1)
            largest = rows.abs().amax(1)
            seen = Seen(quantizer, _centres(quantizer), _histogram(rows, largest, quantizer.signed))
            self._limits[key, quantizer] = _best_ranges([seen], largest).reshape(-1, *[1] * (trained[0].dim() - 1))
        return self._limits[key, quantizer]


@torch.no_grad()
def refit_statistics(
    network: Network, weights: Weights, batches: Iterable[Tensor], *, synchronised: bool = False
) -> None:
    """Replace the running statistics by the mean of those of the batches, in the network as it is deployed.

    synchronised: a batch is that of all ranks together.
    """
    for number, images in enumerate(batches):
        if len(images) > 1:
            training = Training(momentum=1 / (number + 1), synchronised=synchronised)
            forward(network, weights, images, training=training)


def _float_op(op: Op) -> Op:
    match op:
        case Conv2d() | DepthwiseConv2d() | Linear():
            return replace(op, weight=Real())
        case BatchNorm(activation=quantizer):
            return replace(op, activation=_float_activation(quantizer))
        case Activation(quantizer=quantizer):
            return replace(op, quantizer=_float_activation(quantizer))
        case Add(saturate=levels):
            return replace(op, saturate=ANY_POSITIVE if levels is not None and levels.lowest == 0 else None)
        case GlobalSumPool():
            return replace(op, shift=0)
        case Input() | MaxPool2d() | AveragePool2d() | SumPool2d() | Concat():
            return op
        case Flatten() | Slice() | PadChannels() | Shuffle() | Shift2d() | DropPath() | Dropout():
            return op
        case _:
            assert_never(op)


def _float_activation(quantizer: Quantizer) -> Quantizer:
    if quantizer.levels is None:
        return quantizer
    if quantizer.signed:
        return Real()
    return Clipped(0.0, quantizer.first_range) if quantizer.learns_scale else Relu()


def _range_groups(network: Network) -> dict[str, list[tuple[Quantizer, int]]]:
    """For every learned activation range the nodes whose values it has to hold, with their quantizers.

    Saturating sums are among them: what they add has one range, and so has the sum.
    """
    groups: dict[str, list[tuple[Quantizer, int]]] = {}
    key_of: dict[int, str] = {}
    for position, node in enumerate(network.nodes):
        match node.op:
            case BatchNorm(activation=quantizer) | Activation(quantizer=quantizer) if quantizer.learns_scale:
                key_of[position] = scale_key(node)
                groups.setdefault(key_of[position], []).append((quantizer, position))
            case Add(saturate=levels) if levels is not None and node.inputs[0] in key_of:
                key_of[position] = key_of[node.inputs[0]]
                members = [quantizer for quantizer, _ in groups[key_of[position]]]
                quantizer = next((each for each in members if each.levels == levels), members[0])
                groups[key_of[position]].append((quantizer, position))
            case _:
                pass
    return groups


def _weight_quantizer(network: Network, position: int) -> Quantizer:
    op = network.nodes[position].op
    assert isinstance(op, Conv2d | DepthwiseConv2d | Linear)
    return op.weight


def _follows_weights(quantizer: Quantizer) -> bool:
    """Whether the scale of weights is that of the largest of them, or a learned one."""
    return isinstance(quantizer, Uniform) and isinstance(quantizer.step, str)


def _weight_rows(latent: Tensor, quantizer: Quantizer) -> Tensor:
    """Weights that one scale serves: (1, n), or (filters, n) where each filter has its own."""
    return latent.flatten(1) if quantizer.per_channel else latent.reshape(1, -1)


def _set_range(weights: Weights, key: str, log2_range: Tensor) -> None:
    parameter = weights[f"{key}/log2_range"]
    parameter.copy_(log2_range.reshape(parameter.shape))


def _values(network: Network, weights: Weights, batches: Sequence[Tensor]) -> Iterable[list[Quantized]]:
    for images in batches:
        yield [value for value in run(network, weights, images) if value is not None]


def _rows(values: Tensor, quantizer: Quantizer) -> Tensor:
    """Numbers that one range holds: (1, n), or (C, n) where each channel has its own."""
    return values.transpose(0, 1).flatten(1) if quantizer.per_channel else values.reshape(1, -1)


def _histogram(rows: Tensor, largest: Tensor, signed: bool) -> Tensor:
    """(rows, BINS) counts over [0, largest], or [-largest, largest]."""
    relative = rows / largest.clamp_min(torch.finfo(rows.dtype).tiny)[:, None]
    place = (relative + 1) / 2 if signed else relative
    return _counts((place * BINS).long().clamp_(0, BINS - 1), BINS)


def _centres(quantizer: Quantizer) -> Tensor:
    """(BINS,) the middle of each bin of a histogram, in units of the largest magnitude."""
    centres = (torch.arange(BINS).double() + 0.5) / BINS
    return centres * 2 - 1 if quantizer.signed else centres


def _code_counts(rows: Tensor, quantizer: Quantizer) -> Tensor:
    """(rows, codes) how often each integer from the lowest level to the highest occurs."""
    assert quantizer.levels is not None
    lowest, highest = quantizer.levels.lowest, quantizer.levels.highest
    return _counts(rows.long().sub_(lowest).clamp_(0, highest - lowest), highest - lowest + 1)


def _fractions_of(quantizer: Quantizer) -> Tensor:
    """(codes,) what each integer from the lowest level to the highest means, in units of the range."""
    assert quantizer.levels is not None
    return torch.arange(quantizer.levels.lowest, quantizer.levels.highest + 1).double() / quantizer.levels.magnitude


def _counts(index: Tensor, size: int) -> Tensor:
    """(rows, size) how often each of 0 to size - 1 is in each row."""
    index = index + size * torch.arange(len(index), device=index.device)[:, None]
    return torch.bincount(index.flatten(), minlength=size * len(index)).reshape(-1, size).double()


class Seen(NamedTuple):
    """Numbers for which a range is sought: the rule that will round them, the numbers (n,), and how often each occurs
    in each row, (rows, n)."""

    quantizer: Quantizer
    numbers: Tensor
    counts: Tensor


def _best_ranges(seen: Sequence[Seen], largest: Tensor) -> Tensor:
    """(rows,) the range with the least squared error, all that is seen together.

    largest: (rows,) the most that is tried, and the unit of the numbers. Rows that are always zero get the mean.
    """
    fractions = torch.arange(1, FRACTIONS + 1, device=largest.device).double() / FRACTIONS
    errors = sum(
        each.counts @ _squared_errors(each.numbers.to(largest.device), fractions, each.quantizer) for each in seen
    )
    assert isinstance(errors, Tensor)
    ranges = fractions[errors.argmin(1)] * largest
    alive = largest > 0
    usual = ranges[alive].mean() if bool(alive.any()) else ranges.new_tensor(seen[0].quantizer.first_range)
    return torch.where(alive, ranges, usual).float()


def _squared_errors(numbers: Tensor, ranges: Tensor, quantizer: Quantizer) -> Tensor:
    """(numbers, ranges) of every number at every range."""
    assert quantizer.levels is not None
    steps = ranges / quantizer.levels.magnitude
    units = numbers[:, None] / steps
    return (quantizer.codes(units) * steps - numbers[:, None]).square()
