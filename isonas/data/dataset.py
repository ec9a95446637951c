"""What every source yields, and how a search splits it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from isonas.data.preprocessing import Fit
from isonas.errors import DataError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """n square images: `pixels` (n, 3, S, S) uint8 RGB, `labels` (n,) from 0.

    `file` is the `.npy` file of which `pixels` is the whole, read-only map; None of arrays in memory.
    Images of one number in `groups` (n,) show the same material, as copies of a picture do, and stay on
    one side of a split; None where each is for itself.
    """

    pixels: Pixels
    labels: Labels
    file: Path | None = None
    groups: Labels | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Height and width S in pixels."""
        return int(self.pixels.shape[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process of this machine maps the file too, and is not sent what is in it.
        mapped = self.file is not None
        if mapped:
            return _mapped, (self.file, self.labels, self.groups)
        return Images, (self.pixels, self.labels, None, self.groups)


def _mapped(file: Path, labels: Labels, groups: Labels | None) -> Images:
    return Images(np.load(file, mmap_mode="r", allow_pickle=False), labels, file, groups)


@dataclass(frozen=True)
class Dataset:
    """A source's images. `held_back` is its own validation or test split, which no search sees.

    `source` is the text that names it on the command line, `fingerprint` a digest of its content;
    `mirror` says whether a mirrored image keeps its class (a digit does not). `fit` says how encoded images
    became squares, by which version of the `decoder`; 0 where the source gives squares of pixels.
    """

    source: str
    fingerprint: str
    class_names: tuple[str, ...]
    train: Images
    held_back: Images | None
    mirror: bool
    fit: Fit = Fit.CROP
    decoder: int = 0

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def in_memory(data: Dataset) -> Dataset:
    """The data set with images that are mapped from files read into plain arrays."""

    def read(images: Images) -> Images:
        return replace(images, pixels=np.array(images.pixels), labels=np.array(images.labels), file=None)

    held_back = read(data.held_back) if data.held_back is not None else None
    return replace(data, train=read(data.train), held_back=held_back)


def split_validation(images: Images, seed: int) -> tuple[Rows, Rows]:
    """Indices of training and validation images, carved from the training data.

    Stratified by class. A fifth is for validation, but no more than 2,000 images or a fiftieth of all
    (whichever is more): at 2,000 the standard error of an error is .011 at most. Images of one group
    stay together, and every class keeps an image to train on: what is the only one of its class is not
    validated. Raises DataError where there are fewer than two classes to validate, too few images, or
    none that its copies leave for validation.
    """
    labels = images.labels
    by_class = np.bincount(labels)
    among = np.flatnonzero(by_class[labels] > 1)
    count = min(len(among) // 5, max(2000, len(among) // 50))
    validated = int((by_class > 1).sum())
    if validated < 2 or count < validated:
        present = int((by_class > 0).sum())
        raise DataError(
            f"{len(labels):,} training images of {present:,} class{'es' if present != 1 else ''} cannot be "
            "split by class into training and validation images; give at least 2 classes, 2 images of a "
            "class and 5 images a class on average."
        )
    if images.groups is None:
        _, validation = train_test_split(among, test_size=count, stratify=labels[among], random_state=seed)
    else:
        validation = _carved(labels, images.groups, count, np.random.default_rng(seed))
        if not len(validation):
            raise DataError(
                f"{len(labels):,} training images of {validated:,} classes are copies of each other to such "
                "an extent that none can be put aside for validation; give more different images."
            )
    kept = np.ones(len(labels), np.bool_)
    kept[validation] = False
    return np.flatnonzero(kept), np.sort(validation)


def _carved(labels: Labels, groups: Labels, count: int, rng: np.random.Generator) -> Rows:
    """About `count` rows: whole groups as long as each brings the classes nearer to their shares.

    Groups of several images are tried first, up to their part of the shares; single ones fill the rest, by
    the classes' largest remainders, as where there are no groups.
    """
    by_class = np.bincount(labels)
    share = np.where(by_class > 1, by_class, 0) * (count / by_class[by_class > 1].sum())
    together = np.bincount(groups)[groups] > 1
    among = np.bincount(labels[together], minlength=len(by_class)) / np.maximum(by_class, 1)
    rows = np.flatnonzero(together)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    each = np.split(rows, np.flatnonzero(np.diff(groups[rows])) + 1)
    taken = np.zeros_like(by_class)
    chosen: list[Rows] = []
    for index in rng.permutation(len(each)):
        more = taken + np.bincount(labels[each[index]], minlength=len(by_class))
        nearer = np.abs(share * among - more).sum() < np.abs(share * among - taken).sum()
        if nearer and (more < by_class)[labels[each[index]]].all():
            taken = more
            chosen.append(each[index])
    singles = np.bincount(labels[~together], minlength=len(by_class))
    room = np.maximum(np.minimum(singles, by_class - taken - 1), 0)
    wanted = np.clip(share - taken, 0, room)
    whole = np.floor(wanted).astype(np.int64)
    rest = np.where(whole < room, wanted - whole, 0)
    # Ties are drawn, or of many rare classes the same few would always be validated.
    first = np.lexsort((rng.random(len(rest)), -rest))[: max(count - int(taken.sum() + whole.sum()), 0)]
    whole[first[rest[first] > 0]] += 1
    for label in np.flatnonzero(whole):
        single = np.flatnonzero(~together & (labels == label))
        chosen.append(rng.permutation(single)[: whole[label]])
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)


def validation_images(data: Dataset, seed: int) -> Labels:
    """How many of the validation images that `split_validation` draws are of each class, (classes,).

    Raises DataError as it does, and where they are all of one class, so that no error tells networks apart.
    """
    _, validation = split_validation(data.train, seed)
    images = np.bincount(data.train.labels[validation], minlength=data.classes)
    if images.max() == len(validation):
        counts = np.bincount(data.train.labels, minlength=data.classes)
        raise DataError(
            f"the {len(validation)} validation images, a fifth of all at most, are all of class "
            f"{data.class_names[int(images.argmax())]!r}, which has {int(counts.max()):,} of the "
            f"{len(data.train):,} images; give more images of the other classes."
        )
    return images
