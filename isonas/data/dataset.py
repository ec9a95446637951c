"""What every source yields, and how a search splits it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from isonas.errors import DataError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

HELD_BACK = ("validation", "valid", "val", "test")
"""What files or folders of held-back images are called; the first that is there is taken."""


@dataclass(frozen=True)
class Images:
    """n square images: `pixels` (n, 3, S, S) uint8 RGB, `labels` (n,) from 0.

    `file` is the `.npy` file of which `pixels` is the whole, read-only map; None of arrays in memory.
    """

    pixels: Pixels
    labels: Labels
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Height and width S in pixels."""
        return int(self.pixels.shape[-1])


@dataclass(frozen=True)
class Dataset:
    """A source's images. `held_back` is its own validation or test split, which no search sees.

    `source` is the text that names it on the command line, `fingerprint` a digest of its content;
    `mirror` says whether a mirrored image keeps its class (a digit does not).
    """

    source: str
    fingerprint: str
    class_names: tuple[str, ...]
    train: Images
    held_back: Images | None
    mirror: bool

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def in_memory(data: Dataset) -> Dataset:
    """The data set with images that are mapped from files read into plain arrays."""

    def read(images: Images) -> Images:
        return Images(np.array(images.pixels), np.array(images.labels))

    held_back = read(data.held_back) if data.held_back is not None else None
    return replace(data, train=read(data.train), held_back=held_back)


def split_validation(labels: Labels, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of training and validation images, carved from the training data.

    Stratified by class. A fifth is for validation, but no more than 2,000 images or a fiftieth of all
    (whichever is more): at 2,000 the standard error of an error is .011 at most. Raises DataError where
    a class has too few images for that.
    """
    count = min(len(labels) // 5, max(2000, len(labels) // 50))
    try:
        train, validation = train_test_split(
            np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(
            f"{len(labels)} training images cannot be split by class ({error}); give at least 2 "
            "images of every class and 5 images a class on average."
        ) from None
    return np.sort(train), np.sort(validation)


def validation_images(data: Dataset, seed: int) -> Labels:
    """How many of the validation images that `split_validation` draws are of each class, (classes,).

    Raises DataError as it does, and where they are all of one class, so that no error tells networks apart.
    """
    _, validation = split_validation(data.train.labels, seed)
    images = np.bincount(data.train.labels[validation], minlength=data.classes)
    if images.max() == len(validation):
        counts = np.bincount(data.train.labels, minlength=data.classes)
        raise DataError(
            f"the {len(validation)} validation images, a fifth of all at most, are all of class "
            f"{data.class_names[int(images.argmax())]!r}, which has {int(counts.max()):,} of the "
            f"{len(data.train):,} images; give more images of the other classes."
        )
    return images
