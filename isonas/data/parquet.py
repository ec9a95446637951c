"""Parquet files in the Hugging Face image layout: a column of encoded images, one of labels.

Images are structs with `bytes` (as the `datasets` library writes them) or plain encoded bytes; labels are
numbers or names. Class names come from the `huggingface` schema metadata where it has them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from isonas.data.columns import UNLABELLED, Columns, columns_of, encoded_images, names_in, numbers_in
from isonas.data.dataset import Dataset, Labels, Pixels
from isonas.data.encoded import Undecodable, chunk_images, common_shape, decoded, size_of, squares_for
from isonas.data.fingerprint import fingerprint
from isonas.data.gathered import (
    FETCH,
    NO_TRAINING_IMAGES,
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
from isonas.data.parquet_files import files_at, shown, split_files
from isonas.data.preprocessing import Fit, Squares
from isonas.data.source_text import some, with_options
from isonas.data.store import Chunks, cached
from isonas.errors import DataError

_BATCH_ROWS = 1024
_PROBED_ROWS = 16


def parquet(
    path: str,
    cache: Path,
    say: Say,
    side: int | None = None,
    fit: Fit = Fit.CROP,
    held_back: bool = True,
) -> Dataset:
    """The data set in a Parquet file, a folder of them, or what a glob matches.

    Files with `train` in their name, or that of their folder, are for training; the first of HELD_BACK
    that is there is held back; without such names all are for training. `PATH?label=NAME&image=NAME`
    chooses the columns; otherwise the metadata, usual names and types do. Decoded once, in parallel, into
    the `cache` folder, to squares of `side` pixels where it is given (see `squares_for`); rows without
    one label or without an image are left out and counted. What was understood is told to `say`. Raises
    UsageError where there is no such path, DataError where a file is not Parquet, where it cannot be told
    what its columns are, or where most of its images cannot be read.
    """
    place, asked = with_options(path, {"label": "NAME", "image": "NAME"})
    train, held = split_files(files_at(place), place, say)
    filled = [file for file in train if _open(file).metadata.num_rows]
    if not filled:
        raise DataError(f"{train[0]} has no rows; give files with images.")
    decodes = partial(_decodes, filled[0])
    schema = _open(filled[0]).schema_arrow
    columns = columns_of(str(filled[0]), schema, decodes, asked.get("image"), asked.get("label"))
    say(f"{columns.chosen}.")
    by_role = {"train": train, "held back": held}
    groups = [(role, [str(file.absolute()) for file in files]) for role, files in by_role.items()]
    content = fingerprint(groups, cache)
    read = _read(columns)
    shape = cached(cache, f"{content}-{read}-shape", lambda: (np.array(_common_shape(filled, columns)),))[0]
    squares = squares_for(int(shape[0]), bool(shape[1]), side, fit)
    names = columns.class_names
    if columns.text:
        names = tuple(cached(cache, f"{content}-{read}-names", lambda: (_names(train, columns),))[0].tolist())

    def images(role: str, known: Labels | None = None) -> Gathered:
        key = f"{content}-{read}-{role.replace(' ', '-')}-{squares.key}"
        doing = f"decoding parquet:{path} ({role}) to {squares}"
        rows = partial(_decoded, by_role[role], columns, names, known, squares)
        return gathered(cache, key, doing, rows)

    training = images("train")
    known = np.unique(training.images.labels)
    if names and known[-1] >= len(names):
        raise DataError(
            f"{path} has a label {known[-1]}, but its metadata names {len(names)} classes; "
            "mend the labels or the metadata."
        )
    if names and (without := sorted(set(range(len(names))) - set(known.tolist()))):
        say(f"without an image, so no class: {some([names[label] for label in without])}.")
    test = None
    if held_back and held:
        if _any_labelled(held, columns, names, known):
            say(f"held back are those of {shown(held, place)}.")
            test = images("held back", known)
        else:
            say(
                f"no image of {shown(held, place)} has a label of these classes; they are left out, and no "
                "images are held back."
            )
    elif held_back:
        say("no images are held back.")
    options = "&".join(f"{key}={quote(value, safe=' ')}" for key, value in asked.items())
    source = f"parquet:{Path(place).absolute()}" + (f"?{options}" if options else "")

    def name(label: int) -> str:
        return names[label] if names else str(label)

    # Other columns than those that are read unasked make another set of the same files.
    try:
        unasked = _read(columns_of(str(filled[0]), schema, decodes, None, None))
    except DataError:
        unasked = ""
    if read != unasked:
        content = hashlib.blake2b(f"{content} {read}".encode(), digest_size=16).hexdigest()
    return dataset_of(source, content, name, training, test, fit, say)


def _read(columns: Columns) -> str:
    """A digest of what decides how rows are read."""
    decisive = columns.image, columns.label, columns.class_names, columns.text
    return hashlib.blake2b(repr(decisive).encode(), digest_size=8).hexdigest()


def _open(file: Path) -> pq.ParquetFile:
    try:
        with file.open("rb") as stream:
            pointer = is_pointer(stream.read(64))
        if pointer:
            raise DataError(f"{file} is a Git LFS pointer, not the file; {FETCH}.")
        # Arrow would take a leading ~ for the home folder, where Python does not.
        return pq.ParquetFile(file.absolute())
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read as Parquet: {reason}; replace the file.") from None


def _batches(file: Path, columns: list[str], rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    opened = _open(file)
    if not opened.metadata.num_rows:
        return
    if missing := [name for name in columns if name not in opened.schema_arrow.names]:
        raise DataError(f"{file} has no column {missing[0]!r}, which the first file has.")
    try:
        yield from (batch for batch in opened.iter_batches(rows, columns=columns) if batch.num_rows)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read to its end: {reason}; replace the file.") from None


def _decodes(file: Path, column: str) -> bool:
    """Whether the first of a column's values that are there are images."""
    for batch in itertools.islice(_batches(file, [column], _PROBED_ROWS), 1):
        for content in filter(None, encoded_images(batch.column(column))):
            try:
                size_of(content)
            except Undecodable:
                continue
            return True
    return False


def _common_shape(files: list[Path], columns: Columns) -> tuple[int, bool]:
    """`common_shape` of the first images."""
    for file in files:
        for batch in _batches(file, [columns.image]):
            sizes = []
            for content in filter(None, encoded_images(batch.column(columns.image))):
                try:
                    sizes.append(size_of(content))
                except Undecodable:
                    continue
            if sizes:
                return common_shape(sizes)
    raise DataError(
        f"{files[0]} has no image in its column {columns.image} that can be decoded; embed the images' bytes "
        "in the file, or choose another column by ?image=NAME after the path."
    )


def _names(files: list[Path], columns: Columns) -> npt.NDArray[np.str_]:
    """The names of classes in files' labels, in order."""
    found: set[str | None] = set()
    for file in files:
        for batch in _batches(file, [columns.label]):
            found.update(names_in(batch.column(columns.label)))
    return np.array(sorted(filter(None, found)), np.str_)


def _labels(batch: pa.RecordBatch, file: Path, columns: Columns, number: dict[str, int]) -> Labels:
    """Labels by number: UNLABELLED without one, and a name that is not known counts as beyond all."""
    column = batch.column(columns.label)
    if columns.text:
        names = names_in(column)
        return np.array(
            [UNLABELLED if name is None else number.get(name, len(number)) for name in names], np.int64
        )
    return numbers_in(column, str(file))


def _any_labelled(files: list[Path], columns: Columns, names: tuple[str, ...], known: Labels) -> bool:
    number = {name: label for label, name in enumerate(names)}
    return any(
        np.isin(_labels(batch, file, columns, number), known).any()
        for file in files
        for batch in _batches(file, [columns.label])
    )


def _decoded(
    files: list[Path],
    columns: Columns,
    names: tuple[str, ...],
    known: Labels | None,
    squares: Squares,
    tally: Tally,
) -> Chunks:
    """Images with a label, one of the `known` where they are given; what is left out goes to `tally`."""
    number = {name: label for label, name in enumerate(names)}
    rows_at_once = chunk_images(squares.side)
    labelled = bad = 0
    with ThreadPoolExecutor() as pool:
        for file in files:
            row = 0
            for batch in _batches(file, [columns.image, columns.label], rows_at_once):
                labels = _labels(batch, file, columns, number)
                take = labels != UNLABELLED
                if left := int((~take).sum()):
                    tally.leave("without one label", count=left)
                if known is not None and (left := int((take & ~np.isin(labels, known)).sum())):
                    take &= np.isin(labels, known)
                    tally.leave(NO_TRAINING_IMAGES, count=left)
                rows = np.flatnonzero(take)
                encoded = encoded_images(batch.column(columns.image))
                found = pool.map(partial(_image, squares=squares), [encoded[index] for index in rows])
                images, kept = [], []
                for index, one in zip(rows, found, strict=True):
                    labelled += 1
                    if isinstance(one, Unusable):
                        bad += 1
                        tally.leave(one.kind, f"{file}, row {row + index} ({one.reason})")
                    else:
                        images.append(one[0])
                        kept.append(labels[index])
                        tally.digests.append(one[1])
                row += batch.num_rows
                if images:
                    yield np.stack(images), np.array(kept)
    if not labelled:
        raise DataError(
            f"{files[0]} has no label in its column {columns.label}; choose another by ?label=NAME "
            "after the path."
        )
    if 2 * bad > labelled:
        raise DataError(
            f"{bad:,} of {labelled:,} images are missing or cannot be decoded, such as that of "
            f"{tally.first}; embed the bytes of all in the files, or choose another column by "
            "?image=NAME after the path."
        )


def _image(content: bytes | None, squares: Squares) -> tuple[Pixels, int] | Unusable:
    """The image in a row and the digest of its content."""
    if content is None:
        return Unusable("without an image", "the image is missing")
    try:
        return decoded(content, squares), digest(content)
    except Undecodable as error:
        return unusable(content, str(error))
