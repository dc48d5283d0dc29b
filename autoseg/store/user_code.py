"""A user's own metrics and losses go with the task into the workers, which have never imported the file they are in.

And what of a user's own code a run depends on, as digests for its fingerprint.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import pickle
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import cloudpickle

from autoseg.config import ModelConfig
from autoseg.errors import InputError
from autoseg.execution import Task
from autoseg.mmconfigs import config_path, mmengine_config, shipped
from autoseg.store.versions import describe_versions, versions

FORMULA = "formula of "  # with a metric's name: a key of a fingerprint
FORMULA_OF_LOSS = f"{FORMULA}the loss "
RESOLVED = "resolved"  # beside the settings of a network: what its config defines, if it is the user's own


@dataclass(frozen=True)
class WithUserCode:
    """A task that another process gets together with the metrics and losses registered here that are not ours."""

    task: Task

    def __call__(self, payload: Any, device: str) -> Any:
        """As the task itself."""
        return self.task(payload, device)

    def __reduce__(self) -> tuple[Any, ...]:
        from autoseg.losses import own_losses
        from autoseg.metrics import own_metrics

        return _arrived, (versions(), cloudpickle.dumps((own_metrics(), own_losses(), self.task)))


def _arrived(theirs: dict[str, str], pickled: bytes) -> Task:
    """In the other process: the task alone, once it may name the metrics and losses.

    Raises:
        InputError: other versions of the packages are installed there, which would give other scores.
    """
    if (ours := versions()) != theirs:  # before anything is unpickled that they may not have
        got = f"{describe_versions(ours)} on {socket.gethostname()}"
        hint = "Install the same ones on all machines, and change none while something is trained."
        raise InputError("versions", describe_versions(theirs), got, hint)
    metrics, losses, task = pickle.loads(pickled)  # from the process that started this one
    if metrics:
        from autoseg.metrics import register_metric

        for metric in metrics:
            register_metric(metric)
    if losses:
        from autoseg.losses import register_loss

        for loss in losses:
            register_loss(loss)
    loaded: Task = task
    return loaded


class Fresh:
    """The user's training for another process, where each call of it begins from the state that it was sent with.

    A network that stands in one cell of a notebook and is trained by `train` in the next goes along with it: without
    this, each training of a worker would go on from the weights of the last, and later candidates would win.

    Args:
        train: as `autoseg.search` takes it.
    """

    def __init__(self, train: Callable[..., Any]) -> None:
        self._train: Callable[..., Any] | None = train
        self._pickled = b""

    def __call__(self, *given: Any) -> Any:
        """As `train` itself; here, where it was not sent to, it is called as it is."""
        train = self._train
        if self._pickled:
            self._train = None  # what was loaded to see whether that works is good for one call
            if train is None:
                gc.collect()  # the last copy: its functions hold their globals, and those the functions
                train = pickle.loads(self._pickled)  # from the process that started this one, as the task
        assert train is not None
        return train(*given)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._pickled or cloudpickle.dumps(self._train),)


def _unpickled(pickled: bytes) -> Fresh:
    """In the other process."""
    fresh = Fresh(pickle.loads(pickled))
    fresh._pickled = pickled
    return fresh


def formulas(metrics: Collection[str], losses: Collection[str] = ()) -> dict[str, str]:
    """Digests of the source of the own metrics and losses among these, for a run's fingerprint: an edit makes another.

    Args:
        metrics: names.
        losses: names.
    """
    from autoseg.losses import own_losses
    from autoseg.metrics import own_metrics

    own: dict[str, type] = {f"{FORMULA}{one.name}": one for one in own_metrics() if one.name in metrics}
    own |= {f"{FORMULA_OF_LOSS}{one.name}": one for one in own_losses() if one.name in losses}
    return {name: _source(kind) for name, kind in own.items()}


def _source(kind: type) -> str:
    try:
        return _digest(inspect.getsource(kind).encode())
    except (OSError, TypeError):  # of a class in a notebook or at a prompt, of which Python keeps no source
        return code_of(kind)


def code_of(made: object) -> str:
    """A digest of what a function or class does, the same in every process of one version of Python, which it names.

    Not of its pickle, which may differ from process to process, nor of its source, where comments are part of it and
    of a lambda all that stands in its line. Functions and classes of the same module that it names belong to it.
    """
    functions = (FunctionType, MethodType, partial, type)
    words = _words(made if isinstance(made, functions) else type(made), set())
    return f"python{sys.version_info.major}.{sys.version_info.minor}:{_digest(chr(10).join(words).encode())}"


def _words(what: object, seen: set[int]) -> Iterator[str]:
    """What a digest is made of: bytecode, names and constants, and nothing that has an address or an order of a set."""
    if isinstance(what, FunctionType | type):
        if id(what) in seen:
            return
        seen.add(id(what))
    if isinstance(what, CodeType):
        yield what.co_code.hex()
        yield from _words(what.co_names + what.co_consts, seen)
    elif isinstance(what, FunctionType):
        cells = [cell for cell in what.__closure__ or () if cell != type(cell)()]  # not yet filled
        inside = (cell.cell_contents for cell in cells)
        yield from _words((what.__code__, what.__defaults__, _pairs(what.__kwdefaults__), *inside), seen)
        for name in sorted(_names(what.__code__)):
            named = what.__globals__.get(name)
            if isinstance(named, FunctionType | type) and named.__module__ == what.__module__:
                yield from _words((name, named), seen)
    elif isinstance(what, type):
        for kind in what.__mro__:
            for name, value in sorted(vars(kind).items()) if kind.__module__ == what.__module__ else ():
                if not name.startswith("__") or isinstance(value, FunctionType):
                    yield from _words((name, value), seen)
    elif isinstance(what, MethodType | staticmethod | classmethod):
        yield from _words(what.__func__, seen)
    elif isinstance(what, property):
        yield from _words(what.fget, seen)
    elif isinstance(what, partial):
        yield from _words((what.func, what.args, _pairs(what.keywords)), seen)
    elif isinstance(what, tuple):
        for one in what:
            yield from _words(one, seen)
    elif isinstance(what, frozenset):
        yield from sorted(map(repr, what))
    elif isinstance(what, str | bytes | int | float | complex | None):
        yield repr(what)
    else:  # state, which a training may have changed
        yield type(what).__qualname__


def _pairs(named: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((named or {}).items(), key=lambda pair: pair[0]))


def _names(code: CodeType) -> set[str]:
    inner = (_names(one) for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*inner)


def network_of(model: ModelConfig) -> dict[str, Any]:
    """A network for a run's fingerprint: its settings and, under `RESOLVED`, the digest of a config of the user's own.

    Raises:
        InputError: there is no such config, or it cannot be read.
    """
    own = shipped(model.config) is None
    return {**asdict(model), RESOLVED: resolved(model.config, "model.config") if own else None}


def changed_config(field: str, file: str, hint: str) -> InputError:
    """What is said of a config of the user's own, named by `field`, that no longer defines what it did."""
    defined = "the network that" if field == "model.config" else "what"
    changed = f"another: {file}, or a file it inherits from, has changed"
    return InputError(field, f"{defined} {file} defined when the run began", changed, hint)


DEFINES = {  # what a config is read for
    "model.config": ("model",),
    "data.mmseg_config": ("train_dataloader", "val_dataloader", "test_dataloader"),
    "config": ("model", "train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
}


def resolved(config: str, field: str) -> str:
    """A digest of what a config defines, with what it inherits from other files. It is executed.

    Args:
        config: a name of mmsegmentation's, or a path.
        field: where the user named it, which says what it is read for.

    Raises:
        InputError: there is no such config, or it cannot be read.
    """
    whole = mmengine_config(config_path(config, field), field).to_dict()
    defined = {key: whole.get(key) for key in DEFINES[field]}
    text = json.dumps(defined, skipkeys=True, default=lambda one: getattr(one, "__qualname__", type(one).__qualname__))
    return _digest(text.encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
