"""The types that all executors share: a `Job` goes in, an `Outcome` comes out."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self

from autoseg.errors import Diverged, InputError, out_of_memory

State = Literal["complete", "pruned", "diverged", "failed", "timeout"]


@dataclass(frozen=True)
class Job:
    """One call of the task."""

    key: str  # names the job among those of one `run`; unique there
    payload: dict[str, Any]  # plain data for the task, e.g. `{"theta": [...], "seed": 3}`
    kind: str = ""  # jobs of one kind take about the same time, from which the automatic time limit is set
    longer: float = 1.0  # factor by which it takes longer than others of its kind; its time limit is multiplied by it


@dataclass(frozen=True)
class Outcome:
    """The result of a job after its last attempt."""

    # "complete", "pruned" (the task ended it early, see `Watched`), "diverged" (it raised `Diverged`), "failed" (it
    # raised something else, or its worker died) or "timeout"
    state: State
    scores: dict[str, float] = field(default_factory=dict)  # what the task returned; empty unless complete
    seconds: float = 0.0  # wall-clock time of the last attempt
    attempts: int = 1  # 1, or more after a worker died, hung or ran out of memory
    error: str = ""  # the reason in words, with the traceback where there is one; empty if complete
    device: str = "cpu"  # the slot it ran on: "cpu", "cuda:<index>" or, of a cluster, "cuda"
    # intermediate scores by iteration, if the task was asked for them
    rungs: dict[int, float] = field(default_factory=dict)


class Watched(dict[str, float]):
    """Scores of a job that was also scored during training; a task may return them instead of a plain dict.

    Args:
        scores: final scores; empty if it was pruned.
        rungs: intermediate scores by iteration.
        pruned: whether it was stopped at the last of these iterations.
    """

    def __init__(self, scores: Mapping[str, float], rungs: Mapping[int, float], pruned: bool = False) -> None:
        super().__init__(scores)
        self.rungs, self.pruned = dict(rungs), pruned


class Task(Protocol):
    """The function that every worker holds one copy of. Must survive cloudpickle; may keep caches between calls."""

    def __call__(self, payload: dict[str, Any], device: str, /) -> Mapping[str, float]:
        """Do one job on `device` and return its scores; raise `Diverged` if the loss is not finite."""
        ...


class Executor(ABC):
    """Runs jobs.

    A job has its process to itself: a task seeds the random generators and sets the threads of the whole process, so
    that its scores depend on nothing else. An `InputError` raised by a task ends the run: no candidate caused it.
    """

    @property
    @abstractmethod
    def workers(self) -> int:
        """The number of jobs that run at the same time."""

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield every job exactly once with its outcome, in the order in which they end."""

    def close(self) -> None:  # noqa: B027  (not every executor has workers to stop)
        """Stop the workers, also those that are working. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job, as seen by the process that made it."""

    outcome: Outcome  # as if this were the last attempt
    out_of_memory: bool = False  # another attempt, in a fresh process, may succeed
    wrong_input: InputError | None = None  # the task says the user's input is wrong; ends the run


def attempt(task: Task, payload: dict[str, Any], device: str) -> Attempt:
    """Call the task once and turn any result or exception into an `Attempt`. Runs inside the worker."""
    start = time.monotonic()

    def ended(state: State, error: str = "") -> Outcome:
        return Outcome(state, {}, time.monotonic() - start, error=error, device=device)

    try:
        returned = task(payload, device)
        scores = {name: float(score) for name, score in returned.items()}
        rungs, pruned = (returned.rungs, returned.pruned) if isinstance(returned, Watched) else ({}, False)
        return Attempt(replace(ended("pruned" if pruned else "complete"), scores=scores, rungs=rungs))
    except Diverged as error:
        return Attempt(ended("diverged", error=str(error) or "the loss is not finite"))
    except InputError as error:
        return Attempt(ended("failed", error=traceback.format_exc()), wrong_input=error.in_words())
    except Exception as error:
        return Attempt(ended("failed", error=traceback.format_exc()), out_of_memory(error))
