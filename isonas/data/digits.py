"""Scikit-learn's handwritten digits as they are: 1,797 grey 8×8 images, 10 classes."""

from __future__ import annotations

import hashlib

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from isonas.data.dataset import Dataset, Images


def digits() -> Dataset:
    """The data set, the grey value in all three channels; a fifth is held back, stratified."""
    raw = load_digits()
    grey = (raw.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.repeat(grey[:, None], 3, axis=1)
    labels = raw.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
    names = tuple(str(digit) for digit in range(10))
    training, held_back = (Images(pixels[part], labels[part]) for part in (train, test))
    return Dataset("digits", digest, names, training, held_back, mirror=False)
