"""An integer graph as one file: safetensors for the arrays, a JSON description and a checksum in its header.

Nothing in the file is executed when it is read. Reading checks the version, the checksum, every type, and then all
that IntegerGraph checks; what fails is an InvalidGraph of one line.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from ..errors import InvalidGraph, StorageError
from ..files import write_atomically
from .graph import Int, IntegerGraph, Node, Op

KEY = "bitwright integer graph"
VERSION = 1
OPERATIONS: dict[str, type[Any]] = {op.__name__: op for op in get_args(Op)}
ARRAYS = (Int, Int | None)
MOST_BYTES = 2**33


def save(graph: IntegerGraph, path: Path) -> None:
    """Write `graph` to `path`, whole or not at all."""
    content = dumps(graph)
    write_atomically(path, lambda file: file.write(content))


def dumps(graph: IntegerGraph) -> bytes:
    """The file of a graph. Equal graphs have equal files."""
    arrays: dict[str, Int] = {}
    nodes = []
    for position, node in enumerate(graph.nodes):
        attributes: dict[str, Any] = {}
        for name, kind in _attributes(type(node.op)).items():
            value = getattr(node.op, name)
            if kind in ARRAYS and value is not None:
                arrays[f"{position}.{name}"] = _narrowed(value)
            else:
                attributes[name] = value
        nodes.append({"op": type(node.op).__name__, "inputs": node.inputs, "name": node.name, "attributes": attributes})
    text = json.dumps({"nodes": nodes, "scales": graph.scales}, sort_keys=True)
    header = {"version": VERSION, "sha256": _checksum(text, arrays), "graph": text}
    return save_tensors(arrays, {KEY: json.dumps(header)})  # one key: the order of several is not fixed


def load(path: Path) -> IntegerGraph:
    """The graph in a file that `save` wrote; InvalidGraph if it is anything else, StorageError if it cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidGraph(f"{path} is larger than {MOST_BYTES} bytes")
        with safe_open(str(path), "numpy") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidGraph(f"{path} is truncated or no integer graph ({error})") from None
    if not isinstance(header, dict):
        raise InvalidGraph(f"{path} is no integer graph: its header does not say so")
    if type(header.get("version")) is not int or header["version"] != VERSION:
        raise InvalidGraph(f"{path} has version {header.get('version')!r} of the format, this program reads {VERSION}")
    text = str(header.get("graph"))
    if header.get("sha256") != _checksum(text, arrays):
        raise InvalidGraph(f"{path} is corrupt: its checksum does not match its content")
    try:
        described = json.loads(text)
        nodes = tuple(_node(position, each, arrays) for position, each in enumerate(described["nodes"]))
        scales = tuple(_number(s, "a scale") for s in _of_type(described["scales"], list, "scales"))
        graph = IntegerGraph(nodes, scales)
    except InvalidGraph as mistake:
        raise InvalidGraph(f"{path}: {mistake}") from None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as mistake:
        raise InvalidGraph(f"{path} describes no graph: {mistake}") from None
    if arrays:
        raise InvalidGraph(f"{path} holds arrays of no node: {', '.join(sorted(arrays)[:3])}")
    return graph


def _node(position: int, described: Any, arrays: dict[str, Any]) -> Node:
    """Node `position`; takes its arrays out of `arrays`."""
    described = _of_type(described, dict, f"node {position}")
    kind = OPERATIONS.get(str(described["op"]))
    if kind is None:
        raise InvalidGraph(f"node {position} has the unknown operation {described['op']!r}")
    given = _of_type(described["attributes"], dict, f"the attributes of node {position}")
    attributes = _attributes(kind)
    if unknown := set(given) - set(attributes):
        raise InvalidGraph(f"node {position} ({kind.__name__}) has no attribute {min(unknown)!r}")
    values = {}
    for name, hint in attributes.items():
        where = f"{name} of node {position} ({kind.__name__})"
        if hint in ARRAYS:
            array = arrays.pop(f"{position}.{name}", None)
            if array is not None and array.dtype.kind != "i":
                raise InvalidGraph(f"{where} holds {array.dtype}, not integers")
            if array is None and hint == Int:
                raise InvalidGraph(f"{where} is missing")
            values[name] = None if array is None else array.astype(np.int64)
        else:
            values[name] = _plain(given[name], hint, where)
    inputs = tuple(_integer(i, f"an input of node {position}") for i in _of_type(described["inputs"], list, "inputs"))
    return Node(kind(**values), inputs, _of_type(described["name"], str, f"the name of node {position}"))


def _plain(value: Any, hint: Any, where: str) -> Any:
    """An integer, an integer or None, or a tuple of integers, as the type of an attribute wants it."""
    if hint is int:
        return _integer(value, where)
    if hint == int | None:
        return None if value is None else _integer(value, where)
    numbers = tuple(_integer(i, where) for i in _of_type(value, list, where))
    lengths = get_args(hint)
    if Ellipsis not in lengths and len(numbers) != len(lengths):
        raise InvalidGraph(f"{where} has {len(numbers)} numbers, not {len(lengths)}")
    return numbers


def _integer(value: Any, where: str) -> int:
    if type(value) is not int or abs(value) > 2**62:
        raise InvalidGraph(f"{where} is {value!r}, not an integer of 62 bits")
    return value


def _number(value: Any, where: str) -> float:
    if type(value) not in (int, float):
        raise InvalidGraph(f"{where} is {value!r}, not a number")
    return float(value)


def _of_type(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidGraph(f"{where} is no {kind.__name__}")
    return value


def _attributes(kind: type) -> dict[str, Any]:
    """Names and types of the fields of an operation."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _narrowed(values: Int) -> Any:
    """The same integers in the narrowest type, little-endian as the format wants."""
    for kind in (np.int8, np.int16, np.int32):
        limits = np.iinfo(kind)
        if values.size == 0 or (values.min() >= limits.min and values.max() <= limits.max):
            return np.ascontiguousarray(values, dtype=kind)
    return np.ascontiguousarray(values, dtype=np.int64)


def _checksum(text: str, arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
