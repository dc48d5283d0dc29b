"""Chooses what a search maximises, and the surrogate it trains with: that of the target, or of the metric its space
names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from autoseg.config import ControllerConfig, SearchSettings
from autoseg.controllers import Controller, controller_kind
from autoseg.errors import InputError, unknown_name
from autoseg.losses import check_text, load_loss
from autoseg.metrics import higher_is_better, is_known
from autoseg.search.reward import Floor
from autoseg.surrogates import build_space
from autoseg.surrogates.space import SearchSpace

ELSEWHERE = {"name": "controller=", "dim": "space=", "mean": "search.start=", "seed": "seed="}  # not among its options
EDGE = 0.02  # a policy's mean must lie inside the cube; some identity coordinates of unconstrained spaces do not


def space_of(space: str | SearchSpace, target: str) -> SearchSpace:
    """Return the space of a search for `target`.

    A space that names a metric has the curves of that metric, whatever the target is: "default-biou+miou" trains with
    a surrogate that also counts what is inside regions, and "default-miou" works for a target without a surrogate.

    Args:
        space: "default", "default-biou+miou", the path of a .yaml file, or a `SearchSpace`.
        target: a metric or a sum; with a space that names a metric, any score that a training returns.

    Raises:
        InputError: an unknown space, a target without a surrogate where the space names none, or an error (lower is
            better) as the target.
    """
    bound = _named(space, target) if isinstance(space, str) else space
    if is_known(target) and not higher_is_better(target):
        raise InputError("metric", "a score, higher is better", f"{target}, an error", "A search maximises.")
    return bound


def _named(space: str, target: str) -> SearchSpace:
    try:
        return build_space(space, metric=target)
    except InputError as error:
        if error.field != "metric" or (is_known(target) and not higher_is_better(target)) or is_known(target.lower()):
            raise
        hint = f"{error.hint} Any score can be searched for with another metric's surrogate: space=default-miou."
        raise InputError(error.field, error.expected, error.got, hint.strip()) from None


def check_settings(
    settings: SearchSettings,
    controller: Controller,
    scores: Collection[str] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Check what a search would only notice at its end or never, so that it is reported before hours of work.

    Args:
        settings: with its candidates, floor and rivals.
        controller: which must learn from so many candidates.
        scores: names of the scores of a training, which must include the floor's; None: they are not known.
        texts: what rivals are built from, where that is not their own text.

    Raises:
        InputError: too few candidates; a malformed floor, or one that names an unknown score or an error; an unknown
            loss.
    """
    if settings.candidates < controller.least:
        hint = "From one it learns nothing."
        expected = f"at least {controller.least} with controller={controller.name}"
        raise InputError("search.candidates", expected, settings.candidates, hint)
    if (floor := Floor.of(settings)) is not None:
        metric = floor.metric
        if scores is not None and metric not in scores:
            raise unknown_name("search.floor", metric, scores)
        if is_known(metric) and not higher_is_better(metric):
            raise InputError("search.floor", "a metric where higher is better", metric, "A floor is kept from below.")
    for name, key in hand_made_rivals(settings).items():
        try:
            check_text((texts or {}).get(name, name))
        except InputError as error:
            raise InputError(f"{key}, {error.field}", error.expected, error.got, error.hint) from error


def check_options(controller: ControllerConfig) -> None:
    """Check that the options of a controller are its own.

    Raises:
        InputError: an unknown controller, an option that another key sets, or `std` where nothing uses it.
    """
    kind = controller_kind(controller.name)
    for name, value in controller.options.items():
        key = f"controller.options.{name}"
        if name in ELSEWHERE:
            raise InputError(key, f"no such option, since {ELSEWHERE[name]} sets it", value)
        if name == "std" and not kind.spreads:
            raise InputError(key, f"no such option, which controller={controller.name} does not use", value)


def start_theta(space: SearchSpace, given: str | Sequence[float] | None, controller: str) -> list[float]:
    """Return the raw θ (d,) at which a search starts.

    Args:
        space: the space of the search.
        given: a loss with the same curves, as `load_loss` takes it, or θ itself; None: the identity curves, for "ppo"
            kept `EDGE` inside the cube.
        controller: name of the controller.

    Raises:
        InputError: an unknown loss or controller, a loss with other curves, numbers that are no θ of this space, or a
            controller without a starting point.
    """
    if given is None:
        edge = EDGE if controller == "ppo" else 0.0
        return [float(x) for x in np.clip(space.identity, edge, 1.0 - edge)]
    if not controller_kind(controller).begins:
        hint = "It draws from the whole space."
        raise InputError("search.start", f"null with controller={controller}", repr(given), hint)
    try:
        theta = space.check_theta(_theta_of(given, space) if isinstance(given, str) else given)
        if theta.ndim > 1:
            raise InputError("theta", f"{space.dim} numbers", f"the shape {theta.shape}")
    except InputError as error:
        raise InputError(f"search.start, {error.field}", error.expected, error.got, error.hint) from error
    return [float(x) for x in theta]


def _theta_of(text: str, space: SearchSpace) -> np.ndarray:
    loss = load_loss(text, num_classes=2)  # curves fit any number
    own = loss.space
    if (own.curves, own.loss, own.scalars) != (space.curves, space.loss, space.scalars):
        hint = f"It takes the place of the identity curves in its own space: space={own.name}."
        raise InputError("space", f"that of this search, {space.name}, or one of the same curves", own.name, hint)
    return loss.theta


def hand_made_rivals(settings: SearchSettings) -> dict[str, str]:
    """Return the losses that a search only uses at its end, its rivals and its floor's, with the key that names each.

    Raises:
        InputError: a malformed floor.
    """
    floor = Floor.of(settings)
    named = dict.fromkeys(settings.confirm.rivals, "search.confirm.rivals")
    if floor is not None and floor.rival is not None:
        named.setdefault(floor.rival, "search.floor")
    named.pop("identity", None)
    return named
