"""Evaluating architectures side by side on Ray: in processes of this machine, or of a cluster that is running."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from types import TracebackType
from typing import Any

import torch

from ..architecture import Architecture
from ..errors import BitwrightError, ConfigError, DistributedError
from ..journal import Journal
from ..kernels import keep_freed_memory
from ..trial import Measurement
from . import Evaluator

LONGEST_REASON = 200  # characters of what Ray says of a death
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers of no GPU of their own see those that there are
}


class RayPool(Evaluator):
    """Workers with an evaluator each, which loads its data once. They are handed architectures one by one as they
    become free, so that batches of at least as many architectures as there are workers keep all of them busy.

    It is for evaluators that measure each architecture by itself and have nothing to prepare; measurements are then
    those of one such evaluator, with as many threads, but for the seconds they take. Close it, or use it in `with`.
    """

    def __init__(
        self,
        make: Callable[[], Evaluator],
        *,
        workers: int,
        deterministic: bool,
        address: str = "",
        threads: int = 1,
        gpus: float = 0.0,
        retries: int = 3,
        journal: Journal | None = None,
    ) -> None:
        """make: called once in every worker; a function of a module that workers can import, or a partial of one.
        deterministic: whether the evaluators that it makes are.
        address: of a running cluster, auto for the one of this machine, ray://HOST:PORT from outside. Without one, a
            cluster on this machine is started with the first evaluation, and ended by `close`. Where this process is
            connected already, that connection is used and left as it is.
        threads, gpus: of each worker. Several can share a GPU, each with a part of it.
        retries: how often an architecture is tried again whose worker has died.
        """
        for name, value, least in (("workers", workers, 1), ("threads", threads, 1), ("retries", retries, 0)):
            if value < least:
                raise ConfigError(f"ray: {name} are at least {least}, got {value}")
        if gpus < 0:
            raise ConfigError(f"ray: gpus are at least 0, got {gpus}")
        self.ray = _imported()
        self.make, self.workers, self.address, self.retries = make, workers, address, retries
        self.threads, self.gpus = threads, gpus
        self.deterministic = deterministic
        self.journal = journal or Journal()
        self.connected = False  # by this pool
        self.free: list[Any] = []  # workers, as handles of Ray
        self.busy: dict[Any, tuple[Any, _Task]] = {}  # workers and what they are at, by the reference to its result

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        """Measurements in the order of the architectures; an error of an evaluator is raised here.

        DistributedError: a worker has died once more often than there are retries.
        """
        if not architectures:
            return []
        try:
            self._connect()
            return self._evaluate([_Task(*numbered) for numbered in enumerate(architectures)])
        except BaseException:
            self._end(*(worker for worker, _ in self.busy.values()))  # nobody waits any more for what they are at
            self.busy = {}
            raise

    def _evaluate(self, tasks: Sequence[_Task]) -> list[Measurement]:
        waiting = deque(tasks)
        found: dict[int, Measurement] = {}
        while len(found) < len(tasks):
            while self.free and waiting:
                self._give(self.free.pop(), waiting.popleft())
            (reference,), _ = self.ray.wait(list(self.busy), num_returns=1)
            worker, task = self.busy[reference]
            try:
                measurement = self._result(reference)
            except _Died as death:
                waiting.extendleft(self._replaced(reference, death))
                continue
            del self.busy[reference]
            self.free.append(worker)
            if task.position >= 0:
                found[task.position] = measurement
        return [found[task.position] for task in tasks]

    def _connect(self) -> None:
        """See to it that there are as many workers as there should be."""
        if not self.ray.is_initialized():
            self.free = []  # if there was a connection, somebody else has ended it, and the workers with it
            self._start_ray()
        missing = self.workers - len(self.free) - len(self.busy)
        if missing:
            self._check_room()
        for _ in range(missing):
            self._start_worker()

    def _check_room(self) -> None:
        """ConfigError if the cluster is too small, in which workers would be waited for without end."""
        there = self.ray.cluster_resources()
        for name, what, each in (("CPU", "processors", self.threads), ("GPU", "GPUs", self.gpus)):
            if there.get(name, 0) < self.workers * each:
                raise ConfigError(
                    f"ray: {self.workers} workers with {each:g} {what} each are too many for {there.get(name, 0):g}"
                )

    def _start_ray(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        local = {"address": "local", "num_cpus": self.workers * self.threads, "include_dashboard": False}
        where: dict[str, Any] = {"address": self.address} if self.address else local
        try:
            self.ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"ray: no cluster at {self.address or 'this machine'}: {reason}") from None
        self.connected = True

    def _start_worker(self, start: _Task | None = None) -> None:
        actor = self.ray.remote(num_cpus=self.threads, num_gpus=self.gpus)(_Worker)
        self._give(actor.remote(), start or _Task(-1, None))

    def _give(self, worker: Any, task: _Task) -> None:
        if task.architecture is None:
            called = worker.start.remote(self.make, self.threads, os.getcwd())
        else:
            called = worker.evaluate.remote(task.architecture)
        self.busy[called] = worker, task

    def _result(self, reference: Any) -> Any:
        """What a worker has returned; _Died if it could not."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (BitwrightError, OSError)):  # others keep the worker's traceback
                raise error.cause from None
            raise
        except self.ray.exceptions.RayError as error:
            words = (str(error).splitlines() or [type(error).__name__])[-1]  # the lines before are numbers of Ray's
            raise _Died(shorten(words, LONGEST_REASON)) from None

    def _replaced(self, reference: Any, death: _Died) -> list[_Task]:
        """What is to be tried again of a dead worker's task, once there is another worker."""
        worker, task = self.busy.pop(reference)
        self._end(worker)
        lost = "a worker that was starting" if task.architecture is None else f"the worker of {task.architecture}"
        if task.deaths >= self.retries:
            raise DistributedError(f"{lost} has died, {task.deaths + 1} in a row: {death}")
        again = replace(task, deaths=task.deaths + 1)
        self.journal.line(f"{lost} has died and is replaced, {again.deaths} of {self.retries} times: {death}")
        if task.architecture is None:
            self._start_worker(again)
            return []
        self._start_worker()
        return [again]

    def _end(self, *workers: Any) -> None:
        for worker in workers:
            with contextlib.suppress(Exception):  # it may be dead already, and the cluster too
                self.ray.kill(worker)

    def close(self) -> None:
        """End the workers, and the cluster or the connection if this pool has made it. It can be used again."""
        self._end(*self.free, *(worker for worker, _ in self.busy.values()))
        self.free, self.busy = [], {}
        if self.connected:
            self.connected = False
            self.ray.shutdown()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Task:
    """position: among the measurements. architecture: None for a worker's start, whose position is -1.
    deaths: of workers at it, so far.
    """

    position: int
    architecture: Architecture | None
    deaths: int = 0


class _Died(Exception):
    """A worker, in the words of Ray."""


class _Worker:
    """What runs in a process of its own; a Ray actor is made of it. An error in the constructor of an actor, or in
    reading its arguments, looks like a death, so it has none.
    """

    evaluator: Evaluator

    def start(self, make: Callable[[], Evaluator], threads: int, folder: str) -> None:
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(folder)  # so that paths mean here what they mean to whoever made the pool
        torch.set_num_threads(threads)
        keep_freed_memory()
        self.evaluator = make()

    def evaluate(self, architecture: Architecture) -> Measurement:
        (measurement,) = self.evaluator.evaluate([architecture])
        return measurement


def _imported() -> Any:
    """The package ray; ConfigError if it is missing."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError("workers are processes of Ray, which is missing; pip install 'bitwright[ray]'") from None
    return ray
