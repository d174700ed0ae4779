"""Experiments on images: a data set, a space of networks, a strategy, and how weights are trained."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from .. import catalogue
from ..architecture import Architecture
from ..costs import CostModel
from ..datasets import Dataset
from ..errors import ConfigError
from ..evaluators import Evaluator
from ..evaluators.post_training import PostTraining
from ..evaluators.shared_weights import SharedWeights
from ..journal import Journal
from ..latency import table
from ..latency.cost import Latency
from ..modules import Weights
from ..nasbench import tables
from ..network import Network
from ..networks import named
from ..networks import names as network_names
from ..networks.checkpoints import initialise
from ..relaxation.options import RelaxationOptions
from ..spaces import RelaxedSpace, SearchSpace
from ..strategies import Strategy
from ..train.recipe import Recipe
from ..trial import Objective
from .configuration import Configuration, as_arguments, read_yaml
from .trained import found_architecture, latest_training

LATENCY = "latency"  # the one cost that needs a table
MEASURED = ("accuracy", "seconds")  # objectives of any measurement


@dataclass(frozen=True)
class Base:
    """A network that is there already, and the file of its weights if it was trained."""

    network: Network
    weights: Path | None


@dataclass(frozen=True)
class SearchOptions:
    """method: strategy asks for architectures, which the evaluator measures; relaxation follows the gradient of gates.
    warmup_epochs: of the supernet's epochs, how many train on uniformly sampled architectures before round 1.
    round_epochs: how many epochs come before each round; with 0 the supernet only warms up, and there is one round.
    updates: of the strategy in a round.
    batch: trials that make one update.
    samples: architectures that are sampled and listed after each round.
    budgets: the most that each cost (a file of costs/, or latency) should be, such as {weight_bits: 200000}.
    costs: further ones that are recorded of every trial.
    latency_table: the file that latency, in milliseconds, is read from.
    strength: how much it matters, see Objective.
    candidates: architectures that are ranked on all validation images at the end, half of them the best late trials
        and half sampled; as many random ones are measured beside them.
    standalone: how many of these are also trained from scratch, to see what the ranking is worth; 0 leaves it out.
    standalone_epochs: for how long.
    workers: processes that evaluate side by side on Ray, where each evaluation is by itself; 0 is this process alone.
    ray_address: of a running Ray cluster; without one a local cluster is started.
    checkpoint_seconds: at most this much work is lost if the process dies.

    Where there is no supernet, the search is one round of updates * batch trials.
    """

    method: Literal["strategy", "relaxation"] = "strategy"
    warmup_epochs: int = 0
    round_epochs: int = 1
    updates: int = 30
    batch: int = 10
    samples: int = 10
    budgets: dict[str, float] = field(default_factory=dict)
    costs: tuple[str, ...] = ()
    latency_table: str = ""
    strength: float = 0.5
    candidates: int = 20
    standalone: int = 6
    standalone_epochs: int = 5
    workers: int = 0
    ray_address: str = ""
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, low in (
            ("warmup_epochs", 0),
            ("round_epochs", 0),
            ("checkpoint_seconds", 0),
            ("updates", 1),
            ("batch", 1),
            ("samples", 1),
            ("candidates", 1),
            ("standalone", 0),
            ("standalone_epochs", 1),
            ("workers", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"search: {name} is at least {low}, got {getattr(self, name)}")
        for name in (*self.budgets, *self.costs):
            self.cost(name)
        if self.ray_address and not self.workers:
            raise ConfigError("search: ray_address is where workers are; give their number as workers")
        Objective(self.budgets, self.strength)

    def cost(self, name: str) -> CostModel:
        """The cost model of that name; latency is from the table."""
        if name != LATENCY:
            found: CostModel = catalogue.find("costs", name)()
            return found
        if not self.latency_table:
            raise ConfigError("search: latency is read from a table; name it as latency_table")
        return Latency(table.read(Path(self.latency_table)))


def load_table(space: str, file: str) -> tables.Table:
    """The table of a benchmark of networks that can be trained; ConfigError if the space has none."""
    if not file:
        raise ConfigError("tabular: name the file of the benchmark as evaluator.table")
    path = Path(file)
    return tables.load("ecnas" if space == "nasbench101" and path.suffix == ".csv" else space, path)


@dataclass(frozen=True)
class FinalOptions:
    """Options of the space that the finally trained network has in place of the searched one's; None keeps that.

    cells, filters, reductions, stacks, dropout, auxiliary: as of the space.
    """

    cells: int | None = None
    filters: int | None = None
    reductions: tuple[int, ...] | None = None
    stacks: int | None = None
    dropout: float | None = None
    auxiliary: bool | None = None


class Experiment(Configuration):
    """A resolved configuration, and the components it stands for."""

    OPTIONS: ClassVar[dict[str, type]] = {
        "supernet": Recipe,
        "search": SearchOptions,
        "relaxation": RelaxationOptions,
        "final": FinalOptions,
        "training": Recipe,
    }
    COMPONENTS: ClassVar[dict[str, str]] = Configuration.COMPONENTS | {"evaluator": "evaluators"}
    DEFAULTS: ClassVar[dict[str, str]] = {
        "dataset": "digits",
        "space": "enas_micro",
        "strategy": "controller",
        "evaluator": "shared_weights",
    }
    FOLDER = "image_folder"
    GIVEN: ClassVar[dict[str, set[str | int]]] = {
        "dataset": {"root"},
        "space": {"image", "classes", "pixel_mean", "pixel_std", "base"},
        "strategy": {"space", "objective", "seed"},
        "evaluator": {
            *("space", "dataset", "recipe", "costs", "seed", "journal", "save_in"),
            *("initial", "warmup_epochs", "round_epochs", "table"),
        },
    }

    def __init__(self, values: dict[str, Any]) -> None:
        space = values["space"]["name"]
        if not issubclass(catalogue.find("spaces", space), SearchSpace):
            raise ConfigError(f"{space} is of text; search, derive, train, evaluate, show and film know it")
        super().__init__(values)
        self.search: SearchOptions = self.options("search")
        self.relaxation: RelaxationOptions = self.options("relaxation")
        self.final: FinalOptions = self.options("final")
        self.supernet: Recipe = self.options("supernet")
        self.training: Recipe = self.options("training")
        self.rounds = self._rounds()

    def _rounds(self) -> int:
        """How often the supernet is trained on and architectures are evaluated; 1 where there is none."""
        if self.search.method == "relaxation" or not self.trains_supernet:
            return 1
        trained = self.supernet.epochs - self.search.warmup_epochs
        if trained == self.search.round_epochs == 0:
            return 1
        if not self.search.round_epochs or trained < self.search.round_epochs or trained % self.search.round_epochs:
            raise ConfigError(
                f"the supernet's {self.supernet.epochs} epochs less {self.search.warmup_epochs} of warm-up are no"
                f" multiple of the {self.search.round_epochs} epochs of a round"
            )
        return trained // self.search.round_epochs

    @property
    def trains_supernet(self) -> bool:
        """Whether architectures are measured on shared weights."""
        return issubclass(self._evaluator, SharedWeights)

    @property
    def _evaluator(self) -> type[Evaluator]:
        found: type[Evaluator] = catalogue.find("evaluators", self._named("evaluator")["name"])
        return found

    def _named(self, section: str) -> dict[str, Any]:
        """A section with a component; runs of earlier versions have no evaluator."""
        given: dict[str, Any] = self.values.get(section) or {"name": self.DEFAULTS[section]}
        return given

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, on the device."""
        options = as_arguments(self.values["dataset"])
        loaded: Dataset = catalogue.find("datasets", self.values["dataset"]["name"])(
            Path(options.pop("root")), **options
        )
        return loaded.to(self.device)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space for the images of the data set."""
        return self._space({})

    @cached_property
    def final_space(self) -> SearchSpace:
        """The same with the options of the final network."""
        given = {f.name: getattr(self.final, f.name) for f in dataclasses.fields(self.final)}
        changed = {name: value for name, value in given.items() if value is not None}
        known = inspect.signature(catalogue.find("spaces", self.values["space"]["name"])).parameters
        for name in changed:
            if name not in known:
                allowed = ", ".join(option for option in given if option in known) or "none"
                raise ConfigError(
                    f"final: the space {self.values['space']['name']} has no option {name}; of final it has: {allowed}"
                )
        if "cells" in changed and "reductions" in known and "reductions" not in changed:
            changed["reductions"] = None
        return self._space(changed)

    def _space(self, changed: dict[str, Any]) -> SearchSpace:
        factory = self._factory
        mean, deviation = self.dataset.pixel_statistics
        facts = {
            "image": self.dataset.shape,
            "classes": len(self.dataset.classes),
            "pixel_mean": mean,
            "pixel_std": deviation,
        }
        if self._has_base:
            facts["base"] = self.base.network
        return factory(**facts, **(as_arguments(self.values["space"]) | changed))

    @property
    def _factory(self) -> type[SearchSpace]:
        found: type[SearchSpace] = catalogue.find("spaces", self.values["space"]["name"])
        return found

    @property
    def _has_base(self) -> bool:
        return "base" in inspect.signature(self._factory).parameters

    @cached_property
    def base(self) -> Base:
        """The network whose precisions are searched, of a space that is of one."""
        given = str(self.values["space"].get("network") or "")
        path = Path(given)
        if given in network_names():
            return Base(named(given), None)
        if not given or not path.is_dir():
            raise ConfigError(
                f"no network {given!r}: name a run with a trained network, or {', '.join(network_names())} (--network)"
            )
        path = latest_training(path)
        values = read_yaml(path / "config.yaml")
        trained = Experiment(values | {"device": str(self.device)})
        if all(trained.values["dataset"].get(key) == value for key, value in self.values["dataset"].items()):
            trained.dataset = self.dataset  # which takes long to load
        architecture = found_architecture(path / "network.json", trained.final_space)
        return Base(trained.final_space.network(architecture), path / "weights.safetensors")

    @property
    def trained_base(self) -> Path | None:
        """The file of the weights of the base, where the space has one that was trained."""
        return self.base.weights if self._has_base else None

    @cached_property
    def initial(self) -> Weights | None:
        """The trained weights of the base, if there are any."""
        if self.trained_base is None:
            return None
        weights = Weights([self.base.network], seed=self.seed)
        initialise(weights, self.base.network, self.trained_base)
        return weights.to(self.device)

    def quantized_base(self, architecture: Architecture) -> Weights:
        """The weights of the base with the ranges and statistics that suit the precisions of an architecture."""
        assert self.initial is not None
        return PostTraining(self.space, self.dataset, self.initial, seed=self.seed).quantized(architecture)

    @property
    def objective(self) -> Objective:
        return Objective(self.search.budgets, self.search.strength)

    @cached_property
    def costs(self) -> dict[str, CostModel]:
        """The cost models that the budgets and the strategy name, and those that are recorded besides."""
        named = [*self.search.budgets, *self.search.costs]
        given = self.values["strategy"]
        for name in (*(given.get("objectives") or ()), given.get("cost")):
            if name is not None and name not in MEASURED:
                named.append(name)
        return {name: self.search.cost(name) for name in dict.fromkeys(named)}

    def costs_of(self, architecture: Architecture) -> dict[str, float]:
        """What an architecture of the space costs, by every cost there is."""
        network = self.space.shared_network(architecture).trunk
        return {name: cost(network).total for name, cost in self.costs.items()}

    @property
    def deterministic(self) -> bool:
        """Whether evaluating an architecture again gives the same."""
        return self._evaluator.deterministic

    def evaluator(self, journal: Journal | None = None, save_in: Path | None = None) -> Evaluator:
        """What measures architectures, as the section `evaluator` says. save_in: for what may be interrupted."""
        factory = self._evaluator
        wanted = inspect.signature(factory).parameters
        facts: dict[str, Any] = {
            "space": self.space,
            "dataset": self.dataset,
            "recipe": self.supernet if self.trains_supernet else self.training,
            "costs": self.costs,
            "seed": self.seed,
            "journal": journal,
            "save_in": save_in,
            "warmup_epochs": self.search.warmup_epochs,
            "round_epochs": self.search.round_epochs,
        }
        if "initial" in wanted:
            facts["initial"] = self.initial
            if facts["initial"] is None and wanted["initial"].default is inspect.Parameter.empty:
                name = self._named("evaluator")["name"]
                raise ConfigError(f"{name} evaluates a trained network at other precisions; use --space precision")
        options = as_arguments(self._named("evaluator"))
        if "table" in wanted:
            facts["table"] = load_table(self.space.name, options.pop("table"))
        made: Evaluator = factory(**{name: value for name, value in facts.items() if name in wanted}, **options)
        return made

    def check(self) -> None:
        """Make every component once, so that a mistake shows before anything is written or computed."""
        for space in (self.space, self.final_space):
            network = space.network(next(iter(space.covering())))
            for cost in self.costs.values():
                cost(network.trunk)
        if self.search.method == "relaxation":
            if not isinstance(self.space, RelaxedSpace):
                raise ConfigError(f"relaxation is of spaces with gates, which {self.space.name} has none of")
            return
        if self.search.workers and not self._evaluator.deterministic:
            raise ConfigError("search: workers evaluate architectures by themselves; a supernet trains in one process")
        if not self.trains_supernet:
            self.evaluator()
        self.strategy()

    def strategy(self) -> Strategy:
        """A strategy that has learned nothing yet."""
        return self.make_strategy(self.space, self.objective)
