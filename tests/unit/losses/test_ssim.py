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


def test_perfect_prediction_costs_nothing() -> None:
    scores = 1e3 * torch.stack([1 - LABELS, LABELS], dim=1).double()
    assert build_loss("ssim", num_classes=2)(scores, LABELS).item() == pytest.approx(0, abs=1e-12)


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
