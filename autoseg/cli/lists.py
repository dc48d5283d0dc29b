"""`autoseg metrics`, `autoseg losses`, `autoseg spaces`: list what is available, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from autoseg.cli.arguments import IMPORTS, Arguments, code_named
from autoseg.imports import import_modules

HELP = {
    "metrics": """
Lists the metrics, all of them scored in every run. Each can be searched for, and sums of
them, but for those marked "reported".

usage: autoseg metrics [imports=[FILE.py]]      with those of your own

  autoseg search "metric=miou+0.5*bf1" experiment=smoke
""",
    "losses": """
Lists the losses known by name: hand-made, published with Auto Seg-Loss, and found by us.

usage: autoseg losses [imports=[FILE.py]]      with those of your own

In Python:
  autoseg.build_loss("0.25*ce+0.75*jml", num_classes=21)
  autoseg.load_loss("asl2021/miou", num_classes=21)
""",
    "spaces": """
Lists the search spaces; your own is a .yaml file, space=FILE.yaml:

  version: 1
  summary: one line about it
  curve: {family: bezier, pieces: 2, truth_table: true, monotone: true}   # or linear
  score: {family: bezier, pieces: 1}   # of a class's score before the mean; left out: none
  shared: false      # true: one curve of AND and one of OR, whatever their operands
  absent: skip       # classes that a batch lacks; include: they count, as in the paper
  per_metric: {bf1: {pieces: 1}}       # other settings of curve for a metric
  loss: "{a}*ce+{1-a}*surrogate"       # left out: the surrogate alone
  scalars: {a: {low: 0, high: 1, start: 0.25}}

usage: autoseg spaces [imports=[FILE.py]]

  autoseg search metric=biou space=paper-biou experiment=smoke
""",
}


def run(command: str, argv: list[str]) -> int:
    """Print the list that `command` names."""
    named, words = code_named(command, argv)
    Arguments(command, HELP[command]).parse_args(words)
    import_modules(named[IMPORTS])
    rows = list(_LISTS[command]())
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}".rstrip())
    return 0


def _metrics() -> Iterable[tuple[str, str]]:
    from autoseg.metrics.base import registry

    notes = {True: "", False: " (reported)"}
    return [(name, metric.summary + notes[metric.searchable]) for name, metric in registry().items()]


def _losses() -> Iterable[tuple[str, str]]:
    from autoseg.losses.registry import LOSSES
    from autoseg.surrogates.library import known_losses

    hand_made = [(name, f"{loss.summary} ({loss.source})") for name, loss in LOSSES.items()]
    surrogates = [(name, f"surrogate of {loss.metric}, {loss.origin}") for name, loss in known_losses().items()]
    plain = ("identity/METRIC", "surrogate of any metric with the curves g(x) = x, where a search begins")
    return [*hand_made, *surrogates, plain]


def _spaces() -> Iterable[tuple[str, str]]:
    from autoseg.surrogates.library import space_names

    return space_names().items()


_LISTS: dict[str, Callable[[], Iterable[tuple[str, str]]]] = {"metrics": _metrics, "losses": _losses, "spaces": _spaces}
