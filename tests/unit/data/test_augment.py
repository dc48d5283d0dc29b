from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.data import Augment, normalize
from autoseg.data.augment import Draw, _recoloured

MEAN, STD = [120.0, 110.0, 100.0], [50.0, 60.0, 70.0]
PLAIN = Augment(crop=16, scale=[1.0, 1.0], flip=False, photometric=False, mean=MEAN, std=STD)
FULL = replace(PLAIN, scale=[0.5, 2.0], flip=True, photometric=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sizes(batches: int, count: int, size: tuple[int, int]) -> Tensor:
    return torch.tensor(size).expand(batches, count, 2)


def drawn(augment: Augment, images: Tensor, generator: torch.Generator) -> Draw:
    frame = images.shape[-2], images.shape[-1]
    numbers = augment.numbers(sizes(1, len(images), frame), frame, generator).to(images.device)
    return augment.placed(numbers, torch.tensor([0], device=images.device))


def augmented(augment: Augment, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    draw = drawn(augment, images, generator)
    return augment.images(images, draw), augment.nearest(labels, draw).long()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (6, 3, 20, 24), generator=generator(), dtype=torch.uint8)
    return images, torch.randint(0, 5, (6, 20, 24), generator=generator(1), dtype=torch.uint8)


def test_types_and_sizes(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = augmented(FULL, *batch, generator())
    assert (images.shape, images.dtype) == ((6, 3, 16, 16), torch.float32)
    assert (labels.shape, labels.dtype) == ((6, 16, 16), torch.int64)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 4, 255}


def test_crop_of_the_whole_image_is_the_image(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch[0][..., :20], batch[1][..., :20]
    out, out_labels = augmented(replace(PLAIN, crop=20), images, labels, generator())
    torch.testing.assert_close(out, normalize(images, MEAN, STD), atol=1e-4, rtol=0)
    assert torch.equal(out_labels, labels.long())


def test_same_generator_same_batch_whatever_the_global_state(batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    first = augmented(FULL, *batch, generator(5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = augmented(FULL, *batch, generator(5))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augmented(FULL, *batch, generator(6))[0], first[0])


def test_every_sample_has_its_own_draw(batch: tuple[Tensor, Tensor]) -> None:
    same = batch[0][:1].expand(6, -1, -1, -1), batch[1][:1].expand(6, -1, -1)
    out, _ = augmented(FULL, *same, generator())
    assert all(not torch.equal(out[0], other) for other in out[1:])


def test_crops_are_of_the_image_not_of_its_padding() -> None:
    """They are what they would be of the image alone; padding shows only where that is smaller than the crop."""
    images = torch.randint(0, 256, (6, 3, 40, 24), generator=generator(), dtype=torch.uint8)
    labels = torch.randint(0, 5, (6, 40, 24), generator=generator(1), dtype=torch.uint8)
    padded, void = torch.full((6, 3, 44, 64), 77, dtype=torch.uint8), torch.full((6, 44, 64), 255, dtype=torch.uint8)
    padded[..., :40, :24], void[..., :40, :24] = images, labels
    augment = replace(FULL, crop=16, scale=[0.8, 2.0])
    for seed in range(5):
        alone = augment.numbers(sizes(1, 6, (40, 24)), (40, 24), generator(seed))
        framed = augment.numbers(sizes(1, 6, (40, 24)), (44, 64), generator(seed))
        draws = [augment.placed(numbers, torch.tensor([0])) for numbers in (alone, framed)]
        expected, got = (augment.nearest(kind, draw) for kind, draw in zip((labels, void), draws, strict=True))
        assert not (got == 255).any() and (got == expected).float().mean() > 0.999  # but where two are as near
        inner = slice(1, -1)  # at its edge, padding shines through, of another colour
        expected, got = (augment.images(kind, draw) for kind, draw in zip((images, padded), draws, strict=True))
        torch.testing.assert_close(got[..., inner, inner], expected[..., inner, inner], atol=1e-3, rtol=0)
    small = augment.numbers(sizes(1, 6, (10, 24)), (44, 64), generator())
    assert (augment.nearest(void, augment.placed(small, torch.tensor([0]))) == 255).any()


def test_each_number_is_uniform_over_its_range_and_tells_nothing_of_another() -> None:
    numbers = replace(FULL, scale=[1.0, 2.0]).numbers(sizes(1, 4000, (20, 24)), (20, 24), generator())
    span_x, _, centre_x, _, span_y, centre_y = numbers.affine[0].flatten(1).T
    assert numbers.colour is not None
    brightness, contrast, saturation = numbers.colour[0]
    places = [centre / (1 - span.abs()) / 2 + 0.5 for centre, span in ((centre_y, span_y), (centre_x, span_x))]
    colours = [brightness * 255 / 64 + 0.5, contrast - 0.5, saturation - 0.5]  # mmsegmentation's ranges
    drawn = torch.stack([16 / (20 * span_y) - 1, *places, (span_x < 0).float(), *colours])  # each in [0, 1]
    assert drawn.amin() > -1e-5 and (drawn.amin(1) < 0.01).all()
    assert drawn.amax() < 1 + 1e-5 and (drawn.amax(1) > 0.99).all()
    assert (drawn.mean(1) - 0.5).abs().max() < 0.03
    assert (drawn.corrcoef() - torch.eye(7)).abs().max() < 0.06
    torch.testing.assert_close(24 * span_x.abs(), 20 * span_y)  # pixels stay square


def test_image_and_label_move_together() -> None:
    """A picture that is its own label stays so: where the label is inside, it equals the rounded picture."""
    labels = torch.zeros(32, 40, 40, dtype=torch.uint8)
    labels[:, 10:30, 15:22] = 200
    images = labels[:, None].expand(-1, 3, -1, -1)
    augment = Augment(crop=32, scale=[0.6, 1.6], flip=True, photometric=False, mean=MEAN, std=STD)
    out, out_labels = augmented(augment, images, labels, generator())
    picture = out[:, 0] * STD[0] + MEAN[0]
    clear = ((picture < 1) | (picture > 199)) & (out_labels != 255)
    assert torch.equal((picture > 100)[clear], (out_labels == 200)[clear])
    assert clear.float().mean() > 0.7


def test_outside_is_mean_colour_and_ignored(batch: tuple[Tensor, Tensor]) -> None:
    out, labels = augmented(replace(PLAIN, crop=64), *batch, generator())
    inside = (labels != 255).float()
    assert (inside.sum((1, 2)) == 20 * 24).all()
    outside = F.max_pool2d(inside, 3, stride=1, padding=1) == 0  # one pixel beside the image is a mixture
    assert out.permute(0, 2, 3, 1)[outside].abs().max() < 1e-5


def test_scale_is_what_the_image_is_scaled_by() -> None:
    labels = torch.zeros(1, 100, 100, dtype=torch.uint8)
    labels[:, 45:55, 45:55] = 1
    images = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    for scale in (0.5, 1.0, 2.0):
        _, out = augmented(replace(PLAIN, crop=400, scale=[scale, scale]), images, labels, generator())
        assert abs(int((out == 1).sum()) - (10 * scale) ** 2) <= 22 * scale
        assert abs(int((out != 255).sum()) - (100 * scale) ** 2) <= 202 * scale


def test_flip_mirrors_about_half_of_the_samples() -> None:
    images = torch.arange(16, dtype=torch.uint8).expand(200, 3, 16, 16)
    labels = images[:, 0].contiguous()
    _, out = augmented(replace(PLAIN, flip=True), images, labels, generator())
    flipped = out[:, 0, 0] == 15
    assert torch.equal(out[flipped][0, 0], torch.arange(15, -1, -1))
    assert 70 < int(flipped.sum()) < 130


def test_colours_change_as_kornias_do(batch: tuple[Tensor, Tensor]) -> None:
    from kornia import enhance

    draw = drawn(replace(PLAIN, photometric=True), batch[0], generator())
    assert draw.colour is not None
    brightness, contrast, saturation = draw.colour
    expected = enhance.adjust_brightness(batch[0] / 255, brightness, clip_output=False)
    expected = enhance.adjust_contrast(expected, contrast)
    expected = enhance.adjust_saturation_with_gray_subtraction(expected, saturation)
    torch.testing.assert_close(_recoloured(batch[0] / 255, *draw.colour.view(3, -1, 1, 1, 1)), expected)


def test_photometric_changes_colours_within_range_and_no_label(batch: tuple[Tensor, Tensor]) -> None:
    plain, labels = augmented(PLAIN, *batch, generator())
    out, same_labels = augmented(replace(PLAIN, photometric=True), *batch, generator())
    assert torch.equal(labels, same_labels)
    assert not torch.allclose(plain, out)
    colours = out * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert colours.min() > -1e-3
    assert colours.max() < 255.001


def test_further_maps_travel_with_the_label(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    draw = drawn(FULL, images, generator(3))
    maps = torch.stack([labels.float() / 8, labels.float() + 0.5], dim=1)
    moved = FULL.nearest(maps, draw, outside=0)
    inside = FULL.nearest(labels, draw) != 255
    assert torch.equal(moved[:, 0][inside] * 8, FULL.nearest(labels, draw).float()[inside])
    assert moved[:, 1][~inside].abs().sum() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same_batch(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = augmented(FULL, *batch, generator())
    on_gpu, labels_gpu = augmented(FULL, batch[0].cuda(), batch[1].cuda(), generator())
    assert (labels_gpu.cpu() == labels).float().mean() > 0.999
    assert (on_gpu.cpu() - images).abs().mean() < 1e-3
