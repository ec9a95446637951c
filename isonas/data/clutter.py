"""Cluttered digits: a small, hard image set that needs no download.

Scikit-learn's handwritten digits (8×8) are no search problem as they are: every network reads them.
Here one digit is rotated, scaled, recoloured and placed among fragments of others over a crop of the
two photographs that ship with scikit-learn: 32×32 RGB, 10 classes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from isonas.data.dataset import Dataset, Images, Labels, Pixels, Rows
from isonas.data.store import stored

SIDE = 32
TRAIN_IMAGES = 8000
TEST_IMAGES = 1500
FRAGMENTS = 3
POOLS = 10
_SEED = 20190917

Floats = npt.NDArray[np.float64]


def clutter(
    cache: Path | None = None, train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES
) -> Dataset:
    """The data set, the same on every call; training and test images use disjoint digits.

    Training images are drawn from POOLS disjoint pools of digits in turn and grouped by them, so that
    validation images which are carved from them share no digit with what is trained on. Drawing it takes
    seconds; with a `cache` folder it is drawn once. Raises DataError where the folder
    cannot be written.
    """

    digits = load_digits()
    order = np.random.default_rng(_SEED).permutation(len(digits.target))
    cut = len(order) * 3 // 4
    photographs = [np.asarray(photo, np.float64) for photo in load_sample_images().images]
    made_of = [importlib.metadata.version(name) for name in ("numpy", "pillow", "scikit-learn")]

    def images(name: str, part: Rows, pools: int, count: int, seed: int) -> Images:
        # Dealt out class by class, or a pool might lack a digit.
        dealt = part[np.argsort(digits.target[part], kind="stable")]
        rows = [dealt[pool::pools] for pool in range(pools)]
        pooled = [(digits.images[pool], digits.target[pool]) for pool in rows]
        draw = partial(_draw, pooled, photographs, count, seed)
        if cache is None:
            return Images(*draw())
        key = "-".join(("clutter", name, f"{pools}x", str(count), *made_of))
        return stored(cache, key, f"drawing clutter ({name})", lambda: [draw()])

    train = images("train", order[:cut], POOLS, train_images, _SEED + 1)
    train = replace(train, groups=np.arange(train_images) % POOLS)
    test = images("test", order[cut:], 1, test_images, _SEED + 2)
    digest = hashlib.blake2b(digest_size=16)
    for drawn in (train, test):
        digest.update(drawn.pixels.tobytes())
    names = tuple(str(digit) for digit in range(10))
    return Dataset("clutter", digest.hexdigest(), names, train, test, mirror=False)


def _draw(
    pools: list[tuple[Floats, Labels]], photos: list[Floats], count: int, seed: int
) -> tuple[Pixels, Labels]:
    """`count` images and their labels; the digits of image n, fragments too, are of pool n modulo pools."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    labels = np.empty(count, np.int64)
    for index in range(count):
        digits, targets = pools[index % len(pools)]
        canvas = _background(photos, rng)
        for chosen in rng.integers(len(digits), size=FRAGMENTS):
            _paint(canvas, _fragment(digits[chosen], rng), rng)
        chosen = rng.integers(len(digits))
        size = int(rng.integers(16, 25))
        _paint(canvas, _turned(digits[chosen], size, rng.uniform(-20, 20)), rng)
        canvas += rng.normal(0, 6, canvas.shape)
        pixels[index] = np.clip(canvas, 0, 255).astype(np.uint8).transpose(2, 0, 1)
        labels[index] = targets[chosen]
    return pixels, labels


def _background(photos: list[Floats], rng: np.random.Generator) -> Floats:
    photo = photos[rng.integers(len(photos))]
    side = int(rng.integers(SIDE, 4 * SIDE))
    top, left = (int(rng.integers(extent - side)) for extent in photo.shape[:2])
    crop = Image.fromarray(photo[top : top + side, left : left + side].astype(np.uint8))
    return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)


def _fragment(digit: Floats, rng: np.random.Generator) -> Floats:
    whole = _turned(digit, int(rng.integers(12, 17)), rng.uniform(0, 360))
    half = len(whole) // 2
    top, left = rng.integers(len(whole) - half, size=2)
    return whole[top : top + half, left : left + half]


def _turned(digit: Floats, size: int, degrees: float) -> Floats:
    """A digit as an opacity mask in [0, 1] of about `size` pixels a side."""
    ink = Image.fromarray((digit * (255 / 16)).astype(np.uint8))
    ink = ink.resize((size, size), Image.Resampling.BICUBIC)
    turned = ink.rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(turned, np.float64) / 255


def _paint(canvas: Floats, mask: Floats, rng: np.random.Generator) -> None:
    """Blend a random colour through `mask` at a random place, mostly 90 grey levels off."""
    height, width = mask.shape
    top, left = (int(rng.integers(SIDE - extent + 1)) for extent in (height, width))
    patch = canvas[top : top + height, left : left + width]
    colour = rng.uniform(0, 255, 3)
    contrast = colour.mean() - patch.mean()
    if abs(contrast) < 90:
        colour = colour + (90 if patch.mean() < 128 else -90)
    patch += mask[..., None] * (np.clip(colour, 0, 255) - patch)
