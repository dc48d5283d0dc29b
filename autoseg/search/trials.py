"""Runs planned trainings: writes each to the ledger before and after it runs, then tells the observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autoseg.controllers.base import NEAR, distance
from autoseg.errors import AutosegError, InputError
from autoseg.execution import Executor, Job
from autoseg.proxy.rungs import Rungs
from autoseg.search.observer import Amount, Observer, Progress
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE, PRUNED, RETRYABLE, RUNNING, TrialRecord
from autoseg.store.run_folder import RunFolder


class TrialRunner:
    """Runs trainings with the executor and records them in the ledger.

    Args:
        ledger: stores the plan and the results.
        executor: runs the trainings.
        observer: receives every result.
        amount: all trainings of the run, for the progress.
        confirm_iters: iterations of each training of study "confirm", if they are longer than a candidate's; else None.
        first: the round that the run goes on with.

    Attributes:
        done: number of trainings with a result, of all studies; of study "confirm" only those that `train` was called
            with: an earlier confirmation's do not count.
        best: the candidate with the highest reward; of equals, the first.
    """

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        observer: Observer,
        amount: Amount,
        confirm_iters: int | None = None,
        first: int = 0,
    ) -> None:
        self.ledger, self.executor, self.observer, self.amount = ledger, executor, observer, amount
        self._confirm_iters = confirm_iters
        # Kept up to date rather than counted anew, so that a round costs the same after any history.
        self.done, self._seconds = 0, 0.0
        self._counted: set[tuple[str, tuple[str, int]]] = set()
        self.best: TrialRecord | None = None
        # Once a later round has begun, the controller has learnt from the failures of those before it.
        self._last_round = max([first, *(record.round for record in ledger.records("search"))])
        for study in ledger.studies:  # a confirmation is counted when planned: its records may be older
            for record in ledger.records(study) if study != "confirm" else ():
                self._count(study, record)

    def confirming(self, trainings: int) -> None:
        """Begin the confirmation, whose number of trainings could only be estimated until now."""
        before = self.amount.total - self.amount.confirming
        self.amount = replace(self.amount, total=before + trainings, confirming=trainings)
        self.observer.confirming(trainings)

    def train(
        self,
        study: str,
        plan: Sequence[TrialRecord],
        reward: Callable[[Mapping[str, float]], float],
        rungs: Rungs | None = None,
    ) -> list[TrialRecord]:
        """Run the planned trainings and return their results, in order. Those the ledger already has are not run again.

        The exceptions (`repeats`) are those that failed or ran out of time, in the last round or outside the rounds: on
        another machine, with another limit or after a fix, they may complete.

        Args:
            study: study of the ledger.
            plan: the trainings.
            reward: computes the reward from the scores of a complete training.
            rungs: where they are scored during training, and may be stopped; None: nowhere.

        Raises:
            InputError: the ledger has another θ under the same name, so that it is not this search's.
        """
        records = {record.key: self._recorded(study, record) for record in plan}
        for record in records.values():
            self._count(study, record)
        jobs = {str(r.number): r for r in records.values() if r.state == RUNNING}
        extra = {} if rungs is None else rungs.payload()
        longer = 1.0
        if study == "confirm" and self._confirm_iters is not None:
            extra, longer = {**extra, "iters": self._confirm_iters}, self.amount.longer
        twins = _twins(jobs) if study == "confirm" else {}
        planned = [
            Job(key, {**r.payload, **extra}, r.kind, longer) for key, r in jobs.items() if key not in twins.values()
        ]
        for job, outcome in self.executor.run(planned):
            gained = reward(outcome.scores) if outcome.state == COMPLETE else float("nan")
            if outcome.state == PRUNED and rungs is not None:
                gained = rungs.expected(list(outcome.rungs.values()))
            results = {job.key: outcome}
            if job.key in twins:
                results[twins[job.key]] = replace(outcome, seconds=0.0)  # a run's cost is that of its trainings
            for key, result in results.items():
                done = self.ledger.finish(study, jobs[key], result, gained)
                records[done.key] = done
                self._count(study, done)
                self.observer.trained(done, self.progress())
        return list(records.values())

    def adopted(self, study: str, plan: Sequence[TrialRecord], jumps: bool = False) -> list[TrialRecord]:
        """Return the plan with the θ of the ledger for the trainings that it already has.

        After a run went on on another processor, they are planned with other last bits. A θ that is farther away than
        `NEAR` stays as planned, which `train` refuses, unless rounding alone may move it so far (`Controller.jumps`).
        """
        kept = []
        for planned in plan:
            known = self.ledger.find(study, planned.key)
            theta = None if known is None else known.theta
            if theta and planned.theta and (jumps or distance(theta, planned.theta) <= NEAR):
                planned = replace(planned, theta=theta)
            kept.append(planned)
        return kept

    def _recorded(self, study: str, planned: TrialRecord) -> TrialRecord:
        found = self.ledger.find(study, planned.key)
        if found is None:
            return self.ledger.add(study, planned)
        if found.theta != planned.theta:
            got = f"{found.theta}, but the controller now asks {planned.theta}"
            hint = "The checkpoints or the ledger were changed, or the run is from other software versions."
            raise InputError(f"run folder, {planned.name}", "one θ for one candidate", got, hint)
        if self.repeats(found):
            self._forget(study, found)
            return self.ledger.add(study, planned)
        return found

    def repeats(self, record: TrialRecord) -> bool:
        """Return whether a training of the ledger is run again if it is planned."""
        return record.state in RETRYABLE and not 0 <= record.round < self._last_round

    def _forget(self, study: str, record: TrialRecord) -> None:
        if (study, record.key) in self._counted:
            self._counted.remove((study, record.key))
            self.done -= 1
            self._seconds -= record.seconds

    def _count(self, study: str, record: TrialRecord) -> None:
        if record.state == RUNNING or (study, record.key) in self._counted:
            return
        self._counted.add((study, record.key))
        self.done += 1
        self._seconds += record.seconds
        if study == "search" and record.state == COMPLETE:
            best = self.best
            if best is None or (record.reward, -record.round, -record.index) > (best.reward, -best.round, -best.index):
                self.best = record

    def progress(self) -> Progress:
        """Return the progress of the run."""
        left = self.amount.seconds_left(self.done, self._seconds, self.executor.workers)
        return Progress(self.done, max(self.amount.total, self.done), self.best, left)


def _twins(jobs: Mapping[str, TrialRecord]) -> dict[str, str]:
    """Map a training to another of the same loss and seed, which has its result: identity curves, and the candidate.

    A search begins with the identity curves. If they are among its best, they are confirmed as a candidate and as a
    rival.
    """
    first: dict[tuple[object, int], str] = {}
    twins = {}
    for key, record in jobs.items():
        what = record.name if record.theta is None else record.theta
        if first.setdefault((what, record.seed), key) != key:
            twins[first[what, record.seed]] = key
    return twins


def drop_unasked(ledger: Ledger, study: str, plan: Sequence[TrialRecord]) -> None:
    """Drop the trainings without a result that are not in the plan: of when the run was to have more, or others."""
    asked = {record.key for record in plan}
    for record in ledger.records(study):
        if record.state == RUNNING and record.key not in asked:
            ledger.drop(study, record)


def train_list(
    folder: RunFolder,
    study: str,
    plan: Sequence[TrialRecord],
    reward: Callable[[Mapping[str, float]], float],
    executor: Executor,
    observer: Observer,
) -> list[TrialRecord]:
    """Run a list of trainings that is no search; arguments as in `TrialRunner` and its `train`. Return the results.

    Raises:
        AutosegError: no training completed.
    """
    with Ledger(folder.trials, (), studies=(study,)) as ledger:
        drop_unasked(ledger, study, plan)
        known = {record.key for record in [*plan, *ledger.records(study)]}
        records = TrialRunner(ledger, executor, observer, Amount(len(known))).train(study, plan, reward)
    if records and all(record.state != COMPLETE for record in records):
        raise AutosegError(f"No training completed. The first one ({records[0].state}): {records[0].error}")
    return records
