"""From the text after `--data` to a data set."""

from __future__ import annotations

from pathlib import Path

from isonas.data.clutter import clutter
from isonas.data.dataset import Dataset
from isonas.data.digits import digits
from isonas.data.folder import folder
from isonas.data.imagenet32 import imagenet32
from isonas.data.parquet import parquet
from isonas.data.synthetic import synthetic
from isonas.errors import UsageError
from isonas.paths import user_path

EMBEDDED = {"digits": digits, "synthetic": synthetic}
FILES = {"imagenet32": imagenet32, "parquet": parquet, "folder": folder}
SOURCES = ("clutter", *EMBEDDED, "imagenet32:DIR", "parquet:PATH", "folder:DIR")


def open_dataset(source: str, cache: Path) -> Dataset:
    """The data set that a source names; decoded images are kept in the `cache` folder.

    A leading `~` of either is the home folder.

    Raises UsageError for an unknown source or a path that is not there, DataError for images that
    cannot be read.
    """
    kind, colon, path = source.partition(":")
    if source == "clutter":
        return clutter(user_path(cache))
    if not colon and kind in EMBEDDED:
        return EMBEDDED[kind]()
    if kind in FILES and path:
        return FILES[kind](str(user_path(path)), user_path(cache))
    raise UsageError(f"--data {source!r} is unknown; give {', '.join(SOURCES)}.")
