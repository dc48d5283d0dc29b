"""Every command that README, docs and the help texts print can be typed: its keys, options and names exist."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoseg.cli import main
from autoseg.cli.configuration import compose, stored
from autoseg.config import CompareConfig, RetrainConfig, SearchConfig
from autoseg.losses import save_loss
from autoseg.metrics import base
from autoseg.store.run_folder import RunFolder
from autoseg.surrogates import SurrogateLoss, build_space

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("search", "compare", "retrain", "trust")  # those with --cfg
LINE = re.compile(rf"(?:^|: |--no-python )autoseg ((?:{'|'.join(COMMANDS)}) .+)")
OPEN = re.compile(r"\.\.\.|(?<!-)…|^compare like=RUN$")  # `data=…` leaves something open, a run's `NAME-…` does not
KINDS = {"search": SearchConfig, "compare": CompareConfig, "retrain": RetrainConfig}
OWN_METRICS = """
import autoseg
from autoseg.metrics.base import registry

for name in ("f2", "jaccard2", "cldice"):
    autoseg.register_metric(type(name, (registry()["dice"],), {"name": name, "summary": name}))
"""


def printed() -> dict[str, list[str]]:
    """The words of each command, by where it stands."""
    texts = []
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        whole = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", whole, re.DOTALL | re.MULTILINE)
        texts += [(page.name, text) for language, text in blocks if language in ("", "bash")]
        texts += [(page.name, text.replace("\n", " ")) for text in re.findall(r"`(autoseg [^`]+)`", whole)]
    for command in (*COMMANDS, "lists"):
        of_one = importlib.import_module(f"autoseg.cli.{command}").HELP
        whole = "\n".join(of_one.values()) if isinstance(of_one, dict) else of_one
        lines = re.findall(r"^  (autoseg (?:.*\\\n)*.*)", whole, re.MULTILINE)  # not those of usage:
        texts.append(("--help", "\n".join(lines)))
    found = {}
    for page, text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            if (match := LINE.search(line)) and not OPEN.search(match[1]):
                words = shlex.split(match[1].replace("-…", "-1"), comments=True)
                found[f"{page}: {' '.join(words)}"] = words
    return found


PRINTED = printed()


@pytest.fixture(scope="module")
def typed_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files and runs that the commands name."""
    folder, space = tmp_path_factory.mktemp("typed"), build_space("default", metric="miou")
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "my_metrics.py").write_text(OWN_METRICS)
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", results, re.DOTALL | re.MULTILINE)
    (folder / "wce-mix.yaml").write_text(text)
    named = {run for words in PRINTED.values() for run in re.findall(r"\bruns/[\w-]+|\bRUN\b", " ".join(words))}
    for number, (kind, run) in enumerate([("search", run) for run in sorted(named)] + [(kind, kind) for kind in KINDS]):
        losses = ["losses=[ce,lovasz]"] if kind == "compare" else []
        config = compose.compose(kind, KINDS[kind], ["data=camvid", *losses])
        RunFolder.create(folder / run, stored.plain(config), {}).close()
        loss = SurrogateLoss.from_theta("miou", [0.3 + number / 100] * space.dim, num_classes=11, space=space)
        save_loss(loss, folder / run / "loss.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
        patch.chdir(folder)
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("where", PRINTED)
def test_what_is_printed_is_taken(where: str, typed_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, *words = PRINTED[where]
    places = {"resume=RUN": f"resume={command}", "reference=NAME": "reference=ce"}  # of a run of its own kind
    assert main([command, *(places.get(word, word) for word in words), "--cfg"]) == 0, capsys.readouterr().err


def test_commands_are_found() -> None:
    """In every place where there are some."""
    pages = {where.partition(":")[0] for where in PRINTED}
    assert len(PRINTED) > 60 and {"README.md", "results.md", "retrain.md", "soft_labels.md", "--help"} <= pages
