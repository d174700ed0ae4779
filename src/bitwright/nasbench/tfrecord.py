r"""The files of NAS-Bench-101 as they were released, read and written without TensorFlow.

A TFRecord file is a row of: length of the data (uint64), masked CRC-32C of these 8 bytes, data, masked CRC-32C of the
data, all little-endian. Data is a JSON list: hash of the module, epochs, adjacency (V*V characters, by rows),
operations (comma-joined), metrics (base64 in lines of 76 characters, `\n` behind each). Metrics is a protocol buffer
ModelMetrics: 1 repeated EvaluationData (current epoch, training time in seconds, accuracy on training, validation and
test images: fields 1 to 5, doubles; three of them: before training, halfway, at the end), 2 trainable parameters
(int32), 3 total time in seconds (double).

A synthetic file says so in its first record, in a field of ModelMetrics that other readers ignore.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import DataError
from ..files import write_atomically
from .config import AVAILABLE_OPS, MODULE_VERTICES, VALID_EPOCHS

LONGEST_RECORD = 1 << 16  # bytes of data; the released files' longest has 437
CHUNK = 1 << 21
BLOCK = 1 << 14  # records
MARK_FIELD, MARK = 101, b"synthetic"


class Block(NamedTuple):
    """Records as arrays, one row each.

    offsets int64: where they start in the file. hashes (N, 16) uint8. epochs int32. vertices int8. matrices int64:
    bit x + y (y - 1) / 2 is the edge from vertex x to y. labels (N, 5) int8: of the inner vertices, -1 behind them.
    parameters int64. values (N, 3, 5) float64: the fields of EvaluationData before training, halfway and at the end.
    total_time float64: seconds. synthetic bool: the record is marked as synthetic.
    """

    offsets: np.ndarray
    hashes: np.ndarray
    epochs: np.ndarray
    vertices: np.ndarray
    matrices: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray
    values: np.ndarray
    total_time: np.ndarray
    synthetic: np.ndarray

    @classmethod
    def empty(cls, count: int) -> Block:
        def array(dtype: Any, *shape: int) -> np.ndarray:
            return np.zeros((count, *shape), dtype)

        return cls(
            offsets=array(np.int64),
            hashes=array(np.uint8, 16),
            epochs=array(np.int32),
            vertices=array(np.int8),
            matrices=array(np.int64),
            labels=array(np.int8, 5),
            parameters=array(np.int64),
            values=array(np.float64, 3, 5),
            total_time=array(np.float64),
            synthetic=array(np.bool_),
        )

    def first(self, count: int) -> Block:
        """Views of the first `count` rows."""
        return Block(*(array[:count] for array in self))

    def put(self, i: int, record: Record) -> None:
        """Write a record into row i; its offset stays."""
        self.hashes[i] = np.frombuffer(bytes.fromhex(record.module_hash), np.uint8)
        self.epochs[i] = record.epochs
        self.vertices[i] = len(record.adjacency)
        self.matrices[i] = sum(
            1 << (x + y * (y - 1) // 2) for x, row in enumerate(record.adjacency) for y, edge in enumerate(row) if edge
        )
        self.labels[i] = -1
        self.labels[i, : len(record.operations) - 2] = [AVAILABLE_OPS.index(name) for name in record.operations[1:-1]]
        self.parameters[i] = record.trainable_parameters
        self.values[i] = record.evaluations
        self.total_time[i] = record.total_time
        self.synthetic[i] = record.synthetic


@dataclass(frozen=True)
class Record:
    """One training run. evaluations: before training, halfway, at the end; current epoch, training time in seconds,
    accuracy on training, validation and test images. total_time: seconds, with the evaluations."""

    module_hash: str
    epochs: int
    adjacency: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]
    trainable_parameters: int
    evaluations: tuple[tuple[float, ...], ...]
    total_time: float
    synthetic: bool = False


@dataclass
class Source:
    """What a reader of a file has seen of it so far: bytes and their SHA-256."""

    size: int = 0
    sha256: str = ""


def blocks(path: Path, seen: Source | None = None) -> Iterator[tuple[Block, np.ndarray]]:
    """The records of a file, up to BLOCK at a time, and the bytes in which they stand (Block.offsets[0] is the first).

    Arrays are valid until the next block. Memory does not grow with the file. DataError names the offset of the first
    record that is truncated, damaged (both checksums are verified) or no record of NAS-Bench-101.
    """
    from .record_kernels import END, FULL, parse

    block, known = Block.empty(BLOCK), np.zeros(BLOCK, np.bool_)
    origin, rest = 0, b""
    for chunk in _chunks(path, seen):
        data = np.frombuffer(rest + chunk, np.uint8)
        at = 0
        while True:
            used, count, why = parse(data[at:], LONGEST_RECORD, block, known)
            part = block.first(count)
            part.offsets[...] += at
            _read_the_unusual(path, part, known, data, origin)
            part.offsets[...] += origin
            if count:
                yield part, data[at : at + used]
            at += used
            if why not in (END, FULL):
                raise _damage(path, origin + at, why)
            if why == END:
                break
        origin += at
        rest = data[at:].tobytes()
    if rest:
        raise DataError(f"{path} is truncated: the record at byte {origin} ends after {len(rest)} bytes")
    if not origin:
        raise DataError(f"{path} is empty: it holds no record")


def records(path: Path) -> Iterator[Record]:
    """The records of a file one by one, each through the general decoder; errors as `blocks` raises them."""
    for block, data in blocks(path):
        for offset in block.offsets.tolist():
            yield _decode_at(path, data, offset - int(block.offsets[0]), offset)


def decode(data: bytes) -> Record:
    """The record in the data of a TFRecord, whichever way its JSON, base64 and protocol buffer are written.

    ValueError says what is wrong with it.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from None
    if not isinstance(fields, list) or len(fields) != 5:
        raise ValueError("is no JSON list of hash, epochs, adjacency, operations and metrics")
    module_hash, epochs, adjacency, labels, metrics = fields
    if not isinstance(module_hash, str) or len(module_hash) != 32 or set(module_hash) - set("0123456789abcdef"):
        raise ValueError(f"has the hash {_shown(module_hash)}, not 32 lower-case hexadecimal digits")
    if type(epochs) not in (int, float) or epochs not in VALID_EPOCHS:
        raise ValueError(f"has {_shown(epochs)} epochs, not one of {', '.join(map(str, VALID_EPOCHS))}")
    names = operations(labels)
    evaluations, parameters, total_time, synthetic = _model_metrics(_unpacked(metrics))
    return Record(
        module_hash, int(epochs), matrix(adjacency, len(names)), names, parameters, evaluations, total_time, synthetic
    )


def matrix(text: Any, vertices: int) -> tuple[tuple[int, ...], ...]:
    """The adjacency of a record; ValueError says what is wrong with it."""
    if not isinstance(text, str) or set(text) - {"0", "1"}:
        raise ValueError(f"has the adjacency {_shown(text)}, not characters 0 and 1")
    if len(text) != vertices * vertices:
        raise ValueError(f"has {len(text)} characters of adjacency for {vertices} operations")
    rows = tuple(tuple(map(int, text[vertices * i : vertices * (i + 1)])) for i in range(vertices))
    if any(rows[x][y] for x in range(vertices) for y in range(x + 1)):
        raise ValueError("has an adjacency that is not upper triangular")
    return rows


def operations(text: Any) -> tuple[str, ...]:
    """The operations of a record; ValueError says what is wrong with them."""
    names = tuple(text.split(",")) if isinstance(text, str) else ()
    if not 2 <= len(names) <= MODULE_VERTICES or names[0] != "input" or names[-1] != "output":
        raise ValueError(f"has the operations {_shown(text)}, not input, at most five others, output")
    if unknown := set(names[1:-1]) - set(AVAILABLE_OPS):
        raise ValueError(f"has the operation {_shown(min(unknown))}, not one of {', '.join(AVAILABLE_OPS)}")
    return names


def write(path: Path, blocks: Iterable[Block]) -> None:
    """Write records as the released files have them, whole or not at all."""

    def write_all(file: BinaryIO) -> None:
        for block in blocks:
            file.write(encode(block))

    write_atomically(path, write_all)


def encode(block: Block) -> bytes:
    """Records as bytes, with their checksums; a block's offsets have no part in it."""
    from .record_kernels import encode as encoded

    out = np.empty(512 * len(block.epochs), np.uint8)
    return out[: encoded(block, 0, len(block.epochs), out)].tobytes()


def masked_crc32c(data: bytes) -> int:
    """The checksum in TFRecord files."""
    from .record_kernels import masked_crc

    return masked_crc(np.frombuffer(data, np.uint8), 0, len(data))


def _chunks(path: Path, seen: Source | None) -> Iterator[bytes]:
    """The bytes of a file; while one chunk is used, the next is read and hashed."""
    digest = hashlib.sha256()
    with _opened(path) as file, ThreadPoolExecutor(1) as ahead:

        def read() -> bytes:
            try:
                chunk = file.read(CHUNK)
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror}") from None
            if seen is not None:
                digest.update(chunk)
            return chunk

        following = ahead.submit(read)
        while chunk := following.result():
            following = ahead.submit(read)
            if seen is not None:
                seen.size += len(chunk)
            yield chunk
        if seen is not None:
            seen.sha256 = digest.hexdigest()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _damage(path: Path, offset: int, why: int) -> DataError:
    from .record_kernels import LENGTH_CRC, TOO_LONG

    if why == LENGTH_CRC:
        what = "the checksum of the record's length does not match (a damaged file, or no TFRecord file)"
    elif why == TOO_LONG:
        what = f"the record is longer than {LONGEST_RECORD} bytes, which none of NAS-Bench-101 is"
    else:
        what = "the checksum of the record's data does not match"
    return DataError(f"{path} is corrupt at byte {offset}: {what}")


def _read_the_unusual(path: Path, block: Block, known: np.ndarray, data: np.ndarray, origin: int) -> None:
    """Fill the rows that the compiled reader has left; offsets are those in `data`."""
    for i in np.flatnonzero(~known[: len(block.epochs)]).tolist():
        offset = int(block.offsets[i])
        block.put(i, _decode_at(path, data, offset, origin + offset))
    foreign = np.flatnonzero(~np.isin(block.epochs, VALID_EPOCHS))
    if len(foreign):
        i = foreign[0]
        raise DataError(
            f"{path}: the record at byte {origin + block.offsets[i]} has {block.epochs[i]} epochs,"
            f" not one of {', '.join(map(str, VALID_EPOCHS))}"
        )


def _decode_at(path: Path, data: np.ndarray, at: int, offset: int) -> Record:
    (length,) = struct.unpack("<Q", data[at : at + 8].tobytes())
    try:
        return decode(data[at + 12 : at + 12 + length].tobytes())
    except ValueError as mistake:
        raise DataError(f"{path}: the record at byte {offset} {mistake}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _unpacked(metrics: Any) -> bytes:
    if not isinstance(metrics, str):
        raise ValueError(f"has the metrics {_shown(metrics)}, not base64")
    try:
        return base64.b64decode("".join(metrics.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"has metrics that are no base64 ({error})") from None


def _model_metrics(message: bytes) -> tuple[tuple[tuple[float, ...], ...], int, float, bool]:
    """Evaluations, trainable parameters, total time, and whether the record is marked as synthetic."""
    evaluations, parameters, total_time, synthetic = [], 0, 0.0, False
    for field, value in _fields(message):
        if field == 1:
            evaluations.append(_evaluation(_of(value, bytes, field)))
        elif field == 2:
            parameters = _of(value, int, field)
        elif field == 3:
            total_time = _of(value, float, field)
        elif field == MARK_FIELD:
            synthetic = value == MARK
    if len(evaluations) != 3:
        raise ValueError(f"has {len(evaluations)} evaluations, not 3")
    if not 0 <= parameters < 2**31:
        raise ValueError(f"has {parameters} trainable parameters")
    return tuple(evaluations), parameters, total_time, synthetic


def _evaluation(message: bytes) -> tuple[float, ...]:
    values = [0.0] * 5
    for field, value in _fields(message):
        if 1 <= field <= 5:
            values[field - 1] = _of(value, float, field)
    return tuple(values)


def _of(value: Any, kind: type, field: int) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"has metrics whose field {field} is of another type")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Numbers and values of the fields of a protocol buffer: varints, doubles, bytes; of 4 bytes: as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        value: int | float | bytes
        if wire == 0:
            value, at = _varint(message, at)
        elif wire in (1, 2, 5):
            length, at = _varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise ValueError("has truncated metrics")
            if wire == 1:
                (value,) = struct.unpack("<d", value)
        else:
            raise ValueError(f"has metrics with a field of the wire type {wire}")
        if not field:
            raise ValueError("has metrics with a field 0")
        yield field, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise ValueError("has truncated metrics")
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise ValueError("has metrics with an integer of more than 64 bits")
