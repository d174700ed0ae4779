"""Cells and texts that several tests use."""

from __future__ import annotations

import torch
from torch import Tensor

from bitwright.recurrent.cell import CellNode, RecurrentCell
from bitwright.recurrent.model import LanguageModel, ModelOptions
from bitwright.text import Corpus

TREE = RecurrentCell(
    (
        CellNode(-1, "relu"),
        CellNode(0, "tanh"),
        CellNode(0, "sigmoid"),
        CellNode(1, "identity"),
        CellNode(1, "relu"),
        CellNode(4, "tanh"),
    )
)
CHAIN = RecurrentCell((CellNode(-1, "tanh"), *(CellNode(node, "tanh") for node in range(5))))
AUTHORS = RecurrentCell((CellNode(-1, "tanh"), *TREE.nodes[1:]))
VOCABULARY = 11


def tiny(cell: RecurrentCell | None = None, *, seed: int = 0, initial: float = 0.5, **options: object) -> LanguageModel:
    """Eight units, six nodes and a vocabulary of eleven; in float64."""
    authors = options.get("variant") == "authors"
    options = {"nodes": 5 if authors else 6, "embedding": 8, "hidden": 8, "initial": initial} | options
    made = LanguageModel(VOCABULARY, ModelOptions(**options), cell=cell, seed=seed)  # type: ignore[arg-type]
    return made.double()


def text(length: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(vocabulary, (length,), generator=torch.Generator().manual_seed(seed))


def corpus(train: int = 200, *, repeat: bool = False) -> Corpus:
    """Random words, or always the same eleven of them, a third as many to validate and to test on."""
    cycle = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(9)).repeat(train)
    lengths = (train, train // 3, train // 3)
    parts = [cycle[:length] if repeat else text(length, seed) for seed, length in enumerate(lengths)]
    return Corpus("tiny", tuple("abcdefghijk"), *parts)
