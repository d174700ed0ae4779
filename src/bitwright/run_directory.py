"""A run on disk: what `search`, `train` and `evaluate` leave in a directory and find there.

RUN/config.yaml            every option, resolved; the run can be repeated from it
RUN/archive.sqlite         every evaluated architecture
RUN/search.log  events/    the log, and TensorBoard's
RUN/checkpoints/           search.pt, from which a search goes on; standalone/, short trainings for the report
RUN/report/                report.md, report.json, pictures
RUN/best.json              the architecture that was found; it comes last, so a run that has it is complete
RUN/train/                 a training: config.yaml, network.json, checkpoint.pt, best.safetensors (the weights of the
                           best epoch so far), train.log, report.json (every epoch), events/, and in the end
                           weights.safetensors and result.json, and once lowered integer.safetensors; checkpoints/ if
                           those of single epochs are gathered; further trainings are train-2, train-3, ...
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
import yaml

from . import files
from .architecture import Architecture
from .errors import ConfigError, StorageError
from .evaluators import Evaluator
from .evaluators.from_scratch import FromScratch
from .evaluators.shared_weights import SharedWeights
from .experiment import Experiment, read_yaml
from .experiment.trained import found_architecture, latest_training, read_json
from .journal import Journal
from .log_lines import SampledArchitecture, architecture_lines, controller_line, evaluation_lines
from .modules import Weights
from .network import Network
from .networks.checkpoints import Loaded, initialise, read_tensors
from .report.search_report import SearchReport, write_report
from .search import LEARNED, search
from .strategies import Strategy
from .train import checkpoint
from .train.distributed import ranks
from .train.fit import EpochEnd, Fitted, fit
from .trial import Archive, Trial

INTEGER_GRAPH = "integer.safetensors"

if TYPE_CHECKING:
    from rich.console import Console

LOG_UPDATES = 5  # a controller line in the log for so many updates, as the published program
SAMPLING_TRIES = 50  # draws per wanted architecture before a budget is taken to exclude nearly everything


class SearchRun:
    """A search in its directory."""

    def __init__(
        self, experiment: Experiment, path: Path, console: Console | None = None, origin: Path | None = None
    ) -> None:
        """origin: a search whose trials the strategy is told first, and whose shared weights are gone on with."""
        self.experiment, self.path, self.console, self.origin = experiment, path, console, origin
        self.options = experiment.search
        self.checkpoint = path / "checkpoints" / "search.pt"

    def execute(self) -> SearchReport:
        """Search to the end, from the last checkpoint if there is one."""
        with alone_in(self.path), contextlib.closing(Archive(self.path / "archive.sqlite")) as self.archive:
            return self._execute()

    def _execute(self) -> SearchReport:
        experiment = self.experiment
        self.strategy: Strategy = experiment.strategy()
        with contextlib.ExitStack() as stack:
            self.evaluator = self._evaluator(stack)
            self.figures: list[dict[str, float]] = []  # of the strategy, at the end of each round
            self.seconds = 0.0
            self._restore()
            journal = Journal(
                self.path / "search.log", self.path / "events", self.console,
                first_step=self._steps + 1, seconds=self.seconds,
            )  # fmt: skip
            self.journal = self.evaluator.journal = stack.enter_context(journal)
            self.began = self.saved = time.monotonic()
            self._search()
            report = self._conclude()
        write_best(self.path, report.best)
        return report

    def _evaluator(self, stack: contextlib.ExitStack) -> Evaluator:
        experiment, folder = self.experiment, self.path / "checkpoints" / "evaluations"
        if not self.options.workers:
            return experiment.evaluator(save_in=folder)
        from .evaluators._ray_pool import RayPool

        pool = RayPool(
            partial(_made_again, experiment.values, folder),
            workers=self.options.workers,
            address=self.options.ray_address,
            deterministic=experiment.deterministic,
            threads=max(experiment.threads, 1),
            gpus=1.0 if experiment.device.type == "cuda" else 0.0,
        )
        return stack.enter_context(contextlib.closing(pool))

    @property
    def _steps(self) -> int:
        """Where the evaluator's learning is: training steps of a supernet, else trials."""
        return self.evaluator.steps if isinstance(self.evaluator, SharedWeights) else len(self.archive.of("search"))

    @property
    def _per_round(self) -> int:
        return self.options.updates * self.options.batch

    def _search(self) -> None:
        experiment = self.experiment
        total = experiment.rounds * self._per_round
        done = len(self.archive.of("search"))
        shown = contextlib.nullcontext() if experiment.trains_supernet else self.journal.progress("trials", total, done)
        with shown as self.progress:
            search(
                self.strategy,
                self.evaluator,
                trials=total,
                batch=self.options.batch,
                round_trials=self._per_round,
                seed=experiment.seed,
                archive=self.archive,
                told=done,
                space=experiment.space,
                tick=self._tick,
                after_batch=self._after_batch,
                after_round=self._after_round,
            )

    def _state(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.state_dict(),
            "evaluator": self.evaluator.state_dict(),
            "trials": len(self.archive),
            "figures": self.figures,
            "seconds": self.seconds + time.monotonic() - self.began,
        }

    def _restore(self) -> None:
        if not self.checkpoint.exists():
            self.archive.truncate(0)
            if self.origin is not None:
                self._take_over(self.origin)
            return
        state = checkpoint.load(self.checkpoint, self.experiment.device)
        with checkpoint.restoring(self.checkpoint):
            trials, self.figures, self.seconds = state["trials"], state["figures"], state["seconds"]
            self.strategy.load_state_dict(state["strategy"])
            self.evaluator.load_state_dict(state["evaluator"])
        self.archive.truncate(trials)

    def _take_over(self, origin: Path) -> None:
        """Tell the strategy another search's trials, with the costs that are asked for now, and take its weights."""
        experiment = self.experiment
        with contextlib.closing(Archive(origin / "archive.sqlite")) as archive:
            trials = archive.of("search")
        if not trials or any(t.architecture.space != experiment.space.name for t in trials):
            raise ConfigError(f"{origin} holds no trials of {experiment.space.name} to go on from")
        architectures = [experiment.space.architecture(t.architecture.choices) for t in trials]
        measurements = [
            replace(t.measurement, costs={**t.measurement.costs, **experiment.costs_of(a)})
            for t, a in zip(trials, architectures, strict=True)
        ]
        told = self.archive.record(architectures, measurements, purpose="told")
        for start in range(0, len(told), self.options.batch):
            self.strategy.tell(told[start : start + self.options.batch])
        left = origin / "checkpoints" / "search.pt"
        if experiment.trains_supernet and left.exists():
            state = checkpoint.load(left, experiment.device)
            with checkpoint.restoring(left):
                self.evaluator.load_state_dict(state["evaluator"])

    def _save(self) -> None:
        checkpoint.save(self.checkpoint, self._state())
        self.saved = time.monotonic()

    def _tick(self) -> None:
        if time.monotonic() - self.saved > self.options.checkpoint_seconds:
            self._save()

    def _after_batch(self, trials: Sequence[Trial]) -> None:
        if self.progress is not None:
            self.progress.advance(len(trials))
        figures = self.strategy.figures()
        update = len(self.archive.of("search")) // self.options.batch
        if "entropy" not in figures or (update - 1) % LOG_UPDATES:  # the line is of a controller
            return
        accuracy = float(np.mean([t.measurement.accuracy for t in trials]))
        self.journal.line(
            controller_line(
                step=update - 1, loss=figures["loss"], entropy=figures["entropy"], rate=figures["learning_rate"],
                norm=figures["gradient_norm"], accuracy=accuracy, baseline=figures["baseline"],
                minutes=self.journal.minutes,
            ),
            quiet=True,
        )  # fmt: skip

    def _after_round(self, number: int) -> None:
        trials = self.archive.of("search")[-self._per_round :]
        mean = float(np.mean([t.measurement.accuracy for t in trials]))
        self.figures.append(dict(self.strategy.figures()))
        sampled = self.experiment.trains_supernet  # elsewhere a sample costs as much as a trial
        listed = self._sample(number) if sampled else trials
        self.journal.line(evaluation_lines(epoch=number + 1, step=self._steps, accuracy=mean), quiet=True)
        self.journal.scalars(
            {"search/accuracy": mean} | {f"search/{name}": value for name, value in self.figures[-1].items()},
            self._steps,
        )
        best = max(t.measurement.accuracy for t in listed)
        entropy = f"  entropy {self.figures[-1]['entropy']:.2f}" if "entropy" in self.figures[-1] else ""
        console = self.journal.console
        if console is not None:
            console.print(
                f"round {number + 1:>3d}/{self.experiment.rounds}  accuracy of {self._per_round} trials {mean:.4f}"
                f"{entropy}  best of {f'{len(listed)} samples' if sampled else 'them'} {best:.4f}"
                f"  {self.journal.minutes:.1f} min",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        self._save()

    def _sample(self, number: int) -> list[Trial]:
        """What the strategy would take now, listed in the log."""
        sampled = self.strategy.ask(self.options.samples, np.random.default_rng([self.experiment.seed, 2, number]))
        measured = self.archive.record(sampled, self.evaluator.evaluate(sampled), purpose="sample")
        half = len(sampled[0].choices) // 2
        listed = [
            SampledArchitecture(t.architecture.choices[:half], t.architecture.choices[half:], t.measurement.accuracy)
            for t in measured
        ]
        self.journal.line(architecture_lines(listed), quiet=True)
        return measured

    def _conclude(self) -> SearchReport:
        """Rank candidates on all validation images, beside as many random architectures; train some from scratch."""
        experiment, options = self.experiment, self.options
        self.archive.truncate(len([t for t in self.archive if t.purpose in (*LEARNED, "sample")]))
        candidates, drawn = self._ranked() if experiment.trains_supernet else (self._best(options.candidates), [])
        best = max(
            candidates,
            key=lambda t: (experiment.objective.is_met(t.measurement.costs), experiment.objective(t.measurement)),
        )
        report = SearchReport(
            space=experiment.space,
            objective=experiment.objective,
            archive=self.archive,
            best=best,
            candidates=candidates,
            random=drawn,
            compared=self._trained_alone(candidates, drawn, best) if experiment.trains_supernet else [],
            standalone_epochs=options.standalone_epochs,
            round_trials=self._per_round,
            entropies=[f["entropy"] for f in self.figures if "entropy" in f],
            seconds=self.seconds + time.monotonic() - self.began,
            device=experiment.device,
        )
        write_report(report, self.path / "report")
        return report

    def _ranked(self) -> tuple[list[Trial], list[Trial]]:
        """Candidates and random architectures, measured on all validation images with the shared weights."""
        experiment, options = self.experiment, self.options
        assert isinstance(self.evaluator, SharedWeights)
        late = self._late_best(-(-options.candidates // 2))
        fresh = self._sampled(
            self.strategy,
            options.candidates - len(late),
            [experiment.seed, 3],
            {experiment.space.canonical(a) for a in late},
        )
        drawn = self._sampled(None, options.candidates, [experiment.seed, 4], set())
        measured = {}
        for purpose, architectures in (("candidate", [*late, *fresh]), ("random", drawn)):
            found = []
            with self.journal.progress(f"ranking: {purpose}s", len(architectures)) as progress:
                for architecture in architectures:
                    found += self.evaluator.evaluate_fully([architecture])
                    progress.advance()
            measured[purpose] = self.archive.record(architectures, found, purpose)
        return measured["candidate"], measured["random"]

    def _trained_alone(
        self, candidates: Sequence[Trial], drawn: Sequence[Trial], best: Trial
    ) -> list[tuple[Trial, Trial]]:
        """Some of the ranked ones, the best among them, each with what a training from scratch gave."""
        experiment, options = self.experiment, self.options
        chosen = _spread(candidates, best, -(-options.standalone // 2)) + _spread(drawn, None, options.standalone // 2)
        if not chosen:
            return []
        recipe = replace(experiment.training, epochs=options.standalone_epochs)
        alone = FromScratch(
            experiment.space, experiment.dataset, recipe, seed=experiment.seed, journal=self.journal,
            save_in=self.path / "checkpoints" / "standalone",
        )  # fmt: skip
        architectures = [t.architecture for t in chosen]
        return list(
            zip(chosen, self.archive.record(architectures, alone.evaluate(architectures), "standalone"), strict=True)
        )

    def _best(self, count: int) -> list[Trial]:
        """The trials of different networks with the highest rewards, those within the budgets first."""
        experiment = self.experiment
        chosen: dict[Architecture, Trial] = {}
        for trial in sorted(
            self.archive.of("search"),
            key=lambda t: (not experiment.objective.is_met(t.measurement.costs), -experiment.objective(t.measurement)),
        ):
            chosen.setdefault(experiment.space.canonical(trial.architecture), trial)
        return list(chosen.values())[:count]

    def _late_best(self, count: int) -> list[Architecture]:
        """Different architectures of the search's second half with the highest rewards; in the budgets if any is."""
        experiment = self.experiment
        trials = [t for t in self.archive if t.purpose in ("search", "sample")]
        trials = trials[len(trials) // 2 :]
        within = [t for t in trials if experiment.objective.is_met(t.measurement.costs)]
        chosen: dict[Architecture, Architecture] = {}
        for trial in sorted(within or trials, key=lambda t: -experiment.objective(t.measurement)):
            chosen.setdefault(experiment.space.canonical(trial.architecture), trial.architecture)
            if len(chosen) == count:
                break
        return list(chosen.values())

    def _sampled(
        self, strategy: Strategy | None, count: int, seed: list[int], known: set[Architecture]
    ) -> list[Architecture]:
        """Different architectures, the strategy's or uniform ones; in the budgets unless these exclude nearly all."""
        experiment, rng = self.experiment, np.random.default_rng(seed)
        within: dict[Architecture, Architecture] = {}
        beyond: dict[Architecture, Architecture] = {}
        for _ in range(SAMPLING_TRIES):
            asked = (
                [experiment.space.sample(rng) for _ in range(count)]
                if strategy is None
                else strategy.ask(max(count, 1), rng)
            )
            for architecture in asked:
                canonical = experiment.space.canonical(architecture)
                if canonical not in known:
                    costs = experiment.costs_of(architecture)
                    (within if experiment.objective.is_met(costs) else beyond).setdefault(canonical, architecture)
            if len(within) >= count:
                break
        return [*within.values(), *beyond.values()][:count]


def _spread(trials: Sequence[Trial], first: Trial | None, count: int) -> list[Trial]:
    """`count` trials from the best to the worst at equal distances, `first` among them if given."""
    ranked = sorted((t for t in trials if t is not first), key=lambda t: -t.measurement.accuracy)
    wanted = count - (first is not None)
    places = np.linspace(0, len(ranked) - 1, max(wanted, 0)).round().astype(int).tolist() if ranked else []
    return ([first] if first is not None and count else []) + [ranked[i] for i in dict.fromkeys(places)]


def start_search(
    experiment: Experiment,
    path: Path,
    *,
    resume: bool,
    console: Console | None = None,
    origin: Path | None = None,
) -> SearchRun:
    """A search in a new directory, or with `resume` in the one where it was started.

    origin: a search of the same space whose trials and shared weights this one goes on from.
    """
    recorded = path / "origin.json"
    if resume and recorded.exists():
        origin = Path(read_json(recorded)["run"])
    elif origin is not None:
        if resume:
            raise ConfigError(f"{path} was not started from another search; leave out --from")
        if not (origin / "archive.sqlite").exists():
            raise ConfigError(f"{origin} holds no search to go on from")
    claim_search(path, experiment.values, experiment.check, resume=resume)
    if origin is not None:
        files.write_json(recorded, {"run": str(origin.absolute())})
    return SearchRun(experiment, path, console, origin)


def write_best(run: Path, best: Trial) -> None:
    """best.json, which says what was found, and by being there that the search is complete."""
    content = {
        "architecture": str(best.architecture),
        "choices": list(best.architecture.choices),
        "validation_accuracy": best.measurement.accuracy,
        "costs": dict(best.measurement.costs),
    }
    files.write_json(run / "best.json", content)


def _made_again(values: dict[str, Any], folder: Path) -> Evaluator:
    """The evaluator of an experiment, in a process of its own."""
    return Experiment(values).evaluator(save_in=folder)


def claim_search(path: Path, values: dict[str, Any], check: Callable[[], object], *, resume: bool) -> None:
    """Take a new directory for a search with these options, once `check` finds nothing wrong with them.

    resume: or the one where it was started. ConfigError: it holds a run, of other options, or anything else.
    """
    config = path / "config.yaml"
    if config.exists():
        if not resume:
            raise ConfigError(f"{path} holds a run already; add --resume to go on with it, or choose another --out")
        require_same(read_yaml(config), values, config)
    elif path.exists() and any(path.iterdir()):
        raise ConfigError(f"{path} is not empty and holds no run; choose another --out")
    else:
        check()
        write_config(config, values)


def check_resumed_training(path: Path, values: dict[str, Any], *, resume: bool) -> None:
    """ConfigError unless the training in `path` may be gone on with, and has these options."""
    if not resume:
        raise ConfigError(f"{path} holds a training already; add --resume to go on with it, or choose another --out")
    require_same(read_yaml(path / "config.yaml"), values, path / "config.yaml")


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Keeps a second process from working in the same directory; the system forgets it when the process ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    try:
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"cannot write to {path}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(f"another process is at work in {path}") from None
        except OSError:  # a file system without locks
            pass
        yield


def write_config(path: Path, values: dict[str, Any]) -> None:
    files.write_text(path, yaml.safe_dump(_placed(values), sort_keys=False))


def require_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """A run keeps its configuration; ConfigError names the first option that differs."""
    for key, (was, now) in differing_options(old, new).items():
        raise ConfigError(f"{path} has {key}: {was}, not {now}; a run that is resumed keeps its options")


def differing_options(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Options of `new` by name, such as training.epochs, that `old` has otherwise: (old's or None, new's).

    Those that say only where and how fast is computed are left out.
    """
    ignored = ("device", "threads", "dataset.root", "dataset.workers", "search.workers", "search.ray_address")
    was, now = _flat(_placed(old)), _flat(_placed(new))
    return {key: (was.get(key), now[key]) for key in now if key not in ignored and was.get(key) != now[key]}


def _placed(values: dict[str, Any]) -> dict[str, Any]:
    """The options with paths as absolute ones, so that a run is understood from anywhere."""
    placed = {section: dict(given) if isinstance(given, dict) else given for section, given in values.items()}
    placed["dataset"]["root"] = str(Path(placed["dataset"]["root"]).absolute())
    for section, option in (("space", "network"), ("search", "latency_table")):
        given = placed.get(section, {}).get(option)
        if isinstance(given, str) and given and Path(given).exists():
            placed[section][option] = str(Path(given).absolute())
    return placed


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and key != "budgets"
            else {f"{prefix}{key}": value}
        )
    return flat


class TrainingRun:
    """The training of one architecture in a directory of its own."""

    def __init__(
        self, experiment: Experiment, architecture: Architecture, path: Path, init: Path | None = None
    ) -> None:
        """init: the file of weights to start from, see `networks.checkpoints.initialise`, in place of random ones."""
        self.experiment, self.architecture, self.path = experiment, architecture, path
        self.given_init = None if init is None else init.absolute()

    @property
    def network(self) -> Network:
        return self.experiment.final_space.network(self.architecture)

    @property
    def is_complete(self) -> bool:
        return (self.path / "result.json").exists()

    @classmethod
    def open(cls, path: Path, values: dict[str, Any] | None = None) -> TrainingRun:
        """A training that was started; `values` replace its configuration."""
        experiment = Experiment(read_yaml(path / "config.yaml") if values is None else values)
        return cls(experiment, found_architecture(path / "network.json", experiment.final_space), path)

    @property
    def init(self) -> Path | None:
        """Where its weights start from, as said now or when it was started; else the network that the space is of."""
        if self.given_init is not None:
            return self.given_init
        if (self.path / "network.json").exists():
            recorded = read_json(self.path / "network.json").get("initialised_from")
            return None if recorded is None else Path(recorded)
        return self.experiment.trained_base

    @cached_property
    def initialised(self) -> tuple[Weights, Loaded] | None:
        """The weights to start from, and which of them came from the file."""
        if self.init is None:
            return None
        network = self.experiment.final_space.training_network(self.architecture)
        weights = Weights([network], seed=self.experiment.seed)
        loaded = initialise(weights, network, self.init)
        if self.init == self.experiment.trained_base:
            weights.load_state_dict(self.experiment.quantized_base(self.architecture).state_dict())
        return weights, loaded

    def start(self, *, resume: bool) -> None:
        """Claim the directory, or with `resume` take it as it was left."""
        if (self.path / "network.json").exists():
            check_resumed_training(self.path, self.experiment.values, resume=resume)
            old = TrainingRun.open(self.path)
            if old.architecture != self.architecture:
                raise ConfigError(f"{self.path} trains {old.architecture}, not {self.architecture}")
            if old.init != self.init:
                raise ConfigError(f"{self.path} started from {old.init or 'random weights'}, not {self.init}")
            return
        len(self.network.shapes)  # what does not fit is refused before anything is written
        started = self.initialised
        write_config(self.path / "config.yaml", self.experiment.values)
        origin = {} if started is None else {"initialised_from": str(self.init)} | vars(started[1])
        files.write_json(self.path / "network.json", {"architecture": str(self.architecture)} | origin)

    def execute(
        self, console: Console | None = None, *, stop_after: int | None = None, keep_checkpoints: bool = True
    ) -> Fitted:
        """Train to the end, from the last checkpoint if there is one, or `stop_after` steps further.

        Without `keep_checkpoints` none is written, and a training that is interrupted is lost.
        """
        save_to = self.path / "checkpoint.pt"
        epoch = 0
        if save_to.exists() and keep_checkpoints:
            with checkpoint.restoring(save_to):
                epoch = len(checkpoint.load(save_to)["history"])
            started = None
        else:
            started = self.initialised
        with self._alone(console, epoch) as journal:
            if started is not None:
                journal.line(f"from {self.init}: {started[1]}")
            space = self.experiment.final_space
            fitted = fit(
                space.training_network(self.architecture),
                self.experiment.dataset,
                self.experiment.training,
                seed=self.experiment.seed,
                deployed=self.network,
                initial=None if started is None else started[0].state_dict(),
                journal=journal,
                save_to=save_to if keep_checkpoints else None,
                checkpoint_seconds=self.experiment.search.checkpoint_seconds,
                stop_after=stop_after,
                after_epoch=_EpochFiles(self, epoch),
            )
            if fitted.finished and ranks().is_first:
                self.finish(
                    fitted.weights,
                    {
                        "validation_accuracy": fitted.validation_accuracy,
                        "best_epoch": fitted.best_epoch,
                        "seconds": fitted.seconds,
                        "history": fitted.history,
                    },
                )
        return fitted

    @contextlib.contextmanager
    def _alone(self, console: Console | None, epoch: int) -> Iterator[Journal]:
        """The journal of this process, the only one that writes here; that of other ranks is silent."""
        if not ranks().is_first:
            yield Journal()
            return
        with (
            alone_in(self.path),
            Journal(self.path / "train.log", self.path / "events", console, first_step=epoch + 1) as journal,
        ):
            yield journal

    def finish(self, weights: Weights, figures: Mapping[str, Any]) -> None:
        """Write the weights and, last, the result: what is known of the training and `figures`."""
        self.write_weights(self.path / "weights.safetensors", weights)
        origin = {} if self.init is None else {"initialised_from": str(self.init)}
        files.write_json(self.path / "result.json", {"architecture": str(self.architecture)} | origin | dict(figures))

    def write_weights(self, path: Path, weights: Weights) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.state_dict().items()}
        content = safetensors.torch.save(tensors, {"architecture": str(self.architecture)})
        files.write_atomically(path, lambda file: file.write(content))

    def weights(self, name: str = "weights.safetensors") -> Weights:
        """The trained weights; StorageError if they are missing, corrupt or another network's."""
        path = self.path / name
        weights = Weights([self.network], seed=self.experiment.seed)
        tensors = read_tensors(path)
        expected = {name: tuple(tensor.shape) for name, tensor in weights.state_dict().items()}
        for name in expected.keys() | tensors.keys():
            if expected.get(name) != (tuple(tensors[name].shape) if name in tensors else None):
                raise StorageError(
                    f"{path} does not fit the network: {name} is missing, unexpected or of another shape"
                )
        weights.load_state_dict(tensors)
        return weights.to(self.experiment.device)


class _EpochFiles:
    """What a training writes at the end of every epoch: its report, the best weights, and checkpoints to be kept."""

    def __init__(self, training: TrainingRun, epoch: int) -> None:
        """epoch: the last one that lies behind; what the report says of later ones was lost."""
        self.training, self.path = training, training.path / "report.json"
        self.rows: list[dict[str, float]] = []
        if epoch and self.path.exists():
            with checkpoint.restoring(self.path):
                self.rows = [row for row in read_json(self.path)["epochs"] if row["epoch"] <= epoch]

    def __call__(self, end: EpochEnd) -> None:
        training, number = self.training, end.row["epoch"]
        if end.is_best:
            training.write_weights(training.path / "best.safetensors", end.weights)
        if training.experiment.training.gather_checkpoints and (number <= 10 or number % 10 == 0):
            checkpoint.save(training.path / "checkpoints" / f"epoch-{number}.pt", end.state)
        self.rows.append({**end.row, "images_per_second": end.images_per_second, "seconds": end.state["seconds"]})
        files.write_json(self.path, {"run": self._facts(), "epochs": self.rows})

    def _facts(self) -> dict[str, Any]:
        experiment = self.training.experiment
        return {
            "architecture": str(self.training.architecture),
            "initialised_from": None if self.training.init is None else str(self.training.init),
            "devices": ranks().count,
            "device": str(experiment.device),
            "torch": torch.__version__,
            "images": {"train": len(experiment.dataset.train), "validation": len(experiment.dataset.validation)},
            "epochs": experiment.training.epochs,
        }


def training_path(run: Path, *, resume: bool = False) -> Path:
    """Where the next training of a run goes: the one that was not completed, if there is one, else a new one.

    resume: rather than to a new one, return to the last.
    """
    last = None
    for number in range(1, 10_000):
        path = run / ("train" if number == 1 else f"train-{number}")
        if not (path / "network.json").exists():
            return last if resume and last is not None else path
        if not (path / "result.json").exists():
            return path
        last = path
    raise StorageError(f"{run} holds too many trainings")


def open_trained(run: Path, data: Path | None = None, **options: Any) -> TrainingRun:
    """The newest completed training of a run, which may also be a training itself.

    data: where the data set is now. options: replace those of its configuration, such as device.
    """
    if not run.exists():
        raise ConfigError(f"there is no {run}")
    path = latest_training(run)
    values = read_yaml(path / "config.yaml") | options
    if data is not None:
        values["dataset"] = values["dataset"] | {"root": str(data)}
    return TrainingRun.open(path, values)
