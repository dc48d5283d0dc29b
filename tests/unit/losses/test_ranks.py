"""Two ranks with half a batch each train like one rank with all of it: loss and gradients under DDP, float64."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autoseg.losses import build_loss, loss_names
from autoseg.losses.ranks import rank_local, sync_counts
from autoseg.metrics import searchable

CLASSES, RANKS = 4, 2
LOCAL = {"lovasz", "ohem", "lmp", "wce", "shape_prior"}
SURROGATES = ["asl2021/miou", "asl2021/fwiou", "asl2021/macc", "asl2021/gacc", "asl2021/biou", "asl2021/bf1"]
MORE = [
    "0.25*ce+0.75*asl2021/miou", "jml(reduction={D:0.5,I:0.25,C:0.25})", "focal(mode=sigmoid)",
    "wce(class_weight=[1,2,3,4])", "jml(log=true)",
]  # fmt: skip
SPECS = [*(name for name in loss_names() if name not in LOCAL), *SURROGATES, *MORE]


class Network(nn.Module):
    """A 1x1 convolution and a loss inside the module, as mmsegmentation's heads have it."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.conv, self.loss = nn.Conv2d(3, CLASSES, 1).double(), loss

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.conv(images), labels)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, 3, 12, 12, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (4, 3, 3), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[:2][labels[:2] == 3] = 255  # the ranks differ: one lacks a class and has void pixels
    labels[2:][labels[2:] == 0] = 1
    return images, labels


def build(spec: str) -> nn.Module:
    if spec.startswith("identity:"):
        from autoseg.surrogates import SurrogateLoss, build_space

        metric = spec.removeprefix("identity:")
        space = build_space("extended", metric=metric)
        return SurrogateLoss(metric, CLASSES, space=space, tolerance=2)
    return build_loss(spec, num_classes=CLASSES)


def value_and_gradients(spec: str, images: Tensor, labels: Tensor, synced: bool) -> list[Tensor]:
    torch.manual_seed(0)
    loss = build(spec)
    if synced:
        sync_counts(loss)
    network = Network(loss)
    model = DistributedDataParallel(network) if dist.is_initialized() else network
    value = model(images, labels)
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in network.conv.parameters())]


def rank_main(rank: int, folder: str, specs: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    images, labels = batch()
    part = slice(rank * 2, rank * 2 + 2)
    found = {spec: value_and_gradients(spec, images[part], labels[part], synced=True) for spec in specs}
    uneven = slice(0, 3) if rank == 0 else slice(3, 4)  # the last batch of an epoch
    found |= {f"{spec}, uneven": value_and_gradients(spec, images[uneven], labels[uneven], True) for spec in specs}
    all_or_none = slice(0, 4) if rank == 0 else slice(4, 4)
    found |= {
        f"{spec}, empty": value_and_gradients(spec, images[all_or_none], labels[all_or_none], True) for spec in specs
    }
    # What the option is for: without it the ranks compute another loss.
    found["unsynced"] = value_and_gradients("asl2021/miou", images[part], labels[part], synced=False)
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    specs = [*SPECS, *(f"identity:{name}" for name in searchable())]
    mp.spawn(rank_main, args=(str(tmp_path), specs), nprocs=RANKS)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    images, labels = batch()
    for spec in specs:
        expected = value_and_gradients(spec, images, labels, synced=False)
        assert expected[1].abs().max() > 1e-6, spec
        shares = [spec, f"{spec}, uneven", f"{spec}, empty"]
        for got_all in (found[share] for found in ranks for share in shares):
            for got, wanted in zip(got_all, expected, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10, msg=lambda text, s=spec: f"{s}: {text}")
    whole = value_and_gradients("asl2021/miou", images, labels, synced=False)
    assert (ranks[0]["unsynced"][1] - whole[1]).abs().max() > 1e-3


def test_losses_that_sort_pixels_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = build_loss("0.5*lovasz+0.5*jml", num_classes=3)
    assert sync_counts(loss) is loss  # one process: nothing to say
    monkeypatch.setattr("autoseg.losses.ranks.is_distributed", lambda: True)
    with pytest.warns(UserWarning, match="^lovasz cannot count over several ranks"):
        sync_counts(loss)
    assert rank_local(loss) == ["lovasz"]
    assert [part.sync_counts for part in loss.losses] == [False, True]
    assert {name for name in loss_names() if rank_local(build_loss(name, num_classes=3))} == LOCAL


def test_one_rank_changes_nothing() -> None:
    images, labels = batch()
    for spec in ("jml", "asl2021/miou"):
        for plain, synced in zip(
            value_and_gradients(spec, images, labels, False),
            value_and_gradients(spec, images, labels, True),
            strict=True,
        ):
            assert torch.equal(plain, synced)
