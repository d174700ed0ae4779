"""Word-level text for language models: a corpus as numbers of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError

END, UNKNOWN = "<eos>", "<unk>"  # the end of a line; a word that is not in the vocabulary


@dataclass(frozen=True)
class Corpus:
    """words: the vocabulary, in the order of first appearance. train, validation, test: numbers of it, int64 (N,)."""

    name: str
    words: tuple[str, ...]
    train: Tensor
    validation: Tensor
    test: Tensor

    def to(self, device: torch.device) -> Corpus:
        return Corpus(self.name, self.words, self.train.to(device), self.validation.to(device), self.test.to(device))


def split_words(text: str) -> list[str]:
    """The words between blanks, and `<eos>` at the end of every line, empty ones included."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    return f"{lines}\n".replace("\n", f" {END} ").split()


def make_corpus(
    name: str,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    *,
    vocabulary: Literal["train", "all"] = "train",
) -> Corpus:
    """Number the words of three texts.

    vocabulary: "train" knows the words of the training text; any other becomes `<unk>`, which is added as the last word
        if there are others and the training text has no `<unk>` of its own. "all" knows the words of all three.
    """
    if vocabulary not in ("train", "all"):
        raise ConfigError(f"the vocabulary is of train or of all, got {vocabulary!r}")
    known = dict.fromkeys(train)
    if vocabulary == "all":
        known |= dict.fromkeys(validation) | dict.fromkeys(test)
    elif not known.keys() >= {*validation, *test}:
        known[UNKNOWN] = None
    numbers = {word: number for number, word in enumerate(known)}
    unknown = numbers.get(UNKNOWN, -1)

    def encoded(words: Sequence[str]) -> Tensor:
        return torch.from_numpy(np.fromiter((numbers.get(word, unknown) for word in words), np.int64, len(words)))

    return Corpus(name, tuple(known), encoded(train), encoded(validation), encoded(test))
