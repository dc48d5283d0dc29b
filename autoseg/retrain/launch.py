"""Finds out which launcher started the processes of a training, and lets them agree on values before mmengine runs."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from autoseg.errors import InputError

LOCAL_RANKS = {"LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"}


def launcher() -> str:
    """Return mmengine's name for what started this process: "pytorch" (torchrun), "slurm", "mpi" or "none"."""
    environment = os.environ
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        return "pytorch"
    if "OMPI_COMM_WORLD_LOCAL_RANK" in environment:
        return "mpi"
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return "slurm"
    return "none"


def choose_device(wanted: str) -> str:
    """Return "cuda" or "cpu"; must be called before mmengine is imported, which asks torch once.

    Raises:
        InputError: a GPU where there is none.
    """
    if wanted == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif torch.cuda.is_available():
        return "cuda"
    elif wanted == "cuda":
        hint = "device=cpu works everywhere."
        raise InputError("device", "a machine with a CUDA device", "none that torch sees", hint)
    from mmengine.device import utils

    utils.DEVICE = "cpu"  # by itself mmengine would take an Apple GPU, which lacks operations of a training
    return "cpu"


def join(started_by: str, device: str) -> None:
    """Join the other ranks: NCCL between GPUs, gloo between CPUs. Nothing happens without a launcher."""
    if started_by == "none" or dist.is_initialized():
        return
    if device == "cuda":
        from mmengine.dist import init_dist

        if torch.cuda.device_count() == 1:  # Slurm and MPI may show each rank one GPU alone, which is its number 0
            os.environ.update(dict.fromkeys(LOCAL_RANKS & os.environ.keys(), "0"))
        init_dist(started_by, backend="nccl")
    elif started_by == "pytorch":
        dist.init_process_group("gloo")
    else:
        raise InputError("device", "GPUs, or torchrun as the launcher", f"cpu with {started_by}")


def leave() -> None:
    """Leave the other ranks, the reverse of `join`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def ranks() -> tuple[int, int]:
    """Return (own rank, number of ranks)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def agree(value: Any) -> Any:
    """Return rank 0's value on every rank; it must be plain data."""
    if ranks()[1] == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]
