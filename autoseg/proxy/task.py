"""The proxy task: one short training that judges one candidate loss.

Any function `(loss, seed, device) -> {metric: score}` can replace it. This one trains a network of
mmsegmentation on most of the training images and scores it on the rest. The validation and test splits are
never used, unless a comparison asks for one of them as its `final_split`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import limits
from autoseg.config import CompareConfig, DataConfig, ModelConfig, ProxyConfig, SearchConfig, comparable_settings
from autoseg.errors import InputError, out_of_memory
from autoseg.proxy import residents, shared
from autoseg.proxy.predictions import IMAGES, save_predictions
from autoseg.proxy.rungs import Watch

if TYPE_CHECKING:  # the search process builds the task without torch; workers import it when they run it
    import torch
    from torch import Tensor, nn

    from autoseg.data import SegData
    from autoseg.training import Batches, Segmentor, Training, View
    from autoseg.training.frozen import Stored
    from autoseg.training.precision import Precision


MOST_LOGITS = 2**28  # logits scored at a time, 1 GB in float32: metrics need several times as much memory


@dataclass(frozen=True)
class ProxyTask:
    """A picklable training function; on a CPU the same loss and seed give bitwise the same scores.

    A `proxy.soft.teacher` that is a work dir becomes its newest checkpoint when the task is made: all its trainings
    have the same teacher, also if a full training goes on there.

    Raises:
        InputError: a setting of `proxy` is out of range, or as in `check_proxy`; or there is no checkpoint.
    """

    data: DataConfig
    model: ModelConfig
    proxy: ProxyConfig
    metrics: tuple[str, ...]  # names of all metrics to score, sums included
    tolerance: int = 5  # boundary metrics, pixels at `proxy.size`
    drop_background: bool = False  # boundary metrics, class 0 has no boundary of its own
    # None: train on the training images less the held-out ones and score those (a search). A role such as "val" or
    # "test": train on all training images and score that split (a comparison)
    final_split: str | None = None
    per_class: bool = False  # score every class too, as "<metric>/<class>"; NaN where it does not occur
    save_to: str | None = None  # a `.safetensors` file for the trained network (a `proxy.soft.teacher` of others)
    predictions: str | None = None  # a folder for the predicted classes of a few scored images, see `predictions`
    counts_to: str | None = None  # an `.npz` file for what each scored image contributes (`autoseg.metrics.images`)
    # a folder for the results that trainings with the same seed share, so that they are computed once; see `shared`.
    # The scores do not depend on it
    shared: str | None = None
    # how many iterations to train after the warm-up, and how many batches of images to score then (to time them)
    limit: tuple[int, int] | None = None
    watch: Watch | None = None  # receives one metric's score at some iterations, and may stop there (`Stopped`)
    # a `proxy.size` and the fingerprint at that size of the data that every training must find; None: of any data
    expected: tuple[list[int], str] | None = None

    def __post_init__(self) -> None:
        limits.check(self.proxy, "proxy.")
        check_proxy(self.proxy, self.tolerance)
        object.__setattr__(self, "proxy", settled(self.proxy))

    @classmethod
    def of(
        cls, config: SearchConfig | CompareConfig, metrics: Sequence[str], fingerprint: str, **more: Any
    ) -> ProxyTask:
        """Build the training that a configuration describes.

        `metrics` may repeat a name, `fingerprint` is that of the data at `proxy.size` (workers, each of which opens
        them when it starts, refuse others), `more` is passed to the class.
        """
        named = tuple(dict.fromkeys(metrics))
        more = {"expected": (config.proxy.size, fingerprint), **more}
        return cls(config.data, config.model, config.proxy, named, config.tolerance, config.drop_background, **more)

    def __call__(self, loss: nn.Module, seed: int, device: str = "cpu") -> dict[str, float]:
        """Train with `loss` and return the scores.

        Args:
            loss: (logits (N, C, H, W) float32, labels (N, H, W) int64) to a scalar.
            seed: seed of the initial weights, the batches and their augmentation.
            device: a torch device.

        Returns:
            A score per name in `metrics`, higher is better; with `per_class`, also those of the classes.

        Raises:
            Diverged: the loss became NaN or infinite.
            InputError: data, model, device or settings that cannot be used, or a loss that cannot take `proxy.labels`.
        """
        import torch

        from autoseg.training.precision import check_device, precision_of, reproducible

        place = torch.device(device)
        check_device(place)
        precision = precision_of(self.proxy, place)
        with reproducible(place, seed, threads=self.proxy.threads, deterministic=self.proxy.deterministic):
            training = self._train(loss.to(place), seed, precision)
            scores = self._score(training)
            if self.predictions is not None:  # after the scores, which they cannot change
                self._keep(training.model, precision, Path(self.predictions))
            return scores

    @property
    def settling(self) -> int:
        """The number of iterations before all are alike: those before a CUDA graph is there, and its capture."""
        if not self.proxy.cuda_graph:
            return 0
        from autoseg.training.cuda_graph import WARM_UP

        return WARM_UP + 1

    def scored_batches(self) -> int:
        """Return the number of batches in which the images are scored."""
        return math.ceil(len(self._rows()[1]) / self._scored_at_a_time())

    def _scored_at_a_time(self) -> int:
        """Return the number of images per batch: `proxy.eval_batch_size`, or fewer to stay within `MOST_LOGITS`."""
        logits = self._open().num_classes * math.prod(self.proxy.size)
        return max(1, min(self.proxy.eval_batch_size, MOST_LOGITS // logits))

    def _train(self, loss: nn.Module, seed: int, precision: Precision) -> Training:
        import torch

        from autoseg.training import Training, build_targets, check_crop, check_loss, save_network

        data, proxy = self._open(), self.proxy
        network = residents.key(self.model), data.num_classes
        residents.check_scored(*network, *self._view(precision, self._rows()[1]).frame, precision.device)
        model = copy.deepcopy(residents.untrained(*network, seed)).to(precision.device)
        targets = build_targets(proxy.labels, proxy.soft, data.num_classes, model, precision)
        check_loss(loss, proxy.labels)
        batches = self._batches(getattr(loss, "prepare", None), seed, precision.device)
        if proxy.backbone == "frozen":
            model.freeze(precision.layout)
            batches.stored = self._stored(model, seed, precision)
        training = Training(model, batches, proxy, precision, targets)
        try:
            if proxy.warmup:
                place = self._place("warmup", seed, precision)
                shared.warm_up(training, proxy.warmup, data.num_classes, data.ignore_index, place)
            if self.watch is not None:
                self._run_watched(training, loss, self.watch)
            training.run(loss, None if self.limit is None else min(proxy.iters, training.iteration + self.limit[0]))
        except (RuntimeError, ValueError, AssertionError) as error:
            broken = isinstance(error, torch.AcceleratorError)  # the GPU's context: no network would run there now
            if training.iteration == 0 and not broken and not out_of_memory(error):
                check_crop(model, proxy.crop, self.model.config)
            raise
        training.finish()
        if self.save_to is not None:
            save_network(model, self.save_to)
        return training

    def _run_watched(self, training: Training, loss: nn.Module, watch: Watch) -> None:
        """Train to the last rung.

        Scoring uses none of the training's random numbers and does not change its network.
        """
        import torch

        device = training.precision.device
        devices = [device] if device.type == "cuda" else []
        for iteration in watch.rungs.iterations(self.proxy.iters):
            training.run(loss, until=iteration)
            with torch.random.fork_rng(devices=devices):
                scores = self._evaluate(training, self._metrics([watch.metric]))
            watch.look(iteration, scores[watch.metric])

    def _batches(
        self, prepare: Callable[[Tensor], dict[str, Tensor]] | None, seed: int, device: torch.device
    ) -> Batches:
        """Return the batches of every training with this seed, with what the loss prepares from the labels."""
        from autoseg.data import Augment
        from autoseg.training import Batches

        proxy, rows = self.proxy, self._rows()[0]
        images, labels, known = self._shown(rows, device)
        mean, std = residents.normalization(residents.key(self.model))
        augment = Augment(proxy.crop, proxy.scale, proxy.flip, proxy.photometric, mean, std)
        return Batches(
            images, labels, rows, augment,
            extra=prepare(known[rows]) if prepare else {},
            seed=seed, iters=proxy.iters, batch_size=proxy.batch_size, sizes=self._open().sizes("train"),
        )  # fmt: skip

    def _stored(self, model: Segmentor, seed: int, precision: Precision) -> Stored | None:
        """Return the features that trainings with this seed share, computed now if they do not exist yet."""
        path = self._place("features", seed, precision)
        if path is None:
            return None
        proxy, view = self.proxy, self._view(precision, self._rows()[1])
        shown = {
            "train": (
                (inputs for inputs, _, _ in self._batches(None, seed, precision.device)),
                [(proxy.batch_size, proxy.crop, proxy.crop)] * proxy.iters,
            ),
            "scored": (
                (inputs for _, inputs in view.inputs()),
                [(len(index), *view.frame) for index in view.rows.split(view.batch_size)],
            ),
        }
        return shared.features(path, model, shown, precision, proxy.frozen_gb)

    def _place(self, kind: str, seed: int, precision: Precision) -> Path | None:
        """Return the path of a file that trainings with this seed share; None if they share nothing."""
        if self.shared is None:
            return None
        numbers = [precision.device.type, str(precision.dtype)]  # proxy.amp=auto means another on another GPU
        settings = [self.data.holdout, self.final_split, asdict(self.model), comparable_settings(self.proxy)]
        settings += [] if self.data.groups is None else [self.data.groups]
        return shared.place(self.shared, kind, seed, [self._open().fingerprint, *numbers, *settings])

    def _shown(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return images and labels to train on, both on the device, and (N, H, W) labels for the loss to prepare
        from.
        """
        data, (images, labels) = self._open(), self._pixels("train", device)
        if self.proxy.labels == "annotators":
            return images, data.raters("train").to(device), data.labels("train")
        if self.proxy.labels == "pseudo":
            from autoseg.training.targets import UNLABELLED, withhold

            labels = withhold(labels, rows, self.proxy.soft.labelled)
            known = labels.cpu()
            return images, labels, known.masked_fill(known == UNLABELLED, data.ignore_index)
        return images, labels, data.labels("train")

    def _score(self, training: Training) -> dict[str, float]:
        from autoseg.metrics.images import save_parts

        data, metrics = self._open(), self._metrics(self.metrics)
        kinds = {name: m for name, m in metrics.items() if getattr(m, "adds_over_images", False)}
        adding = {name: m for name, m in kinds.items() if self.counts_to and not m.counts_itself}
        for metric in adding.values():
            metric.keep_images()
        scores = self._evaluate(training, metrics)
        if self.per_class:
            for name, metric in metrics.items():
                values = metric.per_class().tolist()
                if len(values) == data.num_classes:  # not one pooled score
                    scores |= {f"{name}/{label}": v for label, v in zip(data.classes, values, strict=True)}
        if self.counts_to is not None:
            save_parts(Path(self.counts_to), {name: metric.parts for name, metric in adding.items()})
        return scores

    def _metrics(self, names: Sequence[str]) -> dict[str, Any]:
        from autoseg.metrics import build_metric

        data = self._open()
        options = (data.num_classes, data.ignore_index, self.tolerance, self.drop_background)
        return {name: build_metric(name, *options) for name in names}

    def _evaluate(self, training: Training, metrics: Mapping[str, Any]) -> dict[str, float]:
        from autoseg.training import evaluate

        rows = self._rows()[1]
        if self.limit is not None:
            rows = rows[: self.limit[1] * self._scored_at_a_time()]
        view = self._view(training.precision, rows, training.batches.stored)
        labels = self._pixels(self.final_split or "train", training.precision.device)[1]
        return evaluate(training.model, view, labels, metrics)

    def _view(self, precision: Precision, rows: Tensor, stored: Stored | None = None) -> View:
        """Return a view of the given rows of the scored split."""
        from autoseg.training import View

        split, (mean, std) = self.final_split or "train", residents.normalization(residents.key(self.model))
        images, sizes = self._pixels(split, precision.device)[0], self._open().sizes(split)
        return View(images, rows, precision, mean, std, self._scored_at_a_time(), stored, sizes)

    def _keep(self, model: nn.Module, precision: Precision, folder: Path) -> None:
        import torch

        from autoseg.training import predict

        split, scored = self.final_split or "train", self._rows()[1]
        rows = scored[torch.linspace(0, len(scored) - 1, min(IMAGES, len(scored))).round().long()]
        classes = predict(model, self._view(precision, rows))
        save_predictions(dict(zip(rows.tolist(), classes.numpy(), strict=True)), split, folder)

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Return the indices to train on (in `train`) and to score (in `train` or the final split).

        Those to score are sorted by image size.
        """
        import torch

        from autoseg.data import split_holdout

        data = self._open()
        if self.final_split is None:
            fit, scored = split_holdout(data.names("train"), self.data.holdout, self.data.groups)
        else:
            fit, scored = (torch.arange(len(data.images(split))) for split in ("train", self.final_split))
        sizes = data.sizes(self.final_split or "train")[scored].tolist()
        return fit, scored[sorted(range(len(sizes)), key=sizes.__getitem__)]  # so that batches are of one size

    def _open(self) -> SegData:
        data, expected = residents.data(residents.key(self.data), *self.proxy.size), self.expected
        if expected is not None and expected[0] == self.proxy.size and expected[1] != data.fingerprint:
            hint = "They were changed since, or are read otherwise here: put them back and resume, or begin anew."
            raise InputError("data", "the images and masks that this command began with", "others", hint)
        return data

    def _pixels(self, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        return residents.pixels(residents.key(self.data), *self.proxy.size, split, device)


def import_all() -> None:
    """Import what every such training needs, in a worker that waits for its task."""
    import autoseg.data
    import autoseg.losses
    import autoseg.metrics.images
    import autoseg.training.targets  # noqa: F401
    from autoseg.training.models import model_registry

    model_registry()


def settled(proxy: ProxyConfig) -> ProxyConfig:
    """Return the settings with the newest checkpoint in the place of a teacher's work dir."""
    teacher = proxy.soft.teacher
    if proxy.labels != "distill" or teacher is None or not Path(teacher).is_dir():
        return proxy
    from autoseg.training.checkpoint import last_checkpoint

    newest = str(last_checkpoint(Path(teacher), "proxy.soft.teacher"))
    return replace(proxy, soft=replace(proxy.soft, teacher=newest))


def check_proxy(proxy: ProxyConfig, tolerance: int) -> None:
    """Raise if settings contradict each other.

    Raises:
        InputError: the first setting that is wrong.
    """
    if tolerance >= max(proxy.size):
        hint = "It is in pixels at that size; a wider one finds a boundary everywhere, and takes long."
        raise InputError("tolerance", f"less than the longer side of proxy.size={proxy.size}", tolerance, hint)
    if proxy.warmup >= proxy.iters:
        hint = "It is a part of them; 0 is none."
        raise InputError("proxy.warmup", f"fewer than the {proxy.iters} of proxy.iters", proxy.warmup, hint)
    if proxy.backbone == "frozen" and proxy.labels in ("distill", "pseudo"):
        hint = "Its teacher looks at the images, of which only the features are kept."
        raise InputError("proxy.backbone", f"trained, with proxy.labels={proxy.labels}", proxy.backbone, hint)
