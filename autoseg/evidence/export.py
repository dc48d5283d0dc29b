"""Takes a found loss out of autoseg: a card, an mmsegmentation config, or one Python file that needs torch only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from autoseg.errors import InputError, unknown_name
from autoseg.evidence.gather import Gathered
from autoseg.evidence.sampled import coefficients
from autoseg.losses import LossCard
from autoseg.metrics.base import Metric
from autoseg.surrogates.loss import SurrogateLoss

FORMATS = ("json", "mmseg", "python", "torch_export")
_FORMULA = ("__init__", "reset", "sums", "scores", "weights")  # what a loss needs of a metric

_PYTHON = '''"""{title}

Found by autoseg; needs torch only. Use:

    from {module} import build_loss
    loss = build_loss(num_classes={num_classes})
    value = loss(logits, labels)  # (N, C, H, W) float, (N, H, W) integer -> scalar
"""

from __future__ import annotations

{imports}


{body}


def build_loss(num_classes: int = {num_classes}, ignore_index: int = {ignore_index}) -> FoundLoss:
    """The loss, for any number of classes."""
    options = MetricOptions(num_classes, ignore_index, tolerance={tolerance}, drop_background={drop_background})
    terms = [
{terms}
    ]
    return FoundLoss(terms, absent={absent!r}, eps={eps!r}, loss_weight={loss_weight!r})
'''

_MMSEG = """# {title}
# Take the # from the next line, name your own config there, and train with this file:
# _base_ = ["deeplabv3plus_....py"]
custom_imports = dict(imports=["autoseg.mmseg"], allow_failed_imports=False)
model = dict(
    decode_head=dict(loss_decode=dict(_delete_=True, type="AutoSegLoss", loss="{{{{ fileDirname }}}}/{card}"{own}))
)
# If your network has an auxiliary head, it takes the same loss at 0.4 with:
# model["auxiliary_head"] = dict(loss_decode=dict(model["decode_head"]["loss_decode"], loss_weight=0.4))
"""


def as_files(card: LossCard, format: str, target: Path, imports: Sequence[str] = ()) -> dict[Path, str | bytes]:
    """The content of every file of an export.

    Args:
        card: the loss.
        format: one of `FORMATS`.
        target: the main file; a config's card stands beside it under the same name.
        imports: the user's own modules that a config must name, files by absolute paths: those the user has named now,
            never those that a card says it was made with.

    Raises:
        InputError: unknown format, or a Python file that could not be imported by its name.
    """
    if format == "json":
        return {target: as_json(card)}
    if format == "mmseg":
        beside = target.with_suffix(".json")
        own = f", imports={list(imports)!r}" if imports else ""
        return {target: _MMSEG.format(title=title(card), card=beside.name, own=own), beside: as_json(card)}
    if format == "python":
        if not target.stem.isidentifier():
            raise InputError("-o", "a name that Python can import, such as found_loss.py", f"'{target.name}'")
        return {target: as_python(card, target.stem)}
    if format == "torch_export":
        from autoseg.evidence.program import as_program

        return {target: as_program(card)}
    raise unknown_name("--format", format, FORMATS)


def title(card: LossCard) -> str:
    """One line that says what the loss is."""
    state = "confirmed with fresh seeds" if card.confirmed else "not confirmed"
    return f"Surrogate loss for {card.metric}, space {card.space['name']}, {state}."


def as_json(card: LossCard) -> str:
    """The card itself."""
    return json.dumps(asdict(card), indent=1, allow_nan=False) + "\n"


def as_python(card: LossCard, module: str) -> str:
    """One self-contained module with `build_loss(num_classes, ignore_index)`.

    Args:
        card: the loss.
        module: the file's name without `.py`, for its usage example.
    """
    loss = card.build(card.num_classes or 2)
    if not isinstance(loss, SurrogateLoss):
        raise InputError("format", "json or mmseg for a loss made of several", "python", "Only curves become one file.")
    kinds = [type(metric) for _, metric in loss.terms]
    lineage = {base for kind in kinds for base in kind.__mro__ if issubclass(base, Metric)}
    gathered = Gathered("autoseg", {base.__name__: _FORMULA for base in lineage})
    for kind in kinds:
        gathered.add(kind.__module__, kind.__name__)
    for name in ("MetricOptions", "FoundLoss"):
        gathered.add("autoseg.metrics.base" if name == "MetricOptions" else "autoseg.evidence.standalone", name)
    options = loss.options
    return _PYTHON.format(
        title=title(card),
        module=module,
        imports="\n".join(sorted(gathered.imports, key=lambda line: (line.split()[1], line))),
        body=gathered.body,
        terms="\n".join(_term(loss, weight, metric) for weight, metric in loss.terms),
        num_classes=options.num_classes,
        ignore_index=options.ignore_index,
        tolerance=options.tolerance,
        drop_background=options.drop_background,
        absent=loss.absent,
        eps=loss.eps,
        loss_weight=loss.loss_weight,
    )


def _term(loss: SurrogateLoss, weight: float, metric: Metric) -> str:
    """Source of one `Term`; numbers are written so that they read back exactly."""
    keys = loss.space.keys(metric.name)
    curves = {key: _rows(loss, name) for key, name in keys.items()}
    score = None if loss.space.score is None else _rows(loss, loss.space.qualified(metric.name, "score"))
    rows = "".join(f"                {key!r}: {value!r},\n" for key, value in curves.items())
    return (
        f"        Term(\n            {weight!r},\n            {type(metric).__name__}(options),\n"
        f"            {{\n{rows}            }},\n            {score!r},\n        ),"
    )


def _rows(loss: SurrogateLoss, curve: str) -> list[list[float]]:
    rows: list[list[float]] = coefficients(loss)[curve].double().tolist()
    return rows
