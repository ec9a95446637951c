"""Parquet files in the Hugging Face image layout: a column of encoded images, one of labels.

`image` is a struct with `bytes` (as the `datasets` library writes it) or plain encoded bytes; `label`
is an integer from 0. Class names come from the `huggingface` schema metadata where it has them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isonas.data.dataset import HELD_BACK, Dataset, Images, Labels
from isonas.data.encoded import Undecodable, chunk_images, common_shape, decoded, size_of, squares_for
from isonas.data.fingerprint import fingerprint
from isonas.data.preprocessing import DECODER, Fit, Squares
from isonas.data.store import Chunks, cached, stored
from isonas.errors import DataError, UsageError

T = TypeVar("T")

_SPLIT = re.compile(rf"(?<![a-z])(train|{'|'.join(HELD_BACK)})(?![a-z])")
_SIDE_SAMPLE = 256
_SMALLEST_LABEL, _LARGEST_LABEL = 0, 99_999


@dataclass(frozen=True)
class _Layout:
    """Which columns hold images and labels, and the class names that the metadata gives."""

    image: str
    label: str
    class_names: tuple[str, ...]


def parquet(
    path: str, cache: Path, side: int | None = None, fit: Fit = Fit.CROP, held_back: bool = True
) -> Dataset:
    """The data set in a Parquet file, a folder of them, or what a glob matches.

    Files with `train` in their name, or that of their folder, are for training; `validation` and `test`
    are held back (the validation files where there are both); without such names all are for training.
    Decoded once, in parallel, into the `cache` folder, to squares of `side` pixels where it is given
    (see `squares_for`). Raises UsageError where there is no such path,
    DataError where a file is not Parquet, has no images or labels, or holds an image that cannot be
    decoded.
    """
    train, held = _splits(_files(path), path)
    layout = _layout(train[0])
    by_role = {"train": train, "held back": held}
    groups = [(role, [str(file.absolute()) for file in files]) for role, files in by_role.items()]
    content = fingerprint(groups, cache)
    shape = cached(cache, f"{content}-shape", lambda: (np.array(_common_shape(train, layout)),))[0]
    squares = squares_for(int(shape[0]), bool(shape[1]), side, fit)

    def images(role: str) -> Images:
        key = f"{content}-{role.replace(' ', '-')}-{squares.key}"
        doing = f"decoding parquet:{path} ({role}) to {squares}"
        return stored(cache, key, doing, lambda: _decoded(by_role[role], layout, squares))

    training = images("train")
    test = images("held back") if held_back and held else None
    largest = max(int(images.labels.max()) for images in filter(None, (training, test)))
    names = layout.class_names or tuple(str(label) for label in range(largest + 1))
    if largest >= len(names):
        raise DataError(
            f"{path} has a label {largest}, but its metadata names {len(names)} classes; "
            "mend the labels or the metadata."
        )
    source = f"parquet:{Path(path).absolute()}"
    return Dataset(source, content, names, training, test, mirror=True, fit=fit, decoder=DECODER)


def _files(path: str) -> list[Path]:
    place = Path(path)
    if place.is_dir():
        found = sorted(place.rglob("*.parquet"))
    elif place.is_file():
        found = [place]
    else:
        try:
            found = sorted(Path(place.anchor or ".").glob(str(place.relative_to(place.anchor))))
        except (OSError, ValueError):
            found = []
    if not found:
        there = "has no .parquet file" if place.is_dir() else "does not exist"
        raise UsageError(f"--data parquet:{path} {there}; give a Parquet file, a folder of them, or a glob.")
    return found


def _splits(files: list[Path], path: str) -> tuple[list[Path], list[Path]]:
    by_name: dict[str, list[Path]] = {}
    for file in files:
        inside = Path(path).is_dir() and file.parent != Path(path)
        places = [file.name, file.parent.name] if inside else [file.name]
        found = filter(None, (_SPLIT.search(place.lower()) for place in places))
        by_name.setdefault(next((match[1] for match in found), ""), []).append(file)
    train = by_name.get("train", []) or by_name.get("", [])
    if not train:
        raise DataError(
            f"{path} holds only {' and '.join(sorted(by_name))} files; training images are in files "
            "named train….parquet (or files that name no split)."
        )
    return train, next((by_name[name] for name in HELD_BACK if name in by_name), [])


def _layout(file: Path) -> _Layout:
    schema = _open(file).schema_arrow
    images = [field.name for field in schema if _holds_bytes(field.type)]
    labels = [field.name for field in schema if pa.types.is_integer(field.type)]
    named = [name for name in ("label", "labels", "fine_label") if name in labels]
    if not images or not labels:
        missing = "image column (a struct with bytes, or bytes)" if not images else "integer labels"
        raise DataError(
            f"{file} has no {missing}; its columns are {', '.join(schema.names)}. Give files in the "
            "Hugging Face image layout."
        )
    image = "image" if "image" in images else images[0]
    label = named[0] if named else labels[0]
    return _Layout(image, label, _class_names(schema, label))


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind.fields)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read as Parquet: {reason}; replace the file.") from None


def _common_shape(files: list[Path], layout: _Layout) -> tuple[int, bool]:
    """`common_shape` of the first images."""
    encoded, _ = next(_batches(files[0], layout, _SIDE_SAMPLE), ([], None))
    if not encoded:
        raise DataError(f"{files[0]} has no rows; give files with images.")
    return common_shape(_from_row(size_of, files[0], *numbered) for numbered in enumerate(encoded))


def _decoded(files: list[Path], layout: _Layout, squares: Squares) -> Chunks:
    with ThreadPoolExecutor() as pool:
        for file in files:
            row = 0
            for encoded, labels in _batches(file, layout, chunk_images(squares.side)):
                one = partial(_from_row, partial(decoded, squares=squares), file)
                yield np.stack([*pool.map(one, itertools.count(row), encoded)]), labels
                row += len(encoded)


def _batches(file: Path, layout: _Layout, rows: int) -> Iterator[tuple[list[Any], Labels]]:
    columns = [layout.image, layout.label]
    opened = _open(file)
    if missing := [name for name in columns if name not in opened.schema_arrow.names]:
        raise DataError(f"{file} has no column {missing[0]!r}, which the first file has.")
    try:
        for batch in opened.iter_batches(rows, columns=columns):
            labels = batch.column(layout.label)
            values = labels.to_numpy(zero_copy_only=False)
            bad = labels.null_count or not np.all((values >= _SMALLEST_LABEL) & (values <= _LARGEST_LABEL))
            if bad:
                raise DataError(
                    f"{file} has a label that is missing or outside {_SMALLEST_LABEL} to "
                    f"{_LARGEST_LABEL:,}; labels count from 0."
                )
            encoded = batch.column(layout.image).to_pylist()
            yield [row["bytes"] if isinstance(row, dict) else row for row in encoded], values
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read to its end: {reason}; replace the file.") from None


def _from_row(read: Callable[[bytes], T], file: Path, row: int, content: bytes | None) -> T:
    if content is None:
        raise DataError(f"{file}, row {row}: the image is missing; embed the bytes in the file.")
    try:
        return read(content)
    except Undecodable as error:
        raise DataError(
            f"{file}, row {row}: the image cannot be decoded ({error}); mend or remove the row."
        ) from None
