"""Which Parquet files are a data set's, and of which split."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from isonas.data.gathered import Say
from isonas.data.source_text import some
from isonas.data.splits import HELD_BACK, is_passed_over, split_of
from isonas.errors import DataError, UsageError


def files_at(path: str) -> list[Path]:
    """The Parquet file at a path, those in a folder, or what a glob matches; raises UsageError for none."""
    place = Path(path)
    if place.is_dir():
        found = [
            file
            for file in sorted(place.rglob("*.parquet"))
            if file.is_file() and not any(map(is_passed_over, file.relative_to(place).parts))
        ]
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


def split_files(files: list[Path], path: str, say: Say) -> tuple[list[Path], list[Path]]:
    """Training files and held-back ones, as their names or those of their folders say.

    Which are for training and which for neither is told to `say`. Raises DataError where none is for
    training, or where files are there more than once.
    """
    root = Path(path)
    by_name: dict[str, list[Path]] = {}
    for file in files:
        folders = file.relative_to(root).parts[-2::-1] if root.is_dir() else ()
        found = filter(None, map(split_of, (file.stem, *folders)))
        by_name.setdefault(next(found, ""), []).append(file)
    train = by_name.get("train", []) or by_name.get("", [])
    if not train:
        raise DataError(
            f"{path} holds only {' and '.join(sorted(by_name))} files; training images are in files "
            "named train….parquet (or files that name no split)."
        )
    held_back = next((by_name[name] for name in HELD_BACK if name in by_name), [])
    for part in (train, held_back):
        _check_once(part, root)
    told = f"training images are those of {shown(train, path)}"
    passed_over = [file for file in files if file not in {*train, *held_back}]
    say(told + (f"; passed over is {shown(passed_over, path)}" if passed_over else "") + ".")
    return train, held_back


def shown(files: list[Path], path: str) -> str:
    """The first of some files at a path, for a sentence."""
    root = Path(path)
    return some([str(file.relative_to(root) if root.is_dir() else file.name) for file in files], 2)


def _check_once(files: list[Path], root: Path) -> None:
    """Refuse several configurations or copies of a set, which have files of the same names."""
    places: dict[str, list[Path]] = {}
    for file in files if root.is_dir() else ():
        places.setdefault(re.sub(r"-of-\d+", "", file.name), []).append(file.relative_to(root).parent)
    for name, alike in places.items():
        parts = itertools.zip_longest(*(place.parts for place in alike), fillvalue="")
        differing = next((set(part) for part in parts if len(set(part)) > 1), set())
        # A part's number, or a column's value as Hive writes it, tells no copies apart.
        if any(not folder.isdecimal() and "=" not in folder for folder in differing):
            raise DataError(
                f"{root} has a {name} in {some([f'{place}/' for place in alike])}, which may be copies or "
                f"configurations of the same images; give one of them, as parquet:{root / alike[-1]}, or a "
                "glob of all that are meant."
            )
