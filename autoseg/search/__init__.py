"""The search: ask for θ, train, tell the reward, confirm.

* `loop`: the whole search; read it first;
* `target`: the metric that is maximised, its surrogate, and the θ at which the search starts;
* `trials`: runs and records a round's trainings; `reward` makes one number of a training's scores;
* `confirm`: trains the best again with fresh seeds, beside their rivals; `publish` writes the card of the winner;
* `stages`, `timing`: how much there is to train, and how long it will take; `observer`: the events of a search;
* `env`: the search as a gymnasium environment.

The worker's part is in `autoseg.proxy`, the files of a run are in `autoseg.store`.

`autoseg.search` is also the name of the function that runs a search (`autoseg.api.search`); a function and a package
cannot share a name in Python, so the package is callable.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call `autoseg.api.search`; it is imported by name and only now, since `autoseg.api` uses this package."""
        return import_module("autoseg.api").search(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for `help` and editors."""
        return inspect.signature(import_module("autoseg.api").search)

    def __reduce__(self) -> tuple[Any, ...]:
        """A function can be pickled and copied, and so can this."""
        return import_module, (__name__,)


sys.modules[__name__].__class__ = _Callable
