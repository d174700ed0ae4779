"""Mutated files: each is refused in one line, or gives what an independent reader gives; nothing half done stays."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import released_records as peer

from bitwright.errors import DataError
from bitwright.nasbench import columns, convert, space, synthetic
from bitwright.nasbench.columns import COLUMNS, Dataset

MUTATIONS = 400


def mutations(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, other bytes, cuts, insertions, losses and repetitions."""
    rng = np.random.default_rng(seed)
    for kind in range(count):
        at, length = int(rng.integers(len(whole))), int(rng.integers(1, 40))
        match kind % 6:
            case 0:
                yield whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :]
            case 1:
                yield whole[:at] + rng.bytes(length) + whole[at + length :]
            case 2:
                yield whole[:at]
            case 3:
                yield whole[:at] + rng.bytes(length) + whole[at:]
            case 4:
                yield whole[:at] + whole[at + length :]
            case 5:
                yield whole[: at + length] + whole[at:]


def error_of(action: Callable[[], object]) -> str | None:
    """The one line of a DataError, None if there is none."""
    try:
        action()
    except DataError as error:
        line = str(error)
    else:
        return None
    assert "\n" not in line
    return line


def refused(path: Path, target: Path) -> str | None:
    """The error of a conversion that left nothing, None if it succeeded."""
    error = error_of(lambda: convert.convert(path, target))
    if error is not None:
        assert str(path) in error
        assert os.listdir(path.parent) == [path.name]
    return error


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("released") / "some.tfrecord"
    synthetic.write(path, rows=np.array([0, 67_206, 423_623]), epochs=(4, 108), repeats=2)
    return path.read_bytes()


def test_mutated_tfrecord_files_name_the_offset(released: bytes, tmp_path: Path) -> None:
    path, target = tmp_path / "mutated.tfrecord", tmp_path / "out.nb101"
    ends = [0]
    for content in peer.contents(released):
        ends.append(ends[-1] + len(content) + 16)
    for mutated in mutations(released, MUTATIONS, seed=0):
        path.write_bytes(mutated)
        error = refused(path, target)
        same = next((i for i, (a, b) in enumerate(zip(mutated, released, strict=False)) if a != b), len(mutated))
        if error is None:  # cut between two records, or nothing changed
            assert mutated == released[: len(mutated)] and len(mutated) in ends
            assert sum(b.runs for b in Dataset.open(target).metadata.budgets) == ends.index(len(mutated))
            target.unlink()
        elif mutated:
            # the record in which the file first differs; a file that is longer than the whole one differs behind it
            expected = max(end for end in ends if end <= same)
            named = re.search(r"byte (\d+)", error)
            assert named is not None and int(named[1]) == expected, (error, same)


def test_mutated_records_with_right_checksums_give_what_the_original_reads(released: bytes, tmp_path: Path) -> None:
    path, target = tmp_path / "mutated.tfrecord", tmp_path / "out.nb101"
    contents = peer.contents(released)
    rng = np.random.default_rng(1)
    accepted = 0
    for n, mutated in enumerate(mutations(contents[5], MUTATIONS // 2, seed=1)):
        if n % 4 == 0:  # of these, mutations of the numbers only
            number = peer.message(peer.read(contents[5]))
            at = int(rng.choice([k for e in range(1, 3) for f in range(5) for k in [47 * e + 3 + 9 * f]]))
            value = struct.pack("<d", rng.choice([0.0, -0.0, np.nan, np.inf, 0.5, 1e-320, rng.random()]))
            encoded = peer.base64.encodebytes(number[:at] + value + number[at + 8 :])
            fields = peer.json.loads(contents[5])
            mutated = peer.json.dumps([*fields[:4], encoded.decode()]).encode()
        path.write_bytes(peer.framed([*contents[:5], mutated]))
        error = refused(path, target)
        if error is not None:
            assert f"byte {sum(map(len, contents[:5])) + 5 * 16}" in error
            continue
        accepted += 1
        run = peer.read(mutated)
        dataset = Dataset.open(target)
        row = space.space().row_of_hash(run["hash"])
        stored = dataset.runs(row, run["epochs"])[-1]
        expected = np.array([*run["evaluations"][1][1:], *run["evaluations"][2][1:]])
        assert np.array(stored.tolist()).tobytes() == expected.tobytes()
        target.unlink()
    assert MUTATIONS // 8 <= accepted < MUTATIONS // 2


def test_mutated_columnar_files_are_refused_or_unchanged(released: bytes, tmp_path: Path) -> None:
    source, path = tmp_path / "some.tfrecord", tmp_path / "mutated.nb101"
    source.write_bytes(released)
    good = convert.convert(source, tmp_path / "good.nb101")
    expected = {(name, epochs): good.stored(name, epochs) for name in COLUMNS for epochs in good.budgets}
    whole = (tmp_path / "good.nb101").read_bytes()
    data = sum(budget.runs for budget in good.metadata.budgets) * 20
    told = 0
    for n, mutated in enumerate(mutations(whole, 2 * MUTATIONS, seed=2)):
        if n % 2:  # in the columns themselves
            at = len(whole) - 1 - n * 7919 % data
            mutated = whole[:at] + bytes([whole[at] ^ 1 << n % 8]) + whole[at + 1 :]
        path.write_bytes(mutated)
        error = error_of(lambda: Dataset.open(path).verify())
        if error is not None:
            assert str(path) in error and "byte" in error
            told += 1
            continue
        opened = Dataset.open(path)
        assert opened.metadata == good.metadata
        for (name, epochs), values in expected.items():
            assert np.array_equal(opened.stored(name, epochs), values)
    assert told > 1.5 * MUTATIONS


def test_a_damaged_column_is_found_when_it_is_first_used(released: bytes, tmp_path: Path) -> None:
    source = tmp_path / "some.tfrecord"
    source.write_bytes(released)
    path = tmp_path / "good.nb101"
    good = convert.convert(source, path)
    whole = path.read_bytes()
    column = good.column("108/final_test_accuracy")
    at = whole.rindex(column.tobytes())
    path.unlink()  # the open file stays as it was
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    damaged = Dataset.open(path)
    assert damaged.mean("train_accuracy", 108)[0] == good.mean("train_accuracy", 108)[0]
    for use in (lambda: damaged.mean("test_accuracy", 108), lambda: damaged.run(0, 108, 0), damaged.verify):
        with pytest.raises(DataError, match=f"108/final_test_accuracy is corrupt: .* bytes {at} to"):
            use()


def test_a_counted_number_out_of_range_is_refused(released: bytes, tmp_path: Path) -> None:
    source = tmp_path / "some.tfrecord"
    source.write_bytes(released)
    good = convert.load(source)

    def column(name: str) -> np.ndarray:
        found = good.column(name)
        return found + np.uint16(9984) if name == "4/final_test_accuracy" else found

    columns.write(columns.Dataset(good.metadata, column), tmp_path / "built.nb101")
    with pytest.raises(DataError, match="counts more than 9984 right answers"):
        Dataset.open(tmp_path / "built.nb101").verify()
