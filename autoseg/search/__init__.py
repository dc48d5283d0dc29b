"""The search: ask for θ, train, tell the reward, confirm.

* `loop`: the whole of it; read it first;
* `target`: what is maximised, with which surrogate, and where the search begins;
* `trials`: gets a round's trainings done and recorded; `reward` makes one number of a training's scores;
* `confirm`: trains the best again with fresh seeds, beside their rivals; `publish` writes the card of the winner;
* `stages`, `timing`: how much there is to train, and how long it will take; `observer`: who is told of it;
* `env`: the search as a gymnasium environment.

A worker's part is `autoseg.proxy`, what a run keeps `autoseg.store`.

`autoseg.search` is also the name of the function that runs a search (`autoseg.api.search`); a function and a package
cannot share a name in Python, so the package is callable.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `autoseg.api.search`, which stands above this room and is imported by its name."""
        return import_module("autoseg.api").search(*args, **options)


sys.modules[__name__].__class__ = _Callable
