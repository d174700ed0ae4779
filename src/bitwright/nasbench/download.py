"""The released files of NAS-Bench-101 from where their authors keep them."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigError, DataError
from .convert import RELEASED

URL = "https://storage.googleapis.com/nasbench"
FILES = {name.removeprefix("nasbench_").removesuffix(".tfrecord"): name for name in RELEASED.values()}
SECONDS = 30.0  # without an answer
CHUNK = 1 << 20
Progress = Callable[[int, int | None], object]  # bytes there, bytes in all if known


def download(which: str, folder: Path, *, url: str = URL, progress: Progress | None = None) -> Path:
    """Fetch "full" (1.9 GB) or "only108" (0.5 GB) into a folder; the path of the file.

    What has arrived stays in a .part file when the connection breaks, and the next call goes on behind it. The file
    gets its name when its SHA-256 is the published one. DataError says what went wrong.
    """
    if which not in FILES:
        raise ConfigError(f"the released files are {', '.join(FILES)}, not {which!r}")
    name = FILES[which]
    target = folder / name
    (wanted,) = (digest for digest, released in RELEASED.items() if released == name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if _sha256(target) != wanted:
                raise DataError(f"{target} is there, but its SHA-256 is not the published one: remove it first")
            return target
        part = target.with_name(name + ".part")
        _fetch(f"{url}/{name}", part, progress)
        if _sha256(part) != wanted:
            part.unlink()
            raise DataError(f"{url}/{name} arrived with a wrong SHA-256; nothing was kept, try again")
        os.replace(part, target)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from None
    return target


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Bring `part` to its full length; it keeps what has arrived."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
            if goes_on and _start(response) != there:
                raise DataError(f"{url} answers with bytes from {_start(response)}, not from {there}")
            there = there if goes_on else 0
            length = response.headers.get("Content-Length")
            size = there + int(length) if length and length.isdigit() else None
            with part.open("ab" if goes_on else "wb") as file:
                there = _copy(response, file, there, size, progress)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing behind what is there; its checksum decides
        raise DataError(f"{url} cannot be fetched ({error.code} {error.reason})") from None
    except urllib.error.URLError as error:
        raise DataError(f"{url} cannot be reached ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _broken(url, part, str(error) or type(error).__name__) from None
    if size is not None and there != size:
        raise _broken(url, part, f"{there:,} of {size:,} bytes arrived")


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, there: int, size: int | None, tell: Progress | None
) -> int:
    while chunk := response.read(CHUNK):
        file.write(chunk)
        there += len(chunk)
        if tell is not None:
            tell(there, size)
    return there


def _start(response: http.client.HTTPResponse) -> int:
    """The first byte of a partial answer, -1 if it does not say."""
    first = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else -1


def _broken(url: str, part: Path, why: str) -> DataError:
    return DataError(f"the connection to {url} broke ({why}); what arrived is in {part}, the same command goes on")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
