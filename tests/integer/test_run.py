"""The executor of integer graphs against a naive interpreter, at every corner of its arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import InvalidGraph
from bitwright.integer.graph import (
    LARGEST,
    Add,
    Argmax,
    Concat,
    Conv,
    Flatten,
    GlobalSumPool,
    Input,
    IntegerGraph,
    MatMul,
    MaxPool,
    MultiThreshold,
    Node,
    Pad,
    Requantize,
    SumPool,
)
from bitwright.integer.run import LARGEST_TABLE, Executor
from naive_executor import chain, naive, whole

EDGE = 2**24  # up to which float32 holds every integer

seeds = st.integers(0, 2**32)
images = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
kernels = st.tuples(st.integers(1, 3), st.integers(1, 3))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 2)] * 4))
ranges = st.sampled_from([(0, 255, 128), (0, 255, 0), (-1, 1, 0), (0, 1, 0), (-128, 127, 5), (3, 9, 20), (-9, -4, 0)])


def samples(graph: IntegerGraph, count: int = 3, seed: int = 0) -> np.ndarray:
    """Random inputs with both ends of the range."""
    op = graph.input
    x = np.random.default_rng(seed).integers(op.lowest, op.highest + 1, (count, *op.shape))
    x[0], x[-1] = op.lowest, op.highest
    return x


def assert_equal(graph: IntegerGraph, x: np.ndarray | None = None) -> None:
    """The executor has the naive values at every node, and all of them inside the node's ranges."""
    x = samples(graph) if x is None else x
    got = Executor(graph).values(torch.from_numpy(x))
    for position, (value, wanted) in enumerate(zip(got, naive(graph, x), strict=True)):
        assert value.dtype == torch.int64
        assert np.array_equal(value.numpy(), wanted), graph.label(position)
        if len(x):
            edge, axes = graph.edges[position], (0, *range(2, wanted.ndim))
            assert (wanted.min(axes) >= edge.lows).all(), graph.label(position)
            assert (wanted.max(axes) <= edge.highs).all(), graph.label(position)
    assert np.array_equal(Executor(graph)(torch.from_numpy(x)).numpy(), naive(graph, x)[-1])


def fitting(*ops: object) -> IntegerGraph | None:
    try:
        return chain(*ops)
    except InvalidGraph:
        return None


# every operation


def test_a_narrow_image_of_one_channel_under_unequal_strides_is_convolved_in_all_its_rows():
    """oneDNN 3.12 writes only the first row of such an image in channels-last memory."""
    rng = np.random.default_rng(0)
    for height in range(4, 9):
        graph = chain(
            Input((1, height - 3, 2), 0, 255, 128),
            Conv(rng.integers(-128, 128, (3, 1, 2, 3)), None, (1, 3), (1, 1, 2, 2)),
        )
        x = rng.integers(0, 256, (3, 1, height - 3, 2))
        for _ in range(5):  # rows that are not written hold whatever was in memory
            assert_equal(graph, x)


@given(images, ranges, kernels, strides, pads, seeds, st.booleans())
@settings(max_examples=150)
def test_convolutions_are_the_naive_sum(shape, bound, kernel, stride, padding, seed, depthwise):
    rng = np.random.default_rng(seed)
    groups = shape[0] if depthwise else int(rng.choice([g for g in (1, 2, 3, 4) if shape[0] % g == 0]))
    filters = groups * int(rng.integers(1, 4))
    weight = rng.integers(-128, 128, (filters, shape[0] // groups, *kernel))
    bias = rng.integers(-999, 999, filters) if rng.random() < 0.5 else None
    graph = fitting(Input(shape, *bound), Conv(weight, bias, stride, padding, groups))
    if graph is not None:
        assert_equal(graph)


@given(st.integers(1, 20), st.integers(1, 9), ranges, seeds, st.booleans())
@settings(max_examples=60)
def test_products_are_the_naive_sum(features, outputs, bound, seed, biased):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-300, 300, (outputs, features))
    assert_equal(chain(Input((features,), *bound), MatMul(weight, rng.integers(-9, 9, outputs) if biased else None)))


@given(images, ranges, kernels, strides, pads, st.integers(0, 6))
@settings(max_examples=150)
def test_pools_are_the_naive_reduction(shape, bound, kernel, stride, padding, shift):
    for op in (MaxPool(kernel, stride, padding), SumPool(kernel, stride, padding, shift)):
        graph = fitting(Input(shape, *bound), op)
        if graph is not None:
            assert_equal(graph)


@given(images, ranges, pads, st.integers(0, 9))
@settings(max_examples=60)
def test_global_sums_pads_and_flattenings_are_the_naive_ones(shape, bound, padding, shift):
    for op in (GlobalSumPool(shift), Pad(padding), Flatten()):
        assert_equal(chain(Input(shape, *bound), op))


def test_a_flattening_goes_channel_by_channel_row_by_row():
    graph = chain(Input((2, 2, 3), 0, 99), Flatten())
    x = torch.arange(12).reshape(1, 2, 2, 3)
    assert Executor(graph)(x).tolist() == [list(range(12))]
    behind = chain(Input((2, 2, 3), 0, 99), Conv(np.eye(2, dtype=np.int64).reshape(2, 2, 1, 1)), Flatten())
    assert Executor(behind)(x.contiguous(memory_format=torch.channels_last)).tolist() == [list(range(12))]


@given(st.one_of(images, st.tuples(st.integers(1, 6))), ranges, seeds)
@settings(max_examples=150)
def test_thresholds_are_counted(shape, bound, seed):
    rng = np.random.default_rng(seed)
    count, rows = int(rng.integers(0, 20)), int(rng.choice([1, shape[0]]))
    table = np.sort(rng.integers(-300, 300, (rows, count)), axis=1)
    levels = tuple(sorted(int(v) for v in rng.choice(200, count + 1, replace=False) - 100))
    signs = None if rng.random() < 0.3 else rng.choice([-1, 1], shape[0])
    assert_equal(chain(Input(shape, *bound), MultiThreshold(table, levels, signs)))


@given(st.one_of(images, st.tuples(st.integers(1, 6))), ranges, seeds)
@settings(max_examples=100)
def test_requantizations_are_a_product_and_a_shift_downwards(shape, bound, seed):
    rng = np.random.default_rng(seed)
    m, a, s = (
        rng.integers(*limits, int(rng.choice([1, shape[0]])))
        for limits in ((-(2**30), 2**30), (-(2**40), 2**40), (0, 45))
    )
    ends = sorted(int(v) for v in rng.integers(-1000, 1000, 2))
    assert_equal(chain(Input(shape, *bound), Requantize(m, a, s, *ends)))


@pytest.mark.parametrize("clip", [(None, None), (0, 15), (-100, 30), (-3, -3), (400, 500)])
@pytest.mark.parametrize("shape", [(3, 2, 5), (4,)])
def test_sums_clip_and_concatenations_keep_the_order(shape, clip):
    scaled = Requantize(whole(-3), whole(7), whole(1), -200, 300)
    graph = IntegerGraph(
        (
            Node(Input(shape, 0, 255, 100)),
            Node(scaled, (0,)),
            Node(Add(*clip), (0, 1)),
            Node(Concat(), (2, 0, 1)),
            Node(Add(*clip), (3, 3)),
        )
    )
    assert_equal(graph, samples(graph, 20))


def test_right_shifts_of_negative_values_round_down():
    x = whole([-5], [-4], [-1], [0], [3], [5])
    requantized = chain(Input((1,), -9, 9), Requantize(whole(1), whole(0), whole(2), -9, 9))
    assert Executor(requantized)(torch.from_numpy(x)).flatten().tolist() == [-2, -1, -1, 0, 0, 1]
    pixels = torch.from_numpy(x.reshape(-1, 1, 1, 1))
    for op in (SumPool((1, 1), shift=2), GlobalSumPool(2)):
        assert Executor(chain(Input((1, 1, 1), -9, 9), op))(pixels).flatten().tolist() == [-2, -1, -1, 0, 0, 1]


def test_a_shift_of_62_bits_keeps_the_sign():
    op = Requantize(whole(-(2**38)), whole(0), whole(62), -5, 5)
    x = whole([-(2**23)], [-1], [0], [1], [2**23])
    graph = chain(Input((1,), -(2**23), 2**23), op)
    assert Executor(graph)(torch.from_numpy(x)).flatten().tolist() == [0, 0, 0, -1, -1]


@given(st.integers(1, 7), st.integers(0, 3), seeds)
def test_argmax_takes_the_first_of_equal_ones(features, span, seed):
    graph = chain(Input((features,), -1, -1 + span), Argmax())
    x = np.random.default_rng(seed).integers(-1, span, (20, features))
    assert Executor(graph)(torch.from_numpy(x)).flatten().tolist() == [r.index(max(r)) for r in x.tolist()]


# where float32 ends, and where 32 bits end


@pytest.mark.parametrize("top", [EDGE - 2, EDGE - 1, EDGE, EDGE + 1, EDGE + 3, 2**30 - 1, 2**30, LARGEST - 1, LARGEST])
def test_sums_are_exact_on_both_sides_of_float32_and_up_to_32_bits(top):
    """255 a + b = top, in products, convolutions and pools."""
    a, b = divmod(top, 255)
    x = whole([255, 1], [254, 1], [255, 0], [0, 1], [1, 1])
    row = whole([a, b])
    if a * 255 + b * 255 <= LARGEST:  # what the ranges can show to fit
        assert_equal(chain(Input((2,), 0, 255), MatMul(row)), x)
        assert_equal(chain(Input((2,), 0, 255), MatMul(-row)), x)
        assert_equal(chain(Input((2, 1, 1), 0, 255), Conv(row.reshape(1, 2, 1, 1))), x.reshape(-1, 2, 1, 1))
    single = whole([[1], [0]])[0]
    ones = whole([0], [1], [2])
    assert_equal(chain(Input((1,), 0, 2), MatMul(single[:1], whole(top - 2))), ones)
    assert_equal(chain(Input((1,), 0, 2), MatMul(single[:1], whole(2 - top)), MatMul(single[:1])), ones)


@pytest.mark.parametrize("top", [EDGE - 1, EDGE, EDGE + 1, 2**26 + 1, LARGEST])
def test_values_pass_every_operation_exactly_beyond_float32(top):
    x = Input((1, 1, 2), top - 4, top)
    pixels = np.array([[top, top - 1], [top - 3, top - 4], [top - 1, top - 2]]).reshape(-1, 1, 1, 2)
    one = Conv(whole([1]).reshape(1, 1, 1, 1))
    for op in (MaxPool((1, 2)), Pad((1, 0, 0, 2)), Flatten(), SumPool((1, 1), shift=1), one):
        assert_equal(chain(x, op), pixels)
    graph = IntegerGraph((Node(x), Node(Concat(), (0, 0)), Node(MaxPool((1, 1)), (1,)), Node(Flatten(), (2,))))
    assert_equal(graph, pixels)
    assert_equal(chain(x, Flatten(), Argmax()), pixels)
    if top < 2**30:
        assert_equal(IntegerGraph((Node(x), Node(Add(), (0, 0)))), pixels)
        assert_equal(chain(x, GlobalSumPool()), pixels)


@pytest.mark.parametrize("zero", [EDGE, EDGE + 1, 2**30, -(2**30) - 1, 2**33 + 1])
def test_the_zero_point_is_subtracted_exactly(zero):
    graph = chain(Input((1,), zero - 2, zero + 3, zero))
    assert Executor(graph)(torch.arange(zero - 2, zero + 4)[:, None]).flatten().tolist() == [-2, -1, 0, 1, 2, 3]


@pytest.mark.parametrize("base", [100, EDGE - 9, EDGE, EDGE + 1, 2**30 + 1, 1 - EDGE, -EDGE - 1, -(2**30) - 7])
@pytest.mark.parametrize("sign", [1, -1])
def test_thresholds_of_large_values_with_a_small_range_are_exact(base, sign):
    """The table of a small range starts far away from zero."""
    steps = np.sort(sign * (base + np.arange(1, 8)))[None]
    graph = chain(
        Input((2,), 0, 8),
        MatMul(np.eye(2, dtype=np.int64), whole(base, base + 1)),
        MultiThreshold(steps, tuple(range(8)), whole(sign, sign)),
    )
    assert_equal(graph, np.stack([np.arange(9), np.arange(9)[::-1]], axis=1))


def test_the_tables_of_many_channels_far_from_zero_do_not_mix():
    channels, base = 3, EDGE - 2**21
    table = np.sort(np.random.default_rng(0).integers(base, base + 2**20, (channels, 7)), axis=1)
    graph = chain(
        Input((channels,), 0, 2**20),
        MatMul(np.eye(channels, dtype=np.int64), whole(*[base] * channels)),
        MultiThreshold(table, tuple(range(8))),
    )
    near = (table[..., None] - base + np.arange(-1, 2)).reshape(channels, -1).T
    assert_equal(graph, np.clip(np.ascontiguousarray(near), 0, 2**20))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("shape", [(3,), (3, 4, 2)])
def test_both_forms_of_thresholds_count_alike(shape, wide):
    """A table of all values where that is small, a search where it is large."""
    span = LARGEST_TABLE if wide else 5000
    table = np.sort(np.random.default_rng(1).integers(-2, span + 3, (3, 40)), axis=1)
    table[1, 3] = table[1, 4] = table[1, 5]
    signs = whole(1, -1, 1)
    table[1] = -table[1, ::-1]
    graph = chain(Input(shape, 0, span), MultiThreshold(table, tuple(range(-20, 21)), signs))
    assert len(Executor(graph)._constants[1]) == (3 if wide else 2)
    near = np.clip(np.abs(table).reshape(-1, 1) + np.arange(-1, 2), 0, span).reshape(-1)
    count = int(np.prod(shape))
    x = (
        np.resize(near, (len(near), *shape))
        if count == 1
        else np.resize(np.random.default_rng(2).choice(near, 5000), (50, *shape))
    )
    assert_equal(graph, x)


# what comes in


def mixed_graph() -> IntegerGraph:
    weight = np.random.default_rng(3).integers(-7, 8, (4, 3, 3, 2))
    table = np.sort(np.random.default_rng(4).integers(-900, 900, (4, 7)), axis=1)
    return chain(
        Input((3, 5, 7), 0, 255, 128),
        Conv(weight, None, (1, 2), (1, 0, 1, 1)),
        MultiThreshold(table, tuple(range(8)), whole(1, -1, 1, -1)),
        SumPool((2, 2), (1, 1), (0, 1, 1, 0), 1),
        Requantize(whole(3, -5, 9, 1), whole(0, 1, 2, 3), whole(2, 1, 3, 0), -8, 7),
        MaxPool((2, 2), (2, 1), (1, 0, 0, 1)),
        Pad((0, 1, 1, 0)),
        Flatten(),
        MatMul(np.random.default_rng(5).integers(-9, 9, (6, 4 * 4 * 5))),
        Argmax(),
    )


def test_a_chain_of_every_kind_is_the_naive_one():
    graph = mixed_graph()
    assert_equal(graph, samples(graph, 20))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64])
def test_the_type_of_the_input_does_not_matter(dtype):
    graph = mixed_graph()
    x = samples(graph, 4)
    assert Executor(graph)(torch.from_numpy(x).to(dtype)).tolist() == naive(graph, x)[-1].tolist()


def test_the_memory_layout_of_the_input_does_not_matter():
    graph = mixed_graph()
    x = samples(graph, 4)
    wanted = [v.tolist() for v in naive(graph, x)]
    plain = torch.from_numpy(x).to(torch.uint8)
    strange = plain.transpose(2, 3).contiguous().transpose(2, 3)
    sliced = torch.zeros(8, 3, 10, 7, dtype=torch.uint8)
    sliced[::2, :, ::2] = plain
    for layout in (plain, plain.contiguous(memory_format=torch.channels_last), strange, sliced[::2, :, ::2]):
        assert [v.tolist() for v in Executor(graph).values(layout)] == wanted


def test_running_twice_changes_neither_constants_nor_the_input():
    graph = mixed_graph()
    executor, x = Executor(graph), torch.from_numpy(samples(graph, 4)).double()
    before = x.clone()
    first = executor(x)
    assert torch.equal(executor(x), first)
    assert torch.equal(x, before)


def test_every_image_is_computed_by_itself():
    graph = mixed_graph()
    x = torch.from_numpy(samples(graph, 40))
    executor = Executor(graph)
    together = executor(x)
    assert torch.equal(torch.cat([executor(x[i : i + 1]) for i in range(40)]), together)


def test_no_images_give_no_outputs():
    graph = mixed_graph()
    for empty in Executor(graph).values(torch.zeros(0, 3, 5, 7, dtype=torch.uint8)):
        assert len(empty) == 0
    assert Executor(graph)(torch.zeros(0, 3, 5, 7)).shape == (0, 1)
    wide = chain(Input((2,), 0, LARGEST_TABLE * 2), MultiThreshold(whole([5]), (0, 1)))
    assert Executor(wide)(torch.zeros(0, 2)).shape == (0, 2)


@pytest.mark.parametrize("wrong", [[[-1]], [[4]], [[2**40]], [[-(2**40)]], [[0], [9]]])
def test_inputs_outside_the_range_are_refused(wrong):
    with pytest.raises(InvalidGraph, match="0 to 3"):
        Executor(chain(Input((1,), 0, 3)))(torch.tensor(wrong))


@pytest.mark.parametrize("wrong", [0.5, -0.5, 3.5, float("nan"), float("inf")])
def test_inputs_that_are_no_integers_are_refused(wrong):
    with pytest.raises(InvalidGraph):
        Executor(chain(Input((1,), 0, 3)))(torch.tensor([[wrong]]))


@pytest.mark.parametrize("shape", [(), (3,), (1, 2), (1, 1, 3, 3), (1, 2, 3, 4), (2, 4, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(InvalidGraph, match=r"\(2, 4, 3\)"):
        Executor(chain(Input((2, 4, 3), 0, 3)))(torch.zeros(shape))


# whole graphs


@given(seeds)
@settings(max_examples=150)
def test_random_graphs_are_the_naive_ones(seed):
    from random_graphs import random_graph

    graph = random_graph(seed, depth=5)
    assert_equal(graph, samples(graph, 3, seed))


@pytest.mark.slow
@given(seeds)
@settings(max_examples=1500)
def test_many_deep_random_graphs_are_the_naive_ones(seed):
    from random_graphs import random_graph

    graph = random_graph(seed, depth=9, widest=2**31)
    assert_equal(graph, samples(graph, 3, seed))


@pytest.mark.parametrize("batch", [1, 2, 15, 16, 17, 64])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolutions_near_the_end_of_float32_are_exact_in_batches_of_any_size(batch, kernel):
    """Fast convolutions that transform their inputs (Winograd, FFT) would not be."""
    rng = np.random.default_rng(kernel)
    weight = rng.choice([-127, 127], (4, 16, kernel, kernel))
    top = (EDGE - 1) // (127 * 16 * kernel**2)
    graph = chain(Input((16, 9, 9), -top, top), Conv(weight, None, (1, 1), (kernel // 2,) * 4))
    assert graph.partial_sums(1) < EDGE
    x = np.where(rng.random((batch, 16, 9, 9)) < 0.5, -top, top - rng.integers(0, 2, (batch, 16, 9, 9)))
    x[:, :, :5, :5] = np.sign(weight[0, :, :1, :1]) * top
    got = Executor(graph)(torch.from_numpy(x)).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), *[(kernel // 2,) * 2] * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    assert np.array_equal(got, np.einsum("nihwyx,oiyx->nohw", windows, weight))
