"""Depthwise convolutions and pools against torch.nn.functional, forwards and backwards."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from bitwright.kernels import average_pool2d, depthwise_conv2d, sum_pool2d

SIZES = [(1, 1), (2, 5), (7, 9), (8, 8)]
WINDOWS = [(k, stride, padding) for k in (3, 5) for stride in (1, 2) for padding in (0, k // 2)]
CASES = [(*window, size) for window in WINDOWS for size in SIZES if min(size) + 2 * window[2] >= window[0]]
BFLOAT16_EPSILON = 2.0**-8  # half the spacing of bfloat16 numbers just above 1

every_case = pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
every_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)


def integers(*shape, seed, limit=8):
    """Small integers, of which every sum here is exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-limit, limit + 1, shape, generator=generator).float()


def laid_out(tensor, layout):
    return tensor.contiguous(memory_format=layout).requires_grad_()


def results(function, *inputs, incoming=None):
    """The result of `function` and the gradients of its inputs."""
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    result = function(*leaves)
    incoming = integers(*result.shape, seed=3) if incoming is None else incoming(result)
    return [result.detach(), *torch.autograd.grad(result, leaves, incoming.to(result.dtype))]


def assert_all_equal(ours, theirs):
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.dtype == reference.dtype
        assert torch.equal(mine, reference)


@every_case
@every_layout
def test_depthwise_convolution_equals_torch_in_value_and_gradients(kernel, stride, padding, size, layout):
    x = laid_out(integers(3, 6, *size, seed=1), layout)
    weight = integers(6, 1, kernel, kernel, seed=2)
    ours = results(lambda x, w: depthwise_conv2d(x, w, stride, padding), x, weight)
    theirs = results(lambda x, w: F.conv2d(x, w, stride=stride, padding=padding, groups=6), x.double(), weight.double())
    assert_all_equal(ours, [each.float() for each in theirs])


@pytest.mark.parametrize("kernel", [7, 9])
def test_wider_depthwise_kernels_equal_torch_as_well(kernel):
    x, weight = integers(2, 3, 6, 11, seed=1), integers(3, 1, kernel, kernel, seed=2)
    ours = results(lambda x, w: depthwise_conv2d(x, w, 1, kernel // 2), x, weight)
    theirs = results(lambda x, w: F.conv2d(x, w, padding=kernel // 2, groups=3), x.double(), weight.double())
    assert_all_equal(ours, [each.float() for each in theirs])


@every_layout
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 2), (5, 3)])
def test_a_dilated_depthwise_convolution_equals_torch_in_value_and_gradients(kernel, dilation, layout):
    x, weight = laid_out(integers(2, 3, 9, 11, seed=1), layout), integers(3, 1, kernel, kernel, seed=2)
    padding = kernel // 2 * dilation
    ours = results(lambda x, w: depthwise_conv2d(x, w, 1, padding, dilation), x, weight)
    inputs = x.double(), weight.double()
    theirs = results(lambda x, w: F.conv2d(x, w, padding=padding, dilation=dilation, groups=3), *inputs)
    assert_all_equal(ours, [each.float() for each in theirs])


@every_layout
def test_the_wide_depthwise_gradient_passes_the_numerical_check(layout):
    x = laid_out(torch.randn(2, 2, 4, 5, dtype=torch.float64), layout)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: depthwise_conv2d(x, w, 1, 2), (x, weight))


@pytest.mark.parametrize("wanted", [0, 1])
def test_the_wide_depthwise_gradient_of_one_input_alone_is_the_same(wanted):
    inputs = [integers(2, 3, 7, 7, seed=1), integers(3, 1, 5, 5, seed=2)]
    both = results(lambda x, w: depthwise_conv2d(x, w, 1, 2), *inputs)
    inputs[wanted].requires_grad_()
    result = depthwise_conv2d(*inputs, 1, 2)
    (alone,) = torch.autograd.grad(result, inputs[wanted], integers(*result.shape, seed=3))
    assert torch.equal(alone, both[1 + wanted])


def test_depthwise_convolution_without_gradients_is_the_same():
    x, weight = integers(2, 3, 7, 7, seed=1), integers(3, 1, 5, 5, seed=2)
    with torch.no_grad():
        silent = depthwise_conv2d(x, weight, 1, 2)
    assert torch.equal(silent, depthwise_conv2d(x.requires_grad_(), weight, 1, 2))


@every_case
def test_depthwise_convolution_in_bfloat16_rounds_the_exact_sums_once(kernel, stride, padding, size):
    x, weight = integers(2, 4, *size, seed=1), integers(4, 1, kernel, kernel, seed=2)
    ours = results(lambda x, w: depthwise_conv2d(x, w, stride, padding), x.bfloat16(), weight.bfloat16())
    exact = results(lambda x, w: F.conv2d(x, w, stride=stride, padding=padding, groups=4), x.double(), weight.double())
    for mine, reference in zip(ours, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        assert ((mine.double() - reference).abs() <= BFLOAT16_EPSILON * reference.abs()).all()


@every_case
@every_layout
def test_sum_pool_is_the_sum_over_windows(kernel, stride, padding, size, layout):
    x = laid_out(integers(3, 6, *size, seed=1), layout)
    ours = results(lambda x: sum_pool2d(x, kernel, stride, padding), x)

    def windows(x):
        padded = F.pad(x, (padding,) * 4)
        return padded.unfold(2, kernel, stride).unfold(3, kernel, stride).sum((4, 5))

    assert_all_equal(ours, results(windows, x))
    assert_all_equal(ours, results(lambda x: F.avg_pool2d(x, kernel, stride, padding, divisor_override=1), x))


@every_case
@every_layout
def test_average_pool_equals_torch_without_counting_the_padding(kernel, stride, padding, size, layout):
    x = laid_out(integers(3, 6, *size, seed=1), layout)
    # gradients that every window's number of pixels divides, so that the quotients and their sums are exact
    divisible = math.lcm(*(rows * columns for rows in range(1, kernel + 1) for columns in range(1, kernel + 1)))

    def incoming(result):
        return integers(*result.shape, seed=3) * divisible

    ours = results(lambda x: average_pool2d(x, kernel, stride, padding), x, incoming=incoming)
    theirs = results(lambda x: F.avg_pool2d(x, kernel, stride, padding, count_include_pad=False), x, incoming=incoming)
    assert_all_equal(ours, theirs)


def test_the_average_of_ones_is_one_up_to_the_border():
    assert torch.equal(average_pool2d(torch.ones(1, 2, 5, 7), 3, 1, 1), torch.ones(1, 2, 5, 7))
    assert torch.equal(average_pool2d(torch.ones(1, 2, 5, 7), 5, 2, 2), torch.ones(1, 2, 3, 4))


@pytest.mark.parametrize("kernel", [3, 5])
def test_pools_in_bfloat16_round_the_exact_sums_once_and_quotients_twice(kernel):
    x = integers(2, 4, 7, 9, seed=1).bfloat16()
    exact_sum = F.avg_pool2d(x.double(), kernel, 1, kernel // 2, divisor_override=1)
    exact_mean = F.avg_pool2d(x.double(), kernel, 1, kernel // 2, count_include_pad=False)
    total, mean = sum_pool2d(x, kernel, 1, kernel // 2), average_pool2d(x, kernel, 1, kernel // 2)
    assert total.dtype == mean.dtype == torch.bfloat16
    assert ((total.double() - exact_sum).abs() <= BFLOAT16_EPSILON * exact_sum.abs()).all()
    twice = (1 + BFLOAT16_EPSILON) ** 2 - 1
    assert ((mean.double() - exact_mean).abs() <= twice * exact_mean.abs()).all()


def test_keeping_freed_memory_changes_no_number_and_can_be_asked_for_twice():
    # in a process of its own, because the setting cannot be taken back
    program = """
import torch
from bitwright.kernels import depthwise_conv2d, keep_freed_memory
torch.set_num_threads(1)
def numbers():
    x = torch.arange(2 * 3 * 33 * 33.0).reshape(2, 3, 33, 33).remainder_(17).requires_grad_()
    w = torch.arange(3 * 25.0).reshape(3, 1, 5, 5).remainder_(5).requires_grad_()
    depthwise_conv2d(x, w, 1, 2).square().sum().backward()
    return x.grad, w.grad
before = numbers()
keep_freed_memory()
keep_freed_memory()
assert all(map(torch.equal, before, numbers()))
print("equal")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("equal\n", 0), done.stderr
