"""The Triton kernels give what the reference gives: in Triton's interpreter here, on a GPU where there is one.

Triton reads TRITON_INTERPRET when it is imported, so what runs in the interpreter runs in a process of its own.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imitated_gpu import imitated

import autoseg
from autoseg.losses import searched_loss
from autoseg.metrics.logic import Logic
from autoseg.metrics.maps import MapLogic
from autoseg.surrogates import loss as loss_module
from autoseg.surrogates.curves import prepare
from autoseg.surrogates.fast import reading
from autoseg.surrogates.fast.formula_plan import FormulaPlan, plan_formula
from autoseg.surrogates.fast.gpu import bands, checks, launches, plans
from autoseg.surrogates.fast.passes import Pass, Pixels
from autoseg.surrogates.fast.reading import FusedLogic

NAMES = ["miou", "fwiou", "dice", "macc", "gacc", "biou", "bf1", "miou_i"]
SPACES = ["paper", "default", "paper-linear", "paper-unconstrained"]
C, SIZE = 3, (3, 7)  # small: each operation of each program takes the interpreter a tenth of a millisecond
BOUNDS = {  # of the value, and of the gradient as a share of its maximum
    torch.float32: (5e-6, 1e-4),
    torch.bfloat16: (5e-6, 1e-2),
    torch.float16: (5e-6, 2e-3),
}
pytest.importorskip("triton", reason="needs triton, which torch brings along on Linux only")


def batch(seed, c=C, size=SIZE, dtype=torch.float32, n=2):
    """Logits, and labels with void pixels that lack the last class."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, c, *size, generator=g, dtype=torch.float64)
    labels = torch.randint(0, max(1, c - 1), (n, *size), generator=g)
    labels[:, : size[0] // 3, : size[1] // 2] = 255
    return logits.to(dtype), labels


def differences(name, space, seed=0, c=C, size=SIZE, dtype=torch.float32, form="contiguous", shift=0.0):
    """(of the values; of the gradients, as a share of the largest) between the kernels and the reference."""
    space = autoseg.build_space(space, metric=name)
    theta = 0.2 + 0.6 * np.random.default_rng(seed).random(space.dim)  # no jumps, whose slopes magnify rounding
    logits, labels = batch(seed, c, size, dtype)
    logits = logits + shift
    if form == "channels_last":
        logits = logits.to(memory_format=torch.channels_last)
    elif form == "transposed":
        logits, labels = logits.transpose(2, 3), labels.transpose(1, 2)
    elif form == "sliced":
        logits, labels = logits[:, :, ::2, 1:], labels[:, ::2, 1:]
    return compared(searched_loss(space, theta, num_classes=c, tolerance=1), logits, labels)


def compared(loss, logits, labels):
    found = []
    for loss.fused in (True, False):
        leaf = logits.detach().requires_grad_()
        value = loss(leaf, labels)
        (grad,) = torch.autograd.grad(value, leaf)
        assert grad.dtype == logits.dtype and grad.shape == logits.shape
        found.append((float(value.detach()), grad.double()))
    (ours, grad), (theirs, their_grad) = found
    return abs(ours - theirs), float((grad - their_grad).abs().max() / their_grad.abs().max().clamp_min(1e-12))


# ------------------------------------------------------------------------------------------- in the interpreter


@pytest.fixture(scope="module")
def interpreter():
    """Calls a function of this module where Triton interprets, and FusedLogic leaves CPU tensors to the kernels."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(interpret).result()
        yield lambda call, *args, **options: pool.submit(call, *args, **options).result()


def interpret():
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message=".*Triton kernels cannot run")  # else the reference would be tried
    launches.PIXELS, launches.TILES = (16, 16), (16, 1)  # several programs to an image
    loss_module.by_kernels = reading.by_kernels = lambda _: True


def loops(call, *args, **options):
    """With the kernels for many classes."""
    launches.HELD, held = 0, launches.HELD
    try:
        return call(*args, **options)
    finally:
        launches.HELD = held


def plan_of(work):
    layout = plans.laid_out(work, len)
    return plans.planned(layout.structure, layout.groups, layout.curves)


def assert_within(found, dtype=torch.float32):
    assert found[0] <= BOUNDS[dtype][0] and found[1] <= BOUNDS[dtype][1], found


@pytest.mark.slow  # the first one starts the interpreter
@pytest.mark.parametrize(
    ("name", "space"), [("miou", space) for space in SPACES] + [(name, "default") for name in NAMES[1:]]
)
def test_equals_the_reference(interpreter, name, space):
    assert_within(interpreter(differences, name, space))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miou", "macc", "biou", "miou_i"])
def test_kernels_for_many_classes_equal_the_reference(interpreter, name):
    assert_within(interpreter(loops, differences, name, "default"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "dtype"),
    [("channels_last", dtype) for dtype in BOUNDS] + [("transposed", torch.float32), ("sliced", torch.float32)],
)
def test_layouts_and_precisions(interpreter, form, dtype):
    assert_within(interpreter(differences, "miou", "default", 1, dtype=dtype, form=form), dtype)


@pytest.mark.slow
@settings(max_examples=5)
@given(st.integers(1, 5), st.tuples(st.integers(1, 4), st.integers(1, 6)), st.sampled_from(["miou", "macc", "miou_i"]))
def test_any_size(interpreter, c, size, name):
    assert_within(interpreter(differences, name, "default", 0, c, size, form="channels_last"))


@pytest.mark.slow
@settings(max_examples=5)
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12))
def test_any_theta(interpreter, theta):
    assert_within(interpreter(with_theta, theta))


def with_theta(theta):
    return compared(searched_loss(autoseg.build_space("paper-miou"), np.array(theta), num_classes=C), *batch(2, n=1))


@pytest.mark.slow
def test_large_logits(interpreter):
    assert_within(interpreter(differences, "miou", "default", shift=100.0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "loops"])
def test_a_pass_with_every_kind_of_total_is_as_defined(interpreter, kind):
    assert_within(interpreter(*([loops] if kind == "loops" else []), pass_with_every_kind_of_total))


def pass_with_every_kind_of_total():
    logits, labels = batch(5)
    work, shorter = Pass(), reading.IDENTITY
    curve = prepare(torch.linspace(0, 1, 7, dtype=torch.float64).view(-1, 1) ** torch.tensor([1.0, 2.0]))
    steep = prepare(torch.tensor([[0, 0], [0.1, 0.2], [0.3, 0.5], [0.9, 0.5], [1, 1]], dtype=torch.float64))
    other, few = Pixels(torch.where(labels == 1, -1, (labels + 1) % C), None, C), labels < 1
    all_, region, own = Pixels(None, None, C), Pixels(None, few, C), Pixels(labels.to(torch.uint8), few, C)
    work.add_own(curve, other)
    work.add_everywhere(shorter, all_)
    work.add_own(shorter, Pixels(labels.int(), None, C))
    work.add_everywhere(curve, region)
    work.add_own(steep, other)
    work.add_everywhere(steep, all_, own)
    work.add_own(None, other)
    work.add_everywhere(shorter, own, own)
    work.add_own(None, own)
    weights = torch.rand(9, 2, C, dtype=torch.float64)
    found = []
    for totals in (
        lambda x: launches.totals(x, plan_of(work), apart=True),
        lambda x: checks.defined(x, work),
    ):
        leaf = logits.clone().requires_grad_()
        result = totals(leaf)
        found.append((result.detach(), *torch.autograd.grad((result * weights).sum(), leaf)))
    (ours, grad), (theirs, their_grad) = found
    return float(((ours - theirs) / theirs.clamp_min(1)).abs().max()), float((grad - their_grad).abs().max())


@pytest.mark.slow
def test_labels_of_any_integers_are_read_as_they_are(interpreter):
    assert interpreter(labels_of_other_types) == [True] * 6
    assert interpreter(loops, labels_of_other_types) == [True] * 6


def labels_of_other_types():
    """Those of more than 2^32 too, and those with gaps: the same totals, bit for bit."""
    logits, labels = batch(0)
    curves = {("and", "p"): reading.IDENTITY, ("or", "p"): reading.IDENTITY}
    formula = autoseg.build_metric("miou", C).sums
    wide = torch.where(labels == 255, 2**32 + 1, labels)
    gaps = torch.stack([labels, labels], 3)[..., 0]
    dtypes = (torch.uint8, torch.int16, torch.int32, torch.uint16)
    first, *rest = [
        FusedLogic(logits, ids, curves).read(FormulaPlan(formula, kernels=True))
        for ids in (labels, wide, gaps, *(labels.to(dtype) for dtype in dtypes))
    ]
    return [all(torch.equal(total, first[key]) for key, total in each.items()) for each in rest]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "loops"])
@pytest.mark.parametrize("far", ["classes", "pixels"])
def test_images_of_more_than_2_31_numbers(interpreter, kind, far):
    """Kernels compute places in 64 bits, as their arguments are of 32."""
    assert interpreter(*([loops] if kind == "loops" else []), far_apart, far) == [True] * 3


def far_apart(far):
    """Totals, normaliser and gradient where the last number of an image lies 2^31 numbers behind its first."""
    logits, labels = (x.flatten(-2) for x in batch(0, n=1, dtype=torch.bfloat16))
    work, pixels = Pass(), Pixels(labels.unsqueeze(1), None, C)
    work.add_own(reading.IDENTITY, pixels)
    work.add_everywhere(reading.IDENTITY, pixels, pixels)
    plan, weights = plan_of(work), torch.rand(2, C, dtype=torch.float64)
    apart = (0, 2**30, 1) if far == "classes" else (0, 1, -(-(2**31) // (labels.numel() - 1)))
    found, empty_like = [], torch.empty_like
    for strides in (logits.stride(), apart):
        x = torch.empty_strided(logits.shape, strides).copy_(logits)  # memory that nothing is written to is not taken
        torch.empty_like = lambda x, strides=strides: torch.empty_strided(x.shape, strides, dtype=x.dtype)
        totals, normalizer = launches.forward(x, plan)
        found.append((totals, normalizer, launches.backward(x, normalizer, plan, weights)))
    torch.empty_like = empty_like
    return [torch.equal(a, b) for a, b in zip(*found, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "loops"])
def test_wrong_labels_are_seen(interpreter, kind):
    assert interpreter(*([loops] if kind == "loops" else []), wrong_labels) == {
        "miou": [True, False, False], "biou": [True, False, False], "bf1": [True, False, False]
    }  # fmt: skip


def wrong_labels():
    """Whether batches pass: with the ignored id, with one class too many, with an id below 0."""
    logits, labels = batch(0)
    found = {}
    for name in ("miou", "biou", "bf1"):
        loss, found[name] = autoseg.SurrogateLoss(name, C, tolerance=1), []
        curves = {key: loss.curve(curve) for key, curve in loss._keys[name].items()}
        for wrong in (255, C, -1):
            ids = labels.clone()
            ids[1, -1, -1] = wrong
            try:
                FusedLogic(logits, ids, curves, ignore=255).read(FormulaPlan(loss.terms[0][1].sums, kernels=True))
            except RuntimeError as error:
                assert "Expected Tensor with single nonzero value" in str(error)
                found[name].append(False)
            else:
                found[name].append(True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miou", "fwiou", "dice", "gacc"])
def test_the_loss_of_totals_is_as_defined(interpreter, name):
    assert max(interpreter(scores_of_totals, name)) < 1e-5


def scores_of_totals(name):
    """Differences of value and slopes, for every rule of absent classes and score curve; of nothing that counts too."""
    found = []
    ratio = plan_formula(autoseg.build_metric(name, C), kernels=True).ratio
    for present in (False, True):
        for curve in (
            None,
            prepare(torch.linspace(0, 1, 5, dtype=torch.float64).view(-1, 1) ** torch.tensor([1.0, 2])),
        ):
            score = launches.Score(ratio, present, 1e-8, curve)
            totals = torch.rand(len(ratio.rows[0]), C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            totals[ratio.label, 1] = 0
            for counts in (1.0, 0.0):
                leaf = (totals + (1 - counts)).index_put_((torch.tensor(ratio.label),), totals[ratio.label] * counts)
                leaf.requires_grad_()
                expected = checks.defined_score(leaf, score)
                (steep,) = torch.autograd.grad(expected, leaf)
                value, slopes = launches.scored(leaf.detach(), score)
                found += [abs(float(value) - float(expected.detach())), float((slopes - steep).abs().max())]
    return found


@pytest.mark.slow
def test_bands_along_outlines_are_those_of_the_exact_metrics(interpreter):
    assert interpreter(bands_alike) == [True] * 10


def bands_alike():
    """Outlines and what is near them: of any width, with the image's border and without, of all classes or not."""
    logic, found = Logic(), []
    for seed, dtype in enumerate((torch.int64, torch.uint8)):
        labels = torch.randint(0, C + 1, (2, 3, 5), generator=torch.Generator().manual_seed(seed))
        labels = torch.where(labels == C, 255, labels).repeat_interleave(3, 1).repeat_interleave(4, 2).to(dtype)
        for px, wide, border, skip in (
            (1, 2, False, False),
            (1, 5, False, True),
            (2, 1, True, True),
            (3, 0, True, False),
        ):
            outline = logic.boundary(logic.label, px, border)
            region = logic.anywhere(logic.dilate(outline, wide) if wide else outline, skip)
            assert bands.drawn(region)
            found.append(torch.equal(bands.band(labels, C, region), MapLogic(labels, C, False)._mask(region)))
        found.append(not bands.drawn(logic.anywhere(logic.label)))
    return found


@pytest.mark.slow
def test_edges(interpreter):
    kept = ["logits", "(2, 21)", "labels"]
    assert interpreter(edges) == {"nothing": [0, 0], "nan": True, "same bits": True, "kept": kept}


def edges():
    loss = autoseg.SurrogateLoss("miou", C)
    logits, labels = batch(0)
    empty = []
    for n in (0, 2):
        leaf = torch.randn(n, C, 4, 4, requires_grad=True)
        value = loss(leaf, torch.full((n, 4, 4), 255))
        value.backward()
        empty.append(float(value.detach()) + float(leaf.grad.abs().sum()))
    spoilt = logits.clone()
    spoilt[0, 0, -1, -1] = torch.nan
    kept = []
    leaf = logits.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        value = loss(leaf, labels)
    kept = [t for t in kept if t.numel() >= 21]
    own = {leaf.data_ptr(): "logits", labels.data_ptr(): "labels"}
    return {
        "nothing": empty,
        "nan": bool(loss(spoilt, labels).isnan()),
        "same bits": torch.equal(loss(leaf, labels), value),
        "kept": [own.get(t.data_ptr(), str(tuple(t.shape))) for t in kept],
    }


# ------------------------------------------------------------------------------------------- where they cannot run


@pytest.fixture
def forgetful():
    for memory in (checks._installed, checks._start, checks._warn):
        memory.cache_clear()
    yield
    for memory in (checks._installed, checks._start, checks._warn):
        memory.cache_clear()


def test_without_triton_a_warning_says_so_once(monkeypatch, forgetful):
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    on_cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, shape=(1, 2, 1, 1))
    with pytest.warns(UserWarning, match="triton is not installed.*reference path"):
        assert not checks.takes(on_cuda)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not checks.takes(on_cuda)
        assert not checks.takes(SimpleNamespace(device=torch.device("cuda"), dtype=torch.float64))
        assert not checks.takes(torch.zeros(1, 2, 1, 1))


def test_no_more_images_than_a_grid_has_rows(monkeypatch, forgetful):
    monkeypatch.setattr(checks, "find_spec", lambda _: True)
    for count, taken in ((65_535, True), (65_536, False)):
        logits = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, shape=(count, 2, 1, 1))
        assert checks.takes(logits) == taken


@pytest.mark.slow  # imports triton
def test_a_launch_that_fails_leaves_the_loss_to_the_reference(monkeypatch, forgetful):
    """Outside the interpreter the kernels cannot start on the CPU, with or without a GPU in the machine."""
    logits, labels = batch(0)
    curves = {("and", "p"): reading.IDENTITY, ("or", "p"): reading.IDENTITY}
    formula = autoseg.build_metric("miou", C).sums
    expected = FusedLogic(logits, labels, curves).read(FormulaPlan(formula, kernels=False))
    for first in (True, False):
        logic = FusedLogic(logits, labels, curves)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = logic.read(FormulaPlan(formula, kernels=True))
        assert len([w for w in said if "Triton kernels cannot run here" in str(w.message)]) == first
        for key, total in found.items():
            torch.testing.assert_close(total, expected[key])


@pytest.mark.slow
def test_the_first_small_batch_tells_right_from_wrong(interpreter):
    assert interpreter(trials, False) == (True, [], False, [True])
    assert interpreter(trials, True) == (True, [], False, [True])


def trials(scored):
    logits, labels = batch(0)
    work = Pass()
    pixels = Pixels(labels, labels < 1, C)
    work.add_own(reading.IDENTITY, pixels)
    work.add_everywhere(prepare(torch.rand(5, 2, dtype=torch.float64).sort(0).values), Pixels(None, None, C), pixels)
    work.add_everywhere(reading.IDENTITY, pixels)
    work.add_own(None, pixels)
    structure = plans.laid_out(work, len, lambda pixels: pixels.ids is labels).structure
    found, kernel, case = [], launches.backward, (logits.device, logits.dtype, C, False, structure, scored)
    for broken in (False, True):
        checks._start.cache_clear()
        checks._warn.cache_clear()
        if broken:  # a gradient with one wrong pixel
            launches.backward = lambda *args: kernel(*args).index_fill(2, torch.tensor([77]), 0.0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found += [checks._start(*case), ["compute wrong numbers" in str(w.message) for w in said]]
    launches.backward = kernel
    return tuple(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miou", "macc", "gacc"])
def test_the_first_loss_of_totals_passes_whatever_absent_classes_do(interpreter, name):
    """Of mAcc, which divides by the labels, one where they count was tried on a division by nothing."""
    assert interpreter(trials_of_scores, name) == [True, True]


def trials_of_scores(name):
    ratio = plan_formula(autoseg.build_metric(name, C), kernels=True).ratio
    return [checks._scores(torch.device("cpu"), C, ratio, present, 1e-8, 0) for present in (False, True)]


@pytest.mark.slow
def test_a_first_batch_in_inference_mode_is_no_reason_to_leave_the_kernels(interpreter):
    assert interpreter(first_in_inference_mode) == [True, False]


def first_in_inference_mode():
    checks._start.cache_clear()
    logits, labels = batch(0)
    loss = autoseg.SurrogateLoss("miou", C)
    with torch.inference_mode():
        loss(logits, labels)  # a warning would be an error
    leaf = logits.requires_grad_()
    loss(leaf, labels).backward()
    return [bool(leaf.grad.abs().sum() > 0), checks._start.cache_info().misses > 1]


@pytest.mark.slow  # imports triton
def test_a_gpu_without_memory_is_no_reason_to_leave_the_kernels(monkeypatch, forgetful):
    said = [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("Triton Error [CUDA]: out of memory")]

    def full(*_, **__):
        raise error

    logits, labels = batch(0)
    monkeypatch.setattr(launches, "forward", full)
    logic = FusedLogic(logits, labels, {("and", "p"): reading.IDENTITY, ("or", "p"): reading.IDENTITY})
    for error in said:
        with pytest.raises(type(error), match="out of memory"):
            logic.read(FormulaPlan(autoseg.build_metric("miou", C).sums, kernels=True))


def on_an_imitated_gpu(name):
    with pytest.MonkeyPatch.context() as patch, imitated(patch):
        patch.setattr(checks, "takes", lambda _: True)
        patch.setattr(torch.cuda, "device_of", lambda _: nullcontext())
        loss = autoseg.SurrogateLoss(name, C, tolerance=1).to("cuda:0")
        return compared(loss, *(t.to("cuda:0") for t in batch(0, size=(6, 14))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miou", "macc", "biou"])
def test_what_the_kernels_read_is_where_they_are(interpreter, name):
    """Labels, curves, bands, what the loss is made of, and the first small batch; not beside them on the host."""
    assert_within(interpreter(on_an_imitated_gpu, name))


def test_blocks_are_powers_of_two():
    assert [launches.block_of(c) for c in (1, 21, 32, 33, 64, 150, 1000)] == [128, 128, 128, 64, 64, 32, 32]


# ------------------------------------------------------------------------------------------- on a GPU
# ------------------------------------------------------------------------------------------- on a GPU


def assert_equals_on_a_gpu(name, space, dtype, c=21):
    """Compiling takes seconds a kernel, for each kind of pass, curve, dtype, layout, and sizes 16 divides or not."""
    space = autoseg.build_space(space, metric=name)
    # With this seed no probability is within 1e-6 of itself of a knot, where a slope may jump: rounded to its other
    # side, as exp2 may be on a GPU, its gradient would be another.
    theta = 0.2 + 0.6 * np.random.default_rng(2).random(space.dim)
    loss = searched_loss(space, theta, num_classes=c, tolerance=2).cuda()
    logits, labels = (t.cuda() for t in batch(0, c, (64, 48), dtype))
    for each in (logits, logits.to(memory_format=torch.channels_last)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it must not have fallen back
            assert_within(compared(loss, each, labels), dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("name", "spaces"), [("miou", SPACES), *((name, ["default"]) for name in NAMES[1:])])
def test_on_a_gpu_equals_the_reference(name, spaces, dtype):
    for space in spaces if dtype == torch.float32 else ["default"]:
        assert_equals_on_a_gpu(name, space, dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", ["miou", "macc", "biou", "miou_i"])
def test_on_a_gpu_kernels_for_many_classes_equal_the_reference(name, dtype):
    """They take 150 classes; of 21, which `kernels.rows` takes, they are what the benchmark compares it with."""
    assert_equals_on_a_gpu(name, "default", dtype, c=150)
    loops(assert_equals_on_a_gpu, name, "default", dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_same_batch_gives_the_same_bits():
    loss = autoseg.SurrogateLoss("miou", 21).cuda()
    logits, labels = (t.cuda() for t in batch(0, 21, (65, 47), torch.bfloat16))
    found = []
    for _ in range(2):
        leaf = logits.clone().requires_grad_()
        loss(leaf, labels).backward()
        found.append(leaf.grad)
    assert torch.equal(*found)
    assert_within(compared(loss, logits, labels), torch.bfloat16)  # of a size that no power of two divides
