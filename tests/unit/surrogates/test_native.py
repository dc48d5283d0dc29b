"""The native pass gives what the reference gives; it is the machine's compiler that builds it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from agreement import ALL, SPACES, C, assert_same, batch, value_and_gradient

import autoseg
from autoseg.errors import InputError
from autoseg.losses import searched_loss
from autoseg.surrogates.fast.cpu import native, native_pass
from autoseg.surrogates.fast.formula_plan import FormulaPlan
from autoseg.surrogates.fast.reading import FusedLogic

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ["c++", "g++", "clang++"])), reason="needs a C++ compiler")


def build(name, space="default", seed=0, **options):
    space = autoseg.build_space(space, metric=name)
    theta = 0.1 + 0.8 * np.random.default_rng(seed).random(space.dim)
    return searched_loss(space, theta, num_classes=options.pop("num_classes", C), tolerance=2, compile=True, **options)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("space", SPACES)
def test_equals_the_reference(name, space):
    for seed in range(2):
        assert_same(build(name, space, seed, drop_background=bool(seed)), *batch(seed, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["miou", "biou"])
def test_every_precision(name, dtype):
    assert_same(build(name), *batch(0, dtype))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (67, 61)])
@pytest.mark.parametrize("name", ["miou", "biou", "macc"])
def test_any_number_of_pixels(name, size):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, C, (2, *size), generator=g)
    labels[0, 0, 0] = 255
    assert_same(build(name), torch.randn(2, C, *size, generator=g), labels)


@pytest.mark.filterwarnings("ignore:a softmax over one class")
@pytest.mark.parametrize("classes", [1, 2, 150])
def test_any_number_of_classes(classes):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (2, 40, 50), generator=g)
    assert_same(build("miou", num_classes=classes), torch.randn(2, classes, 40, 50, generator=g), labels)


def test_layouts():
    logits, labels = batch(3, torch.float32)
    for other in (logits.to(memory_format=torch.channels_last), logits[:, :, ::2, ::2]):
        step = 16 // other.shape[2]
        assert_same(build("miou"), other, labels[:, ::step, ::step])


def test_the_same_bits_whatever_the_number_of_threads():
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, C, 90, 110, generator=g), torch.randint(0, C, (3, 90, 110), generator=g)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5, 1):
            torch.set_num_threads(count)
            found.append([value_and_gradient(build(name), logits, labels) for name in ("miou", "bf1")])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("name", ["miou", "bf1"])
def test_more_threads_than_there_is_work_for(monkeypatch, name):
    """Each would have its own planes."""
    expected = value_and_gradient(build(name), *batch(0, torch.float32))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2**31 - 1)
    assert all(map(torch.equal, value_and_gradient(build(name), *batch(0, torch.float32)), expected))


@pytest.mark.parametrize(("images", "classes", "totals"), [(2**45, 1, 1), (1, 2**45, 0)])
def test_out_of_memory_is_an_error(images, classes, totals):
    """An exception of C++ that nobody catches, in the function itself or in a thread, would end the process."""
    with pytest.raises(MemoryError, match="not enough memory for pointwise_forward"):
        native.call("pointwise_forward", torch.zeros(8), images, classes, 1, None, totals, torch.zeros(8), None)


@pytest.mark.parametrize("number", [-1, C, 2**40])
def test_labels_that_change_between_forward_and_backward(number):
    """Torch does not notice it where they are numpy's; C++ would read and write beyond its planes."""
    logits, labels = batch(0, torch.float32)
    leaf, shared = logits.requires_grad_(), (labels % C).numpy()
    value = build("miou")(leaf, torch.from_numpy(shared))
    shared[:] = number
    value.backward()
    assert leaf.grad.isfinite().all()


def test_large_logits_saturate_without_a_nan():
    labels = batch(0)[1]
    logits = 1e4 * torch.nn.functional.one_hot(labels % C, C).movedim(-1, 1).float()
    value, grad = value_and_gradient(build("miou"), logits, labels)
    exact = autoseg.build_metric("miou", num_classes=C)
    exact.update(labels % C, labels)
    loss = build("miou", absent="skip")
    loss.space = autoseg.build_space("paper", metric="miou")  # without a score curve: the exact metric
    assert float(loss(logits, labels)) == pytest.approx(1 - float(exact.compute()), abs=1e-6)
    assert value.isfinite() and grad.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_a_number_stays_so(bad):
    logits, labels = batch(0, torch.float32)
    logits[1, 2, 8, 9] = bad
    assert build("miou")(logits, labels).isnan()


@pytest.mark.parametrize("at", [(0, 0), (5, 6), (11, 11)])
@pytest.mark.parametrize("px", [1, 2])
def test_what_is_not_a_number_stays_so_in_windows(at, px):
    logits, labels = torch.randn(1, 2, 12, 12), torch.zeros(1, 12, 12, dtype=torch.long)
    logits[0, 1, at[0], at[1]] = torch.nan

    def formula(pred, label, logic):
        return {"a": logic.total(logic.dilate(pred, px))}

    found = FusedLogic(logits, labels, {}, compiled=True).read(FormulaPlan(formula, False, 2))["a"]
    assert found.isnan().all()


def test_a_curve_of_many_pieces_takes_the_plain_pass(monkeypatch):
    monkeypatch.setattr(native_pass, "MAX_PIECES", 1)
    monkeypatch.setattr(native_pass, "totals", None)  # would fail
    assert_same(build("miou", "paper"), *batch(0, torch.float32))


def test_without_a_compiler_the_user_is_told_what_to_do(monkeypatch):
    native.library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    autoseg.native.library.cache_clear()
    with pytest.raises(
        InputError, match=r"compile: expected a C\+\+ compiler, got none of no-such-compiler.*compile=off"
    ):
        build("miou")(*batch(0, torch.float32))
    native.library.cache_clear()


@pytest.mark.parametrize("compiled", [True, False])
def test_steep_curves_do_not_magnify_the_rounding_of_softmax(compiled):
    """The worst θ found: from logits minus a rounded logsumexp, softmax gave gradients 1.9e-4 from float64."""
    space = autoseg.build_space("paper", metric="miou+0.5*bf1")
    loss = searched_loss(
        space, np.random.default_rng(1).random(space.dim), num_classes=C, tolerance=2, drop_background=True
    )
    loss.compiled = compiled
    logits, labels = batch(1, torch.float32)
    assert_same(loss, logits, labels)
    loss.fused = True
    _, grad = value_and_gradient(loss, logits, labels)
    loss.fused = False
    _, exact = value_and_gradient(loss, logits.double(), labels)
    assert float((grad - exact).abs().max()) <= 1e-4 * float(exact.abs().max())


@pytest.mark.parametrize("name", ["miou", "bf1"])
def test_another_default_dtype_changes_nothing(name):
    """C++ writes float32, whatever torch would allocate."""
    loss, (logits, labels) = build(name), batch(0, torch.float32)
    expected = value_and_gradient(loss, logits, labels)
    torch.set_default_dtype(torch.float64)
    try:
        found = value_and_gradient(loss, logits, labels)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found[1], expected[1])
