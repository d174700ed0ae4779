"""Networks that have a name: published architectures, in float and at published bit widths."""

from __future__ import annotations

from ..errors import ConfigError
from ..network import Network
from .inverted_residual import LINEAR_FLOAT, Options, build
from .published import BLOCK_LISTS

MICRONET = {  # the entry of Pappalardo (2019) after its two training steps
    "mobile14-4b": Options(weight_bits=4, depthwise_bits=4, first_layer_bits=8),
    "mobile14-4b5b": Options(weight_bits=4, depthwise_bits=5, first_layer_bits=8),
}


def names() -> list[str]:
    """What `named` knows."""
    return sorted(["mobile14-float", *MICRONET, *(n if "-" in n else f"proxyless-{n}" for n in BLOCK_LISTS)])


def named(name: str) -> Network:
    """The network of that name, with 1,000 classes unless it was published with other ones.

    mobile14-float, mobile14-4b, mobile14-4b5b, and the float networks of published.py as proxyless-NAME or NAME.
    ConfigError lists the names.
    """
    if name in MICRONET:
        return build(BLOCK_LISTS["mobile14"], MICRONET[name])
    block_list = BLOCK_LISTS.get("mobile14" if name == "mobile14-float" else name.removeprefix("proxyless-"))
    if block_list is None or name not in names():
        raise ConfigError(f"no network {name!r}: {', '.join(names())}")
    return build(block_list, LINEAR_FLOAT)
