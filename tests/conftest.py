from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Commands that the tests start are those of this checkout, even if the environment has installed another.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

# Their cache is not the user's, but is kept: it has compiled libraries.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"autoseg-tests-{os.getuid()}")

# A loaded machine takes its time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# A background job starts with SIGINT ignored, and so would every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes of one test run share the cores: with as many threads each as there are cores, they would wait in turn.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Peers (kornia, smp, torchmetrics, ...) are imported in the tests that compare with them: every process of a run
# imports every test file, and those would take longer than all the rest.


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
