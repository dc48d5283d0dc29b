"""What users hand to a loss by mistake is answered in one message, wherever it would have failed or, worse, passed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import autoseg
from autoseg.errors import InputError
from autoseg.losses.registry import LOSSES

C = 3
LOGITS = torch.randn(2, C, 6, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, C, (2, 6, 7), generator=torch.Generator().manual_seed(0))
BOUNDARY = autoseg.build_loss("boundary", num_classes=C)
MAPS: dict[str, Tensor] = BOUNDARY.prepare(LABELS)


def built(text: Any, **options: Any) -> Any:
    return autoseg.build_loss(text, num_classes=C, **options)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: BOUNDARY(LOGITS, LABELS, {"signed_distance": MAPS["signed_distance"][:, :1]}), r"got \(2, 1, 6, 7\)"),
        (lambda: built("wce").prepare(LABELS[0]), r"labels of prepare\(\): .* \(6, 7\)"),
        (lambda: built("shape_prior").prepare(LABELS[0]), r"labels of prepare\(\): .* \(6, 7\)"),
        (lambda: built("identity/miou", eps=-1), "eps: expected a number above 0, got -1"),
        (lambda: built("identity/macc", eps=0), "eps: expected a number above 0, got 0"),
        (lambda: autoseg.load_loss("ce", num_classes=3), r"Did you mean autoseg.build_loss\('ce', num_classes=3\)\?"),
        (lambda: built("ce")(LOGITS, LABELS.to(torch.uint16)), r"labels: .* got torch.uint16. Pass .long\(\)."),
        (
            lambda: built("identity/bf1")(LOGITS, LABELS.to(torch.uint16)),
            r"labels: .* got torch.uint16. Pass .long\(\).",
        ),
        (
            lambda: autoseg.build_metric("miou", num_classes=C).update(LABELS.to(torch.uint16), LABELS),
            r"got torch.uint16. Pass .long\(\).",
        ),
        (lambda: built("identity/miou", loss_weight="a"), "loss_weight: expected a number, got 'a'"),
        (lambda: built("identity/miou", validate=0), "validate: expected auto, True or False, got 0"),
        (lambda: built("ce", validate=0), "validate: expected auto, True or False, got 0"),
        (
            lambda: BOUNDARY.prepare(LABELS[0]),
            r"labels of prepare\(\): .* \(6, 7\)\. Of one mask: prepare\(mask\[None\]\)",
        ),
        (lambda: built("unet_ce").prepare(LABELS.numpy()), "got ndarray"),
        (lambda: BOUNDARY.prepare(LABELS + 1), r"ids in \[0, 3\) or the ignore_index 255, got 3"),
        (
            lambda: BOUNDARY(LOGITS, LABELS, {"signed_distance": MAPS["signed_distance"][:1]}),
            r"\(2, 3, 6, 7\).* got \(1, 3, 6, 7\)",
        ),
        (
            lambda: BOUNDARY(LOGITS, LABELS, MAPS["signed_distance"]),
            "extra of boundary: expected signed_distance, got Tensor",
        ),
        (
            lambda: built("wce")(LOGITS, LABELS, {"class_weight": torch.ones(2)}),
            r"class_weight of shape \(3,\), got \(2,\)",
        ),
        (lambda: built("lovasz")(LOGITS, LABELS.float()), "labels: expected integer of shape"),
        (
            lambda: built("ce")({"out": LOGITS}, LABELS),
            "logits: expected a tensor, got dict. Pass one of its values: 'out'",
        ),
        (lambda: built("asl2021/miou")({"out": LOGITS}, LABELS), "logits: expected a tensor, got dict"),
        (
            lambda: built("asl2021/miou")([LOGITS, LOGITS], LABELS),
            r"logits: expected a tensor, got list\. .* add them up: sum\(w \* loss\(z, labels\)",
        ),
        (
            lambda: built("asl2021/miou")(LOGITS.flatten(2), LABELS.flatten(1)),
            r"expected float of shape \(N, 3, H, W\) or, of volumes, \(N, 3, D, H, W\), got",
        ),
        (
            lambda: built("ce")(LOGITS[:, :, None], LABELS),
            r"labels: expected integer of shape \(2, 1, 6, 7\) .* got .*\(2, 6, 7\)",
        ),
        (
            lambda: built("ce")(LOGITS[..., ::2, ::2], LABELS),
            r".* got .*\. Upsample the logits: F\.interpolate\(logits, labels\.shape\[-2:\], mode='bilinear'\)\.",
        ),
        (lambda: built("asl2021/miou")(LOGITS[..., ::2, ::2], LOGITS.softmax(1)), r"labels: .* Upsample the logits"),
        (lambda: built("ce")(LOGITS[:1], LABELS), r"labels: .* got torch\.int64 of shape \(2, 6, 7\)\.$"),
        (lambda: BOUNDARY.prepare(LABELS[:, None]), r"labels of prepare\(\): .* labels\.flatten\(0, 1\)"),
        (
            lambda: autoseg.build_metric("miou", C).update(LABELS.numpy(), LABELS),
            "pred: expected a tensor, got ndarray",
        ),
        (lambda: built("ce", ignore_index=None), "ignore_index: expected a whole number, got None"),
        (
            lambda: autoseg.build_metric("miou", C, ignore_index="255"),
            "ignore_index: expected a whole number, got '255'",
        ),
        (lambda: autoseg.build_metric("miou", "5"), "num_classes: expected a whole number, got '5'"),
        (lambda: built(None), "loss: expected text, such as .* got NoneType"),
        (lambda: built("tversky(alpha=0.3,alpha=0.4)"), "options of tversky"),
        (
            lambda: built("jml(reduction=[I,C])"),
            r"reduction: expected D, I, C or a mapping to numbers, got \['I', 'C'\]",
        ),
        (lambda: built("0.5*ce+0.5*boundary")(LOGITS, LABELS, MAPS["signed_distance"]), "extra of a sum .* got Tensor"),
        (
            lambda: BOUNDARY(LOGITS, LABELS, {"signed_distance": [1.0]}),
            "'signed_distance' of boundary: expected a tensor",
        ),
        (lambda: built("asl2021/miou(ignore_index=0)"), "option of asl2021/miou: .* got 'ignore_index'"),
        (
            lambda: built("asl2021/miou(tolerance=-1)"),
            "tolerance: expected a whole number of pixels, 0 or more, got -1",
        ),
        (
            lambda: built("ce")(LOGITS, LABELS.where(LABELS > 0, -100)),
            "also -100. Check num_classes and how the masks were made, or pass ignore_index=-100.$",
        ),
        (lambda: autoseg.build_metric("mIoU", C), r"got 'mIoU'\. Did you mean miou\?$"),
        (lambda: autoseg.search("mIoU", lambda loss, seed, device: 0.5), r"got 'mIoU'\. Did you mean miou\?$"),
        (lambda: autoseg.build_metric(3, C), "metric: expected a name or a sum such as .* got 3"),
    ],
)
def test_mistakes(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jml(class_weight=inverse)", "class_weight: expected a list of numbers or None, got 'inverse'"),
        ("wce(class_weight=3)", "class_weight: expected inverse, median or a list of numbers, got 3"),
        ("wce(class_weight=[1,2,true])", r"class_weight: expected .*, got \[1, 2, True\]"),
        ("focal(alpha=x)", "alpha: expected a number, a list of numbers or None, got 'x'"),
        ("lovasz(per_image=yes)", "per_image: expected True or False, got 'yes'"),
        ("jml(log=1)", "log: expected True or False, got 1"),
        ("jml(reduction={X:1})", "reduction: expected D, I, C or a mapping to numbers"),
        ("wmse(background=true)", "background: expected a whole number, got True"),
        ("boundary_smooth_ce(width=3.5)", "width: expected a whole number, got 3.5"),
        ("ssim(window=1e3)", "window: expected a whole number, got 1000.0"),
        ("identity/biou(drop_background=yes)", "drop_background: expected True or False, got 'yes'"),
        ("asl2021/miou(absent=some)", "absent: expected include, skip or None, got 'some'"),
        ("identity/miou(space=3)", "space: expected a name or the path of a .yaml file, got 3"),
    ],
)
def test_options_are_of_the_kinds_that_constructors_name(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        built(text)
    with pytest.raises(InputError, match=said):  # before there is data, and so a number of classes
        autoseg.losses.check_text(text)


def test_kinds_are_those_of_an_own_loss_too_where_they_are_known() -> None:
    class Own(autoseg.SegLoss):
        name, summary = "own", "with options"

        def __init__(
            self,
            num_classes: int,
            *,
            file: Path,
            sizes: tuple[int, int],
            scale: float = 1.0,
            free: Any = 0,
            **shared: Any,
        ) -> None:
            super().__init__(num_classes, **shared)

        def compute(self, batch: Any) -> Tensor:
            return batch.logits.sum()

    given: dict[str, Any] = {"file": "a.npz", "sizes": [3, 5], "scale": numpy.float32(2), "free": "anything"}
    assert copy.deepcopy(Own(C, **given))(LOGITS, LABELS).isfinite()
    for wrong in ({"scale": "2"}, {"sizes": 3}, {"validate": "no"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Own(C, **{**given, **wrong})


def test_numbers_may_be_numpys_and_lists_tensors() -> None:
    plain = built("jml", alpha=0.25, class_weight=[1.0, 2.0, 3.0])(LOGITS, LABELS)
    for weights in (torch.tensor([1.0, 2.0, 3.0]), numpy.array([1, 2, 3]), (1, 2, 3)):
        assert built("jml", alpha=numpy.float32(0.25), class_weight=weights)(LOGITS, LABELS) == plain
    whole = built("focal", alpha=numpy.int64(2), gamma=numpy.int32(1))
    assert whole(LOGITS, LABELS) == built("focal", alpha=2, gamma=1)(LOGITS, LABELS)


@pytest.mark.parametrize("shape", [(2, C, 0, 7), (2, C, 6, 0), (0, C, 6, 7)])
@pytest.mark.parametrize("name", [*LOSSES, "identity/miou", "asl2021/bf1", "identity/boundary_iou"])
def test_no_pixel_is_nothing_to_count(name: str, shape: tuple[int, ...]) -> None:
    logits = torch.zeros(shape, requires_grad=True)
    value = built(name)(logits, torch.zeros(shape[0], *shape[2:], dtype=torch.long))
    value.backward()
    assert value == 0 and logits.grad is not None


def test_names_with_a_hyphen_are_options_without_quotes() -> None:
    plain, in_quotes = (built(f"identity/biou(space={name})") for name in ("paper-biou", '"paper-biou"'))
    assert plain.space.name == in_quotes.space.name == "paper-biou"


def test_a_path_is_a_loss(tmp_path: Path) -> None:
    autoseg.save_loss(built("identity/miou"), tmp_path / "loss.json")
    (tmp_path / "loss.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "loss.json").read_bytes())  # an editor's mark
    assert torch.equal(built(tmp_path / "loss.json")(LOGITS, LABELS), built("identity/miou")(LOGITS, LABELS))


@pytest.mark.parametrize("name", ["ce", "lmp", "0.5*ce+0.5*lmp"])
def test_nan_is_the_loss_of_nan(name: str) -> None:
    """So that the training, which knows which candidate it is of, says that it diverged."""
    assert built(name)(LOGITS * torch.nan, LABELS).isnan()


def test_a_void_pixel_may_have_any_logits() -> None:
    logits, labels = LOGITS.clone(), LABELS.clone()
    logits[0, 0, 0, 0], labels[0, 0, 0] = -torch.inf, 255
    for name in ("ce", "wce(class_weight=[1,2,3])", "ohem"):
        assert built(name)(logits, labels).isfinite(), name


@pytest.mark.parametrize("name", LOSSES)
def test_one_class_under_a_softmax_is_refused_and_two_are_made_of_it(name: str) -> None:
    """It is always 1: a loss of 0 without a gradient, or labels that fit no class."""
    made = r"torch\.cat\(\[torch\.zeros_like\(z\), z\], 1\)"
    said = rf"num_classes of {name}: expected two classes or more, got 1\. .*{made}"
    options = {"class_weight": [1.0]} if name == "wce" else {}
    with pytest.raises(InputError, match=said):
        autoseg.build_loss(name, num_classes=1, **options)
    z, labels = LOGITS[:, :1], LABELS.clamp(max=1)
    with pytest.raises(InputError, match=said):
        LOSSES[name](1, **options)(z, labels)
    with pytest.raises(InputError, match=r"logits: .* got .*\(2, 1, 6, 7\)\. .*" + made):
        autoseg.build_loss(name, num_classes=2)(z, labels)
    assert torch.allclose(torch.cat([torch.zeros_like(z), z], 1).softmax(1)[:, 1:], z.sigmoid())


def test_one_class_under_a_sigmoid_is_none_of_these() -> None:
    for text in ("focal(mode=sigmoid)", "ssim(mode=sigmoid)"):
        assert autoseg.build_loss(text, num_classes=1)(LOGITS[:, :1], LABELS.clamp(max=1)) > 0


def test_own_losses_take_what_all_do_and_return_a_scalar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.losses.registry.LOSSES", LOSSES.copy())

    class Mapped(autoseg.SegLoss):
        name, summary = "mapped", "of every pixel"

        def compute(self, batch: Any) -> Tensor:
            return batch.cross_entropy()

    class Alone(Mapped):
        name = "alone"

        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)

    with pytest.raises(InputError, match=r"compute\(\) of mapped: expected a scalar tensor .* shape \(2, 6, 7\)"):
        Mapped(C)(LOGITS, LABELS)
    with pytest.raises(InputError, match=r"loss alone: expected an __init__ that takes \*\*shared"):
        autoseg.register_loss(Alone)


def test_a_formula_that_fails_is_its_users() -> None:
    class Typo(autoseg.Metric):
        name, summary = "typo", "has a fault"

        def sums(self, p: Any, y: Any, logic: Any) -> Any:
            return {"and": logic.totl(p)}

    with pytest.raises(InputError, match=r"Typo\.sums: .* logic has no totl\. .* \(.*test_refusals\.py, line \d+\)"):
        autoseg.metrics.trace.curves_of(Typo.sums.__get__(object()))
