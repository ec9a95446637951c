"""What files and folders of training and of held-back images are called."""

from __future__ import annotations

import re

HELD_BACK = ("validation", "dev", "eval", "test")
"""The splits that no search sees; of several that are there the first is taken."""

_WORDS = {
    "train": "train", "training": "train", "trn": "train", "trainval": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "dev", "devel": "dev", "development": "dev",
    "eval": "eval", "evaluation": "eval",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
_JOINED = {word + end: split for word, split in _WORDS.items() for end in ("set", "data", "images", "split")}


def split_of(name: str) -> str | None:
    """`train`, one of HELD_BACK, or None: by the first word of a name that says so.

    Words are told apart by capitals, digits and signs, so that `seg_train`, `Training`, `TestImages` and
    `val2017` are splits and `trainer` and `latest` are none.
    """
    for word in re.split(r"[\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()):
        if split := _WORDS.get(word) or _JOINED.get(word):
            return split
    return None


def is_plain(name: str) -> bool:
    """Whether a name is a split's and nothing else."""
    return name.lower() in _WORDS


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is hidden or an operating system's own."""
    return name.startswith((".", "$")) or name in _SYSTEMS


_SYSTEMS = {"__MACOSX", "@eaDir", "#recycle", "lost+found", "System Volume Information", "__pycache__",
            "Thumbs.db", "desktop.ini", "Icon\r"}  # fmt: skip
