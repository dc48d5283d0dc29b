from __future__ import annotations

import logging
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import interpolate as resize

from autoseg.config import ModelConfig, ProxyConfig
from autoseg.errors import InputError
from autoseg.training import build_model, models
from autoseg.training.models import model_registry
from autoseg.training.network_config import network_config, normalization
from autoseg.training.schedule import build_optimizer
from autoseg.training.weights import load_network

PRESETS = Path(__file__).resolve().parents[3] / "configs" / "model"


def preset(name: str, **changes: object) -> ModelConfig:
    return ModelConfig(**{**yaml.safe_load((PRESETS / f"{name}.yaml").read_text()), **changes})


LARGE = ("r101", "pspnet", "upernet", "deeplabv3plus_r50")  # seconds each
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if any(word in n for word in LARGE) else []) for n in NAMES]
)
def test_every_preset_gives_logits_at_image_size(name: str) -> None:
    config = preset(name)
    assert config.name == name
    model = build_model(config, num_classes=5, seed=0)
    heads = 1 if config.overrides.get("auxiliary_head", "kept") is None or "segformer" in name else 2
    images = torch.randn(2, 3, 64, 96)
    assert [tuple(out.shape) for out in model(images)] == [(2, 5, 64, 96)] * heads
    model.eval()
    with torch.inference_mode():
        (main,) = model(images)
    assert main.shape == (2, 5, 64, 96) and main.dtype == torch.float32 and main.isfinite().all()


def test_layers_that_mmsegmentation_alone_has_are_found() -> None:
    small = {"backbone": {"base_channels": 4}, "decode_head": {"in_channels": 4, "channels": 4}, "auxiliary_head": None}
    config = ModelConfig("unet", "_base_/models/fcn_unet_s5-d16.py", {"pretrained": None, **small})
    (main,) = build_model(config, num_classes=3, seed=0).eval()(torch.randn(1, 3, 32, 32))
    assert main.shape == (1, 3, 32, 32)


def test_heads_and_backbone_share_no_parameter_and_miss_none() -> None:
    model = build_model(preset("deeplabv3plus_r18"), num_classes=3, seed=0)
    proxy = ProxyConfig(lr=0.1, head_lr_mult=10.0, optimizer="sgd")
    backbone, heads = build_optimizer(model, proxy).param_groups
    grouped = [id(p) for group in (backbone, heads) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in heads["params"]} == {id(p) for name, p in model.named_parameters() if "head" in name}
    assert (backbone["lr"], heads["lr"]) == (0.1, 1.0)


def test_syncbn_becomes_bn() -> None:
    model = build_model(preset("deeplabv3plus_r18"), num_classes=3, seed=0)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.BatchNorm2d) for norm in norms)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    config = preset("tiny")
    first = build_model(config, 4, seed=1).state_dict()
    torch.rand(17)
    again, other = build_model(config, 4, seed=1).state_dict(), build_model(config, 4, seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(preset("tiny"), 4, seed=1)
    assert torch.equal(torch.rand(3), expected)


AUXILIARY = {
    "type": "FCNHead", "in_channels": 16, "in_index": 0, "channels": 8, "num_convs": 1, "concat_input": False,
    "norm_cfg": {"type": "BN"},
}  # fmt: skip
WITH_ONE = {**preset("tiny").overrides, "auxiliary_head": AUXILIARY}


@pytest.mark.parametrize("config", [preset("tiny", overrides=WITH_ONE), ModelConfig(config="_base_/models/stdc.py")])
def test_a_checkpoint_of_mmsegmentation_is_a_teacher(config: ModelConfig, tmp_path: Path) -> None:
    """Its names for an auxiliary head alone, and heads that learn edges, which are passed over."""
    torch.save(model_registry().build(network_config(config, 3)).state_dict(), tmp_path / "a.pth")
    model = build_model(config, 3, seed=0)
    load_network(model, str(tmp_path / "a.pth"), "proxy.soft.teacher")
    theirs = torch.load(tmp_path / "a.pth", weights_only=True)
    assert all(torch.equal(value, theirs[name]) for name, value in model.network.state_dict().items())


def test_an_auxiliary_head_alone_begins_as_one_in_a_list() -> None:
    """As when it was built in a list: a seed's weights are those of earlier runs."""
    alone, listed = (
        build_model(preset("tiny", overrides={**WITH_ONE, "auxiliary_head": head}), 3, seed=0).state_dict()
        for head in (AUXILIARY, [AUXILIARY])
    )
    assert any(key.startswith("network.auxiliary_head.0.") for key in listed)
    names = [key.replace("auxiliary_head.0.", "auxiliary_head.") for key in listed]
    assert list(alone) == names and all(map(torch.equal, alone.values(), listed.values()))


IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_images_of_a_preset_are_normalised_as_imagenets(name: str) -> None:
    assert normalization(preset(name)) == IMAGENET


def test_images_are_normalised_as_the_config_has_it(tmp_path: Path) -> None:
    """Of a full training too, or a network's weights would be used with other inputs than they were made for."""
    segmenter = ModelConfig(config="_base_/models/segmenter_vit-b16_mask.py")
    assert normalization(segmenter) == ([127.5] * 3, [127.5] * 3)
    assert normalization(replace(segmenter, std=[1.0, 2.0, 3.0])) == ([127.5] * 3, [1.0, 2.0, 3.0])
    given = replace(segmenter, mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    assert normalization(given) == (given.mean, given.std)
    own = tmp_path / "own.py"
    own.write_text("model = dict(type='EncoderDecoder', data_preprocessor=dict(bgr_to_rgb=True))")
    assert normalization(ModelConfig(config=str(own))) == ([0.0] * 3, [1.0] * 3)  # as mmsegmentation: not at all
    own.write_text("model = dict(type='EncoderDecoder')")
    assert normalization(ModelConfig(config=str(own))) == IMAGENET
    for text in ("mean=[1, 2, 3], std=[1, 1, 1]", "bgr_to_rgb=True, mean=[1] * 6, std=[1] * 6"):
        own.write_text(f"model = dict(type='EncoderDecoder', data_preprocessor=dict({text}))")
        with pytest.raises(InputError, match=r"mean and std of RGB images, got mean=\[1.*model.mean and model.std"):
            normalization(ModelConfig(config=str(own)))
        assert normalization(replace(given, config=str(own))) == (given.mean, given.std)


def test_pretrained_addresses_are_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    overrides = {
        "backbone": {"init_cfg": {"type": "Pretrained", "checkpoint": "models://elsewhere"}},
        "decode_head": {"init_cfg": [{"type": "Pretrained", "checkpoint": "a"}, {"type": "Normal", "std": 0.01}]},
    }
    with caplog.at_level(logging.WARNING):
        model = network_config(preset("deeplabv3plus_r50", overrides=overrides), num_classes=3)
    assert "pretrained" not in model and "init_cfg" not in model["backbone"]
    assert [entry["type"] for entry in model["decode_head"]["init_cfg"]] == ["Normal"]
    assert "models://elsewhere" in caplog.text and "model.weights" in caplog.text


class Executed:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.marker),)


def test_nothing_a_network_names_is_executed_or_downloaded(tmp_path: Path) -> None:
    """Swin and PIDNet load what `init_cfg` names whatever its type is, mmsegmentation's losses a file of weights."""
    torch.save(Executed(tmp_path / "weights"), tmp_path / "a.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Executed(tmp_path / "classes")))
    tiny = {"depths": [1, 1, 1, 1], "embed_dims": 8, "num_heads": [1, 1, 1, 1], "window_size": 2}
    heads = {"decode_head": {"in_channels": 64, "c1_in_channels": 8, "c1_channels": 4, "channels": 8}}
    for file in (str(tmp_path / "a.pth"), "http://127.0.0.1:9/a.pth"):
        swin = {
            "_delete_": True,
            "type": "SwinTransformer",
            **tiny,
            "init_cfg": {"type": "Constant", "checkpoint": file},
        }
        overrides = {**heads, "pretrained": None, "auxiliary_head": None, "backbone": swin}
        build_model(preset("deeplabv3plus_r50", overrides=overrides), 3, seed=0)
    weighted = {"loss_decode": {"class_weight": str(tmp_path / "a.pkl")}}
    with pytest.raises(InputError, match="could run code"):
        build_model(preset("tiny", overrides={**preset("tiny").overrides, "decode_head": weighted}), 3, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pkl", "a.pth"]


def test_a_config_in_pure_python_names_its_types_by_their_modules(tmp_path: Path) -> None:
    """mmengine's newer style: `type=EncoderDecoder` of an import, which its file gives as a dotted name."""
    text = "from mmseg.models.segmentors import EncoderDecoder\nfrom mmseg.models.backbones import MobileNetV2\n"
    text += "from mmseg.models.decode_heads import FCNHead\nfrom torch.nn import BatchNorm2d, SyncBatchNorm\n"
    text += "from mmengine.model import PretrainedInit\nnorm = dict(type=SyncBatchNorm)\n"
    text += "model = dict(type=EncoderDecoder, backbone=dict(type=MobileNetV2, norm_cfg=norm, out_indices=(5, 6),"
    text += " init_cfg=dict(type=PretrainedInit, checkpoint='models://elsewhere')), decode_head=dict(type=FCNHead,"
    text += " in_channels=320, in_index=1, channels=8, num_classes=9, norm_cfg=norm))\n"
    (tmp_path / "pure.py").write_text("from mmengine.config import read_base\n\n" + text)
    config = ModelConfig(config=str(tmp_path / "pure.py"))
    assert "init_cfg" not in network_config(config, 3)["backbone"]
    model = build_model(config, 3, seed=0)
    assert not any(isinstance(part, torch.nn.SyncBatchNorm) for part in model.modules())
    assert model.eval()(torch.zeros(1, 3, 32, 32))[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", ["danet_r50-d8", "encnet_r50-d8"])
def test_a_head_that_gives_more_than_its_logits_is_known_by_them(name: str) -> None:
    model = build_model(ModelConfig(config=f"_base_/models/{name}.py"), 3, seed=0).eval()
    assert model(torch.zeros(1, 3, 32, 32))[0].shape == (1, 3, 32, 32)


PIDNET = "pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py"


def test_what_a_network_predicts_by_is_what_is_trained() -> None:
    """PIDNet's head gives three maps while it trains, and predicts by the second."""
    model = build_model(ModelConfig(config=PIDNET), 3, seed=0)
    (logits,) = model.train()(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    logits.sum().backward()
    predicts = model.heads()[0].i_head.parameters()
    assert all(weight.grad is not None for weight in (*predicts, *model.network.backbone.i_branch_layers.parameters()))


def test_a_head_with_maps_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(ModelConfig(config=PIDNET), 3, seed=0).train()
    monkeypatch.delitem(models.PLACES, "PIDHead")
    with pytest.raises(InputError, match=r"one map of logits, got PIDHead, which gives a tuple of 3"):
        model(torch.zeros(2, 3, 64, 64))


def test_of_heads_in_a_row_the_last_is_the_main_one() -> None:
    model = build_model(ModelConfig(config="_base_/models/ocrnet_r50-d8.py"), 3, seed=0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (logits,) = model(images)
        theirs = resize(model.network.encode_decode(images, [{"img_shape": (32, 32)}]), size=(32, 32), mode="bilinear")
    torch.testing.assert_close(logits, theirs)
    model.train()
    main, first = model(images)
    assert main.shape == first.shape == (2, 3, 32, 32)
    assert [type(head).__name__ for head in model.heads()] == ["OCRHead", "FCNHead"]


def test_heads_that_learn_edges_are_no_auxiliary_ones() -> None:
    model = build_model(ModelConfig(config="_base_/models/stdc.py"), 3, seed=0).train()
    assert [type(head).__name__ for head in model.heads()] == ["FCNHead"] * 3
    settings = network_config(ModelConfig(config="_base_/models/stdc.py"), 3)
    assert [head["num_classes"] for head in settings["auxiliary_head"]] == [3, 3, 2]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("_base_/models/pointrend_r50.py", "PointHead"),
        ("knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py", "IterativeDecodeHead"),
        ("maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py", "MaskFormerHead"),
    ],
)
def test_a_head_with_a_loss_of_its_own_kind_is_refused(config: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"got {kind}. It has a loss of its own"):
        build_model(ModelConfig(config=config), 3, seed=0)


def test_a_network_that_needs_compiled_operations_is_one_message() -> None:
    with pytest.raises(InputError, match=r"model\.config.*compiled operations"):
        build_model(ModelConfig(config="_base_/models/ccnet_r50-d8.py"), 3, seed=0)


def test_building_does_not_change_the_config() -> None:
    config = preset("tiny")
    build_model(config, 4, seed=0)
    assert config == preset("tiny")


def test_unknown_config_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Did you mean _base_/models/deeplabv3plus_r50-d8\.py"):
        build_model(ModelConfig(config="_base_/models/deeplabv3plus_r50.py"), 3, seed=0)


def test_config_without_a_usable_network_is_refused() -> None:
    with pytest.raises(InputError, match="EncoderDecoder"):
        build_model(ModelConfig(config="_base_/default_runtime.py"), 3, seed=0)
    with pytest.raises(InputError, match=r"model\.config"):
        build_model(preset("tiny", overrides={"backbone": {"depth": 19}}), 3, seed=0)


@pytest.mark.parametrize("bands", [1, 4])
def test_a_network_for_other_bands_is_refused_for_them(bands: int) -> None:
    """It was refused for the crop, which it would not take."""
    config = preset("tiny", overrides={"backbone": {"in_channels": bands}})
    with pytest.raises(InputError, match=rf"in_channels of model\.config: expected 3, got {bands}\. Images are RGB"):
        build_model(config, 3, seed=0)


def test_imagenet_mobilenet_fits_the_preset(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenet_v2_imagenet.pth"
    if not path.is_file():
        pytest.skip("no MobileNetV2 weights in ../shared/data")
    model = build_model(preset("deeplabv3plus_mobilenet_v2", weights=str(path)), 3, seed=0)
    first = torch.load(path, weights_only=True)["conv1.conv.weight"]
    assert torch.equal(model.network.backbone.conv1.conv.weight, first)


TORCHVISION = {"mobilenet_v2": [1, 3, 6, 10, 13, 16, 17], "resnet18": ["layer1", "layer2", "layer3", "layer4"]}


@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_of_torchvision_give_its_features(tmp_path: Path, name: str) -> None:
    import torchvision  # here, since it imports Triton

    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)().eval()
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight.data, part.bias.data, part.running_mean, part.running_var):
                values.uniform_(0.5, 1)
    torch.save(theirs.state_dict(), path := tmp_path / "imagenet.pth")
    base = preset("deeplabv3plus_r18" if name == "resnet18" else "deeplabv3plus_mobilenet_v2", weights=str(path))
    stages = {"type": "ResNet", "strides": [1, 2, 2, 2], "dilations": [1] * 4, "contract_dilation": False}
    if name == "mobilenet_v2":
        stages = {"strides": [1, 2, 2, 2, 1, 2, 1], "dilations": [1] * 7, "out_indices": [0, 1, 2, 3, 4, 5, 6]}
    else:
        with pytest.raises(InputError, match=r"plain stem, .*torchvision's: model\.overrides\.backbone\.type=ResNet"):
            build_model(base, 3, seed=0)
    backbone = {**base.overrides["backbone"], **stages}
    ours = build_model(replace(base, overrides={**base.overrides, "backbone": backbone}), 3, seed=0).eval()
    parts = [getattr(theirs, "features", theirs).get_submodule(str(part)) for part in TORCHVISION[name]]
    found: list[torch.Tensor] = []
    for part in parts:
        part.register_forward_hook(lambda *args: found.append(args[-1]))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        theirs(images)
        for mine, wanted in zip(ours.network.backbone(images), found, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)
