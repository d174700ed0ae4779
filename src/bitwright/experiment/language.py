"""Experiments on text: a corpus, the space of recurrent cells, a strategy, a language model and how it is trained."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError
from ..recurrent.model import ModelOptions
from ..recurrent.recipe import LanguageRecipe
from ..recurrent.search import CellSearchOptions
from ..recurrent.supernet import SharedOptions
from ..spaces.enas_rnn import EnasRnn
from ..strategies import Strategy
from ..text import Corpus
from ..text.corpora import CORPORA, known_as, load_corpus
from ..trial import Objective
from .configuration import Configuration, as_arguments


class LanguageExperiment(Configuration):
    """A resolved configuration of a search for, or a training of, a recurrent cell."""

    OPTIONS: ClassVar[dict[str, type]] = {
        "model": ModelOptions,
        "supernet": LanguageRecipe,
        "shared": SharedOptions,
        "search": CellSearchOptions,
        "training": LanguageRecipe,
    }
    DEFAULTS: ClassVar[dict[str, str]] = {"dataset": "penn_treebank", "space": "enas_rnn", "strategy": "controller"}
    FOLDER = "text_folder"
    GIVEN: ClassVar[dict[str, set[str | int]]] = {
        "dataset": {"name", "root"},
        "strategy": {"space", "objective", "seed"},
        "model": {"nodes", "variant"},  # which are the space's
    }

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.search: CellSearchOptions = self.options("search")
        self.shared: SharedOptions = self.options("shared")
        self.supernet: LanguageRecipe = self.options("supernet")
        self.training: LanguageRecipe = self.options("training")
        self.space = EnasRnn(**as_arguments(values["space"]))
        self.model: ModelOptions = self.options("model", nodes=self.space.nodes, variant=self.space.variant)

    @classmethod
    def names(cls, section: str) -> list[str]:
        return list(CORPORA) if section == "dataset" else super().names(section)

    @classmethod
    def component(cls, section: str, name: str) -> Any:
        if section == "dataset":
            known_as(name)
            return load_corpus
        return super().component(section, name)

    @cached_property
    def corpus(self) -> Corpus:
        """The text, on the device."""
        options = as_arguments(self.values["dataset"])
        root = Path(options.pop("root"))
        return load_corpus(self.values["dataset"]["name"], root, **options).to(self.device)

    def strategy(self) -> Strategy:
        """A strategy that has learned nothing yet."""
        return self.make_strategy(self.space, Objective())

    def check(self) -> None:
        """Make every component once, so that a mistake shows before anything is written or computed."""
        rewarded = self.shared.reward_batch or self.supernet.batch
        for section, batch, text in (
            ("supernet", self.supernet.batch, self.corpus.train),
            ("training", self.training.batch, self.corpus.train),
            ("shared", rewarded, self.corpus.validation),
        ):
            if batch >= len(text):
                raise ConfigError(f"{section}: a batch of {batch} is more than the {len(text) - 1} words to predict")
        self.strategy()
