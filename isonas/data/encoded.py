"""Encoded images (PNG, JPEG and whatever Pillow knows) as squares of pixels, the same way everywhere."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from isonas.data.dataset import Pixels
from isonas.data.preprocessing import BACKGROUND, PADDING, Fit, Squares

LARGEST_SIDE = 64
"""Unless a side is asked for, images of mixed sizes are fitted to squares of at most this many pixels."""

MOST_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded, Pillow's own limit; a JPEG counts as it is decoded."""

_CHUNK_IMAGES, _CHUNK_BYTES = 256, 2**25
_LARGE_PIXELS = 2**25
_LARGE = threading.Lock()

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of each EXIF orientation upright (Exif 2.3, table 6)."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339


class Undecodable(Exception):
    """Bytes that are no image, a damaged one, or one whose pixels cannot be told; says why."""


def decoded(content: bytes, squares: Squares) -> Pixels:
    """An image as (3, side, side) uint8 RGB, upright and fitted to a square by one resize.

    A JPEG is decoded at the least of its eighths, quarters and halves that is twice as large as it is
    needed. 16-bit grey is scaled by its range, what is transparent lies on BACKGROUND. Raises
    Undecodable.
    """
    with _opened(content) as image:
        try:
            _draft(image, squares)
            # Of images that fill memory one at a time is decoded.
            large = image.width * image.height > _LARGE_PIXELS
            with _LARGE if large else nullcontext():
                image.load()
                upright = _upright(_rgb(image), _orientation(image))
                pixels: Pixels = np.asarray(_fitted(upright, squares))
        except Undecodable:
            raise
        except Exception as error:
            # Damaged images raise nearly anything: OSError, SyntaxError, struct.error, EOFError, …
            raise Undecodable(str(error)) from None
    return pixels.transpose(2, 0, 1)


def size_of(content: bytes | BinaryIO) -> tuple[int, int]:
    """Width and height in pixels, by the header alone; raises Undecodable."""
    with _opened(content) as image:
        return image.size


def common_shape(sizes: Iterable[tuple[int, int]]) -> tuple[int, bool]:
    """The median of the shorter sides of images, and whether all are squares of that one side."""
    counted = Counter(sizes)
    shorter = sorted(min(size) for size in counted.elements())
    return shorter[len(shorter) // 2], len(counted) == 1 and len(set(next(iter(counted)))) == 1


def squares_for(typical: int, alike: bool, side: int | None, fit: Fit) -> Squares:
    """What to fit images of a `common_shape` to, of the side that is asked for.

    Images that are all squares of one side are never enlarged, and without a side keep their pixels up
    to four times LARGEST_SIDE. Others take the side, or without one their median, up to LARGEST_SIDE.
    """
    if alike:
        return Squares(min(typical, side or 4 * LARGEST_SIDE), fit, typical)
    return Squares(side or min(typical, LARGEST_SIDE), fit, typical)


def chunk_images(side: int) -> int:
    """How many images of a side to decode before they are written."""
    return max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (3 * side**2)))


def _opened(content: bytes | BinaryIO) -> Image.Image:
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        return Image.open(stream)
    except Image.DecompressionBombError:
        pass
    except Exception as error:
        raise Undecodable(str(error)) from None
    stream.seek(0)
    if stream.read(2) == b"\xff\xd8":
        stream.seek(0)
        # Pillow's own limit is on what the header says; one that is not progressive is read in strips.
        image = JpegImageFile(stream)
        if "progressive" not in image.info:
            return image
    raise _too_large()


def _too_large() -> Undecodable:
    return Undecodable(f"more than {MOST_PIXELS:,} pixels, too many to decode; scale it down")


def _draft(image: Image.Image, squares: Squares) -> None:
    """Let a JPEG be decoded no larger than needed; raises Undecodable where that is too large."""
    wanted = squares.side, squares.side
    if squares.fit is Fit.LETTERBOX:
        wanted = _inside(image.size, squares.side)
    image.draft(None, (2 * wanted[0], 2 * wanted[1]))
    if image.width * image.height > MOST_PIXELS:
        raise _too_large()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    below = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as one of 8, where its range is known; raises Undecodable."""
    known = image.format in ("PNG", "PPM", "JPEG2000")
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        known = (
            tuple(tags.get(_BITS, ())) == (16,)
            and tags.get(_PHOTOMETRIC) == 1
            and tuple(tags.get(_SAMPLE_FORMAT, (1,))) == (1,)
        )
    if image.mode == "F" or not known:
        raise Undecodable(f"{image.format} with pixels of mode {image.mode}, whose range is not known")
    values = np.asarray(image)
    grey = np.rint(values / 257).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = round(sum(BACKGROUND) / 3)
    return Image.fromarray(grey)


def _orientation(image: Image.Image) -> int:
    """By EXIF, 1 where it says nothing that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:
        return 1
    return found if isinstance(found, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _fitted(image: Image.Image, squares: Squares) -> Image.Image:
    side = squares.side
    width, height = image.size
    match squares.fit:
        case Fit.STRETCH:
            return image.resize((side, side), Image.Resampling.BILINEAR)
        case Fit.CROP:
            short = min(width, height)
            left, top = (width - short) / 2, (height - short) / 2
            box = left, top, left + short, top + short
            return image.resize((side, side), Image.Resampling.BILINEAR, box)
        case Fit.LETTERBOX:
            inside = _inside(image.size, side)
            square = Image.new("RGB", (side, side), PADDING)
            square.paste(
                image.resize(inside, Image.Resampling.BILINEAR),
                ((side - inside[0]) // 2, (side - inside[1]) // 2),
            )
            return square


def _inside(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size that has the same proportions and `side` as its longer one."""
    width, height = (max(1, round(extent * side / max(size))) for extent in size)
    return width, height
