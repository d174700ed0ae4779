"""One training on several devices: a process per device, each with its share of every batch.

A process is called a rank, as in torch.distributed. torchrun starts them and ends all when one dies. Rank 0 is the one
that writes files and talks to people.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import BitwrightError, ConfigError, DistributedError
from ..modules import Training, Weights, forward, tensor_names
from ..network import Network

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun tells every process
GONE = (
    "another process of this training has ended, or all were told to end;"
    " the same command with --resume goes on from the last checkpoint"
)
TIMEOUT = timedelta(minutes=10)  # nothing that one rank does alone takes as long; one that is waited for longer is dead
# running statistics are the same on all ranks, or those of rank 0 are what counts; torch 2.13 has a new name for it
NO_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


@dataclass(frozen=True)
class Ranks:
    """rank: of this process. count: of all."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def span(self, count: int) -> slice:
        """This rank's part of `count` things: consecutive ones, as many as the others have or one more or less."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def sum(self, numbers: Tensor) -> Tensor:
        """`numbers` summed over all ranks, in place."""
        if self.count > 1:
            distributed.all_reduce(numbers)
        return numbers

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give `tensors` the values that they have on rank 0."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def ranks() -> Ranks:
    """This process among the others; alone unless torch.distributed has been initialised."""
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    return Ranks()


class Replica(nn.Module):
    """`modules.forward` of a network as a torch module."""

    def __init__(self, network: Network, weights: Weights) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, images: Tensor, training: Training, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        return forward(self.network, self.weights, images, training=training, dtype=dtype)


def replicated(network: Network, weights: Weights) -> DistributedDataParallel:
    """A replica whose gradients are averaged over the ranks while they are computed."""
    # torch says of gradients in channels-last memory that copying them to a bucket takes time
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    trained = {name for name, _ in weights.named_parameters()}
    unused = trained != set(tensor_names(network))
    return DistributedDataParallel(Replica(network, weights), find_unused_parameters=unused, **NO_BUFFERS)


@contextmanager
def launched() -> Iterator[Callable[[torch.device], Ranks]]:
    """Around the work of a process that torchrun may have started, or whoever else sets its variables.

    Yields a function to be called once the device is known, which makes the process group, with nccl on CUDA and gloo
    elsewhere; without torchrun it makes none and says that this process is alone. ConfigError: the device is one that
    ranks would have to share, or is not there.

    Of ranks that fail, as all do when one dies, only the first raises its error; the others exit and say nothing.
    """
    if any(name not in os.environ for name in VARIABLES):
        yield lambda device: Ranks()
        return
    if not distributed.is_available():
        raise ConfigError("this torch is built without torch.distributed; train on one device, without torchrun")
    store, rank, count = next(distributed.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    prefixed = distributed.PrefixStore  # type: ignore[attr-defined]

    def join(device: torch.device) -> Ranks:
        on_cuda = device.type == "cuda"
        distributed.init_process_group(
            "nccl" if on_cuda else "gloo",
            store=prefixed("group", store),
            rank=rank,
            world_size=count,
            timeout=TIMEOUT,
            device_id=_own_device(device) if on_cuda else None,
        )
        return Ranks(rank, count)

    try:
        with _in_one_line(), _terminated_in_one_line():
            yield join
            if distributed.is_initialized():
                distributed.barrier()  # so that no rank leaves while another needs it
                distributed.destroy_process_group()
    except (BitwrightError, OSError, KeyboardInterrupt) as error:
        if not _fails_first(prefixed("bitwright", store)):
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        raise


def _own_device(device: torch.device) -> torch.device:
    """The CUDA device of this rank, which becomes the current one: number LOCAL_RANK."""
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.index is not None and int(os.environ["WORLD_SIZE"]) > 1:
        raise ConfigError(f"several processes cannot share {device}; say --device cuda, and each takes its own")
    if device.index is None:
        if local >= there:
            raise ConfigError(f"process {local} of this machine has no CUDA device; torch sees {there}")
        device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


@contextmanager
def _in_one_line() -> Iterator[None]:
    """DistributedError in place of what torch says when another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if not isinstance(error, distributed.DistError) and not any(word in text for word in ("gloo", "nccl")):
            raise
        raise DistributedError(GONE) from None


@contextmanager
def _terminated_in_one_line() -> Iterator[None]:
    """DistributedError where torchrun ends this process because another is gone, which it may do before this one sees
    that itself."""

    def stop(signal_number: int, frame: object) -> None:
        raise DistributedError(GONE)

    if threading.current_thread() is not threading.main_thread():  # the others cannot be interrupted
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fails_first(store: Any) -> bool:
    """Whether no other rank has failed before; True too if that cannot be found out."""
    try:
        return int(store.add("failed", 1)) == 1
    except RuntimeError:
        return True


def gathering(model: nn.Module | None) -> AbstractContextManager[None]:
    """Around a forward and backward pass whose gradients stay on this rank, until a later pass averages the sum."""
    if isinstance(model, DistributedDataParallel):
        silent: AbstractContextManager[None] = model.no_sync()
        return silent
    return nullcontext()
