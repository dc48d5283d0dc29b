from __future__ import annotations

import pytest
import torch

from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.losses.batch import check_batch
from autoseg.losses.ssim import Ssim

SIZE = 16
P = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = (torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.4).long()


def logits() -> torch.Tensor:
    return torch.stack([1 - P, P], dim=1).log()


def test_equal_to_scikit_image_inside() -> None:
    """Away from the border, where scikit-image mirrors the image and ours leaves the outside out."""
    from skimage.metrics import structural_similarity

    loss = build_loss("ssim", num_classes=2)
    assert isinstance(loss, Ssim)
    ours = loss.similarity(check_batch(logits(), LABELS, num_classes=2, ignore_index=255))[0]
    for c, (p, y) in enumerate(((1 - P, 1 - LABELS), (P, LABELS))):
        _, expected = structural_similarity(
            p[0].numpy(), y[0].double().numpy(), data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        torch.testing.assert_close(ours[c, 5:-5, 5:-5], torch.from_numpy(expected)[5:-5, 5:-5])


def test_equal_to_the_formula_in_each_window() -> None:
    """At the border and beside void too: mean, variance and covariance by their definitions, pixel by pixel."""
    labels = LABELS.clone()
    labels[0, 2:6, 9:12] = 255
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))

    def inside(maps: torch.Tensor) -> torch.Tensor:
        """(121, pixels): what the window at each pixel holds, 0 beyond the border."""
        return torch.nn.functional.unfold(maps[None], 11, padding=5)[0]

    weight = window.reshape(-1, 1) * inside((labels != 255).double())
    weight = weight / weight.sum(0)
    losses = []
    for p, y in ((1 - P, labels == 0), (P, labels == 1)):
        p, y = inside(p), inside(y.double())
        mean_p, mean_y = (weight * p).sum(0), (weight * y).sum(0)
        spread = (weight * ((p - mean_p) ** 2 + (y - mean_y) ** 2)).sum(0)
        together = (weight * (p - mean_p) * (y - mean_y)).sum(0)
        luminance = (2 * mean_p * mean_y + 1e-4) / (mean_p**2 + mean_y**2 + 1e-4)
        losses.append(1 - luminance * (2 * together + 9e-4) / (spread + 9e-4))
    expected = torch.stack(losses)[:, (labels != 255).flatten()].mean()
    torch.testing.assert_close(build_loss("ssim", num_classes=2)(logits(), labels), expected)


def test_perfect_prediction_costs_nothing() -> None:
    scores = 1e3 * torch.stack([1 - LABELS, LABELS], dim=1).double()
    assert build_loss("ssim", num_classes=2)(scores, LABELS).item() == pytest.approx(0, abs=1e-12)
    soft = torch.stack([1 - P, P], dim=1)
    assert build_loss("ssim", num_classes=2)(logits(), soft).item() == pytest.approx(0, abs=1e-12)


def test_one_pixel_window_by_hand() -> None:
    """Without neighbours there is no variance: only the luminance term is left."""
    value = build_loss("ssim", num_classes=2, window=1)(logits(), LABELS)
    terms = [(2 * p * y + 1e-4) / (p * p + y * y + 1e-4) for p, y in ((1 - P, 1 - LABELS), (P, LABELS))]
    torch.testing.assert_close(value, 1 - torch.stack(terms).mean())


def test_void_counts_like_the_outside() -> None:
    """An image with a void margin has the loss of the image cut out of it."""
    wide = torch.full((1, SIZE + 8, SIZE + 8), 255)
    wide[:, 4:-4, 4:-4] = LABELS
    padded = torch.nn.functional.pad(logits(), (4, 4, 4, 4))
    loss = build_loss("ssim", num_classes=2)
    torch.testing.assert_close(loss(padded, wide), loss(logits(), LABELS))


def test_sigmoid_of_one_class() -> None:
    loss = build_loss("ssim", num_classes=1, mode="sigmoid")
    value = loss((P / (1 - P)).log()[:, None], LABELS)
    both = build_loss("ssim", num_classes=2)(logits(), LABELS)
    assert 0 < value.item() < 1 and value.item() != pytest.approx(both.item())
    perfect = loss((2e3 * LABELS - 1e3).double()[:, None], LABELS)
    assert perfect.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("option", ["window=4", "window=0", "sigma=0", "mode=relu"])
def test_bad_options_are_named(option: str) -> None:
    with pytest.raises(InputError, match=option.split("=")[0]):
        build_loss(f"ssim({option})", num_classes=2)
