"""Which images an experiment trains on and is scored on: a part of a source, drawn by a fixed seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isonas.data.dataset import Dataset, Images, Labels, Rows, split_validation
from isonas.data.resize import downsample

COPIED_BYTES = 2**30
"""Images that take more than this stay in their file."""

HELD_BACK, CARVED = "held back", "carved from training"
_SEED = 0


@dataclass(frozen=True)
class Part:
    """Rows of images to train on and to score on, labels from 0 in the order of `class_names`.

    Labels of other rows mean nothing. `scored_on` says where the scored images are from; none of them is
    trained on.
    """

    class_names: tuple[str, ...]
    training: Images
    training_rows: Rows
    scored: Images
    scored_rows: Rows
    scored_on: str
    mirror: bool

    def dataset(self) -> Dataset:
        """The images of which the training rows are as a data set of their own."""
        return Dataset("", "", self.class_names, self.training, None, self.mirror)

    def at(self, side: int) -> tuple[Images, Images]:
        """Both as whole images, area-downsampled to `side` pixels, or as they are where that is more."""
        side = min(side, self.training.side)
        return downsample(self.training, side), downsample(self.scored, side)


def part_of(data: Dataset, classes: int | None, images: int | None) -> Part:
    """`classes` of a source's classes and `images` of their training images, alike many of each class.

    None, or more than there are, means all. The same source gives the same part every time. Scored is
    the source's held-back split where it has one. Raises DataError where images cannot be split.
    """
    drawn = np.random.default_rng(_SEED)
    count = min(classes or data.classes, data.classes)
    chosen = np.sort(drawn.permutation(data.classes)[:count])
    if data.held_back is not None:
        training, scored, scored_on = data.train, data.held_back, HELD_BACK
        rows, scored_rows = np.arange(len(training)), np.arange(len(scored))
    else:
        training, scored, scored_on = data.train, data.train, CARVED
        rows, scored_rows = split_validation(data.train, _SEED)
    rows = _evenly(rows, training.labels, chosen, images, drawn)
    scored_rows = scored_rows[np.isin(scored.labels[scored_rows], chosen)]
    return Part(
        tuple(data.class_names[label] for label in chosen),
        *_picked(training, rows, chosen),
        *_picked(scored, scored_rows, chosen),
        scored_on,
        data.mirror,
    )


def _evenly(
    rows: Rows,
    labels: Labels,
    chosen: Labels,
    images: int | None,
    drawn: np.random.Generator,
) -> Rows:
    """Rows of the chosen classes, at most `images` of them, the classes taking turns."""
    by_class = [drawn.permutation(rows[labels[rows] == label]) for label in chosen]
    if images is None or images >= sum(map(len, by_class)):
        return np.sort(np.concatenate(by_class))
    turns = np.concatenate([np.arange(len(one)) for one in by_class])
    first = np.argsort(turns, kind="stable")[:images]
    return np.sort(np.concatenate(by_class)[first])


def _picked(images: Images, rows: Rows, chosen: Labels) -> tuple[Images, Rows]:
    """Images that hold those of some rows, labelled by their places in `chosen`, and the rows there."""
    relabelled = replace(images, labels=np.searchsorted(chosen, images.labels))
    large = 3 * images.side**2 * len(rows) > COPIED_BYTES
    if len(rows) == len(images) or (large and images.file is not None):
        return relabelled, rows
    copied = replace(
        relabelled,
        pixels=np.ascontiguousarray(images.pixels[rows]),
        labels=relabelled.labels[rows],
        groups=None if images.groups is None else images.groups[rows],
        file=None,
    )
    return copied, np.arange(len(rows))
