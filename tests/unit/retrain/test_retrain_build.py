"""Settings become the mmengine config they describe; what cannot go together is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from autoseg.cli.configuration import compose
from autoseg.cli.jobs.retrain import build
from autoseg.cli.retrain import expand
from autoseg.config import ProxyConfig, RetrainConfig
from autoseg.errors import InputError
from autoseg.retrain.build import _set_losses, build_config
from autoseg.retrain.loaders import class_counts

PRESETS = Path(__file__).resolve().parents[3] / "configs" / "model"
METRICS = ["miou", "fwiou", "macc", "gacc", "biou", "bf1"]
SHIPPED = "pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py"


def composed(*words: str) -> RetrainConfig:
    return compose.compose("retrain", RetrainConfig, expand(list(words)))


def built(*words: str, loss: str = "ce", **options: Any) -> Any:
    return build_config(composed(*words), loss, "somewhere", **options)


def network(cfg: Any) -> Any:
    """The model of a config, as mmengine's Runner builds it."""
    import autoseg.mmseg  # noqa: F401
    from autoseg.training.models import model_registry

    registry = model_registry()
    init_default_scope("mmseg")
    return registry.build(cfg.model)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_takes_a_step_with_our_loss(name: str) -> None:
    from mmseg.structures import SegDataSample

    cfg = built(f"model={name}", "train.crop=[48,48]", loss="0.5*ce+0.5*asl2021/miou")

    model = network(cfg)
    labels = torch.randint(0, 7, (2, 1, 48, 48), generator=torch.Generator().manual_seed(0))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    losses = model(torch.randn(2, 3, 48, 48), samples, mode="loss")
    value = sum(losses[key] for key in losses if "loss" in key)
    value.backward()
    assert value.isfinite()
    assert model.decode_head.conv_seg.weight.grad.abs().max() > 0
    first = next(model.backbone.parameters())
    assert first.grad is not None and first.grad.isfinite().all()


@pytest.mark.parametrize(("data", "classes"), [("voc", 21), ("cityscapes", 19)])
def test_the_papers_recipes(data: str, classes: int) -> None:
    for metric in METRICS:
        config = composed(f"experiment={data}_r101_{metric}")
        assert config.loss == f"asl2021/{metric}" + ("(drop_background=false)" if metric == "bf1" else "")
        assert config.drop_background == (data == "voc")
    cfg = build_config(config, config.loss, "w", ranks=4, launcher="pytorch", device="cuda")
    assert cfg.train_dataloader.batch_size == 8 and cfg.train_cfg.max_iters == 10000 and cfg.sync_bn == "torch"
    assert cfg.model.decode_head.num_classes == classes and cfg.model.backbone.depth == 101
    assert cfg.model.decode_head.loss_decode == {
        "type": "AutoSegLoss", "loss": config.loss, "loss_weight": 1.0, "sync_counts": True,
        "defaults": {"tolerance": 5, "drop_background": data == "voc"},
    }  # fmt: skip
    assert cfg.model.auxiliary_head.loss_decode.loss_weight == 0.4
    assert cfg.optim_wrapper.optimizer == {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys["head"].lr_mult == 10
    (poly,) = cfg.param_scheduler
    assert (poly.power, poly.eta_min, poly.end) == (0.9, 1e-4, 10000)
    crop = next(step for leaf in _leaves(cfg) for step in leaf.pipeline if step.type == "RandomCrop")
    assert tuple(crop.crop_size) == (512, 512) and cfg.randomness.seed == 1


def _leaves(cfg: Any) -> list[Any]:
    dataset = cfg.train_dataloader.dataset
    return dataset.get("datasets", [dataset])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["identity/biou", "asl2021/biou"])
def test_surrogates_called_by_name_have_the_tolerance_of_the_metrics(name: str) -> None:
    import autoseg.mmseg  # noqa: F401
    from autoseg.training.models import model_registry

    loss = built("tolerance=2", loss=name).model.decode_head.loss_decode
    assert loss.defaults.tolerance == 2
    assert "defaults" not in built(loss="ce").model.decode_head.loss_decode
    module = model_registry().build(loss)
    module(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    (curves,) = module._built.values()
    assert curves.metric == "biou" and curves.options.tolerance == 2


def test_the_papers_network_is_built_without_data() -> None:
    config = built("experiment=voc_r101_biou")
    model = network(config)
    assert model.decode_head.loss_decode.spec == "ce" and model.num_classes == 21
    assert config.val_evaluator.drop_background


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"cityscapes_r101, voc_r101"):
        composed("experiment=voc_r101_miuo")


def test_own_folders_are_listed_as_a_search_lists_them(tmp_path: Path) -> None:
    from mmseg.registry import DATASETS
    from PIL import Image

    import autoseg.retrain.parts  # noqa: F401  (a config's custom_imports)

    for split, name in (
        ("train", "a.jpg"), ("train", "b.PNG"), ("train", ".thumbs/a.jpg"), ("val", "c.jpg"), ("more", "city/d.jpg"),
    ):  # fmt: skip
        for kind, file, mode in (("img_dir", name, "RGB"), ("ann_dir", str(Path(name).with_suffix(".png")), "L")):
            path = tmp_path / kind / split / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (40, 30)).save(path)
    for kind in ("img_dir", "ann_dir"):
        (tmp_path / kind / "train" / "linked").symlink_to(tmp_path / kind / "more" / "city")
        (tmp_path / kind / "train" / "above").symlink_to(tmp_path)
    words = ["data=folder", f"data.root={tmp_path}", "data.classes=[x,y]", "data.ignore_index=9"]
    cfg = built(*words, "train.batch_size=2")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    listed = [Path(dataset[index]["data_samples"].img_path).relative_to(tmp_path) for index in range(len(dataset))]
    assert [str(path) for path in listed] == [f"img_dir/train/{name}" for name in ("a.jpg", "b.PNG", "linked/d.jpg")]
    assert dataset.metainfo["classes"] == ["x", "y"] and dataset.ignore_index == 255
    assert "test_dataloader" not in cfg
    assert cfg.model.decode_head.ignore_index == 255 == cfg.val_evaluator.ignore_index
    assert cfg.model.data_preprocessor.seg_pad_val == 255
    assert {"type": "AutoSegRescale", "ratio_range": (0.5, 2.0)} in cfg.train_dataloader.dataset.pipeline
    with pytest.raises(InputError, match="split"):
        built(*words, "split=test")
    with pytest.raises(InputError, match="overrides: expected masks read by AutoSegMask, got LoadAnnotations"):
        built(*words, "overrides.train_dataloader.dataset.pipeline=[{type:LoadImageFromFile},{type:LoadAnnotations}]")


def _named(pipeline: list[Any], kind: str) -> Any:
    return next(step for step in pipeline if step.type == kind)


@pytest.mark.parametrize(
    ("name", "trained", "scored"),
    [("loveda", (2048, 512), (1024, 1024)), ("synapse", (224, 224), (224, 224)), ("ade20k", (2048, 512), (2048, 512))],
)
def test_images_of_mmsegmentations_data_are_scored_at_the_size_of_its_validation(
    name: str, trained: tuple[int, int], scored: tuple[int, int]
) -> None:
    words = ["data.kind=mmseg", "data.name=x", f"data.mmseg_config=_base_/datasets/{name}.py"]
    cfg = built(*words)
    assert _named(_leaves(cfg)[0].pipeline, "RandomResize").scale == trained
    assert _named(cfg.val_dataloader.dataset.pipeline, "Resize").scale == scored
    assert _named(cfg.test_pipeline, "Resize").scale == scored
    cfg = built(*words, "train.size=[100,200]")
    assert _named(cfg.val_dataloader.dataset.pipeline, "Resize").scale == (200, 100)


def test_the_configs_own_normalisation_is_kept() -> None:
    cfg = built("model.config=_base_/models/segmenter_vit-b16_mask.py")
    assert cfg.model.data_preprocessor.mean == [127.5] * 3 == cfg.model.data_preprocessor.std
    cfg = built("model.config=_base_/models/segmenter_vit-b16_mask.py", "model.mean=[1,2,3]")
    assert cfg.model.data_preprocessor.mean == [1, 2, 3] and cfg.model.data_preprocessor.std == [127.5] * 3


def test_without_a_size_each_image_is_scaled_from_its_own() -> None:
    from autoseg.retrain.parts import AutoSegRescale

    rescale = AutoSegRescale((2.0, 2.0))
    for height, width in ((6, 8), (20, 10)):
        found = rescale({"img": np.zeros((height, width, 3), np.uint8), "gt_seg_map": np.ones((height, width))})
        assert found["img"].shape[:2] == (2 * height, 2 * width)


def test_a_whole_config_keeps_all_but_loss_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"config={SHIPPED}", "metrics=[biou]", f"data.root={tmp_path}", "overrides.train_cfg.max_iters=7"]
    cfg = built(*words, loss="jml")
    assert cfg.train_dataloader.batch_size == 2 and cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.train_cfg.max_iters == 7 and cfg.train_cfg.type == "IterBasedTrainLoop"
    assert cfg.model.decode_head.loss_decode.loss == "jml"
    assert cfg.model.auxiliary_head.loss_decode.loss_weight == 0.4
    assert cfg.model.backbone.norm_cfg.type == "BN" and "pretrained" not in cfg.model
    assert cfg.val_evaluator.metrics == ["biou"] and cfg.train_dataloader.dataset.data_root == str(tmp_path)
    assert "resnet50_v1c" in capsys.readouterr().out
    with pytest.raises(InputError, match="split: expected val or auto, got test, which this config does not have"):
        built(*words, "split=test")
    with pytest.raises(InputError, match="without train_dataloader"):
        built("config=_base_/models/pspnet_r50-d8.py")


@pytest.mark.parametrize("swapped", [False, True])
def test_an_auxiliary_head_keeps_the_weight_of_all_its_losses(swapped: bool) -> None:
    own = [{"type": "CrossEntropyLoss", "loss_weight": 0.3}, {"type": "DiceLoss", "loss_weight": 0.1}]
    own = own[::-1] if swapped else own
    model = {"decode_head": {"type": "ASPPHead"}, "auxiliary_head": {"type": "FCNHead", "loss_decode": own}}
    _set_losses(model, {"type": "AutoSegLoss", "loss": "jml"}, None)
    assert model["auxiliary_head"]["loss_decode"]["loss_weight"] == pytest.approx(0.4)


@pytest.mark.parametrize("head", [{"num_classes": 2, "out_channels": 1}, {"num_classes": 1}])
def test_a_head_of_one_channel_is_refused_before_a_folder_is_made(head: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"config, its ASPPHead: expected out_channels=2, without a threshold"):
        _set_losses({"decode_head": {"type": "ASPPHead", **head}}, {"type": "AutoSegLoss"}, None)


def test_heads_with_losses_of_their_own_keep_those_and_the_rest_is_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["metrics=[miou]", f"data.root={tmp_path}"]
    stdc = built("config=stdc/stdc1_4xb12-80k_cityscapes-512x1024.py", *words, loss="jml").model
    *semantic, edges = stdc.auxiliary_head
    assert [head.loss_decode.loss for head in (stdc.decode_head, *semantic)] == ["jml"] * 3
    assert [one.type for one in edges.loss_decode] == ["CrossEntropyLoss", "DiceLoss"] and edges.num_classes == 2
    assert "sampler" not in stdc.decode_head and "pixel sampler of a FCNHead is left out" in caplog.text
    pid = built("config=pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py", *words, loss="jml").model
    kept = [(one.type, one.loss_weight) for one in pid.decode_head.loss_decode]
    assert kept == [("AutoSegLoss", 0.4), ("AutoSegLoss", 1.0), ("BoundaryLoss", 20.0), ("AutoSegLoss", 1.0)]
    ddr = built("config=ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py", *words, loss="jml").model
    assert [(one.loss, one.loss_weight) for one in ddr.decode_head.loss_decode] == [("jml", 1.0), ("jml", 0.4)]
    ocr = built("config=ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py", *words, loss="jml").model
    assert [head.loss_decode.loss_weight for head in ocr.decode_head] == [0.4, 1.0]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("config=knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py", "IterativeDecodeHead"),
        ("config=point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py", "PointHead"),
        ("config=san/san-vit-b16_coco-stuff164k-640x640.py", "SideAdapterCLIPHead"),
        ("config=vpd/vpd_sd_4xb8-25k_nyu-480x480.py", "VPDDepthHead"),
        ("model.config=pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py", "PIDHead, from edges too"),
    ],
)
def test_a_network_that_our_losses_cannot_train_is_refused(words: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"got {kind}"):
        built(words, *([f"data.root={tmp_path}"] if words.startswith("config") else []))


def test_mixed_precision_of_a_config_is_full_precision_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapper = "dict(type='AmpOptimWrapper', loss_scale=512.0, dtype='float16')"
    (tmp_path / "amp.py").write_text(f"_base_ = 'mmseg::{SHIPPED}'\noptim_wrapper = {wrapper}\n")
    words = [f"config={tmp_path}/amp.py", f"data.root={tmp_path}", "metrics=[miou]"]
    wrapper = built(*words).optim_wrapper
    assert wrapper.type == "OptimWrapper" and "loss_scale" not in wrapper and "dtype" not in wrapper
    assert wrapper.optimizer.lr == 0.01 and "AmpOptimWrapper needs a GPU" in capsys.readouterr().out
    assert built(*words, device="cuda").optim_wrapper.type == "AmpOptimWrapper"


def test_a_network_that_needs_compiled_operations_is_not_our_fault(tmp_path: Path) -> None:
    from autoseg.retrain.runner import run

    cfg = built("config=ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py", f"data.root={tmp_path}")
    cfg.work_dir = str(tmp_path / "run")
    with pytest.raises(InputError, match=r"config: expected a network .* got Please install .*compiled operations"):
        run(cfg)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("custom_imports = dict(imports='absent.thing', allow_failed_imports=False)", r"absent\.thing.* Install it"),
        ("a = 1\ndef f(:\n", "line 2: SyntaxError"),
        ("_base_ = ['none.py']", "none.py"),
        ("a = 1 / 0", "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("key", ["config", "model.config"])
def test_a_config_that_cannot_be_read_is_the_users(tmp_path: Path, key: str, text: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        built(f"{key}={tmp_path}/mine.py")
    assert caught.value.field == key


def test_the_best_checkpoint_is_kept_by_a_score_as_we_name_it() -> None:
    best = "overrides.default_hooks.checkpoint.save_best"
    for typed, kept in (("mIoU", "miou"), ("auto", "auto"), ("[BIoU,miou]", ["biou", "miou"])):
        cfg = built("metrics=[miou,biou]", f"{best}={typed}")
        assert cfg.default_hooks.checkpoint.save_best == kept
    with pytest.raises(InputError, match=r"save_best: expected one of auto, miou, got 'aacc'"):
        built("metrics=[miou]", f"{best}=aAcc")


def test_ranks_share_a_batch_evenly() -> None:
    hooks = [[hook.type for hook in built(ranks=count).custom_hooks] for count in (1, 2)]
    assert hooks[1] == [*hooks[0], "AutoSegStatisticsHook"]
    assert built("train.batch_size=6", ranks=2).train_dataloader.batch_size == 3
    assert built("sync_counts=off", ranks=2).model.decode_head.loss_decode.sync_counts is False
    assert built().model.decode_head.loss_decode.sync_counts is False
    with pytest.raises(InputError, match=r"train\.batch_size"):
        built("train.batch_size=5", ranks=2)


def test_precision_average_and_trackers() -> None:
    with pytest.raises(InputError, match=r"train\.amp"):
        built("train.amp=fp16")
    cfg = built("train.amp=fp16", "train.ema=0.01", "tracker=wandb", "tracker.wandb=offline", device="cuda")
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ("AmpOptimWrapper", "float16")
    assert [hook.type for hook in cfg.custom_hooks] == ["EMAHook", "AutoSegProgressHook"]
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds == ["LocalVisBackend", "TensorboardVisBackend", "WandbVisBackend"]
    rise, poly = built("train=transformer").param_scheduler
    assert (rise.end, poly.begin) == (1500, 1500)


def test_adamw_decays_neither_norms_nor_positions() -> None:
    """As in mmsegmentation's recipes for SegFormer."""
    keys = built("train=transformer").optim_wrapper.paramwise_cfg.custom_keys
    assert keys == {"pos_block": {"decay_mult": 0}, "norm": {"decay_mult": 0}, "head": {"lr_mult": 10}}
    assert built().optim_wrapper.paramwise_cfg.custom_keys == {"head": {"lr_mult": 10}}
    rates, proxy = built("train=adamw").optim_wrapper, ProxyConfig()
    assert (rates.optimizer.type, rates.optimizer.lr, rates.optimizer.weight_decay) == (
        "AdamW", proxy.lr, proxy.weight_decay
    )  # fmt: skip
    assert rates.paramwise_cfg.custom_keys["head"].lr_mult == proxy.head_lr_mult


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_config_whose_data_lie_elsewhere_is_the_users_to_mend(tmp_path: Path, split: str) -> None:
    """mmsegmentation asserts that VOC's lists are there, which was told as a fault of ours."""
    from autoseg.retrain.runner import QuietRunner
    from autoseg.training.models import model_registry

    cfg = built("config=pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py", f"data.root={tmp_path}")
    model_registry()
    init_default_scope("mmseg")
    with pytest.raises(InputError) as caught:
        QuietRunner.build_dataloader(SimpleNamespace(cfg=cfg), cfg[f"{split}_dataloader"])  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in ("data.root", f"{split}.txt"))


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "counted"), [("0.5*wce+0.5*dice", True), ("dice", False)])
def test_classes_are_counted_for_a_loss_that_weights_them(tmp_path: Path, loss: str, counted: bool) -> None:
    config = composed(f"loss={loss}", "model=tiny", "data.count=[3,1,0]", f"run_dir={tmp_path}/run")
    job = build(config, "none", "cpu")
    assert job.lock is not None
    job.lock.release()
    given = job.cfg.model.decode_head.loss_decode.get("class_counts")
    assert given == (asdict(class_counts(config.data)) if counted else None)


def test_a_batch_of_one_where_batch_norm_needs_more_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told as a fault of ours; networks that pool no image to one pixel take it."""
    from autoseg.retrain.runner import QuietRunner, run

    pooled = SimpleNamespace(
        register_hook=lambda *_: None, train=lambda: torch.nn.BatchNorm2d(8)(torch.zeros(1, 8, 1, 1))
    )
    monkeypatch.setattr(QuietRunner, "from_cfg", lambda _: pooled)
    with pytest.raises(InputError, match=r"train\.batch_size: expected batches of 2 images or more .* got one of 1\."):
        run(built("model=tiny", "train.batch_size=1"))
    pooled.train = lambda: float("another")
    with pytest.raises(ValueError, match="could not convert"):
        run(built("model=tiny", "train.batch_size=1"))
