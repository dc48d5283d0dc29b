"""`autoseg.search`: the search around any training function, from Python. Like a command, it joins all rooms."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from autoseg.config import MOST_SEEDS, RIVALS, ConfirmConfig, SearchSettings
from autoseg.controllers import Controller, build_controller
from autoseg.controllers.base import check_integer, check_number
from autoseg.errors import InputError
from autoseg.evidence.comparison import rivals as rivals_of_run
from autoseg.execution import build_executor, worker_devices
from autoseg.metrics import is_known, own_metrics, parse
from autoseg.metrics.base import MetricOptions
from autoseg.proxy.candidate import CandidateTask, Train
from autoseg.search.loop import Problem, run_search
from autoseg.search.observer import Observer, Observers, Plan, Progress, RoundSummary
from autoseg.search.publish import CardPublisher
from autoseg.search.target import check_settings, hand_made_rivals, space_of, start_theta
from autoseg.store.records import COMPLETE, SearchResult, TrialRecord, counted, percent
from autoseg.store.run_files import read_config
from autoseg.store.run_folder import RunFolder, new_run_path
from autoseg.store.user_code import Fresh, WithUserCode, code_of, formulas
from autoseg.store.versions import versions
from autoseg.surrogates import check_own_metrics
from autoseg.surrogates.space import SearchSpace
from autoseg.tracking import Log, Terminal

SLACK = 1e-6  # a mean of scores that are 1 may be a little more
LEAST = {  # of the whole numbers among the arguments of `search`
    "rounds": 1, "candidates": 1, "threads": 1, "per_device": 1, "seed": 0, "retries": 0, "confirm_top": 0,
    "confirm_seeds": 0,
}  # fmt: skip
MOST = {"confirm_seeds": MOST_SEEDS}
KINDS: dict[str, type | UnionType] = {  # of the other arguments
    "metric": str, "space": str | SearchSpace, "controller": str | Controller, "run_dir": str | Path | None,
    "device": str, "inline": bool, "cluster": str | None, "floor": str | None, "drop_background": bool,
    "observer": Observer | None, "progress": bool,
}  # fmt: skip


def search(
    metric: str,
    train: Train,
    *,
    num_classes: int | None = None,
    space: str | SearchSpace = "default",
    controller: str | Controller = "gp",
    run_dir: str | Path | None = None,
    rounds: int = 8,
    candidates: int = 8,
    start: str | Sequence[float] | None = None,
    seed: int = 0,
    workers: int | str = 1,
    device: str = "auto",
    threads: int = 1,
    per_device: int = 1,
    inline: bool = False,
    cluster: str | None = None,
    timeout_s: float | None = None,
    retries: int = 1,
    floor: str | None = None,
    confirm_top: int = 3,
    confirm_seeds: int = 5,
    rivals: Sequence[str] = RIVALS,
    ignore_index: int = 255,
    tolerance: int = 5,
    drop_background: bool = False,
    progress: bool = True,
    observer: Observer | None = None,
) -> SearchResult:
    """Search a loss for `metric`, judged by your own training.

    A `run_dir` that holds a run is gone on with: the same call after a crash or an interruption continues it. Of one
    that is over the result is returned, which is warned of: `train` may be another by now.

    Args:
        metric: the target, e.g. "biou" or "miou+0.5*bf1"; with a `space` that names a metric, any score of `train`.
        train: `train(loss, seed, device)`: trains with `loss` (logits (N, C, H, W), labels (N, H, W) int64) and
            returns the score to maximise, or {name: score} with one called `metric`. Scores are shares of 1: return
            0.43, not 43; the first that lies outside its metric's range is warned of. Judge it on images held out of
            the training set, not on your validation set. All candidates get the same seed: use it for weights and
            batches. Sent to the workers by cloudpickle, and each training begins from what was sent: a network or
            an optimizer that stands outside `train`, among the globals of the notebook or script or in a closure, is
            as it was when `search` was called, not as the last candidate left it. That does not hold for globals of
            modules that are imported (where data may be kept from training to training), files and the environment.
        num_classes: C; None: as many as the logits have that `train` hands to the loss.
        space: a space's name, the path of a .yaml file, or a `SearchSpace`; one that names a metric ("default-miou")
            trains with that one's surrogate, whatever the target is.
        controller: "gp", "tpe", "cmaes", "ppo" (the paper's), "random", or one made by `build_controller`, of
            which the settings are taken: it begins anew.
        run_dir: the run folder; default: a new one in `runs/`. Of one that another `train` made trainings in, that is
            warned of; one of an own metric whose formula was edited is refused.
        rounds: how often the controller learns.
        candidates: per round.
        start: a loss that the search begins with: a card, a run folder or a name ("camvid/miou") of a loss with the
            curves of `space`, or its raw θ; None: the identity curves.
        seed: of the controller and of all trainings; the confirmation derives its own from it.
        workers: processes at the same time, or "auto": one per GPU, or by cores.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        threads: CPU threads per worker.
        per_device: workers that share a GPU, with workers="auto".
        inline: train in this process, without workers, for debugging: `train` itself is called, so that a debugger
            and the notebook see what it does. State that it keeps outside itself is then not reset between trainings.
        cluster: train on the machines of a Ray cluster: "HOST:PORT" of its head, or "auto": the one that runs here.
        timeout_s: per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s.
            Without effect with inline=True.
        retries: fresh attempts after a worker died or hung.
        floor: e.g. "miou>=0.9*ce": below it a candidate's reward is cut.
        confirm_top: how many of the best are trained again.
        confirm_seeds: with how many fresh seeds; 0: no confirmation; with fewer than 5 no lead is called certain.
        rivals: what they are compared with: anything that `build_loss` takes: "identity" (the identity curves of the
            space), names of losses and sums of them, known losses ("camvid/miou"), paths of cards. Cards are copied
            into the run.
        ignore_index: id of the pixels that do not count.
        tolerance: boundary metrics, pixels.
        drop_background: boundary metrics, class 0 has no boundary of its own.
        progress: print a line for each round, and in a terminal a bar; elsewhere one for a training, at most every
            minute.
        observer: told what happens, until it fails; see `autoseg.search.observer`.

    Returns:
        The winner and the table it was chosen from, which `print` shows; its card is `loss.json` in the run folder.
        What it says of them in `warnings` is warned of too.

    Raises:
        InputError: an argument is wrong, or the run folder is of another search.
        AutosegError: no candidate completed.
    """
    _check_arguments(locals())
    bound = space_of(space, metric)
    options = {"tolerance": tolerance, "drop_background": drop_background}
    own = train if inline else Fresh(train)
    texts = {} if run_dir is None else rivals_of_run.texts_of(Path(run_dir), metric)
    task = CandidateTask(metric, bound.to_dict(), num_classes, own, ignore_index, options, texts=texts)
    chosen = _controller(controller, bound, start, seed)
    confirm = ConfirmConfig(confirm_top, confirm_seeds, list(rivals))
    theta = None if start is None else list(chosen.settings.mean)
    settings = SearchSettings(rounds, candidates, theta, floor, timeout_s, retries, confirm)
    check_settings(settings, chosen, texts=texts)
    for name in hand_made_rivals(settings):
        task.build({"loss": name})
    saved = chosen.brief_state()
    about = {
        "metric": metric,
        "seed": seed,
        "num_classes": num_classes,
        "ignore_index": ignore_index,
        **options,
        "space": bound.to_dict(),
        "controller": {"name": saved["controller"], "settings": saved["settings"]},
        "threads": threads,
    }
    config = {**about, "search": asdict(settings)}
    if num_classes is not None:
        data = MetricOptions(num_classes, ignore_index, tolerance, drop_background)
        check_own_metrics([], [name for _, name in parse(bound.metric)], data)
    targets = [target for target in (metric, bound.metric) if is_known(target)]
    edited = formulas({name for target in targets for _, name in parse(target)})
    fixed = {**about, **edited, "candidates": candidates, "floor": floor}
    if inline and cluster is not None:
        raise InputError("cluster", "none with inline=True, which trains in this process", repr(cluster))
    kind = "inline" if inline else "processes" if cluster is None else "ray"
    devices = worker_devices(kind, workers, device, per_device, threads, cluster or "auto")
    path = Path(run_dir) if run_dir is not None else new_run_path(Path("runs"), metric, "custom")
    confirmed_otherwise = _confirmed_otherwise(path, confirm)
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder.create_or_open(path, config, fixed, rounds))
        task = replace(task, texts=rivals_of_run.keep(settings, metric, path))
        executor = stack.enter_context(
            build_executor(
                kind,
                WithUserCode(task),
                devices,
                threads=threads,
                timeout_s=timeout_s,
                retries=retries,
                log=folder.log,
            )
        )
        provenance = {"target": metric, "seed": seed, "versions": versions()}
        publish = CardPublisher(path / "loss.json", bound, num_classes, ignore_index, options, provenance)
        problem = Problem(metric, bound.names, bound.identity.tolist(), seed)
        begun = _Begun(folder, train)
        shown = [_Shown()] if progress else []
        observers = Observers(
            [Log(folder.log), *shown, begun, _Shares(metric), _Alike(metric), *([] if observer is None else [observer])]
        )
        stack.callback(observers.close)
        try:
            result = run_search(folder, problem, chosen, executor, settings, publish, observers)
        except KeyboardInterrupt as stop:
            stop.add_note(f"Nothing finished is lost. Go on with the same call and run_dir={str(path)!r}.")
            raise
        from autoseg.evidence.drawn import draw  # matplotlib: only now

        missing = draw(result, bound.names)
    through = sys._getframe(1).f_globals["__name__"] == "autoseg.search"  # called as the package, which is callable
    old = f"nothing was trained: {path} holds this search. Another train() than the one of then wants another run_dir."
    told = [*confirmed_otherwise, *([old] if begun.over else []), *result.warnings]
    for text in [*told, *([missing] if missing is not None else [])]:
        warnings.warn(text, stacklevel=2 + through)
    return result


def _confirmed_otherwise(path: Path, confirm: ConfirmConfig) -> list[str]:
    """Return what differs from the confirmation of the run there is: a default, say, that another version had."""
    if not (path / "config.yaml").is_file():
        return []
    kept = (read_config(path).get("search") or {}).get("confirm") or {}
    pairs = {"confirm_top": "top", "confirm_seeds": "seeds", "rivals": "rivals"}
    changed = {name: kept[key] for name, key in pairs.items() if key in kept and kept[key] != getattr(confirm, key)}
    now = {name: getattr(confirm, pairs[name]) for name in changed}
    return [f"{name} was {old!r} when the run began, and is {now[name]!r}" for name, old in changed.items()]


def _check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse arguments of `search` that are of another kind or out of range, before anything is made of them."""
    _check_train(given["train"])
    for field, least in LEAST.items():
        check_integer(field, given[field], least, MOST.get(field, math.inf))
    classes = given["num_classes"]
    MetricOptions(1 if classes is None else classes, given["ignore_index"], given["tolerance"])  # has checks of its own
    for field, kind in KINDS.items():
        if not isinstance(given[field], kind):
            names = [one.__name__.removesuffix("Type") for one in get_args(kind) or (kind,)]  # NoneType is None
            raise InputError(field, " or ".join(names), repr(given[field]))
    if given["timeout_s"] is not None:
        check_number("timeout_s", given["timeout_s"])
    rivals = given["rivals"]
    if isinstance(rivals, str) or not isinstance(rivals, Sequence):
        hint = f"Type rivals=[{rivals!r}]." if isinstance(rivals, str) else ""
        raise InputError("rivals", "names in a list", repr(rivals), hint)


def _check_train(train: object) -> None:
    """Refuse what cannot be called as a training is, before workers are started to find out."""
    expected, got = "a function of (loss, seed, device)", type(train).__name__
    try:
        if callable(train):
            signature = inspect.signature(train)
            got = f"{getattr(train, '__name__', got)}{signature}"
            signature.bind(None, 0, "cpu")
            return
    except ValueError:  # of a builtin, which does not say how it is called
        return
    except TypeError:
        pass
    raise InputError("train", expected, got, "It trains with that loss and returns the score.")


def _controller(
    given: str | Controller, space: SearchSpace, start: str | Sequence[float] | None, seed: int
) -> Controller:
    """Return a new controller of the space: one by name, or one with the settings of the user's."""
    if isinstance(given, str):
        return build_controller(given, space.dim, start_theta(space, start, given), seed=seed)
    if start is not None:
        raise InputError("start", "none beside a controller, which has its own mean", repr(start))
    if given.settings.dim != space.dim:
        raise InputError("controller", f"one of the space's {space.dim} numbers", f"one of {given.settings.dim}")
    return type(given)(given.settings)


class _Shown(Terminal):
    """Progress without what the search warns of, which is a warning of Python."""

    def warning(self, text: str) -> None:
        """See `search`."""


class _Shares(Observer):
    """Warns of the first score of the target that lies outside what its metric can be. The search goes on.

    A score of the user's own may have any range, and so nothing is said of it, nor of scores beside the target.

    Args:
        metric: the target, a name or a sum.
    """

    def __init__(self, metric: str) -> None:
        terms = parse(metric) if is_known(metric) else []
        own = {one.name for one in own_metrics()}
        self._metric, self._top = metric, sum(weight for weight, _ in terms)
        self._told = not terms or any(name in own for _, name in terms)

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """Look at its score."""
        score = record.scores.get(self._metric, 0.0)
        if self._told or record.state != COMPLETE or -SLACK <= score <= self._top + SLACK:
            return
        self._told = True
        said = (
            f"train() returned {score:g} for {self._metric}, which lies between 0 and {self._top:g}: scores are read "
            f"as shares of 1, and this one is shown as {percent(score, 0)} %. The search goes on with it as it is."
        )
        warnings.warn(said, stacklevel=2)


class _Alike(Observer):
    """Warns after the first round if no loss made a difference, which its end says hours later. The search goes on.

    Whether `train` calls its loss is not looked at: in a process of its own, as `loss.forward` or through an operator
    of the user's it would be missed. Its scores tell, unless they differ from training to training anyway.

    Args:
        metric: the target.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._told = False
        self._scores: list[float] = []

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """Look at its scores, and wait for more if there is only one."""
        self._scores += [one.scores[self._metric] for one in summary.records if one.state == COMPLETE]
        if self._told or len(self._scores) < 2:
            return
        self._told = True
        if len(set(self._scores)) == 1:
            said = (
                f"all {len(self._scores)} losses so far score the same {self._metric}, {self._scores[0]:g}: train() "
                "does not use its loss, or it is too short to tell them apart. The search goes on."
            )
            warnings.warn(said, stacklevel=2)


class _Begun(Observer):
    """Remembers whether there was anything left to do, and keeps in the run which `train` does it.

    Args:
        folder: of the run.
        train: the user's.

    Raises:
        InputError: what the run says of that is damaged.
    """

    def __init__(self, folder: RunFolder, train: Train) -> None:
        self.over = False
        self._folder, self._code, self._known = folder, code_of(train), folder.trainers()

    def started(self, plan: Plan) -> None:
        """Warn if another made some of the trainings that are there."""
        self.over = plan.done >= plan.total
        if self.over:  # this one makes none
            return
        known = [one for one in self._known if one["after"] < plan.done]  # the others brought no result
        if not known or known[-1]["code"] != self._code:
            self._folder.write_trainers([*known, {"after": plan.done, "code": self._code}])
        version = self._code.partition(":")[0]  # of Python: what another one made of a function tells nothing
        others = [one["code"] != self._code for one in known if one["code"].startswith(f"{version}:")]
        if not any(others):
            return
        which = "the one that made the" if all(others) else "one that made some of the"
        said = (
            f"train() is another function than {which} {counted(plan.done, 'training')} in {plan.run_dir}: their "
            "scores stand beside each other. Another run_dir begins anew."
        )
        warnings.warn(said, stacklevel=2)
