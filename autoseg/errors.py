"""The errors that autoseg raises for its users: one class hierarchy, one form of message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all of category Cc except tab and newline


class AutosegError(Exception):
    """Base of every error autoseg raises on purpose; its text is meant for the user."""


class InputError(AutosegError, ValueError):
    """The user's input is wrong. The command line prints the message alone and exits with 2.

    Args:
        field: what is wrong, in the user's words (a config key, an argument, a file).
        expected: what would be right.
        got: the wrong value.
        hint: what to do about it, a full sentence.
    """

    def __init__(self, field: str, expected: str, got: object, hint: str = "") -> None:
        self.field, self.expected, self.got, self.hint = field, expected, got, hint
        super().__init__(f"{field}: expected {expected}, got {got}." + (f" {hint}" if hint else ""))

    def in_words(self) -> InputError:
        """Return the same error with its value as text: fit for any pipe."""
        return InputError(self.field, self.expected, str(self.got), self.hint)

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, object, str]]:
        return type(self), (self.field, self.expected, self.got, self.hint)  # pickles with all its fields


class Diverged(AutosegError):
    """A training produced a loss that is not finite; the candidate is recorded as diverged."""


def out_of_memory(error: BaseException) -> bool:
    """Return whether the machine or its GPU had no memory left.

    By the message, since CUDA's libraries share no type.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in said or "ALLOC_FAILED" in said)


def visible(text: str) -> str:
    r"""Replace control characters, which a terminal would obey: an escape becomes `\x1b`, and so on.

    Names in a run folder or a card may come from anybody. Tabs and newlines stay.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_a_line(error: BaseException) -> str:
    """Return the name of a foreign error, and the first line of its message if there is one."""
    name, first = type(error).__name__, first_line(error)
    return name if first == name else f"{name}: {first}"


def unknown_name(field: str, got: str, known: Iterable[str], hint: str = "") -> InputError:
    """Return the error for a name that does not exist: it names the nearest known ones, then all of them."""
    names = sorted(known)
    return InputError(field, "one of " + ", ".join(names), repr(got), f"{did_you_mean(got, names)} {hint}".strip())


def did_you_mean(got: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return a hint at the nearest known names, empty if there is none; `cutoff` is as in `difflib`."""
    small = {name.lower(): name for name in known}  # CE is a near miss of ce
    found = [got.lower()] if got.lower() in small else difflib.get_close_matches(got.lower(), small, n=3, cutoff=cutoff)
    near = [small[name] for name in found]
    return f"Did you mean {' or '.join(near)}?" if near else ""
