"""The search that `trust` checks: read from its run folder, its losses to be trained in other ways."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.cli.configuration.resume import searched
from autoseg.config import ProxyConfig, SearchConfig
from autoseg.data import SegData, open_data
from autoseg.errors import InputError
from autoseg.evidence.comparison import rivals
from autoseg.evidence.trust.rankings import Entry, TrustTask, spread
from autoseg.proxy.candidate import CandidateTask
from autoseg.proxy.shared import SHARED
from autoseg.proxy.task import ProxyTask
from autoseg.store.ledger import Ledger
from autoseg.store.run_files import all_settings, read_fingerprint
from autoseg.store.user_code import RESOLVED, changed_config, network_of
from autoseg.surrogates import SearchSpace

Jobs = Mapping[str, tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Source:
    """A search that is only read.

    Args:
        run: its folder.
        search: its configuration.
        data: its images.
        space: its search space.
    """

    run: Path
    search: SearchConfig
    data: SegData
    space: SearchSpace

    @classmethod
    def open(cls, run: Path) -> Source:
        """Read a run folder.

        Raises:
            InputError: not the folder of such a search, or data or a model.config that has changed since.
        """
        search = searched(run)
        fixed = read_fingerprint(run)
        try:
            data = open_data(search.data, search.proxy.size)
        except InputError as error:
            if error.field != "data.root":
                raise
            where = shlex.quote(f"resume={run}")
            hint = f"Tell the search where its images are now: autoseg search {where} data.root=DIR."
            raise InputError(error.field, error.expected, error.got, hint) from None
        if data.fingerprint != fixed["data"]:
            hint = f"Look into {search.data.root}; or they have padding, which older versions of autoseg scored."
            raise InputError("data of the search", "the images it had", "others", hint)
        if network_of(search.model)[RESOLVED] != fixed["model"].get(RESOLVED):
            raise changed_config("model.config", search.model.config, "Take back the change, or search anew.")
        return cls(run, search, data, SearchSpace.from_dict(fixed["space"]))

    def ledger(self) -> Ledger:
        """Open the ledger of all its trainings."""
        return Ledger(self.run / "trials.db", self.space.names, read_only=True)

    def candidates(self, count: int) -> list[Entry]:
        """Return `count` of its candidates, spread over their scores; errors as in `spread`.

        The identity curves, with which a search begins, are not among them if they are a rival: they would count twice.
        """
        identity = tuple(self.space.identity.tolist()) if "identity" in self.search.search.confirm.rivals else None
        with self.ledger() as ledger:
            known = [record for record in ledger.records("search") if record.theta != identity or identity is None]
        return spread(known, self.search.metric, count)

    def task(self, proxies: Mapping[str, ProxyConfig], jobs: Jobs, metrics: Sequence[str], folder: Path) -> TrustTask:
        """Return the task of workers that train its losses in other ways.

        Args:
            proxies: the training settings of each variant.
            jobs: name of a training to its variant and the payload of its loss.
            metrics: the metrics to score, with the target.
            folder: folder for the files that trainings share.
        """
        search = self.search
        own = ProxyTask.of(search, metrics, self.data.fingerprint, shared=str((folder / SHARED).absolute()))
        trains = {name: replace(own, proxy=proxy) for name, proxy in proxies.items()}
        data, options = self.data, search.boundary_options  # each job replaces `own`
        texts = rivals.texts_of(self.run, search.metric)
        task = CandidateTask(
            search.metric, self.space.to_dict(), data.num_classes, own, data.ignore_index, options, texts=texts
        )
        return TrustTask(task, trains, jobs)


def kept_entries(path: Path) -> list[Entry]:
    """Return the losses in the fingerprint of a run folder.

    Raises:
        InputError: it has none.
    """
    with all_settings(path):
        kept = read_fingerprint(path)["entries"]
        return [Entry(**{**one, "theta": one["theta"] and tuple(one["theta"])}) for one in kept]


def kept_seeds(path: Path) -> list[int]:
    """Return the seeds in the fingerprint of a trust run; errors as in `kept_entries`."""
    with all_settings(path):
        first, *rest = (int(seed) for seed in read_fingerprint(path)["seeds"])
        return [first, *rest]
