"""What searches for recurrent cells and trainings of them leave on disk, and how they go on from there.

RUN/config.yaml            every option, resolved
RUN/archive.sqlite         every cell that was evaluated
RUN/search.log, events/    the log, scalars for TensorBoard
RUN/checkpoints/search.pt  shared weights, strategy, and where the search was
RUN/best.json, dag.json    the best derived cell; they come last, so a run that has them is complete, unless best.json
                           says that it is provisional: derived on the way
RUN/report/                its picture
RUN/train/                 a training: config.yaml, dag.json, network.json, checkpoint.pt, train.log, events/, and in
                           the end weights.safetensors and result.json; further trainings are train-2, train-3, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from .. import files
from ..errors import ConfigError, StorageError
from ..experiment import LanguageExperiment
from ..experiment.trained import read_json
from ..journal import Journal
from ..networks.checkpoints import read_tensors
from ..run_directory import alone_in, check_resumed_training, claim_search, write_config
from ..strategies import Strategy
from ..train import checkpoint
from ..trial import Archive
from .cell import RecurrentCell, read_dag, write_dag
from .drawing import draw_cell_in
from .model import LanguageModel
from .perplexity import perplexity
from .search import Derived, derive, load_search, search_cells, write_derived
from .step import calibration_words
from .supernet import SharedLanguageModel
from .training import FittedLanguageModel, fit_language_model

if TYPE_CHECKING:
    from rich.console import Console


class CellSearchRun:
    """A search for a cell in its directory."""

    def __init__(
        self, experiment: LanguageExperiment, path: Path, console: Console | None = None, init: Path | None = None
    ) -> None:
        """init: a search or a training whose weights the shared ones start from, where it has them."""
        self.experiment, self.path, self.console, self.init = experiment, path, console, init

    def start(self, *, resume: bool) -> None:
        """Claim the directory, or with `resume` take it as it was left."""
        claim_search(self.path, self.experiment.values, self._check, resume=resume)

    def _check(self) -> None:
        self.experiment.check()
        if self.init is not None:
            adopt(self.opened(Journal())[0].model, tensors_of(self.init))

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "search.pt"

    @property
    def is_complete(self) -> bool:
        best = self.path / "best.json"
        return best.exists() and not read_json(best).get("provisional", False)

    def execute(self) -> Derived:
        """Search to the end, from the last checkpoint if there is one."""
        with (
            alone_in(self.path),
            Journal(self.path / "search.log", self.path / "events", self.console) as journal,
        ):
            evaluator, strategy = self.opened(journal)
            if self.init is not None and not self.checkpoint.exists():
                journal.line(f"from {self.init}: {adopt(evaluator.model, tensors_of(self.init))} tensors")
            found = search_cells(strategy, evaluator, self.experiment.search, path=self.path)
        assert found is not None
        self.draw(found.cell)
        return found

    def opened(self, journal: Journal) -> tuple[SharedLanguageModel, Strategy]:
        """Shared weights and strategy as they are at the start."""
        experiment = self.experiment
        evaluator = SharedLanguageModel(
            experiment.space, experiment.corpus, experiment.supernet, experiment.model, experiment.shared,
            seed=experiment.seed, journal=journal,
        )  # fmt: skip
        return evaluator, experiment.strategy()

    def restored(self, journal: Journal | None = None) -> tuple[SharedLanguageModel, Strategy]:
        """Shared weights and strategy as the last checkpoint has them; ConfigError if there is none."""
        evaluator, strategy = self.opened(journal or Journal())
        if not self.checkpoint.exists():
            raise ConfigError(f"{self.path} holds no checkpoint of a search")
        load_search(strategy, evaluator, self.checkpoint)
        return evaluator, strategy

    def draw(self, cell: RecurrentCell) -> list[Path]:
        """Pictures of the cell under report/."""
        return draw_cell_in(self.path / "report", cell, self.experiment.space.averaged(cell))


def derive_again(
    experiment: LanguageExperiment, path: Path, count: int, out: Path, console: Console | None = None
) -> Derived:
    """The best of `count` cells that the strategy of the search in `path` samples, written to out/best.json, dag.json.

    path: a search; or a training, whose weights its cell's part of the shared ones are then, and whose strategy has
    learned nothing.
    """
    run = CellSearchRun(experiment, path)
    with Journal(console=console) as journal:
        if run.checkpoint.exists():
            evaluator, strategy = run.restored(journal)
        else:
            evaluator, strategy = run.opened(journal)
            journal.line(f"from {path}: {adopt(evaluator.model, tensors_of(path))} tensors")
        rng = np.random.default_rng([experiment.seed, 5])
        best = derive(strategy, evaluator, count, rng, Archive())
    found = Derived(0, best, experiment.space.cell(best.architecture), 1 / best.measurement.accuracy)
    write_derived(found, out, provisional=not run.is_complete)
    return found


class CellTraining:
    """The training of one cell in a directory of its own."""

    def __init__(
        self, experiment: LanguageExperiment, cell: RecurrentCell, path: Path, init: Path | None = None
    ) -> None:
        """init: a search or a training whose weights to start from."""
        self.experiment, self.cell, self.path = experiment, cell, path
        self.init = None if init is None else init.absolute()
        experiment.space.architecture_of(cell)  # which refuses what is none of the space

    @classmethod
    def open(cls, path: Path, values: dict[str, Any]) -> CellTraining:
        return cls(LanguageExperiment(values), read_dag(path / "dag.json"), path)

    @property
    def is_complete(self) -> bool:
        return (self.path / "result.json").exists()

    def start(self, *, resume: bool) -> None:
        """Claim the directory, or with `resume` take it as it was left."""
        if (self.path / "network.json").exists():
            check_resumed_training(self.path, self.experiment.values, resume=resume)
            if read_dag(self.path / "dag.json") != self.cell:
                raise ConfigError(f"{self.path} trains another cell")
            origin = read_json(self.path / "network.json").get("initialised_from")
            if self.init is not None and origin != str(self.init):
                raise ConfigError(f"{self.path} started from {origin or 'random weights'}, not {self.init}")
            self.init = None if origin is None else Path(origin)
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and holds no training; choose another --out")
        self.experiment.check()
        if self.init is not None:
            adopt(self._model(), tensors_of(self.init))
        write_config(self.path / "config.yaml", self.experiment.values)
        origin = {} if self.init is None else {"initialised_from": str(self.init)}
        architecture = str(self.experiment.space.architecture_of(self.cell))
        write_dag(self.cell, self.path / "dag.json")
        files.write_json(self.path / "network.json", {"architecture": architecture} | origin)

    def execute(self, console: Console | None = None, *, stop_after: int | None = None) -> FittedLanguageModel:
        """Train to the end, from the last checkpoint if there is one, or `stop_after` steps further."""
        experiment, save_to = self.experiment, self.path / "checkpoint.pt"
        with (
            alone_in(self.path),
            Journal(self.path / "train.log", self.path / "events", console) as journal,
        ):
            initial = None
            if self.init is not None and not save_to.exists():
                model = self._model()
                journal.line(f"from {self.init}: {adopt(model, tensors_of(self.init))} tensors")
                initial = model.state_dict()
            fitted = fit_language_model(
                self.cell, experiment.corpus, experiment.model, experiment.training,
                seed=experiment.seed, initial=initial, journal=journal, save_to=save_to, stop_after=stop_after,
            )  # fmt: skip
            if fitted.finished:
                tensors = {name: tensor.cpu().contiguous() for name, tensor in fitted.model.state_dict().items()}
                content = safetensors.torch.save(tensors)
                files.write_atomically(self.path / "weights.safetensors", lambda file: file.write(content))
                files.write_json(
                    self.path / "result.json",
                    {
                        "validation_perplexity": fitted.perplexity,
                        "best_epoch": fitted.best_epoch,
                        "seconds": fitted.seconds,
                        "history": fitted.history,
                    },
                )
        return fitted

    def model(self) -> LanguageModel:
        """The trained model; StorageError if its weights are missing, corrupt or another cell's."""
        model, path = self._model(), self.path / "weights.safetensors"
        tensors = read_tensors(path)
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if {name: tensor.shape for name, tensor in tensors.items()} != expected:
            raise StorageError(f"{path} does not fit the cell in {self.path / 'dag.json'}")
        model.load_state_dict(tensors)
        return model.to(self.experiment.device)

    def _model(self) -> LanguageModel:
        experiment = self.experiment
        return LanguageModel(
            len(experiment.corpus.words), experiment.model,
            cell=self.cell, activations=experiment.space.activations, seed=experiment.seed,
        )  # fmt: skip


def tensors_of(path: Path) -> Mapping[str, Tensor]:
    """The weights of a search or a training, by name. path: its directory, or a checkpoint or weights in it."""
    if path.is_dir():
        candidates = ("weights.safetensors", "checkpoint.pt", "checkpoints/search.pt")
        found = next((path / name for name in candidates if (path / name).exists()), None)
        if found is None:
            raise ConfigError(f"{path} holds no weights: {', '.join(candidates)}")
        path = found
    if path.suffix == ".safetensors":
        return read_tensors(path)
    state = checkpoint.load(path, torch.device("cpu"))
    with checkpoint.restoring(path):
        tensors: Mapping[str, Tensor] = state["evaluator"]["model"] if "evaluator" in state else state["model"]
    return tensors


def adopt(model: LanguageModel, tensors: Mapping[str, Tensor]) -> int:
    """Take over the tensors that the model has, and say how many; ConfigError where one has another shape, or none is.

    A model of one cell takes its part of shared weights, and shared weights take over what one cell has learned.
    """
    own = model.state_dict()
    common = {name: tensor for name, tensor in tensors.items() if name in own}
    if not common:
        raise ConfigError("none of the given tensors is one of this language model")
    for name, tensor in common.items():
        if tensor.shape != own[name].shape:
            raise ConfigError(
                f"{name} has shape {tuple(tensor.shape)}, this language model wants {tuple(own[name].shape)}"
            )
    model.load_state_dict(own | common)
    return len(common)


def perplexities(experiment: LanguageExperiment, path: Path) -> tuple[RecurrentCell, LanguageModel, dict[str, float]]:
    """Perplexities on the whole validation and test texts of what is in `path`, a training or a search.

    Of a search it is the derived cell on the shared weights.
    """
    if (path / "weights.safetensors").exists():
        training = CellTraining.open(path, experiment.values)
        cell, model = training.cell, training.model()
    else:
        run = CellSearchRun(experiment, path)
        if not (path / "dag.json").exists():
            raise ConfigError(f"{path} holds no derived cell; run `bitwright derive {path}` first")
        evaluator, _ = run.restored()
        cell, model = read_dag(path / "dag.json"), evaluator.model
        model.calibrate(cell, calibration_words(evaluator.words, experiment.supernet))
    batch = experiment.training.evaluation_batch
    texts = {"validation": experiment.corpus.validation, "test": experiment.corpus.test}
    found = {name: perplexity(model, cell, text, batch=batch) for name, text in texts.items()}
    return cell, model, found
