"""Forms of torch operations that give the same numbers in less time on the CPU.

oneDNN, torch's CPU backend, has fast kernels for depthwise convolutions but a slow reference path for the weight
gradient of windows wider than three, and torch's pooling walks windows pixel by pixel. docs/benchmarks.md has the
figures. On other devices every function here is torch's own.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """Depthwise convolution of x: (N, C, H, W) with weight: (C, 1, k, k), zero-padded on all sides."""
    kernel = weight.shape[2]
    if (
        kernel > 3
        and kernel % 2
        and stride == 1
        and dilation == 1
        and padding == kernel // 2
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
    ):
        result: Tensor = _WideDepthwiseConv2d.apply(x, weight)  # type: ignore[no-untyped-call]
        return result
    return F.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation, groups=x.shape[1])


class _WideDepthwiseConv2d(torch.autograd.Function):
    """A k x k depthwise convolution, k = 5, 7, ..., whose weight gradient is put together from 3 x 3 ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        channels, _, kernel, _ = weight.shape
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = F.conv2d(gradient, weight.flip(2, 3), padding=kernel // 2, groups=channels)
        if ctx.needs_input_grad[1]:
            # tap (i, j) of the gradient is the correlation of the output gradient with x moved by (i, j); nine
            # neighbouring taps are one 3 x 3 weight gradient on a crop of the padded input
            of_weight = torch.empty_like(weight)
            height, width = x.shape[2:]
            padded = F.pad(x, (kernel // 2,) * 4)
            window = weight.new_empty((channels, 1, 3, 3))
            for i in range(0, kernel - 1, 2):
                for j in range(0, kernel - 1, 2):
                    crop = padded[:, :, i : i + height + 2, j : j + width + 2].contiguous(
                        memory_format=torch.channels_last
                    )
                    of_weight[:, :, i : i + 3, j : j + 3] = torch.ops.aten.convolution_backward(
                        gradient,
                        crop,
                        window,
                        None,
                        [1, 1],
                        [0, 0],
                        [1, 1],
                        False,
                        [0, 0],
                        channels,
                        [False, True, False],
                    )[1]
        return of_x, of_weight


def sum_pool2d(x: Tensor, kernel: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Sum over k x k windows of x: (N, C, H, W), padded with zeros on all sides."""
    if x.device.type == "cpu":
        return F.conv2d(x, _ones(x.shape[1], kernel, x.dtype), stride=stride, padding=padding, groups=x.shape[1])
    return F.avg_pool2d(x, kernel, stride, padding, divisor_override=1)


def average_pool2d(x: Tensor, kernel: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Mean over k x k windows of x: (N, C, H, W); the padding is not counted."""
    if x.device.type == "cpu":
        return sum_pool2d(x, kernel, stride, padding) / _counts(x.shape[2], x.shape[3], kernel, stride, padding).to(
            x.dtype
        )
    return F.avg_pool2d(x, kernel, stride, padding, count_include_pad=False)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # it outlives the call that makes it
def _ones(channels: int, kernel: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(channels, 1, kernel, kernel, dtype=dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _counts(height: int, width: int, kernel: int, stride: int, padding: int) -> Tensor:
    return sum_pool2d(torch.ones(1, 1, height, width), kernel, stride, padding)


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors instead of returning it to the system after every operation.

    glibc hands blocks above a threshold back at once, and the page faults of getting them again take longer than
    the arithmetic of a small network's layer (docs/benchmarks.md). Does nothing where the C library is another one.
    The setting is the process's own; programs decide on it, the library never calls this by itself.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def synchronised_batch_norm(
    x: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    gain: Tensor,
    offset: Tensor,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """Batch normalisation of x: (N, C, ...) by the statistics of the batches of all ranks of torch.distributed.

    It differentiates through the sums, so that gradients averaged over the ranks are those of one large batch. Batches
    may have different sizes. torch's SyncBatchNorm does the same on CUDA alone. Sums are in float32 at least.
    """
    narrow = x.dtype
    x = x.float() if narrow == torch.bfloat16 else x
    axes = (0, *range(2, x.dim()))
    shape = (1, -1, *[1] * (x.dim() - 2))
    mine = x.new_full((1,), x.numel() / x.shape[1])
    total = _sum_over_ranks(torch.cat([x.sum(axes), mine]))
    count = total[-1].detach()
    mean = total[:-1] / count
    centred = x - mean.reshape(shape)
    squares = _sum_over_ranks(centred.square().sum(axes))
    variance = squares / count
    if statistics is not None and momentum:
        with torch.no_grad():
            statistics[0].lerp_(mean.detach(), momentum)
            statistics[1].lerp_(variance.detach() * count / (count - 1), momentum)
    scaled = (gain * torch.rsqrt(variance + epsilon)).reshape(shape)
    return torch.addcmul(offset.reshape(shape), centred, scaled).to(narrow)


def _sum_over_ranks(x: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(x)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks. What each rank loses by it, all lose by what each rank adds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total
