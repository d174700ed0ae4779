"""Trained weights from files: our own at any bit widths, and published ones of ProxylessNAS and its relatives."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import StorageError
from ..modules import Weights, scale_key
from ..network import Activation, BatchNorm, Network

NORMALISATION = {"weight": "gain", "bias": "offset", "running_mean": "mean", "running_var": "variance"}
LAYERS = {
    "inverted_bottleneck": "bc",
    "depth_conv": "dw",
    "point_linear": "pw",
    "bc_conv": "bc",
    "dw_conv": "dw",
    "pw_conv": "pw",
}
ENDS = {"first_conv": "init_block", "feature_mix_layer": "final_block"}
UNIT = re.compile(
    r"(?:blocks\.(?P<number>\d+)|(?P<place>stage\d+\.unit\d+))\.(?:body|mobile_inverted_conv)\."
    rf"(?P<layer>{'|'.join(LAYERS)})\.(?P<rest>.+)"
)
PASSED_OVER = ("num_batches_tracked",)  # of a checkpoint, without a counterpart here


@dataclass(frozen=True)
class Loaded:
    """Names of tensors. loaded: that were taken. missing: of the network, which keep their first values.

    unexpected: in the file, without a place in the network. misshapen: in both, with different shapes; not taken.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for kind in ("missing", "unexpected", "misshapen"):
            if names := getattr(self, kind):
                parts.append(f"{len(names)} {kind}: {_few(names)}")
        return "; ".join(parts)


def initialise(weights: Weights, network: Network, path: Path) -> Loaded:
    """Copy into `weights` what a file holds for `network`; the file's tensors may be named as follows.

    Ours: a weights.safetensors, or a training's directory that holds one; bit widths may differ, as only real weights
    and ranges are kept. ProxylessNAS: first_conv.conv.weight, blocks.3.mobile_inverted_conv.depth_conv.bn.bias, ...
    Trees keep ProxylessNAS's names as well: blocks.1.cell.edges.0.conv.weight, blocks.1.final_bn.running_mean, ...
    imgclsmob and the MicroNet entry: features.stage2.unit1.body.dw_conv.conv.weight, ..., output.bias.
    Prefixes such as "module." and dictionaries such as {"state_dict": ...} are looked through.

    StorageError where the file cannot be read or has no tensor of the network.
    """
    found = translated(read_tensors(path), network)
    wanted = weights.state_dict()
    fitting = {name for name in found.keys() & wanted.keys() if found[name].shape == wanted[name].shape}
    if not fitting:
        raise StorageError(f"{path} has no tensor of this network; it holds {_few(sorted(found)) or 'none'}")
    with torch.no_grad():
        for name in fitting:
            wanted[name].copy_(found[name])
    return Loaded(
        tuple(sorted(fitting)),
        tuple(sorted(wanted.keys() - found.keys())),
        tuple(sorted(found.keys() - wanted.keys())),
        tuple(sorted((found.keys() & wanted.keys()) - fitting)),
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, a PyTorch checkpoint or a training's directory, by name."""
    if path.is_dir():
        inside = [path / "weights.safetensors", path / "train" / "weights.safetensors"]
        path = next((p for p in inside if p.exists()), inside[0])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load(content)
        except SafetensorError as error:
            raise StorageError(f"{path} is truncated or corrupt ({error})") from None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise StorageError(f"{path} holds more than tensors, numbers and text, or is no checkpoint") from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise StorageError(f"{path} is truncated, corrupt or no checkpoint ({type(error).__name__})") from None
    return _state_dict(state, path)


def translated(tensors: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Tensors under the names that `network` has for them; those without one keep their own."""
    numbers = sorted({int(m["number"]) for name in tensors if (m := UNIT.search(name)) and m["number"]})
    places = dict.fromkeys(m[0] for node in network.nodes if (m := re.match(r"stage\d+/unit\d+", node.key)))
    # units that were left out have no tensors, in either
    unit_of = dict(zip(numbers, places, strict=False))
    keys = {node.key: scale_key(node) for node in network.nodes if isinstance(node.op, BatchNorm | Activation)}
    paths = {node.key: isinstance(node.op, BatchNorm) for node in network.nodes}
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith(PASSED_OVER):
            key, value = _translated(name.removeprefix("module.").removeprefix("features."), tensor, unit_of, keys)
            found[_by_path(key, paths)] = value
    return found


def _by_path(name: str, paths: Mapping[str, bool]) -> str:
    """The tensor of a module whose path is a node's key. paths: for every key whether its node is a normalisation."""
    path, _, kind = name.rpartition(".")
    key = path.replace(".", "/")
    if paths.get(key) and kind in NORMALISATION:
        return f"{key}/{NORMALISATION[kind]}"
    return key if key in paths and kind == "weight" else name


def _translated(name: str, tensor: Tensor, unit_of: Mapping[int, str], keys: Mapping[str, str]) -> tuple[str, Tensor]:
    if unit := UNIT.fullmatch(name):
        place = unit["place"].replace(".", "/") if unit["place"] else unit_of.get(int(unit["number"]))
        if place is None:
            return name, tensor
        conv, norm = (f"{place}/{LAYERS[unit['layer']]}_{kind}" for kind in ("conv", "bn"))
        rest = unit["rest"]
    elif end := re.fullmatch(r"(first_conv|feature_mix_layer|init_block|final_block)\.(.+)", name):
        block, rest = ENDS.get(end[1], end[1]), end[2]
        conv, norm = f"{block}/conv", f"{block}/bn"
    elif last := re.fullmatch(r"(?:classifier\.linear|output)\.(weight|bias)", name):
        return ("output" if last[1] == "weight" else "output/bias"), tensor
    else:
        return name, tensor
    if rest == "conv.weight":
        return conv, tensor
    if (parts := re.fullmatch(r"bn\.(\w+)", rest)) and parts[1] in NORMALISATION:
        return f"{norm}/{NORMALISATION[parts[1]]}", tensor
    if re.fullmatch(r"activ\..*scaling_impl\.(learned_)?value", rest):
        return f"{keys.get(norm, norm)}/log2_range", tensor
    return name, tensor


def _state_dict(state: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "weights"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise StorageError(f"{path} is no checkpoint: it holds a {type(state).__name__}")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _few(names: tuple[str, ...] | list[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
