"""Classes that mmengine builds by name, besides `autoseg.mmseg`: our data and its labels, a random resize, and as hooks
initial weights, soft labels and what ranks share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv
import torch
from mmcv.transforms import BaseTransform, RandomResize
from mmengine.dist import all_reduce_params
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, HOOKS, TRANSFORMS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from autoseg.config import DataConfig, LabelConfig
from autoseg.data import open_data
from autoseg.data.decode import read_image
from autoseg.data.folder import open_folder
from autoseg.data.source import IGNORE
from autoseg.mmseg import AutoSegLoss
from autoseg.training.models import Segmentor
from autoseg.training.precision import Precision
from autoseg.training.targets import build_targets
from autoseg.training.weights import load_backbone, load_network


@DATASETS.register_module()
class AutoSegFolder(BaseSegDataset):
    """Images and masks in folders, the same ones that a search lists, as a data set of mmsegmentation.

    Args:
        data: keyword arguments of `DataConfig`.
        split: train, val or test.
        options: options of `BaseSegDataset`.
    """

    def __init__(self, data: dict[str, Any], split: str, **options: Any) -> None:
        config = DataConfig(**data)
        self.source, self.split = open_folder(config), split
        metainfo = {"classes": self.source.classes, "palette": self.source.palette}
        super().__init__(metainfo=metainfo, ignore_index=IGNORE, **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return one entry per image, as `BaseSegDataset` makes them."""
        common = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}
        items = self.source.items[self.split]
        return [{"img_path": str(item.image), "seg_map_path": str(item.masks[0]), **common} for item in items]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return an entry with the code that `AutoSegMask` reads its mask by."""
        return {**super().get_data_info(idx), "code": self.source.code}


@TRANSFORMS.register_module()
class AutoSegImage(BaseTransform):
    """Loads an image as a search does: OpenCV multiplies the bands of some TIFFs by a fourth one."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `img` (H, W, 3) uint8, BGR; an InputError names an image that cannot be used."""
        image = mmcv.rgb2bgr(read_image(Path(results["img_path"]), upright=True))
        shape = image.shape[:2]
        return {**results, "img": image, "img_shape": shape, "ori_shape": shape}


@TRANSFORMS.register_module()
class AutoSegMask(BaseTransform):
    """Loads the labels of an entry of `AutoSegFolder` as a search does: class ids, 255 where a pixel is ignored."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map` (H, W) uint8; an InputError names a mask that does not fit."""
        height, width = results["ori_shape"]
        mask, image = Path(results["seg_map_path"]), Path(results["img_path"])
        labels = results["code"].labels(mask, (width, height), image)
        return {**results, "gt_seg_map": labels, "seg_fields": [*results["seg_fields"], "gt_seg_map"]}


@DATASETS.register_module()
class AutoSegArrays(BaseSegDataset):
    """A prepared `SegData` (memory-mapped arrays) as a data set of mmsegmentation; its pipeline loads nothing.

    Args:
        data: keyword arguments of `DataConfig`.
        size: (height, width) at which the data is prepared.
        split: train, val or test.
        options: options of `BaseSegDataset`.
    """

    def __init__(self, data: dict[str, Any], size: list[int], split: str, **options: Any) -> None:
        self.arrays = open_data(DataConfig(**data), size)
        self.split = split
        metainfo = {"classes": self.arrays.classes, "palette": self.arrays.palette}
        super().__init__(metainfo=metainfo, **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return one entry per image."""
        return [
            {"img_path": name, "seg_map_path": name, "index": index, "reduce_zero_label": False}
            for index, name in enumerate(self.arrays.names(self.split))
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return an entry with `img` (H, W, 3) uint8 BGR and `gt_seg_map` (H, W) uint8, as mmsegmentation loads
        them.
        """
        info: dict[str, Any] = super().get_data_info(idx)
        image = self.arrays.images(self.split)[info["index"]].numpy()[::-1].transpose(1, 2, 0).copy()
        labels = self.arrays.labels(self.split)[info["index"]].numpy().copy()
        shape = image.shape[:2]
        return {
            **info, "img": image, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"], "img_shape": shape,
            "ori_shape": shape,
        }  # fmt: skip


@TRANSFORMS.register_module()
class AutoSegRescale(RandomResize):
    """A `RandomResize` relative to each image's own size.

    Args:
        ratio_range: smallest and largest factor.
    """

    def __init__(self, ratio_range: tuple[float, float]) -> None:
        super().__init__(scale=(1, 1), ratio_range=ratio_range, keep_ratio=True)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize the image and its labels."""
        height, width = results["img"].shape[:2]
        self.scale = (width, height)
        resized: dict[str, Any] = super().transform(results)
        return resized


@HOOKS.register_module()
class AutoSegWeightsHook(Hook):
    """Loads weights when a training starts (not when it is resumed), completely or not at all, never unpickling.

    Args:
        backbone: file of backbone weights, `.pth` or `.safetensors`.
        network: file of weights of the whole network.
    """

    def __init__(self, backbone: str | None = None, network: str | None = None) -> None:
        self.backbone, self.network = backbone, network

    def before_train(self, runner: Any) -> None:
        """Load the weights; mmengine's Runner calls this after the random initialisation.

        Raises:
            InputError: a file that cannot be read safely or does not fit.
        """
        if runner.iter > 0:
            return
        network = _network(runner)
        if self.backbone is not None:
            load_backbone(network.backbone, self.backbone)
        if self.network is not None:
            load_network(network, self.network, "load_from")


@HOOKS.register_module()
class AutoSegLabelsHook(Hook):
    """Gives every `AutoSegLoss` of a network soft labels instead of the masks (`train.labels`).

    Args:
        labels: the kind, see `training.targets`.
        soft: keyword arguments of `LabelConfig`.
        num_classes: C.
    """

    def __init__(self, labels: str, soft: dict[str, Any], num_classes: int) -> None:
        self.labels, self.soft, self.num_classes = labels, LabelConfig(**soft), num_classes
        self._images: Tensor | None = None  # of the batch, normalised
        self._made: dict[int, Tensor] = {}  # the batch's targets by ignore_index: all heads have the same

    def before_train(self, runner: Any) -> None:
        """Build the targets and hand them to the losses; mmengine's Runner calls this, also of a resumed training.

        Raises:
            InputError: a teacher that is missing or does not fit.
        """
        network, wrapper = _network(runner), runner.optim_wrapper
        half = wrapper.cast_dtype or torch.float16 if isinstance(wrapper, AmpOptimWrapper) else None
        precision = Precision(next(network.parameters()).device, half, torch.contiguous_format)
        model = Segmentor(network)
        self._targets = build_targets(self.labels, self.soft, self.num_classes, model, precision, "train")
        network.register_forward_pre_hook(self._begin, with_kwargs=True)
        for part in network.modules():
            if isinstance(part, AutoSegLoss):
                part.targets = self._of

    def _begin(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the images of a batch that the network is trained on, before its forward pass."""
        if network.training:
            self._images = kwargs["inputs"] if "inputs" in kwargs else args[0]
            self._made.clear()

    def _of(self, labels: Tensor, ignore_index: int) -> Tensor:
        """Return (N, C, H, W) targets of (N, H, W) labels."""
        if ignore_index not in self._made:
            assert self._images is not None  # the network was called
            known = labels.masked_fill(labels == ignore_index, IGNORE)
            self._made[ignore_index] = self._targets(self._images, known)
        return self._made[ignore_index]


@HOOKS.register_module()
class AutoSegStatisticsHook(Hook):
    """Gives all ranks the mean of batch norm's running statistics before a network is scored or saved.

    Without SyncBN each rank counts its own: it would score its images with another network than that of the checkpoint.
    """

    priority = "LOW"  # after the average of weights, before the checkpoint

    def __init__(self) -> None:
        self._averaged = -1  # after how many iterations; not twice, which would round again

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Average before a checkpoint; mmengine's Runner calls this."""
        saving = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        due = any(self.every_n_train_iters(runner, hook.interval, hook.save_begin) for hook in saving)
        if due or self.is_last_train_iter(runner):
            self._average(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Average before a checkpoint of an epoch."""
        self._average(runner, runner.iter)

    def before_val(self, runner: Any) -> None:
        """Average before a validation."""
        self._average(runner, runner.iter)

    def _average(self, runner: Any, after: int) -> None:
        if after == self._averaged:
            return
        self._averaged = after
        networks = [runner.model, *(hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook))]
        norms = [part for network in networks for part in network.modules() if isinstance(part, BatchNorm)]
        kept = [part for norm in norms for part in (norm.running_mean, norm.running_var) if part is not None]
        all_reduce_params(kept, op="mean")


def _network(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
