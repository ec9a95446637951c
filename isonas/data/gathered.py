"""Images that are decoded once, with what was left out of them and which are copies."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isonas.data.dataset import Dataset, Images
from isonas.data.preprocessing import DECODER, Fit
from isonas.data.source_text import printable, some
from isonas.data.store import Array, Chunks, cached, stored
from isonas.errors import DataError

Say = Callable[[str], None]
"""Told what was understood of a source, sentence by sentence."""

_POINTER = b"version https://git-lfs.github.com/spec/"
POINTERS = "Git LFS pointers"
NO_TRAINING_IMAGES = "of a class without training images"
FETCH = "fetch the content with `git lfs pull`"


@dataclass(frozen=True)
class Unusable:
    """Something that could not be decoded: its kind, under which it is counted, and the reason."""

    kind: str
    reason: str


@dataclass
class Tally:
    """What a decoder met: `digest` of each image that it kept, in order, and how many it left out."""

    digests: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def leave(self, kind: str, example: str = "", count: int = 1) -> None:
        """Count what was left out, `example` one of them."""
        self.left_out[kind] += count
        self.first = self.first or printable(example)


@dataclass(frozen=True)
class Gathered:
    """Decoded images, whose groups are those of the same content, and what was left out of them."""

    images: Images
    digests: npt.NDArray[np.uint64]
    left_out: dict[str, int]
    first: str


def is_pointer(content: bytes) -> bool:
    """Whether a file's beginning says that Git LFS left a pointer in its place."""
    return content.startswith(_POINTER)


def digest(content: bytes) -> int:
    """64 bits by which copies of an encoded image are known."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def unusable(content: bytes, reason: str, suffix: str = "") -> Unusable:
    """What is wrong with encoded bytes that a decoder refused for a `reason`."""
    if not content:
        return Unusable("empty", "empty")
    if is_pointer(content):
        return Unusable(POINTERS, "a Git LFS pointer, not the file")
    # Pillow prints the object that it was handed.
    reason = re.sub(r" <_io\.[^>]*>", "", reason)
    of = f" ({suffix.lower()})" if suffix else ""
    return Unusable(("no image" if "cannot identify" in reason else "damaged") + of, reason)


def gathered(cache: Path, key: str, doing: str, chunks: Callable[[Tally], Chunks]) -> Gathered:
    """The images of a key as `stored` keeps them, with the tally of what made them; raises as it does."""

    def arrays(tally: Tally) -> tuple[Array, ...]:
        kinds = tally.left_out.most_common()
        return (
            np.array(tally.digests, np.uint64),
            np.array([kind for kind, _ in kinds], np.str_),
            np.array([count for _, count in kinds], np.int64),
            np.array([tally.first], np.str_),
        )

    def tallied() -> Chunks:
        tally = Tally()
        yield from chunks(tally)
        # Before the pixels appear, so that who finds them finds it.
        cached(cache, f"{key}-tally", lambda: arrays(tally))

    def again() -> tuple[Array, ...]:
        tally = Tally()
        for _ in chunks(tally):
            pass
        return arrays(tally)

    images = stored(cache, key, doing, tallied)
    digests, kinds, counts, first = cached(cache, f"{key}-tally", again)
    _, group, copies = np.unique(digests, return_inverse=True, return_counts=True)
    groups = group.astype(np.int64) if len(copies) < len(digests) else None
    left_out = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
    return Gathered(replace(images, groups=groups), digests, left_out, str(first[0]))


def dataset_of(
    source: str,
    content: str,
    names: Callable[[int], str],
    train: Gathered,
    held_back: Gathered | None,
    fit: Fit,
    say: Say,
) -> Dataset:
    """The data set of a source's images, labelled by numbers of which `names` gives the names.

    Its classes are those that have training images, and no other is held back; what else there is to know
    of them is said. Raises DataError where two classes have one name.
    """
    numbers, labels, counts = np.unique(train.images.labels, return_inverse=True, return_counts=True)
    training = replace(train.images, labels=labels.astype(np.int64))
    class_names = tuple(names(int(number)) for number in numbers)
    if len(set(class_names)) < len(class_names):
        twice = Counter(class_names).most_common(1)[0][0]
        raise DataError(f"{source} has two classes that are called {twice!r}; rename one of them.")
    held = None
    if held_back is not None:
        held = replace(held_back.images, labels=np.searchsorted(numbers, held_back.images.labels))
    many = f"{len(class_names):,} class{'es' if len(class_names) != 1 else ''}"
    tested = f", {len(held):,} images held back" if held is not None else ""
    say(f"{many}: {some(class_names)}; {len(training):,} training images{tested}.")
    if alone := [name for name, count in zip(class_names, counts, strict=True) if count == 1]:
        say(f"of {some(alone)} there is one training image only; it is trained on and never validated.")
    for part, what in ((train, "training"), (held_back, "held-back")):
        if part is not None and part.left_out:
            _say_left_out(part, what, say)
    _say_copies(training, train, held_back, say)
    return Dataset(source, content, class_names, training, held, mirror=True, fit=fit, decoder=DECODER)


def _say_left_out(part: Gathered, what: str, say: Say) -> None:
    total = sum(part.left_out.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in part.left_out.items())
    first = f"; the first is {part.first}" if part.first else ""
    say(f"left out {total:,} of {total + len(part.images):,} {what} files or rows ({kinds}){first}.")


def _say_copies(training: Images, train: Gathered, held_back: Gathered | None, say: Say) -> None:
    if training.groups is not None:
        pairs = np.unique(np.stack([training.groups, training.labels]), axis=1)[0]
        different = len(pairs) - len(np.unique(pairs))
        otherwise = f", {different:,} of them under another class" if different else ""
        copies = len(training) - len(np.unique(training.groups))
        say(
            f"{copies:,} training images are copies of others{otherwise}; copies stay on one side of a split."
        )
    if held_back is not None and (known := int(np.isin(held_back.digests, train.digests).sum())):
        say(f"{known:,} of {len(held_back.images):,} held-back images are training images too.")
