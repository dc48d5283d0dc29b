"""The search, from the first candidates to the winner. Read this file first.

Each round: save the controller's state, ask it for candidates, write them into the ledger, train those that
have no result yet, tell the controller their rewards. Then the best are confirmed with fresh seeds, beside their
rivals. A run that is killed anywhere and resumed starts from the last saved state, gets the same candidates, finds
their results in the ledger, and so ends as if it had never stopped. On another processor, which rounds otherwise, the
candidates of the round that was begun are those of the ledger. No torch is imported here: the executor's workers train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoseg.config import SearchSettings
from autoseg.controllers import Controller
from autoseg.controllers.base import Round
from autoseg.errors import AutosegError, InputError
from autoseg.execution import Executor
from autoseg.proxy.rungs import Rungs
from autoseg.search.confirm import conclude, confirm, confirmed_before, finalists, found, fresh_seeds, rival, rivals_of
from autoseg.search.observer import Observer, Plan, RoundSummary
from autoseg.search.reward import Floor, Reward
from autoseg.search.stages import stages
from autoseg.search.trials import TrialRunner, drop_unasked
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE, RUNNING, Finding, SearchResult, TrialRecord, by_round
from autoseg.store.run_folder import RunFolder


@dataclass(frozen=True)
class Problem:
    """The problem of a search, as far as the loop needs to know it."""

    metric: str  # the target, one of the scores of a training; higher is better
    names: Sequence[str]  # names of the coordinates of θ
    identity: Sequence[float]  # the θ of the identity curves
    seed: int = 0  # seed of all trainings of the search; those of the confirmation are derived from it
    iters: int | None = None  # iterations of a candidate's training; None: only the training function knows


def run_search(
    folder: RunFolder,
    problem: Problem,
    controller: Controller,
    executor: Executor,
    settings: SearchSettings,
    publish: Callable[[Finding], None],
    observer: Observer,
    seconds_per_training: float | None = None,
) -> SearchResult:
    """Run a search, or go on with one that was interrupted.

    Args:
        folder: the locked run folder, opened for these rounds; its checkpoints and ledger say where to go on.
        problem: what is searched.
        controller: a new controller; a saved state is loaded into it.
        executor: its task takes `TrialRecord.payload` and returns scores.
        settings: rounds, candidates, floor and confirmation.
        publish: called with the best so far after every round, and at the end with the winner (loss.json).
        observer: receives the events.
        seconds_per_training: measured time of a training, for the observer's plan; None: not measured.

    Raises:
        InputError: the folder is damaged or not of this search; the floor cannot be read; no space on the disk.
        AutosegError: no candidate completed, or of a round of several all failed or took too long.
    """
    with Ledger(folder.trials, problem.names) as ledger:
        first = _go_on(folder, controller, ledger, settings.candidates)
        recorded = {study: ledger.records(study) for study in ledger.studies}
        there = stages(recorded, settings, problem.seed, problem.iters, mean=_mean(controller) is not None)
        trials = TrialRunner(ledger, executor, observer, there.amount, settings.confirm.iters, first)
        done = sum(record.state != RUNNING and not trials.repeats(record) for record in there.records)
        plan = Plan(
            folder.path,
            problem.metric,
            rounds=settings.rounds,
            candidates=settings.candidates,
            workers=executor.workers,
            amount=there.amount,
            done=done,
            first_round=first,
            seconds_per_training=seconds_per_training,
        )
        observer.started(plan)
        reward = _reward(trials, "floor", problem, settings, problem.seed)
        for round in range(first, settings.rounds):
            folder.save_checkpoint(round, controller.brief_state())
            jumps = controller.jumps
            asked = _candidates(round, controller.ask(settings.candidates), problem.seed)
            rungs = Rungs.before(round, trials.ledger.records("search"), settings)
            records = trials.train("search", trials.adopted("search", asked, jumps), reward, rungs)
            controller.tell(*_told(records))
            observer.round_done(RoundSummary.of(round, records), trials.progress())
            best = trials.best
            # none diverged: others would fail the same way, and a resumed run repeats the round
            if all(map(trials.repeats, records)) and (best is None or len(records) > 1):
                raise AutosegError(_nothing(records, None if best is None else round))
            if best is not None:
                publish(found(best, problem.seed))
        folder.save_checkpoint(settings.rounds, controller.brief_state())
        result = _confirmed(folder, trials, problem, controller, settings, reward)
    if result.best.confirmed or not result.rows:  # otherwise the card stays, which may be from an earlier confirmation
        publish(result.best)
    for text in result.warnings:
        observer.warning(text)
    observer.finished(result)
    return result


def _go_on(folder: RunFolder, controller: Controller, ledger: Ledger, candidates: int) -> int:
    """Load the last saved state, if there is one; return the round to go on with.

    Raises:
        InputError: the ledger lacks trainings that this state was computed from.
    """
    saved = folder.last_checkpoint()
    if saved is None:
        return 0
    round, state = saved
    history = _rounds(ledger.records("search"), round)
    known, told = sum(len(thetas) for thetas, _ in history), round * candidates
    if known < told:  # the search would go on without them, and choose among the rest
        hint = "It was emptied, or is another run's: put the right one back, or start a new run."
        raise InputError(str(folder.trials), f"the {told} trainings of rounds that are over", known, hint)
    controller.load_brief_state(state, history)
    return round


def _rounds(history: Sequence[TrialRecord], end: int) -> list[Round]:
    """Return θ and rewards of the rounds before `end`, as the controller was told them."""
    told = by_round(record for record in history if record.round < end)
    return [_told(one) for one in told]


def _told(round: Sequence[TrialRecord]) -> Round:
    return np.array([record.theta for record in round]), np.array([record.reward for record in round])


def _candidates(round: int, thetas: npt.NDArray[np.float64], seed: int) -> list[TrialRecord]:
    return [
        TrialRecord(round, index, "candidate", f"candidate {round}.{index}", tuple(theta), seed)
        for index, theta in enumerate(thetas.tolist())
    ]


def _reward(trials: TrialRunner, study: str, problem: Problem, settings: SearchSettings, seed: int) -> Reward:
    """Return the reward, after training the rival that its floor refers to, as long as the candidates it is applied to.

    In study "confirm" it is one of the confirmation's own trainings (see `rivals_of`).
    """
    floor = Floor.of(settings)
    if floor is None:
        return Reward(problem.metric)
    if floor.rival is None:
        return Reward(problem.metric, floor, floor.level(None))
    plan = [rival(floor.rival, problem.identity, 0, seed)]
    (record,) = trials.train(study, plan, Reward(problem.metric))
    if record.state != COMPLETE:
        raise AutosegError(f"The training of {floor.rival}, which search.floor needs ({record.state}): {record.error}")
    return Reward(problem.metric, floor, floor.level(record.scores))


def _nothing(records: Sequence[TrialRecord], later: int | None = None) -> str:
    """Say that no candidate completed: none at all, or of a later round."""
    said = "No candidate completed."
    if later is not None:
        hint = "a training that fails because of its loss raises autoseg.errors.Diverged, and the search goes on"
        said = f"No candidate of round {later + 1} completed. A resumed run repeats it ({hint})."
    return f"{said} The first one ({records[0].state}): {records[0].error}"


def _confirmed(
    folder: RunFolder,
    trials: TrialRunner,
    problem: Problem,
    controller: Controller,
    settings: SearchSettings,
    reward: Reward,
) -> SearchResult:
    """Choose the winner with fresh seeds, unless the settings say there is no confirmation."""
    history = trials.ledger.records("search")
    first = trials.best
    if first is None:
        raise AutosegError(_nothing(history))
    best = found(first, problem.seed)
    seeds, iters = fresh_seeds(problem.seed, settings.confirm.seeds, settings.confirm.iters), settings.confirm.iters
    if not seeds or not settings.confirm.top:
        drop_unasked(trials.ledger, "confirm", [])
        return SearchResult(folder.path, problem.metric, best)
    entries = finalists(history, settings.confirm.top, _mean(controller), settings.rounds)
    entries += confirmed_before(trials.ledger.records("confirm"), seeds, entries)
    entries += [rival(name, problem.identity, 0, problem.seed) for name in rivals_of(settings)]
    if iters is not None:
        reward = _reward(trials, "confirm", problem, settings, seeds[0])
    rows = confirm(trials, entries, seeds, reward, problem.metric)
    return conclude(folder.path, problem.metric, best, rows, seeds, iters)


def _mean(controller: Controller) -> tuple[float, ...] | None:
    mean = getattr(controller, "mean", None)
    return None if mean is None else tuple(float(x) for x in mean)
