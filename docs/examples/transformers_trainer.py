"""A SegFormer of Hugging Face's transformers, trained by its `Trainer` with an autoseg loss, scored by its metric.

    python docs/examples/transformers_trainer.py --loss asl2021/miou --iters 300

The loss is one method, `compute_loss`. `sync_counts` makes it that of the whole batch where the `Trainer` runs on
several GPUs. With `gradient_accumulation_steps` it would be that of each part: prefer larger batches.
On our machine, at its defaults, on one CPU core (a minute of it), it ended with `miou 16.2`, with `--loss ce` with
`miou 9.2`; another processor or version gives a few tenths more or less. One seed, from random weights.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainingArguments,
    set_seed,
)

import autoseg
from autoseg.config import DataConfig
from autoseg.data import normalize, open_data

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Images(Dataset[dict[str, Tensor]]):
    """What an image processor of transformers would give: normalized `pixel_values`, and `labels` of their size."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "pixel_values": normalize(self.images[index : index + 1], MEAN, STD)[0],
            "labels": self.labels[index].long(),
        }


class SegmentationTrainer(Trainer):
    """A `Trainer` whose loss is any of `autoseg.build_loss`, of logits enlarged to the labels' size.

    Args:
        loss: logits (N, C, H, W) and labels (N, H, W) to a scalar.
        options: those of `Trainer`.
    """

    loss_is_scaled_for_ga = False  # a mean of each part of an accumulated batch

    def __init__(self, loss: nn.Module, **options: Any) -> None:
        super().__init__(preprocess_logits_for_metrics=classes, **options)
        self.loss = loss.to(self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Called by `Trainer`. The labels are kept from the model, which would compute cross-entropy of them."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        value = self.loss(enlarged(outputs.logits, labels), labels)
        return (value, outputs) if return_outputs else value


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    """SegFormer's logits, of a quarter of the image's size, as large as the labels."""
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)


def classes(logits: Tensor, labels: Tensor) -> Tensor:
    """What the metric gets: class ids at the labels' size, not logits, which would be gathered from all GPUs."""
    return enlarged(logits, labels).argmax(1)


def main() -> None:
    """Train, then score on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="asl2021/miou", help="a name, a sum, or the path of a loss.json")
    parser.add_argument("--iters", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=240)
    given = parser.parse_args()

    data = open_data(DataConfig(count=[given.images, 24, 0]), (96, 96))
    loss = autoseg.build_loss(given.loss, num_classes=data.num_classes, ignore_index=255)
    autoseg.sync_counts(loss)
    metric = autoseg.build_metric("miou", num_classes=data.num_classes)

    def scores(batch: EvalPrediction, compute_result: bool) -> dict[str, float]:
        """Called with each batch; the metric adds them up, so it is that of the whole set."""
        metric.update(torch.as_tensor(batch.predictions).cpu(), torch.as_tensor(batch.label_ids).cpu())
        if not compute_result:
            return {}
        found = {"miou": float(metric.compute())}
        metric.reset()
        return found

    set_seed(0)
    network = SegformerConfig(
        num_labels=data.num_classes, hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 1, 1], decoder_hidden_size=64
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, max_steps=given.iters, per_device_train_batch_size=given.batch, learning_rate=1e-3,
            per_device_eval_batch_size=8, batch_eval_metrics=True, logging_steps=50, save_strategy="no",
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = SegmentationTrainer(
            loss,
            model=SegformerForSemanticSegmentation(network),
            args=settings,
            train_dataset=Images(data.images("train"), data.labels("train")),
            eval_dataset=Images(data.images("val"), data.labels("val")),
            compute_metrics=scores,
        )
        trainer.train()
        print(f"miou {100 * trainer.evaluate()['eval_miou']:.1f}")


if __name__ == "__main__":
    main()
