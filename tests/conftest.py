from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# A background job starts with SIGINT ignored, and so would every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes of one test run share the cores: with as many threads each as there are cores, they would wait in turn.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Peers (kornia, smp, torchmetrics, ...) are imported in the tests that compare with them: every process of a run
# imports every test file, and those would take longer than all the rest.

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """What the imports have made stays to the end: the garbage collector need not go through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets beside the checkout; tests that need it are skipped where it is missing."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return path


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of two machines with one core each, imitated on this one."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "num_gpus": 0}
    cluster = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    cluster.add_node(**one)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(machines: Any) -> Iterator[Any]:
    """The same, with this process connected to it."""
    import ray

    from autoseg.execution.cluster import connect

    connect(machines.address)
    yield machines
    ray.shutdown()
