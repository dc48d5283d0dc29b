"""The training loop: one network, one loss, one stream of batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from autoseg.config import ProxyConfig
from autoseg.errors import Diverged
from autoseg.losses import compiled_loss
from autoseg.training.batches import Batches
from autoseg.training.precision import Precision
from autoseg.training.schedule import build_optimizer, set_rates
from autoseg.training.targets import Targets

CHECK_EVERY = 25  # iterations between looks at the loss on a GPU, each of which waits for the device


@dataclass(frozen=True)
class TrainLog:
    """What a training leaves behind.

    Attributes:
        losses: of every iteration, auxiliary heads included.
        seconds: wall time of the loop.
    """

    losses: list[float]
    seconds: float


def train(
    model: nn.Module,
    loss: nn.Module,
    batches: Batches,
    proxy: ProxyConfig,
    precision: Precision,
    targets: Targets | None = None,
) -> TrainLog:
    """Train `model` in place for one pass over `batches`, `proxy.iters` optimiser steps.

    Args:
        model: images (N, 3, H, W) to a list of logits [main, auxiliary...], on `precision.device`.
        loss: (logits float32, targets) to a scalar, or with a third argument where it has `prepare`.
            Auxiliary logits get the same loss times `proxy.aux_weight`.
        batches: what to train on.
        proxy: optimiser, schedule, weights.
        precision: number format and layout.
        targets: what is made of each batch's labels; None: nothing, they are taken as they are.

    Raises:
        Diverged: the loss, or a weight at the end, is not finite.
    """
    start = time.perf_counter()
    model.to(memory_format=precision.layout).train()
    targets = targets or Targets()
    objective = _objective(loss, proxy, precision.device)
    optimizer = build_optimizer(model, proxy)
    scaler = GradScaler(precision.device.type, enabled=precision.dtype is torch.float16)
    set_progress = getattr(loss, "set_progress", None)
    losses = torch.zeros(len(batches), device=precision.device)
    interval = CHECK_EVERY if precision.device.type == "cuda" else 1
    for iteration, (images, labels, extra) in enumerate(batches):
        set_rates(optimizer, proxy, iteration)
        if set_progress is not None:
            set_progress(iteration / len(batches))
        with precision.autocast():
            outputs = model(images.to(memory_format=precision.layout))
        value = objective(outputs, targets(images, labels), extra)
        losses[iteration] = value.detach()
        if (iteration + 1) % interval == 0:
            _check(losses[: iteration + 1])
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        targets.follow(model)
    _check(losses)
    if not all(bool(weight.isfinite().all()) for weight in model.state_dict().values()):
        raise Diverged("a weight is not finite after the last iteration")
    return TrainLog(losses.tolist(), time.perf_counter() - start)


def _objective(
    loss: nn.Module, proxy: ProxyConfig, device: torch.device
) -> Callable[[list[Tensor], Tensor, dict[str, Tensor]], Tensor]:
    """The loss over all heads; called outside autocast, on float32 logits."""
    takes_extra = hasattr(loss, "prepare")
    pixels = proxy.iters * proxy.batch_size * proxy.crop**2
    compiled = compiled_loss(loss, proxy.compile, pixels, device)

    def one(logits: Tensor, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        return compiled(logits.float(), labels, extra) if takes_extra else compiled(logits.float(), labels)

    def total(outputs: list[Tensor], labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        main, *auxiliary = outputs
        value = one(main, labels, extra)
        for logits in auxiliary:
            value = value + proxy.aux_weight * one(logits, labels, extra)
        return value

    return total


def _check(losses: Tensor) -> None:
    finite = losses.isfinite()
    if not bool(finite.all()):
        first = int((~finite).int().argmax())
        raise Diverged(f"the loss is {losses[first].item()} in iteration {first}")
