"""Exported losses are the loss: same values and gradients without autoseg, same card, a config that loads."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_runs

from autoseg.cli import main
from autoseg.errors import InputError
from autoseg.evidence.export.candidate import candidate_card
from autoseg.evidence.export.formats import as_files, as_program, as_python
from autoseg.evidence.export.gather import Gathered, _unqualified
from autoseg.evidence.report.read import SearchRun, open_run
from autoseg.losses import LossCard, load_loss, searched_loss
from autoseg.metrics import searchable
from autoseg.metrics.base import _REGISTRY
from autoseg.surrogates import build_space

# Runs without the .pth files of site-packages (an editable autoseg is one), and refuses to import autoseg or mmseg.
ALONE = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("autoseg", "mmseg", "mmcv", "mmengine", "hydra", "optuna", "scipy", "kornia"):
            raise ModuleNotFoundError(f"an exported file imported {name}")
sys.meta_path.insert(0, Blocked())
sys.path.append(sys.argv[2])
import torch
sys.path.insert(0, sys.argv[1])
import importlib
saved = torch.load(sys.argv[1] + "/batch.pt", weights_only=True)
out = []
for name, logits in [(name, logits) for name in sys.argv[3:] for logits in (saved["logits"], saved["logits"].double())]:
    logits = logits.clone().requires_grad_()
    value = importlib.import_module(name).build_loss(num_classes=4)(logits, saved["labels"])
    value.backward()
    out.append([value.item(), logits.grad.abs().sum().item()])
assert not {"autoseg", "mmseg"} & set(sys.modules)
print(json.dumps(out))
"""


def card_of(metric: str, space: str, seed: int = 0) -> LossCard:
    bound = build_space(space, metric=metric)
    theta = np.random.default_rng(seed).random(bound.dim)
    return LossCard.of(searched_loss(bound, theta, 4, tolerance=2, drop_background=True))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (2, 12, 11), generator=generator)
    labels[:, :2] = 255
    return {"logits": 3 * torch.randn(2, 4, 12, 11, generator=generator), "labels": labels}


def values(card: LossCard) -> list[list[float]]:
    out = []
    for logits in (batch()["logits"], batch()["logits"].double()):
        logits = logits.clone().requires_grad_()
        value = card.build()(logits, batch()["labels"])
        value.backward()
        assert logits.grad is not None
        out.append([value.item(), logits.grad.abs().sum().item()])
    return out


def run_alone(folder: Path, *names: str) -> list[list[float]]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(folder), str(Path(torch.__file__).parent.parent), *names],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_python_file_alone_gives_the_same_values(tmp_path):
    cards = {"found_loss": card_of("miou", "default"), "a_sum": card_of("miou+0.5*bf1", "paper")}
    for name, card in cards.items():
        (tmp_path / f"{name}.py").write_text(as_python(card, name))
    torch.save(batch(), tmp_path / "batch.pt")
    expected = [pair for card in cards.values() for pair in values(card)]
    for ours, theirs in zip(expected, run_alone(tmp_path, *cards), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-6)


def exported(card: LossCard, num_classes: int = 4) -> torch.nn.Module:
    """The loss of the exported file, which is not written."""
    module = sys.modules["found_loss_in_memory"] = type(sys)("found_loss_in_memory")  # dataclasses look it up
    exec(compile(as_python(card, "x"), "x.py", "exec"), module.__dict__)
    loss: torch.nn.Module = sys.modules.pop("found_loss_in_memory").__dict__["build_loss"](num_classes=num_classes)
    return loss


@pytest.mark.parametrize("metric", searchable())
@pytest.mark.parametrize("space", ["paper", "default", "paper-unconstrained"])
def test_every_metric_can_be_exported(metric, space):
    card = card_of(metric, space, seed=1)
    assert exported(card)(**batch()).item() == pytest.approx(values(card)[0][0], rel=1e-6)


@pytest.mark.parametrize("said", ['x"""\nraise SystemExit(3)\n"""', "x\nraise SystemExit(3)", "\\"])
def test_what_a_card_says_does_not_become_code(said: str, tmp_path: Path) -> None:
    card = card_of("miou", "default")
    card = replace(card, provenance={"target": said}, space={**card.space, "name": said})
    for format in ("python", "mmseg"):
        for path, content in as_files(card, format, tmp_path / f"{format}.py").items():
            path.write_text(str(content))
        runpy.run_path(str(tmp_path / f"{format}.py"))


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ((2, 4, 8, 9), torch.zeros(1, 8, 9).long(), r"labels: expected integer class ids of shape \(2, 8, 9\)"),
        ((2, 4, 8, 9), torch.zeros(2, 1, 9).long(), r"labels: expected integer class ids of shape \(2, 8, 9\)"),
        ((2, 3, 8, 9), torch.zeros(2, 8, 9).long(), r"logits: expected float of shape \(N, 4, H, W\)"),
        ((2, 5, 8, 9), torch.zeros(2, 8, 9).long(), r"logits: expected float of shape \(N, 4, H, W\)"),
        ((2, 4, 8, 9), torch.full((2, 8, 9), 4), r"labels: expected class ids 0 to 3 or ignore_index 255, got also 4"),
        ((2, 4, 8, 9), torch.full((2, 4, 8, 9), 0.25), r"labels: expected integer class ids .* 8, 9\)\.$"),
        ((2, 4, 8, 9), torch.zeros(2, 8, 9), r"labels: .* got torch\.float32 .*\. Pass labels\.long\(\)\.$"),
        ((2, 4, 8, 9), torch.zeros(2, 4, 8, 9).int(), r"labels: .*\. If they are one-hot, pass labels\.argmax\(1\)\.$"),
        (
            (2, 4, 8, 9),
            torch.zeros(2, 8, 9, 4).int(),
            r"labels: .*\. If they are one-hot, pass labels\.argmax\(-1\)\.$",
        ),
        ((2, 4, 8, 9), torch.zeros(2, 1, 8, 9), r"labels: .*\. Pass labels\.squeeze\(1\)\.long\(\)\.$"),
        (
            (2, 4, 8, 9),
            torch.zeros(2, 16, 18).long(),
            r"labels: .*\. Upsample the logits: F\.interpolate\(logits, labels",
        ),
    ],
)
def test_bad_input_is_refused_by_the_exported_file_too(logits, labels, words):
    with pytest.raises(ValueError, match=words):
        exported(card_of("miou", "default"))(torch.zeros(logits), labels)


@pytest.mark.parametrize("several", [[torch.zeros(2, 4, 8, 9)] * 2, {"out": torch.zeros(2, 4, 8, 9)}])
def test_several_outputs_are_refused_by_the_exported_file_too(several: Any) -> None:
    with pytest.raises(ValueError, match=r"logits: expected a tensor, got (list|dict)\. Give the loss one"):
        exported(card_of("miou", "default"))(several, torch.zeros(2, 8, 9).long())


def test_the_exported_file_compiles_as_one_graph():
    """Labels are looked at only where nothing is compiled, as in the loss itself."""
    card, tensors = card_of("miou", "default"), batch()
    loss = exported(card)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert torch.equal(compiled(tensors["logits"], tensors["labels"]), loss(tensors["logits"], tensors["labels"]))


def test_autocast_is_asked_only_of_devices_that_every_torch_knows():
    """Torch before 2.5 refuses to switch it off for an Apple GPU."""
    guard = type(exported(card_of("miou", "default"))).forward.__globals__["_without_autocast"]
    assert isinstance(guard("cpu"), torch.autocast) and isinstance(guard("cuda"), torch.autocast)
    assert isinstance(guard("mps"), contextlib.nullcontext)


def test_one_logit_for_a_foreground_is_refused_by_the_exported_file_too():
    said = r"torch\.cat\(\[torch\.zeros_like\(z\), z\], 1\)"
    card = card_of("miou", "default")
    with pytest.raises(ValueError, match=rf"num_classes: expected two classes or more, got 1\. .*{said}"):
        exported(card, num_classes=1)
    with pytest.raises(ValueError, match=rf"logits: .* got .*\(2, 1, 8, 9\)\. .*{said}"):
        exported(card, num_classes=2)(torch.zeros(2, 1, 8, 9), torch.zeros(2, 8, 9).long())


@pytest.mark.parametrize("metric", searchable())
def test_the_exported_file_takes_the_volumes_that_the_loss_takes(metric):
    card = card_of(metric, "paper")
    volumes = {"logits": batch()["logits"].unflatten(2, (3, 4)), "labels": batch()["labels"].unflatten(1, (3, 4))}
    if metric in ("biou", "bf1", "boundary_iou"):
        for loss, error in ((exported(card), ValueError), (card.build(), InputError)):
            with pytest.raises(
                error, match=r"got volumes\. Give the slices .*logits\.movedim\(2, 1\)\.flatten\(0, 1\)"
            ):
                loss(**volumes)
    else:
        assert exported(card)(**volumes) == exported(card)(**batch())


def test_the_exported_file_knows_nothing_of_autoseg():
    text = as_python(card_of("miou", "default"), "x")
    assert "import autoseg" not in text and "from autoseg" not in text
    assert "numpy" not in text


LATER = {"Self", "TypeAlias", "UnionType", "cache", "pairwise", "removeprefix", "strict"}  # than Python 3.8


@pytest.mark.parametrize("metric", searchable())
def test_the_exported_file_is_one_for_old_environments_too(metric: str) -> None:
    """Those in which networks are trained are older than ours. What is evaluated is looked at, not annotations."""
    tree = ast.parse(as_python(card_of(metric, "default"), "x"), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    names = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name)}
    names |= {part.attr for part in ast.walk(tree) if isinstance(part, ast.Attribute)}
    names |= {str(part.arg) for part in ast.walk(tree) if isinstance(part, ast.keyword)}
    assert not names & LATER
    subscripted = {ast.unparse(part.value) for part in ast.walk(tree) if isinstance(part, ast.Subscript)}
    assert not subscripted & {"dict", "list", "tuple", "type", "Callable"}


def test_a_head_of_mmsegmentation_takes_the_exported_file_by_its_name(tmp_path, monkeypatch):
    from mmseg.registry import MODELS

    card = card_of("miou+0.5*bf1", "default")
    (tmp_path / "the_found.py").write_text(as_python(card, "the_found"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="begins with loss_"):
        MODELS.build(dict(type="the_found.DecodeLoss", loss_name="found"))
    loss = MODELS.build(dict(type="the_found.DecodeLoss", loss_weight=0.4))
    assert loss.loss_name.startswith("loss_")  # a head adds up what is named so
    given = batch()
    value = loss(given["logits"], given["labels"], weight=None, ignore_index=255, avg_factor=None)
    assert value.item() == pytest.approx(0.4 * values(card)[0][0], rel=1e-6)
    with pytest.raises(ValueError, match="pixel weights"):
        loss(given["logits"], given["labels"], weight=torch.ones(2, 12, 11))


def test_mmseg_config_loads_and_finds_its_card(tmp_path):
    """As it is, and as it says itself that it is used: on a config whose heads have other losses."""
    from mmengine.config import Config
    from mmseg.registry import MODELS

    import autoseg.mmseg  # noqa: F401  (what the config's custom_imports does)

    card = card_of("biou", "default")
    for path, text in as_files(card, "mmseg", tmp_path / "found.py").items():
        path.write_text(str(text))
    config = Config.fromfile(tmp_path / "found.py", import_custom_modules=False)
    assert config.model.decode_head.loss_decode.type == "AutoSegLoss"
    assert load_loss(config.model.decode_head.loss_decode.loss).metric == "biou"

    other = "dict(type='Head', channels=8, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False))"
    (tmp_path / "mine.py").write_text(f"model = dict(decode_head={other}, auxiliary_head={other})\n")
    text = (tmp_path / "found.py").read_text()
    text = text.replace('# _base_ = ["deeplabv3plus_....py"]', '_base_ = ["mine.py"]')
    (tmp_path / "found.py").write_text(text.replace("# model[", "model["))
    model = Config.fromfile(tmp_path / "found.py", import_custom_modules=False).model
    batch = torch.randn(1, 4, 12, 12), torch.randint(0, 4, (1, 12, 12))
    loss = card.build(4)(*batch)
    for head, weight in ((model.decode_head, 1.0), (model.auxiliary_head, 0.4)):
        assert head.channels == 8
        assert MODELS.build(head.loss_decode)(*batch).item() == pytest.approx(weight * loss.item(), rel=1e-6)


def test_the_command_writes_each_format(tmp_path, monkeypatch, capsys):
    card = card_of("miou+0.5*bf1", "default")
    run = tmp_path / "run"
    card.save(run / "loss.json")
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run)]) == 0
    assert LossCard.load(tmp_path / "miou_0_5_bf1_loss.json") == card
    assert main(["export", str(run / "loss.json"), "--format", "python", "-o", "found_loss.py"]) == 0
    assert "class FoundLoss" in (tmp_path / "found_loss.py").read_text()
    assert main(["export", str(run), "--format", "mmseg", "-o", "cfg.py"]) == 0
    assert {"cfg.py", "cfg.json"} <= {path.name for path in tmp_path.iterdir()}
    assert "not confirmed" in capsys.readouterr().out
    card_of("0.5*miou+0.5*biou", "default").save(tmp_path / "halves.json")
    assert main(["export", "halves.json", "--format", "python"]) == 0
    assert (tmp_path / "metric_0_5_miou_0_5_biou_loss.py").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "does not exist"),
        (["empty"], "loss.json"),
        (["run", "--format", "onnx"], "one of json, mmseg, python"),
        (["run", "-o", "missing/x.json"], "existing folder"),
        (["run", "--format", "python", "-o", "my loss.py"], "a name that Python can import"),
        (["run", "--format", "python", "-o", "class.py"], "a name that Python can import"),
        (["run", "--format", "mmseg", "-o", "x.json"], "-o: expected a config in Python"),
        (["run", "-o", "/proc/loss.json"], "-o: expected a file that can be written"),
        (["cut"], "cut"),
    ],
)
def test_wrong_input(arguments, words, tmp_path, monkeypatch, capsys):
    card_of("miou", "paper").save(tmp_path / "run" / "loss.json")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "loss.json").write_text((tmp_path / "run" / "loss.json").read_text()[:100])
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"num_classes": 10**9}, {"options": {"tolerance": 10**8}}])
def test_a_program_that_no_memory_would_do_for_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--format: expected json, python or mmseg for so many classes"):
        as_program(replace(card_of("miou", "paper"), **change))


@pytest.mark.parametrize("name", ["camvid/miou", "asl2021/bf1", "identity/dice"])
def test_a_known_loss_is_exported_by_its_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", name, "--format", "python", "-o", "known.py"]) == 0
    assert "note" not in capsys.readouterr().out
    source = Path("known.py").read_text()
    assert f"known as {name}" in source.splitlines()[0]
    made = runpy.run_path("known.py")["build_loss"](4)
    expected = float(load_loss(name, num_classes=4)(**batch()))
    assert made(**batch()).item() == pytest.approx(expected, abs=1e-6)
    assert main(["export", name]) == 0
    assert float(load_loss(f"{name.split('/')[1]}_loss.json", num_classes=4)(**batch())) == expected


def test_a_config_takes_no_other_file_s_name_for_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cfg.json").write_text('{"mine": 1}')
    export = ["export", "camvid/miou", "--format", "mmseg", "-o"]
    assert main([*export, "cfg.py"]) == 2
    assert "-o: expected a config whose card has a free name, got cfg.json" in capsys.readouterr().err
    assert Path("cfg.json").read_text() == '{"mine": 1}' and not Path("cfg.py").exists()
    assert main([*export, "other.py"]) == main([*export, "other.py"]) == 0  # its own card may be there
    assert main(["export", "identity/dice", "-o", "third.json"]) == 0 and main([*export, "third.py"]) == 2  # another's


def test_gathering_stops_at_what_it_cannot_read():
    with pytest.raises(InputError, match="importable"):
        Gathered("autoseg", {}).add("no_such_module", "x")


OWN = """import autoseg
import torch
{before}

class F2(autoseg.Metric):
    name = summary = "f2"

    def sums(self, p, y, logic):
        return {{"and": logic.total(logic.and_(p, y)), "or": logic.total(logic.or_(p, y)), "label": logic.total(y)}}

    def scores(self, s, ratio):
        return ratio((ALPHA + BETA) * s["and"], s["or"] - s["label"] + s["and"] + BETA * s["label"])
"""


def export_of_own(folder: Path, text: str | bytes, monkeypatch: pytest.MonkeyPatch) -> LossCard:
    """The card of a loss for a user's own metric, in a module of another name each time: sources are kept."""
    name = f"own_{abs(hash(text))}"
    (folder / f"{name}.py").write_bytes(text.encode() if isinstance(text, str) else text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(_REGISTRY, "f2", importlib.import_module(name).F2)
    return card_of("f2", "default")


@pytest.mark.parametrize(
    "before",
    [
        "ALPHA, BETA = 1.0, 4.0",
        "(ALPHA, *_), BETA = [1.0, 2.0], 4.0",
        "ALPHA = 1.0\n\x0c\nBETA = 4.0  # \u2028 and form feeds end no line",
        "from autoseg import *\nALPHA = 1.0\nBETA: float = 4.0",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_all_that_an_own_metric_names_is_copied(
    before: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = OWN.format(before=before)
    if "*\n" in before:
        text = text.replace("(autoseg.Metric)", "(Metric)")
    card = export_of_own(tmp_path, text.encode(encoding), monkeypatch)
    assert exported(card)(**batch()).item() == pytest.approx(values(card)[0][0], rel=1e-6)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("try:\n    ALPHA = 1.0\nfinally:\n    BETA = 4.0", "can all be copied, got ALPHA, BETA"),
        ("from math import *\nALPHA, BETA = 1.0, tau", "can all be copied, got tau"),
        ("ALPHA = 1.0\nBETA = 2.0\nBETA *= 2.0", "each bound once, got BETA in own_"),
    ],
)
def test_what_cannot_be_copied_is_said_instead_of_left_out(
    before: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = export_of_own(tmp_path, OWN.format(before=before), monkeypatch)
    with pytest.raises(InputError, match=words):
        as_python(card, "x")


def test_gathered_definitions_come_after_what_they_need():
    gathered = Gathered("autoseg", {})
    gathered.add("autoseg.surrogates.logic", "CurveLogic")
    body = gathered.body
    order = [body.index(f"class {name}") for name in ("Plane", "Logic", "MapLogic", "CurveLogic")]
    assert order == sorted(order)
    assert "from torch.nn import functional as F" in gathered.imports.splitlines()


def test_only_code_is_rid_of_the_package_it_names() -> None:
    text = """import autoseg as a
class Café(a.Metric):
    'a.Metric stays in a text, b.a.Metric is another'
    names = "ü", a.build_metric, b.a.Metric, a.nothing_of_ours
"""
    names: dict[str, Any] = {}
    plain = _unqualified(text, names)
    assert plain == text.replace("(a.Metric)", "(Metric)").replace(" a.build_metric", " build_metric")
    assert set(names) == {"Metric", "build_metric"}


# ------------------------------------------------------------------------------------------ other candidates of a run


def test_the_winner_as_a_candidate_is_the_runs_own_card(search_run: Path) -> None:
    card = LossCard.load(search_run / "loss.json")
    assert candidate_card(search_run, card.provenance["candidate"]) == card


def test_a_finalist_has_its_scores_with_fresh_seeds(toys: Path) -> None:
    toy_runs.search(toys / "two-finalists", confirm_top=2)
    run = open_run(toys / "two-finalists")
    assert isinstance(run, SearchRun) and run.card is not None
    second = next(row for row in run.result.rows[1:] if row.kind == "candidate")
    card = candidate_card(run.path, second.name.removeprefix("candidate "))
    assert card.theta == list(second.theta or ()) != run.card.theta and card.options == run.card.options
    assert card.confirmed and card.scores["confirm"] == {
        "mean": second.scores,
        "seeds": run.card.scores["confirm"]["seeds"],
    }
    ahead = [row.name for row in run.result.rows if row.kind == "rival" and row.mean > second.mean]
    assert card.provenance["candidate"] == second.name and sorted(card.behind) == sorted(ahead)


def test_any_other_candidate_has_its_score_of_the_search(search_run: Path) -> None:
    run = open_run(search_run)
    assert isinstance(run, SearchRun)
    finalists = {row.name for row in run.result.rows}
    record = next(r for r in run.search if r.name not in finalists and r.state == "complete")
    card = candidate_card(search_run, record.name)
    assert not card.confirmed and card.theta == list(record.theta or ())
    assert card.scores == {"search": {"mean": record.scores, "seeds": [record.seed]}}


def test_what_is_no_candidate_is_refused(search_run: Path, comparison_run: Path) -> None:
    run = open_run(search_run)
    assert isinstance(run, SearchRun)
    (diverged,) = (record.name for record in run.search if record.state == "diverged")
    for name in (diverged, "9.9", "ce", ""):
        with pytest.raises(
            InputError, match=r"--candidate: expected a completed candidate of .*search, as \d\.\d .*got"
        ):
            candidate_card(search_run, name)
    with pytest.raises(InputError, match=r"RUN: expected a search with a loss\.json"):
        candidate_card(comparison_run, "0.0")
