"""Takes a found loss out of autoseg: a card, an mmsegmentation config, a Python file or a program for torch alone."""

from __future__ import annotations

import io
import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.evidence.export import standalone
from autoseg.evidence.export.gather import Gathered, unbound
from autoseg.evidence.sampled import coefficients
from autoseg.losses import LossCard
from autoseg.metrics.base import Metric
from autoseg.surrogates.loss import SurrogateLoss

_FORMULA = ("__init__", "sums", "scores", "weights")  # what a loss needs of a metric

LARGEST = 2**26  # numbers in the logits that a program is made with: thousands of classes

_UNPRINTED = re.compile(r"[^\w.+*() /-]")  # the title becomes a part of code, whatever a card says

_PYTHON = '''"""{title}

Found by autoseg; needs torch alone, 1.13 or later, and Python 3.8. In PyTorch:

    from {module} import build_loss
    loss = build_loss(num_classes={num_classes})
    value = loss(logits, labels)  # (N, C, H, W) float, (N, H, W) integer -> scalar

In a config of mmsegmentation 1 (mmengine 0.8 or later), with this file where Python finds it:

    custom_imports = dict(imports=["{module}"])
    model = dict(decode_head=dict(loss_decode=dict(_delete_=True, type="{module}.DecodeLoss")))
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


class DecodeLoss(nn.Module):
    """The loss as an mmsegmentation head calls it; totals are those of each GPU's own batch."""

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_found") -> None:
        super().__init__()
        if not loss_name.startswith("loss_"):
            raise ValueError("loss_name: expected one that begins with loss_: mmsegmentation trains on no other.")
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(
        self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None, ignore_index: int = 255, **unused: Any
    ) -> Tensor:
        """Of (N, C, H, W) logits and (N, H, W) labels; pixel weights, as a sampler gives them, are refused."""
        if weight is not None:
            raise ValueError("weight of DecodeLoss: expected None, got pixel weights. Remove the head's sampler.")
        if cls_score.shape[1] == 1:
            raise ValueError("logits: expected two classes or more, got one channel. Set out_channels=2, no threshold.")
        return self.loss_weight * build_loss(cls_score.shape[1], ignore_index)(cls_score, label)
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
        format: "json", "mmseg", "python" or "torch_export".
        target: the main file; a config's card stands beside it under the same name.
        imports: the user's own modules that a config must name, files by absolute paths: those the user has named now,
            never those that a card says it was made with.

    Raises:
        InputError: a Python file that could not be imported by its name, a config that would be its own card.
    """
    if format == "json":
        return {target: card.as_json()}
    if format == "mmseg":
        beside = target.with_suffix(".json")
        if beside == target:
            raise InputError("-o", "a config in Python, NAME.py, beside which the card is written", f"'{target.name}'")
        own = f", imports={list(imports)!r}" if imports else ""
        return {target: _MMSEG.format(title=title(card), card=beside.name, own=own), beside: card.as_json()}
    if format == "python":
        if target.suffix != ".py" or not target.stem.isidentifier() or keyword.iskeyword(target.stem):
            raise InputError("-o", "a name that Python can import, such as found_loss.py", f"'{target.name}'")
        return {target: as_python(card, target.stem)}
    if format == "torch_export":
        return {target: as_program(card)}
    raise NotImplementedError(format)


def title(card: LossCard) -> str:
    """One line that says what the loss is."""
    state = "confirmed with fresh seeds" if card.confirmed else "not confirmed"
    if "known" in card.provenance:
        state = f"known as {card.provenance['known']}"
    target, space, state = (_UNPRINTED.sub("_", str(text)) for text in (card.target, card.space["name"], state))
    behind = ", ".join(_UNPRINTED.sub("_", name) for name in card.behind)
    return f"Surrogate loss for {target}, space {space}, {state}{f', but behind {behind}' if behind else ''}."


def as_python(card: LossCard, module: str) -> str:
    """One self-contained module with `build_loss(num_classes, ignore_index)`.

    Args:
        card: the loss.
        module: the file's name without `.py`, for its usage example.

    Raises:
        InputError: a loss made of several, or a metric of which not everything can be copied.
    """
    loss = card.build(card.num_classes or 2)
    if not isinstance(loss, SurrogateLoss):
        raise InputError("format", "json or mmseg for a loss made of several", "python", "Only curves become one file.")
    kinds = [type(metric) for _, metric in loss.terms]
    lineage = {base for kind in kinds for base in kind.__mro__ if issubclass(base, Metric)}
    gathered = Gathered("autoseg", {base.__name__: _FORMULA for base in lineage}, standalone.__name__)
    for kind in kinds:
        gathered.add(kind.__module__, kind.__name__)
    gathered.add(standalone.__name__, "FoundLoss")
    options = loss.options
    text = _PYTHON.format(
        title=title(card),
        module=module,
        imports=gathered.imports,
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
    if missing := unbound(text):
        hint = "Bind them at the top level by def, class, = or from MODULE import NAME, not in an if or try, without *."
        raise InputError("export", "a metric whose names can all be copied", ", ".join(missing), hint)
    return text


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


def as_program(card: LossCard) -> bytes:
    """The content of a `.pt2` file: `torch.export.load(file).module()(logits, labels)` is the loss.

    It needs torch 2.9 or later alone, and no Python source. Logits (N, C, H, W) float32 and labels (N, H, W) int64,
    on the CPU; C is the card's, N, H and W are free. Labels are not checked. Gradients flow to the logits. Checked
    with torch 2.15 for the paper's six metrics in the default space: loss and gradient equal those of the loss
    itself, at sizes other than the one it was made at. Making one takes half a minute to some minutes of CPU.

    TorchScript is not offered. With torch 2.15 `torch.jit.script` refuses the curves' table ("Cannot create dict for
    key type '(str, str)'") and `torch.jit.trace` cannot save their own backward ("Could not export Python function
    call").

    Raises:
        InputError: a loss that is not made of curves alone, or one that does not know its number of classes; more
            classes, or a wider tolerance, than a program can be made with.
    """
    if card.num_classes is None:
        raise InputError("--format", "json, python or mmseg for a card without a number of classes", "torch_export")
    side = 2 * (card.options.get("tolerance", 5) + 8)
    if 2 * card.num_classes * side * (side + 1) > LARGEST:
        many = f"{card.num_classes:,} classes, tolerance {side // 2 - 8:,}"
        raise InputError("--format", "json, python or mmseg for so many classes and such a tolerance", many)
    loss = card.build(validate=False)
    if getattr(loss, "surrogate", None) is not loss:
        raise InputError("--format", "json or mmseg for a loss made of several", "torch_export")
    loss.fused = False  # a fused pass has its own backward, which a program cannot hold
    logits = torch.randn(2, card.num_classes, side, side + 1)
    labels = torch.randint(0, card.num_classes, (2, side, side + 1))
    free: Any = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free}, {0: free, 1: free, 2: free})
    program = torch.export.export(_Plain(loss), (logits, labels), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program.run_decompositions(), file)
    return file.getvalue()


class _Plain(nn.Module):
    """The loss of float32 logits and int64 labels alone: what a program takes."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = self.loss(logits, labels)
        return value
