"""The released format: checksums, framing and records against the published ones and other implementations."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import released_records as peer
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import DataError
from bitwright.nasbench import synthetic, tfrecord
from bitwright.nasbench.record_kernels import crc32c


@pytest.fixture(scope="session")
def genuine(shared: Path) -> Path:
    return shared / "data/nas-benchmarks/nb101_one_real_record.tfrecord"


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        list(tfrecord.blocks(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720, appendix B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc_32c_of_the_published_examples(text: bytes, crc: int) -> None:
    assert crc32c(np.frombuffer(text, np.uint8), 0, len(text)) == crc


@given(st.binary(max_size=100))
def test_masked_checksums_are_tensorboards(content: bytes) -> None:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    assert tfrecord.masked_crc32c(content) == masked_crc32c(content)


def test_the_genuine_record_is_read_and_written_byte_for_byte(genuine: Path) -> None:
    ((block, data),) = [(block, data.tobytes()) for block, data in tfrecord.blocks(genuine)]
    assert data == genuine.read_bytes() == tfrecord.encode(block)
    assert block.hashes[0].tobytes().hex() == "00005c142e6f48ac74fdcf73e3439874"
    assert (block.epochs[0], block.vertices[0], block.parameters[0]) == (4, 7, 8_555_530)
    assert block.labels[0].tolist() == [0, 2, 0, 0, 1]
    assert block.values[0].tolist() == peer.read(peer.contents(data)[0])["evaluations"]
    assert block.total_time[0] == 413.7015450000763
    assert not block.synthetic[0]


def test_the_general_decoder_reads_the_genuine_record_alike(genuine: Path) -> None:
    (record,) = tfrecord.records(genuine)
    ((block, _),) = tfrecord.blocks(genuine)
    again = tfrecord.Block.empty(1)
    again.put(0, record)
    assert all(np.array_equal(a, b) for a, b in zip(block, again, strict=True))


def test_the_real_runs_are_written_as_json_base64_and_protobuf_write_them(shared: Path, tmp_path: Path) -> None:
    runs = peer.real_runs(shared)
    file = peer.framed([peer.data(run) for run in runs])
    path = tmp_path / "real.tfrecord"
    path.write_bytes(file)
    ((block, _),) = tfrecord.blocks(path)
    assert tfrecord.encode(block) == file
    assert block.values.tolist() == [run["evaluations"] for run in runs]
    assert block.parameters.tolist() == [run["parameters"] for run in runs]


def test_modules_of_every_size_are_written_as_the_peer_writes_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for vertices in range(2, 8):
        for parameters in (0, 127, 128, 2**31 - 1):
            matrix = np.triu(rng.integers(0, 2, (vertices, vertices)), 1)
            names = ["input", *(peer.NAMES[i] for i in rng.integers(0, 3, vertices - 2)), "output"]
            evaluations = rng.normal(size=(3, 5)) * 10.0 ** rng.integers(-300, 300, (3, 5))
            evaluations[1, 1:3] = np.nan, -np.inf
            run = {"hash": rng.bytes(16).hex(), "epochs": 108, "adjacency": matrix.tolist(), "operations": names}
            run |= {"parameters": parameters, "evaluations": evaluations.tolist(), "total_time": rng.normal()}
            runs.append(run)
    file = peer.framed([peer.data(run) for run in runs])
    path = tmp_path / "any.tfrecord"
    path.write_bytes(file)
    ((block, _),) = tfrecord.blocks(path)
    assert tfrecord.encode(block) == file
    general = tfrecord.Block.empty(len(runs))
    for i, record in enumerate(tfrecord.records(path)):
        general.put(i, record)
    assert tfrecord.encode(general) == file


def test_other_ways_to_write_the_same_record_are_read_alike(genuine: Path, tmp_path: Path) -> None:
    (content,) = peer.contents(genuine.read_bytes())
    fields = json.loads(content)
    metrics = peer.message(peer.read(content))
    more = peer.ModelMetrics.FromString(metrics)
    for evaluation in more.evaluation_data:
        evaluation.checkpoint_path = "gs://somewhere"
    backwards = metrics[-14:] + metrics[:-14]  # fields 2 and 3 before field 1
    variants = [
        content.replace(b", 4, ", b", 4.0, "),
        json.dumps(fields, separators=(",", ":")).encode(),
        json.dumps(fields, indent=1).encode(),
        json.dumps([*fields[:4], fields[4].replace("\n", "")]).encode(),
        *(
            json.dumps([*fields[:4], tfrecord.base64.b64encode(m).decode()]).encode()
            for m in (metrics, backwards, more.SerializeToString(), metrics + b"\x38\x05\x45abcd")
        ),
    ]
    ((expected, _),) = tfrecord.blocks(genuine)
    path = tmp_path / "variants.tfrecord"
    path.write_bytes(peer.framed(variants))
    ((block, _),) = tfrecord.blocks(path)
    for i in range(len(variants)):
        for name in set(block._fields) - {"offsets"}:
            assert np.array_equal(getattr(block, name)[i], getattr(expected, name)[0]), (i, name)


@pytest.mark.parametrize("chunk", [1, 13, 417, 418, 5000])
def test_records_across_chunks_and_blocks(
    genuine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    path = tmp_path / "five.tfrecord"
    path.write_bytes(genuine.read_bytes() * 5)
    monkeypatch.setattr(tfrecord, "CHUNK", chunk)
    monkeypatch.setattr(tfrecord, "BLOCK", 2)
    seen = tfrecord.Source()
    found = [(block.offsets.tolist(), data.tobytes()) for block, data in tfrecord.blocks(path, seen)]
    assert [offset for offsets, _ in found for offset in offsets] == [0, 417, 834, 1251, 1668]
    assert b"".join(data for _, data in found) == path.read_bytes()
    assert (seen.size, seen.sha256) == (5 * 417, tfrecord.hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_damaged_truncated_or_missing_file_names_the_offset(genuine: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tfrecord"
    whole = genuine.read_bytes() * 2

    def after(at: int, replacement: bytes) -> str:
        path.write_bytes(whole[:at] + replacement + whole[at + len(replacement) :])
        return error_of(path)

    assert "corrupt at byte 417: the checksum of the record's length" in after(417, b"\x00")
    assert "corrupt at byte 417: the checksum of the record's data" in after(700, b"\x00")
    assert "corrupt at byte 0: the checksum of the record's data" in after(416, b"\x00")
    for length in (2**16 + 1, 2**63 - 1, 2**63, 2**64 - 1):
        header = struct.pack("<Q", length)
        told = after(417, header + struct.pack("<I", tfrecord.masked_crc32c(header)))
        assert "corrupt at byte 417: the record is longer than 65536 bytes" in told
    path.write_bytes(whole[:-1])
    assert "truncated: the record at byte 417 ends after 416 bytes" in error_of(path)
    path.write_bytes(whole[:420])
    assert "truncated: the record at byte 417 ends after 3 bytes" in error_of(path)
    path.write_bytes(b"")
    assert "is empty" in error_of(path)
    assert "No such file" in error_of(tmp_path / "nothing.tfrecord")
    assert "Is a directory" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f[:4], "is no JSON list"),
        (lambda f: {"a": 1}, "is no JSON list"),
        (lambda f: ["0" * 31, *f[1:]], "has the hash"),
        (lambda f: ["A" * 32, *f[1:]], "has the hash"),
        (lambda f: [f[0], 5, *f[2:]], "has 5 epochs, not one of 4, 12, 36, 108"),
        (lambda f: [f[0], 108.5, *f[2:]], "has 108.5 epochs"),
        (lambda f: [f[0], True, *f[2:]], "has True epochs"),
        (lambda f: [*f[:2], "2" * 49, *f[3:]], "not characters 0 and 1"),
        (lambda f: [*f[:2], f[2][1:], *f[3:]], "has 48 characters of adjacency for 7 operations"),
        (lambda f: [*f[:2], "1" + f[2][1:], *f[3:]], "not upper triangular"),
        (lambda f: [*f[:3], f[3].replace("input", "entry"), f[4]], "has the operations"),
        (lambda f: [*f[:3], f[3].replace("maxpool3x3", "maxpool5x5"), f[4]], "has the operation 'maxpool5x5'"),
        (lambda f: [*f[:4], 7], "has the metrics 7, not base64"),
        (lambda f: [*f[:4], "!" + f[4][1:]], "no base64"),
        (lambda f: [*f[:4], f[4][:97]], "truncated metrics"),
        (lambda f: [*f[:4], ""], "has 0 evaluations"),
        (lambda f: [*f[:4], "CgA="], "has 1 evaluations"),
        (lambda f: [*f[:4], "//////////////8="], "more than 64 bits"),
        (lambda f: [*f[:4], "Cw=="], "wire type 3"),
        (lambda f: [*f[:4], "CAE="], "field 1 is of another type"),
        (lambda f: [*f[:4], "AAE="], "field 0"),
    ],
)
def test_what_is_no_record_of_the_benchmark_is_refused(genuine: Path, tmp_path: Path, change, told: str) -> None:  # type: ignore[no-untyped-def]
    (content,) = peer.contents(genuine.read_bytes())
    path = tmp_path / "foreign.tfrecord"
    path.write_bytes(peer.framed([content, json.dumps(change(json.loads(content))).encode()]))
    error = error_of(path)
    assert "the record at byte 417 " in error and told in error


def test_bytes_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.tfrecord"
    path.write_bytes(peer.framed([b"\xff\xfe" * 100]))
    assert "the record at byte 0 is no JSON" in error_of(path)


def test_a_synthetic_file_says_so_and_other_readers_read_it(tmp_path: Path) -> None:
    path = tmp_path / "synthetic.tfrecord"
    synthetic.write(path, rows=np.array([0, 7, 423_623]), epochs=(4, 108), repeats=2, seed=3)
    ((block, data),) = tfrecord.blocks(path)
    assert block.synthetic.tolist() == [True] + [False] * 11
    assert tfrecord.encode(block) == data.tobytes()
    runs = [peer.read(content) for content in peer.contents(path.read_bytes())]
    assert [run["evaluations"] for run in runs] == block.values.tolist()
    assert [run["epochs"] for run in runs] == [4, 4, 108, 108] * 3
    assert runs[-1]["hash"] == "ffff76fafa7b0cdf545fd7feee9c8bf9"
    assert peer.contents(path.read_bytes())[1:] == [peer.data(run) for run in runs[1:]]
    again = tmp_path / "again.tfrecord"
    synthetic.write(again, rows=np.array([0, 7, 423_623]), epochs=(4, 108), repeats=2, seed=3)
    assert again.read_bytes() == path.read_bytes()
