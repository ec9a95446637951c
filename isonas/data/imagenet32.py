"""The downsampled ImageNet of Chrabaszcz, Loshchilov and Hutter (2017), in its official batches.

Files `train_data_batch_1` … `train_data_batch_10` and `val_data`, pickled, or the same as `.npz`: `data`
(N, 3·S²) uint8, an image's red, green and blue plane one after the other; `labels` from 1, in the order
of the authors' own list of classes; S = 8, 16, 32 or 64.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from isonas.data.dataset import Dataset, Images, Labels, Pixels
from isonas.data.fingerprint import fingerprint
from isonas.data.gathered import FETCH, Say, is_pointer
from isonas.data.store import Chunks, stored
from isonas.data.unpickle import RefusedPickle, unpickle_dict
from isonas.errors import DataError, UsageError

SIDES = {3 * side**2: side for side in (8, 16, 32, 64)}
CLASSES = 1000


def imagenet32(path: str, cache: Path, say: Say) -> Dataset:
    """The data set in a folder of batches, which may lie in folders of its own; `val_data` is held back.

    Where a batch is there in both forms, the `.npz` is read. Memory holds one batch at a time. Classes
    are named by their number in the files. Raises UsageError where there are no batches, DataError
    where one is damaged, holds anything but arrays, or has a label out of range.
    """
    by_role = _files(path)
    groups = [(role, [str(file.absolute()) for file in files]) for role, files in by_role.items()]
    content = fingerprint(groups, cache)

    def images(role: str) -> Images:
        doing = f"decoding imagenet32:{path} ({role})"
        return stored(cache, f"{content}-{role.replace(' ', '-')}", doing, lambda: _decoded(by_role[role]))

    train = images("train")
    held_back = images("held back") if by_role["held back"] else None
    if held_back is not None and held_back.side != train.side:
        raise DataError(
            f"{by_role['held back'][0]} has images of {held_back.side} pixels, the training batches of "
            f"{train.side}; give a folder of one size."
        )
    largest = max(int(part.labels.max()) for part in (train, held_back) if part is not None)
    names = tuple(str(number) for number in range(1, largest + 2))
    held = f", {len(held_back):,} of val_data held back" if held_back is not None else ", none held back"
    batches = f"{len(by_role['train']):,} training batch{'es' if len(by_role['train']) > 1 else ''}"
    say(f"{len(train):,} images in {batches}{held}; {len(names):,} classes, called by their numbers from 1.")
    return Dataset(f"imagenet32:{Path(path).absolute()}", content, names, train, held_back, mirror=True)


def _files(path: str) -> dict[str, list[Path]]:
    """Training batches by number, and the held-back file, if any."""
    found: dict[tuple[str, int], Path] = {}
    for file in sorted(Path(path).rglob("*_data*")):
        match = re.fullmatch(r"(?:train_data_batch_([0-9]{1,4})|val_data)(\.npz)?", file.name)
        if match is None or not file.is_file():
            continue
        key = ("train", int(match[1])) if match[1] else ("held back", 0)
        other = found.get(key)
        if other is not None and other.suffix == file.suffix:
            raise DataError(f"{other} and {file} are the same batch; give a folder that has it once.")
        if other is None or file.suffix:
            found[key] = file
    if not any(role == "train" for role, _ in found):
        if packed := sorted(Path(path).rglob("*_train*.zip")):
            raise UsageError(f"--data imagenet32:{path} has {packed[0].name}; unpack it there first.")
        raise UsageError(
            f"--data imagenet32:{path} has no file train_data_batch_1 (pickled, or with .npz); give the "
            "folder of the official batches."
        )
    return {role: [found[key] for key in sorted(found) if key[0] == role] for role in ("train", "held back")}


def _decoded(files: list[Path]) -> Chunks:
    sides: dict[int, Path] = {}
    for file in files:
        pixels, labels = _batch(file)
        sides.setdefault(pixels.shape[-1], file)
        if len(sides) > 1:
            (side, first), (other, _) = sides.items()
            raise DataError(
                f"{first} has images of {side} pixels, {file} of {other}; give a folder of one size."
            )
        yield pixels, labels
        del pixels  # before the next batch is read


def _batch(file: Path) -> tuple[Pixels, Labels]:
    _check_pointer(file)
    content = _npz(file) if file.suffix == ".npz" else _pickled(file)
    if missing := [key for key in ("data", "labels") if key not in content]:
        raise DataError(f"{file} has no {missing[0]!r}; give the official batches.")
    data = content["data"]
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] not in SIDES
    ):
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(
            f"{file}: data is {found}, not uint8 (N, 3·S²) with S = 8, 16, 32 or 64; give the official "
            "batches."
        )
    labels = _labels(content["labels"])
    if labels is None or len(labels) != len(data):
        raise DataError(
            f"{file}: labels is no list of {len(data):,} whole numbers, one an image; fetch it again."
        )
    if len(labels) and not 1 <= labels.min() <= labels.max() <= CLASSES:
        wrong = labels[(labels < 1) | (labels > CLASSES)][0]
        raise DataError(
            f"{file} has a label {wrong}, where labels count from 1 to {CLASSES:,}; fetch it again."
        )
    side = SIDES[data.shape[1]]
    return data.reshape(-1, 3, side, side), labels - 1


def _check_pointer(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            pointer = is_pointer(stream.read(64))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; give batches that can.") from None
    if pointer:
        raise DataError(f"{file} is a Git LFS pointer, not the file; {FETCH}.")


def _labels(found: Any) -> Labels | None:
    try:
        labels = np.asarray(found)
    except ValueError:
        return None
    return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else None


def _pickled(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return unpickle_dict(stream)
    except RefusedPickle as error:
        raise DataError(f"{file} {error}; replace it by the official file.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; give batches that can.") from None


def _npz(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in ("data", "labels")}
    except MemoryError:
        raise DataError(f"{file} asks for more memory than there is; give the official file.") from None
    except Exception as error:
        # Damaged archives raise nearly anything: BadZipFile, ValueError, zlib.error, EOFError, …
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(
            f"{file} cannot be read as an .npz of arrays ({reason}); replace it by the official file."
        ) from None
