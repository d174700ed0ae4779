"""Tables of the latency of blocks: YAML, as ProxylessNAS published them (Cai et al. 2019, arXiv:1812.00332).

    # backend: onnxruntime 1.32.0
    Conv-input:224x224x3-output:112x112x32:
      count: 100
      mean: 4.0838
      var: 0.0021

mean: milliseconds, var: their square, count: of measurements. Keys are those of keys.py. Comments at the top, which the
published table has none of, say what was measured and where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..files import write_text
from ..integer.graph import IntegerGraph
from ..network import Network
from ..networks import build
from ..networks.inverted_residual import LINEAR_FLOAT, BlockList
from ..workload.rows import workload
from ..workload.table import Workload
from .keys import keys

FIELDS = ("count", "mean", "var")


@dataclass(frozen=True)
class Entry:
    """count: of measurements. mean: in milliseconds. var: of one measurement, in their square."""

    count: int
    mean: float
    var: float


@dataclass(frozen=True)
class LatencyTable:
    """entries: by key. about: what the comments at the top say, such as {"backend": "c"}."""

    entries: Mapping[str, Entry]
    about: Mapping[str, str] = field(default_factory=dict)

    def of(self, target: BlockList | Network | IntegerGraph | Workload) -> float:
        """Milliseconds of a network: the sum over its blocks. ConfigError lists the keys that the table lacks."""
        return sum(self.by_block(target))

    def by_block(self, target: BlockList | Network | IntegerGraph | Workload) -> list[float]:
        """Milliseconds of every block, in the order of execution. A block list is of the float network."""
        if isinstance(target, BlockList):
            target = build(target, LINEAR_FLOAT)
        found = keys(workload(target))
        self.require(found)
        return [self.entries[key].mean for key in found]

    def require(self, wanted: list[str]) -> None:
        """ConfigError lists the keys that are missing."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self.entries]
        if missing:
            entries = f"{len(missing)} entries" if len(missing) > 1 else "an entry"
            raise ConfigError(f"the latency table lacks {entries}: {', '.join(missing)}")

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        lines = [f"# {name}: {value}" for name, value in self.about.items()]
        for key, entry in self.entries.items():
            described = yaml.safe_dump(asdict(entry), sort_keys=False)  # 1e-9 as repr has it would be a text to YAML
            lines += [f"{key}:", *(f"  {line}" for line in described.splitlines())]
        write_text(path, "\n".join(lines) + "\n")


def read(path: Path) -> LatencyTable:
    """The table in a YAML file. ConfigError names the file, and the entry that is none."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path} holds no latency table: keys with {', '.join(FIELDS)} each")
    entries = {}
    for key, value in (content or {}).items():
        try:
            entries[str(key)] = _entry(value)
        except ConfigError as error:
            raise ConfigError(f"{path}: {key}: {error}") from None
    return LatencyTable(entries, _about(text))


def _entry(value: Any) -> Entry:
    if not isinstance(value, dict):
        raise ConfigError(f"an entry has {', '.join(FIELDS)}, got {value!r}")
    for name in FIELDS:
        if name not in value:
            raise ConfigError(f"{name} is missing; an entry has {', '.join(FIELDS)}")
    numbers = [value[name] for name in FIELDS]
    for name, number in zip(FIELDS, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise ConfigError(f"{name} is a number of at least 0, got {number!r}")
    count, mean, var = numbers
    if count != int(count):
        raise ConfigError(f"count is an integer, got {count!r}")
    return Entry(int(count), float(mean), float(var))


def _about(text: str) -> dict[str, str]:
    """The comments at the top that are a name, a colon and a text."""
    about = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        name, colon, value = line.lstrip("# ").partition(": ")
        if colon:
            about[name] = value.strip()
    return about
