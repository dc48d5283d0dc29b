"""Errors about files that a training reads: each names its file, whichever process found it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.errors import AutosegError, InputError, in_a_line

Step = Callable[[dict[str, Any]], dict[str, Any] | None]
IMAGE, MASK = "img_path", "seg_map_path"  # keys of an entry with the paths of its files
READING = {"LoadImageFromFile": IMAGE, "AutoSegImage": IMAGE, "LoadAnnotations": MASK, "AutoSegMask": MASK}  # by steps


class WrongFile(AutosegError):
    """An `InputError` that leaves a loader's process: torch rebuilds it in the main process from a text."""

    @classmethod
    def of(cls, error: InputError) -> WrongFile:
        """Encode an error as text."""
        return cls(json.dumps([error.field, error.expected, str(error.got), error.hint]))

    def error(self) -> InputError:
        """Decode the error, also from torch's text: a traceback with ours as its last line."""
        last = str(self).strip().splitlines()[-1]
        return InputError(*json.loads(last[last.index("[") :]))


@dataclass
class Read:
    """A step of a pipeline that reads a file, and names the file in its error."""

    step: Step  # mmsegmentation's step
    key: str  # key of the path in an entry
    classes: int | None  # number of class ids, from 0; None: the step reads no labels
    ignore_index: int  # the id that is no class

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        """Run the step.

        Raises:
            WrongFile: it cannot read the file, or the labels are not those of the classes.
        """
        what = "file" if self.classes is None else "mask"
        try:
            found = self.step(entry)
        except InputError as error:
            raise WrongFile.of(error) from error
        except Exception as error:
            name, hint = f"{what} {entry.get(self.key)}", "Replace it or remove it."
            told = InputError(name, "a readable image", in_a_line(error), hint)
            raise WrongFile.of(told) from error
        if found is not None and self.classes is not None:
            self._check(found["gt_seg_map"], entry)
        return found

    def _check(self, labels: np.ndarray[Any, Any], entry: dict[str, Any]) -> None:
        wrong = (labels >= self.classes) & (labels != self.ignore_index)
        if wrong.any():
            ids = ", ".join(map(str, np.unique(labels[wrong])[:5]))
            expected = f"ids 0 to {(self.classes or 0) - 1}, or {self.ignore_index} for pixels that are ignored"
            hint = "Check the number of classes, ignore_index and reduce_zero_label of the config, and the mask."
            told = InputError(f"mask {entry[self.key]}", expected, f"id {ids} in {int(wrong.sum())} pixels", hint)
            raise WrongFile.of(told)


def name_files(dataset: Any, classes: int, ignore_index: int) -> None:
    """Make every pipeline below a data set name the wrong file in its errors; in place.

    Args:
        dataset: a data set of mmengine, or one that wraps or joins others.
        classes: number of classes of the network.
        ignore_index: the ignored id of its loss.
    """
    for inner in [*getattr(dataset, "datasets", []), *filter(None, [getattr(dataset, "dataset", None)])]:
        name_files(inner, classes, ignore_index)
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    for place, step in enumerate(steps):
        key = READING.get(type(step).__name__)
        if key is not None:
            steps[place] = Read(step, key, classes if key == MASK else None, ignore_index)
