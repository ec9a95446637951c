"""Decoded arrays on disk, written once and mapped into memory afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isonas.atomic import write_atomically
from isonas.errors import DataError

Array = npt.NDArray[Any]


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/isonas`, else `.cache/isonas` in the home folder (or here, without one)."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "isonas"
    try:
        return Path.home() / ".cache" / "isonas"
    except RuntimeError:
        return Path(".cache") / "isonas"


def cached(folder: Path, key: str, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
    """The arrays that `make` returns, from the folder's files of that key where they are there.

    Each array is a `.npy` file that appears whole, so a reader never meets half of one and writers at
    the same time do no harm. A file that cannot be mapped is
    made anew. Raises DataError where the folder cannot be written.
    """
    if (found := _mapped(folder, key)) is not None:
        return found
    arrays = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Number 0, which says how many there are, comes last: it vouches for the others.
        for number, array in (*enumerate(arrays, start=1), (0, np.array(len(arrays)))):
            path = folder / f"{key}.{number}.npy"
            write_atomically(path, partial(np.save, arr=array, allow_pickle=False))
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be written ({error.strerror}); give another one with "
            "--cache DIR."
        ) from None
    return arrays


def _mapped(folder: Path, key: str) -> tuple[Array, ...] | None:
    try:
        count = int(np.load(folder / f"{key}.0.npy", allow_pickle=False))
        return tuple(
            np.load(folder / f"{key}.{number}.npy", mmap_mode="r", allow_pickle=False)
            for number in range(1, count + 1)
        )
    except (OSError, ValueError, EOFError):
        return None
