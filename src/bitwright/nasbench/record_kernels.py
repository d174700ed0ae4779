"""Compiled loops over records of NAS-Bench-101's tfrecord files: checksums, reading and writing a block of them.

A block is a struct of arrays (`tfrecord.Block`). Only records that are written exactly as the released files write
them are read here; the others are left to `tfrecord.decode`, which knows the formats in general.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import compiled
from .config import AVAILABLE_OPS

END, FULL, LENGTH_CRC, DATA_CRC, TOO_LONG = range(5)  # why `parse` stopped
EPOCHS_DIGITS = 9
BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
LINE = 76  # characters of base64 in a line
MESSAGE_BYTES = 256  # room for a line of base64 more than any message has in the released files
MASK_DELTA = np.uint32(0xA282EAD8)


def _crc_tables() -> np.ndarray:
    """Tables of CRC-32C (Castagnoli 1993), reflected: [k, b] is the remainder of byte b with k zero bytes behind it."""
    tables = np.zeros((16, 256), np.uint32)
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
        tables[0, byte] = remainder
    for k in range(1, len(tables)):
        tables[k] = tables[k - 1] >> 8 ^ tables[0, tables[k - 1] & 255]
    return tables


def _base64_values() -> np.ndarray:
    values = np.full(256, -1, np.int32)
    values[BASE64] = np.arange(64)
    return values


CRC_TABLES = _crc_tables()
BASE64_VALUES = _base64_values()
INPUT, OUTPUT = (np.frombuffer(name, np.uint8) for name in (b"input", b"output"))
NAMES = np.zeros((3, 16), np.uint8)  # of the operations, by label
for _label, _name in enumerate(AVAILABLE_OPS):
    NAMES[_label, : len(_name)] = np.frombuffer(_name.encode(), np.uint8)
LENGTHS = (NAMES != 0).sum(1)
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
SYNTHETIC = np.frombuffer(b"\xaa\x06\x09synthetic", np.uint8)  # field 101 of ModelMetrics, unknown to other readers


@compiled
def crc32c(data: np.ndarray, start: int, stop: int) -> np.uint32:
    """CRC-32C of data[start:stop] (uint8), sixteen bytes at a time."""
    part = data[start:stop]
    crc = np.uint32(0xFFFFFFFF)
    at = np.uint64(0)  # unsigned: a signed index would be checked for counting from the end
    while at < np.uint64(len(part) // 16 * 16):
        rest = (
            CRC_TABLES[15, part[at] ^ np.uint8(crc)]
            ^ CRC_TABLES[14, part[at + np.uint64(1)] ^ np.uint8(crc >> np.uint32(8))]
            ^ CRC_TABLES[13, part[at + np.uint64(2)] ^ np.uint8(crc >> np.uint32(16))]
            ^ CRC_TABLES[12, part[at + np.uint64(3)] ^ np.uint8(crc >> np.uint32(24))]
        )
        for k in range(4, 16):
            rest ^= CRC_TABLES[15 - k, part[at + np.uint64(k)]]
        crc = np.uint32(rest)
        at += np.uint64(16)
    while at < np.uint64(len(part)):
        crc = np.uint32(crc >> np.uint32(8) ^ CRC_TABLES[0, part[at] ^ np.uint8(crc)])
        at += np.uint64(1)
    return crc ^ np.uint32(0xFFFFFFFF)


@compiled
def masked_crc(data: np.ndarray, start: int, stop: int) -> int:
    """The checksum as tfrecord files hold it."""
    crc = crc32c(data, start, stop)
    return int(np.uint32((crc >> np.uint32(15) | crc << np.uint32(17)) + MASK_DELTA))


@compiled
def _integer(data: np.ndarray, at: int, width: int) -> int:
    """A little-endian integer of `width` bytes; of eight bytes it has a sign."""
    value = 0
    for k in range(width):
        value |= int(data[at + k]) << (8 * k)
    return value


@compiled
def _nibble(character: int) -> int:
    if 48 <= character <= 57:
        return character - 48
    return character - 87 if 97 <= character <= 102 else -1


@compiled
def _matches(data: np.ndarray, at: int, text: np.ndarray, length: int) -> bool:
    k = 0
    while k < length and data[at + k] == text[k]:
        k += 1
    return k == length


@compiled
def _separated(data: np.ndarray, at: int) -> bool:
    """Whether `", ` stands at `at`."""
    return bool(data[at] == 34 and data[at + 1] == 44 and data[at + 2] == 32)


@compiled
def _base64(data: np.ndarray, at: int, stop: int, message: np.ndarray) -> int:
    r"""Decode lines that each end in `\n` (two characters) between at and stop; the length, or -1."""
    length = 0
    while at < stop:
        end = at + min(LINE, stop - 2 - at)
        if end <= at or (end - at) % 4 or data[end] != 92 or data[end + 1] != 110 or length + LINE > len(message):
            return -1
        while at < end:
            a, b = BASE64_VALUES[data[at]], BASE64_VALUES[data[at + 1]]
            c, d = BASE64_VALUES[data[at + 2]], BASE64_VALUES[data[at + 3]]
            count = 3
            if d < 0 and data[at + 3] == 61 and at + 6 == stop:  # padding, at the very end only
                count, d = 2, 0
                if data[at + 2] == 61:
                    count, c = 1, 0
                if (c & 3 if count == 2 else b & 15) != 0:
                    return -1
            if a | b | c | d < 0:
                return -1
            bits = a << 18 | b << 12 | c << 6 | d
            message[length] = bits >> 16
            message[length + 1] = bits >> 8 & 255
            message[length + 2] = bits & 255
            length += count
            at += 4
        at = end + 2
    return length


@compiled
def _put(out: np.ndarray, at: int, text: np.ndarray, length: int) -> int:
    for k in range(length):
        out[at + k] = text[k]
    return at + length


@compiled
def _real(message: np.ndarray, at: int, number: np.ndarray) -> float:
    """The little-endian float64 at `at`; number: one float64 of scratch, because `at` is not aligned."""
    _put(number.view(np.uint8), 0, message[at : at + 8], 8)
    return float(number[0])


@compiled
def _metrics(message: np.ndarray, length: int, values: np.ndarray, rest: np.ndarray) -> bool:
    """Read ModelMetrics as the released files write it: values (3, 5), rest (trainable parameters, total time)."""
    if length < 152:
        return False
    number = rest[2:]
    for e in range(3):
        start = 47 * e
        if message[start] != 10 or message[start + 1] != 45:
            return False
        for f in range(5):
            at = start + 2 + 9 * f
            if message[at] != 9 + 8 * f:
                return False
            values[e, f] = _real(message, at + 1, number)
    at = 141
    if message[at] != 16:
        return False
    count, shift = np.int64(0), 0
    while True:
        at += 1
        if at >= length or shift > 28:
            return False
        count |= np.int64(message[at] & 127) << shift
        shift += 7
        if message[at] < 128:
            break
    if (message[at] == 0 and shift > 7) or count > 0x7FFFFFFF or at + 10 != length or message[at + 1] != 25:
        return False
    rest[0] = count
    rest[1] = _real(message, at + 2, number)
    return True


@compiled
def _record(data: np.ndarray, at: int, stop: int, block: Any, i: int, message: np.ndarray, rest: np.ndarray) -> bool:
    """Read the JSON at data[at:stop] into row i of the block; False if it is not written as in the released files."""
    if stop - at < 120 or data[at] != 91 or data[at + 1] != 34:  # ["
        return False
    at += 2
    for k in range(16):
        high, low = _nibble(data[at + 2 * k]), _nibble(data[at + 2 * k + 1])
        if high < 0 or low < 0:
            return False
        block.hashes[i, k] = high << 4 | low
    at += 32
    if not _separated(data, at):
        return False
    at += 3
    epochs, start = 0, at
    while 48 <= data[at] <= 57 and at - start < EPOCHS_DIGITS:
        epochs = 10 * epochs + data[at] - 48
        at += 1
    if at == start or data[start] == 48 or data[at] != 44 or data[at + 1] != 32 or data[at + 2] != 34:
        return False
    block.epochs[i] = epochs
    at += 3
    start = at
    while at - start < 50 and at < stop and data[at] != 34:
        at += 1
    vertices = 2
    while vertices < 7 and vertices * vertices < at - start:
        vertices += 1
    if vertices * vertices != at - start or stop - at < 60:
        return False
    bits = np.int64(0)
    for row in range(vertices):
        for column in range(vertices):
            digit = data[start + row * vertices + column] - 48
            if digit == 1 and row < column:
                bits |= np.int64(1) << (row + column * (column - 1) // 2)
            elif digit != 0:
                return False
    block.vertices[i] = vertices
    block.matrices[i] = bits
    if not _separated(data, at) or data[at + 3] != 34 or not _matches(data, at + 4, INPUT, 5):
        return False
    at += 9
    for k in range(5):
        block.labels[i, k] = -1
    for k in range(vertices - 2):
        if stop - at < 40 or data[at] != 44:
            return False
        label = 0
        while label < 3 and not _matches(data, at + 1, NAMES[label], LENGTHS[label]):
            label += 1
        if label == 3:
            return False
        block.labels[i, k] = label
        at += 1 + LENGTHS[label]
    if stop - at < 40 or data[at] != 44 or not _matches(data, at + 1, OUTPUT, 6):
        return False
    at += 7
    if not _separated(data, at) or data[at + 3] != 34 or data[stop - 2] != 34 or data[stop - 1] != 93:
        return False
    length = _base64(data, at + 4, stop - 2, message)
    if length < 0 or not _metrics(message, length, block.values[i], rest):
        return False
    block.parameters[i] = np.int64(rest[0])
    block.total_time[i] = rest[1]
    block.synthetic[i] = False
    return True


@compiled
def parse(data: np.ndarray, longest: int, block: Any, known: np.ndarray) -> tuple[int, int, int]:
    """Read whole records of `data` into the block until there are no more, the block is full, or one is damaged.

    block.offsets are those in `data`; known[i] is False where record i is left to `tfrecord.decode`. Returns the
    offset behind the last record read, their number, and why it stopped: END, FULL, LENGTH_CRC, DATA_CRC, TOO_LONG.
    """
    at, count = 0, 0
    message, rest = np.zeros(MESSAGE_BYTES, np.uint8), np.zeros(3)
    while at + 12 <= len(data):
        if count == len(known):
            return at, count, FULL
        if masked_crc(data, at, at + 8) != _integer(data, at + 8, 4):
            return at, count, LENGTH_CRC
        length = _integer(data, at, 8)
        if not 0 <= length <= longest:
            return at, count, TOO_LONG
        end = at + 12 + length
        if end + 4 > len(data):
            break
        if masked_crc(data, at + 12, end) != _integer(data, end, 4):
            return at, count, DATA_CRC
        block.offsets[count] = at
        known[count] = _record(data, at + 12, end, block, count, message, rest)
        count += 1
        at = end + 4
    return at, count, END


@compiled
def _put_integer(out: np.ndarray, at: int, value: int, width: int) -> int:
    for k in range(width):
        out[at + k] = value >> (8 * k) & 255
    return at + width


@compiled
def _put_separator(out: np.ndarray, at: int) -> int:
    out[at], out[at + 1], out[at + 2] = 34, 44, 32
    return at + 3


@compiled
def _message(block: Any, i: int, message: np.ndarray, number: np.ndarray) -> int:
    """Write ModelMetrics of row i; its length. number: one float64 of scratch."""
    digits = number.view(np.uint8)
    at = 0
    for e in range(3):
        message[at], message[at + 1] = 10, 45
        at += 2
        for f in range(5):
            message[at] = 9 + 8 * f
            number[0] = block.values[i, e, f]
            at = _put(message, at + 1, digits, 8)
    message[at] = 16
    at += 1
    rest = block.parameters[i]
    while rest > 127:
        message[at] = rest & 127 | 128
        rest >>= 7
        at += 1
    message[at], message[at + 1] = rest, 25
    number[0] = block.total_time[i]
    at = _put(message, at + 2, digits, 8)
    return _put(message, at, SYNTHETIC, len(SYNTHETIC)) if block.synthetic[i] else at


@compiled
def _put_base64(out: np.ndarray, at: int, message: np.ndarray, length: int) -> int:
    column = 0
    for k in range(0, length, 3):
        left = min(3, length - k)
        bits = 0
        for j in range(3):
            bits = bits << 8 | (message[k + j] if j < left else 0)
        for j in range(4):
            out[at + j] = BASE64[bits >> (18 - 6 * j) & 63] if j <= left else 61
        at += 4
        column += 4
        if column == LINE or k + 3 >= length:
            out[at], out[at + 1] = 92, 110
            at += 2
            column = 0
    return at


@compiled
def _put_record(block: Any, i: int, out: np.ndarray, at: int, message: np.ndarray, number: np.ndarray) -> int:
    out[at], out[at + 1] = 91, 34
    at += 2
    for k in range(16):
        out[at], out[at + 1] = HEX[block.hashes[i, k] >> 4], HEX[block.hashes[i, k] & 15]
        at += 2
    at = _put_separator(out, at)
    epochs, tens = block.epochs[i], 1
    while tens * 10 <= epochs:
        tens *= 10
    while tens:
        out[at] = 48 + epochs // tens % 10
        at += 1
        tens //= 10
    out[at], out[at + 1], out[at + 2] = 44, 32, 34
    at += 3
    vertices = block.vertices[i]
    for row in range(vertices):
        for column in range(vertices):
            edge = row < column and block.matrices[i] >> (row + column * (column - 1) // 2) & 1
            out[at] = 49 if edge else 48
            at += 1
    at = _put_separator(out, at)
    out[at] = 34
    at = _put(out, at + 1, INPUT, 5)
    for k in range(vertices - 2):
        out[at] = 44
        label = block.labels[i, k]
        at = _put(out, at + 1, NAMES[label], LENGTHS[label])
    out[at] = 44
    at = _put_separator(out, _put(out, at + 1, OUTPUT, 6))
    out[at] = 34
    at = _put_base64(out, at + 1, message, _message(block, i, message, number))
    out[at], out[at + 1] = 34, 93
    return at + 2


@compiled
def encode(block: Any, first: int, last: int, out: np.ndarray) -> int:
    """Write rows first to last - 1 as records into `out` (512 bytes a record suffice); the bytes written."""
    message, number = np.zeros(MESSAGE_BYTES, np.uint8), np.zeros(1)
    at = 0
    for i in range(first, last):
        end = _put_record(block, i, out, at + 12, message, number)
        _put_integer(out, at, end - at - 12, 8)
        _put_integer(out, at + 8, masked_crc(out, at, at + 8), 4)
        at = _put_integer(out, end, masked_crc(out, at + 12, end), 4)
    return at
