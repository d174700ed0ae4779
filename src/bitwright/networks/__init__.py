"""Networks that have a name or are in a file: published architectures, in float and at published bit widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..network import Network
from . import inverted_residual, tree
from .inverted_residual import LINEAR_FLOAT, BlockList, Options
from .json_files import parse_file
from .published import BLOCK_LISTS, TREE_NETS
from .tree import TreeNet

MICRONET = {  # the entry of Pappalardo (2019) after its two training steps
    "mobile14-4b": Options(weight_bits=4, depthwise_bits=4, first_layer_bits=8),
    "mobile14-4b5b": Options(weight_bits=4, depthwise_bits=5, first_layer_bits=8),
}
PUBLISHED: dict[str, BlockList | TreeNet] = {**BLOCK_LISTS, **TREE_NETS}
PARSERS: dict[str, Callable[[Mapping[str, Any]], BlockList | TreeNet]] = {
    "ProxylessNASNets": inverted_residual.parse_block_list,
    "MobileNetV2": inverted_residual.parse_block_list,
    "PyramidTreeNet": tree.parse_tree_net,
}


def names() -> list[str]:
    """What `named` knows."""
    return sorted(["mobile14-float", *MICRONET, *(n if "-" in n else f"proxyless-{n}" for n in PUBLISHED)])


def named(name: str) -> Network:
    """The network of that name, with the classes that it was published with.

    mobile14-float, mobile14-4b, mobile14-4b5b, and the float networks of published.py as proxyless-NAME or NAME.
    ConfigError lists the names.
    """
    if name in MICRONET:
        return build(PUBLISHED["mobile14"], MICRONET[name])
    block_list = PUBLISHED.get("mobile14" if name == "mobile14-float" else name.removeprefix("proxyless-"))
    if block_list is None or name not in names():
        raise ConfigError(f"no network {name!r}: {', '.join(names())}")
    return build(block_list, LINEAR_FLOAT)


def build(
    blocks: BlockList | TreeNet, options: Options, *, classes: int | None = None, resolution: int | None = None
) -> Network:
    """The network of a block list of either kind. classes, resolution: in place of those of the list."""
    if isinstance(blocks, TreeNet):
        return tree.build(blocks, options, classes=classes, resolution=resolution)
    return inverted_residual.build(blocks, options, classes=classes, resolution=resolution)


def read(path: Path) -> BlockList | TreeNet:
    """A block list in the JSON format of ProxylessNAS, of either kind. ConfigError names what it cannot mean."""
    return parse_file(path, _parse)


def _parse(content: Mapping[str, Any]) -> BlockList | TreeNet:
    parse = PARSERS.get(content["name"])
    if parse is None:
        raise ConfigError(f"holds a {content['name']}; a block list is one of {', '.join(PARSERS)}")
    return parse(content)
