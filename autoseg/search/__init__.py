"""The search: the loop (`loop.py`), its ledger, its run folder, the proxy task and the environment.

`autoseg.search` is also the name of the function that runs a search (`api.search`); a function and a package cannot
share a name in Python, so the package is callable.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `autoseg.search.api.search`."""
        from autoseg.search.api import search

        return search(*args, **options)


sys.modules[__name__].__class__ = _Callable
