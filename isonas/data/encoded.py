"""Encoded images (PNG, JPEG and whatever Pillow knows) as squares of pixels."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

import numpy as np
from PIL import Image

from isonas.data.dataset import Pixels
from isonas.data.resize import fit_square

LARGEST_SIDE = 64
"""Images that are not all squares of one side are fitted to squares of at most this many pixels."""


class Undecodable(Exception):
    """Bytes that are no image, or a damaged one; says why."""


def decoded(content: bytes, side: int) -> Pixels:
    """An image as (3, side, side) RGB, area-downsampled or stretched as a whole; raises Undecodable."""
    with _opened(content) as image:
        try:
            pixels: Pixels = np.asarray(image.convert("RGB"))
        except Exception as error:
            raise Undecodable(str(error)) from None
    if pixels.shape[:2] != (side, side):
        pixels = fit_square(pixels, side)
    return pixels.transpose(2, 0, 1)


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, by the header alone; raises Undecodable."""
    with _opened(content) as image:
        return image.size


def common_side(sizes: Iterable[tuple[int, int]]) -> int:
    """The side to fit images to: theirs where all are squares of one side, else the median, capped.

    The median is that of the shorter sides; it is held to LARGEST_SIDE, and their own side to four
    times as much.
    """
    counted = Counter(sizes)
    if len(counted) == 1 and len(set(next(iter(counted)))) == 1:
        return min(next(iter(counted))[0], 4 * LARGEST_SIDE)
    shorter = sorted(min(size) for size in counted.elements())
    return min(shorter[len(shorter) // 2], LARGEST_SIDE)


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except Exception as error:
        # Damaged images raise nearly anything: OSError, SyntaxError, struct.error, EOFError, …
        raise Undecodable(str(error)) from None
