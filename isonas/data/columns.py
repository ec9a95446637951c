"""Which columns of a Parquet file hold the images and the labels, and what their values mean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from isonas.data.dataset import Labels
from isonas.data.source_text import some
from isonas.errors import DataError

UNLABELLED = -1

_LABELS = ("label", "labels", "target", "targets", "class", "cls", "category", "finelabel", "y",
           "labelid", "labelidx", "classid", "classidx", "classindex", "classlabel", "categoryid", "targetid",
           "labelname", "classname", "categoryname", "classes", "labeltext")  # fmt: skip
_IMAGES = ("image", "images", "img", "imgs", "picture", "photo", "pic", "jpg", "jpeg", "png", "webp",
           "imagebytes", "imgbytes", "imagedata", "bytes", "pixels", "content", "data")  # fmt: skip
_NEVER_LABELS = {"id", "ids", "idx", "index", "row", "number", "unnamed", "level", "width", "height",
                 "depth", "channels", "size", "length", "w", "h", "year", "month", "day", "time",
                 "timestamp", "date", "seed", "fold", "split", "hash"}  # fmt: skip
"""The last words of names of whole numbers that count or measure."""


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels; `class_names` are the metadata's, by the number of the label.

    Where `text`, labels are names and not numbers. `chosen` says how they were found.
    """

    image: str
    label: str
    class_names: tuple[str, ...]
    text: bool
    chosen: str


def columns_of(
    file: str, schema: pa.Schema, decodes: Callable[[str], bool], image: str | None, label: str | None
) -> Columns:
    """The columns that are asked for, or those that the metadata, their names or their types point to.

    `decodes` says whether what a column holds is an image. Raises DataError where there is none, or
    several and nothing to tell them apart.
    """
    features = _features(schema)
    found_image, by_image = _image(file, schema, features, decodes, image)
    found_label, by_label = _label(file, schema, features, label, found_image)
    names = tuple(str(name) for name in features.get(found_label, {}).get("names") or ())
    kind = _value_type(schema.field(found_label).type)
    chosen = f"images are in column {found_image} ({by_image}), labels in column {found_label} ({by_label})"
    return Columns(found_image, found_label, names, _is_text(kind), chosen)


def _image(
    file: str, schema: pa.Schema, features: dict[str, Any], decodes: Callable[[str], bool], asked: str | None
) -> tuple[str, str]:
    candidates = [field.name for field in schema if holds_bytes(field.type)]
    if asked is not None:
        if asked not in candidates:
            raise DataError(
                f"{file} has no column {asked!r} of encoded images; {_there(candidates, schema)}."
            )
        return asked, "as asked"
    if not candidates:
        raise DataError(
            f"{file} has no image column (a struct with bytes, or bytes); its columns are "
            f"{', '.join(schema.names)}. Give files in the Hugging Face image layout."
        )
    by_metadata = [name for name in candidates if features.get(name, {}).get("_type") == "Image"]
    if len(by_metadata) == 1:
        return by_metadata[0], "by the metadata"
    among = by_metadata or candidates
    if len(among) > 1:
        among = [name for name in among if decodes(name)] or among
    if len(among) == 1:
        return among[0], "the only one of encoded images"
    if usual := _usual(among, _IMAGES):
        return usual, f"by its name, among {some(among)}"
    raise DataError(
        f"{file} has several columns of images, {some(among)}; choose one by ?image=NAME after the path, as "
        f"in parquet:PATH?image={among[0]}."
    )


def _label(
    file: str, schema: pa.Schema, features: dict[str, Any], asked: str | None, image: str
) -> tuple[str, str]:
    values = {field.name: _value_type(field.type) for field in schema if field.name != image}
    candidates = [name for name, kind in values.items() if _is_text(kind) or _is_number(kind)]
    if asked is not None:
        if asked not in candidates:
            raise DataError(
                f"{file} has no column {asked!r} of numbers or names; {_there(candidates, schema)}."
            )
        return asked, "as asked"
    classes = [name for name in candidates if features.get(name, {}).get("_type") == "ClassLabel"]
    if len(classes) == 1:
        return classes[0], "by the metadata"
    if usual := _usual(classes or candidates, _LABELS):
        others = [name for name in classes if name != usual]
        return usual, "by its name" + (f", among {some(classes)}" if others else "")
    whole = [
        field.name
        for field in schema
        if field.name in candidates
        and (pa.types.is_integer(values[field.name]) or pa.types.is_dictionary(field.type))
        and (re.findall(r"[a-z]+", field.name.lower()) or [""])[-1] not in _NEVER_LABELS
    ]
    if len(whole) == 1 and not classes:
        return whole[0], "the only one of whole numbers or categories"
    if not candidates:
        raise DataError(
            f"{file} has no labels, a column of numbers or names; its columns are "
            f"{', '.join(schema.names)}. Give files in the Hugging Face image layout."
        )
    among = classes or whole or candidates
    raise DataError(
        f"{file} has no column that is plainly the label; choose among {', '.join(among)} by ?label=NAME "
        f"after the path, as in parquet:PATH?label={among[0]}."
    )


def _there(candidates: Sequence[str], schema: pa.Schema) -> str:
    return (
        f"give one of {', '.join(candidates)}" if candidates else f"its columns are {', '.join(schema.names)}"
    )


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The name that comes first in the order of the usual ones, whatever its capitals and signs."""
    plain = {re.sub(r"[\W_]", "", name).lower(): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the Hugging Face metadata says of each column, of a list's elements where it is a list."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        features = dict(found)
    except (KeyError, TypeError, ValueError):
        return {}
    for name, feature in features.items():
        while isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        features[name] = feature if isinstance(feature, dict) else {}
        if "names" in features[name]:
            features[name] = {"_type": "ClassLabel"} | features[name]
    return features


def _is_list(kind: pa.DataType) -> bool:
    return any(
        check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column may hold encoded images: bytes, a struct with `bytes`, or lists of either."""
    if _is_list(kind):
        return holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and holds_bytes(field.type) for field in kind.fields)
    # The name does for fixed widths and for views, which older versions do not have.
    return str(kind).split("[")[0] in ("binary", "large_binary", "binary_view", "fixed_size_binary")


def _value_type(kind: pa.DataType) -> pa.DataType:
    while _is_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "string_view", "bool")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def encoded_images(column: pa.Array) -> list[bytes | None]:
    """The encoded images of a column, None where there is not exactly one."""
    return [_bytes(value) for value in column.to_pylist()]


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, list):
        return _bytes(value[0]) if len(value) == 1 else None
    if isinstance(value, dict):
        return _bytes(value["bytes"])
    return value if isinstance(value, bytes) else None


def names_in(column: pa.Array) -> list[str | None]:
    """The labels of a column of names, None where there is not exactly one."""
    found = []
    for value in column.to_pylist():
        while isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        found.append(None if value is None or value == "" else str(value))
    return found


def numbers_in(column: pa.Array, file: str) -> Labels:
    """The labels of a column of numbers, UNLABELLED where there is not exactly one from 0.

    Raises DataError where one is not whole, for then it measures and does not name.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    elif _is_list(kind):
        single = [value[0] if value is not None and len(value) == 1 else None for value in column.to_pylist()]
        column = pa.array(single, _value_type(kind))
    if pa.types.is_integer(column.type):
        whole = column.cast(pa.int64(), safe=False).fill_null(UNLABELLED).to_numpy(zero_copy_only=False)
        return np.asarray(np.maximum(whole, UNLABELLED))
    # A null becomes NaN.
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    values[~np.isfinite(values)] = UNLABELLED
    if (values != np.rint(values)).any():
        wrong = values[values != np.rint(values)][0]
        raise DataError(
            f"{file} has a label {wrong:g}, which is no whole number; choose a column of classes by "
            "?label=NAME after the path."
        )
    return np.asarray(np.maximum(values, UNLABELLED).astype(np.int64))
