"""Corpora by name: where their files may lie, what they hold, and errors of one line."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bitwright.errors import BitwrightError, ConfigError, DataError
from bitwright.text import Corpus
from bitwright.text.corpora import CORPORA, load_corpus

TEXTS = {"train": "a b\nb <unk>\n", "valid": "b c\n", "test": "a\n"}
NAMES = {
    "text_folder": ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens"),
    "penn_treebank": ("{}.txt", "ptb.{}.txt"),
    "wikitext2": ("wiki.{}.tokens", "{}.txt"),
}


def write(folder: Path, pattern: str = "{}.txt", **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in (TEXTS | texts).items():
        (folder / pattern.format(part)).write_text(text, encoding="utf-8")
    return folder


def message(name: str, root: Path, **options: Any) -> str:
    with pytest.raises(BitwrightError) as raised:
        load_corpus(name, root, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("name", "pattern"), [(name, p) for name, patterns in NAMES.items() for p in patterns])
def test_the_usual_names_of_files_are_found(name: str, pattern: str, tmp_path: Path) -> None:
    corpus = load_corpus(name, write(tmp_path, pattern))
    assert corpus.name == name
    assert corpus.words == ("a", "b", "<eos>", "<unk>")
    assert corpus.train.tolist() == [0, 1, 2, 1, 3, 2]
    assert corpus.validation.tolist() == [1, 3, 2] and corpus.test.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("name", "folder"),
    [("penn_treebank", "ptb"), ("ptb", "penn"), ("wikitext2", "wikitext-2"), ("wikitext", "wikitext")],
)
def test_a_corpus_may_lie_in_a_folder_of_its_name(name: str, folder: str, tmp_path: Path) -> None:
    write(tmp_path / folder)
    assert isinstance(load_corpus(name, tmp_path), Corpus)


def test_the_vocabulary_can_be_that_of_all_texts(tmp_path: Path) -> None:
    assert load_corpus("text_folder", write(tmp_path), vocabulary="all").words == ("a", "b", "<eos>", "<unk>", "c")


def test_a_byte_order_mark_is_no_word(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa b\n")
    assert load_corpus("text_folder", tmp_path).words[0] == "a"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_corpus("shakespeare", tmp_path)
    assert all(name in str(raised.value) for name in CORPORA)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "valid.txt").unlink()
    assert "validation" in message("text_folder", tmp_path) and "valid.txt" in message("text_folder", tmp_path)


@pytest.mark.parametrize("name", ["wikitext2", "text_folder"])
def test_what_cannot_be_fetched_says_which_files_to_put_where(name: str, tmp_path: Path) -> None:
    text = message(name, tmp_path / "nowhere")
    assert all(file in text for file in CORPORA[name].names) and str(tmp_path / "nowhere") in text


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_a_text_without_words_is_an_error(content: bytes, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test.txt").write_bytes(content)
    assert str(tmp_path / "test.txt") in message("text_folder", tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_an_error(encoding: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train.txt").write_bytes("Straße\n".encode(encoding))
    text = message("text_folder", tmp_path)
    assert str(tmp_path / "train.txt") in text and "UTF-8" in text


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test.txt").unlink()
    (tmp_path / "test.txt").mkdir()
    assert str(tmp_path / "test.txt") in message("text_folder", tmp_path)


def test_without_a_network_the_error_says_where_penn_treebank_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    text = message("penn_treebank", tmp_path)
    assert "ptb.train.txt" in text and str(tmp_path / "penn_treebank") in text


def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Page:
        def __enter__(self) -> Page:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self) -> bytes:
            return b"not found"

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Page())
    with pytest.raises(DataError, match="checksum"):
        load_corpus("penn_treebank", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def penn_treebank(shared: Path) -> Corpus:
    if not (shared / "data" / "ptb" / "ptb.train.txt").exists():
        pytest.skip("Penn Treebank is not in the shared data")
    return load_corpus("penn_treebank", shared / "data")


def test_penn_treebank_has_its_published_sizes(penn_treebank: Corpus) -> None:
    sizes = len(penn_treebank.train), len(penn_treebank.validation), len(penn_treebank.test)
    assert sizes == (929_589, 73_760, 82_430)
    assert len(penn_treebank.words) == 10_000


def test_penn_treebank_reads_back_as_it_was_written(penn_treebank: Corpus, shared: Path) -> None:
    words = [penn_treebank.words[number] for number in penn_treebank.test.tolist()]
    lines = " ".join(words).removesuffix(" <eos>").split(" <eos> ")
    with (shared / "data" / "ptb" / "ptb.test.txt").open(encoding="utf-8") as file:
        assert lines == [" ".join(line.split()) for line in file]


def test_all_of_penn_treebanks_words_are_in_its_training_text(penn_treebank: Corpus, shared: Path) -> None:
    assert load_corpus("ptb", shared / "data", vocabulary="all").words == penn_treebank.words
