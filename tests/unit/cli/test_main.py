"""The command as a user meets it: help, lists, exit statuses, the installed program."""

from __future__ import annotations

import errno
import io
import runpy
import shutil
import subprocess
import sys
import tempfile
import types
from contextlib import closing
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from PIL import Image

import autoseg
import autoseg.cli as cli
from autoseg.cli import doctor, faults
from autoseg.cli.configuration.compose import compose
from autoseg.cli.jobs import running
from autoseg.config import SearchConfig
from autoseg.data import open_data
from autoseg.errors import AutosegError, InputError
from autoseg.store import versions
from autoseg.tracking.lines import Quieter

TRACE = "Traceback (most recent call last):"
PROGRAM = Path(sys.executable).with_name("autoseg")


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_fits_a_screen_and_shows_an_example(arguments, capsys):
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("  autoseg") for line in lines) >= 1


@pytest.mark.parametrize("name", ["search", "compare", "retrain", "trust", "report", "export", "watch", "doctor"])
def test_a_script_is_the_command_of_its_name(name, monkeypatch, capsys):
    script = Path(autoseg.__file__).parents[1] / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    told = capsys.readouterr().out
    assert ended.value.code == 0 and cli.main([name, "--help"]) == 0
    assert told == capsys.readouterr().out and f"usage: autoseg {name} " in told


def test_help_does_not_wake_up_torch_or_hydra():
    code = (
        "import sys; from autoseg.cli import main; main(['--help']);"
        "assert not {'torch', 'hydra', 'mmseg', 'matplotlib'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("autoseg ")


def test_without_a_place_to_print_to_it_ends_well(monkeypatch):
    """As a daemon's child: closed are both."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["--version"]) == 0 and cli.main(["serach"]) == 2


def test_a_terminal_without_a_character_gets_another(monkeypatch):
    """A search ends with a table that has "±" in it."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", printed)
    assert cli.main(["--version"]) == 0
    print("1 ± 2", flush=True)
    assert printed.buffer.getvalue().endswith(b"1 ? 2\n")


def test_a_folder_that_was_deleted_is_named(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(["losses"]) == 2 and "the current folder: expected one that exists" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("serach", "search"), ("serch", "search"), ("train", "retrain")])
def test_unknown_command_names_the_nearest(typed, meant, capsys):
    assert cli.main([typed]) == 2
    assert f"got '{typed}'. Did you mean {meant}? Type" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["export", "report", "watch"])
def test_a_missing_run_is_named_with_an_example(command, capsys):
    assert cli.main([command]) == 2
    said = f"autoseg: {command}: expected RUN, got none. For example autoseg {command} runs/NAME.\n"
    assert capsys.readouterr().err == said


def test_an_output_may_be_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for words in (["-o", "."], ["--format", "python", "-o", "."], ["-o", "there"], ["-o", "there/"], []):
        assert cli.main(["export", "camvid/miou", *words]) == 0
    here, there = ["miou_loss.json", "miou_loss.py"], ["miou_loss.json"]
    assert [path.name for path in sorted(tmp_path.glob("*.*"))] == here
    assert [path.name for path in (tmp_path / "there").iterdir()] == there
    for command, run, name in (("export", "camvid/miou", "miou_loss.json"), ("report", "there", "report.html")):
        assert cli.main([command, run, "-o", "figures/"]) == 2
        said = f"-o: expected a file in an existing folder, got figures/{name}.\n"
        assert said in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("kind", [AutosegError, RuntimeError, lambda text: InputError("loss", "a name", text)])
def test_an_error_gives_a_terminal_no_orders(kind, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where tracebacks are kept
    faults.report(kind("a\x1b]0;x\x07\x9bb\tc"))
    said = capsys.readouterr().err
    assert "a\\x1b]0;x\\x07\\x9bb\tc" in said and not set("\x1b\x07\x9b") & set(said)


def test_unknown_flag_is_the_users(capsys):
    assert cli.main(["metrics", "--jsn"]) == 2
    assert "--jsn" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "some"), [("metrics", "biou"), ("losses", "lovasz"), ("spaces", "paper")])
def test_lists_say_a_line_each(command, some, capsys):
    assert cli.main([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == some for line in lines)
    assert all(len(line.split()) > 1 for line in lines), "a name without a description"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("metric", "a name", "x"), 2, "metric: expected a name, got x."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space is left"),
        (RuntimeError("database or disk is full"), 2, "no space is left"),
        (RuntimeError("boom\nand more"), 1, "RuntimeError: boom"),
        (AutosegError(f"None completed: {TRACE}\nRuntimeError: boom"), 1, "None completed: RuntimeError: boom"),
    ],
)
def test_errors_become_exit_statuses(error, status, words, capsys, monkeypatch):
    def fail(command: str, argv: list[str]) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "broken", ("broken_command", "for this test"))
    monkeypatch.setitem(sys.modules, "broken_command", types.SimpleNamespace(run=fail))
    assert cli.main(["broken"]) == status
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message
    if status == 1:
        kept = Path(message.split()[-1])
        assert "RuntimeError: boom" in kept.read_text()
        kept.unlink()


def test_the_traceback_of_a_fault_goes_to_the_log_of_its_run(tmp_path, capsys, monkeypatch):
    log = tmp_path / "log.txt"

    def work() -> int:
        with closing(Quieter(log)):
            raise RuntimeError("boom")

    broken = types.SimpleNamespace(run=lambda *_: running.resumable("search", tmp_path, work, ""))
    monkeypatch.setitem(cli.COMMANDS, "broken", ("broken_command", "for this test"))
    monkeypatch.setitem(sys.modules, "broken_command", broken)
    assert cli.main(["broken"]) == 1
    assert capsys.readouterr().err.endswith(f"The traceback is in {log}\n")
    assert f"ERROR   {TRACE}" in log.read_text() and log.read_text().endswith("RuntimeError: boom\n")


def test_without_a_folder_for_it_the_traceback_is_printed(tmp_path, capsys, monkeypatch):
    def work(*_: object) -> int:
        raise RuntimeError("boom")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setitem(cli.COMMANDS, "broken", ("broken_command", "for this test"))
    monkeypatch.setitem(sys.modules, "broken_command", types.SimpleNamespace(run=work))
    assert cli.main(["broken"]) == 1
    said = capsys.readouterr().err
    assert TRACE in said and said.endswith("The traceback is in the lines above\n")


def test_the_installed_command_works_from_an_empty_folder(tmp_path):
    done = subprocess.run(
        [PROGRAM, "doctor", "data=builtin"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "builtin" in done.stdout, done.stderr
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_missing(tmp_path, capsys):
    assert cli.main(["doctor", "data.kind=folder", f"data.root={tmp_path}"]) == 2
    out = capsys.readouterr().out
    assert "missing" in out and str(tmp_path / "img_dir" / "train") in out


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("device=cuda:99", "device: expected"), ("space=zzz", "space: expected"), ("proxy.crop=3", "at least 16"),
        ("search.confirm.rivals=[foo]", "search.confirm.rivals, loss: expected"), ("model.config=nope.py", "nope.py"),
        ("metric=miuo", "Did you mean miou"), ("controller.options.lrr=1", "lrr"),
    ],
)  # fmt: skip
def test_doctor_refuses_what_a_search_does(key, words, capsys):
    assert cli.main(["doctor", key]) == 2
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("missing"))
    assert line.split()[1] == "settings" and words in line


def test_doctor_counts_the_cores_and_looks_at_the_cache_that_a_search_would_use(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("autoseg.machine._quota", lambda _: 1.0)  # of a container
    assert "1 cores usable" in next(doctor.devices()).text
    monkeypatch.undo()
    cli.main(["doctor", f"data.cache_dir={tmp_path}/kept"])
    assert f"in {tmp_path} (for cache)" in capsys.readouterr().out


def test_doctor_says_that_mmsegmentation_cannot_be_imported(monkeypatch):
    def broken() -> None:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("autoseg.training.models.model_registry", broken)
    found = {finding.topic: finding for finding in doctor.packages()}
    assert found["networks"].state == "missing" and "uninstall opencv-python" in found["networks"].text


def test_a_clone_on_the_path_needs_no_installation(capsys, monkeypatch):
    def installed(name: str) -> str:
        if name == "autoseg":
            raise metadata.PackageNotFoundError(name)
        return "9.0"

    monkeypatch.setattr(metadata, "requires", installed)
    monkeypatch.setattr(metadata, "version", installed)
    monkeypatch.setattr(versions, "version", installed)
    assert versions.versions() == {"autoseg": autoseg.__version__, "torch": "9.0", "onedl-mmsegmentation": "9.0"}
    assert cli.main(["--version"]) == 0 and cli.main(["doctor"]) == 0
    found = capsys.readouterr().out
    assert f"note    package   autoseg {autoseg.__version__}, torch 9.0; autoseg is not installed" in found


def test_doctor_ends_after_packages_that_are_missing(capsys, monkeypatch):
    """All else imports them."""
    found = metadata.version

    def version(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "devices", mock.Mock(side_effect=ImportError("No module named 'torch'")))
    assert cli.main(["doctor"]) == 2
    assert "not installed; run make setup\n1 thing(s) missing." in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU that is here")
def test_doctor_says_that_there_is_no_home_folder(capsys, monkeypatch):
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(doctor, "cache_folder", none)
    assert cli.main(["doctor"]) == 2
    assert "no home folder to keep prepared images in: say where, data.cache_dir=DIR" in capsys.readouterr().out


def test_doctor_says_of_a_gpu_that_torch_cannot_use_it(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("autoseg.execution.devices._present_gpus", lambda: 1)
    _, gpu = doctor.devices()
    assert (gpu.topic, gpu.state) == ("gpu", "missing")
    assert "cuda:0, for which torch" in gpu.text


def test_doctor_tries_a_step_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(name="H200", total_memory=2**37))
    assert doctor.gpu(torch.device("cpu")) == doctor.Finding("gpu", "ok", "cpu H200, 128 GB")
    broken = RuntimeError("no kernel image is available")
    monkeypatch.setattr("autoseg.surrogates.SurrogateLoss.forward", mock.Mock(side_effect=broken))
    assert doctor.gpu(torch.device("cpu")).state == "missing"


def test_a_sweep_of_runs_to_go_on_with_is_refused_by_the_key_that_was_typed(capsys):
    assert cli.main(["search", "-m", "resume=a,b"]) == 2
    assert "autoseg: resume: expected none with -m, got a." in capsys.readouterr().err


def test_doctor_says_whether_the_disk_holds_the_prepared_images(tmp_path, capsys, monkeypatch):
    for split in ("train", "val"):
        for kind in ("img_dir", "ann_dir"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "img_dir" / split / "a.png")
        mask = Image.new("L", (8, 6))
        mask.putpixel((0, 0), 1)
        mask.save(tmp_path / "ann_dir" / split / "a.png")
    keys = [f"data.root={tmp_path}", "data.classes=[a,b]", f"data.cache_dir={tmp_path}/cache", "proxy.crop=16"]
    own = ["doctor", "data.kind=folder", *keys]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**10))
    assert cli.main([*own, "proxy.size=[100000,100000]"]) == 2
    assert "disk      cache folder" in (out := capsys.readouterr().out)
    assert "80.0 GB for 2 images at 100000x100000, got 10.0 GB free" in out
    assert cli.main([*own, "proxy.size=[20000,20000]"]) == 0
    assert "take 3.2 GB" in capsys.readouterr().out
    open_data(compose("search", SearchConfig, own[1:]).data, (20, 20))
    assert cli.main([*own, "proxy.size=[20,20]"]) == 0
    assert "the images are prepared at 20x20" in capsys.readouterr().out


def test_doctor_looks_at_masks_and_classes(tmp_path, capsys):
    for split in ("train", "val"):
        for kind, mode in (("img_dir", "RGB"), ("ann_dir", "L")):
            (tmp_path / kind / split).mkdir(parents=True)
            image = Image.new(mode, (8, 6))
            image.paste(1 if mode == "L" else (1, 1, 1), (0, 0, 4, 6))
            image.save(tmp_path / kind / split / "a.png")
    own = ["doctor", "data.kind=folder", f"data.root={tmp_path}"]
    assert cli.main(own) == 2
    assert "Set data.classes=[a,b,...]" in capsys.readouterr().out
    for kind in ("img_dir", "ann_dir"):
        shutil.copy(tmp_path / kind / "train/a.png", tmp_path / kind / "train/b.png")
    assert cli.main([*own, "data.classes=[a,b]", "data.groups=b"]) == 2
    assert "none in 'a'" in capsys.readouterr().out
    assert cli.main([*own, "data.classes=[a,b]", "data.groups=."]) == 0
    assert "note    data      data.groups holds out 1 of 2 training images, all of a\n" in capsys.readouterr().out
    assert cli.main([*own, "data.classes=[a,b]"]) == 0
    assert "every mask fits its image and the 2 classes" in capsys.readouterr().out
    Image.new("I;16", (8, 6)).save(tmp_path / "img_dir" / "val" / "a.png")
    assert cli.main([*own, "data.classes=[a,b]"]) == 2
    assert "8 bits per channel, got mode I;16" in capsys.readouterr().out
    Image.new("RGB", (8, 6)).save(tmp_path / "img_dir" / "val" / "a.png")
    Image.new("L", (6, 8)).save(tmp_path / "ann_dir" / "val" / "a.png")
    assert cli.main([*own, "data.classes=[a,b]"]) == 2
    assert "the size of its image a.png, 8x6" in capsys.readouterr().out


def test_a_search_says_that_it_measures_before_it_does_and_leaves_nothing_if_that_is_refused(
    tmp_path, capsys, monkeypatch
):
    def refused(*_: object) -> None:
        assert capsys.readouterr().out.endswith("Measuring how long a training takes, before the search begins.\n")
        raise InputError("model.weights", "those of this network", "others")

    monkeypatch.setattr("autoseg.cli.jobs.search.seconds_per_training", refused)
    small = ["executor=inline", "device=cpu", "data.count=[8,2,2]", f"data.cache_dir={tmp_path}"]
    assert cli.main(["search", *small, f"run_dir={tmp_path / 'run'}"]) == 2
    assert "got others" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
