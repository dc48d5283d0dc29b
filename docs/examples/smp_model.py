"""A network of segmentation_models_pytorch trained with an autoseg loss that needs maps of the labels too.

    python docs/examples/smp_model.py --loss 0.5*ce+0.5*boundary --iters 300

`prepare` makes the maps (distances, class weights) once; `set_progress` tells losses that change over training.
"""

from __future__ import annotations

import argparse

import segmentation_models_pytorch as smp
import torch

import autoseg
from autoseg.config import DataConfig
from autoseg.data import normalize, open_data

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def main() -> None:
    """Train, then score on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="0.5*ce+0.5*boundary(stop=0.1)")
    parser.add_argument("--iters", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=240)
    given = parser.parse_args()

    data = open_data(DataConfig(count=[given.images, 24, 0]), (96, 96))
    images, labels = data.images("train"), data.labels("train").long()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, classes=data.num_classes).to(device)
    loss = autoseg.build_loss(given.loss, num_classes=data.num_classes, ignore_index=255).to(device)
    maps = loss.prepare(labels) if hasattr(loss, "prepare") else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    model.train()
    for step in range(given.iters):
        batch = torch.randint(0, len(images), (given.batch,))
        logits = model(normalize(images[batch].to(device), MEAN, STD))
        # Maps (N, K, H, W) belong to images: take the batch's, and crop and flip them with the images if you do.
        extra = {key: (value[batch] if value.ndim == 4 else value).to(device) for key, value in maps.items()}
        if hasattr(loss, "set_progress"):
            loss.set_progress(step / given.iters)
        target = labels[batch].to(device)
        value = loss(logits, target, extra) if maps else loss(logits, target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 50 == 0 or step == given.iters - 1:
            print(f"iteration {step}  loss {value.item():.4f}")

    metric = autoseg.build_metric("bf1", num_classes=data.num_classes, tolerance=2)
    model.eval()
    with torch.inference_mode():
        for image, label in zip(data.images("val").split(8), data.labels("val").split(8), strict=True):
            metric.update(model(normalize(image.to(device), MEAN, STD)).argmax(1).cpu(), label.long())
    print(f"bf1 {100 * float(metric.compute()):.1f}")


if __name__ == "__main__":
    main()
