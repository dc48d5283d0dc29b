"""A torchvision network trained with an autoseg loss in a plain PyTorch loop, on the built-in images.

    python docs/examples/torchvision_model.py --loss asl2021/miou --iters 300

The loss is one line; put your own data set in place of `open_data`.
On our machine, at its defaults, on one CPU core (2.5 minutes of it), it ended with `miou 17.1`, with `--loss ce` with
`miou 14.7`; another processor or version gives a few tenths more or less. One seed, from random weights: it shows how
the parts fit, not what the loss is worth.
"""

from __future__ import annotations

import argparse

import torch
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

import autoseg
from autoseg.config import DataConfig
from autoseg.data import normalize, open_data

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def main() -> None:
    """Train, then score on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="asl2021/miou", help="a name, a sum, or the path of a loss.json")
    parser.add_argument("--iters", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=240)
    given = parser.parse_args()

    data = open_data(DataConfig(count=[given.images, 24, 0]), (96, 96))
    images, labels = data.images("train"), data.labels("train").long()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=data.num_classes).to(device)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.1  # torchvision's 0.01 averages over too many iterations for a training of hundreds
    loss = autoseg.build_loss(given.loss, num_classes=data.num_classes, ignore_index=255).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, given.iters, power=0.9)

    model.train()
    for step in range(given.iters):
        batch = torch.randint(0, len(images), (given.batch,))
        logits = model(normalize(images[batch].to(device), MEAN, STD))["out"]
        value = loss(logits, labels[batch].to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == given.iters - 1:
            print(f"iteration {step}  loss {value.item():.4f}")

    metric = autoseg.build_metric("miou", num_classes=data.num_classes)
    model.eval()
    with torch.inference_mode():
        for image, label in zip(data.images("val").split(8), data.labels("val").split(8), strict=True):
            pred = model(normalize(image.to(device), MEAN, STD))["out"].argmax(1)
            metric.update(pred.cpu(), label.long())
    print(f"miou {100 * float(metric.compute()):.1f}")


if __name__ == "__main__":
    main()
