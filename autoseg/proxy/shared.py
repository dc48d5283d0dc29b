"""Results that trainings with the same seed share, computed by the first and stored for the others (`RUN/shared/`).

Up to the first iteration with its own loss, a candidate's training does not depend on the candidate: all share the
seed's network and stream of batches. The first training makes a file under a lock, the others wait and read it, so
that on every device all go on from exactly the same numbers. The file is in the run folder, so that this also holds
for a resumed run, and so that no state of other software or images is ever used. If it is deleted, it is made again:
on a CPU, identically.

The confirmation trains the same way, or longer, with its own seeds: each has its own warm-up, which all entries share,
rivals too, so that differences stay paired. The loss that is found is one for training after such a warm-up; a card
says so (`warmup` in its `proxy`), and a comparison that follows the run uses the same warm-up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import Diverged, InputError, out_of_memory
from autoseg.files import no_space
from autoseg.store.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from autoseg.training import Segmentor, Training
    from autoseg.training.frozen import Stored
    from autoseg.training.precision import Precision

SHARED = "shared"  # folder of a run


def place(folder: str, kind: str, seed: int, known: Sequence[Any]) -> Path:
    """Return the path of one seed's file.

    Args:
        folder: the folder for all seeds.
        kind: the kind of content, which begins the file's name.
        seed: seed of the trainings that share it.
        known: plain data, everything that the content depends on besides versions.
    """
    digest = hashlib.sha256(json.dumps([versions(), *known], sort_keys=True).encode()).hexdigest()[:12]
    return Path(folder) / f"{kind}-seed-{seed}-{digest}.safetensors"


def warm_up(training: Training, iters: int, num_classes: int, ignore_index: int, path: Path | None) -> None:
    """Train a new network for `iters` iterations with cross-entropy, then reset its optimiser.

    Args:
        training: a training that has done no iteration yet.
        iters: number of iterations.
        num_classes: C.
        ignore_index: label of pixels that do not count.
        path: file of the state that trainings with this seed share, made if missing; None: train, and store nothing.

    Raises:
        InputError: cross-entropy diverges, no space on the disk, or a file there that is not such a state.
    """
    from safetensors.torch import load_file, save

    from autoseg.data.once import made_once
    from autoseg.losses import build_loss
    from autoseg.training.state import restore, state

    def train() -> None:
        loss = build_loss("ce", num_classes=num_classes, ignore_index=ignore_index)
        try:
            training.run(loss.to(training.precision.device), until=iters)
        except Diverged as error:  # no candidate is to blame, and none could go on
            hint = "Lower proxy.lr."
            raise InputError("proxy.warmup", "a training that goes well with cross-entropy", error, hint) from error
        training.forget()

    def make(draft: Path) -> None:
        train()
        draft.write_bytes(save(state(training)))  # `save_file` would say of a full disk that the tensors are wrong

    if path is None:
        train()
        return
    with _usable("proxy.warmup", path):
        with no_space(path):
            made_once(path, make)
        if training.iteration == 0:
            restore(training, load_file(path))


def features(
    path: Path,
    model: Segmentor,
    shown: Mapping[str, tuple[Iterator[Any], Sequence[tuple[int, int, int]]]],
    precision: Precision,
    most_gb: float,
) -> Stored:
    """Return the frozen backbone's features of all images that trainings with one seed use.

    The arguments are those of `training.frozen.write`.

    Raises:
        InputError: they would take more than `most_gb`, or than there is space on the disk; or a file there that holds
            no features.
    """
    from autoseg.data.once import made_once
    from autoseg.training.frozen import Stored, write

    with _usable("proxy.backbone", path):
        with no_space(path):
            made_once(path, lambda draft: write(draft, model, shown, precision, most_gb))
        return Stored(path, precision.device)


@contextlib.contextmanager
def _usable(field: str, path: Path) -> Iterator[None]:
    """Turn errors at an existing file that cannot be read into an `InputError`, which stops the run.

    No candidate is to blame, and all others would meet the same error.
    """
    from safetensors import SafetensorError
    from torch import AcceleratorError

    there = path.exists()
    try:
        yield
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
        if not there or out_of_memory(error) or isinstance(error, AcceleratorError):
            raise
        got = f"{path} ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        hint = "Delete it and go on: it is made again."
        raise InputError(field, "a whole file of what trainings with one seed share", got, hint) from error


def described(folder: Path, longer: float) -> str:
    """Describe the size of the files in a sentence; empty if there are none.

    Args:
        folder: the folder of the files.
        longer: how many times as long as the others the confirmation's trainings are.
    """
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not size:
        return ""
    as_long = f", {longer:.3g} times as much" if longer > 1 else ""
    return f"{size / 1e6:.3g} MB of what candidates share is in {folder}, and again for each fresh seed{as_long}."
