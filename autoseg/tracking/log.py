"""Writes a run's `log.txt`: events with their times, warnings and tracebacks included."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from autoseg.search.observer import Observer, Plan, Progress, RoundSummary
from autoseg.store.records import COMPLETE, SearchResult, TrialRecord


def candidate_values(record: TrialRecord) -> dict[str, float]:
    """Return the values of a candidate to plot, by name: its reward (NaN if it has none), time and scores."""
    reward = record.reward if record.state == COMPLETE else math.nan
    scores = {f"score/{name}": score for name, score in record.scores.items()}
    return {"candidate/reward": reward, "candidate/seconds": record.seconds, **scores}


class Log(Observer):
    """Writes the search's events, and everything logged under `autoseg`, to a file.

    Args:
        path: appended to; a resumed run goes on in the same file.
    """

    def __init__(self, path: Path) -> None:
        self._logger = logging.getLogger("autoseg")
        self._logger.setLevel(logging.INFO)
        self._handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")  # names of files
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        self._logger.addHandler(self._handler)

    def started(self, plan: Plan) -> None:
        """Log the plan."""
        self._logger.info(
            "search for %s in %s: %d rounds of %d, %d workers, %d of %d trainings done",
            plan.metric, plan.run_dir, plan.rounds, plan.candidates, plan.workers, plan.done, plan.total,
        )  # fmt: skip

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """Log a training with all its scores."""
        scores = " ".join(f"{name}={value:.4f}" for name, value in record.scores.items())
        self._logger.info(
            "%d/%d %s seed %d %s reward=%.4f %s (%.1f s, attempts %d) %s",
            progress.done, progress.total, record.name, record.seed, record.state, record.reward, scores,
            record.seconds, record.attempts, record.error,
        )  # fmt: skip

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """Log a round."""
        self._logger.info("round %d mean %.4f best %.4f", summary.round + 1, summary.mean_reward, summary.best_reward)

    def confirming(self, trainings: int) -> None:
        """Log the start of the confirmation."""
        self._logger.info("confirmation: %d trainings", trainings)

    def warning(self, text: str) -> None:
        """Log a warning."""
        self._logger.warning(text)

    def finished(self, result: SearchResult) -> None:
        """Log the winner and the losses it was compared with."""
        self._logger.info("winner %s reward %.4f theta %s", result.best.name, result.best.reward, result.best.theta)
        if result.best.iters is not None:
            self._logger.info("each training of the confirmation had %d iterations", result.best.iters)
        for row in result.rows:
            self._logger.info("confirmed %s mean %.4f std %.4f n %d", row.name, row.mean, row.std, row.n)

    def close(self) -> None:
        """Close the file."""
        self._logger.removeHandler(self._handler)
        self._handler.close()
