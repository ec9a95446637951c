"""Parquet files in the Hugging Face image layout: a column of encoded images, one of labels.

`image` is a struct with `bytes` (as the `datasets` library writes it) or plain encoded bytes; `label`
is an integer from 0. Class names come from the `huggingface` schema metadata where it has them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from isonas.data.dataset import Dataset, Images, Labels, Pixels
from isonas.data.resize import fit_square
from isonas.data.store import cached
from isonas.errors import DataError, UsageError

LARGEST_SIDE = 64
"""Images that are not all squares of one side are fitted to squares of at most this many pixels."""

_BATCH_ROWS = 1024
_SMALLEST_LABEL, _LARGEST_LABEL = 0, 99_999


@dataclass(frozen=True)
class _Layout:
    """Which columns hold images and labels, and the class names that the metadata gives."""

    image: str
    label: str
    class_names: tuple[str, ...]


def parquet(path: str, cache: Path) -> Dataset:
    """The data set in a Parquet file, a folder of them, or what a glob matches.

    Files named `train…` are for training, `validation…` and `test…` are held back (the validation
    files where there are both); without such names all are for training. Decoded once, in parallel,
    into the `cache` folder. Raises UsageError where there is no such path, DataError where a file is
    not Parquet, has no images or labels, or holds an image that cannot be decoded.
    """
    train, held_back = _splits(_files(path), path)
    layout = _layout(train[0])
    digest = hashlib.blake2b(digest_size=16)
    for role, files in (("train", train), ("held back", held_back)):
        digest.update(f"{role} {len(files)}".encode())
        for file in files:
            digest.update(_digest(file))
    fingerprint = digest.hexdigest()
    side = cached(cache, f"{fingerprint}-side", lambda: (np.array(_common_side(train, layout)),))[0]
    training = _decoded(train, layout, int(side), cache, f"{fingerprint}-train")
    test = _decoded(held_back, layout, int(side), cache, f"{fingerprint}-held-back")
    largest = max(int(images.labels.max()) for images in (training, test) if len(images))
    names = layout.class_names or tuple(str(label) for label in range(largest + 1))
    if largest >= len(names):
        raise DataError(
            f"{path} has a label {largest}, but its metadata names {len(names)} classes; "
            "mend the labels or the metadata."
        )
    source = f"parquet:{Path(path).absolute()}"
    return Dataset(source, fingerprint, names, training, test if len(test) else None, mirror=True)


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
        match = re.match(r"(train|validation|valid|val|test)(?![a-z])", file.name.lower())
        by_name.setdefault(match[1] if match else "", []).append(file)
    train = by_name.get("train", []) or by_name.get("", [])
    if not train:
        raise DataError(
            f"{path} holds only {' and '.join(sorted(by_name))} files; training images are in files "
            "named train….parquet (or files that name no split)."
        )
    for name in ("validation", "valid", "val", "test"):
        if name in by_name:
            return train, by_name[name]
    return train, []


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


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def _common_side(files: list[Path], layout: _Layout) -> int:
    """The side of the first images where all are squares of one side, else the median, capped."""
    sizes: Counter[tuple[int, int]] = Counter()
    for encoded, _ in _batches(files[0], layout):
        for row, content in enumerate(encoded):
            with _image(content, files[0], row) as image:
                sizes[image.size] += 1
        break
    if not sizes:
        raise DataError(f"{files[0]} has no rows; give files with images.")
    if len(sizes) == 1 and len(set(next(iter(sizes)))) == 1:
        return min(next(iter(sizes))[0], 4 * LARGEST_SIDE)
    shorter = sorted(min(size) for size in sizes.elements())
    return min(shorter[len(shorter) // 2], LARGEST_SIDE)


def _decoded(files: list[Path], layout: _Layout, side: int, cache: Path, key: str) -> Images:
    def decode() -> tuple[Pixels, Labels]:
        total = sum(_open(file).metadata.num_rows for file in files)
        pixels = np.empty((total, 3, side, side), np.uint8)
        labels = np.empty(total, np.int64)
        done = 0
        with ThreadPoolExecutor() as pool:
            for file in files:
                start = done
                for encoded, batch_labels in _batches(file, layout):
                    rows = range(done - start, done - start + len(encoded))
                    images = pool.map(_decode, encoded, [file] * len(encoded), rows, [side] * len(encoded))
                    for image in images:
                        pixels[done] = image
                        done += 1
                    labels[done - len(encoded) : done] = batch_labels
        return pixels, labels

    pixels, labels = cached(cache, f"{key}-{side}", decode)
    return Images(pixels, labels)


def _batches(file: Path, layout: _Layout) -> Iterator[tuple[list[Any], Labels]]:
    columns = [layout.image, layout.label]
    opened = _open(file)
    if missing := [name for name in columns if name not in opened.schema_arrow.names]:
        raise DataError(f"{file} has no column {missing[0]!r}, which the first file has.")
    try:
        for batch in opened.iter_batches(_BATCH_ROWS, columns=columns):
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
        raise DataError(f"{file} cannot be read to its end: {error}; replace the file.") from None


def _decode(content: bytes | None, file: Path, row: int, side: int) -> Pixels:
    with _image(content, file, row) as image:
        try:
            pixels: npt.NDArray[np.uint8] = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(_undecodable(file, row, error)) from None
    if pixels.shape[:2] != (side, side):
        pixels = fit_square(pixels, side)
    return pixels.transpose(2, 0, 1)


def _image(content: bytes | None, file: Path, row: int) -> Image.Image:
    if content is None:
        raise DataError(f"{file}, row {row}: the image is missing; embed the bytes in the file.")
    try:
        return Image.open(io.BytesIO(content))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(_undecodable(file, row, error)) from None


def _undecodable(file: Path, row: int, error: Exception) -> str:
    return f"{file}, row {row}: the image cannot be decoded ({error}); mend or remove the row."
