"""Reads images and masks in files: the folder pair `img_dir/SPLIT`, `ann_dir/SPLIT`, and any listed files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg import limits
from autoseg.config import DataConfig
from autoseg.data.decode import check_image, header, read_image
from autoseg.data.holdout import split_holdout
from autoseg.data.masks import FAR, MaskCode, class_colours
from autoseg.data.progress import Progress
from autoseg.data.source import MAX_CLASSES, ClassCounts, Sample, check_present
from autoseg.data.threads import in_threads
from autoseg.errors import InputError

_SPLIT = re.compile(r"(?<![A-Za-z])SPLIT(?![A-Za-z])")  # in the name of a folder
JPEG = (".jpg", ".jpeg")
FAR_APART = f"In a JPEG, only ids or colours {2 * FAR} or more apart can be told: name them, as in data.ids=[0,255]."
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Item:
    """One image and its masks on disk: the label first, then one per annotator."""

    name: str
    image: Path
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class FileSource:
    """A `Source` over listed files."""

    code: MaskCode  # what the pixels of masks stand for
    palette: Sequence[Sequence[int]]  # one RGB colour per class
    items: Mapping[str, Sequence[Item]]  # the images of each role, in the order of their names
    upright: bool = False  # whether an image that its EXIF tag turns is refused; False: it is used as stored

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of their labels."""
        return self.code.classes

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the images of each role."""
        return {role: [item.name for item in items] for role, items in self.items.items()}

    @property
    def raters(self) -> int:
        """Number of annotators per image besides the label."""
        return len(next(iter(self.items.values()))[0].masks) - 1

    def identity(self) -> Any:
        """Return names, sizes and modification times of all files, and how masks are read."""
        files = {
            role: [(item.name, *(_stamp(path) for path in (item.image, *item.masks))) for item in items]
            for role, items in self.items.items()
        }
        return [list(self.classes), [list(rgb) for rgb in self.palette], self.code.identity(), files]

    def read(self, role: str, index: int) -> Sample:
        """Decode one image and its masks; raise an InputError that names the file that does not fit."""
        item = self.items[role][index]
        image = read_image(item.image, upright=self.upright)
        size = (image.shape[1], image.shape[0])
        return Sample(image, np.stack([self.code.labels(path, size, item.image) for path in item.masks]))

    def check(self) -> ClassCounts:
        """Check every mask, and the header of every image, for a training that reads the files in its own way.

        Returns:
            How often the classes occur in the training masks.

        Raises:
            InputError: names a file that is no image or no mask, an image that is stored turned or has more than 8
                bits, a mask that does not have the size of its image or has an id without a class; or the training
                masks show fewer than two classes.
        """
        progress = Progress("Checking images and masks", sum(map(len, self.items.values())))
        counts = ClassCounts.none(len(self.classes))
        for role, items in self.items.items():
            for labels in in_threads(self._check, items):
                if role == "train":
                    counts = counts.plus(labels)
                progress.step()
            if role == "train":
                check_present(counts.pixels, self.classes, self.code.ignored)
        return counts

    def _check(self, item: Item) -> NDArray[np.float64]:
        """Return the pixels of each label in the masks of one image."""
        with header(item.image) as image:
            size = image.size
            check_image(item.image, image, self.upright)
        label, *_ = [self.code.counts(path, size, item.image) for path in item.masks]
        return label


def open_folder(config: DataConfig) -> FileSource:
    """Open the source of `data=folder`: `ROOT/img_dir/SPLIT/NAME.jpg` with `ROOT/ann_dir/SPLIT/NAME.png`.

    Raises:
        InputError: no root or classes, ids that do not fit these, a missing folder or mask, an empty split.
    """
    limits.check(config, "data.")
    if config.root is None:
        raise InputError("data.root", "a folder with the data", None, f"Set data.root=DIR.{_maker(config)}")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise InputError("data.root", "an existing folder", f"'{root}'", f"Check the path.{_maker(config)}")
    if not config.classes:
        hint = "Set data.classes=[a,b,...]."
        raise InputError("data.classes", "the class names in the order of their ids", "none", hint)
    if not config.seg_map_suffix:
        raise InputError("data.seg_map_suffix", "an end of names, such as .png", "none")
    palette = config.palette or class_colours(config)
    check_classes(config, config.classes, palette)
    code = MaskCode.of(config)
    if config.seg_map_suffix.lower().endswith(JPEG) and not code.is_spaced:
        expected = "masks as PNG, since JPEG changes the ids"
        raise InputError("data.seg_map_suffix", expected, config.seg_map_suffix, FAR_APART)
    roles = {"train": config.train_split, "val": config.val_split}
    test = config.test_split
    if test is not None and all(folder_of(config, part, test).is_dir() for part in (config.img_dir, config.ann_dir)):
        roles["test"] = test  # one without labels, as challenges give it, is none
    items = {role: _list_pairs(config, split) for role, split in roles.items() if split is not None}
    if config.val_split is None:
        parts = split_holdout([item.name for item in items["train"]], config.holdout, config.groups)
        items["train"], items["val"] = ([items["train"][row] for row in part.tolist()] for part in parts)
    return FileSource(code, palette, items, upright=True)


def _maker(config: DataConfig) -> str:
    """Return a hint at the script that makes this data, empty if there is none."""
    known = config.name in ("camvid", "crackforest")
    return f" python scripts/prepare_data.py {config.name} DIR makes one." if known else ""


def folder_of(config: DataConfig, part: str, split: str) -> Path:
    """Return the folder of a split in `img_dir` or another part of a folder pair."""
    named, count = _SPLIT.subn(lambda _: split, part)
    return Path(str(config.root)).expanduser() / (named if count else f"{part}/{split}")


def _list_pairs(config: DataConfig, split: str) -> list[Item]:
    parts = (config.img_dir, config.ann_dir, *config.annotator_dirs)
    images, *masks = (folder_of(config, part, split) for part in parts)
    for part, folder in zip(parts, (images, *masks), strict=True):
        if not folder.is_dir():
            raise InputError("data.root", f"a folder {folder}", "none", _layout(config, part, folder))
    items = []
    for name, path in images_of(config, split):
        items.append(Item(name, path, tuple(folder / f"{name}{config.seg_map_suffix}" for folder in masks)))
    check_items(items, f"split folder {images}", [config.img_suffix] if config.img_suffix else IMAGE_SUFFIXES)
    return items


def _layout(config: DataConfig, part: str, missing: Path) -> str:
    """Return a hint about a folder of `img_dir` or another part that is not there, from those that are."""
    root = Path(str(config.root)).expanduser()
    hint = "The layout is img_dir/SPLIT/NAME.jpg beside ann_dir/SPLIT/NAME.png."
    if not _SPLIT.search(part) and (there := sorted(path.name for path in missing.parent.glob("*/"))):
        hint += f" Splits in it: {', '.join(there)}; data.train_split, data.val_split name yours"
        return f"{hint}, data.val_split=null holds out some of the training images."
    there = sorted(path.name for path in root.glob("*/"))
    found = f" In {root}: {', '.join(there[:10])}{', …' * (len(there) > 10)}." if there else ""
    keys = "data.img_dir, data.ann_dir, also as SPLIT/images, and data.train_split, data.val_split"
    return f"{hint}{found} {keys} name yours."


def images_of(config: DataConfig, split: str) -> list[tuple[str, Path]]:
    """Return the sorted images of a split of a folder pair, each after the part of its name that its masks share."""
    folder, end = folder_of(config, config.img_dir, split), config.img_suffix
    found = files_in(folder, [end] if end else IMAGE_SUFFIXES)
    return [(path.relative_to(folder).as_posix()[: -len(end or path.suffix)], path) for path in found]


def files_in(folder: Path, suffixes: Sequence[str] | None = None) -> list[Path]:
    """Return the sorted files in a folder and those below it, linked ones too, whose names end so; None: all.

    Hidden files, such as the `._x.jpg` that macOS leaves, are left out; links to a parent folder are not followed.
    """
    found = []
    for home, folders, names in os.walk(folder, followlinks=True):
        here = Path(home).resolve()
        folders[:] = [f for f in folders if f[0] != "." and not here.is_relative_to(Path(home, f).resolve())]
        found += [Path(home, name) for name in names if name[0] != "."]
    ends = None if suffixes is None else tuple(suffix.lower() for suffix in suffixes)
    return sorted(path for path in found if ends is None or path.name.lower().endswith(ends))


def check_items(items: Sequence[Item], where: str, ends: Sequence[str] | None = None) -> None:
    """Raise for an empty split, two images of one name, or an image that is missing or has no mask.

    Args:
        items: the images.
        where: what they are, for messages.
        ends: the ends of names by which they were found in folders; None: mmsegmentation has listed them.

    Raises:
        InputError: names the first file that is wrong and how many more there are.
    """
    if not items:
        hint = f"Put images there or choose another split. Images end in {', '.join(ends or IMAGE_SUFFIXES)}."
        raise InputError(where, "at least one image", "none", hint)
    first: dict[Path, Item] = {}
    for item in items:
        if item.masks[0] in first:
            hint = "Both would use the same mask: remove one, or name the images' end, as in data.img_suffix=.jpg."
            raise InputError(
                f"image {item.image}", "one image per name", f"also {first[item.masks[0]].image.name}", hint
            )
        first[item.masks[0]] = item
    if absent := [item.image for item in items if not item.image.is_file()]:
        broken = f"a link to {os.readlink(absent[0])}, which is not there" if absent[0].is_symlink() else "none"
        hint = "Put it there, or leave the image out."
        raise InputError(f"image {absent[0]}", "a file", f"{broken}{_more(absent)}", hint)
    missing = [(item, mask) for item in items for mask in item.masks if not mask.is_file()]
    if missing:
        item, mask = missing[0]
        hint = _beside(mask.parent, Path(item.name).name, item.image, listed=ends is None)
        raise InputError(f"image {item.image}", f"a mask {mask}", f"none{_more(missing)}", hint)


def _more(wrong: Sequence[object]) -> str:
    return f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""


def _beside(folder: Path, name: str, image: Path, listed: bool) -> str:
    """Return a hint about a missing mask, from the images with names similar to its image's."""
    near = sorted(path.name for path in folder.glob(f"{glob.escape(name)}[._-]*") if path != image)
    masks = [one for one in near if one.lower().endswith((*IMAGE_SUFFIXES, ".gif"))]
    if not masks:
        keys = "" if listed else " data.img_suffix and data.seg_map_suffix name other ends of names."
        return f"Add the mask or remove the image.{keys}"
    found = next((one for one in masks if one.lower().endswith(".png")), masks[0])
    if found.lower().endswith(JPEG) and not listed:
        return f"There is {found}. {FAR_APART} Then set data.seg_map_suffix={found[len(name) :]}."
    key = "its data set has a seg_map_suffix" if listed else f"set data.seg_map_suffix={found[len(name) :]}"
    return f"There is {found}: if all masks are named so, {key}."


def lone_masks(config: DataConfig) -> list[Path]:
    """Return the masks in `ann_dir` of a folder pair that have no image: harmless, and often a mistake."""
    if config.kind != "folder" or config.root is None:
        return []
    end, found = config.seg_map_suffix, []
    for split in filter(None, (config.train_split, config.val_split)):
        masks = folder_of(config, config.ann_dir, split)
        names = {name for name, _ in images_of(config, split)}
        found += [p for p in files_in(masks, [end]) if p.relative_to(masks).as_posix()[: -len(end)] not in names]
    return found


def check_classes(config: DataConfig, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
    """Raise for class lists that do not fit in a byte, and for palettes that do not fit the classes."""
    if not 2 <= len(classes) <= MAX_CLASSES:
        hint = "Count background as one of them."
        raise InputError("data.classes", f"2 to {MAX_CLASSES} classes", len(classes), hint)
    if len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if list(classes).count(name) > 1})
        raise InputError("data.classes", "each name once", f"{', '.join(twice)} more than once")
    if not 0 <= config.ignore_index <= 255:
        raise InputError("data.ignore_index", "an id from 0 to 255", config.ignore_index, "Masks are 8-bit images.")
    wrong = next((rgb for rgb in palette if len(rgb) != 3), None)
    if len(palette) != len(classes) or wrong is not None:
        hint = "Leave it empty to have colours generated."
        got = len(palette) if wrong is None else wrong
        raise InputError("data.palette", f"{len(classes)} RGB colours, one per class", got, hint)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
