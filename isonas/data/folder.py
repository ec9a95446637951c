"""Folders of image files, one a class, as ImageNet is laid out once it is unpacked."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from isonas.data.dataset import HELD_BACK, Dataset, Images, Pixels
from isonas.data.encoded import Undecodable, chunk_images, common_shape, decoded, size_of, squares_for
from isonas.data.fingerprint import fingerprint
from isonas.data.preprocessing import DECODER, Fit, Squares
from isonas.data.store import Chunks, cached, stored
from isonas.errors import DataError, UsageError

_SIDE_SAMPLE = 1024

Classes = dict[str, list[str]]
"""The paths of the files of each class, by its name."""


def folder(
    path: str, cache: Path, side: int | None = None, fit: Fit = Fit.CROP, held_back: bool = True
) -> Dataset:
    """The data set in `train/<class>/…` and `val/<class>/…`, or in `<class>/…` alone, all for training.

    A class is called as its folder, and its images may lie in folders of theirs; what is hidden is
    passed over. `validation`, `valid` and `test` do for `val`. Images are fitted to squares, of `side`
    pixels where it is given (see `squares_for`). Files that are damaged or no images are left out, and
    counted on stderr. Raises UsageError where there is no such folder, DataError where it has no classes,
    or most files are no images.
    """
    root = Path(path)
    if not root.is_dir():
        raise UsageError(
            f"--data folder:{path} is no folder; give one with a folder of images for each class."
        )
    by_role = _splits(root)
    groups = [
        (f"{role}/{name}", files) for role, classes in by_role.items() for name, files in classes.items()
    ]
    content = fingerprint(groups, cache)
    names = tuple(by_role["train"])
    shape = cached(cache, f"{content}-shape", lambda: (np.array(_common_shape(by_role["train"], path)),))[0]
    squares = squares_for(int(shape[0]), bool(shape[1]), side, fit)

    def images(role: str) -> Images:
        faults: list[str] = []
        doing = f"decoding folder:{path} ({role}) to {squares}"
        chunks = partial(_decoded, by_role[role], names, squares, faults)
        found = stored(cache, f"{content}-{role.replace(' ', '-')}-{squares.key}", doing, chunks)
        total = sum(len(files) for files in by_role[role].values())
        if len(found) < total:
            # Told each time; which they are is known only where the images were decoded just now.
            first = f"; the first is {faults[0]}" if faults else ""
            print(
                f"isonas: {total - len(found):,} of {total:,} files are damaged or no images and were left "
                f"out{first}.",
                file=sys.stderr,
            )
        return found

    train = images("train")
    held = images("held back") if held_back and "held back" in by_role else None
    source = f"folder:{root.absolute()}"
    return Dataset(source, content, names, train, held, mirror=True, fit=fit, decoder=DECODER)


def _splits(root: Path) -> dict[str, Classes]:
    """The classes of the training images and, where there are any, of those held back."""
    held_back = next((root / name for name in HELD_BACK if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        if held_back is not None:
            raise DataError(f"{root} has {held_back.name}/ but no train/; put the training images there.")
        return {"train": _classes(root)}
    train = _classes(root / "train")
    if held_back is None:
        return {"train": train}
    held = _classes(held_back)
    if unknown := sorted(held.keys() - train.keys()):
        raise DataError(
            f"{held_back} has a class {unknown[0]!r} that {root / 'train'} lacks; name its folders as there."
        )
    return {"train": train, "held back": held}


def _classes(place: Path) -> Classes:
    try:
        names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}; give a folder that can.") from None
    if not names:
        raise DataError(f"{place} has no folders; sort its images into one for each class.")
    return {name: list(_files(str((place / name).absolute()))) for name in names}


def _files(place: str) -> Iterator[str]:
    # Text and no Path objects, for there may be a million of them.
    for inside, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (f"{inside}{os.sep}{name}" for name in sorted(files) if name[0] != ".")


def _common_shape(classes: Classes, path: str) -> tuple[int, bool]:
    """`common_shape` of images from all over the classes."""
    files = [file for files in classes.values() for file in files]
    sizes = []
    for file in files[:: -(-len(files) // _SIDE_SAMPLE) or 1]:
        try:
            with Path(file).open("rb") as stream:
                sizes.append(size_of(stream))
        except (OSError, Undecodable):
            continue
    if not sizes:
        raise DataError(f"folder:{path} has no images in its class folders; give files that Pillow reads.")
    return common_shape(sizes)


def _decoded(classes: Classes, names: tuple[str, ...], squares: Squares, faults: list[str]) -> Chunks:
    """The images that can be decoded; why the others cannot is noted in `faults`."""
    number = {name: label for label, name in enumerate(names)}
    labelled = ((file, number[name]) for name, files in classes.items() for file in files)
    chunk, total = chunk_images(squares.side), 0
    with ThreadPoolExecutor() as pool:
        while part := list(itertools.islice(labelled, chunk)):
            total += len(part)
            found = [*pool.map(partial(_image, squares=squares), [file for file, _ in part])]
            faults += [fault for fault in found if isinstance(fault, str)]
            good = [
                (image, label)
                for image, (_, label) in zip(found, part, strict=True)
                if not isinstance(image, str)
            ]
            if good:
                yield np.stack([image for image, _ in good]), np.array([label for _, label in good])
    if 2 * len(faults) > total:
        raise DataError(
            f"{len(faults):,} of {total:,} files are damaged or no images, such as {faults[0]}; give a "
            "folder where most are images."
        )


def _image(file: str, squares: Squares) -> Pixels | str:
    """The image in a file, or its path and what is wrong with it."""
    try:
        return decoded(Path(file).read_bytes(), squares)
    except Undecodable as error:
        return f"{file} ({error})"
    except OSError as error:
        return f"{file} ({error.strerror})"
