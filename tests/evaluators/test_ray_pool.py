"""Evaluations in processes of Ray: measured as in one process, whatever dies, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bitwright import Architecture
from bitwright.datasets import Dataset, Images
from bitwright.errors import ConfigError, DistributedError, InvalidArchitecture
from bitwright.evaluators import Evaluator
from bitwright.evaluators._ray_pool import ENVIRONMENT, RayPool
from bitwright.evaluators.from_scratch import FromScratch
from bitwright.journal import Journal
from bitwright.search import search
from bitwright.spaces.enas_macro import EnasMacro
from bitwright.strategies.random_search import RandomSearch
from bitwright.train.recipe import Recipe
from bitwright.trial import Measurement

ray = pytest.importorskip("ray")

PROCESSORS = 3
TINY = EnasMacro(image=(1, 4, 4), classes=2, layers=2, filters=4, ops="enas", layer_precision="binary")
# what befalls an evaluation
NOTHING, ERROR, BUG, DEATH, DEATHS, MEETING = range(6)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Of this process, which pools use and leave as it is."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        ray.init("local", num_cpus=PROCESSORS, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield
        assert ray.is_initialized()
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def pool(cluster: None, folder: Path) -> Iterator[RayPool]:
    with RayPool(partial(Numbers, folder), workers=2, retries=1, deterministic=True) as pool:
        yield pool


@dataclass
class Numbers(Evaluator):
    """The accuracy is a tenth of the first choice; the second is a fate. Seconds are the number of the process."""

    folder: Path
    deterministic = True

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Measurement]:
        return [self._measure(*architecture.choices) for architecture in architectures]

    def _measure(self, number: int, fate: int) -> Measurement:
        times = len(list(self.folder.glob(f"{number}-{fate}-*")))
        (self.folder / f"{number}-{fate}-{times}").touch()
        if fate == ERROR:
            raise InvalidArchitecture("this is not allowed")
        if fate == BUG:
            raise ZeroDivisionError("nought")
        if fate == DEATHS or (fate == DEATH and not times):
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == MEETING:
            self._wait_for_another()
        return Measurement(number / 10, float(os.getpid()), {"number": float(number)})

    def _wait_for_another(self) -> None:
        """Until two evaluations are under way, which never happens in one process."""
        until = time.monotonic() + 300
        while len(list(self.folder.glob(f"*-{MEETING}-*"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)


def architectures(*fates: int) -> list[Architecture]:
    return [Architecture("numbers", choices) for choices in enumerate(fates)]


def accuracies(measurements: Sequence[Measurement]) -> list[float]:
    return [m.accuracy for m in measurements]


def dies_and_then_refuses(folder: Path) -> Evaluator:
    if not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    raise ConfigError("there are no digits here")


def alone(save_in: Path | None = None) -> FromScratch:
    pixels = torch.randint(0, 256, (16, 4, 4, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = Images(pixels, torch.arange(16) % 2)
    return FromScratch(TINY, Dataset("two", ("a", "b"), part, part, part), Recipe(epochs=2, batch=8), save_in=save_in)


def test_evaluations_are_at_the_same_time_and_in_processes_of_their_own(pool: RayPool) -> None:
    found = pool.evaluate(architectures(*[MEETING] * 9))
    assert accuracies(found) == [i / 10 for i in range(9)]
    processes = {m.seconds for m in found}
    assert len(processes) == 2 and os.getpid() not in processes
    again = pool.evaluate(architectures(NOTHING, NOTHING, NOTHING))  # by the same workers
    assert {m.seconds for m in again} <= processes
    assert pool.evaluate([]) == []


def test_a_worker_that_is_killed_loses_nothing(pool: RayPool, folder: Path, tmp_path: Path) -> None:
    with Journal(tmp_path / "log") as pool.journal:
        found = pool.evaluate(architectures(NOTHING, DEATH, NOTHING, NOTHING, DEATH))
    assert accuracies(found) == [i / 10 for i in range(5)]
    assert len(list(folder.glob(f"*-{DEATH}-*"))) == 4
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.partition(" has died and is replaced, 1 of 1 times: ")[0] for line in sorted(lines)] == [
        f"the worker of numbers(1 {DEATH})",
        f"the worker of numbers(4 {DEATH})",
    ]


def test_an_idle_worker_may_die_too(pool: RayPool) -> None:
    before = pool.evaluate(architectures(NOTHING, NOTHING))
    for process in {m.seconds for m in before}:
        os.kill(int(process), signal.SIGKILL)
    after = pool.evaluate(architectures(NOTHING, NOTHING))
    assert accuracies(after) == accuracies(before)
    assert not {m.seconds for m in after} & {m.seconds for m in before}


def test_errors_come_through_as_they_are(pool: RayPool) -> None:
    with pytest.raises(InvalidArchitecture) as raised:
        pool.evaluate(architectures(NOTHING, ERROR, NOTHING))
    assert type(raised.value) is InvalidArchitecture and str(raised.value) == "this is not allowed"
    with pytest.raises(ZeroDivisionError, match="in _measure"):  # with the lines of the worker
        pool.evaluate(architectures(NOTHING, NOTHING, BUG))
    assert accuracies(pool.evaluate(architectures(NOTHING))) == [0.0]  # others are still evaluated


def test_what_kills_every_worker_is_given_up(pool: RayPool, folder: Path) -> None:
    with pytest.raises(DistributedError, match=rf"^the worker of numbers\(1 {DEATHS}\) has died, 2 in a row: [^\n]*$"):
        pool.evaluate(architectures(NOTHING, DEATHS))
    assert len(list(folder.glob(f"*-{DEATHS}-*"))) == 2


def test_a_worker_that_dies_while_it_starts_is_replaced_and_one_that_cannot_start_says_why(
    cluster: None, tmp_path: Path
) -> None:
    pool = RayPool(partial(dies_and_then_refuses, tmp_path), workers=1, deterministic=True)
    with pool, pytest.raises(ConfigError) as raised:
        pool.evaluate(architectures(NOTHING))
    assert type(raised.value) is ConfigError and str(raised.value) == "there are no digits here"


def test_measurements_of_a_search_are_those_of_one_process(cluster: None, tmp_path: Path) -> None:
    found = []
    with RayPool(partial(alone, tmp_path), workers=2, deterministic=True) as pool:
        for evaluator in (alone(), pool):
            archive = search(RandomSearch(TINY), evaluator, trials=4, batch=4, seed=3, space=TINY)
            found.append([replace(trial.measurement, seconds=0.0) for trial in archive])
    assert found[0] == found[1]
    assert len({m.accuracy for m in found[0]}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 2}, "^ray: 2 workers with 2 processors each are too many for 3$"),
        ({"gpus": 1000}, r"^ray: 2 workers with 1000 GPUs each are too many for \d+$"),
    ],
)
def test_what_a_cluster_has_no_room_for_is_refused(cluster: None, options: dict[str, int], message: str) -> None:
    pool = RayPool(alone, workers=2, deterministic=True, **options)
    with pool, pytest.raises(ConfigError, match=message):
        pool.evaluate(architectures(NOTHING))


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_an_error() -> None:
    program = (
        "from bitwright.evaluators._ray_pool import RayPool\n"
        "from bitwright import Architecture\n"
        "RayPool(list, workers=1, deterministic=True, address='nowhere').evaluate([Architecture('numbers', (0,))])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.stderr.splitlines()[-1].startswith("bitwright.errors.ConfigError: ray: no cluster at nowhere: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "ray: workers are at least 1, got 0"),
        ({"threads": 0}, "ray: threads are at least 1, got 0"),
        ({"retries": -1}, "ray: retries are at least 0, got -1"),
        ({"gpus": -1.0}, "ray: gpus are at least 0, got -1.0"),
    ],
)
def test_senseless_numbers_are_errors(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayPool(alone, **({"workers": 1} | options), deterministic=True)


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^workers are processes of Ray, which is missing; pip install"):
        RayPool(alone, workers=1, deterministic=True)


PROGRAM = """
import os, sys, time
from functools import partial
from pathlib import Path
from bitwright import Architecture
from bitwright.evaluators import Evaluator
from bitwright.evaluators._ray_pool import RayPool

class Sleeper(Evaluator):
    def __init__(self, path):
        self.path = path

    def evaluate(self, architectures):
        (self.path / str(os.getpid())).touch()
        time.sleep(600)

with RayPool(partial(Sleeper, Path(sys.argv[1])), workers=2, deterministic=True) as pool:
    pool.evaluate([Architecture("numbers", (i,)) for i in range(4)])
"""


def processes_of(mark: str) -> set[str]:
    """Those that have this text in their environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.add(path.parent.name)
        except OSError:  # it has just ended
            continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_program_leaves_no_processes(how: signal.Signals, tmp_path: Path) -> None:
    mark = f"BITWRIGHT_TEST={tmp_path}"
    begun = tmp_path / "begun"
    begun.mkdir()
    environment = os.environ | dict([mark.split("=")])
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(begun)],
        env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: len(list(begun.iterdir())) == 2 or program.poll() is not None)
    assert len(processes_of(mark)) > 2
    os.killpg(program.pid, how)  # as a terminal does
    output, _ = program.communicate(timeout=300)
    assert output == ""  # Ray is quiet
    wait_until(lambda: not processes_of(mark))
