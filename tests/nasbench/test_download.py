"""Downloads from a server of our own: whole, interrupted and resumed, damaged, refused."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import ConfigError, DataError
from bitwright.nasbench import download

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "nasbench_only108.tfrecord"


class Server(ThreadingHTTPServer):
    """Sends CONTENT. breaks_at: the byte at which the connection ends early; ranges: whether it knows them."""

    breaks_at: int | None = None
    ranges = True
    shift = 0  # what it answers to a range is off by so much
    content = CONTENT
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content, start = self.server.content, 0
        if self.path != f"/nasbench/{NAME}":
            self.send_error(404)
            return
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            start += self.server.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.breaks_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "RELEASED", {hashlib.sha256(CONTENT).hexdigest(): NAME})
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, folder: Path) -> Path:
    return download.download("only108", folder, url=f"http://127.0.0.1:{server.server_port}/nasbench")


def test_the_published_files_are_those_of_the_readme() -> None:
    assert download.FILES == {"full": "nasbench_full.tfrecord", "only108": "nasbench_only108.tfrecord"}
    assert download.URL == "https://storage.googleapis.com/nasbench"
    with pytest.raises(ConfigError, match="full, only108, not 'half'"):
        download.download("half", Path("anywhere"))


def test_a_whole_file_arrives_and_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    told = []
    url = f"http://127.0.0.1:{server.server_port}/nasbench"
    path = download.download("only108", tmp_path / "new", url=url, progress=lambda *at: told.append(at))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(server, tmp_path / "new") == path
    assert server.asked == [None]
    assert os.listdir(tmp_path / "new") == [NAME]


def test_a_broken_download_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.breaks_at = 100_000
    with pytest.raises(DataError, match=r"broke .*the same command goes on"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / NAME).exists()
    server.breaks_at = None
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
    assert os.listdir(tmp_path) == [NAME]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_only_gets_its_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(DataError, match="wrong SHA-256; nothing was kept"):
        fetch(server, tmp_path)
    assert os.listdir(tmp_path) == []
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    server.content = CONTENT
    with pytest.raises(DataError, match="wrong SHA-256"):
        fetch(server, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_wrong_range_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.shift = 1
    with pytest.raises(DataError, match="answers with bytes from 1001, not from 1000"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:1000]


def test_another_file_of_that_name_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("mine")
    with pytest.raises(DataError, match="SHA-256 is not the published one"):
        fetch(server, tmp_path)
    assert (tmp_path / NAME).read_text() == "mine"


def test_what_cannot_be_reached_or_written_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be fetched \(404"):
        download.download("only108", tmp_path, url=f"http://127.0.0.1:{server.server_port}/other")
    with pytest.raises(DataError, match="cannot be reached"):
        download.download("only108", tmp_path, url="http://127.0.0.1:1/nasbench")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into"):
        fetch(server, tmp_path / "file")
