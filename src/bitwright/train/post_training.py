"""Quantization after training: the ranges of activations from a few images, without labels and without a gradient.

The learned ranges of a network are set to those with the least squared error of the activations, each histogram being
that of the float network (Migacz 2017 and others; the search over clipping thresholds is that of Banner et al. 2019,
arXiv:1810.05723). Then the running statistics of all normalisations are taken anew in the quantized network, which
corrects the shift of means that rounding causes (Nagel et al. 2019, arXiv:1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import assert_never

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
from ..quantizers import Levels, Quantizer
from ..quantizers.clipped import Clipped
from ..quantizers.real import Real
from ..quantizers.relu import Relu

BINS = 2048  # of a histogram, from 0 or minus the largest magnitude to it
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
        for key, (quantizer, positions) in groups.items():
            for position in positions:
                magnitude = _rows(values[position], quantizer).abs().amax(1)
                largest[key] = torch.maximum(largest[key], magnitude) if key in largest else magnitude
    counts: dict[str, Tensor] = {}
    for values in _values(plain, weights, batches):
        for key, (quantizer, positions) in groups.items():
            for position in positions:
                count = _histogram(_rows(values[position], quantizer), largest[key], quantizer.signed)
                counts[key] = counts[key] + count if key in counts else count
    for key, (quantizer, _) in groups.items():
        parameter = weights[f"{key}/log2_range"]
        chosen = _best_ranges(counts[key], largest[key], quantizer)
        parameter.copy_(chosen.log2().reshape(parameter.shape))


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
        case Add():
            return replace(op, saturate=None)
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


def _range_groups(network: Network) -> dict[str, tuple[Quantizer, list[int]]]:
    """For every learned activation range its quantizer and the nodes whose values it has to hold.

    Saturating sums are among them: what they add has one range, and so has the sum.
    """
    groups: dict[str, tuple[Quantizer, list[int]]] = {}
    key_of: dict[int, str] = {}
    for position, node in enumerate(network.nodes):
        match node.op:
            case BatchNorm(activation=quantizer) | Activation(quantizer=quantizer) if quantizer.learns_scale:
                key_of[position] = scale_key(node)
                groups.setdefault(key_of[position], (quantizer, []))[1].append(position)
            case Add(saturate=levels) if levels is not None and node.inputs[0] in key_of:
                key_of[position] = key_of[node.inputs[0]]
                groups[key_of[position]][1].append(position)
            case _:
                pass
    return groups


def _values(network: Network, weights: Weights, batches: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    for images in batches:
        yield [value.real for value in run(network, weights, images) if value is not None]


def _rows(values: Tensor, quantizer: Quantizer) -> Tensor:
    """Numbers that one range holds: (1, n), or (C, n) where each channel has its own."""
    return values.transpose(0, 1).flatten(1) if quantizer.per_channel else values.reshape(1, -1)


def _histogram(rows: Tensor, largest: Tensor, signed: bool) -> Tensor:
    """(rows, BINS) counts over [0, largest], or [-largest, largest]."""
    relative = rows / largest.clamp_min(torch.finfo(rows.dtype).tiny)[:, None]
    place = (relative + 1) / 2 if signed else relative
    index = (place * BINS).long().clamp_(0, BINS - 1) + BINS * torch.arange(len(rows), device=rows.device)[:, None]
    return torch.bincount(index.flatten(), minlength=BINS * len(rows)).reshape(-1, BINS).double()


def _best_ranges(counts: Tensor, largest: Tensor, quantizer: Quantizer) -> Tensor:
    """(rows,) the range with the least squared error for each histogram; channels that are always zero get the mean."""
    assert quantizer.levels is not None
    centres = (torch.arange(BINS, device=counts.device).double() + 0.5) / BINS
    if quantizer.signed:
        centres = centres * 2 - 1
    fractions = torch.arange(1, FRACTIONS + 1, device=counts.device).double() / FRACTIONS
    errors = counts @ _squared_errors(centres, fractions, quantizer, quantizer.levels)
    ranges = fractions[errors.argmin(1)] * largest
    alive = largest > 0
    usual = ranges[alive].mean() if bool(alive.any()) else ranges.new_tensor(quantizer.first_range)
    return torch.where(alive, ranges, usual).float()


def _squared_errors(centres: Tensor, ranges: Tensor, quantizer: Quantizer, levels: Levels) -> Tensor:
    """(bins, ranges) of every number at every range."""
    steps = ranges / levels.magnitude
    units = centres[:, None] / steps
    return (quantizer.codes(units) * steps - centres[:, None]).square()
