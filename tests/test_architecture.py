"""Architectures as values and as text."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright import Architecture
from bitwright.errors import BitwrightError, InvalidArchitecture

NAMES = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)
CHOICES = st.lists(st.integers(0, 99)).map(tuple)


def test_the_text_form_is_the_space_and_the_choices_in_brackets() -> None:
    assert str(Architecture("enas_micro", (0, 2, 1, 14))) == "enas_micro(0 2 1 14)"


@given(NAMES, CHOICES)
def test_the_text_form_reads_back(space: str, choices: tuple[int, ...]) -> None:
    architecture = Architecture(space, choices)
    assert Architecture.parse(str(architecture)) == architecture


def test_blanks_around_the_text_do_not_matter() -> None:
    assert Architecture.parse("  s( 0  2 )\n") == Architecture("s", (0, 2))


@pytest.mark.parametrize("text", ["", "0 2 1 4", "s", "s(0 2", "s 0 2)", "s(0 x)", "s(0, 2)", "s(1.5)", "s(0)(1)"])
def test_what_is_no_architecture_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArchitecture) as raised:
        Architecture.parse(text)
    assert "space(0 2 1 4)" in str(raised.value)
    assert repr(text) in str(raised.value)
    assert isinstance(raised.value, (BitwrightError, ValueError))


def test_equal_architectures_are_one_key_and_order_by_choices() -> None:
    first, second, same = (Architecture("s", choices) for choices in ((0, 9), (1, 0), (0, 9)))
    assert {first, second, same} == {first, second}
    assert sorted([second, first]) == [first, second]


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Architecture("s", (0,)).choices = (1,)  # type: ignore[misc]
