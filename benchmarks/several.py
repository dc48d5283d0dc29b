"""Several candidates on one device: how many proxies an hour are trained, against one after the other.

The candidates are losses of a search's first round, their proxies those of `benchmarks/proxy.py`, all on the same
stream of batches. Ways:

* one after the other, each with all cores (the peer);
* processes: as many at the same time as there are cores, each with one thread; on a GPU `executor.per_device=4`;
* stacked: the networks as one, their parameters stacked by `torch.func`: a convolution of all becomes a grouped one;
* threads, on a GPU only: one process, each candidate on a stream of its own.

Timed are iterations after a warm-up, without data, start-up and scoring; a candidate has 250 of them, 1000 on a GPU.
What autoseg does by default are processes on a CPU and one after the other on a GPU, where the peer is timed once.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from autoseg.config import DataConfig
from autoseg.data import Augment, open_data
from autoseg.execution import Job, Outcome, ProcessExecutor
from autoseg.machine import cpu_cores
from autoseg.proxy.task import ProxyTask
from autoseg.surrogates import SurrogateLoss, build_space
from autoseg.training import Batches, build_model, layers
from autoseg.training.network_config import normalization
from autoseg.training.precision import precision_of, reproducible
from autoseg.training.schedule import build_optimizer, rates, set_rates
from benchmarks import proxy
from benchmarks.harness import Row, attempted, by_kernels
from benchmarks.proxy import Setting, Spent, Ticking

DEVICE = proxy.DEVICE
CANDIDATES = 4
REPEATS = 2


@dataclass(frozen=True)
class Plan:
    """What is trained: the data, how, how many at a time, and what a candidate is in full."""

    data: DataConfig
    setting: Setting
    candidates: int
    full_iters: int

    def threads(self, count: int) -> Setting:
        """The setting with another number of threads."""
        return replace(self.setting, proxy=replace(self.setting.proxy, threads=count))

    def shorter(self, warmup: int, timed: int) -> Plan:
        """The same for fewer iterations."""
        proxy = replace(self.setting.proxy, iters=warmup + timed + 1)
        return replace(self, setting=replace(self.setting, proxy=proxy, warmup=warmup))

    def an_hour(self, iterations: float) -> float:
        """Candidates an hour, from iterations of all of them a second."""
        return 3600 * iterations / self.full_iters


def rows() -> Iterator[Row]:
    gpu = DEVICE == "cuda"
    with tempfile.TemporaryDirectory() as scratch:
        data = proxy.camvid() or proxy.generated(Path(scratch) / "images")
        data.cache_dir, data.holdout = scratch, 0.02
        setting = proxy.on_gpu() if gpu else proxy.on_cpu()
        plan = Plan(data, setting, CANDIDATES, 1000 if gpu else 250)
        ways = {"processes": in_processes, "stacked parameters": lambda plan: stacked(plan.shorter(1, 4))}
        if gpu:
            ways |= {"stacked parameters": stacked, "threads with streams": in_threads}
        if not gpu:
            yield from compared(plan, ways)
            return
        peer = one_after_the_other(plan)
        yield from attempted((name, partial(compared, plan, {name: way}, 1, peer)) for name, way in ways.items())


@by_kernels()  # round threads too: each puts back the filters that it found
def compared(
    plan: Plan, ways: dict[str, Callable[[Plan], float]], repeats: int = REPEATS, peer: float | None = None
) -> list[Row]:
    """Candidates an hour, every way in turn with the peer, unless that one's iterations a second are known."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        alone = plan.an_hour(one_after_the_other(plan) if peer is None else peer)
        for name, way in ways.items():
            taken[name].append((plan.an_hour(way(plan)), alone))
    where = "cpu" if plan.setting.device == "cpu" else torch.cuda.get_device_name()
    detail = {
        "candidates": plan.candidates,
        "iterations of one": plan.full_iters,
        "cores": cpu_cores(),
        "device": where,
    }
    return [
        Row(
            f"candidates on one device, {plan.setting.model}: {name}",
            "one after the other",
            statistics.median(mine for mine, _ in pairs),
            statistics.median(other for _, other in pairs),
            statistics.median(mine / other for mine, other in pairs),
            "candidates/h",
            "",
            {**detail, "pairs": pairs},
        )
        for name, pairs in taken.items()
    ]


def surrogate(number: int, classes: int) -> nn.Module:
    """One of a search's candidates: mIoU with curves drawn from the number."""
    space = build_space("miou")
    theta = torch.rand(space.dim, generator=torch.Generator().manual_seed(number)).tolist()
    return SurrogateLoss.from_theta("miou", theta=theta, num_classes=classes, space=space)


class Training:
    """A task that trains one candidate and says when its timed iterations began and ended, if it came to them."""

    def __init__(self, data: DataConfig, setting: Setting) -> None:
        self.data, self.setting = data, setting

    @by_kernels()
    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Train candidate `payload["number"]`, for `payload["limit"]` iterations at most."""
        setting = self.setting
        window = (setting.warmup, setting.warmup + setting.timed)
        loss = Ticking(surrogate(payload["number"], len(self.data.classes)), lambda: Spent.now(device), window)
        task = ProxyTask(self.data, setting.network(), setting.proxy, ("miou",), limit=payload.get("limit"))
        task(loss, seed=0, device=device)
        return dict(zip(("first", "last"), (tick.wall_s for tick in loss.ticks), strict=False))


def one_after_the_other(plan: Plan) -> float:
    """Iterations a second, with all cores."""
    train = Training(plan.data, plan.threads(cpu_cores()))
    lengths = [_length(train({"number": number}, plan.setting.device)) for number in range(plan.candidates)]
    return plan.setting.timed * plan.candidates / sum(lengths)


def in_processes(plan: Plan) -> float:
    """Iterations a second of all processes together, while all of them train."""
    cpu = plan.setting.device == "cpu"
    slots = ["cpu"] * cpu_cores() if cpu else ["cuda:0"] * plan.candidates
    few = {} if cpu else {"limit": (3, 1)}  # to wake a worker, where a training in full takes long
    with ProcessExecutor(Training(plan.data, plan.threads(1)), slots) as executor:
        list(map(_scores, executor.run([Job(f"start {k}", {"number": k, **few}) for k in range(len(slots))])))
        done = executor.run([Job(str(k), {"number": k}) for k in range(len(slots))])
        return sum(plan.setting.timed / _length(ticks) for ticks in map(_scores, done))


def in_threads(plan: Plan) -> float:
    """Iterations a second of all threads together, each with a stream of its own."""

    def work(number: int) -> float:
        with torch.cuda.stream(torch.cuda.Stream()):
            return plan.setting.timed / _length(Training(plan.data, plan.setting)({"number": number}, "cuda"))

    # Round all of them: what the first thread to end puts back for the whole process is then what the others want.
    device, threads = torch.device("cuda"), plan.setting.proxy.threads
    with (
        reproducible(device, 0, threads=threads, deterministic=False),
        ThreadPoolExecutor(plan.candidates) as pool,
    ):
        return sum(pool.map(work, range(plan.candidates)))


def _scores(done: tuple[Job, Outcome]) -> dict[str, float]:
    """What a job came to."""
    job, outcome = done
    if outcome.state != "complete":
        raise RuntimeError(f"candidate {job.key} {outcome.state}: {outcome.error}")
    return outcome.scores


def _length(ticks: dict[str, float]) -> float:
    return ticks["last"] - ticks["first"]


def stacked(plan: Plan) -> float:
    """Iterations a second of all candidates together, their networks being one."""
    setting = plan.threads(cpu_cores())
    proxy_, device = setting.proxy, torch.device(setting.device)
    precision = precision_of(proxy_, device)
    torch.set_num_threads(proxy_.threads)
    data = open_data(plan.data, proxy_.size)
    model = Stack([build_model(setting.network(), data.num_classes, 0)] * plan.candidates, device)
    losses = [surrogate(k, data.num_classes).to(device) for k in range(plan.candidates)]
    optimizer = build_optimizer(model, proxy_)
    images, labels = data.images("train").to(device), data.labels("train").to(device)
    config = setting.network()
    augment = Augment(proxy_.crop, proxy_.scale, proxy_.flip, proxy_.photometric, *normalization(config))
    batches = Batches(
        images, labels, torch.arange(len(images)), augment,
        extra={}, seed=0, iters=proxy_.iters, batch_size=proxy_.batch_size,
    )  # fmt: skip
    table = rates(optimizer, proxy_, 0, proxy_.iters, device)
    marks: list[Spent] = []
    for iteration, (batch, targets, _) in enumerate(batches):
        if iteration in (setting.warmup, setting.warmup + setting.timed):
            marks.append(Spent.now(setting.device))
        set_rates(optimizer, table[iteration])
        with precision.autocast():
            outputs = model(batch.to(memory_format=precision.layout))
        optimizer.zero_grad()
        total(outputs, losses, targets, proxy_.aux_weight).backward()
        optimizer.step()
    return plan.candidates / marks[1].each(marks[0], setting.timed).wall_s


class Stack(nn.Module):
    """Networks of the same architecture as one, each parameter of which is theirs, stacked."""

    def __init__(self, networks: list[nn.Module], device: torch.device) -> None:
        super().__init__()
        plain = [as_written(copy.deepcopy(network)).to(device).train() for network in networks]
        stacked_parameters, self.stacked_buffers = stack_module_state(plain)
        self.names = list(stacked_parameters)
        self.stacked = nn.ParameterList(nn.Parameter(value.detach()) for value in stacked_parameters.values())
        self._one = [plain[0]]  # in a list: its own parameters are not this module's

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to logits (K, N, C, H, W): main, auxiliary."""
        parameters = dict(zip(self.names, self.stacked, strict=True))

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> list[Tensor]:
            return functional_call(self._one[0], (parameters, buffers), (images,))

        return torch.vmap(one, randomness="different")(parameters, self.stacked_buffers)


def as_written(network: nn.Module) -> nn.Module:
    """With torch's and mmcv's own layers: ours have no rule for stacked parameters."""
    for layer in network.modules():
        if type(layer).__module__.startswith(layers.__name__):
            layer.__class__ = type(layer).__bases__[0]
    return network


def total(outputs: list[Tensor], losses: list[nn.Module], labels: Tensor, aux_weight: float) -> Tensor:
    """The sum of all candidates' losses, which share no parameter."""
    weights = [1.0, *[aux_weight] * (len(outputs) - 1)]
    return torch.stack(
        [weight * loss(logits[k].float(), labels) for logits, weight in zip(outputs, weights, strict=True)
         for k, loss in enumerate(losses)]
    ).sum()  # fmt: skip
