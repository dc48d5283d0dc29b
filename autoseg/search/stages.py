"""The trainings of a search by stage, done and to come, for the search itself and for commands that look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoseg import limits
from autoseg.config import ConfirmConfig, SearchSettings
from autoseg.controllers import CONTROLLERS
from autoseg.search.confirm import confirmed_before, finalists, fresh_seeds, mean_name, rivals_of
from autoseg.search.observer import Amount
from autoseg.search.reward import Floor
from autoseg.store.records import RUNNING, TrialRecord


@dataclass(frozen=True)
class Stages:
    """The trainings in a search's ledger, and the number there will be."""

    floor: Sequence[TrialRecord]  # the rival that its floor refers to
    search: Sequence[TrialRecord]  # the candidates
    confirmation: Sequence[TrialRecord]  # those of the current confirmation, in the order of its plan
    planned: bool  # whether all trainings of the confirmation are there, with or without a result
    amount: Amount  # all trainings, those to come included

    @property
    def records(self) -> list[TrialRecord]:
        """The trainings of all stages."""
        return [*self.floor, *self.search, *self.confirmation]


def stages(
    recorded: Mapping[str, Sequence[TrialRecord]], settings: SearchSettings, seed: int, iters: int | None, mean: bool
) -> Stages:
    """Sort the recorded trainings of a search by stage.

    If a finished search gets another confirmation, the ledger keeps the trainings of the earlier one, which are left
    out. If it gets more rounds, what it confirmed before stays (`confirmed_before`).

    Args:
        recorded: all records, by study.
        settings: settings of the search.
        seed: seed of the search.
        iters: iterations of a candidate's training; None: only the training function knows.
        mean: whether the controller has a mean, which is confirmed too.
    """
    floor, search, confirmed = (recorded.get(study, ()) for study in ("floor", "search", "confirm"))
    confirm, known = settings.confirm, {record.key: record for record in confirmed}
    plan: list[tuple[str, int]] = []
    over = sum(record.state != RUNNING for record in search) >= settings.rounds * settings.candidates
    if over and confirm.top and confirm.seeds:
        seeds, of_mean = fresh_seeds(seed, confirm.seeds, confirm.iters), mean_name(settings.rounds)
        chosen = finalists(search, confirm.top, None, settings.rounds)
        chosen += [known[of_mean, seeds[0]]] if (of_mean, seeds[0]) in known else []  # it may be a finalist's own θ
        chosen += confirmed_before(confirmed, seeds, chosen)
        names = [*(record.name for record in chosen), *rivals_of(settings)]
        plan = [(name, fresh) for fresh in seeds for name in names]
    confirmation = [known[key] for key in plan if key in known]
    planned = 0 < len(confirmation) == len(plan)
    entries = confirm.top + len(rivals_of(settings)) + mean  # at most: of equal candidates one is confirmed
    confirming = len(plan) if planned else entries * confirm.seeds if confirm.top else 0
    floored = Floor.of(settings)
    refers = floored is not None and floored.rival is not None
    longer = confirm.iters / iters if confirm.iters and iters else 1.0
    total = settings.rounds * settings.candidates + refers + confirming
    return Stages(floor, search, confirmation, planned, Amount(total, confirming, longer, settings.candidates))


def stages_of(config: Mapping[str, Any], recorded: Mapping[str, Sequence[TrialRecord]]) -> Stages:
    """Call `stages` with the content of a run's `config.yaml` in place of the settings.

    Raises:
        KeyError: it lacks a setting.
        InputError: a setting is out of its range; the file may come from anybody and ask for a billion seeds.
    """
    search, confirm = config["search"], config["search"]["confirm"]
    confirmation = ConfirmConfig(confirm["top"], confirm["seeds"], confirm["rivals"], confirm["iters"])
    settings = SearchSettings(search["rounds"], search["candidates"], floor=search["floor"], confirm=confirmation)
    limits.check(settings, "search.")
    iters = config["proxy"]["iters"] if "proxy" in config else None  # a training of the user's own has none
    kind = CONTROLLERS.get(config["controller"]["name"])  # None: made by the user
    return stages(recorded, settings, config["seed"], iters, mean=kind is not None and kind.has_mean)
