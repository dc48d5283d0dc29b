"""autoseg inside mmsegmentation: losses as `loss_decode`, metrics as an evaluator, training progress as a hook.

After `import autoseg.mmseg`, or `custom_imports = dict(imports=["autoseg.mmseg"])` in a config:

    loss_decode = dict(type="AutoSegLoss", loss="0.25*ce+0.75*jml")      # a name, a card or a sum
    loss_decode = dict(type="AutoSegJml", reduction=dict(I=0.5, C=0.5))  # every hand-made loss by its own type
    val_evaluator = dict(type="AutoSegMetric", metrics=["miou", "biou"])
    custom_hooks = [dict(type="AutoSegProgressHook")]                    # for losses that change over training
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmseg.registry import EVALUATOR, HOOKS, METRICS, MODELS
from torch import Tensor, nn

from autoseg.config import PAPER_METRICS
from autoseg.errors import Diverged, InputError
from autoseg.imports import import_modules
from autoseg.losses import Loss, build_loss, check_text, loss_names
from autoseg.losses.pixelwise import WeightedCrossEntropy
from autoseg.losses.ranks import sync_counts as sync
from autoseg.metrics import Metric, MetricSum, build_metric


@MODELS.register_module()
class AutoSegLoss(nn.Module):
    """Any loss of `autoseg.build_loss` as a `loss_decode`.

    The loss is built at the first batch, when the number of classes and ignore_index are known from the head.
    Losses with extra inputs prepare them from each batch, class frequencies included: give `wce` a list, or
    `class_counts`, as `autoseg retrain` does.

    Args:
        loss: a name, a card or a sum.
        loss_weight: factor, usually 0.4 for auxiliary heads.
        loss_name: name of the loss in mmsegmentation's log; must begin with "loss_" to take part in training.
        sync_counts: with several ranks, totals are computed over the batches of all of them, so that the loss is that
            of one big batch. Losses that sort pixels use each rank's own batch.
        imports: .py files or modules with metrics and losses of your own that the loss names.
        class_counts: for losses that weight classes by their frequency: "pixels" of each class in the training masks,
            and pixels "around", those of all images that show it.
        options: options of the loss.

    Attributes:
        targets: makes soft labels (N, C, H, W) of a batch's labels and their ignore_index; None: the labels are hard.
            `autoseg retrain train.labels=...` sets it.
    """

    targets: Callable[[Tensor, int], Tensor] | None = None

    def __init__(
        self,
        loss: str,
        loss_weight: float = 1.0,
        loss_name: str = "loss_autoseg",
        sync_counts: bool = False,
        imports: Sequence[str] = (),
        class_counts: Mapping[str, Sequence[int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        import_modules(imports)
        if not loss_name.startswith("loss_"):
            hint = "mmsegmentation trains only on names that do."
            raise InputError("loss_name", "a name that begins with loss_", repr(loss_name), hint)
        check_text(loss, {key: value for key, value in options.items() if key != "defaults"}, cards=False)
        self.spec, self.loss_weight, self.loss_name, self.options = loss, loss_weight, loss_name, options
        self.sync_counts, self.class_counts = sync_counts, class_counts
        # Not part of the module tree: a checkpoint of the network should not hold parts of its loss.
        self._built: dict[tuple[int, int], Loss] = {}
        self._progress = 0.0

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        **unused: Any,
    ) -> Tensor:
        """Return the weighted loss of (N, C, H, W) logits and (N, H, W) labels, a scalar.

        Raises:
            InputError: pixel weights, which a pixel sampler of the head would give; logits of one channel.
        """
        del unused  # avg_factor, reduction_override: the loss has its own mean
        if weight is not None:
            hint = "Remove the head's sampler; for hard example mining use loss='ohem' or 'lmp'."
            raise InputError("weight of AutoSegLoss", "None", "pixel weights", hint)
        if cls_score.shape[1] == 1:
            hint = "Set out_channels=2 in the head, without a threshold: the background is a class too."
            raise InputError("logits of AutoSegLoss", "(N, C, H, W) of two classes or more", "one channel", hint)
        key = (cls_score.shape[1], ignore_index)
        if key not in self._built:
            loss = build_loss(self.spec, num_classes=key[0], ignore_index=key[1], **self.options)
            if self.class_counts is not None:
                for part in loss.modules():
                    if isinstance(part, WeightedCrossEntropy):
                        part.take_counts(**self.class_counts)
            if self.sync_counts:
                sync(loss)
            self._built[key] = loss.to(cls_score.device)
            self.set_progress(self._progress)
        target = label if self.targets is None else self.targets(label, ignore_index)
        return self.loss_weight * self._built[key](cls_score, target)

    def extra_repr(self) -> str:
        """Return the text that `print(model)` shows."""
        return ", ".join([self.spec, *(f"{key}={value!r}" for key, value in self.options.items())])

    def set_progress(self, progress: float) -> None:
        """Set the progress of the training, from 0 to 1, for losses that depend on it."""
        self._progress = progress
        for loss in self._built.values():
            loss.set_progress(progress)


def _loss_type(name: str) -> type[AutoSegLoss]:
    """Return the mmsegmentation type of one hand-made loss: "unet_ce" becomes AutoSegUnetCe."""

    def __init__(self: AutoSegLoss, **options: Any) -> None:
        AutoSegLoss.__init__(self, name, **{"loss_name": f"loss_{name}", **options})

    members = {"__init__": __init__, "__doc__": f"`AutoSegLoss` with loss={name!r}.", "__module__": __name__}
    return type("AutoSeg" + name.title().replace("_", ""), (AutoSegLoss,), members)


for _name in loss_names():
    _type = _loss_type(_name)
    MODELS.register_module(module=_type)
    globals()[_type.__name__] = _type  # where pickle looks for it


@HOOKS.register_module()
class AutoSegProgressHook(Hook):
    """Sets the progress of the training in every loss of the model before each iteration."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the progress; mmengine's Runner calls this."""
        del batch_idx, data_batch
        for module in runner.model.modules():
            if isinstance(module, AutoSegLoss):
                module.set_progress(runner.iter / max(1, runner.max_iters - 1))


@METRICS.register_module()
class AutoSegMetric(BaseMetric):
    """Metrics of `autoseg.build_metric` as an evaluator, exact over the whole data set and over all ranks.

    Scores are shares from 0 to 1, under the names in `metrics`. With test-time augmentation mmsegmentation joins only
    predictions: metrics of probabilities (ece, sce) are then those of its last augmentation.

    Args:
        metrics: names or sums, "miou+0.5*bf1".
        ignore_index: label of void pixels.
        tolerance: boundary metrics, pixels at the size of the labels.
        drop_background: boundary metrics, class 0 has no boundary of its own.
        imports: .py files or modules with metrics of your own.
        base: options of mmengine's BaseMetric: collect_device, prefix.
    """

    def __init__(
        self,
        metrics: Sequence[str] = PAPER_METRICS,
        ignore_index: int = 255,
        tolerance: int = 5,
        drop_background: bool = False,
        imports: Sequence[str] = (),
        **base: Any,
    ) -> None:
        import_modules(imports)
        super().__init__(**base)
        self.metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        self.ignore_index, self.tolerance, self.drop_background = ignore_index, tolerance, drop_background
        self._build(num_classes=1)  # a wrong name is an error now, not after the first epoch

    def _build(self, num_classes: int) -> list[Metric | MetricSum]:
        options = (num_classes, self.ignore_index, self.tolerance, self.drop_background)
        return [build_metric(name, *options) for name in self.metrics]

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count each image of a batch separately, since mmengine drops images by their place in `results`.

        Raises:
            InputError: a data set without classes, or a mask of another shape than its prediction.
            Diverged: a logit that is not finite, for metrics of probabilities.
        """
        del data_batch
        if not self.dataset_meta or "classes" not in self.dataset_meta:
            raise InputError("dataset_meta of AutoSegMetric", "the data set's classes", self.dataset_meta)
        for sample in data_samples:
            pred = sample["pred_sem_seg"]["data"].reshape(1, *sample["pred_sem_seg"]["data"].shape[-2:])
            label = sample["gt_sem_seg"]["data"].to(pred.device)
            label = label.reshape(1, *label.shape[-2:])  # its own: one stored on its side has as many pixels
            seen = self._build(len(self.dataset_meta["classes"]))
            for metric in seen:
                if metric.needs_probs:
                    logits = sample["seg_logits"]["data"].unsqueeze(0).float()
                    if not logits.isfinite().all():
                        raise Diverged("a logit of the trained network is not finite")
                    metric.update_probs(logits.softmax(1), label.to(torch.int64))  # type: ignore[union-attr]
                else:
                    metric.update(pred.to(torch.int64), label.to(torch.int64))
            self.results.append(seen)

    def compute_metrics(self, results: list[list[Metric | MetricSum]]) -> dict[str, float]:
        """Add up the counts of the images; return the score of each metric by name."""
        total, *rest = results
        for seen in rest:
            for mine, theirs in zip(total, seen, strict=True):
                mine.merge(theirs)  # type: ignore[arg-type]  # both made by _build from the same name
        return {name: metric.compute().item() for name, metric in zip(self.metrics, total, strict=True)}


@EVALUATOR.register_module(name="AutoSegMetric")
class AutoSegEvaluator(Evaluator):
    """The evaluator that mmengine builds, instead of a metric, from a dict with the key `metrics`.

    Args:
        options: options of `AutoSegMetric`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(AutoSegMetric(**options))
