"""Reads a loss written as text: "ce", "tversky(alpha=0.3, beta=0.7)", "0.25*ce + 0.75*(jml + lovasz)".

    sum  = term { "+" term }
    term = factor { "*" factor }          exactly one factor is a loss, the others are numbers
    factor = number | name [ "(" options ")" ] | "(" sum ")"
    name   = a word or a path; in quotes one with blanks and the like

Options are keyword arguments with literal values; nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from autoseg.errors import InputError

NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w/.])")
NAME = re.compile(r"[\w./~][\w./~-]*")  # names of losses and cards, paths of cards
QUOTED = re.compile(r"""(["']).+?\1""")
WORD = re.compile(r"[A-Za-z_][\w./-]*")  # a value that needs no quotes
WORDS = {"inf": math.inf, "true": True, "false": False, "none": None}
LONGEST = 10_000  # most characters of a sum: some hundred losses, so that building them does not take an hour
HELP = 'Write for example "ce", "0.25*ce+0.75*jml" or "tversky(alpha=0.3,beta=0.7)".'


@dataclass(frozen=True)
class Term:
    """One loss of a sum: its weight, name and the options in its brackets."""

    weight: float
    name: str
    options: dict[str, Any] = field(default_factory=dict)


def parse(text: str) -> list[Term]:
    """Return the terms of a sum of losses, with brackets multiplied out.

    Raises:
        InputError: the text is no such sum, it is too long, or a weight is negative or not finite.
    """
    if len(text) > LONGEST:
        raise InputError("loss", f"a sum of at most {LONGEST:,} characters", f"{len(text):,}")
    reader = _Reader(text)
    try:
        terms = reader.read_sum()
    except RecursionError:
        raise InputError("loss", "brackets that are not nested so deep", f"{text[:40]!r}...", HELP) from None
    reader.skip_space()
    if reader.at < len(text):
        raise reader.error("the end or an operator + or *")
    return terms


def quoted(name: str) -> str:
    """Return a name as it must be written in a sum: in quotes if necessary."""
    return name if NAME.fullmatch(name) else f"'{name}'" if '"' in name else f'"{name}"'


def packed(text: str) -> str:
    """Return a sum without blanks, except those in quotes."""
    return re.sub(rf"{QUOTED.pattern}|\s+", lambda found: found[0] if found[1] else "", text)


def renamed(text: str, name: str, by: str) -> str:
    """Return a sum with `by` in the place of a loss's name; other names that contain it are not changed."""
    if text == name:  # a path that may hold anything
        return by
    typed = (name, f'"{name}"', f"'{name}'")
    return re.sub(rf"{QUOTED.pattern}|{NAME.pattern}", lambda found: by if found[0] in typed else found[0], text)


class _Reader:
    """A recursive descent parser; `at` is the index of the next character."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def error(self, expected: str) -> InputError:
        rest = self.text[self.at :].strip()
        got = f"{rest!r} in {self.text!r}" if rest else f"the end of {self.text!r}"
        return InputError("loss", expected, got, HELP)

    def skip_space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, mark: str) -> bool:
        """Consume `mark` if it is next."""
        self.skip_space()
        found = self.text.startswith(mark, self.at)
        self.at += len(mark) * found
        return found

    def match(self, pattern: re.Pattern[str]) -> str:
        """Consume and return the text that matches the pattern here; empty if there is none."""
        self.skip_space()
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found.group() if found else ""

    def read_sum(self) -> list[Term]:
        terms = self.read_term()
        while self.take("+"):
            terms += self.read_term()
        return terms

    def read_term(self) -> list[Term]:
        weight, terms = 1.0, None
        while True:
            factor = self.read_factor()
            if isinstance(factor, float):
                weight *= factor
            elif terms is not None:
                raise InputError("loss", "at most one loss in a product", repr(self.text), HELP)
            else:
                terms = factor
            if not self.take("*"):
                break
        if terms is None:
            raise self.error("a loss after the number, as in 0.5*ce")
        found = [replace(term, weight=term.weight * weight) for term in terms]
        if not all(math.isfinite(term.weight) for term in found):
            raise InputError("loss", "finite weights", repr(self.text))
        return found

    def read_factor(self) -> float | list[Term]:
        if self.take("("):
            terms = self.read_sum()
            if not self.take(")"):
                raise self.error("a closing bracket")
            return terms
        number = self.match(NUMBER)
        if number:
            return float(number)
        name = self.match(NAME) or self.match(QUOTED)[1:-1]
        if not name:
            raise self.error("a loss, a number or a bracket")
        return [Term(1.0, name, self.read_options(name) if self.take("(") else {})]

    def read_options(self, name: str) -> dict[str, Any]:
        """Read keyword arguments up to the closing bracket; the opening one is already consumed."""
        start, depth = self.at, 1
        while depth:
            if self.at == len(self.text):
                raise self.error(f"a closing bracket after the options of {name}")
            depth += {"(": 1, ")": -1}.get(self.text[self.at], 0)
            self.at += 1
        inside = self.text[start : self.at - 1]
        try:
            source = f"f({inside})"
            call = ast.parse(source, mode="eval").body
            if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
                raise ValueError("not keyword arguments")
            if len(options := {str(k.arg): _literal(k.value, source) for k in call.keywords}) < len(call.keywords):
                raise ValueError("an option twice")
            return options
        except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:  # the last two: brackets in brackets
            raise InputError(f"options of {name}", "key=value, key=value, each key once", repr(inside), HELP) from fault


def _literal(node: ast.expr, source: str) -> Any:
    """Return a number, string, list or dict of such; a bare word is a string, except inf, true, false and none."""
    word = ast.get_source_segment(source, node) or ""
    if isinstance(node, ast.Name | ast.Attribute | ast.BinOp) and WORD.fullmatch(word):  # Python reads a-b as a sum
        return WORDS.get(word.lower(), word)
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, source) for item in node.elts]
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(key, source): _literal(value, source) for key, value in pairs if key is not None}
    return ast.literal_eval(node)
