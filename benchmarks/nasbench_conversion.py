"""NAS-Bench-101's released files: reading them, and what was read.

A synthetic file of full size (5,083,488 runs, 2.09 GB), converted with all checks; and 2,000 modules of it against what
the original does with every record (JSON, base64, one array and one dictionary per run), re-typed here without
TensorFlow, its protocol buffers read by one struct, which flatters it, and its checksums left out.
"""

from __future__ import annotations

import base64
import json
import struct
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.nasbench import convert, synthetic
from bitwright.nasbench.columns import COLUMNS, ROWS, Dataset

from .timing import Table, interleaved

MODULES, RUNS = 2000, 12
EVALUATION = struct.Struct("<" + "x" + "xd" * 5)


def original(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fixed and the computed statistics by hash."""
    fixed: dict[str, Any] = {}
    computed: dict[str, Any] = {}
    content = path.read_bytes()
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        module_hash, epochs, adjacency, operations, metrics = json.loads(content[at + 12 : at + 12 + length])
        at += 16 + length
        side = int(np.sqrt(len(adjacency)))
        matrix = np.array([int(c) for c in adjacency], dtype=np.int8).reshape(side, side)
        message = base64.b64decode(metrics)
        if module_hash not in fixed:
            fixed[module_hash] = {"module_adjacency": matrix, "module_operations": operations.split(",")}
            computed[module_hash] = defaultdict(list)
        values = [EVALUATION.unpack_from(message, 1 + 47 * e)[1:] for e in (1, 2)]
        run = dict(zip(COLUMNS, (*values[0], *values[1]), strict=True))
        computed[module_hash][epochs].append(run)
    return fixed, computed


def run() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        whole, part, target = (Path(folder) / name for name in ("whole.tfrecord", "part.tfrecord", "whole.columns"))
        synthetic.write(part, rows=np.linspace(0, ROWS - 1, MODULES).astype(int))
        small = interleaved({"original": lambda i: original(part), "here": lambda i: convert.load(part)}, 5, 1)
        synthetic.write(whole)
        large = interleaved({"convert": lambda i: convert.convert(whole, target)}, 3, 0)["convert"]
        size, stored = whole.stat().st_size, target.stat().st_size
        whole.unlink()
        dataset = Dataset.open(target)
        rows = np.random.default_rng(0).integers(ROWS, size=10_000).tolist()
        used = interleaved(
            {
                "open": lambda i: Dataset.open(target),
                "mean": lambda i: dataset.mean("test_accuracy", 108),
                "runs": lambda i: [dataset.run(row, 108, 1) for row in rows],
                "verify": lambda i: Dataset.open(target).verify(),
            },
            10,
        )
    ratio = np.median(small["original"] / small["here"])
    records = MODULES * RUNS
    table = Table(["", "time"])
    table.rows = [
        [f"the original's way, a record of {records:,}", f"{np.median(small['original']) / records * 1e6:.1f} us"],
        [f"here, a record of {records:,}", f"{np.median(small['here']) / records * 1e6:.1f} us"],
        [f"convert {size / 1e9:.2f} GB into {stored / 1e6:.1f} MB", f"{np.median(large):.1f} s"],
        ["open", f"{np.median(used['open']) * 1e3:.2f} ms"],
        ["one run of a module", f"{np.median(used['runs']) / len(rows) * 1e6:.2f} us"],
        ["mean test accuracy of all modules", f"{np.median(used['mean']) * 1e3:.1f} ms"],
        ["check all checksums", f"{np.median(used['verify']) * 1e3:.0f} ms"],
    ]
    table.notes = [f"The original's way takes {ratio:.1f} times as long per record. All data is synthetic."]
    return table
