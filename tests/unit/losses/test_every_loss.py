"""What holds for every hand-made loss, whatever its formula."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses import SegLoss, build_loss, class_weights, loss_names, sync_counts
from autoseg.losses.late import LateLoss
from autoseg.losses.pixelwise import CrossEntropy
from autoseg.losses.registry import LOSSES
from autoseg.metrics import build_metric, searchable
from autoseg.optimizers import PlainAdam
from autoseg.surrogates import known_losses

C = 4
NAMES = loss_names()
PROMISED = (
    "ce wce unet_ce focal ohem smooth_ce boundary_smooth_ce dice dice_squared jaccard tversky focal_tversky "
    "lovasz mse wmse boundary dpce ssim jml dml ctl lmp"
).split()
OPTIONS = [
    "wce(class_weight=inverse)", "wce(class_weight=[1,2,3,0.5])", "focal(mode=sigmoid,alpha=0.25)",
    "focal(gamma=0.5)", "ssim(mode=sigmoid)", "lovasz(classes=all)", "lovasz(per_image=true)",
    "lovasz(classes=all,per_image=true)",
    "jml(reduction={I:0.5,C:0.5},classes=all)", "jml(log=true)", "ctl(gamma=2)", "ctl(gamma=0.5)",
    "lmp(p=1.001)", "lmp(p=inf)", "unet_ce(background=none)", "0.25*ce+0.75*(jml+2*boundary)",
]  # fmt: skip
QUICK = {"shape_prior": "shape_prior(steps=20)"}  # it learns shapes first, by default for 2 s
every = pytest.mark.parametrize("spec", [QUICK.get(name, name) for name in NAMES] + OPTIONS)


def sample(seed: int = 0, size: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits and labels: two images, some void, class 3 absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, C, size, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, C - 1, (2, size // 2, size // 2), generator=generator)
    labels = labels.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)  # regions, not noise
    labels[0, 0, :3] = 255
    return logits.to(dtype).requires_grad_(), labels


def build(spec: str, **options: object) -> torch.nn.Module:
    return build_loss(spec, num_classes=C, **options)


def test_the_promised_names_are_there() -> None:
    assert set(PROMISED) <= set(NAMES)
    assert all(loss.summary and loss.source for loss in LOSSES.values())


@every
def test_gradient_in_float64(spec: str) -> None:
    logits, labels = sample(size=4)
    loss = build(spec)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,), fast_mode=True, atol=1e-6)


@every
def test_half_precision_of_the_module_keeps_its_weights(spec: str) -> None:
    """As of a part of a model that is cast whole: a weight above 65504 would be infinite."""
    logits, labels = sample(dtype=torch.float32)
    loss = build(spec)
    loss.prepare(labels)  # what is learned first
    before = _with_seed(loss, logits, labels)
    for cast in (loss.bfloat16, loss.half):
        assert torch.equal(_with_seed(cast(), logits, labels), before)


def test_class_weights_may_be_large() -> None:
    logits, labels = sample(dtype=torch.float32)
    for name in ("wce", "tversky"):
        loss = build(f"{name}(class_weight=[0.1,1,70000,1])")
        before = loss(logits, labels)
        assert torch.equal(loss.half()(logits, labels), before) and before.isfinite()


@every
def test_a_default_device_changes_nothing(spec: str) -> None:
    """`torch.set_default_device` is for tensors that users make; a model is also built so, to get its weights later."""
    if "shape_prior" in spec:
        pytest.skip("trains a network of its own, whose gradients torch makes on the default device")
    logits, labels = sample(dtype=torch.float32)
    before = _with_seed(build(spec), logits, labels)
    with torch.device("meta"):
        loss = build(spec)
        assert torch.equal(_with_seed(loss, logits, labels), before)
    assert torch.equal(_with_seed(loss.to_empty(device="cpu"), logits, labels), before)
    build(spec).to("meta").to_empty(device="cpu")  # its weights are lost, as any module's are


def _with_seed(loss: torch.nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    torch.manual_seed(0)
    value: Tensor = loss(logits, labels)
    return value.detach()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_under_extreme_logits(spec: str, dtype: torch.dtype) -> None:
    _, labels = sample()
    signs = torch.randint(0, 2, (2, C, 8, 8), generator=torch.Generator().manual_seed(1)) * 2 - 1
    logits = (1e4 * signs).to(dtype).requires_grad_()
    value = build(spec)(logits, labels)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()


@every
def test_certain_and_right_is_finite(spec: str) -> None:
    _, labels = sample()
    truth = torch.nn.functional.one_hot(labels.where(labels < C, 0), C).movedim(-1, 1)
    logits = (1e4 * truth.float()).requires_grad_()
    value = build(spec)(logits, labels)
    value.backward()
    assert value.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


@every
def test_half_precision_equals_float32(spec: str) -> None:
    logits, labels = sample(dtype=torch.bfloat16)
    loss = build(spec)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(logits, labels)
    torch.testing.assert_close(half, loss(logits.float(), labels))


@every
def test_ignored_pixels_do_not_matter(spec: str) -> None:
    logits, labels = sample()
    loss = build(spec)
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient[0, :, 0, :3].abs().max() == 0 and gradient.abs().max() > 0
    with torch.no_grad():
        changed = logits.clone()
        changed[0, :, 0, :3] = torch.tensor([9.0, -9.0, 3.0, 0.0], dtype=logits.dtype)[:, None]
        torch.testing.assert_close(loss(changed, labels), value, rtol=1e-12, atol=1e-12)


@every
def test_nothing_countable_is_zero_with_zero_gradient(spec: str) -> None:
    logits, labels = sample()
    value = build(spec)(logits, torch.full_like(labels, 255))
    value.backward()
    assert value.item() == 0 and logits.grad is not None and logits.grad.abs().max() == 0


@pytest.mark.parametrize("spec", [name for name in NAMES if name != "shape_prior"] + OPTIONS)  # it draws images
def test_an_image_of_void_beside_others_changes_nothing(spec: str) -> None:
    logits, labels = sample()
    more = torch.cat([logits, sample(seed=1)[0]]), torch.cat([labels, torch.full_like(labels, 255)])
    torch.testing.assert_close(build(spec)(*more), build(spec)(logits, labels))


@every
def test_no_image_is_zero_with_a_gradient_of_no_image(spec: str) -> None:
    logits, labels = sample()
    none = logits.detach()[:0].requires_grad_()
    value = build(spec)(none, labels[:0])
    value.backward()
    assert value.item() == 0 and none.grad is not None and none.grad.shape == none.shape


@every
def test_one_image_of_one_class(spec: str) -> None:
    logits, labels = sample()
    value = build(spec)(logits, torch.full_like(labels, 2))
    value.backward()
    assert value.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


@every
def test_training_on_it_finds_the_labels(spec: str) -> None:
    _, labels = sample()
    logits = torch.zeros(2, C, 8, 8, requires_grad=True)
    loss = build(spec)
    extra = loss.prepare(labels)
    optimizer = PlainAdam([logits], lr=0.3)
    first = loss(logits, labels, extra).item()
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(logits, labels, extra)
        value.backward()
        optimizer.step()
    valid = labels != 255
    assert value.item() < first
    assert (logits.argmax(dim=1) == labels)[valid].float().mean() > 0.95


@every
def test_prepared_inputs_equal_those_made_on_the_spot(spec: str) -> None:
    logits, labels = sample()
    loss = build(spec)
    torch.testing.assert_close(loss(logits, labels, loss.prepare(labels)), loss(logits, labels))


@pytest.mark.parametrize("name", NAMES)
def test_soft_labels_or_a_clear_error(name: str) -> None:
    logits, _ = sample()
    soft = torch.rand(2, C, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    soft[0, :, 0] = 0  # ignored
    loss = build(name)
    assert isinstance(loss, SegLoss)
    if not loss.soft_labels:
        with pytest.raises(InputError, match=f"labels of {name}.*jml"):
            loss(logits, soft)
        return
    value = loss(logits, soft)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite() and gradient[0, :, 0].abs().max() == 0 and gradient.abs().max() > 0


@pytest.mark.parametrize(
    "spec",
    "ce wce wce(class_weight=[1,2,3,0.5]) focal focal(alpha=[1,2,3,0.5]) smooth_ce mse wmse ssim lmp dice_squared jml "
    "dml ctl".split(),
)
def test_one_hot_soft_labels_equal_hard_ones(spec: str) -> None:
    logits, labels = sample()
    valid = labels != 255
    one_hot = torch.nn.functional.one_hot(labels.where(valid, 0), C).movedim(-1, 1) * valid[:, None]
    # Where soft labels would mean all classes by default.
    loss = build(spec, classes="present") if spec in ("dice_squared", "jml", "dml", "ctl") else build(spec)
    torch.testing.assert_close(loss(logits, one_hot.double()), loss(logits, labels))


def test_labels_out_of_range_are_refused() -> None:
    logits, labels = sample()
    labels[1, 2, 2] = C
    with pytest.raises(InputError, match="labels: expected class ids 0 to 3 or ignore_index 255, got also 4"):
        build("ce")(logits, labels)
    labels[1, 2, 2] = -1
    with pytest.raises(InputError, match="labels"):
        build("lovasz")(logits, labels)


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(2, 4, 4, dtype=torch.long), torch.zeros(2, 8, 8), torch.zeros(2, C, 8, 8, dtype=torch.bool)],
)
def test_labels_of_the_wrong_form_are_refused(labels: Tensor) -> None:
    logits, _ = sample()
    with pytest.raises(InputError, match="labels"):
        build("jml")(logits, labels)


@pytest.mark.parametrize("bad", [0.5, -0.1, 1.5])
def test_soft_rows_must_sum_to_one(bad: float) -> None:
    logits, _ = sample()
    labels = torch.full((2, C, 8, 8), 1 / C)
    labels[0, 0, 3, 3] = bad
    with pytest.raises(InputError, match="rows sum to 1"):
        build("ce")(logits, labels)


def test_logits_of_another_class_count_are_refused() -> None:
    logits, labels = sample()
    with pytest.raises(InputError, match="logits"):
        build_loss("ce", num_classes=3)(logits, labels)


def test_uint8_labels_and_another_ignore_index() -> None:
    logits, labels = sample()
    moved = labels.where(labels != 255, 3)  # class 3 never occurs, so it may be the void id here
    expected = build("ce")(logits, labels)
    torch.testing.assert_close(build("ce", ignore_index=3)(logits, moved.to(torch.uint8)), expected)


@pytest.mark.parametrize("spec", ["ce", "jml", "focal", "ssim"])
def test_trusts_labels_when_told_to(spec: str) -> None:
    logits, labels = sample()
    torch.testing.assert_close(build(spec, validate=False)(logits, labels), build(spec)(logits, labels))


def test_extra_without_what_a_loss_needs() -> None:
    logits, labels = sample()
    with pytest.raises(InputError, match="extra of boundary: expected signed_distance"):
        build("boundary")(logits, labels, {})


@pytest.mark.parametrize("name", ["ce", "jml", "identity/miou"])
def test_labels_of_8_bits_are_those_of_64(name):
    logits = torch.randn(1, 171, 8, 8)
    labels = torch.full((1, 8, 8), 156)
    loss = build_loss(name, num_classes=171, ignore_index=-100)
    torch.testing.assert_close(loss(logits, labels.to(torch.uint8)), loss(logits, labels))
    metric = build_metric("miou", 171, ignore_index=-100)
    metric.update(labels, labels.to(torch.uint8))
    assert metric.compute() == 1
    with pytest.raises(InputError, match="labels"):
        build_loss(name, num_classes=3, ignore_index=-1)(
            torch.randn(1, 3, 8, 8), torch.full((1, 8, 8), 255, dtype=torch.uint8)
        )


AROUND = "unet_ce boundary_smooth_ce boundary dpce ssim shape_prior ssim(mode=sigmoid)".split()
SURROGATES = [*known_losses(), *(f"identity/{name}" for name in searchable())]
AROUND += [name for name in SURROGATES if {"biou", "bf1", "boundary_iou"} & {*re.split(r"[/-]", name)}]


def volumes() -> tuple[Tensor, Tensor]:
    """Logits and labels of 2 volumes of 3 slices, of which a loss in the plane would see more than one of 12 rows."""
    logits, labels = zip(*(sample(seed) for seed in range(3)), strict=True)
    return torch.stack(logits, 2).detach()[:, :, :, :4].requires_grad_(), torch.stack(labels, 1)[:, :, :4]


@pytest.mark.parametrize("spec", [*NAMES, *OPTIONS, *SURROGATES])
def test_a_volume_is_a_tall_image_or_refused(spec: str) -> None:
    logits, labels = volumes()
    loss = build(spec, validate=True)
    if spec in AROUND or "boundary" in spec or "unet_ce" in spec:
        said = r"input of .*expected images, since .*, got volumes\. .*logits\.movedim\(2, 1\)\.flatten\(0, 1\)"
        with pytest.raises(InputError, match=said):
            loss(logits, labels)
        assert loss(logits.movedim(2, 1).flatten(0, 1), labels.flatten(0, 1)).isfinite()  # as the message says
        return
    value = loss(logits, labels)
    assert torch.equal(value, loss(logits.flatten(2, -2), labels.flatten(1, -2)))
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.shape == logits.shape and gradient.abs().max() > 0
    with pytest.raises(InputError, match="labels"):
        loss(logits, labels.transpose(1, 2))  # as many pixels, elsewhere
    with pytest.raises(InputError, match="logits"):
        loss(logits.flatten(2), labels.flatten(1))
    if getattr(loss, "soft_labels", "surrogate"):
        soft = logits.detach().flip(0).softmax(1)
        assert torch.equal(loss(logits, soft), loss(logits.flatten(2, -2), soft.flatten(2, -2)))
    if hasattr(loss, "prepare"):
        assert torch.equal(loss(logits, labels, loss.prepare(labels)), value)


def test_volumes_before_their_number_of_classes_is_known() -> None:
    logits, labels = volumes()
    late = LateLoss(lambda count: build_loss("jml", num_classes=count))
    assert torch.equal(late(logits, labels), build("jml")(logits, labels))


def test_a_loss_that_is_built_late_knows_how_far_the_training_is() -> None:
    usual, late = build("boundary"), LateLoss(lambda count: build_loss("boundary", num_classes=count))
    (logits, labels), values = sample(), []
    for progress in (0.5, 0.75):  # before its first batch, and after it
        for loss in (usual, late):
            loss.set_progress(progress)
        values.append(usual(logits, labels))
        assert torch.equal(late(logits, labels), values[-1])
    assert values[0] != values[1]


def test_an_own_loss_takes_volumes_if_it_says_so() -> None:
    class Own(CrossEntropy):
        pointwise = False

    logits, labels = volumes()
    assert not SegLoss.pointwise
    with pytest.raises(InputError, match="got volumes"):
        Own(C)(logits, labels)


def test_a_loss_that_is_built_late_counts_over_ranks_and_prepares_of_its_batch() -> None:
    for name in ("jml", "asl2021/miou"):
        late = LateLoss(lambda count, name=name: build_loss(name, num_classes=count))
        sync_counts(late)
        late(*sample())
        assert late.loss is not None and late.loss.sync_counts
    late = LateLoss(lambda count: build_loss("wce", num_classes=count))
    logits, labels = sample()
    assert torch.equal(late(logits, labels, late.prepare(labels)), build("wce")(logits, labels))
    with pytest.raises(InputError, match="loss of sync_counts: expected a loss of autoseg, got CrossEntropyLoss"):
        sync_counts(torch.nn.CrossEntropyLoss())


@pytest.mark.parametrize("spec", ["identity/miou", "camvid/miou", "wce(class_weight=[1,2,3,4])", QUICK["shape_prior"]])
def test_a_loss_first_called_while_validating_trains_afterwards(spec: str) -> None:
    late = LateLoss(lambda count: build_loss(spec, num_classes=count))
    logits, labels = sample(dtype=torch.float32)
    with torch.inference_mode():
        late(logits, labels)
    late(logits.requires_grad_(), labels).backward()
    assert logits.grad is not None and logits.grad.abs().max() > 0


@pytest.mark.parametrize("spec", ["camvid/miou", "wce(class_weight=[1,2,3,4])", "boundary", "0.5*ce+boundary"])
def test_a_loss_built_while_validating_trains_afterwards(spec: str) -> None:
    with torch.inference_mode():
        loss = build(spec)
    logits, labels = sample(dtype=torch.float32)
    loss.set_progress(0.5)
    loss(logits, labels).backward()
    assert logits.grad is not None and logits.grad.abs().max() > 0


@pytest.mark.parametrize("spec", ["ce", "camvid/miou", "asl2021/bf1", "jml"])
def test_labels_that_another_network_has_predicted_train(spec: str) -> None:
    logits, labels = sample(dtype=torch.float32)
    with torch.inference_mode():
        predicted = labels.clone()
    build(spec)(logits.requires_grad_(), predicted).backward()
    assert logits.grad is not None and logits.grad.abs().max() > 0


def test_shape_prior_prepares_under_another_default_dtype() -> None:
    labels = sample()[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = build(QUICK["shape_prior"]).prepare(labels)["shape_encoder"]
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            made = build(QUICK["shape_prior"]).prepare(labels)["shape_encoder"]
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("spec", ["unet_ce", "jml", "ssim", "asl2021/bf1", "camvid/miou"])
@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 4, 0, 8)])
def test_an_empty_batch_counts_nothing_also_where_ranks_would_be_asked(spec: str, shape: tuple[int, ...]) -> None:
    loss = build(spec)
    sync_counts(loss)
    n, _, height, width = shape
    assert loss(torch.zeros(shape), torch.zeros(n, height, width, dtype=torch.long)) == 0


@pytest.mark.slow  # imports half of torch
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("spec", ["ce", "lovasz", "camvid/miou", "asl2021/bf1"])
def test_gradients_of_single_images_by_torch_func(spec: str) -> None:
    loss = build(spec, validate=False)
    logits, labels = sample(dtype=torch.float32)
    loss(logits[1:2], labels[1:2]).backward()
    assert logits.grad is not None
    logits, expected = logits.detach(), logits.grad[1:2]
    torch.testing.assert_close(torch.func.grad(lambda x: loss(x, labels[1:2]))(logits[1:2]), expected)
    if spec != "lovasz":  # vmap cannot select the classes that are there
        by_image = torch.func.vmap(torch.func.grad(lambda x, y: loss(x[None], y[None])))(logits, labels)
        torch.testing.assert_close(by_image[1:2], expected)


@pytest.mark.parametrize("spec", ["ce", "jml", "asl2021/miou", "camvid/miou", "asl2021/bf1", "0.5*ce+0.5*camvid/miou"])
def test_a_training_need_not_know_which_loss_it_has(spec: str) -> None:
    """Every loss prepares, be it nothing, and is told the progress."""
    loss = build(spec)
    logits, labels = sample()
    loss.set_progress(0.5)
    extra = loss.prepare(labels)
    assert torch.equal(loss(logits, labels, extra), loss(logits, labels))


@pytest.mark.parametrize("name", ["asl2021/miou", "asl2021/macc", "asl2021/gacc", "asl2021/biou", "asl2021/bf1", "ce"])
def test_labels_stored_with_the_images_last(name: str) -> None:
    logits, labels = sample()
    last = labels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not last.is_contiguous()
    assert torch.equal(build(name)(logits, last), build(name)(logits, labels))


@pytest.mark.parametrize("spec", ["0*1e400*ce", "1e200*(1e200*ce)"])
def test_weights_that_overflow(spec: str) -> None:
    with pytest.raises(InputError, match="finite weights"):
        build(spec)


def test_classes_are_counted_by_labels_of_known_classes() -> None:
    with pytest.raises(InputError, match="labels: expected class ids 0 to 2 or ignore_index 255, got also 7"):
        class_weights(torch.full((1, 4, 4), 7), "inverse", 3)
    soft = torch.nn.functional.one_hot(sample()[1].clamp(max=C - 1), C).movedim(-1, 1).double()
    of = [build_loss("wce", num_classes=C, ignore_index=ignored).prepare(soft)["class_weight"] for ignored in (0, 255)]
    assert torch.equal(*of)  # of soft labels no class is ignored


def test_labels_of_two_classes_may_be_booleans() -> None:
    logits, labels = torch.randn(1, 2, 4, 4), torch.rand(1, 4, 4) > 0.5
    for spec in ("ce", "dice", "asl2021/miou"):
        loss = build_loss(spec, num_classes=2)
        assert torch.equal(loss(logits, labels), loss(logits, labels.long()))
    metric = build_metric("miou", 2)
    metric.update(labels, labels)
    assert float(metric.compute()) == 1


def test_eight_bits_hold_fewer_ids_than_there_are_classes() -> None:
    labels = torch.tensor([[[0, 4], [14, 255]]], dtype=torch.uint8)
    many = build_loss("ce", num_classes=300)
    logits = torch.randn(1, 300, 2, 2)
    assert torch.equal(many(logits, labels), many(logits, labels.long()))
    metric = build_metric("miou", 300)
    metric.update(torch.zeros(1, 2, 2, dtype=torch.int64), labels)
    assert float(metric.per_class()[0]) == pytest.approx(1 / 3)
