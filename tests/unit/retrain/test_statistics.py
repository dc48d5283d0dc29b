"""Batch norm counts on each rank; what they score and save is one network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import ExponentialMovingAverage
from torch import nn

from autoseg.retrain.parts import AutoSegStatisticsHook


def rank_main(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False))
    average, hook = EMAHook(), AutoSegStatisticsHook()
    average.ema_model = ExponentialMovingAverage(network, update_buffers=True)
    hooks = [average, CheckpointHook(interval=2, save_begin=1, by_epoch=False), CheckpointHook(interval=5)]
    runner = SimpleNamespace(model=network, hooks=hooks, iter=0, max_iters=6)
    found = []
    for done in range(1, 7):
        runner.iter = done - 1  # mmengine counts on once the hooks were called
        for norm, shift in ((network[1], 0.0), (average.ema_model.module[1], 4.0)):
            norm.running_mean.fill_(rank + shift)
            norm.running_var.fill_(2.0 + 2 * rank + shift)
        hook.after_train_iter(runner, runner.iter)
        runner.iter = done
        if done in (1, 4):
            hook.before_val(runner)
        norms = (network[1], average.ema_model.module[1])
        found.append([float(kept[0]) for norm in norms for kept in (norm.running_mean, norm.running_var)])
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_have_the_same_statistics_where_a_network_is_scored_or_saved(tmp_path: Path) -> None:
    mp.spawn(rank_main, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        own, mean = [rank, 2.0 + 2 * rank, rank + 4.0, 6.0 + 2 * rank], [0.5, 3.0, 4.5, 7.0]
        # Saved after 1, 3, 5, scored after 1 and 4; and the last.
        assert torch.load(tmp_path / f"{rank}.pt") == [mean, own, mean, mean, mean, mean]
