"""`autoseg watch`: follows a run from another terminal or machine, only by reading its folder."""

from __future__ import annotations

import difflib
import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli.arguments import Arguments
from autoseg.cli.faults import INTERRUPTED
from autoseg.errors import InputError, visible

if TYPE_CHECKING:
    from rich.console import Console

    from autoseg.store.records import TrialRecord
    from autoseg.tracking.status import Status

HELP = """
Follows a run from another terminal or machine: rounds and trainings as they end, what is at work,
the best so far, how long it will take. It only reads the run's folder.

usage: autoseg watch RUN [--once] [--every SECONDS]

  RUN       folder of a search, a comparison or a trust run; in an empty one a run is waited for
  --once    print how it stands and stop
  --every   how often to look; default 2 seconds

Ends with 0 when the run has ended, with 1 if it has stopped before (it says how to go on); with
--once with 0 too while it is at work.

  autoseg watch runs/NAME
  autoseg watch runs/NAME --once
"""

PATIENCE = 5  # reads in a row that may fail (a file half written, a busy disk) before it is an error
DEAD_STATUS = 1
BEGINNING = (".lock", "fingerprint.json")  # files of a run folder before it has a config.yaml
LATEST = 5  # number of trainings shown of those that ended before the command started


def run(command: str, argv: list[str]) -> int:
    """Watch until the run has ended."""
    parser = Arguments(command, HELP)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--every", type=float, default=2.0)
    given = parser.parse_args(argv)
    path = Path(given.run).expanduser()
    if not 0 < given.every < math.inf:
        raise InputError("--every", "more than 0 seconds", given.every)
    if not path.is_dir():  # probably mistyped
        there = [str(p.parent) for p in path.parent.glob("*/config.yaml")]
        near = difflib.get_close_matches(str(path), there, n=3)
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        hint = f"{meant}A run that is yet to begin is waited for in an empty folder: mkdir -p {shlex.quote(str(path))}"
        raise InputError("RUN", "a run folder", f"{path}, which does not exist", hint)
    if not any((path / name).exists() for name in (*BEGINNING, "config.yaml")) and any(path.iterdir()):
        raise InputError("RUN", "a run folder, or an empty one in which a run will begin", f"{path}, which is neither")
    from autoseg.tracking.terminal import plain_console  # rich: only once the arguments are right

    watch = Watch(path, plain_console())
    try:
        return watch.once() if given.once else watch.follow(given.every)
    except KeyboardInterrupt:
        if given.once:
            raise
        print("\nNo longer watching; the run goes on.")
        return INTERRUPTED
    except SystemExit as closed:  # rich's, with the status 1 of a run that has stopped: nobody reads any more
        raise BrokenPipeError from closed


class Watch:
    """Prints a run's progress and remembers what has been printed.

    Args:
        path: the run's folder.
        console: the console to print to.
    """

    def __init__(self, path: Path, console: Console) -> None:
        self._path, self._console = path, console
        self._rounds = 0
        self._told: set[tuple[str, str, int]] = set()
        self._began = False
        self._done = 0

    def once(self) -> int:
        """Print the run's current state and return the exit status."""
        from autoseg.tracking.status import DEAD, read_status

        status = read_status(self._path)
        if status is None:
            self._say(f"{self._path} has not begun: it holds no run yet.")
            return 0
        self._news(status)
        self._say(summary(status))
        for line in self._ending(status):
            self._say(line)
        return DEAD_STATUS if status.state == DEAD else 0

    def follow(self, every: float) -> int:
        """Print what happens until the run has ended; return the exit status."""
        from rich.markup import escape

        from autoseg.tracking.status import DEAD, FINISHED, read_status

        shown, failures, waited, silent = "", 0, False, False
        with self._console.status("") as spinner:  # shows nothing where the output is no terminal
            while True:
                try:
                    status, failures = read_status(self._path), 0
                except InputError:
                    failures += 1
                    if failures >= PATIENCE:
                        raise
                    time.sleep(every)
                    continue
                if status is None:
                    if not waited:
                        self._say(f"{self._path} has not begun yet; waiting for it. Ctrl-C stops watching.")
                    waited = True
                    time.sleep(every)
                    continue
                news, text = self._news(status), summary(status)
                spinner.update(escape(visible(text)))  # the run's own names are no markup
                if status.state in (FINISHED, DEAD):
                    break
                if status.silent and not silent:  # it may go on: its file system may be slow
                    for line in self._ending(status):
                        self._say(line)
                silent = status.silent
                if (news or not shown) and not self._console.is_terminal:
                    self._say(text)
                shown = text
                time.sleep(every)
        for line in [summary(status), *self._ending(status)]:
            self._say(line)
        return 0 if status.state == FINISHED else DEAD_STATUS

    def _say(self, text: str) -> None:
        self._console.print(visible(text), markup=False)

    def _news(self, status: Status) -> bool:
        """Print what has ended since the last call; return whether anything has."""
        from autoseg.tracking.lines import training_line
        from autoseg.tracking.status import round_line

        first, lines = not self._began, []
        if first:
            self._say(heading(status, self._path))
            self._began = True
        while self._rounds < status.rounds and (line := round_line(status, self._rounds)) is not None:
            lines.append(line)
            self._rounds += 1
        ended = []
        for study, records in status.studies.items():
            new = [r for r in records if study != "search" and r.ended and (study, *r.key) not in self._told]
            self._told |= {(study, *record.key) for record in new}
            ended += new
        ended.sort(key=lambda record: record.ended)
        if first and len(ended) > LATEST:
            before = len(ended) - LATEST
            lines.append(f"  {before} training{'s' if before > 1 else ''} before these:")
            ended = ended[-LATEST:]
        lines += ["  " + training_line(record, metric_of(status)) for record in ended]
        for line in lines:
            self._say(line)
        before, self._done = self._done, len(status.done)
        return self._done > before or bool(lines)

    def _ending(self, status: Status) -> list[str]:
        """Return the lines about a run that has ended, or may have."""
        from autoseg.store.records import duration
        from autoseg.tracking.status import DEAD, FINISHED

        quiet = duration(time.time() - status.since)
        if status.state == FINISHED:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.since))
            return [f"Finished {when}: {self._result(status)}", *self._behind(status)]
        if status.state == DEAD:
            return [
                f"It has stopped: {status.owner} no longer works in it, nothing has happened for {quiet}, since "
                f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.since))}. Nothing finished is lost.",
                self._go_on(status),
            ]
        if status.silent:
            return [f"{status.owner} has been silent for {quiet}: it may have stopped.", self._go_on(status)]
        return []

    def _result(self, status: Status) -> str:
        files = {"search": "loss.json", "compare": "table.md", "trust": "trust.md"}
        return str(self._path / files[status.kind])

    def _behind(self, status: Status) -> list[str]:
        """Return the last sentence of a search if a rival is ahead of its loss."""
        from autoseg.search.confirm import concluded
        from autoseg.store.records import sentence
        from autoseg.store.run_files import all_settings

        if status.kind != "search" or status.best is None or not status.studies["confirm"]:
            return []
        with all_settings(self._path):
            result = concluded(self._path, status.config, status.studies["search"], status.studies["confirm"])
        return [sentence(result)] if result.best.behind else []

    def _go_on(self, status: Status) -> str:
        if status.kind == "search" and "data" not in status.config:  # from Python
            return f"Go on with the same call of autoseg.search, run_dir={str(self._path)!r}."
        from autoseg.cli.configuration.named_code import resume_arguments  # Hydra, for its quoting
        from autoseg.cli.configuration.overrides import typed

        return f"Go on with: autoseg {status.kind} {typed('resume', str(self._path))}{resume_arguments(status.config)}"


def metric_of(status: Status) -> str:
    """Return the name of the score that is shown."""
    if status.kind == "compare":
        return str(status.config["metrics"][0])
    return str(status.config.get("metric", "score"))


def heading(status: Status, path: Path) -> str:
    """Describe the run in a line."""
    from autoseg.store.records import counted

    what = {
        "search": f"Search for {metric_of(status)}",
        "compare": f"Comparison of {len(status.config.get('losses', ()))} losses",
        "trust": f"Proxy trust of {Path(str(status.config.get('run'))).name}",
    }[status.kind]
    rounds = f", {counted(status.rounds, 'round')}" if status.rounds else ""
    return f"{what} in {path}{rounds}"


def summary(status: Status) -> str:
    """Describe the run's current state in a line."""
    from autoseg.store.records import duration, percent
    from autoseg.tracking.status import GOING

    parts = [f"{len(status.done)}/{status.total} trainings"]
    if status.state == GOING and status.at_work:
        parts.append("at work: " + ", ".join(_name(record, status) for record in status.at_work))
    if status.best is not None:
        parts.append(f"best {percent(status.best.reward)} ({status.best.name})")
    if status.state == GOING and status.seconds_left is not None:
        parts.append(f"about {duration(status.seconds_left)} left")
    return "   ".join(parts)


def _name(record: TrialRecord, status: Status) -> str:
    return record.name if status.kind == "search" and record.round >= 0 else f"{record.name} seed {record.seed}"
