"""How every figure is taken: ours and the peer in turn, medians over repeats, the ratio pair by pair.

Machines are shared and drift; two things timed one after the other drift together, so the ratio holds where
absolute times do not.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: what was measured, in a few words.
        peer: what it is compared with.
        ours: median, in `unit`.
        theirs: the peer's median, in `unit`.
        ratio: median over the pairs of ours / theirs (for rates: how many times the peer's).
        unit: of `ours` and `theirs`.
        target: the bound that the ratio is meant to keep, as text ("<= 2"), or "".
        detail: anything else worth keeping: sizes, threads, spread.
    """

    what: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    target: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target holds; None without one."""
        if not self.target:
            return None
        sign, bound = self.target.split()
        return self.ratio <= float(bound) if sign == "<=" else self.ratio >= float(bound)


def seconds(call: Callable[[], object], device: str = "cpu") -> float:
    """Wall time of one call; on a GPU until its work is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def paired(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    repeats: int = 15,
    warmup: int = 3,
    device: str = "cpu",
) -> tuple[float, float, float]:
    """(median seconds of ours, of theirs, median ratio), timed in turn after a warm-up.

    An idle GPU has low clocks: there the warm-up takes half a second at least.
    """
    began, done = time.perf_counter(), 0
    while done < warmup or (device != "cpu" and time.perf_counter() - began < 0.5):
        seconds(ours, device)
        seconds(theirs, device)
        done += 1
    pairs = [(seconds(ours, device), seconds(theirs, device)) for _ in range(repeats)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(a / b for a, b in pairs)


def attempted(figures: Iterable[tuple[str, Callable[[], Iterable[Row]]]]) -> Iterator[Row]:
    """The rows of each call, named in a few words; one that raises is printed and left out, the others are taken."""
    for what, take in figures:
        try:
            rows = list(take())
        except Exception as error:
            traceback.print_exc()
            reason = str(error).strip().partition("\n")[0]
            print(f"{what}: not measured, {type(error).__name__}: {reason}", flush=True)
        else:
            yield from rows


@contextmanager
def by_kernels() -> Iterator[None]:
    """Within, a loss that leaves its Triton kernels for the reference path is an error: it would be timed as theirs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Triton kernels cannot run")
        yield


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures were taken on."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def save(name: str, rows: Sequence[Row], device: str = "cpu", folder: Path = RESULTS) -> Path:
    """Write `<name>.json` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(device), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return path


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; an asterisk where a target is missed."""
    lines = ["| what | ours | peer | ratio | target |", "|---|---:|---|---:|---:|"]
    for row in rows:
        missed = " *" if row.met is False else ""
        lines.append(
            f"| {row.what} | {row.ours:.4g} {row.unit} | {row.peer}, {row.theirs:.4g} {row.unit} "
            f"| {row.ratio:.2f}{missed} | {row.target or '–'} |"
        )
    return "\n".join(lines)
