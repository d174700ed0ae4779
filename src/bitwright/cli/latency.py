"""The command of latency tables: build one on this machine, predict by it, check what it predicts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from ..datasets import Dataset, Images
from ..errors import ConfigError
from ..experiment import Experiment, presets, read_yaml, resolve
from ..journal import Journal
from ..latency import table
from ..latency.keys import keys, parts
from ..latency.measure import ROUNDS, build, check
from ..latency.programs import BACKENDS, check_backend
from ..modules import Weights
from ..network import Network
from ..networks import MICRONET, PUBLISHED, names, read
from ..networks import build as build_network
from ..networks.cells import CellSpace
from ..networks.inverted_residual import LINEAR_FLOAT, BlockList, Options
from ..networks.tree import TreeNet
from ..relaxation.expected_cost import combinations
from ..run_directory import open_trained
from ..spaces import RelaxedSpace
from ..workload.rows import workload
from .options import Parser, open_console, run_action, use_threads

ACTIONS = {
    "build": "measure every block of networks or of a space on this machine",
    "predict": "add up what a table says of a network's blocks",
    "check": "measure whole networks beside what a table predicts",
}
CELLS = "proxylessnas-cells"
FLOAT = "float"


def latency(arguments: Sequence[str]) -> None:
    run_action("latency", ACTIONS, (_build, _predict, _check), arguments)


def _parser(action: str) -> Parser:
    parser = Parser(f"latency {action}", f"{ACTIONS[action].capitalize()}.", experiment=False)
    parser.add_argument(
        "--bits",
        metavar="N,N/D,...",
        help=f"networks by name or in a file at these bits of weights and values, D of depthwise ones, or {FLOAT}"
        " (default: as they were published)",
    )
    parser.add_argument("--resolution", type=int, metavar="N", help="of the image, in place of the published one")
    parser.add_argument("--classes", type=int, metavar="N", help="in place of the published ones")
    return parser


def _build(arguments: Sequence[str]) -> None:
    parser = _parser("build")
    parser.add_argument(
        "--network", action="append", default=[], metavar="NETWORK", help="by name, a block list in JSON, or a run"
    )
    parser.add_argument(
        "--space",
        metavar="SPACE",
        help=f"{CELLS}, the 21 searchable cells; or the space of a search's directory, of a preset or of a YAML file,"
        " these at --resolution and --classes if given, else for the images of their data set",
    )
    parser.add_argument("--backend", required=True, metavar="NAME", help=" or ".join(BACKENDS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of every block (default: {ROUNDS})")
    parser.add_argument("--out", type=Path, required=True, metavar="TABLE", help="what is in it is not measured again")
    given, _ = parser.read(arguments, "latency build")
    check_backend(given.backend)
    if not given.network and given.space is None:
        raise ConfigError("say what to measure: --network or --space")
    networks = [network for text in given.network for network, _ in _networks(text, given).values()]
    if given.space is not None:
        networks += _space(given.space, given)
    use_threads(1)
    console = open_console()
    with Journal(console=console) as journal:
        found = build(networks, given.backend, given.out, rounds=given.rounds, journal=journal)
    console.print(f"wrote {given.out}: {len(found.entries)} blocks, {found.about['backend']}, {found.about['machine']}")


def _predict(arguments: Sequence[str]) -> None:
    parser = _parser("predict")
    parser.add_argument("table", type=Path, metavar="TABLE", help="a latency table, YAML")
    parser.add_argument("network", nargs="+", metavar="NETWORK", help="by name, a block list in JSON, or a run")
    parser.add_argument("--blocks", action="store_true", help="also every block")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, _ = parser.read(arguments, "latency predict")
    known = table.read(given.table)
    console = open_console()
    result = {}
    for name, (network, _) in _all_networks(given).items():
        work = workload(network.trunk)
        by_block = known.by_block(work)
        lines = list(zip((part.name for part in parts(work)), keys(work), by_block, strict=True))
        result[name] = {
            "milliseconds": sum(by_block),
            "blocks": [{"block": block, "key": key, "milliseconds": ms} for block, key, ms in lines],
        }
        if given.json:
            continue
        if given.blocks:
            shown = Table(box=None, pad_edge=False)
            for heading in ("block", "ms", "key"):
                shown.add_column(heading, justify="right" if heading == "ms" else "left", no_wrap=True)
            for block, key, ms in lines:
                shown.add_row(block, f"{ms:.4f}", key)
            console.print(shown)
        console.print(f"{name}  {sum(by_block):.3f} ms")
    if given.json:
        print(json.dumps(result))


def _check(arguments: Sequence[str]) -> None:
    parser = _parser("check")
    parser.add_argument("table", type=Path, metavar="TABLE", help="a latency table, YAML")
    parser.add_argument("network", nargs="+", metavar="NETWORK", help="by name, a block list in JSON, or a run")
    parser.add_argument("--backend", metavar="NAME", help="in place of what the table says of itself")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of every network (default: {ROUNDS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given, _ = parser.read(arguments, "latency check")
    known = table.read(given.table)
    backend = given.backend or known.about.get("backend", "").partition(" ")[0]
    if not backend:
        raise ConfigError(f"{given.table} does not say its backend; say --backend {' or '.join(BACKENDS)}")
    use_threads(1)
    found = check(known, _all_networks(given), backend, rounds=given.rounds)
    if given.json:
        result = {
            p.name: {"predicted": p.predicted, "measured": p.measured.mean, "error": p.error, "var": p.measured.var}
            for p in found
        }
        print(json.dumps(result))
        return
    shown = Table(box=None, pad_edge=False)
    for heading in ("network", "predicted ms", "measured ms", "+-", "error"):
        shown.add_column(heading, justify="left" if heading == "network" else "right", no_wrap=True)
    for p in found:
        measured = p.measured
        shown.add_row(
            p.name, f"{p.predicted:.3f}", f"{measured.mean:.3f}", f"{measured.var**0.5:.3f}", f"{100 * p.error:+.1f} %"
        )
    open_console().print(shown)


def _all_networks(given: argparse.Namespace) -> dict[str, tuple[Network, Weights | None]]:
    return {name: found for text in given.network for name, found in _networks(text, given).items()}


def _networks(text: str, given: argparse.Namespace) -> dict[str, tuple[Network, Weights | None]]:
    """What a name, a file or a run stands for, at each of the bits, and the weights if they are trained."""
    if Path(text).is_dir():
        if (given.bits, given.resolution, given.classes) != (None, None, None):
            raise ConfigError(f"{text} is a run; its bits, resolution and classes are its own")
        training = open_trained(Path(text), device="cpu")
        return {text: (training.network.trunk, training.weights())}
    blocks, published = _block_list(text)
    options = {text: published} if given.bits is None else _options(given.bits, text)
    return {name: (_built(blocks, each, given), None) for name, each in options.items()}


def _block_list(text: str) -> tuple[BlockList | TreeNet, Options]:
    """A block list, and the bits that it was published with."""
    if Path(text).is_file():
        return read(Path(text)), LINEAR_FLOAT
    if text not in names() and f"proxyless-{text}" not in names():
        raise ConfigError(f"no run, file or network {text!r}; networks: {', '.join(names())}")
    name = "mobile14" if text in MICRONET or text == "mobile14-float" else text.removeprefix("proxyless-")
    return PUBLISHED[name], MICRONET.get(text, LINEAR_FLOAT)


def _options(bits: str, name: str) -> dict[str, Options]:
    """By the name of the network and the bits."""
    found = {}
    for word in bits.split(","):
        weights, _, depthwise = word.partition("/")
        if word == FLOAT:
            found[f"{name} {word}"] = LINEAR_FLOAT
            continue
        try:
            found[f"{name} {word}"] = Options(weight_bits=int(weights), depthwise_bits=int(depthwise or weights))
        except ValueError:
            raise ConfigError(f"--bits takes numbers such as 4, pairs such as 4/5, and {FLOAT}, got {word!r}") from None
    return found


def _built(blocks: BlockList | TreeNet, options: Options, given: argparse.Namespace) -> Network:
    _check_positive(resolution=given.resolution, classes=given.classes)
    return build_network(blocks, options, classes=given.classes, resolution=given.resolution)


def _check_positive(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is at least 1, got {value}")


def _space(text: str, given: argparse.Namespace) -> list[Network]:
    """Networks that together have every block of a space."""
    if text == CELLS:
        options = {text: LINEAR_FLOAT} if given.bits is None else _options(given.bits, text)
        return [_built(blocks, each, given) for each in options.values() for blocks in CellSpace().covering()]
    if given.bits is not None:
        raise ConfigError(f"the bits of {text} are those of its space")
    space = _searched(text, given).space
    architectures = combinations(space) if isinstance(space, RelaxedSpace) else space.covering()
    return [space.network(architecture) for architecture in architectures]


def _searched(text: str, given: argparse.Namespace) -> Experiment:
    """The experiment of a search's directory, or of a preset or a file of options."""
    config = Path(text) / "config.yaml"
    if config.is_file():
        if (given.resolution, given.classes) != (None, None):
            raise ConfigError(f"{text} is a search; the resolution and classes of its space are its own")
        return Experiment(read_yaml(config) | {"device": "cpu"})
    if text not in presets() and not Path(text).is_file():
        raise ConfigError(
            f"no space {text!r}: {CELLS}, the directory of a search, a YAML file, or a preset ({', '.join(presets())})"
        )
    values = resolve([], text) if text in presets() else resolve(["--config", text])
    experiment = Experiment(values | {"device": "cpu"})
    if (given.resolution is None) != (given.classes is None):
        raise ConfigError("say both --resolution and --classes, or neither for those of the data set")
    if given.resolution is not None:
        experiment.dataset = _blank(given.resolution, given.classes)
    return experiment


def _blank(resolution: int, classes: int) -> Dataset:
    """What a space must know of a data set of such images, of which there is one, a black one."""
    _check_positive(resolution=resolution, classes=classes)
    part = Images(torch.zeros(1, resolution, resolution, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    return Dataset("blank", tuple(map(str, range(classes))), part, part, part)
