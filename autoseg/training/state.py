"""A training's state between two losses, as tensors by name, from which another process can go on with the second loss.

It holds weights, batch-norm statistics, the loss scale, the state of the targets, the place in the stream of batches
and the state of every random generator; no moments, which the optimiser resets there (`Training.forget`). It is made of
tensors alone, so that a `.safetensors` file can hold it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoseg.training.loop import Training


def state(training: Training) -> dict[str, Tensor]:
    """Return a copy of a training's state on the CPU."""
    found = {f"model.{name}": value for name, value in training.model.state_dict().items()}
    found |= {f"targets.{name}": value for name, value in training.targets.state().items()}
    if training.scaler.is_enabled():
        scaler = training.scaler.state_dict()
        found["scaler"] = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64)
    found["losses"] = training.losses[: training.iteration]
    found["random.batches"] = training.batches.generator.get_state()
    found["random.cpu"] = torch.get_rng_state()
    if training.precision.device.type == "cuda":
        found["random.cuda"] = torch.cuda.get_rng_state(training.precision.device)
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in found.items()}


def restore(training: Training, kept: Mapping[str, Tensor]) -> None:
    """Set a new training of the same network, stream and settings to a state that another had after `Training.forget`.

    Args:
        training: a training that has done no iteration yet.
        kept: what `state` returned; every tensor is copied.
    """
    training.model.load_state_dict(_part(kept, "model."))
    training.targets.restore(_part(kept, "targets."))
    if training.scaler.is_enabled():
        scale, tracker = kept["scaler"].tolist()
        saved = {**training.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)}
        training.scaler.load_state_dict(saved)
    training.iteration = len(kept["losses"])
    training.losses[: training.iteration] = kept["losses"].to(training.losses.device)
    training.batches.generator.set_state(kept["random.batches"])
    torch.set_rng_state(kept["random.cpu"])
    if training.precision.device.type == "cuda":
        torch.cuda.set_rng_state(kept["random.cuda"], training.precision.device)


def _part(kept: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    return {name.removeprefix(head): value for name, value in kept.items() if name.startswith(head)}
