"""Gratings of one orientation a class under noise: made in an instant, for tests."""

from __future__ import annotations

import hashlib

import numpy as np

from isonas.data.dataset import Dataset, Images


def synthetic(train_images: int = 480, test_images: int = 120, side: int = 16, classes: int = 4) -> Dataset:
    """The data set, the same on every call with the same arguments."""
    splits = [_gratings(count, side, classes, seed) for seed, count in enumerate((train_images, test_images))]
    digest = hashlib.blake2b(splits[0].pixels.tobytes(), digest_size=16).hexdigest()
    names = tuple(f"{180 * index / classes:g} degrees" for index in range(classes))
    return Dataset("synthetic", digest, names, splits[0], splits[1], mirror=False)


def _gratings(count: int, side: int, classes: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    angle = np.pi * labels / classes
    y, x = np.indices((side, side)) / side
    across = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    phase = rng.uniform(0, 1, (count, 1, 1))
    wave = 128 + 60 * np.sin(2 * np.pi * (3 * across + phase))
    noisy = wave[:, None] + rng.normal(0, 30, (count, 3, side, side))
    return Images(np.clip(noisy, 0, 255).astype(np.uint8), labels)
