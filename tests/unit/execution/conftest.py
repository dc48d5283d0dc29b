from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from autoseg.execution.cluster import connect


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """Two machines of one core, imitated on this one; this process is connected to them."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    try:
        connect(nodes.address)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
