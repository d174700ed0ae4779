"""Files of integer graphs: whole round trips, and every other content refused."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import BitwrightError, InvalidGraph, StorageError
from bitwright.integer.graph import (
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
    Slice,
    SumPool,
)
from bitwright.integer.run import Executor
from bitwright.integer.storage import KEY, OPERATIONS, dumps, load, save
from naive_executor import chain, naive, whole


def every_operation() -> IntegerGraph:
    rng = np.random.default_rng(0)
    nodes = (
        Node(Input((2, 6, 5), 0, 255, 128), (), "pixels"),
        Node(
            Conv(rng.integers(-7, 8, (4, 1, 3, 2)), rng.integers(-500, 500, 4), (1, 2), (1, 0, 1, 1), 2), (0,), "stem"
        ),
        Node(MultiThreshold(np.sort(rng.integers(-900, 900, (4, 3)), 1), (-3, 0, 1, 5), whole(1, -1, 1, 1)), (1,)),
        Node(MultiThreshold(whole([-40, 40]), (-1, 0, 1)), (1,), 'naïve “quotes”\n\\ "and" more'),
        Node(Requantize(whole(2**33, -5, 1, 0), whole(2**40, 1, 2, 3), whole(30, 2, 0, 1), -8, 7), (1,)),
        Node(Add(-3, 6), (2, 4)),
        Node(Add(), (5, 3)),
        Node(Concat(), (6, 2, 3)),
        Node(MaxPool((2, 2), (1, 1), (1, 0, 0, 1)), (7,)),
        Node(SumPool((2, 3), (2, 1), (0, 1, 1, 1), 1), (8,)),
        Node(Pad((1, 0, 0, 2)), (9,)),
        Node(GlobalSumPool(2), (9,)),
        Node(Flatten(), (10,)),
        Node(Concat(), (12, 11)),
        Node(Slice(5), (13,)),
    )
    features = IntegerGraph(nodes).output.size
    product = Node(MatMul(rng.integers(-90, 90, (5, features)), rng.integers(-9, 9, 5)), (14,), "classes")
    return IntegerGraph((*nodes, product, Node(Argmax(), (15,))), (0.1,))


def same(one: IntegerGraph, other: IntegerGraph) -> bool:
    """Whether all fields of all nodes are equal."""
    if one.scales != other.scales or len(one.nodes) != len(other.nodes):
        return False
    for a, b in zip(one.nodes, other.nodes, strict=True):
        if (type(a.op), a.inputs, a.name) != (type(b.op), b.inputs, b.name):
            return False
        for name, value in vars(a.op).items():
            if isinstance(value, np.ndarray):
                mine = getattr(b.op, name)
                if mine.dtype != np.int64 or not np.array_equal(value, mine):
                    return False
            elif getattr(b.op, name) != value or type(getattr(b.op, name)) is not type(value):
                return False
    return True


def written(folder: Path, content: bytes) -> Path:
    path = folder / "graph.safetensors"
    path.write_bytes(content)
    return path


# round trips


def test_a_graph_of_every_operation_comes_back_whole(tmp_path):
    graph = every_operation()
    assert {type(node.op).__name__ for node in graph.nodes} == set(OPERATIONS)
    path = tmp_path / "folder" / "graph.safetensors"
    save(graph, path)
    again = load(path)
    assert same(graph, again)
    assert [e.lows.tolist() for e in graph.edges] == [e.lows.tolist() for e in again.edges]
    assert dumps(again) == dumps(graph) == path.read_bytes()
    x = np.random.default_rng(1).integers(0, 256, (5, 2, 6, 5))
    assert np.array_equal(Executor(again)(torch.from_numpy(x)).numpy(), naive(graph, x)[-1])
    save(again, path)
    assert path.read_bytes() == dumps(graph)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_random_graphs_come_back_whole_and_as_the_same_bytes(tmp_path_factory, seed):
    from random_graphs import random_graph

    graph = random_graph(seed)
    path = written(tmp_path_factory.mktemp("graphs"), dumps(graph))
    assert same(load(path), graph)
    assert dumps(load(path)) == path.read_bytes()


@pytest.mark.parametrize(
    "value", [0, 127, 128, -128, -129, 32767, 32768, -32769, 2**31 - 1, 2**31, -(2**31) - 1, 2**61]
)
def test_arrays_are_kept_in_the_narrowest_integers_that_hold_them(tmp_path, value):
    graph = chain(Input((1,), 0, 1), Requantize(whole(0), whole(value), whole(0), 0, 1))
    width = next(w for w in (8, 16, 32, 64) if -(2 ** (w - 1)) <= value < 2 ** (w - 1))
    content = dumps(graph)
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert header["1.addend"]["dtype"] == f"I{width}"
    assert same(load(written(tmp_path, content)), graph)


def test_arrays_in_any_memory_order_are_the_same_file():
    weight = np.arange(24).reshape(2, 3, 2, 2)
    first = chain(Input((3, 4, 4)), Conv(weight))
    second = chain(Input((3, 4, 4)), Conv(np.asfortranarray(weight)))
    third = chain(Input((3, 4, 4)), Conv(np.repeat(weight, 2, 3)[..., ::2]))
    assert dumps(first) == dumps(second) == dumps(third)


def test_thresholds_of_no_level_come_back(tmp_path):
    graph = chain(Input((3,)), MultiThreshold(np.zeros((3, 0), dtype=np.int64), (7,)))
    assert same(load(written(tmp_path, dumps(graph))), graph)


def test_saving_to_a_folder_that_is_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        save(every_operation(), tmp_path / "file" / "graph")


# damage


def test_a_changed_byte_anywhere_is_refused(tmp_path):
    """400 places and both ends; what loads nevertheless (a blank of the header) is the same graph."""
    graph = every_operation()
    content = dumps(graph)
    rng = np.random.default_rng(0)
    head = 8 + struct.unpack("<Q", content[:8])[0]
    places = {
        *range(8),
        *rng.integers(0, len(content), 150),
        *rng.integers(8, head, 100),
        *rng.integers(head, len(content), 150),
    }
    loaded, texts = 0, []
    for place in sorted(int(p) for p in places | {len(content) - 1}):
        for change in (1, int(rng.integers(2, 255))):
            damaged = bytearray(content)
            damaged[place] ^= change
            try:
                again = load(written(tmp_path, bytes(damaged)))
            except InvalidGraph as error:
                texts.append(str(error))
            else:
                loaded += 1
                assert same(again, graph), (place, change)
    assert loaded < 5
    assert not any("\n" in text for text in texts)


def test_a_truncated_file_is_refused(tmp_path):
    content = dumps(every_operation())
    ends = {*range(0, 40), *range(40, len(content), 37), len(content) - 1}
    for end in sorted(ends):
        with pytest.raises(InvalidGraph):
            load(written(tmp_path, content[:end]))
    with pytest.raises(InvalidGraph):
        load(written(tmp_path, content + b"\0"))
    with pytest.raises(InvalidGraph):
        load(written(tmp_path, content * 2))


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_random_bytes_are_refused(tmp_path_factory, content):
    with pytest.raises(InvalidGraph):
        load(written(tmp_path_factory.mktemp("random"), content))


def test_missing_files_and_folders_are_storage_errors(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(StorageError, match="cannot read"):
            load(path)
    with pytest.raises(InvalidGraph, match="truncated"):
        load(written(tmp_path, b""))


# well-formed files that hold something else

TYPES = {
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "float32": "F32",
    "float64": "F64",
}
TYPES |= {"bool": "BOOL", "float16": "F16", "uint64": "U64"}


def forged(
    description: Any,
    arrays: dict[str, Any] | None = None,
    *,
    version: Any = 1,
    key: str = KEY,
    kinds: dict[str, str] | None = None,
) -> bytes:
    """A safetensors file written by hand, with the checksum that its content should have."""
    arrays = arrays or {}
    text = description if isinstance(description, str) else json.dumps(description)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    table: dict[str, Any] = {}
    data = b""
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
        kind = (kinds or {}).get(name, TYPES[str(array.dtype)])
        table[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    inner = json.dumps({"version": version, "sha256": digest.hexdigest(), "graph": text})
    header = json.dumps({"__metadata__": {key: inner}, **table}).encode()
    return struct.pack("<Q", len(header)) + header + data


def node(op: str, inputs: Any = (0,), name: Any = "", **attributes: Any) -> dict[str, Any]:
    return {"op": op, "inputs": inputs, "name": name, "attributes": attributes}


PIXELS = node("Input", (), shape=[2, 4, 4], lowest=0, highest=255, zero_point=0)
POOL = node("MaxPool", kernel=[2, 2], stride=[1, 1], pads=[0, 0, 0, 0])
WEIGHT = {"1.weight": np.ones((3, 2, 1, 1), dtype=np.int8)}
CONV = node("Conv", bias=None, stride=[1, 1], pads=[0, 0, 0, 0], groups=1)


def description(*nodes: Any, scales: Any = ()) -> dict[str, Any]:
    return {"nodes": nodes, "scales": scales}


def test_files_forged_here_are_files_of_graphs(tmp_path):
    graph = load(written(tmp_path, forged(description(PIXELS, CONV, scales=[0.5]), WEIGHT)))
    assert graph.output.shape == (3, 4, 4)
    assert load(written(tmp_path, forged(description(PIXELS, POOL)))).output.shape == (2, 3, 3)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1], {}, -1, 10**30])
def test_another_version_of_the_format_is_refused_by_number(tmp_path, version):
    with pytest.raises(InvalidGraph, match="version"):
        load(written(tmp_path, forged(description(PIXELS), version=version)))


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"layer.weight": torch.ones(3, 3)}, str(path))
    with pytest.raises(InvalidGraph, match="no integer graph"):
        load(path)
    save_file({"layer.weight": torch.ones(3, 3)}, str(path), metadata={KEY: "not json"})
    with pytest.raises(InvalidGraph):
        load(path)
    for value in ("null", "[]", "3", '"text"', "{}", '{"version": 1}', '{"version": 1, "sha256": null, "graph": null}'):
        save_file({"layer.weight": torch.ones(3, 3)}, str(path), metadata={KEY: value})
        with pytest.raises(InvalidGraph):
            load(path)
    with pytest.raises(InvalidGraph):
        load(written(tmp_path, forged(description(PIXELS), key="another key")))


def without(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k != key}


def with_(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**value, "attributes": {**value["attributes"], **changes}}


DEEP = "[" * 10_000 + "]" * 10_000

WRONG: dict[str, Any] = {
    "a list": [],
    "a number": 3,
    "null": None,
    "text": "text that is no JSON",
    "deep": DEEP,
    "deep nodes": f'{{"nodes": {DEEP}, "scales": []}}',
    "deep attribute": json.dumps(description(with_(PIXELS, shape=0), POOL)).replace('"shape": 0', f'"shape": {DEEP}'),
    "surrogate": '{"nodes": "\ud800"}',
    "no nodes": {"scales": []},
    "nodes are a number": {"nodes": 3, "scales": []},
    "nodes are text": {"nodes": "abc", "scales": []},
    "nodes are a dict": {"nodes": {"a": 1}, "scales": []},
    "nodes are null": {"nodes": None, "scales": []},
    "empty nodes": description(),
    "node is a number": description(3),
    "node is a list": description([1]),
    "node is null": description(None),
    "no op": description(without("op", PIXELS)),
    "no inputs": description(PIXELS, without("inputs", POOL)),
    "no name": description(PIXELS, without("name", POOL)),
    "no attributes": description(PIXELS, without("attributes", POOL)),
    "no scales": {"nodes": [PIXELS]},
    "unknown op": description(PIXELS, node("Erase")),
    "op of python": description(PIXELS, node("__class__")),
    "op is a list": description(PIXELS, {**POOL, "op": [1]}),
    "op is null": description(PIXELS, {**POOL, "op": None}),
    "unknown attribute": description(PIXELS, with_(POOL, dilation=[1, 1])),
    "missing attribute": description(PIXELS, node("MaxPool", kernel=[2, 2], stride=[1, 1])),
    "attributes are a list": description(PIXELS, {**POOL, "attributes": []}),
    "bool for an integer": description(with_(PIXELS, lowest=False)),
    "bool in a list": description(PIXELS, with_(POOL, stride=[True, 1])),
    "float for an integer": description(with_(PIXELS, highest=255.0)),
    "text for an integer": description(with_(PIXELS, highest="255")),
    "null for an integer": description(with_(PIXELS, highest=None)),
    "list for an integer": description(with_(PIXELS, highest=[255])),
    "integer for a list": description(PIXELS, with_(POOL, kernel=2)),
    "text for a list": description(PIXELS, with_(POOL, kernel="22")),
    "short list": description(PIXELS, with_(POOL, pads=[0, 0])),
    "long list": description(PIXELS, with_(POOL, kernel=[2, 2, 2])),
    "nested list": description(PIXELS, with_(POOL, kernel=[[2], [2]])),
    "NaN": json.dumps(description(with_(PIXELS, highest=float("nan")))),
    "infinity": json.dumps(description(with_(PIXELS, highest=float("inf")))),
    "63 bits": description(with_(PIXELS, highest=2**63)),
    "1000 digits": description(with_(PIXELS, highest=10**1000)),
    "5000 digits": json.dumps(description(with_(PIXELS, highest=0))).replace(
        '"highest": 0', '"highest": ' + "9" * 5000
    ),
    "inputs are text": description(PIXELS, {**POOL, "inputs": "0"}),
    "input is bool": description(PIXELS, {**POOL, "inputs": [False]}),
    "input is float": description(PIXELS, {**POOL, "inputs": [0.0]}),
    "input is later": description(PIXELS, {**POOL, "inputs": [1]}),
    "input is huge": description(PIXELS, {**POOL, "inputs": [2**62]}),
    "name is a number": description(PIXELS, {**POOL, "name": 3}),
    "name is null": description(PIXELS, {**POOL, "name": None}),
    "scales are text": description(PIXELS, scales="1"),
    "scales are null": description(PIXELS, scales=None),
    "scale is text": description(PIXELS, scales=["1.0"]),
    "scale is bool": description(PIXELS, scales=[True]),
    "scale is a list": description(PIXELS, scales=[[1]]),
    "scale is null": description(PIXELS, scales=[None]),
    "scale is NaN": json.dumps(description(PIXELS, scales=[float("nan")])),
    "scale is infinite": json.dumps(description(PIXELS, scales=[float("inf")])),
    "scale is zero": description(PIXELS, scales=[0]),
    "scale is negative": description(PIXELS, scales=[-0.5]),
    "scale is huge": description(PIXELS, scales=[10**400]),
    "too many scales": description(PIXELS, scales=[1.0, 1.0]),
    "two inputs": description(PIXELS, PIXELS),
    "shape of 10**12 channels": description(with_(PIXELS, shape=[10**12, 1, 1])),
    "shape of 10**12 features": description(with_(PIXELS, shape=[10**12])),
    "shape of 10**24 pixels": description(with_(PIXELS, shape=[1, 10**12, 10**12])),
    "shape of 2 axes": description(with_(PIXELS, shape=[4, 4])),
    "shape of none": description(with_(PIXELS, shape=[])),
    "negative shape": description(with_(PIXELS, shape=[1, -4, 4])),
    "huge kernel": description(PIXELS, with_(POOL, kernel=[10**12, 1])),
    "huge pads": description(PIXELS, node("Pad", pads=[2**62, 2**62, 2**62, 2**62])),
    "missing array": description(PIXELS, CONV),
    "array in the attributes": description(PIXELS, with_(CONV, weight=[[[[1]]]])),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_description_is_an_invalid_graph(tmp_path, name):
    with pytest.raises(InvalidGraph) as caught:
        load(written(tmp_path, forged(WRONG[name])))
    assert "\n" not in str(caught.value)
    assert "graph.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"1.weight": np.ones((3, 2, 1, 1), dtype=np.float32)},
        {"1.weight": np.ones((3, 2, 1, 1), dtype=np.float64)},
        {"1.weight": np.ones((3, 2, 1, 1), dtype=np.float16)},
        {"1.weight": np.ones((3, 2, 1, 1), dtype=bool)},
        {"1.weight": np.ones((3, 2, 1, 1), dtype=np.uint8)},
        {"1.weight": np.ones((3, 2, 1, 1), dtype=np.uint64)},
        {"1.weight": np.ones((3, 2, 1), dtype=np.int8)},
        {"1.weight": np.ones((3, 1, 1, 1), dtype=np.int8)},
        {"1.weight": np.ones((0, 2, 1, 1), dtype=np.int8)},
        {"1.weight": np.ones((), dtype=np.int8)},
        {"1.weight": np.full((3, 2, 1, 1), 2**60)},
        {"1.weight": np.full((3, 2, 1, 1), -(2**63))},
        {**WEIGHT, "1.bias": np.ones(4, dtype=np.int8)},
        {**WEIGHT, "1.bias": np.ones((), dtype=np.int8)},
        {**WEIGHT, "1.extra": np.ones(3, dtype=np.int8)},
        {**WEIGHT, "2.weight": np.ones(3, dtype=np.int8)},
        {**WEIGHT, "0.weight": np.ones(3, dtype=np.int8)},
        {**WEIGHT, "weight": np.ones(3, dtype=np.int8)},
        {"1.bias": np.ones(3, dtype=np.int8)},
        {},
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_arrays_are_an_invalid_graph(tmp_path, arrays):
    with pytest.raises(InvalidGraph):
        load(written(tmp_path, forged(description(PIXELS, CONV), arrays)))


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2", "F16", "U16", "BOOL", "F4", "C64", "NONE", "F8_E8M0"])
def test_arrays_of_other_number_formats_are_an_invalid_graph(tmp_path, kind):
    width = {"BF16": np.int16, "F16": np.int16, "U16": np.int16, "C64": np.int64}.get(kind, np.int8)
    arrays = {"1.weight": np.ones((3, 2, 1, 1), dtype=width)}
    with pytest.raises(InvalidGraph):
        load(written(tmp_path, forged(description(PIXELS, CONV), arrays, kinds={"1.weight": kind})))


def test_arrays_that_share_their_bytes_or_leave_gaps_are_refused(tmp_path):
    content = forged(description(PIXELS, CONV), WEIGHT)
    size = struct.unpack("<Q", content[:8])[0]
    for wrong in ([0, 5], [1, 7], [0, 7], [-1, 6], [6, 0], [0, 2**63], [0]):
        header = json.loads(content[8 : 8 + size])
        header["1.weight"]["data_offsets"] = wrong
        text = json.dumps(header).encode()
        with pytest.raises(InvalidGraph):
            load(written(tmp_path, struct.pack("<Q", len(text)) + text + content[8 + size :]))


def test_errors_of_loading_are_all_of_the_package(tmp_path):
    """A checksum over the whole file is no protection: whoever can write it can compute it."""
    rng = np.random.default_rng(3)
    text = json.dumps(description(PIXELS, CONV, POOL | {"inputs": [1]}))
    texts = []
    for _ in range(400):
        damaged = list(text)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(len(damaged)))] = str(rng.choice(list('0123456789-[]{}",:eE.ntf')))
        try:
            load(written(tmp_path, forged("".join(damaged), WEIGHT)))
        except BitwrightError as error:
            texts.append(str(error))
    assert len(texts) > 200
    assert not any("\n" in text for text in texts)
