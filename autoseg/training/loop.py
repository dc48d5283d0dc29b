"""The training loop: one network, one stream of batches, one loss after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from autoseg.config import ProxyConfig
from autoseg.errors import Diverged
from autoseg.losses import compiled_loss
from autoseg.training.batches import Batches
from autoseg.training.cuda_graph import CudaGraph, Replayed, Step, check_replayable
from autoseg.training.precision import Precision
from autoseg.training.schedule import build_optimizer, rates, set_rates
from autoseg.training.targets import Targets

CHECK_EVERY = 25  # iterations between looks at the loss on a GPU, each of which waits for the device


class Training:
    """A training that can stop after any iteration, be evaluated or saved (`training.state`), and go on, also with
    another loss.

    Args:
        model: images (N, 3, H, W) to a list of logits [main, auxiliary...], on `precision.device`; trained in place.
        batches: the batches to train on.
        proxy: optimiser, schedule (over all of `proxy.iters`), weights.
        precision: number format and layout.
        targets: turns each batch's labels into targets; None: the labels are the targets.

    Attributes:
        iteration: number of iterations done.
        losses: (iterations,) float32, the losses of those done, auxiliary heads included; on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        proxy: ProxyConfig,
        precision: Precision,
        targets: Targets | None = None,
    ) -> None:
        self.model = model.to(memory_format=precision.layout).train()
        self.batches, self.proxy, self.precision = batches, proxy, precision
        self.targets = targets or Targets()
        self.optimizer = build_optimizer(model, proxy)
        self.scaler = GradScaler(precision.device.type, enabled=precision.dtype is torch.float16)
        self.losses = torch.zeros(len(batches), device=precision.device)
        self.iteration = 0

    def run(self, loss: nn.Module, until: int | None = None) -> None:
        """Train with a loss up to an iteration.

        Args:
            loss: (logits float32, targets) to a scalar, or with a third argument if it has `prepare`.
                Auxiliary logits get the same loss times `proxy.aux_weight`.
            until: number of iterations done at the end; None: all.

        Raises:
            Diverged: the loss is not finite; on a CPU before it changes the weights, on a GPU within `CHECK_EVERY`
                iterations. It names the first such iteration.
            InputError: `proxy.cuda_graph` does not work on this device or for this training.
        """
        last = len(self.batches) if until is None else until
        set_progress = getattr(loss, "set_progress", None)
        if self.proxy.cuda_graph:
            check_replayable(loss, self.targets, self.batches, self.proxy, self.precision)
            step: Step = Replayed(self._step(loss, last), CudaGraph(self.precision.device))
        else:
            step = self._step(loss, last)
        while self.iteration < last:
            if set_progress is not None:
                set_progress(self.iteration / len(self.batches))
            step()
            self.iteration += 1
            if self.iteration % CHECK_EVERY == 0:
                _check(self.losses[: self.iteration])
        _check(self.losses[: self.iteration])

    def forget(self) -> None:
        """Reset the optimiser's state, for another loss.

        Adam's moments are as large as the old loss's gradients: a loss with smaller gradients would hardly move the
        weights until they have faded, after many hundred iterations.
        """
        self.optimizer.state.clear()

    def _step(self, loss: nn.Module, last: int) -> Step:
        """Return a function that does the next iteration at each call, up to `last`.

        It reads the iteration's number only from a tensor on the device: on the host it does the same
        every time, so that a CUDA graph of it gives the same results.
        """
        objective = _objective(loss, self.proxy, self.precision.device)
        drawn, losses = self.batches.drawn(self.iteration, last), self.losses[self.iteration : last]
        table = rates(self.optimizer, self.proxy, self.iteration, last, self.precision.device)
        place = torch.zeros(1, dtype=torch.int64, device=self.precision.device)
        looked_at = self.precision.device.type == "cpu" and not self.proxy.cuda_graph  # the check waits for no device

        def step() -> None:
            inputs, labels, extra = self.batches.batch(drawn, place, self.iteration)
            with self.precision.autocast():
                outputs = self.model(inputs.to(memory_format=self.precision.layout))
            value = objective(outputs, self.targets(inputs, labels), extra)
            losses.index_copy_(0, place, value.detach().to(losses.dtype).view(1))
            if looked_at:
                _check(self.losses[: self.iteration + 1])
            set_rates(self.optimizer, table.index_select(0, place)[0])
            self.optimizer.zero_grad()
            self.scaler.scale(value).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.targets.follow(self.model)
            place.add_(1)

        return step

    def finish(self) -> None:
        """Check the weights too, after the last iteration.

        Raises:
            Diverged: a weight is not finite.
        """
        finite = [weight.isfinite().all() for weight in self.model.state_dict().values()]
        if finite and not bool(torch.stack(finite).all()):  # waits for the device once, not once a weight
            raise Diverged("a weight is not finite after the last iteration")


def _objective(
    loss: nn.Module, proxy: ProxyConfig, device: torch.device
) -> Callable[[list[Tensor], Tensor, dict[str, Tensor]], Tensor]:
    """Return the loss over all heads; it is called outside autocast, on float32 logits."""
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
