from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoseg.errors import InputError
from autoseg.training.weights import load_backbone, load_network, save_network


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def wanted(seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {key: torch.rand_like(v) if v.is_floating_point() else v for key, v in small().state_dict().items()}


def test_pth_and_safetensors_load_alike(tmp_path: Path) -> None:
    state = wanted()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        backbone = small()
        load_backbone(backbone, str(tmp_path / name))
        assert all(torch.equal(backbone.state_dict()[key], value) for key, value in state.items())


def test_checkpoints_are_cut_to_their_backbone(tmp_path: Path) -> None:
    state = wanted()
    whole = {f"backbone.{k}": v for k, v in state.items()} | {"decode_head.conv.weight": torch.ones(1)}
    torch.save({"state_dict": whole, "meta": {"epoch": 3}}, tmp_path / "whole.pth")
    classifier = state | {"fc.weight": torch.ones(10, 4), "fc.bias": torch.ones(10)}
    del classifier["1.num_batches_tracked"]
    torch.save(classifier, tmp_path / "imagenet.pth")
    for name in ("whole.pth", "imagenet.pth"):
        backbone = small()
        load_backbone(backbone, str(tmp_path / name))
        assert torch.equal(backbone[0].weight, state["0.weight"])


def test_a_part_of_the_backbone_that_is_called_as_a_classifier_is_loaded(tmp_path: Path) -> None:
    one, other = (nn.ModuleDict({"head": nn.Linear(2, 3)}) for _ in range(2))
    torch.save(one.state_dict(), tmp_path / "a.pth")
    load_backbone(other, str(tmp_path / "a.pth"))
    assert torch.equal(other["head"].weight, one["head"].weight)


def test_a_saved_network_fits_mmsegmentations_own_and_the_other_way_round(tmp_path: Path) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small()

    ours, theirs = Holder(), small()
    save_network(ours, tmp_path / "ours.safetensors")
    load_network(theirs, str(tmp_path / "ours.safetensors"), "load_from")
    assert torch.equal(theirs[0].weight, ours.network[0].weight)
    save_file(wanted(seed=5), tmp_path / "theirs.safetensors")
    load_network(ours, str(tmp_path / "theirs.safetensors"), "proxy.soft.teacher")
    assert torch.equal(ours.network[0].weight, wanted(seed=5)["0.weight"])


def test_names_and_shapes_that_do_not_fit_are_one_error(tmp_path: Path) -> None:
    state = wanted()
    state["7.weight"] = state.pop("1.weight")
    state["0.bias"] = torch.ones(5)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(InputError) as error:
        load_backbone(small(), str(tmp_path / "bad.pth"))
    for said in ("1 missing (1.weight)", "1 not in the network (7.weight)", "1 of another shape (0.bias)"):
        assert said in str(error.value)


def test_any_precision_fits_but_no_other_kind_of_number(tmp_path: Path) -> None:
    state = wanted()
    torch.save({**state, "0.weight": state["0.weight"].double(), "0.bias": state["0.bias"].half()}, tmp_path / "a.pth")
    load_backbone(small(), str(tmp_path / "a.pth"))
    for other in (state["0.weight"].char(), state["0.weight"].cfloat(), state["0.weight"].to_sparse()):
        torch.save({**state, "0.weight": other}, tmp_path / "a.pth")
        with pytest.raises(InputError, match=r"model\.weights.*1 of another type \(0\.weight\)"):
            load_backbone(small(), str(tmp_path / "a.pth"))


class Trap:
    """Runs code when unpickled; nothing here may ever do that."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a weights file was executed')",)


class Blocked:
    """The same, of a module that torch says another sentence about."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize("content", ["trap", "text", "hello", "list", "empty", "numbered"])
def test_a_file_that_is_no_weights_is_refused_and_not_run(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pth"
    if content == "trap":
        path.write_bytes(pickle.dumps({"0.weight": Trap()}))
    elif content == "list":
        torch.save([torch.ones(1)], path)
    elif content == "numbered":
        torch.save({0: torch.ones(1)}, path)
    else:
        path.write_text({"text": "not weights", "hello": "hello"}.get(content, ""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"model\.weights") as error:
            load_backbone(small(), str(path))
    assert "weights_only" not in str(error.value)  # torch's advice is to open the file all the same


def test_what_stands_beside_the_weights_is_not_run_either(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": wanted(), "meta": Trap()}, path)
    with pytest.raises(InputError, match=r"exec.*could run code"):
        load_backbone(small(), str(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_backbone(small(), str(tmp_path / "none.pth"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="which is a folder"):
        load_backbone(small(), str(tmp_path / name))


def test_a_refusal_says_why_in_a_few_words(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wanted(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"\(damaged or not complete\)"):
        load_backbone(small(), str(path))
    torch.save({"state_dict": Blocked()}, path)
    with pytest.raises(InputError, match=r"unsupported GLOBAL \w+\.system"):
        load_backbone(small(), str(path))


def test_weights_that_are_no_numbers_are_one_error(tmp_path: Path) -> None:
    """Of a diverged training: every candidate would diverge, and the search go on to its end."""
    state = wanted()
    state["0.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"model\.weights.*1 with NaN or infinity \(0\.weight\)"):
        load_backbone(small(), str(tmp_path / "bad.pth"))
