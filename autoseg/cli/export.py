"""`autoseg export`: writes a run's loss as a file that other programs read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli.arguments import IMPORTS, Arguments, code_named, output_file, write_output
from autoseg.errors import InputError, unknown_name
from autoseg.imports import import_modules, resolve_paths
from autoseg.store.run_folder import slug

if TYPE_CHECKING:
    from autoseg.losses import LossCard

HELP = """
Writes the loss a search has found.

usage: autoseg export RUN [--format json|mmseg|python|torch_export] [--candidate NAME] [-o FILE]

  RUN          a run folder, a loss card (loss.json), or a known loss: camvid/miou, identity/biou
  --format     json: the card (default); mmseg: a config for mmsegmentation, the card beside it;
               python: one file for torch alone, or for an mmsegmentation without autoseg;
               torch_export: a program without Python for torch.export.load, torch 2.9 on (CPU), of
               float32 logits and int64 labels, whose ids it does not check
  --candidate  another loss of the run than the one it chose: 3.0 is candidate 3.0 of its table
  imports=     the file of a metric of your own that the loss was searched for: imports=[FILE.py]
  -o FILE      where to, or a folder; default: <metric>_loss.json, _mmseg.py, .py or .pt2 here

  autoseg export runs/NAME --format python -o found_loss.py
  python -c "import found_loss; print(found_loss.build_loss(num_classes=21))"
"""

SUFFIX = {"json": ".json", "mmseg": "_mmseg.py", "python": ".py", "torch_export": ".pt2"}


def run(command: str, argv: list[str]) -> int:
    """Write the file and print where it is."""
    parser = Arguments(command, HELP)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--format", default="json")
    parser.add_argument("--candidate")
    parser.add_argument("-o", dest="file")
    named, words = code_named(command, argv)
    given = parser.parse_args(words)
    if given.format not in SUFFIX:
        raise unknown_name("--format", given.format, SUFFIX)
    from autoseg.evidence.export.formats import as_files  # torch: only once the arguments are right

    import_modules(named[IMPORTS])
    card = _card(given.run, given.candidate)
    which = "" if given.candidate is None else f"_{card.provenance['candidate']}"
    default = re.sub(r"[-. ]", "_", slug(card.target) + which) + "_loss" + SUFFIX[given.format]
    default = f"metric_{default}" if default[0].isdigit() else default  # 0.5*miou+0.5*biou: Python could not import it
    target = output_file(given.file, Path(default))
    files = as_files(card, given.format, target, resolve_paths(named[IMPORTS]))
    for path in files.keys() - {target}:  # not named by the user: only what an earlier export left is replaced
        if path.exists() and not (target.exists() and _is_card(path)):
            hint = "Choose another -o, or move that file away."
            raise InputError("-o", "a config whose card has a free name", f"{path}, which is there already", hint)
    for path, content in files.items():
        write_output(path, content)
        print(f"wrote {path}")
    if not card.confirmed and "known" not in card.provenance:
        print("note: the search has not confirmed this loss with fresh seeds (yet).")
    return 0


def _is_card(path: Path) -> bool:
    from autoseg.losses import LossCard

    try:
        LossCard.load(path)
    except InputError:
        return False
    return True


def _card(run: str, candidate: str | None) -> LossCard:
    """Return the card of what RUN and --candidate name.

    Raises:
        InputError: nothing of that name is there, or it cannot be read.
    """
    from autoseg.losses import LossCard
    from autoseg.losses.build import card_path, identity_of, known_card
    from autoseg.surrogates import known_losses

    path = Path(run).expanduser()
    if candidate is not None:
        from autoseg.evidence.export.candidate import candidate_card

        if not path.is_dir():
            raise InputError("RUN", "a run folder, for --candidate", run)
        return candidate_card(path, candidate)
    if run in known_losses() or identity_of(run) is not None:
        return known_card(run)
    if not path.exists():
        raise InputError("RUN", "a run folder, a loss card or a known loss", f"{run}, which does not exist")
    return LossCard.load(card_path(run) or run)
