"""Integer graphs as data: ranges against all inputs there are, widths, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import InvalidGraph
from bitwright.integer.graph import (
    DEEPEST,
    LARGEST,
    Add,
    Argmax,
    Concat,
    Conv,
    Edge,
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
from naive_executor import chain, naive, whole

LEAST = -(2**63)


def every_input(graph: IntegerGraph) -> np.ndarray:
    """All inputs that the graph can be given."""
    op = graph.input
    size = int(np.prod(op.shape))
    values = np.array(list(product(range(op.lowest, op.highest + 1), repeat=size)), dtype=np.int64)
    return values.reshape(len(values), *op.shape)


def assert_exact(graph: IntegerGraph) -> None:
    """The output's ranges are exactly what some input reaches, channel by channel."""
    output = naive(graph, every_input(graph))[-1]
    assert output.shape[1:] == graph.output.shape
    axes = (0, *range(2, output.ndim))
    assert output.min(axes).tolist() == graph.output.lows.tolist()
    assert output.max(axes).tolist() == graph.output.highs.tolist()


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails instead of hanging."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ranges are those that some input reaches

images = st.sampled_from([(1, 3, 3), (1, 2, 3), (2, 2, 2), (1, 1, 5), (3, 1, 2), (2, 3, 1), (1, 3, 2)])
bounds = st.sampled_from([(0, 1, 0), (0, 2, 1), (0, 1, 3), (-1, 1, 0), (-2, 0, 0), (5, 6, 0), (0, 2, 0), (-3, -2, -1)])
kernels = st.tuples(st.integers(1, 3), st.integers(1, 3))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 3)] * 4))


def built(*ops: object) -> IntegerGraph | None:
    """The chain, or None where the random window does not fit the random image."""
    try:
        return chain(*ops)
    except InvalidGraph:
        return None


def source(shape: tuple[int, ...], bound: tuple[int, int, int]) -> Input:
    """At most 3**9 inputs."""
    lowest, highest, zero = bound
    return Input(shape, lowest, highest, zero)


@given(images, bounds, kernels, strides, pads, st.integers(0, 2**32), st.data())
@settings(max_examples=250)
def test_the_range_of_a_convolution_is_what_some_input_reaches(shape, bound, kernel, stride, padding, seed, data):
    rng = np.random.default_rng(seed)
    groups = data.draw(st.sampled_from([g for g in (1, 2, 3) if shape[0] % g == 0]))
    filters = groups * data.draw(st.integers(1, 2))
    weight = rng.integers(-3, 4, (filters, shape[0] // groups, *kernel))
    bias = rng.integers(-9, 10, filters) if data.draw(st.booleans()) else None
    graph = built(source(shape, bound), Conv(weight, bias, stride, padding, groups))
    if graph is not None:
        assert_exact(graph)


@given(st.integers(1, 8), bounds, st.integers(1, 3), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=100)
def test_the_range_of_a_product_is_what_some_input_reaches(features, bound, outputs, biased, seed):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-5, 6, (outputs, features))
    assert_exact(chain(source((features,), bound), MatMul(weight, rng.integers(-9, 10, outputs) if biased else None)))


@given(images, bounds, kernels, strides, pads, st.integers(0, 4))
@settings(max_examples=200)
def test_the_range_of_a_sum_pool_is_what_some_input_reaches(shape, bound, kernel, stride, padding, shift):
    graph = built(source(shape, bound), SumPool(kernel, stride, padding, shift))
    if graph is not None:
        assert_exact(graph)


@given(images, bounds, kernels, strides, pads)
@settings(max_examples=200)
def test_the_range_of_a_max_pool_is_what_some_input_reaches(shape, bound, kernel, stride, padding):
    graph = built(source(shape, bound), MaxPool(kernel, stride, padding))
    if graph is not None:
        assert_exact(graph)


@given(images, bounds, pads, st.integers(0, 5))
@settings(max_examples=60)
def test_the_ranges_of_a_pad_a_global_sum_and_a_flattening_are_what_some_input_reaches(shape, bound, padding, shift):
    for op in (Pad(padding), GlobalSumPool(shift), Flatten()):
        assert_exact(chain(source(shape, bound), op))


@given(st.integers(1, 3), st.integers(-30, 30), st.integers(0, 40), st.integers(0, 2**32))
@settings(max_examples=200)
def test_the_range_of_thresholds_with_signs_is_what_some_input_reaches(channels, lowest, span, seed):
    rng = np.random.default_rng(seed)
    count, rows = int(rng.integers(0, 6)), int(rng.choice([1, channels]))
    table = np.sort(rng.integers(-40, 80, (rows, count)), axis=1)
    levels = tuple(sorted(int(v) for v in rng.choice(50, count + 1, replace=False) - 25))
    signs = None if rng.random() < 0.3 else rng.choice([-1, 1], channels)
    graph = chain(Input((channels,), lowest, lowest + span), MultiThreshold(table, levels, signs))
    x = np.repeat(np.arange(lowest, lowest + span + 1)[:, None], channels, axis=1)
    output = naive(graph, x)[-1]
    assert output.min(0).tolist() == graph.output.lows.tolist()
    assert output.max(0).tolist() == graph.output.highs.tolist()


@given(st.integers(1, 3), st.integers(-300, 300), st.integers(0, 300), st.integers(0, 2**32))
@settings(max_examples=200)
def test_the_range_of_a_requantization_is_what_some_input_reaches(channels, lowest, span, seed):
    rng = np.random.default_rng(seed)
    m, a, s = (rng.integers(*limits, int(rng.choice([1, channels]))) for limits in ((-99, 100), (-999, 999), (0, 9)))
    graph = chain(Input((channels,), lowest, lowest + span), Requantize(m, a, s, *sorted(rng.integers(-99, 99, 2))))
    x = np.repeat(np.arange(lowest, lowest + span + 1)[:, None], channels, axis=1)
    output = naive(graph, x)[-1]
    assert output.min(0).tolist() == graph.output.lows.tolist()
    assert output.max(0).tolist() == graph.output.highs.tolist()


@pytest.mark.parametrize("clip", [(None, None), (0, 3), (-1, 1), (5, 5), (-9, -7)])
def test_the_range_of_a_sum_of_independent_inputs_is_what_some_input_reaches(clip):
    # channels are told apart by weights, so that both sides of the sum are independent
    left, right = Conv(whole([1, 0], [-2, 0]).reshape(2, 2, 1, 1)), Conv(whole([0, 3], [0, 1]).reshape(2, 2, 1, 1))
    source = Input((2, 1, 2), 0, 3, 1)
    graph = IntegerGraph((Node(source), Node(left, (0,)), Node(right, (0,)), Node(Add(*clip), (1, 2))))
    assert_exact(graph)


def test_a_concatenation_keeps_the_range_of_every_channel():
    source = Input((2, 1, 1), 0, 5)
    scaled = Conv(whole([-3], [7]).reshape(2, 1, 1, 1), groups=2)
    graph = IntegerGraph((Node(source), Node(scaled, (0,)), Node(Concat(), (1, 0, 1))))
    assert graph.output.shape == (6, 1, 1)
    assert graph.output.lows.tolist() == [-15, 0, 0, 0, -15, 0]
    assert graph.output.highs.tolist() == [0, 35, 5, 5, 0, 35]
    assert_exact(graph)


def test_the_range_of_an_argmax_is_all_its_positions():
    assert_exact(chain(Input((5,), 0, 2), Argmax()))


def test_a_flattening_puts_the_values_of_a_channel_side_by_side():
    edge = chain(Input((2, 1, 2), 0, 1), Conv(whole([2], [-3]).reshape(2, 1, 1, 1), groups=2), Flatten()).output
    assert (edge.shape, edge.lows.tolist(), edge.highs.tolist()) == ((4,), [0, 0, -3, -3], [2, 2, 0, 0])


def test_padding_zeros_that_every_window_contains_narrows_a_convolution():
    # one pixel from 5 to 6 under a 2x2 window: one tap at a time
    conv = Conv(whole([1, 2], [3, -4]).reshape(1, 1, 2, 2), None, (1, 1), (1, 1, 1, 1))
    edge = chain(Input((1, 1, 1), 5, 6), conv).output
    assert (edge.lowest, edge.highest) == (-24, 18)


# widths


@pytest.mark.parametrize(
    ("lowest", "highest", "bits", "signed"),
    [
        (0, 0, 1, False),
        (0, 1, 1, False),
        (1, 1, 1, False),
        (0, 127, 7, False),
        (0, 128, 8, False),
        (0, 255, 8, False),
        (0, 256, 9, False),
        (-1, -1, 1, True),
        (-1, 0, 1, True),
        (-1, 1, 2, True),
        (-2, 1, 2, True),
        (-128, 0, 8, True),
        (-128, 127, 8, True),
        (-129, 127, 9, True),
        (-128, 128, 9, True),
        (-1, 255, 9, True),
        (-1, 256, 10, True),
        (-LARGEST, LARGEST, 32, True),
        (0, LARGEST, 31, False),
        (-5, -3, 4, True),
        (-4, -4, 3, True),
        (-128, -128, 8, True),
        (-129, -128, 9, True),
    ],
)
def test_the_width_is_that_of_the_narrowest_integer(lowest, highest, bits, signed):
    edge = chain(Input((1,), lowest, highest)).output
    assert (edge.bits, edge.signed, edge.magnitude) == (bits, signed, max(-lowest, highest))


@given(st.integers(-LARGEST, LARGEST), st.integers(-LARGEST, LARGEST))
def test_a_width_holds_both_ends_and_one_bit_less_does_not(one, other):
    low, high = sorted((one, other))
    edge = Edge((2,), whole(low, low), whole(high, high))
    holds = (lambda b: -(2 ** (b - 1)) <= low and high < 2 ** (b - 1)) if low < 0 else (lambda b: high < 2**b)
    assert holds(edge.bits)
    assert edge.bits == 1 or not holds(edge.bits - 1)


# refusals

IMAGE, VECTOR = Input((2, 3, 4), 0, 7), Input((5,), 0, 7)
ONES = np.ones((4, 2, 3, 3), dtype=np.int64)
ROW = whole([1, 2, 3])


@pytest.mark.parametrize(
    ("first", "op", "message"),
    [
        (VECTOR, Conv(ONES), r"\(5,\)"),
        (IMAGE, Conv(ONES[:, :1]), "do not fit"),
        (IMAGE, Conv(ONES[:, 0]), "weights are"),
        (IMAGE, Conv(ONES[:, :0]), "weights are"),
        (IMAGE, Conv(ONES[:, :, :0]), "weights are"),
        (IMAGE, Conv(ONES[:0]), "weights are"),
        (IMAGE, Conv(ONES, whole(1, 2, 3)), "bias"),
        (IMAGE, Conv(ONES, whole([1, 2, 3, 4])), "bias"),
        (IMAGE, Conv(ONES, None, (0, 1)), "stride"),
        (IMAGE, Conv(ONES, None, (1, -1)), "stride"),
        (IMAGE, Conv(ONES, None, (1, 1), (0, -1, 0, 0)), "pads"),
        (IMAGE, Conv(ONES, None, (1, 1), (0, 0, 0, -1)), "pads"),
        (IMAGE, Conv(ONES, None, (1, 1), (0, 0, 0, 0), 2), "2 groups"),
        (IMAGE, Conv(ONES, None, (1, 1), (0, 0, 0, 0), 0), "0 groups"),
        (IMAGE, Conv(ONES, None, (1, 1), (0, 0, 0, 0), -1), "-1 groups"),
        (IMAGE, Conv(ONES[:3, :1], None, (1, 1), (0, 0, 0, 0), 2), "2 groups"),
        (IMAGE, Conv(np.ones((1, 2, 4, 3), dtype=np.int64)), "does not fit an image"),
        (IMAGE, Conv(np.ones((1, 2, 3, 5), dtype=np.int64)), "does not fit an image"),
        (IMAGE, MatMul(whole([1, 2])), "do not multiply"),
        (VECTOR, MatMul(whole([1, 2])), "do not multiply"),
        (VECTOR, MatMul(whole(1, 2, 3, 4, 5)), "do not multiply"),
        (VECTOR, MatMul(np.ones((2, 5), dtype=np.int64), whole(1)), "bias"),
        (VECTOR, MultiThreshold(whole([2, 1]), (0, 1, 2)), "not ascending"),
        (VECTOR, MultiThreshold(whole([1, 2]), (0, 1)), "one more level"),
        (VECTOR, MultiThreshold(whole([1, 2]), (0, 2, 2)), "ascending"),
        (VECTOR, MultiThreshold(whole([1, 2]), (0, 2, 1)), "ascending"),
        (VECTOR, MultiThreshold(whole(1, 2), (0, 1, 2)), "one more level"),
        (VECTOR, MultiThreshold(np.repeat(whole([1]), 4, 0), (0, 1)), "4 rows for 5"),
        (VECTOR, MultiThreshold(whole([1]), (0, 1), whole(1, 1, 1, 1)), "signs"),
        (VECTOR, MultiThreshold(whole([1]), (0, 1), whole(1, 1, 0, 1, 1)), "signs"),
        (VECTOR, MultiThreshold(whole([2**31 + 1]), (0, 1)), "32 bits"),
        (VECTOR, MultiThreshold(whole([-(2**31) - 1]), (0, 1)), "32 bits"),
        (VECTOR, MultiThreshold(whole([1]), (0, 2**31)), "32 bits"),
        (VECTOR, Requantize(whole(1, 2), whole(0), whole(0), 0, 1), "2 rows for 5"),
        (VECTOR, Requantize(whole(1), whole([0]), whole(0), 0, 1), "vectors"),
        (VECTOR, Requantize(whole(1), whole(0), whole(-1), 0, 1), "shifts"),
        (VECTOR, Requantize(whole(1), whole(0), whole(63), 0, 1), "shifts"),
        (VECTOR, Requantize(whole(1), whole(0), whole(0), 2, 1), "clips"),
        (VECTOR, Requantize(whole(2**61), whole(0), whole(62), 0, 1), "64 bits"),
        (VECTOR, Requantize(whole(1), whole(2**62), whole(62), 0, 1), "64 bits"),
        (VECTOR, Requantize(whole(LEAST), whole(0), whole(62), 0, 1), "64 bits"),
        (VECTOR, Requantize(whole(0), whole(LEAST), whole(62), 0, 1), "64 bits"),
        (VECTOR, MaxPool((2, 2)), "image"),
        (IMAGE, MaxPool((0, 2)), "window"),
        (IMAGE, MaxPool((2, 2), (0, 1)), "stride"),
        (IMAGE, MaxPool((2, 2), (1, 1), (2, 0, 0, 0)), "without a pixel"),
        (IMAGE, MaxPool((2, 3), (1, 1), (0, 2, 0, 3)), "without a pixel"),
        (IMAGE, MaxPool((2, 2), (1, 1), (-1, 0, 0, 0)), "pads"),
        (IMAGE, SumPool((2, 0)), "window"),
        (IMAGE, SumPool((5, 1)), "does not fit"),
        (IMAGE, SumPool((2, 2), (1, 1), (0, 0, -1, 0)), "pads"),
        (IMAGE, SumPool((2, 2), shift=-1), "shifts"),
        (IMAGE, SumPool((2, 2), shift=32), "shifts"),
        (VECTOR, GlobalSumPool(), "image"),
        (IMAGE, GlobalSumPool(32), "shifts"),
        (IMAGE, Pad((0, 0, -1, 0)), "pads"),
        (VECTOR, Pad((0, 0, 1, 0)), "pads"),
        (IMAGE, Argmax(), "vector"),
        (VECTOR, Add(), "takes 2 inputs"),
        (VECTOR, Input((5,)), "one input"),
    ],
)
def test_an_operation_that_does_not_fit_is_refused_by_name(first, op, message):
    with pytest.raises(InvalidGraph, match=rf"^node 1 \({type(op).__name__}\).*{message}"):
        chain(first, op)


@pytest.mark.parametrize("clip", [(None, 3), (3, None), (4, 3)])
def test_a_sum_with_half_a_clip_is_refused(clip):
    with pytest.raises(InvalidGraph, match=r"node 1 \(Add total\): clips"):
        IntegerGraph((Node(VECTOR), Node(Add(*clip), (0, 0), "total")))


def test_sums_and_concatenations_of_different_shapes_are_refused():
    nodes = (Node(IMAGE), Node(Conv(ONES), (0,)))
    with pytest.raises(InvalidGraph, match=r"node 2 \(Add\): adds \(2, 3, 4\) to \(4, 1, 2\)"):
        IntegerGraph((*nodes, Node(Add(), (0, 1))))
    with pytest.raises(InvalidGraph, match=r"node 2 \(Concat\)"):
        IntegerGraph((*nodes, Node(Concat(), (0, 1))))
    with pytest.raises(InvalidGraph, match=r"node 2 \(Concat\)"):
        IntegerGraph((*nodes, Node(Concat(), ())))


@pytest.mark.parametrize(
    "nodes",
    [
        (),
        (Node(Flatten(), (0,)),),
        (Node(Flatten()),),
        (Node(VECTOR, (0,)),),
        (Node(VECTOR), Node(Argmax(), (1,))),
        (Node(VECTOR), Node(Argmax(), (-1,))),
        (Node(VECTOR), Node(Argmax(), (2,)), Node(Argmax(), (0,))),
        (Node(VECTOR), Node(Argmax(), (0, 0))),
        (Node(VECTOR), Node(Argmax(), ())),
        (Node(VECTOR), Node(VECTOR)),
        (Node(Input(())),),
        (Node(Input((2, 3))),),
        (Node(Input((2, 3, 0))),),
        (Node(Input((0,))),),
        (Node(Input((-1, 2, 2))),),
        (Node(Input((2,), 3, 2)),),
    ],
)
def test_nodes_that_are_no_graph_are_refused(nodes):
    with pytest.raises(InvalidGraph):
        IntegerGraph(nodes)


def test_a_graph_of_too_many_nodes_is_refused():
    with pytest.raises(InvalidGraph, match="nodes"):
        IntegerGraph((Node(VECTOR),) * (DEEPEST + 1))


@pytest.mark.parametrize("scales", [(0.0,), (-1.0,), (float("nan"),), (float("inf"),), (1.0, 1.0), (1.0,) * 4 + (0.0,)])
def test_scales_are_one_or_one_per_output_finite_and_positive(scales):
    with pytest.raises(InvalidGraph, match="scale"):
        chain(VECTOR, scales=scales)
    assert chain(VECTOR, scales=(1.0,) * 5).scales == (1.0,) * 5


# 32 bits


def test_values_of_31_bits_and_a_sign_are_taken_and_one_more_is_refused():
    one = whole([1])
    assert chain(Input((1,), -LARGEST, LARGEST)).output.magnitude == LARGEST
    assert chain(Input((1,), 0, 1), MatMul(one, whole(LARGEST - 1))).output.highest == LARGEST
    for wrong in (
        lambda: chain(Input((1,), 0, LARGEST + 1)),
        lambda: chain(Input((1,), -LARGEST - 1, 0)),
        lambda: chain(Input((1,), 0, LARGEST, -1)),
        lambda: chain(Input((1,), 0, 1), MatMul(one, whole(LARGEST))),
        lambda: chain(Input((1,), 0, 1), MatMul(one, whole(-LARGEST - 1))),
        lambda: chain(Input((1, 2, 2), 0, 1), Conv(one.reshape(1, 1, 1, 1), whole(LARGEST))),
    ):
        with pytest.raises(InvalidGraph, match="32 bits"):
            wrong()


def test_a_partial_sum_of_more_than_32_bits_is_refused_even_where_the_sum_fits():
    half = 2**30
    with pytest.raises(InvalidGraph, match="32 bits"):
        chain(Input((2,), half, half), MatMul(whole([1, -1])), MatMul(whole([1])))
    with pytest.raises(InvalidGraph, match="32 bits"):
        chain(Input((2, 1, 1), half, half), Conv(whole([1, -1]).reshape(1, 2, 1, 1)))
    with pytest.raises(InvalidGraph, match="32 bits"):
        chain(Input((1, 1, 2), half, half), SumPool((1, 2), shift=5))
    with pytest.raises(InvalidGraph, match="32 bits"):
        chain(Input((1, 1, 2), half, half), GlobalSumPool(5))


def test_a_clipped_sum_that_exceeds_32_bits_before_it_is_clipped_is_refused():
    big = Node(Input((1,), 0, LARGEST))
    assert IntegerGraph((Node(Input((1,), 0, 2**30 - 1)), Node(Add(0, 1), (0, 0)))).output.highest == 1
    with pytest.raises(InvalidGraph, match="32 bits"):
        IntegerGraph((big, Node(Add(0, 1), (0, 0))))


@pytest.mark.parametrize(
    ("first", "op"),
    [
        (Input((1,)), MatMul(whole([LEAST]))),
        (Input((1, 1, 1)), Conv(whole([LEAST]).reshape(1, 1, 1, 1))),
        (Input((1,)), MatMul(whole([1]), whole(LEAST))),
        (Input((1, 2, 2)), Conv(np.full((1, 1, 2, 2), 2**62))),  # whose sum is 0 modulo 2**64
        (Input((4,)), MatMul(np.full((1, 4), 2**62))),
        (Input((1,)), MultiThreshold(whole([LEAST]), (0, 1))),
        (Input((1,), LEAST, 0), Flatten()),
        (Input((1,), -(2**62), 0, 2**62), Flatten()),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_constants_at_the_end_of_64_bits_are_refused(first, op):
    with pytest.raises(InvalidGraph, match="32 bits"):
        chain(first, op)


@pytest.mark.parametrize(
    ("first", "op"),
    [
        (Input((1,), 0, 2**70), Flatten()),
        (Input((1,)), MultiThreshold(whole([1]), (0, 2**70))),
        (Input((1,)), Requantize(whole(1), whole(0), whole(0), 0, 2**70)),
        (Input((1,)), Requantize(whole(1), whole(0), whole(0), -(2**70), 2**70)),
    ],
)
def test_numbers_beyond_64_bits_are_no_other_error(first, op):
    try:
        graph = chain(first, op)
    except InvalidGraph:
        return
    assert graph.output.magnitude <= LARGEST


@pytest.mark.parametrize(
    "ops",
    [
        (Input((10**12,)),),
        (Input((10**30,)),),
        (Input((10**12, 1, 1)),),
        (Input((1, 10**6, 10**6)),),
        (Input((1, 1, 1)), Pad((10**12, 0, 0, 0))),
        (Input((1, 1, 1)), Conv(whole([1]).reshape(1, 1, 1, 1), None, (1, 1), (10**12, 0, 0, 0))),
        (Input((1, 1, 1)), SumPool((1, 1), (1, 1), (0, 0, 10**12, 0))),
        (Input((1, 1, 1)), SumPool((10**6, 10**6), (1, 1), (10**6,) * 4)),
    ],
)
def test_a_huge_shape_is_refused_at_once(ops):
    with within(5), pytest.raises(InvalidGraph, match="node"):
        chain(*ops)


# the bookkeeping


def test_the_last_use_and_the_consumers_of_a_diamond():
    graph = IntegerGraph(
        (Node(VECTOR), Node(Add(), (0, 0)), Node(Concat(), (0, 1, 0)), Node(Argmax(), (2,)), Node(Argmax(), (1,)))
    )
    assert graph.last_use == [2, 4, 3, 3, 4]
    assert graph.consumers == [[1, 2], [2, 4], [3], [], []]


def test_a_label_names_position_operation_and_layer():
    graph = IntegerGraph((Node(VECTOR), Node(Argmax(), (0,), "head")))
    assert [graph.label(i) for i in range(2)] == ["node 0 (Input)", "node 1 (Argmax head)"]


@given(images, st.integers(0, 2**32), pads)
@settings(max_examples=60)
def test_partial_sums_bound_every_order_of_adding(shape, seed, padding):
    rng = np.random.default_rng(seed)
    kernel = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    weight = rng.integers(-4, 5, (2, shape[0], *kernel))
    graph = built(Input(shape, -2, 3), Conv(weight, rng.integers(-9, 9, 2), (1, 1), padding))
    if graph is not None:
        terms = [3 * np.abs(w).sum() + abs(b) for w, b in zip(weight, graph.nodes[1].op.bias, strict=True)]
        assert graph.partial_sums(1) == max(terms)
    assert chain(Input(shape, -2, 3), GlobalSumPool(3)).partial_sums(1) == 3 * shape[1] * shape[2]
    assert chain(Input(shape, -2, 3), SumPool((1, 1))).partial_sums(1) == 3
