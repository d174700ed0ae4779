"""Tables measured on this machine, and how well the sum over blocks says what a whole network takes."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..costs.activation_memory import ActivationMemory
from ..errors import ConfigError
from ..journal import Journal
from ..modules import Weights
from ..network import Network
from ..report.search_report import processor
from ..workload.rows import workload
from . import table
from .alone import Alone, blocks
from .programs import Program, description, program
from .samples import entry, interleaved
from .table import Entry, LatencyTable

ROUNDS = 100
MOST_AT_ONCE = 8  # blocks that are measured in turn; their programs are held in memory together
MILLISECONDS = 1e3
SWEPT = "swept"  # what a table calls the memory that is read between two runs


@dataclass(frozen=True)
class Prediction:
    """predicted: the sum over the blocks. measured: the whole network. In milliseconds."""

    name: str
    predicted: float
    measured: Entry

    @property
    def error(self) -> float:
        """Of the prediction, as a part of what was measured."""
        return self.predicted / self.measured.mean - 1


def build(
    networks: Iterable[Network],
    backend: str,
    path: Path,
    *,
    rounds: int = ROUNDS,
    journal: Journal | None = None,
) -> LatencyTable:
    """Measure every block of the networks that the table at `path` does not hold yet, on one thread.

    The blocks of one frame (alone.py) are measured in turn with it, and written as soon as they are measured, so a
    second call goes on where a first one ended. ConfigError where the table is of another backend or machine.

    In a network a block finds its weights where the caches have left them while everything else ran. So before every
    run other memory is read, as much as the networks take (on average, of those that the table was begun with).
    """
    check_rounds(rounds)
    networks = list(networks)
    about = {"backend": description(backend), "machine": processor(), "threads": "1"}
    known = table.read(path) if path.exists() else LatencyTable({}, about)
    for name, value in about.items():
        if known.about.get(name) != value:
            raise ConfigError(
                f"{path} is of the {name} {known.about.get(name, 'unknown')}, and this is {value}; name another file"
            )
    swept = _number(known, path) if SWEPT in known.about else round(sum(map(memory, networks)) / len(networks))
    about[SWEPT] = f"{swept} bytes"
    entries = dict(known.entries)
    wanted = blocks(networks)
    missing = [block for block in wanted if block.key not in entries]
    journal = journal or Journal()
    with journal.progress("latency", len(wanted), len(wanted) - len(missing)) as progress:
        for together in _groups(missing):
            entries |= _measured(together, backend, rounds, swept)
            LatencyTable(entries, about).write(path)
            progress.advance(len(together), note=together[-1].key)
    return LatencyTable(entries, about)


def check(
    known: LatencyTable, networks: Mapping[str, tuple[Network, Weights | None]], backend: str, *, rounds: int = ROUNDS
) -> list[Prediction]:
    """What the table predicts of whole networks beside what they take here, measured in turn. Weights: None takes
    random ones."""
    check_rounds(rounds)
    predicted = [known.of(network.trunk) for network, _ in networks.values()]
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        programs = [
            program(network.trunk, backend, _folder(folder, number), weights)
            for number, (network, weights) in enumerate(networks.values())
        ]
        seconds = interleaved(programs, rounds)
    return [
        Prediction(name, milliseconds, entry(MILLISECONDS * taken))
        for name, milliseconds, taken in zip(networks, predicted, seconds, strict=True)
    ]


def memory(network: Network) -> int:
    """Bytes that go through the caches when the network runs: its weights, in whole bytes each, and the most of its
    values that are held at one time."""
    work = workload(network.trunk)
    weights = float((work.weights * np.ceil(work.designed.weight_bits / 8)).sum())
    return round(weights + ActivationMemory()(work).total / 8)


def _number(known: LatencyTable, path: Path) -> int:
    try:
        return int(known.about[SWEPT].removesuffix(" bytes"))
    except ValueError:
        raise ConfigError(f"{path}: {SWEPT} is a number of bytes, got {known.about[SWEPT]!r}") from None


def check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise ConfigError(f"rounds are at least 1, got {rounds}")


def _groups(missing: Sequence[Alone]) -> Iterable[list[Alone]]:
    for _, same in itertools.groupby(missing, key=lambda block: block.frame):
        together = list(same)
        yield from (together[i : i + MOST_AT_ONCE] for i in range(0, len(together), MOST_AT_ONCE))


def _measured(together: Sequence[Alone], backend: str, rounds: int, swept: int) -> dict[str, Entry]:
    """Blocks of one frame: the differences to it, round by round."""
    frame = together[0].frame
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        networks = [block.network for block in together] + ([] if frame is None else [frame])
        programs: list[Program] = [
            program(network, backend, _folder(folder, number)) for number, network in enumerate(networks)
        ]
        seconds = interleaved(programs, rounds, swept)
    if frame is not None:
        seconds = seconds[:-1] - seconds[-1]
    return {block.key: entry(MILLISECONDS * taken) for block, taken in zip(together, seconds, strict=True)}


def _folder(parent: str, number: int) -> Path:
    path = Path(parent) / str(number)
    path.mkdir()
    return path
