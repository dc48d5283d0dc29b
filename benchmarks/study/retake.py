"""Part of the recorded savings taken anew, after a change to how such a candidate is trained.

    python -m benchmarks.study.retake DATA WEIGHTS STUDY [TRAINING]

STUDY is one of `make study` ("camvid-miou"), TRAINING one of its ways to train, by default "warm-up of a third". Its
recorded candidates are trained so once more, with the recorded seed, and some of them unabridged in between: CPU time
is compared with theirs, since code and machine may be faster than those of the recording. Everything else stays as it
was recorded in `benchmarks/study/data`. The new file and its table are in `runs/study`; interrupted, it goes on there.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from autoseg.cli.configuration import compose
from autoseg.cli.jobs import search as search_job
from autoseg.cli.jobs.trust_source import Source
from autoseg.config import SearchConfig
from autoseg.evidence.comparison.tables import csv_text
from autoseg.evidence.trust.rankings import Entry, Variant
from autoseg.files import write_atomic
from benchmarks.study import plan
from benchmarks.study.plan import Study
from benchmarks.study.savings import COLUMNS, FIRST, WARM, in_order, rows_of, second_seed, train
from benchmarks.study.savings_table import beside, load, table
from benchmarks.study.surface import DATA

BESIDE = 6  # candidates that are trained unabridged in between


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of CamVid")
    parser.add_argument("weights", help="file of backbone weights")
    parser.add_argument("study")
    parser.add_argument("training", nargs="?", default=WARM)
    parser.add_argument("--folder", type=Path, default=Path("runs", "study"), help="of everything it leaves")
    parser.add_argument("--workers", default="auto", help="auto, or how many")
    given = parser.parse_args()
    (study,) = (study for study in plan.full(given.data, given.weights) if study.name == given.study)
    print(retake(study, given.training, DATA, given.folder, given.workers))


def retake(study: Study, training: str, recorded: Path, folder: Path, workers: str) -> str:
    """Train what `folder` does not have yet; returns the table.

    Args:
        study: whose file in `recorded` it is.
        training: its way to train.
        recorded: folder of the files of all studies.
        folder: for the new file, and the trainings.
        workers: "auto", or how many.
    """
    config = compose.compose("search", SearchConfig, [*study.search("random"), f"executor={study.executor}"])
    parts = search_job.build(config)
    source = Source(recorded, config, parts.data, parts.space)
    file = f"{study.name}-savings.csv"
    with (recorded / file).open(encoding="utf-8") as lines:
        before = [row for row in csv.DictReader(lines) if row["training"] not in (training, beside(training))]
    entries = _entries(before, recorded / f"{study.name}.csv")
    seeds = (second_seed(config),)
    planned = in_order(entries, [Variant(training, seeds), Variant(beside(training), seeds)])
    among = {record.index for record in planned[: 2 * BESIDE]}
    planned = [record for record in planned if record.kind == training or record.index in among]
    records = train(source, entries, planned, folder / study.name / "retaken", workers)
    rows = [list(COLUMNS), *([row[column] for column in COLUMNS] for row in before)]
    write_atomic(folder / file, csv_text([*rows, *rows_of(entries, records, config.metric)]))
    told = table(load(folder / file))
    write_atomic((folder / file).with_suffix(".md"), told + "\n")
    return told


def _entries(rows: list[dict[str, str]], search: Path) -> list[Entry]:
    """The recorded candidates, best first, their θ from the file of the search."""
    with search.open(encoding="utf-8") as lines:
        names, *known = csv.reader(lines)
    at = names.index("seconds") + 1
    thetas = {row[0]: tuple(map(float, row[at:])) for row in reversed(known)}  # the first of a name is the search's own
    found = [
        Entry(row["candidate"], "candidate", thetas[row["candidate"]], float(row["score"]), float(row["wall_seconds"]))
        for row in rows
        if row["training"] == FIRST
    ]
    return sorted(found, key=lambda entry: -entry.score)


if __name__ == "__main__":
    main()
