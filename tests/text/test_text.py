"""Texts as numbers: line ends, vocabularies, and columns and windows that leave nothing out."""

from __future__ import annotations

import pytest
import torch

from bitwright.errors import ConfigError
from bitwright.text import make_corpus, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the cat\nsat\n", "the cat <eos> sat <eos>"),
        ("the cat\nsat", "the cat <eos> sat <eos>"),  # without an end of the last line
        (" the  cat \n\n sat \n", "the cat <eos> <eos> sat <eos>"),
        ("the\r\ncat\rsat\r\n", "the <eos> cat <eos> sat <eos>"),
        ("a\x0bb\u2028c\n", "a b c <eos>"),  # blanks, but no ends of lines
        ("naïve Köln\n", "naïve Köln <eos>"),
    ],
)
def test_every_line_ends_with_a_word_of_its_own(text: str, words: str) -> None:
    assert split_words(text) == words.split()


def test_words_are_numbered_in_the_order_of_the_training_text() -> None:
    corpus = make_corpus("small", ["b", "a", "b", "<eos>"], ["a", "<eos>"], ["b"])
    assert corpus.words == ("b", "a", "<eos>")
    assert corpus.train.tolist() == [0, 1, 0, 2]
    assert corpus.validation.tolist() == [1, 2] and corpus.test.tolist() == [0]
    assert {part.dtype for part in (corpus.train, corpus.validation, corpus.test)} == {torch.int64}


def test_what_the_training_text_does_not_know_becomes_its_unknown_word() -> None:
    corpus = make_corpus("small", ["<unk>", "a"], ["a", "b"], ["c"])
    assert corpus.words == ("<unk>", "a")
    assert corpus.validation.tolist() == [1, 0] and corpus.test.tolist() == [0]


def test_an_unknown_word_is_added_last_where_it_is_needed() -> None:
    corpus = make_corpus("small", ["a", "b"], ["c"], ["a"])
    assert corpus.words == ("a", "b", "<unk>")
    assert corpus.validation.tolist() == [2]


def test_the_vocabulary_of_all_texts_knows_every_word() -> None:
    corpus = make_corpus("small", ["a"], ["b", "a"], ["c", "b"], vocabulary="all")
    assert corpus.words == ("a", "b", "c")
    assert corpus.validation.tolist() == [1, 0] and corpus.test.tolist() == [2, 1]


def test_a_vocabulary_is_of_train_or_of_all() -> None:
    with pytest.raises(ConfigError, match="'test'"):
        make_corpus("small", ["a"], ["a"], ["a"], vocabulary="test")  # type: ignore[arg-type]
