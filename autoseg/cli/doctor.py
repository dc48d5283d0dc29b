"""`autoseg doctor`: checks whether this machine has everything that a search needs. It never changes anything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement

import autoseg
from autoseg.cli.arguments import Arguments
from autoseg.cli.configuration.check import absolute_paths, check
from autoseg.cli.configuration.compose import compose, options
from autoseg.config import DataConfig, SearchConfig
from autoseg.errors import InputError, in_a_line
from autoseg.execution import worker_devices
from autoseg.execution.devices import visible_gpus
from autoseg.files import GB, cache_folder, existing
from autoseg.imports import import_modules
from autoseg.machine import cpu_cores, free_memory
from autoseg.store.versions import PACKAGES

if TYPE_CHECKING:
    import torch

    from autoseg.data.source import Source

HELP = """
Checks versions, devices, data folders, memory and disk, and says what is missing.

usage: autoseg doctor [KEY=VALUE ...]

With a data set, its folders are checked too; keys are those of autoseg search:
  autoseg doctor
  autoseg doctor data=camvid data.root=DIR
  autoseg doctor executor=ray

Exit status: 0 all is there, 2 something is missing.
"""

MIN_MEMORY_GB = 2.0  # one CPU worker with a small network peaks at about 1.3 GB
MIN_DISK_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, its state, and what to do if something is missing."""

    topic: str
    state: Literal["ok", "note", "missing"]
    text: str


def run(command: str, argv: list[str]) -> int:
    """Print the report."""
    parser = Arguments(command, HELP)
    parser.add_argument("overrides", nargs="*")
    config = compose("search", SearchConfig, parser.parse_args(argv).overrides)
    missing = 0
    for finding in findings(config):
        print(f"{finding.state:<8}{finding.topic:<10}{finding.text}", flush=True)
        missing += finding.state == "missing"
    print(f"{missing} thing(s) missing." if missing else "All that a search needs is there.")
    return 2 if missing else 0


def findings(config: SearchConfig) -> Iterator[Finding]:
    """Yield the findings about this machine, in the order of the report."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    if not (yield from packages()):
        return  # all that follows needs them
    yield from devices()
    if config.executor.name == "ray":
        yield cluster(config.executor.address)
    written = {"runs": Path(config.run_dir or ".").expanduser()}
    try:
        written["cache"] = Path(config.data.cache_dir or cache_folder()).expanduser()
    except RuntimeError:
        yield Finding("disk", "missing", "no home folder to keep prepared images in: say where, data.cache_dir=DIR")
    yield from memory_and_disk(written)
    own = own_code(config.imports)
    yield own
    if own.state != "missing":  # the names that it should bring would be missing too
        yield settings(config)
    yield from data_folders(config.data, config.proxy.size)
    if config.model.weights is not None:
        there = Path(config.model.weights).expanduser().is_file()
        text = config.model.weights if there else f"no file {config.model.weights} (model.weights)"
        yield Finding("weights", "ok" if there else "missing", text)


def own_code(imports: list[str]) -> Finding:
    """Check the user's own modules and list what they register."""
    from autoseg.losses import own_losses
    from autoseg.metrics import own_metrics

    try:
        import_modules(imports)
    except InputError as error:
        return Finding("imports", "missing", str(error))
    brought = [f"metric {own.name}" for own in own_metrics()] + [f"loss {own.name}" for own in own_losses()]
    if imports and not brought:
        return Finding("imports", "missing", f"{', '.join(imports)}: nothing in it is registered")
    return Finding("imports", "ok", ", ".join(brought) or "none: own metrics and losses are named by imports=[FILE.py]")


def settings(config: SearchConfig) -> Finding:
    """Check whether a search would accept the settings, as far as possible without its data."""
    from autoseg.cli.jobs.search import resolve_names

    where = config.executor
    try:
        absolute_paths(config)
        check(config)
        resolve_names(config)
        if where.name != "ray":  # a cluster has its own check
            worker_devices(where.name, config.workers, config.device, where.per_device, config.proxy.threads)
    except InputError as error:
        return Finding("settings", "missing", str(error))
    return Finding("settings", "ok", f"{config.metric} in space {config.space.name} with {config.controller.name}")


def packages() -> Generator[Finding, None, bool]:
    """Check every package autoseg requires against the version it requires; return whether all are installed."""
    bad, whole, ours = 0, True, f"autoseg {autoseg.__version__}"
    try:
        needed, recorded = [Requirement(text) for text in importlib.metadata.requires("autoseg") or []], True
    except importlib.metadata.PackageNotFoundError:  # a clone on PYTHONPATH
        needed, recorded = [Requirement(name) for name in PACKAGES], False
    needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            bad, whole = bad + 1, False
            yield Finding("package", "missing", f"{requirement}: not installed; run make setup")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            bad += 1
            yield Finding("package", "missing", f"{requirement}: found {version}; run make setup")
    if not bad:
        found = f"{ours}, torch {importlib.metadata.version('torch')}"
        more = f"{found} and {len(needed) - 1} more, versions as required"
        alone = f"{found}; autoseg is not installed, so that no version is checked: {Path(autoseg.__file__).parent}"
        yield Finding("package", "ok", more) if recorded else Finding("package", "note", alone)
        yield networks()
    return whole


def networks() -> Finding:
    """Check that mmsegmentation can be imported: a required version alone does not say that it works here."""
    from autoseg.training.models import model_registry

    try:
        with warnings.catch_warnings(action="ignore"):
            model_registry()
    except ImportError as error:
        text = f"mmsegmentation cannot be imported: {in_a_line(error)}"
        if "libGL" in text:
            text += "; uninstall opencv-python, which needs it, and reinstall opencv-python-headless"
        return Finding("networks", "missing", text)
    return Finding("networks", "ok", "mmsegmentation can be imported")


def devices() -> Iterator[Finding]:
    """Report CPU cores and GPUs, as torch sees them."""
    import torch

    from autoseg.training.layers.native import why_not

    yield Finding("cpu", "ok", f"{cpu_cores()} cores usable")
    count = len(visible_gpus())  # as a search counts them
    if not count:
        why = why_not()  # builds what a search would build
        yield Finding("compiler", "ok", "there is one for C++") if why is None else Finding("compiler", "note", why)
        yield Finding("gpu", "note", "none; searches run on the CPU")
    for index in range(count):
        yield gpu(torch.device("cuda", index))


def gpu(device: torch.device) -> Finding:
    """Check whether a GPU can train, by one step of a loss, which also compiles its kernels if necessary."""
    import torch

    from autoseg.surrogates import SurrogateLoss
    from autoseg.training.precision import check_device

    try:
        check_device(device)
        properties = torch.cuda.get_device_properties(device)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            logits = torch.zeros(1, 2, 16, 16, device=device, requires_grad=True)
            SurrogateLoss("miou", num_classes=2).to(device)(logits, logits.new_zeros((1, 16, 16)).long()).backward()
    except InputError as error:
        return Finding("gpu", "missing", str(error))
    except Exception as error:  # from a driver, a compiler or the GPU itself
        return Finding("gpu", "missing", f"{device} cannot be used: {in_a_line(error)}")
    text = f"{device} {properties.name}, {properties.total_memory / 2**30:.0f} GB"
    slow = [str(warning.message) for warning in said if "Triton" in str(warning.message)]
    return Finding("gpu", "note", f"{text}; {slow[0]}") if slow else Finding("gpu", "ok", text)


def cluster(address: str) -> Finding:
    """Report the machines of a Ray cluster."""
    from autoseg.execution.cluster import connect, machines

    try:
        connect(address)
    except InputError as error:
        return Finding("cluster", "missing", str(error))
    there = machines()
    cores, gpus = (sum(has[kind] for has in there) for kind in ("CPU", "GPU"))
    return Finding("cluster", "ok", f"{len(there)} machine(s), {cores} cores, {gpus} GPUs")


def memory_and_disk(written: Mapping[str, Path]) -> Iterator[Finding]:
    """Report free memory, and free space in the folders of runs and of the image cache."""
    free = free_memory() / 2**30
    if free >= MIN_MEMORY_GB:
        yield Finding("memory", "ok", f"{free:.1f} GB free")
    else:
        yield Finding("memory", "missing", f"{free:.1f} GB free; a worker needs about {MIN_MEMORY_GB:g} GB")
    for name, place in written.items():
        there = existing(place)
        space = shutil.disk_usage(there).free / GB
        if not os.access(there, os.W_OK):
            yield Finding("disk", "missing", f"{there} (for {name}) cannot be written to")
        elif space < MIN_DISK_GB:
            yield Finding("disk", "missing", f"{space:.1f} GB free in {there} (for {name}); make room")
        else:
            yield Finding("disk", "ok", f"{space:.0f} GB free in {there} (for {name})")


def data_folders(data: DataConfig, size: Sequence[int]) -> Iterator[Finding]:
    """Check the folders of the chosen data set, to be prepared at this size.

    For built-in data, list the other presets.
    """
    if data.kind == "builtin":
        others = ", ".join(name for name in options("data") if name != "builtin")
        yield Finding("data", "ok", f"builtin (made from a seed); others, with data.root=DIR: {others}")
    elif data.kind == "mmseg":
        yield Finding("data", "note", f"{data.mmseg_config}: read by mmsegmentation when a search starts")
    elif data.root is None:
        yield Finding("data", "missing", f"data={data.name} needs data.root=DIR")
    else:
        from autoseg.data.folder import files_in, folder_of

        empty = False
        for split in filter(None, (data.train_split, data.val_split)):
            for folder in (data.img_dir, data.ann_dir):
                path = folder_of(data, folder, split)
                files = len(files_in(path))
                empty |= not files
                yield Finding("data", "ok" if files else "missing", f"{path}: {files or 'no'} files")
        if not empty:
            yield from _fit(data, size)


def _fit(data: DataConfig, size: Sequence[int]) -> Iterator[Finding]:
    """Check whether the files of a pair of folders fit together and fit the classes, and, prepared, fit on the disk."""
    from autoseg.data.folder import open_folder
    from autoseg.data.remarks import of_the_groups

    try:
        source = open_folder(data)
        groups = of_the_groups(source.names["train"], data)
        source.check()
    except InputError as error:
        yield Finding("data", "missing", str(error))
        return
    yield Finding(
        "data", "ok", f"every mask fits its image and the {len(source.classes)} classes (images were not decoded)"
    )
    yield from (Finding("data", "note", text) for text in groups)
    yield _prepared(source, data, size)


def _prepared(source: Source, data: DataConfig, size: Sequence[int]) -> Finding:
    """Check whether the images are prepared at this size, or can be."""
    from autoseg.data.cache import cache_path, check_size, check_space, prepared_bytes

    try:
        height, width = check_size(size)
        path = cache_path(source, data.name, (height, width), data.cache_dir)
        if path.is_file():
            return Finding("disk", "ok", f"the images are prepared at {width}x{height}")
        check_space(source, (height, width), path.parent)
    except InputError as error:
        return Finding("disk", "missing", str(error))
    needed = prepared_bytes(source, (height, width)) / GB
    return Finding("disk", "ok", f"the images, prepared at {width}x{height} when a search starts, take {needed:.1f} GB")
