"""The `bitwright` command. Exit status: 0 success, 2 a user's mistake (one line on standard error), 130 interrupted,
141 nobody reads the output."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "demo": "search, train and evaluate on data that is already here, in under five minutes",
    "search": "search for an architecture",
    "train": "train an architecture from scratch",
    "quantize": "quantize trained weights without training",
    "derive": "sample recurrent cells from a search and keep the best",
    "evaluate": "test accuracy and costs of a trained network, in integers",
    "lower": "turn a trained network into an integer-only graph",
    "export": "write a network as ONNX, QONNX or C",
    "import": "turn a quantized ONNX or QONNX model into an integer graph",
    "verify": "compare results bit for bit wherever an integer network runs",
    "cost": "count what a network stores and computes, and score it",
    "latency": "measure a table of latencies of blocks, predict a network's by it, and check that",
    "show": "draw and describe an architecture",
    "film": "the best cell of a search over time, as GIF or MP4",
    "data": "list, check or download data sets",
    "nasbench": "count, convert, query, export and analyze NAS-Bench-101",
    "pareto": "the trials of a search that no other beats in every objective, and the hypervolume over time",
    "compare": "compare search strategies on the table of a benchmark",
    "reproduce": "train the networks of a published table and set the errors beside it",
}
MODULES = {
    "lower": "deploy",
    "export": "deploy",
    "import": "deploy",
    "verify": "deploy",
    "cost": "cost",
    "latency": "latency",
    "quantize": "quantize",
    "nasbench": "nasbench",
    "pareto": "pareto",
    "compare": "compare",
    "reproduce": "reproduce",
    "derive": "language",
    "film": "film",
}
FUNCTIONS = {"import": "import_model"}  # where the name of a command is none of Python's; MODULES: else commands.py
GOES_ON = dict.fromkeys(("demo", "search", "train"), "the same command with --resume goes on") | {
    "reproduce": "the same command goes on",
    "latency": "the same command goes on",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        print(f"bitwright: name a command: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if given[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if given[0] in ("-V", "--version"):
        from ..version import VERSION

        print(f"bitwright {VERSION}")
        return 0
    if given[0] not in COMMANDS:
        print(f"bitwright: no command {given[0]!r}: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2

    from ..errors import BitwrightError

    try:
        module = import_module(f"{__package__}.{MODULES.get(given[0], 'commands')}")
        getattr(module, FUNCTIONS.get(given[0], given[0]))(given[1:])
    except BitwrightError as error:
        print(f"bitwright {given[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"bitwright {given[0]}: {what}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = f"; {GOES_ON[given[0]]}" if given[0] in GOES_ON else ""
        print(f"bitwright {given[0]}: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _usage() -> str:
    lines = ["usage: bitwright COMMAND [options]", "", "Quantized neural architecture search.", ""]
    lines += [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "`bitwright COMMAND --help` lists a command's options."])
