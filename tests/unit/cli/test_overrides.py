"""What is said to be typed arrives."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.cli.arguments import Arguments
from autoseg.cli.configuration.overrides import parse, typed
from autoseg.errors import InputError

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


@pytest.mark.parametrize("text", ['losses=[ce,"0.5*(ce+jml]', "losses=[ce,f(a]", 'losses=[ce,"dice]'])
def test_no_repair_is_made_up_for_a_list_that_is_not_closed(text: str) -> None:
    with pytest.raises(InputError, match=r"A quote or a bracket in it is not closed\.$"):
        parse(text, "compare")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data.classes=[bg,", "is not closed. Write it without spaces, or put quotes around the whole argument."),
        ("tiles", "If it belongs to the argument before, put quotes around the two. Type autoseg search --help."),
        ("miou", "Did you mean metric=miou? Type autoseg search --help."),
        ("data=…", "… stands for a value of yours."),
        ("loss=runs/miou-…", "… stands for a value of yours."),
    ],
)
def test_what_the_shell_took_apart_is_to_be_quoted(text: str, said: str) -> None:
    with pytest.raises(InputError) as told:
        parse(text, "search")
    assert told.value.hint.endswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metric", "miou"], "metric=miou, got --metric miou"),
        (["--run-dir=runs/a", "--cfg"], "run_dir=runs/a, got --run-dir=runs/a"),
        (["--metric", "--cfg"], "metric=VALUE, got --metric"),
    ],
)
def test_a_key_with_dashes_is_shown_without(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=rf"^retrain: expected keys without dashes, {said}\. Type autoseg retrain"):
        Arguments("retrain", "").keys(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["metric", "=", "miou"], "metric=miou"), (["seed=1", "metric", "=miou"], "metric=miou"), (["="], "KEY=VALUE")],
)
def test_blanks_around_an_equals_sign_are_named(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=f'Write {said}, without blanks around "="'):
        Arguments("search", "").keys(words)


def test_brackets_without_end_are_quoted_and_refused() -> None:
    deep = "[" * 500 + "]" * 500
    assert typed("tracker.wandb_project", deep) == f"'tracker.wandb_project=\"{deep}\"'"
    with pytest.raises(InputError, match="brackets in brackets"):
        parse(f"data.root={deep}", "search")


@pytest.mark.parametrize("text", ["data.root=a(b", "losses=[ce,tversky(alpha=0.3,beta=0.7)]"])
def test_a_repair_can_be_typed(text: str) -> None:
    with pytest.raises(InputError) as told:
        parse(text, "compare")
    assert arrived(told.value.hint.partition("Hydra: ")[2])


def test_of_hydras_own_options_it_is_said_that_they_are_not_taken() -> None:
    with pytest.raises(InputError, match=r"Hydra's own options are not taken"):
        Arguments("search", "").keys(["--config-dir", "conf"])
