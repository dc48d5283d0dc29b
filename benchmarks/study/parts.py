"""The parts of a study, in their order: searches, the race on what they recorded, the comparison, the savings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoseg import cli
from autoseg.cli import faults
from autoseg.files import write_atomic
from benchmarks.study import efficiency, savings, savings_table, surface
from benchmarks.study.plan import Study


@dataclass(frozen=True)
class Part:
    """One step of a study.

    Args:
        title: what it is.
        file: what it leaves when it is done.
        trainings: about how many it takes.
        run: does it, or what is left of it.
    """

    title: str
    file: Path
    trainings: int
    run: Callable[[], None]


def parts_of(study: Study, folder: Path, workers: str) -> Iterator[Part]:
    """All parts; what they leave is in `folder`, named after the study."""
    how = [f"workers={workers}", f"executor={study.executor}"]
    runs = {controller: folder / study.name / controller for controller in study.rounds}
    files = {c: folder / f"{study.name}{'' if c == 'random' else f'-{c}'}.csv" for c in runs}
    for controller, run in runs.items():
        search = partial(_search, study.search(controller), run, how, files[controller])
        count = study.rounds[controller] * study.candidates
        yield Part(f"search, controller {controller}", files[controller], count, search)
    if len(runs) > 1:
        table = folder / f"{study.name}-efficiency.md"
        yield Part("race of the controllers", table, 0, partial(efficiency.write, files["random"], table, study.racers))
        table = folder / f"{study.name}-found.md"
        losses = ["ce", "lovasz", *map(str, runs.values())]
        budget = f"like={next(reversed(runs.values()))}"
        settings = [f"losses=[{','.join(losses)}]", "metrics=[miou,biou]", f"seeds={study.seeds}", "split=val", budget]
        compare = partial(_compare, settings, folder / study.name / "found", how, table)
        yield Part("comparison of the losses found", table, len(losses) * study.seeds, compare)
    table = folder / f"{study.name}-savings.md"
    save = partial(_save, runs["random"], folder / study.name / "savings", study.spread, workers, table)
    yield Part("savings", table, len(savings.ENTRANTS) * study.spread + savings.BARES, save)


def _search(settings: list[str], run: Path, how: list[str], file: Path) -> None:
    """One search; its trainings are kept in `file`."""
    _autoseg("search", settings, run, how)
    surface.record(run, file)


def _compare(settings: list[str], run: Path, how: list[str], file: Path) -> None:
    """One comparison; its tables are kept in `file`, and beside it as CSV."""
    _autoseg("compare", settings, run, how)
    write_atomic(file.with_suffix(".csv"), (run / "table.csv").read_text(encoding="utf-8"))
    write_atomic(file, (run / "table.md").read_text(encoding="utf-8"))


def _save(run: Path, folder: Path, count: int, workers: str, file: Path) -> None:
    """The cheaper trainings of a search's candidates; their table is kept in `file`, and they beside it as CSV."""
    recorded = file.with_suffix(".csv")
    savings.keep(run, folder, count, workers, recorded)
    told = savings_table.table(savings_table.load(recorded))
    print(told)
    write_atomic(file, told + "\n")


def _autoseg(command: str, settings: list[str], run: Path, how: list[str]) -> None:
    """Show an `autoseg` command, and run it; of a run that exists, the rest.

    Raises:
        KeyboardInterrupt: it was interrupted.
        SystemExit: it failed, and has said so.
    """
    own = [f"resume={run}"] if (run / "config.yaml").is_file() else [*settings, f"run_dir={run}"]
    print("$ autoseg", command, *own, *how, flush=True)
    status = cli.main([command, *own, *how])
    if status == faults.INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise SystemExit(status)
