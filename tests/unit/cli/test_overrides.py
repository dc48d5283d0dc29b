"""What is said to be typed arrives."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.cli.configuration.overrides import parse, typed

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)


def arrived(words: str) -> Any:
    (word,) = shlex.split(words)
    return parse(word, "search").value()


@given(TEXTS | st.lists(TEXTS, max_size=3))
def test_any_text_and_list_of_texts(value: Any) -> None:
    assert arrived(typed("data.classes", value)) == value


@pytest.mark.parametrize(
    "value", [["Straße", "Auto"], "C:\\data\\", 'a\\"b', "'quoted'", '"quoted"', "", "a b", "null"]
)
def test_texts_that_once_did_not(value: Any) -> None:
    assert arrived(typed("data.root", value)) == value
