"""Which trainings `autoseg trust` sets beside a search's proxy, where that proxy saves work or a cheaper one would."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.cli.configuration import stored
from autoseg.cli.jobs.trust import _proxies, build, resolve_names
from autoseg.config import CompareConfig, DataConfig, ProxyConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError
from autoseg.evidence.trust.rankings import FULL, PROXY
from autoseg.store.run_folder import RunFolder

SAVING = SearchConfig(proxy=ProxyConfig(iters=80, warmup=40, backbone="frozen"))


def test_shorter_ones_have_a_shorter_warm_up_and_the_fuller_one_saves_nothing():
    proxies = _proxies(TrustConfig(), SAVING)
    assert proxies[PROXY] == SAVING.proxy
    assert proxies[FULL] == ProxyConfig(iters=320)
    half = proxies["proxy.iters=40 proxy.warmup=20"]
    assert (half.iters, half.warmup, half.backbone) == (40, 20, "frozen")


def test_savings_can_be_tried():
    cheaper = ["proxy.warmup=30", "proxy.backbone=frozen", "proxy.warmup=30 proxy.backbone=frozen"]
    proxies = _proxies(TrustConfig(cheaper=cheaper), SearchConfig())
    assert [(proxies[text].warmup, proxies[text].backbone) for text in cheaper] == [
        (30, "trained"), (0, "frozen"), (30, "frozen"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"proxy\.warmup: expected fewer than the 250"):
        _proxies(TrustConfig(cheaper=["proxy.warmup=250"]), SearchConfig())
    with pytest.raises(InputError, match=r"cheaper: expected each once, got proxy\.iters=75 more than once"):
        _proxies(TrustConfig(cheaper=["proxy.iters=75"] * 3), SearchConfig())
    with pytest.raises(InputError, match=r"cheaper: expected changes of the proxy, .* got 'proxy'"):
        _proxies(TrustConfig(cheaper=["proxy"]), SearchConfig())


def test_a_change_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trust run's file has them as text, and may be anybody's."""
    monkeypatch.setenv("MY_SECRET", "hunter2")
    with pytest.raises(InputError, match="MY_SECRET") as told:
        _proxies(TrustConfig(cheaper=["proxy.labels=${oc.env:MY_SECRET}"]), SearchConfig())
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("kind", [SearchConfig(), CompareConfig(losses=["ce"])])
def test_a_folder_of_another_kind_is_not_gone_on_with(kind: SearchConfig | CompareConfig, tmp_path: Path) -> None:
    for name, config in (("searched", SearchConfig()), ("other", kind)):
        RunFolder.create(tmp_path / name, stored.plain(config), {}).close()
    with pytest.raises(InputError, match=r"^run_dir: expected the folder of a trust run, got .* which is of a "):
        resolve_names(TrustConfig(run=str(tmp_path / "searched"), run_dir=str(tmp_path / "other")))


def test_images_that_were_moved_are_named_to_the_search(tmp_path: Path) -> None:
    moved = DataConfig(kind="folder", name="mine", root=str(tmp_path / "gone"), classes=["a", "b"])
    RunFolder.create(tmp_path / "searched", stored.plain(SearchConfig(data=moved)), {}).close()
    with pytest.raises(InputError, match=r"^data\.root: .*gone'.* autoseg search resume=.*searched data\.root=DIR\.$"):
        build(TrustConfig(run=str(tmp_path / "searched")))
