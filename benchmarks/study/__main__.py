"""All studies, from trainings to the tables in docs: `make study DATA=DIR WEIGHTS=FILE`, hours long.

    python -m benchmarks.study DATA WEIGHTS     CamVid as `python scripts/prepare_data.py camvid DATA` leaves it, and
                                                ImageNet weights of MobileNetV2, a state dict
    python -m benchmarks.study --tiny           the same on a few built-in images within minutes, to try it

What is finished is not done again, and a part that was interrupted goes on where it stopped: type the same command.
Raw results and tables are in `runs/study`; those behind docs are kept in `benchmarks/study/data`, which nothing
writes to.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import median

from autoseg.cli import faults
from autoseg.errors import InputError
from autoseg.execution import local_devices
from autoseg.store.records import duration
from benchmarks.study import plan
from benchmarks.study.parts import Part, parts_of
from benchmarks.study.plan import Study


def main() -> int:
    """Check everything, then do part after part; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of CamVid")
    parser.add_argument("weights", nargs="?", help="file of backbone weights")
    parser.add_argument("--tiny", action="store_true", help="built-in images, minutes")
    parser.add_argument("--only", help="one of the studies, by its name")
    parser.add_argument("--folder", type=Path, help="of everything it leaves; default: runs/study, runs/study-tiny")
    parser.add_argument("--workers", default="auto", help="auto, or how many")
    given = parser.parse_args()
    try:
        return run(*chosen(given), given.workers)
    except KeyboardInterrupt:
        print("\nInterrupted; nothing finished is lost. The same command goes on.")
        return faults.INTERRUPTED
    except InputError as error:
        return faults.report(error)


def chosen(given: argparse.Namespace) -> tuple[list[Study], Path]:
    """The studies that are asked for, and the folder of all they leave.

    Raises:
        InputError: no data or weights, or an unknown study.
    """
    if given.tiny:
        studies = plan.tiny()
    elif given.data and given.weights:
        studies = plan.full(given.data, given.weights)
    else:
        got = given.data or "nothing"
        raise InputError("DATA WEIGHTS", "CamVid and MobileNetV2's ImageNet weights", got, "Or --tiny, to try it.")
    names = [study.name for study in studies]
    if given.only not in (None, *names):
        raise InputError("--only", ", ".join(names), given.only)
    folder = given.folder or Path("runs", "study-tiny" if given.tiny else "study")
    return [study for study in studies if given.only in (None, study.name)], folder


def run(studies: list[Study], folder: Path, workers: str) -> int:
    """Do what is not done yet; returns the exit status."""
    for study in studies:
        study.check()
    parts = [(study, part) for study in studies for part in parts_of(study, folder, workers)]
    print(f"{len(parts)} parts, {sum(part.trainings for _, part in parts)} trainings, in {folder}")
    for number, (study, part) in enumerate(parts, start=1):
        head = f"\n[{number}/{len(parts)}] {study.name}: {part.title}"
        if part.file.is_file():
            print(f"{head}: done, {part.file}")
            continue
        print(f"{head}{_expected(study, part, folder, workers)}", flush=True)
        part.run()
    print(f"\nTables: {', '.join(str(path) for path in sorted(folder.glob('*.md')))}")
    return 0


def _expected(study: Study, part: Part, folder: Path, workers: str) -> str:
    """How long a part will take: its trainings, each as long as those of the study's first search."""
    if not part.trainings:
        return ""
    told = f", {part.trainings} trainings"
    recorded = folder / f"{study.name}.csv"
    if not recorded.is_file():
        return told  # the search says it after its first
    with recorded.open(encoding="utf-8") as file:
        seconds = median(float(row["seconds"]) for row in csv.DictReader(file) if row["seconds"])
    count = 1 if study.executor == "inline" else len(local_devices(workers))
    return f"{told}, about {duration(part.trainings * seconds / count)} in all"


if __name__ == "__main__":
    raise SystemExit(main())
