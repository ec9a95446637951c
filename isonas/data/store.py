"""Decoded images on disk, written once and mapped into memory afterwards."""

from __future__ import annotations

import math
import mmap
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import filelock
import numpy as np
import numpy.typing as npt

from isonas.atomic import PART_SUFFIX, write_atomically
from isonas.data.dataset import Images, Labels, Pixels
from isonas.errors import DataError
from isonas.paths import user_path

Array = npt.NDArray[Any]
Chunks = Iterable[tuple[Pixels, Labels]]
"""Images some at a time: pixels (n, 3, S, S) uint8 of one S, and labels (n,) from 0."""

_PIXELS = ".pixels.npy"
_TOLD_EVERY = 10_000


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/isonas`, else `.cache/isonas` in the home folder (or here, without one)."""
    if "XDG_CACHE_HOME" in os.environ:
        return user_path(os.environ["XDG_CACHE_HOME"]) / "isonas"
    try:
        return Path.home() / ".cache" / "isonas"
    except RuntimeError:
        return Path(".cache") / "isonas"


def stored(folder: Path, key: str, doing: str, chunks: Callable[[], Chunks]) -> Images:
    """The images of a key, mapped from the folder's files; `chunks` yields them where they are not there.

    They are written as they come, so that memory holds one chunk, and appear whole or not at all: a
    file of pixels with the shape, type and length that its labels ask for is whole. Of several
    processes one writes and the others wait for it. What is written, its count and its size are told
    on stderr in one line that begins with `doing`. Raises DataError where the folder cannot be written
    or there are no images, and what `chunks` raises.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (found := _opened(folder, key)) is not None:
            return found
        with filelock.FileLock(folder / f"{key}.lock"):
            if (found := _opened(folder, key)) is None:
                _write(folder, key, doing, chunks)
                found = _opened(folder, key)
    except OSError as error:
        raise _unwritable(folder, error) from None
    if found is None:
        raise DataError(f"the cache folder {folder} changes while it is read; give another --cache DIR.")
    return found


def stored_beside(images: Images, key: str, doing: str, chunks: Callable[[], Chunks]) -> Images:
    """`stored` images made from mapped ones, in the same folder under a key that extends theirs."""
    assert images.file is not None
    return stored(images.file.parent, f"{images.file.name.removesuffix(_PIXELS)}-{key}", doing, chunks)


def mapped_for_random(images: Images) -> Pixels:
    """The pixels of mapped images in a map of their own, for reading in no order."""
    assert images.file is not None
    pixels: np.memmap[Any, np.dtype[np.uint8]] = np.load(images.file, mmap_mode="r", allow_pickle=False)
    if hasattr(mmap, "MADV_RANDOM"):
        # The system reads ahead otherwise, and where memory is smaller than the file that is in vain:
        # every image would cost some thirty times its bytes.
        cast(mmap.mmap, pixels.base).madvise(mmap.MADV_RANDOM)
    return pixels


def cached(folder: Path, key: str, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
    """The small arrays that `make` returns, from the folder's files of that key where they are there.

    Each array is a `.npy` file that appears whole, so a reader never meets half of one and writers at
    the same time do no harm. A file that cannot be mapped is made anew. Raises DataError where the
    folder cannot be written.
    """
    if (found := _mapped(folder, key)) is not None:
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Number 0, which says how many there are, comes last: it vouches for the others.
        for number, array in (*enumerate(arrays, start=1), (0, np.array(len(arrays)))):
            path = folder / f"{key}.{number}.npy"
            write_atomically(path, partial(np.save, arr=array, allow_pickle=False))
    except OSError as error:
        raise _unwritable(folder, error) from None
    return arrays


def _opened(folder: Path, key: str) -> Images | None:
    file = folder / f"{key}{_PIXELS}"
    try:
        labels: Labels = np.load(folder / f"{key}.labels.npy", allow_pickle=False)
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
        side = pixels.shape[-1]
        whole = (
            labels.dtype == np.int64
            and pixels.dtype == np.uint8
            and (*labels.shape, 3, side, side) == pixels.shape
            and file.stat().st_size == pixels.offset + pixels.nbytes
        )
    except (OSError, ValueError, EOFError, IndexError):
        return None
    return Images(pixels, labels, file) if whole else None


def _write(folder: Path, key: str, doing: str, chunks: Callable[[], Chunks]) -> None:
    file = folder / f"{key}{_PIXELS}"
    # A killed writer's part may be as large as a disk; nobody writes it while we hold the lock.
    for part in folder.glob(f".{file.name}.*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)

    def write(stream: BinaryIO) -> None:
        labels = _stream(stream, chunks(), begun)
        # Inside, so that the pixels, which vouch for both, come last.
        path = folder / f"{key}.labels.npy"
        write_atomically(path, partial(np.save, arr=labels, allow_pickle=False))

    begun = f"isonas: {doing} into {folder}"
    print(f"{begun} … ", end="", file=sys.stderr, flush=True)
    try:
        with warnings.catch_warnings():
            # Pillow's, on images that it decodes all the same, would stand inside the line.
            warnings.simplefilter("ignore")
            write_atomically(file, write)
    finally:
        print(file=sys.stderr)


def _stream(stream: BinaryIO, chunks: Chunks, begun: str) -> Labels:
    """Write the pixels as one `.npy` array, whose length is known at its end, and return the labels."""
    count = 0
    shape: tuple[int, ...] = ()
    all_labels: list[Labels] = []
    for pixels, labels in chunks:
        if not all_labels:
            shape = pixels.shape[1:]
            _write_header(stream, (0, *shape))
        stream.write(np.ascontiguousarray(pixels).data)
        all_labels.append(labels.astype(np.int64))
        if sys.stderr.isatty() and count // _TOLD_EVERY < (count + len(labels)) // _TOLD_EVERY:
            print(f"\r{begun} … {count + len(labels):,} images", end="", file=sys.stderr, flush=True)
        count += len(labels)
        # Or this chunk, which may be a whole file's, would lie in memory beside the next.
        del pixels
    if not count:
        raise DataError(f"{begun.removeprefix('isonas: ')} came to no image; give a source with images.")
    start = "\r" + begun + " … " if sys.stderr.isatty() else ""
    mebibytes = count * math.prod(shape) / 2**20
    print(f"{start}{count:,} images, {mebibytes:,.1f} MiB", end="", file=sys.stderr, flush=True)
    stream.seek(0)
    _write_header(stream, (count, *shape))
    return np.concatenate(all_labels)


def _write_header(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    # NumPy pads it so that it is as long for any number of images.
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"the cache folder {folder} cannot be written ({error.strerror or error}); give another one with "
        "--cache DIR."
    )


def _mapped(folder: Path, key: str) -> tuple[Array, ...] | None:
    try:
        count = int(np.load(folder / f"{key}.0.npy", allow_pickle=False))
        return tuple(
            np.load(folder / f"{key}.{number}.npy", mmap_mode="r", allow_pickle=False)
            for number in range(1, count + 1)
        )
    except (OSError, ValueError, EOFError):
        return None
