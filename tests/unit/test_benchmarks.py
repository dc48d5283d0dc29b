"""The benchmarks compute what they say, on sizes that take no time; the figures are nobody's business here."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoseg.config import DataConfig, ModelConfig, ProxyConfig
from autoseg.execution import InlineExecutor, Job, Outcome
from autoseg.store.ledger import Ledger
from autoseg.surrogates import loss as loss_module
from autoseg.surrogates.fast import reading
from autoseg.training import build_model
from benchmarks import cost, harness, proxy, run, search, several
from benchmarks import table as performance

TINY = {
    "pretrained": None,
    "backbone": {
        "_delete_": True, "type": "ResNet", "depth": 18, "base_channels": 8, "stem_channels": 8, "num_stages": 2,
        "strides": [1, 2], "dilations": [1, 1], "out_indices": [0, 1], "norm_cfg": {"type": "BN"},
    },
    "decode_head": {
        "in_channels": 16, "in_index": 1, "channels": 8, "c1_in_channels": 8, "c1_channels": 8, "dilations": [1, 2],
        "dropout_ratio": 0.0,
    },
    "auxiliary_head": {"in_channels": 8, "in_index": 0, "channels": 8, "dropout_ratio": 0.0},
}  # fmt: skip
MODEL = dataclasses.replace(ModelConfig(), overrides=TINY)
PROXY = ProxyConfig(iters=4, batch_size=2, size=[32, 48], crop=32, eval_batch_size=2)


def test_stacked_networks_compute_what_each_computes() -> None:
    networks = [build_model(MODEL, 3, seed) for seed in (0, 1)]
    stack = several.Stack(networks, torch.device("cpu"))
    images, towards = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    outputs = stack(images)
    assert len(outputs) == 2  # main and auxiliary
    sum((logits * towards).sum() for logits in outputs).backward()
    gradients = dict(zip(stack.names, (value.grad for value in stack.stacked), strict=True))
    for k, network in enumerate(networks):
        alone = several.as_written(network).train()
        expected = alone(images)
        for got, want in zip(outputs, expected, strict=True):
            torch.testing.assert_close(got[k], want, rtol=1e-3, atol=1e-4)
        sum((logits * towards).sum() for logits in expected).backward()
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(
            stack.stacked_buffers["network.backbone.bn1.running_var"][k], alone.network.backbone.bn1.running_var
        )


def test_the_total_of_stacked_candidates_weighs_auxiliary_heads() -> None:
    class Mean(nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return logits.mean()

    outputs = [torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1), torch.tensor([10.0, 20.0]).view(2, 1, 1, 1, 1)]
    assert several.total(outputs, [Mean(), Mean()], torch.zeros(1), 0.5).item() == 1 + 2 + 5 + 10


def test_ways_are_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = several.Plan(DataConfig(), proxy.on_cpu(), 2, 250)
    alone = iter([2.0, 4.0, 5.0])
    monkeypatch.setattr(several, "one_after_the_other", lambda plan: next(alone))
    (row,) = several.compared(plan, {"other": lambda plan: 8.0}, repeats=3)
    assert row.ratio == 2.0 and row.ours == 8.0 * 3600 / 250
    (row,) = several.compared(plan, {"other": lambda plan: 8.0}, repeats=1, peer=16.0)  # none is left to be timed
    assert row.ratio == 0.5


@pytest.mark.parametrize("failing", ["start 1", "1"])
def test_the_reason_why_a_candidate_was_not_trained_is_told(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    class Executor(InlineExecutor):
        def __init__(self, task: object, slots: list[str]) -> None:
            super().__init__(lambda payload, device: {"first": 1.0, "last": 3.0})

        def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            for job, outcome in super().run(jobs):
                yield job, Outcome("failed", error="the reason") if job.key == failing else outcome

    monkeypatch.setattr(several, "ProcessExecutor", Executor)
    monkeypatch.setattr(several, "cpu_cores", lambda: 2)
    with pytest.raises(RuntimeError, match=f"candidate {failing} failed: the reason"):
        several.in_processes(several.Plan(DataConfig(), proxy.on_cpu(), 2, 250))


def test_what_one_figure_cannot_do_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    row = harness.Row("a row", "peer", 1.0, 2.0, 0.5, "ms")

    def fails() -> Iterator[harness.Row]:
        yield row
        raise ValueError("no memory\nmuch more")

    assert list(harness.attempted([("first", fails), ("second", lambda: [row])])) == [row]
    said = capsys.readouterr()
    assert said.out == "first: not measured, ValueError: no memory\n" and "Traceback" in said.err


@pytest.mark.slow  # imports triton
def test_no_figure_is_taken_of_the_reference_in_place_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are asked to start on the CPU, which they cannot."""
    pytest.importorskip("triton", reason="needs triton, which torch brings along on Linux only")
    for module in (loss_module, reading):
        monkeypatch.setattr(module, "by_kernels", lambda _: True)
    plan = cost.Plan("cpu", MODEL, PROXY, classes=4, images=6, scored=3, warmup=1, timed=2)
    with pytest.raises(UserWarning, match="Triton kernels cannot run"):
        cost.measured(plan)
    monkeypatch.setattr(
        several,
        "ProxyTask",
        lambda *_, **__: lambda loss, **_: loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)),
    )
    with pytest.raises(UserWarning, match="Triton kernels cannot run"):
        several.Training(DataConfig(classes=["a", "b"]), proxy.on_cpu())({"number": 0}, "cpu")


def test_the_runner_chooses_its_convolutions_by_trial_as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.runner import Runner

    chosen = []

    def from_cfg(config: Any) -> Runner:
        torch.backends.cudnn.benchmark = config.env_cfg.cudnn_benchmark  # as it does, for the whole process
        chosen.append(torch.backends.cudnn.benchmark)
        raise ValueError("enough")

    monkeypatch.setattr(Runner, "from_cfg", from_cfg)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with pytest.raises(ValueError, match="enough"):
        proxy.theirs(DataConfig(classes=["a", "b"]), "", proxy.on_cpu(), "OptimWrapper")
    assert chosen == [True] and not torch.backends.cudnn.benchmark


def test_a_setting_times_all_but_the_warm_up_and_the_last_iteration() -> None:
    assert proxy.on_cpu().timed == 12 and proxy.on_gpu().timed == 100
    assert several.Plan(DataConfig(), proxy.on_cpu(), 2, 250).shorter(1, 4).setting.timed == 4


def test_the_papers_search_is_costed() -> None:
    plan = cost.Plan("cpu", MODEL, PROXY, classes=4, images=6, scored=3, warmup=1, timed=2)
    images, labels = cost.generated(plan, torch.device("cpu"))
    assert images.shape == (6, 3, 32, 48) and labels.shape == (6, 32, 48)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 255}
    found = cost.measured(plan)
    assert found.iteration_s > 0 and found.scoring_s > 0
    row, shared = cost.table(plan, cost.Cost(0.01, 1.0), "a device")
    assert row.ours == pytest.approx(384 * (4 * 0.01 + 1.0) / 3600)
    own = 4 * (1 - cost.SHARED)
    assert shared.ours == pytest.approx((384 * (own * 0.01 + 1.0) + (4 - own) * 0.01) / 3600)
    assert row.detail["images/s"] == 200 and row.target == "<= 0.0469"


def test_the_arithmetic_floor_is_that_of_the_reference() -> None:
    """0.86 EFLOP, 240 TFLOP/s for one GPU-hour."""
    plan = cost.Plan("cpu", MODEL, ProxyConfig(iters=1000, batch_size=32))
    (row, _) = cost.table(plan, cost.Cost(1.0, 0.0), "")
    assert row.detail["TFLOP/s for one hour"] == pytest.approx(240, rel=0.02)


@pytest.mark.parametrize("name", ["cost", "gpu_losses"])
def test_without_a_gpu_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["run", name, "--out", str(tmp_path / "results")])
    run.main()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "no GPU" in said
    assert not (tmp_path / "results").exists()


def test_a_run_that_is_stopped_keeps_the_figures_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[harness.Row]:
        yield harness.Row("first", "peer", 1.0, 2.0, 0.5, "ms")
        raise KeyboardInterrupt

    monkeypatch.setattr(cost, "rows", rows)
    monkeypatch.setattr(cost, "DEVICE", "cpu")
    with pytest.raises(KeyboardInterrupt):
        run.take("cost", tmp_path)
    (row,) = json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))["rows"]
    assert row["what"] == "first"


def test_the_table_in_readme_is_of_the_results_that_are_kept():
    readme = Path(performance.__file__).parent.parent / "README.md"
    assert performance.written(readme) == performance.table().strip()
    assert "mIoU surrogate" in performance.table()


def test_the_long_history_is_a_ledger(tmp_path, monkeypatch):
    """It is written into the tables directly, and so knows what a ledger keeps."""
    monkeypatch.setattr(search, "HISTORY", 20)
    search.filled(tmp_path / "long.db")
    with Ledger(tmp_path / "long.db", search.NAMES) as ledger:
        assert [record.state for record in ledger.records("search")] == ["complete"] * 20


def test_every_benchmark_has_rows_and_nothing_else_is_run():
    assert set(run.names()) == {"losses", "proxy", "search", "several", "cost", "gpu_losses", "host"}
    assert all(hasattr(importlib.import_module(f"benchmarks.{name}"), "rows") for name in run.names())
