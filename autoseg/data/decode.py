"""Decodes one image or mask file, and raises an error with its name if training cannot use it."""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from autoseg.data.source import Bytes
from autoseg.errors import InputError

# Pillow warns that a large image may be an attack, but it is the user's own. Set once, since threads share filters.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# The formats to try, whatever a file's suffix is. Not PostScript: it is a program, which Pillow runs by Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "JPEG2000")

OTHER_IMAGES = "Images are RGB of 8 bits here; others go through a training of your own: autoseg.search(…, train=…)."

PAGE, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES = 254, 262, 277, 338  # tags of a TIFF
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how one begins
TRANSPARENCY = 4  # the bit of the first of them at a page that masks another
GREY, RGB = 1, 2  # values of the second of them, where bands are colours
ALPHA = (1, 2)  # values of the last of them


def read_image(path: Path, *, upright: bool) -> Bytes:
    """Return an image as (H, W, 3) uint8 RGB; `upright` calls `check_upright`.

    Raises:
        InputError: no image, more than 8 bits per channel, several pages, or stored turned.
    """
    with header(path) as image:
        check_image(path, image, upright)  # before it is decoded: then Pillow has dropped bits and turned a TIFF
        _decode(path, image)
        if upright:
            check_upright(path, image)  # a PNG may say it at its end
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def check_image(path: Path, image: Image.Image, upright: bool) -> None:
    """Raise for an image that `read_image` would refuse, from its header alone."""
    stored = [str(args) for *_, args in getattr(image, "tile", [])]  # as in "RGB;16B", of which Pillow keeps 8 bits
    mode = next((raw for raw in stored if ";16" in raw), image.mode)
    if ";16" in mode or mode.startswith(("I", "F")):
        raise InputError(f"image {path}", "8 bits per channel", f"mode {mode}", "Convert it to 8-bit RGB.")
    if (pages := _pages(image)) > 1:
        hint = "Bands are often written so: store the three to train on as one RGB image."
        raise InputError(f"image {path}", "one page", f"{pages} of {image.width}x{image.height}", hint)
    if upright:
        check_upright(path, image)


def _pages(image: Image.Image) -> int:
    """Return how many pages of a TIFF are images of the size of the first.

    Maps have others, for the same image: smaller copies, and a mask of the pixels without data.
    """
    if image.format != "TIFF" or not getattr(image, "is_animated", False):
        return 1
    found, size = 1, image.size
    for page in itertools.count(1):
        try:
            image.seek(page)
        except SyntaxError:  # of a kind that Pillow does not read, such as a mask
            continue
        except (EOFError, OSError, ValueError):
            break
        found += image.size == size and not image.tag_v2.get(PAGE, 0) & TRANSPARENCY  # type: ignore[attr-defined]
    image.seek(0)
    return found


def colour_bands(image: Image.Image) -> int:
    """Return how many bands of a file hold values. Of more than three Pillow drops some of a TIFF's.

    An alpha band counts only if it varies: near infrared is often written as one. To see it, the image is decoded.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if tags.get(PHOTOMETRIC) not in (GREY, RGB):
        bands = 1 if image.mode in ("1", "L", "LA", "I", "F") else 3
    else:
        bands = int(tags.get(SAMPLES, 1)) - sum(extra in ALPHA for extra in tags.get(EXTRA_SAMPLES, ()))
    if "A" not in image.getbands():
        return bands
    lowest, highest = image.getchannel("A").getextrema()
    return bands + (lowest != highest)


def check_upright(path: Path, image: Image.Image) -> None:
    """Raise for an image that viewers turn by its EXIF tag.

    Some tools that draw masks turn it, others do not, and at 180 degrees the size does not tell which: training would
    use a mask upside down without an error.

    Raises:
        InputError: the image is stored turned or mirrored.
    """
    if "exif" not in image.info and image.format != "TIFF":  # getexif would decode a whole PNG to see it has none
        return
    if (turned := image.getexif().get(ExifTags.Base.Orientation, 1)) not in (0, 1):
        hint = (
            "Store it as it is shown (PIL.ImageOps.exif_transpose; exiftran -a; mogrify -auto-orient), to fit its mask;"
            " if the mask fits the stored pixels, remove the tag instead (exiftool -Orientation=)."
        )
        raise InputError(f"image {path}", "pixels that are stored upright", f"EXIF orientation {turned}", hint)


def opened(path: Path) -> Image.Image:
    """Open and decode an image; raise an InputError that names the file if it is damaged."""
    image = header(path)
    _decode(path, image)
    return image


def _decode(path: Path, image: Image.Image) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all mean damaged
        raise _unreadable(path, error) from error


def header(path: Path) -> Image.Image:
    """Open an image and read only its header; raise an InputError that names the file if it is no image."""
    try:
        return Image.open(path, formats=FORMATS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS:
        pixels = re.search(r"\d+", str(error))  # Pillow gives the size in words alone
        got = f"{int(pixels[0]) / 1e6:.0f}" if pixels else "more"
        hint = "Cut the image and its mask into the same tiles."
        return InputError(f"file {path}", f"at most {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels", got, hint)
    hint = "Replace the file or remove it."
    if isinstance(error, UnidentifiedImageError) and _is_tiff(path):  # its bands are none that Pillow knows
        hint = f"If it is not damaged, it has other bands than a picture. {OTHER_IMAGES}"
    return InputError(f"file {path}", "a readable image", str(error), hint)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in TIFF
