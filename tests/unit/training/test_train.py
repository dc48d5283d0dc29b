from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoseg.config import ProxyConfig
from autoseg.data import Augment
from autoseg.errors import Diverged, InputError
from autoseg.metrics import build_metric
from autoseg.training import Batches, Targets, Training, View, evaluate, loop, predict
from autoseg.training.loop import CHECK_EVERY
from autoseg.training.precision import Precision, precision_of, reproducible
from autoseg.training.resize import upsample
from autoseg.training.schedule import build_optimizer, poly, rates

CPU = torch.device("cpu")
PROXY = ProxyConfig(iters=12, batch_size=4, crop=16, scale=[0.8, 1.2], lr=0.02, head_lr_mult=1.0)
MEAN, STD = [120.0] * 3, [60.0] * 3


class Toy(nn.Module):
    """Three convolutions, an auxiliary output while training, and dropout (its draws must be seeded too)."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1))
        self.main, self.aux = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return [self.main(features), self.aux(features)] if self.training else [self.main(features)]


class CrossEntropy(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        assert logits.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return F.cross_entropy(logits, labels, ignore_index=255)


def bright_squares(count: int = 6) -> tuple[Tensor, Tensor]:
    """Images whose class 1 is a bright square on dark ground: learnable in a few steps."""
    labels = torch.zeros(count, 20, 24, dtype=torch.uint8)
    for i in range(count):
        labels[i, 3 + i : 11 + i, 4 + i : 14 + i] = 1
    return (40 + 160 * labels)[:, None].expand(-1, 3, -1, -1).contiguous(), labels


def batches_for(proxy: ProxyConfig, seed: int, extra: dict[str, Tensor] | None = None) -> Batches:
    images, labels = bright_squares()
    augment = Augment(proxy.crop, proxy.scale, proxy.flip, proxy.photometric, MEAN, STD)
    return Batches(
        images, labels, torch.arange(len(images)), augment,
        extra=extra or {}, seed=seed, iters=proxy.iters, batch_size=proxy.batch_size,
    )  # fmt: skip


def train(
    model: nn.Module,
    loss: nn.Module,
    batches: Batches,
    proxy: ProxyConfig,
    precision: Precision,
    targets: Targets | None = None,
) -> list[float]:
    """Train on all batches with one loss; returns the loss of every iteration."""
    training = Training(model, batches, proxy, precision, targets)
    training.run(loss)
    training.finish()
    return training.losses.tolist()


def run(proxy: ProxyConfig, seed: int, loss: nn.Module) -> tuple[nn.Module, list[float]]:
    with reproducible(CPU, seed, threads=1, deterministic=False):
        model = Toy()
        return model, train(model, loss, batches_for(proxy, seed), proxy, precision_of(proxy, CPU))


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_same_seed_same_weights_and_the_loss_goes_down(optimizer: str) -> None:
    proxy = replace(PROXY, optimizer=optimizer, iters=40)
    (one, losses), (two, _), (other, _) = (run(proxy, seed, CrossEntropy()) for seed in (3, 3, 4))
    assert digest(one) == digest(two) != digest(other)
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_equals_a_loop_written_out_and_may_stop_on_the_way(optimizer: str) -> None:
    proxy = replace(PROXY, optimizer=optimizer, iters=9, weight_decay=0.3, momentum=0.7, min_lr=1e-3, poly_power=2.0)
    seen: list[float] = []
    with reproducible(CPU, 0, threads=1, deterministic=False):
        ours = Toy().eval()
        plain = copy.deepcopy(ours).train()
        training = Training(ours, batches_for(proxy, 0), proxy, precision_of(proxy, CPU))
        loss = CrossEntropy()
        loss.set_progress = seen.append  # type: ignore[assignment]
        torch.manual_seed(5)
        training.run(loss, until=4)
        training.run(loss)
        torch.manual_seed(5)
        steps = torch.optim.AdamW(plain.parameters(), weight_decay=0.3)
        if optimizer == "sgd":
            steps = torch.optim.SGD(plain.parameters(), momentum=0.7, weight_decay=0.3)
        expected = []
        for iteration, (images, labels, _) in enumerate(batches_for(proxy, 0)):
            steps.param_groups[0]["lr"] = (proxy.lr - 1e-3) * (1 - iteration / 9) ** 2 + 1e-3
            main, aux = (CrossEntropy()(logits, labels) for logits in plain(images))
            expected.append(float((main + 0.4 * aux).detach()))
            steps.zero_grad()
            (main + 0.4 * aux).backward()
            steps.step()
    training.finish()
    assert training.losses.tolist() == pytest.approx(expected, rel=1e-3)
    theirs = plain.state_dict()
    for name, mine in ours.state_dict().items():
        # Batch norm takes a bias before it away: its gradient is rounding, which AdamW makes large.
        if name not in ("body.0.bias", "body.1.running_mean"):
            torch.testing.assert_close(mine, theirs[name], rtol=1e-3, atol=1e-4)
    assert seen == pytest.approx([iteration / 9 for iteration in range(9)])


def test_targets_make_what_the_loss_sees_and_follow_every_step() -> None:
    class Following(Targets):
        def __init__(self) -> None:
            self.followed: list[str] = []

        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            return F.one_hot(labels.clamp(max=1), 2).permute(0, 3, 1, 2).float()

        def follow(self, model: nn.Module) -> None:
            self.followed.append(digest(model))

    class Soft(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels)  # of one shape

    targets, proxy = Following(), replace(PROXY, iters=3)
    model = Toy()
    train(model, Soft(), batches_for(proxy, 0), proxy, precision_of(proxy, CPU), targets)
    assert len(set(targets.followed)) == 3 and targets.followed[-1] == digest(model)  # after the step


def test_auxiliary_logits_get_the_weighted_loss() -> None:
    class Mean(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits.mean() * 0 + 1

    _, losses = run(replace(PROXY, iters=2, aux_weight=0.25), 0, Mean())
    assert losses == [1.25, 1.25]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_diverges_at_once(value: float) -> None:
    class Fails(nn.Module):
        calls = 0

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            return logits.mean() * (value if self.calls > 2 else 1.0)

    loss, model = Fails(), Toy()
    with reproducible(CPU, 0, threads=1, deterministic=False), pytest.raises(Diverged, match="iteration 1"):
        train(model, loss, batches_for(PROXY, 0), PROXY, precision_of(PROXY, CPU))
    assert loss.calls == 4  # main and auxiliary, twice
    assert all(weight.isfinite().all() for weight in model.state_dict().values())  # before the update


def test_without_a_look_the_first_such_iteration_is_named_all_the_same() -> None:
    class Fails(nn.Module):
        calls = 0

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            return logits.mean() * (float("nan") if self.calls > 6 else 1.0)

    loss, proxy = Fails(), replace(PROXY, iters=2 * CHECK_EVERY)
    with reproducible(CPU, 0, threads=1, deterministic=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CudaGraph", lambda device: None)
        patch.setattr(loop, "Replayed", lambda step, graph: step)  # steps that cannot be looked into, as on a GPU
        patch.setattr(loop, "check_replayable", lambda *args: None)
        with pytest.raises(Diverged, match="iteration 3"):
            train(Toy(), loss, batches_for(proxy, 0), replace(proxy, cuda_graph=True), precision_of(proxy, CPU))
    assert loss.calls == 2 * CHECK_EVERY  # main and auxiliary


def test_a_gradient_that_is_not_finite_diverges() -> None:
    class Sharp(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return (logits * 0).sum().sqrt()  # value 0, gradient 0 * infinity

    with pytest.raises(Diverged, match="not finite"):
        run(replace(PROXY, iters=1), 0, Sharp())


def test_loss_is_told_progress_and_gets_what_it_prepared() -> None:
    seen: list[float] = []

    class Wants(CrossEntropy):
        def prepare(self, labels: Tensor) -> dict[str, Tensor]:
            return {"copy": labels[:, None].float(), "constant": torch.tensor([7.0])}

        def set_progress(self, progress: float) -> None:
            seen.append(progress)

        def forward(self, logits: Tensor, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
            inside = labels != 255
            assert torch.equal(extra["copy"][:, 0][inside], labels[inside].float())
            assert extra["constant"].tolist() == [7.0]
            return super().forward(logits, labels)

    loss, proxy = Wants(), replace(PROXY, iters=4, aux_weight=0.0, amp="bf16")  # the loss is given float32 all the same
    batches = batches_for(proxy, 0, loss.prepare(bright_squares()[1]))
    train(Toy(), loss, batches, proxy, precision_of(proxy, CPU))
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_batches_depend_on_the_seed_alone_and_visit_every_image() -> None:
    proxy = replace(PROXY, iters=6, batch_size=4)
    first, again, other = (batches_for(proxy, seed) for seed in (1, 1, 2))
    for (images, labels, _), (images2, labels2, _) in zip(first, again, strict=True):
        assert torch.equal(images, images2) and torch.equal(labels, labels2)
        assert images.shape == (4, 3, 16, 16) and labels.shape == (4, 16, 16) and labels.dtype == torch.int64
    assert torch.equal(first.order.flatten().bincount(), torch.full((6,), 4))  # 24 draws, 6 images
    assert not torch.equal(first.order, other.order)


def test_batches_are_of_the_rows_asked_for_in_another_order_each_pass() -> None:
    """Of images that say who they are, 30 wide and 10 high: rows, extras and padding are those of the image shown."""
    images = (20 * torch.arange(12, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 3, 10, 30).contiguous()
    labels = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 10, 30).contiguous()
    rows = torch.tensor([2, 3, 7, 11])
    augment = Augment(16, [1.0, 1.0], True, False, [0.0] * 3, [1.0] * 3)
    extra = {"who": rows.view(-1, 1, 1, 1).expand(-1, 1, 10, 30).float() + 1}
    batches = Batches(images, labels, rows, augment, extra=extra, seed=0, iters=20, batch_size=4)
    for iteration, (shown, ids, extras) in enumerate(batches):
        who = batches.rows[batches.order[iteration]].view(-1, 1, 1)
        inside = ids != 255
        assert torch.equal(torch.where(inside, ids, who), who.expand_as(ids))
        assert torch.equal(extras["who"][:, 0], torch.where(inside, who + 1, 0).float())
        sure = inside & ~F.max_pool2d((~inside).float()[:, None], 3, 1, 1)[:, 0].bool()  # no pixel from beyond the
        sure[..., [0, -1]] = sure[:, [0, -1]] = False  # image has a part in it
        torch.testing.assert_close(shown[:, 0][sure], (20.0 * who).expand_as(ids)[sure])
        assert (inside.any(2).sum(1) == 10).all() and (inside.any(1).sum(1) == 16).all()  # higher than it, and narrower
    assert len({tuple(one.tolist()) for one in batches.order}) > 5
    assert torch.equal(batches.order.flatten().bincount(), torch.full((4,), 20))


def test_batches_drawn_in_parts_are_those_drawn_at_once() -> None:
    whole, parts = batches_for(PROXY, 3), batches_for(PROXY, 3)
    at_once = whole.drawn(0, 12)
    first, second = parts.drawn(0, 5), parts.drawn(5, 12)
    assert torch.equal(at_once.numbers.affine, torch.cat([first.numbers.affine, second.numbers.affine]))
    assert torch.equal(at_once.index, torch.cat([first.index, second.index]))


@given(st.floats(1e-5, 1.0), st.floats(0.0, 1.0), st.floats(0.5, 2.0), st.integers(1, 1000), st.integers(0, 1000))
def test_poly_falls_from_base_towards_minimum(base: float, share: float, power: float, iters: int, at: int) -> None:
    minimum, at = share * base, min(at, iters)
    value = poly(base, minimum, power, at, iters)
    assert minimum - 1e-12 <= value <= base + 1e-12
    assert poly(base, minimum, power, 0, iters) == pytest.approx(base)
    assert poly(base, minimum, power, iters, iters) == pytest.approx(minimum)


def test_poly_known_value() -> None:
    assert poly(0.02, 1e-4, 0.9, 2500, 10000) == pytest.approx(0.0199 * 0.75**0.9 + 1e-4)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (4, 5)])
def test_upsampling_equals_interpolate_in_value_and_gradient(align: bool, size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 4, 5, requires_grad=True)
    ours, theirs = (
        upsample(maps, size, align),
        F.interpolate(maps, size, mode="bilinear", align_corners=align),
    )
    assert torch.allclose(ours, theirs, atol=1e-5)
    weight = torch.randn_like(ours)
    (a,), (b,) = (
        torch.autograd.grad((ours * weight).sum(), maps),
        torch.autograd.grad((theirs * weight).sum(), maps),
    )
    assert torch.allclose(a, b, atol=1e-4)


def test_evaluation_sees_the_chosen_images_whole_and_restores_the_mode() -> None:
    model, _ = run(replace(PROXY, iters=60), 0, CrossEntropy())
    images, labels = bright_squares()
    scores = [
        evaluate(
            model.train(),
            View(images, torch.tensor([0, 2, 5]), precision_of(PROXY, CPU), MEAN, STD, size),
            labels,
            {name: build_metric(name, num_classes=2) for name in ("gacc", "ece")},
        )
        for size in (1, 2, 16)
    ]
    assert model.training
    assert scores[0]["gacc"] == scores[1]["gacc"] == scores[2]["gacc"] > 0.9
    assert [one["ece"] for one in scores] == [pytest.approx(scores[0]["ece"])] * 3 and scores[0]["ece"] < 0.3


class Painted(nn.Module):
    """A network that says what is drawn in its images: class 1 where they are bright."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.stack([-images[:, 0], images[:, 0]], 1)]


class Right:
    """A user's own metric of probabilities, which takes labels to lie in memory in one piece."""

    needs_probs = True

    def __init__(self) -> None:
        self.right = self.pixels = 0

    def update_probs(self, probs: Tensor, labels: Tensor) -> None:
        self.right += int((probs.argmax(1).view(-1) == labels.view(-1)).sum())
        self.pixels += labels.numel()

    def compute(self) -> float:
        return self.right / self.pixels


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_padding_has_no_say_in_scores(batch: int) -> None:
    """Void would: boundary metrics count what is predicted in it, and an edge to it is one."""
    torch.manual_seed(0)
    names, whole = ("bf1", "boundary_iou", "miou", "ece"), torch.rand(5, 12, 16) > 0.5
    sizes, found = torch.tensor([[12, 16], [12, 10], [12, 10], [7, 16], [12, 16]]), []
    for inside_padding in (0, 255, None):
        images = torch.zeros(5, 3, 12, 16, dtype=torch.uint8)
        labels = torch.full((5, 12, 16), 255, dtype=torch.uint8)
        for index, (height, width) in enumerate(sizes.tolist()):
            if inside_padding is None:
                images[index] = torch.randint(0, 256, (3, 12, 16))
            else:
                images[index] = inside_padding
            images[index, :, :height, :width] = 255 * whole[index, :height, :width]
            labels[index, :height, :width] = whole[index, :height, :width].roll(1, 1)
        metrics = {name: build_metric(name, num_classes=2, tolerance=1) for name in names}
        metrics |= {"right": Right(), "by image": (by_image := build_metric("bf1", 2, tolerance=1))}
        by_image.keep_images()
        view = View(images, torch.arange(5), precision_of(PROXY, CPU), [127.5] * 3, [1.0] * 3, batch, None, sizes)
        found.append(evaluate(Painted(), view, labels, metrics))
    alone = {name: build_metric(name, num_classes=2, tolerance=1) for name in names if name != "ece"}
    one_by_one = build_metric("bf1", 2, tolerance=1)
    one_by_one.keep_images()
    for index, (height, width) in enumerate(sizes.tolist()):
        pred = whole[index : index + 1, :height, :width].long()
        for metric in (*alone.values(), one_by_one):
            metric.update(pred, pred.roll(1, 2))
    for total, parts in one_by_one.parts.items():  # in the order of the images
        torch.testing.assert_close(by_image.parts[total], parts, rtol=0, atol=0)
    assert found[0] == found[1] == found[2]
    assert {name: float(metric.compute()) for name, metric in alone.items()} == {name: found[0][name] for name in alone}


@pytest.mark.parametrize(("tallest", "seen"), [(33, (64, 96)), (64, (64, 96)), (65, (70, 96))])
def test_the_network_gets_no_padding_that_no_image_fills(tallest: int, seen: tuple[int, int]) -> None:
    """But up to a multiple of 32, which some networks need; predictions are as large as the stored images."""
    images, sizes = torch.zeros(2, 3, 70, 200, dtype=torch.uint8), torch.tensor([[tallest, 80], [20, 90]])
    shapes = []

    def network(batch: Tensor) -> list[Tensor]:
        shapes.append(tuple(batch.shape))
        return [torch.stack([torch.zeros(len(batch), *batch.shape[2:]), torch.ones(len(batch), *batch.shape[2:])], 1)]

    model = Toy()
    model.forward = network  # type: ignore[method-assign]
    view = View(images, torch.tensor([1]), precision_of(PROXY, CPU), MEAN, STD, 2, None, sizes)
    classes = predict(model, view)
    assert shapes == [(1, 3, *seen)] and classes.shape == (1, 70, 200)
    assert classes[0, : seen[0], : seen[1]].all() and not classes[0, seen[0] :].any() and not classes[..., 96:].any()


def test_evaluation_of_logits_that_are_not_finite_diverges() -> None:
    """Also with metrics of probabilities, which refuse such as a fault of their caller."""
    model, (images, labels) = Toy(), bright_squares()
    with torch.no_grad():
        model.main.bias[0] = torch.inf
    view = View(images, torch.arange(2), precision_of(PROXY, CPU), MEAN, STD, 2)
    with pytest.raises(Diverged, match="not finite"):
        evaluate(model, view, labels, {"ece": build_metric("ece", num_classes=2)})


def test_evaluation_is_of_the_main_head_in_evaluation_mode_on_normalised_images() -> None:
    class Two(Toy):
        def forward(self, images: Tensor) -> list[Tensor]:
            features = self.body(images)
            return [self.main(features), self.aux(features)]

    torch.manual_seed(0)
    model, (images, _) = Two(), bright_squares()
    model.body[1].running_mean.normal_()
    mean, std = [90.0, 100.0, 110.0], [10.0, 20.0, 30.0]
    view = View(images, torch.tensor([1, 4, 5]), precision_of(PROXY, CPU), mean, std, 2)
    shown = (images[[1, 4, 5]].float() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        found = torch.cat([logits for _, logits in view.logits(model)])
        torch.testing.assert_close(found, model.eval()(shown)[0])
        assert torch.equal(predict(model, view), found.argmax(1).to(torch.uint8))


def test_precision_settings() -> None:
    assert precision_of(PROXY, CPU) == Precision(CPU, None, torch.channels_last)
    assert precision_of(replace(PROXY, amp="bf16"), CPU).dtype is torch.bfloat16
    with pytest.raises(InputError, match=r"proxy\.amp"):
        precision_of(replace(PROXY, amp="fp16"), CPU)


def test_bf16_trains_on_a_cpu() -> None:
    _, losses = run(replace(PROXY, iters=40, amp="bf16"), 0, CrossEntropy())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_reproducible_puts_everything_back() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    with reproducible(CPU, 0, threads=threads + 1, deterministic=True):
        assert torch.get_num_threads() == threads + 1 and torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.rand(5), torch.rand(5, generator=torch.Generator().manual_seed(0)))
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(2), expected)


def test_a_class_that_the_network_masks_is_no_divergence() -> None:
    class Masked(Painted):
        def forward(self, images: Tensor) -> list[Tensor]:
            (logits,) = super().forward(images)
            return [torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1)]

    images, labels = bright_squares()
    view = View(images, torch.arange(6), precision_of(PROXY, CPU), MEAN, STD, 4)
    assert evaluate(Masked(), view, labels, {"gacc": build_metric("gacc", 3)}) == {"gacc": 1.0}


def test_what_is_scored_has_32_bits_whatever_the_network_computes_in() -> None:
    class Half(Painted):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [logits.bfloat16() for logits in super().forward(images)]

    view = View(bright_squares()[0], torch.arange(6), precision_of(PROXY, CPU), MEAN, STD, 4)
    assert {logits.dtype for _, logits in view.logits(Half())} == {torch.float32}


def test_rates_on_a_cpu_are_not_rounded() -> None:
    """In 64 bits, as fused optimisers compute there."""
    found = rates(build_optimizer(Toy(), PROXY), PROXY, 3, 5, CPU)
    expected = [[poly(PROXY.lr, PROXY.min_lr, PROXY.poly_power, at, PROXY.iters)] for at in (3, 4)]
    assert found.dtype == torch.float64 and found.tolist() == expected
