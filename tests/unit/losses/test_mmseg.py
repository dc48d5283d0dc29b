from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmseg.registry import EVALUATOR, HOOKS, METRICS, MODELS

import autoseg.mmseg  # noqa: F401  (registers)
from autoseg.errors import Diverged, InputError
from autoseg.losses import build_loss, loss_names
from autoseg.metrics import build_metric

LOGITS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
LABELS[0, :2] = 255


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_has_its_own_type(name: str) -> None:
    kind = "AutoSeg" + name.title().replace("_", "")
    quick = {"steps": 3} if name == "shape_prior" else {}  # it learns shapes first, by default for 2 s
    loss = MODELS.build(dict(type=kind, loss_weight=0.5, **quick))
    assert loss.loss_name == f"loss_{name}"
    expected = 0.5 * build_loss("shape_prior(steps=3)" if quick else name, num_classes=3)(LOGITS, LABELS)
    torch.testing.assert_close(loss(LOGITS, LABELS, weight=None, ignore_index=255), expected)


def test_options_names_and_sums() -> None:
    for wrong, said in (
        (dict(type="AutoSegTversky", alpha=1, beta=1, gama=1), "option of tversky"),
        (dict(type="AutoSegLoss", loss="0.5*ce+0.5*dcie"), "Did you mean dpce or dice"),
        (dict(type="AutoSegLoss", loss="asl2021/biou", tolerence=2), "Did you mean tolerance"),
    ):
        with pytest.raises(InputError, match=said):
            MODELS.build(wrong)
    MODELS.build(dict(type="AutoSegLoss", loss="cards/later.json"))  # is read at the first batch
    assert "tversky, alpha=0.5" in repr(MODELS.build(dict(type="AutoSegTversky", alpha=0.5)))
    assert pickle.loads(pickle.dumps(MODELS.get("AutoSegTversky"))) is MODELS.get("AutoSegTversky")
    with pytest.raises(InputError, match="loss_name"):
        MODELS.build(dict(type="AutoSegLoss", loss="ce", loss_name="ce"))
    mixed = MODELS.build(dict(type="AutoSegLoss", loss="0.25*ce+0.75*asl2021/miou"))
    expected = build_loss("0.25*ce+0.75*asl2021/miou", num_classes=3)(LOGITS, LABELS)
    torch.testing.assert_close(mixed(LOGITS, LABELS), expected)
    with pytest.raises(InputError, match="sampler"):
        mixed(LOGITS, LABELS, weight=torch.ones(2, 8, 8))
    with pytest.raises(InputError, match="out_channels=2"):
        mixed(LOGITS[:, :1], LABELS)


def test_a_decode_head_trains_on_it_and_keeps_it_out_of_the_checkpoint() -> None:
    head = MODELS.build(
        dict(
            type="FCNHead", in_channels=4, channels=4, num_convs=1, num_classes=3, in_index=0,
            loss_decode=[
                dict(type="AutoSegLoss", loss="asl2021/miou"),
                dict(type="CrossEntropyLoss", loss_name="loss_ce"),
            ],
        )
    )  # fmt: skip
    samples = [SimpleNamespace(gt_sem_seg=SimpleNamespace(data=label[None])) for label in LABELS]
    scores = head.forward([torch.randn(2, 4, 8, 8)])
    losses = head.loss_by_feat(scores, samples)
    losses["loss_autoseg"].backward()
    assert losses["loss_autoseg"].isfinite() and head.conv_seg.weight.grad.abs().max() > 0
    assert not [key for key in head.state_dict() if "loss" in key]


def test_progress_reaches_the_loss_before_and_after_it_is_built() -> None:
    model = torch.nn.Sequential(MODELS.build(dict(type="AutoSegBoundary", start=0.0, stop=1.0)))
    hook = HOOKS.build(dict(type="AutoSegProgressHook"))
    for step in (5, 10):
        hook.before_train_iter(SimpleNamespace(model=model, iter=step, max_iters=11), 0)
        model[0](LOGITS, LABELS)
        assert model[0]._built[3, 255].share.item() == pytest.approx(step / 10)


def test_evaluator_equals_the_metric() -> None:
    pred = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(2))
    names = ["miou", "gacc", "bf1", "miou+0.5*biou"]
    evaluator = Evaluator(METRICS.build(dict(type="AutoSegMetric", metrics=names, tolerance=1)))
    evaluator.dataset_meta = {"classes": ("a", "b", "c")}
    for p, y in zip(pred, LABELS, strict=True):
        evaluator.process([dict(pred_sem_seg=dict(data=p[None]), gt_sem_seg=dict(data=y[None]))])
    scores = evaluator.evaluate(2)
    for name in names:
        metric = build_metric(name, 3, tolerance=1)
        metric.update(pred, LABELS)
        assert scores[name] == pytest.approx(metric.compute().item())


def test_a_network_without_finite_outputs_has_diverged() -> None:
    metric = METRICS.build(dict(type="AutoSegMetric", metrics=["ece"]))
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    sample = {name: dict(data=LABELS[:1]) for name in ("pred_sem_seg", "gt_sem_seg")}
    with pytest.raises(Diverged, match="not finite"):
        metric.process(None, [{**sample, "seg_logits": dict(data=LOGITS[0] * float("nan"))}])


def test_a_wrong_metric_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="miou"):
        METRICS.build(dict(type="AutoSegMetric", metrics=["mious"]))


def test_the_runner_takes_it_for_an_evaluator() -> None:
    evaluator = EVALUATOR.build(dict(type="AutoSegMetric", metrics=["miou", "biou"], tolerance=1))
    (metric,) = evaluator.metrics
    assert (metric.metrics, metric.tolerance) == (("miou", "biou"), 1)


def test_counts_are_synchronised_where_asked() -> None:
    for wanted in (True, False):
        loss = MODELS.build(dict(type="AutoSegLoss", loss="0.5*jml+0.5*asl2021/miou", sync_counts=wanted))
        loss(LOGITS, LABELS)
        assert [part.sync_counts for part in loss._built[3, 255].losses] == [wanted, wanted]


def test_a_mask_of_another_shape_is_refused() -> None:
    metric = METRICS.build(dict(type="AutoSegMetric", metrics=["miou"]))
    metric.dataset_meta = dict(classes=("a", "b"))
    sample = dict(pred_sem_seg=dict(data=torch.zeros(1, 8, 12)), gt_sem_seg=dict(data=torch.zeros(1, 12, 8)))
    with pytest.raises(InputError, match=r"got \(1, 8, 12\) and \(1, 12, 8\)"):
        metric.process({}, [sample])
