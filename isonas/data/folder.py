"""Folders of image files, one a class, as ImageNet is laid out once it is unpacked."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from isonas.data.class_folders import Classes, image_suffixes, tree_of
from isonas.data.dataset import Dataset, Pixels
from isonas.data.encoded import Undecodable, chunk_images, common_shape, decoded, size_of, squares_for
from isonas.data.fingerprint import fingerprint
from isonas.data.gathered import (
    FETCH,
    NO_TRAINING_IMAGES,
    POINTERS,
    Gathered,
    Say,
    Tally,
    Unusable,
    dataset_of,
    digest,
    gathered,
    is_pointer,
    unusable,
)
from isonas.data.preprocessing import Fit, Squares
from isonas.data.source_text import printable, some, with_options
from isonas.data.store import Chunks, cached
from isonas.errors import DataError, UsageError

_SIDE_SAMPLE = 1024


def folder(
    path: str,
    cache: Path,
    say: Say,
    side: int | None = None,
    fit: Fit = Fit.CROP,
    held_back: bool = True,
) -> Dataset:
    """The data set in `train/<class>/…` and `val/<class>/…`, or in `<class>/…` alone, all for training.

    A class is called as its folder, and its images may lie in folders of theirs; what is hidden is
    passed over. Other usual names do for `train` and `val` (`isonas.data.splits`); `PATH?splits=none`
    makes each folder a class, whatever its name. Images are fitted to squares, of `side` pixels where it
    is given (see `squares_for`). Files that are damaged or no images are left out and counted; what was
    understood is told to `say`. Raises UsageError where there is no such folder, DataError where it has
    no classes, where it cannot be told what its folders are, or where most files are no images.
    """
    place, asked = with_options(path, {"splits": "none"})
    root = Path(place)
    if not root.is_dir():
        raise UsageError(
            f"--data folder:{path} is no folder; give one with a folder of images for each class."
        )
    if asked.get("splits", "none") != "none":
        raise UsageError(f"--data folder:{path} has ?splits={asked['splits']}; give ?splits=none, or none.")
    tree = tree_of(root, splits="splits" not in asked)
    by_role = {"train": tree.train} | ({"held back": tree.held_back} if tree.held_back else {})
    say("; ".join(tree.notes) + ".")
    groups = [
        (f"{role}/{name}", files) for role, classes in by_role.items() for name, files in classes.items()
    ]
    content = fingerprint(groups, cache)
    names = tuple(by_role["train"])
    shape = cached(cache, f"{content}-shape", lambda: (np.array(_common_shape(by_role["train"], path)),))[0]
    squares = squares_for(int(shape[0]), bool(shape[1]), side, fit)

    def images(role: str, known: frozenset[str]) -> Gathered:
        doing = f"decoding folder:{path} ({role}) to {squares}"
        chunks = partial(_decoded, by_role[role], names, known, squares)
        return gathered(cache, f"{content}-{role.replace(' ', '-')}-{squares.key}", doing, chunks)

    train = images("train", frozenset(names))
    known = frozenset(names[label] for label in set(train.images.labels.tolist()))
    if without := [name for name in names if name not in known]:
        say(f"without an image, so no class: {some(without)}.")
    held = None
    if held_back and tree.held_back:
        if known & tree.held_back.keys():
            held = images("held back", known)
        else:
            say("held-back files are of other classes and are left out; no images are held back.")
    source = f"folder:{root.absolute()}" + ("?splits=none" if asked else "")
    return dataset_of(source, content, lambda label: printable(names[label]), train, held, fit, say)


def _common_shape(classes: Classes, path: str) -> tuple[int, bool]:
    """`common_shape` of images from all over the classes."""
    files = [file for files in classes.values() for file in files]
    sizes = []
    for file in files[:: -(-len(files) // _SIDE_SAMPLE) or 1]:
        try:
            sizes.append(size_of(Path(file).read_bytes()))
        except (OSError, Undecodable):
            continue
    if not sizes:
        if files and all(map(_is_pointer, files)):
            raise DataError(f"the files of folder:{path} are {POINTERS}; {FETCH}.")
        raise DataError(f"folder:{path} has no images in its class folders; give files that Pillow reads.")
    return common_shape(sizes)


def _is_pointer(file: str) -> bool:
    try:
        with Path(file).open("rb") as stream:
            return is_pointer(stream.read(64))
    except OSError:
        return False


def _decoded(
    classes: Classes, names: tuple[str, ...], known: frozenset[str], squares: Squares, tally: Tally
) -> Chunks:
    """The images of `known` classes that can be decoded; what is left out is noted in `tally`."""
    number = {name: label for label, name in enumerate(names)}
    labelled = ((file, number[name]) for name in classes if name in known for file in classes[name])
    if left := sum(len(files) for name, files in classes.items() if name not in known):
        tally.leave(NO_TRAINING_IMAGES, count=left)
    chunk = chunk_images(squares.side)
    expected = bad = 0
    with ThreadPoolExecutor() as pool:
        while part := list(itertools.islice(labelled, chunk)):
            images, labels = [], []
            found = pool.map(partial(_image, squares=squares), [file for file, _ in part])
            for (file, label), one in zip(part, found, strict=True):
                suffix = Path(file).suffix.lower()
                # Notes and annotations that lie beside images say nothing about the images.
                counts = not suffix or suffix in image_suffixes()
                expected += counts
                if isinstance(one, Unusable):
                    bad += counts
                    tally.leave(one.kind, f"{file} ({one.reason})")
                else:
                    images.append(one[0])
                    labels.append(label)
                    tally.digests.append(one[1])
            if images:
                yield np.stack(images), np.array(labels)
    if 2 * bad > expected:
        help = f"; {FETCH}" if tally.left_out[POINTERS] else ""
        raise DataError(
            f"{bad:,} of {expected:,} files are damaged or no images, such as {tally.first}; give a "
            f"folder where most are images{help}."
        )


def _image(file: str, squares: Squares) -> tuple[Pixels, int] | Unusable:
    """The image in a file and the digest of its content."""
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        return Unusable("unreadable", str(error.strerror))
    try:
        return decoded(content, squares), digest(content)
    except Undecodable as error:
        return unusable(content, str(error), Path(file).suffix)
