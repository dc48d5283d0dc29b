"""Optimiser and learning-rate schedule, as in mmsegmentation's recipes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autoseg.config import ProxyConfig
from autoseg.optimizers import PlainAdamW, PlainSGD
from autoseg.training.models import Segmentor


def poly(base: float, minimum: float, power: float, iteration: int, iters: int) -> float:
    """Return the learning rate of an iteration: (base - minimum) * (1 - iteration / iters)^power + minimum."""
    return (base - minimum) * (1 - iteration / iters) ** power + minimum


def build_optimizer(model: nn.Module, proxy: ProxyConfig) -> Optimizer:
    """Build SGD or AdamW with two parameter groups: the backbone, and the heads at `head_lr_mult` times its rate.

    Each group stores its initial rate under `base_lr`. Any module works; one without heads of its own
    (not a `Segmentor`) has a single group at the plain rate.
    """
    heads = {id(p) for head in (model.heads() if isinstance(model, Segmentor) else []) for p in head.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = [
        ([p for p in trained if id(p) not in heads], proxy.lr),
        ([p for p in trained if id(p) in heads], proxy.lr * proxy.head_lr_mult),
    ]
    groups = [{"params": params, "lr": rate, "base_lr": rate} for params, rate in parts if params]
    if proxy.optimizer == "sgd":
        return PlainSGD(groups, momentum=proxy.momentum, weight_decay=proxy.weight_decay, fused=True)
    if proxy.optimizer == "adamw":  # without `capturable` no CUDA graph takes it; fused, it computes the same
        return PlainAdamW(groups, weight_decay=proxy.weight_decay, fused=True, capturable=proxy.cuda_graph)
    raise NotImplementedError(proxy.optimizer)


def rates(optimizer: Optimizer, proxy: ProxyConfig, first: int, last: int, device: torch.device) -> Tensor:
    """Return the (last - first, groups) poly rates of iterations first, ..., last - 1 (0-based), on the device.

    The rates are a tensor on the device, since a CUDA graph could only repeat a number given by the host.
    float64 on a CPU, where fused optimisers compute in it; float32 on a GPU.
    """
    bases = [group["base_lr"] for group in optimizer.param_groups]
    rows = [
        [poly(base, proxy.min_lr, proxy.poly_power, iteration, proxy.iters) for base in bases]
        for iteration in range(first, last)
    ]
    table = torch.tensor(rows, dtype=torch.float64).view(last - first, len(bases))
    return table.to(device, torch.float64 if device.type == "cpu" else torch.float32)


def set_rates(optimizer: Optimizer, row: Tensor) -> None:
    """Set the learning rate of every parameter group.

    Args:
        optimizer: made by `build_optimizer`.
        row: (groups,), a row of `rates`.
    """
    for group, rate in zip(optimizer.param_groups, row.unbind(), strict=True):
        group["lr"] = rate
