"""The published table: its keys, the sums that it is known for, and what is said of a table that is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import ConfigError
from bitwright.integer.lower import lower
from bitwright.latency.cost import Latency
from bitwright.latency.keys import keys
from bitwright.latency.table import Entry, LatencyTable, read
from bitwright.modules import Weights
from bitwright.networks import PUBLISHED, build, named
from bitwright.networks.cells import CellSpace
from bitwright.networks.inverted_residual import LINEAR_FLOAT, Options
from bitwright.workload.rows import workload
from published_latencies import published

SPACE = CellSpace()
TINY = CellSpace((8,), (2,), (2,), kernels=(3,), stem=8, first=8, head=16, resolution=16, classes=10)


def test_the_published_table_has_72_entries() -> None:
    assert len(published().entries) == 72


def test_the_space_is_the_published_one() -> None:
    sizes = [len(options) for options in SPACE.candidates]
    assert (len(sizes), sizes.count(6), sizes.count(7)) == (21, 6, 15)
    assert np.prod(sizes, dtype=object) == 6**6 * 7**15


def cells_of(table: LatencyTable) -> tuple[float, list[list[float]]]:
    """Milliseconds of what is fixed, and of every candidate of every cell."""
    networks = [table.by_block(blocks) for blocks in SPACE.covering()]
    (fixed,) = {sum(blocks[:2] + blocks[-2:]) for blocks in networks}
    found = []
    for cell, options in enumerate(SPACE.candidates, start=2):
        found.append([blocks[cell] for blocks in networks] + [0.0] * (len(options) - len(networks)))
    return fixed, found


def test_sums_over_the_space_are_the_published_ones() -> None:
    fixed, cells = cells_of(published())
    assert fixed == pytest.approx(11.364, abs=5e-4)
    assert fixed + sum(map(min, cells)) == pytest.approx(29.609, abs=1e-3)
    assert fixed + sum(map(max, cells)) == pytest.approx(191.030, abs=1e-3)
    assert fixed + sum(sum(cell) / len(cell) for cell in cells) == pytest.approx(113.988, abs=1e-3)


def test_the_extreme_networks_have_these_latencies() -> None:
    slowest = SPACE.block_list([5] * 21)
    fastest = SPACE.block_list([6 if len(options) == 7 else 0 for options in SPACE.candidates])
    assert published().of(slowest) == pytest.approx(191.030, abs=1e-3)
    assert published().of(fastest) == pytest.approx(29.609, abs=1e-3)


def test_what_the_table_lacks_of_the_published_network_is_listed() -> None:
    """Its first stage is 32 wide; the other 20 cells and the rest are there."""
    with pytest.raises(ConfigError) as raised:
        published().of(PUBLISHED["mobile"])  # type: ignore[arg-type]
    text = str(raised.value)
    assert "\n" not in text
    first, _, listed = text.partition(": ")
    assert first == "the latency table lacks 3 entries"
    assert listed.split(", ") == [
        "expanded_conv-input:112x112x16-output:56x56x32-expand:3-kernel:5-stride:2-idskip:0",
        "expanded_conv-input:56x56x32-output:56x56x32-expand:3-kernel:3-stride:1-idskip:1",
        "expanded_conv-input:56x56x32-output:28x28x40-expand:3-kernel:7-stride:2-idskip:0",
    ]


def test_what_the_table_knows_of_the_published_network_sums_to_64_ms() -> None:
    known = published().entries
    found = keys(workload(named("proxyless-mobile")))
    assert sum(known[key].mean for key in found if key in known) == pytest.approx(63.7, abs=0.05)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = LatencyTable({"a": Entry(3, 0.1, 1e-9), "b-input:1x1x2": Entry(1, 2.0, 0.0)}, {"backend": "c -O3: fast"})
    table.write(tmp_path / "table.yaml")
    assert read(tmp_path / "table.yaml") == table


def test_a_table_as_published_is_read(tmp_path: Path) -> None:
    key = "expanded_conv-input:7x7x192-output:7x7x320-expand:6-kernel:5-stride:1-idskip:0"
    (tmp_path / "t.yaml").write_text(f"{key}: {{count: 154, mean: 5.264772727, var: 0.01}}\n")
    assert read(tmp_path / "t.yaml") == LatencyTable({key: Entry(154, 5.264772727, 0.01)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {count: 1, mean: 2.0}", "a: var is missing"),
        ("a: {count: 1, mean: -2.0, var: 0}", "a: mean is a number of at least 0, got -2.0"),
        ("a: {count: 1, mean: .nan, var: 0}", "a: mean is a number of at least 0, got nan"),
        ("a: {count: 1.5, mean: 2, var: 0}", "a: count is an integer, got 1.5"),
        ("a: {count: 1, mean: fast, var: 0}", "a: mean is a number of at least 0, got 'fast'"),
        ("a: 4.0", "a: an entry has count, mean, var, got 4.0"),
        ("- a", "holds no latency table"),
        ("a: [", "is no YAML"),
    ],
)
def test_an_entry_that_is_none_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"table\.yaml") as raised:
        read(path)
    assert said in str(raised.value)


def test_networks_of_other_parts_have_no_keys() -> None:
    with pytest.raises(ConfigError, match=r"init_block, stage1/unit1.*node 1 \(Conv2d"):
        published().of(named("proxyless-cifar"))


# bits


QUANTIZED = Options(weight_bits=4, activation_bits=6, depthwise_bits=5, first_layer_bits=8)


def test_keys_of_quantized_blocks_list_their_bits() -> None:
    """The convolution that expands reads 6 bits and writes 5, the depthwise one writes 6, the last one 6."""
    network = build(TINY.block_list([1, 1]), QUANTIZED)
    assert keys(workload(network)) == [
        "Conv-input:16x16x3-output:8x8x8-weights:8-values:6",
        "expanded_conv-input:8x8x8-output:8x8x8-expand:1-kernel:3-stride:1-idskip:0-weights:5.4-values:6.6.6",
        "expanded_conv-input:8x8x8-output:4x4x8-expand:6-kernel:3-stride:2-idskip:0-weights:4.5.4-values:6.5.6.6",
        "expanded_conv-input:4x4x8-output:4x4x8-expand:6-kernel:3-stride:1-idskip:1-weights:4.5.4-values:6.5.6.6",
        "Conv_1-input:4x4x8-output:4x4x16-weights:4-values:6.6",
        "Logits-input:4x4x16-output:10-weights:4-values:6",
    ]


def test_an_integer_graph_has_the_keys_of_its_network() -> None:
    network = build(TINY.block_list([1, 1]), QUANTIZED)
    graph = lower(network, Weights([network]))
    assert keys(workload(graph)) == keys(workload(network))


def test_the_cost_of_a_network_is_that_of_its_blocks() -> None:
    table = published()
    cost = Latency(table)(build(SPACE.block_list([5] * 21), LINEAR_FLOAT))
    assert cost.unit == "ms"
    assert cost.total == pytest.approx(191.030, abs=1e-3)
    assert len(cost.per_node) == 25


def test_the_cost_of_many_bit_widths_is_looked_up_at_once() -> None:
    """A table in which a block takes as many milliseconds as its weights have bits, by hand."""
    blocks = TINY.block_list([1, 1])
    entries = {}
    for bits in (3, 8):
        network = build(blocks, Options(weight_bits=bits, depthwise_bits=bits, first_layer_bits=bits))
        for key in keys(workload(network)):
            entries[key] = Entry(1, float(bits), 0.0)
    work = workload(build(blocks, Options(weight_bits=8, depthwise_bits=8)))
    bits = np.array([[3], [8]]) * np.ones(len(work))
    activations = np.where(np.arange(len(work)) == 0, 8, bits)
    assert Latency(LatencyTable(entries)).totals(work, bits, activations).tolist() == [18.0, 48.0]
    with pytest.raises(ConfigError, match=r"lacks .*weights:5.*"):
        Latency(LatencyTable(entries)).totals(work, 5)
