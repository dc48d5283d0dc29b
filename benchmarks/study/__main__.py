"""All studies from trainings to tables, hours long: `python -m benchmarks.study DATA WEIGHTS` (`make study`).

    DATA      CamVid as `python scripts/prepare_data.py camvid DATA` leaves it
    WEIGHTS   ImageNet weights of MobileNetV2, a state dict

What is finished is not done again: searches go on where they stopped. The raw results are in `benchmarks/study/data`,
the searches in `runs/study`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

RUNS = Path("runs/study")
NAME = "camvid-miou"
# Controller and rounds of 8. To the first one the surface is fitted; all are what was found once for real.
SEARCHED = {"random": 12, "cmaes": 4, "ppo": 4, "tpe": 4}


def main() -> None:
    """Record, race, measure the savings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of CamVid")
    parser.add_argument("weights", help="file of backbone weights")
    parser.add_argument("--workers", default="auto")
    given = parser.parse_args()
    for controller, rounds in SEARCHED.items():
        search(controller, rounds, given)
        kept = NAME if controller == "random" else f"{NAME}-{controller}"
        module("benchmarks.study.efficiency", "--record", str(RUNS / controller), "--name", kept)
    module("benchmarks.study.efficiency", "--name", NAME)
    compare(given)
    trainings = ["--run", str(RUNS / "random"), "--folder", str(RUNS / "savings"), "--workers", given.workers]
    module("benchmarks.study.savings", *trainings, "--name", NAME)


def search(controller: str, rounds: int, given: argparse.Namespace) -> None:
    """One search of short trainings on CamVid, or the rest of it."""
    run = RUNS / controller
    settings = [
        "experiment=camvid", "metric=miou", "proxy.iters=80", f"controller={controller}", f"search.rounds={rounds}",
        "search.candidates=8", "search.confirm.top=3", "search.confirm.seeds=2", "search.confirm.rivals=[]",
        f"data.root={given.data}", f"model.weights={given.weights}", f"run_dir={run}",
    ]  # fmt: skip
    again = [f"resume={run}"] if (run / "config.yaml").is_file() else settings
    call(str(Path(sys.executable).with_name("autoseg")), "search", *again, f"workers={given.workers}")


def compare(given: argparse.Namespace) -> None:
    """The losses found, trained in full on the training images and judged on others."""
    losses = ",".join(["ce", "lovasz", *(str(RUNS / controller) for controller in SEARCHED)])
    run = RUNS / "found"
    settings = [
        f"losses=[{losses}]", "metrics=[miou,biou]", "seeds=5", "split=val", f"like={RUNS / 'tpe'}", f"run_dir={run}",
    ]  # fmt: skip
    again = [f"resume={run}"] if (run / "config.yaml").is_file() else settings
    call(str(Path(sys.executable).with_name("autoseg")), "compare", *again, f"workers={given.workers}")


def module(name: str, *arguments: str) -> None:
    """Run `python -m name arguments`."""
    call(sys.executable, "-m", name, *arguments)


def call(*command: str) -> None:
    """Show a command, and run it."""
    print("\n$", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
