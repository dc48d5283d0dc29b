"""A Lightning module with an autoseg loss and metric; on several GPUs the loss counts over all of them.

    python docs/examples/lightning_module.py --loss asl2021/biou --iters 300

`sync_counts` makes the loss that of the whole batch under DDP; without it each GPU has a loss of its own part.
On our machine, at its defaults, on one CPU core, it ended with `biou 8.7`; another processor or version gives a few
tenths more or less. That is 300 iterations from random weights.
"""

from __future__ import annotations

import argparse
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

import autoseg
from autoseg.config import DataConfig
from autoseg.data import normalize, open_data

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Segmenter(lightning.LightningModule):
    """Any network from images to logits, any loss of `autoseg.build_loss`.

    Args:
        network: (N, 3, H, W) to {"out": (N, C, H, W)}, as torchvision's.
        loss: a name, a sum, or the path of a loss.json.
        num_classes: C.
    """

    def __init__(self, network: nn.Module, loss: str, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.loss = autoseg.build_loss(loss, num_classes=num_classes, ignore_index=255)
        autoseg.sync_counts(self.loss)
        self.metric = autoseg.build_metric("biou", num_classes=num_classes, tolerance=2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of (N, 3, H, W) uint8 images."""
        return self.network(normalize(images, MEAN, STD))["out"]

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Called by Lightning."""
        images, labels = batch
        value = self.loss(self(images), labels)
        self.log("loss", value, prog_bar=True)
        return value

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Called by Lightning."""
        images, labels = batch
        self.metric.update(self(images).argmax(1).cpu(), labels.cpu())

    def on_validation_epoch_end(self) -> None:
        """Called by Lightning; the metric is exact over the whole set (of this rank: score on one device)."""
        self.log("biou", float(self.metric.compute()))
        self.metric.reset()

    def configure_optimizers(self) -> dict[str, Any]:
        """Called by Lightning."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, self.trainer.max_steps, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    """Train, then score on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="asl2021/biou")
    parser.add_argument("--iters", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=240)
    given = parser.parse_args()

    data = open_data(DataConfig(count=[given.images, 24, 0]), (96, 96))
    sets = {split: TensorDataset(data.images(split), data.labels(split).long()) for split in ("train", "val")}
    lightning.seed_everything(0)
    network = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=data.num_classes)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # torchvision's 0.01 averages over too many iterations for a training of hundreds
    trainer = lightning.Trainer(
        max_steps=given.iters, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    model = Segmenter(network, given.loss, data.num_classes)
    trainer.fit(model, DataLoader(sets["train"], given.batch, shuffle=True, drop_last=True))
    (scores,) = trainer.validate(model, DataLoader(sets["val"], given.batch), verbose=False)
    print(f"biou {100 * scores['biou']:.1f}")


if __name__ == "__main__":
    main()
