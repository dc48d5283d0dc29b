"""The search: ask for θ, train, tell the reward, confirm.

* `loop`: the whole of it; read it first. `target` says what is maximised and with which surrogate, `bench` gets a
  round's trainings done, `reward` makes a number of scores, `confirm` trains the best again with fresh seeds, beside
  their rivals; `stages` says what of this is done and how much there is; `rungs` stop hopeless ones, `timing` says how
  long it will take, `observer` is who is told;
* `ledger`: every training in `trials.db`, as `records`; `run_folder` is where it lies, `run_files` reads what else is
  there, `publish` writes the card of the best;
* `candidate`: what a worker does, from a payload to a loss to scores; `proxy` is our training in it, with what
  trainings of one seed have `shared` and the `keepsakes` that a report shows; `own` are a user's metrics and losses;
* `env`: the search as a gymnasium environment. `paired` says how sure differences are.

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
