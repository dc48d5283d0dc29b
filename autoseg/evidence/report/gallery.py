"""Predictions side by side: image, truth, two losses, where they differ, and the detail in which they differ most."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, uniform_filter

from autoseg.config import DataConfig
from autoseg.data import SegData, open_data
from autoseg.errors import InputError
from autoseg.evidence.report.blocks import Block, Gallery, Picture, Scene, Swatch, Text
from autoseg.evidence.report.read import Run, SearchRun
from autoseg.proxy.predictions import FOLDER, predictions_folder, saved_predictions
from autoseg.store.records import TrialRecord

Map = NDArray[np.uint8]
VOID, VOID_COLOUR = 255, (128, 128, 128)
SHARE = 0.3  # side of a detail, as a share of the image's shorter side
REACH = 3  # pixels up to this distance from a boundary of the truth count as near it
BETTER, WORSE, BOTH = (0, 114, 178), (213, 94, 0), (170, 130, 180)  # colours where two predictions differ
GREYS = 4  # step between the greys below them
DIFFERENCE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)  # palette: 1 to 3 these colours, then greys
DIFFERENCE[1:4] = BETTER, WORSE, BOTH


@dataclass(frozen=True)
class Shown:
    """One image with its truth and the predictions that were saved for it."""

    title: str  # its name
    image: Map  # (H, W, 3)
    truth: Map  # (H, W), 255 where it has none
    predictions: Mapping[str, Map]  # loss to (H, W)


def gallery(run: Run, trainings: Mapping[str, TrialRecord], reference: str, mine: str) -> list[Block]:
    """Return the predictions of a run, or a text that says why there are none.

    Args:
        run: the run, whose config says where the images are.
        trainings: loss to the training whose predictions are shown.
        reference: the loss that all others are shown beside.
        mine: the loss that is shown first.
    """
    kept = {name: saved_predictions(predictions_folder(run.path, record.payload)) for name, record in trainings.items()}
    kept = {name: files for name, files in kept.items() if files}
    if reference not in kept or len(kept) < 2:
        return [Text(_why(run, reference, sorted(kept)), "note")]
    try:
        _only_own(run.path, kept)
        data = _data(run)
        shown = _read(data, kept)
    except (InputError, OSError) as error:
        return [Text(f"The images of these predictions cannot be shown. {error}", "note")]
    if not shown:
        return [Text("No image was kept by all of these losses.", "note")]
    others = [name for name in [mine, *kept] if name in kept and name != reference]
    others = list(dict.fromkeys(others))
    colours = [(*map(int, colour),) for colour in data.palette]
    scenes = [_scene(one, reference, others, colours) for one in shown]
    seen = np.unique(np.concatenate([np.ravel(one) for s in shown for one in (s.truth, *s.predictions.values())]))
    classes = [Swatch(f"rgb{colours[i]}", data.classes[i]) for i in seen if i < data.num_classes]
    return [Gallery(scenes, others, classes, _difference_key(reference))]


def _why(run: Run, reference: str, kept: Sequence[str]) -> str:
    if "data" not in run.config:
        return "Trainings with your own function leave no predictions."
    if not (run.path / FOLDER).is_dir():
        why = ": the run ended before its confirmation, or had none" if isinstance(run, SearchRun) else ""
        return f"No predictions were kept{why}."
    return f"Predictions are shown beside those of {reference}; kept are only those of {', '.join(kept) or 'no loss'}."


def _data(run: Run) -> SegData:
    """Open the run's data, if it is still there and unchanged.

    Raises:
        InputError: it is gone or was changed.
    """
    try:
        config, size = DataConfig(**run.config["data"]), run.config["proxy"]["size"]
    except (TypeError, KeyError) as error:
        raise InputError("data", "the settings of this version", str(error)) from error
    data = open_data(config, size)
    if data.fingerprint != run.fixed["data"]:
        hint = "They were changed since, or have padding, which older versions of autoseg scored."
        raise InputError("data", "the images of the run", "others under the same name", hint)
    return data


def _read(data: SegData, kept: Mapping[str, Mapping[tuple[str, int], Path]]) -> list[Shown]:
    """Read the predictions that all losses have; raise an InputError for a mask that does not fit its image."""
    common = set.intersection(*(set(files) for files in kept.values()))
    found = []
    for split, row in sorted(common):
        if split not in data.splits or row >= len(data.names(split)):
            raise InputError("predictions", "images of the data", f"image {row} of {split}")
        image, truth = data.images(split)[row].permute(1, 2, 0).numpy(), data.labels(split)[row].numpy()
        try:
            opened = {name: Image.open(files[split, row], formats=("PNG",)) for name, files in kept.items()}
            maps = {name: np.asarray(mask.convert("L")) for name, mask in opened.items()}
        except (OSError, Image.DecompressionBombError) as error:
            raise InputError("predictions", "masks as a training leaves them", f"image {row}: {error}") from error
        if any(one.shape != truth.shape for one in maps.values()):
            raise InputError("predictions", f"masks of {truth.shape}", f"others for image {row}")
        height, width = data.sizes(split)[row].tolist()
        inner = np.s_[:height, :width]  # padding is not scored, so it is not shown
        maps = {name: one[inner] for name, one in maps.items()}
        found.append(Shown(data.names(split)[row], image[inner], truth[inner], maps))
    return found


def _only_own(run: Path, kept: Mapping[str, Mapping[tuple[str, int], Path]]) -> None:
    """Raise for links to pictures outside the run: a report may be given to others."""
    for path in (path for files in kept.values() for path in files.values()):
        if not path.resolve().is_relative_to(run.resolve()):
            raise InputError("predictions", "files of the run", f"{path}, a link to {path.resolve()}")


def most_different(one: Map, other: Map, truth: Map) -> tuple[int, int, int]:
    """Return (top, left, side) of the square in which two predictions differ most along boundaries of the truth.

    Away from boundaries a difference counts a tenth; if nothing differs, the square is in the middle.
    """
    side = max(8, round(SHARE * min(truth.shape)))
    edges = np.zeros(truth.shape, dtype=bool)
    edges[1:] |= truth[1:] != truth[:-1]
    edges[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    near = binary_dilation(edges, iterations=REACH)
    weight = ((one != other) & (truth != VOID)) * np.where(near, 1.0, 0.1)
    height, width = truth.shape
    if not weight.any():
        return (height - side) // 2, (width - side) // 2, side
    score = uniform_filter(weight, side, mode="constant")
    y, x = np.unravel_index(int(np.argmax(score)), score.shape)
    top, left = int(y) - side // 2, int(x) - side // 2
    return min(max(top, 0), height - side), min(max(left, 0), width - side), side


def difference(one: Map, other: Map, truth: Map) -> Map:
    """Return (H, W): 0 the same or not labelled, 1 only `other` is right, 2 only `one` is, 3 both are wrong,
    differently.
    """
    different = (one != other) & (truth != VOID)
    result = np.where(different, 3, 0)
    result[different & (other == truth)] = 1
    result[different & (one == truth)] = 2
    return result.astype(np.uint8)


def _scene(shown: Shown, reference: str, others: Sequence[str], colours: Sequence[tuple[int, ...]]) -> Scene:
    truth, theirs = shown.truth, shown.predictions[reference]
    faint = _faint(shown.image)
    whole = [
        _picture("image", _jpeg(shown.image), truth),
        _picture("truth", _mask(truth, colours), truth),
        _picture(_title(reference, theirs, truth), _mask(theirs, colours), truth),
    ]
    details = []
    for name in others:
        ours = shown.predictions[name]
        top, left, side = most_different(theirs, ours, truth)
        height, width = truth.shape
        mark = (left / width, top / height, side / width, side / height)
        where = _painted(faint, difference(theirs, ours, truth))
        they = "where they differ" if difference(theirs, ours, truth).any() else "they agree"
        pair = [(_title(name, ours, truth), _mask(ours, colours)), (they, _indexed(where, DIFFERENCE))]
        whole += [_picture(title, uri, truth, mark=mark, of=name) for title, uri in pair]
        crop = np.s_[top : top + side, left : left + side]
        masks = [
            (title, _mask(one[crop], colours)) for title, one in (("truth", truth), (reference, theirs), (name, ours))
        ]
        close = [("detail", _jpeg(shown.image[crop])), *masks, (they, _indexed(where[crop], DIFFERENCE))]
        details += [_picture(title, uri, truth[crop], of=name, detail=True) for title, uri in close]
    return Scene(shown.title, whole, details)


def _picture(title: str, uri: str, like: Map, **about: Any) -> Picture:
    return Picture(title, uri, (like.shape[1], like.shape[0]), **about)


def _title(name: str, predicted: Map, truth: Map) -> str:
    known = truth != VOID
    right = f"{100 * float((predicted == truth)[known].mean()):.1f} %" if known.any() else "–"
    return f"{name}: {right} of pixels right"


def _difference_key(reference: str) -> list[Swatch]:
    return [
        Swatch(f"rgb{BETTER}", f"right, where {reference} is wrong"),
        Swatch(f"rgb{WORSE}", f"wrong, where {reference} is right"),
        Swatch(f"rgb{BOTH}", "both wrong, differently"),
    ]


def _faint(image: Map) -> Map:
    """Return the image in (H, W) light greys to paint on, in few of them, since this makes a file a third as large."""
    grey = image.astype(np.float32).mean(axis=2)
    return ((175 + 0.3 * grey) / GREYS).round().astype(np.uint8) * GREYS


def _painted(faint: Map, where: Map) -> Map:
    """Return the map with a `difference` painted on it, as indices of `DIFFERENCE`."""
    return np.where(where > 0, where, faint).astype(np.uint8)


def _mask(classes: Map, colours: Sequence[tuple[int, ...]]) -> str:
    """Return a map of classes as a PNG with a palette."""
    palette = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    palette[: len(colours)] = colours
    palette[VOID] = VOID_COLOUR
    return _indexed(classes, palette)


def _indexed(indices: Map, palette: Map) -> str:
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(palette.tobytes())
    return _encoded(picture, "png", optimize=True)


def _jpeg(image: Map) -> str:
    return _encoded(Image.fromarray(image), "jpeg", quality=88, subsampling=0)


def _encoded(picture: Image.Image, kind: str, **options: bool | int) -> str:
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
