"""`autoseg search` as a user runs it: from an empty folder to a found loss, interrupted, resumed, mistyped."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from commands import autoseg, start
from PIL import Image

from autoseg.cli import main
from autoseg.cli.configuration.repeat import command_for
from autoseg.config import DataConfig
from autoseg.data import open_data
from autoseg.errors import InputError
from autoseg.evidence.trust.rankings import AGAIN, FULL, PROXY
from autoseg.losses import LossCard, save_loss
from autoseg.store.ledger import Ledger
from autoseg.store.run_files import read_config
from autoseg.surrogates import SurrogateLoss, build_space

TINY = [
    "experiment=smoke",
    "data.count=[8,2,2]",
    "proxy.iters=2",
    "proxy.batch_size=2",
    "proxy.size=[32,32]",
    "proxy.crop=32",
    "data.cache_dir=cache",
]


NONE = {"tracker": {"tensorboard": False, "wandb": "disabled", "wandb_project": "autoseg"}}  # tracker=none


def rewards(run: Path) -> list[tuple[str, int, float]]:
    with Ledger(run / "trials.db", build_space("default", metric="miou").names, read_only=True) as ledger:
        return [(r.name, r.seed, r.reward) for study in ("search", "confirm") for r in ledger.records(study)]


def trainings(told: str) -> int:
    return len(re.findall(r" seed \d", told))


def scored(run: Path) -> dict[tuple[str, str], float]:
    """Scores of a check of a proxy, by training and loss."""
    with (run / "trust.csv").open() as file:
        return {(row["training"], row["loss"]): float(row["miou"]) for row in csv.DictReader(file)}


@pytest.mark.slow
def test_from_an_empty_folder_to_a_found_loss_and_a_checked_proxy(tmp_path, monkeypatch, capsys):
    done = autoseg(tmp_path, "search", *TINY)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert {path.stem for path in (run / "figures").iterdir()} == {"reward", "curves", "surfaces", "confirmation"}
    card = LossCard.load(run / "loss.json")
    data = open_data(DataConfig(count=[8, 2, 2], cache_dir=str(tmp_path / "cache")), (32, 32))
    assert card.confirmed and card.num_classes == 7
    assert {key: card.provenance[key] for key in card.provenance if key not in ("candidate", "run", "behind")} == {
        "target": "miou", "model": "tiny", "controller": "gp", "seed": 0, "proxy": read_config(run)["proxy"],
        "versions": {name: version(name) for name in ("autoseg", "torch", "onedl-mmsegmentation")},
        "data": {
            "name": "builtin",
            "fingerprint": data.fingerprint,
            "classes": ["ground", "marble", "stripes", "checks", "ring", "crack", "seed"],
        },
    }  # fmt: skip
    assert (run / "log.txt").stat().st_size > 0 and list((run / "tensorboard").iterdir())
    assert read_config(run)["proxy"]["iters"] == 2
    odd, *lines = done.stdout.splitlines()
    assert odd.startswith("warning: no held-out image has a pixel of marble, ring: finding it earns nothing")
    assert lines[0].startswith("Measuring how long") and lines[1].startswith("Searching a loss for miou")
    assert "Expected to take about" in lines[3]
    assert any(line.startswith("ce ") for line in lines)
    assert "\x1b" not in done.stdout

    (command,) = (line.partition("autoseg ")[2] for line in lines if ": autoseg export " in line)
    exported = autoseg(tmp_path, *shlex.split(command))
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "found_loss.py").is_file()

    again = autoseg(tmp_path, "search", f"resume=runs/{run.name}")  # nothing left to do is not an error
    assert again.returncode == 0, again.stderr
    assert "Expected to take" not in again.stdout  # nothing is measured for that

    monkeypatch.chdir(tmp_path)
    few = ["candidates=2", "full.iters=4", "run_dir=checked", "executor=inline"]
    assert main(["trust", f"runs/{run.name}", 'cheaper=["proxy.iters=1"]', *few]) == 0
    told, found = capsys.readouterr().out, scored(tmp_path / "checked")
    assert trainings(told) == 26 and "Whether the proxy ranks losses" in told  # 5 rivals, then 7 losses, thrice
    assert Counter(training for training, _ in found) == dict.fromkeys((PROXY, AGAIN, "proxy.iters=1", FULL), 7)
    assert "proxy of 2 iterations" in (tmp_path / "checked" / "trust.md").read_text()
    assert (tmp_path / "checked" / "figures" / "trust.png").read_bytes().startswith(b"\x89PNG")
    # The first candidate is the identity, which is a rival; the search has trained it in the same way.
    assert found[PROXY, "identity"] == pytest.approx(rewards(run)[0][2]) and (PROXY, "candidate 0.0") not in found
    assert main(["trust", "resume=checked", 'cheaper=["proxy.iters=1","proxy.lr=0.1"]']) == 0
    assert trainings(capsys.readouterr().out) == 7  # the new one alone
    again = scored(tmp_path / "checked")
    assert {key: again[key] for key in found} == found and again.keys() - found.keys() == {
        ("proxy.lr=0.1", loss) for _, loss in found
    }


@pytest.mark.slow
def test_interrupted_and_resumed_equals_never_stopped(tmp_path):
    """By Ctrl-C and as a cluster stops a job, and whatever the number of workers."""
    whole = autoseg(tmp_path, "search", *TINY, "executor=inline", "run_dir=whole")
    assert whole.returncode == 0, whole.stderr
    log, two = tmp_path / "cut" / "log.txt", ["resume=cut", "executor=processes", "workers=2"]
    starts = (signal.SIGINT, " 1/", [*TINY, "executor=inline", "run_dir=cut"]), (signal.SIGTERM, " 4/", two)
    for stop, reached, words in starts:
        process, deadline = start(tmp_path, "search", *words), time.monotonic() + 120
        while not (log.exists() and reached in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(stop)
        stopped = process.wait(60)
        assert stopped.returncode == 130, stopped
        assert "autoseg search resume=cut" in stopped.stdout and "Traceback" not in stopped.stderr
    resumed = autoseg(tmp_path, "search", *two, "tracker=none")
    assert resumed.returncode == 0, resumed.stderr
    ran = read_config(tmp_path / "whole")
    ran["executor"]["name"] = "processes"
    assert read_config(tmp_path / "cut") == {**ran, "run_dir": "cut", "workers": "2", **NONE}
    assert rewards(tmp_path / "cut") == rewards(tmp_path / "whole")
    assert LossCard.load(tmp_path / "cut" / "loss.json").theta == LossCard.load(tmp_path / "whole" / "loss.json").theta


@pytest.mark.slow
def test_interrupted_while_it_imports_leaves_nobody_behind(tmp_path):
    process = subprocess.Popen(
        [Path(sys.executable).with_name("autoseg"), "search", *TINY, "workers=2"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    parent, workers = psutil.Process(process.pid), []
    while len(workers) < 2 and process.poll() is None:
        workers = parent.children()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err == "autoseg: interrupted\n"
    assert len(workers) == 2 and psutil.wait_procs(workers, timeout=30)[1] == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_sweep_searches_once_for_each_whatever_becomes_of_the_others(tmp_path):
    swept = ["metric=miou,gacc", "proxy.lr=1e30,0.01"]  # with the first of these every training diverges
    done = autoseg(tmp_path, "search", "-m", *TINY, "executor=inline", "search.rounds=1", *swept)
    assert done.returncode == 1
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "runs").iterdir()) == ["gacc", "gacc", "miou", "miou"]
    assert done.stderr.count("No candidate completed") == 2 and done.stdout.count("The loss: ") == 2
    assert "[4/4] metric=gacc proxy.lr=0.01" in done.stdout
    assert "2 of 4 searches failed, each as it says above: [1/4] metric=miou proxy.lr=1e+30, [3/4] " in done.stdout


@pytest.mark.parametrize("late", [["metric=miou,miuo"], ["search.floor='miou>=0.9*cee',null"], ["space=default,papr"]])
def test_a_sweep_whose_last_search_is_wrong_does_not_begin(late, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", "-m", *TINY, f"data.cache_dir={tmp_path}/cache", *late]) == 2
    assert "Did you mean" in (told := capsys.readouterr()).err and told.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("wrong", ["metric=miuo", "space=papr", "controller.options.lrr=1"])
def test_cfg_prints_nothing_that_a_search_would_refuse(wrong, capsys):
    assert main(["search", "data=folder", wrong, "--cfg"]) == 2  # data.root is not asked for
    assert (told := capsys.readouterr()).out == "" and told.err
    assert main(["search", "data=folder", "--cfg"]) == 0


def test_wrong_input_found_after_the_workers_were_started_ends_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    workers, others = [], psutil.Process().children()  # of other tests, such as a W&B service

    def build(*args: object, **options: object) -> None:
        workers.extend(child for child in psutil.Process().children() if child not in others)
        raise InputError("space", "one", "none")

    monkeypatch.setattr("autoseg.cli.jobs.search.space_of", build)
    assert main(["search", *TINY, f"data.cache_dir={tmp_path}/cache", "workers=2"]) == 2
    assert capsys.readouterr().err == "autoseg: space: expected one, got none.\n"
    assert len(workers) == 2 and psutil.wait_procs(workers, timeout=30)[1] == [] and list(tmp_path.glob("runs/*")) == []


def test_what_only_a_worker_sees_leaves_no_run_also_behind_a_link(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    words = ["executor=inline", "run_dir=run", "model.weights=other.pth"]
    assert main(["search", *TINY, f"data.cache_dir={tmp_path}/cache", *words]) == 2
    assert "model.weights" in capsys.readouterr().err
    assert list((tmp_path / "disk").iterdir()) == [] and (tmp_path / "run").is_symlink()


def kept_run(folder: Path) -> Path:
    """A run folder with its configuration and the checkpoint after two rounds, made without training anything."""
    from autoseg.cli.configuration.compose import compose
    from autoseg.cli.configuration.stored import plain
    from autoseg.cli.jobs.search import build, fingerprint
    from autoseg.config import SearchConfig
    from autoseg.store.run_folder import RunFolder

    config = compose("search", SearchConfig, [*TINY, f"data.cache_dir={folder}/cache"])
    with RunFolder.create(folder / "run", plain(config), fingerprint(config, build(config))) as run:
        run.save_checkpoint(2, {})
    return folder / "run"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["metric=mio"], ["metric", "Did you mean miou"]),
        (["metric=miou+0.5*"], ["metric"]),
        (["space=papr"], ["space", "paper"]),
        (["controller=ppo", "controller.options.lrr=1"], ["controller option", "lr"]),
        (["data=folder"], ["data.root"]),
        (["data=folder", "data.root=nowhere", "data.classes=[a,b]"], ["nowhere"]),
        (["model.config=nowhere.py"], ["nowhere.py"]),
        (["model.weights=nowhere.pth"], ["nowhere.pth"]),
        (["device=cuda:9"], ["device"]),
        (["device=gpu"], ["device"]),
        (["workers=many"], ["workers"]),
        (["search.floor=\"miou is good\""], ["search.floor"]),
        (["search.floor=\"mio>=0.5\""], ["search.floor"]),
        (["search.confirm.rivals=[cee]"], ["cee", "ce"]),
        (["resume=nowhere"], ["resume: expected the folder of a run", "nowhere"]),
        (["-m", "proxy.lr=interval(0.1,1)"], ["proxy.lr", "the values of a sweep"]),
        (["-m", "data=glob(*)"], ["data", "the values of a sweep"]),
        (["-m", "seed=range(1,1)", "--cfg"], ["seed", "the values of a sweep"]),
        (["search.rounds=1", "run_dir=full"], ["run_dir", "new or empty folder, got full."]),
        (["proxy.size=[0,0]"], ["proxy.size", "at least 16"]),
        (["proxy.batch_size=1"], ["proxy.batch_size", "at least 2", "Batch norm"]),
    ],
)  # fmt: skip
def test_wrong_input_is_one_message_and_leaves_no_run(typed, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    monkeypatch.chdir(tmp_path)
    start = [*TINY, f"data.cache_dir={tmp_path}/cache", "executor=inline"]
    arguments = typed if typed[0].startswith("resume") else [*start, *typed]
    assert main(["search", *arguments]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert list(tmp_path.glob("runs/*")) == []
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["seed=3"], ["seed", "0", "3"]),
        (["proxy.iters=5"], ["proxy.iters", "2", "5"]),
        (["metric=biou"], ["metric", "miou"]),
        (["model=deeplabv3plus_r18"], ["model"]),
        (["experiment=builtin"], ["experiment"]),
        (["search.rounds=1", "executor=inline"], ["search.rounds", "at least 2, which were begun"]),
    ],
)
def test_a_resumed_run_refuses_to_become_another_search(typed, words, tmp_path, capsys):
    run = kept_run(tmp_path)
    before = (run / "config.yaml").read_text()
    assert main(["search", f"resume={run}", *typed]) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    assert (run / "config.yaml").read_text() == before


def test_a_run_of_a_later_version_is_one_message(tmp_path, capsys):
    run = kept_run(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["proxy"]["teleport"] = config["dream"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for command in (["search", f"resume={run}"], ["trust", str(run)]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("autoseg: dream, proxy.teleport: expected no such key")


def test_what_a_resumed_run_may_change(tmp_path, capsys):
    run = kept_run(tmp_path)
    free = ["workers=1", "device=cpu", "tracker=none", "search.rounds=9", "executor=inline"]
    assert main(["search", f"resume={run}", *free, "--cfg"]) == 0
    out = capsys.readouterr().out
    assert "rounds: 9" in out and "tensorboard: false" in out and "iters: 2" in out


def test_a_run_goes_on_when_the_loss_it_began_with_is_gone_but_not_with_other_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = build_space("default", metric="miou")
    save_loss(SurrogateLoss.from_theta("miou", [0.3] * space.dim, num_classes=2, space=space), "first.json")
    mask = Image.new("L", (32, 32))
    mask.paste(1, (0, 0, 16, 32))
    for number, split in enumerate(["train"] * 6 + ["val"] * 2):
        for kind, image in (("img_dir", mask.convert("RGB")), ("ann_dir", mask)):
            Path("photos", kind, split).mkdir(parents=True, exist_ok=True)
            image.save(Path("photos", kind, split, f"{number}.png"))
    typed = ["data=folder", "data.root=photos", "data.classes=[road,car]", "model=tiny", "proxy=builtin", *TINY[2:]]
    short = ["tracker=none", "executor=inline", "search.rounds=1", "search.candidates=1", "search.confirm.seeds=0"]
    assert main(["search", *typed, *short, "run_dir=run", "search.start=first.json"]) == 0
    Path("first.json").unlink()
    config, edited = Path("run/config.yaml").read_text(), Path("photos/ann_dir/train/3.png")
    mask.rotate(180).save(edited)
    capsys.readouterr()
    assert main(["search", "resume=run", "search.rounds=2"]) == 2
    images = f"the images, masks and classes of {tmp_path / 'photos'} as when the run began"
    assert capsys.readouterr().err == (
        f"autoseg: data: expected {images}, got others. They were changed, or are read otherwise here: put them back, "
        "or start a new run.\n"
    )
    assert Path("run/config.yaml").read_text() == config
    mask.save(edited)
    Path("photos").rename("elsewhere")  # the same images in another place
    assert main(["search", "resume=run", "search.rounds=2"]) == 2
    assert main(["search", "resume=run", "search.rounds=2", "data.root=elsewhere"]) == 0
    with Ledger(Path("run/trials.db"), space.names, read_only=True) as ledger:
        first, second = ledger.records("search")
    assert first.theta == (0.3,) * space.dim and second.round == 1


def test_a_found_loss_among_the_rivals_stays_the_one_it_was(tmp_path, monkeypatch, capsys):
    """Its file may be of a run that goes on, or lie elsewhere than the run is moved to."""
    monkeypatch.chdir(tmp_path)
    space = build_space("default", metric="miou")

    def write(number: float) -> None:
        save_loss(SurrogateLoss.from_theta("miou", [number] * space.dim, num_classes=2, space=space), "other.json")

    write(0.3)
    short = ["tracker=none", "executor=inline", "search.rounds=1", "search.candidates=1"]
    confirm = ["search.confirm.top=1", "search.confirm.rivals=[other.json,2*other.json]"]
    assert main(["search", *TINY, *short, *confirm, "run_dir=run", "search.confirm.seeds=2"]) == 0
    assert main(["search", *TINY, *short, *confirm, "run_dir=stays/run", "search.confirm.seeds=1"]) == 0
    write(0.4)
    Path("moved").mkdir()
    shutil.move("stays/run", "moved/run")
    monkeypatch.chdir("moved")
    capsys.readouterr()
    assert main(["search", "resume=run", "search.confirm.seeds=2"]) == 0
    (file,) = Path("run/cards").iterdir()
    assert f"losses=[{file},2*{file},run]" in capsys.readouterr().out
    assert f"search.confirm.rivals=[{file},2*{file}]" in command_for(read_config(Path("run")), Path("run"))
    both = [tmp_path / "run", tmp_path / "moved/run"]
    ledgers = [Ledger(run / "trials.db", space.names, read_only=True) for run in both]
    one, other = ({(r.name, r.seed): r.scores for r in ledger.records("confirm")} for ledger in ledgers)
    assert one == other and {name for name, _ in one} >= {"other.json", "2*other.json"}


def test_searches_of_a_sweep_may_have_folders_of_their_own(capsys):
    both = ["search", "-m", *TINY, "seed=1,2", "--cfg"]
    assert main([*both, "run_dir=runs/${metric}-${seed}"]) == 0
    assert "run_dir: runs/miou-1" in (said := capsys.readouterr().out) and "run_dir: runs/miou-2" in said
    assert main([*both, "run_dir=runs/one"]) == 2
    assert "run_dir: expected another for each search of -m, got runs/one." in capsys.readouterr().err
