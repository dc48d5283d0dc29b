"""What workers run in these tests; imported by each of them, so without pytest."""

from __future__ import annotations

import atexit
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoseg.errors import Diverged, InputError


def leave_together(folder: Path) -> None:
    """Note that this process ends, and once another ends too, that it has ended by itself."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.02)
    (folder / f"{os.getpid()} left").touch()


def toy(payload: dict[str, Any], device: str) -> Mapping[str, float]:
    """Do what the payload says."""
    marker = Path(payload["marker"]) if "marker" in payload else None
    first = marker is not None and not marker.exists()
    if marker is not None:
        marker.touch()
    if "meet" in payload:  # as many others, in processes of their own
        Path(payload["meet"], str(os.getpid())).touch()
        while len(list(Path(payload["meet"]).iterdir())) < payload["of"]:
            time.sleep(0.02)
    match payload.get("do"):
        case "raise":
            raise KeyError("no such thing")
        case "diverge":
            raise Diverged("loss is nan at iteration 3")
        case "wrong input":
            raise InputError("data.root", "a folder", object(), "Give one.")
        case "out of memory":
            if first:
                raise MemoryError("too big")
        case "die":
            os._exit(7)
        case "die once":
            if first:
                os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            child = subprocess.Popen(["sleep", "600"])
            Path(payload["pids"]).write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        case "wait":  # on a cluster: say on which machine, then wait for a file
            from ray import get_runtime_context

            Path(payload["machine"]).write_text(f"{get_runtime_context().get_node_id()} {os.getpid()}")
            while not Path(payload["go"]).exists():
                time.sleep(0.02)
        case "draw":
            random.seed(payload["x"])
            time.sleep(0.1)
            return {"drawn": random.random()}
        case "doze":
            time.sleep(2)
        case "leave a child":
            child = subprocess.Popen(["sleep", "600"])
            return {"child": child.pid}
        case "leave together":
            atexit.register(leave_together, Path(payload["folder"]))
        case "exit":
            sys.exit("had enough")
        case "eat":
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            return {"eaten": len(bytearray(8 << 30))}
        case "flood":
            while True:
                print(1000 * "x")
        case "say":
            print("hello from the task")
        case "environment":
            own_gpus = os.environ["CUDA_VISIBLE_DEVICES"]
            return {
                "threads": float(os.environ["OMP_NUM_THREADS"]),
                "gpu": float(own_gpus or -1),
                "torch": float("torch" in sys.modules),
                "pid": os.getpid(),
                "cuda": float(device == "cuda:0"),
            }
    return {"double": 2 * payload.get("x", 0), "pid": os.getpid()}


class Refused:
    """Pickles, and says what is wrong with the other process when it is unpickled there."""

    def __call__(self, payload: dict[str, Any], device: str) -> Mapping[str, float]:
        return {}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        return refuse, ()


def refuse() -> None:
    raise InputError("versions", "those", "these")


class Unloadable:
    """Pickles, but does not unpickle."""

    def __call__(self, payload: dict[str, Any], device: str) -> Mapping[str, float]:
        return {}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return __import__, ("there_is_no_such_module",)


def note(folder: Path) -> None:
    """Leave a file named by this process."""
    draft = folder / f".{os.getpid()}"
    draft.write_text(os.environ["OMP_NUM_THREADS"])
    draft.rename(folder / str(os.getpid()))


def note_and_hang(folder: Path) -> None:
    note(folder)
    time.sleep(600)


def note_and_fail(folder: Path) -> None:
    note(folder)
    raise ImportError("no such thing")
