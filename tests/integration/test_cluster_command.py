"""A search on two machines, imitated on this one; alone in its file, whose process has them for children."""

from __future__ import annotations

import pytest
from commands import autoseg
from test_search_command import TINY, rewards


@pytest.mark.slow
def test_on_a_cluster_it_equals_that_on_one_machine(tmp_path, machines):
    there = autoseg(tmp_path, "search", *TINY, "executor=ray", f"executor.address={machines.address}", "run_dir=there")
    here = autoseg(tmp_path, "search", *TINY, "executor=inline", "run_dir=here")
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    assert "on 2 workers" in there.stdout
    assert rewards(tmp_path / "there") == rewards(tmp_path / "here")
    assert (tmp_path / "there" / "predictions").is_dir() == (tmp_path / "here" / "predictions").is_dir()
    again = autoseg(tmp_path, "search", "resume=there", "executor=inline", "search.rounds=3")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_search_around_your_own_training(tmp_path, machines, monkeypatch):
    import ray

    import autoseg

    def train(loss, seed, device):  # by value: no machine has this file
        return 0.5 if ray.get_runtime_context().get_actor_id() else 0.0

    monkeypatch.chdir(tmp_path)
    settings = {"rounds": 1, "candidates": 4, "confirm_seeds": 0, "num_classes": 2, "run_dir": "run"}
    try:
        found = autoseg.search("miou", train, cluster=machines.address, workers="auto", **settings)
    finally:
        ray.shutdown()
    assert found.best.reward == 0.5 and (tmp_path / "run" / "loss.json").is_file()
