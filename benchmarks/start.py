"""What `autoseg search` does until its first training, and that training: timed by `search.py`, in a new interpreter.

A module of its own, with few imports, so that it imports no more than the command does, and in the same order.
"""

from __future__ import annotations

import json
import time
from typing import Any


class FirstStep:
    """A task that says when its training made its first step, and how much memory it needed."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Train for a few iterations and score."""
        import resource

        from autoseg.config import DataConfig, ProxyConfig
        from autoseg.losses import build_loss
        from autoseg.proxy.task import ProxyTask
        from benchmarks import proxy

        loss = proxy.Ticking(build_loss("ce", num_classes=len(self.data["classes"])), clock=time.time)
        settings = ProxyConfig(iters=payload["iters"], size=list(proxy.SIZE))
        scores = ProxyTask(DataConfig(**self.data), proxy.network(), settings, ("miou", "biou", "bf1"))(loss, 0, device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {**scores, "first_step": loss.ticks[0], "peak_gb": peak}


def start(data: dict[str, Any], workers: str) -> None:
    """Print when the first worker made its first step, and how much memory the largest needed."""
    from autoseg.cli.configuration.compose import compose
    from autoseg.cli.prestart import standby
    from autoseg.config import DataConfig, SearchConfig
    from autoseg.execution import Job, ProcessExecutor

    config = compose("search", SearchConfig, ["model=deeplabv3plus_mobilenet_v2", f"workers={workers}"])
    config.data = DataConfig(**data)
    with standby(config, config.proxy.threads) as waiting:
        from autoseg.cli.jobs.search import build

        build(config)
        with ProcessExecutor(FirstStep(data), waiting.slots, standby=waiting) as executor:
            jobs = [Job(str(index), {"iters": 4}) for index in range(executor.workers)]
            outcomes = [outcome for _, outcome in executor.run(jobs)]
    for outcome in outcomes:
        if outcome.state != "complete":
            raise RuntimeError(outcome.error)
    first, peak = min(o.scores["first_step"] for o in outcomes), max(o.scores["peak_gb"] for o in outcomes)
    print(json.dumps({"first_step": first, "peak_gb": peak}))
