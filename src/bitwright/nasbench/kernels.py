"""The loops over all matrices and all modules of NAS-Bench-101, compiled.

A matrix of V vertices is the integer whose bit x + y (y - 1) / 2 is the edge x -> y (x < y), so columns follow one
another and column y has y bits. The labels of the V - 2 inner vertices are one number in base 3, the first vertex's
digit the most significant. Both orders are those in which the benchmark's authors met the modules.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import compilable, compiled
from .parameters import module_cost, vertex_channels

VERTICES, EDGES, LABELS = 7, 9, 3
LABELINGS = LABELS ** (VERTICES - 2)
INPUT, OUTPUT = -1, -2  # their labels; the others are 0, 1, 2
DISCONNECTED, TOO_MANY_EDGES = -1, -2  # in place of the number of a matrix
LANES = 128  # modules that are hashed side by side

compilable(vertex_channels)
_module_cost = compiled(module_cost)


@compiled
def full_dags(vertices: int) -> NDArray[np.int32]:
    """Matrices without a useless vertex: at most 9 edges, no row but the last and no column but the first empty."""
    column = np.empty(vertices, np.int64)
    row = np.zeros(vertices, np.int64)
    for y in range(1, vertices):
        column[y] = ((1 << y) - 1) << (y * (y - 1) // 2)
        for x in range(y):
            row[x] |= 1 << (x + y * (y - 1) // 2)
    found = np.empty(1 << 13, np.int32)
    count = 0
    for bits in range(1 << (vertices * (vertices - 1) // 2)):
        full = True
        for v in range(vertices - 1):
            if not (bits & row[v] and bits & column[v + 1]):
                full = False
                break
        if full and _ones(bits) <= EDGES:
            found[count] = bits
            count += 1
    return found[:count].copy()


@compiled
def _ones(bits: int) -> int:
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@compiled
def _moved(bits: int, vertices: int, place: NDArray[np.int8]) -> int:
    """The matrix after vertex v has become vertex place[v]; -1 if an edge then points back."""
    result = 0
    for y in range(1, vertices):
        column = bits >> (y * (y - 1) // 2)
        for x in range(y):
            if column >> x & 1:
                if place[x] > place[y]:
                    return -1
                result |= 1 << (place[x] + place[y] * (place[y] - 1) // 2)
    return result


@compiled
def canonical(
    matrices: NDArray[np.int32], vertices: int, places: NDArray[np.int8]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The smallest equal matrix of each matrix, and the row of `places` that leads to it.

    places: (P, V), every order of the inner vertices. The smallest is what an ascending enumeration meets first.
    """
    smallest = np.empty(len(matrices), np.int32)
    how = np.empty(len(matrices), np.int32)
    for i in range(len(matrices)):
        best = 1 << 40
        for p in range(len(places)):
            code = _moved(matrices[i], vertices, places[p])
            if 0 <= code < best:
                best, how[i] = code, p
        smallest[i] = best
    return smallest, how


@compiled
def labelings(bits: int, vertices: int, places: NDArray[np.int8], table: NDArray[np.int32]) -> int:
    """Number the different modules of one matrix from 0 on: table[code] for each of the 3^(V-2) labelings."""
    inner = vertices - 2
    powers = np.ones(max(inner, 1), np.int64)
    for k in range(inner - 2, -1, -1):
        powers[k] = LABELS * powers[k + 1]
    symmetries = np.empty((len(places), max(inner, 1)), np.int64)
    found = 0
    for p in range(len(places)):
        if _moved(bits, vertices, places[p]) == bits:
            for k in range(inner):
                symmetries[found, k] = powers[places[p, k + 1] - 1]
            found += 1
    count = 0
    for code in range(LABELS**inner):
        first = code
        if found > 1:
            for s in range(found):
                other = 0
                for k in range(inner):
                    other += code // powers[k] % LABELS * symmetries[s, k]
                first = min(first, other)
        if first == code:
            table[code] = count
            count += 1
        else:
            table[code] = table[first]
    return count


@compiled
def reduced_matrices(numbers: NDArray[np.int16], starts: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What remains of each of the 2^21 matrices of seven vertices: a full DAG's number (int16), its vertices (uint8).

    numbers: the number of a full DAG by its bits, the tables of V = 2..7 one after another from starts[V].
    """
    pack = np.zeros((64, 64), np.uint8)  # [kept vertices, column]: the bits of kept vertices moved together
    for kept in range(64):
        for column in range(64):
            at = 0
            for v in range(6):
                if kept >> v & 1:
                    pack[kept, column] |= (column >> v & 1) << at
                    at += 1
    total = 1 << 21
    number = np.empty(total, np.int16)
    vertices = np.empty(total, np.uint8)
    reached = np.zeros(1 << 15, np.uint8)  # from the input, by the columns of vertices 1..5
    for low in range(1 << 15):
        forward = 1
        for y in range(1, 6):
            if low >> (y * (y - 1) // 2) & forward & ((1 << y) - 1):
                forward |= 1 << y
        reached[low] = forward
    for bits in range(total):
        forward = reached[bits & 0x7FFF]
        last = bits >> 15
        backward = last
        for y in range(5, 0, -1):
            if backward >> y & 1:
                backward |= bits >> (y * (y - 1) // 2) & ((1 << y) - 1)
        kept = forward & backward
        if not kept & 1:
            number[bits] = DISCONNECTED
            vertices[bits] = 0
            continue
        vertices[bits] = kept | 64
        small = np.int64(0)
        at = 0  # bits that are written
        count = 1  # vertices that are written
        for y in range(1, 6):
            if kept >> y & 1:
                column = bits >> (y * (y - 1) // 2) & ((1 << y) - 1)
                small |= np.int64(pack[kept, column]) << at
                at += count
                count += 1
        small |= np.int64(pack[kept, last]) << at
        number[bits] = numbers[starts[count + 1] + small]  # the table says TOO_MANY_EDGES for what is no full DAG
    return number, vertices


@compiled
def lookup(
    bits: NDArray[np.int64],
    ops: NDArray[np.int8],
    number: NDArray[np.int16],
    kept: NDArray[np.uint8],
    start: NDArray[np.int32],
    weights: NDArray[np.int16],
    table: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Rows of labelled matrices, -1 for what is outside the space. ops: labels as far as the last OUTPUT."""
    rows = np.full(len(bits), -1, np.int32)
    for i in range(len(bits)):
        last = 6
        while last > 0 and ops[i, last] != OUTPUT:
            last -= 1
        if last == 0 or ops[i, 0] != INPUT:
            continue
        matrix = bits[i]
        if last < 6:  # the output's column becomes the seventh vertex's
            below = last * (last - 1) // 2
            if matrix >> (below + last):
                continue
            matrix = matrix & ((1 << below) - 1) | matrix >> below << 15
        if matrix < 0 or matrix >> 21:
            continue
        m = number[matrix]
        if m < 0:
            continue
        vertices = kept[matrix]
        code = 0
        k = 0
        inside = True
        for v in range(1, last):
            if vertices >> v & 1:
                label = ops[i, v]
                inside = inside and 0 <= label < LABELS
                code += weights[m, k] * label
                k += 1
        if inside:
            rows[i] = table[start[m] + code]
    return rows


@compiled
def class_costs(matrices: NDArray[np.int8], vertices: NDArray[np.int8]) -> NDArray[np.int32]:
    """Trainable parameters of matrices (C, 7, 7): (C, 7, 3) by vertex and label, those of no label in [:, 0, 0]."""
    result = np.zeros((len(matrices), VERTICES, LABELS), np.int32)
    for i in range(len(matrices)):
        size = vertices[i]
        costs = _module_cost(matrices[i, :size, :size])
        for v in range(size):
            for label in range(LABELS):
                result[i, v, label] = costs[v, label]
    return result


# MD5 of the text of colours, RFC 1321, many modules at a time: lanes are the last axis, so the compiler takes vectors

_SINES = np.floor(np.abs(np.sin(np.arange(1, 65, dtype=np.float64))) * 2.0**32).astype(np.uint64).astype(np.uint32)
_START = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476], np.uint32)
_HEX = np.array([int.from_bytes(f"{byte:02x}".encode(), "little") for byte in range(256)], np.uint32)
_COLON = np.uint32(ord("|"))
_OPEN, _BETWEEN, _CLOSE = (np.uint32(int.from_bytes(text, "little")) for text in (b"['", b"', '", b"']"))


@compiled
def _turned(x: Any, left: int) -> Any:
    return np.uint32(x << left) | np.uint32(x >> (32 - left))


@compiled
def _md5(words: NDArray[np.uint32], blocks: int, state: NDArray[np.uint32]) -> None:
    """state: (4, L), the digests of the messages (16 blocks, L), whose padding is in place."""
    # whole-array assignments would do, but their checks of shapes take the compiler several seconds
    old = np.empty((4, LANES), np.uint32)
    for r in range(4):
        for n in range(LANES):
            state[r, n] = _START[r]
    for block in range(blocks):
        w = words[16 * block : 16 * block + 16]
        for r in range(4):
            for n in range(LANES):
                old[r, n] = state[r, n]
        for i in range(0, 64, 4):
            k0, k1, k2, k3 = _SINES[i], _SINES[i + 1], _SINES[i + 2], _SINES[i + 3]
            if i < 16:
                w0, w1, w2, w3 = w[i], w[i + 1], w[i + 2], w[i + 3]
                for n in range(LANES):
                    a, b, c, d = state[0, n], state[1, n], state[2, n], state[3, n]
                    a = np.uint32(b + _turned(np.uint32(a + (d ^ (b & (c ^ d))) + w0[n] + k0), 7))
                    d = np.uint32(a + _turned(np.uint32(d + (c ^ (a & (b ^ c))) + w1[n] + k1), 12))
                    c = np.uint32(d + _turned(np.uint32(c + (b ^ (d & (a ^ b))) + w2[n] + k2), 17))
                    b = np.uint32(c + _turned(np.uint32(b + (a ^ (c & (d ^ a))) + w3[n] + k3), 22))
                    state[0, n], state[1, n], state[2, n], state[3, n] = a, b, c, d
            elif i < 32:
                w0, w1, w2, w3 = w[5 * i + 1 & 15], w[5 * i + 6 & 15], w[5 * i + 11 & 15], w[5 * i & 15]
                for n in range(LANES):
                    a, b, c, d = state[0, n], state[1, n], state[2, n], state[3, n]
                    a = np.uint32(b + _turned(np.uint32(a + (c ^ (d & (b ^ c))) + w0[n] + k0), 5))
                    d = np.uint32(a + _turned(np.uint32(d + (b ^ (c & (a ^ b))) + w1[n] + k1), 9))
                    c = np.uint32(d + _turned(np.uint32(c + (a ^ (b & (d ^ a))) + w2[n] + k2), 14))
                    b = np.uint32(c + _turned(np.uint32(b + (d ^ (a & (c ^ d))) + w3[n] + k3), 20))
                    state[0, n], state[1, n], state[2, n], state[3, n] = a, b, c, d
            elif i < 48:
                w0, w1, w2, w3 = w[3 * i + 5 & 15], w[3 * i + 8 & 15], w[3 * i + 11 & 15], w[3 * i + 14 & 15]
                for n in range(LANES):
                    a, b, c, d = state[0, n], state[1, n], state[2, n], state[3, n]
                    a = np.uint32(b + _turned(np.uint32(a + (b ^ c ^ d) + w0[n] + k0), 4))
                    d = np.uint32(a + _turned(np.uint32(d + (a ^ b ^ c) + w1[n] + k1), 11))
                    c = np.uint32(d + _turned(np.uint32(c + (d ^ a ^ b) + w2[n] + k2), 16))
                    b = np.uint32(c + _turned(np.uint32(b + (c ^ d ^ a) + w3[n] + k3), 23))
                    state[0, n], state[1, n], state[2, n], state[3, n] = a, b, c, d
            else:
                w0, w1, w2, w3 = w[7 * i & 15], w[7 * i + 7 & 15], w[7 * i + 14 & 15], w[7 * i + 21 & 15]
                for n in range(LANES):
                    a, b, c, d = state[0, n], state[1, n], state[2, n], state[3, n]
                    a = np.uint32(b + _turned(np.uint32(a + (c ^ (b | np.uint32(~d))) + w0[n] + k0), 6))
                    d = np.uint32(a + _turned(np.uint32(d + (b ^ (a | np.uint32(~c))) + w1[n] + k1), 10))
                    c = np.uint32(d + _turned(np.uint32(c + (a ^ (d | np.uint32(~b))) + w2[n] + k2), 15))
                    b = np.uint32(c + _turned(np.uint32(b + (d ^ (c | np.uint32(~a))) + w3[n] + k3), 21))
                    state[0, n], state[1, n], state[2, n], state[3, n] = a, b, c, d
        for r in range(4):
            for n in range(LANES):
                state[r, n] = np.uint32(state[r, n] + old[r, n])


@compiled
def _finish(words: NDArray[np.uint32], at: int, length: int) -> int:
    """Pad messages of `length` bytes whose words from `at` on are free; the number of blocks."""
    blocks = (length + 8) // 64 + 1
    for k in range(at, 16 * blocks):
        for n in range(LANES):
            words[k, n] = 8 * length if k == 16 * blocks - 2 else 0
    return blocks


@compiled
def _byteswapped(x: Any) -> Any:
    return np.uint64((x & 0xFF) << 24 | (x & 0xFF00) << 8 | (x >> 8) & 0xFF00 | x >> 24)


@compiled
def _write_hex(state: NDArray[np.uint32], text: NDArray[np.uint32], keys: NDArray[np.uint64]) -> None:
    """A colour as eight words of hexadecimal digits (8, L), and as two numbers that sort like them (2, L)."""
    for r in range(4):
        for n in range(LANES):
            x = state[r, n]
            text[2 * r, n] = _HEX[x & 0xFF] | _HEX[x >> 8 & 0xFF] << 16
            text[2 * r + 1, n] = _HEX[x >> 16 & 0xFF] | _HEX[x >> 24] << 16
    for half in range(2):
        for n in range(LANES):
            keys[half, n] = _byteswapped(state[2 * half, n]) << np.uint64(32) | _byteswapped(state[2 * half + 1, n])


@compiled
def _sorted_vertices(keys: NDArray[np.uint64], vertices: int, order: NDArray[np.int8]) -> None:
    """order: (L, 7), each lane's vertices by ascending colour. keys: (V, 2, L)."""
    for n in range(LANES):
        for v in range(vertices):
            high, low = keys[v, 0, n], keys[v, 1, n]
            at = v
            while at:
                u = order[n, at - 1]
                if keys[u, 0, n] < high or (keys[u, 0, n] == high and keys[u, 1, n] <= low):
                    break
                order[n, at] = u
                at -= 1
            order[n, at] = v


@compiled
def _take(
    mask: int,
    text: NDArray[np.uint32],
    keys: NDArray[np.uint64],
    order: NDArray[np.int8],
    listed: NDArray[np.int8],
    taken: NDArray[np.uint32],
) -> int:
    """taken: (7, 8, L), the colours of a bit mask of vertices, sorted in each lane; their number.

    Of one or two vertices, as most masks are, lanes need no addresses of their own.
    """
    count = _ones(mask)
    first = 0
    while count and not mask >> first & 1:
        first += 1
    second = first + 1
    while count == 2 and not mask >> second & 1:
        second += 1
    if count == 1:
        for j in range(8):
            for n in range(LANES):
                taken[0, j, n] = text[first, j, n]
    elif count == 2:
        for n in range(LANES):
            high, other = keys[first, 0, n], keys[second, 0, n]
            listed[0, n] = high > other or (high == other and keys[first, 1, n] > keys[second, 1, n])
        for j in range(8):
            for n in range(LANES):
                x, y = text[first, j, n], text[second, j, n]
                taken[0, j, n] = y if listed[0, n] else x
                taken[1, j, n] = x if listed[0, n] else y
    elif count:
        for n in range(LANES):
            at = 0
            for k in range(len(text)):
                u = order[n, k]
                listed[at, n] = u  # overwritten by the next if it is not of the mask
                at += mask >> u & 1
        for k in range(count):
            for j in range(8):
                for n in range(LANES):
                    taken[k, j, n] = text[listed[k, n], j, n]
    return count


@compiled
def _write_neighbours(
    text: NDArray[np.uint32],
    keys: NDArray[np.uint64],
    order: NDArray[np.int8],
    sources: int,
    targets: int,
    v: int,
    listed: NDArray[np.int8],
    taken: NDArray[np.uint32],
    words: NDArray[np.uint32],
) -> int:
    """In-neighbours' colours, "|", out-neighbours' colours, "|", own colour, the end mark; the number of words."""
    at = 0
    for k in range(_take(sources, text, keys, order, listed, taken)):
        for j in range(8):
            for n in range(LANES):
                words[at + j, n] = taken[k, j, n]
        at += 8
    carried = np.empty(LANES, np.uint32)  # the end of a text that does not fill a word
    for n in range(LANES):
        carried[n] = _COLON
    for k in range(_take(targets, text, keys, order, listed, taken)):
        for j in range(8):
            for n in range(LANES):
                x = taken[k, j, n]
                words[at + j, n] = carried[n] | np.uint32(x << 8)
                carried[n] = x >> 24
        at += 8
    for n in range(LANES):
        carried[n] |= np.uint32(_COLON << 8)
    for j in range(8):
        for n in range(LANES):
            x = text[v, j, n]
            words[at + j, n] = carried[n] | np.uint32(x << 16)
            carried[n] = x >> 16
    at += 8
    for n in range(LANES):
        words[at, n] = carried[n] | np.uint32(0x80 << 16)
    return at + 1


@compiled
def _write_list(text: NDArray[np.uint32], order: NDArray[np.int8], words: NDArray[np.uint32]) -> int:
    """The printed list of a module's sorted colours, and the end mark; the number of words."""
    vertices = len(text)
    at = 0
    for n in range(LANES):
        at = 0
        carried = _OPEN
        for k in range(vertices):
            for j in range(8):
                x = text[order[n, k], j, n]
                words[at, n] = carried | np.uint32(x << 16)
                carried = np.uint32(x >> 16)
                at += 1
            if k < vertices - 1:
                words[at, n] = carried | np.uint32(_BETWEEN << 16)
                carried = np.uint32(_BETWEEN >> 16)
                at += 1
        words[at, n] = carried | np.uint32(_CLOSE << 16)
        words[at + 1, n] = 0x80
        at += 2
    return at


@compiled
def _hash_lanes(
    bits: int, vertices: int, labels: NDArray[np.int8], first: NDArray[np.uint32], state: NDArray[np.uint32]
) -> None:
    """state: (4, L), the digests of modules of one matrix with labels (7, L). first: see `first_colours`."""
    sources = np.zeros(VERTICES, np.int64)
    targets = np.zeros(VERTICES, np.int64)
    for y in range(1, vertices):
        for x in range(y):
            if bits >> (x + y * (y - 1) // 2) & 1:
                sources[y] |= 1 << x
                targets[x] |= 1 << y
    text = np.empty((vertices, 8, LANES), np.uint32)
    new_text = np.empty((vertices, 8, LANES), np.uint32)
    keys = np.empty((vertices, 2, LANES), np.uint64)
    new_keys = np.empty((vertices, 2, LANES), np.uint64)
    order = np.empty((LANES, VERTICES), np.int8)
    listed = np.empty((VERTICES, LANES), np.int8)
    taken = np.empty((VERTICES, 8, LANES), np.uint32)
    words = np.empty((80, LANES), np.uint32)
    for v in range(vertices):
        for n in range(LANES):
            for r in range(4):
                state[r, n] = first[_ones(targets[v]), _ones(sources[v]), labels[v, n] + 2, r]
        _write_hex(state, text[v], keys[v])
    for _ in range(vertices):
        _sorted_vertices(keys, vertices, order)
        for v in range(vertices):
            at = _write_neighbours(text, keys, order, sources[v], targets[v], v, listed, taken, words)
            length = 32 * (_ones(sources[v]) + _ones(targets[v]) + 1) + 2
            _md5(words, _finish(words, at, length), state)
            _write_hex(state, new_text[v], new_keys[v])
        text, new_text = new_text, text
        keys, new_keys = new_keys, keys
    _sorted_vertices(keys, vertices, order)
    _md5(words, _finish(words, _write_list(text, order, words), 36 * vertices), state)


@compiled
def module_hashes(
    matrices: NDArray[np.int32],
    vertices: NDArray[np.int8],
    ends: NDArray[np.int64],
    labels: NDArray[np.int8],
    first: NDArray[np.uint32],
) -> NDArray[np.uint32]:
    """The hashes of all modules: (R, 4), four little-endian words each.

    labels: (R, 7), the modules of a matrix behind one another, those of matrix i up to ends[i].
    """
    result = np.empty((len(labels), 4), np.uint32)
    lanes = np.empty((VERTICES, LANES), np.int8)
    state = np.empty((4, LANES), np.uint32)
    start = 0
    for i in range(len(matrices)):
        for begin in range(start, ends[i], LANES):
            count = min(LANES, ends[i] - begin)
            for n in range(LANES):
                for v in range(vertices[i]):
                    lanes[v, n] = labels[begin + min(n, count - 1), v]
            _hash_lanes(matrices[i], vertices[i], lanes, first, state)
            for n in range(count):
                for r in range(4):
                    result[begin + n, r] = state[r, n]
        start = ends[i]
    return result


def first_colours() -> NDArray[np.uint32]:
    """MD5 of "(out, in, label)" as four words: (7, 7, 5, 4) by out-degree, in-degree and label + 2."""
    digests = b"".join(
        hashlib.md5(f"({out}, {into}, {label})".encode(), usedforsecurity=False).digest()
        for out in range(VERTICES)
        for into in range(VERTICES)
        for label in range(OUTPUT, LABELS)
    )
    return np.frombuffer(digests, "<u4").astype(np.uint32).reshape(VERTICES, VERTICES, 5, 4)


@compiled
def path_encodings(bits: NDArray[np.int64], labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """(N, 364): which sequences of labels lead from the input to the output, see encodings.path_encoding."""
    result = np.zeros((len(bits), 364), np.uint8)
    ways = np.zeros((VERTICES, 364), np.uint8)  # into a vertex, by the index of what lies before it
    for i in range(len(bits)):
        last = VERTICES - 1
        while last > 0 and labels[i, last] != OUTPUT:
            last -= 1
        for v in range(last + 1):
            for path in range(364):
                ways[v, path] = 0
        ways[0, 0] = 1
        for y in range(1, last + 1):
            for x in range(y):
                if not bits[i] >> (x + y * (y - 1) // 2) & 1:
                    continue
                length, first = 0, 0  # paths of `length` have the indices from `first` on
                power = 1
                while length < VERTICES - 1:
                    for path in range(first, min(first + power, 364)):
                        if ways[x, path]:
                            ways[y, path if x == 0 else path + power * (labels[i, x] + 1)] = 1
                    first += power
                    power *= LABELS
                    length += 1
        result[i] = ways[last]
    return result


@compiled
def edit_distances(bits: NDArray[np.int64], labels: NDArray[np.int8], orders: NDArray[np.int8]) -> NDArray[np.int32]:
    """From the first module to each of the others, (N - 1,). A label below 0 belongs to no operation."""
    result = np.empty(len(bits) - 1, np.int32)
    targets = np.zeros(VERTICES, np.int64)
    sources = np.empty(21, np.int64)
    ends = np.empty(21, np.int64)
    edges = 0
    for y in range(1, VERTICES):
        for x in range(y):
            if bits[0] >> (x + y * (y - 1) // 2) & 1:
                sources[edges], ends[edges] = x, y
                edges += 1
    for i in range(1, len(bits)):
        for x in range(VERTICES):
            targets[x] = 0
            for y in range(x + 1, VERTICES):
                targets[x] |= (bits[i] >> (x + y * (y - 1) // 2) & 1) << y
        best = 1 << 30
        for p in range(len(orders)):
            order = orders[p]
            distance = edges + _ones(bits[i])
            for e in range(edges):
                distance -= 2 * (targets[order[sources[e]]] >> order[ends[e]] & 1)
            for v in range(1, VERTICES - 1):
                mine, other = labels[0, v], labels[i, order[v]]
                distance += mine >= 0 and other >= 0 and mine != other
            best = min(best, distance)
        result[i - 1] = best
    return result
