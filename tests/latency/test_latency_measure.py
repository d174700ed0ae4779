"""Tables measured here, on a tiny network: what is measured, and that a build goes on where it ended."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bitwright.costs.macs import Macs
from bitwright.costs.parameters import Parameters
from bitwright.errors import ConfigError
from bitwright.journal import Progress
from bitwright.latency.alone import blocks
from bitwright.latency.keys import keys
from bitwright.latency.measure import build, check, memory
from bitwright.latency.programs import program
from bitwright.latency.table import LatencyTable, read
from bitwright.modules import Weights, tensor_names
from bitwright.network import Network
from bitwright.networks import build as build_network
from bitwright.networks import named
from bitwright.networks.cells import CellSpace
from bitwright.networks.inverted_residual import LINEAR_FLOAT, Options
from bitwright.workload.rows import workload

SPACE = CellSpace(
    (8,), (2,), (2,), kernels=(3, 5), expansions=(3,), stem=8, first=8, head=16, resolution=16, classes=10
)
QUANTIZED = Options(weight_bits=4, depthwise_bits=5)

pytest.importorskip("onnxruntime")


def network(choice: int = 0, options: Options = LINEAR_FLOAT) -> Network:
    return build_network(SPACE.block_list([choice] * 2), options)


# blocks of their own


@pytest.mark.parametrize("whole", [named("mobilenetv2-1.0"), named("mobile14-4b5b")], ids=["float", "quantized"])
@pytest.mark.parametrize("cost", [Macs(), Parameters()], ids=["macs", "parameters"])
def test_blocks_less_their_frames_are_the_network(whole: Network, cost: Macs | Parameters) -> None:
    alone = {block.key: block for block in blocks([whole])}
    total = 0.0
    for key in keys(workload(whole)):
        frame = alone[key].frame
        total += cost(alone[key].network).total - (0 if frame is None else cost(frame).total)
    assert total == cost(whole).total


def test_a_block_reads_the_codes_that_it_reads_in_the_network() -> None:
    whole = network(0, QUANTIZED)
    starts = {"stage1": "init_block/bn", "stage2/unit1": "stage1/unit1/pw_bn", "stage2/unit2": "stage2/unit1/pw_bn"}
    keys_of = [node.key for node in whole.nodes]
    checked = 0
    for block in blocks([whole])[1:]:
        assert block.frame is not None
        end = len(block.frame.nodes) - 2
        for name, source in starts.items():
            if block.network.nodes[end + 1].key.startswith(name):
                position = keys_of.index(source)
                assert block.network.ranges[end] == whole.ranges[position]
                assert block.network.shapes[end] == whole.shapes[position]
                checked += 1
    assert checked == 3


def test_every_trained_tensor_is_in_a_block() -> None:
    whole = network(1, QUANTIZED)
    found = {name for block in blocks([whole]) for name in tensor_names(block.network)}
    assert {name for name in tensor_names(whole) if not name.endswith("log2_range")} <= found


def test_blocks_that_networks_share_are_there_once() -> None:
    """Two cells of two kernels, and four blocks that are the same."""
    assert len(blocks([network(0), network(1)])) == 4 + 2 * 2


def test_the_memory_of_a_float_network_is_four_bytes_for_a_number() -> None:
    """Of the 8 blocks only weights count, and the most that is held: the stem's and the first block's maps, twice."""
    whole = network()
    weights = sum(w.size for position in range(len(whole.nodes)) for w in whole.weights(position))
    assert 4 * weights < memory(whole) < 4 * weights + 4 * (3 * 16 * 16 + 3 * 24 * 8 * 8)


# measuring


def test_a_table_has_every_block_and_predicts_the_network(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    found = build([network(0), network(1)], "onnxruntime", path, rounds=3)
    assert read(path) == found
    assert set(found.entries) == set(keys(workload(network(0)))) | set(keys(workload(network(1))))
    assert found.about["backend"].startswith("onnxruntime ")
    (checked,) = check(found, {"tiny": (network(), None)}, "onnxruntime", rounds=3)
    assert checked.predicted == found.of(network())
    assert checked.measured.mean > 0
    assert checked.error == checked.predicted / checked.measured.mean - 1


def test_a_build_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.yaml"

    def interrupt(self: Progress, steps: int = 1, note: str = "") -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build([network()], "onnxruntime", path, rounds=2)
    begun = read(path)
    assert 0 < len(begun.entries) < 6
    # a marked entry that a second measurement would overwrite
    marked = {key: type(entry)(12345, entry.mean, entry.var) for key, entry in begun.entries.items()}
    LatencyTable(marked, begun.about).write(path)
    finished = build([network()], "onnxruntime", path, rounds=2)
    assert len(finished.entries) == 6
    assert {key for key, entry in finished.entries.items() if entry.count == 12345} == set(marked)
    assert not list(tmp_path.glob("*.part"))


def test_a_complete_table_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    build([network()], "onnxruntime", path, rounds=2)
    before = path.read_bytes()
    build([network()], "onnxruntime", path, rounds=2)
    assert path.read_bytes() == before


def test_a_table_of_another_backend_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    LatencyTable({}, {"backend": "c -O3"}).write(path)
    with pytest.raises(ConfigError, match=r"is of the backend c -O3, and this is onnxruntime"):
        build([network()], "onnxruntime", path, rounds=2)


def test_integer_blocks_run_in_onnxruntime(tmp_path: Path) -> None:
    found = build([network(0, QUANTIZED)], "onnxruntime", tmp_path / "t.yaml", rounds=2)
    assert all("-weights:" in key for key in found.entries)


def test_c_runs_integers_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="C runs integers only"):
        program(network(), "c", tmp_path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_block_runs_in_c(tmp_path: Path) -> None:
    block = blocks([network(0, QUANTIZED)])[2]
    run = program(block.network, "c", tmp_path, Weights([block.network], seed=1))
    run()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_table_is_measured_in_c(tmp_path: Path) -> None:
    found = build([network(0, QUANTIZED)], "c", tmp_path / "t.yaml", rounds=3)
    assert set(found.entries) == set(keys(workload(network(0, QUANTIZED))))
