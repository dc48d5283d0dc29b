from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from autoseg.errors import InputError
from autoseg.losses import LossSum, build_loss
from autoseg.losses.expression import Term, parse

LOGITS = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (1, 4, 4), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", [Term(1, "ce")]),
        (" 0.25*ce + .75 * jml ", [Term(0.25, "ce"), Term(0.75, "jml")]),
        ("2*(ce+0.5*(dice+jml*3))", [Term(2, "ce"), Term(1, "dice"), Term(3, "jml")]),
        ("1e-1*ce", [Term(0.1, "ce")]),
        ("tversky(alpha=0.3, beta=.7)", [Term(1, "tversky", {"alpha": 0.3, "beta": 0.7})]),
        ("lmp(p=inf)", [Term(1, "lmp", {"p": math.inf})]),
        ("focal(mode=sigmoid,alpha=none)", [Term(1, "focal", {"mode": "sigmoid", "alpha": None})]),
        ("jml(reduction={D:1,'I':-1},log=True)", [Term(1, "jml", {"reduction": {"D": 1, "I": -1}, "log": True})]),
        ("wce(class_weight=[1,(2)])", [Term(1, "wce", {"class_weight": [1, 2]})]),
        ("ce()", [Term(1, "ce")]),
        ("identity/biou(space=paper-biou)", [Term(1, "identity/biou", {"space": "paper-biou"})]),
        ("a(space=my/s.yaml,b=[x-y,-1e-3])", [Term(1, "a", {"space": "my/s.yaml", "b": ["x-y", -1e-3]})]),
        ('0.5*ce+0.5*"a (b)/c\'s.json"', [Term(0.5, "ce"), Term(0.5, "a (b)/c's.json")]),
        (
            "0.5*asl2021/miou-log+runs/miou-camvid-2/loss.json*.5",
            [Term(0.5, "asl2021/miou-log"), Term(0.5, "runs/miou-camvid-2/loss.json")],
        ),
    ],
)
def test_reads(text: str, terms: list[Term]) -> None:
    assert parse(text) == terms


@pytest.mark.parametrize(
    "text",
    ["", "ce+", "ce dice", "0.5", "(ce", "ce)", "ce*dice", "-1*ce", "ce-dice", "ce(alpha)", "ce(alpha=1", "ce(**{})",
     "ce(alpha=__import__('os'))", "ce(a=1)(b=2)", "1e999*ce", "tversky(alpha=0.3,alpha=0.4)", "lmp(p=2-1)",
     "(" * 3000 + "ce" + ")" * 3000, "ce(a=" + "[" * 3000 + "]" * 3000 + ")", "ce(a=" + "-" * 9000 + "1)",
     "ce" + "+ce" * 3333],
)  # fmt: skip
def test_refuses_with_one_message(text: str) -> None:
    with pytest.raises(InputError):
        build_loss(text, num_classes=3)


@pytest.mark.parametrize("spec", [None, ["ce"], {"ce": 1}, torch.nn.CrossEntropyLoss()])
def test_a_loss_is_text_or_a_path(spec: object) -> None:
    with pytest.raises(InputError, match=f"loss: expected text.* got {type(spec).__name__}"):
        build_loss(spec, num_classes=3)


def test_a_sum_is_the_sum() -> None:
    parts = {name: build_loss(name, num_classes=3)(LOGITS, LABELS) for name in ("ce", "jml", "lovasz")}
    value = build_loss("0.25*ce+0.75*(jml+2*lovasz)", num_classes=3)(LOGITS, LABELS)
    torch.testing.assert_close(value, 0.25 * parts["ce"] + 0.75 * parts["jml"] + 1.5 * parts["lovasz"])


def test_a_sum_hands_extra_inputs_and_progress_to_its_losses() -> None:
    loss = build_loss("boundary+boundary(stop=0.5)+unet_ce+ce", num_classes=3)
    assert isinstance(loss, LossSum)
    extra = loss.prepare(LABELS)
    assert set(extra) == {"0.signed_distance", "1.signed_distance", "2.unet_weight"}
    start = loss(LOGITS, LABELS, extra)
    loss.set_progress(1.0)
    assert [loss.losses[k].share.item() for k in (0, 1)] == [1.0, 0.5]
    assert loss(LOGITS, LABELS, extra).item() != pytest.approx(start.item())


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match="Did you mean lovasz"):
        build_loss("0.5*ce+lovas", num_classes=3)
    with pytest.raises(InputError, match="Did you mean ce"):
        build_loss("CE", num_classes=3)
    with pytest.raises(InputError, match=r"option of tversky.*Did you mean alpha"):
        build_loss("tversky(alhpa=1)", num_classes=3)
    with pytest.raises(InputError, match=r"option of ce: .* got 'class_weight'\. wce\(class_weight=\[…\]\) is"):
        build_loss("ce(class_weight=[1,2,3])", num_classes=3)


def test_options_by_keyword() -> None:
    bracket = build_loss("tversky(alpha=1,beta=1)", num_classes=3)
    keyword = build_loss("tversky", num_classes=3, alpha=1, beta=1)
    torch.testing.assert_close(bracket(LOGITS, LABELS), keyword(LOGITS, LABELS))
    with pytest.raises(InputError, match=r"none beside a sum.*ce\(alpha=...\)"):
        build_loss("ce+tversky", num_classes=3, alpha=1)


def test_published_surrogates_and_cards(tmp_path: Path) -> None:
    from autoseg.losses import save_loss

    published = build_loss("asl2021/miou", num_classes=3)
    path = tmp_path / "a card+1.json"  # a file's own name may hold what sums use
    save_loss(published, path)
    expected = published(LOGITS, LABELS)
    torch.testing.assert_close(build_loss(str(path), num_classes=3)(LOGITS, LABELS), expected)
    ce = build_loss("ce", num_classes=3)(LOGITS, LABELS)
    mixed = build_loss("0.5*ce+0.5*asl2021/miou", num_classes=3)
    torch.testing.assert_close(mixed(LOGITS, LABELS), 0.5 * (ce + expected))
