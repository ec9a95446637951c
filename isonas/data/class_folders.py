"""Which folders of a tree are splits and which are classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from isonas.data.source_text import printable, some
from isonas.data.splits import HELD_BACK, is_passed_over, is_plain, split_of
from isonas.errors import DataError

Classes = dict[str, list[str]]
"""The paths of the files of each class, by the name of its folder."""


@dataclass(frozen=True)
class Tree:
    """Class folders of training images and, where there are any, of held-back ones; `notes` tell of both."""

    train: Classes
    held_back: Classes | None
    notes: tuple[str, ...]


def tree_of(root: Path, *, splits: bool) -> Tree:
    """The splits and classes under a folder; without `splits` each of its folders is a class.

    A folder is a split where it is called like one and holds class folders, whatever lies beside it; one
    that holds images itself, beside folders that are no splits, is a class of that name. Raises DataError
    where there are no classes, and where it cannot be told what is meant.
    """
    holding = _holding(root)
    named = [name for name in holding if split_of(name)] if splits else []
    sorted_in = [name for name in named if not _is_flat(root / name)]
    train = [name for name in sorted_in if split_of(name) == "train"]
    others = [name for name in holding if name not in named]
    if train:
        return _with_splits(root, train, [name for name in named if split_of(name) != "train"], others)
    if sorted_in:
        raise DataError(
            f"{root} has {sorted_in[0]}/ but no train/; put the training images there, or give "
            f"folder:{root}?splits=none where {sorted_in[0]}/ is a class."
        )
    if named and not others:
        raise DataError(
            f"{root / named[0]} holds images and has no folders; sort them into one for each class, or give "
            f"folder:{root}?splits=none where {some(named)} are the classes."
        )
    taken = [f"{name}/ holds images itself and is taken for a class" for name in named]
    classes, notes = _classes(root, asked=not splits)
    return Tree(classes, None, (f"each folder is a class{'; ' if taken else ''}{'; '.join(taken)}", *notes))


def _with_splits(root: Path, train: list[str], held_back: list[str], others: list[str]) -> Tree:
    if others and not held_back:
        raise DataError(
            f"{root} has {train[0]}/ with folders beside {some(others)}; give folder:{root / train[0]} where "
            f"it is the training split, or folder:{root}?splits=none where it is a class."
        )
    plain = [name for name in train if is_plain(name)] or train
    if len(plain) > 1:
        raise DataError(f"{root} has several training splits, {some(plain)}; give a folder with one of them.")
    place = _inside(root / plain[0])
    classes, notes = _classes(place, asked=False)
    passed_over = [f"{name}/" for name in (*train, *others) if name != plain[0]]
    held: tuple[str, Classes] | None = None
    for name in sorted(
        held_back, key=lambda name: (HELD_BACK.index(str(split_of(name))), not is_plain(name))
    ):
        found = _inside(root / name)
        if held is not None:
            passed_over.append(f"{name}/")
        elif known := [each for each in _holding(found) if each in classes]:
            held = _relative(found, root), _held_back(found, place, classes)
            notes += tuple(_lacking(held[0], classes, known))
        else:
            notes += (f"{name}/ has no folders of these classes and is left out",)
    told = f"training images are those of {_relative(place, root)}"
    told += f", held back are those of {held[0]}" if held else ", none are held back"
    if passed_over:
        told += f"; {some(passed_over)} passed over"
    return Tree(classes, held[1] if held else None, (told, *notes))


def _relative(place: Path, root: Path) -> str:
    return printable(f"{place.relative_to(root)}/")


def _lacking(split: str, classes: Classes, known: list[str]) -> Iterator[str]:
    if lacking := [name for name in classes if name not in known]:
        yield f"{split} has no images of {some(lacking)}"


def _held_back(place: Path, train: Path, classes: Classes) -> Classes:
    found, _ = _classes(place, asked=True)
    if unknown := sorted(found.keys() - classes.keys()):
        raise DataError(
            f"{printable(str(place))} has a class {printable(unknown[0])!r} that {train} lacks; name its "
            "folders as there."
        )
    return found


def _classes(place: Path, *, asked: bool) -> tuple[Classes, tuple[str, ...]]:
    """The classes in a folder and notes on them; `asked` where the user said that they are classes."""
    folders, files = _entries(str(place))
    if not folders:
        raise DataError(f"{place} has no folders; sort its images into one for each class.")
    holding = _holding(place)
    if not asked:
        _check_nesting(place, holding)
    classes = {name: list(_files(str((place / name).absolute()))) for name in folders}
    notes = []
    if empty := [name for name, inside in classes.items() if not inside]:
        notes.append(f"without a file, so no class: {some(empty)}")
    if loose := sum(_may_be_image(name) for name in files):
        notes.append(f"{loose:,} images that lie beside the class folders are left out")
    return {name: inside for name, inside in classes.items() if inside}, tuple(notes)


def _check_nesting(place: Path, holding: list[str]) -> None:
    """Refuse one folder around the classes, and folders that look like splits of other names."""
    if any(_is_flat(place / name) for name in holding):
        return
    if len(holding) == 1:
        below = place / holding[0]
        while not _is_flat(below) and len(inside := _holding(below)) == 1 and not split_of(inside[0]):
            below /= inside[0]
        if not _is_flat(below):
            raise DataError(
                f"{place} has one folder, {holding[0]}/, and a set needs two classes; give folder:{below}, "
                f"which holds {some(_holding(below))}."
            )
        return
    alike = set.intersection(*(set(_holding(place / name)) for name in holding)) if holding else set()
    if len(alike) > 1:
        raise DataError(
            f"{place} has {some(holding)}, which hold the same folders ({some(sorted(alike))}): where they "
            f"are splits, call them train/ and val/ or give one of them, as folder:{place / holding[0]}; "
            f"where they are classes, give folder:{place}?splits=none."
        )


def _inside(place: Path) -> Path:
    """A split's folder, or the only one in it where that is called alike, as archives unpack."""
    inside = _holding(place)
    if len(inside) == 1 and not _is_flat(place):
        name = inside[0]
        if name.lower() == place.name.lower() or split_of(name) == split_of(place.name):
            return _inside(place / name)
    return place


def _entries(place: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted, but for hidden ones."""
    try:
        with os.scandir(place) as found:
            entries = sorted(
                (entry.name, entry.is_dir()) for entry in found if not is_passed_over(entry.name)
            )
    except OSError as error:
        raise DataError(
            f"{printable(place)} cannot be read: {error.strerror}; give a folder that can."
        ) from None
    return [name for name, is_dir in entries if is_dir], [name for name, is_dir in entries if not is_dir]


def _files(place: str) -> Iterator[str]:
    # Text and no Path objects, for there may be a million of them.
    for inside, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if not is_passed_over(name))
        yield from (f"{inside}{os.sep}{name}" for name in sorted(files) if not is_passed_over(name))


def _holding(place: Path) -> list[str]:
    """The folders in a folder that hold an image at whatever depth."""
    folders, _ = _entries(str(place))
    return [name for name in folders if any(map(_may_be_image, _files(str(place / name))))]


def _is_flat(place: Path) -> bool:
    """Whether a folder holds images itself, which do not just lie beside folders of images."""
    return any(map(_may_be_image, _entries(str(place))[1])) and len(_holding(place)) < 2


def _may_be_image(file: str) -> bool:
    suffix = Path(file).suffix.lower()
    return not suffix or suffix in image_suffixes()


@cache
def image_suffixes() -> frozenset[str]:
    """The endings of the names of images, lower case with the dot: those that Pillow knows, and some more."""
    from PIL import Image

    return frozenset(Image.registered_extensions()) | {".heic", ".heif", ".avif", ".jxl", ".dng", ".raw"}
