"""One compact file per (content, size): decoded once, then memory-mapped by every process that trains on it.

The file is in the safetensors format (an eight-byte length, a JSON header, raw bytes), written here in one
pass so that a data set larger than memory can be prepared; the safetensors library reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from autoseg.data.once import BYTES, head, made_once
from autoseg.data.progress import Progress
from autoseg.data.source import IGNORE, Bytes, Sample, Source
from autoseg.data.threads import in_threads
from autoseg.errors import InputError
from autoseg.files import GB, NO_SPACE, cache_folder, existing

ELSEWHERE = "Make room there, or set data.cache_dir to another folder."
FORMAT = 2  # increase it when a source would give other bytes than before
PAD_RGB = (124, 116, 104)  # ImageNet's mean: padding is zero to a pretrained network

log = logging.getLogger(__name__)


def cache_file(source: Source, name: str, size: tuple[int, int], folder: str | None) -> Path:
    """Return the path of the finished cache file, made now if it does not exist yet.

    Args:
        source: the source of the images.
        name: shown in the file's name.
        size: (height, width) in pixels to which every image is fitted.
        folder: cache folder, None for `$XDG_CACHE_HOME/autoseg` (`~/.cache/autoseg`).

    Raises:
        InputError: a file of the source does not fit, or the folder cannot be written or is full.
    """
    path = cache_path(source, name, size, folder)
    try:
        return made_once(path, lambda draft: _build(source, size, draft))
    except OSError as error:
        if error.errno in NO_SPACE:
            raise _no_space(source, size, path.parent, f"'{error.strerror}' and ") from error
        got = f"'{error.strerror or error}'"
        raise InputError(f"cache folder {path.parent}", "a folder that can be written", got, ELSEWHERE) from error


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """Return `proxy.size` as (height, width).

    Raises:
        InputError: not two numbers from 1.
    """
    if len(size) != 2 or min(size) < 1:
        raise InputError("proxy.size", "a positive height and width", list(size))
    return size[0], size[1]


def cache_path(source: Source, name: str, size: tuple[int, int], folder: str | None) -> Path:
    """Return the path that `cache_file` uses, whether or not the file exists; the arguments are the same."""
    content = json.dumps([FORMAT, size, source.identity()], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return images_folder(folder) / f"{slug}-{size[0]}x{size[1]}-{key}.safetensors"


def prepared_bytes(source: Source, size: tuple[int, int]) -> int:
    """Return the bytes that the images of a source take, prepared at one (height, width)."""
    return sum(BYTES[_kind(name)] * prod(shape) for name, shape in _shapes(source, size).items())


def check_space(source: Source, size: tuple[int, int], folder: Path) -> None:
    """Raise, before anything is decoded, if the prepared images do not fit on the disk.

    Args:
        source: the source of the images.
        size: (height, width) in pixels to which every image is fitted.
        folder: cache folder, which may not exist yet.

    Raises:
        InputError: they take more than is free.
    """
    if prepared_bytes(source, size) > shutil.disk_usage(existing(folder)).free:
        raise _no_space(source, size, folder)


def _build(source: Source, size: tuple[int, int], path: Path) -> None:
    shapes = _shapes(source, size)
    log.info("Preparing %d images at %dx%d, once", sum(map(len, source.names.values())), size[1], size[0])
    check_space(source, size, path.parent)  # now, not after an hour of decoding
    with path.open("wb") as file:
        start = file.write(_header(source, shapes, "0" * 64))
        fingerprint = _write_tensors(file, start, source, shapes)
        file.seek(0)
        file.write(_header(source, shapes, fingerprint))


def _shapes(source: Source, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{role}.sizes": (len(names), 2) for role, names in source.names.items()}
    for role, names in source.names.items():
        shapes[f"{role}.images"] = (len(names), 3, *size)
        shapes[f"{role}.labels"] = (len(names), *size)
        if source.raters:
            shapes[f"{role}.raters"] = (len(names), source.raters, *size)
    return shapes


def _header(source: Source, shapes: dict[str, tuple[int, ...]], fingerprint: str) -> bytes:
    """Return the safetensors header; its length does not depend on the fingerprint."""
    about = {
        "format": FORMAT,
        "classes": list(source.classes),
        "palette": [list(rgb) for rgb in source.palette],
        "names": {role: list(names) for role, names in source.names.items()},
        "fingerprint": fingerprint,
    }
    return head({name: (_kind(name), shape) for name, shape in shapes.items()}, about)


def _kind(name: str) -> str:
    return "I32" if name.endswith(".sizes") else "U8"


def _write_tensors(file: BinaryIO, start: int, source: Source, shapes: dict[str, tuple[int, ...]]) -> str:
    """Decode in threads and write each image to its place; return the SHA-256 of pixels, labels and classes."""
    offsets = {}
    for name, shape in shapes.items():
        offsets[name] = start
        start += prod(shape) * BYTES[_kind(name)]
    file.truncate(start)
    pixels = [(name, shape) for name, shape in shapes.items() if _kind(name) == "U8"]
    digest = hashlib.sha256(json.dumps([list(source.classes), pixels]).encode())
    progress = Progress("Preparing images, once for this size", sum(map(len, source.names.values())))
    for role in source.names:
        height, width = shapes[f"{role}.images"][-2:]
        read = partial(_fitted, source, role, (height, width))
        with closing(in_threads(read, range(len(source.names[role])))) as samples:  # Ctrl-C: not read any further
            for image, masks, inner in samples:
                size = np.array(inner, dtype="<i4")
                for name, block in (("images", image), ("labels", masks[0]), ("raters", masks[1:]), ("sizes", size)):
                    if block.size:
                        file.seek(offsets[f"{role}.{name}"])
                        offsets[f"{role}.{name}"] += file.write(data := block.tobytes())
                        if name != "sizes" or inner != (height, width):  # padding affects scores
                            digest.update(data)
                progress.step()
    return digest.hexdigest()


def _fitted(source: Source, role: str, size: tuple[int, int], index: int) -> tuple[Bytes, Bytes, tuple[int, int]]:
    return fit(source.read(role, index), size)


def fit(sample: Sample, size: tuple[int, int]) -> tuple[Bytes, Bytes, tuple[int, int]]:
    """Scale a sample to fit into `size`, preserving its aspect ratio, and pad it at the right and bottom.

    Args:
        sample: image and masks of any size.
        size: (height, width) in pixels.

    Returns:
        The image (3, height, width), antialiased bilinear; the masks (K, height, width), nearest neighbour with 255
        in the padding; and the height and width without padding.
    """
    height, width = sample.image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = (min(size[1], max(1, round(width * scale))), min(size[0], max(1, round(height * scale))))
    image = np.empty((*size, 3), dtype=np.uint8)
    image[:] = PAD_RGB
    image[: inner[1], : inner[0]] = _resize(sample.image, inner, Image.Resampling.BILINEAR)
    masks = np.full((len(sample.masks), *size), IGNORE, dtype=np.uint8)
    for target, mask in zip(masks, sample.masks, strict=True):
        target[: inner[1], : inner[0]] = _resize(mask, inner, Image.Resampling.NEAREST)
    return image.transpose(2, 0, 1), masks, (inner[1], inner[0])


def _resize(pixels: Bytes, size: tuple[int, int], how: Image.Resampling) -> Bytes:
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def images_folder(folder: str | None) -> Path:
    """Return the folder of prepared images, which may not exist yet: `folder`, or for None the default of `cache_file`.

    Raises:
        InputError: None, and no home folder.
    """
    try:
        return Path(folder).expanduser() if folder else cache_folder()
    except RuntimeError:
        raise InputError("data.cache_dir", "a folder for prepared images", "none, and no home folder") from None


def _no_space(source: Source, size: tuple[int, int], folder: Path, said: str = "") -> InputError:
    images = f"{sum(map(len, source.names.values())):,} images at {size[1]}x{size[0]}"
    expected = f"space for the prepared images, {prepared_bytes(source, size) / GB:.1f} GB for {images}"
    got = f"{said}{shutil.disk_usage(existing(folder)).free / GB:.1f} GB free"
    return InputError(f"cache folder {folder}", expected, got, ELSEWHERE)
