"""From the text after `--data` to a data set."""

from __future__ import annotations

import sys
from pathlib import Path

from isonas.data.clutter import clutter
from isonas.data.dataset import Dataset
from isonas.data.digits import digits
from isonas.data.folder import folder
from isonas.data.imagenet32 import imagenet32
from isonas.data.parquet import parquet
from isonas.data.preprocessing import Fit
from isonas.data.source_text import printable
from isonas.data.synthetic import synthetic
from isonas.errors import UsageError
from isonas.paths import user_path

EMBEDDED = {"digits": digits, "synthetic": synthetic}
ENCODED = {"parquet": parquet, "folder": folder}
SOURCES = ("clutter", *EMBEDDED, "imagenet32:DIR", "parquet:PATH", "folder:DIR")


def open_dataset(
    source: str,
    cache: Path,
    side: int | None = None,
    fit: Fit = Fit.CROP,
    *,
    held_back: bool = True,
    tell: bool = True,
) -> Dataset:
    """The data set that a source names; decoded images are kept in the `cache` folder.

    Encoded images are fitted to squares, of `side` pixels where it is given (see `squares_for`); sources
    that are squares of pixels already stay as they are. Without `held_back` encoded ones are not decoded.
    What was understood of files and what was left out of them is told on stderr where `tell`. A leading
    `~` of either path is the home folder. Raises UsageError for an unknown source or a path that is not
    there, DataError for images that cannot be read.
    """
    kind, colon, path = source.partition(":")
    if source == "clutter":
        return clutter(user_path(cache))
    if not colon and kind in EMBEDDED:
        return EMBEDDED[kind]()
    if kind in (*ENCODED, "imagenet32") and path:
        if printable(source) != source:
            raise UsageError(
                f"--data {printable(source)!r} is not UTF-8; give a path that is, such as a link."
            )

        def say(sentence: str) -> None:
            if tell:
                print(f"isonas: {source}: {sentence}", file=sys.stderr, flush=True)

        place, kept = str(user_path(path)), user_path(cache)
        if kind == "imagenet32":
            return imagenet32(place, kept, say)
        return ENCODED[kind](place, kept, say, side, fit, held_back)
    raise UsageError(f"--data {source!r} is unknown; give {', '.join(SOURCES)}.")
